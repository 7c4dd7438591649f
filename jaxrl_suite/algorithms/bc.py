"""BC: behaviour cloning, the line to beat.

The policy a = tanh(mean(s)) minimises |a - a_D|^2 over the rows of the data set. Deviations from CORL's BC:
observations are standardised by the data set's mean and standard deviation inside the policy, and the action is
squashed by tanh.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_suite import nets
from jaxrl_suite.algorithms import offline
from jaxrl_suite.algorithms.actor_critic import ADAM, adam_step
from jaxrl_suite.types import Algorithm, Array, Dataset, Key, Metrics, Spec, Transition, Tree


@dataclass(frozen=True)
class Config(offline.Config):
    """Behaviour cloning."""

    updates: int = 10_000
    """Gradient updates."""
    evaluations: int = 5
    """Evaluations of the policy, evenly spaced."""
    learning_rate: float = 3e-4
    """Adam's step size."""


PRESETS = {
    "smoke": replace(Config(), updates=100, evaluations=2, hidden=(32, 32)),
    "quick": Config(),
    "paper": replace(Config(), updates=1_000_000, evaluations=200),
}


@struct.dataclass
class Hypers:
    """Traced scalars."""

    learning_rate: Any


class State(NamedTuple):
    """The policy and its optimiser."""

    weights: Tree
    opt: Tree
    hypers: Hypers


def make(spec: Spec, config: Config) -> Algorithm:
    """Behaviour cloning for `spec`."""
    policy = nets.mlp(spec.obs_dim, config.hidden, {"mean": spec.action_dim})

    def action_of(weights: Tree, obs: Array) -> Array:
        return jnp.tanh(policy.apply(weights, obs)["mean"])

    def init(key: Key, hypers: Hypers, data: Dataset) -> State:
        weights = policy.init(key)
        return State(weights, ADAM.init(weights), hypers)

    def loss(weights: Tree, batch: Transition) -> Array:
        """Mean over the batch of the squared distance, summed over action dimensions."""
        error = action_of(weights, batch.obs) - batch.action
        return jnp.mean(jnp.sum(jnp.square(error), axis=-1))

    def update(state: State, rows: Dataset, key: Key) -> tuple[State, Metrics]:
        value, grads = jax.value_and_grad(loss)(state.weights, rows.transitions)
        weights, opt = adam_step(grads, state.opt, state.weights, state.hypers.learning_rate)
        return State(weights, opt, state.hypers), {"loss": value}

    learner = offline.Learner(init, update, act=lambda state, obs: action_of(state.weights, obs))
    return offline.make(config, learner, Hypers(config.learning_rate), normalise=True)
