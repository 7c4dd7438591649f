"""Complete states on disk: written by orbax, vouched for by a manifest, replaced atomically, verified before loading.

A checkpoint is the folder `step_<step>` with orbax's files in `arrays/`, a `manifest.json` (sha256 of every file, path,
shape and dtype of every leaf, the caller's `extra`) and the manifest's own sha256 beside it. It is written under
another name and renamed when everything is on the disk, so that a kill at any moment leaves the checkpoints before it.
Orbax alone loads a flipped bit, or a leaf of another dtype, without a word. Nothing is ever unpickled.

One run writes and reads a folder. Where it has several processes, all of them call `save` and `load_latest` together,
on a file system that they share: orbax lets each write its shards, and the leader does the rest. Weakly typed arrays
come back strongly typed, as JAX has no public way to make one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxrl_suite.errors import UserError
from jaxrl_suite.train import files, processes
from jaxrl_suite.train.identity import digest, file_digest
from jaxrl_suite.types import Tree

FORMAT = 1
MANIFEST, SEAL, ARRAYS = "manifest.json", "manifest.sha256", "arrays"
FOLDER = re.compile(r"step_(\d+)(?:-(\d+))?")  # the second number: written again, after the first was damaged


class Loaded(NamedTuple):
    """A checkpoint as it was saved."""

    step: int
    tree: Tree
    extra: dict[str, Any]
    notes: list[str]  # what was found wrong on the way to it


class _Corrupt(Exception):
    """A checkpoint that is not as it was written; the message says what is wrong."""


class _Leaf(NamedTuple):
    """What a manifest says about a leaf."""

    path: str
    kind: str  # "array", "key", or "scalar" (of Python)
    shape: list[int]
    dtype: str
    stored: list[int]  # shape of the array on disk; a key's has one more axis
    stored_dtype: str
    more: Any  # a key's implementation, a scalar's value


# --- Saving ---
def save(folder: Path, step: int, tree: Tree, extra: dict[str, Any]) -> Path:
    """Write a checkpoint of `tree` to `folder/step_<step>`, keep the one before it, and remove all others.

    Args:
        folder: holds the checkpoints of one state, and nothing else.
        step: checkpoints of later steps are taken for given up, and removed.
        tree: a PyTree of arrays, typed keys, and Python's numbers.
        extra: plain JSON kept with it; `config_hash` in it names the configuration.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = Path(folder)
    temporary, target = folder / f"{step}.tmp", _free_name(folder, step)
    with files.guarded(folder):
        if processes.leads():
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob("*.tmp"):
                shutil.rmtree(leftover)
            temporary.mkdir()
        processes.wait("a checkpoint begins")
        leaves = _write_arrays(temporary, tree)
        if processes.leads():
            _write_manifest(temporary, step, leaves, extra)
            os.rename(temporary, target)
            files.sync_folder(folder)
            _prune(folder, target)
        processes.wait("a checkpoint stands")
    return target


def _write_arrays(folder: Path, tree: Tree) -> list[_Leaf]:
    leaves, data = [], {}
    for index, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(tree)):
        record, array = _record(jax.tree_util.keystr(path), leaf)
        leaves.append(record)
        if array is not None and math.prod(array.shape) > 0:  # orbax refuses arrays without elements
            data[_name(index)] = array
    if data:
        with _quiet(), _tensorstore_errors(folder.parent):
            ocp.save((folder / ARRAYS).absolute(), data)
    return leaves


def _write_manifest(folder: Path, step: int, leaves: Sequence[_Leaf], extra: dict[str, Any]) -> None:
    manifest = {
        "format": FORMAT,
        "step": step,
        "leaves": [leaf._asdict() for leaf in leaves],
        "extra": extra,
        "files": {path.relative_to(folder).as_posix(): _synced_digest(path) for path in _files(folder)},
    }
    files.write_synced(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True))
    files.write_synced(folder / SEAL, file_digest(folder / MANIFEST) + "\n")
    for inner in [*(entry for entry in folder.rglob("*") if entry.is_dir()), folder]:
        files.sync_folder(inner)


def _record(path: str, leaf: Any) -> tuple[_Leaf, Any]:
    """A leaf's entry in the manifest, and the array that holds it (None for a scalar)."""
    kind, shape, dtype = _describe(leaf)
    if kind == "scalar":
        return _Leaf(path, kind, shape, dtype, [], "", leaf), None
    array = jax.random.key_data(leaf) if kind == "key" else leaf
    if not isinstance(array, jax.Array):
        array = np.asarray(array)
    more = str(jax.random.key_impl(leaf)) if kind == "key" else None
    return _Leaf(path, kind, shape, dtype, list(array.shape), np.dtype(array.dtype).name, more), array


def _describe(leaf: Any) -> tuple[str, list[int], str]:
    """(kind, shape, dtype) of a leaf, or of what stands for it in a template."""
    if type(leaf) in (bool, int, float):
        return "scalar", [], type(leaf).__name__
    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        raise TypeError(f"a checkpoint holds arrays, typed keys and numbers, not {type(leaf).__name__}")
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return "key", list(leaf.shape), str(leaf.dtype)
    dtype = np.dtype(leaf.dtype)
    if dtype.hasobject or dtype.kind in "SUMm":
        raise TypeError(f"a checkpoint holds numbers, not arrays of {dtype}")
    return "array", list(leaf.shape), dtype.name


def _name(index: int) -> str:
    return f"{index:05d}"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def _synced_digest(path: Path) -> str:
    """The sha256 of a file, after waiting for it to be on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return file_digest(path)


def _free_name(folder: Path, step: int) -> Path:
    """Where the checkpoint goes. A folder cannot be replaced atomically, so a second one gets a name of its own."""
    attempts = [int(match[2] or 1) for match in _matches(folder) if int(match[1]) == step]
    return folder / (f"step_{step}-{max(attempts) + 1}" if attempts else f"step_{step}")


def _matches(folder: Path) -> list[re.Match[str]]:
    """Names of checkpoints, newest first."""
    names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    found = [match for match in map(FOLDER.fullmatch, names) if match]
    return sorted(found, key=lambda match: (int(match[1]), int(match[2] or 1)), reverse=True)


def _prune(folder: Path, newest: Path) -> None:
    """Keep `newest` and the last intact one of an earlier step."""
    spare = None
    step = int(newest.name[5:].partition("-")[0])
    for match in _matches(folder):
        path = folder / match[0]
        if path == newest:
            continue
        if spare is None and int(match[1]) < step and _intact(path):
            spare = path
            continue
        # Renamed first: a kill while its files are being removed must not leave what looks like a damaged checkpoint.
        doomed = path.with_name(f"{path.name}.tmp")
        os.rename(path, doomed)
        shutil.rmtree(doomed)


def _intact(path: Path) -> bool:
    try:
        _verified(path)
    except _Corrupt:
        return False
    return True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Orbax logs through absl, and warns about what is meant here."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _tensorstore_errors(folder: Path) -> Iterator[None]:
    """A full disk under tensorstore is a ValueError that has the system's error number in its text."""
    try:
        yield
    except ValueError as error:
        number = re.search(r"os_error_code='(\d+)'", str(error))
        if number is None:
            raise
        raise files.unwritable(folder, os.strerror(int(number[1]))) from error


# --- Loading ---
def exists(folder: Path) -> bool:
    """Whether a checkpoint, intact or not, stands in `folder`."""
    return bool(_matches(Path(folder)))


def load_latest(folder: Path, template: Tree, config_hash: str) -> Loaded | None:
    """The newest intact checkpoint in `folder`, or None where there is none at all.

    Args:
        folder: where `save` wrote.
        template: the tree with `jax.ShapeDtypeStruct` (or arrays, or Python's numbers) for leaves. Where a leaf has a
            sharding, so has the result; numpy arrays come back as such. None: a dict from the leaves' paths to numpy
            arrays, keys and numbers.
        config_hash: `extra["config_hash"]` of a checkpoint that belongs here ("" where it has none).

    Raises:
        UserError: all are damaged, or an intact one is of another configuration or has another tree.
    """
    folder = Path(folder)
    notes: list[str] = []
    for match in _matches(folder):
        path = folder / match[0]
        try:
            manifest = _verified(path)
        except _Corrupt as fault:
            notes.append(f"checkpoint {path} is damaged ({fault}); looking for an older one")
            continue
        leaves = [_Leaf(**leaf) for leaf in manifest["leaves"]]
        _check_belongs(folder, manifest, config_hash)
        if template is not None:
            _check_template(path, leaves, template)
        if notes:
            notes.append(f"going on from the older checkpoint {path}, step {manifest['step']}")
        return Loaded(manifest["step"], _restore(path, leaves, template), manifest["extra"], notes)
    if notes:
        raise UserError(f"no intact checkpoint in {folder}: {'; '.join(notes)}; start beside it with --fresh")
    return None


def _verified(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are all as they were written."""
    try:
        text = (path / MANIFEST).read_bytes()
        seal = (path / SEAL).read_bytes()
        if seal != f"{file_digest(path / MANIFEST)}\n".encode():
            raise _Corrupt(f"{MANIFEST} or {SEAL} has changed")
        manifest = json.loads(text)
        found = {file.relative_to(path).as_posix() for file in _files(path)} - {MANIFEST, SEAL}
        if found != set(manifest["files"]):
            raise _Corrupt(f"missing or unknown files: {sorted(found ^ set(manifest['files']))}")
        changed = [name for name, expected in manifest["files"].items() if file_digest(path / name) != expected]
    except OSError as error:
        raise _Corrupt(f"{Path(error.filename or path).name}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _Corrupt(f"{MANIFEST} is not a manifest: {error!r}") from error
    if changed:
        raise _Corrupt(f"changed files: {changed}")
    return manifest


def _check_belongs(folder: Path, manifest: dict[str, Any], config_hash: str) -> None:
    if manifest["format"] != FORMAT:
        raise UserError(
            f"the checkpoint in {folder} has format {manifest['format']}, this version reads {FORMAT}; "
            "use the version that wrote it, or start beside it with --fresh"
        )
    found = manifest["extra"].get("config_hash", "")
    if found != config_hash:
        raise UserError(
            f"the checkpoint in {folder} is of another configuration ({found or 'none'}, expected "
            f"{config_hash or 'none'}); start beside it with --fresh, or choose another folder with --out"
        )


def _check_template(path: Path, leaves: Sequence[_Leaf], template: Tree) -> None:
    expected = {jax.tree_util.keystr(at): _describe(leaf) for at, leaf in jax.tree_util.tree_leaves_with_path(template)}
    found = {leaf.path: (leaf.kind, leaf.shape, leaf.dtype) for leaf in leaves}
    for at in [*expected, *found]:
        if expected.get(at) != found.get(at):
            raise UserError(
                f"the checkpoint {path} holds another tree: {at or 'the root'} is {_text(found.get(at))}, expected "
                f"{_text(expected.get(at))}; it is from another version, start beside it with --fresh"
            )


def _text(leaf: tuple[str, list[int], str] | None) -> str:
    if leaf is None:
        return "not there"
    kind, shape, dtype = leaf
    return f"the {dtype} of Python" if kind == "scalar" else f"{dtype}{shape}"


class _Slot(NamedTuple):
    """A leaf on disk and the leaf that the template wants from it."""

    name: str  # orbax's
    leaf: _Leaf
    want: Any


def _slots(leaves: Sequence[_Leaf], template: Tree) -> list[_Slot]:
    """In the template's order: leaves are known by their paths, as fields may have changed places."""
    on_disk = {leaf.path: (_name(index), leaf) for index, leaf in enumerate(leaves)}
    if template is None:
        return [_Slot(name, leaf, None) for name, leaf in on_disk.values()]
    wanted = jax.tree_util.tree_leaves_with_path(template)
    return [_Slot(*on_disk[jax.tree_util.keystr(path)], want) for path, want in wanted]


def _restore(path: Path, leaves: Sequence[_Leaf], template: Tree) -> Tree:
    slots = _slots(leaves, template)
    abstract = {
        slot.name: _abstract(slot) for slot in slots if slot.leaf.kind != "scalar" and math.prod(slot.leaf.stored) > 0
    }
    data: dict[str, Any] = {}
    if abstract:
        with _quiet():
            data = ocp.load((path / ARRAYS).absolute(), abstract)
    restored = [_finish(slot, data.get(slot.name), as_saved=template is None) for slot in slots]
    if template is None:
        return {slot.leaf.path: value for slot, value in zip(slots, restored, strict=True)}
    return jax.tree.unflatten(jax.tree.structure(template), restored)


def _sharding(want: Any) -> Any:
    """Where a template wants its leaf; None where it leaves that to the program that uses it."""
    return getattr(want, "sharding", None) if getattr(want, "committed", True) else None


def _abstract(slot: _Slot) -> Any:
    """What orbax is asked for: the sharded array, or one of numpy (which is committed to no device)."""
    shape, dtype = tuple(slot.leaf.stored), jnp.dtype(slot.leaf.stored_dtype)
    sharding = _sharding(slot.want)
    if sharding is not None and (slot.leaf.kind == "array" or not sharding.is_fully_addressable):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
    return np.empty(shape, dtype)


def _finish(slot: _Slot, array: Any, as_saved: bool) -> Any:
    """The leaf as the template wants it, from what orbax read (None for nothing)."""
    leaf, want = slot.leaf, slot.want
    if leaf.kind == "scalar":
        return leaf.more
    if array is None:
        array = np.zeros(leaf.stored, jnp.dtype(leaf.stored_dtype))
    sharding = _sharding(want)
    if leaf.kind == "key":
        bits = array if isinstance(array, jax.Array) else jnp.array(array)
        key = jax.random.wrap_key_data(bits, impl=leaf.more)
        return key if sharding is None else jax.device_put(key, sharding)
    if as_saved or isinstance(want, np.ndarray | np.generic):
        return np.asarray(array)
    if sharding is not None:
        return jax.device_put(array, sharding)
    # Without 64 bits JAX would round what was saved from numpy.
    exact = jax.dtypes.canonicalize_dtype(array.dtype) == array.dtype
    return jnp.array(array) if exact else array


# --- Results that are kept for other runs ---
def _report(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def cached(folder: Path, key: str, template: Tree, report: Callable[[str], None] = _report) -> Tree | None:
    """What was stored in `folder` under `key`; None when it is not there, damaged, or of another shape (reported)."""
    try:
        loaded = load_latest(Path(folder) / key, template, "")
    except UserError as error:
        report(f"the stored result {Path(folder) / key} is not used: {error}")
        return None
    return None if loaded is None else loaded.tree


def store(folder: Path, key: str, tree: Tree, report: Callable[[str], None] = _report) -> None:
    """Keep `tree` in `folder` under `key`, for `cached`. What cannot be stored is reported: a run goes on without."""
    folder = Path(folder)
    try:
        with files.guarded(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with files.locked(folder / f".{key}.lock"):
            _store(folder / key, tree)
    except UserError as error:
        report(f"the result is not stored: {error}")


def _store(folder: Path, tree: Tree) -> None:
    records = [_record(jax.tree_util.keystr(path), leaf)[0] for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
    for match in _matches(folder):
        # Another process was faster, with the same result.
        if _intact(folder / match[0]) and _same_leaves(folder / match[0], records):
            return
    save(folder, 0, tree, {})


def _same_leaves(path: Path, records: Sequence[_Leaf]) -> bool:
    manifest = json.loads((path / MANIFEST).read_text())
    return digest(manifest["format"], manifest["leaves"]) == digest(FORMAT, [leaf._asdict() for leaf in records])
