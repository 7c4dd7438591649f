"""Gymnasium's Hopper-v4, HalfCheetah-v4, Walker2d-v4 and Ant-v4 as pure environments, on the C engine or on MJX.

Models, frame skip, observations, rewards, terminations and first states are those of v4; `make` gives the same Spec as
the host's environment of that name, and one step agrees with envpool's (tests/test_mujoco.py). The state is (qpos,
qvel): v4 remembers its solver's last solution too, which changes the next step by rounding only (`envs.engines`).

Ant-v4 is the one without contact forces (its default, and envpool's), so that 27 numbers are observed, with a
quaternion in `obs[1:5]` that has unit length but for the first observation. Its reward reads the root's x in
`data.xpos`, as `engines` explains, which lags behind qpos by some millimetres. The lag is part of the state here. An
observation does not tell it, and `restore` sets it to 0, what it is after a reset: the first reward that follows may
differ from v4's by some hundredths, the sum of an episode's by no more.

Deviations: states are kept in JAX's precision, which is float32 unless x64 is enabled, so that an episode parts from
the host's as any two do that differ by rounding. The root's x (and ant's y) is 0 whenever the engine is asked, and the
distance covered is added afterwards: nothing depends on it, and float32 would lose the velocity in it. A simulation
that breaks down is NaN, where v4 goes on from the model's first pose. An action beyond [-1, 1] moves as the nearest one
within and costs what it is, as in v4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_suite.envs import engines
from jaxrl_suite.errors import UserError
from jaxrl_suite.types import Array, Env, Key, Spec, Timestep


class State(NamedTuple):
    """Where the body is and how it moves."""

    qpos: Array  # [nq] the root's x first
    qvel: Array  # [nv]
    steps: Array  # [] int32 steps since the reset
    lag: Array | None = None  # [] ant: the root's x in `data.xpos` less that in qpos


class Task(NamedTuple):
    """What distinguishes one v4 task from another."""

    xml: str
    skip: int  # simulator steps per step
    alive: float  # reward of every step, also of the one that ends the episode
    control: float  # cost of the action's squared length
    speed: float  # velocities are observed up to here
    noise: float  # half width of the first positions' noise; that of the velocities where `normal` is False
    normal: bool  # the first velocities' noise is normal with standard deviation `noise`
    hidden: int = 1  # first entries of qpos that are not observed: the root's x, or x and y
    lagging: bool = False  # the reward reads the root's x in `data.xpos`


TASKS = {
    "Hopper-v4": Task("hopper.xml", skip=4, alive=1.0, control=1e-3, speed=10.0, noise=5e-3, normal=False),
    "HalfCheetah-v4": Task("half_cheetah.xml", skip=5, alive=0.0, control=0.1, speed=np.inf, noise=0.1, normal=True),
    "Walker2d-v4": Task("walker2d.xml", skip=4, alive=1.0, control=1e-3, speed=10.0, noise=5e-3, normal=False),
    "Ant-v4": Task("ant.xml", 5, alive=1.0, control=0.5, speed=np.inf, noise=0.1, normal=True, hidden=2, lagging=True),
}


def make(spec: Spec, backend: str = "c") -> Env:
    """The task of `spec`, which `registry.spec` knows, as a pure environment that can be restored from observations.

    Args:
        spec: of the host's environment of that name.
        backend: "c", fast on CPUs and not differentiable, or "mjx", for accelerators.

    Raises:
        UserError: the task has no pure version, the backend is unknown, or a package is missing.
    """
    if spec.name not in TASKS:
        raise UserError(
            f"{spec.name} has no pure version, so its true dynamics are not known; give one of {', '.join(TASKS)}"
        )
    task = TASKS[spec.name]
    advance = engines.engine(backend, task.xml, task.skip, task.lagging)
    model = engines.load(task.xml)
    pose, nq, nv = np.array(model.qpos0), int(model.nq), int(model.nv)
    seconds = task.skip * float(model.opt.timestep)

    def observe(state: State, speed: float) -> Array:
        """Everything but the hidden positions, with velocities limited to `speed`."""
        return jnp.concatenate([state.qpos[task.hidden :], jnp.clip(state.qvel, -speed, speed)])

    def begin(qpos: Array, qvel: Array) -> State:
        lag = jnp.zeros_like(qpos[..., 0]) if task.lagging else None
        return State(qpos, qvel, jnp.zeros(qpos.shape[:-1], jnp.int32), lag)

    def reset(key: Key) -> tuple[State, Array]:
        qpos_key, qvel_key = jax.random.split(key)
        draw = jax.random.normal if task.normal else _uniform
        qpos = jnp.asarray(pose) + task.noise * _uniform(qpos_key, (nq,))
        state = begin(qpos, task.noise * draw(qvel_key, (nv,)))
        return state, observe(state, task.speed)

    def step(state: State, action: Array, key: Key) -> tuple[State, Timestep]:
        del key  # deterministic
        qpos, qvel, x = advance(state.qpos.at[: task.hidden].set(0.0), state.qvel, action)
        moved = qpos.at[: task.hidden].add(state.qpos[: task.hidden])
        lag = None if state.lag is None else x - qpos[0]
        covered = x if state.lag is None else x - state.lag
        after = State(moved, qvel, state.steps + 1, lag)
        reward = covered / seconds + task.alive - task.control * jnp.sum(action**2)
        # The rule reads velocities that are not yet limited: hopper's ends the episode at 100.
        terminated = spec.is_terminal(observe(after, np.inf))
        truncated = ~terminated & (after.steps >= spec.horizon)
        valid = jnp.ones((), bool)
        return after, Timestep(observe(after, task.speed), reward, terminated, truncated, valid)

    def restore(obs: Array, sim_state: tuple[Array, Array] | None = None) -> State:
        qpos, qvel = _unobserve(obs, nq, task.hidden) if sim_state is None else sim_state
        if (qpos.shape[-1], qvel.shape[-1]) != (nq, nv):
            raise UserError(_misfit(spec, (nq, nv), obs, sim_state))
        return begin(jnp.asarray(qpos), jnp.asarray(qvel))

    return Env(spec, reset, step, restore)


def _uniform(key: Key, shape: tuple[int, ...]) -> Array:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def _unobserve(obs: Array, nq: int, hidden: int) -> tuple[Array, Array]:
    """The (qpos, qvel) behind an observation.

    The hidden positions are set to 0, which changes nothing but `State.qpos[:hidden]`. In hopper and walker2d a
    velocity that was observed as 10 or -10 may have been larger: the state found is then another, slower one.
    """
    lost = jnp.zeros_like(obs[..., :hidden])
    return jnp.concatenate([lost, obs[..., : nq - hidden]], axis=-1), obs[..., nq - hidden :]


def _misfit(spec: Spec, sizes: tuple[int, int], obs: Array, sim_state: tuple[Any, Any] | None) -> str:
    what = f"observations of {obs.shape[-1]} numbers; expected {spec.obs_dim}"
    if sim_state is not None:
        found = (sim_state[0].shape[-1], sim_state[1].shape[-1])
        what = f"stored states of (qpos, qvel) sizes {found}; expected {sizes}"
    return f"{spec.name} cannot be restored from {what}; use data collected in {spec.name}"
