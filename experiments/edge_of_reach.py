"""Train with the true dynamics as the world model, where the edge of reach is known, and show what fails there.

The base method is MBPO's rollouts with SAC. `patched` puts the true value in place of its targets at edge-of-reach
states, `random-patched` in place of as many others. `minimum` trusts the least of N critics, and `ravl` makes these
diverse. Without options the studies of one place of the reward are made: methods, horizons (rollouts from one step to
the whole episode), ensemble (the least of ten critics), diversity (of two), critics (N against eta), rewards (the
reward's distance against the rollouts' length). Where asked for there are rim and inner (a reward near the rim of
reach, and near the starts) and networks (their sizes, the scale of what they see, layer normalisation), and norm (layer
normalisation at those places). Members of several studies share a program. The same command resumes what was stopped,
and prints what has finished.

Elsewhere (pendulum; hopper, halfcheetah, walker2d with the extra `mujoco`) offline algorithms learn from the bundled
data in a learned world and in the true one: methods, patches (of targets at the ends of rollouts, in the true one, by
Monte-Carlo values), penalties (more methods of dynamics uncertainty in the true one), horizons (rollouts of other
lengths; on pendulum up to whole episodes), accuracy (worlds between a random model, the learned one and the true one),
critics (N against eta in the true one), and, where asked for, norm (layer normalisation in the critics). Those runs are
`experiments.offline_mbrl`'s own. At the published sizes, on an accelerator: --preset=paper
--dataset=hopper-medium-replay-v2 --engine=mjx.

Rows per seed go to <out>/edge_of_reach/summary.csv, the box's critics by reach to shells.csv and paths of its final
policies to paths.csv beside it; returns and Q-values over training to each run's eval.csv.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from experiments import (
    at_once,
    box_agent,
    box_claims,
    box_runs,
    box_studies,
    edge_claims,
    edge_runs,
    edge_tasks,
    offline_mbrl,
    options,
    publishing,
    studies,
)
from experiments.box_studies import EXPERIMENT, STUDIES, WORLD, Arm, Study
from jaxrl_suite import data, envs
from jaxrl_suite.envs import engines
from jaxrl_suite.errors import UserError, exits_cleanly, unknown
from jaxrl_suite.report import stats
from jaxrl_suite.train import rundir, settings
from jaxrl_suite.train.display import Display, make_console

WORLDS = (WORLD, *edge_tasks.TASKS)
EPISODES = 20  # of an evaluation in the box
TASK_OPTIONS = ("updates", "episodes", "dataset", "engine")  # that change what a task's runs are


@dataclass(frozen=True)
class Options:
    """Options of the experiment."""

    world: str = WORLD
    """World: box, pendulum, hopper, halfcheetah or walker2d."""
    preset: str = "quick"
    """Settings to start from: smoke (seconds), quick (minutes on two cores), paper (large networks, an accelerator)."""
    only: str = ""
    """Make only these studies, with commas between; by default in the box methods, horizons, ensemble, diversity,
    critics, rewards (there are beside: rim and inner, of other places of the reward, networks, and norm), elsewhere
    methods, patches, penalties, horizons, accuracy, critics (and norm beside)."""
    methods: str = ""
    """In the box, train these instead, with commas between: base, patched, random-patched, minimum, ravl; with the
    settings below."""
    horizon: str = ""
    """Steps k of a rollout, with commas between."""
    distance: str = ""
    """How far from the middle the large bump of reward is, with commas between."""
    width: str = ""
    """Its standard deviation, with commas between."""
    critics: str = ""
    """Numbers of critics N, with commas between."""
    diversity: str = ""
    """Weights eta of their diversity, with commas between."""
    scale: str = ""
    """What states are multiplied by before networks see them, with commas between."""
    seeds: str = ""
    """How many seeds, from 0 on (8), or a range (8:16); by default what each study has."""
    dataset: str = ""
    """Outside the box, data of the task to learn from, a name or a path; by default the bundled medium-replay ones."""
    engine: engines.Backend = "c"
    """What steps a MuJoCo task's true dynamics: c, fast on CPUs, or mjx, inside the program, for accelerators."""
    updates: int = 0
    """Gradient updates of each setting; 0 for the preset's."""
    part: int = 0
    """In the box, make only this program of those that the same options make, counted from 1; 0 for all. It is how
    --workers tells its processes what to do."""
    workers: int = 1
    """Programs or runs at a time, each in a process of its own; these share the cores evenly."""
    episodes: int = 0
    """Episodes per evaluation and seed; 0 for 20 in the box, and elsewhere for what experiments.offline_mbrl has."""
    out: Path = Path("runs")
    """Folder for runs."""
    fresh: bool = False
    """Start over beside earlier runs of the same configuration, instead of resuming or returning them."""
    checkpoint_seconds: float = 60.0
    """Seconds between two checkpoints."""
    publish: bool = False
    """Add the rows to results/, and renew its claims, curves and page. For runs of whole studies."""


# --- What to run ---
def chosen_studies(chosen: Options) -> list[Study]:
    """The box's studies that the options name.

    Raises:
        UserError: an unknown world, study or method, or numbers that make no sense.
    """
    own = box_studies.custom(
        chosen.methods,
        horizon=chosen.horizon,
        distance=chosen.distance,
        width=chosen.width,
        critics=chosen.critics,
        diversity=chosen.diversity,
        scale=chosen.scale,
    )
    if own and (chosen.only or chosen.publish):
        raise UserError("--only and --publish are for whole studies; leave them out, or the settings of your own")
    names = [name.strip() for name in chosen.only.split(",")] if chosen.only else box_studies.USUAL
    for name in names:
        if name not in STUDIES:
            raise unknown("study", name, STUDIES)
    if chosen.updates < 0 or chosen.episodes < 0:
        raise UserError(f"--updates={chosen.updates} --episodes={chosen.episodes}: give positive whole numbers")
    if chosen.publish and chosen.episodes not in (0, EPISODES):  # rows do not say how many they had
        raise UserError(f"--publish is for {EPISODES} episodes in the box; leave out --episodes={chosen.episodes}")
    wanted = [own] if own else [STUDIES[name] for name in names]
    for arm in (arm for study in wanted for arm in study.arms):
        config = arm.config(chosen.preset, chosen.updates)
        settings.require_positive(config)
        box_agent.check(config)
    return wanted


def seeds_of(study: Study, chosen: Options) -> tuple[int, ...]:
    """The seeds of a study."""
    smoke = 1 if chosen.preset == "smoke" else study.seeds
    return options.parse_seeds(chosen.seeds or str(smoke))


# --- Running ---
def table(study: Study, rows: Sequence[dict[str, Any]]) -> Table:
    """A study for the terminal: means over seeds with 95% t-intervals."""
    shown = Table("method", "settings", "seeds", "return", "of attainable", "Q at start", "true", "at the edge")
    shown.title = f"{study.name}: {study.words}"
    frame = pd.DataFrame(rows)
    for (method, text), mine in frame.groupby(["algo", "settings"], sort=False):
        interval = stats.mean_interval(mine["return_last"].to_numpy(float))
        bounds = f" [{interval.low:.1f}, {interval.high:.1f}]" if interval.bounded else ""
        cells = [f"{interval.estimate:.1f}{bounds}", f"{mine['score_last'].mean():.0f}%"]
        cells += [f"{mine['q_last'].mean():.1f}", f"{mine['mc_last'].mean():.1f}", f"{mine['edge_share'].mean():.2%}"]
        shown.add_row(str(method), str(text), str(len(mine)), *cells)
    return shown


def groups_of(wanted: Sequence[Study], chosen: Options) -> list[box_runs.Group]:
    """The programs that train these studies, the longest first; members of several studies share one.

    A setting that several studies have is trained once, with the most seeds that one of them wants.

    Raises:
        UserError: there is no such --part.
    """
    kept: dict[box_agent.Config, tuple[Arm, tuple[int, ...]]] = {}
    for arm, own in ((arm, seeds_of(study, chosen)) for study in wanted for arm in study.arms):
        config = arm.config(chosen.preset, chosen.updates)
        first, seeds = kept.get(config, (arm, ()))
        kept[config] = (first, max(seeds, own, key=len))
    arms: dict[tuple[int, ...], list[Arm]] = {}
    for arm, seeds in kept.values():
        arms.setdefault(seeds, []).append(arm)
    found = [
        box_runs.Group(part, seeds, chosen)
        for seeds, mine in arms.items()
        for part in box_studies.groups(mine, chosen.preset, chosen.updates)
    ]
    found.sort(key=lambda group: -group.cost)
    if chosen.part > len(found):
        raise UserError(f"--part={chosen.part}: there are {len(found)} programs; give 1 to {len(found)}, or 0 for all")
    return found


def rows_of(study: Study, groups: Sequence[box_runs.Group], chosen: Options) -> list[dict[str, Any]]:
    """The summary rows of a study's arms, with its seeds."""
    seeds = seeds_of(study, chosen)
    configs = {arm.config(chosen.preset, chosen.updates) for arm in study.arms}
    mine = {run_id for group in groups for run_id in group.ids_of(configs, seeds)}
    return studies.rows_of(mine, chosen.out, EXPERIMENT)


def _say_alike(study: Study, chosen: Options, console: Console) -> None:
    """One line about methods that a study's settings make the same, of which the tables show one."""

    def name(arm: Arm) -> str:
        return f"{arm.method} {box_studies.text(arm, chosen.preset, chosen.updates)}".strip()

    same = [f"{name(arm)} is {name(one)}" for arm, one in box_studies.alike(study.arms, chosen.preset, chosen.updates)]
    if same:
        console.print(f"{study.name}: the same settings are trained and shown once: {', '.join(same)}")


def _made(group: box_runs.Group, chosen: Options) -> bool:
    """Whether all members of a group have rows, from whatever programs."""
    summary = chosen.out / EXPERIMENT / studies.SUMMARY
    return summary.exists() and set(group.run_ids) <= {row["run_id"] for row in rundir.read_rows(summary)}


def run_studies(wanted: Sequence[Study], chosen: Options, console: Console) -> tuple[int, list[dict[str, Any]]]:
    """Make the runs of studies -> exit code, and their summary rows."""
    groups = groups_of(wanted, chosen)
    for study in wanted:
        _say_alike(study, chosen, console)
    # Whose part this is has looked already.
    again = chosen.fresh or chosen.part > 0
    left = [(part, group) for part, group in enumerate(groups, 1) if again or not _made(group, chosen)]
    if len(left) < len(groups):
        console.print(f"{len(groups) - len(left)} of {len(groups)} programs: nothing to train, their rows are there")
    if chosen.workers > 1 and left:
        runs = [at_once.of_group(group, EXPERIMENT, chosen, part=part) for part, group in left]
        if code := at_once.work_off(runs, chosen.workers, console):
            return code, []
        left = []
    display = Display(console)
    for number, group in left:
        if chosen.part not in (0, number):
            continue
        display.note(f"program {number}/{len(groups)}: {group.label}, {len(group.run_ids)} members")
        if code := studies.run_group(group, chosen, EXPERIMENT, box_runs.COLUMNS, display):
            return code, []
    every: list[dict[str, Any]] = []
    for study in wanted:
        if rows := rows_of(study, groups, chosen):
            console.print(table(study, rows))
            every += rows
    return 0, list({row["run_id"]: row for row in every}.values())


def judged(rows: Sequence[dict[str, Any]], chosen: Options, console: Console) -> None:
    """What the rows say about this experiment's claims, or why they say nothing."""
    if chosen.world != WORLD and (chosen.preset, *_changed(chosen)) != (edge_claims.PRESET,):
        usual = f"--preset={edge_claims.PRESET} without {', '.join(f'--{name}' for name in TASK_OPTIONS)}"
        console.print(f"no verdicts: the claims about {chosen.world} are for {usual}")
        return
    studies.show_claims((*box_claims.CLAIMS, *edge_claims.CLAIMS), rows, chosen.preset, console)


def _curved(row: Mapping[str, Any]) -> bool:
    """Whether a row of the box is of one of the three places that training is shown at."""
    return row["dataset"] == WORLD and row["settings"] in box_claims.PLACES.values()


# --- Elsewhere ---
def _changed(chosen: Options) -> list[str]:
    """The options that make other runs of a task than those that are published and claimed about."""
    return [f"--{name}" for name in TASK_OPTIONS if getattr(chosen, name) != getattr(Options, name)]


def _check(chosen: Options) -> None:
    """Before any run, raises UserError where --dataset holds another task's data, or the task has no such engine."""
    usual = envs.spec(chosen.world).name
    if chosen.dataset and (given := data.load(chosen.dataset)[1].env) != usual:
        raise UserError(f"--dataset={chosen.dataset} is of {given}; --world={chosen.world} takes data of {usual}")
    if chosen.engine != Options.engine:
        envs.pure(chosen.world, chosen.engine)


def run_task(chosen: Options, console: Console) -> int:
    """Make the studies of a task, show them, publish if asked -> exit code.

    Raises:
        UserError: an option of the box's, or a study or preset that there is not.
    """
    for name in ("methods", "horizon", "distance", "width", "critics", "diversity", "scale"):
        if getattr(chosen, name):
            raise UserError(f"--{name} is for --world={WORLD}; with --world={chosen.world} choose studies with --only")
    if chosen.episodes < 0:
        raise UserError(f"--episodes={chosen.episodes}: give a positive whole number")
    wanted = edge_tasks.chosen(chosen.world, chosen.only, chosen.preset)
    if chosen.publish and _changed(chosen):
        raise UserError(f"--publish is for whole studies; leave out {', '.join(_changed(chosen))}")
    _check(chosen)
    rundir.check_rows(chosen.out / EXPERIMENT / studies.SUMMARY)
    seeds = chosen.seeds or str(1 if chosen.preset == "smoke" else edge_tasks.SEEDS)
    more: dict[str, Any] = {"checkpoint_seconds": chosen.checkpoint_seconds, "fresh": chosen.fresh}
    more |= {"episodes": chosen.episodes} if chosen.episodes else {}
    shared = edge_runs.Options(seeds, chosen.preset, chosen.out, more)
    own = (chosen.preset, chosen.updates, chosen.dataset, chosen.engine)
    plan = {study: [edge_tasks.needed(chosen.world, arm, *own) for arm in arms] for study, arms in wanted.items()}
    if chosen.workers > 1:
        once = dict.fromkeys(need for needs in plan.values() for need in needs)
        if code := edge_runs.at_a_time(list(once), shared, chosen.workers, console):
            return code
    every: list[dict[str, Any]] = []
    for study, needs in plan.items():
        mine: list[dict[str, Any]] = []
        for need in needs:
            code, rows = edge_runs.run(need, shared, console)
            if code:
                return code
            mine += rows
        console.print(edge_runs.table(f"{chosen.world}: {study}", mine))
        every += mine
    every = list({row["run_id"]: row for row in every}.values())  # studies share arms
    judged(every, chosen, console)
    if chosen.publish:
        dataset, runs = edge_tasks.dataset_of(chosen.world), chosen.out / offline_mbrl.EXPERIMENT
        studies.publish(every, EXPERIMENT, runs, console, curved=lambda row: row["dataset"] == dataset)
    return 0


@exits_cleanly
def main() -> int:
    """Make the runs that are missing, show the studies, publish if asked."""
    options.cache_programs()
    prog = "python -m experiments.edge_of_reach"
    chosen = options.parse(Options, options.arguments(), Options(), prog, __doc__ or "")
    console = make_console()
    if chosen.world not in WORLDS:
        raise unknown("world", chosen.world, WORLDS)
    at_once.prepare(chosen.workers, chosen.fresh)
    if chosen.part and chosen.world != WORLD:
        raise UserError(f"--part is for --world={WORLD}; leave it out with --world={chosen.world}")
    if chosen.part < 0 or (chosen.part and (chosen.publish or chosen.workers > 1)):
        raise UserError(f"--part={chosen.part} is one program; leave out --publish and --workers")
    publishing.check(chosen.publish, chosen.preset, options.parse_seeds(chosen.seeds or "1"))
    if chosen.world != WORLD:
        return run_task(chosen, console)
    if chosen.dataset or chosen.engine != Options.engine:
        raise UserError(f"--dataset and --engine are for tasks; leave them out with --world={WORLD}")
    chosen = replace(chosen, episodes=chosen.episodes or EPISODES)
    code, rows = run_studies(chosen_studies(chosen), chosen, console)
    if code:
        return code
    judged(rows, chosen, console)
    if chosen.publish:
        beside, runs = (
            {box_runs.SHELLS: box_runs.SHELL_COLUMNS, box_runs.PATHS: box_runs.PATH_COLUMNS},
            chosen.out / EXPERIMENT,
        )
        studies.publish(rows, EXPERIMENT, runs, console, beside, curved=_curved)
    return 0


if __name__ == "__main__":
    main()
