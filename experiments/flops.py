"""Floating-point operations that an update needs, counted by hand: matrix products alone, two for a multiply-add.

`plain` is what an implementation needs that computes each term of the losses by itself; `done` is what ours computes
(shared passes are counted once). Peers' rates are compared by `plain`, the hardware's use by `done`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple


class Flops(NamedTuple):
    """Operations of one unit of work."""

    plain: float
    done: float


class Shape(NamedTuple):
    """Multiply-adds of a multi-layer perceptron, for one row."""

    all: int
    first: int  # in the first layer: a backward pass that needs no input gradient leaves it out


def mlp(in_dim: int, hidden: Sequence[int], out_dim: int) -> Shape:
    """A network with these widths; heads side by side count as one of their width."""
    widths = (in_dim, *hidden, out_dim)
    layers = [a * b for a, b in itertools.pairwise(widths)]
    return Shape(sum(layers), layers[0])


def fit_step(member: Shape, members: int, batch: int) -> Flops:
    """A gradient step of the dynamics ensemble: forward, weight gradients, and back but for the first layer."""
    count = 2.0 * members * batch * (3 * member.all - member.first)
    return Flops(count, count)


def transition(member: Shape, actor: Shape) -> Flops:
    """An imagined transition: the policy, and the drawn member of the model."""
    count = 2.0 * (member.all + actor.all)
    return Flops(count, count)


def update(actor: Shape, critic: Shape, critics: int, batch: int, diverse: bool, scalar: bool = True) -> Flops:
    """An update of actor, N critics, their targets and the temperature.

    The actor: forward for the temperature (the same as in its own loss, so done once), forward and back for its own,
    forward at the next observation. The critics: forward and back to the action for the actor, forward of the targets,
    and their own gradient: forward and back, then with the diversity term forward, back to the action, and that
    differentiated by the weights (a tangent and a product with it); `values.slopes` does all of it in four passes
    where a critic's output is its value (`scalar`), else the forward pass alone is shared.
    """
    row = 2.0 * batch
    every = row * critics
    shared = row * (4 * actor.all - actor.first) + every * 3 * critic.all
    bellman = every * (3 * critic.all - critic.first)
    plain = shared + row * actor.all + bellman + (every * 4 * critic.all if diverse else 0.0)
    own = every * 4 * critic.all if scalar else bellman + every * 3 * critic.all
    return Flops(plain, shared + (own if diverse else bellman))
