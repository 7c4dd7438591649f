"""Run an experiment for a grid of algorithms, data sets and settings, or search for good ones, several runs at a time.

    python -m experiments.sweep --algo=ravl,bc --grid critics=2,10 diversity=0,1 --seeds=0:8 --workers=2
    python -m experiments.sweep --search=optuna --trials=20 --space critic_lr=1e-4:1e-2:log critics=2:20 head=mse

The grid is the product of --algo, --dataset and --grid. A run trains all seeds in one program, and beside them the
settings that need no program of their own: traced numbers, such as tau or diversity. A setting is a field of the
algorithm's config (its --help lists them; nested ones with a dot, as in dynamics.members); it varies only those
algorithms that have the field, and at least one must. Lists of numbers are written 64x64. The same command again skips
what has finished and resumes the rest; several sweeps may share a folder.

A search varies one run: Optuna draws what --space names, a range low:high or low:high:log or a list of values, and
learns from the trials that have ended. It trains on tuning seeds, from 1000 on, and counts the evaluations in the true
environment that it spends. The same command again resumes it and tries again what has failed; a larger --trials goes on
beyond its end. There is a row per trial in search-<name>.csv.

Runs go to processes of this machine, to a Ray cluster (--executor=ray) or to Slurm (--executor=slurm). The nodes of a
cluster share --out and the working folder under the same paths, and have the devices of the machine with the sweep.

Exit codes: 0 done, 1 some runs failed (see failures.csv), 2 bad input, 130 interrupted and resumable.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from experiments import offline_mbrl, options
from jaxrl_suite import data
from jaxrl_suite.algorithms import registry
from jaxrl_suite.errors import UserError, exits_cleanly, unknown
from jaxrl_suite.report import comparison, formats
from jaxrl_suite.sweep import display, executors, grid, schedule, space, studies, tasks
from jaxrl_suite.sweep.search import Driver
from jaxrl_suite.train import interrupts, rundir, settings
from jaxrl_suite.types import Spec

EXPERIMENTS = {"offline_mbrl": offline_mbrl}
FAILED, INTERRUPTED = 1, 130
MINUTE = 60.0
Facts = dict[str, tuple[Spec, data.DatasetInfo]]  # of every data set


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
    seeds: str | None = None
    """How many seeds, or a range (0:8); all seeds of a run train in one program. 1, or 1000:1004 with --search."""
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
    """Runs at a time; on this machine they share the cores evenly."""
    executor: str = "local"
    """Where runs go: local (processes of this machine), ray or slurm; the last two need the extra sweep."""
    address: str = ""
    """Ray: host:port of the cluster, or auto for that of this node. Empty starts Ray on this machine."""
    cpus: int = 1
    """Ray and Slurm: cores of each run."""
    gpus: float = 0.0
    """Ray and Slurm: GPUs of each run; on Ray also a part of one."""
    memory: float = 0.0
    """Ray and Slurm: memory of each run in GB; 0 leaves it to the cluster."""
    partition: str = ""
    """Slurm: partition; empty is the cluster's default."""
    time: int = 60
    """Slurm: minutes of a job. A run that needs more saves, and goes on in another job."""
    dry_run: bool = False
    """Print the plan and how long it may take, and run nothing."""
    search: str = ""
    """Search instead of a grid, with optuna (pip install -e ".[sweep]"); --grid then holds what is fixed."""
    space: tuple[str, ...] = ()
    """Settings to search: name=low:high name=low:high:log name=value,value ..."""
    trials: int = 20
    """Trials of a search, those of earlier commands included; each is a run with all seeds."""
    objective: str = "return_last"
    """What a search maximises, as a mean over seeds: return_last, return_best, score_last or score_best."""
    sampler: str = "tpe"
    """How trials are drawn: tpe (learns from the trials before) or random."""
    sampler_seed: int = 1
    """Seed of the sampler."""
    pruner: str = "none"
    """Stop trials whose evaluations fall behind: none, median or hyperband."""


def facts_of(datasets: str) -> Facts:
    """What a plan needs to know of the data sets.

    Raises:
        UserError: one of them is unknown, or cannot be read.
    """
    facts = {}
    for name in grid.split("--dataset", datasets):
        dataset, info = data.load(name)
        facts[name] = offline_mbrl.spec_of(dataset, info), info
    return facts


def plan(chosen: Options, facts: Facts | None = None) -> list[tasks.Run]:
    """The runs of a sweep, each once, in the order of the grid. Nothing is skipped here, so that groups stay fixed.

    Args:
        chosen: what to run.
        facts: of the data sets, where they are known already.

    Raises:
        UserError: an option or a setting that its experiment would refuse.
    """
    if chosen.experiment not in EXPERIMENTS:
        raise unknown("experiment", chosen.experiment, EXPERIMENTS)
    entries = {name: registry.get(name) for name in grid.split("--algo", chosen.algo)}
    known = {name: settings.fields(next(iter(entry.presets.values()))) for name, entry in entries.items()}
    points = grid.expand(known, grid.split("--dataset", chosen.dataset), grid.parse(chosen.grid))
    described = facts or facts_of(chosen.dataset)
    groups: dict[tuple, dict[Any, grid.Point]] = {}
    for point in points:
        spec, _ = described[point.dataset]
        _, entry, config = read(task_of([point], (), chosen, known[point.algo]))
        names = settings.traced(entry.make(spec, config), config)
        # By config: 1e-3 and 0.001 are one place in the grid.
        group = groups.setdefault((point.algo, point.dataset, names, settings.program(config, names)), {})
        group.setdefault(config, point)
    most = max(1, chosen.population // len(options.parse_seeds(chosen.seeds or "")))
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


def show_plan(runs: Sequence[tasks.Run], chosen: Options, console: Console) -> int:
    """The plan, the number of runs, and how long the rest may take -> exit code."""
    states = [tasks.state(run) for run in runs]
    console.print(display.plan(runs, states))
    left = [run for run, found in zip(runs, states, strict=True) if found != "finished"]
    summary = chosen.out / chosen.experiment / "summary.csv"
    guess = tasks.estimate(rundir.read_rows(summary) if summary.exists() else [], left, chosen.workers)
    console.print(f"{len(runs)} runs, {len(left)} to do, {chosen.workers} at a time; {in_words(guess)}")
    return 0


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


def place(chosen: Options) -> executors.Place:
    """What each run gets on a cluster."""
    return executors.Place(chosen.cpus, chosen.gpus, chosen.memory, chosen.partition, chosen.time)


def sweep(runs: Sequence[tasks.Run], chosen: Options, console: Console) -> int:
    """Work off the runs -> exit code."""
    board = work_off(runs, len(runs), chosen, console)
    if board is None:
        return INTERRUPTED
    if board.stopped:
        console.print(f"interrupted with {len(board.done)} of {len(runs)} runs done; the same command resumes")
        return INTERRUPTED
    closing(runs, console)
    if board.failed:
        console.print(f"{len(board.failed)} of {len(runs)} runs failed: {schedule.failures_file(runs[0])}")
    return FAILED if board.failed else 0


def work_off(
    runs: Sequence[tasks.Run],
    total: int,
    chosen: Options,
    console: Console,
    look: Callable[[schedule.Board], None] = lambda board: None,
) -> schedule.Board | None:
    """Work off the runs, and those that `look` adds, up to `total` -> the last board; None where stopped at once."""
    opened = executors.opened(chosen.executor, chosen.workers, chosen.address, place(chosen))
    try:
        # Interrupts inside: Ray sets a handler of its own when it starts.
        with opened as executor, interrupts.Interrupts() as stop, display.Display(console, total).live() as shown:

            def notify(board: schedule.Board) -> None:
                look(board)
                shown.update(board)

            return schedule.work_off(runs, executor, lambda: stop.requested, notify)
    except KeyboardInterrupt:
        console.print("stopped at once; the same command resumes from the last checkpoints")
        return None


# --- Search ---
class Search(NamedTuple):
    """What a search varies, how, and the run that it makes of some texts of the varied settings."""

    base: tasks.Run
    design: studies.Design
    make: Callable[[Mapping[str, str]], tasks.Run]


def plan_search(chosen: Options) -> Search:
    """A search from its options; every edge of its space is read as the experiment will read it.

    Raises:
        UserError: an option or an edge that the search or its experiment would refuse.
    """
    if chosen.search not in studies.ENGINES:
        raise unknown("search", chosen.search, studies.ENGINES)
    facts = facts_of(chosen.dataset)
    base, *others = plan(chosen, facts)
    if others or any(len(setting.values) > 1 for setting in grid.parse(chosen.grid)):
        raise UserError(
            "a search varies one run; give one algorithm, one data set and one value for each setting in --grid, "
            "and name what is to vary in --space"
        )
    fields = settings.fields(next(iter(registry.get(base.algo).presets.values())))
    where = space.parse(chosen.space, fields)
    for name in where.keys() & base.settings.keys():
        raise UserError(f"--grid fixes {name}, and --space varies it; name it in one of them")
    design = studies.Design(where, chosen.objective, chosen.sampler, chosen.sampler_seed, chosen.pruner)
    studies.check(design, base.seeds)

    def make(texts: Mapping[str, str]) -> tasks.Run:
        return plan(replace(chosen, grid=(*chosen.grid, *map("=".join, texts.items()))), facts)[0]

    point = grid.Point(base.task.options["algo"], base.task.options["dataset"], {})
    for edge in space.edges(where):  # each alone: what goes together shows when it is drawn
        read(task_of([point._replace(settings=edge)], (), chosen, fields))
    return Search(base, design, make)


def show_search(planned: Search, chosen: Options, console: Console) -> int:
    """What would be searched, how much of it is done, and how long the rest may take -> exit code."""
    base, design, _ = planned
    for name, values in space.describe(design.space).items():
        console.print(f"{name}: {values}", markup=False)
    file = studies.find_results(base, design)
    ended = [row for row in rundir.read_rows(file) if row["state"] != "running"] if file.exists() else []
    left = max(0, chosen.trials - len(ended))
    summary = chosen.out / chosen.experiment / "summary.csv"
    guess = tasks.estimate(rundir.read_rows(summary) if summary.exists() else [], [base] * left, chosen.workers)
    console.print(f"{chosen.trials} trials of {base.name} on seeds {base.seeds[0]} to {base.seeds[-1]}", markup=False)
    console.print(f"{left} to do, {chosen.workers} at a time; {in_words(guess)}")
    return 0


def search(planned: Search, chosen: Options, console: Console) -> int:
    """Bring a search to its end -> exit code."""
    base, design, make = planned
    studies.library()  # before anything is written
    with studies.open_folder(base, design) as folder:
        say = lambda line: console.print(line, markup=False)  # noqa: E731
        driver = Driver(folder.path, design, make, chosen.trials, chosen.workers, say)
        before = chosen.trials - driver.left
        if before > 0:
            say(f"{before} of {chosen.trials} trials were done before")
        first = driver.begin()
        board = work_off(first, driver.left, chosen, console, driver.look)
        if board is None:
            return INTERRUPTED
        driver.look(board)  # some trials have ended while the others were asked to save
        driver.write()
        rows = driver.results()
    if board.stopped:
        ended = sum(row["state"] != "running" for row in rows)
        console.print(f"interrupted with {ended} of {chosen.trials} trials done; the same command resumes")
        return INTERRUPTED
    return closing_search(rows, driver, base, console)


def closing_search(rows: Sequence[Mapping[str, Any]], driver: Driver, base: tasks.Run, console: Console) -> int:
    """The best trials, what all of them have cost, and the command of the best -> exit code."""
    states = Counter(row["state"] for row in rows)
    ranked = sorted((row for row in rows if row["state"] == "complete"), key=lambda row: -row["value"])
    if ranked:
        console.print(display.trials(ranked, driver.design.space))
    console.print(f"{len(rows)} trials: {', '.join(f'{count} {state}' for state, count in states.items())}")
    episodes, steps = (sum(row[name] for row in rows) for name in ("episodes", "env_steps"))
    console.print(f"online evaluations: {episodes:,} episodes, {steps:,} environment steps")
    if ranked:
        best = driver.runs[ranked[0]["trial"]].task
        words = tasks.words(best._replace(options={**best.options, "seeds": "8"}))
        console.print(f"best of {len(ranked)} on the seeds it was chosen by, and so optimistic; on other seeds:")
        console.print(f"  python {shlex.join(words)}", markup=False)
    console.print(f"rows: {driver.file}", markup=False)
    failed = states["failed"] + states["refused"]
    if failed:
        console.print(f"{failed} of {len(rows)} trials failed; see the column why, and {schedule.failures_file(base)}")
    if not ranked:
        console.print("no trial has a value")
    return FAILED if failed or not ranked else 0


@exits_cleanly
def main() -> int:
    """Show the plan, or carry it out."""
    chosen = options.parse(Options, options.arguments(), Options(), "python -m experiments.sweep", __doc__ or "")
    options.require_positive(chosen)
    if chosen.space and not chosen.search:
        raise UserError("--space is what a search varies; add --search=optuna, or give values in --grid")
    chosen = replace(chosen, seeds=chosen.seeds or ("1000:1004" if chosen.search else "1"))
    if chosen.executor == "local" and chosen.workers > 256:
        raise UserError(f"--workers={chosen.workers} is more than this machine can serve; give at most 256")
    executors.check(chosen.executor, chosen.address, place(chosen))
    # Planning asks which devices there are; their memory is for the workers, which share it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    console = Console(highlight=False, soft_wrap=True)
    if chosen.search:
        planned = plan_search(chosen)
        return show_search(planned, chosen, console) if chosen.dry_run else search(planned, chosen, console)
    runs = plan(chosen)
    return show_plan(runs, chosen, console) if chosen.dry_run else sweep(runs, chosen, console)


if __name__ == "__main__":
    main()
