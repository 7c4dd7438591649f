"""CQL: conservative Q-learning (Kumar et al. 2020, arXiv 2006.04779).

SAC from data alone, whose critics' loss holds for each of them

    w (E_s [log integral of exp Q(s, a) da] - E_{(s, a) ~ D} [Q(s, a)]) + mean (Q(s, a) - y)^2,
    y = r + gamma d min_j Qbar_j(s', a'),   a' ~ pi(. | s'),

the paper's CQL(H), so that actions are valued low where they were not taken. The integral is estimated with n actions
each from the uniform distribution, from pi(. | s) and from pi(. | s'): see `values.conservative`.

Deviations: the weight w is fixed, without the paper's dual variable, as in OfflineRL-Kit's runs; the Bellman error has
no factor 1/2, as there. There the logarithm is taken over three values and averaged over the n draws, because the
result of a reshape is dropped; here it is taken over all 3n. Rows are drawn with replacement from a data set whose
successors at the end of an episode are the true ones. The `quick` preset has small networks, larger step sizes and tau,
the actor's falling to zero, and fewer samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import struct

from jaxrl_suite.algorithms import actor_critic, offline, short
from jaxrl_suite.algorithms.actor_critic import Parts, State, Term
from jaxrl_suite.algorithms.agent_config import AgentConfig
from jaxrl_suite.errors import UserError
from jaxrl_suite.types import Algorithm, Array, Key, Metrics, Spec, Transition, Tree
from jaxrl_suite.values import conservative


@dataclass(frozen=True)
class Config(AgentConfig):
    """CQL."""

    updates: int = 1_000_000
    """Gradient updates."""
    evaluations: int = 1_000
    """Evaluations of the policy, evenly spaced."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of actor and critics."""
    actor_lr: float = 1e-4
    """Adam's step size for the actor."""
    alpha_lr: float = 1e-4
    """Adam's step size for the temperature."""
    entropy_backup: bool = False
    """Whether targets hold the entropy term."""
    cql_weight: float = 5.0
    """Weight w of the conservative term."""
    samples: int = 10
    """Actions n per state from each of three distributions, where values are pushed down."""


Choose = Callable[[Transition], tuple[Transition, Transition]]
PRESETS = {
    "smoke": Config(**short.AGENT_SMOKE, samples=2),
    "quick": Config(**short.AGENT, samples=2),
    "paper": Config(),
}


@struct.dataclass
class Hypers(actor_critic.Hypers):
    """Traced scalars: a population sweeps them without recompiling."""

    cql_weight: Any = 5.0


def lowering(parts: Parts, samples: int, choose: Choose = lambda batch: (batch, batch)) -> Term:
    """The conservative term, w sum_i R(Q_i): of what `choose` makes of a batch, values go down at the states of the
    first rows, and up at the actions of the second."""

    def push(weights: Tree, state: State, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        states, data = choose(batch)
        gap, metrics = conservative.regulariser(
            lambda obs, action: parts.critics.values(weights, state.support, obs, action),
            lambda obs: parts.pi(state.actor, obs),
            states=states,
            data=data,
            samples=samples,
            key=key,
        )
        return state.hypers.cql_weight * jnp.sum(gap), metrics

    return push


def term(config: Config, parts: Parts) -> Term:
    """The conservative term of a batch that holds real rows alone."""
    return lowering(parts, config.samples)


def make(spec: Spec, config: Config) -> Algorithm:
    """CQL for `spec`: SAC on batches of the data set, with the conservative term.

    Raises:
        UserError: no samples.
    """
    check_samples(config.samples)
    extra = partial(term, config) if config.cql_weight > 0 else None
    agent = actor_critic.make(spec, config.actor_critic(), term=extra)
    hypers = config.hypers(kind=Hypers, cql_weight=config.cql_weight)
    return offline.make(config, offline.from_actor_critic(agent), hypers)


def check_samples(samples: int) -> None:
    """Refuse a number of samples that cannot be.

    Raises:
        UserError: less than one.
    """
    if samples < 1:
        raise UserError(f"--samples={samples} leaves no action to push down; give at least 1")
