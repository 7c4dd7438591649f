"""RAVL: reach-aware value learning (Sims, Lu, Foerster, Teh; NeurIPS 2024, arXiv 2402.12527).

Short rollouts in a model leave edge-of-reach states that are bootstrapped from and never trained, where errors of the
value compound. RAVL answers at the value, not at the model: it is the plain Dyna skeleton without any dynamics penalty,
and its critics are EDAC's (An et al. 2021, arXiv 2110.01548), an ensemble of N whose least value is the target,

    y = r + gamma d (min_j Qbar_j(s', a') - alpha log pi(a' | s')),   a' ~ pi(. | s'),
    loss = sum_i mean (Q_i(s, a) - y)^2 + eta / (N - 1) mean sum_{i != j} <g_i, g_j>,   g_i = grad_a Q_i / |grad_a Q_i|,

so that members disagree, and the minimum is low, where nothing has been trained.

Deviations from the authors' code: real rows of a batch are drawn with replacement; the model is fitted for a fixed
number of steps with each member's best snapshot kept (theirs stops early), so that seeds run as one program; rows of
the data set whose successor is wrong in d4rl.qlearning_dataset are right here, and time-out rows are kept. The `paper`
preset has the published defaults, which are halfcheetah-medium's; the paper's table of settings per data set is not
known to us. The `quick` preset goes further from the paper to learn within minutes: five critics, small networks, a
smaller eta, larger step sizes and tau, more real rows in a batch, and an actor's step size that falls to zero along a
cosine. `aggregate="mean"` trusts the mean of the critics in place of their minimum: an ablation, not RAVL.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxrl_suite.algorithms import actor_critic, dyna
from jaxrl_suite.models.ensemble import EnsembleConfig
from jaxrl_suite.models.fit import FitConfig
from jaxrl_suite.types import Algorithm, Spec


@dataclass(frozen=True)
class Config(dyna.Config):
    """RAVL."""

    critics: int = 10
    """Number of critics N."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of actor and critics."""
    diversity: float = 1.0
    """Weight eta of the diversity of the critics' action gradients."""


# Three minutes on two cores: fewer and smaller networks, larger steps. Tuned by hand on seeds 1000 to 1003.
QUICK = Config(
    updates=16_000,
    period=250,
    rollouts=5_000,
    critics=5,
    hidden=(128, 128),
    diversity=0.1,
    real_ratio=0.5,
    tau=0.01,
    actor_lr=1e-3,
    critic_lr=1e-3,
    alpha_lr=3e-3,
    anneal=True,
    evaluations=8,
    dynamics=EnsembleConfig(hidden=(128, 128, 128)),
    fit=FitConfig(steps=2_000, checks=20),
)
PRESETS = {
    "smoke": replace(
        QUICK,
        updates=100,
        period=50,
        rollouts=200,
        critics=3,
        hidden=(32, 32),
        evaluations=2,
        dynamics=replace(QUICK.dynamics, hidden=(32, 32)),
        fit=replace(QUICK.fit, steps=100, checks=4),
    ),
    "quick": QUICK,
    "paper": Config(),
}


def make(spec: Spec, config: Config, idea: dyna.Idea = dyna.PLAIN) -> Algorithm:
    """RAVL for `spec`: Dyna with N diverse critics and no penalty, changed by an `idea` where one is given."""
    critics = actor_critic.make(spec, config.actor_critic(), diverse=config.diversity > 0)
    return dyna.make(spec, config, critics, config.hypers(config.diversity), idea)
