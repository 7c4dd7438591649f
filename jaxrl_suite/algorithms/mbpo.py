"""MBPO offline: the base that model-based offline algorithms add their idea to (Janner et al. 2019, arXiv 1906.08253).

The Dyna skeleton with the plain maximum-entropy actor-critic and nothing else: no penalty on the model, no pessimism of
the value beyond the least of two critics. Sims et al. 2024 (arXiv 2402.12527) call this the base procedure, and show it
to fail where rollouts are cut at states that no update ever has as its input.

Deviations: those of the skeleton, see `ravl`; the model is fitted once, because no new data come in. MOPO, MOBILE and
MOReL with a weight of zero, and RAVL with two critics and diversity=0, are this algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxrl_suite.algorithms import actor_critic, dyna, short
from jaxrl_suite.types import Algorithm, Spec


@dataclass(frozen=True)
class Config(dyna.Config):
    """MBPO offline."""


PRESETS = {"smoke": Config(**short.SMOKE), "quick": Config(**short.QUICK), "paper": Config()}


def make(spec: Spec, config: Config, idea: dyna.Idea = dyna.PLAIN) -> Algorithm:
    """MBPO for `spec`, changed by an `idea` where one is given."""
    return dyna.make(spec, config, actor_critic.make(spec, config.actor_critic()), config.hypers(), idea)
