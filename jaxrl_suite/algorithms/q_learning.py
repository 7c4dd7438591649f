"""Q-learning of discrete actions with any value head: the update that DQN's files share (Mnih et al. 2015, Nature 518).

    y = r + gamma d Q'(s', argmax_a Q'(s', a)),   loss = head(Q(s, a), y),   d = 1 - terminated

Q' is a copy of Q that is renewed every `copy_every` updates; the optimiser is Adam. Where rows and their chances come
from is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxrl_suite import nets
from jaxrl_suite.types import Array, Key, Metrics, Transition, Tree
from jaxrl_suite.values import heads

OUTPUT = "q"  # of the network


class Rates(Protocol):
    """What an update asks of its caller's traced numbers."""

    gamma: Any
    learning_rate: Any


class Learner(NamedTuple):
    """What learns."""

    weights: Tree
    target: Tree
    adam: Tree
    updates: Array  # [] gradient updates so far


class QLearning(NamedTuple):
    """Pure functions of a learner."""

    init: Callable[[Key], Learner]
    # (learner, rows, weights of the rows [batch] or 1, rates) -> (learner, metrics)
    update: Callable[[Learner, Transition, Array | float, Rates], tuple[Learner, Metrics]]
    values: Callable[[Learner, Array], Array]  # (learner, obs [..., *dims]) -> Q [..., actions]


def outputs(actions: int, head: heads.HeadConfig) -> dict[str, int]:
    """What the network's last layer must give."""
    return {OUTPUT: actions * heads.make(head).size}


def pick(logits: Array, action: Array) -> Array:
    """The logits `[batch, size]` of one action each, out of `[batch, actions, size]`."""
    return jnp.take_along_axis(logits, action[:, None, None], axis=1)[:, 0]


def make(net: nets.Network, actions: int, config: heads.HeadConfig, copy_every: int, eps: float = 1e-8) -> QLearning:
    """Q-learning of a network with `outputs`; `eps` is Adam's."""
    head = heads.make(config)
    support, adam = head.support(None), optax.scale_by_adam(eps=eps)

    def logits(weights: Tree, obs: Array) -> Array:
        out = net.apply(weights, obs)[OUTPUT]
        return out.reshape(*out.shape[:-1], actions, head.size)

    def init(key: Key) -> Learner:
        weights = net.init(key)
        if head.initial_bias is not None:
            last = weights[OUTPUT]
            begin = jnp.tile(head.initial_bias(support), actions)
            weights = {**weights, OUTPUT: {**last, "bias": last["bias"] + begin}}
        return Learner(weights, weights, adam.init(weights), jnp.int32(0))

    def loss(
        weights: Tree, target: Tree, rows: Transition, share: Array | float, gamma: Array
    ) -> tuple[Array, Metrics]:
        there = logits(target, rows.next_obs)
        best = jnp.argmax(head.decode(there, support), axis=-1)
        none = jnp.zeros_like(rows.reward)
        goal = jax.lax.stop_gradient(head.target(rows.reward, gamma * rows.discount, pick(there, best), none, support))
        found = pick(logits(weights, rows.obs), rows.action)
        cost = jnp.mean(share * head.loss(found, goal, support))
        q = jnp.mean(head.decode(found, support))
        return cost, {"loss": cost, "q": q, **head.measure(found, goal, support)}

    def update(learner: Learner, rows: Transition, share: Array | float, rates: Rates) -> tuple[Learner, Metrics]:
        slope, metrics = jax.grad(loss, has_aux=True)(learner.weights, learner.target, rows, share, rates.gamma)
        change, moments = adam.update(slope, learner.adam)
        weights = jax.tree.map(lambda w, c: w - rates.learning_rate * c, learner.weights, change)
        due = (learner.updates + 1) % copy_every == 0
        target = jax.tree.map(lambda new, old: jnp.where(due, new, old), weights, learner.target)
        return Learner(weights, target, moments, learner.updates + 1), metrics

    def values(learner: Learner, obs: Array) -> Array:
        return head.decode(logits(learner.weights, obs), support)

    return QLearning(init, update, values)
