"""COMBO: conservative values in place of a penalty on the model (Yu et al. 2021, arXiv 2102.08363).

The Dyna skeleton with CQL's regulariser: values go down at states of the model's rollouts, where it may be wrong, and
up at the rows of the data set,

    beta (E_{s ~ rho} [log integral of exp Q(s, a) da] - E_{(s, a) ~ D} [Q(s, a)]) + mean (Q(s, a) - y)^2,

with rho the states of the whole batch (`mix`) or of its imagined rows (`model`), the Bellman error over the mixed
batch, and a target y = r + gamma d min_j Qbar_j(s', a') without entropy.

Deviations: beta is fixed, as in OfflineRL-Kit's runs, and the Bellman error has no factor 1/2, as there; the logarithm
is taken over all 3n sampled values (see `cql`); rollouts follow the policy; the actor's step size falls along a cosine
with every update, there with every thousand; imagined episodes end as in `mopo`; deviations of the skeleton are those
of `ravl`. The `quick` preset has small networks, larger step sizes and tau, fewer samples, and one weight for all data
sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from jaxrl_suite import buffer
from jaxrl_suite.algorithms import actor_critic, cql, dyna, short
from jaxrl_suite.algorithms.actor_critic import Parts, Term
from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.types import Algorithm, Spec, Transition

States = Literal["mix", "model"]


@dataclass(frozen=True)
class Config(dyna.Config):
    """COMBO."""

    updates: int = 1_000_000
    """Gradient updates of actor and critics."""
    evaluations: int = 1_000
    """Evaluations of the policy, evenly spaced."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of actor and critics."""
    actor_lr: float = 1e-4
    """Adam's step size for the actor."""
    alpha_lr: float = 1e-4
    """Adam's step size for the temperature."""
    anneal: bool = True
    """Let the actor's step size fall to zero along a cosine over the run."""
    entropy_backup: bool = False
    """Whether targets hold the entropy term."""
    real_ratio: float = 0.5
    """Share of real transitions in a batch."""
    cql_weight: float = 5.0
    """Weight beta of the conservative term."""
    samples: int = 10
    """Actions n per state from each of three distributions, where values are pushed down."""
    rho_s: States = "mix"
    """States where values are pushed down: mix, those of the whole batch, or model, those of imagined rows."""


PRESETS = {
    "smoke": Config(**short.SMOKE, cql_weight=1.0, samples=2),
    "quick": Config(**short.QUICK, cql_weight=1.0, samples=4),
    "paper": Config(),
}


def term(config: Config, parts: Parts) -> Term:
    """The conservative term of a batch of real and imagined rows."""

    def choose(batch: Transition) -> tuple[Transition, Transition]:
        real, imagined = buffer.parts(batch, config.real)
        return (batch if config.rho_s == "mix" else imagined), real

    return cql.lowering(parts, config.samples, choose)


def make(spec: Spec, config: Config) -> Algorithm:
    """COMBO for `spec`: Dyna with the conservative term.

    Raises:
        UserError: no samples, or a batch without the rows that the term needs.
    """
    _check(config)
    extra = partial(term, config) if config.cql_weight > 0 else None
    agent = actor_critic.make(spec, config.actor_critic(), term=extra)
    return dyna.make(spec, config, agent, config.hypers(kind=cql.Hypers, cql_weight=config.cql_weight))


def _check(config: Config) -> None:
    """Refuse settings that leave the conservative term without states or rows."""
    cql.check_samples(config.samples)
    if config.rho_s not in get_args(States):
        raise unknown("rho_s", config.rho_s, get_args(States))
    rows = f"--real-ratio={config.real_ratio} of --batch={config.batch}"
    if config.real < 1:
        raise UserError(f"{rows} leaves COMBO no real row to push up; give a larger share, such as 0.5")
    if config.rho_s == "model" and config.real >= config.batch:
        raise UserError(f"{rows} leaves --rho-s=model no imagined row to push down; give a smaller share, such as 0.5")
