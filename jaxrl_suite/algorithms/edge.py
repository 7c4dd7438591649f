"""At the edge of reach: targets there given their true value, and what values and model say there.

Rollouts of k steps leave states that only ever occur in the last step, as the successor of a target and never as an
input. Sims et al. 2024 (arXiv 2402.12527) hand the true value to these targets alone, and training recovers:

    y = r + gamma V(s')   where s' is at the edge,   y = r + gamma d (min_j Qbar_j(s', a') - alpha log pi)   elsewhere.

Which states are at the edge is the caller's to say, as a mask of successors. `patch_random` is the control that their
reviewers asked for: as many targets of the batch, none of them at the edge. Patched rows become rows with discount 0
and reward r + gamma V, so that any critic can take them; their targets hold no entropy term but what V holds.

Where no place is at the edge by itself, the edge is one of rollouts: their k-th successors, though other rollouts may
pass there. `patch_rollouts` patches the rows of a rollout before they are stored, where a row's step is still known,
and V is a Monte-Carlo estimate of the policy's own value: the true environment is put into s', and the policy followed,

    Q(s', a') = sum_{t < n} gamma^t r_t,   a_t ~ pi(. | s_t),   s_0 = s',   a_0 = a'.

It is one walk per row; what comes after n steps is left out, which is less than gamma^n of the greatest value; and the
policy is that of the refresh, so a value is as old as the rows of the ring buffer are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from jaxrl_suite.algorithms.ideas import PLAIN, Idea, State
from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.models import imagine, transforms
from jaxrl_suite.models.uncertainty import Uncertainty
from jaxrl_suite.types import Array, Key, Metrics, Transition, Tree, WorldModel

Value = Callable[..., Array]  # obs -> V [batch], or with a policy (obs, action) -> Q [batch]; the true one
Mask = Callable[[Array], Array]  # next_obs [batch, obs_dim] -> bool [batch]: at the edge
Policy = Callable[[Any, Array, Key], Array]  # (the learner's state, obs, key) -> action; `ActorCritic.policy`
Patch = Literal["none", "edge", "random"]
Choose = Callable[[Transition, Key], Array]  # (batch, key) -> bool [batch]: the targets to patch


class Diagnosis(NamedTuple):
    """What a learner's ensembles say of states and actions, each `[batch]`."""

    gap: Array  # mean of the critics less the least of them: the pessimism that RAVL's targets hold
    std: Array  # standard deviation of the critics
    penalty: Array  # uncertainty of the world model


def watch(mask: Mask) -> Idea:
    """Nothing changed; `edge_targets` is the share of targets that bootstrap from the edge."""

    def measure(model: WorldModel, state: State, batch: Transition, key: Key) -> Metrics:
        return {"edge_targets": jnp.mean(at_edge(mask, batch))}

    return Idea(measure=measure)


def patch(value: Value, mask: Mask, policy: Policy | None = None) -> Idea:
    """True values for the targets at the edge; `patched` is their share. With a `policy`, `value` is a Q function."""
    return _patched(lambda batch, key: at_edge(mask, batch), value, policy)


def patch_random(value: Value, mask: Mask, policy: Policy | None = None) -> Idea:
    """True values for as many random targets of a batch as it has at the edge, none of them there."""

    def choose(batch: Transition, key: Key) -> Array:
        edge = at_edge(mask, batch)
        inside = (batch.discount > 0) & ~edge
        order = jnp.where(inside, jax.random.uniform(key, inside.shape), jnp.inf)
        rank = jnp.argsort(jnp.argsort(order))
        return inside & (rank < jnp.sum(edge))

    return _patched(choose, value, policy)


def patch_rollouts(which: Patch, steps: int, policy: Policy, horizon: int) -> Idea:
    """Monte-Carlo values of `steps` steps for targets at the ends of rollouts, or for as many others at random.

    The model must be the true dynamics. `patched` is the share of the stored rows, `patch_value` their mean value.

    Raises:
        UserError: no such patch, or rollouts of one step, which have nothing but ends.
    """
    if which not in get_args(Patch):
        raise unknown("patch", which, get_args(Patch))
    if which == "none":
        return PLAIN
    if which == "random" and horizon < 2:
        raise UserError(
            "--patch=random is for targets inside rollouts; with --horizon=1 there are none: give at least 2"
        )

    def amend(
        model: WorldModel, state: State, rollout: Transition, valid: Array, key: Key
    ) -> tuple[Transition, Metrics]:
        choose_key, walk_key = jax.random.split(key)
        chosen = ends(rollout, valid) if which == "edge" else others(rollout, valid, choose_key)
        # At most one row per rollout is chosen, on average: so many walks hold them all, the chosen ones first.
        index = jnp.argsort(~chosen.reshape(-1), stable=True)[: chosen.shape[1]]
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[index], rollout)
        gamma = state.agent.hypers.gamma
        value = follow(model, state, policy, flat.next_obs, steps, walk_key)
        here = chosen.reshape(-1)[index]
        reward = jnp.where(here, flat.reward + gamma * flat.discount * value, flat.reward)
        discount = jnp.where(here, 0.0, flat.discount)
        rollout = rollout._replace(
            reward=rollout.reward.reshape(-1).at[index].set(reward).reshape(chosen.shape),
            discount=rollout.discount.reshape(-1).at[index].set(discount).reshape(chosen.shape),
        )
        patched = jnp.sum(here)
        mean = jnp.sum(jnp.where(here, value, 0.0)) / jnp.maximum(patched, 1)
        return rollout, {"patched": patched / jnp.sum(valid), "patch_value": mean}

    return Idea(amend=amend)


def ends(rollout: Transition, valid: Array) -> Array:
    """Which targets `[horizon, rollouts]` bootstrap from the last successor of a rollout that was cut there."""
    last = jnp.arange(valid.shape[0])[:, None] == valid.shape[0] - 1
    return last & valid & (rollout.discount > 0)


def others(rollout: Transition, valid: Array, key: Key) -> Array:
    """As many random targets `[horizon, rollouts]` that bootstrap from inside rollouts."""
    edge = ends(rollout, valid)
    inside = valid & (rollout.discount > 0) & ~edge
    order = jnp.where(inside, jax.random.uniform(key, inside.shape), jnp.inf).reshape(-1)
    rank = jnp.argsort(jnp.argsort(order)).reshape(inside.shape)
    return inside & (rank < jnp.sum(edge))


def follow(model: WorldModel, state: State, policy: Policy, obs: Array, steps: int, key: Key) -> Array:
    """Discounted reward `[batch]` of `steps` steps of the policy in the model, from `obs` `[batch, obs_dim]` on."""
    start, act = transforms.at(model, state.model, obs), functools.partial(policy, state.agent)
    walk, valid = imagine.imagine(model, state.model, act, start, obs, steps, key)
    weights = state.agent.hypers.gamma ** jnp.arange(steps)
    return jnp.tensordot(weights, jnp.where(valid, walk.reward, 0.0), 1)


def at_edge(mask: Mask, batch: Transition) -> Array:
    """Which targets `[batch]` bootstrap from a state at the edge."""
    return mask(batch.next_obs) & (batch.discount > 0)


def diagnose(
    q_values: Callable[[Tree, Array, Array], Array],
    model: WorldModel,
    measure: Uncertainty,
    state: State,
    obs: Array,
    action: Array,
    key: Key,
) -> Diagnosis:
    """Spread of the values and doubt of the model at `obs` and `action`.

    Args:
        q_values: `Algorithm.q_values`.
        model: what the algorithm imagines in, `dyna.world`.
        measure: of `models.uncertainty`.
        state: of the algorithm, one member.
        obs: `[batch, obs_dim]`.
        action: `[batch, action_dim]`.
        key: for models that draw.

    Raises:
        UserError: the model evaluates only the drawn member.
    """
    values = q_values(state, obs, action)
    _, prediction = model.step(state.model, transforms.at(model, state.model, obs), action, key)
    return Diagnosis(
        gap=jnp.mean(values, axis=0) - jnp.min(values, axis=0),
        std=jnp.std(values, axis=0),
        penalty=transforms.doubt(measure, prediction),
    )


def _patched(choose: Choose, value: Value, policy: Policy | None) -> Idea:
    def true_value(state: State, obs: Array, key: Key) -> Array:
        return value(obs) if policy is None else value(obs, policy(state.agent, obs, key))

    def relabel(model: WorldModel, state: State, batch: Transition, key: Key) -> Transition:
        choose_key, value_key = jax.random.split(key)
        chosen = choose(batch, choose_key)
        goal = batch.reward + state.agent.hypers.gamma * true_value(state, batch.next_obs, value_key)
        return batch._replace(
            reward=jnp.where(chosen, goal, batch.reward), discount=jnp.where(chosen, 0.0, batch.discount)
        )

    def measure(model: WorldModel, state: State, batch: Transition, key: Key) -> Metrics:
        choose_key, _ = jax.random.split(key)
        return {"patched": jnp.mean(choose(batch, choose_key))}

    return Idea(relabel=relabel, measure=measure)
