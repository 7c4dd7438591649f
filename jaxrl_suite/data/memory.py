"""Episodes as lists: what Gymnasium users have in memory, and what Minari stores.

An episode has `observations` [T+1 or T, obs_dim], `actions` [T, action_dim]; `rewards`, `terminations`, `truncations`
[T]. With T+1 observations the last one is the true final observation; with T the successor of the last row is not
known, and that row is dropped (see `episodes`). Where a list says that an episode ends, it ends: without a flag on its
last row it counts as truncated there. A flag earlier in an episode ends it too, and the next row begins another.

An episode may have `infos`, a mapping of arrays, as Gymnasium's steps collect them: of these `qpos` and `qvel` are the
simulator's states, if they are numbers `[rows of observations, dim]`, row by row those of the observations. Others are
not looked at. Episodes whose states are missing or of another form, while some episode has them, get NaN, which says
that they are unknown, and are counted in the reader's remarks: a state that belongs to another row would do harm, and
the rows do not need one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxrl_suite import types
from jaxrl_suite.data.columns import Columns, check
from jaxrl_suite.data.info import DatasetInfo, Origin, check_options, finish
from jaxrl_suite.errors import UserError

PER_STEP = ("rewards", "terminations", "truncations")
FIELDS = ("observations", "actions", *PER_STEP)
STATES = ("qpos", "qvel")  # of the simulator, in an episode's infos


class Episode(NamedTuple):
    """One episode as arrays."""

    observations: np.ndarray  # [T + 1 or T, obs_dim]
    actions: np.ndarray  # [T, action_dim]
    rewards: np.ndarray  # [T]
    terminations: np.ndarray  # [T]
    truncations: np.ndarray  # [T]
    qpos: np.ndarray | None = None  # [rows of observations, nq] as found
    qvel: np.ndarray | None = None  # [rows of observations, nv] as found


def from_episodes(
    episodes: Iterable[Any],
    env: str | None = None,
    *,
    name: str = "episodes",
    gamma: float = 0.99,
    licence: str = "",
    source: str = "",
) -> tuple[types.Dataset, DatasetInfo]:
    """A data set from episodes in memory: mappings, named tuples, dataclasses or objects with the fields of `Episode`.

    Raises:
        UserError: a field is missing, or lengths, widths or numbers do not fit; the message names the episode.
    """
    check_options(None, gamma)
    if isinstance(episodes, Mapping | str | bytes) or hasattr(episodes, "observations"):
        raise UserError(f"{name}: expected a list of episodes, found one {type(episodes).__name__}; give [episode]")
    columns, notes = join([_episode(f"{name}: episode {i}", episode) for i, episode in enumerate(episodes)], name)
    arrays = [x for x in columns if x is not None]
    origin = Origin(name, env, _digest(columns), sum(x.nbytes for x in arrays), "", licence, source)
    return finish(columns, origin, name, infer=False, gamma=gamma, notes=notes)


def join(episodes: list[Episode], where: str) -> tuple[Columns, dict[str, int]]:
    """(rows of all episodes in order, the reader's remarks)."""
    if not episodes:
        raise UserError(f"{where}: has no episodes, expected at least one")
    for index, episode in enumerate(episodes):
        _fits(f"{where}: episode {index}", episode, episodes[0])
    lengths = np.array([len(episode.actions) for episode in episodes])
    final = len(episodes[0].observations) > lengths[0]
    ends = np.cumsum(lengths) - 1
    raw = {
        "observations": np.concatenate([e.observations[: len(e.actions)] for e in episodes]),
        "actions": np.concatenate([e.actions for e in episodes]),
        "rewards": np.concatenate([e.rewards for e in episodes]),
        "terminals": np.concatenate([e.terminations for e in episodes]),
        "timeouts": np.concatenate([e.truncations for e in episodes]),
    }
    if final:
        raw["next_observations"] = np.concatenate([e.observations[1:] for e in episodes])
    states, unknown_states = _states(episodes)
    columns = check(where, raw | states)
    assert columns.timeouts is not None
    unmarked = ends[~(columns.terminals | columns.timeouts)[ends]]
    columns.timeouts[unmarked] = True
    notes = {"episode_ends_without_flag": len(unmarked), "episodes_without_sim_state": unknown_states}
    return columns, {name: count for name, count in notes.items() if count}


def _states(episodes: list[Episode]) -> tuple[dict[str, np.ndarray], int]:
    """(the simulator's states as columns, if any episode has them; how many do not, though others were given some)."""
    widths = [_widths(episode) for episode in episodes]
    width = next(filter(None, widths), None)
    if width is None:
        return {}, sum(e.qpos is not None or e.qvel is not None for e in episodes)

    def column(name: str, dim: int) -> np.ndarray:
        parts = zip(episodes, widths, strict=True)
        unknown = lambda e: np.full((len(e.actions), dim), np.nan)  # noqa: E731
        return np.concatenate([getattr(e, name)[: len(e.actions)] if w == width else unknown(e) for e, w in parts])

    columns = {f"infos/{name}": column(name, dim) for name, dim in zip(STATES, width, strict=True)}
    return columns, sum(w != width for w in widths)


def _widths(episode: Episode) -> tuple[int, int] | None:
    """(nq, nv) of an episode with a state for each of its observations."""
    rows = len(episode.observations)
    for x in (episode.qpos, episode.qvel):
        if x is None or x.dtype.kind not in "fiub" or x.ndim != 2 or len(x) != rows or not x.shape[1]:
            return None
    assert episode.qpos is not None and episode.qvel is not None
    return episode.qpos.shape[1], episode.qvel.shape[1]


def _entry(container: Any, name: str) -> Any:
    return container.get(name) if isinstance(container, Mapping) else getattr(container, name, None)


def _state(episode: Any, name: str) -> np.ndarray | None:
    """What an episode's infos hold of that name; of no use (a shape that never fits) where it is no array."""
    infos = _entry(episode, "infos")
    found = infos.get(name) if isinstance(infos, Mapping) else None
    try:
        return None if found is None else np.asarray(found)
    except (ValueError, TypeError):  # rows of different lengths
        return np.zeros(0)


def _episode(where: str, episode: Any) -> Episode:
    def field(name: str) -> np.ndarray:
        found = _entry(episode, name)
        if found is None:
            raise UserError(f"{where} has no {name}; expected {', '.join(FIELDS)}")
        try:
            return np.asarray(found)
        except (ValueError, TypeError) as error:  # rows of different lengths, or no numbers at all
            raise UserError(f"{where}: {name} is not an array of numbers ({error})") from error

    arrays = Episode(*(field(name) for name in FIELDS), *(_state(episode, name) for name in STATES))
    return arrays._replace(**{name: _flat(getattr(arrays, name)) for name in PER_STEP})


def _flat(x: np.ndarray) -> np.ndarray:
    """[T, 1] to [T]; anything else stays what it is, and is judged later."""
    return x[:, 0] if x.ndim == 2 and x.shape[1] == 1 else x


def _fits(where: str, episode: Episode, first: Episode) -> None:
    """Refuse an episode whose arrays do not fit each other or those of the first episode."""
    for name in FIELDS:
        x = getattr(episode, name)
        if x.dtype.kind not in "fiub":
            raise UserError(f"{where}: {name} holds {x.dtype}, expected numbers")
        dims = 1 if name in PER_STEP else 2
        if x.ndim != dims:
            raise UserError(f"{where}: {name} has shape {x.shape}, expected {('(T,)', '(T, dim)')[dims - 1]}")
    steps, rows = len(episode.actions), len(episode.observations)
    if steps == 0:
        raise UserError(f"{where} has no steps, expected at least one")
    for name in PER_STEP:
        if len(getattr(episode, name)) != steps:
            raise UserError(f"{where}: {name} has {len(getattr(episode, name))} rows, but actions has {steps}")
    if rows not in (steps, steps + 1):
        raise UserError(f"{where}: observations has {rows} rows, expected {steps + 1} (or {steps}) for {steps} actions")
    for name in ("observations", "actions"):
        width, expected = getattr(episode, name).shape[1], getattr(first, name).shape[1]
        if width != expected:
            raise UserError(f"{where}: {name} has {width} columns, but episode 0 has {expected}")
    if rows - steps != len(first.observations) - len(first.actions):
        raise UserError(
            f"{where}: its final observation is {'there' if rows > steps else 'missing'}, unlike that of episode 0; "
            "give it for all episodes or for none"
        )


def _digest(columns: Columns) -> str:
    """The checksum of the rows, in place of that of a file."""
    found = hashlib.sha256()
    for name, x in zip(columns._fields, columns, strict=True):
        if x is not None:
            found.update(f"{name} {x.dtype.str} {x.shape}\n".encode())
            found.update(np.ascontiguousarray(x).data)
    return found.hexdigest()
