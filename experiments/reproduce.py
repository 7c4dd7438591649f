"""Run an experiment's published comparison again, and with --publish add its rows to results/.

`offline_mbrl`: BC and RAVL with the quick preset on hopper-medium-replay-mini. Two claims are tested on the pairs of
seeds: RAVL's last return is above BC's, and above the mean return of the data set's episodes. Rows that are in results/
already (by run id) are kept as they are, so that evidence grows in parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from experiments import offline_mbrl, options
from jaxrl_suite import data
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.errors import UserError, exits_cleanly, unknown
from jaxrl_suite.report import stats, tables
from jaxrl_suite.train import rundir, session

RESULTS = Path(__file__).resolve().parent.parent / "results"
EXPERIMENTS = {"offline_mbrl": ("bc", "ravl")}
MARKERS = ("<!-- table:offline_mbrl -->", "<!-- /table -->")
CLAIM_COLUMNS = [
    "claim",
    "kind",
    "dataset",
    "preset",
    "statistic",
    "estimate",
    "low",
    "high",
    "n",
    "seeds",
    "verdict",
    "command",
]


@dataclass(frozen=True)
class Options:
    """Options of a reproduction."""

    experiment: str = "offline_mbrl"
    """Which experiment."""
    seeds: str = "8"
    """How many seeds, or a range; reported seeds are 0 to 99."""
    dataset: str = "hopper-medium-replay-mini"
    """Data set."""
    preset: str = "quick"
    """Preset of every algorithm."""
    out: Path = Path("runs")
    """Folder for runs."""
    publish: bool = False
    """Add the rows to results/, and renew its claims and the table in the README."""


def verdict(interval: stats.Interval) -> str:
    """Superiority: supported where the whole interval is above zero, not supported where it is below."""
    if interval.low > 0:
        return "supported"
    return "not supported" if interval.high < 0 else "inconclusive"


def claims(rows: Sequence[dict], chosen: Options) -> list[dict]:
    """Paired differences of last returns over the seeds that both algorithms finished, at one data set and preset."""
    rows = [row for row in rows if (row["dataset"], row["preset"]) == (chosen.dataset, chosen.preset)]
    by = {
        algo: {int(row["seed"]): row for row in rows if row["algo"] == algo and row["status"] == "finished"}
        for algo in ("bc", "ravl")
    }
    seeds = sorted(set(by["bc"]) & set(by["ravl"]))
    ravl = [float(by["ravl"][seed]["return_last"]) for seed in seeds]
    lines = {
        "RAVL's last return is above BC's": [float(by["bc"][seed]["return_last"]) for seed in seeds],
        "RAVL's last return is above the mean return of the data": [
            float(by["ravl"][seed]["behaviour_return"]) for seed in seeds
        ],
    }
    return [_claim(name, ravl, other, seeds, chosen) for name, other in lines.items()]


def _claim(name: str, ours: Sequence[float], theirs: Sequence[float], seeds: Sequence[int], chosen: Options) -> dict:
    interval = stats.paired_difference(np.asarray(ours), np.asarray(theirs))
    return {
        "claim": name,
        "kind": "superiority",
        "dataset": chosen.dataset,
        "preset": chosen.preset,
        "statistic": "mean paired difference of last returns, 95% t-interval",
        "estimate": round(interval.estimate, 3),
        "low": round(interval.low, 3),
        "high": round(interval.high, 3),
        "n": interval.n,
        "seeds": " ".join(map(str, seeds)),
        "verdict": verdict(interval),
        "command": f"python -m experiments.reproduce --preset={chosen.preset} --seeds=FIRST:END --publish",
    }


def readme_table(rows: Sequence[dict], info: data.DatasetInfo, preset: str) -> str:
    """The table of the README, from published rows alone."""
    mine = [row for row in rows if row["algo"] == "ravl" and (row["dataset"], row["preset"]) == (info.name, preset)]
    spec = envs.spec(str(info.env))
    return tables.to_markdown(mine, offline_mbrl.references(spec, info, RESULTS, preset, "ravl"))


def _publish(rows: list[dict], chosen: Options, console: Console) -> None:
    folder = RESULTS / chosen.experiment
    folder.mkdir(parents=True, exist_ok=True)
    known = (
        {row["run_id"] for row in rundir.read_rows(folder / "summary.csv")}
        if (folder / "summary.csv").exists()
        else set()
    )
    rundir.upsert_rows(
        folder / "summary.csv", [row for row in rows if row["run_id"] not in known], session.SUMMARY_COLUMNS
    )
    published = rundir.read_rows(folder / "summary.csv")
    pd.DataFrame(claims(published, chosen), columns=CLAIM_COLUMNS).to_csv(folder / "claims.csv", index=False)
    readme = RESULTS.parent / "README.md"
    text = readme.read_text(encoding="utf-8")
    if not all(marker in text for marker in MARKERS):
        raise UserError(f"README.md lacks the markers {' ... '.join(MARKERS)}; put them where the table belongs")
    head, _, rest = text.partition(MARKERS[0])
    tail = rest.partition(MARKERS[1])[2]
    table = readme_table(published, data.load(chosen.dataset)[1], chosen.preset)
    readme.write_text(f"{head}{MARKERS[0]}\n{table}\n{MARKERS[1]}{tail}", encoding="utf-8")
    console.print(f"published: {folder}; figures: python -m paper_figs")


@exits_cleanly
def main() -> int:
    """Run the comparison, show its claims, publish if asked."""
    options.cache_programs()
    chosen = options.parse(Options, options.arguments(), Options(), "python -m experiments.reproduce", __doc__ or "")
    if chosen.experiment not in EXPERIMENTS:
        raise unknown("experiment", chosen.experiment, EXPERIMENTS)
    console = Console(highlight=False, soft_wrap=True)
    for algo in EXPERIMENTS[chosen.experiment]:
        words = [f"--{name}={getattr(chosen, name)}" for name in ("seeds", "dataset", "preset", "out")]
        shared, entry, config = options.offline([f"--algo={algo}", *words], "python -m experiments.reproduce", "")
        code = offline_mbrl.train(shared, entry, config, console)
        if code:
            return code
    seeds = set(options.parse_seeds(chosen.seeds))
    name = data.load(chosen.dataset)[1].name
    rows: list[dict[str, Any]] = [
        row
        for row in rundir.read_rows(chosen.out / chosen.experiment / "summary.csv")
        if int(row["seed"]) in seeds and (row["dataset"], row["preset"]) == (name, chosen.preset)
    ]
    for claim in claims(rows, chosen):
        console.print(
            f"{claim['claim']}: {claim['estimate']:,.1f} [{claim['low']:,.1f}, {claim['high']:,.1f}], n={claim['n']}: "
            f"{claim['verdict']}"
        )
    if chosen.publish:
        _publish(rows, chosen, console)
    return 0


if __name__ == "__main__":
    main()
