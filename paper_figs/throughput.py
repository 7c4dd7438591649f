"""Speed: every row under the machine's roofline, and how cost grows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.style import BLUE, GREEN, GREY, ORANGE

GROWTH = {
    "buffer": ("rows in the buffer", "seconds per update"),
    "critics": ("critics", "seconds per update"),
    "horizon": ("horizon", "seconds per 1,000 rollouts"),
    "population": ("population", "seconds per update of all members"),
    "strong": ("devices", "seconds per update"),
    "weak": ("devices, batch in proportion", "seconds per update"),
}
EXPERIMENT = "throughput"


def draw(results: Path) -> dict[str, Figure]:
    """Figures by path without ending, from `results/throughput/summary.csv`; the newest rows of a name count."""
    rows = pd.read_csv(results / EXPERIMENT / "summary.csv")
    rows = rows.drop_duplicates(["name", "precision"], keep="last")
    figures = {}
    if {"matmul-float32", "bandwidth"} <= set(rows["name"]):
        figures["throughput/roofline"] = _roofline(rows)
    groups = [group for group in GROWTH if (rows["group"] == group).sum() > 1]
    if groups:
        figures["throughput/growth"] = _growth(rows, groups)
    return figures


def _roofline(rows: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    rates = rows[rows["group"] == "machine"].set_index("name")["rate"]
    peak, bandwidth = float(rates["matmul-float32"]), float(rates["bandwidth"])
    x = np.geomspace(1.0, 200.0, 200)
    axes.plot(x, np.minimum(peak, bandwidth * x), color=GREY, label=f"roof: {bandwidth:,.0f} GB/s, {peak:,.0f} GFLOP/s")
    if "matmul-bfloat16" in rates:
        axes.axhline(float(rates["matmul-bfloat16"]), color=GREY, linestyle="--", label="bfloat16 matrix product")
    shown = rows[rows["group"].isin(["table", "quick"]) & (rows["gflop_done"] > 0)]
    for precision, colour in (("float32", BLUE), ("bfloat16", ORANGE)):
        part = shown[shown["precision"] == precision]
        if len(part):
            axes.plot(part["intensity"], part["rate"] * part["gflop_done"], "o", color=colour, label=precision)
    _name(axes, shown.assign(speed=shown["rate"] * shown["gflop_done"]).sort_values("speed"))
    axes.set(xscale="log", yscale="log", ylabel="GFLOP/s", xlim=(1, 200))
    axes.set_xlabel("operations per byte that XLA's operations touch (caches ignored)")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0.0, 0.93))
    return figure


def _name(axes: Axes, rows: pd.DataFrame) -> None:
    """Names in a column to the right of the points, in their order, so that none hides another."""
    for place, (_, row) in zip(np.linspace(0.08, 0.72, len(rows)), rows.iterrows(), strict=True):
        axes.annotate(
            str(row["name"]),
            (row["intensity"], row["speed"]),
            xytext=(0.72, place),
            textcoords="axes fraction",
            fontsize=7,
            va="center",
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5},
        )


def _growth(rows: pd.DataFrame, groups: list[str]) -> Figure:
    figure = Figure(figsize=(3.2 * len(groups), 3.2), layout="constrained")
    for axes, group in zip(np.atleast_1d(figure.subplots(1, len(groups))), groups, strict=True):
        _cost(axes, group, rows[rows["group"] == group].sort_values("size"))
    return figure


def _short(number: float) -> str:
    """10M for ten million."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:g}{name}"
    return f"{number:g}"


def _cost(axes: Axes, group: str, rows: pd.DataFrame) -> None:
    """Seconds of the work that should be flat, or in proportion to the size (the dashed line from the first point)."""
    size, rate = rows["size"].to_numpy(float), rows["rate"].to_numpy(float)
    seconds = {"horizon": 1_000 * size / rate, "population": size / rate}.get(group, 1.0 / rate)
    axes.plot(size, seconds, "o-", color=BLUE, markersize=4)
    flat = group in ("buffer", "strong")
    axes.plot(size, seconds[0] * (np.ones_like(size) if flat else size / size[0]), "--", color=GREEN, linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel=GROWTH[group][0], ylabel=GROWTH[group][1])
    axes.set_xticks(size, [_short(x) for x in size])
    axes.set_xticks([], minor=True)
    axes.set_title("dashed: constant" if flat else "dashed: in proportion", color=GREY)
    if flat:
        axes.set_ylim(seconds.min() / 3, seconds.max() * 3)
