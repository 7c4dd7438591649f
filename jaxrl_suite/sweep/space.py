"""Search spaces: ranges and lists of values for the settings that a search varies. Pure functions of text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.sweep import grid

OPTION = "--space"


class Range(NamedTuple):
    """All numbers from `low` to `high`, both included; whole ones where both ends are `int`."""

    low: float
    high: float
    log: bool = False  # drawn evenly on a logarithmic scale


Space = dict[str, Range | tuple[str, ...]]  # field -> a range, or the texts of the values to choose from


def parse(words: Sequence[str], defaults: Mapping[str, Any]) -> Space:
    """`critic_lr=1e-4:1e-2:log`, `critics=2:20`, `hidden=64x64,256x256` -> what each setting may be.

    Args:
        words: name=low:high, name=low:high:log or name=value,value.
        defaults: `grid.fields` of the algorithm; a range has the type of the field's default.

    Raises:
        UserError: no words, a word that cannot be read, an unknown field, or a range that the field cannot have.
    """
    if not words:
        raise UserError(f"a search needs settings to vary; give {OPTION} name=low:high name=value,value")
    space: Space = {}
    for name, values in grid.parse(words, OPTION):
        if name not in defaults:
            raise unknown("setting", name, defaults, "(see --help of --algo)")
        is_range = len(values) == 1 and ":" in values[0]
        space[name] = _range(name, values[0], defaults[name]) if is_range else values
    return space


def _range(name: str, text: str, default: Any) -> Range:
    given = f"{OPTION} {name}={text}"
    if isinstance(default, bool) or not isinstance(default, int | float):
        raise UserError(
            f"{given}: {name} is not a number (its default is {default!r}); give values with commas between"
        )
    match = re.fullmatch(r"([^:]+):([^:]+)(:log)?", text)
    try:
        low, high = (type(default)(end) for end in match.groups()[:2]) if match else (math.nan, math.nan)
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high)):
        kind = "whole numbers" if isinstance(default, int) else "numbers"
        raise UserError(f"{given} is not a range of {kind}; expected low:high or low:high:log")
    if low >= high:
        raise UserError(f"{given} does not go up; give the lower end first")
    log = match is not None and match[3] is not None
    if log and low <= 0:
        raise UserError(f"{given}: a logarithmic range begins above 0")
    return Range(low, high, log)


def edges(space: Space) -> list[dict[str, str]]:
    """One setting at an end of its range, or at one of its values, each: what an experiment refuses shows here."""
    ends = {
        name: (text(values.low), text(values.high)) if isinstance(values, Range) else values
        for name, values in space.items()
    }
    return [{name: end} for name, texts in ends.items() for end in texts]


def text(value: float | str) -> str:
    """A value as on a command line; numbers read back to the same bits."""
    return value if isinstance(value, str) else repr(value)


def describe(space: Space) -> dict[str, str]:
    """The space as text, the same for the same space."""
    return {
        name: ":".join([text(values.low), text(values.high), *(["log"] if values.log else [])])
        if isinstance(values, Range)
        else ",".join(values)
        for name, values in sorted(space.items())
    }
