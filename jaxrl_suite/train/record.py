"""Turning interaction into data sets: replay what a learner did, or roll a policy out, and keep every transition."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from jaxrl_suite.envs.stepped import open_pool
from jaxrl_suite.errors import UserError
from jaxrl_suite.train.host import Host, env_seed
from jaxrl_suite.types import Timestep, Transition

Arrays = dict[str, np.ndarray]
Policy = Callable[[np.ndarray, int], np.ndarray]  # (obs [envs, obs_dim], step) -> action [envs, action_dim]


def _rows(obs: np.ndarray, actions: np.ndarray, timesteps: Sequence[Timestep]) -> tuple[Arrays, np.ndarray]:
    """Arrays in the D4RL schema, environment after environment, from `obs` and `actions` `[ticks, envs, ...]`.

    Beside them comes the tick of each row: environments stepped together, so it tells what came before what.
    Reset steps are left out. Where an environment's last episode is cut by the end of the recording, its last row is
    flagged as timed out: every episode in the file has an end.
    """
    stacked = Timestep(*(np.stack(leaf) for leaf in zip(*timesteps, strict=True)))
    parts, ticks = [], []
    for env in range(obs.shape[1]):
        keep = np.flatnonzero(stacked.valid[:, env])
        ticks.append(keep)
        timeouts = stacked.truncated[keep, env].copy()
        timeouts[-1] |= not stacked.terminated[keep[-1], env]
        parts.append(
            {
                "observations": obs[keep, env],
                "actions": actions[keep, env],
                "rewards": stacked.reward[keep, env],
                "terminals": stacked.terminated[keep, env],
                "timeouts": timeouts,
                "next_observations": stacked.obs[keep, env],
            }
        )
    return concatenate(*parts), np.concatenate(ticks)


def replay(name: str, seed: int, actions: np.ndarray, rows: int | None = None) -> Arrays:
    """The experience of one learner on host environments, rebuilt from its actions `[ticks, envs, action_dim]`.

    With `rows`, at most that many of it: see `thin`.
    """
    host = Host(name, [seed], actions.shape[1])
    obs, timesteps = [host.first_obs[0]], []
    for action in actions:
        timestep = host.step(action[None])
        timesteps.append(Timestep(*(leaf[0] for leaf in timestep)))
        obs.append(timesteps[-1].obs)
    host.close()
    arrays, ticks = _rows(np.stack(obs[:-1]), actions, timesteps)
    return arrays if rows is None else thin(arrays, ticks, rows)


def recall(taken: Transition, envs: int, ticks: int, rows: int | None = None) -> Arrays:
    """The experience of one learner in pure environments, from the rows `[ticks * envs, ...]` of its replay buffer.

    An episode ends where the next row of the same environment does not go on from there. `rows` as for `replay`.

    Raises:
        UserError: the buffer holds less than what the learner did: new rows took the place of old ones.
    """
    held = len(taken.reward)
    if held != ticks * envs:
        # Rows of a ring that has come round are out of their order, too.
        raise UserError(
            f"the replay buffer holds {held:,} of the {ticks * envs:,} rows of this learner; train it with one that "
            "holds all of them"
        )
    obs, action, reward, discount, after = (np.asarray(x).reshape(-1, envs, *x.shape[1:]) for x in taken)
    ended = np.ones(reward.shape, bool)
    ended[:-1] = (after[:-1] != obs[1:]).any(-1)
    terminated = discount == 0.0
    timesteps = zip(after, reward, terminated, ended & ~terminated, np.ones_like(ended), strict=True)
    arrays, order = _rows(obs, action, [Timestep(*leaves) for leaves in timesteps])
    return arrays if rows is None else thin(arrays, order, rows)


def thin(arrays: Arrays, ticks: np.ndarray, rows: int) -> Arrays:
    """At most `rows` rows: whole episodes, evenly spaced in the order in which they began, in their old places.

    They are spaced by number, not by rows: a rule that fills up rows would prefer short episodes, which are bad ones.

    Raises:
        UserError: not even one episode fits.
    """
    ends = arrays["terminals"] | arrays["timeouts"]
    lasts = np.flatnonzero(ends)
    firsts = np.append(0, lasts[:-1] + 1)
    lengths = lasts - firsts + 1
    order = np.argsort(ticks[firsts], kind="stable")
    for count in range(len(order), 0, -1):
        chosen = order[(2 * np.arange(count) + 1) * len(order) // (2 * count)]
        if lengths[chosen].sum() <= rows:
            keep = np.isin(np.cumsum(ends) - ends, chosen)
            return {name: column[keep] for name, column in arrays.items()}
    raise UserError(f"--rows={rows} holds no whole episode of this learner; give more rows")


def rollout(name: str, policy: Policy, rows: int, seed: int, envs: int = 10) -> Arrays:
    """At least `rows` transitions of a policy; episodes under way when they are reached are cut there."""
    pool = open_pool(name, [env_seed(seed, 2, i) for i in range(envs)])
    obs, count = [pool.reset()], 0
    actions: list[np.ndarray] = []
    timesteps: list[Timestep] = []
    while count < rows:
        action = policy(obs[-1], len(actions))
        timestep = pool.step(action)
        actions.append(action)
        timesteps.append(timestep)
        obs.append(timestep.obs)
        count += int(timestep.valid.sum())
    pool.close()
    return _rows(np.stack(obs[:-1]), np.stack(actions), timesteps)[0]


def concatenate(*parts: Arrays) -> Arrays:
    """Data sets one after another: every part ends with the end of an episode."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
