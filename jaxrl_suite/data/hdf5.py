"""HDF5 files in the D4RL layout: read without trusting them, written atomically and always with the same bytes.

The layout (github.com/Farama-Foundation/D4RL): flat `observations, actions, rewards, terminals, timeouts`, optional
`next_observations`, `infos/qpos`, `infos/qvel`. Inside an episode next_observations repeats observations, so our own
files keep only `episode_end_next_observations` [episodes, obs_dim], in order (some of earlier versions keep all).
Attributes of our files: `schema`, `env`, `env_version`, `level`, `licence`, `source`, `provenance` (JSON), `sim_state`.

`sim_state = "from_observations"`: the simulator's state is read off the observation, qpos = [0, obs[:nq-1]] and
qvel = obs[nq-1:], in ant with two zeros in place of one. That is exact up to the translation along x, and ant's along y
(which no reward or observation depends on), and to float32. Hopper and Walker2d clip velocities in the observation to
+-10: rows with such a velocity get NaN qvel.

A reader's own remarks (rows dropped, ends inferred) are added to the provenance under the key `reader`, if any.
Where a file keeps all next_observations, an episode also ends where next_observations[i] differs from
observations[i+1], because D4RL's replay sets do not mark every time-out (D4RL#162); `write` marks them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrl_suite import types
from jaxrl_suite.data import d4rl
from jaxrl_suite.data.columns import END_NEXT, OPTIONAL, REQUIRED, Columns, check, require
from jaxrl_suite.data.container import read, sha256_of, store
from jaxrl_suite.data.episodes import assemble, cut, episode_returns, jumps
from jaxrl_suite.data.info import DatasetInfo, Origin, Window, check_options, check_sha256, describe
from jaxrl_suite.errors import UserError

FLAGS = ("terminals", "timeouts", "rewards")  # numbers per row: what tells episodes and their returns
FULL = "next_observations"  # the successors of all rows
SCHEMA = "jaxrl_suite/1"
FROM_OBSERVATIONS = "from_observations"


class _Task(NamedTuple):
    nq: int
    nv: int
    velocity_limit: float  # the observation clips velocities to +- this
    hidden: int = 1  # first entries of qpos that are not observed

    @property
    def seen(self) -> int:
        """Positions in an observation."""
        return self.nq - self.hidden

    @property
    def width(self) -> int:
        """Numbers in an observation."""
        return self.seen + self.nv


_TASKS = {
    "hopper": _Task(6, 6, 10.0),
    "halfcheetah": _Task(9, 9, np.inf),
    "walker2d": _Task(9, 9, 10.0),
    "ant": _Task(15, 14, np.inf, hidden=2),
}


def load_file(
    path: str | Path,
    name: str | None = None,
    parity: str | None = None,
    gamma: float = 0.99,
    expected_sha256: str | None = None,
    window: Window | None = None,
) -> tuple[types.Dataset, DatasetInfo]:
    """Read a data file. `parity="d4rl"` repeats what d4rl.qlearning_dataset returned, its faults included.

    With `window` only those rows come back, as they are in the whole, beside the info of the whole. Of our own files
    the columns of vectors are then read for the episodes that hold these rows alone; of others, and of those that keep
    all successors, in full, as it takes all rows to find their episodes.
    """
    check_options(parity, gamma)
    path = Path(path).expanduser()
    where = str(path)
    sha256 = sha256_of(path)
    check_sha256(where, sha256, expected_sha256)

    part = _part(path, window) if window is not None and parity is None else None
    raw, attributes = read(path, rows=part.rows if part else {})
    _check_schema(where, attributes.get("schema", ""))
    columns = check(where, raw)
    env = attributes.get("env") or _guess_env(path)
    sim_state = _sim_state(columns, env, attributes.get("sim_state") == FROM_OBSERVATIONS, where)
    dataset, returns, notes = assemble(columns, sim_state, gamma, parity, True, where)
    rows, episodes = len(dataset.episode), int(dataset.episode[-1]) + 1
    if part is not None:
        rows, episodes, returns = part.total, part.episodes, part.returns
        dataset = cut(dataset, part.first, part.last, part.episode)
    elif window is not None:
        dataset = cut(dataset, *window(rows))
    origin = Origin(
        name=name or path.stem,
        env=env,
        sha256=sha256,
        bytes=path.stat().st_size,
        path=where,
        licence=attributes.get("licence", ""),
        source=attributes.get("source", ""),
        provenance=_provenance(attributes.get("provenance", "")),
    )
    return dataset, describe(origin, rows, episodes, returns, notes)


class _Part(NamedTuple):
    """The whole episodes around a window of rows, and facts about all of them."""

    rows: dict[str, slice]  # what to read of every column
    first: int  # the window within these rows
    last: int
    episode: int  # the number of the first episode that is read
    total: int  # rows in the file
    episodes: int
    returns: np.ndarray


def _part(path: Path, window: Window) -> _Part | None:
    """What to read for a window; None where the file must be read whole."""
    flags, attributes = read(path, (*FLAGS, FULL), rows={FULL: slice(0)})
    ours = attributes.get("schema", "").startswith("jaxrl_suite/")
    if not ours or "timeouts" not in flags or FULL in flags:  # with all successors there, flags do not tell all ends
        return None
    terminals, timeouts, rewards = (np.asarray(flags[key]).reshape(-1) for key in ("terminals", "timeouts", "rewards"))
    if not len(terminals) == len(timeouts) == len(rewards):
        return None  # reading it whole says what is wrong
    ends = (terminals != 0) | (timeouts != 0)
    completed, ends[-1] = bool(ends[-1]), True
    first, last = window(len(ends))
    lasts = np.flatnonzero(ends)
    head, tail = np.searchsorted(lasts, [first, last - 1])  # the episodes of the first and the last row
    start, stop = (int(lasts[head - 1]) + 1 if head else 0), int(lasts[tail]) + 1
    columns = dict.fromkeys((*REQUIRED, *OPTIONAL), slice(start, stop)) | {END_NEXT: slice(int(head), int(tail) + 1)}
    returns = episode_returns(rewards, ends, completed)
    return _Part(columns, first - start, last - start, int(head), len(ends), len(lasts), returns)


def write(
    path: str | Path,
    arrays: Mapping[str, np.ndarray],
    env: str,
    provenance: dict[str, Any],
    licence: str,
    source: str,
    *,
    level: str = "",
    env_version: str = "",
) -> str:
    """Write rows [N, ...] with their full `next_observations` and return the file's sha256.

    A row that does not lead to the next one ends its episode: where no flag says so, it is marked in `timeouts`, and
    every successor comes back exactly. The file appears whole or not at all; its bytes depend on the content alone (and
    on the versions of HDF5 and zlib).

    Raises:
        UserError: a column is missing, strange or holds bad numbers, or the file cannot be written.
    """
    path = Path(path)
    where = str(path)
    strange = sorted(set(arrays) - {*REQUIRED, *OPTIONAL} | set(arrays) & {END_NEXT})
    if strange:
        raise UserError(f"{where}: cannot write {', '.join(strange)}; expected {', '.join(_writable())}")
    require(where, arrays, (*REQUIRED, "timeouts", "next_observations"))
    columns = check(where, {key: np.asarray(value) for key, value in arrays.items()})
    attributes = {
        "schema": SCHEMA,
        "env": env,
        "env_version": env_version,
        "level": level,
        "licence": licence,
        "source": source,
        "provenance": json.dumps(provenance, sort_keys=True),
    }
    task = _task(env)
    if task is not None and columns.observations.shape[1] == task.width:
        attributes["sim_state"] = FROM_OBSERVATIONS
    store(path, _stored(columns), attributes)
    return sha256_of(path)


def _writable() -> list[str]:
    return [key for key in (*REQUIRED, *OPTIONAL) if key != END_NEXT]


def _stored(columns: Columns) -> dict[str, np.ndarray]:
    """The arrays that go into our file: all ends marked, and the successors that the next rows do not tell."""
    assert columns.next_observations is not None and columns.timeouts is not None
    timeouts = columns.timeouts | jumps(columns) & ~columns.terminals
    ends = columns.terminals | timeouts
    ends[-1] = True
    infos = {"infos/qpos": columns.qpos, "infos/qvel": columns.qvel}
    return {
        "observations": columns.observations,
        "actions": columns.actions,
        "rewards": columns.rewards,
        "terminals": columns.terminals,
        "timeouts": timeouts,
        END_NEXT: columns.next_observations[ends],
        **{key: value for key, value in infos.items() if value is not None},
    }


def _check_schema(where: str, schema: str) -> None:
    if schema.startswith("jaxrl_suite/") and schema != SCHEMA:
        raise UserError(f"{where}: has schema {schema}, this version reads {SCHEMA}; upgrade jaxrl_suite")


def _provenance(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _task(name: str | None) -> _Task | None:
    """The MuJoCo task that the first word of an environment's or file's name stands for."""
    return _TASKS.get(_first_word(name or ""))


def _first_word(name: str) -> str:
    return re.split(r"[^a-z0-9]", name.lower())[0]


def _guess_env(path: Path) -> str | None:
    return d4rl.ENVS.get(_first_word(path.name))


def _sim_state(columns: Columns, env: str | None, stated: bool, where: str) -> tuple[np.ndarray, np.ndarray] | None:
    """(qpos [rows, nq], qvel [rows, nv]) as stored, else from the observations if the file says so, else None."""
    if columns.qpos is not None and columns.qvel is not None:
        return columns.qpos, columns.qvel
    task = _task(env)
    if not stated or task is None:
        return None
    obs = columns.observations
    if obs.shape[1] != task.width:
        raise UserError(f"{where}: observations has {obs.shape[1]} columns, {env} has {task.width}")
    qpos = np.concatenate([np.zeros_like(obs[:, : task.hidden]), obs[:, : task.seen]], axis=1)
    qvel = obs[:, task.seen :].copy()
    qvel[(np.abs(qvel) >= task.velocity_limit).any(axis=1)] = np.nan
    return qpos, qvel
