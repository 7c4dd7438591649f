"""The columns of a flat data file, checked once, so that nothing behind this line meets a bad number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from jaxrl_suite.errors import UserError

REQUIRED = ("observations", "actions", "rewards", "terminals")
END_NEXT = "episode_end_next_observations"
OPTIONAL = ("timeouts", "next_observations", END_NEXT, "infos/qpos", "infos/qvel")


class Columns(NamedTuple):
    """Checked rows in file order; float32 and bool."""

    observations: np.ndarray  # [rows, obs_dim]
    actions: np.ndarray  # [rows, action_dim]
    rewards: np.ndarray  # [rows]
    terminals: np.ndarray  # [rows] bool
    timeouts: np.ndarray | None  # [rows] bool
    next_observations: np.ndarray | None  # [rows, obs_dim]
    end_next: np.ndarray | None  # [episodes, obs_dim] successors of the last rows only
    qpos: np.ndarray | None  # [rows, nq] NaN where unknown
    qvel: np.ndarray | None  # [rows, nv] NaN where unknown


def require(where: str, present: Iterable[str], wanted: Iterable[str] = REQUIRED) -> None:
    """Raise, naming what is missing and what there is instead, unless every wanted column is present."""
    present = sorted(present)
    missing = [name for name in wanted if name not in present]
    if not missing:
        return
    found = ", ".join(present[:12]) + (", ..." if len(present) > 12 else "")
    raise UserError(f"{where}: missing {', '.join(missing)}; found {found or 'nothing'}; expected the flat D4RL layout")


def check(where: str, raw: Mapping[str, np.ndarray]) -> Columns:
    """Turn raw arrays into `Columns`, or raise a UserError that names the first fault."""
    require(where, raw)
    observations = _matrix(where, "observations", raw["observations"])
    rows, obs_dim = observations.shape

    def matrix(name: str, like: tuple[int | None, int | None], finite: bool = True) -> np.ndarray | None:
        return _matrix(where, name, raw[name], like, finite) if name in raw else None

    actions = _matrix(where, "actions", raw["actions"], (rows, None))
    rewards = _matrix(where, "rewards", _column(where, "rewards", raw["rewards"]), (rows, 1))[:, 0]
    return Columns(
        observations=observations,
        actions=actions,
        rewards=rewards,
        terminals=_flags(where, "terminals", raw["terminals"], rows),
        timeouts=_flags(where, "timeouts", raw["timeouts"], rows) if "timeouts" in raw else None,
        next_observations=matrix("next_observations", (rows, obs_dim)),
        end_next=matrix(END_NEXT, (None, obs_dim)),
        # NaN is how a simulator state says that it is unknown
        qpos=matrix("infos/qpos", (rows, None), finite=False),
        qvel=matrix("infos/qvel", (rows, None), finite=False),
    )


def _matrix(
    where: str, name: str, x: np.ndarray, like: tuple[int | None, int | None] = (None, None), finite: bool = True
) -> np.ndarray:
    """[rows, dim] as float32; `like` gives the sizes that the other columns ask for."""
    _numbers(where, name, x)
    if x.ndim != 2 or 0 in x.shape[1:]:
        raise UserError(f"{where}: {name} has shape {x.shape}, expected (rows, dim)")
    rows, dim = x.shape
    if rows == 0:
        raise UserError(f"{where}: {name} is empty, expected at least one row")
    if like[0] not in (None, rows):
        raise UserError(f"{where}: {name} has {rows} rows, but observations has {like[0]}")
    if like[1] not in (None, dim):
        raise UserError(f"{where}: {name} has {dim} columns, expected {like[1]}")
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, and is refused below
        x = np.ascontiguousarray(x, np.float32)
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1)) if finite else np.zeros(0, int)
    if len(bad):
        raise UserError(f"{where}: {name} has {len(bad)} rows with NaN or infinite values, the first is row {bad[0]}")
    return x


def _column(where: str, name: str, x: np.ndarray) -> np.ndarray:
    """[rows] or [rows, 1], as older files have it, to [rows, 1]."""
    if x.ndim > 0 and x.shape[1:] in ((), (1,)):
        return x.reshape(-1, 1)
    raise UserError(f"{where}: {name} has shape {x.shape}, expected (rows,)")


def _flags(where: str, name: str, x: np.ndarray, rows: int) -> np.ndarray:
    """[rows] of bool from any number type that holds only 0 and 1."""
    flags = _matrix(where, name, _column(where, name, x), (rows, 1))[:, 0]
    bad = np.flatnonzero((flags != 0) & (flags != 1))
    if len(bad):
        raise UserError(f"{where}: {name} has {len(bad)} values other than 0 and 1, the first is row {bad[0]}")
    return flags == 1


def _numbers(where: str, name: str, x: np.ndarray) -> None:
    if x.dtype.kind not in "fiub":
        raise UserError(f"{where}: {name} holds {x.dtype}, expected numbers")
