"""What a run shows: a header, a progress line per phase with rate and time left, evaluations, notes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# Where output is not a terminal, a line is printed at most this often.
PLAIN_SECONDS = 10.0
WIDTH = 140  # of tables where no terminal says how wide it is


def make_console(width: int = WIDTH) -> Console:
    """Where experiments print: the terminal, or whatever output goes to, with room for tables of `width` columns.

    Text is shown as it is: paths, logs and settings hold square brackets that are no markup.
    """
    plain = Console(highlight=False, soft_wrap=True, markup=False)
    return plain if plain.is_terminal else Console(highlight=False, soft_wrap=True, markup=False, width=width)


class Display:
    """Progress on a terminal as a live bar, elsewhere as plain lines."""

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self.console = console or make_console()
        self.quiet = quiet
        self._bar: Progress | None = None
        self._name, self._total, self._from = "", 0, 0
        self._started = self._printed = 0.0

    def header(self, facts: Mapping[str, str]) -> None:
        """One line per fact."""
        width = max(map(len, facts))
        for name, text in facts.items():
            self._print(f"{name:<{width}}  {text}")

    def note(self, text: str) -> None:
        """Something that the user should know."""
        self._print(f"note: {text}")

    def phase(self, name: str, total: int, done: int) -> None:
        """Begin a phase of `total` updates, `done` of them done in an earlier sitting."""
        self._name, self._total, self._from = name, total, done
        self._started = self._printed = time.monotonic()
        if done:
            self.note(f"{name}: resumed at update {done:,}")
        if self.quiet or not self.console.is_terminal or not total:
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
        )
        self._bar = Progress(*columns, console=self.console, transient=True)
        self._task = self._bar.add_task(name, total=total, completed=done, rate="compiling", metrics="")
        self._bar.start()

    def progress(self, done: int, metrics: Mapping[str, float]) -> None:
        """`done` updates of the phase are behind us; `metrics` are means over the population."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = (done - self._from) / elapsed
        text = "  ".join(f"{name} {value:.3g}" for name, value in list(metrics.items())[:4])
        if self._bar is not None:
            self._bar.update(self._task, completed=done, rate=f"{rate:,.0f}/s", metrics=text)
        elif self._total and (time.monotonic() - self._printed > PLAIN_SECONDS):
            left = (self._total - done) / max(rate, 1e-9)
            self._print(f"{self._name}  {done:,}/{self._total:,}  {rate:,.0f}/s  {left:,.0f} s left  {text}")
            self._printed = time.monotonic()

    def evaluation(self, update: int, returns: Sequence[float] | np.ndarray) -> None:
        """Mean return of every seed after `update` updates."""
        spread = f" ({np.min(returns):,.0f} to {np.max(returns):,.0f})" if len(returns) > 1 else ""
        self._print(f"  update {update:>9,}  return {np.mean(returns):8,.1f}{spread}")

    def phase_done(self) -> None:
        """The phase has come to its end."""
        self.close()
        self._print(f"{self._name}: done in {time.monotonic() - self._started:,.0f} s")

    def close(self) -> None:
        """Take the live bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _print(self, text: str) -> None:
        if not self.quiet:
            self.console.print(text)
