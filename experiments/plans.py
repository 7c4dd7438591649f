"""What a sweep or a search is made of: its options, the runs that they stand for, and where these are worked off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments import offline_mbrl, options
from jaxrl_suite import data
from jaxrl_suite.algorithms import dyna, registry
from jaxrl_suite.errors import unknown
from jaxrl_suite.sweep import display, executors, grid, schedule, tasks
from jaxrl_suite.train import interrupts, rundir, settings
from jaxrl_suite.types import Spec

EXPERIMENTS = {"offline_mbrl": offline_mbrl}
FAILED, INTERRUPTED = 1, 130
MOST_WORKERS = 256  # processes of this machine
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
    seeds: str = ""
    """How many seeds, or a range (0:8); all seeds of a run train in one program. 1, or 1000:1004 with --search."""
    preset: str = "quick"
    """Settings to start from: smoke, quick or paper."""
    episodes: int = 10
    """Episodes per evaluation and seed."""
    checkpoint_seconds: float = 60.0
    """Seconds between two checkpoints."""
    diagnose: bool = False
    """Also ask model-based agents at every evaluation what --diagnose of the experiment asks; others are not asked."""
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
    publish: bool = False
    """Add the rows of the runs that finished to results/, with their curves; renew its claims, page and README."""
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
    most = max(1, chosen.population // len(options.parse_seeds(chosen.seeds)))
    return [
        run_of(task_of(part, names, chosen, known[algo]), grid.merged(part), *described[dataset])
        for (algo, dataset, names, _), group in groups.items()
        for part in grid.parts(list(group.values()), most)
    ]


def task_of(points: Sequence[grid.Point], traced: Sequence[str], chosen: Options, defaults: dict) -> tasks.Task:
    """The command for points of the grid that share a program; what they differ in is varied within it."""
    names = ("algo", "dataset", *("preset", "seeds", "out", "episodes", "checkpoint_seconds", "log"))
    first = points[0]
    asked = chosen.diagnose and isinstance(next(iter(registry.get(first.algo).presets.values())), dyna.Config)
    given: dict[str, Any] = {name: str(getattr(first if name in names[:2] else chosen, name)) for name in names}
    varied = [{name: point.settings[name] for name in traced if name in point.settings} for point in points]
    if len(points) > 1:
        given["vary"] = [",".join(f"{name}={text}" for name, text in changes.items()) for changes in varied]
    fixed = {name: text for name, text in first.settings.items() if len(points) == 1 or name not in varied[0]}
    own = {name: grid.option(name, text, defaults[name]) for name, text in fixed.items()}
    more = {"diagnose": True} if asked else {}
    return tasks.Task(f"experiments.{chosen.experiment}", {**given, **own, **more})


def read(task: tasks.Task) -> tuple[options.Shared, registry.Entry, Any]:
    """A task as its experiment will read it: what it would refuse is refused here, before anything starts."""
    return options.offline(tasks.words(task)[2:], "python -m experiments.sweep", "")


def run_of(task: tasks.Task, varied: dict[str, str], spec: Spec, info: data.DatasetInfo) -> tasks.Run:
    """The run that a task makes; `varied` are its settings for people."""
    shared, entry, config = read(task)
    described = offline_mbrl.describe(shared, entry, config, spec, info)
    return tasks.Run(
        task=task,
        algo=shared.algo,
        dataset=info.name,
        preset=shared.preset,
        settings=varied,
        seeds=described.seeds,
        out=shared.out,
        experiment=offline_mbrl.EXPERIMENT,
        label=described.label,
        group=described.group,
        run_ids=tuple(described.run_ids),
    )


def estimate(left: Sequence[tasks.Run], chosen: Options) -> str:
    """How long these runs may take, in words, from the runs that the folder knows."""
    summary = chosen.out / chosen.experiment / "summary.csv"
    return in_words(tasks.estimate(rundir.read_rows(summary) if summary.exists() else [], left, chosen.workers))


def in_words(guess: tasks.Estimate) -> str:
    """An estimate for people."""
    if guess.unknown and not guess.seconds:
        return f"no finished run of {', '.join(guess.unknown)} with this preset to estimate the time from"
    more = f", and {', '.join(guess.unknown)}, of which no run has finished yet" if guess.unknown else ""
    return f"about {guess.seconds / MINUTE:.1f} minutes{more}"


def place(chosen: Options) -> executors.Place:
    """What each run gets on a cluster."""
    return executors.Place(chosen.cpus, chosen.gpus, chosen.memory, chosen.partition, chosen.time)


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
        console.print(f"stopped at once; {interrupts.resumes()} from the last checkpoints")
        return None
