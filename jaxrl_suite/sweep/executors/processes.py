"""Workers are processes: how one is started, watched and stopped, on this machine or by a cluster's worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jaxrl_suite.sweep.executors.interface import Executor
from jaxrl_suite.sweep.tasks import Task, words
from jaxrl_suite.train import files

LEASH = Path(__file__).with_name("leash.py")
TRAVELS = ("PYTHON", "JAX", "XLA_", "OMP_", "OPENBLAS_", "MKL_", "NPROC")  # beginnings of variables


class Order(NamedTuple):
    """All that travels to a node: plain words, and paths of a folder that the node shares."""

    words: list[str]  # after the interpreter, which is the node's own
    environment: dict[str, str]  # on top of the node's own
    folder: str
    log: str


def local(workers: int) -> Executor:
    """Processes of this machine, which share its cores evenly; they save and stop when this process dies."""
    environment = pinned(os.environ, max(1, len(os.sched_getaffinity(0)) // workers))

    def start(task: Task, log: Path) -> subprocess.Popen:
        make_folder(log)
        return launch(Order(words(task), environment, os.getcwd(), str(log)))

    return Executor(workers, start)


def order(task: Task, log: Path, threads: int) -> Order:
    """A task for another machine, with the variables of this one that decide what runs and how."""
    chosen = {name: value for name, value in os.environ.items() if name.startswith(TRAVELS)}
    make_folder(log)
    return Order(words(task), pinned(chosen, threads), os.getcwd(), str(log.resolve()))


def make_folder(log: Path) -> None:
    """Make the folder of a log.

    Raises:
        UserError: it cannot be made.
    """
    with files.guarded(log.parent):
        log.parent.mkdir(parents=True, exist_ok=True)


def launch(order: Order) -> subprocess.Popen:
    """Start what is ordered. The calling thread has to outlive it, see `leash.py`.

    Raises:
        UserError: the log cannot be written.
    """
    with files.guarded(Path(order.log).parent), open(order.log, "ab") as output:
        # A session of its own: Ctrl-C reaches the sweep alone, which asks its workers once.
        return subprocess.Popen(
            [sys.executable, "-I", "-S", LEASH, str(os.getpid()), sys.executable, *order.words],
            cwd=order.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **order.environment},
            start_new_session=True,
        )


def supervise(order: Order) -> int:
    """Run what is ordered -> its exit code. A signal that ends a job asks the worker to save and stop."""
    worker = launch(order)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, lambda *_: worker.terminate())
    return worker.wait()


class Supervisor:
    """The same where signals come as calls from another thread."""

    def __init__(self) -> None:
        self._worker: subprocess.Popen | None = None
        self._launched = threading.Event()

    def run(self, order: Order) -> int:
        """Run what is ordered -> its exit code."""
        try:
            self._worker = launch(order)
        finally:
            self._launched.set()
        return self._worker.wait()

    def signal(self, number: int) -> None:
        """Pass a signal on to the worker, once there is one."""
        self._launched.wait()
        if self._worker is not None:
            self._worker.send_signal(number)


def note(log: Path, reason: str) -> None:
    """Add a line to a log, for what a worker could not say itself."""
    with files.guarded(log.parent), open(log, "a", encoding="utf-8") as output:
        output.write(f"\n{' '.join(reason.split())}\n")


def pinned(environment: Mapping[str, str], threads: int) -> dict[str, str]:
    """An environment in which numeric libraries use this many threads; what the user has set stays."""
    count = str(threads)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")  # NPROC: XLA's thread pool
    flags = environment.get("XLA_FLAGS", "")
    if threads == 1 and "xla_cpu_multi_thread_eigen" not in flags:
        flags = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    return dict.fromkeys(names, count) | {"PYTHONUNBUFFERED": "1"} | dict(environment) | {"XLA_FLAGS": flags}
