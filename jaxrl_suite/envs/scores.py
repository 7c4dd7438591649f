"""D4RL's reference returns and normalised scores (Fu et al. 2020, arXiv 2004.07219).

A score is 100 (R - min) / (max - min): 0 for a random policy, 100 for the expert. The references are the same for
all versions and all kinds of data sets of a task. Ant's are of Ant-v2, which observes 111 numbers and pays for contact
forces; Ant-v4 does neither.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from jaxrl_suite.types import Spec

REFERENCES = {  # task: (return of the random policy, return of the expert)
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
}


def _references(spec: Spec) -> tuple[float, float]:
    if spec.score_min is None or spec.score_max is None:
        return math.nan, math.nan
    return spec.score_min, spec.score_max


def normalised_score(spec: Spec, ret: ArrayLike) -> np.ndarray:
    """Scores of undiscounted returns `[...]`; NaN where the task has no references."""
    low, high = _references(spec)
    return np.asarray(100.0 * (np.asarray(ret, np.float64) - low) / (high - low))


def normalised_spread(spec: Spec, std: ArrayLike) -> np.ndarray:
    """A spread of returns (standard deviation, half width of an interval) on the scale of scores.

    A spread has no origin: it is scaled, and `min` is not subtracted.
    """
    low, high = _references(spec)
    return np.asarray(100.0 * np.asarray(std, np.float64) / (high - low))
