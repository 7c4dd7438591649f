"""Rows to draw from, and a ring buffer of them as a PyTree: jit, vmap, shard and checkpoint it like any other state."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_suite import mesh
from jaxrl_suite.types import Array, Key, Tree


class Buffer(NamedTuple):
    """The newest `capacity` rows that were inserted."""

    data: Tree  # leaves [capacity, ...]
    size: Array  # int32, rows that hold data
    head: Array  # int32, where the next row goes


def empty(example: Tree, capacity: int) -> Buffer:
    """A buffer for rows like `example` (leaves without the row axis)."""
    data = jax.tree.map(lambda leaf: jnp.zeros((capacity, *jnp.shape(leaf)), jnp.result_type(leaf)), example)
    return Buffer(data, jnp.int32(0), jnp.int32(0))


def insert(buffer: Buffer, batch: Tree, valid: Array) -> Buffer:
    """Append the rows of `batch` (leaves `[n, ...]`, n <= capacity) where `valid` `[n]`; the oldest rows give way."""
    capacity = jax.tree.leaves(buffer.data)[0].shape[0]
    if valid.shape[0] > capacity:
        raise ValueError(f"insert of {valid.shape[0]} rows into a buffer of {capacity}")
    order = jnp.cumsum(valid) - 1
    # Invalid rows are sent past the end, where a scatter drops them.
    slot = jnp.where(valid, _dealt((buffer.head + order) % capacity, capacity), capacity)
    data = mesh.put(buffer.data, slot, batch)
    count = jnp.sum(valid, dtype=jnp.int32)
    return Buffer(data, jnp.minimum(buffer.size + count, capacity), (buffer.head + count) % capacity)


def grown(buffer: Buffer, capacity: int) -> Buffer:
    """The same rows, oldest first, with room for `capacity`; of one shard.

    Raises:
        ValueError: it would have less room than now.
    """
    now = jax.tree.leaves(buffer.data)[0].shape[0]
    if capacity < now:
        raise ValueError(f"a buffer of {now} rows cannot grow to {capacity}")
    back = jnp.where(buffer.size == now, -buffer.head, 0)  # until it is full, its rows begin at 0

    def more(leaf: Array) -> Array:
        return jnp.pad(jnp.roll(leaf, back, 0), [(0, capacity - now), *[(0, 0)] * (leaf.ndim - 1)])

    return Buffer(jax.tree.map(more, buffer.data), buffer.size, buffer.size % capacity)


def _dealt(slot: Array, capacity: int) -> Array:
    """Where a slot lies. Shards that draw locally are dealt the slots in turn, and so fill up together."""
    shards = mesh.shards()
    return slot if shards == 1 else slot % shards * (capacity // shards) + slot // shards


def take(data: Tree, index: Array) -> Tree:
    """The rows at `index` `[...]` of every leaf."""
    return mesh.take(data, index)


def draw(data: Tree, key: Key, n: int) -> Tree:
    """`n` rows of `data` (leaves `[rows, ...]`) drawn uniformly with replacement (leaves `[n, ...]`)."""
    rows, shards = jax.tree.leaves(data)[0].shape[0], mesh.shards()
    if shards == 1:
        return take(data, jax.random.randint(key, (n,), 0, rows))
    share = -(-rows // shards)
    return mesh.draw_local(data, jnp.clip(rows - share * jnp.arange(shards), 0, share), key, n)


def sample(buffer: Buffer, key: Key, n: int) -> Tree:
    """`n` rows drawn uniformly with replacement (leaves `[n, ...]`). The buffer must not be empty."""
    shards = mesh.shards()
    if shards == 1:
        return take(buffer.data, jax.random.randint(key, (n,), 0, jnp.maximum(buffer.size, 1)))
    return mesh.draw_local(buffer.data, (buffer.size + shards - 1 - jnp.arange(shards)) // shards, key, n)


def share(*parts: Tree) -> Tree:
    """What was drawn, as one batch; the devices of a mesh share its rows, and what is computed from them."""
    return mesh.share(parts)


def parts(batch: Tree, first: int) -> tuple[Tree, Tree]:
    """The two parts that `share` has joined, of which the first has `first` rows."""
    return mesh.parts(batch, first)
