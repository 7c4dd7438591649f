"""Data sets by name: those that come with the package, and the user's own.

A bundled file is listed in REGISTRY, and its checksum in bundled/SHA256SUMS (the format of `sha256sum`), so that
publishing a file again edits no code. The folder named by the environment variable JAXRL_SUITE_DATA makes each of its
`<name>.hdf5` and `<name>.npz` files a data set called `<name>`; a bundled name wins. `minari:<id>` is a data set in
Minari's own folder. D4RL's names (`hopper-medium-v2`, see `d4rl`) are looked up in that folder and among the downloads,
and downloaded otherwise.
"""

from __future__ import annotations

import os
import sys
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from jaxrl_suite import types
from jaxrl_suite.data import d4rl, fetch, minari
from jaxrl_suite.data.d4rl import checksums
from jaxrl_suite.data.hdf5 import load_file
from jaxrl_suite.data.info import NOT_STATED, DatasetInfo, Window
from jaxrl_suite.data.npz import load_npz
from jaxrl_suite.errors import UserError, unknown

FOLDER_VARIABLE = "JAXRL_SUITE_DATA"


class Entry(NamedTuple):
    """A bundled data set."""

    name: str
    env: str
    file: str  # under bundled/
    sha256: str  # from bundled/SHA256SUMS; empty when it is not listed there
    level: str
    licence: str
    source: str
    description: str


def bundled_folder() -> Path:
    """Where the package keeps its data files."""
    return Path(str(resources.files("jaxrl_suite.data").joinpath("bundled")))


_SUMS = checksums(bundled_folder())


def _entry(name: str, env: str, level: str, description: str) -> tuple[str, Entry]:
    file = f"{name}.hdf5"
    source = "collected with jaxrl_suite"
    return name, Entry(name, env, file, _SUMS.get(file, ""), level, "MIT", source, description)


REGISTRY: dict[str, Entry] = dict(
    [
        _entry(
            "pendulum-medium-replay-mini",
            "Pendulum-v1",
            "medium-replay",
            "every second episode of a small SAC agent's first 45,000 steps, after which it returned -1,117: hardly"
            " above random",
        ),
        _entry(
            "hopper-medium-replay-mini",
            "Hopper-v4",
            "medium-replay",
            "a sample of the replay buffer of a SAC agent that was stopped half way",
        ),
        _entry(
            "hopper-medium-expert-mini",
            "Hopper-v4",
            "medium-expert",
            "stochastic SAC policies after 100,000 steps, where it returned 983, and after 240,000, where it passed"
            " 2,500 (chosen for that: 10,000 steps later it returned 1,055), half each; D4RL's expert is better",
        ),
        _entry(
            "halfcheetah-medium-replay-mini",
            "HalfCheetah-v4",
            "medium-replay",
            "every second or third episode of a SAC agent's first 150,000 steps, after which it returned 3,476",
        ),
        _entry(
            "halfcheetah-medium-expert-mini",
            "HalfCheetah-v4",
            "medium-expert",
            "stochastic SAC policies after 150,000 steps and after 400,000, half each; the second returns 4,917, short"
            " of the 5,000 that were asked for and far below D4RL's expert",
        ),
        _entry(
            "walker2d-medium-replay-mini",
            "Walker2d-v4",
            "medium-replay",
            "about every fifth episode of a SAC agent's first 300,000 steps, after which it returned 690",
        ),
        _entry(
            "walker2d-medium-expert-mini",
            "Walker2d-v4",
            "medium-expert",
            "stochastic SAC policies after 300,000 steps, where it returned 690, and after 415,000, at the first"
            " evaluation that passed 2,500 (it says 2,812; rollouts return 2,085), half each; D4RL's expert is better",
        ),
    ]
)


def load(
    name: str, parity: str | None = None, gamma: float = 0.99, window: Window | None = None
) -> tuple[types.Dataset, DatasetInfo]:
    """Load a data set by its name or path: an .hdf5 or .npz file, or the folder of a Minari data set.

    `window` chooses rows of it, see `load_file`.
    """
    if name.startswith(minari.PREFIX):
        return minari.load_minari(minari.folder_of(name), name, parity, gamma, window=window)
    if _is_path(name):
        return _load_path(Path(name).expanduser(), None, parity, gamma, window)
    if name in REGISTRY:
        return _load_bundled(REGISTRY[name], parity, gamma, window)
    local = _local()
    # of a data set of D4RL the user's own file may also have the name that D4RL gave it
    stem = name if name in local or name not in d4rl.REMOTES else Path(d4rl.REMOTES[name].file).stem
    if stem in local:
        path = local[stem]
        return _load_path(path, name, parity, gamma, window, checksums(path.parent).get(path.name))
    if name in d4rl.REMOTES:
        return _load_d4rl(d4rl.REMOTES[name], parity, gamma, window)
    d4rl.refuse_old(name)
    raise unknown("data set", name, [*REGISTRY, *local, *d4rl.REMOTES], "(the path of an .hdf5 file works too)")


def _load_path(
    path: Path, name: str | None, parity: str | None, gamma: float, window: Window | None, sha256: str | None = None
) -> tuple[types.Dataset, DatasetInfo]:
    """By the reader that the path asks for."""
    if minari.is_minari(path):
        return minari.load_minari(path, name, parity, gamma, sha256, window)
    reader = load_npz if path.suffix.lower() == ".npz" else load_file
    return reader(path, name, parity, gamma, sha256, window)


def _load_d4rl(
    remote: d4rl.Remote, parity: str | None, gamma: float, window: Window | None
) -> tuple[types.Dataset, DatasetInfo]:
    """From the cache folder, or from the web."""
    path = d4rl.present(remote)
    if path is None:
        if not fetch.offline():
            print(f"downloading {remote.url} to {d4rl.cache_folder()}", file=sys.stderr)
        path = d4rl.download(remote)
    dataset, info = load_file(path, remote.name, parity, gamma, d4rl.expected(remote), window)
    source = f"D4RL, {remote.url}" if info.source == NOT_STATED else info.source
    return dataset, info._replace(env=remote.env, source=source)


def names() -> tuple[str, ...]:
    """Names of the data sets that are here: bundled, the user's own, and downloads. `load` knows all of D4RL's."""
    return tuple(dict.fromkeys((*REGISTRY, *_local(), *_downloaded())))


def catalogue() -> list[DatasetInfo]:
    """Every named data set. One that cannot be loaded has no rows and says why under provenance["problem"]."""
    bundled = [_info(name, bundled_folder() / entry.file, entry) for name, entry in REGISTRY.items()]
    return bundled + [_info(name, path, None) for name, path in (_downloaded() | _local()).items()]


def _is_path(name: str) -> bool:
    separators = {"/", os.sep, os.altsep or os.sep}
    return Path(name).suffix.lower() in (".hdf5", ".h5", ".npz") or any(mark in name for mark in separators)


def _load_bundled(
    entry: Entry, parity: str | None, gamma: float, window: Window | None
) -> tuple[types.Dataset, DatasetInfo]:
    path = bundled_folder() / entry.file
    if not path.exists():
        raise UserError(
            f"data set {entry.name} is missing from this installation ({entry.file}); reinstall jaxrl_suite"
        )
    if not entry.sha256:
        raise UserError(
            f"data set {entry.name} has no checksum in SHA256SUMS, so it cannot be trusted; reinstall jaxrl_suite"
        )
    dataset, info = load_file(path, entry.name, parity, gamma, entry.sha256, window)
    licence = entry.licence if info.licence == NOT_STATED else info.licence
    source = entry.source if info.source == NOT_STATED else info.source
    return dataset, info._replace(env=info.env or entry.env, licence=licence, source=source)


def _local() -> dict[str, Path]:
    """The user's data sets: name -> path, in order, without those that a bundled name hides."""
    folder = os.environ.get(FOLDER_VARIABLE, "")
    if not folder:
        return {}
    if not Path(folder).expanduser().is_dir():
        raise UserError(f"{FOLDER_VARIABLE} names {folder}, which is not a folder; correct or unset it")
    files = [path for kind in ("*.npz", "*.hdf5") for path in sorted(Path(folder).expanduser().glob(kind))]
    found = {path.stem: path for path in files if path.stem not in REGISTRY}  # of two files of one name the .hdf5
    return dict(sorted(found.items()))


def _downloaded() -> dict[str, Path]:
    """D4RL's data sets in the cache folder."""
    found = {name: d4rl.present(remote) for name, remote in d4rl.REMOTES.items()}
    return {name: path for name, path in found.items() if path is not None}


def _info(name: str, path: Path, entry: Entry | None) -> DatasetInfo:
    try:
        return load(name)[1]
    except UserError as error:
        nan = float("nan")
        return DatasetInfo(
            name=name,
            env=entry.env if entry else None,
            rows=0,
            episodes=0,
            return_mean=nan,
            return_std=nan,
            return_max=nan,
            sha256="",
            bytes=path.stat().st_size if path.exists() else 0,
            licence=entry.licence if entry else NOT_STATED,
            source=entry.source if entry else NOT_STATED,
            provenance={"problem": str(error)},
            path=str(path),
        )
