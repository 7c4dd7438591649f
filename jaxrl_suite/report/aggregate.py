"""Aggregates of scores over runs and tasks, as point estimates.

Definitions: Agarwal et al. (2021), "Deep Reinforcement Learning at the Edge of the Statistical Precipice", sections 4.2
and 4.3. Scores are arrays [..., runs, tasks] on one scale (for instance D4RL's 0 to 100); axes in front are kept, so
that a bootstrap evaluates many resamples at once. NaN among the scores of an aggregate gives NaN: no missing run is
dropped here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxrl_suite.report.stats import middle_mean

Array = NDArray[np.float64]


def mean(scores: ArrayLike) -> Array:
    """Mean over all runs and tasks of `scores` [..., runs, tasks] -> [...]."""
    return as_scores(scores).mean(axis=(-2, -1))


def median(scores: ArrayLike) -> Array:
    """Median over tasks of each task's mean over runs, of `scores` [..., runs, tasks] -> [...]."""
    return np.median(as_scores(scores).mean(axis=-2), axis=-1)


def iqm(scores: ArrayLike) -> Array:
    """Interquartile mean of all runs and tasks together, of `scores` [..., runs, tasks] -> [...]."""
    values = as_scores(scores)
    return middle_mean(values.reshape(*values.shape[:-2], -1))


def optimality_gap(scores: ArrayLike, target: float) -> Array:
    """How far `scores` [..., runs, tasks] fall short of `target` on average -> [...]; what exceeds it counts nothing.

    `target` has the unit of the scores: 100 for D4RL's normalised score, 1 where the reference policy scores 1.
    """
    return target - np.minimum(as_scores(scores), target).mean(axis=(-2, -1))


def probability_of_improvement(ours: ArrayLike, theirs: ArrayLike) -> Array:
    """How often a run of `ours` [..., runs, tasks] beats one of `theirs` [..., other runs, tasks] -> [...] in [0, 1].

    A tie counts one half (the Mann-Whitney statistic over the number of pairs); tasks weigh the same.

    Raises:
        ValueError: the two have different numbers of tasks.
    """
    a, b = as_scores(ours), as_scores(theirs)
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"both need the same tasks, not {a.shape[-1]} and {b.shape[-1]}")
    pair, other = a[..., :, None, :], b[..., None, :, :]
    wins = ((pair > other) + 0.5 * (pair == other)).mean(axis=(-3, -2, -1))
    return np.where(_missing(a) | _missing(b), np.nan, wins)


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> Array:
    """Share of runs of `scores` [..., runs, tasks] strictly above each of `thresholds` [k] -> [..., k]."""
    values = as_scores(scores)
    above = [(values > threshold).mean(axis=(-2, -1)) for threshold in np.atleast_1d(thresholds)]
    return np.where(_missing(values)[..., None], np.nan, np.stack(above, axis=-1))


def as_scores(scores: ArrayLike) -> Array:
    """`scores` as float64.

    Raises:
        ValueError: they are no array [..., runs, tasks] with at least one run and one task.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim < 2 or 0 in values.shape[-2:]:
        raise ValueError(f"scores need the shape [..., runs, tasks], not {list(values.shape)}")
    return values


def _missing(values: Array) -> NDArray[np.bool_]:
    """Whether any score of an aggregate is NaN, which comparisons would take for a loss."""
    return np.asarray(np.isnan(values).any(axis=(-2, -1)))
