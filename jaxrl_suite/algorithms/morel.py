"""MOReL: model-based offline reinforcement learning (Kidambi et al. 2020, arXiv 2005.05951).

The pessimistic MDP ends where the model does not know: with disc(s, a) = max_{i,j} |mu_i(s, a) - mu_j(s, a)|_2,

    unknown(s, a)  iff  disc(s, a) > max_{(s,a) in D} disc / pessimism,

and an unknown step has the reward min_D r - halt_penalty, and no successor.

The threshold is the authors' (their code, mjrl v2), where a larger coefficient halts sooner. A public port multiplies
by the coefficient, and takes for the greatest disagreement the greatest distance between predictions for *different*
rows: it halts almost never. The halt penalty counts from the least reward of the data, so that halting is bad on every
task (that port's convention, with the sign turned); the authors' shipped configurations end the path and add nothing,
though their paper has a negative reward.

Deviations: the policy is learnt by the shared actor-critic on short rollouts from states of the data, not by natural
policy gradients on episodes of 700 steps from a cloned policy; the reward is learnt and takes part in the disagreement,
while theirs is known; members are Gaussian with SiLU units, where theirs are deterministic with ReLU units; rewards of
the data set are as they are. The authors' code holds settings for hopper-medium alone, which the `paper` preset takes
for all data sets. With pessimism=0 nothing halts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_suite import buffer
from jaxrl_suite.algorithms import actor_critic, dyna, short
from jaxrl_suite.models import transforms, uncertainty
from jaxrl_suite.models.ensemble import EnsembleConfig
from jaxrl_suite.types import Algorithm, Array, Dataset, Key, Params, Spec, WorldModel

ROWS = 4096  # of the data set whose disagreement is measured at a time


@dataclass(frozen=True)
class Config(dyna.Config):
    """MOReL."""

    real_ratio: float = 0.01
    """Share of real transitions in a batch."""
    pessimism: float = 3.0
    """What the greatest disagreement on the data is divided by to give the threshold; 0 to halt never."""
    halt_penalty: float = 50.0
    """How far the reward of a halted step lies below the least reward of the data set."""
    uncertainty: str = "max_pairwise"
    """Measure of disagreement, such as max_pairwise, epistemic_std or max_aleatoric."""
    dynamics: EnsembleConfig = field(
        default_factory=lambda: EnsembleConfig(
            members=4, elites=4, hidden=(512, 512), weight_decay=(0.0,), evaluate="all"
        )
    )
    """The world model."""


PRESETS = {"smoke": Config(**short.SMOKE_ALL), "quick": Config(**short.QUICK_ALL), "paper": Config()}


@struct.dataclass
class Hypers(actor_critic.Hypers):
    """Traced scalars."""

    pessimism: Any = 0.0
    halt_penalty: Any = 0.0


class Known(NamedTuple):
    """What the data set says of the model."""

    disagreement: Array  # the greatest on its rows
    reward_min: Array


def greatest(model: WorldModel, measure: uncertainty.Uncertainty, params: Params, data: Dataset, key: Key) -> Array:
    """The greatest uncertainty on the rows of the data set, measured by turns so that it needs little memory."""
    total = data.transitions.reward.shape[0]
    block = min(ROWS, total)
    # The last block begins again at the first rows: a maximum may see a row twice.
    blocks = jnp.arange(-(-total // block) * block).reshape(-1, block) % total

    def of_block(given: tuple[Array, Key]) -> Array:
        index, key = given
        rows = buffer.take(data, index)
        _, prediction = model.step(params, model.start(params, rows), rows.transitions.action, key)
        return jnp.max(transforms.doubt(measure, prediction))

    return jnp.max(jax.lax.map(of_block, (blocks, jax.random.split(key, len(blocks)))))


def make(spec: Spec, config: Config) -> Algorithm:
    """MOReL for `spec`: Dyna in a model that halts where its members disagree.

    Raises:
        UserError: the model would not evaluate all its members, or no such measure.
    """
    dyna.check_members(config)
    measure = uncertainty.make(config.uncertainty)

    def prepare(model: WorldModel, params: Params, data: Dataset, key: Key) -> Known:
        return Known(greatest(model, measure, params, data, key), jnp.min(data.transitions.reward))

    def halting(model: WorldModel, state: dyna.State) -> WorldModel:
        hypers: Any = state.agent.hypers
        known: Known = state.extra
        threshold = known.disagreement / hypers.pessimism
        return transforms.halt(model, measure, threshold, known.reward_min - hypers.halt_penalty)

    idea = dyna.Idea(transform=halting, prepare=prepare) if config.pessimism else dyna.PLAIN
    hypers = config.hypers(kind=Hypers, pessimism=config.pessimism, halt_penalty=config.halt_penalty)
    return dyna.make(spec, config, actor_critic.make(spec, config.actor_critic()), hypers, idea)
