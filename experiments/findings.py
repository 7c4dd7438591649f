"""Claims side by side: the tables in results/*/README.md, which say in words what was found.

Such a file holds the grid NAME between `<!-- table:NAME -->` and `<!-- /table -->`; publishing writes it anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.lipschitz_claims import KINDS
from experiments.needs import REPLAYS
from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.report.formats import spanned
from jaxrl_suite.train import rundir

END = "<!-- /table -->"
NAMES = {"rebrac": "ReBRAC", "sac_n": "SAC-N"} | {name: name.upper() for name in ("cql", "iql", "edac", "ravl", "mopo")}
SETS = {replay: replay.split("-")[0] for replay in REPLAYS}
ALSO = {REPLAYS[0]: "", **{replay: f"-{name}" for replay, name in SETS.items() if replay != REPLAYS[0]}}
LEGEND = "Mean difference [95% interval]: **supported**, *not supported* (the contrary is shown), or inconclusive."


class Grid(NamedTuple):
    """A table of claims."""

    corner: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[str, ...]]
    """Label -> the claim of each column by its id; "" where there is none."""


def _per_algorithm(prefix: str, algos: Sequence[str], more: Mapping[str, str]) -> Grid:
    """The claim `<prefix>-<algo>` on each data set and on all; others by column, whose ids end with the algorithm."""
    ids = {
        NAMES[algo]: (
            *(f"{prefix}-{algo}{suffix}" for suffix in (*ALSO.values(), "-everywhere")),
            *(f"{other}-{algo}" for other in more.values()),
        )
        for algo in algos
    }
    return Grid("", (*SETS.values(), "all three", *more), ids)


def _heads() -> Grid:
    more = {
        "hopper, begun at 0": "offline-hl-gauss-from-zero-beats-mse",
        "hopper, each at the best of five step sizes": "offline-widely-tuned-hl-gauss-beats-mse",
    }
    algos = ("rebrac", "cql", "iql", "edac", "sac_n", "ravl")
    return _per_algorithm("offline-hl-gauss-beats-mse", algos, more)


def _rivals() -> Grid:
    algos = {
        "mse-softmax": ("rebrac", "iql", "edac", "sac_n", "ravl"),
        "two-hot": ("rebrac", "cql", "iql", "edac", "sac_n", "ravl"),
        "c51": ("rebrac", "cql", "edac", "sac_n", "ravl"),
        "quantile": ("rebrac",),
    }
    words = {"mse-softmax": "squared error on a softmax's mean", "c51": "C51", "quantile": "quantiles"}
    rows = {
        words.get(rival, rival): tuple(
            f"offline-hl-gauss-beats-{rival}-{algo}" if algo in there else "" for algo in algos["two-hot"]
        )
        for rival, there in algos.items()
    }
    return Grid("HL-Gauss minus", tuple(NAMES[algo] for algo in algos["two-hot"]), rows)


def _lipschitz() -> Grid:
    asked = {
        "ensemble minus single": "ensemble-beats-single",
        "single, bounded, minus ensemble": "single-spectral-no-worse",
        "single with adversarial noise minus ensemble": "single-adversarial-no-worse",
        "single: bounds": "single-spectral-helps",
        "single: adversarial noise": "single-adversarial-helps",
        "single: adversarial minus random noise": "adversarial-beats-random",
        "ensemble: bounds": "ensemble-spectral-helps",
        "ensemble: adversarial noise": "ensemble-adversarial-helps",
        "ensemble: adversarial minus random noise": "ensemble-adversarial-beats-random",
    }
    arms = [(algo, kind) for algo in ("ravl", "mopo") for kind in KINDS]
    rows = {label: tuple(f"offline-{algo}-{kind}-{end}" for algo, kind in arms) for label, end in asked.items()}
    return Grid("", tuple(f"{NAMES[algo]}, {kind}" for algo, kind in arms), rows)


GRIDS = {
    "value-heads": _heads(),
    "value-heads-rivals": _rivals(),
    "layer-norm": _per_algorithm("layer-norm-helps", ("sac_n", "edac", "mopo", "ravl"), {}),
    "lipschitz-arms": _lipschitz(),
}


# --- Documents ---
def markdown(grid: Grid, found: Mapping[str, Mapping[str, Any]]) -> str:
    """A grid with what was found, by id: the rows of claims.csv at one preset."""
    lines = [(grid.corner, *grid.columns), ("---", *["---:"] * len(grid.columns))]
    lines += [(label, *(_cell(found.get(name)) for name in ids)) for label, ids in grid.rows.items()]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{LEGEND}"


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    mark = {"supported": "**", "not supported": "*"}.get(row["verdict"], "")
    return mark + spanned(row["estimate"], row["ci_low"], row["ci_high"]) + mark


def start(name: str) -> str:
    """The line after which a table stands, up to the next `END`."""
    return f"<!-- table:{name} -->"


def replaced(text: str, name: str, table: str) -> str:
    """A document with the table between its markers.

    Raises:
        UserError: the markers are gone.
    """
    head, found, rest = text.partition(start(name))
    _, ended, tail = rest.partition(END)
    if not (found and ended):
        raise UserError(f"README.md lacks the markers {start(name)} ... {END}; put them where the table belongs")
    return f"{head}{found}\n{table.strip()}\n{ended}{tail}"


def renewed(text: str, claims: Path, preset: str) -> str:
    """A document of findings with its grids from a claims.csv.

    Raises:
        UserError: a marker that names no grid, or one without its end.
    """
    found = {str(row["id"]): row for row in rundir.read_rows(claims) if row["preset"] == preset}
    for name in re.findall(r"<!-- table:(\S+) -->", text):
        if name not in GRIDS:
            raise unknown("table", name, GRIDS)
        text = replaced(text, name, markdown(GRIDS[name], found))
    return text
