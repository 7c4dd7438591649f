"""What arms of `ensemble_vs_lipschitz` cost, counted in floating-point operations, and what they return for a budget.

Seconds depend on the machine and on what else it does; matrix products of fits, rollouts and updates (`flops`) do not.
Left out: environment steps, evaluations, and the power iterations of spectral norms (four products of a matrix with a
vector per layer, below 1% of an update).

As a command it reads the published rows and curves and writes budget.csv beside them: for every arm the return at half
of what the dearest arm spends, and at all of what the cheapest one with a model spends. It describes; the budgets
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

from experiments import curves, flops, lipschitz_arms, options, publishing
from experiments.lipschitz_arms import ARMS, EXPERIMENT
from jaxrl_suite.algorithms.mbpo_online_config import Config
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.errors import UserError, exits_cleanly
from jaxrl_suite.report import stats
from jaxrl_suite.train import files, rundir
from jaxrl_suite.train.display import make_console
from jaxrl_suite.types import Spec

BUDGET, PRESET = "budget.csv", "quick"
NOISE = ("adversarial", "random")


def per_step(spec: Spec, config: Config) -> float:
    """Operations per environment step of training, fits and rollouts of its tick included."""
    actor = flops.mlp(spec.obs_dim, config.hidden, 2 * spec.action_dim)
    critic = flops.mlp(spec.obs_dim + spec.action_dim, config.hidden, 1)
    update = flops.update(actor, critic, config.critics, config.batch, diverse=False).done
    passes = 2.0 * config.batch * config.critics
    # Noise takes the values at the rows and at the moved ones, forward and back; an attack first the values at the
    # rows, and in each of its steps those at the moved ones and their gradient there.
    if config.lipschitz in NOISE and config.smoothness().active:
        update += passes * 2 * (3 * critic.all - critic.first)
    if config.lipschitz == "adversarial" and config.smoothness().active:
        update += passes * critic.all * (1 + 2 * config.lipschitz_steps)
    if config.real == config.batch:
        return config.utd * update
    dynamics = config.dynamics
    member = flops.mlp(
        spec.obs_dim + spec.action_dim, dynamics.hidden, (spec.obs_dim + 1) * (2 - dynamics.deterministic)
    )
    fit = config.fit.steps * flops.fit_step(member, dynamics.members, config.fit.batch).done
    dream = config.rollouts * max(config.horizon) * flops.transition(member, actor).done
    return config.utd * update + (fit + dream) / config.period


def return_at(budget: float, per_step: float, steps: Sequence[float], returns: Sequence[float]) -> float:
    """The return of the last evaluation that the budget pays for, interpolated; NaN below the first.

    `steps` are those of training (without exploration) before each evaluation.
    """
    spent = np.asarray(steps, float) * per_step
    return float(np.interp(budget, spent, returns, left=np.nan))


def budgets(rows: Sequence[dict[str, Any]], known: dict[str, list[dict[str, Any]]], env: str) -> list[dict[str, Any]]:
    """A row per arm of the task: operations per seed, and mean returns with 95% t-intervals at two budgets.

    Args:
        rows: summary rows of the experiment.
        known: curves by run id.
        env: the task.
    """
    spec, costs, mine = envs.spec(env), {}, {}
    for arm in ARMS:
        config, text = arm.config(env, PRESET), lipschitz_arms.text(arm)
        chosen = [row for row in rows if _is(row, arm.model, env, text) and row["run_id"] in known]
        if chosen:
            costs[arm] = per_step(spec, config), config.steps - config.explore
            mine[arm] = [known[row["run_id"]] for row in chosen]
    spent = {arm: cost * steps for arm, (cost, steps) in costs.items()}
    least = min((cost for arm, cost in spent.items() if arm.needs_model), default=np.nan)
    found = []
    for arm, own in mine.items():
        cost, steps = costs[arm]
        line = {"dataset": env, "algo": arm.model, "mechanism": arm.mechanism, "seeds": len(own)}
        line["tera_flops"] = float(f"{spent[arm] / 1e12:.3g}")
        for name, budget in (("cheapest", least), ("half", 0.5 * max(spent.values()))):
            at = [_reached(curve, cost, steps, budget) for curve in own]
            interval = stats.mean_interval(at)
            low, high = (interval.low, interval.high) if interval.bounded else (np.nan, np.nan)
            values = {"": interval.estimate, "_low": low, "_high": high}
            line |= {f"return_{name}{end}": round(float(value), 1) for end, value in values.items()}
        found.append(line)
    return found


def _reached(curve: Sequence[dict[str, Any]], cost: float, steps: int, budget: float) -> float:
    last = curve[-1]["update"]
    return return_at(budget, cost, [steps * at["update"] / last for at in curve], [at["return_mean"] for at in curve])


def _is(row: dict[str, Any], model: str, env: str, text: str) -> bool:
    wanted = (model, env, PRESET, text, "finished")
    return (row["algo"], row["dataset"], row["preset"], row["settings"], row["status"]) == wanted


def table(lines: Sequence[dict[str, Any]]) -> Table:
    """The budgets for the terminal."""
    shown = Table("task", "model", "mechanism", "seeds", "TFLOP per seed", "at the cheapest's", "at half the dearest's")
    for line in lines:
        cells = [
            f"{line[f'return_{at}']:.0f} [{line[f'return_{at}_low']:.0f}, {line[f'return_{at}_high']:.0f}]"
            for at in ("cheapest", "half")
        ]
        shown.add_row(*(str(line[name]) for name in ("dataset", "algo", "mechanism", "seeds", "tera_flops")), *cells)
    return shown


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
    rows = rundir.read_rows(folder / "summary.csv")
    known = curves.read(folder / curves.CURVES)
    lines = [line for env in lipschitz_arms.QUICK for line in budgets(rows, known, env)]
    files.write_atomically(folder / BUDGET, pd.DataFrame(lines).to_csv(index=False))
    make_console().print(table(lines))
    return 0


if __name__ == "__main__":
    main()
