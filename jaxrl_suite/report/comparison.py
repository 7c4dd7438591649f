"""Algorithms beside each other on several data sets, from summary rows: the numbers, and which of them is best.

A mean is marked as best only where the difference to the runner-up is told apart from zero, as `Comparison.caption`
says. Seeds that diverged have no place in a mean over seeds, but an algorithm that loses seeds is not better for it: it
is never marked. Rows of one algorithm with different settings are different lines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.report.stats import Interval, difference, mean_interval, paired_difference

NEEDED = ("algo", "dataset", "preset", "seed", "updates", "status")


class Metric(NamedTuple):
    """A column of the summary that can be compared."""

    heading: str
    best: bool  # whether the highest mean is the best; else nothing is marked
    note: str = ""


LATE = "The best evaluation is chosen after the fact and therefore optimistic."
# Not the wall time, which all seeds of a run share: its interval over seeds would mean nothing.
METRICS = {
    "return_last": Metric("Return per episode at the end of training", True),
    "return_best": Metric("Return per episode at the best evaluation", True, LATE),
    "score_last": Metric("Normalised score at the end of training", True),
    "score_best": Metric("Normalised score at the best evaluation", True, LATE),
    "mc_last": Metric("Discounted return from the start at the end of training", True),
    "q_last": Metric("Q-value estimate at the start at the end of training", False),
}


class Task(NamedTuple):
    """What algorithms are compared on."""

    dataset: str
    preset: str


class Cell(NamedTuple):
    """A line on a task."""

    interval: Interval  # mean over seeds with its t-interval
    diverged: int  # seeds left out because they did not finish
    missing: int  # seeds left out because they finished without a value
    best: bool


class Comparison(NamedTuple):
    """A table as data: every pair of a task and a line that has rows has a cell."""

    metric: str
    tasks: tuple[Task, ...]
    algos: tuple[str, ...]  # the lines: an algorithm, or an algorithm and its settings, see `line_of`
    cells: Mapping[tuple[Task, str], Cell]
    caption: str


def compare(rows: Sequence[Mapping[str, Any]], metric: str) -> Comparison:
    """The means of `metric` per task and line over seeds, with 95% t-intervals.

    Args:
        rows: summary rows, one per algorithm, settings, data set, preset and seed; see `line_of`.
        metric: one of METRICS.

    Raises:
        UserError: an unknown metric; no rows; rows that lack columns, are no numbers, or are not one run per seed.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    if not rows:
        raise UserError("no rows to compare: expected one summary row per seed; run the experiment first")
    missing = sorted({name for name in (*NEEDED, metric) for row in rows if name not in row})
    if missing:
        raise UserError(f"summary rows lack {', '.join(missing)}; were they written by another version?")
    groups: dict[tuple[Task, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((Task(str(row["dataset"]), str(row["preset"])), line_of(row)), []).append(row)
    for (task, algo), members in groups.items():
        _check_one_run_per_seed(task, algo, members)
    values = {place: _values(members, metric) for place, members in groups.items()}
    tasks, algos = (tuple(sorted(set(names))) for names in zip(*groups, strict=True))
    winners = {_best(task, algos, values) for task in tasks} if METRICS[metric].best else set()
    cells = {place: _cell(members, values[place], place in winners) for place, members in groups.items()}
    return Comparison(metric, tasks, algos, cells, _caption(METRICS[metric], tasks, any(map(settings_of, rows))))


def settings_of(row: Mapping[str, Any]) -> str:
    """What a run changes in its preset, such as `diversity=0 critics=2`; empty for the preset and where unknown."""
    settings = row.get("settings")
    return settings if isinstance(settings, str) else ""


def line_of(row: Mapping[str, Any]) -> str:
    """What a row counts for: its algorithm, with the settings that differ from the preset: `ravl diversity=0`."""
    return f"{row['algo']} {settings_of(row)}".strip()


def task_name(task: Task, tasks: Sequence[Task]) -> str:
    """The data set, with the preset where the table has several."""
    return task.dataset if len({other.preset for other in tasks}) == 1 else f"{task.dataset}, {task.preset}"


def _cell(members: Sequence[Mapping[str, Any]], found: Mapping[int, float], winner: bool) -> Cell:
    """An algorithm on a task, from its rows and the values among them."""
    diverged = sum(row["status"] != "finished" for row in members)
    missing = len(members) - diverged - len(found)
    return Cell(mean_interval(list(found.values())), diverged, missing, winner and diverged + missing == 0)


def _values(members: Sequence[Mapping[str, Any]], metric: str) -> dict[int, float]:
    """Seed -> value, of the seeds that finished and have one."""
    numbers = {_whole(row): _number(row, metric) for row in members if row["status"] == "finished"}
    return {seed: number for seed, number in sorted(numbers.items()) if math.isfinite(number)}


def _number(row: Mapping[str, Any], metric: str) -> float:
    try:
        return math.nan if row[metric] in ("", None) else float(row[metric])
    except (TypeError, ValueError):
        raise UserError(
            f"{metric} of {row['algo']} on {row['dataset']}, seed {row['seed']}, is {row[metric]!r}, not a number; "
            "repair the summary, or run the experiment again"
        ) from None


def _whole(row: Mapping[str, Any]) -> int:
    seed = row["seed"]
    if isinstance(seed, bool) or not str(seed).strip().isdecimal():
        raise UserError(
            f"a seed is {seed!r}, not a whole number, in a row of {row['algo']} on {row['dataset']} (run_id "
            f"{row.get('run_id', '?')}); repair the summary, or run the experiment again"
        )
    return int(seed)


def _check_one_run_per_seed(task: Task, algo: str, members: Sequence[Mapping[str, Any]]) -> None:
    """A mean over seeds of different settings, or over the same seed twice, would be of nothing in particular."""
    where = f"{algo} on {task.dataset}, preset {task.preset},"
    seeds = [_whole(row) for row in members]
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        raise UserError(
            f"{where} has several rows for seed {twice[0]}: runs of different options cannot share a table; "
            "run one of them into its own folder with --out"
        )
    lengths = sorted({str(row["updates"]) for row in members if row["status"] == "finished"})
    if len(lengths) > 1:
        raise UserError(
            f"{where} has seeds of {' and '.join(lengths)} updates, which cannot share a mean; "
            "run one of them into its own folder with --out"
        )


def _best(
    task: Task, algos: Sequence[str], values: Mapping[tuple[Task, str], Mapping[int, float]]
) -> tuple[Task, str] | None:
    """The place with the highest mean, where the interval of its difference to the runner-up lies above zero."""
    means = {algo: mean_interval(list(found.values())) for algo in algos if (found := values.get((task, algo)))}
    ranked = sorted(means, key=lambda algo: means[algo].estimate, reverse=True)
    if len(ranked) < 2:
        return None
    first, second = (values[task, algo] for algo in ranked[:2])
    compared = paired_difference if list(first) == list(second) else difference
    gap = compared(list(first.values()), list(second.values()))
    return (task, ranked[0]) if gap.low > 0.0 else None


def _caption(metric: Metric, tasks: Sequence[Task], settings: bool) -> str:
    """What the numbers are, and the rule of the bold ones."""
    presets = sorted({task.preset for task in tasks})
    preset = f"; preset {presets[0]}" if len(presets) == 1 else ""
    rule = (
        "Bold: the highest mean of a data set, only where the 95% interval of its difference to the runner-up lies "
        "above zero (paired t-interval where both have the same seeds, else Welch's; not corrected for the number of "
        "data sets) and none of its own seeds is left out."
        if metric.best
        else "Nothing is bold: a higher estimate is not a better one."
    )
    changed = " Beside an algorithm stands what is changed in its preset." if settings else ""
    text = f"{metric.heading}: mean over seeds [95% t-interval], n seeds{preset}.{changed} {rule}"
    return f"{text} {metric.note}" if metric.note else text
