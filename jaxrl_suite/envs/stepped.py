"""Pure environments stepped from the host, for what has to speak to any environment alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_suite.envs import registry
from jaxrl_suite.envs.pool import Pool
from jaxrl_suite.types import Array, Env, Timestep, Tree


class Stand(NamedTuple):
    """Where one environment stands."""

    inner: Tree  # EnvState
    ended: Array  # bool: its next step is a reset
    key: Array


class PurePool:
    """Pure environments with the interface of `Pool`: a reset takes a step of its own, which is marked invalid."""

    def __init__(self, env: Env, seeds: Sequence[int]) -> None:
        """Environment i is seeded by `seeds[i]` alone."""
        self._seeds = jnp.array(seeds, jnp.uint32)
        self._reset, self._step = (jax.jit(jax.vmap(part)) for part in _parts(env))

    def reset(self) -> np.ndarray:
        """First observations `[envs, obs_dim]`."""
        self._stands, obs = self._reset(self._seeds)
        return np.asarray(obs)

    def step(self, action: np.ndarray) -> Timestep:
        """One step of every environment for `action` `[envs, action_dim]` in [-1, 1], as `Pool.step`."""
        self._stands, timestep = self._step(self._stands, jnp.asarray(action, jnp.float32))
        return jax.tree.map(np.asarray, timestep)

    def close(self) -> None:
        """Nothing is held."""


def _parts(env: Env):
    def reset(seed: Array) -> tuple[Stand, Array]:
        key, first = jax.random.split(jax.random.key(seed))
        inner, obs = env.reset(first)
        return Stand(inner, jnp.zeros((), bool), key), obs

    def step(stand: Stand, action: Array) -> tuple[Stand, Timestep]:
        key, step_key, reset_key = jax.random.split(stand.key, 3)
        inner, seen = env.step(stand.inner, action, step_key)
        fresh, first = env.reset(reset_key)
        over = stand.ended
        seen = Timestep(
            obs=jnp.where(over, first, seen.obs),
            reward=jnp.where(over, 0.0, seen.reward),
            terminated=seen.terminated & ~over,
            truncated=seen.truncated & ~seen.terminated & ~over,
            valid=~over,
        )
        inner = jax.tree.map(lambda new, old: jnp.where(over, new, old), fresh, inner)
        return Stand(inner, seen.terminated | seen.truncated, key), seen

    return reset, step


def open_pool(name: str, seeds: Sequence[int]) -> Pool | PurePool:
    """The environments of that name, stepped from the host.

    Raises:
        UserError: no such environment.
    """
    return PurePool(registry.make(name), seeds) if registry.is_pure(name) else Pool(name, seeds)
