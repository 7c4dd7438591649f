"""The pendulum swing-up of Gymnasium's Pendulum-v1 as a pure environment.

With u the torque: theta_dot' = clip(theta_dot + (3g / 2l sin(theta) + 3 u / (m l^2)) dt, -8, 8),
theta' = theta + theta_dot' dt, and the reward -(theta^2 + 0.1 theta_dot^2 + 0.001 u^2) of the state before the step,
with theta in [-pi, pi) and 0 upright.

Deviations: actions in [-1, 1] stand for torques in [-2, 2]; theta is kept in [-pi, pi), because float32 would lose
precision in an angle that grows with every turn.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_suite.envs import termination
from jaxrl_suite.types import Array, Env, Key, Spec, Timestep

MAX_SPEED, MAX_TORQUE, DT, GRAVITY, MASS, LENGTH = 8.0, 2.0, 0.05, 10.0, 1.0, 1.0
SPEC = Spec("Pendulum-v1", obs_dim=3, action_dim=1, horizon=200, is_terminal=termination.never)


class State(NamedTuple):
    """Where the pendulum is."""

    theta: Array  # [] in [-pi, pi), 0 upright
    theta_dot: Array  # []
    steps: Array  # [] int32 steps since the reset


def _wrap(angle: Array) -> Array:
    return jnp.mod(angle + jnp.pi, 2 * jnp.pi) - jnp.pi


def _observe(state: State) -> Array:
    return jnp.stack([jnp.cos(state.theta), jnp.sin(state.theta), state.theta_dot])


def reset(key: Key) -> tuple[State, Array]:
    """Theta uniform in [-pi, pi), theta_dot in [-1, 1)."""
    theta, theta_dot = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0) * jnp.array([jnp.pi, 1.0])
    state = State(theta, theta_dot, jnp.int32(0))
    return state, _observe(state)


def step(state: State, action: Array, key: Key) -> tuple[State, Timestep]:
    """One step of 0.05 s for `action` `[1]`; deterministic. Never terminates, is truncated after 200 steps."""
    del key
    torque = MAX_TORQUE * jnp.clip(action[0], -1.0, 1.0)
    cost = _wrap(state.theta) ** 2 + 0.1 * state.theta_dot**2 + 0.001 * torque**2
    gravity = 3 * GRAVITY / (2 * LENGTH) * jnp.sin(state.theta)
    theta_dot = state.theta_dot + (gravity + 3 / (MASS * LENGTH**2) * torque) * DT
    theta_dot = jnp.clip(theta_dot, -MAX_SPEED, MAX_SPEED)
    after = State(_wrap(state.theta + theta_dot * DT), theta_dot, state.steps + 1)
    false = jnp.zeros((), bool)
    return after, Timestep(_observe(after), -cost, false, after.steps >= SPEC.horizon, ~false)


def restore(obs: Array, sim_state: tuple[Array, Array] | None) -> State:
    """The state that `obs` `[3]` shows. Only the steps are lost: they count from 0, so the episode is cut later."""
    del sim_state
    return State(jnp.arctan2(obs[1], obs[0]), obs[2], jnp.int32(0))


def make() -> Env:
    """The pendulum."""
    return Env(SPEC, reset, step, restore)
