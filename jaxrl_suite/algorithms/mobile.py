"""MOBILE: model-Bellman inconsistency penalised offline RL (Sun et al. 2023; the authors' code, yihaosun1124/mobile).

The penalty stands in the Bellman target and measures how far the members disagree on the value of what comes next,
rather than on what comes next:

    y = max(0, r - beta U(s, a) + gamma d min_j Qbar_j(s', a')),   a' ~ pi(. | s'),
    U(s, a) = std over elites i (n - 1) of mean over m of min_j Qbar_j(s_im, a_im),
    s_im ~ N_i(s, a),   a_im ~ pi(. | s_im),

with U = 0 on rows of the data set. The target holds no entropy term, and `target_min` is the bound 0 (None: no bound,
for tasks whose values are negative).

The `paper` preset has the authors' defaults, published.csv their settings per data set. Deviations: the model's fit
(`models.fit`) has a fixed number of steps; the losses of the critics are summed, not averaged, which Adam all but
undoes; the temperature's bound and the ends of imagined episodes are as in `mopo`; a fixed temperature is written
alpha_lr=0 alpha_max=0.2 (hopper-medium and hopper-medium-replay at their commit 4882dce; an earlier one, 13b569a, has
0.1 there, and the entropy term in the targets); no normalised rewards and no backup of the best of ten actions (their
Adroit settings). The penalty enters as a relabelled reward, which is the same number. One elite agrees with itself: U =
0. With penalty=0 this is MBPO offline with that target. The `quick` preset is `short`'s, with four samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_suite import buffer
from jaxrl_suite.algorithms import actor_critic, dyna, short
from jaxrl_suite.algorithms.actor_critic import ActorCritic, ActorCriticConfig
from jaxrl_suite.models import transforms
from jaxrl_suite.models.ensemble import EnsembleConfig
from jaxrl_suite.types import Algorithm, Array, Key, Members, Spec, Transition, WorldModel


@dataclass(frozen=True)
class Config(dyna.Config):
    """MOBILE."""

    actor_lr: float = 1e-4
    """Adam's step size for the actor."""
    alpha_lr: float = 1e-4
    """Adam's step size for the temperature."""
    anneal: bool = True
    """Let the actor's step size fall to zero along a cosine over the run."""
    entropy_backup: bool = False
    """Whether targets hold the entropy term."""
    alpha_max: float = 1.0
    """Upper bound of the temperature; 0 for none."""
    penalty: float = 1.0
    """Weight beta of the inconsistency in the targets of imagined steps."""
    samples: int = 10
    """Next states that are drawn from every elite to estimate the inconsistency."""
    target_min: float | None = field(default=0.0, metadata={"signed": True})
    """Lower bound of the targets; None for none."""
    dynamics: EnsembleConfig = field(default_factory=lambda: EnsembleConfig(evaluate="all"))
    """The world model."""

    def actor_critic(self) -> ActorCriticConfig:
        """The part that shapes the actor-critic."""
        return replace(super().actor_critic(), target_min=self.target_min)


PRESETS = {
    "smoke": Config(**short.SMOKE_ALL, samples=2),
    "quick": Config(**short.QUICK_ALL, samples=4),
    "paper": Config(),
}


@struct.dataclass
class Hypers(actor_critic.Hypers):
    """Traced scalars."""

    penalty: Any = 0.0


def inconsistency(ac: ActorCritic, agent: actor_critic.State, elites: Members, samples: int, key: Key) -> Array:
    """U `[batch]`: how far elites (leaves `[elites, batch, obs_dim + 1]`) disagree on the value of the next state."""
    number, batch, dim = elites.mean.shape
    if number < 2:
        return jnp.zeros(batch)
    noise_key, action_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, (samples, number, batch, dim - 1))
    obs = (elites.mean[..., :-1] + elites.std[..., :-1] * noise).reshape(-1, dim - 1)
    action = ac.policy(agent, obs, action_key)
    values = ac.q_value(agent._replace(critic=agent.target_critic), obs, action).reshape(samples, number, batch)
    return jnp.std(jnp.mean(values, axis=0), axis=0, ddof=1)


def make(spec: Spec, config: Config) -> Algorithm:
    """MOBILE for `spec`: Dyna whose targets are penalised by the disagreement of the elites' backups.

    Raises:
        UserError: the model would not evaluate all its members.
    """
    dyna.check_members(config)
    ac = actor_critic.make(spec, config.actor_critic())
    real = config.real

    def penalised(model: WorldModel, state: dyna.State, batch: Transition, key: Key) -> Transition:
        hypers: Any = state.agent.hypers
        step_key, sample_key = jax.random.split(key)
        known, dreamt = buffer.parts(batch, real)
        before = transforms.at(model, state.model, dreamt.obs)
        _, prediction = model.step(state.model, before, dreamt.action, step_key)
        elites = jax.tree.map(lambda leaf: leaf[state.model.elites], transforms.every(prediction))
        doubt = inconsistency(ac, state.agent, elites, config.samples, sample_key)
        return buffer.share(known, dreamt._replace(reward=dreamt.reward - hypers.penalty * doubt))

    idea = dyna.Idea(relabel=penalised) if config.penalty and real < config.batch else dyna.PLAIN
    hypers = config.hypers(kind=Hypers, penalty=config.penalty)
    return dyna.make(spec, config, ac, hypers, idea)
