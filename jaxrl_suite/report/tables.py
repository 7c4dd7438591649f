"""The table at the end of a run: every seed, the aggregate over seeds, and the lines to compare with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from jaxrl_suite.errors import UserError
from jaxrl_suite.report.stats import Interval, iqm, mean_interval

Rows = Sequence[Mapping[str, Any]] | pd.DataFrame
VALUES = ("return_last", "return_best", "score_last", "score_best")
HEADERS = ("", "return, last", "return, best", "score, last", "score, best", "status")
NOTHING = "-"


class Reference(NamedTuple):
    """A line to compare with: the behaviour behind the data, or another algorithm's published result."""

    name: str
    returns: Interval  # at the end of training; bounds NaN where there is no interval
    scores: Interval | None = None  # normalised; None where the task has no reference scores
    unit: str = "seeds"  # what `n` counts
    source: str = ""  # where the numbers come from


class _Line(NamedTuple):
    """One row of the table; a cell breaks where a narrow terminal should."""

    cells: tuple[str, ...]
    kind: str  # "seed", "aggregate" or "reference"
    source: str = ""  # where a reference comes from


def run_table(rows: Rows, references: Sequence[Reference] = (), title: str = "") -> Table:
    """The table for a terminal.

    `rows` has one entry per seed with: seed, return_last, return_best, score_last, score_best, status.
    """
    # Narrow enough for 80 columns: headers and cells break where the layout says, the sources stand below.
    sources = [f"{reference.name}: {reference.source}" for reference in references if reference.source]
    table = Table(title=title or None, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.caption, table.caption_justify = Text("\n".join(sources)) if sources else None, "left"
    for header in HEADERS:
        table.add_column(header.replace(", ", "\n"), justify="right" if "," in header else "left", overflow="fold")
    previous = "seed"
    for line in _lines(rows, references):
        if line.kind != previous:
            table.add_section()
        previous = line.kind
        # Text, not str: square brackets in a cell are no markup.
        table.add_row(*(Text(cell) for cell in line.cells), style="bold" if line.kind == "aggregate" else None)
    return table


def to_markdown(rows: Rows, references: Sequence[Reference] = (), seeds: bool = True) -> str:
    """The same table as Markdown, without a line break at its end; without `seeds` the aggregates alone."""
    lines = [HEADERS, ("---", *("---:",) * len(VALUES), "---")]
    for line in (line for line in _lines(rows, references) if seeds or line.kind != "seed"):
        *cells, note = line.cells
        lines.append(tuple(_escape(cell) for cell in (*cells, f"{note}; {line.source}" if line.source else note)))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _lines(rows: Rows, references: Sequence[Reference]) -> list[_Line]:
    """What both forms of the table show."""
    records = _records(rows)
    kept = [row for row in records if _counts(row)]
    lines = [_seed_line(row) for row in records]
    lines += _aggregate_lines(kept, records)
    lines += [_reference_line(reference) for reference in references]
    return lines


def _records(rows: Rows) -> list[Mapping[str, Any]]:
    """The rows in order of their seeds, checked for what the table needs."""
    records: list[Mapping[str, Any]]
    records = [dict(row) for _, row in rows.iterrows()] if isinstance(rows, pd.DataFrame) else list(rows)
    if not records:
        raise UserError("no rows to show: expected one summary row per seed; run the experiment first")
    missing = sorted({name for name in ("seed", "status", *VALUES) for row in records if name not in row})
    if missing:
        raise UserError(f"summary rows lack {', '.join(missing)}; was the file written by another version?")
    return sorted(records, key=lambda row: int(row["seed"]))


def _counts(row: Mapping[str, Any]) -> bool:
    """Whether a seed enters the aggregate: a diverged one, or one without returns, does not."""
    return str(row["status"]) != "diverged" and all(math.isfinite(_value(row[name])) for name in VALUES[:2])


def _seed_line(row: Mapping[str, Any]) -> _Line:
    cells = tuple(_number(_value(row[name])) for name in VALUES)
    return _Line((f"seed {int(row['seed'])}", *cells, str(row["status"])), "seed")


def _aggregate_lines(kept: list[Mapping[str, Any]], records: list[Mapping[str, Any]]) -> list[_Line]:
    """Mean with interval and interquartile mean over the seeds that count, and how many do not."""
    columns = [[x for row in kept if math.isfinite(x := _value(row[name]))] for name in VALUES]
    means = tuple(_aggregate(mean_interval(column), len(kept)) for column in columns)
    middles = tuple(_number(iqm(column)) for column in columns)
    count = _count(len(kept), "seeds") + _left_out(records)
    return [_Line(("mean\n[95% interval]", *means, count), "aggregate"), _Line(("IQM", *middles, ""), "aggregate")]


def _left_out(records: list[Mapping[str, Any]]) -> str:
    """How many seeds the aggregate leaves out, and why."""
    out = [row for row in records if not _counts(row)]
    diverged = sum(str(row["status"]) == "diverged" for row in out)
    reasons = ((diverged, "diverged"), (len(out) - diverged, "without returns"))
    return "".join(f";\n{number} {reason}\nleft out" for number, reason in reasons if number)


def _reference_line(reference: Reference) -> _Line:
    cells = (_estimate(reference.returns), NOTHING, _estimate(reference.scores), NOTHING)
    note = _count(reference.returns.n, reference.unit)
    return _Line((reference.name, *cells, note), "reference", reference.source)


def _aggregate(interval: Interval, seeds: int) -> str:
    """An estimate; says its own count where some seeds have no value in this column."""
    partial = f"\n(n={interval.n})" if 0 < interval.n < seeds else ""
    return _estimate(interval) + partial


def _estimate(interval: Interval | None) -> str:
    if interval is None:
        return NOTHING
    bounds = f"\n[{interval.low:.1f}, {interval.high:.1f}]" if interval.bounded else ""
    return _number(interval.estimate) + bounds


def _count(n: int, unit: str) -> str:
    if n == 1:
        return "n=1,\nno interval"
    return f"n={n} {unit}"


def _value(x: Any) -> float:
    """A number, NaN for an empty cell."""
    return math.nan if x is None or x == "" or x is pd.NA else float(x)


def _number(x: float) -> str:
    return f"{x:.1f}" if math.isfinite(x) else NOTHING


def _escape(cell: str) -> str:
    return cell.replace("\n", " ").replace("|", "\\|")
