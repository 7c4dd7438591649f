"""Show what a public implementation's fault does to IQL: HL-Gauss with a one-sided Gaussian, beside HL-Gauss and mse.

The faulty head is registered in this program alone, as `one_sided`: --head knows no such name anywhere else. Runs are
otherwise those of experiments.offline_mbrl, and of the seeds that the claims rest on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from experiments import heads_maze, offline_mbrl, options, publishing, reproduce
from experiments.heads_offline_claims import CLAIMS, FAULT_COMMAND, SEEDS, runs
from jaxrl_suite.errors import UserError, exits_cleanly
from jaxrl_suite.report.claims import REPORTED
from jaxrl_suite.train.display import make_console
from jaxrl_suite.values import heads

FAULT = "one_sided"


@dataclass(frozen=True)
class Options:
    """Options of the demonstration."""

    seeds: str = f"0:{SEEDS}"
    """How many seeds, or a range, in groups of eight that train in one program."""
    preset: str = "quick"
    """Preset of IQL."""
    out: Path = Path("runs")
    """Folder for runs."""
    publish: bool = False
    """Add the rows to results/, and renew its claims, its page and the table in the README."""


@contextlib.contextmanager
def registered() -> Iterator[None]:
    """The faulty head under its name, for as long as this lasts."""
    heads.HEADS[FAULT] = heads_maze.one_sided
    try:
        yield
    finally:
        del heads.HEADS[FAULT]


@exits_cleanly
def main() -> int:
    """Make the runs, show the findings, publish if asked."""
    options.cache_programs()
    chosen = options.parse(Options, options.arguments(), Options(), FAULT_COMMAND, __doc__ or "")
    seeds = options.parse_seeds(chosen.seeds)
    if max(seeds) >= REPORTED:
        raise UserError(f"--seeds={chosen.seeds}: reported seeds are 0 to {REPORTED - 1}; others are for tuning")
    publishing.check(chosen.publish, chosen.preset, seeds)
    console = make_console()
    needed = {runs("iql", head): seeds for head in (FAULT, "hl_gauss", "mse")}
    asked = reproduce.Options(preset=chosen.preset, out=chosen.out)
    with registered():
        code = reproduce.run_all(needed, asked, console)
    if code:
        return code
    rows = reproduce.rows_of(needed, asked)
    tested = [claim for claim in CLAIMS if set(claim.needs) <= set(needed)]
    found = reproduce.findings_of(tested, rows, chosen.preset)
    console.print(reproduce.shown(found, reproduce.published_records(publishing.RESULTS, chosen.preset)))
    if chosen.publish:
        publishing.publish_all(rows, offline_mbrl.EXPERIMENT, chosen.out, console)
    return 0


if __name__ == "__main__":
    main()
