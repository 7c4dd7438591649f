"""Ensembles against Lipschitz values: returns by steps, operations and seconds, value-aware and model error by arm."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments import curves, lipschitz_seconds
from experiments.lipschitz_arms import EVERY_MECHANISM, EXPERIMENT, LAYER_NORM, MODEL_FREE, MODELS, Arm, text
from experiments.lipschitz_saved import per_step
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.report import mean_interval
from paper_figs.style import AMBER, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, plain

COLOURS = {"none": GREY, "spectral": BLUE, "adversarial": ORANGE, "random": GREEN, LAYER_NORM: SKY}
SLOPE = ("slope_mean", "mean slope of the value")
FAR = 4.0  # times the middle half's width: what lies so far below it is not shown
FEW = 4  # arms of whose curves each seed is shown
MARKERS = {
    "probabilistic-ensemble": "s",
    "deterministic-ensemble": "D",
    "probabilistic-single": "o",
    "deterministic-single": "^",
    "sac": "x",
    "sac-utd": "+",
}
STYLES = {"sac": ":", "sac-utd": "-."}
PER_STEP = {
    "10\N{SUPERSCRIPT ONE}\N{SUPERSCRIPT TWO} operations of training per seed": lambda row, arm: (
        per_step(envs.spec(row["dataset"]), arm.config(row["dataset"], row["preset"])) / 1e12
    ),
    "seconds of training per seed": lambda row, arm: row["seconds_seed"] / (row["env_steps"] - row["explore"]),
}
NAMES = {name: name.replace("-", ", ") for name in MODELS} | {"sac": "SAC", "sac-utd": "SAC, as many updates"}


def draw(results: Path) -> dict[str, Figure]:
    """Figures by path without ending, per task, steps and preset, from the files of `results/ensemble_vs_lipschitz`."""
    folder = results / EXPERIMENT
    rows = pd.read_csv(folder / "summary.csv", dtype={"run_id": str, "settings": str}).fillna({"settings": ""})
    timed = lipschitz_seconds.joined(rows.to_dict("records"), folder / lipschitz_seconds.SECONDS)  # type: ignore[arg-type]
    rows = pd.DataFrame([row for row in timed if row["status"] == "finished"])
    # Rows of other settings than a mechanism, steps, the host and --extend, such as --episodes, are not drawn.
    steps = (0, *rows["env_steps"].astype(int).unique())
    kinds = itertools.product(EVERY_MECHANISM, steps, (False, True), (False, True))
    known = {text(arm): arm for arm in (Arm("probabilistic-single", *kind) for kind in kinds)}
    rows = rows[rows["settings"].isin(known)]
    rows = rows.assign(
        mechanism=[known[one].mechanism for one in rows["settings"]],
        budget=[text(known[one]._replace(mechanism="none")).replace(" ", "-") for one in rows["settings"]],
    )
    found: dict[str, Figure] = {}
    for (env, budget, preset), mine in rows.groupby(["dataset", "budget", "preset"]):
        stem = f"{EXPERIMENT}/{env}-" + (f"{budget}-" if budget else "") + "{}"
        stem += "" if preset == "quick" else f"-{preset}"
        found[stem.format("returns")] = _returns(mine, curves.read(folder / curves.CURVES))
        if mine.loc[mine["algo"].isin(MODELS), "algo"].nunique() > 1:
            found[stem.format("arms")] = _arms(mine)
            found[stem.format("pareto")] = _pareto(mine, curves.read(folder / curves.CURVES))
    return found


def _colour(model: str, mechanism: str) -> str:
    if model in MODELS:
        return COLOURS[mechanism]
    return PURPLE if mechanism == "none" else AMBER


def _shown(rows: pd.DataFrame) -> list[str]:
    """The mechanisms that rows have, in the legend's order."""
    return [name for name in COLOURS if name in set(rows["mechanism"])]


# --- Returns over training ---
def _returns(rows: pd.DataFrame, known: dict) -> Figure:
    models = [model for model in MODELS if model in set(rows["algo"])]
    figure = Figure(figsize=(2.2 + 2.2 * len(models), 3.4), layout="constrained")
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    free = rows[rows["algo"].isin(MODEL_FREE)]
    counts = rows.groupby(["algo", "mechanism"])["seed"].nunique()
    each, alike = len(counts) <= FEW, counts.nunique() == 1
    for axes, model in zip(panels, models, strict=True):
        for mechanism, mine in rows[rows["algo"] == model].groupby("mechanism", sort=False):
            label = "MBPO" + ("" if mechanism == "none" else f", {mechanism}")
            label += "" if alike else f" ({mine['seed'].nunique()} seeds)"
            _curve(axes, mine, known, _colour(model, str(mechanism)), "-", label, each)
        for (name, how), mine in free.groupby(["algo", "mechanism"]):
            label = NAMES[str(name)] + ("" if how == "none" else f", {how}")
            label += "" if alike else f" ({mine['seed'].nunique()} seeds)"
            _curve(axes, mine, known, _colour(str(name), str(how)), STYLES[str(name)], label, each)
        axes.set_title(NAMES[model])
        axes.set_xlabel("environment steps")
        axes.locator_params(axis="x", nbins=5)  # numbers of five figures beside each other
    panels[0].set_ylabel("return")
    lines = [line for axes in panels for line in axes.lines]
    shown = {label: line for line in lines if not (label := str(line.get_label())).startswith("_")}
    across = 3 if len(models) > 1 else 1  # entries; a single panel is narrow
    figure.legend(shown.values(), shown, loc="outside lower center", ncols=across, frameon=False, fontsize=7)
    thin = "; thin: each seed" if each else ""
    figure.suptitle(
        f"{rows['dataset'].iloc[0]}: mean over {_seeds(rows)}, 95% t-interval{thin}",
        fontsize=9 if len(models) > 1 else 8,
    )
    return figure


def _seeds(rows: pd.DataFrame) -> str:
    """How many seeds stand behind each arm."""
    counts = rows.groupby(["algo", "mechanism"])["seed"].nunique()
    few, many = int(counts.min()), int(counts.max())
    return f"{many} seeds" if few == many else f"{few} to {many} seeds"


def _curve(axes: Axes, rows: pd.DataFrame, known: dict, colour: str, style: str, label: str, each: bool) -> None:
    """Means over seeds with 95% t-intervals, and with `each` thin lines of the seeds."""
    values, trained = _evaluations(rows, known)
    if not trained.size:
        return
    intervals = [mean_interval(column) for column in values.T]
    steps = rows["explore"].iloc[0] + trained
    axes.plot(steps, [one.estimate for one in intervals], color=colour, linestyle=style, label=label, linewidth=1.2)
    low, high = ([getattr(one, end) for one in intervals] for end in ("low", "high"))
    axes.fill_between(steps, low, high, color=colour, alpha=0.12, linewidth=0)
    for seed in values if each else ():
        axes.plot(steps, seed, color=colour, linestyle=style, linewidth=0.6, alpha=0.6)


def _evaluations(rows: pd.DataFrame, known: dict) -> tuple[np.ndarray, np.ndarray]:
    """Returns `[seeds, evaluations]` and environment steps of training before each; updates are even over steps."""
    own = [known[run_id] for run_id in rows["run_id"] if run_id in known]
    length = min(map(len, own), default=0)
    if not length:
        return np.empty((0, 0)), np.empty(0)
    values = np.array([[at["return_mean"] for at in curve[:length]] for curve in own])
    whole, after = rows["env_steps"].iloc[0] - rows["explore"].iloc[0], own[0][-1]["update"]
    return values, np.array([whole * at["update"] / after for at in own[0][:length]])


# --- Returns for what they cost ---
def _pareto(rows: pd.DataFrame, known: dict) -> Figure:
    """Mean returns over training against operations and seconds, a column per kind of model; intervals at the end."""
    kinds = list(dict.fromkeys(name.partition("-")[0] for name in MODELS if name in set(rows["algo"])))
    figure = Figure(figsize=(3.0 + 3.0 * len(kinds), 6.0), layout="constrained")
    panels = figure.subplots(2, len(kinds), sharey=True, sharex="row", squeeze=False)
    arms = rows.groupby(["algo", "mechanism"], sort=False)
    for across, (label, cost) in zip(panels, PER_STEP.items(), strict=True):
        for axes, kind in zip(across, kinds, strict=True):
            for (name, mechanism), mine in arms:
                if str(name) in MODEL_FREE or str(name).startswith(kind):
                    _spent(axes, mine, known, cost, Arm(str(name), str(mechanism)))
            axes.set(xscale="log", xlabel=label, title=f"{kind} models")
            plain(axes.xaxis, (1.0, 3.0))
        across[0].set_ylabel("return")
    hues = [Line2D([], [], color=COLOURS[name], label=name) for name in _shown(rows)]
    lines = [
        Line2D([], [], color="k", linestyle="-", label="single"),
        Line2D([], [], color="k", linestyle="--", label="ensemble"),
        Line2D([], [], color=PURPLE, linestyle=":", label=NAMES["sac"]),
        Line2D([], [], color=PURPLE, linestyle="-.", label=NAMES["sac-utd"]),
    ]
    figure.legend(handles=[*hues, *lines], loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    return figure


def _spent(axes: Axes, rows: pd.DataFrame, known: dict, cost: Callable[[pd.Series, Arm], float], arm: Arm) -> None:
    """An arm's mean return against what its training has cost; its 95% t-interval stands at the last evaluation."""
    values, trained = _evaluations(rows, known)
    if not trained.size:
        return
    style = STYLES.get(arm.model, "-" if arm.model.endswith("single") else "--")
    colour = _colour(arm.model, arm.mechanism)
    spent = trained * np.mean([cost(row, arm) for _, row in rows.iterrows()])
    axes.plot(spent, values.mean(axis=0), color=colour, linestyle=style, linewidth=1.2)
    last = mean_interval(values[:, -1])
    axes.plot([spent[-1]] * 2, [last.low, last.high], color=colour, linewidth=0.8, alpha=0.6)
    axes.plot(spent[-1], last.estimate, color=colour, marker=MARKERS[arm.model], markersize=5)


# --- Arms at the end of training ---
def _arms(rows: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(9.5, 7.6), layout="constrained")
    (norm, slope), (time, model) = figure.subplots(2, 2)
    with_model = rows[rows["algo"].isin(list(MODELS))]
    for axes, column, words in ((norm, "lipschitz_upper", "product of the critics' norms"), (slope, *SLOPE)):
        axes.set(xscale="log", yscale="log", xlabel=words, ylabel="value-aware model error")
        _points(axes, with_model, column, "value_error")
    time.set(xscale="log", xlabel="seconds of training per seed", ylabel="last return")
    _points(time, rows, "seconds_seed", "return_last")
    _cut(time, rows, "seconds_seed", "return_last")
    ticks = list(MODELS)
    model.set(yscale="log", ylabel="model error |s' - s^|")
    _points(model, with_model, lambda mine: ticks.index(mine["algo"].iloc[0]) + _shift(mine), "model_error")
    model.set_xticks(range(len(ticks)), [NAMES[name].replace(", ", "\n") for name in ticks], fontsize=8)
    for axis in (norm.xaxis, norm.yaxis, slope.xaxis, slope.yaxis, time.xaxis, model.yaxis):
        plain(axis, (1.0, 2.0, 5.0))
    marks = [Line2D([], [], color="k", marker=MARKERS[n], linestyle="", label=NAMES[n]) for n in MARKERS]
    hues = [Line2D([], [], color=COLOURS[n], marker="o", linestyle="", label=n) for n in _shown(rows)]
    figure.legend(handles=[*marks, *hues], loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    figure.suptitle(
        f"{rows['dataset'].iloc[0]}; small: each of {_seeds(rows)}; large: their mean with its 95% t-interval,"
        " of logarithms where an axis is logarithmic",
        fontsize=9,
    )
    return figure


def _shift(mine: pd.DataFrame) -> float:
    return 0.18 * (list(EVERY_MECHANISM).index(mine["mechanism"].iloc[0]) - 1.5)


def _points(axes: Axes, rows: pd.DataFrame, x: str | Callable[[pd.DataFrame], float], y: str) -> None:
    """Every seed faintly, and the mean of every arm with its interval, of logarithms where an axis is logarithmic."""
    for (name, mechanism), mine in rows.groupby(["algo", "mechanism"], sort=False):
        across = np.full(len(mine), x(mine)) if callable(x) else mine[x].to_numpy(float)
        up = mine[y].to_numpy(float)
        colour, marker = _colour(str(name), str(mechanism)), MARKERS[str(name)]
        axes.scatter(across, up, color=colour, marker=marker, s=9, alpha=0.35, linewidths=0.8)
        place, (mean, low, high) = _mean(across, axes.get_xscale())[0], _mean(up, axes.get_yscale())
        axes.plot([place, place], [low, high], color=colour, linewidth=1.0, alpha=0.6)
        axes.scatter(place, mean, color=colour, marker=marker, s=44, zorder=3)


def _mean(values: np.ndarray, scale: str) -> tuple[float, float, float]:
    """A mean and its interval's ends; on a logarithmic scale, those of the logarithms."""
    found = mean_interval(np.log(values) if scale == "log" else values)
    ends = (found.estimate, found.low, found.high)
    return tuple(np.exp(ends)) if scale == "log" else ends


def _cut(axes: Axes, rows: pd.DataFrame, x: str, y: str) -> None:
    """End the axis above what lies far below the rest, which would squeeze it; arrows at the edge tell of it."""
    low, high = rows[y].quantile(0.25), rows[y].quantile(0.75)
    fence, room = low - FAR * (high - low), 0.4 * (high - low)
    below = rows[rows[y] < fence]
    axes.set_ylim(max(fence, rows[y].min() - room), rows[y].max() + room)
    for _, row in below.iterrows():
        colour = _colour(row["algo"], row["mechanism"])
        axes.plot(row[x], fence, "v", color=colour, markerfacecolor="white", markersize=5, clip_on=False, zorder=4)
    if len(below):
        words = f"arrows: {len(below)} below, {below[y].max():.0f} to {below[y].min():.0f}; intervals run on"
        axes.text(0.07, 0.02, words, transform=axes.transAxes, fontsize=8)
