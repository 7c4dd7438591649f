"""Small-sample statistics of independent runs (numpy and scipy only).

With fewer than ten runs a percentile bootstrap covers clearly less than it claims, so means and differences of means
carry Student t-intervals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as scipy_stats

LEVEL = 0.95
FEWEST_RUNS = 10  # below it, intervals that rest on large samples (bootstrap, Spearman) cover too little to be shown
NAN = float("nan")


class Interval(NamedTuple):
    """An estimate with its confidence bounds; the bounds are NaN where there is no interval."""

    estimate: float
    low: float
    high: float
    n: int  # independent observations behind the estimate

    @property
    def bounded(self) -> bool:
        """Whether both bounds are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)


def mean_interval(x: ArrayLike | Iterable[float], level: float = LEVEL) -> Interval:
    """Mean of `x` [n] with its t-interval. One value has no interval; NaN in `x` gives NaN."""
    values = _vector(x)
    n = values.size
    if n == 0:
        return Interval(NAN, NAN, NAN, 0)
    error = values.std(ddof=1) / math.sqrt(n) if n > 1 else NAN
    return _t_interval(float(values.mean()), error, n - 1, n, level)


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> Interval:
    """Mean of a - b [n] with its t-interval; row i of both comes from the same seed. `n` counts pairs."""
    first, second = _vector(a), _vector(b)
    if first.shape != second.shape:
        raise ValueError(f"a paired difference needs equally many values, not {first.size} and {second.size}")
    return mean_interval(first - second, level)


def difference(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> Interval:
    """Difference of the means of two independent samples with Welch's t-interval. `n` counts both samples."""
    first, second = _vector(a), _vector(b)
    n = first.size + second.size
    if min(first.size, second.size) == 0:
        return Interval(NAN, NAN, NAN, n)
    estimate = float(first.mean() - second.mean())
    if min(first.size, second.size) == 1:
        return Interval(estimate, NAN, NAN, n)
    parts = np.array([x.var(ddof=1) / x.size for x in (first, second)])  # squared standard error of each mean
    total = float(parts.sum())
    if total == 0.0:  # both samples are constant
        return Interval(estimate, estimate, estimate, n)
    # Welch-Satterthwaite in terms of the shares, so that tiny or huge variances neither under- nor overflow.
    share = parts / total
    freedom = float(1.0 / np.sum(share**2 / np.array([first.size - 1, second.size - 1])))
    return _t_interval(estimate, math.sqrt(total), freedom, n, level)


def iqm(x: ArrayLike | Iterable[float]) -> float:
    """Interquartile mean: the mean after a quarter of the values (rounded down) is cut off at either end."""
    values = _vector(x)
    return float(middle_mean(values)) if values.size else NAN


def middle_mean(values: ArrayLike) -> NDArray[np.float64]:
    """Interquartile means of `values` [..., n] over the last axis, n >= 1 -> [...]; NaN in a slice gives NaN."""
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
    cut = ordered.shape[-1] // 4
    means = ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)
    # Sorted last, NaN would be cut off without a word.
    return np.where(np.isnan(ordered[..., -1]), NAN, means)


def p_value(x: ArrayLike | Iterable[float], null: float = 0.0) -> float:
    """Two-sided p-value of Student's t-test that the mean of `x` [n] is `null`; for pairs, `x` holds the differences.

    It is below 1 - level exactly where `mean_interval` at that level leaves `null` out. One value, or NaN, gives NaN.
    """
    values = _vector(x)
    n = values.size
    if n < 2:
        return NAN
    distance, error = abs(float(values.mean()) - null), float(values.std(ddof=1)) / math.sqrt(n)
    if error == 0.0:  # all values are the same
        return 1.0 if distance == 0.0 else 0.0
    return 2.0 * float(scipy_stats.t.sf(distance / error, n - 1))


def check_level(level: float) -> float:
    """A confidence level, if it is one.

    Raises:
        ValueError: it does not lie strictly between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"a confidence level lies strictly between 0 and 1, not at {level}")
    return level


def _vector(x: ArrayLike | Iterable[float]) -> NDArray[np.float64]:
    """`x` as a flat float64 vector."""
    return np.asarray(x if hasattr(x, "__len__") else list(x), dtype=np.float64).ravel()  # type: ignore[arg-type]


def _t_interval(estimate: float, error: float, freedom: float, n: int, level: float) -> Interval:
    """The estimate plus and minus the t-quantile times its standard error."""
    upper = 0.5 + check_level(level) / 2.0
    if not math.isfinite(error):
        return Interval(estimate, NAN, NAN, n)
    half = float(scipy_stats.t.ppf(upper, freedom)) * float(error)
    return Interval(estimate, estimate - half, estimate + half, n)


def effect_size(a: np.ndarray, b: np.ndarray) -> float:
    """Cohen's d: the mean of `a` less that of `b`, in pooled standard deviations; NaN where one has no values."""
    if not (a.size and b.size):
        return math.nan
    pooled = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2.0)
    return float((a.mean() - b.mean()) / max(pooled, 1e-12))
