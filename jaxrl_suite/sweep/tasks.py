"""What a sweep works off: tasks, which are a module's name and plain options, and the runs that they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl_suite.errors import UserError
from jaxrl_suite.train import rundir


class Task(NamedTuple):
    """A command: never code, so that it can be sent anywhere."""

    module: str
    options: dict[str, Any]  # plain JSON: texts, numbers, truth values and lists of them


class Run(NamedTuple):
    """A task and what it will leave: a run directory with all seeds of one config, or several that share a program."""

    task: Task
    algo: str
    dataset: str
    preset: str
    settings: dict[str, str]  # field -> text of its value, or of its values with commas between
    seeds: tuple[int, ...]
    out: Path
    experiment: str
    label: str
    group: str
    run_ids: tuple[str, ...]  # a summary row each

    @property
    def name(self) -> str:
        """For people: algorithm, data set and settings."""
        return " ".join([self.algo, self.dataset, *(f"{name}={value}" for name, value in self.settings.items())])


class Estimate(NamedTuple):
    """Seconds that a sweep may take, and the algorithms that there is no finished run of to go by."""

    seconds: float
    unknown: tuple[str, ...]


def words(task: Task) -> list[str]:
    """The command line of a task after the interpreter: -m module --option=value ..."""
    return ["-m", task.module, *(word for name, value in task.options.items() for word in _words(name, value))]


def _words(name: str, value: Any) -> list[str]:
    name = name.replace("_", "-")
    if isinstance(value, bool):
        outer, dot, inner = name.rpartition(".")
        return [f"--{name}" if value else f"--{outer}{dot}no-{inner}"]
    return [f"--{name}", *map(str, value)] if isinstance(value, list) else [f"--{name}={value}"]


def state(run: Run) -> str:
    """ "new", "resumable", "finished" or "busy", from the run directory and the summary, without a process.

    Raises:
        UserError: the folder or its summary cannot be read, or the run has finished without leaving its rows.
    """
    path, found = rundir.look(run.out, run.experiment, run.label, run.group)
    if found != "finished":
        return found
    missing = set(run.run_ids) - {row["run_id"] for row in rows_of([run])}
    if missing:
        summary = path.parent / "summary.csv"
        raise UserError(f"{path} has finished, but {summary} lacks {len(missing)} of its rows; move the folder away")
    return found


def rows_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The summary rows that these runs have left, all of one experiment and folder."""
    summary = runs[0].out / runs[0].experiment / "summary.csv"
    known = rundir.read_rows(summary) if summary.exists() else []
    mine = {run_id for run in runs for run_id in run.run_ids}
    return [row for row in known if row["run_id"] in mine]


def ending(run: Run) -> str:
    """How it ended: "finished", "diverged" (all seeds), or nothing."""
    return rundir.ending(rundir.look(run.out, run.experiment, run.label, run.group)[0])


def estimate(rows: Iterable[Mapping[str, Any]], left: Sequence[Run], workers: int) -> Estimate:
    """From the mean wall time of the finished groups with the same algorithm and preset."""
    times: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        seconds = row.get("wall_seconds")
        if row.get("status") == "finished" and isinstance(seconds, int | float) and seconds >= 0:
            times.setdefault((row["algo"], row["preset"]), {})[row["group_id"]] = float(seconds)
    means = {key: sum(groups.values()) / len(groups) for key, groups in times.items()}
    total = sum(means.get((run.algo, run.preset), 0.0) for run in left)
    lacking = dict.fromkeys(run.algo for run in left if (run.algo, run.preset) not in means)
    return Estimate(total / workers, tuple(lacking))
