"""The maximum-entropy actor-critic that SAC, RAVL and their relatives share.

Haarnoja et al. 2018 (SAC, arXiv 1812.05905) with N critics: every critic regresses on one target that uses the least
of the N target critics. N = 2 is SAC; more critics and a diversity weight make EDAC's critic (An et al. 2021).
One update is: temperature, actor, critics, target critics, in this order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_suite import distributions
from jaxrl_suite.algorithms import networks
from jaxrl_suite.algorithms.actor_critic_config import ActorCriticConfig, Hypers
from jaxrl_suite.errors import UserError
from jaxrl_suite.types import Array, Key, Metrics, Spec, Transition, Tree
from jaxrl_suite.values import ensemble, heads, lipschitz


class State(NamedTuple):
    """Everything that learns."""

    actor: Tree
    critic: Tree  # leaves [critics, ...]
    target_critic: Tree
    log_alpha: Array
    actor_opt: Tree
    critic_opt: Tree
    alpha_opt: Tree
    support: Tree
    hypers: Any  # Hypers, or a kind of it that has more
    norms: Tree = ()  # what the constraint on the critics' layers remembers


class ActorCritic(NamedTuple):
    """The pure functions of an actor-critic of one shape."""

    init: Callable[[Key, Hypers, Any], State]  # (key, hypers, returns for the head's support)
    update: Callable[[State, Transition, Key], tuple[State, Metrics]]
    policy: Callable[[State, Array, Key], Array]  # a sampled action [batch, action_dim]
    act: Callable[[State, Tree, Array, Key], tuple[Array, Tree]]  # the deterministic action
    q_value: Callable[[State, Array, Array], Array]  # the estimate that the actor follows [batch]
    values: Callable[[State, Array, Array], Array] | None = None  # those of all critics [critics, batch]


class Parts(NamedTuple):
    """What a term of the critics' loss may be built from."""

    pi: Callable[[Tree, Array], distributions.TanhNormal]  # (actor weights, obs) -> the policy
    critics: networks.Critics


# (critic weights, State, batch, key) -> a term of the critics' loss, summed over critics, and metrics
Term = Callable[[Tree, State, Transition, Key], tuple[Array, Metrics]]

ADAM = optax.scale_by_adam()


def adam_step(grads: Tree, opt: Tree, params: Tree, lr: Array) -> tuple[Tree, Tree]:
    """One Adam step of a traced size `lr` -> (params, optimiser state)."""
    direction, opt = ADAM.update(grads, opt)
    return jax.tree.map(lambda p, d: p - lr * d, params, direction), opt


def make(
    spec: Spec,
    config: ActorCriticConfig,
    *,
    diverse: bool = False,
    term: Callable[[Parts], Term] | None = None,
) -> ActorCritic:
    """An actor-critic for `spec`.

    `diverse` adds `hypers.diversity` times EDAC's term to the critics' loss, and `term` adds what it returns.

    Raises:
        UserError: no critic, an unknown head or aggregate, or settings that do not go together.
    """
    if config.critics < 1:
        raise UserError(f"--critics={config.critics} leaves no value to follow; give at least 1")
    if config.target_min is not None:
        heads.require_scalar(config.head, "a lower bound of the targets")
    constraint = lipschitz.constraint(config.lipschitz, config.layer_norm)
    head = heads.make(config.head)
    trusted = ensemble.aggregate(config.aggregate, head)
    actor = networks.actor(spec, config.hidden, config.precision)
    scalar = config.head.name == "mse"
    critics = networks.critics(
        spec, config.hidden, config.critics, head, config.precision, scalar=scalar, layer_norm=config.layer_norm
    )
    schedule = optax.cosine_decay_schedule(1.0, config.anneal) if config.anneal else lambda count: 1.0

    def pi(weights: Tree, obs: Array) -> distributions.TanhNormal:
        out = actor.apply(weights, obs)
        return distributions.tanh_normal(out["mean"], out["log_std"])

    more = term(Parts(pi, critics)) if term else lambda weights, state, batch, key: (jnp.zeros(()), {})
    more = lipschitz.added(config.lipschitz, critics.values, more, config.critics)

    def init(key: Key, hypers: Hypers, returns: Any) -> State:
        actor_key, critic_key, norms_key = jax.random.split(key, 3)
        actor_weights, support = actor.init(actor_key), head.support(returns)
        critic_weights, norms = constraint.start(critics.init(critic_key, support), norms_key)
        return State(
            actor=actor_weights,
            critic=critic_weights,
            target_critic=critic_weights,
            log_alpha=jnp.zeros(()),
            actor_opt=ADAM.init(actor_weights),
            critic_opt=ADAM.init(critic_weights),
            alpha_opt=ADAM.init(jnp.zeros(())),
            support=support,
            hypers=jax.tree.map(jnp.float32, hypers),
            norms=norms,
        )

    def alpha_loss(log_alpha: Array, log_prob: Array) -> Array:
        """SAC equation 18 with log alpha in place of alpha; the target entropy is -|A| unless set."""
        return -log_alpha * jnp.mean(log_prob - config.entropy_below(spec.action_dim))

    def actor_loss(weights: Tree, state: State, obs: Array, key: Key) -> tuple[Array, Metrics]:
        """SAC equation 7 with the least (or the mean) of all N critics."""
        action, log_prob = distributions.sample_and_log_prob(pi(weights, obs), key)
        values = critics.values(state.critic, state.support, obs, action)
        loss = jnp.mean(jnp.exp(state.log_alpha) * log_prob - trusted(values))
        disagreement = jnp.mean(jnp.mean(values, axis=0) - jnp.min(values, axis=0))
        return loss, {"entropy": -jnp.mean(log_prob), "q_mean": jnp.mean(values), "q_disagreement": disagreement}

    def target(state: State, batch: Transition, key: Key) -> Any:
        """SAC equation 3: y = r + gamma d (min_j Q_j(s', a') - alpha log pi(a' | s')), the same for every critic."""
        action, log_prob = distributions.sample_and_log_prob(pi(state.actor, batch.next_obs), key)
        next_logits = critics.logits(state.target_critic, batch.next_obs, action)
        goal = ensemble.combine(head, next_logits, state.support, config.aggregate)
        shift = -jnp.exp(state.log_alpha) * log_prob if config.entropy_backup else jnp.zeros_like(log_prob)
        goal = head.target(batch.reward, state.hypers.gamma * batch.discount, goal, shift, state.support)
        return goal if config.target_min is None else jnp.maximum(goal, config.target_min)

    def alike(weights: Tree, state: State, batch: Transition) -> tuple[Array, Array, Metrics]:
        """Logits, and no term."""
        return critics.logits(weights, batch.obs, batch.action), jnp.zeros(()), {}

    def unlike(weights: Tree, state: State, batch: Transition) -> tuple[Array, Array, Metrics]:
        """Logits, and eta times EDAC's diversity term."""
        logits, gradients = critics.with_gradients(weights, state.support, batch.obs, batch.action)
        similarity = ensemble.diversity(gradients)
        return logits, state.hypers.diversity * similarity, {"similarity": similarity}

    outputs = unlike if diverse else alike

    def critic_loss(weights: Tree, state: State, batch: Transition, goal: Any, key: Key) -> tuple[Array, Metrics]:
        """Sum over critics of the mean loss, plus the terms that were asked for."""
        logits, diversity, metrics = outputs(weights, state, batch)
        bellman = jnp.sum(jnp.mean(head.loss(logits, goal, state.support), axis=-1))
        extra, more_metrics = more(weights, state, batch, key)
        metrics |= {"bellman": bellman / config.critics, **head.measure(logits, goal, state.support), **more_metrics}
        return bellman + diversity + extra, metrics

    def update(state: State, batch: Transition, key: Key) -> tuple[State, Metrics]:
        hypers = state.hypers
        alpha_key, actor_key, target_key, loss_key = jax.random.split(key, 4)

        _, log_prob = distributions.sample_and_log_prob(pi(state.actor, batch.obs), alpha_key)
        grads = jax.grad(alpha_loss)(state.log_alpha, log_prob)
        log_alpha, alpha_opt = adam_step(grads, state.alpha_opt, state.log_alpha, hypers.alpha_lr)
        if config.alpha_max > 0.0:
            log_alpha = jnp.minimum(log_alpha, jnp.log(config.alpha_max))
        state = state._replace(log_alpha=log_alpha, alpha_opt=alpha_opt)

        grads, actor_metrics = jax.grad(actor_loss, has_aux=True)(state.actor, state, batch.obs, actor_key)
        actor_lr = hypers.actor_lr * schedule(state.actor_opt.count)
        weights, actor_opt = adam_step(grads, state.actor_opt, state.actor, actor_lr)
        state = state._replace(actor=weights, actor_opt=actor_opt)

        goal = target(state, batch, target_key)
        grads, critic_metrics = jax.grad(critic_loss, has_aux=True)(state.critic, state, batch, goal, loss_key)
        weights, critic_opt = adam_step(grads, state.critic_opt, state.critic, hypers.critic_lr)
        weights, norms = constraint.apply(weights, state.norms)
        target_critic = optax.incremental_update(weights, state.target_critic, hypers.tau)
        state = state._replace(critic=weights, critic_opt=critic_opt, target_critic=target_critic, norms=norms)
        return state, {"alpha": jnp.exp(log_alpha), **actor_metrics, **critic_metrics}

    def policy(state: State, obs: Array, key: Key) -> Array:
        return distributions.sample_and_log_prob(pi(state.actor, obs), key)[0]

    def act(state: State, carry: Tree, obs: Array, key: Key) -> tuple[Array, Tree]:
        return distributions.mode(pi(state.actor, obs)), carry

    def values(state: State, obs: Array, action: Array) -> Array:
        return critics.values(state.critic, state.support, obs, action)

    def q_value(state: State, obs: Array, action: Array) -> Array:
        return trusted(values(state, obs, action))

    return ActorCritic(init, update, policy, act, q_value, values)
