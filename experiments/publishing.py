"""Publishing: rows that were run become rows of results/, and what is made of them is made anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from experiments import claims, curves, offline_mbrl, report
from jaxrl_suite import data
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.errors import UserError
from jaxrl_suite.report import tables
from jaxrl_suite.train import rundir, session

RESULTS = offline_mbrl.PUBLISHED
MARKERS = ("<!-- table:offline_mbrl -->", "<!-- /table -->")


def publish_all(rows: Sequence[dict], experiment: str, runs: Path, console: Console) -> None:
    """Publish rows with their learning curves out of the folder `runs`; renew claims, README and page."""
    publish(rows, experiment, RESULTS)
    added, lacking = curves.publish(RESULTS / experiment, runs / experiment)
    console.print(f"learning curves: {added} added; {lacking} published rows have none")
    renew_readme(RESULTS.parent / "README.md", "quick")
    report.write(RESULTS, RESULTS / "index.html")
    console.print(f"published: {RESULTS}; figures: python -m paper_figs")


def publish(rows: Sequence[dict], experiment: str, results: Path) -> None:
    """Append the rows that are not published yet; write the experiment's claims and the overview anew.

    Raises:
        UserError: with these rows the claims could not be judged; nothing has been written then.
    """
    path = results / experiment / "summary.csv"
    published = rundir.read_rows(path) if path.exists() else []
    known = {row["run_id"] for row in published}
    fresh = [row for row in rows if row["run_id"] not in known]
    found = claims.records([*published, *fresh], experiment)
    path.parent.mkdir(parents=True, exist_ok=True)
    rundir.upsert_rows(path, fresh, session.SUMMARY_COLUMNS)
    pd.DataFrame(found, columns=claims.COLUMNS).to_csv(path.parent / "claims.csv", index=False)
    (results / "CLAIMS.md").write_text(claims.overview(results), encoding="utf-8")


def readme_table(rows: Sequence[dict], info: data.DatasetInfo, preset: str) -> str:
    """The table of the README, from published rows alone, whose seeds stand in summary.csv."""
    wanted = ("ravl", "", info.name, preset)
    mine = [row for row in rows if (row["algo"], row["settings"], row["dataset"], row["preset"]) == wanted]
    spec = envs.spec(str(info.env))
    references = offline_mbrl.references(spec, info, RESULTS, preset, "ravl")
    return tables.to_markdown(mine, references, seeds=False)


def renew_readme(readme: Path, preset: str) -> None:
    """Put the table of the published rows between the README's markers.

    Raises:
        UserError: the markers are gone.
    """
    text = readme.read_text(encoding="utf-8")
    if not all(marker in text for marker in MARKERS):
        raise UserError(f"README.md lacks the markers {' ... '.join(MARKERS)}; put them where the table belongs")
    head, _, rest = text.partition(MARKERS[0])
    tail = rest.partition(MARKERS[1])[2]
    published = rundir.read_rows(RESULTS / offline_mbrl.EXPERIMENT / "summary.csv")
    table = readme_table(published, data.load(claims.MINI)[1], preset)
    readme.write_text(f"{head}{MARKERS[0]}\n{table}\n{MARKERS[1]}{tail}", encoding="utf-8")
