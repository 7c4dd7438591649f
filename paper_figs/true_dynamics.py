"""Learned worlds and the true one on recorded data: what training does in them, what accuracy and length change, what
critics and model say where rollouts end, true values put in there, what penalties of the model are worth where it makes
no error, and the number of critics against their diversity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments import curves, edge_tasks
from experiments.box_studies import EXPERIMENT, WORLD
from jaxrl_suite.report import mean_interval
from jaxrl_suite.report.claims import Needed
from paper_figs.edge_of_reach import band, seeds_of
from paper_figs.style import BLUE, GREEN, GREY, ORANGE, PURPLE

ARMS = {("mbpo", "none"): ORANGE, ("mbpo", "edge"): GREEN, ("mbpo", "random"): PURPLE, ("ravl", "none"): BLUE}
NAMES = {
    ("mbpo", "none"): "mbpo",
    ("mbpo", "edge"): "mbpo, patched at the ends",
    ("mbpo", "random"): "mbpo, as many patched at random",
    ("ravl", "none"): "ravl",
}
ALGORITHMS = {"mbpo": ORANGE, "ravl": BLUE, "mopo": PURPLE, "combo": GREEN}
PENALISED = ("mbpo", "morel", "mopo", "mobile", "rambo", "combo", "ravl")
WORLDS = {-1.0: "random", 0.0: "learned", 1.0: "true"}  # by accuracy
SHOWN = {"return_mean": "return of an episode", "excess": "Q-value estimate less true return\n(from the start)"}


def draw(results: Path) -> dict[str, Figure]:
    """Figures by path without ending, up to six per data set and preset, from the csv files of
    `results/edge_of_reach`."""
    folder = results / EXPERIMENT
    rows = pd.read_csv(folder / "summary.csv", dtype={"run_id": str, "settings": str})
    rows = rows[(rows["status"] == "finished") & (rows["dataset"] != WORLD)].fillna({"settings": ""})
    published = curves.read(folder / curves.CURVES)
    figures: dict[str, Figure | None] = {}
    for (dataset, preset), mine in rows.groupby(["dataset", "preset"]):
        stem, title = f"{EXPERIMENT}/{dataset}" + ("" if preset == "quick" else f"-{preset}"), str(dataset)
        usual = _of_study(mine, "methods")
        figures[f"{stem}-training"] = _training(usual, published, title)
        figures[f"{stem}-worlds"] = _worlds(mine, pd.concat([usual, _of_study(mine, "accuracy")]), title)
        figures[f"{stem}-ends"] = _ends(usual, title)
        figures[f"{stem}-patches"] = _patches(_of_study(mine, "patches"), published, title)
        figures[f"{stem}-penalties"] = _penalties(mine, title)
        figures[f"{stem}-critics"] = _critics(mine, title)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _of_study(rows: pd.DataFrame, study: str) -> pd.DataFrame:
    """The rows of a study of a data set and preset, with the fields that its arms change."""
    dataset, preset = str(rows["dataset"].iloc[0]), str(rows["preset"].iloc[0])
    task = dataset.partition("-")[0]
    needed = [(edge_tasks.needed(task, arm, preset), arm) for arm in edge_tasks.of_task(task, preset)[study]]
    changes = {(need.algo, need.settings): arm.changes for need, arm in needed}
    found = [changes.get(pair) for pair in zip(rows["algo"], rows["settings"], strict=True)]
    kept = rows[[change is not None for change in found]]
    fields = pd.DataFrame([change for change in found if change is not None], index=kept.index)
    return kept.assign(**{name: fields[name] for name in ("critics", "diversity", "patch") if name in fields})


def _measure(rows: pd.DataFrame) -> tuple[str, str]:
    """The column that tells how well a task is done, and its name: returns where there is no reference for a score."""
    scored = rows["score_last"].notna().any()
    return ("score_last", "normalised score at the end") if scored else ("return_last", "return at the end")


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


def _patches(rows: pd.DataFrame, published: dict, title: str) -> Figure | None:
    """Returns and what critics promise beyond them, with true values at the ends of rollouts or elsewhere."""
    rows = rows[rows["run_id"].isin(published)]
    if "patch" not in rows or rows["patch"].nunique() < 2:
        return None
    rows = rows.fillna({"patch": "none"})
    points = pd.DataFrame([at for run_id in rows["run_id"] for at in published[run_id]])
    points = points.merge(rows[["run_id", "algo", "patch"]], on="run_id")
    points["excess"] = points["q_start"] - points["mc_start"]
    figure = Figure(figsize=(9.5, 3.9), layout="constrained")
    for axes, (column, words) in zip(figure.subplots(1, 2), SHOWN.items(), strict=True):
        for (algo, patch), colour in ARMS.items():
            mine = points[(points["algo"] == algo) & (points["patch"] == patch)]
            band(axes, mine, "update", column, colour, NAMES[algo, patch])
        axes.set_xlabel("gradient updates")
        axes.set_ylabel(words)
    handles = axes.get_legend_handles_labels()
    axes.axhline(0.0, color=GREY, linestyle=":", linewidth=1.2)
    figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"{title}, true dynamics: mean over {seeds_of(rows)}, 95% t-interval", fontsize=10)
    return figure


def _penalties(rows: pd.DataFrame, title: str) -> Figure | None:
    """What each method scores in the true dynamics: a dot per seed, and the mean with its interval."""
    more = _of_study(rows, "penalties")
    if more.empty:
        return None
    usual = _of_study(rows, "methods")
    mine = pd.concat([usual[usual["accuracy"] == 1.0], more])
    measure, words = _measure(rows)
    neutral = {(need.algo, need.settings) for need in _neutral(rows)}
    mine["alike"] = [pair in neutral for pair in zip(mine["algo"], mine["settings"], strict=True)]
    arms: dict[Any, pd.Series] = dict(list(mine.groupby(["algo", "alike"])[measure]))
    order = [(algo, alike) for algo in PENALISED for alike in (True, False) if (algo, alike) in arms]
    figure = Figure(figsize=(7.8, 3.6), layout="constrained")
    axes = figure.subplots()
    for place, (algo, alike) in enumerate(order):
        values = arms[algo, alike].to_numpy(float)
        interval = mean_interval(values)
        colour = ALGORITHMS.get(algo, GREY)
        axes.plot([place] * len(values), values, "o", color=colour, markerfacecolor="none", markersize=5)
        axes.plot(place + 0.2, interval.estimate, "s", color=colour, markersize=5)
        axes.plot([place + 0.2] * 2, [interval.low, interval.high], color=colour)
    axes.set_xticks(range(len(order)), [f"{algo}\nwith mbpo's\nsettings" if alike else algo for algo, alike in order])
    axes.set_ylabel(words)
    figure.suptitle(f"{title}, true dynamics: a dot per seed, mean with 95% t-interval, {seeds_of(mine)}", fontsize=9)
    return figure


def _neutral(rows: pd.DataFrame) -> list[Needed]:
    """The arms that have nothing but a penalty beyond the base method, besides MOReL's."""
    task, preset = str(rows["dataset"].iloc[0]).partition("-")[0], str(rows["preset"].iloc[0])
    return [edge_tasks.needed(task, arm, preset) for arm in edge_tasks.NEUTRAL]


def _worlds(rows: pd.DataFrame, usual: pd.DataFrame, title: str) -> Figure | None:
    """Scores against the world's accuracy, and against the length of rollouts in the true one."""
    true = pd.concat([usual, _of_study(rows, "horizons")])
    true = true[(true["accuracy"] == 1.0) & (true["algo"] == "mbpo")]
    between = usual["accuracy"].nunique() > 2
    if true["horizon"].nunique() < 2:
        return None
    measure, words = _measure(rows)
    figure = Figure(figsize=(9.5 if between else 5.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True) if between else [figure.subplots()] * 2
    if between:
        for algo in ("mbpo", "ravl"):
            band(left, usual[usual["algo"] == algo], "accuracy", measure, ALGORITHMS[algo], algo)
        places = sorted(usual["accuracy"].unique())
        left.set_xticks(places, [f"{place:g}\n{WORLDS.get(place, '')}" for place in places])
        left.set_xlabel("accuracy of the world")
        left.legend(frameon=False)
    left.set_ylabel(words)
    band(right, true, "horizon", measure, ALGORITHMS["mbpo"], "mbpo")
    right.set_xlabel("steps k of a rollout, true dynamics")
    right.set_xscale("log")
    ticks = sorted(true["horizon"].unique())
    right.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    right.minorticks_off()
    figure.suptitle(f"{title}: mean over {seeds_of(rows)}, 95% t-interval", fontsize=10)
    return figure


def _ends(rows: pd.DataFrame, title: str) -> Figure | None:
    """What critics and model say of the last successors of rollouts (filled) and of the states inside (hollow)."""
    if rows.empty:
        return None
    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    arms = list(dict.fromkeys(zip(rows["algo"], rows["accuracy"], strict=True)))
    quantities = {"spread": "standard deviation of the critics", "penalty": "standard deviation of the model's members"}
    for axes, (quantity, words) in zip(figure.subplots(1, 2), quantities.items(), strict=True):
        for place, (algo, accuracy) in enumerate(arms):
            mine = rows[(rows["algo"] == algo) & (rows["accuracy"] == accuracy)]
            colour = ALGORITHMS[algo]
            for shift, where, filled in ((-0.15, "inside", "none"), (0.15, "edge", colour)):
                values = mine[f"{where}_{quantity}"].to_numpy(float)
                axes.plot(
                    [place + shift] * len(values), values, "o", color=colour, markerfacecolor=filled, markersize=5
                )
        axes.set_xticks(range(len(arms)), [f"{algo}\n{'true' if a == 1.0 else 'learned'}" for algo, a in arms])
        axes.set_ylim(bottom=0)
        axes.set_ylabel(words)
    for name, filled in (("inside rollouts", "none"), ("at their ends", GREY)):
        axes.plot([], [], "o", color=GREY, markerfacecolor=filled, label=name)
    axes.legend(frameon=False)
    figure.suptitle(f"{title}: a dot per seed, {seeds_of(rows)}", fontsize=10)
    return figure


def _critics(rows: pd.DataFrame, title: str) -> Figure | None:
    """The number of critics against their diversity, in the true dynamics."""
    mine = _of_study(rows, "critics")
    if mine.empty:
        return None
    measure, words = _measure(rows)
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    weights = sorted(mine["diversity"].unique())
    places = mine.assign(place=mine["diversity"].map({weight: place for place, weight in enumerate(weights)}))
    for colour, (count, own) in zip((ORANGE, BLUE, GREEN, PURPLE), places.groupby("critics"), strict=False):
        band(axes, own, "place", measure, colour, f"N = {count}")
    axes.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
    axes.set_xlabel("weight of diversity (eta)")
    axes.set_ylabel(words)
    axes.legend(frameon=False)
    figure.suptitle(f"{title}, true dynamics: mean over {seeds_of(mine)}, 95% t-interval", fontsize=9)
    return figure
