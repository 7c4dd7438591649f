"""Downloads over http(s): resumed, checked, and there whole or not at all.

urllib of the standard library is enough: one request at a time, no authentication. What a library would bring (retries,
resuming) is the part that must be right for files of this size, and is written out below. The opener is put together
by hand, as urllib's own would also follow file:, ftp: and data:.

A download goes to `.<name>.part`, which a later attempt continues (`Range` with `If-Range`) if the server gave it a
validator and still has the same file; otherwise it starts over. It is moved to its place when its length, its checksum
and its contents are right. The checksum is the expected one where somebody stated it; otherwise it is recorded in
`<name>.sha256` beside the file at the first download, and holds from then on.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl_suite.data.container import one_line, sha256_of
from jaxrl_suite.errors import UserError

OFFLINE_VARIABLE = "JAXRL_SUITE_OFFLINE"
SCHEMES = ("http", "https")
Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all if known

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BLOCK = 1 << 18
_HEADERS = {"User-Agent": "jaxrl_suite", "Accept-Encoding": "identity"}
_AGAIN = (408, 425, 429, 500, 502, 503, 504)  # a later attempt may succeed


class Limits(NamedTuple):
    """When to give up."""

    stall: float = 30.0  # seconds without a byte, after which a connection is given up
    deadline: float = 4 * 3600.0  # seconds for all of it
    attempts: int = 6  # in a row without one new byte
    backoff: float = 1.0  # seconds before the second attempt; doubled each time, at most 60
    largest: int = 20_000_000_000  # bytes
    spare: int = 100_000_000  # bytes that must stay free on the disk


class _Again(Exception):
    """This attempt failed, another one may not."""

    def __init__(self, reason: str, wait: float = 0.0):
        super().__init__(reason)
        self.wait = wait  # seconds that the server asks for


class _Partial(NamedTuple):
    """Where a download lies until it is whole."""

    file: Path
    note: Path  # JSON: the address and the validator of what is in `file`


def offline() -> bool:
    """Whether the user forbids downloads."""
    return os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0")


def fetch(
    url: str,
    folder: Path,
    name: str,
    *,
    sha256: str | None = None,
    progress: Progress | None = None,
    verify: Callable[[Path], None] | None = None,
    limits: Limits = Limits(),  # noqa: B008 immutable
    fresh: bool = False,
) -> Path:
    """The file `folder/name`, downloaded from `url` unless it is there; with `fresh` it is downloaded anyway.

    `sha256`: the expected checksum; without it that of the first download holds. `verify` raises a UserError on
    contents that are not what was asked for (the log-in page of a network, say), before they are trusted.

    Raises:
        UserError: it cannot be had, or is not what was expected.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot be the name of a file; expected letters, digits, '.', '_' and '-'")
    if sha256 is not None and not _SHA256.fullmatch(sha256.lower()):
        raise UserError(f"{sha256!r} is no sha256; expected 64 hexadecimal digits")
    _scheme(url)
    target = folder / name
    sha256 = sha256.lower() if sha256 else None
    if target.exists() and not fresh:
        return _known(target, sha256)
    if offline():
        raise UserError(
            f"{name} is not in {folder}, and {OFFLINE_VARIABLE} forbids to download it from {url}; unset it"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + limits.deadline
        with _locked(folder / f".{name}.lock", until):
            if target.exists() and not fresh:  # another process was faster
                return _known(target, sha256)
            partial = _Partial(folder / f".{name}.part", folder / f".{name}.part.json")
            _download(url, partial, progress, limits, until)
            _keep(partial, target, sha256, verify, fresh)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({one_line(error)}); free it, or choose another folder"
        ) from error
    return target


def recorded(path: Path) -> str | None:
    """The checksum that was recorded beside a file at its first download."""
    note = path.with_name(f"{path.name}.sha256")
    if not note.is_file():
        return None
    word = note.read_text(encoding="utf-8", errors="replace").split(maxsplit=1)[:1]
    if not word or not _SHA256.fullmatch(word[0]):
        raise UserError(f"{note}: holds no sha256; remove it to trust the file as it is")
    return word[0]


def _known(path: Path, expected: str | None) -> Path:
    """A file that is there, if its checksum is right."""
    pinned = expected or recorded(path)
    if pinned is not None and sha256_of(path) != pinned:
        raise UserError(f"{path}: the file is damaged or not the expected one (sha256 {pinned[:12]}...); remove it")
    return path


# --- Attempts ---
def _download(url: str, partial: _Partial, progress: Progress | None, limits: Limits, until: float) -> None:
    """Attempt after attempt until `partial.file` is whole."""
    failures = 0
    while True:
        before = _size(partial.file)
        try:
            _attempt(url, partial, progress, limits, until)
            return
        except _Again as error:
            failures = 0 if _size(partial.file) > before else failures + 1
            pause = max(error.wait, min(60.0, limits.backoff * 2 ** max(failures - 1, 0)))
            if failures >= limits.attempts or time.monotonic() + pause > until:
                raise UserError(
                    f"{url}: cannot be downloaded ({error}); try again later, it goes on from there"
                ) from error
            time.sleep(pause)


def _attempt(url: str, partial: _Partial, progress: Progress | None, limits: Limits, until: float) -> None:
    have, headers = _resume(url, partial)
    try:
        with _opener().open(urllib.request.Request(url, headers=_HEADERS | headers), timeout=limits.stall) as answer:
            start, total = _place(answer, have, url)
            _room(partial.file, total, start, limits, url)
            _note(partial, url, answer.headers, start)
            _receive(answer, partial.file, start, total, progress, limits, until)
    except urllib.error.HTTPError as error:
        error.close()
        told = f"the server answered {error.code} {' '.join(str(error.reason).split())}"
        if error.code == 416:
            if have and error.headers.get("Content-Range") == f"bytes */{have}":
                return  # all of it was there already
            _discard(partial)
            raise _Again("the server has another file by now") from error
        if error.code in _AGAIN:
            raise _Again(told, _asked(error.headers)) from error
        raise UserError(f"{url}: {told}; check the address") from error
    except (TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
        raise _Again(one_line(error) or type(error).__name__) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise UserError(f"{url}: the server's certificate is not valid ({one_line(error.reason)})") from error
        raise _Again(one_line(error)) from error
    except ValueError as error:  # an address that urllib cannot encode
        raise UserError(f"{url}: cannot be asked for ({one_line(error)}); check the address") from error


def _resume(url: str, partial: _Partial) -> tuple[int, dict[str, str]]:
    """(bytes that are there, headers that ask for the rest); from the start if they may belong to another file."""
    have = _size(partial.file)
    try:
        note = json.loads(partial.note.read_text(encoding="utf-8"))
        validator = note["validator"] if note["url"] == url else ""
    except (OSError, ValueError, TypeError, KeyError):
        validator = ""
    if not have or not isinstance(validator, str) or not validator:
        return 0, {}
    return have, {"Range": f"bytes={have}-", "If-Range": validator}


def _place(answer: Any, have: int, url: str) -> tuple[int, int | None]:
    """(the position of the first byte that comes, the length of the whole); None while that is not stated."""
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UserError(f"{url}: the server packs the file ({answer.headers['Content-Encoding']}), expected its bytes")
    if answer.status == 206:
        found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})", answer.headers.get("Content-Range", ""), re.ASCII)
        if not have or found is None or int(found[1]) != have:
            raise UserError(f"{url}: the server sends a part that was not asked for; use another address")
        return have, int(found[2])
    length = answer.headers.get("Content-Length", "")
    if re.fullmatch(r"\d{1,18}", length, re.ASCII):
        return 0, int(length)
    if answer.headers.get("Transfer-Encoding", "").lower() != "chunked":  # its end could not be told from a cut
        raise UserError(f"{url}: the server does not state the length of the file; use another address")
    return 0, None


def _room(path: Path, total: int | None, start: int, limits: Limits, url: str) -> None:
    if total is not None and total > limits.largest:
        raise UserError(f"{url}: has {total:,} bytes, the limit is {limits.largest:,}")
    free = shutil.disk_usage(path.parent).free + (_size(path) - start)
    if (total or 0) - start + limits.spare > free:
        raise UserError(f"{path.parent}: {(total or 0) - start:,} bytes do not fit, {free:,} are free; free some space")


def _note(partial: _Partial, url: str, headers: Any, start: int) -> None:
    """What tells the file apart from later ones. A weak ETag does not promise the same bytes."""
    etag = headers.get("ETag", "")
    validator = etag if etag.startswith('"') else headers.get("Last-Modified", "")
    if not start:
        partial.file.unlink(missing_ok=True)  # first: old bytes must never lie beside a new validator
        partial.note.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")


def _receive(
    answer: Any, path: Path, start: int, total: int | None, progress: Progress | None, limits: Limits, until: float
) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
        file.truncate(start)
        file.seek(start)
        done = start
        while block := answer.read1(_BLOCK):
            done += len(block)
            if done > limits.largest:
                raise UserError(f"{path.parent}: more than {limits.largest:,} bytes come; that is the limit")
            file.write(block)
            if progress is not None:
                progress(done, total)
            if time.monotonic() > until:
                raise _Again("it takes too long")
        file.flush()
        os.fsync(file.fileno())
    if total is not None and done < total:
        raise _Again(f"the connection broke off after {done:,} of {total:,} bytes")


def _keep(
    partial: _Partial, target: Path, expected: str | None, verify: Callable[[Path], None] | None, fresh: bool
) -> None:
    """Check a whole download and move it to its place; what is wrong is removed, not continued."""
    found = sha256_of(partial.file)
    pinned = expected or recorded(target)
    try:
        if pinned is not None and found != pinned:
            raise UserError(
                f"{target.name}: the download has sha256 {found}, expected {pinned}; "
                + ("check the checksum or the address" if expected else f"if it was renewed, remove {target}.sha256")
            )
        if verify is not None:
            verify(partial.file)
    except UserError:
        _discard(partial)
        raise
    note = target.with_name(f"{target.name}.sha256")
    temporary = note.with_name(f".{note.name}.{os.getpid()}.tmp")
    temporary.write_text(f"{found}  {target.name}\n", encoding="utf-8")
    os.replace(temporary, note)  # before the file: no file without its checksum
    os.replace(partial.file, target)
    partial.note.unlink(missing_ok=True)


def _discard(partial: _Partial) -> None:
    for path in partial:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _asked(headers: Any) -> float:
    """Seconds that the server asks to wait, if it says so as a number."""
    found = re.fullmatch(r"\d{1,6}", headers.get("Retry-After", "") if headers else "", re.ASCII)
    return float(found[0]) if found else 0.0


# --- Addresses ---
def _scheme(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise UserError(f"{url!r} is no address ({one_line(error)})") from error
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise UserError(f"{url!r} is no address of the web; expected http:// or https://")
    return parts.scheme


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Follows to http(s) only, and never from https back to http."""

    max_redirections = 5

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """The next request. Range and If-Range go along."""
        if _scheme(newurl) == "http" and _scheme(req.full_url) == "https":
            fp.close()
            raise UserError(f"{req.full_url}: leads from https to {newurl}; give that address yourself if you trust it")
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """Judge the address before urllib does: it calls file: an HTTP error."""
        to = headers.get("location") or headers.get("uri") or ""
        try:
            _scheme(urllib.parse.urljoin(req.full_url, to))
        except UserError:
            fp.close()
            raise
        except ValueError as error:
            fp.close()
            raise UserError(f"{req.full_url}: leads to {to!r}, which is no address ({one_line(error)})") from error
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _opener() -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
        _Redirect,
    ):
        opener.add_handler(handler())
    return opener


@contextlib.contextmanager
def _locked(path: Path, until: float) -> Iterator[None]:
    """Hold the lock file `path`, which stays: two processes do not download one file at once."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        while not _try_lock(descriptor):
            if time.monotonic() > until:
                raise UserError(f"{path}: another process is downloading this file for too long; end it")
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
