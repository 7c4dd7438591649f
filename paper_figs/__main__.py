"""Draw the figures again, as png and pdf, from results/*/summary.csv and curves.csv and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

from experiments import box_runs, checks, curves, options, studies
from jaxrl_suite.errors import UserError, exits_cleanly, unknown
from paper_figs import (
    algorithms,
    atari_heads,
    edge_of_reach,
    ensemble_vs_lipschitz,
    heads_everywhere,
    heads_offline,
    layer_norm,
    learning_curves,
    lipschitz_offline,
    offline_mbrl,
    style,
    throughput,
    true_dynamics,
    value_heads,
)

FIGURES = {
    "offline_mbrl": offline_mbrl,
    "algorithms": algorithms,
    "learning_curves": learning_curves,
    "throughput": throughput,
    "edge_of_reach": edge_of_reach,
    "value_heads": value_heads,
    "heads_offline": heads_offline,
    "heads_everywhere": heads_everywhere,
    "atari_heads": atari_heads,
    "lipschitz_offline": lipschitz_offline,
    "layer_norm": layer_norm,
    "true_dynamics": true_dynamics,
    "ensemble_vs_lipschitz": ensemble_vs_lipschitz,
}
# What figures read beside curves, with the columns that hold identifiers and numbers alone.
TABLES = {studies.SUMMARY: (), box_runs.SHELLS: box_runs.SHELL_COLUMNS, box_runs.PATHS: box_runs.PATH_COLUMNS}


@dataclass(frozen=True)
class Options:
    """Options of the figures."""

    only: str = ""
    """Draw only these: offline_mbrl, algorithms, learning_curves, throughput, edge_of_reach,
    true_dynamics, ensemble_vs_lipschitz, value_heads, heads_offline, heads_everywhere, atari_heads,
    lipschitz_offline or layer_norm; by default all with published rows."""
    results: Path = Path(__file__).resolve().parent.parent / "results"
    """Folder of published results; figures are written beside the rows they show."""


def check(folder: Path) -> None:
    """Refuse damaged files of an experiment, which pandas would read on from, before anything is drawn.

    Raises:
        UserError: a summary, curves or a table are damaged, half written or of another version.
    """
    curves.read(folder / curves.CURVES)
    for name, columns in TABLES.items():
        if (folder / name).exists():
            checks.table(folder / name, columns)


@exits_cleanly
def main() -> int:
    """Draw the figures that are asked for."""
    chosen = options.parse(Options, options.arguments(), Options(), "python -m paper_figs", __doc__ or "")
    if chosen.only and chosen.only not in FIGURES:
        raise unknown("figure", chosen.only, FIGURES)
    names = [chosen.only] if chosen.only else list(FIGURES)
    published = [n for n in names if (chosen.results / FIGURES[n].EXPERIMENT / "summary.csv").exists()]
    if not published:
        missing = chosen.results / (FIGURES[chosen.only].EXPERIMENT if chosen.only else "*")
        raise UserError(f"{missing} has no rows; run its experiment with --publish")
    for experiment in dict.fromkeys(FIGURES[name].EXPERIMENT for name in published):
        check(chosen.results / experiment)
    for name in published:
        with mpl.rc_context(style.RC):
            drawn = FIGURES[name].draw(chosen.results)
        if not drawn:
            print(f"{name}: nothing to draw; no row in {chosen.results / FIGURES[name].EXPERIMENT} has what it shows")
        for stem, figure in drawn.items():
            print(*style.save(figure, chosen.results / stem), sep="\n")
    return 0


if __name__ == "__main__":
    main()
