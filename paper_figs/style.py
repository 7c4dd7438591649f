"""How every figure looks, and how it is written: the same rows give the same bytes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#555555"
SKY, AMBER = "#56B4E9", "#E69F00"
RC: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 120,
    "pdf.fonttype": 42,  # embedded TrueType: text stays text
    "svg.hashsalt": "jaxrl_suite",
}
# Neither a date nor the software's version, so that a diff means a change of the figure.
METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def panels(figure: Figure, count: int, across: int, **more: Any) -> list[Axes]:
    """So many panels, some of them across, so that a figure is no wider than a page; `more` goes to `subplots`."""
    every = figure.subplots(math.ceil(count / across), min(count, across), squeeze=False, **more).ravel()
    for spare in every[count:]:
        spare.remove()
    return list(every[:count])


def plain(axis: Axis, parts: tuple[float, ...]) -> None:
    """Plain numbers at these parts of every decade, none between."""
    axis.set_major_locator(LogLocator(subs=parts))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, path: Path) -> list[Path]:
    """Write the figure as png and pdf beside each other; `path` has no ending."""
    written = []
    for kind, metadata in METADATA.items():
        written.append(path.with_name(f"{path.name}.{kind}"))
        with mpl.rc_context(RC):
            figure.savefig(written[-1], metadata=metadata)
    return written
