"""What arms of `ensemble_vs_lipschitz` cost, counted in floating-point operations, and what they return for a budget.

Seconds depend on the machine and on what else it does; matrix products of fits, rollouts and updates (`flops`) do not.
Left out: environment steps, evaluations, and the power iterations of spectral norms (four products of a matrix with a
vector per layer, below 1% of an update).

As a command it reads the published rows and curves and writes budget.csv beside them: for every arm the return at half
of what the dearest arm spends, and at all of what the cheapest one with a model spends; the return after the seconds
that the quickest one with a model trains (`lipschitz_seconds`); and the operations of the median seed until it returns
what the ensemble of its kind does (`lipschitz_saved`; SAC is held to the probabilistic one). It describes; the budgets
were not fixed before the runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from experiments import curves, lipschitz_arms, lipschitz_saved, lipschitz_seconds, options, publishing
from experiments.lipschitz_arms import ARMS, EXPERIMENT, Arm
from experiments.lipschitz_claims import RETURN_MARGIN
from experiments.lipschitz_saved import per_step
from jaxrl_suite.algorithms.mbpo_online_config import Config
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.errors import UserError, exits_cleanly
from jaxrl_suite.report import stats
from jaxrl_suite.train import files, rundir
from jaxrl_suite.train.display import make_console

BUDGET, PRESET = "budget.csv", "quick"


def return_at(budget: float, per_step: float, steps: Sequence[float], returns: Sequence[float]) -> float:
    """The return of the last evaluation that the budget pays for, interpolated; NaN below the first.

    `steps` are those of training (without exploration) before each evaluation.
    """
    spent = np.asarray(steps, float) * per_step
    return float(np.interp(budget, spent, returns, left=np.nan))


def budgets(rows: Sequence[dict[str, Any]], known: dict[str, list[dict[str, Any]]], env: str) -> list[dict[str, Any]]:
    """A row per arm of the task: operations and seconds per seed, mean returns at budgets, and what equal return takes.

    Args:
        rows: summary rows of the experiment.
        known: curves by run id.
        env: the task.
    """
    spec, costs, mine = envs.spec(env), {}, {}
    joined = [row for row in curves.joined(rows, known) if row["preset"] == PRESET]
    for arm in ARMS:
        config, text = arm.config(env, PRESET), lipschitz_arms.text(arm)
        chosen = [row for row in joined if curves.CURVE in row and _is(row, arm.model, env, text)]
        if chosen:
            costs[arm] = per_step(spec, config), config
            mine[arm] = chosen
    spent = {arm: cost * (config.steps - config.explore) for arm, (cost, config) in costs.items()}
    took = {arm: float(np.mean([row["seconds_seed"] for row in own])) for arm, own in mine.items()}
    cheapest = min((cost for arm, cost in spent.items() if arm.needs_model), default=np.nan)
    quickest = min((seconds for arm, seconds in took.items() if arm.needs_model), default=np.nan)
    half = 0.5 * max(spent.values(), default=np.nan)
    found = []
    for arm, own in mine.items():
        cost, config = costs[arm]
        pace = took[arm] / (config.steps - config.explore)  # seconds per step of training
        line = {"dataset": env, "algo": arm.model, "mechanism": arm.mechanism, "seeds": len(own)}
        line |= {"tera_flops": float(f"{spent[arm] / 1e12:.3g}"), "seconds": round(took[arm], 1)}
        for name, each, budget in (("cheapest", cost, cheapest), ("half", cost, half), ("seconds", pace, quickest)):
            at = [_reached(row[curves.CURVE], each, config, budget) for row in own]
            interval = stats.mean_interval(at)
            low, high = (interval.low, interval.high) if interval.bounded else (np.nan, np.nan)
            values = {"": interval.estimate, "_low": low, "_high": high}
            line |= {f"return_{name}{end}": round(float(value), 1) for end, value in values.items()}
        found.append(line | _equal(joined, arm, env))
    return found


def _equal(rows: Sequence[dict[str, Any]], arm: Arm, env: str) -> dict[str, Any]:
    """The return that the claims on saved compute ask for, how many seeds get there, and operations of the median."""
    kind = arm.model.partition("-")[0] if arm.needs_model else "probabilistic"
    goal = lipschitz_saved.target(rows, Arm(f"{kind}-ensemble"), env, RETURN_MARGIN.get(env, np.nan))
    reached = [one.reached for one in lipschitz_saved.spent(rows, arm, env, goal).values()]
    median = float(np.median(reached)) if np.isfinite(goal) and reached else np.inf
    tera = float(f"{median / 1e12:.3g}") if np.isfinite(median) else np.nan
    return {"target": round(goal, 1), "seeds_there": int(np.isfinite(reached).sum()), "tera_flops_there": tera}


def _reached(curve: Sequence[dict[str, Any]], cost: float, config: Config, budget: float) -> float:
    return return_at(budget, cost, lipschitz_saved.trained(config, curve), [at["return_mean"] for at in curve])


def _is(row: dict[str, Any], model: str, env: str, text: str) -> bool:
    wanted = (model, env, PRESET, text, "finished")
    return (row["algo"], row["dataset"], row["preset"], row["settings"], row["status"]) == wanted


def table(lines: Sequence[dict[str, Any]]) -> Table:
    """The budgets for the terminal."""
    shown = Table("task", "model", "mechanism", "seeds", "TFLOP per seed", "at the cheapest's", "at half the dearest's")
    for name in ("seconds", "at the quickest's", "TFLOP to the target"):
        shown.add_column(name)
    for line in lines:
        cheapest, half, quickest = (_cell(line, f"return_{at}") for at in ("cheapest", "half", "seconds"))
        cells = [cheapest, half, f"{line['seconds']:.0f}", quickest]
        there = "-" if np.isnan(line["tera_flops_there"]) else f"{line['tera_flops_there']:g}"
        cells.append(f"{there} ({line['seeds_there']} of {line['seeds']} seeds)")
        shown.add_row(*(str(line[name]) for name in ("dataset", "algo", "mechanism", "seeds", "tera_flops")), *cells)
    return shown


def _cell(line: dict[str, Any], name: str) -> str:
    if np.isnan(line[name]):
        return "-"
    return f"{line[name]:.0f} [{line[f'{name}_low']:.0f}, {line[f'{name}_high']:.0f}]"


@dataclass(frozen=True)
class Options:
    """Options of the costs."""

    results: Path = publishing.RESULTS
    """Folder of published results; budget.csv is written beside the rows that it is about."""


@exits_cleanly
def main() -> int:
    """Write budget.csv anew from what is published."""
    prog = "python -m experiments.lipschitz_costs"
    chosen = options.parse(Options, options.arguments(), Options(), prog, __doc__ or "")
    folder = chosen.results / EXPERIMENT
    if not (folder / "summary.csv").exists():
        raise UserError(f"{folder} has no rows; run experiments.{EXPERIMENT} with --publish, or name another --results")
    rows = lipschitz_seconds.joined(rundir.read_rows(folder / "summary.csv"), folder / lipschitz_seconds.SECONDS)
    known = curves.read(folder / curves.CURVES)
    lines = [line for env in lipschitz_arms.QUICK for line in budgets(rows, known, env)]
    files.write_atomically(folder / BUDGET, pd.DataFrame(lines).to_csv(index=False))
    make_console().print(table(lines))
    return 0


if __name__ == "__main__":
    main()
