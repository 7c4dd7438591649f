"""What the loop asks of an executor, and what a place on a cluster is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from jaxrl_suite.sweep.tasks import Task

LOST = 256  # in place of an exit code, which is smaller: the node, or what watched the worker there, is gone


class Job(Protocol):
    """A task that has been started; `subprocess.Popen` is one."""

    def poll(self) -> int | None:
        """The exit code, negative for a signal; `LOST` with its place; None while it runs or waits for a place."""

    def terminate(self) -> None:
        """Ask it to save and stop."""

    def kill(self) -> None:
        """Stop it at once."""


class Executor(NamedTuple):
    """A number of places, and how to start a task in one with its output at the end of a log file."""

    places: int
    start: Callable[[Task, Path], Job]
    takes_back: bool = False  # others may stop a worker (a time limit, pre-emption): it saves and needs another place


class Place(NamedTuple):
    """What a worker gets on a cluster."""

    cpus: int = 1
    gpus: float = 0.0  # a part of one on Ray only
    memory: float = 0.0  # GB; 0 leaves it to the cluster
    partition: str = ""  # Slurm's; empty is its default
    time: int = 60  # minutes, Slurm's
