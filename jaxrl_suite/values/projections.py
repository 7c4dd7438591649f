"""A value as probabilities over the bins of a support, and back.

Two geometries over m bins between the ends `low` and `high` of a support:

- edges: m + 1 of them from low to high, w = (high - low) / m, a bin stands for its middle (HL-Gauss). No mean lies
  within w / 2 of an end.
- atoms: m of them from low to high, w = (high - low) / (m - 1), a bin stands for its atom (two-hot, C51).

Everything is computed in units of w from `low`, in float32, after the value was clipped to the ends: farther out a
Gaussian has no mass on the support, and its renormalised probabilities would be zeros or NaN. A NaN stays one.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_suite.types import Array


class Support(NamedTuple):
    """The ends of a head's support: its outer edges, or its outer atoms."""

    low: Array
    high: Array


def clip(y: Array, support: Support) -> Array:
    """The value that the support can hold."""
    return jnp.clip(y, support.low, support.high)


def centres(support: Support, bins: int) -> Array:
    """The middles `[bins]` of the bins between edges."""
    return support.low + (support.high - support.low) * ((jnp.arange(bins) + 0.5) / bins)


def atoms(support: Support, bins: int) -> Array:
    """Evenly spaced atoms `[bins]`."""
    return support.low + (support.high - support.low) * (jnp.arange(bins) / (bins - 1))


def symexp_atoms(support: Support, bins: int) -> Array:
    """Atoms `[bins]` that are evenly spaced after symlog."""
    return symexp(atoms(Support(symlog(support.low), symlog(support.high)), bins))


def hl_gauss_probs(y: Array, support: Support, bins: int, sigma_ratio: float = 0.75) -> Array:
    """Mass `[..., bins]` in each bin of a Gaussian at `y` `[...]`, cut to the support: HL-Gauss (Farebrother et al.
    2024, arXiv 2403.03950, appendix A) with sigma = sigma_ratio * w."""
    position = bins * (clip(y, support) - support.low) / (support.high - support.low)
    below = jax.scipy.special.erf((jnp.arange(bins + 1) - position[..., None]) / (jnp.sqrt(2.0) * sigma_ratio))
    # The error function of float32 does not rise everywhere: next to its limits a difference can be -6e-8.
    mass = jnp.maximum(below[..., 1:] - below[..., :-1], 0.0)
    return mass / (below[..., -1:] - below[..., :1])


def two_hot(y: Array, support: Support, bins: int) -> Array:
    """Mass `[..., bins]` of `y` `[...]` on the two atoms around it, such that the mean is `y`."""
    position = (bins - 1) * (clip(y, support) - support.low) / (support.high - support.low)
    return _hats(position, bins)


def two_hot_between(y: Array, points: Array) -> Array:
    """Two-hot on atoms `points` `[bins]` that rise, evenly or not."""
    y = jnp.clip(y, points[0], points[-1])[..., None]
    gaps = jnp.diff(points)
    rising = jnp.concatenate([jnp.ones_like(y), (y - points[:-1]) / gaps], axis=-1)  # from the atom before
    falling = jnp.concatenate([(points[1:] - y) / gaps, jnp.ones_like(y)], axis=-1)  # to the atom after
    return jnp.maximum(jnp.minimum(rising, falling), 0.0)


def c51_project(probs: Array, moved: Array, support: Support) -> Array:
    """Masses `probs` `[..., bins]` that lie at `moved` `[..., bins]`, each shared between the two atoms around it
    (Bellemare et al. 2017, arXiv 1707.06887, algorithm 1): the mean stays, but for what is clipped."""
    bins = probs.shape[-1]
    return jnp.einsum("...j,...ji->...i", probs, two_hot(moved, support, bins))


def _hats(position: Array, bins: int) -> Array:
    """Mass on whole numbers 0 to bins - 1: one less the distance, where that is positive."""
    return jnp.maximum(1.0 - jnp.abs(position[..., None] - jnp.arange(bins)), 0.0)


# --- Logits ---
def _below_the_greatest(logits: Array) -> Array:
    """Logits less the greatest of them, whose exponential is finite.

    The clip changes no number. It keeps XLA's compiler for CPUs from fusing the reduction with the matrix product that
    made the logits: the product would take twice as long.
    """
    return logits - jax.lax.stop_gradient(jnp.max(jnp.clip(logits, -3e38, 3e38), axis=-1, keepdims=True))


def softmax(logits: Array) -> Array:
    """Probabilities `[..., bins]`."""
    mass = jnp.exp(_below_the_greatest(logits))
    return mass / jnp.sum(mass, axis=-1, keepdims=True)


def log_softmax(logits: Array) -> Array:
    """The logarithm of softmax."""
    lower = _below_the_greatest(logits)
    return lower - jnp.log(jnp.sum(jnp.exp(lower), axis=-1, keepdims=True))


def mean(logits: Array, points: Array) -> Array:
    """The mean `[...]` of softmax(logits) at `points` `[bins]`."""
    mass = jnp.exp(_below_the_greatest(logits))
    return jnp.sum(mass * points, axis=-1) / jnp.sum(mass, axis=-1)


def tilt(points: Array, value: Array | float) -> Array:
    """Logits `[bins]`, linear in the rising `points` `[bins]`, whose mean is `value`: of all distributions with that
    mean the one of the greatest entropy. A value at or beyond the outer points is moved inwards by a thousandth."""
    place = (points - points[0]) / (points[-1] - points[0])
    goal = jnp.clip((value - points[0]) / (points[-1] - points[0]), 1e-3, 1.0 - 1e-3)

    def halve(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = ends
        slope = (low + high) / 2.0
        above = mean(slope * place, place) > goal
        return (jnp.where(above, low, slope), jnp.where(above, slope, high)), None

    steepest = jnp.float32(1e6)  # the finest atoms lie next to each other around zero, far from the ends
    (low, high), _ = jax.lax.scan(halve, (-steepest, steepest), length=60)
    return (low + high) / 2.0 * place


def cross_entropy(logits: Array, probs: Array) -> Array:
    """-sum p log softmax(logits), `[...]`; its gradient by a logit is softmax - p."""
    return -jnp.sum(probs * log_softmax(logits), axis=-1)


def entropy(probs: Array) -> Array:
    """The floor of the cross-entropy, `[...]`."""
    return jnp.sum(jax.scipy.special.entr(probs), axis=-1)


def symlog(x: Array) -> Array:
    """sign(x) log(1 + |x|)."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: Array) -> Array:
    """The inverse of symlog."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))
