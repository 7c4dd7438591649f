"""Evaluation: whole episodes of the deterministic policy, all members of a population in one batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from jaxrl_suite.envs import registry
from jaxrl_suite.envs.pool import Pool
from jaxrl_suite.train.host import env_seed
from jaxrl_suite.types import Algorithm, Array, Env, Key, Spec, Tree


class Episodes(NamedTuple):
    """Outcomes `[population, episodes]`."""

    returns: np.ndarray  # undiscounted
    discounted: np.ndarray  # from the start state, with the algorithm's gamma
    lengths: np.ndarray  # steps
    q_start: np.ndarray  # the critic's estimate at the start; NaN without a critic


class _Tally(NamedTuple):
    """Running sums over the episodes of a batch, `[population, episodes]`."""

    returns: np.ndarray
    discounted: np.ndarray
    lengths: np.ndarray
    running: np.ndarray


def _add(tally: _Tally, reward: np.ndarray, ended: np.ndarray, weight: np.ndarray) -> _Tally:
    counted = tally.running
    return _Tally(
        tally.returns + reward * counted,
        tally.discounted + weight * reward * counted,
        tally.lengths + counted,
        counted & ~ended,
    )


Evaluator = Callable[[Tree, Sequence[int], int], Episodes]


def make_evaluator(
    spec: Spec, algorithm: Algorithm, gamma: float | Sequence[float], episodes: int, whole: Sharding | None = None
) -> Evaluator:
    """A function (members' states, their seeds, evaluation index) -> Episodes, compiled once for all evaluations.

    An episode's start depends on (seed, evaluation index, episode) alone, not on the rest of the population. `gamma` is
    one for all members, or one for each. `whole` is the sharding of what every process reads, where the states lie on
    a mesh.
    """
    jit = functools.partial(jax.jit, out_shardings=whole)

    @jit
    def act(states: Tree, carry: Tree, obs: Array, keys: Key) -> tuple[Array, Tree]:
        action, carry = jax.vmap(algorithm.act)(states, carry, obs, keys)
        return jnp.nan_to_num(action), carry

    @jit
    def value(states: Tree, obs: Array, action: Array) -> Array:
        if algorithm.q_value is None:
            return jnp.full(obs.shape[:-1], jnp.nan)
        return jax.vmap(algorithm.q_value)(states, obs, action)

    gammas = np.asarray(gamma, float).reshape(-1, 1)
    if registry.is_pure(spec.name):
        return _pure_evaluator(registry.make(spec.name), act, value, gammas, episodes, jit)
    return _pool_evaluator(spec, act, value, gammas, episodes)


def _keys(seeds: Sequence[int], index: int) -> Key:
    return jnp.stack([jax.random.fold_in(jax.random.key(env_seed(seed, 1, index)), 0) for seed in seeds])


def _pool_evaluator(spec: Spec, act: Callable, value: Callable, gammas: np.ndarray, episodes: int) -> Evaluator:
    def evaluate(states: Tree, seeds: Sequence[int], index: int) -> Episodes:
        shape = (len(seeds), episodes)
        pool = Pool(spec.name, [env_seed(seed, 1, index, episode) for seed in seeds for episode in range(episodes)])
        obs = pool.reset().reshape(*shape, -1)
        keys, carry = _keys(seeds, index), ()
        action, carry = act(states, carry, obs, keys)
        q_start = np.asarray(value(states, obs, action))
        tally = _Tally(np.zeros(shape), np.zeros(shape), np.zeros(shape), np.ones(shape, bool))
        for step in range(spec.horizon):
            timestep = pool.step(np.asarray(action).reshape(-1, spec.action_dim))
            ended = (timestep.terminated | timestep.truncated).reshape(shape)
            tally = _add(tally, timestep.reward.reshape(shape), ended, gammas**step)
            if not tally.running.any():
                break
            action, carry = act(states, carry, timestep.obs.reshape(*shape, -1), keys)
        pool.close()
        return Episodes(tally.returns, tally.discounted, tally.lengths, q_start)

    return evaluate


def _pure_evaluator(
    env: Env, act: Callable, value: Callable, gammas: np.ndarray, episodes: int, jit: Callable
) -> Evaluator:
    reset = jit(jax.vmap(jax.vmap(env.reset)))

    @jit
    def rollout(states: Tree, env_state: Tree, obs: Array, keys: Key) -> tuple[Array, Array]:
        def step(carry: tuple, key: Key) -> tuple[tuple, tuple[Array, Array]]:
            env_state, obs, running, policy = carry
            action, policy = act(states, policy, obs, keys)
            env_keys = jax.random.split(key, obs.shape[:2])
            env_state, timestep = jax.vmap(jax.vmap(env.step))(env_state, action, env_keys)
            ended = timestep.terminated | timestep.truncated
            return (env_state, timestep.obs, running & ~ended, policy), (timestep.reward * running, running)

        running = jnp.ones(obs.shape[:2], bool)
        # `reset` splits a seed's key into one for each episode: the next is taken by none.
        env_keys = jax.random.split(jax.random.fold_in(keys[0], episodes), env.spec.horizon)
        return jax.lax.scan(step, (env_state, obs, running, ()), env_keys)[1]

    def evaluate(states: Tree, seeds: Sequence[int], index: int) -> Episodes:
        keys = _keys(seeds, index)
        env_state, obs = reset(jax.vmap(lambda key: jax.random.split(key, episodes))(keys))
        action, _ = act(states, (), obs, keys)
        rewards, running = (np.asarray(x) for x in rollout(states, env_state, obs, keys))
        weights = gammas ** np.arange(len(rewards))[:, None, None]
        return Episodes(
            rewards.sum(0), (weights * rewards).sum(0), running.sum(0), np.asarray(value(states, obs, action))
        )

    return evaluate
