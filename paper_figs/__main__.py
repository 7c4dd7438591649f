"""Draw the figures again, as png and pdf, from results/*/summary.csv and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

from experiments import options
from jaxrl_suite.errors import UserError, exits_cleanly, unknown
from paper_figs import offline_mbrl, style, throughput

FIGURES = {"offline_mbrl": offline_mbrl, "throughput": throughput}


@dataclass(frozen=True)
class Options:
    """Options of the figures."""

    only: str = ""
    """Draw the figures of one experiment; all by default."""
    results: Path = Path(__file__).resolve().parent.parent / "results"
    """Folder of published results; figures are written beside the rows they show."""


@exits_cleanly
def main() -> int:
    """Draw the figures that are asked for."""
    chosen = options.parse(Options, options.arguments(), Options(), "python -m paper_figs", __doc__ or "")
    if chosen.only and chosen.only not in FIGURES:
        raise unknown("figure", chosen.only, FIGURES)
    published = [name for name in FIGURES if (chosen.results / name / "summary.csv").exists()]
    names = [chosen.only] if chosen.only else published
    if not names or not set(names) <= set(published):
        missing = chosen.results / (chosen.only or "*")
        raise UserError(f"{missing} has no rows; run python -m experiments.reproduce --publish")
    for name in names:
        with mpl.rc_context(style.RC):
            drawn = FIGURES[name].draw(chosen.results)
        for stem, figure in drawn.items():
            print(*style.save(figure, chosen.results / stem), sep="\n")
    return 0


if __name__ == "__main__":
    main()
