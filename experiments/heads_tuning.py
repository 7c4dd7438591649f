"""Choose the critics' step size for value heads in the offline algorithms, with the same budget for each head.

Every step size trains on tuning seeds, whose rows support no claim; the best mean of last scores is taken, of those at
which no seed diverged. The runs are those of experiments.offline_mbrl, in its folder, so that the same command again
resumes. --publish adds to results/offline_mbrl/heads-tuning.csv, from which the claims about tuned heads take their
step sizes; rows that are there stay, as reported runs rest on them. It is for the default seeds and preset, and belongs
before the reported runs:

    python -m experiments.heads_tuning --publish
    python -m experiments.reproduce --only=offline-widely-tuned-hl-gauss-beats-mse-iql --publish
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from experiments import heads_offline_claims, options, plans
from experiments.heads_offline_claims import DATASET, RATES, SMALLER, TUNED, TUNING
from jaxrl_suite.algorithms import registry
from jaxrl_suite.errors import UserError, exits_cleanly, unknown
from jaxrl_suite.report.claims import REPORTED
from jaxrl_suite.sweep import tasks
from jaxrl_suite.train import interrupts, rundir, settings
from jaxrl_suite.train.display import make_console

HEADS = ("mse", "hl_gauss")
COLUMNS = ("run_id", "algo", "dataset", "head", "critic_lr", "seed", "updates", "score_last", "status", "git_commit")


@dataclass(frozen=True)
class Options:
    """Options of the tuning."""

    algo: str = ",".join(TUNED)
    """Algorithms, with commas between."""
    seeds: str = "1000:1003"
    """Tuning seeds, from 1000 on."""
    preset: str = "quick"
    """Preset of every algorithm."""
    workers: int = 1
    """Runs at a time; they share the cores evenly."""
    out: Path = Path("runs")
    """Folder for runs."""
    publish: bool = False
    """Add to the table that the claims read."""


def plan(chosen: Options) -> dict[tuple[str, str], list[tasks.Run]]:
    """The runs by algorithm and head, all step sizes of a head in one program.

    Raises:
        UserError: an unknown algorithm, or seeds that are reported.
    """
    algos = chosen.algo.split(",")
    for algo in algos:
        if algo not in SMALLER:
            raise unknown("algorithm of this tuning", algo, SMALLER)
    if min(options.parse_seeds(chosen.seeds)) < REPORTED:
        raise UserError(f"--seeds={chosen.seeds}: tuning takes seeds from 1000 on; those below {REPORTED} are reported")
    facts = plans.facts_of(DATASET)
    rates = ",".join(settings.shown(rate) for rate in RATES)
    return {
        (algo, head): plans.plan(
            plans.Options(
                algo=algo,
                dataset=DATASET,
                grid=(
                    f"head={head}",
                    f"critic_lr={rates}",
                    *(f"{name}={settings.shown(value)}" for name, value in SMALLER[algo].items()),
                ),
                seeds=chosen.seeds,
                preset=chosen.preset,
                out=chosen.out,
            ),
            facts,
        )
        for algo in algos
        for head in HEADS
    }


def rows_of(planned: dict[tuple[str, str], list[tasks.Run]]) -> list[dict[str, Any]]:
    """The rows of the tuning's table, of the runs that have finished."""
    found = []
    for (_, head), runs in planned.items():
        for row in tasks.rows_of(runs):
            changed = dict(word.split("=", 1) for word in row["settings"].split())
            usual = registry.preset(registry.get(row["algo"]), row["preset"], row["dataset"])
            rate = float(changed.get("critic_lr", usual.critic_lr))
            found.append({name: {**row, "head": head, "critic_lr": rate}[name] for name in COLUMNS})
    return found


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Mean last scores by step size."""
    shown = Table("algorithm", "head", *(f"{rate:g}" for rate in RATES))
    frame = pd.DataFrame(rows)
    for algo in frame["algo"].unique():
        for head in HEADS:
            mine = frame[(frame["algo"] == algo) & (frame["head"] == head)]
            cells = (mine.loc[mine["critic_lr"] == rate, "score_last"].mean() for rate in RATES)
            shown.add_row(str(algo), head, *(f"{cell:.1f}" for cell in cells))
    return shown


def finish(planned: dict[tuple[str, str], list[tasks.Run]], chosen: Options, console: Console) -> None:
    """Show the scores; write the table if asked."""
    rows = rows_of(planned)
    console.print(table(rows))
    if chosen.publish:
        there = {row["run_id"] for row in rundir.read_rows(TUNING)} if TUNING.exists() else set()
        rundir.upsert_rows(TUNING, [row for row in rows if row["run_id"] not in there], list(COLUMNS))
        console.print(f"tuning: {TUNING}; chosen: {heads_offline_claims.rates()}")


@exits_cleanly
def main() -> int:
    """Make the runs that are missing, show what is best, write the table if asked."""
    options.cache_programs()
    prog = "python -m experiments.heads_tuning"
    chosen = options.parse(Options, options.arguments(), Options(), prog, __doc__ or "")
    settings.require_positive(chosen)
    if chosen.publish and (chosen.seeds, chosen.preset) != (Options.seeds, Options.preset):
        raise UserError("--publish is for the default seeds and preset; leave out --seeds and --preset")
    planned, console = plan(chosen), make_console()
    runs = [run for each in planned.values() for run in each]
    board = plans.work_off(runs, len(runs), plans.Options(workers=chosen.workers, out=chosen.out), console)
    if board is None or board.stopped:
        console.print(f"interrupted; {interrupts.resumes()}")
        return plans.INTERRUPTED
    if board.failed:
        console.print(f"{len(board.failed)} of {len(runs)} runs failed; nothing is chosen")
        return plans.FAILED
    finish(planned, chosen, console)
    return 0


if __name__ == "__main__":
    main()
