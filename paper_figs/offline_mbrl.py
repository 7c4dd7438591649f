"""RAVL beside BC and the data set's behaviour; and what its critics promise beside what its policy collects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxrl_suite.report import mean_interval
from paper_figs.style import BLUE, GREY, ORANGE

EXPERIMENT = "offline_mbrl"
SHOWN = ("bc", "ravl")


def draw(results: Path) -> dict[str, Figure]:
    """Figures by path without ending, one per data set and preset, from `results/offline_mbrl/summary.csv`."""
    rows = pd.read_csv(results / EXPERIMENT / "summary.csv", dtype={"settings": str})
    settings = rows["settings"].fillna("") if "settings" in rows else ""
    rows = rows[(rows["status"] == "finished") & (settings == "") & rows["algo"].isin(SHOWN)]
    figures = {}
    for (dataset, preset), group in rows.groupby(["dataset", "preset"]):
        name = str(dataset) if preset == "quick" else f"{dataset}-{preset}"
        figures[f"offline_mbrl/{name}"] = _figure(group, f"{dataset}, preset {preset}")
    return figures


def _figure(rows: pd.DataFrame, title: str) -> Figure:
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    _returns(left, rows)
    _promises(right, rows[rows["algo"] == "ravl"])
    figure.suptitle(title, fontsize=11)
    return figure


def _returns(axes: Axes, rows: pd.DataFrame) -> None:
    """Last returns: a dot per seed, the mean with its 95% t-interval."""
    algos = [algo for algo in SHOWN if (rows["algo"] == algo).any()]
    for place, algo in enumerate(algos):
        values = rows.loc[rows["algo"] == algo, "return_last"].to_numpy(float)
        spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(1)
        axes.plot(place + spread, np.sort(values), "o", color=BLUE, alpha=0.45, markersize=5)
        interval = mean_interval(values)
        if np.isfinite(interval.low):
            error = [[interval.estimate - interval.low], [interval.high - interval.estimate]]
            axes.errorbar(place + 0.25, interval.estimate, yerr=error, fmt="D", color=ORANGE, capsize=4)
    behaviour = float(rows["behaviour_return"].iloc[0])
    axes.axhline(behaviour, color=GREY, linestyle="--", linewidth=1.4)
    # Below the line, in the free corner at the right.
    axes.annotate(
        "mean return of the data",
        xy=(1, behaviour),
        xycoords=("axes fraction", "data"),
        xytext=(-6, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        color=GREY,
        fontsize=9,
    )
    counts = [int((rows["algo"] == algo).sum()) for algo in algos]
    axes.set_xticks(range(len(algos)), [f"{a.upper()}\n{n} seeds" for a, n in zip(algos, counts, strict=True)])
    axes.set_xlim(-0.5, len(algos) - 0.3)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("last return per episode")
    axes.set_title("dots: seeds; diamonds: mean, 95% t-interval", fontsize=9)


def _promises(axes: Axes, rows: pd.DataFrame) -> None:
    """Q-values at evaluation starts against the discounted returns that followed, a dot per seed."""
    if rows.empty:
        axes.set_axis_off()
        return
    axes.plot(rows["mc_last"], rows["q_last"], "o", color=BLUE)
    top = 1.1 * float(max(rows["mc_last"].max(), rows["q_last"].max(), 1.0))
    axes.plot([0, top], [0, top], color=GREY, linestyle="--", linewidth=1.2)
    axes.annotate("exact", (0.9 * top, 0.92 * top), color=GREY, fontsize=9, ha="right")
    axes.set_xlabel("true discounted return from the start")
    axes.set_ylabel("Q-value estimate at the start")
    axes.set_title("RAVL: what the critics promise, a dot per seed", fontsize=9)
