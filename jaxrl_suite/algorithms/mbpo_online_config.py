"""What sets online MBPO (`mbpo_online`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from jaxrl_suite.algorithms.actor_critic_config import ActorCriticConfig
from jaxrl_suite.algorithms.head_options import OnlineHeadOptions
from jaxrl_suite.algorithms.lipschitz_options import LipschitzOptions
from jaxrl_suite.errors import UserError
from jaxrl_suite.models import ensemble, refit
from jaxrl_suite.values import heads


@dataclass(frozen=True)
class Config(LipschitzOptions, OnlineHeadOptions):
    """MBPO, online."""

    steps: int = 125_000
    """Environment steps in all, exploration included."""
    explore: int = 5_000
    """Environment steps with uniformly random actions before training starts."""
    envs: int = 1
    """Environments that step together."""
    period: int = 250
    """Environment steps between two fits of the model."""
    utd: int = 20
    """Gradient updates per environment step."""
    rollouts: int = 100_000
    """Imagined rollouts after each fit."""
    horizon: tuple[int, int] = (1, 1)
    """First and last length of a rollout."""
    horizon_epochs: tuple[int, int] = (20, 150)
    """Between which epochs it changes."""
    epoch: int = 1_000
    """Environment steps of an epoch."""
    retain: int = 4
    """Refreshes whose imagined rows are drawn, were all rollouts whole; the authors keep those of an epoch."""
    real_ratio: float = 0.05
    """Share of real transitions in a batch; with 1 there is no model."""
    dynamics: ensemble.EnsembleConfig = field(default_factory=ensemble.EnsembleConfig)
    """The world model."""
    fit: refit.RefitConfig = field(default_factory=refit.RefitConfig)
    """How it is fitted."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of actor and critics."""
    critics: int = 2
    """Number of critics."""
    batch: int = 256
    """Transitions per gradient update."""
    gamma: float = 0.99
    """Discount per step."""
    tau: float = 0.005
    """Share of the critic in each update of the target critic."""
    learning_rate: float = 3e-4
    """Adam's step size, for actor, critics and temperature."""
    target_entropy: float | None = field(default=None, metadata={"later": True, "signed": True})
    """Entropy of the policy that the temperature aims at; None for -|A|."""
    layer_norm: bool = field(default=False, metadata={"later": True})
    """Whether the critics have layer normalisation after every hidden layer, which keeps values at many updates per
    step from running away (Ball et al. 2023, arXiv 2302.02948)."""
    evaluations: int = 20
    """Evaluations of the policy, evenly spaced."""

    def actor_critic(self) -> ActorCriticConfig:
        """Shapes of the learner."""
        return ActorCriticConfig(
            self.critics,
            self.hidden,
            self.batch,
            self.value_head(),
            target_entropy=self.target_entropy,
            lipschitz=self.smoothness(),
            layer_norm=self.layer_norm,
        )

    @property
    def real(self) -> int:
        """Real transitions per batch; they come first."""
        return int(self.real_ratio * self.batch)


QUICK = Config(
    steps=3_000,
    explore=400,
    period=100,
    utd=4,
    rollouts=2_000,
    retain=2,
    dynamics=ensemble.EnsembleConfig(members=5, elites=3, hidden=(64, 64)),
    fit=refit.RefitConfig(steps=200, batch=128),
    hidden=(64, 64),
    batch=128,
    gamma=0.98,
    tau=0.01,
    learning_rate=1e-3,
    evaluations=13,
)
PRESETS = {
    "smoke": replace(
        QUICK,
        steps=240,
        explore=200,
        period=20,
        rollouts=50,
        dynamics=replace(QUICK.dynamics, hidden=(16, 16)),
        fit=refit.RefitConfig(steps=10, batch=32),
        hidden=(16, 16),
        batch=32,
        evaluations=2,
    ),
    "quick": QUICK,
    "paper": Config(),
}


def check(config: Config) -> None:
    """Refuse sizes that do not fit each other, and a value head that cannot be.

    Raises:
        UserError: they do not, no such head, or one that has a support which is not given.
    """
    heads.require_ends(config.value_head())
    odd = (config.steps - config.explore) % config.period or config.period % config.envs or config.explore % config.envs
    if odd or config.explore < refit.HELD:
        raise UserError(
            f"--steps={config.steps} less --explore={config.explore} must be a multiple of --period={config.period}, "
            f"both of these of --envs={config.envs}, and exploration takes at least {refit.HELD} steps"
        )
    if not 0.0 <= config.real_ratio <= 1.0:
        raise UserError(f"--real-ratio={config.real_ratio} is a share of the batch: give a number from 0 to 1")
