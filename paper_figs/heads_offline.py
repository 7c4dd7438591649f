"""Value heads in the offline algorithms, and what a one-sided Gaussian does to IQL's values: a dot per seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.heads_offline_claims import DATASET, EXPERIMENT, SEEDS, SMALLER, runs
from jaxrl_suite.report import mean_interval
from paper_figs.style import GREY
from paper_figs.value_heads import HEADS, NAMES

ZERO = "hl_gauss, begun at 0"
SHOWN = ("mse", "mse_softmax", "two_hot", "c51", "quantile", "hl_gauss", ZERO, "one_sided")
WIDTH = 0.12


def draw(results: Path) -> dict[str, Figure]:
    """Figures by path without ending, from `results/offline_mbrl/summary.csv`; none without runs of other heads."""
    rows = pd.read_csv(results / EXPERIMENT / "summary.csv", dtype={"settings": str}).fillna({"settings": ""})
    kept = (rows["status"] == "finished") & (rows["preset"] == "quick") & (rows["dataset"] == DATASET)
    rows = rows[kept & (rows["seed"] < SEEDS)]
    algos = [algo for algo in SMALLER if len(_of(rows, algo, "hl_gauss"))]
    if not algos:
        return {}
    figure = Figure(figsize=(10.6, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(max(2, len(algos)), 2))
    _scores(left, rows, algos)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=8, frameon=False, fontsize=8)
    _values(right, rows)
    figure.suptitle(f"{DATASET}, quick presets, seeds 0 to {SEEDS - 1}; bars: mean, 95% t-interval", fontsize=9)
    return {f"{EXPERIMENT}/value-heads": figure}


def _of(rows: pd.DataFrame, algo: str, head: str) -> pd.DataFrame:
    needed = runs(algo, "hl_gauss", "0") if head == ZERO else runs(algo, head)
    return rows[(rows["algo"] == algo) & (rows["settings"] == needed.settings)]


def _dots(axes: Axes, place: float, values: np.ndarray, head: str) -> None:
    look = _look(head)
    axes.plot(np.full(len(values), place), values, "o", color=look["color"], alpha=0.45, markersize=4)
    found = mean_interval(values)
    if found.bounded:
        error = [[found.estimate - found.low], [found.high - found.estimate]]
        axes.errorbar(place + WIDTH / 3, found.estimate, yerr=error, fmt="D", capsize=3, markersize=4, **look)


def _look(head: str) -> dict[str, Any]:
    """Colour and filling: open where only the first value differs."""
    return {"color": HEADS["hl_gauss"], "mfc": "white"} if head == ZERO else {"color": HEADS[head]}


def _scores(axes: Axes, rows: pd.DataFrame, algos: list[str]) -> None:
    for at, algo in enumerate(algos):
        there = [head for head in SHOWN if len(_of(rows, algo, head))]
        for index, head in enumerate(there):
            place = at + WIDTH * (index - (len(there) - 1) / 2)
            _dots(axes, place, _of(rows, algo, head)["score_last"].to_numpy(float), head)
    for head in SHOWN:
        if any(len(_of(rows, algo, head)) for algo in algos):
            name = f"{NAMES['hl_gauss']}, begun at 0" if head == ZERO else NAMES[head]
            axes.plot([], [], "D", markersize=4, label=name, **_look(head))
    axes.set_xticks(range(len(algos)), algos)
    axes.axhline(0.0, color=GREY, linestyle=":", linewidth=0.8)
    axes.set_ylabel("last score (0 random, 100 expert)")


def _values(axes: Axes, rows: pd.DataFrame) -> None:
    """What IQL's critics promise at the starts, and what followed."""
    heads = [head for head in ("mse", "hl_gauss", ZERO, "one_sided") if len(_of(rows, "iql", head))]
    for at, head in enumerate(heads):
        mine = _of(rows, "iql", head)
        _dots(axes, at, mine["q_last"].to_numpy(float), head)
        true = float(mine["mc_last"].mean())
        axes.plot([at - 0.3, at + 0.3], [true, true], color=GREY, linewidth=1.4)
    axes.plot([], [], color=GREY, label="discounted return that followed")
    names = {**NAMES, ZERO: "begun at 0"}
    axes.set_xticks(range(len(heads)), [names[head].replace(" ", "\n", 1) for head in heads], fontsize=7)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("IQL: Q at the starts")
    axes.legend(frameon=False, fontsize=8)
