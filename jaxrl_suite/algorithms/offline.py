"""The model-free skeleton: gradient updates on batches of the data set, and nothing else.

An algorithm hands in a `Learner`, the pure functions that set it apart. Observations can be standardised by the data
set's mean and standard deviation before the learner sees them, as TD3+BC and its relatives do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_suite import buffer
from jaxrl_suite.algorithms.actor_critic import ActorCritic
from jaxrl_suite.errors import UserError
from jaxrl_suite.types import Algorithm, Array, Dataset, Key, Metrics, Phase, Stats, Tree

LEAST_STD = 1e-3  # added to the standard deviations: a constant column stays finite


@dataclass(frozen=True)
class Config:
    """What every model-free offline algorithm sets."""

    updates: int = 1_000_000
    """Gradient updates."""
    evaluations: int = 200
    """Evaluations of the policy, evenly spaced."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers."""
    batch: int = 256
    """Rows per gradient update."""


class Learner(NamedTuple):
    """What learns from batches of data. Observations are as the skeleton hands them over: standardised, or not."""

    init: Callable[[Key, Any, Dataset], Tree]  # (key, hypers, the whole data set) -> LearnerState
    update: Callable[[Tree, Dataset, Key], tuple[Tree, Metrics]]  # (LearnerState, rows [batch, ...], key)
    act: Callable[[Tree, Array], Array]  # (LearnerState, obs [batch, obs_dim]) -> the deterministic action
    q_value: Callable[[Tree, Array, Array], Array] | None = None  # the estimate that the policy trusts [batch]
    # What follows every `delay`-th update, on the same rows: an actor that learns more slowly than its critics.
    delayed: Callable[[Tree, Dataset, Key], tuple[Tree, Metrics]] | None = None
    delay: int = 1


class State(NamedTuple):
    """The learner, and what it is fed from."""

    learner: Tree
    stats: Stats | None  # of the observations, where they are standardised
    rows: Array | None  # [n] int32: the rows that are drawn from, where it is not all of them
    key: Key


def from_actor_critic(ac: ActorCritic) -> Learner:
    """The maximum-entropy actor-critic as a learner from data alone."""
    return Learner(
        init=lambda key, hypers, data: ac.init(key, hypers, data.mc_return),
        update=lambda state, rows, key: ac.update(state, rows.transitions, key),
        act=lambda state, obs: ac.act(state, (), obs, jax.random.key(0))[0],
        q_value=ac.q_value,
    )


def episode_returns(data: Dataset) -> tuple[Array, Array]:
    """Per row: the undiscounted return of its episode, and whether that is known, both `[rows]`.

    It is not known of a last episode that the end of the data cut before it was as long as the longest.
    """
    rows = data.episode.shape[0]  # there are no more episodes than rows
    episode = data.episode - data.episode[0]
    total, length = (
        jax.ops.segment_sum(x, episode, num_segments=rows)[episode]
        for x in (data.transitions.reward, jnp.ones_like(episode))
    )
    cut = (data.transitions.discount[-1] > 0) & (length[-1] < jnp.max(length))
    return total, ~(cut & (episode == episode[-1]))


def make(
    config: Config,
    learner: Learner,
    hypers: Any,
    *,
    normalise: bool = False,
    choose: Callable[[Dataset], Array] | None = None,
) -> Algorithm:
    """An algorithm of one phase.

    Args:
        config: sizes and schedule.
        learner: what is trained.
        hypers: a struct of traced scalars, handed to `learner.init`.
        normalise: standardise observations.
        choose: data set -> the rows `[n]` that batches are drawn from; all by default.

    Raises:
        UserError: updates that the evaluations do not divide, or a delay that does not divide those between two.
    """
    if min(config.updates, config.evaluations) < 1:
        raise UserError(
            f"--updates={config.updates} with --evaluations={config.evaluations}; give at least one of each"
        )
    evaluations = min(config.evaluations, config.updates)
    updates_per_tick, left = divmod(config.updates, evaluations)
    if left:
        raise UserError(
            f"--evaluations={evaluations} do not lie evenly in --updates={config.updates}; choose "
            f"--updates={config.updates - left}, say, or a divisor for --evaluations"
        )
    if learner.delay < 1 or updates_per_tick % learner.delay:
        raise UserError(
            f"--delay={learner.delay} does not divide the {updates_per_tick} updates between two evaluations; "
            "choose a divisor, or change --updates or --evaluations"
        )

    def seen(stats: Stats | None, obs: Array) -> Array:
        return obs if stats is None else (obs - stats.mean) / stats.std

    def init(key: Key, hypers: Any, data: Dataset, previous: Tree) -> State:
        learner_key, key = jax.random.split(key)
        obs, stats = data.transitions.obs, None
        if normalise:
            stats = Stats(jnp.mean(obs, axis=0), jnp.std(obs, axis=0) + LEAST_STD)
        rows = choose(data) if choose else None
        return State(learner.init(learner_key, hypers, data), stats, rows, key)

    def draw(state: State, data: Dataset, key: Key) -> Dataset:
        """A batch of rows, with the observations that the learner sees."""
        if state.rows is None:
            rows = buffer.share(buffer.draw(data, key, config.batch))
        else:
            index = jax.random.randint(key, (config.batch,), 0, state.rows.shape[0])
            rows = buffer.share(buffer.take(data, state.rows[index]))
        step = rows.transitions
        step = step._replace(obs=seen(state.stats, step.obs), next_obs=seen(state.stats, step.next_obs))
        return rows._replace(transitions=step)

    def update(state: State, data: Dataset) -> tuple[State, Metrics]:
        key, scan_key = jax.random.split(state.key)

        def learn(inner: Tree, key: Key) -> tuple[Tree, Metrics]:
            row_key, update_key = jax.random.split(key)
            return learner.update(inner, draw(state, data, row_key), update_key)

        def learn_in_turn(inner: Tree, keys: Key) -> tuple[Tree, Metrics]:
            """`delay` updates and what follows the last; a pattern known at compile time, as `vmap` runs both
            branches of a condition."""
            inner, _ = jax.lax.scan(learn, inner, keys[:-1])
            row_key, update_key, delayed_key = jax.random.split(keys[-1], 3)
            rows = draw(state, data, row_key)
            inner, metrics = learner.update(inner, rows, update_key)
            inner, more = learner.delayed(inner, rows, delayed_key)  # type: ignore[misc]
            return inner, {**metrics, **more}

        keys = jax.random.split(scan_key, updates_per_tick)
        if learner.delayed:
            keys = keys.reshape(-1, learner.delay)
        inner, metrics = jax.lax.scan(learn_in_turn if learner.delayed else learn, state.learner, keys)
        return state._replace(learner=inner, key=key), jax.tree.map(jnp.mean, metrics)

    def act(state: State, carry: Tree, obs: Array, key: Key) -> tuple[Array, Tree]:
        return learner.act(state.learner, seen(state.stats, obs)), carry

    def q_value(state: State, obs: Array, action: Array) -> Array:
        assert learner.q_value is not None
        return learner.q_value(state.learner, seen(state.stats, obs), action)

    agent = Phase("agent", evaluations, updates_per_tick, chunk=1, init=init, update=update, evaluate_every=1)
    return Algorithm(phases=(agent,), hypers=hypers, act=act, q_value=q_value if learner.q_value else None)
