"""The box: where final policies walk, what training does to returns and values, critics by reach, and the maps."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments import curves
from experiments.box_claims import PLACES
from experiments.box_studies import EXPERIMENT, NETWORKS, STUDIES, Arm, text
from jaxrl_suite.envs import box
from jaxrl_suite.report import mean_interval
from paper_figs.style import BLUE, GREEN, GREY, ORANGE, PURPLE, panels

SKY = "#56B4E9"

METHODS = {"base": ORANGE, "patched": GREEN, "random-patched": PURPLE, "minimum": SKY, "ravl": BLUE}
ACROSS = 3  # panels of maps
PLACED = ("horizon", "distance", "critics", "diversity")  # what cells of maps differ in
MAPPED = ("base", "patched", "minimum", "ravl")
NAMES = {
    "base": "base",
    "patched": "edge patched",
    "random-patched": "random patched",
    "minimum": "least of N",
    "ravl": "RAVL",
}


def draw(results: Path) -> dict[str, Figure]:
    """Figures by path without ending, per preset, from the csv files of `results/edge_of_reach`."""
    folder = results / EXPERIMENT
    summary = pd.read_csv(folder / "summary.csv", dtype={"run_id": str, "settings": str})
    summary = summary[(summary["status"] == "finished") & (summary["dataset"] == "box")].fillna({"settings": ""})
    figures: dict[str, Figure | None] = {}
    others = {text(arm, "quick") for study in ("networks", "norm") for arm in STUDIES[study].arms}
    for preset, every in summary.groupby("preset"):
        rows = every[~every["settings"].isin(others)]
        plain = rows[rows["settings"] == ""]
        stem = f"{EXPERIMENT}/box-{{}}" + ("" if preset == "quick" else f"-{preset}")
        for place, settings in PLACES.items():
            mine, place = rows[rows["settings"] == settings], "" if place == "near" else f"-{place}"
            figures[stem.format(f"paths{place}")] = _paths(mine, _table(folder / "paths.csv"))
            figures[stem.format(f"training{place}")] = _training(mine, curves.read(folder / curves.CURVES))
            figures[stem.format(f"reach{place}")] = _by_reach(mine, _table(folder / "shells.csv"))
        figures[stem.format("horizons")] = _horizons(_at(rows, plain, "distance", "width"))
        figures[stem.format("maps")] = _maps(rows, plain)
        figures[stem.format("networks")] = _networks(
            pd.concat([plain, every[every["settings"].isin(_network_names())]])
        )
    return {name: figure for name, figure in figures.items() if figure is not None}


def _table(path: Path) -> pd.DataFrame:
    """A csv file, or an empty table with a run id where there is none."""
    return pd.read_csv(path, dtype={"run_id": str}) if path.exists() else pd.DataFrame({"run_id": []})


def _at(rows: pd.DataFrame, plain: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The rows with the numbers of the plain methods in these columns, which all of them share."""
    if plain.empty:
        return plain
    return rows[(rows[[*columns]] == plain.iloc[0][[*columns]].to_numpy()).all(axis=1)]


def _reward(row: pd.Series) -> str:
    """Where the reward of a box is, which tells figures of the same kind apart."""
    return f"reward {row['distance']:g} steps away, width {row['width']:g}"


# --- Where policies walk ---
def _paths(rows: pd.DataFrame, walks: pd.DataFrame) -> Figure | None:
    """A panel per method: the reward, the edge of reach, and the walks of final policies."""
    walks = walks.merge(rows[["run_id", "algo"]], on="run_id")
    if walks.empty:
        return None
    methods = [method for method in METHODS if (walks["algo"] == method).any()]
    first = rows.iloc[0]
    figure = Figure(figsize=(2.9 * len(methods), 3.4), layout="constrained")
    for axes, method in zip(np.atleast_1d(figure.subplots(1, len(methods))), methods, strict=True):
        _world(axes, first)
        mine = walks[walks["algo"] == method]
        for _, walk in mine.groupby(["run_id", "walk"]):
            axes.plot(walk["x"], walk["y"], color=METHODS[method], linewidth=1.0, alpha=0.8)
        ends = mine[mine["step"] == box.HORIZON]
        axes.plot(ends["x"], ends["y"], "o", color=METHODS[method], markersize=3.5)
        returns = mean_interval(rows.loc[rows["algo"] == method, "return_last"].to_numpy(float)).estimate
        axes.set_title(f"{NAMES[method]}: return {returns:.1f} of {first['attainable']:.1f}")
    figure.suptitle(
        "walks of 30 steps of final policies; shaded: reward; dashed: starts; ring: the edge of reach", fontsize=9
    )
    return figure


def _world(axes: Axes, row: pd.Series) -> None:
    """The reward field, the starts and the edge of reach."""
    half = box.START + row["horizon"] + 4.0
    line = np.linspace(-half, half, 161)
    field = box.reward(box.at(row["distance"], row["width"]), jnp.stack(jnp.meshgrid(line, line), axis=-1))
    axes.imshow(field, extent=(-half, half, -half, half), origin="lower", cmap="Greys", vmin=0, vmax=1.4)
    axes.add_patch(
        Rectangle((-box.START, -box.START), 2 * box.START, 2 * box.START, fill=False, ls="--", lw=0.9, ec=GREY)
    )
    for reach in (row["horizon"] - 1, row["horizon"]):
        far = box.START + reach
        axes.add_patch(Rectangle((-far, -far), 2 * far, 2 * far, fill=False, lw=0.8, ec=GREY))
    axes.set_xlim(-half, half)
    axes.set_ylim(-half, half)


# --- Training ---
def _training(rows: pd.DataFrame, published: dict[str, list[dict[str, Any]]]) -> Figure | None:
    """Returns and Q-values at the start over updates, means over seeds with 95% t-intervals."""
    rows = rows[rows["run_id"].isin(published)]
    if rows.empty:
        return None
    points = pd.DataFrame([at for run_id in rows["run_id"] for at in published[run_id]])
    points = points.merge(rows[["run_id", "algo"]], on="run_id")
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for method, colour in METHODS.items():
        mine = points[points["algo"] == method]
        for axes, column in ((left, "return_mean"), (right, "q_start")):
            band(axes, mine, "update", column, colour, NAMES[method])
    first = rows.iloc[0]
    for axes, level in ((left, first["attainable"]), (right, first["highest_value"])):
        axes.axhline(level, color=GREY, linestyle="--", linewidth=1.2)
        axes.set_xlabel("gradient updates")
    right.axhline(first["true_value"], color=GREY, linestyle=":", linewidth=1.2)
    left.set_ylabel("return of an episode (dashed: the best)")
    right.set_ylabel("Q-value at the start\n(dashed: highest, dotted: true)")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle(
        f"box, {_reward(first)}, true dynamics, rollouts of {first['horizon']:.0f} steps: mean over {seeds_of(rows)}, "
        "95% t-interval",
        fontsize=10,
    )
    return figure


def band(axes: Axes, points: pd.DataFrame, x: str, y: str, colour: str, label: str, dashes: str = "-") -> None:
    """A mean over seeds with its interval."""
    if points.empty:
        return
    groups = list(points.groupby(x))
    intervals = [mean_interval(mine[y].to_numpy(float)) for _, mine in groups]
    mean, low, high = (np.array([getattr(i, part) for i in intervals]) for part in ("estimate", "low", "high"))
    places = np.array([place for place, _ in groups], float)
    axes.plot(places, mean, dashes, color=colour, label=label, marker="o", markersize=3)
    if np.isfinite(low).all():
        axes.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)


# --- Critics by reach ---
def _by_reach(rows: pd.DataFrame, shells: pd.DataFrame) -> Figure | None:
    """The critics' spread and penalty, and what they promise, by how many steps away a state is."""
    shells = shells.merge(rows[["run_id", "algo"]], on="run_id")
    if shells.empty:
        return None
    figure = Figure(figsize=(10.5, 3.7), layout="constrained")
    parts = {"spread": "spread of the critics (std)", "penalty": "mean less minimum of the critics", "value": "value"}
    horizon = float(rows["horizon"].iloc[0])
    for axes, (column, words) in zip(figure.subplots(1, 3), parts.items(), strict=True):
        for method, colour in METHODS.items():
            band(axes, shells[shells["algo"] == method], "reach", column, colour, NAMES[method])
        axes.axvspan(horizon - 0.5, horizon + 0.5, color=GREY, alpha=0.15, linewidth=0)
        axes.set_xlabel("steps from the starts")
        axes.set_xticks(range(2, int(shells["reach"].max()) + 1, 2))
        axes.set_ylabel(words)
    band(axes, shells[shells["algo"] == shells["algo"].iloc[0]], "reach", "true_value", GREY, "true", ":")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    figure.suptitle(
        f"final critics by reach, {_reward(rows.iloc[0])}, {seeds_of(rows)}; shaded: the edge; "
        "the dynamics penalty is 0 everywhere",
        fontsize=10,
    )
    return figure


# --- Length of rollouts ---
def _horizons(rows: pd.DataFrame) -> Figure | None:
    """Returns and excess of the base method's Q-value against the length of rollouts."""
    rows = rows[rows["algo"] == "base"].assign(excess=lambda x: x["q_last"] - x["mc_last"])
    if rows["horizon"].nunique() < 2:
        return None
    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    words = {"return_last": "return of an episode", "excess": "Q-value estimate less true return"}
    levels = {"return_last": float(rows["attainable"].iloc[0]), "excess": 0.0}
    for axes, column in zip(figure.subplots(1, 2), words, strict=True):
        band(axes, rows, "horizon", column, METHODS["base"], NAMES["base"])
        axes.axhline(levels[column], color=GREY, linestyle="--", linewidth=1.2)
        axes.set_xscale("log")
        ticks = sorted(rows["horizon"].unique())
        axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("steps k of a rollout")
        axes.set_ylabel(words[column])
    figure.suptitle(
        f"base method, true dynamics: mean over {seeds_of(rows)}, 95% t-interval; dashed: the best return, no excess",
        fontsize=10,
    )
    return figure


# --- Networks ---
def _network_names() -> dict[str, str]:
    """The settings of networks that are unlike the others, and their names."""
    names = ("2x32", "2x128", "inputs x 0.1", "layer norm")
    arms = [Arm("base", tuple(change.items())) for change in NETWORKS]
    return {text(arm, "quick"): name for arm, name in zip(arms, names, strict=True)}


def _networks(rows: pd.DataFrame) -> Figure | None:
    """Returns and Q-values of methods by network."""
    names = {"": "2x64", **_network_names()}
    if rows["settings"].nunique() < len(names):
        return None
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    words = {
        "return_last": "return of an episode (dashed: the best)",
        "q_last": "Q-value at the start\n(dashed: highest)",
    }
    levels = {"return_last": rows["attainable"].iloc[0], "q_last": rows["highest_value"].iloc[0]}
    for axes, column in zip(figure.subplots(1, 2), words, strict=True):
        for at, method in enumerate(MAPPED):
            mine = rows[rows["algo"] == method]
            known = [mean_interval(mine.loc[mine["settings"] == one, column].to_numpy(float)) for one in names]
            half = [interval.high - interval.estimate if interval.bounded else 0.0 for interval in known]
            places = [place + 0.12 * (at - 1.5) for place in range(len(names))]
            means = [interval.estimate for interval in known]
            axes.errorbar(
                places, means, half, fmt="o", color=METHODS[method], label=NAMES[method], capsize=2, markersize=4
            )
        axes.axhline(levels[column], color=GREY, linestyle="--", linewidth=1.2)
        axes.set_xticks(range(len(names)), [*names.values()])
        axes.set_ylabel(words[column])
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"box, true dynamics, by network: mean over {seeds_of(rows)}, 95% t-interval", fontsize=10)
    return figure


# --- Maps ---
def _maps(rows: pd.DataFrame, plain: pd.DataFrame) -> Figure | None:
    """Share of the best return: distance against k for some methods, and N against eta."""
    if plain.empty:
        return None
    own = plain.iloc[0]
    wide = rows[(rows["width"] == own["width"]) & rows["algo"].isin(MAPPED)]
    kept = rows["distance"].isin(wide["distance"].unique()) & (rows["width"] == own["width"])
    lengths = rows.loc[kept & (rows["distance"] != own["distance"]), "horizon"].unique()
    usual = [wide[name] == wide["algo"].map(_first(plain, name)) for name in ("critics", "diversity")]
    by_place = wide[wide["horizon"].isin(lengths) & usual[0] & usual[1]]
    place = (rows[["distance", "width", "horizon"]] == own[["distance", "width", "horizon"]].to_numpy()).all(axis=1)
    critics = rows[place & rows["algo"].isin(("base", "minimum", "ravl"))]
    if by_place["distance"].nunique() < 2 or critics["diversity"].nunique() < 2:
        return None
    methods = [method for method in MAPPED if by_place.loc[by_place["algo"] == method, "distance"].nunique() > 1]
    rooms = math.ceil((len(methods) + 1) / ACROSS)
    figure = Figure(figsize=(9.8, 3.6 * rooms + 0.4), layout="constrained")
    *places, last = panels(figure, len(methods) + 1, ACROSS)
    counts = pd.concat([by_place, critics]).groupby(["algo", *PLACED])["seed"].nunique()
    usually = int(counts.mode().iloc[0])
    for axes, method in zip(places, methods, strict=True):
        image = _map(axes, by_place[by_place["algo"] == method], "horizon", "distance", usually)
        axes.set_title(NAMES[method])
        axes.set_xlabel("steps k of a rollout")
        axes.set_ylabel("distance of the reward")
    image = _map(last, critics, "diversity", "critics", usually)
    last.set_title(f"k = {own['horizon']:.0f}, distance {own['distance']:g}")
    last.set_xlabel("diversity eta")
    last.set_ylabel("critics N")
    figure.colorbar(image, ax=[*places, last], label="% of the best return")
    figure.suptitle(
        f"mean over {usually} seeds, or over n where a cell says so; hatched: not run; "
        "in brackets: Q-value at the start, % of 1 / (1 - gamma)",
        fontsize=9,
    )
    return figure


def seeds_of(rows: pd.DataFrame) -> str:
    """How many seeds stand behind each setting: `8 seeds`, or `2 to 8 seeds`."""
    counts = rows.groupby(["algo", "settings"])["seed"].nunique()
    low, high = int(counts.min()), int(counts.max())
    return f"{low} seeds" if low == high else f"{low} to {high} seeds"


def _first(plain: pd.DataFrame, column: str) -> pd.Series:
    """A column of the plain methods, by method."""
    return plain.groupby("algo")[column].first()


def _map(axes: Axes, rows: pd.DataFrame, x: str, y: str, usually: int) -> Any:
    """Scores as colours, with the Q-value's share of the highest value below, and the number of seeds if unusual."""
    cells = rows.assign(promise=100 * rows["q_last"] / rows["highest_value"]).groupby([y, x])
    found = cells.agg(score=("score_last", "mean"), promise=("promise", "mean"), seeds=("seed", "nunique"))
    score = found["score"].unstack()
    image = axes.imshow(score.to_numpy(float), origin="lower", cmap="viridis", vmin=0, vmax=100, aspect="auto")
    axes.patch.set(facecolor="#eeeeee", edgecolor="#bbbbbb", hatch="///", linewidth=0)  # shows where no colour is
    for (i, up), (j, across) in itertools.product(enumerate(score.index), enumerate(score.columns)):
        if (up, across) not in found.index:
            continue
        value, promise, seeds = found.loc[(up, across)]
        text = f"{value:.0f}\n({promise:.0f})" + ("" if seeds == usually else f"\nn = {seeds:.0f}")
        axes.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if value < 60 else "black")
    axes.set_xticks(range(score.shape[1]), [f"{value:g}" for value in score.columns.to_numpy(float)])
    axes.set_yticks(range(score.shape[0]), [f"{value:g}" for value in score.index.to_numpy(float)])
    return image
