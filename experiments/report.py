"""Write one page of all published results: claims, aggregates, sortable rows, learning curves and provenance.

The page is a single file without scripts, fonts or images from elsewhere: it opens from disk and needs no network. It
is a function of results/*/summary.csv, claims.csv and curves.csv, and of the run directories in --runs, where given;
equal input gives equal bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import checks, claims, curves, options, page, tables, throughput
from jaxrl_suite.errors import UserError, exits_cleanly
from jaxrl_suite.report import comparison
from jaxrl_suite.report.claims import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from jaxrl_suite.train import files, rundir, session

CLAIMS = "claims.csv"
VERDICTS = (SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE)
BOUNDS = ("estimate", "ci_low", "ci_high", "adjusted_p")


@dataclass(frozen=True)
class Options:
    """Options of the page."""

    results: Path = Path("results")
    """A folder of experiments, each with a summary.csv and, where it tests claims, a claims.csv."""
    out: Path | None = None
    """The page to write; by default index.html in the results folder."""
    runs: Path | None = None
    """A run directory, or a folder of them: adds their configurations, commands, and curves that are not published."""


# --- Results ---
def experiments_of(results: Path) -> list[page.Experiment]:
    """Every experiment of a results folder, in the order of their names.

    Raises:
        UserError: there is none, or a file is damaged, half written or of another version.
    """
    with files.guarded(results):
        if not results.is_dir():
            raise UserError(f"{results} is not a folder; give the one of all experiments, such as --results=results")
        places = [*results.glob(f"*/{tables.SUMMARY}"), *results.glob(f"*/{CLAIMS}")]
    folders = sorted({path.parent for path in places})
    if not folders:
        raise UserError(
            f"no folder in {results} has a {tables.SUMMARY}; publish some results first "
            "(python -m experiments.reproduce --publish), or give another folder with --results"
        )
    return [
        page.Experiment(folder.name, _rows(folder), _claims(folder / CLAIMS), curves.read(folder / curves.CURVES))
        for folder in folders
    ]


def _rows(folder: Path) -> list[dict[str, Any]]:
    """The summary rows of an experiment, checked and in a fixed order."""
    rows, path = tables.published(folder), folder / tables.SUMMARY
    checks.whole(path)
    if folder.name == throughput.EXPERIMENT:  # measurements, not runs: no seeds, no scores
        checks.require(path, rows, throughput.COLUMNS)
        return rows
    checks.require(path, rows, session.SUMMARY_COLUMNS)
    for row in rows:
        checks.numbers(path, row, ("seed", "updates", *comparison.METRICS))
    names = ("algo", "dataset", "preset", "settings")
    return sorted(rows, key=lambda row: (*(str(row[name]) for name in names), row["seed"]))


def _claims(path: Path) -> list[dict[str, Any]]:
    """The findings of an experiment, in the order they were published; none where it tests no claims."""
    if not path.exists():
        return []
    found = rundir.read_rows(path)
    checks.whole(path)
    checks.require(path, found, claims.COLUMNS)
    for row in found:
        checks.numbers(path, row, BOUNDS)
        if row["verdict"] not in VERDICTS:
            raise UserError(
                f"{path}: the verdict on {row['id']} is {row['verdict']!r}, expected {', '.join(VERDICTS)}; "
                "write it anew with experiments.reproduce --publish"
            )
    return found


# --- Run directories ---
def runs_of(folder: Path) -> list[page.Run]:
    """The run directories at or up to two levels below `folder` that have evaluations, in the order of their names.

    Raises:
        UserError: there is none, or one is damaged.
    """
    with files.guarded(folder):
        found = [path.parent for depth in ("", "*/", "*/*/") for path in folder.glob(depth + curves.CONFIG)]
        runs = [run for path in sorted(found) if (path / curves.EVALS).exists() for run in _runs(path)]
    if not runs:
        raise UserError(
            f"no run directory with evaluations is in {folder}; give the folder of runs, such as --runs=runs"
        )
    return runs


def _runs(path: Path) -> list[page.Run]:
    """An entry per config that the run directory trained, of those that have evaluations."""
    provenance = curves.read_json(path / "provenance.json") if (path / "provenance.json").exists() else {}
    words = provenance.get("command")
    command = " ".join(map(str, words)) if isinstance(words, list) else ""
    return [
        page.Run(f"{path.name} {trained.settings}".strip(), trained.config, command, trained.evaluations)
        for trained in curves.of_run(path)
        if trained.evaluations
    ]


# --- The command ---
def write(results: Path, out: Path, runs: Path | None = None) -> None:
    """Write the page of `results` to `out`, whole or not at all; `runs` adds learning curves.

    Raises:
        UserError: what is read is damaged, or `out` cannot be written.
    """
    text = page.build(experiments_of(results), runs_of(runs) if runs is not None else [])
    with files.guarded(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(out, text)


def _target(chosen: Options) -> Path:
    """Where the page goes.

    Raises:
        UserError: not to a file that ends in .html.
    """
    out = chosen.results / "index.html" if chosen.out is None else chosen.out
    if out.is_dir() or out.suffix != ".html":
        raise UserError(f"--out={out} is not a file that ends in .html; give one, such as --out=report.html")
    return out


@exits_cleanly
def main() -> int:
    """Write the page that the command line describes."""
    chosen = options.parse(Options, options.arguments(), Options(), "python -m experiments.report", __doc__ or "")
    out = _target(chosen)
    write(chosen.results, out, chosen.runs)
    print(f"page: {out}")
    return 0


if __name__ == "__main__":
    main()
