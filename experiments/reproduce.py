"""Test the claims: make the runs that are missing, and say what their intervals say.

Every claim is a record with its source, its runs and its rule (experiments/claims.py). With --publish the rows go to
results/<experiment>/summary.csv, their learning curves to curves.csv beside it, and claims.csv, results/CLAIMS.md,
results/index.html and the README's table are written anew from what is published. Rows and curves that are there
already (by run id) are kept as they are, so that evidence grows in parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from experiments import claims, curves, offline_mbrl, options, report
from jaxrl_suite import data
from jaxrl_suite.algorithms import registry
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.errors import UserError, exits_cleanly, unknown
from jaxrl_suite.report import tables
from jaxrl_suite.report.claims import REPORTED, Claim, Finding, Needed, judge
from jaxrl_suite.sweep import grid, tasks
from jaxrl_suite.train import rundir, session, settings

RESULTS = Path(__file__).resolve().parent.parent / "results"
MARKERS = ("<!-- table:offline_mbrl -->", "<!-- /table -->")


@dataclass(frozen=True)
class Options:
    """Options of a reproduction."""

    only: str = ""
    """Test one claim, by its id; all by default."""
    seeds: str = "8"
    """How many seeds, or a range; reported seeds are 0 to 99."""
    preset: str = "quick"
    """Preset of every algorithm."""
    out: Path = Path("runs")
    """Folder for runs."""
    publish: bool = False
    """Add the rows to results/, and renew its claims, its page and the table in the README."""


def chosen_claims(only: str) -> list[Claim]:
    """The claims to test.

    Raises:
        UserError: no claim has that id.
    """
    known = {claim.id: claim for claim in claims.CLAIMS}
    if only and only not in known:
        raise unknown("claim", only, known)
    return [known[only]] if only else list(known.values())


def runs_of(chosen: Sequence[Claim]) -> list[Needed]:
    """The runs that claims need, each once, in the order in which they are first needed."""
    return list(dict.fromkeys(needed for claim in chosen for needed in claim.needs))


def shown(findings: Sequence[Finding]) -> Table:
    """Findings for the terminal."""
    table = Table("claim", "difference [95% interval]", "n", "verdict")
    for finding in findings:
        interval = finding.interval
        bounds = f" [{interval.low:,.1f}, {interval.high:,.1f}]" if interval.bounded else ""
        estimate = f"{interval.estimate:,.1f}{bounds}"
        table.add_row(finding.claim.statement, estimate, str(interval.n), finding.verdict)
    return table


def readme_table(rows: Sequence[dict], info: data.DatasetInfo, preset: str) -> str:
    """The table of the README, from published rows alone, whose seeds stand in summary.csv."""
    wanted = ("ravl", "", info.name, preset)
    mine = [row for row in rows if (row["algo"], row["settings"], row["dataset"], row["preset"]) == wanted]
    spec = envs.spec(str(info.env))
    references = offline_mbrl.references(spec, info, RESULTS, preset, "ravl")
    return tables.to_markdown(mine, references, seeds=False)


def publish(rows: Sequence[dict], experiment: str, results: Path) -> None:
    """Append the rows that are not published yet; write the experiment's claims and the overview anew.

    Raises:
        UserError: with these rows the claims could not be judged; nothing has been written then.
    """
    path = results / experiment / "summary.csv"
    published = rundir.read_rows(path) if path.exists() else []
    known = {row["run_id"] for row in published}
    fresh = [row for row in rows if row["run_id"] not in known]
    mine = [claim for claim in claims.CLAIMS if claim.experiment == experiment]
    records = [
        claims.record(finding, preset)
        for preset in sorted({str(row["preset"]) for row in [*published, *fresh]})
        for finding in judge(mine, [row for row in [*published, *fresh] if row["preset"] == preset])
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    rundir.upsert_rows(path, fresh, session.SUMMARY_COLUMNS)
    pd.DataFrame(records, columns=claims.COLUMNS).to_csv(path.parent / "claims.csv", index=False)
    (results / "CLAIMS.md").write_text(claims.overview(results), encoding="utf-8")


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


def words_of(need: Needed, chosen: Options) -> list[str]:
    """The command line of a run."""
    shared = {"algo": need.algo, "dataset": need.dataset, "seeds": chosen.seeds, "preset": chosen.preset}
    defaults = settings.fields(next(iter(registry.get(need.algo).presets.values())))
    changed = dict(setting.split("=", 1) for setting in need.settings.split())
    own = {name: grid.option(name, text, defaults[name]) for name, text in changed.items()}
    return tasks.words(tasks.Task("", {**shared, "out": str(chosen.out), **own}))[2:]


def run_all(needed: Sequence[Needed], chosen: Options, console: Console) -> int:
    """Make the runs, or find them made; the exit code of the first that was interrupted, else 0."""
    for need in needed:
        code = offline_mbrl.train(
            *options.offline(words_of(need, chosen), "python -m experiments.reproduce", ""), console
        )
        if code:
            return code
    return 0


def rows_of(needed: Sequence[Needed], seeds: set[int], chosen: Options) -> list[dict[str, Any]]:
    """The summary rows of these runs in the folder for runs."""
    summary = chosen.out / offline_mbrl.EXPERIMENT / "summary.csv"
    return [
        row
        for row in rundir.read_rows(summary)
        if int(row["seed"]) in seeds
        and Needed(row["algo"], row["dataset"], row["settings"]) in needed
        and row["preset"] == chosen.preset
    ]


@exits_cleanly
def main() -> int:
    """Make the runs, show the findings, publish if asked."""
    options.cache_programs()
    chosen = options.parse(Options, options.arguments(), Options(), "python -m experiments.reproduce", __doc__ or "")
    tested = chosen_claims(chosen.only)
    seeds = set(options.parse_seeds(chosen.seeds))
    if max(seeds) >= REPORTED:
        raise UserError(f"--seeds={chosen.seeds}: reported seeds are 0 to {REPORTED - 1}; others are for tuning")
    console = Console(highlight=False, soft_wrap=True)
    code = run_all(runs_of(tested), chosen, console)
    if code:
        return code
    rows = rows_of(runs_of(tested), seeds, chosen)
    console.print(shown(judge(tested, rows)))
    if chosen.publish:
        publish(rows, offline_mbrl.EXPERIMENT, RESULTS)
        added, lacking = curves.publish(RESULTS / offline_mbrl.EXPERIMENT, chosen.out / offline_mbrl.EXPERIMENT)
        console.print(f"learning curves: {added} added; {lacking} published rows have none")
        renew_readme(RESULTS.parent / "README.md", chosen.preset)
        report.write(RESULTS, RESULTS / "index.html")
        console.print(f"published: {RESULTS}; figures: python -m paper_figs")
    return 0


if __name__ == "__main__":
    main()
