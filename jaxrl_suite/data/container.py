"""The HDF5 container: nothing but the file itself is ever opened, and broken bytes end in one clear line.

Foreign files are not trusted: links, external and virtual storage (which make HDF5 open other files), object types and
sizes that the file cannot hold are refused. Files are written whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np

from jaxrl_suite.data.columns import OPTIONAL, REQUIRED, require
from jaxrl_suite.errors import UserError

# gzip cannot shrink further than about 1 to 1032: a file that declares more is empty space meant to fill the memory
LARGEST_RATIO = 1100
_LONGEST_TEXT = 64_000_000
# How a collection of texts begins, reserved bytes and all, so that no compressed row looks like one; an object's header
_HEAP, _OBJECT = b"GCOL\x01\0\0\0", 16
_DAMAGED = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError)  # what h5py raises on broken bytes


def sha256_of(path: Path) -> str:
    """The checksum of the file's bytes."""
    if not path.exists():
        raise UserError(f"{path}: no such file; check the path, or give the name of a data set")
    if not path.is_file():
        raise UserError(f"{path}: not a file, expected an HDF5 file")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}), expected an HDF5 file") from error


def read(
    path: Path, only: Sequence[str] = (*REQUIRED, *OPTIONAL), rows: Mapping[str, slice] = MappingProxyType({})
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(known arrays, text attributes); every way in which a file can be broken ends in a UserError.

    Of the arrays, those in `only`, and of these the `rows` by name; other bytes are not read.
    """
    with opened(path) as file:
        attributes = {key: _text(file.attrs[key]) for key in file.attrs if _is_text(file.attrs.get_id(key))}
        require(str(path), file.keys())
        found = {key: array(file, key, path) for key in only}
        return {key: dset[rows.get(key, ())] for key, dset in found.items() if dset is not None}, attributes


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file, open for reading; what h5py raises on broken bytes meanwhile becomes a UserError."""
    if not h5py.is_hdf5(path):
        raise UserError(f"{path}: not an HDF5 file, expected a data set in the D4RL layout")
    if not _heaps_end(path):
        raise UserError(f"{path}: truncated or damaged (a heap of texts does not end); copy or download it again")
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except _DAMAGED as error:
        raise UserError(f"{path}: truncated or damaged ({one_line(error)}); copy or download it again") from error


def _heaps_end(path: Path) -> bool:
    """Whether HDF5 comes to an end where it walks through the collections that hold texts of variable length.

    Where an object says that it takes no room, the library walks on the spot for ever, and no signal reaches Python.
    A collection is `GCOL`, a version, its size and objects: index, references, size, bytes padded to eight.
    """
    if not path.stat().st_size:
        return True
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        place = content.find(_HEAP)
        while place >= 0:
            size = int.from_bytes(content[place + 8 : place + 16], "little")
            if place + size > len(content) or not _walk_ends(content, place + 16, place + size):
                return False
            place = content.find(_HEAP, place + 16)
    return True


def _walk_ends(content: mmap.mmap, at: int, stop: int) -> bool:
    while stop - at >= _OBJECT:
        index = int.from_bytes(content[at : at + 2], "little")
        size = int.from_bytes(content[at + 8 : at + 16], "little")
        room = _OBJECT + (size + 7) // 8 * 8 if index else size  # index 0: what is free, its own header included
        if not _OBJECT <= room <= stop - at:
            return False
        at += room
    return True


def array(file: h5py.File, key: str, path: Path) -> h5py.Dataset | None:
    """The data set at `key`, or None. Whatever would make HDF5 open another file is refused before it is followed."""
    node: Any = file
    for part in key.split("/"):
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise UserError(f"{path}: {key} is a link ({type(link).__name__}), expected the data in this file itself")
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        raise UserError(f"{path}: {key} is a group, expected an array")
    if node.is_virtual or node.external:
        raise UserError(f"{path}: {key} keeps its data in another file, expected the data in this file itself")
    if node.dtype.kind not in "fiub":
        raise UserError(f"{path}: {key} holds {node.dtype}, expected numbers")
    if node.shape is None or not node.size:
        raise UserError(f"{path}: {key} is empty, expected at least one row")
    if node.nbytes > LARGEST_RATIO * path.stat().st_size:
        raise UserError(f"{path}: {key} declares shape {node.shape}, more than a file of this size can hold")
    return node


def _is_text(attribute: h5py.h5a.AttrID) -> bool:
    """Whether it is one text: decoding other damaged types can crash the process."""
    kind = attribute.get_type()
    return isinstance(kind, h5py.h5t.TypeStringID) and attribute.shape == () and kind.get_size() <= _LONGEST_TEXT


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value) if isinstance(value, str) else ""


def store(path: Path, arrays: dict[str, np.ndarray], attributes: dict[str, str]) -> None:
    """Write the arrays and text attributes to a file beside `path`, then move it there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(temporary, "w") as file:
            _fill(file, arrays, attributes)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({one_line(error)})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _fill(file: h5py.File, arrays: dict[str, np.ndarray], attributes: dict[str, str]) -> None:
    for key, value in attributes.items():
        file.attrs[key] = value
    for key, x in arrays.items():
        chunks = (min(len(x), 16384), *x.shape[1:])  # whole rows
        options = {"compression": "gzip", "compression_opts": 9, "shuffle": True, "track_times": False}
        file.create_dataset(key, data=x, chunks=chunks, **options)


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks."""
    return " ".join(str(error).split())
