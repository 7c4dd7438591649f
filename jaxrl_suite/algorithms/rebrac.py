"""ReBRAC: revisiting the minimalist approach to offline RL (Tarasov et al., NeurIPS 2023, arXiv 2305.09836).

TD3+BC with the distance to the data set's actions in the target too, each with a weight of its own, and layer
normalisation in deeper critics. With Q = min_j Q_j and 1 / mean |Q(s, pi(s))| a constant to the gradient, the actor
minimises, and the next value loses,

    mean (actor_bc |pi(s) - a|^2 - Q(s, pi(s)) / mean |Q(s, pi(s))|)    and    critic_bc |a' - a'_D|^2,

where a' is the smoothed action of the target actor, a'_D the action that follows in the data, and distances are summed
over action dimensions. The last row of an episode has no action that follows: nothing is taken off its next value.
(Public code drops such rows, or takes another episode's first action.)

Deviations: those of `deterministic`; target networks follow the online ones after their step, not before it. The paper
chooses `actor_bc` and `critic_bc` per data set: those of a data set without a published row are the most common ones
here. The `quick` preset has smaller networks and batches and a larger tau, to learn within its 10,000 updates; nothing
in it was tuned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_suite.algorithms import deterministic
from jaxrl_suite.types import Algorithm, Array, Dataset, Spec


@dataclass(frozen=True)
class Config(deterministic.Config):
    """ReBRAC."""

    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers."""
    batch: int = 1024
    """Rows per gradient update."""
    normalise: bool = False
    """Standardise observations by the data set's mean and standard deviation."""
    layer_norm: bool = True
    """Layer normalisation in the critics."""
    actor_lr: float = 1e-3
    """Adam's step size for the actor."""
    critic_lr: float = 1e-3
    """Adam's step size for the critics."""
    actor_bc: float = 0.01
    """Weight of the distance to the data set's actions in the actor's loss."""
    critic_bc: float = 0.01
    """Weight of the distance to the data set's next actions in the target."""


QUICK = Config(updates=10_000, evaluations=5, hidden=(128, 128), batch=256, tau=0.01, actor_bc=0.05, critic_bc=0.05)
PRESETS = {
    "smoke": replace(QUICK, updates=100, evaluations=2, hidden=(32, 32)),
    "quick": QUICK,
    "paper": Config(),
}


@struct.dataclass
class Hypers(deterministic.Hypers):
    """Traced scalars."""

    actor_bc: Any
    critic_bc: Any


def trusted(values: Array) -> Array:
    """The least of all critics' values."""
    return jnp.min(values, axis=0)


def actor_loss(hypers: Hypers, q: Array, action: Array, data_action: Array) -> Array:
    """The values' scale is taken out of them, not put into the weight of the distance."""
    weight = 1.0 / jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
    return jnp.mean(hypers.actor_bc * jnp.sum(jnp.square(action - data_action), axis=-1) - weight * q)


def penalty(hypers: Hypers, next_action: Array, rows: Dataset) -> Array:
    """The weighted distance to the action that follows in the data; none where none follows."""
    distance = jnp.sum(jnp.square(next_action - rows.next_action), axis=-1)
    # A terminal row's next value counts for nothing anyway; one that ran out of time has zeros for the next action.
    return hypers.critic_bc * jnp.where(rows.truncated, 0.0, distance)


def make(spec: Spec, config: Config) -> Algorithm:
    """ReBRAC for `spec`."""
    return deterministic.make(spec, config, Hypers, deterministic.Idea(trusted, actor_loss, penalty))
