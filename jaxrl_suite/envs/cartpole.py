"""Cart-pole swing-up with the reward of PETS (Chua et al. 2018, arXiv 1805.12114) as a pure environment.

A cart of mass M carries a bob of mass m on a rod of length l. With theta = 0 upright and a force F on the cart,

    x''     = (F + m sin(theta) (l theta'^2 - g cos(theta))) / (M + m sin(theta)^2)
    theta'' = (g sin(theta) - x'' cos(theta)) / l,

integrated by Runge and Kutta's fourth-order method, and with the bob at e = (x + l sin(theta), l cos(theta)) the reward
is exp(-|e - (0, l)|^2 / l^2) - 0.01 a^2 of the state after the step: at most 1 in each of the 200 steps.

Deviations: the authors' task is a MuJoCo model with friction; masses, force and step are ours, and a is the action in
[-1, 1]. At the rail's ends the cart stops. Observations hold cosine and sine of the angle. It is not the task of that
name that pays 1 for each step of balance.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_suite.envs import termination
from jaxrl_suite.types import Array, Env, Key, Spec, Timestep

CART, BOB, LENGTH, GRAVITY, FORCE, RAIL = 0.5, 0.2, 0.6, 9.81, 5.0, 3.0
DT, SUBSTEPS = 0.05, 2
SPEC = Spec("cartpole_swingup", obs_dim=5, action_dim=1, horizon=200, is_terminal=termination.never)


class State(NamedTuple):
    """Where the cart and the pole are."""

    x: Array  # [] in [-RAIL, RAIL]
    theta: Array  # [] in [-pi, pi), 0 upright
    x_dot: Array  # []
    theta_dot: Array  # []
    steps: Array  # [] int32 steps since the reset


def _observe(state: State) -> Array:
    return jnp.stack([state.x, jnp.cos(state.theta), jnp.sin(state.theta), state.x_dot, state.theta_dot])


def reset(key: Key) -> tuple[State, Array]:
    """Hanging down in the middle, all four numbers within 0.1 of that."""
    x, theta, x_dot, theta_dot = jax.random.uniform(key, (4,), minval=-0.1, maxval=0.1)
    state = State(x, _wrap(theta + jnp.pi), x_dot, theta_dot, jnp.int32(0))
    return state, _observe(state)


def _wrap(angle: Array) -> Array:
    return jnp.mod(angle + jnp.pi, 2 * jnp.pi) - jnp.pi


def derivatives(motion: Array, force: Array) -> Array:
    """Time derivatives of [x, theta, x_dot, theta_dot]."""
    _, theta, x_dot, theta_dot = motion
    sin, cos = jnp.sin(theta), jnp.cos(theta)
    x_accel = (force + BOB * sin * (LENGTH * theta_dot**2 - GRAVITY * cos)) / (CART + BOB * sin**2)
    return jnp.stack([x_dot, theta_dot, x_accel, (GRAVITY * sin - x_accel * cos) / LENGTH])


def _integrate(motion: Array, force: Array, dt: float) -> Array:
    one = derivatives(motion, force)
    two = derivatives(motion + 0.5 * dt * one, force)
    three = derivatives(motion + 0.5 * dt * two, force)
    four = derivatives(motion + dt * three, force)
    return motion + dt / 6.0 * (one + 2.0 * two + 2.0 * three + four)


def reward(obs: Array, action: Array) -> Array:
    """The reward of reaching `obs` `[..., 5]` by `action` `[..., 1]`."""
    x, cos, sin = obs[..., 0], obs[..., 1], obs[..., 2]
    squared = jnp.square(x + LENGTH * sin) + jnp.square(LENGTH * cos - LENGTH)
    return jnp.exp(-squared / LENGTH**2) - 0.01 * jnp.square(action[..., 0])


def step(state: State, action: Array, key: Key) -> tuple[State, Timestep]:
    """One step of 0.05 s for `action` `[1]`; deterministic. Never terminates, is truncated after 200 steps."""
    del key
    action = jnp.clip(action, -1.0, 1.0)
    motion = jnp.stack([state.x, state.theta, state.x_dot, state.theta_dot])
    for _ in range(SUBSTEPS):
        motion = _integrate(motion, FORCE * action[0], DT / SUBSTEPS)
    x, theta, x_dot, theta_dot = motion
    x_dot = jnp.where(jnp.abs(x) >= RAIL, 0.0, x_dot)
    after = State(jnp.clip(x, -RAIL, RAIL), _wrap(theta), x_dot, theta_dot, state.steps + 1)
    obs, false = _observe(after), jnp.zeros((), bool)
    return after, Timestep(obs, reward(obs, action), false, after.steps >= SPEC.horizon, ~false)


def restore(obs: Array, sim_state: tuple[Array, Array] | None) -> State:
    """The state that `obs` `[5]` shows. Only the steps are lost: they count from 0, so the episode is cut later."""
    del sim_state
    return State(obs[0], jnp.arctan2(obs[2], obs[1]), obs[3], obs[4], jnp.int32(0))


def make() -> Env:
    """The cart-pole swing-up."""
    return Env(SPEC, reset, step, restore)
