"""What the arms of `ensemble_vs_lipschitz` take by the clock, timed side by side in one sitting.

Published rows hold seconds that were taken as each arm ended, beside whatever else the machine did, and say little
about the arms. Here nothing is trained. The parts of a tick (model fit, rollouts, updates with the environment's steps)
of every arm are compiled, and then timed in turns, so that a slow minute falls on all of them; the fastest of some
rounds counts. Agents have only explored: what a tick computes does not depend on what has been learnt. Evaluations and
compiling are left out.

seconds.csv, beside the published rows, has seconds per 1,000 environment steps of training and seed, with all seeds in
one program as in the experiment. Its budgets and figures take their seconds from there. Leave the machine alone
meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import lipschitz_arms, lipschitz_probes, options, publishing
from experiments.lipschitz_arms import ARMS, EXPERIMENT, SEEDS, Arm
from jaxrl_suite.algorithms import mbpo_online
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.errors import UserError, exits_cleanly
from jaxrl_suite.train import identity, rundir, settings
from jaxrl_suite.train.display import make_console
from jaxrl_suite.types import Tree

SECONDS, STEPS = "seconds.csv", 1_000
PARTS = ("fit", "dream", "learn")
COLUMNS = ["key_id", "dataset", "preset", "algo", "settings", *PARTS, "seconds", "git_commit", "host"]


@dataclass(frozen=True)
class Options:
    """Options of the timing."""

    env: str = "pendulum,cartpole_swingup"
    """Environments, with commas between."""
    preset: str = "quick"
    """Settings: smoke, quick or paper."""
    rounds: int = 5
    """How often each part is timed."""
    results: Path = publishing.RESULTS
    """Folder of published results; seconds.csv is written beside the rows that it is about."""


def joined(rows: Sequence[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """Summary rows whose `seconds_seed` are those of a table of seconds, where it has their arm (at any number of
    steps); the others keep their own."""
    known = {_arm(line): float(line["seconds"]) for line in rundir.read_rows(path)} if path.exists() else {}
    return [
        row | {"seconds_seed": known[_arm(row)] * (row["env_steps"] - row["explore"]) / STEPS}
        if _arm(row) in known
        else row
        for row in rows
    ]


def _arm(row: dict[str, Any]) -> tuple[str, ...]:
    words = (word for word in str(row["settings"] or "").split() if not word.startswith("steps="))
    return row["dataset"], row["preset"], row["algo"], " ".join(words)


def explored(env: str, arm: Arm, preset: str) -> Tree:
    """Agents of an arm, one per seed, before training."""
    algorithm = mbpo_online.make(envs.spec(env), arm.config(env, preset))
    phase = algorithm.phases[0]

    def start(key: Any) -> Tree:
        return phase.update(phase.init(key, algorithm.hypers, None, None), None)[0]

    return jax.jit(jax.vmap(start))(jax.random.split(jax.random.key(0), SEEDS))


def measure(env: str, arms: Sequence[Arm], preset: str, rounds: int, console: Console) -> list[dict[str, Any]]:
    """A row of the table for each arm."""
    spec, ready = envs.spec(env), []
    for number, arm in enumerate(arms, 1):
        states = explored(env, arm, preset)
        parts = lipschitz_probes.parts(spec, arm.config(env, preset))
        for program, _ in parts.values():
            lipschitz_probes.once(program, states)  # compiles it
        ready.append((arm, states, parts))
        console.print(f"{env} {number}/{len(arms)}: {arm.model} {arm.mechanism} compiled")
    best: dict[tuple[Arm, str], float] = {}
    for number in range(1, rounds + 1):
        for arm, states, parts in ready:
            for name, (program, _) in parts.items():
                best[arm, name] = min(best.get((arm, name), np.inf), lipschitz_probes.once(program, states))
        console.print(f"{env}: round {number}/{rounds}")
    made = identity.provenance()
    rows = []
    for arm, _, parts in ready:
        config = arm.config(env, preset)
        per = STEPS / (config.steps - config.explore) / SEEDS
        taken = {name: best[arm, name] * often * per for name, (_, often) in parts.items()}
        names = {"dataset": env, "preset": preset, "algo": arm.model, "settings": lipschitz_arms.text(arm)}
        row: dict[str, Any] = {"key_id": "-".join(word or "none" for word in names.values()), **names}
        row |= {name: float(f"{taken.get(name, 0.0):.4g}") for name in PARTS}
        row |= {"seconds": float(f"{sum(taken.values()):.4g}"), "git_commit": made["git_commit"], "host": made["host"]}
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The seconds for the terminal."""
    shown = Table("task", "model", "settings", *PARTS, "seconds")
    shown.title = f"seconds per {STEPS:,} environment steps and seed"
    for row in rows:
        words = (str(row[name]) for name in ("dataset", "algo", "settings"))
        shown.add_row(*words, *(f"{row[name]:.3g}" for name in (*PARTS, "seconds")))
    return shown


@exits_cleanly
def main() -> int:
    """Time the arms, and write seconds.csv; rows of other environments and presets stay."""
    options.cache_programs()
    prog = "python -m experiments.lipschitz_seconds"
    chosen = options.parse(Options, options.arguments(), Options(), prog, __doc__ or "")
    settings.require_positive(chosen)
    names = [name.strip() for name in chosen.env.split(",")]
    for name in names:
        lipschitz_arms.default("sac", name, chosen.preset)
    folder, console = chosen.results / EXPERIMENT, make_console()
    if not (folder / "summary.csv").exists():
        raise UserError(f"{folder} has no rows; run experiments.{EXPERIMENT} with --publish, or name another --results")
    for name in names:
        rows = measure(name, ARMS, chosen.preset, chosen.rounds, console)
        rundir.upsert_rows(folder / SECONDS, rows, COLUMNS, "key_id")
        console.print(table(rows))
    console.print(f"seconds: {folder / SECONDS}; budgets: python -m experiments.lipschitz_costs")
    return 0


if __name__ == "__main__":
    main()
