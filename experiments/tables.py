"""Compare the algorithms of a results folder in one table: mean [95% interval] and number of seeds per data set.

Runs with other settings than their preset's are lines of their own, such as `ravl diversity=0`; --settings=none leaves
them out, --algo=ravl,bc all other algorithms. A mean is bold only where the interval of its difference to the best of
the other lines shown lies above zero; the caption says the rule. Reads summary.csv alone: results/<experiment> for
published rows, runs/<experiment> for your own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments import options
from jaxrl_suite.errors import UserError, exits_cleanly, unknown
from jaxrl_suite.report import comparison, formats
from jaxrl_suite.sweep import grid
from jaxrl_suite.train import files, rundir

SUMMARY = "summary.csv"
OF_RATES = {"rate", "unit"}  # columns of experiments.throughput
SETTINGS = ("all", "none")  # of which settings there are lines


@dataclass(frozen=True)
class Options:
    """Options of a table."""

    results: Annotated[Path | None, tyro.conf.Positional] = None
    """A folder with a summary.csv, such as results/offline_mbrl."""
    metric: str = "return_last"
    """Which column: return_last, return_best, score_last, score_best, mc_last or q_last."""
    format: str = ""
    """markdown, csv or latex; by default what the ending of --out says, else markdown."""
    columns: str = "dataset"
    """What the columns are, dataset or algo; the rows are the other. A csv file has a line per cell."""
    algo: str = ""
    """Only these algorithms, with commas between; all by default."""
    settings: str = "all"
    """all, or none: only presets as they are, without the runs that change settings."""
    preset: str = ""
    """Only the rows of this preset."""
    out: Path | None = None
    """A file to write the table to, instead of showing it."""


def published(folder: Path) -> list[dict[str, Any]]:
    """The summary rows of a results folder.

    Raises:
        UserError: there is no such folder, it has no rows, or they are damaged or of another schema.
    """
    with files.guarded(folder):
        kind = "file" if folder.is_file() else "folder" if folder.is_dir() else ""
        summary = kind == "folder" and (folder / SUMMARY).exists()
    if kind == "file":
        raise UserError(f"{folder} is a file; give its folder: python -m experiments.tables {folder.parent}")
    if not kind:
        raise _elsewhere(f"there is no folder {folder}", folder, folder.parent)
    if not summary:
        raise _elsewhere(f"{folder} has no {SUMMARY}", folder, folder)
    rows = rundir.read_rows(folder / SUMMARY)
    if not rows:
        raise UserError(f"{folder / SUMMARY} has a header but no rows; run the experiment first")
    old = [row for row in rows if row.get("schema_version") not in rundir.SCHEMAS]
    if old:
        raise UserError(
            f"{folder / SUMMARY}: {len(old)} of {len(rows)} rows are of schema {_schema(old[0])}, this version reads "
            f"{rundir.SCHEMA_VERSION}; run their experiment again, or use the version that wrote them"
        )
    return rows


def _require_returns(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Refuse rows of rates, which are published, too, but compare no algorithms.

    Raises:
        UserError: naming the folders beside it that have returns.
    """
    columns = set(rows[0])
    if columns >= OF_RATES and columns.isdisjoint(comparison.METRICS):
        raise UserError(
            f"the rows of {folder} are rates of work done, no returns of algorithms, and have no such table; "
            f"{_with_returns(folder.parent)}"
        )


def _with_returns(around: Path) -> str:
    """The folders beside each other whose rows have returns, in words."""
    found = [path.parent for path in sorted(around.glob(f"*/{SUMMARY}")) if "return_last" in _columns(path)]
    return f"folders with returns: {', '.join(map(str, found))}" if found else "give a folder with returns"


def _columns(summary: Path) -> list[str]:
    """The names in a summary's first line."""
    with files.guarded(summary.parent), summary.open(encoding="utf-8", errors="replace") as file:
        return file.readline().strip().split(",")


def _schema(row: Mapping[str, Any]) -> str:
    version = row.get("schema_version")
    return str(version) if isinstance(version, int) else "none"


def _elsewhere(complaint: str, folder: Path, around: Path) -> UserError:
    """The error for a folder without results, with the nearest of those `around` that have some."""
    near = sorted(str(path.parent) for path in around.glob(f"*/{SUMMARY}")) if around.is_dir() else []
    if near:
        return unknown("results folder", str(folder), near)
    return UserError(f"{complaint}; run the experiment first, or give a folder with a {SUMMARY}")


def _format(chosen: Options) -> str:
    """The name of the format, from --format or the ending of --out."""
    if chosen.format:
        name = chosen.format
    elif chosen.out is None:
        name = "markdown"
    else:
        endings = {ending: name for name, (ending, _) in formats.FORMATS.items()}
        if chosen.out.suffix not in endings:
            raise UserError(f"--out={chosen.out} ends in none of {', '.join(endings)}; say which with --format")
        name = endings[chosen.out.suffix]
    if name not in formats.FORMATS:
        raise unknown("format", name, formats.FORMATS)
    return name


def _of_preset(rows: Sequence[dict[str, Any]], preset: str) -> Sequence[dict[str, Any]]:
    """The rows of a preset; all without one."""
    if not preset:
        return rows
    kept = [row for row in rows if row.get("preset") == preset]
    if not kept:
        raise unknown("preset", preset, {str(row.get("preset")) for row in rows}, "(those of the folder)")
    return kept


def _of_algorithms(rows: Sequence[dict[str, Any]], names: str) -> Sequence[dict[str, Any]]:
    """The rows of some algorithms; all without names."""
    if not names:
        return rows
    known, asked = {str(row.get("algo")) for row in rows}, grid.split("--algo", names)
    for name in asked:
        if name not in known:
            raise unknown("algorithm", name, known, "(those of the rows)")
    return [row for row in rows if row.get("algo") in asked]


def _of_settings(rows: Sequence[dict[str, Any]], kind: str) -> Sequence[dict[str, Any]]:
    """All rows, or those that change nothing in their preset."""
    if kind not in SETTINGS:
        raise unknown("settings", kind, SETTINGS)
    kept = [row for row in rows if kind == "all" or not comparison.settings_of(row)]
    if not kept:
        raise UserError("--settings=none leaves no rows: all of them change something in their preset; leave it out")
    return kept


def _chosen(folder: Path, chosen: Options) -> Sequence[dict[str, Any]]:
    """The rows that the table is of.

    Raises:
        UserError: there are none, they have no returns, or there is no such preset, algorithm or choice of settings.
    """
    rows = published(folder)
    _require_returns(rows, folder)
    return _of_settings(_of_algorithms(_of_preset(rows, chosen.preset), chosen.algo), chosen.settings)


def _write(path: Path, text: str) -> None:
    with files.guarded(path.parent):
        if path.is_dir():
            raise UserError(f"--out={path} is a folder; give a file, such as {path / 'table.md'}")
        path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, text)


@exits_cleanly
def main() -> int:
    """Show or write the table that the command line describes."""
    chosen = options.parse(Options, options.arguments(), Options(), "python -m experiments.tables", __doc__ or "")
    if chosen.results is None:
        raise UserError("which results? give their folder: python -m experiments.tables results/offline_mbrl")
    for kind, name, known in (
        ("metric", chosen.metric, comparison.METRICS),
        ("columns", chosen.columns, formats.COLUMNS),
    ):
        if name not in known:
            raise unknown(kind, name, known)
    if chosen.out is not None and chosen.out.resolve() == (chosen.results / SUMMARY).resolve():
        raise UserError(f"--out={chosen.out} would replace the rows that the table is made of; choose another file")
    _, show = formats.FORMATS[_format(chosen)]
    text = show(comparison.compare(_chosen(chosen.results, chosen), chosen.metric), chosen.columns)
    if chosen.out is None:
        print(text, end="")
        return 0
    _write(chosen.out, text)
    print(f"table: {chosen.out}")
    return 0


if __name__ == "__main__":
    main()
