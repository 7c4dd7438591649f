"""CQL's regulariser: values of actions that were not taken go down, those of the data go up.

Kumar et al. 2020 (arXiv 2006.04779, equation 4 and appendix F), for every critic by itself:

    R(Q) = E_s [log of the integral of exp Q(s, a) over a] - E_{(s, a) ~ D} [Q(s, a)].

The integral is estimated with n actions each from the uniform distribution, from pi(. | s) and from pi(. | s'), all
evaluated at s, and weighted by one over the density that they were drawn with. Every one of the three is an unbiased
estimate, and so is their mean: the logarithm is taken of the mean over all 3n weighted values. The authors' code takes
it of their sum, which differs by log 3n, a constant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_suite import distributions
from jaxrl_suite.distributions import TanhNormal
from jaxrl_suite.types import Array, Key, Metrics, Transition


class Proposals(NamedTuple):
    """Actions at which values are pushed down, k for every state."""

    action: Array  # [batch, k, action_dim]
    log_density: Array  # [batch, k] of the distribution that the action was drawn from


def propose(here: TanhNormal, there: TanhNormal, samples: int, key: Key) -> Proposals:
    """`samples` actions each from the uniform distribution, from the policy at s and from the policy at s'."""
    uniform_key, here_key, there_key = jax.random.split(key, 3)
    batch, dims = here.mean.shape
    uniform = jax.random.uniform(uniform_key, (batch, samples, dims), here.mean.dtype, -1.0, 1.0)
    flat = jnp.full((batch, samples), -dims * jnp.log(2.0), here.mean.dtype)  # the cube [-1, 1]^dims has volume 2^dims
    drawn = [(uniform, flat), _several(here, samples, here_key), _several(there, samples, there_key)]
    actions, densities = zip(*drawn, strict=True)
    return Proposals(jnp.concatenate(actions, axis=1), jnp.concatenate(densities, axis=1))


def _several(policy: TanhNormal, samples: int, key: Key) -> tuple[Array, Array]:
    batch, dims = policy.mean.shape
    repeated = TanhNormal(*(jnp.broadcast_to(x[:, None], (batch, samples, dims)) for x in policy))
    return distributions.sample_and_log_prob(repeated, key)


def log_integral(values: Array, log_density: Array) -> Array:
    """log of the integral of exp Q by importance sampling: values `[critics, batch, k]` -> `[critics, batch]`."""
    return jax.nn.logsumexp(values - log_density, axis=-1) - jnp.log(values.shape[-1])


def regulariser(
    values: Callable[[Array, Array], Array],
    pi: Callable[[Array], TanhNormal],
    states: Transition,
    data: Transition,
    samples: int,
    key: Key,
) -> tuple[Array, Metrics]:
    """R(Q) of every critic `[critics]`, and metrics.

    Args:
        values: (obs `[rows, .]`, action `[rows, .]`) -> values `[critics, rows]`; gradients pass through both terms.
        pi: the policy at observations `[rows, .]`.
        states: where values are pushed down.
        data: where they are pushed up.
        samples: n, of 3n proposals per state.
        key: consumed.
    """
    offered = propose(pi(states.obs), pi(states.next_obs), samples, key)
    batch, k, dims = offered.action.shape
    # A row per proposal, those of a state beside each other: what shards the batch shards them.
    obs = jnp.repeat(states.obs, k, axis=0, total_repeat_length=batch * k)
    elsewhere = values(obs, offered.action.reshape(batch * k, dims)).reshape(-1, batch, k)
    down = jnp.mean(log_integral(elsewhere, offered.log_density), axis=-1)
    up = jnp.mean(values(data.obs, data.action), axis=-1)
    return down - up, {"q_elsewhere": jnp.mean(elsewhere), "q_data": jnp.mean(up), "conservative": jnp.mean(down - up)}
