"""What learns in the box: the Dyna skeleton on the true dynamics, its values at the edge of reach put right or not.

    y = r + gamma (min_j Qbar_j(s', a') - alpha log pi(a' | s'))          everywhere, but where a target is patched:
    y = r + gamma V*(s')

A patch goes to the targets whose s' is at the edge of reach (`edge_patch`), or to as many targets of the batch at
random (`random_patch`): the control. V* is the box's true value, from value iteration.

Rewards are those of a field whose large bump stands `distance` from the middle. Distance, width and patches are traced
numbers, so that all of a figure's settings train side by side in one program.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_suite import buffer
from jaxrl_suite.algorithms import actor_critic, actor_critic_config, dyna, networks
from jaxrl_suite.envs import box
from jaxrl_suite.models.fit import FitConfig
from jaxrl_suite.types import (
    Algorithm,
    Array,
    Dataset,
    Key,
    Metrics,
    Params,
    Prediction,
    Spec,
    Transition,
    WorldModel,
)
from jaxrl_suite.values import heads

PROBED = 2_048  # imagined rows that the diagnostics of a period look at


@dataclass(frozen=True)
class Config(dyna.Config):
    """The base method, MBPO's rollouts with SAC; more critics and a diversity make it RAVL."""

    diversity: float = 0.0
    """Weight eta of the diversity of the critics' action gradients: RAVL's."""
    distance: float = 9.0
    """How far from the middle the large bump of reward is."""
    width: float = 4.0
    """Its standard deviation."""
    edge_patch: float = 0.0
    """1: targets at edge-of-reach states hold the true value."""
    random_patch: float = 0.0
    """1: as many targets at random hold it."""


@struct.dataclass
class Hypers(actor_critic_config.Hypers):
    """With the reward's place and the patches."""

    distance: Any = 9.0
    width: Any = 4.0
    edge_patch: Any = 0.0
    random_patch: Any = 0.0


QUICK = Config(
    updates=24_000,
    evaluations=12,
    period=200,
    rollouts=1_000,
    horizon=10,
    retain=1,
    real_ratio=0.0,
    hidden=(64, 64),
    fit=FitConfig(steps=1, checks=1),
)
PRESETS = {
    "smoke": replace(QUICK, updates=40, evaluations=2, period=20, rollouts=50, hidden=(16, 16), batch=32),
    "quick": QUICK,
    "paper": QUICK,
}


def field_of(hypers: Hypers) -> box.Field:
    """The reward that a member learns in."""
    return box.at(hypers.distance, hypers.width)


def make(spec: Spec, config: Config) -> Algorithm:
    """The base method (patched or not) or RAVL in the box."""
    ac = actor_critic.make(spec, config.actor_critic(), diverse=config.diversity > 0)
    changed = {name: getattr(config, name) for name in ("distance", "width", "edge_patch", "random_patch")}
    hypers = config.hypers(config.diversity, Hypers, **changed)
    spreads = critic_values(spec, config)

    def transform(model: WorldModel, state: dyna.State) -> WorldModel:
        field = field_of(state.agent.hypers)

        def step(params: Params, obs: Array, action: Array, key: Key) -> tuple[Array, Prediction]:
            after = box.move(obs, action)
            return after, Prediction(after, box.reward(field, after), jnp.ones(len(after)), None)

        return WorldModel(model.init, model.loss, lambda params, rows: rows.transitions.obs, step)

    def relabel(model: WorldModel, state: dyna.State, batch: Transition, key: Key) -> Transition:
        hypers = state.agent.hypers
        at_edge = box.edge(batch.next_obs, config.horizon)
        anywhere = jax.random.permutation(key, at_edge)
        patched = (at_edge & (hypers.edge_patch > 0)) | (anywhere & (hypers.random_patch > 0))
        true = box.look_up(state.extra, batch.next_obs)
        return batch._replace(
            reward=jnp.where(patched, batch.reward + hypers.gamma * true, batch.reward),
            discount=jnp.where(patched, 0.0, batch.discount),
        )

    def adapt(model: WorldModel, state: dyna.State, data: Dataset, key: Key) -> tuple[dyna.State, Metrics]:
        """Learns nothing; measures what the rollouts of the last period met."""
        row_key, action_key = jax.random.split(key)
        obs = buffer.sample(state.imagined, row_key, PROBED).next_obs
        values = spreads(state, obs, ac.policy(state.agent, obs, action_key))
        spread, at_edge = jnp.std(values, axis=0), box.edge(obs, config.horizon)
        count = jnp.sum(at_edge)
        found = {
            "edge_share": count / PROBED,
            "edge_spread": jnp.sum(spread * at_edge) / jnp.maximum(count, 1),
            "inside_spread": jnp.sum(spread * ~at_edge) / jnp.maximum(PROBED - count, 1),
        }
        return state, found

    def init_values(algorithm: Algorithm) -> Algorithm:
        """V* of each member's field, made once when the agent begins."""
        agent = algorithm.phases[-1]

        def init(key: Key, hypers: Hypers, data: Dataset, previous: Params) -> dyna.State:
            state = agent.init(key, hypers, data, previous)
            return state._replace(extra=box.optimal_values(field_of(hypers), hypers.gamma, per_step=2))

        return algorithm._replace(phases=(*algorithm.phases[:-1], agent._replace(init=init)))

    idea = dyna.Idea(transform=transform, adapt=adapt, relabel=relabel)
    return init_values(dyna.make(spec, config, ac, hypers, idea))


def critic_values(spec: Spec, config: Config) -> Any:
    """(State, obs, action) -> what each critic says `[critics, batch]`."""
    scalar = config.head == "mse"
    critics = networks.critics(
        spec, config.hidden, config.critics, heads.make(config.head), config.precision, scalar=scalar
    )

    def values(state: dyna.State, obs: Array, action: Array) -> Array:
        return critics.values(state.agent.critic, state.agent.support, obs, action)

    return values
