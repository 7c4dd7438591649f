"""Measuring one row of `experiments.throughput`, in the process that calls."""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import jax

from experiments import timing
from experiments.workloads import Row, Work
from jaxrl_suite.train import compose
from jaxrl_suite.types import Tree

COLUMNS = (
    "unit",
    "rate",
    "rate_low",
    "rate_high",
    "gflop",
    "fraction",
    "gflop_done",
    "utilisation",
    "peak_gflops",
    "intensity",
    "peak_gb",
    "compile_seconds",
    "windows",
    "seconds",
)


class Settings(NamedTuple):
    """How rows are measured."""

    precision: str
    windows: int
    seconds: float  # of a window


class Loop:
    """Work to be called again and again: it keeps the state that a donating program hands on."""

    def __init__(self, work: Work) -> None:
        self.state, self.data = work.state, work.data
        self.compile_seconds, self.bytes_per_flop = math.nan, math.nan
        self.program: Any = work.step
        if work.host:
            return
        start = time.perf_counter()
        program = jax.jit(work.step, donate_argnums=0, out_shardings=work.places)
        self.program = compose.ahead(program, self.state, self.data)
        self.compile_seconds = time.perf_counter() - start
        # XLA counts the body of a loop once, which leaves the ratio as it is.
        cost = self.program.cost_analysis() or {}
        self.bytes_per_flop = cost.get("bytes accessed", math.nan) / (cost.get("flops") or math.nan)

    def __call__(self) -> Tree:
        """One step; the output."""
        self.state, output = self.program(self.state, self.data)
        return output


def measure(row: Row, settings: Settings) -> dict[str, Any]:
    """The row's numbers. To be called in a fresh process: peak memory is the process's own, devices are set here."""
    if row.devices > 1:
        jax.config.update("jax_num_cpu_devices", row.devices)
    probe = timing.matmul_probe()
    work = row.build(settings.precision)
    loop = Loop(work)
    windows, seconds = (1, 0.0) if work.once else (settings.windows, settings.seconds)
    timed = timing.interleaved(loop, probe.call, windows, seconds)
    # What the work's operations would take at the peak, over what it took.
    at_peak = work.units * timed.ratio / probe.amount
    done = work.flops.done
    return {
        "unit": work.unit,
        "rate": work.units / timed.seconds,
        "rate_low": work.units / timed.high,
        "rate_high": work.units / timed.low,
        "gflop": work.flops.plain / 1e9,
        "fraction": at_peak * work.flops.plain if done else math.nan,
        "gflop_done": done / 1e9,
        "utilisation": at_peak * done if done else math.nan,
        "peak_gflops": probe.amount / timed.reference / 1e9,
        "intensity": 1.0 / loop.bytes_per_flop if done else math.nan,
        "peak_gb": timing.peak_bytes() / 1e9,
        "compile_seconds": loop.compile_seconds,
        "windows": windows,
        "seconds": seconds,
    }
