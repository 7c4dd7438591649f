"""Writing files so that a kill at any moment, a second process or a full disk leaves nothing half done."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jaxrl_suite.errors import UserError


@contextlib.contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Turn what the operating system refuses (full, read-only, not a folder, ...) into one line naming `folder`."""
    try:
        yield
    except OSError as error:
        raise unwritable(folder, error.strerror or str(error)) from error


def unwritable(folder: Path, reason: str) -> UserError:
    """The error for a folder that cannot be used."""
    return UserError(f"cannot use the folder {folder}: {reason}; free it, or choose another folder with --out")


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written to, or not be made, and leave nothing behind.

    Raises:
        UserError: what the operating system says.
    """
    with guarded(folder):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryDirectory(dir=there):
            pass


def sync_folder(folder: Path) -> None:
    """Make names created in or moved into `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, text: str) -> None:
    """Write a text file and wait until it is on the disk."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, text: str) -> None:
    """Replace a text file as a whole: a reader sees the old text or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with guarded(path.parent):
        try:
            write_synced(temporary, text)
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):  # the first failure is the one to tell, not that of cleaning up
                temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for the lock file `path`, hold it, and remove it afterwards. Its folder must exist."""
    with guarded(path.parent):
        descriptor = _acquire(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # before the release: whoever waits finds out that its file is gone, and starts over
        os.close(descriptor)


def _acquire(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _same_file(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)
