"""Layer normalisation in the critics of offline algorithms, on recorded data: a dot per seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.needs import REPLAYS
from experiments.norm_claims import ALGOS, EXPERIMENT, SEEDS, arms
from jaxrl_suite.report import mean_interval
from jaxrl_suite.report.claims import Needed
from paper_figs.style import BLUE, ORANGE

LOOKS = (("with layer normalisation", BLUE, 0.12), ("without", ORANGE, -0.12))  # of the two arms, in their order


def draw(results: Path) -> dict[str, Figure]:
    """Figures by path without ending, from `results/offline_mbrl/summary.csv`; none without runs that have it."""
    rows = pd.read_csv(results / EXPERIMENT / "summary.csv", dtype={"settings": str}).fillna({"settings": ""})
    rows = rows[(rows["status"] == "finished") & (rows["preset"] == "quick") & (rows["seed"] < SEEDS)]
    datasets = [each for each in REPLAYS if any(len(_of(rows, arms(algo, each)[0])) for algo in ALGOS)]
    if not datasets:
        return {}
    figure = Figure(figsize=(1.2 + 3.4 * len(datasets), 3.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(datasets)))
    for axes, dataset in zip(panels, datasets, strict=True):
        _panel(axes, rows, dataset)
    panels[0].set_ylabel("last score (0 random, 100 expert)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(f"quick presets, seeds 0 to {SEEDS - 1}; bars: mean, 95% t-interval", fontsize=9)
    return {f"{EXPERIMENT}/layer-norm": figure}


def _of(rows: pd.DataFrame, needed: Needed) -> pd.DataFrame:
    keys = {"algo": needed.algo, "dataset": needed.dataset, "settings": needed.settings}
    return rows[np.logical_and.reduce([rows[name] == value for name, value in keys.items()])]


def _panel(axes: Axes, rows: pd.DataFrame, dataset: str) -> None:
    for words, colour, _ in LOOKS:
        axes.plot([], [], "D", color=colour, markersize=4, label=words)
    for at, algo in enumerate(ALGOS):
        for needed, (_, colour, shift) in zip(arms(algo, dataset), LOOKS, strict=True):
            values = _of(rows, needed)["score_last"].to_numpy(float)
            if not len(values):
                continue
            axes.plot(np.full(len(values), at + shift), values, "o", color=colour, alpha=0.45, markersize=4)
            found = mean_interval(values)
            half = found.high - found.estimate if found.bounded else 0.0
            axes.errorbar(at + shift + 0.05, found.estimate, half, fmt="D", color=colour, capsize=3, markersize=4)
    axes.set_xticks(range(len(ALGOS)), [*ALGOS])
    axes.set_title(dataset, fontsize=9)
