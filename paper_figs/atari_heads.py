"""Value heads in DQN on Atari: returns of training episodes, and what the networks estimate, over training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import curves
from experiments.atari_heads import EXPERIMENT
from jaxrl_suite.algorithms.dqn_atari_config import PRESETS
from jaxrl_suite.envs import atari
from jaxrl_suite.report import mean_interval
from paper_figs.style import GREY
from paper_figs.value_heads import HEADS, MARKS, NAMES

SHOWN = {"return_mean": "return of the newest training episodes", "q_start": "largest Q of the current states"}


def draw(results: Path) -> dict[str, Figure]:
    """Figures by path without ending, one per preset, from `results/atari_heads/`; none without curves."""
    folder = results / EXPERIMENT
    published = curves.read(folder / curves.CURVES)
    rows = pd.read_csv(folder / "summary.csv", dtype={"run_id": str, "settings": str}).fillna({"settings": ""})
    rows = rows[(rows["status"] == "finished") & (rows["settings"] == "") & rows["run_id"].isin(published)]
    figures = {}
    for preset, mine in rows.groupby("preset"):
        points = pd.DataFrame([at for run_id in mine["run_id"] for at in published[run_id]])
        points = points.merge(mine[["run_id", "algo", "dataset"]], on="run_id")
        figures[f"{EXPERIMENT}/curves-{preset}"] = _figure(points, str(preset))
    return figures


def _figure(points: pd.DataFrame, preset: str) -> Figure:
    games = sorted(points["dataset"].unique())
    figure = Figure(figsize=(8.6, 3.2 * len(games)), layout="constrained")
    config = PRESETS[preset]
    for row, game in zip(figure.subplots(len(games), 2, squeeze=False), games, strict=True):
        mine = points[points["dataset"] == game]
        for axes, (column, words) in zip(row, SHOWN.items(), strict=True):
            for head in (head for head in HEADS if head in set(mine["algo"])):
                _curve(axes, mine[mine["algo"] == head], column, head, config.update_every)
            axes.set_ylabel(words)
            axes.set_xlabel("steps of the agent after exploration, in thousands")
        row[0].axhline(atari.GAMES[game][1], color=GREY, linestyle=":", linewidth=1.2, label="random actions")
        row[0].set_title(game)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    seeds = points.groupby(["dataset", "algo"])["seed"].nunique().min()
    frames = config.steps * atari.SKIP
    figure.suptitle(
        f"DQN on Atari, {frames:,} frames (the paper has 200 million): {seeds} seeds, thin, and their mean", fontsize=9
    )
    return figure


def _curve(axes: Axes, points: pd.DataFrame, column: str, head: str, update_every: int) -> None:
    """Each seed thin, the mean over seeds thick."""
    scale, points = update_every / 1000, points.dropna(subset=[column])  # at first no episode may have ended
    for _, mine in points.groupby("seed"):
        axes.plot(mine["update"] * scale, mine[column], color=HEADS[head], linewidth=0.6, alpha=0.6)
    means = points.groupby("update")[column].apply(lambda values: mean_interval(np.asarray(values)).estimate)
    style: Any = {"color": HEADS[head], "marker": MARKS[head], "label": NAMES[head]}
    axes.plot(means.index * scale, means, linewidth=1.5, markersize=4, **style)
