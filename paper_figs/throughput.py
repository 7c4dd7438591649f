"""Speed: every row under the machine's roofline, and how cost grows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.style import BLUE, GREEN, GREY, ORANGE, panels, plain

GROWTH = {
    "buffer": ("rows in the buffer", "seconds per update"),
    "critics": ("critics", "seconds per update"),
    "horizon": ("horizon", "seconds per 1,000 rollouts"),
    "population": ("population", "seconds per update of all members"),
    "strong": ("devices", "seconds per update"),
    "weak": ("devices, batch in proportion", "seconds per update"),
}
EXPERIMENT = "throughput"
ACROSS = 3  # panels
COLOURS = {"float32": BLUE, "bfloat16": ORANGE}  # by precision


def draw(results: Path) -> dict[str, Figure]:
    """Figures by path without ending, from `results/throughput/summary.csv`; the newest rows of a name count."""
    rows = pd.read_csv(results / EXPERIMENT / "summary.csv")
    rows = rows.drop_duplicates(["name", "precision"], keep="last")
    figures = {}
    # Precision changes nothing of the machine, which each benchmark measures anew.
    machine = rows[rows["group"] == "machine"].drop_duplicates("name", keep="last").set_index("name")["rate"]
    if {"matmul-float32", "bandwidth"} <= set(machine.index):
        figures["throughput/roofline"] = _roofline(rows, machine)
    groups = [group for group in GROWTH if rows.loc[rows["group"] == group, "size"].nunique() > 1]
    if groups:
        figures["throughput/growth"] = _growth(rows, groups)
    return figures


def _roofline(rows: pd.DataFrame, machine: pd.Series) -> Figure:
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    peak, bandwidth = float(machine["matmul-float32"]), float(machine["bandwidth"])
    x = np.geomspace(1.0, 200.0, 200)
    axes.plot(x, np.minimum(peak, bandwidth * x), color=GREY, label=f"roof: {bandwidth:,.0f} GB/s, {peak:,.0f} GFLOP/s")
    if "matmul-bfloat16" in machine:
        axes.axhline(float(machine["matmul-bfloat16"]), color=GREY, linestyle="--", label="bfloat16 matrix product")
    shown = rows[rows["group"].isin(["table", "quick"]) & (rows["gflop_done"] > 0)]
    for precision, colour in COLOURS.items():
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
    figure = Figure(
        figsize=(3.2 * min(len(groups), ACROSS), 2.9 * math.ceil(len(groups) / ACROSS)), layout="constrained"
    )
    for axes, group in zip(panels(figure, len(groups), ACROSS), groups, strict=True):
        _cost(axes, group, rows[rows["group"] == group].sort_values("size"))
    return figure


def _short(number: float) -> str:
    """10M for ten million."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:g}{name}"
    return f"{number:g}"


def _cost(axes: Axes, group: str, rows: pd.DataFrame) -> None:
    """Seconds of the work by precision, which should be flat, or in proportion to the size (dashed, from the first)."""
    work = {"horizon": 1_000 * rows["size"], "population": rows["size"]}.get(group, 1.0)
    rows = rows.assign(seconds=work / rows["rate"])
    flat = group in ("buffer", "strong")
    shown = {name: part for name in COLOURS if len(part := rows[rows["precision"] == name])}
    for precision, part in shown.items():
        size, seconds = part["size"].to_numpy(float), part["seconds"].to_numpy(float)
        axes.plot(size, seconds, "o-", color=COLOURS[precision], markersize=4, label=precision)
        axes.plot(size, seconds[0] * (np.ones_like(size) if flat else size / size[0]), "--", color=GREEN, linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel=GROWTH[group][0], ylabel=GROWTH[group][1])
    ticks = rows["size"].unique()
    axes.set_xticks(ticks, [_short(x) for x in ticks])
    axes.set_xticks([], minor=True)
    axes.set_title("dashed: constant" if flat else "dashed: in proportion", color=GREY)
    if len(shown) > 1:
        axes.legend(frameon=False, fontsize=8)
    if flat:
        axes.set_ylim(rows["seconds"].min() / 3, rows["seconds"].max() * 3)
    plain(axes.yaxis, (1.0, 2.0, 5.0))
