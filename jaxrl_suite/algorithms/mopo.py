"""MOPO: model-based offline policy optimisation (Yu et al. 2020, arXiv 2005.13239).

The skeleton of MBPO on a pessimistic model, whose reward is

    r~(s, a) = r(s, a) - lambda u(s, a),   u(s, a) = max_i |sigma_i(s, a)|_2   over all members i,

with sigma_i the spread that a member predicts for [s', r]. Rewards of the data set are as they are. `uncertainty` takes
any other measure of `models.uncertainty` in the place of u.

The `paper` preset follows OfflineRL-Kit, whose v2 scores are the ones quoted: real ratio 0.05, temperature at most 1,
an actor's step size that falls along a cosine. Deviations: the model's fit (`models.fit`) has a fixed number of steps
and a hold-out of 20%, where the kit stops early and holds out 1000 rows at most; critics sum their losses over members;
the bound holds for the temperature that is learnt, where the kit bounds it only where it is used; imagined episodes end
as Gymnasium's do, and not (halfcheetah, walker2d) where a number passes 100. The original's target entropy is -3 for
all tasks, here it is -|A|. With penalty=0 and equal settings of the learner this is MBPO offline.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flax import struct

from jaxrl_suite.algorithms import actor_critic, dyna, short
from jaxrl_suite.models import transforms, uncertainty
from jaxrl_suite.models.ensemble import EnsembleConfig
from jaxrl_suite.types import Algorithm, Spec, WorldModel


@dataclass(frozen=True)
class Config(dyna.Config):
    """MOPO."""

    actor_lr: float = 1e-4
    """Adam's step size for the actor."""
    alpha_lr: float = 1e-4
    """Adam's step size for the temperature."""
    anneal: bool = True
    """Let the actor's step size fall to zero along a cosine over the run."""
    alpha_max: float = 1.0
    """Upper bound of the temperature; 0 for none."""
    penalty: float = 1.0
    """Weight lambda of the uncertainty in the reward of imagined steps."""
    uncertainty: str = "max_aleatoric"
    """Measure u of uncertainty, such as max_aleatoric, max_pairwise or ensemble_std."""
    dynamics: EnsembleConfig = field(default_factory=lambda: EnsembleConfig(evaluate="all"))
    """The world model."""


PRESETS = {"smoke": Config(**short.SMOKE_ALL), "quick": Config(**short.QUICK_ALL), "paper": Config()}


@struct.dataclass
class Hypers(actor_critic.Hypers):
    """Traced scalars."""

    penalty: Any = 0.0


def make(spec: Spec, config: Config) -> Algorithm:
    """MOPO for `spec`: Dyna in a model whose reward is penalised.

    Raises:
        UserError: the model would not evaluate all its members, or no such measure.
    """
    dyna.check_members(config)
    measure = uncertainty.make(config.uncertainty)

    def penalised(model: WorldModel, state: dyna.State) -> WorldModel:
        hypers: Any = state.agent.hypers
        return transforms.penalise(model, measure, hypers.penalty)

    idea = dyna.Idea(transform=penalised) if config.penalty else dyna.PLAIN
    hypers = config.hypers(kind=Hypers, penalty=config.penalty)
    return dyna.make(spec, config, actor_critic.make(spec, config.actor_critic()), hypers, idea)
