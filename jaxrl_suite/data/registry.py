"""Data sets by name: those that come with the package, and the user's own.

A bundled file is listed in REGISTRY, and its checksum in bundled/SHA256SUMS (the format of `sha256sum`), so that
publishing a file again edits no code. The folder named by the environment variable JAXRL_SUITE_DATA makes each of its
`<name>.hdf5` files a data set called `<name>`; a bundled name wins.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from jaxrl_suite import types
from jaxrl_suite.data.hdf5 import NOT_STATED, DatasetInfo, Window, load_file
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


def checksums(folder: Path) -> dict[str, str]:
    """File name -> sha256, from the folder's SHA256SUMS; empty without one."""
    sums = folder / "SHA256SUMS"
    lines = sums.read_text(encoding="utf-8").splitlines() if sums.exists() else []
    pairs = (line.split(maxsplit=1) for line in lines if line.strip())
    return {pair[1].lstrip("*"): pair[0].lower() for pair in pairs if len(pair) == 2}


_SUMS = checksums(bundled_folder())


def _entry(name: str, env: str, level: str, description: str) -> tuple[str, Entry]:
    file = f"{name}.hdf5"
    source = "collected with jaxrl_suite"
    return name, Entry(name, env, file, _SUMS.get(file, ""), level, "MIT", source, description)


REGISTRY: dict[str, Entry] = dict(
    [
        _entry(
            "hopper-medium-replay-mini",
            "Hopper-v4",
            "medium-replay",
            "a sample of the replay buffer of a SAC agent that was stopped half way",
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
            "stochastic SAC policies after 100,000 steps and after 300,000, half each; the second returns about 1,000,"
            " short of the 3,000 that were asked for: no expert, and the first is a beginner",
        ),
    ]
)


def load(
    name: str, parity: str | None = None, gamma: float = 0.99, window: Window | None = None
) -> tuple[types.Dataset, DatasetInfo]:
    """Load a data set by its name, or by the path of an .hdf5 file. `window` chooses rows of it, see `load_file`."""
    if _is_path(name):
        return load_file(name, parity=parity, gamma=gamma, window=window)
    if name in REGISTRY:
        return _load_bundled(REGISTRY[name], parity, gamma, window)
    local = _local()
    if name in local:
        return load_file(local[name], name, parity, gamma, window=window)
    raise unknown("data set", name, [*REGISTRY, *local], "(the path of an .hdf5 file works too)")


def names() -> tuple[str, ...]:
    """Names that `load` knows: bundled data sets, then the user's own."""
    return (*REGISTRY, *_local())


def catalogue() -> list[DatasetInfo]:
    """Every named data set. One that cannot be loaded has no rows and says why under provenance["problem"]."""
    bundled = [_info(name, bundled_folder() / entry.file, entry) for name, entry in REGISTRY.items()]
    return bundled + [_info(name, path, None) for name, path in _local().items()]


def _is_path(name: str) -> bool:
    separators = {"/", os.sep, os.altsep or os.sep}
    return Path(name).suffix.lower() in (".hdf5", ".h5") or any(mark in name for mark in separators)


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
    files = sorted(Path(folder).expanduser().glob("*.hdf5"))
    return {path.stem: path for path in files if path.stem not in REGISTRY}


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
