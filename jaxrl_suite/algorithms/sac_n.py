"""SAC-N: SAC from data alone, with enough critics (An et al. 2021, arXiv 2110.01548).

The target and the actor trust the least of N critics,

    y = r + gamma d (min_j Qbar_j(s', a') - alpha log pi(a' | s')),   a' ~ pi(. | s'),
    loss = sum_i mean (Q_i(s, a) - y)^2,

so that an action is valued low where the members disagree: far from the data. No other pessimism is needed, only
many critics: ten for HalfCheetah, hundreds for Hopper.

Deviations from CORL's SAC-N: rows are drawn with replacement from a data set whose successors at the end of an episode
are the true ones; critics and actor are initialised as in `networks`. The `quick` preset has ten critics and small
networks, larger step sizes and tau, and an actor's step size that falls to zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxrl_suite.algorithms import actor_critic, offline, short
from jaxrl_suite.algorithms.agent_config import AgentConfig
from jaxrl_suite.types import Algorithm, Spec


@dataclass(frozen=True)
class Config(AgentConfig):
    """SAC-N."""

    updates: int = 3_000_000
    """Gradient updates."""
    evaluations: int = 600
    """Evaluations of the policy, evenly spaced."""
    critics: int = 10
    """Number of critics N."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of actor and critics."""


PRESETS = {
    "smoke": Config(**short.AGENT_SMOKE | {"critics": 3}),
    "quick": Config(**short.AGENT),
    "paper": Config(),
}


def make(spec: Spec, config: Config) -> Algorithm:
    """SAC-N for `spec`: SAC on batches of the data set, with N critics."""
    agent = actor_critic.make(spec, config.actor_critic())
    return offline.make(config, offline.from_actor_critic(agent), config.hypers())
