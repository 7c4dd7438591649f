"""The rules of episodes, as pure functions of numpy arrays.

An episode ends where a flag says so, and at the last row of the file. `discount` is 0 after a terminal alone; a row
cut by a time limit keeps its true successor and is marked `truncated`. No pair (obs, next_obs) or
(action, next_action) crosses the end of an episode.

A row whose successor is not known is DROPPED, terminal rows included: their successor would not matter to a value
(the discount is 0), but a dynamics model would learn it. What is left of such an episode then ends truncated.
`mc_return` and the returns of episodes are computed before anything is dropped. Only files without
`next_observations` lose rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from jaxrl_suite import types
from jaxrl_suite.data.columns import END_NEXT, Columns
from jaxrl_suite.errors import UserError


class Assembled(NamedTuple):
    """A data set and what was noticed while putting it together."""

    dataset: types.Dataset
    returns: np.ndarray  # [completed episodes] undiscounted
    notes: dict[str, int]  # rows dropped, ends inferred; empty when nothing happened


def assemble(columns: Columns, sim_state: Any, gamma: float, parity: str | None, infer: bool, where: str) -> Assembled:
    """Apply the rules. `infer`: an episode also ends where the stored successor is not the next row."""
    timeouts = np.zeros_like(columns.terminals) if columns.timeouts is None else columns.timeouts
    flagged = columns.terminals | timeouts
    if infer and parity is None and columns.timeouts is None and columns.next_observations is None:
        raise UserError(
            f"{where}: has neither timeouts nor next_observations, so that an episode that ran out of time cannot be "
            "told from the next; add timeouts (all 0 if no episode did)"
        )
    unmarked = jumps(columns) & ~flagged if infer and parity is None else np.zeros_like(flagged)
    ends = flagged | unmarked
    completed = ends[-1]  # otherwise the file's end cut the last episode
    ends[-1] = True

    if parity == "d4rl":
        if columns.timeouts is None:
            raise UserError(f"{where}: parity d4rl needs timeouts, which this file lacks; load it without parity")
        next_obs, keep = _shifted(columns.observations), ~timeouts
        keep[-1] = False
    else:
        next_obs, keep = _successors(columns, ends, where)
    if not keep.any():
        raise UserError(f"{where}: no row has a known successor, expected next_observations or longer episodes")

    mc_return = reward_to_go(columns.rewards, ends, gamma).astype(np.float32)
    notes = {"rows_dropped": int((~keep).sum()), "episode_ends_inferred": int(unmarked.sum())}
    return Assembled(
        dataset=_dataset(columns, next_obs, mc_return, sim_state, episode_index(ends), keep),
        returns=episode_returns(columns.rewards, ends, bool(completed)),
        notes={name: count for name, count in notes.items() if count},
    )


def episode_index(ends: np.ndarray) -> np.ndarray:
    """[rows] index of each row's episode, from 0, where `ends` marks last rows."""
    return np.cumsum(ends) - ends


def reward_to_go(rewards: np.ndarray, ends: np.ndarray, gamma: float) -> np.ndarray:
    """[rows] discounted sum of the rewards from each row to the end of its episode, in float64.

    Doubling: the sum over 2s steps is the sum over s steps plus gamma^s times the one that starts s rows later.
    So log2(longest episode) passes over the rows do, whether episodes are many or long.
    """
    total = rewards.astype(np.float64)
    left = np.flatnonzero(ends)[episode_index(ends)] - np.arange(len(ends))  # rows after this one in its episode
    step = 1
    while step <= left.max():
        total[:-step] += gamma**step * np.where(left[:-step] >= step, total[step:], 0.0)
        step *= 2
    return total


def cut(dataset: types.Dataset, first: int, last: int, episode: int = 0) -> types.Dataset:
    """The rows from `first` up to `last`, of which the first episode of `dataset` has the number `episode`."""
    rows: types.Dataset = jax.tree.map(lambda leaf: leaf[first:last], dataset)
    return rows._replace(episode=rows.episode + np.int32(episode))


def stats(x: np.ndarray) -> types.Stats:
    """Mean and standard deviation [dim] over rows [rows, dim]; a constant column gets 1 and so becomes 0."""
    mean: Any = x.mean(axis=0, dtype=np.float64).astype(np.float32)  # equal float32 sum exactly in float64
    std = x.std(axis=0, dtype=np.float64)
    safe: Any = np.where(std < 1e-12, 1.0, std).astype(np.float32)
    return types.Stats(mean, safe)


def summary(dataset: types.Dataset) -> pd.DataFrame:
    """A row per episode of the loaded rows: episode, return (undiscounted), length (steps), terminated, truncated.

    The return of an episode that lost rows is that of the rows left.
    """
    episode, reward = np.asarray(dataset.episode), np.asarray(dataset.transitions.reward, np.float64)
    numbers, first, length = np.unique(episode, return_index=True, return_counts=True)
    last = first + length - 1
    return pd.DataFrame(
        {
            "episode": numbers,
            "return": np.bincount(episode, reward)[numbers],
            "length": length,
            "terminated": np.asarray(dataset.transitions.discount)[last] == 0,
            "truncated": np.asarray(dataset.truncated)[last],
        }
    )


def _dataset(
    columns: Columns, next_obs: np.ndarray, mc_return: np.ndarray, sim_state: Any, episode: np.ndarray, keep: np.ndarray
) -> types.Dataset:
    """The kept rows. Only rows at the ends of episodes are ever dropped, so neighbours stay neighbours."""

    def pick(x: Any) -> Any:
        return x if keep.all() else x[keep]

    action, terminal, episode = pick(columns.actions), pick(columns.terminals), pick(episode)
    last: Any = np.append(episode[1:] != episode[:-1], True)
    next_action: Any = np.where(last[:, None], np.float32(0), _shifted(action))
    # counted again: an episode of one dropped row is gone
    index: Any = episode_index(last).astype(np.int32)
    transitions = types.Transition(
        obs=pick(columns.observations),
        action=action,
        reward=pick(columns.rewards),
        discount=(1 - terminal).astype(np.float32),
        next_obs=pick(next_obs),
    )
    return types.Dataset(
        transitions=transitions,
        next_action=next_action,
        truncated=last & ~terminal,
        episode=index,
        mc_return=pick(mc_return),
        sim_state=None if sim_state is None else (pick(sim_state[0]), pick(sim_state[1])),
    )


def _shifted(x: np.ndarray) -> Any:
    """Row i + 1 at row i; the last row has no successor and keeps itself."""
    return np.concatenate([x[1:], x[-1:]])


def jumps(columns: Columns) -> np.ndarray:
    """[rows] where the stored successor is not the next row: a reset lies between. False at the last row."""
    if columns.next_observations is None:
        return np.zeros_like(columns.terminals)
    differs = (columns.next_observations[:-1] != columns.observations[1:]).any(axis=1)
    return np.append(differs, False)


def _successors(columns: Columns, ends: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """(next_obs [rows, obs_dim], known [rows]) from the best that the file has."""
    everywhere = np.ones_like(ends)
    if columns.next_observations is not None:
        return columns.next_observations, everywhere
    rebuilt = _shifted(columns.observations)
    if columns.end_next is None:
        return rebuilt, ~ends
    if len(columns.end_next) != ends.sum():
        raise UserError(
            f"{where}: {END_NEXT} has {len(columns.end_next)} rows, expected one per episode ({ends.sum()})"
        )
    rebuilt[ends] = columns.end_next
    return rebuilt, everywhere


def episode_returns(rewards: np.ndarray, ends: np.ndarray, completed: bool) -> np.ndarray:
    """[completed episodes] undiscounted returns; an episode cut by the file's end counts only when it is alone."""
    starts = np.append(0, np.flatnonzero(ends)[:-1] + 1)
    returns = np.add.reduceat(rewards.astype(np.float64), starts)
    return returns if completed or len(returns) == 1 else returns[:-1]
