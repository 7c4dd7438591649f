"""The members of a population: who they are, and what a phase's `init` is given for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_suite.mesh import Devices
from jaxrl_suite.train.compose import Population, places, population
from jaxrl_suite.types import Algorithm, Phase, Tree


class Variant(NamedTuple):
    """A choice of traced hyper-parameters that some members of a population share."""

    hypers: Any  # the algorithm's struct of traced scalars
    settings: str = ""  # what tells it from the preset, for logs and tables
    gamma: float = 0.99  # of the true returns that its Q-value estimates are compared with


class Member(NamedTuple):
    """One member: a seed of a variant."""

    seed: int
    variant: Variant


def of(seeds: Sequence[int], variants: Sequence[Variant]) -> tuple[Member, ...]:
    """All seeds of the first variant, then all seeds of the next."""
    return tuple(Member(seed, variant) for variant in variants for seed in seeds)


def of_phase(phase: Phase, members: Sequence[Member]) -> tuple[Member, ...]:
    """The members that a phase has to run: where hyper-parameters do not matter, the seeds of the first variant do."""
    return tuple(m for m in members if m.variant is members[0].variant) if phase.cache else tuple(members)


def share(tree: Tree, have: Sequence[Member], want: Sequence[Member]) -> Tree:
    """Leaves `[have, ...]` -> `[want, ...]`: what was made for a seed is handed to all members with that seed."""
    if len(have) == len(want):
        return tree
    row_of = {member.seed: row for row, member in enumerate(have)}
    rows = jnp.array([row_of[member.seed] for member in want])
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def arguments(members: Sequence[Member], data: Any, index: int, previous: Tree) -> tuple:
    """What the `init` of population phase `index` is given: a key and hyper-parameters per member, data, and the
    previous phase's result."""
    keys = jnp.stack([jax.random.fold_in(jax.random.key(member.seed), index) for member in members])
    hypers = jax.tree.map(lambda *x: jnp.array(x, jnp.float32), *(member.variant.hypers for member in members))
    return keys, hypers, data, previous


def template(
    algorithm: Algorithm, members: Sequence[Member], data: Any, last: int, devices: Devices | None = None
) -> Population:
    """Shapes of the state of phase `last`, found through the results of those before it, with their places on
    `devices`. Computes nothing."""
    previous: Tree = None
    for index in range(last + 1):
        phase = population(algorithm.phases[index])
        mine = of_phase(phase, members)
        state = jax.eval_shape(phase.init, *arguments(mine, data, index, previous))
        result = jax.eval_shape(phase.result, state)
        previous = jax.eval_shape(lambda tree, mine=mine: share(tree, mine, members), result)
    return placed(state, places(state, devices))


def placed(shapes: Tree, shardings: Tree) -> Tree:
    """Shapes with their shardings, if there are any."""
    if shardings is None:
        return shapes
    place = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # noqa: E731
    return jax.tree.map(place, shapes, shardings)
