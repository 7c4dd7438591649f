"""How every figure looks, and how it is written: the same rows give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

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


def save(figure: Figure, path: Path) -> list[Path]:
    """Write the figure as png and pdf beside each other; `path` has no ending."""
    written = []
    for kind, metadata in METADATA.items():
        written.append(path.with_name(f"{path.name}.{kind}"))
        with mpl.rc_context(RC):
            figure.savefig(written[-1], metadata=metadata)
    return written
