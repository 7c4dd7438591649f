"""A run on several hosts: a supervisor per process, which starts the worker, watches it, and starts it again.

JAX ends a process from C++, with a page of messages, when a peer never connects or dies. So supervisors, which never
touch JAX, meet first: process 0 listens on HOST:PORT, the others connect, all within a deadline. Then each starts its
worker; JAX's own coordinator takes the next port. When a worker dies, or a supervisor with its host, all workers are
killed and all start again from the last checkpoint, which is common to them, as it appears at once and as a whole.

Messages are lines of JSON over TCP: to process 0 {"index", "command"} and {"code", "line"}; from it {"go"}, {"stop"}
and {"end", "line"}.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jaxrl_suite.errors import UserError
from jaxrl_suite.train.identity import digest
from jaxrl_suite.train.interrupts import RESUMABLE, Interrupts
from jaxrl_suite.train.processes import VARIABLE, Place

DEADLINE = 60.0  # seconds in which all processes must have come, also after one was lost
GRACE = 2.0  # seconds in which the first worker that died is told from those that died of it
SHORT, ATTEMPTS = 60.0, 3  # so many attempts in a row that last less than so many seconds are the last
POLL = 0.1
GIVEN_UP, BAD_INPUT = 1, 2


class Line:
    """A connection that carries JSON, a line each; silence is noticed by the system's keep-alive."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._rest = b""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def send(self, message: dict) -> None:
        """Send, or let it be: the other side finds out by itself that the connection is gone."""
        with contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds: float = 0.0) -> list[dict] | None:
        """What has come within `seconds`; None when the connection is gone or carries something else."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            if not selector.select(seconds):
                return []
        try:
            data = self.socket.recv(65536)
            *lines, self._rest = (self._rest + data).split(b"\n")
            messages = [json.loads(line) for line in lines]
        except (OSError, ValueError):
            return None
        return messages if data and all(isinstance(message, dict) for message in messages) else None

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


# --- The worker ---
class Worker:
    """The process that trains, and what it says when it ends."""

    def __init__(self, place: Place, log: Path) -> None:
        self.log, self.asked = log, False
        environment = {**os.environ, VARIABLE: str(place._replace(port=place.port + 1))}
        with open(log, "wb") as errors:
            # A session of its own: Ctrl-C reaches the supervisor, which asks the worker once.
            self.process = subprocess.Popen(
                _command(),
                stdin=subprocess.PIPE,
                stdout=None if place.rank == 0 else errors,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )

    def ended(self) -> dict | None:
        """The report of its end, once it has ended."""
        code = self.process.poll()
        if code is None:
            return None
        return {"code": code, "line": self._last_line() if code > 0 else _died(code), "asked": self.asked}

    def ask(self) -> None:
        """Ask it, once, to save and stop."""
        if not self.asked:
            self.process.terminate()
        self.asked = True

    def kill(self) -> None:
        """Stop it at once."""
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def _last_line(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self.process.poll()}"


def _command() -> list[str]:
    """This very command, as `python -m` or as a script."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    start = ["-m", spec.name.removesuffix(".__main__")] if spec else [sys.argv[0]]
    return [sys.executable, *start, *sys.argv[1:]]


def _died(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else "finished"


# --- Meeting ---
def _fingerprint(place: Place) -> str:
    """What all processes must have in common: the command but for their index."""
    words = [word for word in sys.argv[1:] if str(place) not in word]
    return digest(words, place.host, place.port, place.size)


def _listen(place: Place) -> socket.socket:
    try:
        return socket.create_server((place.host, place.port), backlog=place.size)
    except OSError as error:
        raise UserError(
            f"cannot listen on {place.host}:{place.port} ({error.strerror}); give --distributed an address of "
            "process 0 and a free port"
        ) from error


def _gather(place: Place, server: socket.socket, lines: dict[int, Line], interrupts: Interrupts) -> bool:
    """Wait until every other process is connected; False when interrupted.

    Raises:
        UserError: some have not come before the deadline, or are of another command.
    """
    until = time.monotonic() + DEADLINE
    server.settimeout(POLL)
    while missing := sorted(set(range(1, place.size)) - set(lines)):
        if interrupts.requested:
            return False
        if time.monotonic() > until:
            raise UserError(
                f"process {', '.join(map(str, missing))} of {place.size} did not connect to {place.host}:{place.port} "
                f"within {DEADLINE:.0f} s; start all processes, and see that they reach this address"
            )
        try:
            line = Line(server.accept()[0])
        except TimeoutError:
            continue
        hello = (line.receive(5.0) or [{}])[0]
        if hello.get("command") != _fingerprint(place) or hello.get("index") not in range(1, place.size):
            line.send(
                {"end": BAD_INPUT, "line": "its command is not that of process 0; all must have the same options"}
            )
            line.close()
            continue
        lines[hello["index"]] = line
    return True


def _connect(place: Place) -> Line:
    """A line to process 0.

    Raises:
        UserError: it has not been there before the deadline.
    """
    until = time.monotonic() + DEADLINE
    while True:
        with contextlib.suppress(OSError):
            line = Line(socket.create_connection((place.host, place.port), timeout=5.0))
            line.send({"index": place.rank, "command": _fingerprint(place)})
            return line
        if time.monotonic() > until:
            raise UserError(
                f"process 0 was not at {place.host}:{place.port} within {DEADLINE:.0f} s; start it, and see that this "
                "host reaches the address"
            )
        time.sleep(POLL)


# --- Supervising ---
def run(place: Place, fresh: bool = False) -> int:
    """Bring the command to its end as process `place.rank` -> exit code.

    Raises:
        UserError: a process has not come in time, or `fresh`: an attempt after a loss must resume.
    """
    if fresh:
        raise UserError("--fresh cannot go with --distributed, which resumes after a loss; choose another --out")
    log = Path(tempfile.mkdtemp(prefix="jaxrl-worker-")) / "stderr"
    code = BAD_INPUT
    try:
        with Interrupts() as interrupts:
            code = _lead(place, log, interrupts) if place.rank == 0 else _follow(place, log, interrupts)
    finally:
        if code == GIVEN_UP:
            _note(f"all that this worker said is in {log}")
        else:
            shutil.rmtree(log.parent)
    return code


def _note(text: str) -> None:
    _print(f"note: {text}")


def _print(line: str) -> None:
    """One write, so that lines of several processes on one terminal do not run into each other."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _lead(place: Place, log: Path, interrupts: Interrupts) -> int:
    """Process 0: gathers the others, starts all, and decides what the end of a worker means for all."""
    lines: dict[int, Line] = {}
    short = 0
    with _listen(place) as server:
        try:
            for number in itertools.count(1):
                if not _gather(place, server, lines, interrupts):
                    return _end(lines, RESUMABLE, "")
                began = time.monotonic()
                reports = _attempt(number, place, log, interrupts, lines)
                code, text = _verdict(reports)
                if code is not None:
                    return _end(lines, code, text)
                short = short + 1 if time.monotonic() - began < SHORT else 0
                if short == ATTEMPTS:
                    return _end(lines, GIVEN_UP, f"{text}; given up after {ATTEMPTS} short attempts")
                _note(f"{text}; all processes start again from their last checkpoint")
        except UserError as error:
            _end(lines, BAD_INPUT, str(error), say=False)
            raise
        finally:
            _end(lines, GIVEN_UP, "process 0 has stopped", say=False)  # where they have not been told otherwise
    raise AssertionError("attempts do not run out")


def _end(lines: dict[int, Line], code: int, text: str, say: bool = True) -> int:
    """Send everybody home."""
    for index in list(lines):
        line = lines.pop(index)
        line.send({"end": code, "line": text})
        line.close()
    return _say(code, text) if say else code


def _say(code: int, text: str) -> int:
    if code not in (0, RESUMABLE):
        _print(f"error: {text.removeprefix('error: ')}")
    return code


def _attempt(number: int, place: Place, log: Path, interrupts: Interrupts, lines: dict[int, Line]) -> dict[int, dict]:
    """Start all workers; the reports of those that had ended when it was over. All have ended then."""
    for line in lines.values():
        line.send({"go": number})
    worker = Worker(place, log)
    reports: dict[int, dict] = {}
    first = 0.0  # when the first bad end was seen
    try:
        while len(reports) < place.size and not (first and time.monotonic() - first > GRACE):
            time.sleep(POLL)
            if interrupts.requested:
                worker.ask()
            reports |= _heard(lines, number)
            if 0 not in reports and (report := worker.ended()) is not None:
                reports[0] = report
            if not first and any(report["code"] not in (0, RESUMABLE) for report in reports.values()):
                first = time.monotonic()
    finally:
        worker.kill()
    for line in lines.values():
        line.send({"stop": True})
    return reports


def _heard(lines: dict[int, Line], number: int) -> dict[int, dict]:
    """What others have reported on this attempt; a supervisor that has hung up is taken off, and reported as lost."""
    reports = {}
    for index, line in list(lines.items()):
        messages = line.receive()
        if messages is None:
            line.close()
            del lines[index]
            reports[index] = {"code": -signal.SIGKILL, "line": "lost"}
        for message in messages or []:
            if message.get("attempt") == number:
                reports[index] = message
    return reports


def _verdict(reports: dict[int, dict]) -> tuple[int | None, str]:
    """The exit code for all (None: start again), and why. Who was killed comes before who died of that."""
    codes = {report["code"] for report in reports.values()}
    if codes <= {0}:
        return 0, ""
    if codes <= {0, RESUMABLE}:
        return RESUMABLE, ""
    bad = {index: report for index, report in reports.items() if report["code"] not in (0, RESUMABLE)}
    refused = [report["line"] for _, report in sorted(bad.items()) if report["code"] == BAD_INPUT]
    if refused:
        return BAD_INPUT, refused[0]
    if any(report.get("asked") for report in reports.values()):
        return RESUMABLE, ""  # asked before it could save
    # JAX aborts the peers of a process that died.
    index = min(bad, key=lambda index: (bad[index]["code"] >= 0 or bad[index]["code"] == -signal.SIGABRT, index))
    return None, f"process {index}: {bad[index]['line']}"


def _follow(place: Place, log: Path, interrupts: Interrupts) -> int:
    """Another process: does what process 0 says, and reports how its worker ends."""
    line, crew = _connect(place), _Crew(place, log)
    try:
        while not (interrupts.requested and crew.worker is None):
            messages = line.receive(POLL)
            if messages is None:
                _note("process 0 is lost; waiting for it to come back")
                crew.stop()
                line.close()
                line = _connect(place)
            for message in messages or []:
                if "end" in message:
                    return _say(int(message["end"]), str(message["line"]))
                crew.stop()
                if "go" in message:
                    crew.start(message["go"])
            if interrupts.requested:
                crew.ask()
            if (report := crew.report()) is not None:
                line.send(report)
        return RESUMABLE
    finally:
        crew.stop()
        line.close()


class _Crew:
    """The one worker of a process that follows, attempt after attempt."""

    def __init__(self, place: Place, log: Path) -> None:
        self.place, self.log = place, log
        self.worker: Worker | None = None
        self._attempt, self._reported = 0, False

    def start(self, attempt: int) -> None:
        self.worker = Worker(self.place, self.log)
        self._attempt, self._reported = attempt, False

    def stop(self) -> None:
        if self.worker is not None:
            self.worker.kill()
        self.worker = None

    def ask(self) -> None:
        if self.worker is not None:
            self.worker.ask()

    def report(self) -> dict | None:
        """How the worker ended, once."""
        ended = None if self.worker is None or self._reported else self.worker.ended()
        self._reported |= ended is not None
        return None if ended is None else {"attempt": self._attempt, **ended}
