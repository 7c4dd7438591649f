"""All algorithms of a suite: interquartile means, probabilities of improvement over BC, performance profiles.

A suite is what the rows make one: algorithms, each at the settings of the claims' suite alone, that finished the same
seeds on the same data sets, two or more of each, after the same number of updates.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.claims import SUITE
from jaxrl_suite.algorithms import registry
from jaxrl_suite.report import Interval, aggregate, stratified_bootstrap
from jaxrl_suite.report.bootstrap import Statistic
from jaxrl_suite.report.jackknife import jackknife_interval
from jaxrl_suite.report.stats import FEWEST_RUNS
from paper_figs.style import BLUE, GREY, ORANGE

EXPERIMENT = "offline_mbrl"
COLOURS = {registry.MODEL_BASED: ORANGE, registry.MODEL_FREE: BLUE}


class Suite(NamedTuple):
    """Comparable runs."""

    name: str
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    scores: Mapping[str, np.ndarray]  # algorithm -> last scores [seeds, data sets]


def draw(results: Path) -> dict[str, Figure]:
    """Figures by path without ending, one per suite, from `results/offline_mbrl/summary.csv`."""
    rows = pd.read_csv(results / EXPERIMENT / "summary.csv", dtype={"settings": str})
    return {f"{EXPERIMENT}/{suite.name}": _figure(suite) for suite in suites(rows)}


def suites(rows: pd.DataFrame) -> list[Suite]:
    """What can be compared in `rows`: data sets that most algorithms share, and the seeds that all of those share."""
    rows = rows[(rows["status"] == "finished") & rows["score_last"].notna()]
    # Other settings of an algorithm, such as value heads, would count it several times among its family.
    rows = rows[rows["settings"].fillna("") == rows["algo"].map(SUITE)]
    found = []
    for (preset, updates), group in rows.groupby(["preset", "updates"]):
        cells = group.pivot(index=["algo", "seed"], columns="dataset", values="score_last")
        cells = cells.loc[:, cells.groupby("algo").count().gt(0).sum() > 1].dropna()
        algos = list(dict.fromkeys(cells.index.get_level_values("algo")))
        if len(algos) < 2 or cells.shape[1] < 2:
            continue
        seeds = sorted(set.intersection(*(set(cells.loc[algo].index) for algo in algos)))
        if len(seeds) < 2:
            continue
        scores = {algo: cells.loc[algo].loc[seeds].to_numpy(float) for algo in algos}
        found.append(Suite(f"algorithms-{preset}-{updates}", tuple(cells.columns), tuple(seeds), scores))
    return found


def interval(statistic: Statistic, *scores: np.ndarray, **more: Any) -> Interval:
    """An aggregate with its interval: bootstrap where there are ten seeds, else jackknife with the options `more`."""
    if len(scores[0]) < FEWEST_RUNS:
        return jackknife_interval(statistic, *scores, **more)
    return stratified_bootstrap(statistic, *scores, rng=np.random.default_rng(0))


def _figure(suite: Suite) -> Figure:
    figure = Figure(figsize=(10.5, 0.27 * len(suite.scores) + 2.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.15, 1, 1))
    order = sorted(suite.scores, key=lambda algo: float(aggregate.iqm(suite.scores[algo])))
    iqms = {algo: interval(aggregate.iqm, suite.scores[algo]) for algo in order}
    _intervals(left, iqms, "IQM of last scores, 95% interval")
    left.set_yticks(range(len(order)), order)
    if "bc" in suite.scores:
        statistic, bc = aggregate.probability_of_improvement, suite.scores["bc"]
        better = {
            algo: interval(statistic, suite.scores[algo], bc, within=(0.0, 1.0)) for algo in order if algo != "bc"
        }
        _intervals(middle, {algo: better.get(algo) for algo in order}, "probability of improvement over BC")
        middle.axvline(0.5, color=GREY, linestyle="--", linewidth=1.2)
        middle.set_xlim(0, 1)
        middle.set_yticks(range(len(order)), [""] * len(order))
        middle.text(0.52, order.index("bc"), "the reference", color=GREY, fontsize=8, va="center")
    else:
        middle.set_axis_off()
    _profiles(right, suite)
    runs = f"{len(suite.seeds)} seeds on {', '.join(suite.datasets)}"
    varied = "intervals: what other seeds would change, on the same data sets"
    figure.suptitle(f"{runs}\nlast scores (0 random, 100 expert); {varied}", fontsize=9)
    return figure


def _colour(algo: str) -> str:
    entry = registry.ALGORITHMS.get(algo)
    return COLOURS.get(entry.family if entry else "", GREY)


def _intervals(axes: Axes, intervals: Mapping[str, Interval | None], label: str) -> None:
    """A line per algorithm: the estimate with its interval, or hollow where there is none."""
    for place, (algo, found) in enumerate(intervals.items()):
        if found is None:
            continue
        fill = _colour(algo) if found.bounded else "white"
        axes.plot(found.estimate, place, "o", color=_colour(algo), markerfacecolor=fill, markersize=5)
        if found.bounded:
            axes.plot([found.low, found.high], [place, place], color=_colour(algo), linewidth=1.6)
    hollow = any(found is not None and not found.bounded for found in intervals.values())
    axes.set_xlabel(f"{label}\nhollow: no interval, where seeds are too few or all tell the same" if hollow else label)
    axes.set_ylim(-0.6, len(intervals) - 0.4)
    axes.grid(axis="x", linewidth=0.4, alpha=0.5)


def _profiles(axes: Axes, suite: Suite) -> None:
    """Share of runs above a score: thin, an algorithm; thick, all runs of a family."""
    every = np.concatenate([scores.ravel() for scores in suite.scores.values()])
    thresholds = np.linspace(min(0.0, float(every.min())), float(every.max()), 200)
    for family, colour in COLOURS.items():
        mine = [scores for algo, scores in suite.scores.items() if _colour(algo) == colour]
        for scores in mine:
            axes.step(thresholds, aggregate.performance_profile(scores, thresholds), color=colour, alpha=0.3, lw=0.8)
        if mine:
            whole = aggregate.performance_profile(np.concatenate(mine), thresholds)
            axes.step(thresholds, whole, color=colour, linewidth=2.2, label=f"{family.removeprefix('offline, ')}, all")
    axes.plot([], [], color=GREY, alpha=0.5, linewidth=0.8, label="thin: one algorithm")
    axes.set_xlabel("score")
    axes.set_ylabel("share of runs above it")
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, fontsize=8)
