"""Termination rules of the MuJoCo tasks as functions of the successor `next_obs` `[..., obs_dim]`.

The rules are Gymnasium's Hopper-v4, Walker2d-v4, HalfCheetah-v4 and Ant-v4, written in terms of the observation: it
leaves out the x position (ant's x and y), so that the simulator's `state[i]` is `next_obs[i - 1]` (ant's
`next_obs[i - 2]`). Each returns bool `[...]`.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxrl_suite.types import Array


def hopper(next_obs: Array) -> Array:
    """Terminal unless all is finite, every |s[1:]| < 100, the torso is above 0.7 and leans less than 0.2 rad.

    Much public code compares first and takes the absolute value of the truth value, `abs(s[1:] < 100)`, which lets
    large negative entries pass.
    """
    height, angle = next_obs[..., 0], next_obs[..., 1]
    finite = jnp.all(jnp.isfinite(next_obs), axis=-1)
    bounded = jnp.all(jnp.abs(next_obs[..., 1:]) < 100.0, axis=-1)
    return ~(finite & bounded & (height > 0.7) & (jnp.abs(angle) < 0.2))


def walker2d(next_obs: Array) -> Array:
    """Terminal unless the torso's height is in (0.8, 2) and its angle in (-1, 1); NaN in either is terminal."""
    height, angle = next_obs[..., 0], next_obs[..., 1]
    return ~((height > 0.8) & (height < 2.0) & (angle > -1.0) & (angle < 1.0))


def ant(next_obs: Array) -> Array:
    """Terminal unless all is finite and the torso's height is in [0.2, 1], limits included."""
    height = next_obs[..., 0]
    return ~(jnp.all(jnp.isfinite(next_obs), axis=-1) & (height >= 0.2) & (height <= 1.0))


def never(next_obs: Array) -> Array:
    """No state is terminal."""
    return jnp.zeros(jnp.shape(next_obs)[:-1], bool)


halfcheetah = never
