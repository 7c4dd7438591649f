"""Learning curves of published rows, and how far critics promise more than their policy collects.

Means over seeds, a line per algorithm and settings, with 95% t-intervals where there are few. Lines that made the same
number of updates share a figure, and BC, the line to beat, is in each. Other precisions, value heads, step sizes of
the critics, mechanisms, layer normalisation and world models of the same settings are left out: claims compare them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import curves
from jaxrl_suite.report import mean_interval
from jaxrl_suite.report.comparison import line_of
from paper_figs.style import BLUE, GREEN, GREY, ORANGE, PURPLE

COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
DASHES = ("-", "--", ":", (0, (6, 1, 1, 1, 1, 1)))  # a line is told by them, too
SHOWN = {"return_mean": "return per episode", "excess": "Q-value estimate − true return\n(discounted, from the start)"}
EXPERIMENT = "offline_mbrl"
OTHERS = r"precision=|head=|critic_lr=|lipschitz=|layer_norm=|dynamics\."  # settings that are left out
MOST_BANDS = 6  # lines whose intervals can be told apart


def draw(results: Path) -> dict[str, Figure]:
    """Figures by path without ending, one per data set, preset and number of updates; none without curves."""
    folder = results / EXPERIMENT
    published = curves.read(folder / curves.CURVES)
    rows = pd.read_csv(folder / "summary.csv", dtype={"run_id": str, "settings": str})
    rows = rows[(rows["status"] == "finished") & rows["run_id"].isin(published)]
    rows = rows[~rows["settings"].fillna("").str.contains(OTHERS)]
    figures = {}
    to_beat = rows[(rows["algo"] == "bc") & (rows["settings"].fillna("") == "")]
    for (dataset, preset, updates), group in rows.groupby(["dataset", "preset", "updates"]):
        reference = to_beat[(to_beat["dataset"] == dataset) & (to_beat["preset"] == preset)]
        group = pd.concat([group, reference]).drop_duplicates("run_id")
        points = pd.DataFrame([at for run_id in group["run_id"] for at in published[run_id]])
        points = points.merge(group.assign(line=group.apply(line_of, axis=1))[["run_id", "line"]], on="run_id")
        points["excess"] = points["q_start"] - points["mc_start"]
        behaviour = float(group["behaviour_return"].iloc[0])
        name = f"offline_mbrl/learning-curves-{dataset}-{preset}-{updates}"
        figures[name] = _figure(points, behaviour, f"{dataset}, {preset}")
    return figures


def look(place: int) -> tuple[str, Any]:
    """Colour and dashes of a figure's line, counted from 0; no two are alike."""
    turn, colour = divmod(place, len(COLOURS))
    # Beyond the named dashes, one dot more each time.
    return COLOURS[colour], DASHES[turn] if turn < len(DASHES) else (0, (6, 1) + (1, 1) * (turn - 1))


def _figure(points: pd.DataFrame, behaviour: float, title: str) -> Figure:
    """`points` has a row per line, seed and update."""
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    bands, last = points["line"].nunique() <= MOST_BANDS, int(points["update"].max())
    for axis, (name, words) in zip(axes, SHOWN.items(), strict=True):
        for place, (line, mine) in enumerate(points.groupby("line")):
            _curve(axis, mine, name, str(line), look(place), bands, last)
        axis.set_xlabel("gradient updates of the agent")
        axis.set_ylabel(words)
    axes[0].axhline(behaviour, color=GREY, linestyle="-.", linewidth=1.2, label="mean return of the data")
    axes[1].axhline(0, color=GREY, linestyle="-.", linewidth=1.2)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"{title}: mean over seeds{', 95% t-interval' if bands else ''}", fontsize=11)
    return figure


def _curve(
    axes: Axes, points: pd.DataFrame, name: str, line: str, look: tuple[str, Any], band: bool, last: int
) -> None:
    """A line where every seed has a finite value: a mean over fewer would jump where a seed is lost. Lines of runs that
    end before the figure's last update say so."""
    table = points.pivot_table(index="update", columns="seed", values=name).dropna()
    if table.empty:
        return
    intervals = [mean_interval(values) for values in table.to_numpy(float)]
    mean, low, high = (np.array(part) for part in list(zip(*intervals, strict=True))[:3])
    colour, dashes = look
    marker = "o" if len(table) == 1 else ""  # a single evaluation makes no line
    count = f"{table.shape[1]} seed{'s' if table.shape[1] > 1 else ''}"
    if (end := int(points["update"].max())) < last:
        count += f", {end:,} updates"
    axes.plot(table.index, mean, linestyle=dashes, color=colour, marker=marker, label=f"{line} ({count})")
    if band:
        axes.fill_between(table.index, low, high, color=colour, alpha=0.18, linewidth=0)
