"""Names for what was run: digests of configurations, of source text, and a record of where a result comes from."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import enum
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

import numpy as np

PACKAGE = Path(__file__).resolve().parent.parent
PUBLISHED = ("results", "README.md")  # at the clone's root: what publishing writes there
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "envpool", "orbax-checkpoint")


# --- Digests ---
def canonical(config: Any) -> str:
    """The one JSON text of a configuration: sorted keys, floats by `repr`, tuples as lists, paths as text."""
    return json.dumps(_plain(config), sort_keys=True, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return _plain_mapping(value)
    if isinstance(value, list | tuple | range):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=json.dumps)
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, PurePath):
        return value.as_posix()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "tolist"):  # scalars and arrays of numpy and JAX
        return _plain(np.asarray(value).tolist())
    raise TypeError(f"a configuration holds plain data, not {type(value).__name__}: {value!r}")


def _plain_mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    plain = {str(key): _plain(item) for key, item in value.items()}
    if len(plain) != len(value):
        raise TypeError(f"two keys of a configuration have the same text: {sorted(map(str, value))}")
    return plain


def digest(*parts: Any) -> str:
    """12 hexadecimal digits that stand for `parts`, each of them anything that `canonical` takes."""
    return hashlib.sha256(canonical(parts).encode()).hexdigest()[:12]


def file_digest(path: str | Path) -> str:
    """The sha256 of a file's bytes, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_id(config: Mapping[str, Any], seed: int) -> str:
    """Owns a row of a summary: one configuration, one seed."""
    return digest("run", config, int(seed))


def group_id(config: Mapping[str, Any], seeds: Sequence[int], hypers: Mapping[str, Any] | None, devices: str) -> str:
    """Owns a run directory: seeds trained together, in their order, on one layout of devices.

    Regrouping seeds or devices changes how sums are rounded, and after some hundred updates the numbers themselves.
    """
    return digest("group", config, [int(seed) for seed in seeds], hypers, devices)


def code_version(*sources: str | Path | ModuleType) -> str:
    """A digest of source text: of files and folders (relative ones start at this package), or of modules."""
    texts = [
        (path.relative_to(root.parent).as_posix(), path.read_text(encoding="utf-8"))
        for root in map(_location, sources)
        for path in ([root] if root.is_file() else sorted(root.rglob("*.py")))
    ]
    return digest("code", texts)


def _location(source: str | Path | ModuleType) -> Path:
    """The file or folder of a source; raises rather than call nothing a version."""
    if isinstance(source, ModuleType):
        source = source.__name__
    path = PACKAGE / source
    if path.exists():
        return path
    spec = None
    with contextlib.suppress(ModuleNotFoundError):
        spec = importlib.util.find_spec(str(source)) if re.fullmatch(r"\w+(\.\w+)*", str(source)) else None
    if spec is None or spec.origin is None:
        raise ValueError(f"no source file, folder or module {str(source)!r}")
    origin = Path(spec.origin)
    return origin.parent if origin.name == "__init__.py" else origin


# --- Where a result comes from ---
def provenance() -> dict[str, Any]:
    """Commit, host, versions, command line and time. Never raises, and holds no absolute path."""
    return {
        "git_commit": _git_commit(),
        "host": platform.node(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES},
        "command": [_without_prefix(argument) for argument in sys.argv],
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _without_prefix(argument: str) -> str:
    """An argument with every absolute path in it (also after = or a comma) cut to its last part."""
    return re.sub(r"(?:^|(?<=[=,]))/+(?:[^,=/]+/+)*(?=[^,=/])", "", argument)


def _git_commit() -> str:
    """The commit of the clone that this package runs from, "-dirty" when tracked files differ; else "unknown".

    What publishing writes counts as output: a clone that has published its first runs is no other code for the next.
    """
    try:
        _git("ls-files", "--error-unmatch", "errors.py")  # a repository around an installed package is not its clone
        commit = _git("rev-parse", "HEAD").strip()
        code = [":(top)", *(f":(top,exclude){name}" for name in PUBLISHED)]
        changes = _git("status", "--porcelain", "--untracked-files=no", "--", *code).strip()
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return "unknown"
    return f"{commit}-dirty" if changes else commit


def _git(*arguments: str) -> str:
    # A hook of git's own sets variables that point to another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        ["git", *arguments],
        cwd=PACKAGE,
        env={**environment, "GIT_OPTIONAL_LOCKS": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        text=True,
        timeout=20,
    ).stdout
