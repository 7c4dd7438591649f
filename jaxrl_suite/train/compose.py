"""Combinators over phases: a population of seeds, a chunk of ticks. A population is a Phase again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_suite.types import Array, Metrics, Phase, Tree


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


def population(phase: Phase) -> Phase:
    """The phase for members that differ in key, hyper-parameters and previous result, and share offline data.

    A member that meets a number that is not finite goes back to its last healthy state, stays there and is marked,
    while the others go on. On a host environment, whose ticks are too short to copy a replay buffer in each, it is
    only marked.
    """
    on_host = phase.request is not None

    def init(key: Tree, hypers: Tree, data: Any, previous: Tree) -> Population:
        data_axis = 0 if on_host else None
        members = jax.vmap(phase.init, in_axes=(0, 0, data_axis, 0))(key, hypers, data, previous)
        return Population(jax.tree.map(_strong, members), jnp.zeros(key.shape[0], bool))

    def update(state: Population, data: Any) -> tuple[Population, Metrics]:
        data_axis = 0 if on_host else None
        members, metrics = jax.vmap(phase.update, in_axes=(0, data_axis))(state.members, data)
        if on_host:
            return Population(members, state.diverged | ~_finite(metrics)), metrics
        diverged = state.diverged | ~_finite((members, metrics))
        return Population(_keep(diverged, state.members, members), diverged), metrics

    def request(state: Population) -> tuple[Population, Array]:
        assert phase.request is not None
        members, action = jax.vmap(phase.request)(state.members)
        return state._replace(members=members), action

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
    )


class Chunk(NamedTuple):
    """A compiled stretch of ticks."""

    run: Callable[[Tree, Any], tuple[Tree, Metrics]]  # donates the state; metrics are means over the ticks
    traces: list[int]  # one entry per trace of the program: a second one is a recompilation


def chunk(phase: Phase) -> Chunk:
    """`phase.chunk` ticks as one XLA program with a donated state."""
    traces: list[int] = []

    def run(state: Tree, data: Any) -> tuple[Tree, Metrics]:
        traces.append(1)
        state, metrics = jax.lax.scan(lambda s, _: phase.update(s, data), state, None, length=phase.chunk)
        return state, jax.tree.map(lambda m: jnp.mean(m, axis=0), metrics)

    return Chunk(jax.jit(run, donate_argnums=0), traces)
