"""Atari games on the host, through envpool: single grey frames of 84 x 84 bytes, with sticky actions.

A step repeats its action four frames and shows the larger of the last two; with probability 0.25 a frame repeats the
action before it (Machado et al. 2018, JAIR 61). Episodes end with the game, not with a life, or after 27,000 steps.
Whole numbers below the Spec's `action_dim` are the game's own actions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxrl_suite.envs import pool, termination
from jaxrl_suite.errors import unknown
from jaxrl_suite.types import Spec

SIZE, HORIZON, SKIP = 84, 27_000, 4
# Actions, and mean returns of random actions and of a human (Wang et al. 2016, arXiv 1511.06581, no-op starts), as
# public tables of them have it.
GAMES = {"Pong": (6, -20.7, 14.6), "Breakout": (4, 1.7, 30.5)}
VERSION = "-v5"


def is_game(name: str) -> bool:
    """Whether a Spec of that name is one of an Atari game."""
    return name.removesuffix(VERSION) in GAMES and name.endswith(VERSION)


def spec(game: str) -> Spec:
    """The Spec of a game ("Pong", in any case). Its score is 0 for random actions and 100 for a human.

    Raises:
        UserError: no such game.
    """
    known = {name.lower(): name for name in GAMES}
    if game.lower() not in known:
        raise unknown("game", game, GAMES)
    name = known[game.lower()]
    actions, low, high = GAMES[name]
    return Spec(name + VERSION, SIZE * SIZE, actions, HORIZON, termination.never, low, high)


class Atari(pool.Pool):
    """Games as a pool: actions are whole numbers `[envs]`, obs frames `[envs, 84, 84]`, rewards not clipped."""

    actions = np.int32

    def __init__(self, name: str, seeds: Sequence[int], horizon: int = HORIZON) -> None:
        """Game i is seeded by `seeds[i]` alone.

        Raises:
            UserError: envpool is not installed.
        """
        super().__init__(
            name,
            seeds,
            stack_num=1,
            frame_skip=SKIP,
            repeat_action_probability=0.25,
            episodic_life=False,
            reward_clip=False,
            use_fire_reset=False,
            noop_max=1,
            max_episode_steps=horizon,
        )

    def seen(self, obs: np.ndarray) -> np.ndarray:
        """The one frame of each stack."""
        return obs[:, 0]
