"""What a sweep shows: a live table on a terminal, elsewhere a line whenever something has changed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from jaxrl_suite.sweep.schedule import Board
from jaxrl_suite.sweep.tasks import Run, ending

BEST = 5  # trials that the table of a search shows


class Display:
    """Counts of runs by where they stand; those that were finished before are counted as done."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._live: Live | None = None
        self._shown: tuple = ()
        self._told = 0  # how many of the failures have been told

    @contextmanager
    def live(self) -> Iterator[Display]:
        """Show the table for as long as this lasts."""
        if not self._console.is_terminal:
            yield self
            return
        with Live(console=self._console, auto_refresh=False) as self._live:
            yield self

    def update(self, board: Board) -> None:
        """Show a board where it differs from the last one."""
        running = tuple(attempt.run.name for attempt in board.running)
        now = (running, len(board.elsewhere), len(board.done), len(board.failed), len(board.pruned))
        if now == self._shown:
            return
        self._shown = now
        diverged = sum(ending(run) == "diverged" for run in board.done)
        for failure in board.failed[self._told :]:
            self._console.print(f"failed: {failure.run.name} (exit code {failure.code}): {failure.last_lines}")
        self._told = len(board.failed)
        counts = {
            "running": len(running),
            "elsewhere": len(board.elsewhere),
            "done": len(board.done),
            "failed": len(board.failed),
            "diverged": diverged,
        }
        if board.pruned:  # in a search alone
            counts["pruned"] = len(board.pruned)
        if self._live is None:
            line = ", ".join(f"{count} {name}" for name, count in counts.items())
            self._console.print(f"{line} of {self._total}")
            return
        table = Table(*counts, "of", "now")
        table.add_row(*map(str, counts.values()), str(self._total), "\n".join(running))
        self._live.update(table, refresh=True)


def plan(runs: Sequence[Run], states: Sequence[str]) -> Table:
    """A row per run: settings, seeds and state."""
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    table = Table("algorithm", "data set", *names, "seeds", "state")
    for run, found in zip(runs, states, strict=True):
        cells: list[Any] = [run.settings.get(name, "") for name in names]
        table.add_row(run.algo, run.dataset, *cells, f"{run.seeds[0]} to {run.seeds[-1]}", found)
    return table


def trials(ranked: Sequence[Mapping[str, Any]], settings: Iterable[str]) -> Table:
    """The first trials of a search, with their settings and values; rows as of `search.Driver.results`."""
    names = list(settings)
    table = Table("trial", *names, f"{ranked[0]['objective']} [95% interval]", "episodes")
    for row in ranked[:BEST]:
        cells = [short(row[f"settings.{name}"]) for name in names]
        table.add_row(
            str(row["trial"]), *cells, with_interval(row["value"], row["ci_low"], row["ci_high"]), str(row["episodes"])
        )
    return table


def with_interval(estimate: float, low: float, high: float) -> str:
    """A value with its interval, if it has one."""
    bounds = f" [{low:.1f}, {high:.1f}]" if math.isfinite(low) and math.isfinite(high) else ""
    return f"{estimate:.1f}{bounds}"


def short(value: float | str) -> str:
    """A setting in a table: four digits of a number."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
