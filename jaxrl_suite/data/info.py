"""What is known about a data set, whatever format it came in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxrl_suite import types
from jaxrl_suite.data.columns import Columns
from jaxrl_suite.data.episodes import assemble, cut
from jaxrl_suite.errors import UserError, unknown

NOT_STATED = "not stated"
Window = Callable[[int], tuple[int, int]]  # rows in all -> the first row that is wanted, and the one after the last


class DatasetInfo(NamedTuple):
    """What is known about a data set; rows and episodes as loaded, returns of the completed episodes in the file."""

    name: str
    env: str | None
    rows: int
    episodes: int
    return_mean: float
    return_std: float
    return_max: float
    sha256: str  # of the file's bytes
    bytes: int
    licence: str
    source: str
    provenance: dict[str, Any]
    path: str


class Origin(NamedTuple):
    """What a container says about its rows."""

    name: str
    env: str | None
    sha256: str
    bytes: int
    path: str
    licence: str = ""
    source: str = ""
    provenance: dict[str, Any] = {}  # noqa: RUF012 nobody writes to it: `describe` joins a new one


def describe(origin: Origin, rows: int, episodes: int, returns: np.ndarray, notes: dict[str, int]) -> DatasetInfo:
    """The info of a data set; `notes` are the reader's own remarks."""
    return DatasetInfo(
        name=origin.name,
        env=origin.env,
        rows=rows,
        episodes=episodes,
        return_mean=float(returns.mean()),
        return_std=float(returns.std()),
        return_max=float(returns.max()),
        sha256=origin.sha256,
        bytes=origin.bytes,
        licence=origin.licence or NOT_STATED,
        source=origin.source or NOT_STATED,
        provenance=origin.provenance | ({"reader": notes} if notes else {}),
        path=origin.path,
    )


def finish(
    columns: Columns,
    origin: Origin,
    where: str,
    *,
    infer: bool,
    parity: str | None = None,
    gamma: float = 0.99,
    window: Window | None = None,
    notes: dict[str, int] | None = None,
) -> tuple[types.Dataset, DatasetInfo]:
    """The data set of these columns and its info; with `window` those rows of it, and the info of the whole."""
    sim_state = None if columns.qpos is None or columns.qvel is None else (columns.qpos, columns.qvel)
    dataset, returns, found = assemble(columns, sim_state, gamma, parity, infer, where)
    rows, episodes = len(dataset.episode), int(dataset.episode[-1]) + 1
    if window is not None:
        dataset = cut(dataset, *window(rows))
    return dataset, describe(origin, rows, episodes, returns, (notes or {}) | found)


def check_options(parity: str | None, gamma: float) -> None:
    """Refuse what no reader understands."""
    if parity not in (None, "d4rl"):
        raise unknown("parity", parity, ["d4rl"])
    if not 0.0 <= gamma <= 1.0:
        raise UserError(f"gamma is {gamma}, expected a number from 0 to 1")


def check_sha256(where: str, found: str, expected: str | None) -> None:
    """Refuse other bytes than those expected, if any are."""
    if expected is not None and found != expected:
        raise UserError(
            f"{where}: the file is damaged (sha256 {found[:12]}..., expected {expected[:12]}...); "
            "reinstall, or copy or download it again"
        )
