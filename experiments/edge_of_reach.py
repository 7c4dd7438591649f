"""Train with the true dynamics as the world model, where the edge of reach is known, and show what fails there.

The base method is MBPO's rollouts with SAC. `patched` puts the true value in place of its targets at edge-of-reach
states, `random-patched` in place of as many others. `minimum` trusts the least of N critics, and `ravl` makes these
diverse. Without options all studies of the world are made: methods, horizons (rollouts from one step to the whole
episode), ensemble (the least of ten critics), diversity (of two), critics (N against eta), rewards (the reward's
distance against the rollouts' length). The same command resumes what was stopped, and prints what has finished.

Elsewhere (hopper, halfcheetah, walker2d; extra `mujoco`) offline algorithms learn from the bundled data in a learned
world and in the true one: methods, horizons (rollouts of other lengths), accuracy (worlds between a random model, the
learned one and the true one). Those runs are `experiments.offline_mbrl`'s own.

Rows per seed go to <out>/edge_of_reach/summary.csv, the box's critics by reach to shells.csv and paths of its final
policies to paths.csv beside it; returns and Q-values over training to each run's eval.csv.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from experiments import (
    box_agent,
    box_claims,
    box_probes,
    box_studies,
    edge_claims,
    edge_runs,
    edge_tasks,
    offline_mbrl,
    options,
    studies,
)
from experiments.box_studies import EXPERIMENT, STUDIES, WORLD, Arm, Study
from jaxrl_suite import mesh
from jaxrl_suite.algorithms import registry as algorithms
from jaxrl_suite.envs import box
from jaxrl_suite.errors import UserError, exits_cleanly, unknown
from jaxrl_suite.report import stats
from jaxrl_suite.train import identity, loop, rundir, session
from jaxrl_suite.train.display import Display, make_console

WORLDS = (WORLD, *edge_tasks.TASKS)
AGENT = "experiments.box_agent:make"
ROWS = 10_000  # start states of the data
SHELLS, PATHS = "shells.csv", "paths.csv"
SHOWN_SEEDS = 2  # of each setting, whose paths are kept
MEASURED = ("horizon", "distance", "width", "critics", "diversity", "edge_share", "edge_spread", "inside_spread")
MORE = (*MEASURED, "spread_effect", "attainable", "true_value", "highest_value")
COLUMNS = [*session.SUMMARY_COLUMNS, *MORE]
SHELL_COLUMNS = ["key_id", "run_id", "seed", "reach", "spread", "penalty", "value", "true_value"]
PATH_COLUMNS = ["key_id", "run_id", "seed", "walk", "step", "x", "y"]


@dataclass(frozen=True)
class Options:
    """Options of the experiment."""

    world: str = WORLD
    """World: box, hopper, halfcheetah or walker2d."""
    preset: str = "quick"
    """Settings to start from: smoke (seconds), quick (minutes on two cores), paper (large networks, an accelerator)."""
    only: str = ""
    """Make only these studies, with commas between; by default all of the world: in the box methods, horizons,
    ensemble, diversity, critics, rewards; elsewhere methods, horizons, accuracy."""
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
    seeds: str = ""
    """How many seeds, from 0 on (8), or a range (8:16); by default what each study has."""
    updates: int = 0
    """Gradient updates of each setting; 0 for the preset's."""
    episodes: int = 20
    """Episodes per evaluation and seed."""
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
    )
    if own and (chosen.only or chosen.publish):
        raise UserError("--only and --publish are for whole studies; leave them out, or the settings of your own")
    names = [name.strip() for name in chosen.only.split(",")] if chosen.only else list(STUDIES)
    for name in names:
        if name not in STUDIES:
            raise unknown("study", name, STUDIES)
    if chosen.updates < 0 or chosen.episodes < 1:
        raise UserError(f"--updates={chosen.updates} --episodes={chosen.episodes}: give positive whole numbers")
    wanted = [own] if own else [STUDIES[name] for name in names]
    for arm in (arm for study in wanted for arm in study.arms):
        _check(arm, arm.config(chosen.preset, chosen.updates))
    return wanted


def _check(arm: Arm, config: box_agent.Config) -> None:
    """Refuse what cannot be trained, before anything is."""
    options.require_positive(config)
    if not config.width > 0:
        raise UserError(f"--width={config.width:g} must be above 0")
    if config.horizon > box.HORIZON:
        raise UserError(
            f"--horizon={config.horizon} is longer than an episode of {WORLD}, which ends after {box.HORIZON} steps; "
            f"give at most --horizon={box.HORIZON}"
        )


def seeds_of(study: Study, chosen: Options) -> tuple[int, ...]:
    """The seeds of a study."""
    smoke = 1 if chosen.preset == "smoke" else study.seeds
    return options.parse_seeds(chosen.seeds or str(smoke))


# --- Running ---
class Group(studies.Group):
    """Settings that train side by side in one program, all seeds of each."""

    def __init__(self, arms: Sequence[Arm], seeds: tuple[int, ...], chosen: Options) -> None:
        self.arms, self.seeds, self.chosen = arms, seeds, chosen
        configs = [arm.config(chosen.preset, chosen.updates) for arm in arms]
        names = ("diversity", *box_agent.TRACED)
        varied = [name for name in names if len({getattr(config, name) for config in configs}) > 1]
        self.changes = [{name: getattr(config, name) for name in varied} for config in configs]
        self.config = configs[0]
        texts = [f"{arm.method} {self.settings(arm)}".strip() for arm in arms]
        self.variants = dict(zip(texts, self.changes, strict=True))
        entry = algorithms.get(AGENT)
        plan = {"dataset": WORLD, "rows": ROWS, "preset": chosen.preset, "episodes": chosen.episodes}
        self.frozen = session.freeze(EXPERIMENT, entry, configs[0], box.SPEC.name, **plan)
        devices = mesh.parse("data:1", 1, False)
        variants = {"variants": self.changes} if varied else None
        self.id = identity.group_id(self.frozen, seeds, variants, devices.layout())
        self.configs = [session.variant_config(self.frozen, change) for change in self.changes for _ in seeds]
        ids = zip(self.configs, [*seeds] * len(arms), strict=True)
        self.run_ids = [identity.run_id(config, seed) for config, seed in ids]
        methods = "+".join(dict.fromkeys(arm.method for arm in arms))
        self.dataset = WORLD
        self.label = f"{methods}-{WORLD}-k{self.config.horizon}-n{self.config.critics}"

    def settings(self, arm: Arm) -> str:
        """What an arm changes in its method's preset."""
        return box_studies.text(arm, self.chosen.preset, self.chosen.updates)

    def shown(self) -> dict[str, Any]:
        """What stands in config.json."""
        several = {"variants": list(self.variants.items())} if len(self.variants) > 1 else {}
        return {"config": self.frozen, "seeds": self.seeds, **several}

    def job(self, built: session.Built, folder: Path) -> loop.Job:
        """All seeds of all settings, on the box's starts."""
        return loop.Job(
            spec=built.spec,
            algorithm=built.algorithm,
            data=box.data(jax.random.key(0), ROWS),
            seeds=self.seeds,
            config=self.frozen,
            variants=session.variants_of(built, self.variants),
            episodes=self.chosen.episodes,
            checkpoint_seconds=self.chosen.checkpoint_seconds,
            evaluator=box_probes.evaluator(built.algorithm, self.chosen.episodes),
        )

    def complete(self, rows: list[dict], job: loop.Job, outcome: loop.Outcome, path: Path) -> None:
        """Add what the box knows of the final agents."""
        _record(self, job, rows, outcome, path)


def _record(group: Group, job: loop.Job, rows: list[dict], outcome: loop.Outcome, path: Path) -> None:
    """Complete the rows of a group, and write what else is known of its final agents beside the summary."""
    found = box_probes.shells(job.algorithm, outcome.result, group.config.horizon)
    walks = box_probes.paths(job.algorithm, outcome.result)
    shares = _edge_shares(path / "metrics.jsonl")
    facts = {arm: _facts(arm.config(group.chosen.preset, group.chosen.updates)) for arm in group.arms}
    shell_rows, path_rows = [], []
    k = group.config.horizon
    for index, row in enumerate(rows):
        arm = group.arms[index // len(group.seeds)]
        share = shares[row["seed"], row["settings"] if len(group.arms) > 1 else ""]
        row |= {"algo": arm.method, "settings": group.settings(arm), **facts[arm]}
        row |= {f"score_{end}": 100.0 * row[f"return_{end}"] / row["attainable"] for end in ("last", "best")}
        edge = found.spread[index, k - 1] if k <= box_probes.REACHES else math.nan
        inside = found.spread[index, : k - 1].mean() if k > 1 else math.nan
        row |= {"edge_share": share, "edge_spread": edge, "inside_spread": inside, "spread_effect": found.effect[index]}
        owner = {"run_id": row["run_id"], "seed": row["seed"]}
        for reach in range(box_probes.REACHES):
            values = [float(x[index, reach]) for x in found[:4]]
            names = zip(("spread", "penalty", "value", "true_value"), values, strict=True)
            shell_rows.append({"key_id": f"{row['run_id']}-{reach}", **owner, "reach": reach + 1, **dict(names)})
        if row["seed"] - group.seeds[0] < SHOWN_SEEDS:
            path_rows += _path_rows(walks[index], owner)
    rundir.upsert_rows(path.parent / SHELLS, shell_rows, SHELL_COLUMNS, key="key_id")
    rundir.upsert_rows(path.parent / PATHS, path_rows, PATH_COLUMNS, key="key_id")


def _facts(config: box_agent.Config) -> dict[str, float]:
    """What a setting makes possible: the best return, the mean true value of a start, the highest value of all."""
    field = box.at(config.distance, config.width)
    starts = box.starts(jax.random.key(0), (1_000,))
    true = float(np.mean(box.look_up(box.optimal_values(field, config.gamma, per_step=2), starts)))
    named = {name: getattr(config, name) for name in ("horizon", "distance", "width", "critics", "diversity")}
    highest = 1.0 / (1.0 - config.gamma)
    return {**named, "attainable": box.mean_best_return(field), "true_value": true, "highest_value": highest}


def _edge_shares(metrics: Path) -> dict[tuple[int, str], float]:
    """The share of targets at the edge of reach over training, by seed and settings."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    shares: dict[tuple[int, str], list[float]] = {}
    for line in lines:
        shares.setdefault((line["seed"], line.get("settings", "")), []).append(line["edge_targets"])
    return {who: float(np.mean([share for share in mine if share is not None])) for who, mine in shares.items()}


def _path_rows(walks: np.ndarray, owner: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of one agent's walks `[WALKS, 31, 2]`."""
    return [
        {
            "key_id": f"{owner['run_id']}-{walk}-{step}",
            **owner,
            "walk": walk,
            "step": step,
            "x": round(float(place[0]), 4),
            "y": round(float(place[1]), 4),
        }
        for walk, places in enumerate(walks)
        for step, place in enumerate(places)
    ]


# --- After the runs ---
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


def run_studies(wanted: Sequence[Study], chosen: Options, console: Console) -> tuple[int, list[dict[str, Any]]]:
    """Make the runs of studies -> exit code, and their summary rows."""
    display, every = Display(console), []
    for study in wanted:
        seeds = seeds_of(study, chosen)
        groups = [Group(arms, seeds, chosen) for arms in box_studies.groups(study.arms, chosen.preset, chosen.updates)]
        for number, group in enumerate(groups, 1):
            display.note(f"{study.name} {number}/{len(groups)}: {group.label}, {len(group.run_ids)} members")
            code = studies.run_group(group, chosen, EXPERIMENT, COLUMNS, display)
            if code:
                return code, []
        rows = studies.rows_of({run_id for group in groups for run_id in group.run_ids}, chosen.out, EXPERIMENT)
        console.print(table(study, rows))
        every += rows
    return 0, list({row["run_id"]: row for row in every}.values())


def judged(rows: Sequence[dict[str, Any]], chosen: Options, console: Console) -> None:
    """What the rows say about this experiment's claims."""
    studies.show_claims((*box_claims.CLAIMS, *edge_claims.CLAIMS), rows, chosen.preset, console)


def _curved(row: Mapping[str, Any]) -> bool:
    """Whether a row of the box is one of the study of methods."""
    return row["dataset"] == WORLD and row["settings"] in ("", box_claims.RIM)


# --- Elsewhere ---
def run_task(chosen: Options, console: Console) -> int:
    """Make the studies of a MuJoCo task, show them, publish if asked -> exit code.

    Raises:
        UserError: an option of the box's, or a study or preset that there is not.
    """
    for name in ("methods", "horizon", "distance", "width", "critics", "diversity"):
        if getattr(chosen, name):
            raise UserError(f"--{name} is for --world={WORLD}; with --world={chosen.world} choose studies with --only")
    wanted = edge_tasks.chosen(chosen.only)
    if chosen.publish and chosen.updates:
        raise UserError("--publish is for whole studies; leave out --updates")
    seeds = chosen.seeds or str(1 if chosen.preset == "smoke" else edge_tasks.SEEDS)
    options.parse_seeds(seeds)
    more = [f"--checkpoint-seconds={chosen.checkpoint_seconds:g}", *(["--fresh"] if chosen.fresh else [])]
    plan = {
        study: [edge_tasks.needed(chosen.world, arm, chosen.preset, chosen.updates) for arm in arms]
        for study, arms in wanted.items()
    }
    every: list[dict[str, Any]] = []
    for study, needs in plan.items():
        mine: list[dict[str, Any]] = []
        for need in needs:
            code, rows = edge_runs.run(need, seeds, chosen.preset, chosen.out, more, console)
            if code:
                return code
            mine += rows
        console.print(edge_runs.table(f"{chosen.world}: {study}", mine))
        every += mine
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
    if chosen.world != WORLD:
        return run_task(chosen, console)
    code, rows = run_studies(chosen_studies(chosen), chosen, console)
    if code:
        return code
    judged(rows, chosen, console)
    if chosen.publish:
        beside, runs = {SHELLS: SHELL_COLUMNS, PATHS: PATH_COLUMNS}, chosen.out / EXPERIMENT
        studies.publish(rows, EXPERIMENT, runs, console, beside, curved=_curved)
    return 0


if __name__ == "__main__":
    main()
