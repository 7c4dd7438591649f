"""Minari data sets: a folder `data/` with metadata.json, and the episodes in HDF5 or Arrow files.

The layout (github.com/Farama-Foundation/Minari): `main_data.hdf5` holds a group `episode_<i>` per episode with
`observations` [T+1, ...], `actions` [T, ...], `rewards`, `terminations`, `truncations` [T], and a group `infos`; with
`data_format` "arrow" each episode is a file `<i>/*.arrow` of T+1 rows, in which all but observations and infos end with
a row of padding. The final observation is there, so no row is ever dropped. Episodes are taken in the order of their
numbers: a group of the name `episode_10` comes after `episode_9`. Of `infos`, what a collector records beside each
observation, `qpos` and `qvel` are read (see `memory`).

The package minari is not needed: HDF5 is read as other foreign files are (see `container`), Arrow through pyarrow, and
metadata.json as text; nothing in it is imported or built, the environment's entry point included. Only flat Box spaces
are read. The checksum of a data set is that of the names and checksums of the files that were read.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jaxrl_suite import types
from jaxrl_suite.data.columns import Columns, check, require
from jaxrl_suite.data.container import LARGEST_RATIO, array, one_line, opened, sha256_of
from jaxrl_suite.data.episodes import jumps
from jaxrl_suite.data.info import DatasetInfo, Origin, Window, check_options, check_sha256, finish
from jaxrl_suite.data.memory import FIELDS, PER_STEP, STATES, Episode, join
from jaxrl_suite.errors import UserError

PREFIX = "minari:"
ROOT_VARIABLE = "MINARI_DATASETS_PATH"
FORMATS = ("hdf5", "arrow")
WRITTEN_VERSION = "0.5.0"  # of the layout that `write_minari` follows
INFOS = "infos"
_METADATA, _MAIN = "metadata.json", "main_data.hdf5"
_LARGEST_METADATA = 64_000_000
_ID = re.compile(r"[A-Za-z0-9_][\w-]*(?:/[A-Za-z0-9_][\w-]*)*", re.ASCII)
_TOLD = (
    "dataset_id",
    "minari_version",
    "algorithm_name",
    "author",
    "code_permalink",
    "description",
    "requirements",
    "jaxrl_suite",
)


# --- Finding ---
def is_minari(path: Path) -> bool:
    """Whether a folder holds a Minari data set, itself or in its `data/`."""
    return path.is_dir() and any((folder / _METADATA).is_file() for folder in (path, path / "data"))


def root() -> Path:
    """Where Minari keeps its data sets."""
    named = os.environ.get(ROOT_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".minari" / "datasets"


def folder_of(name: str) -> Path:
    """The folder of `minari:<id>`; never one outside Minari's own."""
    identifier = name.removeprefix(PREFIX)
    if not _ID.fullmatch(identifier):
        raise UserError(f"{identifier!r} is no Minari id; expected one such as mujoco/hopper/medium-v0")
    path = root() / identifier
    if not path.resolve().is_relative_to(root().resolve()):
        raise UserError(f"{name} leads outside {root()}; give the folder's path instead")
    if not is_minari(path):
        raise UserError(
            f"{name}: no such data set under {root()}; run `minari download {identifier}`, or set {ROOT_VARIABLE}"
        )
    return path


# --- Reading ---
def load_minari(
    path: str | Path,
    name: str | None = None,
    parity: str | None = None,
    gamma: float = 0.99,
    expected_sha256: str | None = None,
    window: Window | None = None,
) -> tuple[types.Dataset, DatasetInfo]:
    """Read a Minari data set from its folder; the options are those of `hdf5.load_file`."""
    check_options(parity, gamma)
    path = Path(path).expanduser()
    if not is_minari(path):
        raise UserError(f"{path}: no Minari data set, expected a folder with data/{_METADATA}")
    folder = path if (path / _METADATA).is_file() else path / "data"
    metadata = _metadata(folder / _METADATA)
    arrow = _format(metadata, folder) == "arrow"
    files = _arrow_files(folder) if arrow else [folder / _MAIN]
    sha256 = _sha256([folder / _METADATA, *files], folder)
    check_sha256(str(path), sha256, expected_sha256)
    widths = {key: _width(metadata, key, folder) for key in ("observation_space", "action_space")}
    episodes = list(_arrow_episodes(files) if arrow else _hdf5_episodes(folder / _MAIN))
    columns, notes = join(episodes, str(path))
    _agrees(folder, metadata, widths, columns, len(episodes))
    identifier = str(metadata.get("dataset_id") or path.name)
    origin = Origin(
        name=name or identifier,
        env=_env(metadata).get("id"),
        sha256=sha256,
        bytes=sum(file.stat().st_size for file in files),
        path=str(path),
        source=f"Minari {identifier}",
        provenance=_provenance(metadata),
    )
    return finish(columns, origin, str(path), infer=False, parity=parity, gamma=gamma, window=window, notes=notes)


def _metadata(path: Path) -> dict[str, Any]:
    _plain(path)
    if path.stat().st_size > _LARGEST_METADATA:
        raise UserError(f"{path}: has {path.stat().st_size:,} bytes, more than the metadata of a data set")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({one_line(error)}); copy or download it again") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds a {type(found).__name__}, expected the metadata of a data set")
    return found


def _format(metadata: Mapping[str, Any], folder: Path) -> str:
    found = metadata.get("data_format", "hdf5")
    if found not in FORMATS:
        raise UserError(f"{folder / _METADATA}: data_format is {found!r}, expected {' or '.join(FORMATS)}")
    return str(found)


def _inner(metadata: Mapping[str, Any], key: str) -> Any:
    """JSON within the JSON; None where it is missing or broken."""
    try:
        return json.loads(metadata[key])
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _width(metadata: Mapping[str, Any], key: str, folder: Path) -> int | None:
    """The length of the vectors in a flat Box space; None where the metadata does not tell the space."""
    if key not in metadata:
        return None
    space = _inner(metadata, key)
    kind = space.get("type") if isinstance(space, dict) else None
    shape = space.get("shape") if isinstance(space, dict) else None
    if kind == "Box" and isinstance(shape, list) and len(shape) == 1 and isinstance(shape[0], int):
        return shape[0]
    told = f"{kind} of shape {tuple(shape)}" if kind == "Box" and isinstance(shape, list) else kind or "unreadable"
    raise UserError(f"{folder / _METADATA}: {key} is {told}; expected a Box of vectors (flatten the data set first)")


def _env(metadata: Mapping[str, Any]) -> dict[str, Any]:
    spec = _inner(metadata, "env_spec")
    return spec if isinstance(spec, dict) and isinstance(spec.get("id"), str) else {}


def _provenance(metadata: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: metadata[key] for key in _TOLD if metadata.get(key)}
    kwargs = _env(metadata).get("kwargs")
    return {"minari": told | ({"env_kwargs": kwargs} if kwargs else {})}


def _agrees(folder: Path, metadata: Mapping[str, Any], widths: Mapping[str, int | None], rows: Columns, n: int) -> None:
    """Refuse episodes that are not those the metadata tells of: some were lost."""
    where = folder / _METADATA
    for key, found in (("total_episodes", n), ("total_steps", len(rows.rewards))):
        if key in metadata and metadata[key] != found:
            raise UserError(
                f"{where}: {key} is {metadata[key]}, but the files hold {found}; copy or download them again"
            )
    for key, x in (("observation_space", rows.observations), ("action_space", rows.actions)):
        if widths[key] not in (None, x.shape[1]):
            raise UserError(f"{where}: {key} has {widths[key]} dimensions, but the files hold {x.shape[1]}")


def _plain(path: Path) -> None:
    """Refuse a link: only the data set's own files are read."""
    if path.is_symlink():
        raise UserError(f"{path} is a symbolic link, expected the data in this folder itself")


def _sha256(files: list[Path], folder: Path) -> str:
    lines = []
    for file in files:
        _plain(file)
        lines.append(f"{sha256_of(file)}  {file.relative_to(folder).as_posix()}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _numbered(names: dict[int, Any], where: Path) -> list[Any]:
    """By number; refused if one is missing between 0 and the last."""
    missing = next((i for i in range(len(names)) if i not in names), None)
    if missing is not None:
        raise UserError(f"{where}: episode {missing} is missing, expected all up to {max(names)}; copy it again")
    return [names[i] for i in range(len(names))]


def _hdf5_episodes(path: Path) -> Iterator[Episode]:
    allowed = LARGEST_RATIO * path.stat().st_size
    with opened(path) as file:
        found = ((re.fullmatch(r"episode_(0|[1-9]\d{0,11})", key, re.ASCII), key) for key in file)
        for key in _numbered({int(match[1]): key for match, key in found if match}, path):
            arrays: dict[str, Any] = {name: array(file, f"{key}/{name}", path) for name in FIELDS}
            missing = [name for name, dset in arrays.items() if dset is None]
            if missing:
                raise UserError(f"{path}: {key} has no {', '.join(missing)}; expected {', '.join(FIELDS)}")
            arrays |= {name: _hdf5_state(file, f"{key}/{INFOS}/{name}", path) for name in STATES}
            allowed -= sum(dset.nbytes for dset in arrays.values() if dset is not None)
            if allowed < 0:
                raise UserError(f"{path}: declares more than a file of this size can hold")
            there = {name: np.asarray(dset) for name, dset in arrays.items() if dset is not None}
            yield _complete(f"{path}: {key}", there)


def _hdf5_state(file: h5py.File, key: str, path: Path) -> Any:
    """An array of an episode's infos, or None; of no use (a shape that never fits) where it is not plain numbers."""
    try:
        return array(file, key, path)
    except UserError:  # nothing was followed, and transitions do not need it
        return np.zeros(0)


def _complete(where: str, arrays: dict[str, np.ndarray]) -> Episode:
    """An episode of vectors with its final observation."""
    for name in ("observations", "actions"):
        if arrays[name].ndim != 2:
            raise UserError(f"{where}: {name} has shape {arrays[name].shape}, expected vectors (T, dim)")
    steps, rows = len(arrays["actions"]), len(arrays["observations"])
    if rows != steps + 1:
        raise UserError(f"{where}: observations has {rows} rows, expected {steps + 1} for {steps} actions")
    return Episode(*(arrays[name] for name in FIELDS), *(arrays.get(name) for name in STATES))


def _arrow_files(folder: Path) -> list[Path]:
    """The file of every episode."""
    numbered = {int(e.name): e for e in folder.iterdir() if re.fullmatch(r"0|[1-9]\d{0,11}", e.name, re.ASCII)}
    files = []
    for entry in _numbered(numbered, folder):
        _plain(entry)
        inside = sorted(entry.glob("*.arrow"))
        if len(inside) != 1:
            raise UserError(f"{entry}: holds {len(inside)} .arrow files, expected one; copy or download it again")
        files += inside
    return files


def _arrow_episodes(files: list[Path]) -> Iterator[Episode]:
    try:
        ipc = importlib.import_module("pyarrow.ipc")
    except ImportError as error:
        raise UserError("Minari data in Arrow files needs pyarrow; pip install 'jaxrl_suite[minari]'") from error
    for path in files:
        try:
            arrays = _arrow(ipc, path)
        except (OSError, ValueError, TypeError, KeyError, NotImplementedError, MemoryError, IndexError) as error:
            # pyarrow's own errors derive from these
            raise UserError(f"{path}: truncated or damaged ({one_line(error)}); copy or download it again") from error
        padded = {name: x[:-1] for name, x in arrays.items() if name in ("actions", *PER_STEP)}
        yield _complete(str(path), arrays | padded)


def _arrow(ipc: Any, path: Path) -> dict[str, np.ndarray]:
    """The columns of one file, and no others."""
    content = path.read_bytes()
    names = ipc.open_file(content).schema.names
    missing = [name for name in FIELDS if names.count(name) != 1]
    if missing:
        raise UserError(f"{path}: has no {', '.join(missing)}; expected {', '.join(FIELDS)}")
    infos = [INFOS] if names.count(INFOS) == 1 else []
    options = ipc.IpcReadOptions(included_fields=[names.index(name) for name in (*FIELDS, *infos)])
    table = ipc.open_file(content, options=options).read_all()
    table.validate(full=True)
    return {name: _numbers(table.column(name), name, path) for name in FIELDS} | _arrow_states(table, path)


def _arrow_states(table: Any, path: Path) -> dict[str, np.ndarray]:
    """The simulator's states in the column of infos; of no use (a shape that never fits) where they are no vectors."""
    flat, states = table.flatten(), {}
    for name in STATES:
        column = f"{INFOS}.{name}"
        if flat.column_names.count(column) != 1:
            continue
        shape = (flat.schema.field(column).metadata or {}).get(b"shape", b"")  # Minari's note on what it flattened
        try:
            states[name] = np.zeros(0) if b"," in shape else _numbers(flat.column(column), column, path)
        except UserError:
            states[name] = np.zeros(0)
    return states


def _numbers(column: Any, name: str, path: Path) -> np.ndarray:
    """[rows] or [rows, dim] from a column of numbers or of lists of fixed length."""
    if column.null_count:
        raise UserError(f"{path}: {name} has {column.null_count} empty rows, expected numbers")
    width = getattr(column.type, "list_size", None)
    flat = column if width is None else column.combine_chunks().flatten()
    x = np.asarray(flat)
    if x.dtype.kind not in "fiub" or flat.null_count:
        raise UserError(f"{path}: {name} holds {column.type}, expected numbers")
    return x if width is None or name in PER_STEP else x.reshape(-1, width)


# --- Writing ---
def write_minari(
    folder: str | Path,
    identifier: str,
    arrays: Mapping[str, np.ndarray],
    env: str,
    provenance: dict[str, Any],
    description: str = "",
) -> Path:
    """Write rows in the D4RL layout, as `hdf5.write` takes them, as the Minari data set `folder/identifier`.

    The folder appears whole, in place of an earlier data set of that name. The environment is named without an entry
    point: who recovers it needs it registered with Gymnasium.

    Raises:
        UserError: an episode's rows do not follow each other, the name is not Minari's, or the folder cannot be used.
    """
    if not re.fullmatch(rf"{_ID.pattern}-v\d+", identifier, re.ASCII):
        raise UserError(f"{identifier!r} is no Minari id; expected one such as hopper/medium-v0")
    target = Path(folder) / identifier
    where = str(target)
    require(where, arrays, ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations"))
    episodes = _split(check(where, {key: np.asarray(x) for key, x in arrays.items()}), where)
    metadata = {
        "total_episodes": len(episodes),
        "total_steps": sum(len(episode.actions) for episode in episodes),
        "data_format": "hdf5",
        "observation_space": _box(episodes[0].observations.shape[1], None),
        "action_space": _box(episodes[0].actions.shape[1], 1.0),
        "env_spec": json.dumps({"id": env, "entry_point": None, "additional_wrappers": []}),
        "dataset_id": identifier,
        "minari_version": WRITTEN_VERSION,
        "description": description,
        "jaxrl_suite": provenance,
    }
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        (temporary / "data").mkdir(parents=True)
        _store(temporary / "data" / _MAIN, episodes)
        size = (temporary / "data" / _MAIN).stat().st_size
        text = json.dumps(metadata | {"dataset_size": round(size / 1e6, 1)}, sort_keys=True)
        (temporary / "data" / _METADATA).write_text(text, encoding="utf-8")
        if is_minari(target):
            shutil.rmtree(target)
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({one_line(error)})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _split(rows: Columns, where: str) -> list[Episode]:
    """The episodes, each with its final observation."""
    assert rows.next_observations is not None and rows.timeouts is not None
    ends = rows.terminals | rows.timeouts
    ends[-1] = True
    broken = np.flatnonzero(jumps(rows) & ~ends)
    if len(broken):
        raise UserError(f"{where}: row {broken[0]} leads elsewhere than to the next row; mark the end of the episode")
    timeouts = rows.timeouts.copy()
    timeouts[-1] |= not rows.terminals[-1]
    episodes, start = [], 0
    for stop in np.flatnonzero(ends) + 1:
        part = slice(start, stop)
        observations = np.concatenate([rows.observations[part], rows.next_observations[stop - 1 : stop]])
        flags = rows.terminals[part], timeouts[part]
        states = (x if x is None else _with_final(x[part]) for x in (rows.qpos, rows.qvel))
        episodes.append(Episode(observations, rows.actions[part], rows.rewards[part], *flags, *states))
        start = int(stop)
    return episodes


def _with_final(states: np.ndarray) -> np.ndarray:
    """The simulator's states of an episode, and NaN for the final observation's, which rows do not hold."""
    return np.concatenate([states, np.full_like(states[:1], np.nan)])


def _store(path: Path, episodes: list[Episode]) -> None:
    with h5py.File(path, "w", track_order=True) as file:  # Minari counts on the order in which groups were made
        for index, episode in enumerate(episodes):
            group = file.create_group(f"episode_{index}")
            group.attrs["id"], group.attrs["total_steps"] = index, len(episode.actions)
            for name, x in zip((*FIELDS, *(f"{INFOS}/{name}" for name in STATES)), episode, strict=True):
                if x is not None:
                    group.create_dataset(name, data=x, compression="gzip", shuffle=True)


def _box(size: int, bound: float | None) -> str:
    low, high = ([-bound] * size, [bound] * size) if bound else ([-np.inf] * size, [np.inf] * size)
    return json.dumps({"type": "Box", "dtype": "float32", "shape": [size], "low": low, "high": high})
