"""Measure speed: every hot path against the machine's own peak, in one run.

Each row is measured in a process of its own, after compiling and a warm-up, as the median of windows. A window of work
stands between two windows of a plain matrix product, whose best rate is the machine's peak; the fraction of the peak is
the median over windows, so that other users of the machine, who slow both, count little. Data are made up, with
HalfCheetah's shapes. Rows of <out>/throughput/summary.csv that were measured with the same code and settings are kept,
so a benchmark that was stopped goes on where it was; --fresh measures them again.

Columns: rate (units of work per second, with the slowest and fastest window); gflop per unit and fraction of the peak
(what a plain implementation needs); gflop_done and utilisation (what ours computes); intensity (operations per byte
that XLA's operations touch, caches ignored); peak_gb (memory of the process, or of the accelerator); compile_seconds.
"""

from __future__ import annotations

import concurrent.futures
import math
import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments import measure, options, profiling, timing, workloads
from experiments.measure import Settings
from experiments.workloads import Row
from jaxrl_suite.errors import UserError, exits_cleanly, unknown
from jaxrl_suite.train import files, identity, rundir, settings
from jaxrl_suite.train.display import make_console

EXPERIMENT = "throughput"
ROOT = Path(__file__).resolve().parent.parent
PRECISIONS = ("float32", "bfloat16")
SOURCES = ("algorithms", "models", "values", "envs", "train", "nets.py", "buffer.py", "distributions.py", "mesh.py")
COLUMNS = (
    "schema_version",
    "run_id",
    "group",
    "name",
    "size",
    "precision",
    "devices",
    *measure.COLUMNS,
    "git_commit",
    "host",
)


@dataclass(frozen=True)
class Options:
    """Options of the benchmark."""

    only: str = ""
    """Rows to measure, as in ravl-10,sac-10; by default the machine, the peers' table and our quick sizes."""
    growth: bool = False
    """Also measure how cost grows with buffer rows, critics and horizon."""
    population: str = ""
    """Also measure populations of these sizes, as in 1,4,16."""
    devices: str = ""
    """Also measure these numbers of devices, as in 1,2,4,8 (on CPU: forced host devices)."""
    precision: str = "float32"
    """Type of the matrix products: float32, or bfloat16 with float32 parameters and sums."""
    windows: int = 7
    """Windows of a row."""
    seconds: float = 2.0
    """Seconds of a window, at least one call."""
    profile: bool = False
    """Instead, say where the time of each row goes, operation by operation (profile.csv): the longest ones with their
    share, their rate, the share of the peak, and the bytes that they touch."""
    fresh: bool = False
    """Measure again what has been measured with this code and these settings."""
    out: Path = Path("runs")
    """Folder for results."""
    publish: bool = False
    """Write to results/ instead of --out."""


# --- What to measure ---
def chosen_rows(chosen: Options) -> list[Row]:
    """The rows that the options name.

    Raises:
        UserError: an unknown row or precision, or a number that makes no sense.
    """
    if chosen.precision not in PRECISIONS:
        raise unknown("precision", chosen.precision, PRECISIONS)
    settings.require_positive(chosen)
    if not chosen.seconds > 0:
        raise UserError(f"--seconds={chosen.seconds} must be above 0")
    more = [
        *workloads.populations(counts("population", chosen.population)),
        *workloads.scaling(counts("devices", chosen.devices)),
        *(workloads.GROWTH if chosen.growth else ()),
    ]
    known = {row.name: row for row in (*workloads.MACHINE, *workloads.FIXED, *workloads.GROWTH, *more)}
    names = [name.strip() for name in chosen.only.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise unknown("row", name, known)
    named = [known[name] for name in names] or ([] if more else [*workloads.MACHINE, *workloads.FIXED])
    return list(dict.fromkeys([*named, *more]))


def counts(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers between commas.

    Raises:
        UserError: naming the option, where the text is something else.
    """
    parts = [part.strip() for part in text.split(",")] if text else []
    if any(not part.isdecimal() or int(part) < 1 for part in parts):
        raise UserError(f"--{option}={text} is no list of positive whole numbers; give some between commas, as in 1,4")
    return tuple(map(int, parts))


def row_id(row: Row, settings: Settings) -> str:
    """Owns a row of the summary: the work, its code, the settings and the machine."""
    code = identity.code_version(*SOURCES), identity.code_version(measure, timing, workloads)
    return identity.digest("throughput", row.name, settings._asdict(), code, identity.provenance()["host"])


# --- Measuring ---
def alone(function: Callable[..., Any], row: Row, *arguments: Any) -> Any:
    """What the function says of the row, called in a process of its own.

    Raises:
        UserError: the process died.
    """
    context = multiprocessing.get_context("spawn")  # a fork of a process that runs XLA may hang
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(function, row, *arguments).result()
        except BrokenProcessPool:
            raise UserError(
                f"the process that measured {row.name} died, as when memory runs out; the rows before it are kept: "
                "leave it out with --only, or give it more memory"
            ) from None


def line(name: str, values: dict[str, Any]) -> list[str]:
    """A row for the terminal."""

    def share(column: str) -> str:
        return f"{values[column]:.2f}" if math.isfinite(values[column]) else ""

    rate, unit = values["rate"], values["unit"]
    low, high = values["rate_low"], values["rate_high"]
    return [
        name,
        f"{rate:,.1f} [{low:,.1f}, {high:,.1f}] {unit}/s",
        f"{values['gflop']:.4g}" if values["gflop"] else "",
        share("fraction"),
        share("utilisation"),
        f"{values['peak_gb']:.2f}",
        f"{values['compile_seconds']:.1f}",
    ]


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """The table of all rows."""
    table = Table("row", "rate [slowest, fastest window]", "GFLOP", "of peak", "utilisation", "peak GB", "compile s")
    for values in rows:
        table.add_row(*line(values["name"], values))
    console.print(table)


def _facts() -> dict[str, Any]:
    return {name: identity.provenance()[name] for name in ("git_commit", "host")}


def show_profiles(rows: Sequence[Row], precision: str, path: Path, console: Console) -> None:
    """Profile rows one after another; a table of each."""
    facts = _facts()
    for number, row in enumerate(rows, 1):
        console.print(f"{number}/{len(rows)} {row.name} ...")
        lines = alone(profiling.profile, row, precision)
        if not lines:
            console.print("runs on the host: nothing was compiled")
            continue
        rundir.drop_rows(path, {row.name}, key="row")
        rundir.upsert_rows(path, [{**line, **facts} for line in lines], profiling.COLUMNS, key="id")
        table = Table("operation", "kind", "calls", "ms", "share", "of peak", "GB/s", "output", "of")
        for line in lines:
            shares = [f"{line[name]:.2f}" if name in line else "" for name in ("share", "of_peak")]
            rate = f"{line['gbytes']:.1f}" if "gbytes" in line else ""
            words = [line["operation"], line["kind"], str(line["calls"]), f"{line['ms']:.1f}", *shares, rate]
            table.add_row(*words, line.get("output", ""), line.get("source", ""))
        console.print(table)


@exits_cleanly
def main() -> int:
    """Measure what is missing, show the table, draw the figure."""
    chosen = options.parse(Options, options.arguments(), Options(), "python -m experiments.throughput", __doc__ or "")
    rows, settings = chosen_rows(chosen), Settings(chosen.precision, chosen.windows, chosen.seconds)
    folder = (ROOT / "results" if chosen.publish else chosen.out) / EXPERIMENT
    summary, console = folder / "summary.csv", make_console()
    with files.guarded(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if chosen.profile:
        show_profiles(rows, chosen.precision, folder / "profile.csv", console)
        return 0
    ids = {row: row_id(row, settings) for row in rows}
    done = {values["run_id"] for values in rundir.read_rows(summary)} if summary.exists() else set()
    facts = _facts()
    for number, row in enumerate(rows, 1):
        if ids[row] in done and not chosen.fresh:
            console.print(f"{number}/{len(rows)} {row.name}: measured before")
            continue
        console.print(f"{number}/{len(rows)} {row.name} ...", end=" ")
        values = alone(measure.measure, row, settings)
        console.print(*line("", values)[1:2], f"of peak {values['fraction']:.2f}" if values["gflop"] else "")
        labels = {"run_id": ids[row], "schema_version": rundir.SCHEMA_VERSION, "precision": chosen.precision}
        labels |= {name: getattr(row, name) for name in ("group", "name", "size", "devices")}
        rundir.upsert_rows(summary, [{**labels, **values, **facts}], COLUMNS)
    show([values for values in rundir.read_rows(summary) if values["run_id"] in ids.values()], console)
    # A process of its own: figures import experiments, so experiments cannot import figures.
    drawn = [sys.executable, "-m", "paper_figs", f"--only={EXPERIMENT}", f"--results={folder.parent}"]
    return subprocess.run(drawn, check=False).returncode


if __name__ == "__main__":
    main()
