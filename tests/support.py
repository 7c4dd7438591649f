"""What several tests need: training without a run directory, and data sets from pure environments."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_suite.envs.autoreset import autoreset
from jaxrl_suite.train.compose import chunk, population
from jaxrl_suite.train.loop import arguments
from jaxrl_suite.types import Dataset, Transition


def train(algorithm, data, seeds=(0,)):
    """All phases of an algorithm, as the loop runs them -> the last population and its metrics."""
    previous = None
    for index, phase in enumerate(algorithm.phases):
        whole = population(phase)
        state = jax.jit(whole.init)(*arguments(algorithm, seeds, data, index, previous))
        program = chunk(whole)
        for _ in range(phase.ticks // phase.chunk):
            state, metrics = program.run(state, data)
        assert len(program.traces) == 1
        previous = jax.jit(whole.result)(state)
    return state, metrics


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
