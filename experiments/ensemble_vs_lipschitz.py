"""An ensemble of dynamics models, or a single one and a value that is kept from being steep?

Online MBPO with {probabilistic, deterministic} x {ensemble, single} models and {none, spectral, adversarial, random}
mechanisms on the critics, beside SAC with one update per step (sac) and with as many as MBPO has (sac-utd), in a pure
environment: MuJoCo's tasks step inside the program, too, or in envpool with --host. Pendulum and cart-pole swing-up
take twice the steps of this comparison to be solved: unless options choose arms, steps or a head, the quick preset also
trains the probabilistic ensemble without a mechanism for so many. With --head=hl_gauss --support=-400,0, say, all
critics have another value head. All seeds of an arm train as one program, arms one after another, so that each has its
own time. The same command resumes what was stopped, and prints what has finished.

Rows per seed go to <out>/ensemble_vs_lipschitz/summary.csv, and what is measured over training (value-aware model error
on held-out real rows, bound and estimates of the value's slope) to diagnostics.csv beside it. The paper is Zheng et al.
2023 (arXiv 2302.01244); its constants are not known to us, and these are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from experiments import (
    at_once,
    curves,
    lipschitz_arms,
    lipschitz_claims,
    lipschitz_probes,
    options,
    publishing,
    studies,
)
from experiments.lipschitz_arms import AGENT, EXPERIMENT, HOST_AGENT, SOLVED, Arm
from jaxrl_suite import mesh
from jaxrl_suite.algorithms import registry as algorithms
from jaxrl_suite.algorithms.head_options import OnlineHeadOptions
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.errors import UserError, exits_cleanly
from jaxrl_suite.report import stats
from jaxrl_suite.train import extended, identity, loop, rundir, session, settings
from jaxrl_suite.train.display import Display, make_console
from jaxrl_suite.train.evaluate import Episodes, Evaluator, make_evaluator
from jaxrl_suite.types import Tree
from jaxrl_suite.values import heads, lipschitz

DIAGNOSTICS = "diagnostics.csv"
PARTS = ("seconds_fit", "seconds_dream", "seconds_learn")
MORE = (
    *lipschitz_probes.MEASURES,
    "log_model_error",
    *PARTS,
    "seconds_seed",
    "env_steps",
    "explore",
    "solved",
)
COLUMNS = [*session.SUMMARY_COLUMNS, *MORE]
DIAGNOSTIC_COLUMNS = ["key_id", "run_id", "seed", "evaluation", "return_mean", *lipschitz_probes.MEASURES]


@dataclass(frozen=True)
class Options(OnlineHeadOptions):
    """Options of the experiment."""

    env: str = "pendulum"
    """Environment: pendulum, cartpole_swingup; hopper, walker2d, halfcheetah, ant (with the extra mujoco)."""
    preset: str = "quick"
    """Settings to start from: smoke (seconds), quick (minutes on two cores), long (an hour of one core for an arm;
    hopper, which it takes that long to learn), paper (MBPO's sizes, an accelerator)."""
    models: str = ""
    """Train only these, with commas between: probabilistic-ensemble, deterministic-ensemble, probabilistic-single,
    deterministic-single, sac, sac-utd; by default all."""
    mechanisms: str = ""
    """With only these on the critics, with commas between: none, spectral, adversarial, random; by default all. Beside
    them layer-norm, also for sac and sac-utd: the preset long trains with it and without."""
    seeds: str = ""
    """How many seeds, from 0 on (5), or a range (1000:1002); by default 5."""
    steps: int = 0
    """Environment steps in all, exploration included; 0 for the preset's. With others there are some 30 evaluations."""
    extend: bool = False
    """With --steps: go on from the finished runs with the preset's steps and the same seeds in --out, which is quicker.
    Rows of their own, since sums over longer buffers round otherwise."""
    host: bool = False
    """Step a MuJoCo task in envpool, by a loop on the host, and not inside the program."""
    episodes: int = lipschitz_arms.EPISODES
    """Episodes per evaluation and seed."""
    out: Path = Path("runs")
    """Folder for runs."""
    fresh: bool = False
    """Start over beside earlier runs of the same configuration, instead of resuming or returning them."""
    checkpoint_seconds: float = 60.0
    """Seconds between two checkpoints."""
    workers: int = 1
    """Arms at a time, each in a process of its own; these share the cores evenly, and so are slower each."""
    publish: bool = False
    """Add the rows to results/, and renew its claims, curves and page."""


# --- Running ---
class Group(studies.Group):
    """An arm with all its seeds."""

    tables = (DIAGNOSTICS,)

    def __init__(self, arm: Arm, seeds: tuple[int, ...], chosen: Options, display: Display) -> None:
        self.arm, self.seeds, self.chosen, self.display = arm, seeds, chosen, display
        self.config = arm.config(chosen.env, chosen.preset)
        settings.require_positive(self.config)
        self.spec = envs.spec(chosen.env)
        plan = {"dataset": chosen.env, "rows": 1, "preset": chosen.preset, "episodes": chosen.episodes}
        plan |= {"extends": self.shorter.config.steps} if arm.extends else {}
        agent = algorithms.get(HOST_AGENT if arm.host else AGENT)
        self.frozen = session.freeze(EXPERIMENT, agent, self.config, self.spec.name, **plan)
        self.id = identity.group_id(self.frozen, seeds, None, mesh.parse("data:1", 1, False).layout())
        self.run_ids = [identity.run_id(self.frozen, seed) for seed in seeds]
        self.configs = [self.frozen] * len(seeds)
        longer = f"-{arm.steps}" if arm.steps else ""
        longer += "-on" if arm.extends else ""
        longer += f"-{arm.head.name}" if arm.head.name != lipschitz_arms.PLAIN.name else ""
        self.dataset, self.label = chosen.env, f"{arm.model}-{arm.mechanism}-{chosen.env}{longer}"
        self.settings = lipschitz_arms.text(arm, chosen.episodes)

    @property
    def shorter(self) -> Group:
        """The arm with the preset's steps, which this one extends."""
        return Group(self.arm._replace(steps=0, extends=False), self.seeds, self.chosen, self.display)

    def shown(self) -> dict[str, Any]:
        """What stands in config.json."""
        return {"config": self.frozen, "seeds": self.seeds}

    def job(self, built: session.Built, folder: Path) -> loop.Job:
        """All seeds of the arm; diagnostics go to the folder at each evaluation."""
        return loop.Job(
            spec=built.spec,
            algorithm=built.algorithm,
            data=None,
            seeds=self.seeds,
            config=self.frozen,
            episodes=self.chosen.episodes,
            host_envs=self.config.envs if self.arm.host else 0,
            checkpoint_seconds=self.chosen.checkpoint_seconds,
            evaluator=_evaluator(self, built, folder / DIAGNOSTICS),
        )

    def complete(self, rows: list[dict], job: loop.Job, outcome: loop.Outcome, path: Path) -> None:
        """Add to the rows what the last evaluation has measured, and warn of a bound that is too tight."""
        told = rundir.read_rows(path.parent / DIAGNOSTICS)
        found = {row["run_id"]: row for row in sorted(told, key=lambda row: row["evaluation"])}  # the last one stays
        taken = lipschitz_probes.seconds(self.spec, self.config, outcome.result, self.arm.host)
        own = sum(taken.values()) / len(self.seeds)
        for row in rows:
            row |= {"algo": self.arm.model, "settings": self.settings, **taken}
            row |= {name: found[row["run_id"]][name] for name in lipschitz_probes.MEASURES}
            row |= {"log_model_error": math.log(row["model_error"]) if row["model_error"] > 0 else math.nan}
            row |= {"seconds_seed": own, "env_steps": self.config.steps}
            row |= {"explore": self.config.explore, "solved": SOLVED[self.chosen.env]}
        upper, needed = (np.mean([row[name] for row in rows]) for name in ("lipschitz_upper", "slope_needed"))
        if self.arm.mechanism != "none" and (warning := lipschitz.too_tight(float(upper), float(needed))):
            self.display.note(f"{self.label}: {warning}")


def extend(group: Group) -> None:
    """Lay what a group goes on from where it resumes, unless it has begun.

    Raises:
        UserError: the group that it extends has not finished in the same folder.
    """
    chosen, shorter = group.chosen, group.shorter
    before, after = (session.build(one.frozen) for one in (shorter, group))
    mine, state = rundir.look(chosen.out, EXPERIMENT, group.label, group.id)
    if state in ("finished", "busy") or extended.begun(after.algorithm, mine):
        return
    path, state = rundir.look(chosen.out, EXPERIMENT, shorter.label, shorter.id)
    if state != "finished":
        raise UserError(
            f"--extend: {shorter.label} with these seeds has not finished in {chosen.out / EXPERIMENT}; run the same "
            "command without --steps and --extend first"
        )
    jobs = shorter.job(before, path.parent), group.job(after, path.parent)
    with rundir.open_run(chosen.out, EXPERIMENT, group.label, group.shown(), group.id, False) as directory:
        if directory.state == "finished":
            return
        ids = dict(zip(shorter.run_ids, group.run_ids, strict=True))
        told = [row for row in rundir.read_rows(path.parent / DIAGNOSTICS) if row["run_id"] in ids]
        rows = [
            {**row, "run_id": ids[row["run_id"]], "key_id": f"{ids[row['run_id']]}-{row['evaluation']}"} for row in told
        ]
        rundir.upsert_rows(path.parent / DIAGNOSTICS, rows, DIAGNOSTIC_COLUMNS, key="key_id")
        extended.lay(jobs[0], path, jobs[1], directory.path)


def _evaluator(group: Group, built: session.Built, path: Path) -> Evaluator:
    """The usual evaluation, which also writes down the diagnostics."""
    usual = make_evaluator(built.spec, built.algorithm, group.config.gamma, group.chosen.episodes)
    ask = lipschitz_probes.measures(built.spec, group.config, built.algorithm)

    def evaluate(states: Tree, seeds: Sequence[int], index: int) -> Episodes:
        episodes = usual(states, seeds, index)
        found = {name: np.asarray(x, float) for name, x in ask(states).items()}
        rows = [
            {
                "key_id": f"{run_id}-{index}",
                "run_id": run_id,
                "seed": seed,
                "evaluation": index,
                "return_mean": float(episodes.returns[member].mean()),
                **{name: float(x[member]) for name, x in found.items()},
            }
            for member, (run_id, seed) in enumerate(zip(group.run_ids, seeds, strict=True))
        ]
        rundir.upsert_rows(path, rows, DIAGNOSTIC_COLUMNS, key="key_id")
        return episodes

    return evaluate


# --- After the runs ---
def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The arms for the terminal: means over seeds, returns with 95% t-intervals."""
    shown = Table("model", "settings", "seeds", "return", "V error", "model error", "bound", "slope", "|V|", "s/seed")
    for (model, text), mine in pd.DataFrame(rows).groupby(["algo", "settings"], sort=False):
        interval = stats.mean_interval(mine["return_last"].to_numpy(float))
        bounds = f" [{interval.low:.0f}, {interval.high:.0f}]" if interval.bounded else ""
        names = ("value_error", "model_error", "lipschitz_upper", "slope_mean", "value_scale", "seconds_seed")
        numbers = [f"{mine[name].mean():.3g}" for name in names]
        shown.add_row(str(model), str(text) or "none", str(len(mine)), f"{interval.estimate:.0f}{bounds}", *numbers)
    return shown


@exits_cleanly
def main() -> int:
    """Make the runs that are missing, show the arms, publish if asked."""
    options.cache_programs()
    prog = f"python -m experiments.{EXPERIMENT}"
    chosen = options.parse(Options, options.arguments(), Options(), prog, __doc__ or "")
    console = make_console()
    if chosen.episodes < 1:
        raise UserError(f"--episodes={chosen.episodes} must be at least 1; give a positive whole number")
    head = chosen.value_head()
    named = chosen.models, chosen.mechanisms, chosen.steps, chosen.host, chosen.extend, head
    arms = lipschitz_arms.asked(chosen.env, chosen.preset, *named)
    display = Display(console)
    seeds = options.parse_seeds(chosen.seeds or str(1 if chosen.preset == "smoke" else lipschitz_arms.SEEDS))
    publishing.check(chosen.publish, chosen.preset, seeds)
    at_once.prepare(chosen.workers, chosen.fresh)
    if chosen.extend and chosen.fresh:
        raise UserError("--extend goes on from runs in --out, --fresh starts over: leave one of them out")
    groups = [Group(arm, seeds, chosen, display) for arm in arms]
    if line := heads.complaint(head, ()):
        display.note(line)
    if chosen.workers > 1:
        runs = [
            at_once.of_group(group, EXPERIMENT, chosen, models=arm.model, mechanisms=arm.mechanism, steps=arm.steps)
            for group, arm in zip(groups, arms, strict=True)
        ]
        if code := at_once.work_off(runs, chosen.workers, console):
            return code
    for number, group in enumerate(groups, 1):
        display.note(f"{number}/{len(groups)}: {group.label}, {len(seeds)} seeds")
        if group.arm.extends:
            extend(group)
        if code := studies.run_group(group, chosen, EXPERIMENT, COLUMNS, display):
            return code
    wanted = {run_id for group in groups for run_id in group.run_ids}
    rows = studies.rows_of(wanted, chosen.out, EXPERIMENT)
    console.print(table(rows))
    curved = curves.joined(rows, curves.of_rows(rows, chosen.out / EXPERIMENT))
    studies.show_claims(lipschitz_claims.CLAIMS, curved, chosen.preset, console)
    if chosen.publish:
        beside = {DIAGNOSTICS: DIAGNOSTIC_COLUMNS}
        studies.publish(rows, EXPERIMENT, chosen.out / EXPERIMENT, console, beside)
    return 0


if __name__ == "__main__":
    main()
