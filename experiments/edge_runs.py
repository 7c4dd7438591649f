"""Making the runs that `edge_tasks` describes, and asking them about the edge of reach.

The runs are those of `experiments.offline_mbrl` and lie in its folder of run directories; their rows, with what they
were asked, stand in <out>/edge_of_reach/summary.csv.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from experiments import at_once, edge_probes, offline_mbrl, options, plans, reproduce
from experiments.box_studies import EXPERIMENT
from jaxrl_suite import data
from jaxrl_suite.report import stats
from jaxrl_suite.report.claims import Needed
from jaxrl_suite.sweep import tasks
from jaxrl_suite.train import rundir


class Options(NamedTuple):
    """What all runs of a task share."""

    seeds: str
    preset: str
    out: Path
    more: dict[str, Any]  # further options of `experiments.offline_mbrl`


def _task(need: Needed, chosen: Options) -> tasks.Task:
    task = reproduce.task_of(need, chosen.seeds, reproduce.Options(preset=chosen.preset, out=chosen.out))
    return task._replace(options={**task.options, **chosen.more})


def at_a_time(needs: Sequence[Needed], chosen: Options, workers: int, console: Console) -> int:
    """Train arms, `workers` at a time, without asking them anything yet -> exit code."""
    facts = plans.facts_of(",".join(dict.fromkeys(need.dataset for need in needs)))
    runs = [plans.run_of(_task(need, chosen), reproduce.changed(need), *facts[need.dataset]) for need in needs]
    return at_once.work_off(runs, workers, console)


def run(need: Needed, chosen: Options, console: Console) -> tuple[int, list[dict[str, Any]]]:
    """Train an arm, or find it trained -> exit code and its summary rows, with what its edge of reach is like."""
    words, out = tasks.words(_task(need, chosen))[2:], chosen.out
    shared, entry, config = options.offline(words, "python -m experiments.edge_of_reach", "")
    code = offline_mbrl.train(shared, entry, config, console)
    if code:
        return code, []
    dataset, info = data.load(need.dataset)
    described = offline_mbrl.describe(shared, entry, config, offline_mbrl.spec_of(dataset, info), info)
    summary = out / EXPERIMENT / "summary.csv"
    known = {row["run_id"]: row for row in rundir.read_rows(summary)} if summary.exists() else {}
    ids = described.run_ids
    if shared.fresh or not all(run_id in known for run_id in ids):
        path, _ = rundir.look(out, offline_mbrl.EXPERIMENT, described.label, described.group)
        trained = {row["run_id"]: row for row in rundir.read_rows(out / offline_mbrl.EXPERIMENT / "summary.csv")}
        probed = zip(ids, edge_probes.of_run(path, dataset), strict=True)
        known |= {run_id: {**trained[run_id], "experiment": EXPERIMENT, **found} for run_id, found in probed}
        rundir.upsert_rows(summary, [known[run_id] for run_id in ids], list(known[ids[0]]))
    return 0, [known[run_id] for run_id in ids]


def table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    """A study for the terminal: means over seeds, with 95% t-intervals of the return."""
    shown = Table("algorithm", "settings", "seeds", "return", "score", "Q at start", "true", "spread at the edge")
    shown.title = title
    arms = dict.fromkeys((row["algo"], row["settings"]) for row in rows)
    for arm in arms:
        mine = [row for row in rows if (row["algo"], row["settings"]) == arm]
        interval = stats.mean_interval([float(row["return_last"]) for row in mine])
        bounds = f" [{interval.low:,.0f}, {interval.high:,.0f}]" if interval.bounded else ""
        means = [_mean([float(row[name]) for row in mine]) for name in ("score_last", "q_last", "mc_last")]
        effect = f"d = {sum(float(row['spread_effect']) for row in mine) / len(mine):.2f}"
        shown.add_row(*arm, str(len(mine)), f"{interval.estimate:,.0f}{bounds}", *means, effect)
    return shown


def _mean(values: Sequence[float]) -> str:
    """A mean in a cell; a dash where there is none, such as a score on a task without reference scores."""
    mean = sum(values) / len(values)
    return "-" if math.isnan(mean) else f"{mean:,.1f}"
