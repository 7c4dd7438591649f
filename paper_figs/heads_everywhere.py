"""What HL-Gauss gains over squared error in each offline algorithm: by data set, on average, and tuned.

A diamond per claim with an interval; hollow where both heads have step sizes of their own, the best of five.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.findings import GRIDS, NAMES
from experiments.heads_offline_claims import CLAIMS, EXPERIMENT, SMALLER
from experiments.needs import REPLAYS
from jaxrl_suite.report.claims import Finding, judge
from jaxrl_suite.train import rundir
from paper_figs.style import BLUE, GREEN, GREY, ORANGE

COLOURS = dict(zip(REPLAYS, (BLUE, ORANGE, GREEN), strict=True))
PREFIX, EVERYWHERE, TUNED = "offline-hl-gauss-beats-mse-", "-everywhere", "offline-widely-tuned-hl-gauss-beats-mse-"
STEP = 0.16


def draw(results: Path) -> dict[str, Figure]:
    """The figure by its path without ending, from `results/offline_mbrl/summary.csv`; none with one data set alone."""
    rows = [row for row in rundir.read_rows(results / EXPERIMENT / "summary.csv") if row["preset"] == "quick"]
    asked = [claim for claim in CLAIMS if claim.id.startswith((PREFIX, TUNED))]
    found = {finding.claim.id: finding for finding in judge(asked, rows) if finding.interval.bounded}
    shown = {name: finding for name, finding in found.items() if not _on_first(finding)}
    labels = list(GRIDS["value-heads"].rows)  # the table beside the figure has the same order
    known = [algo for algo in SMALLER if any(name.startswith(PREFIX + algo) for name in shown)]
    algos = sorted(known, key=lambda algo: labels.index(NAMES[algo]))
    if not algos:
        return {}
    figure = Figure(figsize=(7.6, 0.7 + 0.75 * len(algos)), layout="constrained")
    axes = figure.subplots()
    for at, algo in enumerate(reversed(algos)):
        marks = [*((dataset, _id(algo, dataset)) for dataset in REPLAYS), ("", PREFIX + algo + EVERYWHERE)]
        for index, (dataset, name) in enumerate(marks):
            _mark(axes, found.get(name), at + STEP * (1.5 - index), COLOURS.get(dataset, "black"))
        _mark(axes, found.get(TUNED + algo), at - STEP * 2.5, COLOURS[REPLAYS[0]], fill="white")
    for dataset, colour in COLOURS.items():
        axes.plot([], [], "D", color=colour, markersize=4, label=dataset)
    axes.plot([], [], "D", color="black", markersize=4, label="mean of the three")
    if any(name.startswith(TUNED) for name in found):
        words = "hopper, each head at the best of five step sizes"
        axes.plot([], [], "D", color=COLOURS[REPLAYS[0]], mfc="white", markersize=4, label=words)
    axes.axvline(0.0, color=GREY, linestyle=":", linewidth=1.2)
    axes.set_yticks(range(len(algos)), reversed(algos))
    axes.set_ylim(-0.6, len(algos) - 0.4)
    axes.set_xlabel("last score, HL-Gauss minus squared error")
    seeds = max(len(finding.seeds) for finding in found.values())
    axes.set_title(f"quick presets, {seeds} seeds: mean paired difference, 95% t-interval")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return {f"{EXPERIMENT}/value-heads-everywhere": figure}


def _id(algo: str, dataset: str) -> str:
    return PREFIX + algo + ("" if dataset == REPLAYS[0] else f"-{dataset.split('-')[0]}")


def _on_first(finding: Finding) -> bool:
    """Whether it is about the first data set alone, which another figure shows."""
    return {need.dataset for need in finding.claim.needs} == {REPLAYS[0]}


def _mark(axes: Axes, finding: Finding | None, height: float, colour: str, fill: str = "") -> None:
    if finding is None:
        return
    interval = finding.interval
    error = [[interval.estimate - interval.low], [interval.high - interval.estimate]]
    axes.errorbar(
        interval.estimate, height, xerr=error, fmt="D", color=colour, mfc=fill or colour, capsize=2, markersize=4
    )
