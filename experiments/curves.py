"""Learning curves: those of run directories, and those published beside a summary as curves.csv, a line per evaluation.

Published curves belong to rows of the summary by run id, so that pages and figures need no run directories.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import checks
from jaxrl_suite.errors import UserError
from jaxrl_suite.report import comparison
from jaxrl_suite.train import files, identity, rundir

CURVE = "curve"  # what rows hold their evaluations in, once they are joined
CURVES, EVALS, CONFIG = "curves.csv", "eval.csv", "config.json"
SCHEMA_VERSION = 1  # of curves.csv
VALUES = ("return_mean", "score", "q_start", "mc_start")  # columns of eval.csv that are published
COLUMNS = ("run_id", "seed", "update", *VALUES, "schema_version")

Row = Mapping[str, Any]


# --- Run directories ---
class Trained(NamedTuple):
    """What a run directory holds of one setting: its config, and the evaluations of each seed."""

    settings: str  # what its members differ in; empty where all are of one config
    config: dict[str, Any]
    evaluations: dict[str, list[dict[str, Any]]]  # run id -> rows of eval.csv, in their order


def of_run(path: Path) -> list[Trained]:
    """The curves of a run directory, an entry per config that it trained.

    Raises:
        UserError: its configuration or its evaluations are damaged.
    """
    record = read_json(path / CONFIG)
    config, seeds = record.get("config"), record.get("seeds")
    if not isinstance(config, dict) or not isinstance(seeds, list) or not all(isinstance(seed, int) for seed in seeds):
        raise UserError(f"{path / CONFIG} does not hold a config and seeds; repair it, or move the run away")
    rows = rundir.read_rows(path / EVALS)
    checks.require(path / EVALS, rows, ("seed", "update", "return_mean", "score"))
    for row in rows:
        checks.numbers(path / EVALS, row, [name for name in ("seed", "update", *VALUES) if name in row])
    variants = dict(record.get("variants") or [("", {})])
    several = len(variants) > 1
    found = []
    for settings, change in variants.items():
        own = {**config, "config": {**config["config"], **change}} if change else config
        mine = [row for row in rows if not several or comparison.settings_of(row) == settings]
        by_seed = {seed: [row for row in mine if row["seed"] == seed] for seed in seeds}
        evaluations = {identity.run_id(own, seed): by_seed[seed] for seed in seeds if by_seed[seed]}
        found.append(Trained(settings if several else "", own, evaluations))
    return found


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: there is none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON that can be read; repair it, or move the run away") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object; repair it, or move the run away")
    return value


# --- Published curves ---
def read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Run id -> evaluations in the order of updates, of a curves.csv; nothing where there is no such file.

    Raises:
        UserError: it is damaged, half written or of another version.
    """
    if not path.exists():
        return {}
    checks.whole(path)
    rows = rundir.read_rows(path)
    checks.require(path, rows, COLUMNS)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["schema_version"] != SCHEMA_VERSION:
            raise UserError(
                f"{path} has rows of schema {row['schema_version']}, this version reads {SCHEMA_VERSION}; move it away "
                "and publish it anew, or use the version that wrote it"
            )
        checks.numbers(path, row, ("seed", "update", *VALUES))
        found.setdefault(row["run_id"], []).append(row)
    return {run_id: sorted(mine, key=lambda row: row["update"]) for run_id, mine in found.items()}


def joined(rows: Sequence[Row], known: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    """Rows with their evaluations under `CURVE`, those that have some: for claims about whole curves."""
    return [dict(row) | ({CURVE: known[row["run_id"]]} if row["run_id"] in known else {}) for row in rows]


def publish(folder: Path, runs: Path, wanted: Callable[[Row], bool] = lambda row: True) -> tuple[int, int]:
    """Append the curves of published rows that have none yet, from run directories; whole, or not at all.

    Args:
        folder: results/<experiment>, with its summary.csv.
        runs: the folder of the experiment's run directories.
        wanted: which rows shall have a curve; all by default.

    Returns:
        How many rows got their curve, and how many still have none.

    Raises:
        UserError: a file is damaged or cannot be written; curves.csv is as before then.
    """
    path = folder / CURVES
    rows = [row for row in rundir.read_rows(folder / "summary.csv") if wanted(row)]
    with files.locked(path.with_name(f".{path.name}.lock")):
        known = read(path)
        missing = [row for row in rows if row["run_id"] not in known]
        found = of_rows(missing, runs)
        if found:
            before = path.read_text(encoding="utf-8") if known else _text([COLUMNS])
            ids = [row["run_id"] for row in missing if row["run_id"] in found]
            files.write_atomically(path, before + _text(_cells(run_id, at) for run_id in ids for at in found[run_id]))
    return len(found), len(missing) - len(found)


def of_rows(rows: Sequence[Row], runs: Path) -> dict[str, list[dict[str, Any]]]:
    """Run id -> evaluations, of the rows whose run directory is in the folder `runs` and ends where the row says."""
    by_id = {row["run_id"]: row for row in rows}
    found = {}
    with files.guarded(runs):
        paths = sorted(path.parent for path in runs.glob(f"*/{CONFIG}") if (path.parent / EVALS).exists())
    for path in paths if by_id else ():
        for trained in of_run(path):
            for run_id, evaluations in trained.evaluations.items():
                if run_id in by_id and _ends_as(by_id[run_id], evaluations[-1]):
                    found[run_id] = evaluations
    return found


def _ends_as(row: Row, last: Row) -> bool:
    """Whether it is this attempt that was published: a repeated run (--fresh) has the same run id."""
    ours, theirs = row["return_last"], last["return_mean"]
    same = math.isclose(ours, theirs, rel_tol=1e-9) or (math.isnan(ours) and math.isnan(theirs))
    return same and row["updates"] == last["update"]


def _cells(run_id: str, at: Row) -> list[Any]:
    values = [at.get(name, math.nan) for name in ("seed", "update", *VALUES)]
    return [run_id, *values, SCHEMA_VERSION]


def _text(lines: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
