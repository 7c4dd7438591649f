"""Figures of a run, as files with the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from jaxrl_suite.errors import UserError
from jaxrl_suite.report.stats import mean_interval
from jaxrl_suite.report.tables import Reference

# Okabe and Ito's palette: told apart by colour-blind readers.
BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
REFERENCES = (("0.35", "--"), (ORANGE, "-."), (GREEN, ":"), (PURPLE, (0, (6, 2, 1, 2, 1, 2))), (SKY, (0, (1, 1))))
COLUMNS = ("seed", "update", "return_mean", "score", "q_start", "mc_start")
EXPLODED = 10.0  # Q-values this many times beyond the true returns are drawn on a logarithmic axis
# What savefig would stamp with the time or the library's version.
METADATA = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    ".svg": {"Date": None, "Creator": None},
}
STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "jaxrl_suite"}


class _Curves(NamedTuple):
    """One quantity of all seeds on the common grid of updates."""

    updates: np.ndarray  # [points]
    seeds: np.ndarray  # [seeds, points] NaN where a seed has no finite value
    mean: np.ndarray  # [points] over the seeds that have one
    low: np.ndarray  # [points] NaN below two seeds
    high: np.ndarray  # [points]
    left: np.ndarray  # [points] seeds behind the mean


def run_figure(evals: pd.DataFrame, references: Sequence[Reference], title: str, path: str | Path) -> Path:
    """Draw the learning curves of a run and its Q-values against the truth; the suffix of `path` is the format.

    `evals` has one row per seed and evaluation: seed, update (gradient updates of the agent so far), return_mean and
    score (of the evaluation episodes), q_start (the agent's estimate at their start states) and mc_start (the
    discounted return that followed). The last two may be NaN.
    """
    path = Path(path)
    missing = [name for name in COLUMNS if name not in evals.columns]
    if missing or evals.empty:
        raise UserError(f"no figure: the evaluations lack {', '.join(missing) or 'any row'}; run the experiment first")
    if path.suffix not in METADATA:
        raise UserError(f"cannot write a figure as {path.name!r}; expected a name ending in {', '.join(METADATA)}")
    # The user's own matplotlibrc must not change published bytes.
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(11.0, 4.4), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize=12)
        left, right = figure.subplots(1, 2)
        _draw_returns(left, evals, references)
        _draw_values(right, evals)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata=METADATA[path.suffix])
    return path


def _draw_returns(axes: Axes, evals: pd.DataFrame, references: Sequence[Reference]) -> None:
    """Learning curves, with the lines they should beat."""
    curves = _curves(evals, "return_mean")
    _draw_curves(axes, curves, BLUE, ("mean of " if len(curves.seeds) > 1 else "") + _seeds(curves), band=True)
    for index, reference in enumerate(references):
        colour, dashes = REFERENCES[index % len(REFERENCES)]
        axes.axhline(reference.returns.estimate, color=colour, linestyle=dashes, linewidth=1.6, label=reference.name)
    axes.set_title("Learning curve", fontsize=11)
    axes.set_ylabel("return per episode (sum of rewards)")
    _score_axis(axes, evals)
    _finish(axes)


def _draw_values(axes: Axes, evals: pd.DataFrame) -> None:
    """What the critics promise at the start states against what the policy then collects."""
    promised, collected = _curves(evals, "q_start"), _curves(evals, "mc_start")
    _draw_curves(axes, promised, ORANGE, f"Q-value estimate, {_seeds(promised)}")
    _draw_curves(axes, collected, BLUE, f"true discounted return, {_seeds(collected)}", dashes="--")
    axes.set_title("Q-values at evaluation start states", fontsize=11)
    axes.set_ylabel("discounted return from the start")
    limit = _symlog_limit(promised.seeds, collected.seeds)
    if limit:
        axes.set_yscale("symlog", linthresh=limit)
        axes.set_ylabel(f"discounted return from the start\n(logarithmic beyond ±{limit:g})")
    _finish(axes)


def _draw_curves(axes: Axes, curves: _Curves, colour: str, label: str, dashes: str = "-", band: bool = False) -> None:
    """Thin lines per seed, a bold mean, and where asked for the t-interval of the mean."""
    if not curves.left.any():
        return
    several = curves.seeds.shape[0] > 1
    lone = "o" if curves.updates.size == 1 else ""  # a single evaluation makes no line
    for index, values in enumerate(curves.seeds if several else ()):
        name = "single seeds" if band and index == 0 else None
        axes.plot(curves.updates, values, dashes, color=colour, linewidth=0.8, alpha=0.45, marker=lone, label=name)
    axes.plot(curves.updates, curves.mean, dashes, color=colour, linewidth=2.4, marker=lone, label=label)
    if band and np.isfinite(curves.low).any():
        area = axes.fill_between(curves.updates, curves.low, curves.high, color=colour, alpha=0.15, linewidth=0)
        area.set_label("95% t-interval of the mean")


def _finish(axes: Axes) -> None:
    axes.set_xlabel("gradient updates of the agent")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}k" if abs(x) >= 1000 else f"{x:g}"))
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    columns = 2 if len(axes.get_legend_handles_labels()[1]) > 2 else 1
    if columns == 1 and not axes.get_legend_handles_labels()[1]:
        axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, ha="center", va="center", color="0.35")
        return
    # Below the axes, where no curve can run behind it.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=columns, fontsize=9, frameon=False)


def _score_axis(axes: Axes, evals: pd.DataFrame) -> None:
    """The normalised score as a second scale: it is affine in the return, so two points fix it."""
    known = evals[np.isfinite(evals["return_mean"]) & np.isfinite(evals["score"])]
    if known["return_mean"].nunique() < 2:
        return
    lowest, highest = known["return_mean"].idxmin(), known["return_mean"].idxmax()
    (r0, r1), (s0, s1) = (known.loc[[lowest, highest], name].to_numpy(float) for name in ("return_mean", "score"))
    if s0 == s1:
        return
    slope = (s1 - s0) / (r1 - r0)
    second = axes.secondary_yaxis("right", functions=(lambda r: s0 + (r - r0) * slope, lambda s: r0 + (s - s0) / slope))
    second.set_ylabel("normalised score")
    second.spines["right"].set_visible(True)


def _curves(evals: pd.DataFrame, name: str) -> _Curves:
    """The column `name` by seed and update; what is not finite counts as absent."""
    values = evals.pivot_table(index="seed", columns="update", values=name, aggfunc="last", dropna=False)
    seeds = values.to_numpy(dtype=float)
    seeds = np.where(np.isfinite(seeds), seeds, np.nan)
    intervals = [mean_interval(column[np.isfinite(column)]) for column in seeds.T]
    mean, low, high, left = (np.array(part) for part in zip(*intervals, strict=True))
    return _Curves(values.columns.to_numpy(dtype=float), seeds, mean, low, high, left)


def _seeds(curves: _Curves) -> str:
    """How many seeds a mean stands for, also where some end early."""
    most = int(curves.left.max(initial=0))
    least = int(curves.left[curves.left > 0].min(initial=most))
    if least < most:
        return f"{most} seeds, {least} where fewest are left"
    return f"{most} seed{'s' if most != 1 else ''}"


def _symlog_limit(promised: np.ndarray, collected: np.ndarray) -> float:
    """Where the logarithmic part of the axis begins; 0 where a linear axis serves."""
    truth = np.nanmax(np.abs(collected)) if np.isfinite(collected).any() else 1.0
    truth = max(float(truth), 1.0)
    largest = float(np.nanmax(np.abs(promised))) if np.isfinite(promised).any() else 0.0
    return float(10.0 ** np.floor(np.log10(truth))) if largest > EXPLODED * truth else 0.0
