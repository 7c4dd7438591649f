"""MBPO: model-based policy optimisation, online (Janner et al. 2019, arXiv 1906.08253), in a pure environment.

MuJoCo's tasks step as their pure versions (`registry.pure`, C engine): nothing is left to a loop on the host. The same
on envpool, with such a loop, is `mbpo_host`.

Every `period` environment steps the model is fitted to all experience and branches rollouts from states of it; their
length follows k = clip(floor(a + (epoch - e0) / (e1 - e0) (b - a)), a, b). After every environment step come `utd`
updates of the maximum-entropy actor-critic (`actor_critic`), on batches with a fixed share of real rows. Any
environment step, fit, rollout and update is inside one jitted tick, so that seeds run side by side.

Deviations: epochs count the steps of exploration, which theirs come after; a fit has a fixed number of steps (the
authors stop early, which would keep seeds from running together) and goes on from the last fit's weights; every fifth
row is held out, for ever, and ranks the members; a member's bootstrap is drawn anew for each fit; rollouts have the
longest length and are masked. Drawn are the last rows, as many as `retain` refreshes hold at the present length: where
rollouts end early, or were shorter before, these are some refreshes more. With real_ratio=1 there is no model: SAC with
`utd` updates per step. `layer_norm`, which the authors do without, keeps values from running away where there are many
updates per step; other value heads than squared error are ours, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_suite import buffer
from jaxrl_suite.algorithms import actor_critic
from jaxrl_suite.algorithms.actor_critic import Hypers
from jaxrl_suite.algorithms.mbpo_online_config import PRESETS, Config, check
from jaxrl_suite.algorithms.online import interact, truncated_linear
from jaxrl_suite.envs import registry
from jaxrl_suite.envs.autoreset import autoreset
from jaxrl_suite.models import imagine, refit
from jaxrl_suite.types import Algorithm, Array, Key, Metrics, Phase, Spec, Transition, Tree

__all__ = ["PRESETS", "Config", "Parts", "State", "make", "parts"]


class State(NamedTuple):
    """The learner, its model, what it saw and imagined, and where its environments stand."""

    agent: actor_critic.State
    model: refit.Fitted
    replay: buffer.Buffer
    imagined: buffer.Buffer
    obs: Array  # [envs, obs_dim] what the next action is for
    env: Tree  # states of pure environments; for those on the host, all actions so far
    step: Array  # [] environment steps so far
    key: Key


class Parts(NamedTuple):
    """What a tick does, one after another."""

    fit: Callable[[State], tuple[State, Metrics]]
    dream: Callable[[State], State]
    learn: Callable[[State], tuple[State, Metrics]]  # `period` environment steps with their updates
    improve: Callable[[State, Key], tuple[State, Metrics]]  # the updates that follow a step of every environment
    refresh: Callable[[State], tuple[State, Metrics]]  # fit, then dream


def parts(spec: Spec, config: Config, ac: actor_critic.ActorCritic) -> Parts:
    """The pure functions of a tick."""
    model, refits = refit.make(spec, config.dynamics, config.fit)

    def fit(state: State) -> tuple[State, Metrics]:
        key, fit_key = jax.random.split(state.key)
        fitted, metrics = refits.fit(state.model, state.replay, fit_key)
        return state._replace(model=fitted, key=key), metrics

    def length(state: State) -> Array:
        return truncated_linear(state.step // config.epoch, config.horizon_epochs, config.horizon)

    def dream(state: State) -> State:
        key, start_key, rollout_key = jax.random.split(state.key, 3)
        starts, k = buffer.sample(state.replay, start_key, config.rollouts).obs, max(config.horizon)
        policy = lambda obs, key: ac.policy(state.agent, obs, key)  # noqa: E731
        rollout, valid = imagine.imagine(model, state.model.params, policy, starts, starts, k, rollout_key)
        valid &= jnp.arange(k)[:, None] < length(state)
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rollout)
        return state._replace(imagined=buffer.insert(state.imagined, flat, valid.reshape(-1)), key=key)

    def mixed(state: State, key: Key) -> Transition:
        """Real rows first, then rows of the last refreshes."""
        real_key, imagined_key = jax.random.split(key)
        window = jnp.minimum(config.rollouts * length(state) * config.retain, jnp.maximum(state.imagined.size, 1))
        back = jax.random.randint(imagined_key, (config.batch - config.real,), 1, window + 1)
        slots = (state.imagined.head - back) % state.imagined.data.reward.shape[0]
        return buffer.share(buffer.sample(state.replay, real_key, config.real), buffer.take(state.imagined.data, slots))

    def improve(state: State, key: Key) -> tuple[State, Metrics]:
        def update(agent: actor_critic.State, key: Key) -> tuple[actor_critic.State, Metrics]:
            batch_key, update_key = jax.random.split(key)
            return ac.update(agent, mixed(state, batch_key), update_key)

        agent, metrics = jax.lax.scan(update, state.agent, jax.random.split(key, config.utd * config.envs))
        return state._replace(agent=agent), jax.tree.map(jnp.mean, metrics)

    def learn(state: State) -> tuple[State, Metrics]:
        world = autoreset(registry.pure(spec.name))

        def one(state: State, key: Key) -> tuple[State, Metrics]:
            act_key, learn_key = jax.random.split(key)
            state = interact(world, state, lambda obs, key: ac.policy(state.agent, obs, key), act_key)
            return improve(state, learn_key)

        key, scan_key = jax.random.split(state.key)
        state, metrics = jax.lax.scan(one, state, jax.random.split(scan_key, config.period // config.envs))
        return state._replace(key=key), {**jax.tree.map(jnp.mean, metrics), "horizon": length(state) * 1.0}

    def refresh(state: State) -> tuple[State, Metrics]:
        state, metrics = fit(state)
        return dream(state), metrics

    return Parts(fit, dream, learn, improve, refresh)


def begin(
    spec: Spec, config: Config, ac: actor_critic.ActorCritic, key: Key, hypers: Hypers, world: Callable[[Key], tuple]
) -> State:
    """A State without rows; `world` is key -> states of the environments, first observations `[envs, obs_dim]`."""
    agent_key, model_key, env_key, key = jax.random.split(key, 4)
    _, refits = refit.make(spec, config.dynamics, config.fit)
    env, obs = world(env_key)
    row = Transition(obs[0], jnp.zeros(spec.action_dim), jnp.zeros(()), jnp.zeros(()), obs[0])
    capacity = config.rollouts * max(config.horizon) * config.retain
    replay, imagined = buffer.empty(row, config.steps), buffer.empty(row, capacity)
    return State(
        ac.init(agent_key, hypers, None), refits.init(model_key), replay, imagined, obs, env, jnp.int32(0), key
    )


def anything(spec: Spec, config: Config, key: Key) -> Array:
    """A random action of every environment."""
    return jax.random.uniform(key, (config.envs, spec.action_dim), minval=-1.0, maxval=1.0)


def algorithm(config: Config, ac: actor_critic.ActorCritic, phases: tuple[Phase, ...]) -> Algorithm:
    """These phases, whose State is this file's, and its learner's functions."""
    return Algorithm(
        phases=phases,
        hypers=Hypers(config.gamma, config.tau, *(config.learning_rate,) * 3),
        act=lambda state, carry, obs, key: ac.act(state.agent, carry, obs, key),
        sample=lambda state, obs, key: ac.policy(state.agent, obs, key),
        q_value=lambda state, obs, action: ac.q_value(state.agent, obs, action),
        q_values=lambda state, obs, action: ac.values(state.agent, obs, action),  # type: ignore[misc]
    )


def make(spec: Spec, config: Config) -> Algorithm:
    """MBPO in the pure environment of `spec`.

    Raises:
        UserError: the environment needs a package that is missing, or `check` refuses the config.
    """
    check(config)
    ac = actor_critic.make(spec, config.actor_critic())
    world, tick = autoreset(registry.pure(spec.name)), parts(spec, config, ac)
    ticks = (config.steps - config.explore) // config.period

    def init(key: Key, hypers: Hypers, data: Any, previous: Tree) -> State:
        reset = lambda key: jax.vmap(world.reset)(jax.random.split(key, config.envs))  # noqa: E731
        return begin(spec, config, ac, key, hypers, reset)

    def explore(state: State, data: Any) -> tuple[State, Metrics]:
        key, scan_key = jax.random.split(state.key)
        policy = lambda obs, key: anything(spec, config, key)  # noqa: E731
        step = lambda state, key: (interact(world, state, policy, key), ())  # noqa: E731
        state, _ = jax.lax.scan(step, state, jax.random.split(scan_key, config.explore // config.envs))
        return state._replace(key=key), {"rows": state.replay.size * 1.0}

    def train(state: State, data: Any) -> tuple[State, Metrics]:
        state, fitted = tick.refresh(state) if config.real < config.batch else (state, {})
        state, metrics = tick.learn(state)
        return state, {**metrics, **fitted}

    kept = lambda key, hypers, data, previous: previous  # noqa: E731
    often = max(1, ticks // config.evaluations)
    phases = (
        Phase("explore", 1, 0, 1, init, explore),
        Phase("train", ticks, config.utd * config.period, 1, kept, train, evaluate_every=often),
    )
    return algorithm(config, ac, phases)
