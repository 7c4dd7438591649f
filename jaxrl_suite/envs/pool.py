"""The bridge to envpool: MuJoCo tasks on the host, many environments a step.

A pool has no state that could be saved. It is rebuilt from its seeds, and continues where it was by replaying actions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrl_suite.errors import UserError
from jaxrl_suite.types import Timestep


def library() -> Any:
    """The package envpool, asked for when the first pool is made.

    Raises:
        UserError: it is not installed.
    """
    try:
        import envpool
    except ImportError as error:
        raise UserError(
            f"environments on the host need envpool ({error}); install it: pip install 'envpool>=1.2'"
        ) from error
    return envpool


class Pool:
    """Environments that step together and reset themselves in a step of their own, which is marked invalid."""

    actions: type[np.generic] = np.float64  # what envpool takes them as

    def __init__(self, name: str, seeds: Sequence[int], **settings: Any) -> None:
        """Environment i is seeded by `seeds[i]` alone, so that its episodes do not depend on its neighbours.

        Raises:
            UserError: envpool is not installed.
        """
        self._envs = library().make_gymnasium(
            name,
            num_envs=len(seeds),
            seed=[int(seed) for seed in seeds],
            num_threads=min(len(seeds), os.cpu_count() or 1),
            **settings,
        )
        self._ended = np.zeros(len(seeds), bool)

    def seen(self, obs: np.ndarray) -> np.ndarray:
        """What of envpool's observations is handed on."""
        return obs.astype(np.float32)

    def reset(self) -> np.ndarray:
        """First observations `[envs, obs_dim]`. To be called once: a second reset would differ from the first."""
        obs, _ = self._envs.reset()
        return self.seen(obs)

    def step(self, action: np.ndarray) -> Timestep:
        """One step of every environment for `action` `[envs, action_dim]` in [-1, 1].

        An environment whose episode has just ended ignores its action, resets and answers `valid=False`;
        `obs` is then the first observation of the next episode.
        """
        valid = ~self._ended
        obs, reward, terminated, truncated, _ = self._envs.step(np.asarray(action, self.actions))
        self._ended = terminated | truncated
        return Timestep(
            obs=self.seen(obs),
            reward=np.where(valid, reward, 0.0).astype(np.float32),
            terminated=terminated & valid,
            truncated=truncated & ~terminated & valid,
            valid=valid,
        )

    def close(self) -> None:
        """Stop the pool's threads."""
        self._envs.close()
