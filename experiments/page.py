"""The results page as text: a function of rows, claims and runs. Every text that comes from outside is escaped."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from jaxrl_suite.errors import UserError
from jaxrl_suite.report import comparison, formats
from jaxrl_suite.report.claims import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED

TEMPLATE = Path(__file__).with_name("report.html")
CURVES = {"return_mean": "Return per episode", "score": "Normalised score"}  # columns of eval.csv
SIGNS = {SUPPORTED: "✓", NOT_SUPPORTED: "✗", INCONCLUSIVE: "?"}
NOTHING = "–"


class Experiment(NamedTuple):
    """A folder of published results."""

    name: str
    rows: Sequence[Mapping[str, Any]]  # of summary.csv
    claims: Sequence[Mapping[str, Any]]  # of claims.csv
    curves: Mapping[str, Sequence[Mapping[str, Any]]]  # of curves.csv: run id -> evaluations in the order of updates


class Run(NamedTuple):
    """A config that a run directory holds."""

    name: str
    config: Mapping[str, Any]
    command: str  # empty where it is not known
    evaluations: Mapping[str, Sequence[Mapping[str, Any]]]  # run id -> rows of eval.csv


class Cell(NamedTuple):
    """A cell of a table: what is shown, as HTML, and what it is sorted by."""

    html: str
    value: str
    number: bool


def build(experiments: Sequence[Experiment], runs: Sequence[Run]) -> str:
    """The whole page; equal arguments give equal text."""
    lines = _lines(experiments, runs)
    names = [(f"experiment-{index}", each) for index, each in enumerate(experiments)]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        overview=_overview(experiments, lines),
        links=" ".join(f'<a href="#{place}">{escape(each.name)}</a>' for place, each in names),
        claims="\n".join(_claim(each.name, row) for each in experiments for row in each.claims) or _soft("No claims."),
        curves=_curves(lines, experiments),
        experiments="\n".join(_experiment(place, each) for place, each in names),
        provenance="\n".join(_provenance(experiments, runs)),
        data=embedded(lines),
    )


def embedded(value: Any) -> str:
    """JSON that no HTML parser takes for the end of a script or for a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


# --- Parts ---
def _overview(experiments: Sequence[Experiment], lines: Sequence[Mapping[str, Any]]) -> str:
    verdicts = Counter(str(row["verdict"]) for each in experiments for row in each.claims)
    said = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in SIGNS if verdicts[verdict])
    counts = [
        _count(len(experiments), "experiment"),
        _count(sum(len(each.rows) for each in experiments), "row"),
        _count(sum(verdicts.values()), "claim") + (f" ({said})" if said else ""),
        _count(sum(len(line["seeds"]) for line in lines), "run with learning curves", "runs with learning curves"),
    ]
    return escape("; ".join(counts) + ".")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _claim(experiment: str, row: Mapping[str, Any]) -> str:
    verdict = str(row["verdict"])
    known = math.isfinite(row["ci_low"]) and math.isfinite(row["ci_high"])
    shown = formats.spanned(row["estimate"], row["ci_low"], row["ci_high"]) if known else _shown(row["estimate"])
    facts = {
        "Estimate": shown if known else f"{shown} (no interval)",
        "Statistic": _shown(row["statistic"]),
        "Seeds": f"{_shown(row['seeds'])} (n = {_shown(row['n'])})",
        "Rule": _shown(row["rule"]),
        "Adjusted p": _shown(row["adjusted_p"]),
        "Source": _shown(row["source"]),
        "Runs": f"{experiment}, preset {_shown(row['preset'])}",
    }
    return (
        f'<article class="card">\n<h3>{escape(_shown(row["statement"]))}</h3>\n'
        f'<p><span class="verdict {verdict.replace(" ", "-")}">{SIGNS[verdict]} {escape(verdict)}</span></p>\n'
        f"{_facts(facts, command=_shown(row['command']))}\n</article>"
    )


def _facts(facts: Mapping[str, str], **code: str) -> str:
    """A list of named facts; those of `code` are set as code, and left out where empty."""
    lines = [f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items()]
    lines += [f"<dt>{name.title()}</dt><dd><code>{escape(text)}</code></dd>" for name, text in code.items() if text]
    return "<dl>\n" + "\n".join(lines) + "\n</dl>"


def _lines(experiments: Sequence[Experiment], runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What the chart draws: published rows that differ in their seed alone, then runs that are not published."""
    published: dict[str, list[dict[str, Any]]] = {}
    for experiment in experiments:
        for row in experiment.rows:
            if row["run_id"] in experiment.curves:
                name = _title(experiment.name, row)
                published.setdefault(name, []).append(_line(experiment.curves[row["run_id"]]))
    known = {run_id for experiment in experiments for run_id in experiment.curves}
    own = [(run.name, list(map(_line, run.evaluations.values()))) for run in runs if not set(run.evaluations) <= known]
    return [{"name": f"{name}, {_seeds(seeds)}", "seeds": seeds} for name, seeds in [*published.items(), *own]]


def _line(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The curves of a seed: its number, and [update, value or None] points of each of CURVES."""
    points = {name: [[row["update"], _finite(row[name])] for row in evaluations] for name in CURVES}
    return {"seed": evaluations[0]["seed"], **points}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _seeds(lines: Sequence[Mapping[str, Any]]) -> str:
    seeds = [line["seed"] for line in lines]
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seeds {', '.join(map(str, seeds))}"


def _curves(lines: Sequence[Mapping[str, Any]], experiments: Sequence[Experiment]) -> str:
    if not lines:
        return _soft("None: this page was made without run directories (--runs=FOLDER adds them).")
    rows = [row["run_id"] in each.curves for each in experiments for row in each.rows]
    lacking = f" Published without a curve: {rows.count(False)} of {_count(len(rows), 'row')}." * (not all(rows))
    choices = "".join(f'<option value="{name}">{escape(words)}</option>' for name, words in CURVES.items())
    return (
        '<div class="tools"><label for="metric">Quantity</label>'
        f'<select id="metric">{choices}</select></div>\n'
        '<svg id="chart" role="img" aria-label="Learning curves of the chosen runs; the tables hold where they end">'
        '</svg>\n<fieldset id="runs"><legend>Runs to compare</legend></fieldset>\n'
        + _soft(f"Thin lines: one per seed. Thick lines: mean over seeds, where all of them have a value.{lacking}")
    )


def _experiment(place: str, experiment: Experiment) -> str:
    name = escape(experiment.name)
    columns = list(dict.fromkeys(column for row in experiment.rows for column in row))
    rows = [[_cell(row.get(column, math.nan)) for column in columns] for row in experiment.rows]
    each = "one per seed" if _has_seeds(experiment) else "one per measurement"
    return (
        f'<h2 id="{place}">{name}</h2>\n<h3>Aggregate over seeds</h3>\n{_aggregate(place, experiment)}\n'
        f"<h3>Rows</h3>\n{_table(f'{place}-rows', f'Rows of {name}, {each}', columns, rows)}"
    )


def _has_seeds(experiment: Experiment) -> bool:
    return all("seed" in row for row in experiment.rows)


def _aggregate(place: str, experiment: Experiment) -> str:
    """Mean, 95% t-interval and n of every metric; or why these rows have no mean."""
    if experiment.rows and not _has_seeds(experiment):
        return _soft("No aggregate: these rows are measurements, not runs with seeds.")
    try:
        found = {metric: comparison.compare(experiment.rows, metric) for metric in comparison.METRICS}
    except UserError as reason:
        return _soft(f"No aggregate: {reason}.")
    first = next(iter(found.values()))
    rows = [
        [_cell(algo), _cell(task.dataset), _cell(task.preset)]
        + [_mean(each.cells[task, algo]) for each in found.values()]
        for task in first.tasks
        for algo in first.algos
        if (task, algo) in first.cells
    ]
    captions = "".join(f"<li>{metric}: {escape(each.caption)}</li>" for metric, each in found.items())
    caption = f"Means of {escape(experiment.name)} [95% t-interval], n seeds"
    table = _table(f"{place}-means", caption, ["algo", "dataset", "preset", *found], rows)
    return f"{table}\n<details><summary>What the columns are</summary><ul>{captions}</ul></details>"


def _mean(cell: comparison.Cell) -> Cell:
    mean, low, high, n = cell.interval
    text = f"{mean:,.1f}" if math.isfinite(mean) else NOTHING
    bounds = f" [{low:,.1f}, {high:,.1f}]" if cell.interval.bounded else ""
    shown = f"<strong>{text}</strong>" if cell.best else text
    return Cell(f"{shown}{bounds}, n={n}{formats.left_out(cell)}", _cell(mean).value, True)


def _table(place: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table that sorts and filters, in a box of its own; `caption` is HTML."""
    heads = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(name)}</button></th>' for name in columns
    )
    body = "\n".join(f"<tr>{_first(row[0])}{''.join(map(_td, row[1:]))}</tr>" for row in rows)
    return (
        f'<div class="tools"><label for="{place}-filter">Filter by words</label>'
        f'<input id="{place}-filter" type="search" data-table="{place}" aria-describedby="{place}-count">'
        f'<span id="{place}-count" class="soft" role="status"></span></div>\n'
        f'<div class="box" role="region" aria-label="{caption}" tabindex="0"><table id="{place}">'
        f"<caption>{caption}</caption>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _first(cell: Cell) -> str:
    return f'<th scope="row"{_key(cell)}>{cell.html}</th>'


def _td(cell: Cell) -> str:
    return f"<td{' class=number' if cell.number else ''}{_key(cell)}>{cell.html}</td>"


def _key(cell: Cell) -> str:
    """What a cell sorts by, where that is not what it shows: most cells do, and the page is large."""
    return "" if cell.value == cell.html else f' data-value="{cell.value}"'


def _provenance(experiments: Sequence[Experiment], runs: Sequence[Run]) -> list[str]:
    """An entry per group of published rows and their settings, and per run that has none."""
    entries, known = [], set()
    for experiment in experiments:
        groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for row in experiment.rows if _has_seeds(experiment) else ():
            groups.setdefault((str(row["group_id"]), comparison.settings_of(row)), []).append(row)
        for (group, _), rows in groups.items():
            ids = {str(row["run_id"]) for row in rows}
            mine = [run for run in runs if set(run.evaluations) & ids]
            entries.append(_entry(_title(experiment.name, rows[0]), _origin(group, rows), mine[:1]))
            known |= ids
    return entries + [
        _entry(f"{run.name} (no row above)", {}, [run]) for run in runs if not set(run.evaluations) & known
    ]


def _title(experiment: str, row: Mapping[str, Any]) -> str:
    return f"{experiment}: {comparison.line_of(row)} on {row['dataset']}, preset {row['preset']}"


def _origin(group: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    def each(name: str) -> str:
        return ", ".join(dict.fromkeys(_shown(row[name]) for row in rows))

    return {
        "group_id": group,
        "git_commit": each("git_commit"),
        "wall_seconds": each("wall_seconds"),
        "host": each("host"),
        "run_id by seed": ", ".join(f"{row['seed']}: {row['run_id']}" for row in rows),
    }


def _entry(title: str, facts: Mapping[str, str], run: Sequence[Run]) -> str:
    config = "".join(
        "<details><summary>Configuration</summary>"
        f"<pre tabindex=0>{escape(json.dumps(each.config, indent=2, sort_keys=True))}</pre></details>\n"
        for each in run
    )
    known = _facts(facts, command=run[0].command if run else "")
    return f'<article class="card">\n<h3>{escape(title)}</h3>\n{known}\n{config}</article>'


# --- Values ---
def _cell(value: Any) -> Cell:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    missing = number and math.isnan(value)
    key = "" if missing else repr(value).replace("inf", "Infinity") if number else str(value)
    return Cell(escape(_shown(value)), escape(key), number)


def _shown(value: Any) -> str:
    """A value for people: floats to one decimal from 10 on, else to four digits."""
    if isinstance(value, float):
        return NOTHING if math.isnan(value) else f"{value:,.1f}" if abs(value) >= 10 else f"{value:.4g}"
    return str(value)


def _soft(text: str) -> str:
    return f'<p class="soft">{escape(text)}</p>'
