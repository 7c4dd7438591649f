"""BC: behaviour cloning, the line to beat; and 10% BC, which clones the best episodes only.

The policy a = tanh(mean(s)) minimises |a - a_D|^2 over the rows of the data set. Deviations from CORL's BC:
observations are standardised by the data set's mean and standard deviation inside the policy, and the action is
squashed by tanh.

10% BC (Chen et al. 2021, arXiv 2106.01345) clones the tenth of the rows whose episodes have the highest undiscounted
returns; of the last episode that fits, only the first rows may fit. An episode that the end of the data cut comes last:
its return is not known. CORL's takes a tenth of the episodes, ranks them by discounted return, and, as it counts 1000
rows where the loader has dropped time-out rows, lets them run into each other. Standardisation is that of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_suite import nets
from jaxrl_suite.algorithms import offline
from jaxrl_suite.algorithms.actor_critic import ADAM, adam_step
from jaxrl_suite.errors import UserError
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
    top: float = field(default=1.0, metadata={"later": True})
    """Share of the rows that are cloned: those of the episodes with the highest returns."""


PRESETS = {
    "smoke": replace(Config(), updates=100, evaluations=2, hidden=(32, 32)),
    "quick": Config(),
    "paper": replace(Config(), updates=1_000_000, evaluations=200),
}
BEST_TENTH = {name: replace(config, top=0.1) for name, config in PRESETS.items()}
BEST_TENTH["quick"] = replace(
    BEST_TENTH["quick"], hidden=(128, 128)
)  # as all after it


@struct.dataclass
class Hypers:
    """Traced scalars."""

    learning_rate: Any


class State(NamedTuple):
    """The policy and its optimiser."""

    weights: Tree
    opt: Tree
    hypers: Hypers


def best_rows(data: Dataset, share: float) -> Array:
    """The rows of the episodes with the highest returns `[share * rows]`, best first; ties in the data's order."""
    total, known = offline.episode_returns(data)
    order = jnp.argsort(jnp.where(known, -total, jnp.inf), stable=True)
    return order[: max(1, round(share * order.shape[0]))].astype(jnp.int32)


def make(spec: Spec, config: Config) -> Algorithm:
    """Behaviour cloning for `spec`.

    Raises:
        UserError: a share of the rows that is none.
    """
    if not 0.0 < config.top <= 1.0:
        raise UserError(f"--top={config.top} is the share of the rows to clone: give a number above 0, at most 1")
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
    choose = (lambda data: best_rows(data, config.top)) if config.top < 1.0 else None
    return offline.make(config, learner, Hypers(config.learning_rate), normalise=True, choose=choose)
