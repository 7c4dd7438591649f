"""An ensemble or one Lipschitz model on recorded data: last scores of every arm under RAVL and MOPO, a dot per seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.lipschitz_arms import MECHANISMS
from experiments.lipschitz_offline_claims import DATASET, EXPERIMENT, SMALLER, runs
from jaxrl_suite.report import mean_interval
from paper_figs.ensemble_vs_lipschitz import COLOURS

ARMS = (("none", False), *((name, True) for name in MECHANISMS))


def draw(results: Path) -> dict[str, Figure]:
    """Figures by path without ending, from `results/offline_mbrl/summary.csv`; none without runs of single models."""
    rows = pd.read_csv(results / EXPERIMENT / "summary.csv", dtype={"settings": str}).fillna({"settings": ""})
    rows = rows[(rows["status"] == "finished") & (rows["preset"] == "quick") & (rows["dataset"] == DATASET)]
    if not any(len(_of(rows, algo, *arm)) for algo in SMALLER for arm in ARMS[1:]):
        return {}
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    for axes, algo in zip(figure.subplots(1, len(SMALLER), sharey=True), SMALLER, strict=True):
        for place, (mechanism, single) in enumerate(ARMS):
            values, colour = _of(rows, algo, mechanism, single), COLOURS[mechanism]
            axes.plot(np.full(len(values), place - 0.1), values, "o", color=colour, alpha=0.45, markersize=4)
            found = mean_interval(values)
            if found.bounded:
                error = [[found.estimate - found.low], [found.high - found.estimate]]
                axes.errorbar(place + 0.1, found.estimate, yerr=error, fmt="D", color=colour, capsize=3, markersize=4)
        names = [f"{'single' if single else 'ensemble'}\n{mechanism}" for mechanism, single in ARMS]
        axes.set_xticks(range(len(ARMS)), names, fontsize=8)
        axes.set_title(algo)
        axes.set_ylim(bottom=0)
    figure.axes[0].set_ylabel("last score (0 random, 100 expert)")
    figure.suptitle(f"{DATASET}, quick presets: mean, 95% t-interval and a dot per seed", fontsize=9)
    return {f"{EXPERIMENT}/lipschitz-arms": figure}


def _of(rows: pd.DataFrame, algo: str, mechanism: str, single: bool) -> np.ndarray:
    needed = runs(algo, mechanism, single)
    return rows[(rows["algo"] == algo) & (rows["settings"] == needed.settings)]["score_last"].to_numpy(float)
