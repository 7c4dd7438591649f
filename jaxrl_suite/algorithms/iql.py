"""IQL: offline RL with implicit Q-learning (Kostrikov, Nair and Levine, ICLR 2022, arXiv 2110.06169).

No action outside the data is ever asked for its value. V is an upper expectile of the target critics over the data's
actions, the critics bootstrap from it, and the policy clones the actions that were better than V:

    L_V = mean |expectile - 1(u < 0)| u^2,   u = min_j Qbar_j(s, a) - V(s),
    L_Q = sum_i mean (Q_i(s, a) - r - gamma d V(s'))^2,
    L_pi = -mean min(exp(beta u), 100) log pi(a | s),   pi = N(tanh(mean(s)), std^2), one std for all states.

An update is: V, then the policy with the new V, then the critics with it, then their targets. The policy's step size
falls to zero along a cosine. `deterministic` puts |tanh(mean(s)) - a|^2 in place of -log pi; `scale_rewards` divides
rewards by the range of the episodes' returns and multiplies them by the horizon, as the authors do for locomotion
(values are reported on the scale of the data): both are settings of CORL's on some data sets.

V is a scalar whatever the critics' `head` is: an expectile of their means, regressed as such. Deviations: log std stays
within [-5, 2]; critics and policy begin as EDAC's do; a last episode that the end of the data cut is left out of the
range of returns; the policy has no dropout. The untuned `quick` preset scales rewards, with smaller networks, larger
steps and tau.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl_suite import distributions, nets
from jaxrl_suite.algorithms import networks, offline
from jaxrl_suite.algorithms.actor_critic import ADAM, adam_step
from jaxrl_suite.algorithms.head_options import HeadOptions
from jaxrl_suite.types import Algorithm, Array, Dataset, Key, Metrics, Spec, Transition, Tree
from jaxrl_suite.values import heads

LARGEST_WEIGHT = 100.0


@dataclass(frozen=True)
class Config(HeadOptions, offline.Config):
    """Implicit Q-learning."""

    normalise: bool = True
    """Standardise observations by the data set's mean and standard deviation."""
    scale_rewards: bool = False
    """Divide rewards by the range of the episodes' returns, and multiply them by the horizon."""
    deterministic: bool = False
    """Weight squared distances in place of the log density of a Gaussian policy."""
    critics: int = 2
    """Number of critics."""
    precision: nets.Precision = "float32"
    """Matrix products of all networks: float32, or bfloat16 factors with float32 parameters and sums."""
    gamma: float = 0.99
    """Discount per step."""
    expectile: float = 0.7
    """Which expectile of the critics V is: 0.5 for the mean, towards 1 for the best action of the data."""
    beta: float = 3.0
    """Inverse temperature of the advantages' weights: 0 clones the behaviour."""
    tau: float = 0.005
    """Share of the critics in each update of the target critics."""
    actor_lr: float = 3e-4
    """Adam's step size for the policy, at first."""
    critic_lr: float = 3e-4
    """Adam's step size for the critics."""
    value_lr: float = 3e-4
    """Adam's step size for V."""


SHORT = Config(updates=10_000, evaluations=5, hidden=(128, 128), scale_rewards=True)
QUICK = replace(SHORT, tau=0.01, actor_lr=1e-3, critic_lr=1e-3, value_lr=1e-3)
PRESETS = {
    "smoke": replace(QUICK, updates=100, evaluations=2, hidden=(32, 32)),
    "quick": QUICK,
    "paper": Config(),
}


@struct.dataclass
class Hypers:
    """Traced scalars, under the names that the Config has for them."""

    gamma: Any
    expectile: Any
    beta: Any
    tau: Any
    actor_lr: Any
    critic_lr: Any
    value_lr: Any


class State(NamedTuple):
    """Everything that learns."""

    actor: Tree  # mean: the network's weights; log_std [action_dim]
    critic: Tree  # leaves [critics, ...]
    target_critic: Tree
    value: Tree
    actor_opt: Tree
    critic_opt: Tree
    value_opt: Tree
    support: Tree
    scale: Array  # of the rewards that the critics see
    hypers: Hypers


def expectile_loss(u: Array, expectile: Array) -> Array:
    """Squared errors, those below zero with weight 1 - expectile and the others with weight expectile."""
    return jnp.abs(expectile - (u < 0)) * jnp.square(u)


def weights_of(advantage: Array, beta: Array) -> Array:
    """How much an action counts. The exponent is bounded, for exp of a large one is not finite."""
    return jnp.exp(jnp.minimum(beta * advantage, jnp.log(LARGEST_WEIGHT)))


def reward_scale(data: Dataset, horizon: int) -> Array:
    """horizon / (best - worst return of an episode); 1 where all are alike."""
    total, known = offline.episode_returns(data)
    span = jnp.max(jnp.where(known, total, -jnp.inf)) - jnp.min(jnp.where(known, total, jnp.inf))
    return jnp.where(span > 0, horizon / jnp.where(span > 0, span, 1.0), 1.0)


def make(spec: Spec, config: Config) -> Algorithm:
    """IQL for `spec`. Refuses (UserError) heads whose targets are distributions, which the number V(s') is not."""
    heads.require_scalar(config.value_head(), "IQL, which bootstraps from the number V(s'),")
    if config.scale_rewards:  # the bins are scaled, once the data are known, after the critics begin
        heads.require_even(config.value_head(), "--scale-rewards")
    head = heads.make(config.value_head())
    policy = networks.policy(spec, config.hidden, config.precision)
    critics = networks.critics(spec, config.hidden, config.critics, head, config.precision, scalar=False)
    v = nets.mlp(spec.obs_dim, config.hidden, {"value": 1}, precision=config.precision)
    decay = optax.cosine_decay_schedule(1.0, config.updates)

    def mean_of(actor: Tree, obs: Array) -> Array:
        return jnp.tanh(policy.apply(actor["mean"], obs)["mean"])

    def value_of(weights: Tree, obs: Array) -> Array:
        return v.apply(weights, obs)["value"][..., 0]

    def init(key: Key, hypers: Hypers, data: Dataset) -> State:
        actor_key, critic_key, value_key = jax.random.split(key, 3)
        actor = {"mean": policy.init(actor_key), "log_std": jnp.zeros(spec.action_dim)}
        support = head.support(data.mc_return)
        critic, value = critics.init(critic_key, support), v.init(value_key)
        scale = reward_scale(data, spec.horizon) if config.scale_rewards else jnp.ones(())
        opts = ADAM.init(actor), ADAM.init(critic), ADAM.init(value)
        support = jax.tree.map(lambda end: scale * end, support)
        return State(actor, critic, critic, value, *opts, support, scale, jax.tree.map(jnp.float32, hypers))

    def value_loss(weights: Tree, state: State, obs: Array, q: Array) -> Array:
        """Equation 5."""
        return jnp.mean(expectile_loss(q - value_of(weights, obs), state.hypers.expectile))

    def actor_loss(actor: Tree, batch: Transition, weight: Array) -> Array:
        """Equation 7, with the bound of the authors' code on the weights."""
        mean = mean_of(actor, batch.obs)
        if config.deterministic:
            return jnp.mean(weight * jnp.sum(jnp.square(mean - batch.action), axis=-1))
        return -jnp.mean(weight * distributions.normal_log_prob(mean, actor["log_std"], batch.action))

    def critic_loss(weights: Tree, state: State, batch: Transition, goal: Any) -> tuple[Array, Metrics]:
        """Equation 6, summed over critics."""
        logits = critics.logits(weights, batch.obs, batch.action)
        loss = jnp.sum(jnp.mean(head.loss(logits, goal, state.support), axis=-1))
        return loss, {"bellman": loss / config.critics, **head.measure(logits, goal, state.support)}

    def target(state: State, batch: Transition) -> Any:
        """r + gamma d V(s') as the head takes it: a reward after which nothing comes."""
        goal = state.scale * batch.reward + state.hypers.gamma * batch.discount * value_of(state.value, batch.next_obs)
        nothing = jnp.zeros_like(goal)
        return head.target(goal, nothing, jnp.zeros((*goal.shape, head.size)), nothing, state.support)

    def update(state: State, rows: Dataset, key: Key) -> tuple[State, Metrics]:
        batch, hypers = rows.transitions, state.hypers
        q = jnp.min(critics.values(state.target_critic, state.support, batch.obs, batch.action), axis=0)
        loss, grads = jax.value_and_grad(value_loss)(state.value, state, batch.obs, q)
        value, value_opt = adam_step(grads, state.value_opt, state.value, hypers.value_lr)
        state = state._replace(value=value, value_opt=value_opt)
        advantage = q - value_of(state.value, batch.obs)
        weight = weights_of(advantage, hypers.beta)
        grads = jax.grad(actor_loss)(state.actor, batch, weight)
        actor_lr = hypers.actor_lr * decay(state.actor_opt.count)
        actor, actor_opt = adam_step(grads, state.actor_opt, state.actor, actor_lr)

        grads, fit = jax.grad(critic_loss, has_aux=True)(state.critic, state, batch, target(state, batch))
        critic, critic_opt = adam_step(grads, state.critic_opt, state.critic, hypers.critic_lr)
        target_critic = optax.incremental_update(critic, state.target_critic, hypers.tau)
        state = state._replace(actor=actor, actor_opt=actor_opt, critic=critic, critic_opt=critic_opt)
        metrics = {"value_loss": loss, **fit, "advantage": jnp.mean(advantage)}
        return state._replace(target_critic=target_critic), {**metrics, "weight": jnp.mean(weight)}

    def q_value(state: State, obs: Array, action: Array) -> Array:
        return jnp.min(critics.values(state.critic, state.support, obs, action), axis=0) / state.scale

    learner = offline.Learner(init, update, lambda state, obs: mean_of(state.actor, obs), q_value)
    hypers = Hypers(**{item.name: getattr(config, item.name) for item in dataclasses.fields(Hypers)})
    return offline.make(config, learner, hypers, normalise=config.normalise)
