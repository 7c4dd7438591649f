"""Episodes one after another in a pure environment."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_suite.types import Array, Env, Key, Timestep, Tree


class AutoState(NamedTuple):
    """The environment's state and what the next action is for."""

    inner: Tree  # EnvState of the wrapped environment; freshly reset if the last step ended an episode
    obs: Array  # [obs_dim] its observation


def autoreset(env: Env) -> Env:
    """`env` that starts its next episode by itself, without a step lost.

    The Timestep of an ending step holds the true last observation; the first one of the next episode is
    `state.obs` only. So a learner stores `timestep.obs` as the successor and acts on `state.obs`.
    """

    def reset(key: Key) -> tuple[AutoState, Array]:
        inner, obs = env.reset(key)
        return AutoState(inner, obs), obs

    def step(state: AutoState, action: Array, key: Key) -> tuple[AutoState, Timestep]:
        step_key, reset_key = jax.random.split(key)
        inner, timestep = env.step(state.inner, action, step_key)
        ended = timestep.terminated | timestep.truncated
        going, fresh = AutoState(inner, timestep.obs), AutoState(*env.reset(reset_key))
        # A select and no cond: under vmap a cond would run both branches anyway.
        after = jax.tree.map(lambda new, old: jnp.where(ended, new, old), fresh, going)
        return after, timestep._replace(valid=jnp.ones_like(ended))

    def restore(obs: Array, sim_state: tuple[Array, Array] | None) -> AutoState:
        assert env.restore is not None
        return AutoState(env.restore(obs, sim_state), obs)

    return env._replace(reset=reset, step=step, restore=restore if env.restore else None)
