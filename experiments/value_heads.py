"""Compare value heads (squared error, classification, quantiles) where the truth is known, and show what they are for.

Three small problems: regression on targets that move (experiments/heads_shifts.py), discrete offline learning on a log
of random mazes whose values are known (experiments/heads_maze.py), and DQN in such mazes (experiments/heads_online.py).
Studies: plasticity, memory (the same of more points, at given step sizes), heads, long (ten times the updates), targets
(SARSA against Q-learning), one_sided (a public implementation's fault), bins, resolution (more of them, and wider
Gaussians), support, noise, transitions, scaling, experts (soft mixtures of them in the network), tasks (one network for
many variants of the maze), labels (optimal values given), conservative (CQL's term), online. Without options all of
them are made. What has finished is found again, and the same command makes the rest.

Each head has its own step size, the best of five on tuning seeds at the base setting: --tune shows them all, and with
--publish writes that table, results/value_heads/tuning.csv, or with --only the part of it that these studies read. Rows
per seed go to <out>/value_heads/summary.csv. Heads in the offline algorithms are compared by experiments.sweep with
--grid head=mse,hl_gauss, their claims by experiments.reproduce, the one-sided fault in IQL by experiments.heads_fault,
and heads in DQN on Atari by experiments.atari_heads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from experiments import (
    heads_claims,
    heads_later_claims,
    heads_maze,
    heads_online,
    heads_shifts,
    heads_studies,
    heads_tasks_claims,
    options,
    publishing,
    studies,
)
from experiments.heads_studies import (
    EXPERIMENT,
    MAZE,
    MOVING,
    RATES,
    SHIFTS,
    STUDIES,
    TUNED,
    TUNING,
    Arm,
    Config,
    Study,
)
from jaxrl_suite.errors import UserError, exits_cleanly, in_vain, unknown
from jaxrl_suite.report import stats
from jaxrl_suite.train import identity, rundir, session
from jaxrl_suite.train.display import Display, make_console

TUNING_SEEDS = (1000, 1001, 1002)
TUNING_COLUMNS = ["key_id", "problem", "head", "rate", "seed", "score"]
ERRORS = tuple(f"error_{shift:.0f}" for shift in heads_shifts.SHIFTS)
SCORES = tuple(f"score_{number}" for number in range(1, heads_maze.EVALUATIONS + 1))  # at every evaluation
SETTINGS = (
    "bins",
    "ratio",
    "support",
    "target",
    "noise",
    "centred",
    "slip",
    "teleport",
    "layers",
    "units",
    "rate",
    "tasks",
    "conservative",
    "experts",
)
MEASURED = ("value_error", "value_bias", "probe", "error_mean", *ERRORS)
# Of the maze's last batches, where the head has them; rows from before have neither these nor SCORES.
FIT = ("clipped_targets", "target_kl", "end_mass")
COLUMNS = [*session.SUMMARY_COLUMNS, *SETTINGS, *MEASURED, *FIT, *SCORES]
# Compiled once for all heads: seeds vary, numbers are shared.
PREPARE = jax.jit(jax.vmap(heads_maze.prepare, in_axes=(0, None)))
MEASURE = jax.jit(jax.vmap(heads_maze.measure, in_axes=(None, None, 0, 0)))


@dataclass(frozen=True)
class Options:
    """Options of the experiment."""

    preset: str = "quick"
    """Settings to start from: smoke (seconds), quick (minutes on two cores), paper (large, an accelerator)."""
    only: str = ""
    """Make only these studies, with commas between: plasticity, memory, heads, long, targets, one_sided, bins,
    resolution, support, noise, transitions, scaling, experts, tasks, labels, conservative, online; by default all."""
    seeds: str = ""
    """How many seeds, from 0 on (8), or a range (4:14, the published ones); by default the published
    ones; 0 alone with --preset=smoke."""
    updates: int = 0
    """Gradient updates of each run, of which the study `long` makes ten times as many; 0 for the preset's."""
    out: Path = Path("runs")
    """Folder for runs."""
    fresh: bool = False
    """Make all runs again, also those that have finished; their rows are replaced."""
    tune: bool = False
    """Instead: try step sizes of each head on tuning seeds."""
    publish: bool = False
    """Add the rows to results/, and renew its claims and page. For runs of whole studies at the preset's updates. With
    --tune: write the table that the studies read, which is for the default preset."""


# --- What to run ---
def chosen_studies(chosen: Options) -> list[Study]:
    """The studies that the options name.

    Raises:
        UserError: an unknown study or preset, or numbers that make no sense.
    """
    if chosen.preset not in heads_studies.PRESETS:
        raise unknown("preset", chosen.preset, heads_studies.PRESETS)
    names = [name.strip() for name in chosen.only.split(",")] if chosen.only else list(STUDIES)
    for name in names:
        if name not in STUDIES:
            raise unknown("study", name, STUDIES)
    wanted = [STUDIES[name] for name in names]
    multiple = heads_studies.multiple(wanted)
    if chosen.updates < 0 or chosen.updates % multiple:
        raise UserError(f"--updates={chosen.updates}: give a positive multiple of {multiple}, for the evaluations")
    if chosen.publish and chosen.updates:
        raise UserError("--publish is for runs at the preset's updates; leave out --updates")
    publishing.check(chosen.publish, chosen.preset, options.parse_seeds(chosen.seeds or "1"))
    return wanted


def seeds_of(study: Study, chosen: Options) -> tuple[int, ...]:
    """The seeds of a study."""
    first = heads_studies.FIRST
    return options.parse_seeds(chosen.seeds or ("1" if chosen.preset == "smoke" else f"{first}:{first + study.seeds}"))


# --- Running ---
def frozen(one: Arm, config: Config, rate: float, preset: str) -> dict[str, Any]:
    """All that a result depends on, but the seed."""
    plain = session.plain(config)
    return {"experiment": EXPERIMENT, "problem": one.problem, "head": one.head, "preset": preset, "rate": rate, **plain}


def rates_of(arms: Sequence[Arm], configs: Sequence[Config], rates: dict) -> list[float]:
    """The step size of each arm: its own, or the one that was tuned for its head."""
    return [config.rate or rates[one.problem, one.head] for one, config in zip(arms, configs, strict=True)]


def train(arms: Sequence[Arm], configs: Sequence[Config], used: Sequence[float], seeds: Sequence[int]) -> Any:
    """Train arms of one program, all seeds of each, side by side -> measures `[arms, seeds, ...]`."""
    program = heads_studies.program(arms[0], configs[0])
    keys = jax.vmap(jax.random.key)(jnp.array(seeds))
    every = jnp.tile(keys, len(arms))
    if isinstance(program, heads_shifts.Program):
        one = jax.jit(jax.vmap(partial(heads_shifts.train, program)))
        return _apart(one(every, jnp.repeat(jnp.array(used), len(seeds))), len(arms), len(seeds))
    numbers = [heads_studies.numbers(config, rate) for config, rate in zip(configs, used, strict=True)]
    tasks = [PREPARE(keys, each) for each in numbers]
    joined = jax.tree.map(lambda *x: jnp.concatenate(x), *tasks)
    stacked = jax.tree.map(lambda *x: jnp.repeat(jnp.array(x, jnp.float32), len(seeds)), *numbers)
    problem: Any = heads_online if isinstance(program, heads_online.Program) else heads_maze
    learnt = jax.jit(jax.vmap(partial(problem.learn, program)))(every, stacked, joined)
    parts = [
        MEASURE(program.sarsa, each, task, jax.tree.map(lambda x, i=index: x[i * len(seeds) :][: len(seeds)], learnt))
        for index, (each, task) in enumerate(zip(numbers, tasks, strict=True))
    ]
    return _apart(jax.tree.map(lambda *x: jnp.concatenate(x), *parts), len(arms), len(seeds))


def _apart(measures: Any, arms: int, seeds: int) -> Any:
    """Measures `[arms * seeds, ...]` as numpy arrays `[arms, seeds, ...]`."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64).reshape(arms, seeds, -1), measures)


def run_group(arms: Sequence[Arm], seeds: Sequence[int], rates: dict, chosen: Options) -> list[dict[str, Any]]:
    """The summary rows of a group of arms that share a program."""
    configs = [one.config(chosen.preset, chosen.updates) for one in arms]
    used = rates_of(arms, configs, rates)
    began = time.monotonic()
    found = train(arms, configs, used, seeds)
    seconds = time.monotonic() - began
    known = identity.provenance()
    plans = [frozen(one, config, rate, chosen.preset) for one, config, rate in zip(arms, configs, used, strict=True)]
    shared = {
        "group_id": identity.digest("group", plans, list(seeds)),
        "wall_seconds": round(seconds, 3),
        "git_commit": known["git_commit"],
        "host": known["host"],
    }
    rows = []
    for index, (one, config, rate, plan) in enumerate(zip(arms, configs, used, plans, strict=True)):
        for at, seed in enumerate(seeds):
            mine = {name: values[index, at] for name, values in found.items()}
            facts = {"run_id": identity.run_id(plan, seed), "preset": chosen.preset, "seed": seed, **shared}
            rows.append(row_of(one, config, rate, mine) | facts)
    return rows


def row_of(one: Arm, config: Config, rate: float, measures: dict[str, np.ndarray]) -> dict[str, Any]:
    """What was found of one run. Empty cells are NaN: a regression has no return, a maze no shifts, only a log has a
    behaviour."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan)
    row |= {name: getattr(config, name) for name in SETTINGS if hasattr(config, name) and name != "rate"}
    row |= {"layers": len(config.hidden), "units": config.hidden[0], "rate": rate, "updates": config.steps}
    row |= {"experiment": EXPERIMENT, "algo": one.head, "dataset": one.problem, "settings": one.settings}
    row |= {"schema_version": rundir.SCHEMA_VERSION, "resumed": False}
    if one.problem in MOVING:
        row |= dict(zip(ERRORS, measures["error"], strict=True)) | {"error_mean": measures["error"].mean()}
        finite = bool(np.isfinite(measures["error"]).all())
    else:
        row |= {f"{name}_last": measures[name][-1] for name in ("return", "score", "q")}
        row |= {f"{name}_best": measures[name].max() for name in ("return", "score")}
        row |= dict(zip(SCORES, measures["score"], strict=True)) | {"mc_last": measures["true"][-1]}
        row |= {"behaviour_return": measures["behaviour"][-1]} if one.problem == MAZE else {}
        row |= {name: measures[name][-1] for name in ("value_error", "value_bias", "probe")}
        row |= {name: measures[name][-1] for name in FIT if name in measures}
        finite = bool(np.isfinite(measures["q"]).all())
    return row | {"status": "finished" if finite else "diverged"}


def run_ids(arms: Sequence[Arm], seeds: Sequence[int], rates: dict, chosen: Options) -> set[str]:
    """The rows that a group will have."""
    configs = [one.config(chosen.preset, chosen.updates) for one in arms]
    used = rates_of(arms, configs, rates)
    plans = [frozen(one, config, rate, chosen.preset) for one, config, rate in zip(arms, configs, used, strict=True)]
    return {identity.run_id(plan, seed) for plan in plans for seed in seeds}


def run_studies(wanted: Sequence[Study], chosen: Options, console: Console) -> list[dict[str, Any]]:
    """Make the runs that are missing -> the summary rows of all.

    Raises:
        UserError: the summary that rows are to be added to is damaged; nothing has been trained then.
    """
    display, rates, summary = Display(console), heads_studies.rates(), chosen.out / EXPERIMENT / studies.SUMMARY
    every: dict[str, dict[str, Any]] = {}
    rundir.check_rows(summary)
    for study in wanted:
        seeds = seeds_of(study, chosen)
        made: set[str] = set()
        parts = heads_studies.groups(study.arms, chosen.preset, chosen.updates)
        for number, arms in enumerate(parts, 1):
            ids = run_ids(arms, seeds, rates, chosen)
            made |= ids
            before = {row["run_id"] for row in rundir.read_rows(summary)} if summary.exists() else set()
            label = f"{study.name} {number}/{len(parts)}: {arms[0].head} on {arms[0].problem}, {len(ids)} runs"
            if ids <= before and not chosen.fresh:
                display.note(f"{label}: have finished before")
                continue
            rows = run_group(arms, seeds, rates, chosen)
            rundir.upsert_rows(summary, rows, COLUMNS)
            display.note(f"{label}: {rows[0]['wall_seconds']:.0f} s")
        mine = studies.rows_of(made, chosen.out, EXPERIMENT)
        console.print(table(study, mine))
        every |= {row["run_id"]: row for row in mine}
    return list(every.values())


# --- Tuning ---
def tune(wanted: Sequence[Study], chosen: Options, console: Console) -> None:
    """Five step sizes with three tuning seeds for each head, at the base setting of each problem of some studies.

    Raises:
        UserError: none of these studies takes tuned step sizes, or an option that tuning has no use for.
    """
    if chosen.publish and chosen.preset != Options.preset:  # whose step sizes all presets take
        raise UserError(f"--tune --publish is for --preset={Options.preset}; leave out --preset={chosen.preset}")
    if line := in_vain(chosen, ("seeds", "fresh", "out"), "--", "--tune"):
        raise UserError(f"{line}; leave it out")
    rows = []
    problems = {one.problem for study in wanted for one in study.arms if one.problem in TUNED}
    if not problems:
        raise UserError(f"--tune: {wanted[0].name} gives its step sizes; name other studies with --only")
    for problem in (problem for problem in TUNED if problem in problems):
        for head in TUNED[problem]:
            arms = [heads_studies.arm(head, problem)] * len(RATES)
            configs = [one.config(chosen.preset, chosen.updates) for one in arms]
            found = train(arms, configs, RATES, TUNING_SEEDS)
            scores = scores_of(problem, found)
            for (index, at), score in np.ndenumerate(scores):
                cells = (problem, head, RATES[index], TUNING_SEEDS[at], round(float(score), 6))
                rows.append(dict(zip(TUNING_COLUMNS, ("-".join(map(str, cells[:4])), *cells), strict=True)))
            means = " ".join(f"{rate:g}: {score:.3g}" for rate, score in zip(RATES, scores.mean(axis=1), strict=True))
            console.print(f"{problem} {head}: {means}")
    if chosen.publish:
        rundir.upsert_rows(TUNING, rows, TUNING_COLUMNS, "key_id")
        console.print(f"tuning: {TUNING}")


def scores_of(problem: str, found: dict[str, np.ndarray]) -> np.ndarray:
    """What tuning goes by `[rates, seeds]`; NaN where a run diverged, whose policy is nobody's choice."""
    if problem == SHIFTS:
        return -found["error"].mean(axis=-1)
    return np.where(np.isfinite(found["q"]).all(axis=-1), found["score"][..., -1], np.nan)


# --- After the runs ---
def table(study: Study, rows: Sequence[dict[str, Any]]) -> Table:
    """A study for the terminal: means over seeds with 95% t-intervals."""
    on_shifts = study.arms[0].problem in MOVING
    names = ("error_mean", ERRORS[0], ERRORS[-1]) if on_shifts else ("score_last", "value_error", "value_bias", "probe")
    shown = Table("head", "settings", "seeds", *names)
    shown.title = f"{study.name}: {study.words}"
    for (head, text), mine in pd.DataFrame(rows).groupby(["algo", "settings"], sort=False):
        cells = [_interval(mine[name].to_numpy(float)) for name in names]
        shown.add_row(str(head), str(text), str(len(mine)), *cells)
    return shown


def _interval(values: np.ndarray) -> str:
    interval = stats.mean_interval(values)
    bounds = f" [{interval.low:.3g}, {interval.high:.3g}]" if interval.bounded else ""
    return f"{interval.estimate:.3g}{bounds}"


@exits_cleanly
def main() -> int:
    """Make the runs that are missing, show the studies, publish if asked."""
    options.cache_programs()
    prog = f"python -m experiments.{EXPERIMENT}"
    chosen = options.parse(Options, options.arguments(), Options(), prog, __doc__ or "")
    wanted, console = chosen_studies(chosen), make_console()
    if chosen.tune:
        tune(wanted, chosen, console)
        return 0
    rows = run_studies(wanted, chosen, console)
    claims = (*heads_claims.CLAIMS, *heads_tasks_claims.CLAIMS, *heads_later_claims.CLAIMS)
    studies.show_claims(claims, rows, chosen.preset, console)
    if chosen.publish:
        studies.publish(rows, EXPERIMENT, chosen.out / EXPERIMENT, console)
    return 0


if __name__ == "__main__":
    main()
