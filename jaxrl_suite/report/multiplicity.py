"""Several claims at once: Holm's step-down correction.

Holm (1979), "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6. It bounds
the probability of one or more false claims in the family, whatever the dependence between its tests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p-values [k] of a family with `p_values` [k]: reject where the adjusted value is at most alpha.

    The i-th smallest of k (from 0 on) becomes the largest of (k - j) p_j over j <= i, at most 1. NaN, a claim that
    could not be tested, stays NaN and counts as a member of the family, whose size was fixed when it was planned.

    Raises:
        ValueError: `p_values` is no vector of probabilities.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or bool(((p < 0.0) | (p > 1.0)).any()):
        raise ValueError(f"p-values are a vector of numbers from 0 to 1, not {p_values!r}")
    order = np.argsort(p)  # NaN last, so that it multiplies the others but never sets them
    stepped = np.maximum.accumulate(np.arange(p.size, 0, -1) * p[order])
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
