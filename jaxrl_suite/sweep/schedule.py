"""The loop that works off a list of runs: fill the places, collect what ends, retry once what dies, look again at the
end for what another process was doing. What a run has reached lives in its directory alone, so that a sweep can die."""

from __future__ import annotations

import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from jaxrl_suite.errors import UserError
from jaxrl_suite.sweep.executors import LOST, Executor, Job
from jaxrl_suite.sweep.tasks import Run, ending, state
from jaxrl_suite.train import files, interrupts, rundir

BAD_INPUT = 2
ATTEMPTS = 2  # a worker that dies gets one more
LOSSES = 5  # places that a run may lose: no fault of its own, unless it is what brings nodes down
STOPPED = (interrupts.RESUMABLE, -signal.SIGTERM)  # the latter before it could listen
POLL_SECONDS = 0.1
LOOK_SECONDS = 2.0  # between two looks at what another process holds
UNSEEN = "is not finished, though its worker ended well; nodes must share --out, and have the devices of this machine"
TAIL_BYTES, TAIL_LINES = 4096, 6
COLUMNS = [
    *("group_id", "algo", "dataset", "preset", "seeds", "settings"),
    *("exit_code", "attempts", "log", "last_lines", "schema_version"),
]


class Attempt(NamedTuple):
    """A run in the hands of a worker."""

    run: Run
    number: int  # from 1
    job: Job
    log: Path
    offset: int  # where its own output begins


class Failure(NamedTuple):
    """A run that has been given up; without a log where no worker was needed to see that it cannot be done."""

    run: Run
    code: int
    attempts: int
    log: Path | None
    last_lines: str


@dataclass
class Board:
    """Where every run of a sweep stands."""

    waiting: deque[tuple[Run, int]]  # with the number of its next attempt
    running: list[Attempt] = field(default_factory=list)
    elsewhere: list[tuple[Run, int]] = field(default_factory=list)
    done: list[Run] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    pruned: list[Run] = field(default_factory=list)
    pruning: set[str] = field(default_factory=set)  # groups whose workers have been asked to save and not come back
    lost: Counter[str] = field(default_factory=Counter)  # places that have gone, by group
    stopped: bool = False

    def prune(self, attempt: Attempt) -> None:
        """Give up a run because of what it has reached so far; it saves, and can be resumed by a later command."""
        self.pruning.add(attempt.run.group)
        attempt.job.terminate()


def work_off(
    runs: Sequence[Run], executor: Executor, asked: Callable[[], bool], notify: Callable[[Board], None]
) -> Board:
    """Bring every run to its end, or stop when `asked`: then workers save, and the board says `stopped`.

    Args:
        runs: in the order in which they are begun.
        executor: where they run.
        asked: whether to stop.
        notify: called with the board after every look at it; it may add runs to `board.waiting`, or prune some.

    Raises:
        UserError: the folder cannot be written.
        KeyboardInterrupt: asked a second time; workers are killed without saving.
    """
    board = Board(deque((run, 1) for run in runs))
    looked = time.monotonic()
    try:
        while (board.waiting or board.running or board.elsewhere) and not board.stopped:
            _fill(board, executor)
            _collect(board, executor)
            if not board.waiting and time.monotonic() - looked > LOOK_SECONDS:
                looked = time.monotonic()
                board.waiting.extend(board.elsewhere)  # what is still held comes back when its turn comes
                board.elsewhere.clear()
            board.stopped |= asked()
            notify(board)
            time.sleep(POLL_SECONDS)
        _stop(board)
    except BaseException as error:
        for attempt in board.running:
            attempt.job.kill() if isinstance(error, KeyboardInterrupt) else attempt.job.terminate()
        raise
    return board


def _fill(board: Board, executor: Executor) -> None:
    while board.waiting and len(board.running) < executor.places:
        run, number = board.waiting.popleft()
        try:
            found = state(run)
        except UserError as error:
            _give_up(board, Failure(run, BAD_INPUT, number - 1, None, str(error)))
            continue
        if found == "finished":
            _complete(board, run)
        elif found == "busy":
            board.elsewhere.append((run, number))
        else:
            log = _log(run)
            offset = log.stat().st_size if log.exists() else 0
            board.running.append(Attempt(run, number, executor.start(run.task, log), log, offset))


def _collect(board: Board, executor: Executor) -> None:
    for attempt in [attempt for attempt in board.running if attempt.job.poll() is not None]:
        board.running.remove(attempt)
        _settle(board, attempt, attempt.job.poll() or 0, executor.takes_back)


def _settle(board: Board, attempt: Attempt, code: int, takes_back: bool) -> None:
    """Decide what an exit code means."""
    run, number = attempt.run, attempt.number
    pruned = run.group in board.pruning
    board.pruning.discard(run.group)
    if code == 0 and ending(run):
        _complete(board, run)
    elif pruned:
        board.pruned.append(run)
    elif (code in STOPPED and takes_back) or (code == LOST and board.lost[run.group] < LOSSES):
        board.lost[run.group] += code == LOST
        board.waiting.append((run, number))
    elif code == interrupts.RESUMABLE:
        board.stopped = True
        board.waiting.append((run, number))
    else:
        _retry(board, attempt, code)


def _retry(board: Board, attempt: Attempt, code: int) -> None:
    """Once more for what died; what another process holds is looked at again; the rest is given up."""
    run, number = attempt.run, attempt.number
    last = tail(attempt.log, attempt.offset) if code else f"{_path(run)} {UNSEEN}"
    if code == BAD_INPUT and (rundir.IN_USE in last or _is_elsewhere(run)):
        board.elsewhere.append((run, number))
    elif code in (BAD_INPUT, LOST) or number == ATTEMPTS:
        _give_up(board, Failure(run, code, number, attempt.log, last))
    else:
        board.waiting.append((run, number + 1))


def _is_elsewhere(run: Run) -> bool:
    """Whether another process holds the run, or has just ended it; its lines may hide the refusal in the log."""
    return rundir.look(run.out, run.experiment, run.label, run.group)[1] in ("busy", "finished")


def _path(run: Run) -> Path:
    return rundir.look(run.out, run.experiment, run.label, run.group)[0]


def _log(run: Run) -> Path:
    path = _path(run)
    return path.parent / "logs" / f"{path.name}.log"


def _stop(board: Board) -> None:
    """Ask the workers that are left to save, and wait for them."""
    for attempt in board.running:
        attempt.job.terminate()
    while board.running:
        for attempt in [attempt for attempt in board.running if attempt.job.poll() is not None]:
            board.running.remove(attempt)
            if attempt.job.poll() == 0 and ending(attempt.run):
                _complete(board, attempt.run)
            else:
                board.waiting.append((attempt.run, attempt.number))
        time.sleep(POLL_SECONDS)


def _complete(board: Board, run: Run) -> None:
    """Done, also where an earlier sweep had given it up."""
    board.done.append(run)
    rundir.drop_rows(failures_file(run), {run.group}, "group_id")


def _give_up(board: Board, failure: Failure) -> None:
    board.failed.append(failure)
    run = failure.run
    row = {
        "group_id": run.group,
        "algo": run.algo,
        "dataset": run.dataset,
        "preset": run.preset,
        "seeds": f"{run.seeds[0]}:{run.seeds[-1] + 1}",
        "settings": " ".join(f"{name}={value}" for name, value in run.settings.items()),
        "exit_code": failure.code,
        "attempts": failure.attempts,
        "log": failure.log.relative_to(run.out / run.experiment).as_posix() if failure.log else "",
        "last_lines": failure.last_lines,
        "schema_version": rundir.SCHEMA_VERSION,
    }
    rundir.upsert_rows(failures_file(run), [row], COLUMNS, key="group_id")


def failures_file(run: Run) -> Path:
    """Where runs that were given up are listed."""
    return run.out / run.experiment / "failures.csv"


def tail(log: Path, offset: int) -> str:
    """The last lines of a log after `offset` bytes, as one printable line."""
    with files.guarded(log.parent), open(log, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(offset, size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    lines = ["".join(c if c.isprintable() else " " for c in line).strip() for line in text.splitlines()]
    return " | ".join([line for line in lines if line][-TAIL_LINES:])
