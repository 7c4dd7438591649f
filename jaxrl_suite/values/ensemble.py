"""Ensembles of critics: how members are combined, and what keeps them apart."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.types import Array, Tree, ValueHead

AGGREGATES: dict[str, Callable[..., Array]] = {"min": jnp.min, "mean": jnp.mean}


def aggregate(name: str, head: ValueHead) -> Callable[[Array], Array]:
    """How the values `[members, ...]` of an ensemble become the one that is trusted `[...]`.

    Raises:
        UserError: no such way, or the head's outputs have no mean that stands for the mean of its values.
    """
    if name not in AGGREGATES:
        raise unknown("aggregate", name, AGGREGATES)
    if name == "mean" and head.average is None:
        raise UserError(
            "--aggregate=mean cannot average critics behind symlog, where the mean of outputs is no mean of values; "
            "take --aggregate=min, or another --head, such as two_hot_symexp"
        )
    return functools.partial(AGGREGATES[name], axis=0)


def combine(head: ValueHead, logits: Array, support: Tree, how: str) -> Array:
    """The outputs `[batch, size]` that stand for an ensemble's `[members, batch, size]`.

    "min" takes, row by row, those of the member with the least value, never the least of every output; "mean" averages
    as the head says: outputs that are numbers, or distributions.
    """
    if how == "mean":
        assert head.average is not None
        return head.average(logits)
    values = head.decode(logits, support)
    lowest = jnp.argmin(values, axis=0)
    return jnp.take_along_axis(logits, lowest[None, :, None], axis=0)[0]


def with_action_gradients(
    logits: Callable[[Array], Array], decode: Callable[[Array], Array], action: Array, members: int
) -> tuple[Array, Array]:
    """Every member's outputs, and its value's gradient by its action `[members, batch, action_dim]`: one pass each way.

    `logits` maps actions `[members, batch, action_dim]` to outputs, and `decode` these to values `[members, batch]`. A
    value depends on its own action alone, so the gradient of the sum holds all the gradients wanted: no per-sample
    Jacobian.
    """
    outputs, pull = jax.vjp(logits, jnp.broadcast_to(action, (members, *action.shape)))
    (gradients,) = pull(jax.grad(lambda x: jnp.sum(decode(x)))(outputs))
    return outputs, gradients


def action_gradients(q: Callable[[Array], Array], action: Array, members: int) -> Array:
    """The same of members whose output is the value."""
    return with_action_gradients(q, lambda values: values, action, members)[1]


def diversity(gradients: Array) -> Array:
    """EDAC's penalty on the similarity of the members' action gradients `[members, batch, action_dim]` -> scalar.

    The batch mean of sum_{i != j} <g_i, g_j> / (N - 1) with g_i of unit length (An et al. 2021). The double
    sum is |sum_i g_i|^2 - sum_i |g_i|^2, which costs N rather than N^2 products.
    """
    members = gradients.shape[0]
    if members < 2:
        return jnp.zeros(())
    # The square root is kept off zero, where its gradient is not finite.
    norm = jnp.sqrt(jnp.sum(jnp.square(gradients), axis=-1, keepdims=True) + 1e-20)
    unit = gradients / (norm + 1e-10)
    together = jnp.sum(jnp.square(jnp.sum(unit, axis=0)), axis=-1)
    alone = jnp.sum(jnp.square(unit), axis=(0, -1))
    return jnp.mean(together - alone) / (members - 1)
