"""Run an experiment for a grid of algorithms, data sets and settings, or search for good ones, several runs at a time.

    python -m experiments.sweep --algo=ravl,bc --grid critics=2,10 diversity=0,1 --seeds=0:8 --workers=2
    python -m experiments.sweep --search=optuna --trials=20 --space critic_lr=1e-4:1e-2:log critics=2:20 head=mse

The grid is the product of --algo, --dataset and --grid. A run trains all seeds in one program, and beside them the
settings that need no program of their own: traced numbers, such as tau or diversity. A setting is a field of the
algorithm's config (its --help lists them; nested ones with a dot, as in dynamics.members); it varies only those
algorithms that have the field, and at least one must. Lists of numbers are written 64x64. The same command again skips
what has finished and resumes the rest; several sweeps may share a folder.

A search varies one run: Optuna draws what --space names, a range low:high or low:high:log or a list of values, and
learns from the trials that have ended. It trains on tuning seeds, from 1000 on, and counts the evaluations in the true
environment that it spends. The same command again resumes it and tries again what has failed; a larger --trials goes on
beyond its end. There is a row per trial in search-<name>.csv.

Runs go to processes of this machine, to a Ray cluster (--executor=ray) or to Slurm (--executor=slurm). The nodes of a
cluster share --out and the working folder under the same paths, and have the devices of the machine with the sweep.

Exit codes: 0 done, 1 some runs failed (see failures.csv), 2 bad input, 130 interrupted and resumable.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from experiments import options, plans, publishing, searches
from experiments.plans import FAILED, INTERRUPTED, MOST_WORKERS, Options
from jaxrl_suite.errors import UserError, exits_cleanly, in_vain
from jaxrl_suite.report import comparison, formats
from jaxrl_suite.report.claims import REPORTED
from jaxrl_suite.sweep import display, executors, schedule, tasks
from jaxrl_suite.train import files, interrupts, rundir, settings
from jaxrl_suite.train.display import make_console

OF_SEARCHES = ("trials", "objective", "sampler", "sampler_seed", "pruner")  # options that a grid has no use for


def show_plan(runs: Sequence[tasks.Run], chosen: Options, console: Console) -> int:
    """The plan, the number of runs, and how long the rest may take -> exit code."""
    states = [tasks.state(run) for run in runs]
    console.print(display.plan(runs, states))
    left = [run for run, found in zip(runs, states, strict=True) if found != "finished"]
    console.print(f"{len(runs)} runs, {len(left)} to do, {chosen.workers} at a time; {plans.estimate(left, chosen)}")
    return 0


def closing(runs: Sequence[tasks.Run], console: Console) -> None:
    """The comparison, a line per algorithm and settings, and where the rows are."""
    rows = tasks.rows_of(runs)
    if rows:
        show = formats.FORMATS["markdown"][1]
        with contextlib.suppress(UserError):  # rows that cannot share a table are still where the next line says
            console.print(show(comparison.compare(rows, "return_last"), "dataset"))
    console.print(f"rows: {runs[0].out / runs[0].experiment / 'summary.csv'}")


def sweep(runs: Sequence[tasks.Run], chosen: Options, console: Console) -> int:
    """Work off the runs -> exit code."""
    board = plans.work_off(runs, len(runs), chosen, console)
    if board is None:
        return INTERRUPTED
    if board.stopped:
        console.print(f"interrupted with {len(board.done)} of {len(runs)} runs done; {interrupts.resumes()}")
        return INTERRUPTED
    closing(runs, console)
    if chosen.publish:
        publishing.publish_all(tasks.rows_of(runs), chosen.experiment, chosen.out, console)
    if board.failed:
        console.print(f"{len(board.failed)} of {len(runs)} runs failed: {schedule.failures_file(runs[0])}")
    return FAILED if board.failed else 0


@exits_cleanly
def main() -> int:
    """Show the plan, or carry it out."""
    if options.asks_for_algorithms(options.arguments()):
        make_console().print(options.algorithms())
        return 0
    chosen = options.parse(Options, options.arguments(), Options(), "python -m experiments.sweep", __doc__ or "")
    settings.require_positive(chosen)
    if chosen.publish and (chosen.search or max(options.parse_seeds(chosen.seeds or "1")) >= REPORTED):
        raise UserError(f"--publish takes reported seeds, 0 to {REPORTED - 1}, and no search: both are for tuning")
    publishing.check(chosen.publish, chosen.preset, ())  # its seeds are looked at above
    if chosen.space and not chosen.search:
        raise UserError("--space is what a search varies; add --search=optuna, or give values in --grid")
    if not chosen.search and (line := in_vain(chosen, OF_SEARCHES, "--", "a grid")):
        raise UserError(f"{line}; leave it out, or add --search=optuna")
    chosen = replace(chosen, seeds=chosen.seeds or ("1000:1004" if chosen.search else "1"))
    if chosen.executor == "local" and chosen.workers > MOST_WORKERS:
        raise UserError(f"--workers={chosen.workers} is more than this machine can serve; give at most {MOST_WORKERS}")
    executors.check(chosen.executor, chosen.address, plans.place(chosen))
    # Planning asks which devices there are; their memory is for the workers, which share it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    console = make_console()
    files.check_folder(chosen.out)  # a dry run says what the run would
    rundir.check_rows(chosen.out / chosen.experiment / "summary.csv")
    if chosen.search:
        planned = searches.plan(chosen)
        return (searches.show if chosen.dry_run else searches.run)(planned, chosen, console)
    runs = plans.plan(chosen)
    return show_plan(runs, chosen, console) if chosen.dry_run else sweep(runs, chosen, console)


if __name__ == "__main__":
    main()
