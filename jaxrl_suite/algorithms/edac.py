"""EDAC: SAC-N whose critics are kept apart, so that fewer suffice (An et al. 2021, arXiv 2110.01548).

Members whose values climb in the same direction leave the data with the same error, and their least is no warning. So
the critics' loss holds, besides SAC-N's, the similarity of their gradients by the action at the rows of the batch,

    eta / (N - 1) mean sum_{i != j} <g_i, g_j>,   g_i = grad_a Q_i(s, a) / |grad_a Q_i(s, a)|.

With eta = 0 it is SAC-N. Deviations from CORL's EDAC: those of `sac_n`. The `quick` preset has five critics and small
networks, larger step sizes and tau, and an actor's step size that falls to zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxrl_suite.algorithms import actor_critic, offline, sac_n, short
from jaxrl_suite.errors import UserError
from jaxrl_suite.types import Algorithm, Spec


@dataclass(frozen=True)
class Config(sac_n.Config):
    """EDAC."""

    diversity: float = 1.0
    """Weight eta of the diversity of the critics' action gradients."""


PRESETS = {
    "smoke": Config(**short.AGENT_SMOKE | {"critics": 3}),
    "quick": Config(**short.AGENT | {"critics": 5}),
    "paper": Config(),
}


def make(spec: Spec, config: Config) -> Algorithm:
    """EDAC for `spec`: SAC-N with diverse critics.

    Raises:
        UserError: a single critic, which has none to differ from.
    """
    if config.diversity > 0 and config.critics < 2:
        raise UserError(
            f"--critics={config.critics} cannot be diverse; give at least 2, or --diversity=0 for no diversity"
        )
    agent = actor_critic.make(spec, config.actor_critic(), diverse=config.diversity > 0)
    return offline.make(config, offline.from_actor_critic(agent), config.hypers(config.diversity))
