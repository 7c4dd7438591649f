"""Publishing: rows that were run become rows of results/, and what is made of them is made anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from experiments import claims, curves, findings, offline_mbrl, report
from experiments.needs import REPLAYS
from jaxrl_suite import data
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.errors import UserError
from jaxrl_suite.report import comparison, formats, tables
from jaxrl_suite.report.claims import REPORTED
from jaxrl_suite.train import rundir, session

RESULTS = offline_mbrl.PUBLISHED
PRESET = "quick"  # that of the README's tables


def check(publish: bool, preset: str, seeds: Sequence[int]) -> None:
    """Refuse to publish what nobody should cite, before it is made.

    Raises:
        UserError: tuning seeds, or the preset of seconds.
    """
    if publish and preset == "smoke":
        raise UserError("--publish takes no runs of --preset=smoke, which only try the code; take quick or paper")
    if publish and max(seeds, default=0) >= REPORTED:
        raise UserError(f"--publish takes reported seeds, 0 to {REPORTED - 1}; others are for tuning")


def publish_all(rows: Sequence[dict], experiment: str, runs: Path, console: Console) -> None:
    """Publish rows with their learning curves out of the folder `runs`; renew claims, README and page."""
    publish(rows, experiment, RESULTS)
    added, lacking = curves.publish(RESULTS / experiment, runs / experiment)
    publish([], experiment, RESULTS)  # claims about curves, now that these are there
    console.print(f"learning curves: {added} added; {lacking} published rows have none")
    renew_readme(RESULTS.parent / "README.md")
    report.write(RESULTS, RESULTS / "index.html")
    console.print(f"published: {RESULTS}; figures: python -m paper_figs")


def published(folder: Path) -> list[dict[str, Any]]:
    """The summary rows of an experiment's results; none where nothing is published."""
    path = folder / "summary.csv"
    return rundir.read_rows(path) if path.exists() else []


def publish(rows: Sequence[dict], experiment: str, results: Path) -> None:
    """Append the rows that are not published yet; write the experiment's claims and the overview anew.

    Raises:
        UserError: with these rows the claims could not be judged; nothing has been written then.
    """
    path = results / experiment / "summary.csv"
    there = published(path.parent)
    known = {row["run_id"] for row in there}
    fresh = [row for row in rows if row["run_id"] not in known]
    known_curves = curves.read(path.with_name(curves.CURVES))
    found = claims.records(curves.joined([*there, *fresh], known_curves), experiment)
    path.parent.mkdir(parents=True, exist_ok=True)
    rundir.upsert_rows(path, fresh, session.SUMMARY_COLUMNS)
    pd.DataFrame(found, columns=claims.COLUMNS).to_csv(path.parent / "claims.csv", index=False)
    (results / "CLAIMS.md").write_text(claims.overview(results), encoding="utf-8")
    words = path.with_name("README.md")
    if words.exists():
        text = findings.renewed(words.read_text(encoding="utf-8"), path.with_name("claims.csv"), PRESET)
        words.write_text(text, encoding="utf-8")


def first_table(rows: Sequence[dict]) -> str:
    """What the README's first command prints, from published rows alone, whose seeds stand in summary.csv."""
    info = data.load(claims.MINI)[1]
    wanted = ("ravl", "", info.name, PRESET)
    mine = [row for row in rows if (row["algo"], row["settings"], row["dataset"], row["preset"]) == wanted]
    spec = envs.spec(str(info.env))
    references = offline_mbrl.references(spec, info, RESULTS, PRESET, "ravl")
    return tables.to_markdown(mine, references, seeds=False)


def suite_table(rows: Sequence[dict]) -> str:
    """All algorithms of the suite on its data sets, by last score."""

    def belongs(row: Mapping[str, Any]) -> bool:
        known = claims.SUITE.get(row["algo"]) == comparison.settings_of(row)
        return known and row["dataset"] in REPLAYS and row["preset"] == PRESET

    compared = comparison.compare([row for row in rows if belongs(row)], "score_last")
    return formats.FORMATS["markdown"][1](compared, "dataset")


TABLES = {"offline_mbrl": first_table, "suite": suite_table}


def renew_readme(readme: Path) -> None:
    """Put the tables of the published rows where the README's markers are.

    Raises:
        UserError: the markers are gone.
    """
    text = readme.read_text(encoding="utf-8")
    rows = published(RESULTS / offline_mbrl.EXPERIMENT)
    for name, table in TABLES.items():
        text = findings.replaced(text, name, table(rows))
    readme.write_text(text, encoding="utf-8")
