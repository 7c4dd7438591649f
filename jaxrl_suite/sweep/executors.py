"""Where tasks run. An executor starts a task and hands back a job; here: processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from jaxrl_suite.sweep.tasks import Task, words
from jaxrl_suite.train import files


class Job(Protocol):
    """A task that has been started; `subprocess.Popen` is one."""

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""

    def terminate(self) -> None:
        """Ask it to save and stop."""

    def kill(self) -> None:
        """Stop it at once."""


class Executor(NamedTuple):
    """A number of places, and how to start a task in one with its output at the end of a log file."""

    places: int
    start: Callable[[Task, Path], Job]


def local(workers: int) -> Executor:
    """Processes of this machine, which share its cores evenly."""
    environment = pinned(os.environ, max(1, len(os.sched_getaffinity(0)) // workers))

    def start(task: Task, log: Path) -> Job:
        with files.guarded(log.parent):
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "ab") as output:
                # A session of its own: Ctrl-C reaches the sweep alone, which asks its workers once.
                return subprocess.Popen(
                    [sys.executable, *words(task)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )

    return Executor(workers, start)


def pinned(environment: Mapping[str, str], threads: int) -> dict[str, str]:
    """An environment in which numeric libraries use this many threads; what the user has set stays."""
    count = str(threads)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")  # NPROC: XLA's thread pool
    flags = environment.get("XLA_FLAGS", "")
    if threads == 1 and "xla_cpu_multi_thread_eigen" not in flags:
        flags = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    return dict.fromkeys(names, count) | {"PYTHONUNBUFFERED": "1"} | dict(environment) | {"XLA_FLAGS": flags}
