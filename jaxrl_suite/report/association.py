"""Correlations with intervals by Fisher's z-transformation.

z = artanh(r) is close to normal with a standard error that hardly depends on the correlation: 1 / sqrt(n - 3) for
Pearson's r of a bivariate normal sample (Fisher 1921). For Spearman's the same transformation is an approximation; its
standard error here is sqrt((1 + r^2 / 2) / (n - 3)) (Bonett and Wright 2000, "Sample size requirements for estimating
Pearson, Kendall and Spearman correlations", Psychometrika 65).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as scipy_stats

from jaxrl_suite.report.stats import FEWEST_RUNS, LEVEL, NAN, Interval, check_level


def pearson(x: ArrayLike, y: ArrayLike, level: float = LEVEL) -> Interval:
    """Pearson's correlation of pairs `x`, `y` [n] with its interval, exact in the limit for bivariate normal pairs.

    A constant sample, NaN, or fewer than two pairs give NaN; fewer than four pairs give no interval.

    Raises:
        ValueError: `x` and `y` are not vectors of one length, or `level` is no confidence level.
    """
    a, b = _pairs(x, y)
    r = _correlation(a, b)
    return _fisher(r, a.size, 1.0, level) if a.size > 3 else Interval(r, NAN, NAN, a.size)


def spearman(x: ArrayLike, y: ArrayLike, level: float = LEVEL) -> Interval:
    """Spearman's rank correlation of pairs `x`, `y` [n] with its approximate interval; ties share their mean rank.

    A constant sample, NaN, or fewer than two pairs give NaN. There is no interval below ten pairs, where it covers as
    little as 62%, nor for equal or opposite orders (r = 1 or -1), where the transformation would claim certainty.

    Raises:
        ValueError: `x` and `y` are not vectors of one length, or `level` is no confidence level.
    """
    a, b = _pairs(x, y)
    known = bool(np.isfinite(a).all() and np.isfinite(b).all())
    r = _correlation(scipy_stats.rankdata(a), scipy_stats.rankdata(b)) if known else NAN
    if a.size < FEWEST_RUNS or not abs(r) < 1.0 - 1e-12:
        return Interval(r, NAN, NAN, a.size)
    return _fisher(r, a.size, 1.0 + r**2 / 2.0, level)


def _pairs(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"a correlation needs two vectors of one length, not {list(a.shape)} and {list(b.shape)}")
    return a, b


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The cosine between the centred samples; NaN where it is not defined."""
    if a.size < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()) or any(x.min() == x.max() for x in (a, b)):
        return NAN
    # Scaled before centring and before squaring, so that neither huge nor tiny values leave the range of a float.
    first, second = (x / np.abs(x).max() for x in (a, b))
    first, second = (x - x.mean() for x in (first, second))
    first, second = (x / np.abs(x).max() for x in (first, second))
    cosine = float(first @ second / math.sqrt((first @ first) * (second @ second)))
    return min(1.0, max(-1.0, cosine))


def _fisher(r: float, n: int, inflation: float, level: float) -> Interval:
    """The interval of `r` whose z has the variance inflation / (n - 3)."""
    half = float(scipy_stats.norm.ppf(0.5 + check_level(level) / 2.0)) * math.sqrt(inflation / (n - 3))
    if not abs(r) < 1.0:  # exactly on a line, or not defined
        return Interval(r, r, r, n)
    centre = math.atanh(r)
    return Interval(r, math.tanh(centre - half), math.tanh(centre + half), n)
