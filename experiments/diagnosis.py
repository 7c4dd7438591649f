"""What `--diagnose` leaves in the directory of a run on recorded data: diagnosis.csv, a row per member and evaluation.

Asked are the edge of reach of its rollouts (`edge_probes`), and its values' slopes and the model's errors, plain and
as they change values (`offline_probes`). seconds.csv beside it splits the time of the whole run by part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from experiments import edge_probes, lipschitz_probes, offline_probes
from experiments.edge_probes import member
from jaxrl_suite.algorithms import dyna
from jaxrl_suite.train import rundir, session
from jaxrl_suite.train.members import Member
from jaxrl_suite.types import Algorithm, Dataset, Spec, Tree

FILE, KEY, SECONDS = "diagnosis.csv", "key_id", "seconds.csv"
REACH = "Edge of reach: standard deviations of critics and of the model's members, inside rollouts and at their ends"
VALUES = "Values and model on held-out rows: value-aware model error, and how steep values are"

Ask = Callable[[Tree, int], dict[str, float]]  # a member's state and seed -> columns


def asker(algorithm: Algorithm, spec: Spec, config: dyna.Config, dataset: Dataset) -> Ask:
    """All that is asked of a member."""
    reach = edge_probes.asker(algorithm, spec, config, dataset)
    values = offline_probes.asker(algorithm, spec, config, dataset)
    return lambda state, seed: reach(state) | values(state, seed)


def observer(ask: Ask, members: Sequence[Member], path: Path) -> Callable[[Tree, int], None]:
    """What `loop.Job.observe` takes: asks every member at every evaluation, for diagnosis.csv in the run's folder.

    A run that is resumed asks again where it was cut back, and the same rows take the place of the old ones.
    """

    def observe(states: Tree, update: int) -> None:
        who = [(one.seed, one.variant.settings) for one in members]
        _write(path, update, who, [ask(member(states, index), one.seed) for index, one in enumerate(members)])

    return observe


def written(path: Path, dataset: Dataset) -> list[dict[str, Any]]:
    """The rows of a finished run's last evaluation, asked now and written where they were not at the time.

    The times of its parts are taken now, too, unless they were before.
    """
    run = session.load(path)
    config = session.build(run.config).config
    if not (path / SECONDS).exists():
        taken = offline_probes.seconds(run.algorithm, run.spec, config, dataset, run.seeds, run.parameters)
        pd.DataFrame([{**taken, "members": len(run.members)}]).to_csv(path / SECONDS, index=False)
    last = int(run.evals["update"].max())
    known = _read(path, last)
    if len(known) < len(run.members):
        # A run without variants is loaded without the words for its settings; its evaluations have them.
        lines = run.evals[run.evals["update"] == last]
        ask = asker(run.algorithm, run.spec, config, dataset)
        found = [ask(member(run.parameters, index), one.seed) for index, one in enumerate(run.members)]
        _write(path, last, list(zip(lines["seed"], lines["settings"], strict=True)), found)
        known = _read(path, last)
    return known


def _read(path: Path, update: int) -> list[dict[str, Any]]:
    """The rows of an evaluation; none where not all was asked then."""
    if not (path / FILE).exists():
        return []
    rows = pd.read_csv(path / FILE, dtype={"settings": str}).fillna({"settings": ""})
    if not set(lipschitz_probes.MEASURES) <= set(rows.columns):  # an earlier version asked for less
        return []
    return [
        {str(name): value for name, value in row.items()} for row in rows[rows["update"] == update].to_dict("records")
    ]


def _write(path: Path, update: int, who: Sequence[tuple[int, str]], found: Sequence[Mapping[str, float]]) -> None:
    rows = [
        {KEY: f"{update}-{place}", "update": update, "seed": seed, "settings": settings, **columns}
        for place, ((seed, settings), columns) in enumerate(zip(who, found, strict=True))
    ]
    rundir.upsert_rows(path / FILE, rows, list(rows[0]), KEY)


def tables(rows: Sequence[Mapping[str, Any]], path: Path) -> list[Table]:
    """A diagnosis for the terminal, a row per member, of the last evaluation; and the run's time by part."""
    reach = Table(
        "seed", "settings", "targets at the ends", "critics differ inside", "at the ends", "effect", title=REACH
    )
    for name in ("model differs inside", "at the ends"):
        reach.add_column(name)
    values = Table("seed", "settings", "V error", "model error", "bound", "slope", "steepest", "|V|", title=VALUES)
    at_ends = ("inside_spread", "edge_spread", "spread_effect", "inside_penalty", "edge_penalty")
    of_values = ("value_error", "model_error", "lipschitz_upper", "slope_mean", "slope_max", "value_scale")
    for row in rows:
        who = str(row["seed"]), str(row["settings"])
        reach.add_row(*who, f"{float(row['edge_share']):.1%}", *(f"{float(row[name]):.3g}" for name in at_ends))
        values.add_row(*who, *(f"{float(row[name]):.3g}" for name in of_values))
    (taken,) = pd.read_csv(path / SECONDS).to_dict("records")
    parts = [f"{float(taken[f'seconds_{name}']):.3g}" for name in ("fit", "dream", "learn")]
    split = Table("fits of the model", "rollouts", "updates", title="Seconds of the whole run, for all members")
    split.add_row(*parts)
    return [reach, values, split]
