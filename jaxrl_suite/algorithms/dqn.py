"""DQN: deep Q-learning with any value head, online, in a pure environment of discrete actions (Mnih et al. 2015,
Nature 518, algorithm 1; as classification Farebrother et al. 2024, arXiv 2403.03950).

The update is that of `q_learning`. Actions are uniform with a probability epsilon that falls
linearly from 1 to `epsilon`. Everything is inside one jitted program, so that seeds and step sizes run side by side.

Deviations: several environments step together, then come envs / update_every updates; Adam in place of RMSProp, as in
the second paper; a time-out is no end: the value of a truncated episode's last state is bootstrapped. Defaults are for
small mazes, and ours. It has discrete actions, which the suite's registry of algorithms has no place for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_suite import buffer, nets
from jaxrl_suite.algorithms import q_learning
from jaxrl_suite.algorithms.head_options import HeadOptions
from jaxrl_suite.algorithms.online import interact, random_share
from jaxrl_suite.algorithms.q_learning import Learner
from jaxrl_suite.envs.autoreset import autoreset
from jaxrl_suite.errors import UserError
from jaxrl_suite.types import Array, Env, Key, Metrics, Transition, Tree
from jaxrl_suite.values import heads


@dataclass(frozen=True)
class Config(HeadOptions):
    """DQN."""

    envs: int = 16
    """Environments that step together."""
    explore: int = 2_000
    """Steps with uniformly random actions before training starts, of all environments together."""
    replay: int = 20_000
    """Newest steps that are learnt from."""
    update_every: int = 4
    """Steps for each gradient update."""
    copy_every: int = 100
    """Updates between two copies of the network into the target's."""
    epsilon: float = 0.05
    """Probability of a random action, in the end."""
    epsilon_steps: int = 10_000
    """Steps after exploration in which that probability falls from 1."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers."""
    batch: int = 64
    """Transitions per gradient update."""
    gamma: float = 0.9
    """Discount per step."""
    learning_rate: float = 1e-3
    """Adam's step size."""


@struct.dataclass
class Hypers:
    """What members of one program may differ in."""

    gamma: Any
    learning_rate: Any
    epsilon: Any


class State(NamedTuple):
    """The learner, its experience and where its environments stand."""

    learner: Learner
    replay: buffer.Buffer
    obs: Array  # [envs, obs_dim] what the next action is for
    env: Tree
    step: Array  # [] environment steps so far
    hypers: Hypers
    key: Key


class DQN(NamedTuple):
    """DQN in one environment, as pure functions."""

    hypers: Hypers  # as configured
    init: Callable[[Key, Hypers], State]
    explore: Callable[[State], State]  # all of the random steps
    tick: Callable[[State], tuple[State, Metrics]]  # a step of every environment, and its updates
    values: Callable[[State, Array], Array]  # (state, obs [..., obs_dim]) -> Q [..., actions]


def make(env: Env, config: Config) -> DQN:
    """DQN in `env`, whose actions are the whole numbers below its `action_dim`.

    Raises:
        UserError: sizes do not fit each other, or a head with bins has no support.
    """
    _check(config)
    world, actions = autoreset(env), env.spec.action_dim
    # Outputs begin near zero, so that no action is preferred before anything was learnt.
    outputs, near_zero = q_learning.outputs(actions, config.value_head()), nets.fan_in_uniform(0.3)
    net = nets.mlp(env.spec.obs_dim, config.hidden, outputs, head_init=near_zero)
    learning = q_learning.make(net, actions, config.value_head(), config.copy_every)

    def init(key: Key, hypers: Hypers) -> State:
        net_key, env_key, key = jax.random.split(key, 3)
        places, obs = jax.vmap(world.reset)(jax.random.split(env_key, config.envs))
        row = Transition(obs[0], jnp.int32(0), jnp.zeros(()), jnp.zeros(()), obs[0])
        replay, zero = buffer.empty(row, config.replay), jnp.int32(0)
        # Strongly typed, as a checkpoint brings them back: another type would compile the program again.
        hypers = jax.tree.map(jnp.float32, hypers)
        return State(learning.init(net_key), replay, obs, places, zero, hypers, key)

    def update(state: State, key: Key) -> tuple[State, Metrics]:
        rows = buffer.sample(state.replay, key, config.batch)
        learner, metrics = learning.update(state.learner, rows, 1.0, state.hypers)
        return state._replace(learner=learner), metrics

    def act(state: State, key: Key) -> State:
        def policy(obs: Array, key: Key) -> Array:
            chance_key, action_key = jax.random.split(key)
            anything = jax.random.randint(action_key, (config.envs,), 0, actions)
            share = random_share(state.step, config.explore, config.epsilon_steps, state.hypers.epsilon)
            random = jax.random.uniform(chance_key, (config.envs,)) < share
            return jnp.where(random, anything, jnp.argmax(values(state, obs), axis=-1)).astype(jnp.int32)

        return interact(world, state, policy, key)

    def explore(state: State) -> State:
        key, scan_key = jax.random.split(state.key)
        keys = jax.random.split(scan_key, config.explore // config.envs)
        return jax.lax.scan(lambda state, key: (act(state, key), None), state, keys)[0]._replace(key=key)

    def tick(state: State) -> tuple[State, Metrics]:
        key, act_key, learn_key = jax.random.split(state.key, 3)
        keys = jax.random.split(learn_key, config.envs // config.update_every)
        state, metrics = jax.lax.scan(update, act(state._replace(key=key), act_key), keys)
        return state, jax.tree.map(jnp.mean, metrics)

    def values(state: State, obs: Array) -> Array:
        return learning.values(state.learner, obs)

    return DQN(Hypers(config.gamma, config.learning_rate, config.epsilon), init, explore, tick, values)


def _check(config: Config) -> None:
    heads.require_ends(config.value_head())
    if config.envs % config.update_every or config.explore % config.envs or not config.explore > 0:
        raise UserError(
            f"--envs={config.envs} must be a multiple of --update-every={config.update_every}, and "
            f"--explore={config.explore} a positive multiple of the environments"
        )
    if config.replay < config.envs:
        raise UserError(f"--replay={config.replay} cannot hold a step of --envs={config.envs}; give more")
    if not 0.0 <= config.epsilon <= 1.0:
        raise UserError(f"--epsilon={config.epsilon} is a probability: give a number from 0 to 1")
