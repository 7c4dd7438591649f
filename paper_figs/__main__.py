"""Draw every figure again from results/*/summary.csv: `python -m paper_figs`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments import options
from jaxrl_suite.errors import UserError, exits_cleanly
from paper_figs import offline_mbrl

FIGURES = (offline_mbrl,)


@dataclass(frozen=True)
class Options:
    """Options of the figures."""

    results: Path = Path(__file__).resolve().parent.parent / "results"
    """Folder of published results; figures are written beside the rows they show."""


@exits_cleanly
def main() -> int:
    """Draw all figures."""
    chosen = options.parse(Options, options.arguments(), Options(), "python -m paper_figs", __doc__ or "")
    for module in FIGURES:
        if not (chosen.results / module.__name__.split(".")[-1] / "summary.csv").exists():
            raise UserError(f"no published rows for {module.__name__}; run python -m experiments.reproduce --publish")
        for name, figure in module.draw(chosen.results).items():
            path = chosen.results / name
            # Without the software's version, the same rows give the same bytes.
            figure.savefig(path, dpi=120, metadata={"Software": None})
            print(path)
    return 0


if __name__ == "__main__":
    main()
