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

from jaxrl_suite import buffer, nets
from jaxrl_suite.algorithms.actor_critic import ADAM, adam_step
from jaxrl_suite.types import Algorithm, Array, Dataset, Key, Metrics, Phase, Spec, Stats, Transition, Tree


@dataclass(frozen=True)
class Config:
    """Behaviour cloning."""

    updates: int = 10_000
    """Gradient updates."""
    evaluations: int = 5
    """Evaluations of the policy, evenly spaced."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the policy's hidden layers."""
    batch: int = 256
    """Rows per gradient update."""
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
    stats: Stats  # of the observations
    hypers: Hypers
    key: Key


def make(spec: Spec, config: Config) -> Algorithm:
    """Behaviour cloning for `spec`."""
    policy = nets.mlp(spec.obs_dim, config.hidden, {"mean": spec.action_dim})
    evaluations = min(config.evaluations, config.updates)
    updates_per_tick = config.updates // evaluations

    def action_of(weights: Tree, stats: Stats, obs: Array) -> Array:
        return jnp.tanh(policy.apply(weights, (obs - stats.mean) / stats.std)["mean"])

    def init(key: Key, hypers: Hypers, data: Dataset, previous: Tree) -> State:
        weights_key, key = jax.random.split(key)
        weights = policy.init(weights_key)
        obs = data.transitions.obs
        stats = Stats(jnp.mean(obs, axis=0), jnp.std(obs, axis=0) + 1e-3)
        return State(weights, ADAM.init(weights), stats, hypers, key)

    def loss(weights: Tree, stats: Stats, batch: Transition) -> Array:
        """Mean over the batch of the squared distance, summed over action dimensions."""
        error = action_of(weights, stats, batch.obs) - batch.action
        return jnp.mean(jnp.sum(jnp.square(error), axis=-1))

    def update(state: State, data: Dataset) -> tuple[State, Metrics]:
        key, learn_key = jax.random.split(state.key)

        def learn(carry: tuple[Tree, Tree], key: Key) -> tuple[tuple[Tree, Tree], Array]:
            weights, opt = carry
            batch = buffer.share(buffer.draw(data.transitions, key, config.batch))
            value, grads = jax.value_and_grad(loss)(weights, state.stats, batch)
            return adam_step(grads, opt, weights, state.hypers.learning_rate), value

        keys = jax.random.split(learn_key, updates_per_tick)
        (weights, opt), losses = jax.lax.scan(learn, (state.weights, state.opt), keys)
        return state._replace(weights=weights, opt=opt, key=key), {"loss": jnp.mean(losses)}

    def act(state: State, carry: Tree, obs: Array, key: Key) -> tuple[Array, Tree]:
        return action_of(state.weights, state.stats, obs), carry

    agent = Phase("agent", evaluations, updates_per_tick, chunk=1, init=init, update=update, evaluate_every=1)
    return Algorithm(phases=(agent,), hypers=Hypers(config.learning_rate), act=act)
