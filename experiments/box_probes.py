"""What is measured on agents in the box: returns in their own fields of reward, critics by reach, and paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import box_agent
from jaxrl_suite.envs import box
from jaxrl_suite.report import stats
from jaxrl_suite.train.evaluate import Episodes, Evaluator
from jaxrl_suite.train.host import env_seed
from jaxrl_suite.types import Algorithm, Array, Tree

LONG = 300  # steps whose discounted rewards stand for all that follow: gamma^300 is 0.002 at 0.98
REACHES = 14  # shells of the plane, each one step wide, whose states the critics are asked about
STATES = 400  # in a shell
# NumPy's, as an import looks for no device.
WALKS = np.array(
    [[0.0, 0.0], [-1.8, 1.8], [1.8, 1.8], [-1.8, -1.8], [1.8, -1.8]], np.float32
)  # starts of the paths that are shown


class Shells(NamedTuple):
    """What the critics of each member say by reach, `[population, REACHES]`: shell i holds i < reach <= i + 1."""

    spread: np.ndarray  # their standard deviation, a mean over states, at the policy's action
    penalty: np.ndarray  # their mean less their minimum
    value: np.ndarray  # the value that is trusted
    true: np.ndarray  # V*
    effect: np.ndarray  # [population] the spread at the edge of reach above that inside, in standard deviations


def evaluator(algorithm: Algorithm, episodes: int) -> Evaluator:
    """Returns of 30 steps in each member's own field, and discounted ones of a walk that goes on."""

    @jax.jit
    def starts(keys: Array) -> Array:
        return jax.vmap(lambda key: box.starts(key, (episodes,)))(keys)

    @jax.jit
    def walk(states: Tree, obs: Array) -> tuple[Array, Array]:
        _, returns, discounted = jax.vmap(lambda state, first: _walk(algorithm, state, first, LONG))(states, obs)
        return returns, discounted

    @jax.jit
    def value(states: Tree, obs: Array) -> Array:
        def one(state: Tree, obs: Array) -> Array:
            assert algorithm.q_value is not None
            return algorithm.q_value(state, obs, _act(algorithm, state, obs))

        return jax.vmap(one)(states, obs)

    def evaluate(states: Tree, seeds: Sequence[int], index: int) -> Episodes:
        obs = starts(jnp.stack([jax.random.key(env_seed(seed, 1, index)) for seed in seeds]))
        returns, discounted = (np.asarray(x, float) for x in walk(states, obs))
        lengths = np.full(returns.shape, box.HORIZON)
        return Episodes(returns, discounted, lengths, np.asarray(value(states, obs)))

    return evaluate


def _act(algorithm: Algorithm, state: Tree, obs: Array) -> Array:
    return algorithm.act(state, (), obs, jax.random.key(0))[0]  # deterministic: the key has no part in it


def _walk(algorithm: Algorithm, state: Tree, obs: Array, steps: int) -> tuple[Array, Array, Array]:
    """States `[steps, batch, 2]`, returns of an episode `[batch]` and discounted ones of the whole walk."""
    hypers = state.agent.hypers
    field = box_agent.field_of(hypers)

    def step(obs: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        after = box.move(obs, jnp.nan_to_num(_act(algorithm, state, obs)))
        return after, (after, box.reward(field, after))

    _, (path, rewards) = jax.lax.scan(step, obs, None, length=steps)
    weights = hypers.gamma ** jnp.arange(steps)
    return path, jnp.sum(rewards[: box.HORIZON], axis=0), jnp.tensordot(weights, rewards, 1)


def paths(algorithm: Algorithm, states: Tree) -> np.ndarray:
    """Where the deterministic policies go from `WALKS`: `[population, WALKS, 1 + 30, 2]`, the start included."""

    @jax.jit
    def every(states: Tree) -> Array:
        return jax.vmap(lambda state: _walk(algorithm, state, jnp.asarray(WALKS), box.HORIZON)[0])(states)

    found = np.asarray(every(states)).swapaxes(1, 2)
    first = np.broadcast_to(WALKS[None, :, None], (*found.shape[:2], 1, 2))
    return np.concatenate([first, found], axis=2)


def shell(key: Any, index: Array) -> Array:
    """States `[STATES, 2]` with index < reach <= index + 1: one coordinate within the shell, the other anywhere."""
    far_key, along_key, which_key = jax.random.split(key, 3)
    far = box.START + index + 1.0 - jax.random.uniform(far_key, (STATES,))
    along = far * jax.random.uniform(along_key, (STATES,), minval=-1.0, maxval=1.0)
    sign, swap = jax.random.bernoulli(which_key, shape=(2, STATES))
    far = jnp.where(sign, far, -far)
    return jnp.where(swap[:, None], jnp.stack([far, along], axis=-1), jnp.stack([along, far], axis=-1))


@jax.jit
def _shells() -> Array:
    """States of every shell `[REACHES, STATES, 2]`."""
    return jax.vmap(shell)(jax.random.split(jax.random.key(0), REACHES), jnp.arange(REACHES))


def shells(algorithm: Algorithm, states: Tree, lengths: Sequence[int]) -> Shells:
    """The critics by reach, on the same states for every member; `lengths` k of rollouts, one for each of these."""
    obs = _shells().reshape(-1, 2)

    @jax.jit
    def ask(states: Tree) -> tuple[Array, ...]:
        def one(state: Tree) -> tuple[Array, ...]:
            assert algorithm.q_values is not None and algorithm.q_value is not None
            action = _act(algorithm, state, obs)
            values = algorithm.q_values(state, obs, action)
            trusted, true = algorithm.q_value(state, obs, action), box.look_up(state.extra, obs)
            return jnp.std(values, axis=0), jnp.mean(values, axis=0) - jnp.min(values, axis=0), trusted, true

        return jax.vmap(one)(states)

    found = [np.asarray(x, float) for x in ask(states)]
    spread, penalty, value, true = (x.reshape(len(x), REACHES, STATES).mean(axis=2) for x in found)
    edge, reach = {k: np.asarray(box.edge(obs, k)) for k in set(lengths)}, np.asarray(box.reach(obs))
    pairs = zip(found[0], lengths, strict=True)
    effect = [stats.effect_size(mine[edge[k]], mine[reach <= k - 1]) for mine, k in pairs]
    return Shells(spread, penalty, value, true, np.array(effect))
