"""Where a row's time goes, operation by operation: the profiler's clock beside the compiled program's shapes."""

from __future__ import annotations

import gzip
import json
import math
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments import timing
from experiments.measure import Loop
from experiments.workloads import Row

COLUMNS = (
    "id",
    "row",
    "operation",
    "kind",
    "calls",
    "ms",
    "share",
    "gflops",
    "of_peak",
    "gbytes",
    "output",
    "source",
)
SHOWN = 12  # operations of a row, the longest; the others as one
NESTED = ("while", "call", "conditional")  # their time is that of the operations inside
ITEM_BYTES = {
    "f64": 8,
    "s64": 8,
    "u64": 8,
    "f32": 4,
    "s32": 4,
    "u32": 4,
    "bf16": 2,
    "f16": 2,
    "s8": 1,
    "u8": 1,
    "pred": 1,
}
ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
COMPUTATION = re.compile(r"^(?:ENTRY )?%([\w.\-]+) \(.*\{$")
OPERAND = re.compile(r"%([\w.\-]+)")


class Operation(NamedTuple):
    """An instruction of a compiled program."""

    kind: str  # of HLO, `fusion` if it is one
    output: str  # shape
    flops: float  # of its matrix products, inside a fusion too
    bytes: float  # of its operands and its output
    source: str  # the JAX operation that it comes from


class _Line(NamedTuple):
    output: str
    kind: str
    rest: str


# --- The program ---
def operations(program: str) -> dict[str, Operation]:
    """The instructions of a program, by name. `program` is HLO's text."""
    bodies = _bodies(program)
    outputs = {name: line.output for body in bodies.values() for name, line in body.items()}
    products = {name: sum(_flops(line, outputs) for line in body.values()) for name, body in bodies.items()}

    def operation(line: _Line) -> Operation:
        return Operation(
            kind=line.kind,
            output="+".join(f"{kind}[{dims}]" for kind, dims in ARRAY.findall(line.output)),
            flops=_flops(line, outputs) + products.get(_called(line), 0.0),
            bytes=_bytes(line.output) + sum(_bytes(outputs.get(operand, "")) for operand in _operands(line)),
            source=_source(line.rest),
        )

    return {name: operation(line) for body in bodies.values() for name, line in body.items()}


def _bodies(program: str) -> dict[str, dict[str, _Line]]:
    """Instructions by computation."""
    bodies: dict[str, dict[str, _Line]] = {}
    current: dict[str, _Line] = {}
    for text in program.splitlines():
        if head := COMPUTATION.match(text):
            current = bodies.setdefault(head.group(1), {})
        elif found := INSTRUCTION.match(text):
            name, output, kind, rest = found.groups()
            current[name] = _Line(output, kind, rest)
    return bodies


def _called(line: _Line) -> str:
    found = re.search(r"calls=%([\w.\-]+)", line.rest)
    return found.group(1) if found and line.kind == "fusion" else ""


def _operands(line: _Line) -> list[str]:
    return OPERAND.findall(line.rest.split(")", 1)[0])


def _bytes(shape: str) -> float:
    return float(sum(ITEM_BYTES.get(kind, 4) * _size(dims) for kind, dims in ARRAY.findall(shape)))


def _size(dims: str) -> int:
    return math.prod(int(dim) for dim in dims.split(",") if dim)


def _flops(line: _Line, outputs: Mapping[str, str]) -> float:
    """2 x outputs x contracted size, where the instruction is a matrix product."""
    if line.kind != "dot":
        return 0.0
    left = ARRAY.search(outputs[_operands(line)[0]])
    output = ARRAY.search(line.output)
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line.rest)
    assert left and output and contracted
    sizes = [int(dim) for dim in left.group(2).split(",") if dim]
    return 2.0 * _size(output.group(2)) * math.prod(sizes[int(axis)] for axis in contracted.group(1).split(",") if axis)


def _source(rest: str) -> str:
    found = re.search(r'op_name="([^"]*)"', rest)
    parts = found.group(1).split("/") if found else []
    return "/".join(part for part in parts[-3:] if part not in ("while", "body", "closed_call"))


# --- The clock ---
def profile(row: Row, precision: str, repeats: int = 3) -> list[dict[str, Any]]:
    """The longest operations of a row, per call of its program; the last line is the sum of all others.

    `share` is of the time that operations take, added over the threads that run them beside each other.
    """
    work = row.build(precision)
    if work.host:
        return []
    peak = _peak()
    loop = Loop(work)
    jax.block_until_ready(loop())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(repeats):
                jax.block_until_ready(loop())
        spent = durations(Path(folder))
    known = operations(loop.program.as_text())
    times = {name: spent[name] for name in spent if name in known and known[name].kind not in NESTED}
    total = sum(seconds for seconds, _ in times.values())
    order = sorted(times, key=lambda name: -times[name][0])

    def line(name: str) -> dict[str, Any]:
        what, (seconds, calls) = known[name], times[name]
        gflops = what.flops * calls / seconds / 1e9
        return {
            "row": row.name,
            "operation": name,
            "kind": "matrix product" if what.flops else what.kind,
            "calls": calls // repeats,
            "ms": 1e3 * seconds / repeats,
            "share": seconds / total,
            "gflops": gflops,
            "of_peak": gflops / peak,
            "gbytes": what.bytes * calls / seconds / 1e9,
            "output": what.output,
            "source": what.source,
        }

    lines, others = [line(name) for name in order], {}
    for kind in ("matrix product", "the rest"):
        mine = [row for row in lines[SHOWN:] if (row["kind"] == "matrix product") == (kind == "matrix product")]
        if mine:
            summed = {column: sum(row[column] for row in mine) for column in ("calls", "ms", "share")}
            others[kind] = {"row": row.name, "operation": f"{len(mine)} others", "kind": kind, **summed}
    found = [*lines[:SHOWN], *others.values()]
    return [{"id": f"{row.name}-{precision}-{number}", **line} for number, line in enumerate(found)]


def _peak() -> float:
    """GFLOP/s of a plain matrix product, the best of some."""
    probe = timing.matmul_probe()
    probe.call()
    best = math.inf
    for _ in range(10):
        start = time.perf_counter()
        jax.block_until_ready(probe.call())
        best = min(best, time.perf_counter() - start)
    return probe.amount / best / 1e9


def durations(folder: Path) -> dict[str, tuple[float, int]]:
    """Seconds and calls of every event that the profiler has written below a folder."""
    (found,) = folder.rglob("*.trace.json.gz")
    with gzip.open(found) as file:
        events = [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    spent: dict[str, tuple[float, int]] = {}
    for event in events:
        seconds, calls = spent.get(event["name"], (0.0, 0))
        spent[event["name"]] = seconds + 1e-6 * event["dur"], calls + 1
    return spent
