"""Runs of studies and of claims several at a time, each in a process of its own, as a sweep works off its runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from experiments import plans
from jaxrl_suite.errors import UserError
from jaxrl_suite.sweep import schedule, tasks
from jaxrl_suite.train import interrupts

HERE = ("workers", "publish", "fresh")  # options of the command that starts processes, and not of these


class Group(Protocol):
    """What is known of members that train in one program before they do."""

    id: str
    label: str
    dataset: str
    seeds: tuple[int, ...]
    run_ids: list[str]


def prepare(workers: int, fresh: bool = False) -> None:
    """Refuse what cannot be meant; before any device is asked for, leave its memory to the processes to come.

    Raises:
        UserError: no worker, more than a machine can serve, or several with `fresh`.
    """
    if not 1 <= workers <= plans.MOST_WORKERS:
        raise UserError(f"--workers={workers} must be between 1 and {plans.MOST_WORKERS}; a machine's cores, or fewer")
    if workers > 1 and fresh:
        raise UserError(f"--fresh goes with one process; leave out --workers={workers}, or give another folder, --out")
    if workers > 1:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def of_group(group: Group, experiment: str, chosen: Any, **more: Any) -> tasks.Run:
    """The run that trains a group: the command of `experiment` with the options `chosen`, changed as `more` says."""
    given = {field.name: getattr(chosen, field.name) for field in fields(chosen) if field.name not in HERE}
    words = {name: str(value) if isinstance(value, Path) else value for name, value in {**given, **more}.items()}
    return tasks.Run(
        task=tasks.Task(f"experiments.{experiment}", words),
        algo=group.label,
        dataset=group.dataset,
        preset=chosen.preset,
        settings={},
        seeds=group.seeds,
        out=chosen.out,
        experiment=experiment,
        label=group.label,
        group=group.id,
        run_ids=tuple(group.run_ids),
    )


def work_off(runs: Iterable[tasks.Run], workers: int, console: Console) -> int:
    """Bring the runs to their end -> exit code: 0, 1 where some failed, 130 interrupted and resumable."""
    wanted = list(runs)
    board = plans.work_off(wanted, len(wanted), plans.Options(workers=workers), console)
    if board is None:
        return plans.INTERRUPTED
    if board.stopped:
        console.print(f"interrupted with {len(board.done)} of {len(wanted)} runs done; {interrupts.resumes()}")
        return plans.INTERRUPTED
    if board.failed:
        console.print(f"{len(board.failed)} of {len(wanted)} runs failed: {schedule.failures_file(wanted[0])}")
    return plans.FAILED if board.failed else 0
