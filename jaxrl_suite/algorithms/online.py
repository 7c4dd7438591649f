"""What online algorithms share: what a step leaves behind, a step of every pure environment, and schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_suite import buffer
from jaxrl_suite.types import Array, Env, Key, Timestep, Transition


def truncated_linear(at: Array, between: tuple[int, int], ends: tuple[int, int]) -> Array:
    """floor of the line through (between[0], ends[0]) and (between[1], ends[1]), kept within the ends: int32 `[]`.

    In whole numbers: a quotient in float32 may fall just short of what it should reach.
    """
    span = max(between[1] - between[0], 1)
    line = ends[0] + jnp.asarray((at - between[0]) * (ends[1] - ends[0])) // span
    return jnp.clip(line, min(ends), max(ends)).astype(jnp.int32)


def random_share(step: Array, explore: int, steps: int, last: Any) -> Array:
    """The probability of a random action: 1 for `explore` steps, then falling linearly to `last` over `steps`."""
    done = jnp.clip((step - explore) / max(steps, 1), 0.0, 1.0)
    return 1.0 + done * (last - 1.0)


def remember(state: Any, action: Array, timestep: Timestep) -> Any:
    """The state, which has obs `[envs, .]` and a replay, with what its environments answered to `action` as rows."""
    rows = Transition(state.obs, action, timestep.reward, 1.0 - timestep.terminated, timestep.obs)
    return state._replace(replay=buffer.insert(state.replay, rows, timestep.valid))


def interact(world: Env, state: Any, policy: Callable[[Array, Key], Array], key: Key) -> Any:
    """One step of every environment of a state that has obs `[envs, .]`, env, replay and step; the replay gets it."""
    act_key, step_key = jax.random.split(key)
    envs = state.obs.shape[0]
    # A diverged policy must not send NaN into a simulator.
    action = jnp.nan_to_num(policy(state.obs, act_key))
    env, timestep = jax.vmap(world.step)(state.env, action, jax.random.split(step_key, envs))
    return remember(state, action, timestep)._replace(obs=env.obs, env=env, step=state.step + envs)
