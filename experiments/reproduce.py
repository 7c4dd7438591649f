"""Test the claims: make the runs that are missing, and say what their intervals say.

Every claim is a record with its source, its runs and its rule (experiments/claims.py). With --publish the rows go to
results/<experiment>/summary.csv, their learning curves to curves.csv beside it, and claims.csv, results/CLAIMS.md,
results/index.html and the README's table are written anew from what is published. Rows and curves that are there
already (by run id) are kept as they are, so that evidence grows in parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from experiments import at_once, claims, curves, offline_mbrl, options, plans, publishing
from jaxrl_suite.algorithms import registry
from jaxrl_suite.errors import UserError, exits_cleanly, unknown
from jaxrl_suite.report.claims import REPORTED, Claim, Finding, Needed, judge
from jaxrl_suite.report.formats import spanned
from jaxrl_suite.sweep import grid, tasks
from jaxrl_suite.train import rundir, settings
from jaxrl_suite.train.display import make_console

GROUP = 8  # seeds that train in one program; another number gives other rows after some hundred updates
INTERVAL = ("estimate", "ci_low", "ci_high")


@dataclass(frozen=True)
class Options:
    """Options of a reproduction."""

    only: str = ""
    """Test one claim, by its id; all by default."""
    seeds: str = ""
    """How many seeds, or a range, in groups of eight that train in one program; by default what each claim rests on."""
    preset: str = "quick"
    """Preset of every algorithm."""
    out: Path = Path("runs")
    """Folder for runs."""
    workers: int = 1
    """Runs at a time, each in a process of its own; these share the cores evenly."""
    publish: bool = False
    """Add the rows to results/, and renew its claims, its page and the table in the README."""


def chosen_claims(only: str, preset: str = "quick") -> list[Claim]:
    """The claims to test, of those that are about a preset.

    Raises:
        UserError: no claim has that id, or it is about another preset.
    """
    elsewhere = {claim.id: claims.command_of(claim) for claim in claims.CLAIMS if claim.command}
    if only in elsewhere:
        raise UserError(f"--only={only}: the runs of this claim are made by {elsewhere[only]}")
    known = {claim.id: claim for claim in claims.CLAIMS if not claim.command}
    if only and only not in known:
        raise unknown("claim", only, known)
    asked = [known[only]] if only else list(known.values())
    fitting = [claim for claim in asked if claim.preset in ("", preset)]
    if only and not fitting:
        raise UserError(
            f"--only={only}: this claim is about --preset={known[only].preset}; leave out --preset={preset}"
        )
    return fitting


def runs_of(chosen: Sequence[Claim], seeds: Sequence[int]) -> dict[Needed, Sequence[int]]:
    """The runs that claims need, each once, and their seeds: `seeds`, or what the most demanding claim rests on."""
    counts: dict[Needed, int] = {}
    for claim in chosen:
        counts |= {needed: max(claim.seeds, counts.get(needed, 0)) for needed in claim.needs}
    return {needed: seeds or range(count) for needed, count in counts.items()}


def groups(seeds: Sequence[int]) -> list[str]:
    """Seeds that follow one another, as ranges of at most `GROUP`: `0:8`, `8:16`."""
    return [f"{part[0]}:{part[-1] + 1}" for part in (seeds[at : at + GROUP] for at in range(0, len(seeds), GROUP))]


def published_records(results: Path, preset: str) -> dict[str, dict[str, Any]]:
    """The rows of every published claims.csv at a preset, by claim."""
    tables = [pd.read_csv(path) for path in sorted(results.glob("*/claims.csv"))]
    rows: list[dict[str, Any]] = [row for table in tables for row in table.to_dict("records")]  # type: ignore[misc]
    return {row["id"]: row for row in rows if row["preset"] == preset}


def findings_of(tested: Sequence[Claim], rows: Sequence[Mapping[str, Any]], preset: str) -> list[Finding]:
    """What rows of a preset say about some claims; the other claims of their families count as they are published."""
    names, families = {claim.id for claim in tested}, {claim.family for claim in tested}
    beside = [claim for claim in claims.CLAIMS if claim.family in families and claim.id not in names]
    folders = {publishing.RESULTS / claim.experiment for claim in beside}
    known = [
        row
        for folder in folders
        for row in curves.joined(publishing.published(folder), curves.read(folder / curves.CURVES))
        if row["preset"] == preset
    ]
    return judge(tested, rows, beside, known)


def shown(findings: Sequence[Finding], published: Mapping[str, Mapping[str, Any]]) -> Table:
    """Findings for the terminal, beside what is published."""
    table = Table("claim", "difference [95% interval]", "n", "verdict", "published")
    for finding in findings:
        interval = finding.interval
        estimate = spanned(interval.estimate, interval.low, interval.high)
        there = published.get(finding.claim.id)
        before = f"{spanned(*(there[c] for c in INTERVAL))}, n={there['n']}, {there['verdict']}" if there else "-"
        table.add_row(finding.claim.statement, estimate, str(interval.n), finding.verdict, before)
    return table


def task_of(need: Needed, seeds: str, chosen: Options) -> tasks.Task:
    """A run of one group of seeds as a command."""
    shared = {"algo": need.algo, "dataset": need.dataset, "seeds": seeds, "preset": chosen.preset}
    defaults = settings.fields(next(iter(registry.get(need.algo).presets.values())))
    own = {name: grid.option(name, text, defaults[name]) for name, text in changed(need).items()}
    return tasks.Task("experiments.offline_mbrl", {**shared, "out": str(chosen.out), **own})


def changed(need: Needed) -> dict[str, str]:
    """The fields that a run changes in its preset, as text."""
    return dict(setting.split("=", 1) for setting in need.settings.split())


def words_of(need: Needed, seeds: str, chosen: Options) -> list[str]:
    """The command line of a run of one group of seeds, without its module."""
    return tasks.words(task_of(need, seeds, chosen))[2:]


def run_all(needed: Mapping[Needed, Sequence[int]], chosen: Options, console: Console) -> int:
    """Make the runs, or find them made -> exit code."""
    work = [(need, group) for need, seeds in needed.items() for group in groups(seeds)]
    if chosen.workers > 1:
        facts = plans.facts_of(",".join(dict.fromkeys(need.dataset for need in needed)))
        planned = [
            plans.run_of(task_of(need, group, chosen), changed(need), *facts[need.dataset]) for need, group in work
        ]
        return at_once.work_off(planned, chosen.workers, console)
    for need, group in work:
        words = words_of(need, group, chosen)
        if code := offline_mbrl.train(*options.offline(words, "python -m experiments.reproduce", ""), console):
            return code
    return 0


def rows_of(needed: Mapping[Needed, Sequence[int]], chosen: Options) -> list[dict[str, Any]]:
    """The summary rows of these runs in the folder for runs."""
    summary = chosen.out / offline_mbrl.EXPERIMENT / "summary.csv"
    return [
        row
        for row in rundir.read_rows(summary)
        if int(row["seed"]) in needed.get(Needed(row["algo"], row["dataset"], row["settings"]), ())
        and row["preset"] == chosen.preset
    ]


@exits_cleanly
def main() -> int:
    """Make the runs, show the findings, publish if asked."""
    options.cache_programs()
    chosen = options.parse(Options, options.arguments(), Options(), "python -m experiments.reproduce", __doc__ or "")
    at_once.prepare(chosen.workers)
    tested = chosen_claims(chosen.only, chosen.preset)
    seeds = options.parse_seeds(chosen.seeds) if chosen.seeds else ()
    if max(seeds, default=0) >= REPORTED:
        raise UserError(f"--seeds={chosen.seeds}: reported seeds are 0 to {REPORTED - 1}; others are for tuning")
    publishing.check(chosen.publish, chosen.preset, seeds)
    console = make_console()
    needed = runs_of(tested, seeds)
    code = run_all(needed, chosen, console)
    if code:
        return code
    rows = rows_of(needed, chosen)
    curved = curves.joined(rows, curves.of_rows(rows, chosen.out / offline_mbrl.EXPERIMENT))
    console.print(
        shown(findings_of(tested, curved, chosen.preset), published_records(publishing.RESULTS, chosen.preset))
    )
    if not chosen.only:
        others = sum(bool(claim.command) for claim in claims.CLAIMS)
        console.print(f"{others} claims have commands of their own: see results/CLAIMS.md")
    if chosen.publish:
        publishing.publish_all(rows, offline_mbrl.EXPERIMENT, chosen.out, console)
    return 0


if __name__ == "__main__":
    main()
