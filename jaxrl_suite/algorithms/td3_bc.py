"""TD3+BC: a minimalist approach to offline RL (Fujimoto and Gu, NeurIPS 2021, arXiv 2106.06860).

TD3 whose actor is also drawn to the data set's actions. With lambda = alpha / mean |Q_1(s, pi(s))|, a constant to the
gradient, the actor minimises

    -lambda mean Q_1(s, pi(s)) + mean (pi(s) - a)^2,

the second mean being over rows and action dimensions. Observations are standardised.

Deviations: those of `deterministic`. The `quick` preset has smaller networks, larger steps and a larger tau, to learn
within its 10,000 updates; nothing in it was tuned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_suite.algorithms import deterministic
from jaxrl_suite.types import Algorithm, Array, Spec


@dataclass(frozen=True)
class Config(deterministic.Config):
    """TD3+BC."""

    alpha: float = 2.5
    """Weight of the value, on its own scale, against the distance to the data set's actions."""


QUICK = Config(updates=10_000, evaluations=5, hidden=(128, 128), tau=0.01, actor_lr=1e-3, critic_lr=1e-3)
PRESETS = {
    "smoke": replace(QUICK, updates=100, evaluations=2, hidden=(32, 32)),
    "quick": QUICK,
    "paper": Config(),
}


@struct.dataclass
class Hypers(deterministic.Hypers):
    """Traced scalars."""

    alpha: Any


def trusted(values: Array) -> Array:
    """The first critic's value."""
    return values[0]


def actor_loss(hypers: Hypers, q: Array, action: Array, data_action: Array) -> Array:
    """The actor's objective; lambda makes it blind to the scale of rewards."""
    weight = hypers.alpha / jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
    return -weight * jnp.mean(q) + jnp.mean(jnp.square(action - data_action))


def make(spec: Spec, config: Config) -> Algorithm:
    """TD3+BC for `spec`."""
    return deterministic.make(spec, config, Hypers, deterministic.Idea(trusted, actor_loss))
