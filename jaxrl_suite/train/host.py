"""Host environments of a population: one envpool for all members, rebuilt by replaying actions."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from jaxrl_suite.envs import atari
from jaxrl_suite.envs.pool import Pool
from jaxrl_suite.types import Timestep


def env_seed(*entropy: int) -> int:
    """A 31-bit environment seed derived from whole numbers, such as (seed, evaluation index, episode)."""
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] & 0x7FFFFFFF)


class Host:
    """The environments of all members, `[population, envs]`, stepped together."""

    def __init__(self, name: str, seeds: Sequence[int], envs: int) -> None:
        """Environment i of a member depends on (its seed, i) alone."""
        self._shape = (len(seeds), envs)
        open_pool = atari.Atari if atari.is_game(name) else Pool
        self._pool = open_pool(name, [env_seed(seed, 0, i) for seed in seeds for i in range(envs)])
        self.first_obs = self._members(self._pool.reset())

    def _members(self, rows: np.ndarray) -> np.ndarray:
        return rows.reshape(self._shape + rows.shape[1:])

    def step(self, action: np.ndarray) -> Timestep:
        """`action` `[population, envs, ...]` -> Timestep with leaves `[population, envs, ...]`."""
        timestep = self._pool.step(action.reshape(-1, *action.shape[2:]))
        return jax.tree.map(self._members, timestep)

    def replay(self, actions: np.ndarray) -> None:
        """Bring fresh environments to where `actions` `[population, ticks, envs, ...]` left them."""
        for tick in range(actions.shape[1]):
            self.step(actions[:, tick])

    def close(self) -> None:
        """Stop the environments' threads."""
        self._pool.close()
