"""An ensemble or one Lipschitz model on recorded data: last scores of every arm under RAVL and MOPO, a dot per seed.

A panel per algorithm and kind of model, of those with runs of single models.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.lipschitz_arms import MECHANISMS
from experiments.lipschitz_claims import KINDS
from experiments.lipschitz_offline_claims import DATASET, EXPERIMENT, SMALLER, runs
from jaxrl_suite.report import mean_interval
from paper_figs.ensemble_vs_lipschitz import COLOURS
from paper_figs.style import GREY, panels

ACROSS = 2  # panels
ARMS = tuple((name, single) for single in (False, True) for name in MECHANISMS)


def draw(results: Path) -> dict[str, Figure]:
    """Figures by path without ending, from `results/offline_mbrl/summary.csv`; none without runs of single models."""
    rows = pd.read_csv(results / EXPERIMENT / "summary.csv", dtype={"settings": str}).fillna({"settings": ""})
    rows = rows[(rows["status"] == "finished") & (rows["preset"] == "quick") & (rows["dataset"] == DATASET)]
    shown = [one for one in itertools.product(SMALLER, KINDS) if _known(rows, *one)]
    if not shown:
        return {}
    rooms = min(len(shown), ACROSS), math.ceil(len(shown) / ACROSS)
    figure = Figure(figsize=(4.6 * rooms[0], 3.1 * rooms[1] + 0.3), layout="constrained")
    counts = set()
    for axes, (algo, kind) in zip(panels(figure, len(shown), ACROSS, sharey=True), shown, strict=True):
        for place, (mechanism, single) in enumerate(ARMS):
            values, colour = _of(rows, algo, mechanism, single, kind), COLOURS[mechanism]
            axes.plot(np.full(len(values), place - 0.1), values, "o", color=colour, alpha=0.45, markersize=4)
            counts.add(len(values))
            found = mean_interval(values)
            if found.bounded:
                error = [[found.estimate - found.low], [found.high - found.estimate]]
                axes.errorbar(place + 0.1, found.estimate, yerr=error, fmt="D", color=colour, capsize=3, markersize=4)
        axes.set_xticks(range(len(ARMS)), [mechanism for mechanism, _ in ARMS], rotation=30, ha="right", fontsize=8)
        axes.axvline(len(MECHANISMS) - 0.5, color=GREY, linestyle=":", linewidth=0.8)
        for half, word in enumerate(("ensemble", "single")):
            axes.text(0.25 + 0.5 * half, 1.0, word, transform=axes.transAxes, ha="center", va="bottom", fontsize=8)
        axes.set_title(algo if kind == "probabilistic" else f"{algo}, {kind} models", pad=16)
    figure.supylabel("last score (0 random, 100 expert)", fontsize=9)
    few, many = min(counts), max(counts)
    seeds = f"{many} seeds" if few == many else f"{few} to {many} seeds"
    figure.suptitle(f"{DATASET}, quick presets, {seeds}: mean, 95% t-interval and a dot per seed", fontsize=9)
    return {f"{EXPERIMENT}/lipschitz-arms": figure}


def _known(rows: pd.DataFrame, algo: str, kind: str) -> bool:
    """Whether there are runs of single models."""
    return any(len(_of(rows, algo, *arm, kind)) for arm in ARMS if arm[1])


def _of(rows: pd.DataFrame, algo: str, mechanism: str, single: bool, kind: str) -> np.ndarray:
    needed = runs(algo, mechanism, single, kind)
    return rows[(rows["algo"] == algo) & (rows["settings"] == needed.settings)]["score_last"].to_numpy(float)
