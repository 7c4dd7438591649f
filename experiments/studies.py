"""What the experiments of studies share: training a group of runs, showing claims, publishing rows and files."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console

from experiments import curves, publishing, report, reproduce
from jaxrl_suite.report.claims import REPORTED, Claim, judge
from jaxrl_suite.train import interrupts, loop, rundir, session
from jaxrl_suite.train.display import Display

SUMMARY = "summary.csv"


class Choice(Protocol):
    """Options that all groups of an experiment share."""

    @property
    def preset(self) -> str:
        """Settings that the runs started from."""
        ...

    @property
    def out(self) -> Path:
        """Folder for runs."""
        ...

    @property
    def fresh(self) -> bool:
        """Start over beside earlier runs."""
        ...


class Group(ABC):
    """Members that train side by side in one program."""

    id: str
    label: str
    dataset: str
    frozen: dict[str, Any]
    configs: Sequence[dict[str, Any]]  # of each member
    tables: Sequence[str] = ()  # files that it adds rows to beside the summary, by key_id

    @abstractmethod
    def shown(self) -> dict[str, Any]:
        """What stands in the run's config.json."""

    @abstractmethod
    def job(self, built: session.Built, folder: Path) -> loop.Job:
        """What to train; `folder` holds the experiment's tables."""

    @abstractmethod
    def complete(self, rows: list[dict], job: loop.Job, outcome: loop.Outcome, path: Path) -> None:
        """Add to the rows what is measured on the final agents; `path` is the run's directory."""


def run_group(group: Group, chosen: Choice, experiment: str, columns: Sequence[str], display: Display) -> int:
    """Train a group and write its rows to `<out>/<experiment>/summary.csv`, or find it trained -> exit code.

    Raises:
        UserError: a table that rows are to be added to is damaged; nothing has been trained then.
    """
    built = session.build(group.frozen)
    shown = group.shown()
    for name, key in ((SUMMARY, "run_id"), *((table, "key_id") for table in group.tables)):
        rundir.check_rows(chosen.out / experiment / name, key)  # now, rather than after hours of training
    with rundir.open_run(chosen.out, experiment, group.label, shown, group.id, chosen.fresh) as directory:
        if directory.state == "finished":
            display.note(f"{group.label}: has finished before")
            return 0
        resumed, folder = directory.state == "resumable", directory.path.parent
        job = group.job(built, folder)
        outcome = loop.run(job, directory, display)
        if not outcome.finished:
            display.note(f"interrupted and saved; {interrupts.resumes(chosen.fresh)}")
            return interrupts.RESUMABLE
        more = {"dataset": group.dataset, "preset": chosen.preset, "group_id": group.id, "resumed": resumed}
        more["behaviour_return"] = math.nan
        rows = session.summary_rows(directory, job.members, group.configs, outcome, more)
        group.complete(rows, job, outcome, directory.path)
        rundir.upsert_rows(folder / SUMMARY, rows, columns)
        directory.finish("diverged" if np.all(outcome.diverged) else "finished")
    return 0


def rows_of(run_ids: set[str], out: Path, experiment: str) -> list[dict[str, Any]]:
    """The summary rows of these runs in the folder `out`."""
    return [row for row in rundir.read_rows(out / experiment / SUMMARY) if row["run_id"] in run_ids]


def show_claims(claims: Sequence[Claim], rows: Sequence[dict[str, Any]], preset: str, console: Console) -> None:
    """What the rows say about the claims that they are enough for; nothing about runs of tuning seeds."""
    if any(row["seed"] >= REPORTED for row in rows):
        return
    tested = [finding.claim for finding in judge(claims, rows) if finding.interval.n]
    if tested:
        findings = reproduce.findings_of(tested, rows, preset)
        console.print(reproduce.shown(findings, reproduce.published_records(publishing.RESULTS, preset)))


def publish(
    rows: Sequence[dict[str, Any]],
    experiment: str,
    runs: Path,
    console: Console,
    beside: Mapping[str, Sequence[str]] | None = None,
    curved: Callable[[Mapping[str, Any]], bool] = lambda row: True,
) -> None:
    """Add rows to results/, renew the claims and the page.

    Args:
        rows: summary rows.
        experiment: its name.
        runs: where its tables and runs are.
        console: told where the results are.
        beside: columns of further tables, by file name; their rows of freshly published runs are added too, by key_id.
        curved: the rows whose learning curves are published, if their runs left any.
    """
    folder = publishing.RESULTS / experiment
    fresh = {row["run_id"] for row in rows} - {row["run_id"] for row in publishing.published(folder)}
    publishing.publish(rows, experiment, publishing.RESULTS)
    for name, columns in (beside or {}).items():
        mine = [row for row in rundir.read_rows(runs / name) if row["run_id"] in fresh]
        kept = [{column: row[column] for column in columns} for row in mine]
        rundir.upsert_rows(folder / name, kept, columns, "key_id")
    added, _ = curves.publish(folder, runs, curved)
    publishing.publish([], experiment, publishing.RESULTS)  # claims about curves, now that these are there
    report.write(publishing.RESULTS, publishing.RESULTS / "index.html")
    more = f", {added} learning curves" if added else ""
    console.print(f"published: {folder}{more}; figures: python -m paper_figs --only={experiment}")
