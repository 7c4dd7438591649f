"""What several tests need: data sets from pure environments."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_suite.envs.autoreset import autoreset
from jaxrl_suite.types import Dataset, Transition


def random_data(env, rows, seed=0):
    """A Dataset of uniformly random actions in a pure environment."""
    world = autoreset(env)

    def step(carry, key):
        state, obs = carry
        action_key, step_key = jax.random.split(key)
        action = jax.random.uniform(action_key, (env.spec.action_dim,), minval=-1.0, maxval=1.0)
        state, timestep = world.step(state, action, step_key)
        row = Transition(obs, action, timestep.reward, 1.0 - timestep.terminated, timestep.obs)
        return (state, state.obs), (row, timestep.terminated | timestep.truncated, timestep.truncated)

    start, key = jax.random.split(jax.random.key(seed))
    _, (rows_, ended, truncated) = jax.jit(
        lambda: jax.lax.scan(step, world.reset(start), jax.random.split(key, rows))
    )()
    episode = np.concatenate([[0], np.cumsum(np.asarray(ended))[:-1]]).astype(np.int32)
    zeros = jnp.zeros_like(rows_.action)
    return Dataset(rows_, zeros, truncated, jnp.asarray(episode), rows_.reward, None)
