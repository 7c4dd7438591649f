"""Devices as a mesh with the axes `seed` and `data`: what lies where, and how rows are drawn from shards of them.

Members of a population lie along `seed`; rows of data sets and ring buffers, and the rows of a batch, along `data`, so
that each device computes the gradient of its share and the sum is taken once per update. Sampling is global by default:
the rows of a single device, whatever the mesh, for one all-reduce of the batch. Local sampling moves no rows at all:
every shard draws an equal share of a batch from its own rows. That is another stream of random numbers, a batch is
stratified by shard, and where shards differ by a row or two in length, so do the chances of their rows.

Algorithms know nothing of this: `buffer` asks here, and `train.compose` says which mesh is in use while it traces.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrl_suite.errors import UserError
from jaxrl_suite.types import Array, Key, Tree

SEED, DATA = "seed", "data"
F = TypeVar("F", bound=Callable[..., Any])


class Devices(NamedTuple):
    """Where a run computes, and how it draws rows there."""

    mesh: Mesh
    local: bool = False  # every shard draws from its own rows

    @property
    def shards(self) -> int:
        """Shards of the rows."""
        return self.mesh.shape[DATA]

    @property
    def processes(self) -> int:
        """Processes that take part."""
        return len({device.process_index for device in self.mesh.devices.flat})

    def place(self, *axes: str | None) -> NamedSharding:
        """The sharding whose leading axes lie along `axes`; nothing means whole on each device."""
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def kinds(self) -> list[str]:
        """What the devices are, and the mesh where there are several: what a fitted model depends on."""
        kinds = [device.device_kind for device in self.mesh.devices.flat]
        return kinds if len(kinds) == 1 else [*kinds, self.layout()]

    def layout(self) -> str:
        """The device layout in words: a part of what a run's numbers depend on."""
        platform = self.mesh.devices.flat[0].platform
        if self.mesh.size == 1:
            return f"1 {platform}"
        over = f" over {self.processes} processes" if self.processes > 1 else ""
        return f"{self.mesh.size} {platform}{over}, seed:{self.mesh.shape[SEED]},data:{self.shards}"


# What `jit` knows its programs by, too: a function traced for one mesh is not taken for another.
_IN_USE: Any = jax.make_user_context(None)


def make(seed: int = 1, data: int = 1, local: bool = False) -> Devices:
    """The first `seed * data` devices as a mesh.

    Raises:
        UserError: there are not so many, or not all processes take part.
    """
    there, wanted = jax.devices(), seed * data
    if wanted > len(there):
        raise UserError(
            f"--mesh={SEED}:{seed},{DATA}:{data} asks for {wanted} devices, there are {len(there)} "
            f"({there[0].platform}); ask for fewer"
        )
    if jax.process_count() > 1 and wanted != len(there):
        raise UserError(
            f"--mesh={SEED}:{seed},{DATA}:{data} has {wanted} places; the {jax.process_count()} processes have "
            f"{len(there)} devices, which must all be used"
        )
    grid = np.array(there[:wanted]).reshape(seed, data)
    return Devices(Mesh(grid, (SEED, DATA), axis_types=(AxisType.Auto, AxisType.Auto)), local and data > 1)


def parse(text: str, seeds: int, local: bool = False) -> Devices:
    """`seed:2,data:4`, each axis 1 where it is left out; empty: all devices, along `seed` as far as the seeds divide.

    Raises:
        UserError: the text says something else, the devices are not there, or the seeds do not divide.
    """
    if not text:
        along = math.gcd(seeds, jax.device_count())
        return make(along, jax.device_count() // along, local)
    sizes: dict[str, int] = {}
    for part in text.split(","):
        match = re.fullmatch(rf"({SEED}|{DATA}):([1-9]\d*)", part.strip())
        if match is None or match[1] in sizes:
            raise UserError(f"--mesh={text} is not a mesh; expected {SEED}:N,{DATA}:M with whole numbers")
        sizes[match[1]] = int(match[2])
    devices = make(sizes.get(SEED, 1), sizes.get(DATA, 1), local)  # first: more seeds would not bring devices that lack
    if seeds % sizes.get(SEED, 1):
        raise UserError(f"--mesh={text}: {SEED}:{sizes[SEED]} does not divide the {seeds} seeds; choose a divisor")
    return devices


def on(devices: Devices | None, function: F) -> F:
    """The function, traced for these devices."""
    if devices is None:
        return function

    @functools.wraps(function)
    def placed(*args: Any) -> Any:
        with _IN_USE(devices):
            return function(*args)

    return placed  # type: ignore[return-value]


# --- Data sets ---
@struct.dataclass
class Padded:
    """Rows with others after them that only fill the last shards up. No program ever sees those."""

    data: Tree  # leaves [a multiple of the shards, ...]
    rows: int = struct.field(pytree_node=False)


def unpadded(data: Any) -> Any:
    """The true rows, still sharded. Call it within jit, where shards may be of unequal length."""
    if not isinstance(data, Padded):
        return data
    return spread(jax.tree.map(lambda leaf: leaf[: data.rows], data.data))


def check_rows(rows: int, devices: Devices) -> int:
    """Rows per shard; the last shard may have fewer.

    Raises:
        UserError: a shard would be empty.
    """
    share = -(-rows // devices.shards)
    if share * (devices.shards - 1) >= rows:
        raise UserError(
            f"{rows} rows leave a shard of {DATA}:{devices.shards} empty; choose --mesh with fewer shards of the data"
        )
    return share


def window(rows: int, devices: Devices) -> tuple[int, int]:
    """The rows that lie on this process's devices: the first one, and the one after the last."""
    share = check_rows(rows, devices)
    here = [at for at, device in np.ndenumerate(devices.mesh.devices) if device.process_index == jax.process_index()]
    shards = [at[1] for at in here]
    return share * min(shards), min(share * (max(shards) + 1), rows)


def shard_rows(dataset: Tree, devices: Devices, rows: int | None = None) -> Any:
    """Rows on the devices, equal shares on each; `Padded` where they do not divide.

    Args:
        dataset: leaves `[rows, ...]` of numpy; of several processes each gives its `window`.
        devices: where the rows go.
        rows: how many there are in all; as many as are given where that is left out.

    Raises:
        UserError: there are more shards than rows.
    """
    rows = len(jax.tree.leaves(dataset)[0]) if rows is None else rows
    total = check_rows(rows, devices) * devices.shards
    first, _ = window(rows, devices)

    def place(leaf: np.ndarray) -> Array:
        def part(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(total)
            found = np.asarray(leaf[start - first : stop - first])
            missing = np.zeros((stop - start - len(found), *leaf.shape[1:]), leaf.dtype)
            return np.concatenate([found, missing]) if len(missing) else found

        return jax.make_array_from_callback((total, *leaf.shape[1:]), devices.place(DATA), part)

    placed = jax.tree.map(place, dataset)
    return placed if total == rows else Padded(placed, rows)


# --- Within a traced program ---
def alone() -> bool:
    """Whether the program is traced for a single device."""
    devices = _IN_USE.value
    return devices is None or devices.mesh.size == 1


def shards() -> int:
    """Shards that rows are drawn from locally; 1 where sampling is global."""
    devices = _IN_USE.value
    return devices.shards if devices is not None and devices.local else 1


def spread(tree: Tree, axis: int = 0) -> Tree:
    """The same numbers, with `axis` of every leaf along `data`: what is computed from them is shared out likewise."""
    devices = _sharded()
    return tree if devices is None else jax.lax.with_sharding_constraint(tree, devices.place(*[None] * axis, DATA))


def take(data: Tree, index: Array) -> Tree:
    """The rows at `index` `[...]` of every leaf, whole on each device of `data`.

    Every shard reads the rows that it has, zeros for the others, and the sum over shards is exact: one all-reduce. Left
    to itself the compiler may gather the data instead. (No reduce-scatter: on several CPU hosts it fails when a process
    is 30 seconds late, jax-ml/jax#40831.)
    """
    devices = _sharded()
    if devices is None:
        return jax.tree.map(lambda leaf: leaf[index], data)

    def read(block: Tree, index: Array) -> Tree:
        local, mine = _own(block, index)
        return _total(jax.tree.map(lambda leaf: _masked(leaf[local], mine), block))

    return _mapped(devices, read, (ROWS, ALL), ALL)(_filled(data, devices.shards), index)


def put(data: Tree, slot: Array, rows: Tree) -> Tree:
    """`data` with `rows` (leaves `[n, ...]`) at `slot` `[n]`; a slot past the end drops its row."""
    devices = _sharded()

    def write(block: Tree, slot: Array, rows: Tree) -> Tree:
        return jax.tree.map(lambda old, new: old.at[slot].set(new, mode="drop"), block, rows)

    def write_own(block: Tree, slot: Array, rows: Tree) -> Tree:
        local, mine = _own(block, slot)
        return write(block, jnp.where(mine, local, len(jax.tree.leaves(block)[0])), rows)

    if devices is None:
        return write(data, slot, rows)
    return _mapped(devices, write_own, (ROWS, ALL, ALL), ROWS)(data, slot, rows)


def draw_local(data: Tree, held: Array, key: Key, n: int) -> Tree:
    """`n` rows (leaves `[n, ...]`), as many from each shard, of which the first `held` `[shards]` rows may be drawn.

    Raises:
        UserError: the shards do not divide `n`.
    """
    devices: Devices = _IN_USE.value
    count = devices.shards
    _check_shares(n, count)

    def draw(block: Tree, held: Array, bits: Array) -> Tree:
        own = jax.random.fold_in(jax.random.wrap_key_data(bits), jax.lax.axis_index(DATA))
        index = jax.random.randint(own, (n // count,), 0, jnp.maximum(held[0], 1))
        return jax.tree.map(lambda leaf: leaf[index], block)

    return _mapped(devices, draw, (ROWS, ROWS, ALL), ROWS)(_filled(data, count), held, jax.random.key_data(key))


def _check_shares(rows: int, shards: int) -> None:
    if rows % shards:
        raise UserError(
            f"--sampling=local: {rows} rows cannot be drawn in equal shares from {shards} shards; "
            f"make the parts of a batch multiples of {shards}, or use --sampling=global"
        )


def share(parts: Sequence[Tree]) -> Tree:
    """Parts as one batch, rows along `data`; what was drawn locally is joined shard by shard, and none of it moves.

    Raises:
        UserError: with local sampling, the shards do not divide the rows of a part.
    """
    devices = _sharded()

    def joined(*parts: Tree) -> Tree:
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts) if len(parts) > 1 else parts[0]

    if devices is None or not devices.local:
        return spread(joined(*parts))
    for part in parts:
        _check_shares(len(jax.tree.leaves(part)[0]), devices.shards)
    return _mapped(devices, joined, (ROWS,) * len(parts), ROWS)(*parts)


def parts(batch: Tree, first: int) -> tuple[Tree, Tree]:
    """The first of two parts that `share` has joined, `first` rows, and the second. Of local draws no row moves."""
    devices = _sharded()

    def split(batch: Tree, at: int = first) -> tuple[Tree, Tree]:
        return jax.tree.map(lambda leaf: leaf[:at], batch), jax.tree.map(lambda leaf: leaf[at:], batch)

    if devices is None or not devices.local:
        return split(batch)
    within = functools.partial(split, at=first // devices.shards)
    return _mapped(devices, within, (ROWS,), (ROWS, ROWS))(batch)


ROWS, ALL = PartitionSpec(DATA), PartitionSpec()


def _sharded() -> Devices | None:
    """The devices in use where rows lie on several of them."""
    devices: Devices | None = _IN_USE.value
    return devices if devices is not None and devices.shards > 1 else None


def _mapped(devices: Devices, function: Callable, given: tuple, out: Any) -> Callable:
    return jax.shard_map(function, mesh=devices.mesh, in_specs=given, out_specs=out, check_vma=False)


def _filled(data: Tree, shards: int) -> Tree:
    """The rows with zeros after them, up to a multiple of the shards: back to how `shard_rows` has laid them."""
    short = -len(jax.tree.leaves(data)[0]) % shards
    return jax.tree.map(lambda leaf: jnp.pad(leaf, [(0, short)] + [(0, 0)] * (leaf.ndim - 1)), data) if short else data


def _own(block: Tree, index: Array) -> tuple[Array, Array]:
    """Within a shard: where in it the rows `index` are, and whether they are there at all."""
    share = len(jax.tree.leaves(block)[0])
    local = index - jax.lax.axis_index(DATA) * share
    mine = (local >= 0) & (local < share)
    return jnp.where(mine, local, 0), mine


def _total(tree: Tree) -> Tree:
    """The sum over shards, which is exact where all but one have zeros."""
    addends = jax.tree.map(lambda leaf: leaf.astype(jnp.uint8) if leaf.dtype == bool else leaf, tree)
    return jax.tree.map(lambda total, leaf: total.astype(leaf.dtype), jax.lax.psum(addends, DATA), tree)


def _masked(rows: Array, mask: Array) -> Array:
    """The rows `[..., n, ...]` where `mask` `[..., n]` holds, else zeros."""
    return jnp.where(mask.reshape(mask.shape + (1,) * (rows.ndim - mask.ndim)), rows, jnp.zeros_like(rows))
