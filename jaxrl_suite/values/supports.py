"""The interval that a head's distribution lies on: given as LO,HI, or taken from the data set's returns.

The rule of `auto`: between the ends and the least and the greatest return lie at least 3 sigma + w, with w the width of
a bin and sigma that of HL-Gauss's Gaussian (0 for heads on atoms). Nearer to an end the Gaussian is cut, its mean is
wrong by up to 0.68 w at sigma = 0.75 w, and bootstrapping multiplies that by 1 / (1 - gamma). With n cells between the
ends of which p lie on either side of the returns, w is the range of the returns over n - 2p.

Returns are those of the data set with its own discount (0.99 as loaded). Values can lie outside of them: those of a
better policy or a larger discount, and those of a maximum-entropy policy, which add alpha times the entropy to come.
Runs log how many targets were clipped for such reasons; a support of your own is taken as it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxrl_suite.errors import UserError
from jaxrl_suite.types import Array
from jaxrl_suite.values.projections import Support

AUTO, MIDDLE = "auto", "middle"
# Bins that the data's returns should span; in our mazes they spanned five where a support was ten times too wide.
FEWEST = 3
CLIPPED = 0.05  # share of clipped targets from which on a run complains


class Geometry(NamedTuple):
    """How a head divides its support."""

    cells: int  # widths of a bin between the ends
    sigma: float = 0.0  # of the Gaussian that stands for a number, in such widths

    @property
    def pad(self) -> float:
        """Cells between an end and what the head must represent without bias."""
        return 3.0 * self.sigma + 1.0


def parse(text: str) -> tuple[float, float] | None:
    """The ends that `LO,HI` gives; None for auto.

    Raises:
        UserError: neither, or ends that enclose nothing.
    """
    if text == AUTO:
        return None
    try:
        low, high = map(float, re.fullmatch(r"([^,]+),([^,]+)", text).groups())  # type: ignore[union-attr]
    except (AttributeError, ValueError):
        raise UserError(f"--support={text} is neither auto nor two numbers LO,HI, such as --support=0,100") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"--support={text} encloses no value; give finite numbers LO,HI with LO below HI")
    return low, high


def parse_value(text: str) -> float | None:
    """The number that an untrained head begins at; None for the middle of its support.

    Raises:
        UserError: neither.
    """
    if text == MIDDLE:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"--initial-value={text} is neither middle nor a number, such as 0")
    return value


def check_value(text: str, support: str, without: bool) -> None:
    """Refuse a value to begin at that cannot be; `without`: the head has no support.

    Raises:
        UserError: it, or the support, cannot be read; it lies outside of given ends; or nothing can be made of it.
    """
    value, ends = parse_value(text), parse(support)
    if value is None:
        return
    if without:
        raise UserError(f"--initial-value={text} is for heads with bins; this one begins near 0: leave the option out")
    if ends and not ends[0] < value < ends[1]:
        raise UserError(f"--initial-value={text} does not lie between the ends of --support={support}")


def of(text: str, geometry: Geometry, option: str) -> Callable[[Any], Support]:
    """Returns of the data `[n]` -> the support that `text` asks for.

    Raises:
        UserError: the text cannot be read, or leaves no bin between the padding.
    """
    ends = parse(text)
    if ends:
        return lambda returns: Support(*map(jnp.float32, ends))
    if geometry.cells - 2 * geometry.pad < 1:
        least = math.ceil(2 * geometry.pad + 1) + (0 if geometry.sigma else 1)
        raise UserError(f"{option} leaves no bin between the padding of --support=auto; give at least {least} bins")

    def auto(returns: Any) -> Support:
        if returns is None:
            raise UserError("--support=auto needs a data set's returns, and there are none; give --support=LO,HI")
        return padded(returns, geometry)

    return auto


def padded(returns: Array, geometry: Geometry) -> Support:
    """The support of the rule above. Returns that are not known (NaN) are left out; if all are alike, the range is
    their size, at least 1."""
    known = jnp.isfinite(returns)
    low = jnp.min(jnp.where(known, returns, jnp.inf)).astype(jnp.float32)
    high = jnp.max(jnp.where(known, returns, -jnp.inf)).astype(jnp.float32)
    middle = (low + high) / 2.0
    span = jnp.where(high > low, high - low, jnp.maximum(jnp.abs(middle), 1.0))
    half = span * (0.5 + geometry.pad / (geometry.cells - 2.0 * geometry.pad))
    return Support(middle - half, middle + half)


def clipped_complaint(share: float) -> str:
    """What is wrong with a support that clips this share of the targets; empty where nothing is."""
    if not share > CLIPPED:
        return ""
    return (
        f"{share:.0%} of the critics' targets lie outside the support of their bins and were clipped; give a wider "
        "--support=LO,HI"
    )


def complaint(text: str, bins: int, returns: Any) -> str:
    """What is wrong with ends given for data of these returns, as a line for the user; empty where nothing is.

    `bins` is how many there are, or 0 where they are not equally wide.
    """
    ends, returns = parse(text), np.asarray(returns)
    returns = returns[np.isfinite(returns)]
    if ends is None or not len(returns):
        return ""
    low, high = ends
    least, most = float(np.min(returns)), float(np.max(returns))
    outside, width = int(np.sum((returns < low) | (returns > high))), (high - low) / max(bins, 1)
    if outside:
        return (
            f"--support={text} is narrower than the data: their returns go from {least:,.4g} to {most:,.4g}, and "
            f"{outside:,} of {len(returns):,} lie outside; values there cannot be represented"
        )
    if bins and 0 < most - least < FEWEST * width:
        return (
            f"--support={text} is far wider than the data: their returns go from {least:,.4g} to {most:,.4g}, less "
            f"than {FEWEST} of its {bins} bins of {width:,.4g}; give ends nearer to them, or --support=auto"
        )
    return ""
