"""Value heads on targets that move: does a network that has learnt some still learn others (plasticity)?

An analogue of figure 17 of Farebrother et al. 2024 (arXiv 2403.03950, appendix B.4): y = sin(K f(x)) + b for b = 0, 8,
16, 24, 32 in turn, f a new random network for each b, K so large that y is as good as noise, which has to be
remembered. Inputs are Gaussian vectors of 32 numbers in place of CIFAR10's pictures. The measure is the mean
squared error over all points at the end of each b. Support [-40, 40], as in the paper.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_suite import nets
from jaxrl_suite.types import Array, Key, Metrics
from jaxrl_suite.values import heads
from jaxrl_suite.values.projections import Support

SHIFTS = (0.0, 8.0, 16.0, 24.0, 32.0)
DIM, K = 32, 1e5
LOW, HIGH = -40.0, 40.0


class Program(NamedTuple):
    """What makes a program of its own."""

    head: heads.HeadConfig
    hidden: tuple[int, ...]
    updates: int  # of each shift
    batch: int
    points: int


def labels(key: Key, x: Array, shift: Array) -> Array:
    """sin(K f(x)) + b of a new random network f."""
    f = nets.mlp(DIM, (64,), {"f": 1})
    return jnp.sin(K * f.apply(f.init(key), x)["f"][:, 0]) + shift


def train(program: Program, key: Key, rate: Any) -> Metrics:
    """One member, from its key to `error` `[shifts]`."""
    x_key, init_key, label_key, batch_key = jax.random.split(key, 4)
    head = heads.make(program.head)
    support = () if program.head.name in heads.WITHOUT_SUPPORT else Support(jnp.float32(LOW), jnp.float32(HIGH))
    net = nets.mlp(DIM, program.hidden, {"y": head.size})
    x, adam, weights = jax.random.normal(x_key, (program.points, DIM)), optax.scale_by_adam(), net.init(init_key)

    def target(y: Array) -> Any:
        """The head's target for a number: a reward, and no next state."""
        none = jnp.zeros(y.shape)
        return head.target(y, none, jnp.zeros((*y.shape, head.size)), none, support)

    def learn(carry: tuple, given: tuple[Array, Array]) -> tuple[tuple, Array]:
        stage, shift = given
        y = labels(jax.random.fold_in(label_key, stage), x, shift)

        def update(carry: tuple, step: Array) -> tuple[tuple, None]:
            weights, state = carry
            draw = jax.random.fold_in(batch_key, stage * program.updates + step)
            index = jax.random.randint(draw, (program.batch,), 0, program.points)
            goal = target(y[index])
            loss = lambda w: jnp.mean(head.loss(net.apply(w, x[index])["y"], goal, support))  # noqa: E731
            change, state = adam.update(jax.grad(loss)(weights), state)
            return (jax.tree.map(lambda w, c: w - rate * c, weights, change), state), None

        carry, _ = jax.lax.scan(update, carry, jnp.arange(program.updates))
        found = head.decode(net.apply(carry[0], x)["y"], support)
        return carry, jnp.mean(jnp.square(found - y))

    start = (weights, adam.init(weights))
    stages = jnp.arange(len(SHIFTS)), jnp.array(SHIFTS)
    return {"error": jax.lax.scan(learn, start, stages)[1]}
