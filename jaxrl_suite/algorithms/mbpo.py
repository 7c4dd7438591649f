"""MBPO offline: the base that model-based offline algorithms add their idea to (Janner et al. 2019, arXiv 1906.08253).

The Dyna skeleton with the plain maximum-entropy actor-critic and nothing else: no penalty on the model, no pessimism of
the value beyond the least of two critics. Sims et al. 2024 (arXiv 2402.12527) call this the base procedure, and show it
to fail where rollouts are cut at states that no update ever has as its input.

Deviations: those of the skeleton, see `ravl`; the model is fitted once, because no new data come in. With equal
settings of the learner, MOPO, MOBILE and MOReL with a weight of zero, and RAVL with two critics and diversity=0, are
this algorithm.

In the true dynamics `patch=edge` puts the policy's true value in place of the targets at the ends of rollouts, as Sims
et al. do, and `patch=random` in place of as many others: see `edge`. Theirs are values of states that no rollout has as
its input; here they are those of the k-th successors, wherever these lie.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxrl_suite.algorithms import actor_critic, dyna, edge, short
from jaxrl_suite.algorithms.ideas import together
from jaxrl_suite.errors import UserError
from jaxrl_suite.types import Algorithm, Spec


@dataclass(frozen=True)
class Config(dyna.Config):
    """MBPO offline."""

    patch: edge.Patch = field(default="none", metadata={"later": True})
    """With --world=oracle: give targets at the ends of rollouts (edge), or as many others (random), the true value."""
    patch_steps: int = field(default=300, metadata={"later": True})
    """Steps n of the policy that a true value is estimated from: what comes later is left out, gamma^n of it all."""


PRESETS = {"smoke": Config(**short.SMOKE), "quick": Config(**short.QUICK), "paper": Config()}


def make(spec: Spec, config: Config, idea: dyna.Idea = dyna.PLAIN) -> Algorithm:
    """MBPO for `spec`, changed by an `idea` where one is given.

    Raises:
        UserError: targets are to be patched where the true dynamics are not known.
    """
    if config.patch != "none" and config.kind != "oracle":
        raise UserError(
            f"--patch={config.patch} puts in true values, which --world={config.world} does not tell; "
            "give --world=oracle"
        )
    ac = actor_critic.make(spec, config.actor_critic())
    patch = edge.patch_rollouts(config.patch, config.patch_steps, ac.policy, config.horizon)
    return dyna.make(spec, config, ac, config.hypers(), together(idea, patch))
