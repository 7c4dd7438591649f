"""Write one page of all published results: claims, aggregates, sortable rows, learning curves and provenance.

The page is a single file without scripts, fonts or images from elsewhere: it opens from disk and needs no network. It
is a function of results/*/summary.csv and results/*/claims.csv, and of the run directories in --runs, where given;
equal input gives equal bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import claims, options, page, tables, throughput
from jaxrl_suite.errors import UserError, exits_cleanly
from jaxrl_suite.report import comparison
from jaxrl_suite.report.claims import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from jaxrl_suite.train import files, identity, rundir, session

CLAIMS, EVALS, CONFIG = "claims.csv", "eval.csv", "config.json"
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
    """A run directory, or a folder of them: adds their learning curves, configurations and commands."""


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
    return [page.Experiment(folder.name, _rows(folder), _claims(folder / CLAIMS)) for folder in folders]


def _rows(folder: Path) -> list[dict[str, Any]]:
    """The summary rows of an experiment, checked and in a fixed order."""
    rows, path = tables.published(folder), folder / tables.SUMMARY
    _whole(path)
    if folder.name == throughput.EXPERIMENT:  # measurements, not runs: no seeds, no scores
        _require(path, rows, throughput.COLUMNS)
        return rows
    _require(path, rows, session.SUMMARY_COLUMNS)
    for row in rows:
        _numbers(path, row, ("seed", "updates", *comparison.METRICS))
    return sorted(rows, key=lambda row: (*(str(row[name]) for name in ("algo", "dataset", "preset")), row["seed"]))


def _claims(path: Path) -> list[dict[str, Any]]:
    """The findings of an experiment, in the order they were published; none where it tests no claims."""
    if not path.exists():
        return []
    found = rundir.read_rows(path)
    _whole(path)
    _require(path, found, claims.COLUMNS)
    for row in found:
        _numbers(path, row, BOUNDS)
        if row["verdict"] not in VERDICTS:
            raise UserError(
                f"{path}: the verdict on {row['id']} is {row['verdict']!r}, expected {', '.join(VERDICTS)}; "
                "write it anew with experiments.reproduce --publish"
            )
    return found


def _whole(path: Path) -> None:
    """Refuse a file whose last line is torn: its last cell may be, too."""
    if not path.read_bytes().endswith(b"\n"):
        raise UserError(f"{path} is half written: its last line does not end; write it anew, or end the line")


def _require(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    missing = [name for name in columns if rows and name not in rows[0]]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}; write it anew with the version installed here")


def _numbers(path: Path, row: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in names:
        kind = "whole number" if name in ("seed", "updates", "update") else "number"
        if isinstance(row[name], bool) or not isinstance(row[name], int if kind == "whole number" else int | float):
            raise UserError(f"{path}: {name} is {row[name]!r}, expected a {kind}; repair the file or write it anew")


# --- Run directories ---
def runs_of(folder: Path) -> list[page.Run]:
    """The run directories at or up to two levels below `folder` that have evaluations, in the order of their names.

    Raises:
        UserError: there is none, or one is damaged.
    """
    with files.guarded(folder):
        found = [path.parent for depth in ("", "*/", "*/*/") for path in folder.glob(depth + CONFIG)]
        runs = [_run(path) for path in sorted(found) if (path / EVALS).exists()]
    kept = [run for run in runs if run.curves]
    if not kept:
        raise UserError(
            f"no run directory with evaluations is in {folder}; give the folder of runs, such as --runs=runs"
        )
    return kept


def _run(path: Path) -> page.Run:
    record = _json(path / CONFIG)
    config, seeds = record.get("config"), record.get("seeds")
    if not isinstance(config, dict) or not isinstance(seeds, list) or not all(isinstance(seed, int) for seed in seeds):
        raise UserError(f"{path / CONFIG} does not hold a config and seeds; repair it, or move the run away")
    provenance = _json(path / "provenance.json") if (path / "provenance.json").exists() else {}
    words = provenance.get("command")
    command = " ".join(map(str, words)) if isinstance(words, list) else ""
    return page.Run(
        path.name, config, command, {identity.run_id(config, seed) for seed in seeds}, _curves(path / EVALS)
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON that can be read; repair it, or move the run away") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object; repair it, or move the run away")
    return value


def _curves(path: Path) -> list[dict[str, Any]]:
    """One entry per seed: seed, and [update, value] points of every quantity that is drawn; no value is None."""
    rows = rundir.read_rows(path)
    _require(path, rows, ("seed", "update", *page.CURVES))
    for row in rows:
        _numbers(path, row, ("seed", "update", *page.CURVES))
    return [
        {"seed": seed}
        | {name: [[r["update"], _finite(r[name])] for r in rows if r["seed"] == seed] for name in page.CURVES}
        for seed in sorted({row["seed"] for row in rows})
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


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
