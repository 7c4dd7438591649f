"""The ring buffer as hypothesis properties, against a Python list."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_suite import buffer

CAPACITY, BATCH = 7, 5
insert = jax.jit(buffer.insert)
sample = functools.partial(jax.jit, static_argnums=2)(buffer.sample)

batches = st.lists(st.lists(st.booleans(), min_size=BATCH, max_size=BATCH), min_size=1, max_size=12)


def fill(masks):
    """The ring buffer and the list of rows that it should hold, oldest first, after inserting numbered rows."""
    ring = buffer.empty({"x": jnp.float32(0), "y": jnp.zeros(2, jnp.int32)}, CAPACITY)
    rows = []
    for index, mask in enumerate(masks):
        numbers = np.arange(BATCH) + 1 + index * BATCH
        batch = {"x": jnp.asarray(numbers, jnp.float32), "y": jnp.stack([numbers, -numbers], axis=1).astype(jnp.int32)}
        ring = insert(ring, batch, jnp.asarray(mask))
        rows += [n for n, valid in zip(numbers, mask, strict=True) if valid]
    return ring, rows[-CAPACITY:]


@given(batches)
@settings(max_examples=60, deadline=None)
def test_holds_the_newest_valid_rows_in_ring_order(masks):
    ring, rows = fill(masks)
    assert int(ring.size) == len(rows)
    oldest = (int(ring.head) - len(rows)) % CAPACITY
    order = [(oldest + i) % CAPACITY for i in range(len(rows))]
    np.testing.assert_array_equal(np.asarray(ring.data["x"])[order], rows)
    np.testing.assert_array_equal(np.asarray(ring.data["y"])[order], [(n, -n) for n in rows] or np.zeros((0, 2)))


@given(batches)
@settings(max_examples=30, deadline=None)
def test_with_more_room_it_holds_the_same_rows_oldest_first_and_goes_on(masks):
    ring, rows = fill(masks)
    larger = buffer.grown(ring, CAPACITY + BATCH)
    assert int(larger.size) == int(larger.head) == len(rows)
    more = {"x": jnp.full(BATCH, -1.0), "y": jnp.zeros((BATCH, 2), jnp.int32)}
    larger = insert(larger, more, jnp.ones(BATCH, bool))
    np.testing.assert_array_equal(larger.data["x"][: int(larger.size)], [*rows, *[-1] * BATCH])
    with pytest.raises(ValueError, match="cannot grow"):
        buffer.grown(ring, CAPACITY - 1)


@given(batches)
@settings(max_examples=20, deadline=None)
def test_samples_only_rows_that_were_inserted(masks):
    ring, rows = fill(masks)
    if rows:
        drawn = sample(ring, jax.random.key(len(rows)), 64)
        assert set(np.asarray(drawn["x"]).astype(int)) <= set(rows)
        np.testing.assert_array_equal(drawn["y"][:, 0], -drawn["y"][:, 1])


def test_every_row_is_sampled():
    ring, rows = fill([[True] * BATCH] * 3)
    assert set(np.asarray(sample(ring, jax.random.key(0), 512)["x"]).astype(int)) == set(rows)


def test_new_rows_take_the_place_of_the_oldest_and_no_row_stays_empty():
    """Trap: a public port keeps all but the last n rows and appends the n new ones. What was zero at first is so for
    ever (four fifths of a buffer of five refreshes), and only the newest refresh is ever seen."""
    refresh, retain = 2, 3
    ring = buffer.empty(jnp.float32(0), refresh * retain)
    for number in range(1, 9):
        ring = insert(ring, jnp.full(refresh, jnp.float32(number)), jnp.ones(refresh, bool))
        kept = list(range(max(1, number - retain + 1), number + 1))
        assert int(ring.size) == refresh * len(kept)
        held = np.asarray(ring.data)[: int(ring.size)]
        np.testing.assert_array_equal(np.unique(held, return_counts=True), (kept, [refresh] * len(kept)))
        assert set(np.asarray(sample(ring, jax.random.key(number), 200))) == set(kept)


def test_a_batch_larger_than_the_buffer_is_refused():
    ring = buffer.empty(jnp.float32(0), 3)
    with pytest.raises(ValueError, match="insert of 4 rows"):
        buffer.insert(ring, jnp.zeros(4), jnp.ones(4, bool))
