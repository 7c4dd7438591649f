"""The tanh-squashed diagonal normal of SAC (Haarnoja et al. 2018, appendix C), and the plain one."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_suite.types import Array, Key

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


class TanhNormal(NamedTuple):
    """a = tanh(u), u ~ N(mean, exp(log_std)^2), independent per action dimension."""

    mean: Array  # [..., action_dim]
    log_std: Array  # [..., action_dim]


def tanh_normal(mean: Array, log_std: Array) -> TanhNormal:
    """The distribution with `log_std` clipped to [-5, 2]."""
    return TanhNormal(mean, jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX))


def mode(distribution: TanhNormal) -> Array:
    """The deterministic action tanh(mean) `[..., action_dim]`."""
    return jnp.tanh(distribution.mean)


def _log_prob_of_latent(distribution: TanhNormal, latent: Array) -> Array:
    z = (latent - distribution.mean) * jnp.exp(-distribution.log_std)
    normal = -0.5 * jnp.square(z) - distribution.log_std - 0.5 * jnp.log(2 * jnp.pi)
    # log(1 - tanh(u)^2) in the form that stays finite for large |u|.
    log_jacobian = 2.0 * (jnp.log(2.0) - latent - jax.nn.softplus(-2.0 * latent))
    return jnp.sum(normal - log_jacobian, axis=-1)


def sample_and_log_prob(distribution: TanhNormal, key: Key) -> tuple[Array, Array]:
    """A reparameterised action `[..., action_dim]` and its log density `[...]`."""
    noise = jax.random.normal(key, distribution.mean.shape, distribution.mean.dtype)
    latent = distribution.mean + jnp.exp(distribution.log_std) * noise
    return jnp.tanh(latent), _log_prob_of_latent(distribution, latent)


def log_prob(distribution: TanhNormal, action: Array, edge: float = 1e-6) -> Array:
    """Log density `[...]` of given actions; actions on the boundary are moved inside by `edge`."""
    return _log_prob_of_latent(distribution, jnp.arctanh(jnp.clip(action, -1.0 + edge, 1.0 - edge)))


def normal_log_prob(mean: Array, log_std: Array, x: Array) -> Array:
    """Log density `[...]` of `x` under a diagonal normal that is not squashed, with `log_std` clipped to [-5, 2]."""
    log_std = jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)
    z = (x - mean) * jnp.exp(-log_std)
    return jnp.sum(-0.5 * jnp.square(z) - log_std - 0.5 * jnp.log(2 * jnp.pi), axis=-1)
