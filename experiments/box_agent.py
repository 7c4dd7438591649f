"""What learns in the box: the Dyna skeleton on the true dynamics, its values at the edge of reach put right or not.

    y = r + gamma (min_j Qbar_j(s', a') - alpha log pi(a' | s'))          everywhere, but where a target is patched:
    y = r + gamma V*(s')

A patch goes to the targets whose s' is at the edge of reach (`edge_patch`), or to as many others of the batch, at
random (`random_patch`): the control. V* is the box's true value, from value iteration.

Rewards are those of a field whose large bump stands `distance` from the middle, and networks are given states times
`scale`. Distance, width, scale, patches and the length k of rollouts are traced numbers, so that settings which differ
in them train side by side in one program. For that, rollouts are imagined to the end of an episode, and what lies past
the k-th step gives way to rows of the first k.

Deviations from MBPO and RAVL: batches hold imagined rows only, of the last period; networks are small, steps large;
and gamma is lower than usual. At 0.99 the best actions differ by some thousandths of a value, which takes long to learn
even where nothing goes wrong.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_suite.algorithms import actor_critic, actor_critic_config, dyna, edge
from jaxrl_suite.algorithms.ideas import Idea, State
from jaxrl_suite.envs import box
from jaxrl_suite.errors import UserError
from jaxrl_suite.models import worlds
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
    Tree,
    WorldModel,
)

TRACED = ("horizon", "distance", "width", "edge_patch", "random_patch", "scale")


@dataclass(frozen=True)
class Config(dyna.Config):
    """The base method, MBPO's rollouts with SAC; more critics and a diversity make it RAVL."""

    world: worlds.Kind = "oracle"
    """Where rollouts branch: the true dynamics."""
    diversity: float = 0.0
    """Weight eta of the diversity of the critics' action gradients: RAVL's."""
    distance: float = 8.0
    """How far from the middle the large bump of reward is."""
    width: float = 3.0
    """Its standard deviation."""
    edge_patch: float = 0.0
    """1: targets at edge-of-reach states hold the true value."""
    random_patch: float = 0.0
    """1: as many targets at random hold it."""
    scale: float = field(default=1.0, metadata={"later": True})
    """What states are multiplied by before networks see them."""


@struct.dataclass
class Hypers(actor_critic_config.Hypers):
    """With the length of rollouts, the reward's place, the patches and the scale of what networks see."""

    horizon: Any = 10
    distance: Any = 8.0
    width: Any = 3.0
    edge_patch: Any = 0.0
    random_patch: Any = 0.0
    scale: Any = 1.0


QUICK = Config(
    updates=8_000,
    evaluations=10,
    period=200,
    rollouts=1_000,
    horizon=10,
    retain=1,
    real_ratio=0.0,
    hidden=(64, 64),
    batch=64,
    gamma=0.97,
    tau=0.02,
    actor_lr=1e-3,
    critic_lr=1e-3,
    alpha_lr=1e-3,
    anneal=True,
)
PRESETS = {
    "smoke": replace(QUICK, updates=40, evaluations=2, period=20, rollouts=50, hidden=(16, 16), batch=32),
    "quick": QUICK,
    "paper": replace(
        QUICK,
        updates=100_000,
        hidden=(256, 256, 256),
        batch=256,
        tau=0.005,
        actor_lr=3e-4,
        critic_lr=3e-4,
        alpha_lr=3e-4,
    ),
}


def field_of(hypers: Hypers) -> box.Field:
    """The reward that a member learns in."""
    return box.at(hypers.distance, hypers.width)


def check(config: Config) -> None:
    """Refuse numbers that nothing can be learnt with.

    Raises:
        UserError: rollouts longer than an episode, or a bump without a width, or states without a scale.
    """
    for name in ("width", "scale"):
        if not getattr(config, name) > 0:
            raise UserError(f"--{name}={getattr(config, name):g} must be above 0")
    if config.horizon > box.HORIZON:
        raise UserError(
            f"--horizon={config.horizon} is longer than an episode of {box.SPEC.name}, which ends after {box.HORIZON} "
            f"steps; give at most --horizon={box.HORIZON}"
        )


def make(spec: Spec, config: Config) -> Algorithm:
    """The base method (patched or not) or RAVL in the box.

    Raises:
        UserError: sizes that do not fit each other, or what `check` refuses.
    """
    check(config)
    ac = scaled(actor_critic.make(spec, config.actor_critic(), diverse=config.diversity > 0))
    hypers = config.hypers(config.diversity, Hypers, **{name: getattr(config, name) for name in TRACED})
    idea = Idea(transform=rewarded, amend=shortened, relabel=patched, measure=watched)
    return _with_true_values(dyna.make(spec, replace(config, horizon=box.HORIZON), ac, hypers, idea))


def scaled(ac: actor_critic.ActorCritic) -> actor_critic.ActorCritic:
    """The actor-critic whose networks are given states times the member's own scale."""
    values = ac.values
    assert values is not None

    def seen(state: actor_critic.State, obs: Array) -> Array:
        return obs * state.hypers.scale

    def update(state: actor_critic.State, batch: Transition, key: Key) -> tuple[actor_critic.State, Metrics]:
        obs, next_obs = seen(state, batch.obs), seen(state, batch.next_obs)
        return ac.update(state, batch._replace(obs=obs, next_obs=next_obs), key)

    return actor_critic.ActorCritic(
        init=ac.init,
        update=update,
        policy=lambda state, obs, key: ac.policy(state, seen(state, obs), key),
        act=lambda state, carry, obs, key: ac.act(state, carry, seen(state, obs), key),
        q_value=lambda state, obs, action: ac.q_value(state, seen(state, obs), action),
        values=lambda state, obs, action: values(state, seen(state, obs), action),
    )


def rewarded(model: WorldModel, state: State) -> WorldModel:
    """The model with the reward of the member's own field."""
    field = field_of(state.agent.hypers)

    def step(params: Params, before: Tree, action: Array, key: Key) -> tuple[Tree, Prediction]:
        after, prediction = model.step(params, before, action, key)
        return after, prediction._replace(reward=box.reward(field, prediction.obs))

    return model._replace(step=step)


def shortened(
    model: WorldModel, state: State, rollout: Transition, valid: Array, key: Key
) -> tuple[Transition, Metrics]:
    """Rollouts of the member's own k steps: each later row is a copy of one of the first k of its rollout, at random.

    So a row of a batch comes from each of the first k steps as likely as from any other, and from none after them. All
    rows are valid, because the box never terminates.
    """
    k, (steps, rollouts) = state.agent.hypers.horizon, valid.shape
    own = jnp.arange(steps)[:, None]
    chosen = jnp.where(own < k, own, jax.random.randint(key, (steps, rollouts), 0, k))
    return jax.tree.map(lambda leaf: leaf[chosen, jnp.arange(rollouts)], rollout), {}


def edge_of(state: State) -> edge.Mask:
    """What is at the edge of the member's own reach."""
    return functools.partial(box.edge, k=state.agent.hypers.horizon)


def watched(model: WorldModel, state: State, batch: Transition, key: Key) -> Metrics:
    """`edge_targets`, the share of targets that bootstrap from there."""
    return edge.watch(edge_of(state)).measure(model, state, batch, key)


def patched(model: WorldModel, state: State, batch: Transition, key: Key) -> Transition:
    """Both patches of `edge`, each where the member's number says so, with V* of the member's own field."""
    hypers, mask, value = state.agent.hypers, edge_of(state), lambda obs: box.look_up(state.extra, obs)
    pairs = ((hypers.edge_patch, edge.patch(value, mask)), (hypers.random_patch, edge.patch_random(value, mask)))
    for wanted, idea in pairs:
        new = idea.relabel(model, state, batch, key)
        batch = jax.tree.map(lambda a, b, wanted=wanted: jnp.where(wanted > 0, a, b), new, batch)
    return batch


def _with_true_values(algorithm: Algorithm) -> Algorithm:
    """The algorithm whose state holds V* of its member's field, made once."""
    (agent,) = algorithm.phases

    def init(key: Key, hypers: Hypers, data: Dataset, previous: Tree) -> State:
        state = agent.init(key, hypers, data, previous)
        return state._replace(extra=box.optimal_values(field_of(hypers), hypers.gamma, per_step=2))

    return algorithm._replace(phases=(agent._replace(init=init),))
