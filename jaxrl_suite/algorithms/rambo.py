"""RAMBO: robust adversarial model-based offline RL (Rigter, Lacerda, Hawes 2022, arXiv 2204.12581).

The model is an adversary: before the rollouts of a period it takes steps along rollouts of the policy that lower the
policy's value, while it goes on to fit the data. Each step minimises

    lambda mean [ A log P(s', r | s, a) ] + NLL of real rows + L2,   P = mean over elites of their densities,
    A = r + gamma d min_j Q_j(s', pi(s')) - min_j Q_j(s, a),         s', r sampled from the model,

with A standardised over the batch and held fixed, and pi(s') the policy's mode. Outcomes that are worse for the policy
(A < 0) become likelier. The actor begins as a clone of the data, by squared error.

P is the mixture of joint densities, by logsumexp; an average of densities by dimension, found in public, is another
density. The adversarial term is a mean, as in OfflineRL-Kit (e3ce697), where the authors sum the batch of 256.
Deviations: the model takes `adversary_steps` before each period's rollouts, where they take 1000 every 1000 updates and
roll out every 250 (`paper`: 250 every 250); their observations are standardised by the data, here only the model's
inputs are, and the target entropy is -|A|, not -3; one batch of real rows serves all members, and elites stay those of
the fit (`models.fit`), of a fixed number of steps. adversary=0 drops its term alone, as published; with
adversary_steps=0 and clone_steps=0 this is MBPO offline.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_suite import buffer
from jaxrl_suite.algorithms import actor_critic, dyna, short
from jaxrl_suite.algorithms.actor_critic import ADAM, ActorCritic, adam_step
from jaxrl_suite.errors import UserError
from jaxrl_suite.models import ensemble, fit, transforms
from jaxrl_suite.models.ensemble import EnsembleConfig
from jaxrl_suite.types import Algorithm, Array, Dataset, Key, Members, Metrics, Params, Spec, Tree, WorldModel


@dataclass(frozen=True)
class Config(dyna.Config):
    """RAMBO."""

    updates: int = 2_000_000
    """Gradient updates of actor and critics."""
    period: int = 250
    """Updates between two refreshes of the imagined data."""
    retain: int = 20
    """Refreshes that the ring buffer of imagined data holds."""
    real_ratio: float = 0.5
    """Share of real transitions in a batch."""
    actor_lr: float = 1e-4
    """Adam's step size for the actor."""
    evaluations: int = 2_000
    """Evaluations of the policy, evenly spaced."""
    adversary: float = 3e-4
    """Weight lambda of the adversarial term in the model's loss. The true dynamics (world=oracle) do not adapt."""
    adversary_lr: float = 3e-4
    """Adam's step size for the adversarial model."""
    adversary_steps: int = field(default=250, metadata={"zero": True})
    """Gradient steps of the model before each refresh, a multiple of horizon; 0 to leave the model as it was fitted."""
    adversary_batch: int = 256
    """Rollouts, and real rows, per gradient step of the model."""
    clone_steps: int = field(default=200_000, metadata={"zero": True})
    """Gradient steps for which the actor is first cloned from the data; 0 for none."""
    clone_lr: float = 1e-4
    """Adam's step size for cloning."""
    dynamics: EnsembleConfig = field(default_factory=lambda: EnsembleConfig(evaluate="all", bound_weight=0.001))
    """The world model."""
    fit: fit.FitConfig = field(default_factory=lambda: fit.FitConfig(learning_rate=3e-4, holdout=0.1))
    """How the world model is fitted."""


PRESETS = {
    "smoke": Config(**short.SMOKE_ALL, adversary_steps=5, adversary_batch=32, clone_steps=10, clone_lr=1e-3),
    "quick": Config(**short.QUICK_ALL, adversary_steps=100, clone_steps=2_000, clone_lr=1e-3),
    "paper": Config(),
}


@struct.dataclass
class Hypers(actor_critic.Hypers):
    """Traced scalars."""

    adversary: Any = 0.0
    adversary_lr: Any = 3e-4
    clone_lr: Any = 1e-4


def log_density(elites: Members, sample: Array) -> Array:
    """Log of the mean over elites (leaves `[elites, batch, dim]`) of their densities of `sample` `[batch, dim]`."""
    z = (sample - elites.mean) / elites.std
    each = -jnp.sum(0.5 * jnp.square(z) + jnp.log(elites.std) + 0.5 * jnp.log(2.0 * jnp.pi), axis=-1)
    return jax.nn.logsumexp(each, axis=0) - jnp.log(each.shape[0])


def adversarial_loss(log_density: Array, advantage: Array) -> Array:
    """Mean of standardised advantage times log density; the advantage is held fixed."""
    scaled = (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-6)
    return jnp.mean(jax.lax.stop_gradient(scaled) * log_density)


def make(spec: Spec, config: Config) -> Algorithm:
    """RAMBO for `spec`: Dyna in a model that learns on, against the policy.

    Raises:
        UserError: the model does not evaluate all its members, has no densities, or sizes do not fit each other.
    """
    dyna.check_members(config)
    if config.kind == "interpolate":
        raise UserError("RAMBO's model learns on, which one between two worlds cannot: --world=learned or oracle")
    if (learned := config.kind == "learned") and config.dynamics.deterministic and config.adversary:
        raise UserError("RAMBO's adversary needs densities, which a deterministic model lacks; give --adversary=0")
    if config.adversary_steps % config.horizon:
        raise UserError(f"--adversary-steps={config.adversary_steps} is no multiple of --horizon={config.horizon}")
    ac = actor_critic.make(spec, config.actor_critic())
    decay = ensemble.decay(config.dynamics)

    def advantage(agent: actor_critic.State, obs: Array, action: Array, sample: Array, discount: Array) -> Array:
        next_obs, reward = sample[:, :-1], sample[:, -1]
        mode, _ = ac.act(agent, (), next_obs, jax.random.key(0))
        value = reward + agent.hypers.gamma * discount * ac.q_value(agent, next_obs, mode)
        return value - ac.q_value(agent, obs, action)

    def adversary(weights: Tree, model: WorldModel, state: dyna.State, obs: Array, key: Key) -> tuple[Array, Tree]:
        """The adversarial term of one step of the policy, and the observations that it leads to."""
        action_key, step_key = jax.random.split(key)
        params, action = state.model._replace(weights=weights), ac.policy(state.agent, obs, action_key)
        _, prediction = model.step(params, obs, action, step_key)
        sample = jnp.concatenate([prediction.obs, prediction.reward[:, None]], axis=-1)
        sample, discount = jax.lax.stop_gradient((sample, prediction.discount))  # the score, not the path, is followed
        elites = jax.tree.map(lambda leaf: leaf[params.elites], transforms.every(prediction))
        gain = advantage(state.agent, obs, action, sample, discount)
        return adversarial_loss(log_density(elites, sample), gain), (sample[:, :-1], jnp.mean(gain))

    def model_loss(
        weights: Tree, model: WorldModel, state: dyna.State, data: Dataset, obs: Array, key: Key
    ) -> tuple[Array, tuple[Array, Metrics]]:
        """lambda times the adversarial term, plus the likelihood of real rows and the L2 term."""
        hypers: Any = state.agent.hypers
        row_key, loss_key, adversary_key = jax.random.split(key, 3)
        rows = buffer.share(buffer.draw(data.transitions, row_key, config.adversary_batch))
        nll, _ = model.loss(weights, state.model, rows, loss_key)
        term, (next_obs, gain) = adversary(weights, model, state, obs, adversary_key)
        # Left out at 0, so that no infinite density can reach the weights.
        loss = nll + decay(weights) + (hypers.adversary * term if config.adversary else 0.0)
        return loss, (next_obs, {"model_loss": nll, "adversarial": term, "advantage": gain})

    def adapt(model: WorldModel, state: dyna.State, data: Dataset, key: Key) -> tuple[dyna.State, Metrics]:
        """Rollouts from states of the data that go on past the end, with a gradient step of the model at each step."""
        hypers: Any = state.agent.hypers
        descend = jax.grad(model_loss, has_aux=True)

        def step(carry: tuple[Tree, Tree, Array], key: Key) -> tuple[tuple[Tree, Tree, Array], Metrics]:
            weights, opt, obs = carry
            grads, (next_obs, metrics) = descend(weights, model, state, data, obs, key)
            weights, opt = adam_step(grads, opt, weights, hypers.adversary_lr)
            return (weights, opt, next_obs), metrics

        def rollout(carry: tuple[Tree, Tree], key: Key) -> tuple[tuple[Tree, Tree], Metrics]:
            start_key, key = jax.random.split(key)
            obs = buffer.share(buffer.draw(data.transitions.obs, start_key, config.adversary_batch))
            keys = jax.random.split(key, config.horizon)
            (weights, opt, _), metrics = jax.lax.scan(step, (*carry, obs), keys)
            return (weights, opt), metrics

        keys = jax.random.split(key, config.adversary_steps // config.horizon)
        (weights, opt), metrics = jax.lax.scan(rollout, (state.model.weights, state.extra), keys)
        state = state._replace(model=state.model._replace(weights=weights), extra=opt)
        return state, jax.tree.map(jnp.mean, metrics)

    optimiser = lambda model, params, data, key: ADAM.init(params.weights)  # noqa: E731
    idea = dyna.Idea(prepare=optimiser, adapt=adapt) if config.adversary_steps and learned else dyna.PLAIN
    own = {name: getattr(config, name) for name in ("adversary", "adversary_lr", "clone_lr")}
    algorithm = dyna.make(spec, config, ac, config.hypers(kind=Hypers, **own), idea)
    return cloned(algorithm, ac, config) if config.clone_steps else algorithm


def cloned(algorithm: Algorithm, ac: ActorCritic, config: Config) -> Algorithm:
    """The algorithm whose last phase begins with the data's behaviour."""
    *before, phase = algorithm.phases

    def distance(weights: Tree, agent: actor_critic.State, data: Dataset, key: Key) -> Array:
        row_key, action_key = jax.random.split(key)
        rows = buffer.share(buffer.draw(data.transitions, row_key, config.batch))
        action = ac.policy(agent._replace(actor=weights), rows.obs, action_key)
        return jnp.mean(jnp.sum(jnp.square(action - rows.action), axis=-1))

    def init(key: Key, hypers: Hypers, data: Dataset, previous: Params) -> dyna.State:
        state: dyna.State = phase.init(key, hypers, data, previous)

        def step(carry: tuple[Tree, Tree], key: Key) -> tuple[tuple[Tree, Tree], None]:
            weights, opt = carry
            grads = jax.grad(distance)(weights, state.agent, data, key)
            return adam_step(grads, opt, weights, hypers.clone_lr), None

        keys = jax.random.split(jax.random.fold_in(key, 4), config.clone_steps)  # `dyna` splits the key into 0 to 3
        (weights, _), _ = jax.lax.scan(step, (state.agent.actor, ADAM.init(state.agent.actor)), keys)
        return state._replace(agent=state.agent._replace(actor=weights))

    return algorithm._replace(phases=(*before, phase._replace(init=init)))
