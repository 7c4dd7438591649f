"""Run an experiment for a grid of algorithms, data sets and settings, several runs at a time.

    python -m experiments.sweep --algo=ravl,bc --grid critics=2,10 diversity=0,1 --seeds=0:8 --workers=2

The grid is the product of --algo, --dataset and --grid; each run trains all seeds in one program, as the experiment's
own command does. A setting is a field of the algorithm's config (its --help lists them; nested ones with a dot, as in
dynamics.members); it varies only those algorithms that have the field, and at least one must. Lists of numbers are
written 64x64. The same command again skips what has finished and resumes the rest; several sweeps may share a folder.

Exit codes: 0 done, 1 some runs failed (see failures.csv), 2 bad input, 130 interrupted and resumable.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from experiments import offline_mbrl, options
from jaxrl_suite import data
from jaxrl_suite.algorithms import registry
from jaxrl_suite.errors import UserError, exits_cleanly, unknown
from jaxrl_suite.report import comparison, formats
from jaxrl_suite.sweep import display, executors, grid, schedule, tasks
from jaxrl_suite.train import identity, interrupts, rundir
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
    known = {name: grid.fields(next(iter(entry.presets.values()))) for name, entry in entries.items()}
    points = grid.expand(known, grid.split("--dataset", chosen.dataset), grid.parse(chosen.grid))
    described = {}
    for name in {point.dataset for point in points}:
        dataset, info = data.load(name)
        described[name] = offline_mbrl.spec_of(dataset, info), info
    runs = [run_of(point, chosen, known[point.algo], *described[point.dataset]) for point in points]
    return list({run.group: run for run in runs}.values())


def run_of(point: grid.Point, chosen: Options, defaults: dict, spec: Spec, info: data.DatasetInfo) -> tasks.Run:
    """A place in the grid as the run that it stands for."""
    names = ("preset", "seeds", "out", "episodes", "checkpoint_seconds")
    shared = {"algo": point.algo, "dataset": point.dataset, **{name: str(getattr(chosen, name)) for name in names}}
    own = {name: grid.option(name, text, defaults[name]) for name, text in point.settings.items()}
    task = tasks.Task(f"experiments.{chosen.experiment}", {**shared, **own})
    # The experiment's own reading of its command line: what it would refuse is refused here, before anything starts.
    frozen, seeds, group, label, _ = offline_mbrl.describe(
        *options.offline(tasks.words(task)[2:], "python -m experiments.sweep", ""), spec, info
    )
    ids = tuple(identity.run_id(frozen, seed) for seed in seeds)
    return tasks.Run(
        task=task,
        algo=point.algo,
        dataset=info.name,
        preset=chosen.preset,
        settings=point.settings,
        seeds=seeds,
        out=chosen.out,
        experiment=chosen.experiment,
        label=label,
        group=group,
        run_ids=ids,
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
    """The comparison where every algorithm has one setting, and where the rows are."""
    rows = tasks.rows_of(runs)
    if rows and not any(run.settings for run in runs):
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
