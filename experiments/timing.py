"""Timing: windows of work, each between two windows of a plain matrix product, so that both meet the same machine."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

SQUARES = {"cpu": (512, 1024, 2048), "gpu": (4096, 8192), "tpu": (4096, 8192)}  # sides of the matrices that are tried
COPY_BYTES = {"cpu": 256 * 2**20}  # larger than any cache; elsewhere 1 GiB
PROBE_SECONDS = 0.1

Call = Callable[[], Any]


class Timed(NamedTuple):
    """What a piece of work took."""

    seconds: float  # per call, median over windows
    low: float  # the shortest window's
    high: float  # the longest window's
    ratio: float  # median over windows of (seconds of a reference call / seconds of a call), both of one moment
    reference: float  # seconds of a reference call, median


def window(call: Call, calls: int) -> float:
    """Seconds per call, over `calls` of them in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        result = call()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / calls


def calls_for(call: Call, seconds: float) -> int:
    """How many calls fill a window of `seconds`. Warms up first."""
    jax.block_until_ready(call())
    return max(1, round(seconds / window(call, 1)))


def interleaved(call: Call, reference: Call, windows: int, seconds: float) -> Timed:
    """`windows` windows of `call` between windows of `reference`: a machine that others use too slows both.

    With `seconds` 0 a window is one call, and there is no warm-up.
    """
    calls = calls_for(call, seconds) if seconds else 1
    others = calls_for(reference, PROBE_SECONDS)
    before = window(reference, others)
    times, references, ratios = [], [], []
    for _ in range(windows):
        times.append(window(call, calls))
        after = window(reference, others)
        references.append((before + after) / 2)
        ratios.append(references[-1] / times[-1])
        before = after
    median = statistics.median
    return Timed(median(times), min(times), max(times), median(ratios), median(references))


class Probe(NamedTuple):
    """A call that runs at one of the machine's limits."""

    call: Call
    amount: float  # operations, or bytes, of a call


def matmul_probe(precision: str = "float32") -> Probe:
    """The square matrix product with the highest rate of those tried; bfloat16 ones accumulate in float32."""
    candidates = [_square(side, precision) for side in SQUARES.get(jax.default_backend(), SQUARES["gpu"])]
    rates = [probe.amount / _median_seconds(probe.call) for probe in candidates]
    return candidates[rates.index(max(rates))]


def _square(side: int, precision: str) -> Probe:
    a = jax.random.normal(jax.random.key(0), (side, side)).astype(precision)
    product = jax.jit(lambda x: jnp.matmul(x, x, preferred_element_type=jnp.float32))
    return Probe(lambda: product(a), 2.0 * side**3)


def bandwidth_probe() -> Probe:
    """Adding to a large array in place: bytes read and written, in a loop so that no memory is claimed meanwhile."""
    size, times = COPY_BYTES.get(jax.default_backend(), 2**30), 8
    x = jnp.zeros(size // 4, jnp.float32)
    add = jax.jit(lambda x: jax.lax.fori_loop(0, times, lambda _, x: x + 1.0, x)[0])
    return Probe(lambda: add(x), 2.0 * size * times)


def _median_seconds(call: Call, windows: int = 3) -> float:
    calls = calls_for(call, PROBE_SECONDS)
    return statistics.median(window(call, calls) for _ in range(windows))


def peak_bytes() -> int:
    """Peak memory: of the accelerator, where there is one, else of this process."""
    device = jax.local_devices()[0].memory_stats() or {}
    if jax.default_backend() != "cpu" and "peak_bytes_in_use" in device:
        return int(device["peak_bytes_in_use"])
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB but on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
