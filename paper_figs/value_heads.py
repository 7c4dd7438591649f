"""Value heads: shifting targets, all heads with probes, offline and online, SARSA, the one-sided fault, bins, supports,
noise, size, many variants, labels, CQL's term."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import heads_studies as studies
from experiments.heads_studies import EXPERIMENT, MAZE, ONLINE, STUDIES, Arm
from jaxrl_suite.report import mean_interval
from paper_figs.style import BLUE, GREEN, GREY, ORANGE, PURPLE

SKY, YELLOW = "#56B4E9", "#E69F00"
HEADS = {
    "mse": ORANGE,
    "mse_softmax": YELLOW,
    "two_hot": GREEN,
    "c51": PURPLE,
    "hl_gauss": BLUE,
    "quantile": SKY,
    "one_sided": GREY,
}
NAMES = {
    "mse": "MSE",
    "mse_softmax": "MSE+softmax",
    "two_hot": "two-hot",
    "c51": "C51",
    "hl_gauss": "HL-Gauss",
    "quantile": "quantiles",
    "one_sided": "one-sided erf",
}
MARKS = dict(zip(HEADS, "osD^vP*", strict=True))
SCORE = "score (0: uniform, 100: optimal)"
SMALL, MIDDLE = (4.6, 3.4), (6.4, 3.4)
WIDE = (8.6, 3.4)


def draw(results: Path) -> dict[str, Figure]:
    """Figures by path without ending, per preset, from `results/value_heads/summary.csv`."""
    summary = pd.read_csv(results / EXPERIMENT / "summary.csv", dtype={"run_id": str, "settings": str})
    summary = summary[summary["status"] == "finished"].fillna({"settings": ""})
    figures: dict[str, Figure | None] = {}
    for preset, rows in summary.groupby("preset"):
        maze, end = rows[rows["dataset"] == MAZE], "" if preset == "quick" else f"-{preset}"
        drawn = {
            "plasticity": _moving(rows, "plasticity", "regression on targets that move"),
            "memory": _moving(rows, "memory", "regression on targets that move, of more points"),
            "heads": _heads(maze, "heads", "Q-learning on a log of mazes"),
            "online": _heads(rows[rows["dataset"] == ONLINE], "online", "DQN in mazes, online"),
            "long": _long(maze),
            "targets": _targets(maze),
            "bins": _bins(maze),
            "support": _support(maze),
            "noise": _noise(maze),
            "transitions": _transitions(maze),
            "scaling": _scaling(maze),
            "experts": _experts(maze),
            "tasks": _tasks(maze),
            "conservative": _conservative(maze),
            "labels": _heads(maze, "labels", "from optimal values as labels"),
        }
        figures |= {f"{EXPERIMENT}/{name}{end}": figure for name, figure in drawn.items()}
    return {name: figure for name, figure in figures.items() if figure is not None}


# --- Parts ---
def _of(rows: pd.DataFrame, one: Arm) -> pd.DataFrame:
    """The rows of an arm."""
    return rows[(rows["algo"] == one.head) & (rows["settings"] == one.settings)]


def _points(axes: Axes, x: Sequence[float], values: Sequence[np.ndarray], head: str, dashes: str = "-") -> None:
    """Means over seeds with 95% t-intervals; places without rows are left out."""
    known = [(place, mean_interval(mine)) for place, mine in zip(x, values, strict=True) if len(mine)]
    if not known:
        return
    mean = np.array([interval.estimate for _, interval in known])
    half = [interval.high - interval.estimate if interval.bounded else 0.0 for _, interval in known]
    style: Any = {"color": HEADS[head], "marker": MARKS[head], "markersize": 4.5, "linestyle": dashes}
    axes.errorbar([place for place, _ in known], mean, half, label=NAMES[head], capsize=2, linewidth=1.3, **style)


def _line(
    axes: Axes, rows: pd.DataFrame, arms: Sequence[Arm], x: Sequence[float], column: str = "score_last", **more: Any
) -> None:
    """A head over settings, where rows have the column."""
    _points(axes, x, [_of(rows, one)[column].dropna().to_numpy(float) for one in arms], arms[0].head, **more)


def _has(rows: pd.DataFrame, study: str) -> bool:
    """Whether every setting of a study has rows."""
    return all(len(_of(rows, one)) for one in STUDIES[study].arms)


def _finish(figure: Figure, axes: Axes, rows: pd.DataFrame, words: str) -> Figure:
    """A legend below, and what is shown above."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False)
    counts = rows.groupby(["algo", "settings"])["seed"].nunique()
    low, high = int(counts.min()), int(counts.max())
    figure.suptitle(
        f"{words}\nmean over {low if low == high else f'{low} to {high}'} seeds, 95% t-interval", fontsize=9
    )
    return figure


# --- Studies ---
def _moving(rows: pd.DataFrame, study: str, words: str) -> Figure | None:
    """The error at the end of each shift; a panel for each rate, where a study gives one."""
    rows = rows[rows["dataset"] == STUDIES[study].arms[0].problem]
    if not _has(rows, study):
        return None
    rates: dict[object, list[Arm]] = {}
    for one in STUDIES[study].arms:
        rates.setdefault(dict(one.changes).get("rate"), []).append(one)
    figure = Figure(figsize=SMALL if len(rates) == 1 else WIDE, layout="constrained")
    panels = figure.subplots(1, len(rates), sharey=True, squeeze=False)[0]
    shifts = [
        float(name.removeprefix("error_"))
        for name in map(str, rows)
        if name.startswith("error_") and name[-1].isdigit()
    ]
    for axes, (rate, arms) in zip(panels, rates.items(), strict=True):
        for at, one in enumerate(arms):
            mine = _of(rows, one)
            values = [mine[f"error_{shift:.0f}"].to_numpy(float) for shift in shifts]
            _points(axes, [shift + 0.3 * at for shift in shifts], values, one.head)
        axes.axhline(0.5, color=GREY, linestyle=":", linewidth=1.2)
        axes.set_yscale("log")
        axes.set_xticks(shifts)
        axes.set_xlabel("shift b of the targets, one after the other")
        axes.set_title(f"Adam's step size {rate:g} for all heads" if rate else "")
    panels[0].set_ylabel("mean squared error at its end\n(dotted: of the labels' mean)")
    return _finish(figure, panels[0], rows, words)


def _heads(rows: pd.DataFrame, study: str, words: str) -> Figure | None:
    """All heads as they are, with what their frozen features tell."""
    if not _has(rows, study):
        return None
    arms = STUDIES[study].arms
    figure = Figure(figsize=WIDE, layout="constrained")
    columns = {"score_last": SCORE, "value_error": "error of Q (RMS)", "probe": "variance explained by a linear probe"}
    for axes, (column, label) in zip(figure.subplots(1, 3), columns.items(), strict=True):
        for place, one in enumerate(arms):
            _line(axes, rows, [one], [place], column)
        axes.set_xticks(range(len(arms)), [NAMES[one.head] for one in arms], rotation=45, ha="right")
        axes.set_ylabel(label)
    figure.suptitle(f"{words}: mean over seeds, 95% t-interval", fontsize=9)
    return figure


def _long(rows: pd.DataFrame) -> Figure | None:
    """Scores over ten times the updates; the first are those of the shorter runs, of which these are longer ones."""
    if not (_has(rows, "long") and _has(rows, "heads")):
        return None
    arms = STUDIES["long"].arms
    columns = sorted((name for name in map(str, rows) if name.startswith("score_") and name[-1].isdigit()), key=_last)
    figure = Figure(figsize=WIDE, layout="constrained")
    left, right = figure.subplots(1, 2)
    for at, one in enumerate(arms):
        short, mine = _of(rows, studies.arm(one.head)), _of(rows, one)
        ends = [short["updates"].iloc[0], *(mine["updates"].iloc[0] * _last(name) / len(columns) for name in columns)]
        scores = [short["score_last"], *(mine[name] for name in columns)]
        _points(left, [(end + 150 * at) / 1000 for end in ends], [x.to_numpy(float) for x in scores], one.head)
        _line(right, rows, [studies.arm(one.head), one], [0.06 * at, 1 + 0.06 * at], "value_error")
    left.set_xlabel("updates, in thousands")
    left.set_ylabel(SCORE)
    right.set_xticks([0.15, 1.15], ["the preset's updates", f"{studies.LONGER} times as many"])
    right.set_xlim(-0.3, 1.6)
    right.set_ylabel("error of Q (RMS)")
    return _finish(figure, left, rows[rows["settings"] == arms[0].settings], "Q-learning on a log of mazes, for longer")


def _last(column: str) -> int:
    """The number that a column's name ends with."""
    return int(column.rpartition("_")[2])


def _targets(rows: pd.DataFrame) -> Figure | None:
    if not (_has(rows, "targets") and _has(rows, "heads")):
        return None
    names = [*studies.RIVALS, *(["one_sided"] if _has(rows, "one_sided") else [])]
    figure = Figure(figsize=WIDE, layout="constrained")
    panels = figure.subplots(1, 3)
    parts = {"score_last": SCORE, "value_error": "error of Q (RMS)", "value_bias": "mean error of Q"}
    for axes, (column, words) in zip(panels, parts.items(), strict=True):
        for at, head in enumerate(names):
            arms = [studies.arm(head), studies.arm(head, target="sarsa")]
            _line(axes, rows, arms, [0.08 * at, 1 + 0.08 * at], column, dashes="none")
        axes.set_xticks([0.1, 1.1], ["Q-learning", "SARSA"])
        axes.set_xlim(-0.4, 1.6)
        axes.set_ylabel(words)
    panels[2].axhline(0.0, color=GREY, linestyle=":", linewidth=1.2)
    mine = rows[rows["settings"].isin(("", "target=sarsa"))]
    return _finish(figure, panels[0], mine, "targets of Q-learning and of SARSA")


def _bins(rows: pd.DataFrame) -> Figure | None:
    if not all(_has(rows, study) for study in ("bins", "resolution", "heads")):
        return None
    figure = Figure(figsize=WIDE, layout="constrained")
    left, right = figure.subplots(1, 2)
    cells = np.full((len(studies.FINER), len(studies.WIDER) + 1), np.nan)
    for i, bins in enumerate(studies.FINER):
        ratios = studies.widths(bins)
        arms = [studies.of_bins("two_hot", bins), *(studies.of_bins("hl_gauss", bins, ratio) for ratio in ratios)]
        cells[i, : len(arms)] = [_of(rows, one)["score_last"].mean() for one in arms]
        sigmas = [ratio * 2 * studies.HALF / bins for ratio in ratios]
        known = [mean_interval(_of(rows, one)["score_last"].to_numpy(float)) for one in arms[1:]]
        half = [interval.high - interval.estimate if interval.bounded else 0.0 for interval in known]
        colour = (GREEN, BLUE, ORANGE, PURPLE)[i]
        right.errorbar(
            sigmas, [k.estimate for k in known], half, marker="oDs^"[i], capsize=2, color=colour, label=f"{bins} bins"
        )
    image = left.imshow(cells, origin="lower", cmap="viridis", aspect="auto")
    middle = np.nanmean([np.nanmin(cells), np.nanmax(cells)])
    for i, j in np.argwhere(np.isfinite(cells)):
        value = cells[i, j]
        left.text(j, i, f"{value:.0f}", ha="center", va="center", color="white" if value < middle else "black")
    left.set_xticks(range(cells.shape[1]), ["two-hot", *(f"{ratio:g}" for ratio in studies.WIDER)])
    left.set_yticks(range(len(studies.FINER)), [str(bins) for bins in studies.FINER])
    left.set_xlabel("sigma, in bins")
    left.set_ylabel("bins")
    figure.colorbar(image, ax=left, label="score")
    right.set_xscale("log")
    right.set_xlabel("sigma, in units of value")
    right.set_ylabel(SCORE)
    right.legend(frameon=False)
    figure.suptitle("HL-Gauss by bins and sigma: mean over seeds, 95% t-interval", fontsize=9)
    return figure


def _support(rows: pd.DataFrame) -> Figure | None:
    if not (_has(rows, "support") and _has(rows, "heads")):
        return None
    mine = rows[rows["settings"].isin([one.settings for one in STUDIES["support"].arms])]
    parts = {"score_last": SCORE, "value_error": "error of Q (RMS)", "clipped_targets": "share of clipped targets"}
    parts = {column: words for column, words in parts.items() if column in mine and mine[column].notna().any()}
    figure = Figure(figsize=WIDE, layout="constrained")
    panels = figure.subplots(1, len(parts))
    for axes, (column, words) in zip(panels, parts.items(), strict=True):
        for head in ("hl_gauss", "two_hot"):
            arms = [studies.of_support(head, factor) for factor in studies.FACTORS]
            _line(axes, rows, arms, studies.FACTORS, column)
        level = _of(rows, studies.arm("mse"))[column].mean()
        if np.isfinite(level):
            axes.axhline(level, color=HEADS["mse"], linestyle="--", linewidth=1.2, label="MSE, which has none")
        axes.set_xscale("log")
        axes.set_xticks(studies.FACTORS, [f"x{factor:g}" for factor in studies.FACTORS])
        axes.minorticks_off()
        axes.set_xlabel("width of the support, of what fits")
        axes.set_ylabel(words)
    return _finish(figure, panels[0], mine, f"supports too narrow and too wide, {studies.Config.bins} bins")


def _noise(rows: pd.DataFrame) -> Figure | None:
    if not _has(rows, "noise"):
        return None
    figure = Figure(figsize=WIDE, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, side, words in zip(panels, (True, False), ("centred", "above zero, as in the paper"), strict=True):
        for at, head in enumerate(studies.RIVALS):
            arms = [studies.of_noise(head, noise, side) for noise in studies.NOISES[side]]
            _line(axes, rows, arms, [noise + 0.04 * at for noise in studies.NOISES[side]])
        axes.set_title(words)
        axes.set_xticks(studies.NOISES[side])
        axes.set_xlabel("width of the rewards' noise")
    panels[0].set_ylabel(SCORE)
    mine = rows[rows["settings"].isin([one.settings for one in STUDIES["noise"].arms])]
    return _finish(figure, panels[0], mine, "uniform noise on the logged rewards")


def _conservative(rows: pd.DataFrame) -> Figure | None:
    if not (_has(rows, "conservative") and _has(rows, "heads")):
        return None
    figure = Figure(figsize=MIDDLE, layout="constrained")
    axes = figure.subplots()
    for at, head in enumerate(studies.HELD):
        arms = [studies.arm(head), *(studies.arm(head, conservative=alpha) for alpha in studies.ALPHAS)]
        _line(axes, rows, arms, [place + 0.06 * at for place in range(len(arms))])
    axes.set_xticks(range(len(studies.ALPHAS) + 1), ["none", *(f"{alpha:g}" for alpha in studies.ALPHAS)])
    axes.set_xlabel("weight of CQL's term")
    axes.set_ylabel(SCORE)
    mine = rows[rows["settings"].isin([one.settings for one in STUDIES["conservative"].arms])]
    return _finish(figure, axes, mine, "Q-learning on a log of mazes, with CQL's term")


def _transitions(rows: pd.DataFrame) -> Figure | None:
    if not _has(rows, "transitions"):
        return None
    figure = Figure(figsize=SMALL, layout="constrained")
    axes = figure.subplots()
    for at, head in enumerate(("mse", "c51", "hl_gauss")):
        arms = [studies.calm(head), studies.slippery(head)]
        _line(axes, rows, arms, [0.08 * at, 1 + 0.08 * at], dashes="none")
    axes.set_xticks([0.08, 1.08], ["deterministic", "every fourth action random"])
    axes.set_xlim(-0.4, 1.6)
    axes.set_ylabel(SCORE)
    mine = rows[rows["settings"].isin([one.settings for one in STUDIES["transitions"].arms])]
    return _finish(figure, axes, mine, "Q-learning without and with chance in transitions")


def _scaling(rows: pd.DataFrame) -> Figure | None:
    if not (_has(rows, "scaling") and _has(rows, "heads")):
        return None
    units = sorted({*studies.UNITS, 64})
    return _by_size(rows, "scaling", studies.of_size, studies.DEPTHS, units, "depth and width of the Q-network")


def _experts(rows: pd.DataFrame) -> Figure | None:
    if not _has(rows, "experts"):
        return None
    figure = Figure(figsize=SMALL, layout="constrained")
    axes = figure.subplots()
    for head in ("mse", "hl_gauss"):
        _line(axes, rows, [studies.of_experts(head, number) for number in studies.EXPERTS], studies.EXPERTS)
    axes.set_xscale("log", base=2)
    axes.set_xticks(studies.EXPERTS, [str(number) for number in studies.EXPERTS])
    axes.set_xlabel("experts of a soft mixture")
    axes.set_ylabel(SCORE)
    mine = rows[rows["settings"].isin([one.settings for one in STUDIES["experts"].arms])]
    return _finish(figure, axes, mine, "Q-learning on a log of mazes, with experts in the Q-network")


def _tasks(rows: pd.DataFrame) -> Figure | None:
    if not _has(rows, "tasks"):
        return None
    depths, units = (sorted({size[i] for size in studies.SIZES if size[1 - i] == (64, 2)[i]}) for i in (0, 1))
    words = f"one Q-network for {studies.TASKS} variants of the maze, in each of which actions make other moves"
    return _by_size(rows, "tasks", studies.of_tasks, depths, units, words)


def _by_size(
    rows: pd.DataFrame,
    study: str,
    make: Callable[[str, int, int], Arm],
    depths: Sequence[int],
    units: Sequence[int],
    words: str,
) -> Figure:
    """Scores over the depth and the width of the network."""
    figure = Figure(figsize=WIDE, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for head in ("mse", "hl_gauss"):
        _line(panels[0], rows, [make(head, n, 64) for n in depths], depths)
        _line(panels[1], rows, [make(head, 2, n) for n in units], units)
    panels[0].set_xticks(depths)
    panels[0].set_xlabel("hidden layers of 64 units")
    panels[1].set_xscale("log", base=2)
    panels[1].set_xticks(units, [str(n) for n in units])
    panels[1].set_xlabel("units of two hidden layers")
    panels[0].set_ylabel(SCORE)
    mine = rows[rows["settings"].isin([one.settings for one in STUDIES[study].arms])]
    return _finish(figure, panels[0], mine, words)
