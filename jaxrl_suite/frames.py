"""Experience of pictures: each frame is stored once, and the stacks that a network sees are made when rows are drawn.

A row of the buffer is one step of all environments, so that the frames before and after a row's are those of its
neighbours. A host environment resets in a step of its own: that row holds the last frame of the episode, which the row
before it leads to, and is itself no experience. A stack shows nothing (zeros) from before its episode began.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_suite import buffer
from jaxrl_suite.types import Array, Key, Transition


class Row(NamedTuple):
    """One step of every environment."""

    frame: Array  # [envs, height, width] bytes: what the action was for
    fresh: Array  # [envs] bool: that frame is the first of its episode
    action: Array  # [envs]
    reward: Array  # [envs]
    discount: Array  # [envs] 1 - terminated
    valid: Array  # [envs] bool: False for the step in which an environment reset itself


def push(stack: Array, frame: Array, fresh: Array) -> Array:
    """The stack `[..., height, width, depth]`, newest last, after `frame`; only it, where it is the first."""
    older = jnp.where(fresh[..., None, None, None], jnp.zeros_like(stack), stack)
    return jnp.concatenate([older[..., 1:], frame[..., None]], axis=-1)


def empty(frame: Array, capacity: int) -> buffer.Buffer:
    """A buffer of `capacity` rows for frames like `frame` `[envs, height, width]`."""
    each = lambda dtype: jnp.zeros(frame.shape[0], dtype)  # noqa: E731
    kinds = (bool, jnp.int32, jnp.float32, jnp.float32, bool)
    return buffer.empty(Row(frame, *map(each, kinds)), capacity)


def insert(replay: buffer.Buffer, row: Row) -> buffer.Buffer:
    """Append a row; the oldest gives way."""
    return buffer.insert(replay, jax.tree.map(lambda leaf: leaf[None], row), jnp.ones(1, bool))


def sample(replay: buffer.Buffer, key: Key, batch: int, depth: int) -> tuple[Transition, Array]:
    """`batch` transitions of stacks `[batch, height, width, depth]`, uniform with replacement, and their weights.

    A draw that hits an environment's reset has weight 0, all others 1. The buffer must hold at least depth + 1 rows:
    the newest has no successor yet, the oldest may have lost what came before them.
    """
    data, (age_key, env_key) = replay.data, jax.random.split(key)
    capacity, envs = data.fresh.shape
    age = jax.random.randint(age_key, (batch,), 1, jnp.maximum(replay.size - depth + 1, 2))
    env = jax.random.randint(env_key, (batch,), 0, envs)
    back = age[:, None] + jnp.arange(depth - 1, -2, -1)  # [batch, depth + 1]: oldest first, last the successor
    slots = (replay.head - 1 - back) % capacity
    frame, fresh = data.frame[slots, env[:, None]], data.fresh[slots, env[:, None]]

    def stack(first: int) -> Array:
        mine, begins = frame[:, first : first + depth], fresh[:, first : first + depth]
        # Starts at or after each frame, its own not counted: one of them ends what came before.
        later = jnp.cumsum(begins[:, ::-1], axis=1)[:, ::-1] - begins
        return jnp.moveaxis(jnp.where((later > 0)[..., None, None], jnp.zeros_like(mine), mine), 1, -1)

    at = slots[:, depth - 1], env
    rows = Transition(stack(0), data.action[at], data.reward[at], data.discount[at], stack(1))
    return rows, data.valid[at].astype(jnp.float32)
