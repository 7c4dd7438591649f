"""Learned worlds and the true one on recorded data: what training does in them, and what accuracy and length change."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from experiments import curves
from experiments.box_studies import EXPERIMENT, WORLD
from paper_figs.edge_of_reach import band, seeds_of
from paper_figs.style import BLUE, GREEN, GREY, ORANGE, PURPLE

ALGORITHMS = {"mbpo": ORANGE, "ravl": BLUE, "mopo": PURPLE, "combo": GREEN}
SHOWN = {"return_mean": "return of an episode", "excess": "Q-value estimate less true return\n(from the start)"}


def draw(results: Path) -> dict[str, Figure]:
    """Figures by path without ending, two per data set and preset, from the csv files of `results/edge_of_reach`."""
    folder = results / EXPERIMENT
    rows = pd.read_csv(folder / "summary.csv", dtype={"run_id": str, "settings": str})
    rows = rows[(rows["status"] == "finished") & (rows["dataset"] != WORLD)].fillna({"settings": ""})
    published = curves.read(folder / curves.CURVES)
    figures: dict[str, Figure | None] = {}
    for (dataset, preset), mine in rows.groupby(["dataset", "preset"]):
        stem = f"{EXPERIMENT}/{dataset}" + ("" if preset == "quick" else f"-{preset}")
        usual = mine[mine["horizon"] == mine.loc[mine["algo"] == "ravl", "horizon"].min()]
        figures[f"{stem}-training"] = _training(usual[usual["accuracy"].isin((0.0, 1.0))], published, str(dataset))
        figures[f"{stem}-worlds"] = _worlds(mine, usual, str(dataset))
    return {name: figure for name, figure in figures.items() if figure is not None}


def _training(rows: pd.DataFrame, published: dict, title: str) -> Figure | None:
    """Returns and what critics promise beyond them: a colour per algorithm, dashed in the learned world."""
    rows = rows[rows["run_id"].isin(published)]
    if rows.empty:
        return None
    points = pd.DataFrame([at for run_id in rows["run_id"] for at in published[run_id]])
    points = points.merge(rows[["run_id", "algo", "accuracy"]], on="run_id")
    points["excess"] = points["q_start"] - points["mc_start"]
    figure = Figure(figsize=(9.5, 3.9), layout="constrained")
    for axes, (column, words) in zip(figure.subplots(1, 2), SHOWN.items(), strict=True):
        for algo, colour in ALGORITHMS.items():
            for accuracy, dashes, world in ((1.0, "-", "true"), (0.0, "--", "learned")):
                mine = points[(points["algo"] == algo) & (points["accuracy"] == accuracy)]
                band(axes, mine, "update", column, colour, f"{algo}, {world}", dashes)
        axes.set_xlabel("gradient updates")
        axes.set_ylabel(words)
    handles = axes.get_legend_handles_labels()
    axes.axhline(0.0, color=GREY, linestyle=":", linewidth=1.2)
    figure.legend(*handles, loc="outside lower center", ncols=6, frameon=False)
    figure.suptitle(f"{title}: mean over {seeds_of(rows)}, 95% t-interval", fontsize=10)
    return figure


def _worlds(rows: pd.DataFrame, usual: pd.DataFrame, title: str) -> Figure | None:
    """Scores against the world's accuracy, and against the length of rollouts in the true one."""
    true = rows[(rows["accuracy"] == 1.0) & (rows["algo"] == "mbpo")]
    if usual["accuracy"].nunique() < 3 or true["horizon"].nunique() < 2:
        return None
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for algo in ("mbpo", "ravl"):
        band(left, usual[usual["algo"] == algo], "accuracy", "score_last", ALGORITHMS[algo], algo)
    left.set_xticks([-1, 0, 1], ["-1\nrandom", "0\nlearned", "1\ntrue"])
    left.set_xlabel("accuracy of the world")
    left.set_ylabel("normalised score at the end")
    left.legend(frameon=False)
    band(right, true, "horizon", "score_last", ALGORITHMS["mbpo"], "mbpo")
    right.set_xlabel("steps k of a rollout, true dynamics")
    right.set_xticks(sorted(true["horizon"].unique()))
    figure.suptitle(f"{title}: mean over {seeds_of(rows)}, 95% t-interval", fontsize=10)
    return figure
