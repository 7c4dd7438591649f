"""The deterministic actor-critic that TD3+BC, ReBRAC and their relatives share: TD3 (Fujimoto et al. 2018,
arXiv 1802.09477) on the rows of a data set.

    a' = clip(pibar(s') + eps, -1, 1),   eps = clip(N(0, noise^2), -noise_clip, noise_clip),
    y = r + gamma d (min_j Qbar_j(s', a') - penalty),   loss = sum_i mean (Q_i(s, a) - y)^2,

and after every `delay`-th of these updates, on the same rows, one of the actor, and one step of the target actor and
the target critics towards their online networks. `updates` counts those of the critics.

Deviations: networks begin as EDAC's do (bounds from the fan-out, biases of 0.1, narrow heads), for TD3 has PyTorch's
defaults; rows are drawn with replacement, and the last rows of episodes that ran out of time are kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl_suite import nets
from jaxrl_suite.algorithms import networks, offline
from jaxrl_suite.algorithms.actor_critic import ADAM, adam_step
from jaxrl_suite.algorithms.head_options import HeadOptions
from jaxrl_suite.types import Algorithm, Array, Dataset, Key, Metrics, Spec, Tree
from jaxrl_suite.values import ensemble, heads


@dataclass(frozen=True)
class Config(HeadOptions, offline.Config):
    """What every deterministic actor-critic sets."""

    normalise: bool = True
    """Standardise observations by the data set's mean and standard deviation."""
    critics: int = 2
    """Number of critics."""
    layer_norm: bool = False
    """Layer normalisation in the critics."""
    precision: nets.Precision = "float32"
    """Matrix products of actor and critics: float32, or bfloat16 factors with float32 parameters and sums."""
    delay: int = 2
    """Updates of the critics to one of the actor."""
    gamma: float = 0.99
    """Discount per step."""
    tau: float = 0.005
    """Share of the online networks in each update of the target networks."""
    actor_lr: float = 3e-4
    """Adam's step size for the actor."""
    critic_lr: float = 3e-4
    """Adam's step size for the critics."""
    noise: float = 0.2
    """Standard deviation of the noise on the target actor's actions."""
    noise_clip: float = 0.5
    """Bound of that noise."""


@struct.dataclass
class Hypers:
    """Traced scalars, under the names that the Config has for them."""

    gamma: Any
    tau: Any
    actor_lr: Any
    critic_lr: Any
    noise: Any
    noise_clip: Any


class State(NamedTuple):
    """Everything that learns."""

    actor: Tree
    critic: Tree  # leaves [critics, ...]
    target_actor: Tree
    target_critic: Tree
    actor_opt: Tree
    critic_opt: Tree
    support: Tree
    hypers: Any


class Idea(NamedTuple):
    """What a paper changes."""

    trusted: Callable[[Array], Array]  # values [critics, batch] -> the ones that the actor climbs [batch]
    actor_loss: Callable[[Any, Array, Array, Array], Array]  # (hypers, those values, pi(s), the data's actions)
    # (hypers, a' [batch, action_dim], rows) -> what is taken off the next value [batch]
    penalty: Callable[[Any, Array, Dataset], Array] = lambda hypers, next_action, rows: jnp.zeros(len(next_action))


def smoothed(action: Array, key: Key, noise: Array, clip: Array) -> Array:
    """TD3's smoothing of targets: the target actor's action with clipped noise, within [-1, 1]."""
    eps = jnp.clip(noise * jax.random.normal(key, action.shape), -clip, clip)
    return jnp.clip(action + eps, -1.0, 1.0)


def make(spec: Spec, config: Config, kind: Callable[..., Any], idea: Idea) -> Algorithm:
    """A deterministic actor-critic for `spec`; `kind` is the class of its Hypers."""
    head = heads.make(config.value_head())
    actor = networks.policy(spec, config.hidden, config.precision)
    critics = networks.critics(
        spec, config.hidden, config.critics, head, config.precision, scalar=False, layer_norm=config.layer_norm
    )

    def pi(weights: Tree, obs: Array) -> Array:
        return jnp.tanh(actor.apply(weights, obs)["mean"])

    def init(key: Key, hypers: Any, data: Dataset) -> State:
        actor_key, critic_key = jax.random.split(key)
        support = head.support(data.mc_return)
        actor_weights, critic_weights = actor.init(actor_key), critics.init(critic_key, support)
        return State(
            actor=actor_weights,
            critic=critic_weights,
            target_actor=actor_weights,
            target_critic=critic_weights,
            actor_opt=ADAM.init(actor_weights),
            critic_opt=ADAM.init(critic_weights),
            support=support,
            hypers=jax.tree.map(jnp.float32, hypers),
        )

    def target(state: State, rows: Dataset, key: Key) -> Any:
        """y, the same for every critic."""
        batch, hypers = rows.transitions, state.hypers
        action = smoothed(pi(state.target_actor, batch.next_obs), key, hypers.noise, hypers.noise_clip)
        next_logits = critics.logits(state.target_critic, batch.next_obs, action)
        goal = ensemble.combine(head, next_logits, state.support, "min")
        shift = -idea.penalty(hypers, action, rows)
        return head.target(batch.reward, hypers.gamma * batch.discount, goal, shift, state.support)

    def critic_loss(weights: Tree, state: State, rows: Dataset, goal: Any) -> tuple[Array, Metrics]:
        """Sum over critics of the mean loss."""
        logits = critics.logits(weights, rows.transitions.obs, rows.transitions.action)
        loss = jnp.sum(jnp.mean(head.loss(logits, goal, state.support), axis=-1))
        return loss, {"bellman": loss / config.critics, **head.measure(logits, goal, state.support)}

    def actor_loss(weights: Tree, state: State, rows: Dataset) -> tuple[Array, Metrics]:
        """The idea's."""
        batch = rows.transitions
        action = pi(weights, batch.obs)
        q = idea.trusted(critics.values(state.critic, state.support, batch.obs, action))
        distance = jnp.mean(jnp.square(action - batch.action))
        return idea.actor_loss(state.hypers, q, action, batch.action), {"q_mean": jnp.mean(q), "bc_mse": distance}

    def update(state: State, rows: Dataset, key: Key) -> tuple[State, Metrics]:
        goal = target(state, rows, key)
        grads, metrics = jax.grad(critic_loss, has_aux=True)(state.critic, state, rows, goal)
        weights, opt = adam_step(grads, state.critic_opt, state.critic, state.hypers.critic_lr)
        return state._replace(critic=weights, critic_opt=opt), metrics

    def delayed(state: State, rows: Dataset, key: Key) -> tuple[State, Metrics]:
        hypers = state.hypers
        grads, metrics = jax.grad(actor_loss, has_aux=True)(state.actor, state, rows)
        weights, opt = adam_step(grads, state.actor_opt, state.actor, hypers.actor_lr)
        state = state._replace(
            actor=weights,
            actor_opt=opt,
            target_actor=optax.incremental_update(weights, state.target_actor, hypers.tau),
            target_critic=optax.incremental_update(state.critic, state.target_critic, hypers.tau),
        )
        return state, metrics

    def q_value(state: State, obs: Array, action: Array) -> Array:
        return idea.trusted(critics.values(state.critic, state.support, obs, action))

    learner = offline.Learner(
        init, update, lambda state, obs: pi(state.actor, obs), q_value, delayed=delayed, delay=config.delay
    )
    hypers = kind(**{item.name: getattr(config, item.name) for item in dataclasses.fields(kind)})  # type: ignore[arg-type]
    return offline.make(config, learner, hypers, normalise=config.normalise)
