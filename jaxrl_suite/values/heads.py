"""Value heads: how a critic's outputs stand for a value."""

from __future__ import annotations

import jax.numpy as jnp

from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.types import Array, Tree, ValueHead


def mse() -> ValueHead:
    """A scalar regressed on its target by squared error."""

    def target(reward: Array, discount: Array, next_logits: Array, shift: Array, support: Tree) -> Array:
        return reward + discount * (next_logits[..., 0] + shift)

    return ValueHead(
        size=1,
        support=lambda stats: (),
        decode=lambda logits, support: logits[..., 0],
        target=target,
        loss=lambda logits, target, support: jnp.square(logits[..., 0] - target),
    )


HEADS = {"mse": mse}


def make(name: str) -> ValueHead:
    """The head of that name.

    Raises:
        UserError: the name is not registered.
    """
    if name not in HEADS:
        raise unknown("value head", name, HEADS)
    return HEADS[name]()


def require_scalar(name: str, option: str) -> None:
    """Refuse a head whose targets are distributions, for an option that computes with a target as a number.

    Raises:
        UserError: the head has more than one output, or is not registered.
    """
    if make(name).size != 1:
        raise UserError(f"{option} needs targets that are numbers, and those of --head={name} are not; use --head=mse")
