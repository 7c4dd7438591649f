"""SAC: soft actor-critic, online (Haarnoja et al. 2018, arXiv 1812.05905).

Equations: 3 (soft target with the least of two target critics), 7 (actor), 18 (temperature); see `actor_critic`.

Deviations: several environments step together, and as many gradient updates follow as environments stepped, so the
update-to-data ratio stays 1. Networks start as in RAVL's code rather than with the authors' defaults. Time-outs do not
terminate: the value of a truncated episode's last state is bootstrapped.

The value head is for Python callers: no command reaches it, and `experiments.collect` trains with mse. The arms sac and
sac-utd of `experiments.ensemble_vs_lipschitz`, which take --head, are `mbpo_online` without a model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_suite import buffer
from jaxrl_suite.algorithms import actor_critic, online
from jaxrl_suite.algorithms.actor_critic import ActorCriticConfig, Hypers
from jaxrl_suite.algorithms.head_options import OnlineHeadOptions
from jaxrl_suite.algorithms.lipschitz_options import LipschitzOptions
from jaxrl_suite.envs import registry
from jaxrl_suite.envs.autoreset import autoreset
from jaxrl_suite.errors import UserError
from jaxrl_suite.types import Algorithm, Array, Key, Metrics, Phase, Spec, Timestep, Transition, Tree
from jaxrl_suite.values import heads


@dataclass(frozen=True)
class Config(LipschitzOptions, OnlineHeadOptions):
    """Online SAC."""

    steps: int = 100_000
    """Environment steps in all, exploration included."""
    envs: int = 8
    """Environments that step together, and gradient updates after each such step."""
    explore: int = 5_000
    """Environment steps with uniformly random actions before training starts."""
    chunk: int = 5_000
    """Environment steps between two evaluations."""
    evaluate: bool = True
    """Evaluate the policy after every chunk."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of actor and critics."""
    critics: int = 2
    """Number of critics."""
    batch: int = 256
    """Transitions per gradient update."""
    gamma: float = 0.99
    """Discount per step."""
    tau: float = 0.005
    """Share of the critic in each update of the target critic."""
    learning_rate: float = 3e-4
    """Adam's step size, for actor, critics and temperature."""


PRESETS = {
    "smoke": replace(Config(), steps=600, explore=200, chunk=200, hidden=(32, 32)),
    "quick": Config(),
    "paper": replace(Config(), steps=1_000_000, envs=1, explore=10_000, chunk=10_000),
}


class State(NamedTuple):
    """The learner, its experience and where its environments stand."""

    agent: actor_critic.State
    replay: buffer.Buffer
    obs: Array  # [envs, obs_dim] what the next action is for
    env: Tree  # states of pure environments; () when the host keeps them
    actions: Array  # [ticks, envs, action_dim] every action so far: replaying it rebuilds a host environment
    tick: Array
    key: Key


def make(spec: Spec, config: Config) -> Algorithm:
    """SAC on a pure environment, inside the tick, or on a host environment, which the loop steps between ticks.

    Raises:
        UserError: steps that are no whole chunks of all environments, or a head that needs ends of its support.
    """
    check(config)
    heads.require_ends(config.value_head())
    shape = ActorCriticConfig(
        config.critics, config.hidden, config.batch, config.value_head(), lipschitz=config.smoothness()
    )
    ac = actor_critic.make(spec, shape)
    world = autoreset(registry.make(spec.name)) if registry.is_pure(spec.name) else None
    ticks_explore, ticks_all = config.explore // config.envs, config.steps // config.envs

    def init(key: Key, hypers: Hypers, data: Any, previous: Tree) -> State:
        """`data` holds the first observations `[envs, obs_dim]` of a host environment; a pure one resets here."""
        agent_key, env_key, key = jax.random.split(key, 3)
        env_state, obs = (), data
        if world:
            env_state, obs = jax.vmap(world.reset)(jax.random.split(env_key, config.envs))
        row = Transition(obs[0], jnp.zeros(spec.action_dim), jnp.zeros(()), jnp.zeros(()), obs[0])
        return State(
            agent=ac.init(agent_key, hypers, None),
            replay=buffer.empty(row, config.steps),
            obs=obs,
            env=env_state,
            actions=jnp.zeros((ticks_all, config.envs, spec.action_dim)),
            tick=jnp.int32(0),
            key=key,
        )

    def choose(state: State, explore: bool) -> tuple[State, Array]:
        key, action_key = jax.random.split(state.key)
        if explore:
            action = jax.random.uniform(action_key, (config.envs, spec.action_dim), minval=-1.0, maxval=1.0)
        else:
            action = ac.policy(state.agent, state.obs, action_key)
        # A diverged policy must not send NaN into a simulator.
        action = jnp.nan_to_num(action)
        return state._replace(key=key, actions=state.actions.at[state.tick].set(action)), action

    def remember(state: State, action: Array, timestep: Timestep) -> State:
        return online.remember(state, action, timestep)._replace(tick=state.tick + 1)

    def interact(state: State, explore: bool, data: Any) -> State:
        """One step of every environment: on the host (`data` is its answer) or in the pure environment."""
        if world is None:
            action, timestep = data
            return remember(state, action, timestep)._replace(obs=timestep.obs)
        state, action = choose(state, explore)
        key, step_key = jax.random.split(state.key)
        env_state, timestep = jax.vmap(world.step)(state.env, action, jax.random.split(step_key, config.envs))
        return remember(state, action, timestep)._replace(obs=env_state.obs, env=env_state, key=key)

    def explore(state: State, data: Any) -> tuple[State, Metrics]:
        state = interact(state, True, data)
        return state, {"rows": state.replay.size.astype(jnp.float32)}

    def train(state: State, data: Any) -> tuple[State, Metrics]:
        state = interact(state, False, data)

        def learn(agent: actor_critic.State, key: Key) -> tuple[actor_critic.State, Metrics]:
            sample_key, update_key = jax.random.split(key)
            return ac.update(agent, buffer.sample(state.replay, sample_key, config.batch), update_key)

        key, learn_key = jax.random.split(state.key)
        agent, metrics = jax.lax.scan(learn, state.agent, jax.random.split(learn_key, config.envs))
        return state._replace(agent=agent, key=key), jax.tree.map(jnp.mean, metrics)

    def phase(name: str, ticks: int, updates: int, exploring: bool) -> Phase:
        return Phase(
            name=name,
            ticks=ticks,
            updates_per_tick=updates,
            chunk=min(config.chunk // config.envs, ticks),
            init=init if exploring else lambda key, hypers, data, previous: previous,
            update=explore if exploring else train,
            evaluate_every=1 if config.evaluate and not exploring else 0,
            request=None if world else lambda state: choose(state, exploring),
            actions=None if world else lambda state: (state.actions, state.tick),
        )

    hypers = Hypers(config.gamma, config.tau, config.learning_rate, config.learning_rate, config.learning_rate)
    return Algorithm(
        phases=(
            phase("explore", ticks_explore, 0, True),
            phase("train", ticks_all - ticks_explore, config.envs, False),
        ),
        hypers=hypers,
        act=lambda state, carry, obs, key: ac.act(state.agent, carry, obs, key),
        sample=lambda state, obs, key: ac.policy(state.agent, obs, key),
        q_value=lambda state, obs, action: ac.q_value(state.agent, obs, action),
    )


def check(config: Config, option: str = "--steps") -> None:
    """Refuse steps that would not all be taken; `option` is the name under which they were given.

    Raises:
        UserError: so it is.
    """
    if config.explore >= config.steps:
        raise UserError(
            f"{option}={config.steps} leaves nothing after {config.explore} steps of exploration; give more"
        )
    after = config.steps - config.explore
    whole = [part % min(config.chunk, part) == 0 and part % config.envs == 0 for part in (config.explore, after)]
    if not all(whole) or config.chunk % config.envs:
        raise UserError(
            f"{option}={config.steps}: expected {config.explore} steps of exploration and, beyond, a multiple of the "
            f"chunk of {config.chunk} or less than it, all of them multiples of the {config.envs} environments; give "
            f"{option}={config.explore + max(1, round(after / config.chunk)) * config.chunk}, say"
        )
