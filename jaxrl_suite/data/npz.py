"""NumPy archives with the columns of the D4RL layout, read without trusting them.

`numpy.savez_compressed(path, observations=..., actions=..., rewards=..., terminals=..., timeouts=...)`, optionally
`next_observations`, `infos/qpos`, `infos/qvel` and a text `env`. An archive can ask for far more than a reader wants to
give: objects, which would have to be unpickled; sizes that fill the memory; names outside the folder. So each member is
taken apart here: the header of the array is parsed, its size is compared with that of the member and of the file, and
only then its bytes are read. Nothing is ever extracted, and members that are no column are not opened.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxrl_suite import types
from jaxrl_suite.data.columns import END_NEXT, OPTIONAL, REQUIRED, check, require
from jaxrl_suite.data.container import LARGEST_RATIO, one_line, sha256_of
from jaxrl_suite.data.info import DatasetInfo, Origin, Window, check_options, check_sha256, finish
from jaxrl_suite.errors import UserError

COLUMNS = tuple(key for key in (*REQUIRED, *OPTIONAL) if key != END_NEXT)
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what numpy writes; others shrink without a known limit
_LONGEST_TEXT = 1000


def load_npz(
    path: str | Path,
    name: str | None = None,
    parity: str | None = None,
    gamma: float = 0.99,
    expected_sha256: str | None = None,
    window: Window | None = None,
) -> tuple[types.Dataset, DatasetInfo]:
    """Read an .npz file; the options are those of `hdf5.load_file`."""
    check_options(parity, gamma)
    path = Path(path).expanduser()
    where = str(path)
    sha256 = sha256_of(path)
    check_sha256(where, sha256, expected_sha256)
    arrays, env = read(path)
    columns = check(where, arrays)
    origin = Origin(name or path.stem, env, sha256, path.stat().st_size, where)
    # as in other foreign files, time-outs may be unmarked
    return finish(columns, origin, where, infer=True, parity=parity, gamma=gamma, window=window)


def read(path: Path) -> tuple[dict[str, np.ndarray], str | None]:
    """(columns, environment); every way in which a file can be broken ends in a UserError."""
    try:
        with warnings.catch_warnings(), zipfile.ZipFile(path) as archive:
            warnings.simplefilter("ignore")  # numpy on headers of Python 2
            return _read(archive, path)
    except UserError:
        raise
    except Exception as error:  # broken bytes make zipfile, zlib and numpy's header parser raise some dozen kinds
        raise UserError(f"{path}: not an .npz file, or damaged ({one_line(error)}); copy or write it again") from error


def _read(archive: zipfile.ZipFile, path: Path) -> tuple[dict[str, np.ndarray], str | None]:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise UserError(f"{path}: has two members of one name, expected each column once")
    require(str(path), members)
    wanted = {key: members[key] for key in COLUMNS if key in members}
    declared = sum(info.file_size for info in wanted.values())
    if declared > LARGEST_RATIO * path.stat().st_size:
        raise UserError(f"{path}: declares {declared:,} bytes, more than a file of this size can hold")
    arrays = {key: _array(archive, info, f"{path}: {key}") for key, info in wanted.items()}
    return arrays, _text(archive, members["env"], f"{path}: env") if "env" in members else None


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str, kinds: str = "fiub") -> np.ndarray:
    if info.compress_type not in _PACKED or info.flag_bits & 1:
        raise UserError(f"{where} is encrypted or packed in an unusual way; write it with numpy.savez_compressed")
    with archive.open(info) as file:
        shape, fortran, dtype = _header(file)
        if dtype.kind not in kinds:
            raise UserError(f"{where} holds {dtype}, expected {'text' if kinds == 'U' else 'numbers'}")
        size = math.prod(shape) * dtype.itemsize
        if file.tell() + size != info.file_size:
            raise UserError(f"{where} declares shape {shape}, which is not what is there; copy or write it again")
        content = file.read(size)
        if len(content) != size or file.read(1):
            raise UserError(f"{where} is truncated; copy or write it again")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, Fortran order, dtype) of the array that begins here."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"array format {version}")


def _text(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> str | None:
    if info.file_size > _LONGEST_TEXT:
        raise UserError(f"{where} has {info.file_size} bytes, expected the name of an environment")
    found = _array(archive, info, where, kinds="U")
    if found.shape != ():
        raise UserError(f"{where} has shape {found.shape}, expected one name")
    return str(found[()]) or None
