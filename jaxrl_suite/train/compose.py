"""Combinators over phases: a population of seeds, a chunk of ticks. A population is a Phase again.

Where there is a mesh, this is also where states and data get their places on it; phases themselves know of none.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_suite import mesh
from jaxrl_suite.buffer import Buffer
from jaxrl_suite.errors import UserError
from jaxrl_suite.mesh import DATA, SEED, Devices
from jaxrl_suite.models import fit
from jaxrl_suite.types import Array, Metrics, Phase, Tree

# For programs that run once: a third of the time to compile them. Random numbers are the same to the bit; sums, such as
# the means that a model's fit begins with, are not.
ONCE = {"xla_backend_optimization_level": 1}
CACHED = 4 * 2**20  # bytes of state that members have which a CPU is to update side by side: about what its caches hold


class Population(NamedTuple):
    """States of all members, and which of them have diverged."""

    members: Tree  # leaves [population, ...]
    diverged: Array  # [population] bool


def _inexact(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def _strong(leaf: Array) -> Array:
    """The leaf with a strong type, as checkpoints hold it: a resumed run then compiles what an undisturbed one does."""
    return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.astype(leaf.dtype)


def _finite(tree: Tree) -> Array:
    """Whether every floating-point number of each member is finite, `[population]`."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if _inexact(leaf)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x), axis=tuple(range(1, x.ndim))) for x in leaves]), axis=0)


def _keep(frozen: Array, old: Tree, new: Tree) -> Tree:
    """The old leaves of frozen members, the new leaves of the others."""

    def choose(a: Array, b: Array) -> Array:
        return jax.vmap(jnp.where)(frozen, a, b)

    return jax.tree.map(choose, old, new)


def _each(function: Callable, axes: tuple, members: int) -> Callable:
    """A function of one member as one of all. A single member is not mapped: its leading axis of one would keep matrix
    products off XLA's fast paths."""
    if members > 1:
        return jax.vmap(function, in_axes=axes, spmd_axis_name=SEED)

    def alone(*arguments: Any) -> Any:
        own = [a if axis is None else jax.tree.map(lambda x: x[0], a) for a, axis in zip(arguments, axes, strict=True)]
        return jax.tree.map(lambda x: jnp.asarray(x)[None], function(*own))

    return alone


def together(state: Tree, members: int) -> int:
    """How many members to update side by side, a divisor of all of them.

    An accelerator, and a mesh, want all. A core has no use for that, and is faster when within each tick it takes as
    many as its caches hold, and then the next ones. Replay buffers count, of which an update touches little.
    """
    if jax.default_backend() != "cpu" or not mesh.alone():
        return members
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    fit = max(1, CACHED * members // max(1, size))
    return max(block for block in range(1, min(fit, members) + 1) if members % block == 0)


def in_turn(update: Callable, state: Tree, data: Any, members: int) -> Any:
    """`update`, or a part of it, of all members, in blocks of as many as go well `together`."""
    block = together(state, members)
    if block == members:
        return _each(update, (0, None), members)(state, data)
    blocks = jax.tree.map(lambda leaf: leaf.reshape(members // block, block, *leaf.shape[1:]), state)
    found = jax.lax.map(lambda mine: _each(update, (0, None), block)(mine, data), blocks)
    return jax.tree.map(lambda leaf: leaf.reshape(members, *leaf.shape[2:]), found)


def population(phase: Phase) -> Phase:
    """The phase for members that differ in key, hyper-parameters and previous result, and share offline data.

    A member that meets a number that is not finite goes back to its last healthy state, stays there and is marked,
    while the others go on. On a host environment, whose ticks are too short to copy a replay buffer in each, it is
    only marked.
    """
    on_host = phase.request is not None

    def init(key: Tree, hypers: Tree, data: Any, previous: Tree) -> Population:
        init = _each(phase.init, (0, 0, 0 if on_host else None, 0), key.shape[0])
        members = init(key, hypers, mesh.unpadded(data), previous)
        return Population(jax.tree.map(_strong, members), jnp.zeros(key.shape[0], bool))

    def update(state: Population, data: Any) -> tuple[Population, Metrics]:
        number, rows = state.diverged.shape[0], mesh.unpadded(data)
        if on_host:
            members, metrics = _each(phase.update, (0, 0), number)(state.members, rows)
            return Population(members, state.diverged | ~_finite(metrics)), metrics
        members, metrics = in_turn(phase.update, state.members, rows, number)
        diverged = state.diverged | ~_finite((members, metrics))
        return Population(_keep(diverged, state.members, members), diverged), metrics

    def request(state: Population) -> tuple[Population, Array]:
        assert phase.request is not None
        members, action = jax.vmap(phase.request)(state.members)
        return state._replace(members=members), action

    def before(state: Population) -> tuple[Population, Metrics]:
        assert phase.before is not None
        members, metrics = jax.vmap(phase.before)(state.members)
        return Population(members, state.diverged | ~_finite(metrics)), metrics

    def actions(state: Population) -> tuple[Array, Array]:
        assert phase.actions is not None
        log, count = jax.vmap(phase.actions)(state.members)
        return log, count[0]

    return phase._replace(
        init=init,
        update=update,
        result=lambda state: jax.vmap(phase.result)(state.members),
        request=request if on_host else None,
        actions=actions if on_host else None,
        before=before if phase.before else None,
    )


def places(state: Tree, devices: Devices | None) -> Tree:
    """The sharding of every leaf of a population's state (of arrays or of their shapes); None without devices.

    Members lie along `seed`; rows of ring buffers, and a fit's bootstraps where they divide, along `data` too.

    Raises:
        UserError: the rows of a ring buffer do not divide.
    """
    if devices is None:
        return None

    def lay(node: Any) -> Any:
        along = jax.tree.map(lambda _: devices.place(SEED), node)
        if isinstance(node, Buffer):
            return along._replace(data=jax.tree.map(lambda _: _rows_place(node, devices), node.data))
        if isinstance(node, fit.State) and node.rows.shape[-1] % devices.shards == 0:
            return along._replace(rows=devices.place(SEED, None, DATA))
        return along

    members = jax.tree.map(lay, state.members, is_leaf=lambda node: isinstance(node, Buffer | fit.State))
    return state._replace(members=members, diverged=devices.place())


def _rows_place(buffer: Buffer, devices: Devices) -> Any:
    capacity = jax.tree.leaves(buffer.data)[0].shape[1]
    if capacity % devices.shards:
        raise UserError(
            f"the {capacity} rows of imagined data do not divide over {DATA}:{devices.shards}; choose --mesh with "
            "a divisor, or change --rollouts, --horizon or --retain"
        )
    return devices.place(SEED, DATA)


def begin(phase: Phase, arguments: tuple, devices: Devices | None = None) -> Tree:
    """A population phase's first state, jitted: no two leaves alias, and so all can be donated."""
    init = mesh.on(devices, phase.init)
    out = places(jax.eval_shape(init, *arguments), devices)
    return jax.jit(init, out_shardings=out, compiler_options=None if phase.cache else ONCE)(*arguments)


class Chunk(NamedTuple):
    """A compiled stretch of ticks."""

    run: Callable[[Tree, Any], tuple[Tree, Metrics]]  # donates the state; metrics are means over the ticks
    traces: list[int]  # one entry per trace of the program: a second one is a recompilation


def chunk(phase: Phase, devices: Devices | None = None, state: Tree = None) -> Chunk:
    """`phase.chunk` ticks as one XLA program with a donated state.

    With `devices`, the state (like `state`, an example or its shapes) stays where it lies, and metrics are whole.
    """
    traces: list[int] = []

    def run(state: Tree, data: Any) -> tuple[Tree, Metrics]:
        traces.append(1)
        state, metrics = jax.lax.scan(lambda s, _: phase.update(s, data), state, None, length=phase.chunk)
        return state, jax.tree.map(lambda m: jnp.mean(m, axis=0), metrics)

    out = (places(state, devices), devices.place()) if devices is not None else None
    return Chunk(jax.jit(mesh.on(devices, run), donate_argnums=0, out_shardings=out), traces)


def ahead(function: Any, *arguments: Any) -> Any:
    """A jitted function compiled for these arguments.

    What the compiler took goes back to the system before anything runs: glibc would keep it, some 200 MB at the peak.
    """
    program = function.lower(*arguments).compile()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    return program


def compiled(program: Chunk, state: Tree, data: Any) -> Chunk:
    """The program compiled ahead for these arguments."""
    return program._replace(run=ahead(program.run, state, data))
