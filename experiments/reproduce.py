"""Test the claims: make the runs that are missing, and say what their intervals say.

Every claim is a record with its source, its runs and its rule (experiments/claims.py). With --publish the rows go to
results/<experiment>/summary.csv, their learning curves to curves.csv beside it, and claims.csv, results/CLAIMS.md,
results/index.html and the README's table are written anew from what is published. Rows and curves that are there
already (by run id) are kept as they are, so that evidence grows in parts. --list names the claims, and --dry-run
the runs that are missing; both start nothing.
"""

from __future__ import annotations

import difflib
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
from jaxrl_suite.train import settings
from jaxrl_suite.train.display import make_console

GROUP = 8  # seeds that train in one program; another number gives other rows after some hundred updates
INTERVAL = ("estimate", "ci_low", "ci_high")


@dataclass(frozen=True)
class Options:
    """Options of a reproduction."""

    only: str = ""
    """Test these claims, by their ids (see --list), with commas between; all by default."""
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
    list: bool = False
    """List the claims: id, published verdict, seeds, and how many of their rows --out has; run nothing."""
    dry_run: bool = False
    """Show which runs are missing in --out, and about how long they take on one worker; run nothing."""


def chosen_claims(only: str, preset: str = "quick") -> list[Claim]:
    """The claims to test, of those that are about a preset: all, or those with the ids in `only`.

    Raises:
        UserError: no claim has such an id, it has a command of its own, or it is about another preset.
    """
    known = {claim.id: claim for claim in claims.CLAIMS}
    if not only:
        return [claim for claim in known.values() if not claim.command and claim.preset in ("", preset)]
    names = grid.split("--only", only)
    for name in names:
        if name not in known:
            raise _no_claim(name, known)
    asked = [known[name] for name in names]
    if elsewhere := [
        f"the runs of {claim.id} are made by {claims.command_of(claim)}" for claim in asked if claim.command
    ]:
        raise UserError(f"--only={only}: {'; '.join(elsewhere)}")
    for claim in asked:
        if claim.preset not in ("", preset):
            raise UserError(
                f"--only={claim.id}: this claim is about --preset={claim.preset}; leave out --preset={preset}"
            )
    return asked


def _no_claim(name: str, known: Mapping[str, Claim]) -> UserError:
    """The error for an id that no claim has; it names some only where they are near, for they are hundreds."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    if near:
        return unknown("claim", name, near)
    return UserError(
        f"unknown claim {name!r}; python -m experiments.reproduce --list names those that it tests, results/CLAIMS.md "
        "the others, too"
    )


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


def work_of(needed: Mapping[Needed, Sequence[int]]) -> list[tuple[Needed, str]]:
    """Every run with one group of its seeds."""
    return [(need, group) for need, seeds in needed.items() for group in groups(seeds)]


def planned(needed: Mapping[Needed, Sequence[int]], chosen: Options) -> list[tasks.Run]:
    """The runs as what they will leave in the folder for runs."""
    facts = plans.facts_of(",".join(dict.fromkeys(need.dataset for need in needed)))
    return [
        plans.run_of(task_of(need, group, chosen), changed(need), *facts[need.dataset])
        for need, group in work_of(needed)
    ]


def run_all(needed: Mapping[Needed, Sequence[int]], chosen: Options, console: Console) -> int:
    """Make the runs, or find them made -> exit code."""
    if chosen.workers > 1:
        return at_once.work_off(planned(needed, chosen), chosen.workers, console)
    for need, group in work_of(needed):
        words = words_of(need, group, chosen)
        if code := offline_mbrl.train(*options.offline(words, "python -m experiments.reproduce", ""), console):
            return code
    return 0


def rows_of(needed: Mapping[Needed, Sequence[int]], chosen: Options) -> list[dict[str, Any]]:
    """The summary rows of these runs in the folder for runs; none where there is no summary."""
    return [
        row
        for row in publishing.published(chosen.out / offline_mbrl.EXPERIMENT)
        if int(row["seed"]) in needed.get(_needed(row), ()) and row["preset"] == chosen.preset
    ]


def _needed(row: Mapping[str, Any]) -> Needed:
    """The run that a row is of."""
    return Needed(row["algo"], row["dataset"], row["settings"])


def listing(tested: Sequence[Claim], seeds: Sequence[int], chosen: Options) -> list[str]:
    """A line per claim: its id, the published verdict, its seeds, and how many of its rows the folder for runs has."""
    published = published_records(publishing.RESULTS, chosen.preset)
    there = {(_needed(row), int(row["seed"])) for row in rows_of(runs_of(tested, seeds), chosen)}
    cells = [("claim", "published", "seeds", f"rows in {chosen.out}")]
    for claim in tested:
        rows = [(need, seed) for need, asked in runs_of([claim], seeds).items() for seed in asked]
        found = published.get(claim.id, {}).get("verdict", "-")
        count = str(len(seeds) or claim.seeds)
        cells.append((claim.id, found, count, f"{sum(row in there for row in rows)} of {len(rows)}"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    # No table: its columns would be as wide as the terminal lets them, and an id in two lines cannot be copied.
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]


def seconds_per_seed(rows: Sequence[Mapping[str, Any]], preset: str) -> dict[Needed, float]:
    """Wall time per seed by rows of a preset, a mean over programs, whose time each of their seeds' rows has."""
    programs: dict[tuple[Needed, str], list[float]] = {}
    for row in rows:
        if row["preset"] == preset:
            programs.setdefault((_needed(row), row["group_id"]), []).append(float(row["wall_seconds"]))
    times: dict[Needed, list[float]] = {}
    for (need, _), seconds in programs.items():
        times.setdefault(need, []).append(max(seconds) / len(seconds))
    return {need: sum(each) / len(each) for need, each in times.items()}


def show_missing(needed: Mapping[Needed, Sequence[int]], chosen: Options, console: Console) -> None:
    """The runs that are missing, and about how long they take."""
    runs = planned(needed, chosen)
    known = seconds_per_seed(publishing.published(publishing.RESULTS / offline_mbrl.EXPERIMENT), chosen.preset)
    left = [(run, need) for run, (need, _) in zip(runs, work_of(needed), strict=True) if tasks.state(run) != "finished"]
    table = Table("missing run", "seeds", "about, minutes")
    for run, need in left:
        minutes = f"{known[need] * len(run.seeds) / plans.MINUTE:.1f}" if need in known else "-"
        table.add_row(run.name, f"{run.seeds[0]}:{run.seeds[-1] + 1}", minutes)
    if left:
        console.print(table)
    total = sum(known.get(need, 0.0) * len(run.seeds) for run, need in left)
    console.print(f"{len(left)} of {len(runs)} runs are missing in {chosen.out}{_how_long(total, left, known)}")


def _how_long(seconds: float, left: Sequence[tuple[tasks.Run, Needed]], known: Mapping[Needed, float]) -> str:
    """What to add to the number of missing runs; nothing where none is missing."""
    if not left:
        return ""
    strange = sum(need not in known for _, need in left)
    if strange == len(left):
        return "; there are no published rows of them to tell the time from"
    more = f", and {strange} more runs of which no rows are published" if strange else ""
    return (
        f"; about {seconds / plans.MINUTE:.1f} minutes on one worker by the published times, which are of other "
        f"machines{more}"
    )


def _others(chosen: Options, console: Console) -> None:
    """Where all claims are asked for, how many there are beside those."""
    if not chosen.only:
        others = sum(bool(claim.command) for claim in claims.CLAIMS)
        console.print(f"{others} claims have commands of their own: see results/CLAIMS.md")


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
    if chosen.list:
        console.print("\n".join(listing(tested, seeds, chosen)))
    if chosen.dry_run:
        show_missing(needed, chosen, console)
    if chosen.list or chosen.dry_run:
        _others(chosen, console)
        return 0
    code = run_all(needed, chosen, console)
    if code:
        return code
    rows = rows_of(needed, chosen)
    curved = curves.joined(rows, curves.of_rows(rows, chosen.out / offline_mbrl.EXPERIMENT))
    console.print(
        shown(findings_of(tested, curved, chosen.preset), published_records(publishing.RESULTS, chosen.preset))
    )
    _others(chosen, console)
    if chosen.publish:
        publishing.publish_all(rows, offline_mbrl.EXPERIMENT, chosen.out, console)
    return 0


if __name__ == "__main__":
    main()
