"""Run an experiment for a grid of algorithms, data sets and settings, several runs at a time.

    python -m experiments.sweep --algo=ravl,bc --grid critics=2,10 diversity=0,1 --seeds=0:8 --workers=2

The grid is the product of --algo, --dataset and --grid. A run trains all seeds in one program, and beside them the
settings that need no program of their own: traced numbers, such as tau or diversity. A setting is a field of the
algorithm's config (its --help lists them; nested ones with a dot, as in dynamics.members); it varies only those
algorithms that have the field, and at least one must. Lists of numbers are written 64x64. The same command again skips
what has finished and resumes the rest; several sweeps may share a folder.

Exit codes: 0 done, 1 some runs failed (see failures.csv), 2 bad input, 130 interrupted and resumable.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments import offline_mbrl, options
from jaxrl_suite import data
from jaxrl_suite.algorithms import registry
from jaxrl_suite.errors import UserError, exits_cleanly, unknown
from jaxrl_suite.report import comparison, formats
from jaxrl_suite.sweep import display, executors, grid, schedule, tasks
from jaxrl_suite.train import interrupts, rundir, settings
from jaxrl_suite.types import Spec

EXPERIMENTS = {"offline_mbrl": offline_mbrl}
FAILED, INTERRUPTED = 1, 130
MINUTE = 60.0


@dataclass(frozen=True)
class Options:
    """Options of a sweep."""

    experiment: str = "offline_mbrl"
    """Experiment to run."""
    algo: str = "ravl"
    """Algorithms, with commas between."""
    dataset: str = "hopper-medium-replay-mini"
    """Data sets, names or paths, with commas between."""
    grid: tuple[str, ...] = ()
    """Settings to vary: name=value,value ... A setting varies only the algorithms that have it."""
    seeds: str = "1"
    """How many seeds, or a range (0:8); all seeds of a run train in one program."""
    preset: str = "quick"
    """Settings to start from: smoke, quick or paper."""
    episodes: int = 10
    """Episodes per evaluation and seed."""
    checkpoint_seconds: float = 60.0
    """Seconds between two checkpoints."""
    log: str = ""
    """Also log every run to: tensorboard, wandb (offline), or both with a comma between."""
    population: int = 64
    """Members of one program at most: seeds times settings that share it."""
    out: Path = Path("runs")
    """Folder for runs."""
    workers: int = 1
    """Processes at a time; they share the cores evenly."""
    dry_run: bool = False
    """Print the plan and how long it may take, and run nothing."""


def plan(chosen: Options) -> list[tasks.Run]:
    """The runs of a sweep, each once, in the order of the grid. Nothing is skipped here, so that groups stay fixed.

    Raises:
        UserError: an option or a setting that its experiment would refuse.
    """
    if chosen.experiment not in EXPERIMENTS:
        raise unknown("experiment", chosen.experiment, EXPERIMENTS)
    entries = {name: registry.get(name) for name in grid.split("--algo", chosen.algo)}
    known = {name: settings.fields(next(iter(entry.presets.values()))) for name, entry in entries.items()}
    points = grid.expand(known, grid.split("--dataset", chosen.dataset), grid.parse(chosen.grid))
    described = {}
    for name in {point.dataset for point in points}:
        dataset, info = data.load(name)
        described[name] = offline_mbrl.spec_of(dataset, info), info
    groups: dict[tuple, dict[Any, grid.Point]] = {}
    for point in points:
        spec, _ = described[point.dataset]
        _, entry, config = read(task_of([point], (), chosen, known[point.algo]))
        names = settings.traced(entry.make(spec, config), config)
        # By config: 1e-3 and 0.001 are one place in the grid.
        group = groups.setdefault((point.algo, point.dataset, names, settings.program(config, names)), {})
        group.setdefault(config, point)
    most = max(1, chosen.population // len(options.parse_seeds(chosen.seeds)))
    return [
        run_of(part, task_of(part, names, chosen, known[algo]), chosen, *described[dataset])
        for (algo, dataset, names, _), group in groups.items()
        for part in grid.parts(list(group.values()), most)
    ]


def task_of(points: Sequence[grid.Point], traced: Sequence[str], chosen: Options, defaults: dict) -> tasks.Task:
    """The command for points of the grid that share a program; what they differ in is varied within it."""
    names = ("algo", "dataset", *("preset", "seeds", "out", "episodes", "checkpoint_seconds", "log"))
    first = points[0]
    given: dict[str, Any] = {name: str(getattr(first if name in names[:2] else chosen, name)) for name in names}
    varied = [{name: point.settings[name] for name in traced if name in point.settings} for point in points]
    if len(points) > 1:
        given["vary"] = [",".join(f"{name}={text}" for name, text in changes.items()) for changes in varied]
    fixed = {name: text for name, text in first.settings.items() if len(points) == 1 or name not in varied[0]}
    own = {name: grid.option(name, text, defaults[name]) for name, text in fixed.items()}
    return tasks.Task(f"experiments.{chosen.experiment}", {**given, **own})


def read(task: tasks.Task) -> tuple[options.Shared, registry.Entry, Any]:
    """A task as its experiment will read it: what it would refuse is refused here, before anything starts."""
    return options.offline(tasks.words(task)[2:], "python -m experiments.sweep", "")


def run_of(
    points: Sequence[grid.Point], task: tasks.Task, chosen: Options, spec: Spec, info: data.DatasetInfo
) -> tasks.Run:
    """Points of the grid that share a program as the run that they stand for."""
    described = offline_mbrl.describe(*read(task), spec, info)
    return tasks.Run(
        task=task,
        algo=points[0].algo,
        dataset=info.name,
        preset=chosen.preset,
        settings=grid.merged(points),
        seeds=described.seeds,
        out=chosen.out,
        experiment=chosen.experiment,
        label=described.label,
        group=described.group,
        run_ids=tuple(described.run_ids),
    )


def show_plan(runs: Sequence[tasks.Run], chosen: Options, console: Console) -> None:
    """The plan, the number of runs, and how long the rest may take."""
    states = [tasks.state(run) for run in runs]
    console.print(display.plan(runs, states))
    left = [run for run, found in zip(runs, states, strict=True) if found != "finished"]
    summary = chosen.out / chosen.experiment / "summary.csv"
    guess = tasks.estimate(rundir.read_rows(summary) if summary.exists() else [], left, chosen.workers)
    console.print(f"{len(runs)} runs, {len(left)} to do, {chosen.workers} at a time; {in_words(guess)}")


def in_words(guess: tasks.Estimate) -> str:
    """An estimate for people."""
    if guess.unknown and not guess.seconds:
        return f"no finished run of {', '.join(guess.unknown)} with this preset to estimate the time from"
    more = f", and {', '.join(guess.unknown)}, of which no run has finished yet" if guess.unknown else ""
    return f"about {guess.seconds / MINUTE:.1f} minutes{more}"


def closing(runs: Sequence[tasks.Run], console: Console) -> None:
    """The comparison, a line per algorithm and settings, and where the rows are."""
    rows = tasks.rows_of(runs)
    if rows:
        show = formats.FORMATS["markdown"][1]
        with contextlib.suppress(UserError):  # rows that cannot share a table are still where the next line says
            console.print(show(comparison.compare(rows, "return_last"), "algo"), markup=False)
    console.print(f"rows: {runs[0].out / runs[0].experiment / 'summary.csv'}")


def sweep(runs: Sequence[tasks.Run], workers: int, console: Console) -> int:
    """Work off the runs -> exit code."""
    try:
        with interrupts.Interrupts() as stop, display.Display(console, len(runs)).live() as shown:
            board = schedule.work_off(runs, executors.local(workers), lambda: stop.requested, shown.update)
    except KeyboardInterrupt:
        console.print("stopped at once; the same command resumes from the last checkpoints")
        return INTERRUPTED
    if board.stopped:
        console.print(f"interrupted with {len(board.done)} of {len(runs)} runs done; the same command resumes")
        return INTERRUPTED
    closing(runs, console)
    if board.failed:
        console.print(f"{len(board.failed)} of {len(runs)} runs failed: {schedule.failures_file(runs[0])}")
    return FAILED if board.failed else 0


@exits_cleanly
def main() -> int:
    """Show the plan, or carry it out."""
    chosen = options.parse(Options, options.arguments(), Options(), "python -m experiments.sweep", __doc__ or "")
    options.require_positive(chosen)
    if chosen.workers > 256:
        raise UserError(f"--workers={chosen.workers} is more than this machine can serve; give at most 256")
    # Planning asks which devices there are; their memory is for the workers, which share it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    runs = plan(chosen)
    console = Console(highlight=False, soft_wrap=True)
    if chosen.dry_run:
        show_plan(runs, chosen, console)
        return 0
    return sweep(runs, chosen.workers, console)


if __name__ == "__main__":
    main()
