"""MBPO with environments on the host (envpool): `mbpo_online` whose environment steps are left to the training loop.

The loop steps the environments of all seeds between the two halves of a tick; the model is fitted, and imagines, before
every chunk of `period` environment steps. Config, model, rollouts, batches and updates are those of `mbpo_online`.

Deviation: an environment's reset takes a step of its own, which is no row and is followed by updates like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_suite.algorithms import actor_critic, mbpo_online
from jaxrl_suite.algorithms.actor_critic import Hypers
from jaxrl_suite.algorithms.mbpo_online import State
from jaxrl_suite.algorithms.mbpo_online_config import PRESETS, Config, check
from jaxrl_suite.algorithms.online import remember
from jaxrl_suite.envs import registry
from jaxrl_suite.errors import UserError
from jaxrl_suite.types import Algorithm, Array, Key, Metrics, Phase, Spec, Timestep, Tree

__all__ = ["PRESETS", "Config", "make"]


def make(spec: Spec, config: Config) -> Algorithm:
    """MBPO in the host's environment of `spec`.

    Raises:
        UserError: the environment is a pure one, or `check` refuses the config.
    """
    check(config)
    if registry.is_pure(spec.name):
        raise UserError(f"{spec.name} is a pure environment, which needs no host; leave out --host")
    ac = actor_critic.make(spec, config.actor_critic())
    tick, envs = mbpo_online.parts(spec, config, ac), config.envs
    explored, trained = config.explore // envs, (config.steps - config.explore) // envs

    def init(key: Key, hypers: Hypers, data: Array, previous: Tree) -> State:
        """`data` holds the first observations `[envs, obs_dim]`."""
        log = jnp.zeros((explored + trained, envs, spec.action_dim))
        return mbpo_online.begin(spec, config, ac, key, hypers, lambda key: (log, data))

    def chosen(policy: Callable[[State, Key], Array]) -> Callable[[State], tuple[State, Array]]:
        def request(state: State) -> tuple[State, Array]:
            key, act_key = jax.random.split(state.key)
            # A diverged policy must not send NaN into a simulator.
            action = jnp.nan_to_num(policy(state, act_key))
            return state._replace(key=key, env=state.env.at[state.step // envs].set(action)), action

        return request

    def seen(state: State, data: tuple[Array, Timestep]) -> State:
        return remember(state, *data)._replace(obs=data[1].obs, step=state.step + envs)

    def explore(state: State, data: Any) -> tuple[State, Metrics]:
        state = seen(state, data)
        return state, {"rows": state.replay.size * 1.0}

    def train(state: State, data: Any) -> tuple[State, Metrics]:
        key, learn_key = jax.random.split(state.key)
        return tick.improve(seen(state, data)._replace(key=key), learn_key)

    kept = lambda key, hypers, data, previous: previous  # noqa: E731
    log = lambda state: (state.env, state.step // envs)  # noqa: E731
    chunk = config.period // envs
    random = chosen(lambda state, key: mbpo_online.anything(spec, config, key))
    own = chosen(lambda state, key: ac.policy(state.agent, state.obs, key))
    phases = (
        Phase("explore", explored, 0, explored, init, explore, request=random, actions=log),
        Phase(
            "train",
            trained,
            config.utd * envs,
            chunk,
            kept,
            train,
            evaluate_every=max(1, trained // chunk // config.evaluations),
            request=own,
            actions=log,
            before=tick.refresh if config.real < config.batch else None,
        ),
    )
    return mbpo_online.algorithm(config, ac, phases)
