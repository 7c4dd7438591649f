"""Run directories, append-only logs that can be cut back, and summaries that several processes add rows to."""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import io
import json
import math
import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_suite.errors import UserError
from jaxrl_suite.train import files, identity

SCHEMA_VERSION = 2  # the newest `schema_version` of a summary that this code understands
SCHEMAS = (1, 2)  # those that it reads; rows of 1 do not say their settings: published ones are of presets as they are
INTEGER = re.compile(r"[+-]?\d+")
IN_USE = "is in use by process"  # in the message that refuses a folder which another process holds
NUMBERS = dict.fromkeys(("seed", "updates", "update"), "whole number")  # columns that hold nothing else, of any csv
NUMBERS |= dict.fromkeys(("return_last", "return_best", "score_last", "score_best", "q_last", "mc_last"), "number")
FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf|nan|", re.IGNORECASE)


# --- Run directories ---
class RunDir:
    """A run's folder, held by this process until `close`."""

    def __init__(self, path: Path, state: str, descriptor: int | None) -> None:
        self.path = path
        self.state = state  # "new", "resumable" or "finished"
        self._descriptor = descriptor  # None: held by another process of the same run

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def finish(self, status: str) -> None:
        """Note how the run ended; from now on it opens as "finished"."""
        files.write_atomically(self.path / "status.json", json.dumps({"status": status}) + "\n")
        self.state = "finished"

    def close(self) -> None:
        """Let other processes have the folder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def open_run(out: Path, experiment: str, label: str, config: dict, group: str, fresh: bool) -> RunDir:
    """Open `out/experiment/<label>-<group>`, its newest attempt, or with `fresh` a new one (`-r2`, `-r3`) beside it.

    Args:
        out: the folder of all experiments.
        experiment: its name.
        label: for people; what a file name cannot hold becomes "-".
        config: plain data, see `identity.canonical`; an existing directory must hold the same.
        group: see `identity.group_id`.
        fresh: never open an existing directory.

    Raises:
        UserError: the folder cannot be written, another process holds it, or it is of another configuration.
    """
    parent = Path(out) / experiment
    stem = _stem(label, group)
    with files.guarded(parent):
        parent.mkdir(parents=True, exist_ok=True)
        path = _make_next(parent, stem) if fresh else parent / _name(stem, max(_attempts(parent, stem), default=1))
    with files.guarded(path):
        path.mkdir(exist_ok=True)
        descriptor = _hold(path)
    try:
        return RunDir(path, _settle(path, config), descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def look(out: Path, experiment: str, label: str, group: str) -> tuple[Path, str]:
    """Where `open_run` would go without `fresh`, and what is there; changes nothing.

    Returns:
        The path, and "new", "resumable", "finished", or "busy" while an unfinished run is held by a process.
    """
    parent = Path(out) / experiment
    stem = _stem(label, group)
    with files.guarded(parent):
        attempts = _attempts(parent, stem) if parent.exists() else []
        path = parent / _name(stem, max(attempts, default=1))
        if ending(path):
            return path, "finished"
        if (path / "lock").exists() and _is_held(path):
            return path, "busy"
        return path, "resumable" if (path / "config.json").exists() else "new"


def ending(path: Path) -> str:
    """How a run ended, "finished" or "diverged"; empty when it has not."""
    try:
        status = json.loads((path / "status.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return ""
    return str(status.get("status", "")) if isinstance(status, dict) else ""


def _is_held(path: Path) -> bool:
    """Ask with a shared lock, given back at once."""
    descriptor = os.open(path / "lock", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _stem(label: str, group: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", f"{label}-{group}", flags=re.ASCII)


def _name(stem: str, attempt: int) -> str:
    return stem if attempt == 1 else f"{stem}-r{attempt}"


def _attempts(parent: Path, stem: str) -> list[int]:
    pattern = re.compile(re.escape(stem) + r"(?:-r(\d+))?")
    return [int(match[1] or 1) for match in map(pattern.fullmatch, os.listdir(parent)) if match]


def _make_next(parent: Path, stem: str) -> Path:
    """A folder that was not there before, also when two processes ask at once."""
    while True:
        path = parent / _name(stem, max(_attempts(parent, stem), default=0) + 1)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path


def _hold(path: Path) -> int:
    """Lock the folder for as long as the descriptor is open; the system releases it also after `kill -9`."""
    descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} on {platform.node()}".encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "unknown"
        os.close(descriptor)
        raise UserError(f"{path} {IN_USE} {holder}; wait for it or use --out") from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _settle(path: Path, config: dict) -> str:
    """Check or write what describes the run -> its state."""
    text = identity.canonical(config)
    described = path / "config.json"
    with files.guarded(path):
        old = described.read_bytes() if described.exists() else None
        status = (path / "status.json").read_bytes() if (path / "status.json").exists() else None
    if old is None:
        # The configuration last: it says that all of this is there.
        files.write_atomically(path / "provenance.json", json.dumps(identity.provenance(), indent=2) + "\n")
        files.write_atomically(described, json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n")
        return "new"
    if _canonical_text(old) != text:
        raise UserError(
            f"{described} describes another run than this one, or is damaged; "
            "start beside it with --fresh, or choose another folder with --out"
        )
    return "finished" if status is not None and _canonical_text(status) is not None else "resumable"


def _canonical_text(raw: bytes) -> str | None:
    try:
        return identity.canonical(json.loads(raw))
    except (ValueError, TypeError, RecursionError):
        return None


# --- Logs ---
class Log:
    """An append-only file of whole lines. Opening it cuts a torn last line."""

    def __init__(self, path: Path, columns: Sequence[str] | None) -> None:
        self.path = Path(path)
        self.columns = None if columns is None else list(columns)
        self._header = b"" if self.columns is None else _csv_line(self.columns)
        # Locked, so that of two processes that begin a file one writes the header.
        with files.guarded(self.path.parent), files.locked(self.path.with_name(f".{self.path.name}.lock")):
            self.path.touch()
            self._cut_torn_line()
            if self.offset() == 0:
                self._write(self._header)
        self._check_header()

    @classmethod
    def jsonl(cls, path: Path) -> Log:
        """A log of JSON objects; numbers that JSON cannot hold become null."""
        return cls(path, None)

    @classmethod
    def csv(cls, path: Path, columns: Sequence[str]) -> Log:
        """A log of comma-separated rows under a fixed header."""
        return cls(path, columns)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row, whole or not at all."""
        line = _json_line(row) if self.columns is None else _csv_line(_cells(row, self.columns))
        if line.count(b"\n") != 1:
            raise ValueError(f"a row of {self.path.name} is one line: {row!r}")
        with files.guarded(self.path.parent):
            self._write(line)

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        with files.guarded(self.path.parent), open(self.path, "rb") as file:
            os.fsync(file.fileno())

    def offset(self) -> int:
        """The length in bytes, to come back to with `truncate`."""
        with files.guarded(self.path.parent):
            return self.path.stat().st_size

    def truncate(self, offset: int) -> None:
        """Cut what was written after `offset`; 0 leaves the header."""
        size, offset = self.offset(), max(offset, len(self._header))
        if offset > size or self._last_line_end(offset) != offset:
            raise UserError(
                f"{self.path} is not the log that its checkpoint knew ({size} bytes, cut at {offset}); "
                "start beside it with --fresh"
            )
        with files.guarded(self.path.parent):
            os.truncate(self.path, offset)

    def _write(self, line: bytes) -> None:
        if not line:
            return
        # Opened for each row: the log needs no closing, and nothing is lost with the process.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            before = os.fstat(descriptor).st_size
            if os.write(descriptor, line) != len(line):
                os.ftruncate(descriptor, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)

    def _cut_torn_line(self) -> None:
        size = self.offset()
        end = self._last_line_end(size)
        if end < size:  # an unneeded cut could take a row that another process adds meanwhile
            os.truncate(self.path, end)

    def _last_line_end(self, end: int) -> int:
        """Where the last whole line before `end` ends."""
        with files.guarded(self.path.parent), open(self.path, "rb") as file:
            while end > 0:
                start = max(0, end - 65536)
                file.seek(start)
                found = file.read(end - start).rfind(b"\n")
                if found >= 0:
                    return start + found + 1
                end = start
        return 0

    def _check_header(self) -> None:
        with files.guarded(self.path.parent), open(self.path, "rb") as file:
            found = file.read(len(self._header))
        if found != self._header:
            raise UserError(f"{self.path} has other columns than {self.columns}; start beside it with --fresh")


def _json_line(row: Mapping[str, Any]) -> bytes:
    plain = {name: _finite(_number(value)) for name, value in row.items()}
    return json.dumps(plain, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _number(value: Any) -> Any:
    """A scalar of numpy or JAX as Python's own."""
    return value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cells(row: Mapping[str, Any], columns: Sequence[str]) -> list[Any]:
    if set(row) != set(columns):
        raise ValueError(f"a row has the columns {sorted(row)}, expected {sorted(columns)}")
    return [_number(row[name]) for name in columns]


def _csv_line(cells: Sequence[Any]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue().encode()


# --- Summaries ---
Row = dict[str, str]


def upsert_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], key: str = "run_id") -> None:
    """Add rows to a summary, in place of those with the same `key`. Columns that only old rows have stay.

    Raises:
        UserError: the file is damaged or of a newer schema (and stays as it is), or its folder cannot be written.
    """
    path = Path(path)
    new = [{name: _text(value) for name, value in row.items()} for row in rows]
    if any(not row.get(key) for row in new):
        raise ValueError(f"every row needs a {key}")
    with files.guarded(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with files.locked(path.with_name(f".{path.name}.lock")):
        header, old = _read(path, key)
        header = list(dict.fromkeys([*columns, *header, *(name for row in new for name in row)]))
        merged = {row[key]: row for row in old} | {row[key]: row for row in new}
        lines = [header, *([row.get(name, "") for name in header] for row in merged.values())]
        files.write_atomically(path, b"".join(map(_csv_line, lines)).decode())


def drop_rows(path: Path, values: set[str], key: str) -> None:
    """Take the rows whose `key` is in `values` out of a summary, if there is one.

    Raises:
        UserError: the file is damaged (and stays as it is), or its folder cannot be written.
    """
    path = Path(path)
    if not path.exists():
        return
    with files.locked(path.with_name(f".{path.name}.lock")):
        header, old = _read(path, key)
        kept = [row for row in old if row[key] not in values]
        if len(kept) < len(old):
            lines = [header, *([row[name] for name in header] for row in kept)]
            files.write_atomically(path, b"".join(map(_csv_line, lines)).decode())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a summary; numbers and truth values as such, empty cells as nan, identifiers as text.

    Raises:
        UserError: there is no such file, it is damaged, or it is of a newer schema.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"there is no summary {path}; run the experiment first, or give its folder with --out")
    _, rows = _read(path, None)
    for number, row in enumerate(rows, start=2):
        _check_numbers(path, number, row)
    complete = [row | {"settings": row.get("settings", "")} for row in rows]
    return [{name: _value(name, text) for name, text in row.items()} for row in complete]


def check_rows(path: Path, key: str = "run_id") -> None:
    """Raise the UserError of `upsert_rows` and `read_rows` before there are rows to add; no such file is no error."""
    if path.exists():
        _read(path, key)
        read_rows(path)


def _read(path: Path, key: str | None) -> tuple[list[str], list[Row]]:
    """Header and rows as text; nothing for a file that is not there. Each row has its `key`."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise files.unwritable(path.parent, error.strerror or str(error)) from error
    try:
        # Text without newline translation: a carriage return within a cell stays one.
        lines = [line for line in csv.reader(io.StringIO(raw.decode(), newline=""), strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path, str(error)) from error
    if not lines:
        raise _damaged(path, "it is empty")
    header, *body = lines
    if len(set(header)) != len(header) or (key is not None and key not in header):
        raise _damaged(path, f"its header is {','.join(header)[:200]}")
    for number, line in enumerate(body, start=2):
        if len(line) != len(header) or "\0" in "".join(line):
            raise _damaged(path, f"row {number} has {len(line)} cells, the header {len(header)}")
    rows = [dict(zip(header, line, strict=True)) for line in body]
    if key is not None and not all(row[key] for row in rows):
        raise _damaged(path, f"a row has no {key}")
    _check_schema(path, rows)
    return header, rows


def _check_schema(path: Path, rows: Sequence[Row]) -> None:
    for version in {row.get("schema_version", "") for row in rows} - {""}:
        if not INTEGER.fullmatch(version):
            raise _damaged(path, f"a schema_version is {version!r}")
        if int(version) > SCHEMA_VERSION:
            raise UserError(
                f"{path} has rows of schema {version}, this version knows {SCHEMA_VERSION}; "
                "update jaxrl_suite, or choose another folder with --out"
            )


def _check_numbers(path: Path, number: int, row: Row) -> None:
    """Refuse a text where every reader expects a number; an empty cell is one, and is nan when it is written again."""
    for name, kind in NUMBERS.items():
        text = row.get(name, "")
        if text not in ("", "nan") and not (INTEGER if kind == "whole number" else FLOAT).fullmatch(text):
            raise UserError(
                f"{path}, row {number}: {name} is {text!r}, expected a {kind}; repair the row, or take it out and run "
                "its experiment again"
            )


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is not a summary that can be read: {reason}; repair it or move it away")


def _text(value: Any) -> str:
    """The text of a cell: floats so that they read back bit for bit."""
    value = _number(value)
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def _value(name: str, text: str) -> Any:
    if name.endswith("_id") or name in ("git_commit", "host", "settings"):
        return text  # digits only by chance
    if text in ("True", "False"):
        return text == "True"
    if INTEGER.fullmatch(text):
        return int(text)
    return float(text or "nan") if FLOAT.fullmatch(text) else text
