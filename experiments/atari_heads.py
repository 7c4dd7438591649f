"""Value heads in DQN on Atari, the domain of Farebrother et al. 2024 (arXiv 2403.03950): Pong and Breakout on envpool.

The settings are the paper's (jaxrl_suite/algorithms/dqn_atari.py, deviations there), each head with its own step size.
Presets: smoke (seconds); quick (20,000 steps of four frames each, some three minutes per seed on two cores: it shows
that everything works, and learns little); paper (200 million frames, for an accelerator). Seeds train one after
another. What has finished is found again; what was stopped goes on: its games are rebuilt by replaying its actions.

The measure is the mean return of the newest training episodes, not clipped; a score is 0 for random actions and 100 for
a human. Rows per seed go to <out>/atari_heads/summary.csv, learning curves to curves.csv beside it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import curves, options, publishing, studies
from jaxrl_suite.algorithms import dqn_atari
from jaxrl_suite.algorithms.registry import Entry
from jaxrl_suite.envs import atari, pool
from jaxrl_suite.errors import UserError, exits_cleanly, unknown
from jaxrl_suite.report import stats
from jaxrl_suite.train import identity, interrupts, loop, rundir, session, settings
from jaxrl_suite.train.display import Display, make_console
from jaxrl_suite.train.evaluate import Episodes, Evaluator
from jaxrl_suite.types import Algorithm, Array, Spec, Tree
from jaxrl_suite.values.heads import HEADS

EXPERIMENT = "atari_heads"
SEEDS = 2
COLUMNS = [*session.SUMMARY_COLUMNS, "frames", "clipped_targets"]


@dataclass(frozen=True)
class Options:
    """Options of the experiment."""

    game: str = "Pong"
    """Games, with commas between: Pong, Breakout."""
    head: str = "mse,c51,hl_gauss"
    """Value heads, with commas between: mse, c51, two_hot, hl_gauss, mse_softmax, quantile, ..."""
    preset: str = "quick"
    """Settings to start from: smoke (seconds), quick (minutes on two cores), paper (200 million frames)."""
    seeds: str = ""
    """How many seeds, from 0 on (8), or a range (4:8); by default 2, or one with --preset=smoke."""
    steps: int = 0
    """Steps in all, exploration included; 0 for the preset's."""
    out: Path = Path("runs")
    """Folder for runs."""
    fresh: bool = False
    """Start over beside earlier runs of the same configuration."""
    checkpoint_seconds: float = 120.0
    """Seconds between two checkpoints, which hold the replay buffer too."""
    publish: bool = False
    """Add the rows and their learning curves to results/, and renew its page."""


# --- What to run ---
def config_of(head: str, chosen: Options) -> dqn_atari.Config:
    """The preset with a head, the paper's step size for it, and the steps that were asked for.

    Raises:
        UserError: no such preset or head, or too few steps.
    """
    if chosen.preset not in dqn_atari.PRESETS:
        raise unknown("preset", chosen.preset, dqn_atari.PRESETS)
    if head not in HEADS:
        raise unknown("value head", head, HEADS)
    config = dqn_atari.with_head(dqn_atari.PRESETS[chosen.preset], head)
    if chosen.steps < 0:
        raise UserError(f"--steps={chosen.steps} must be positive; leave it out for the preset's {config.steps:,}")
    return replace(config, steps=chosen.steps) if chosen.steps else config


@dataclass(frozen=True)
class Plan:
    """One run: a game, a head, a seed."""

    spec: Spec
    config: dqn_atari.Config
    seed: int
    frozen: dict[str, Any]
    settings: str

    @property
    def group(self) -> str:
        """What its directory is named after."""
        return identity.group_id(self.frozen, (self.seed,), None, "host")

    @property
    def run_id(self) -> str:
        """What its row is named after."""
        return identity.run_id(self.frozen, self.seed)

    @property
    def label(self) -> str:
        """Its name for people."""
        return f"{self.config.head}-{self.spec.name.lower()}-s{self.seed}"


def plans_of(chosen: Options) -> list[Plan]:
    """All runs that the options name.

    Raises:
        UserError: something unknown, sizes that do not fit each other, or envpool is missing.
    """
    specs = [atari.spec(game.strip()) for game in chosen.game.split(",")]
    heads = [head.strip() for head in chosen.head.split(",")]
    seeds = options.parse_seeds(chosen.seeds or str(1 if chosen.preset == "smoke" else SEEDS))
    publishing.check(chosen.publish, chosen.preset, seeds)
    if chosen.publish and chosen.steps:
        raise UserError("--publish is for runs of the preset's steps; leave out --steps")
    pool.library()
    found = []
    for spec in specs:
        for head in heads:
            config = config_of(head, chosen)
            dqn_atari.make(spec, config)  # refuses what does not fit before anything runs
            preset = dqn_atari.with_head(dqn_atari.PRESETS[chosen.preset], head)
            entry = Entry("dqn_atari", dqn_atari.PRESETS, dqn_atari.make)
            frozen = session.freeze(EXPERIMENT, entry, config, spec.name, preset=chosen.preset)
            text = settings.differences(settings.fields(config), settings.fields(preset))
            found += [Plan(spec, config, seed, frozen, text) for seed in seeds]
    return found


# --- Running ---
def training_episodes(algorithm: Algorithm) -> Evaluator:
    """The newest training episodes in place of episodes of their own; their number is the least of all members'."""

    @jax.jit
    def estimate(states: Tree) -> Array:
        def one(state: dqn_atari.State) -> Array:
            action, _ = algorithm.act(state, (), state.stack, state.key)
            assert algorithm.q_value is not None
            return algorithm.q_value(state, state.stack, action).mean()

        return jax.vmap(one)(states)

    def look(states: dqn_atari.State, seeds: Sequence[int], index: int) -> Episodes:
        size, head = (np.asarray(x) for x in (states.ended.size, states.ended.head))
        known = int(size.min())
        back = (head[:, None] - 1 - np.arange(max(known, 1))) % dqn_atari.KEPT
        newest = (np.take_along_axis(np.asarray(x), back, axis=1) for x in states.ended.data)
        returns, lengths = (np.where(known > 0, x, math.nan) for x in newest)
        q = np.repeat(np.asarray(estimate(states))[:, None], returns.shape[1], axis=1)
        return Episodes(returns, np.full_like(returns, math.nan), lengths, q)

    return look


def run(plan: Plan, chosen: Options, display: Display) -> int:
    """Train one seed, or find it trained -> exit code."""
    shown = {"config": plan.frozen, "seeds": (plan.seed,)}
    with rundir.open_run(chosen.out, EXPERIMENT, plan.label, shown, plan.group, chosen.fresh) as directory:
        if directory.state == "finished":
            display.note(f"{plan.label}: has finished before")
            return 0
        resumed = directory.state == "resumable"
        display.header({"run": f"{plan.label}, {plan.config.steps:,} steps", "in": str(directory.path)})
        algorithm = dqn_atari.make(plan.spec, plan.config)
        job = loop.Job(
            spec=plan.spec,
            algorithm=algorithm,
            data=None,
            seeds=(plan.seed,),
            config=plan.frozen,
            host_envs=plan.config.envs,
            checkpoint_seconds=chosen.checkpoint_seconds,
            evaluator=training_episodes(algorithm),
        )
        outcome = loop.run(job, directory, display)
        if not outcome.finished:
            display.note(f"interrupted and saved; {interrupts.resumes(chosen.fresh)}")
            return interrupts.RESUMABLE
        game = plan.spec.name.removesuffix(atari.VERSION)
        more: dict[str, Any] = {
            "algo": plan.config.head,
            "dataset": game,
            "preset": chosen.preset,
            "settings": plan.settings,
        }
        more |= {"group_id": plan.group, "resumed": resumed, "behaviour_return": math.nan}
        rows = session.summary_rows(directory, job.members, [plan.frozen], outcome, more)
        rows[0] |= {"frames": plan.config.steps * atari.SKIP, "clipped_targets": _clipped(directory.path)}
        rundir.upsert_rows(directory.path.parent / studies.SUMMARY, rows, COLUMNS)
        directory.finish(rows[0]["status"])
    return 0


def _clipped(path: Path) -> float:
    """The share of targets outside the support in the last chunk; NaN for heads without one."""
    last = json.loads((path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    share = last.get("clipped_targets")
    return math.nan if share is None else float(share)


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The runs for the terminal: means over seeds with 95% t-intervals."""
    shown = Table("game", "head", "settings", "seeds", "return at last", "score", "Q", "status")
    arms = dict.fromkeys((row["dataset"], row["algo"], row["settings"]) for row in rows)
    for arm in arms:
        mine = [row for row in rows if (row["dataset"], row["algo"], row["settings"]) == arm]
        interval = stats.mean_interval([float(row["return_last"]) for row in mine])
        bounds = f" [{interval.low:.1f}, {interval.high:.1f}]" if interval.bounded else ""
        score, q = (f"{np.mean([float(row[name]) for row in mine]):.2f}" for name in ("score_last", "q_last"))
        status = ", ".join(sorted({row["status"] for row in mine}))
        shown.add_row(*arm, str(len(mine)), f"{interval.estimate:.1f}{bounds}", score, q, status)
    return shown


@exits_cleanly
def main() -> int:
    """Make the runs that are missing, show them, publish if asked."""
    options.cache_programs()
    prog = f"python -m experiments.{EXPERIMENT}"
    chosen = options.parse(Options, options.arguments(), Options(), prog, __doc__ or "")
    settings.require_positive(dataclasses.replace(chosen, steps=max(chosen.steps, 1)))
    plans, console = plans_of(chosen), make_console()
    for plan in plans:
        code = run(plan, chosen, Display(console))
        if code:
            return code
    return _after(plans, chosen, console)


def _after(plans: Sequence[Plan], chosen: Options, console: Console) -> int:
    folder = chosen.out / EXPERIMENT
    curves.publish(folder, folder)
    rows = studies.rows_of({plan.run_id for plan in plans}, chosen.out, EXPERIMENT)
    console.print(table(rows))
    if chosen.publish:
        studies.publish(rows, EXPERIMENT, folder, console)
    return 0


if __name__ == "__main__":
    main()
