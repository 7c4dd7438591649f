"""What all offline algorithms on the maximum-entropy actor-critic set, with a world model or without."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxrl_suite import nets
from jaxrl_suite.algorithms import offline
from jaxrl_suite.algorithms.actor_critic_config import ActorCriticConfig, Hypers
from jaxrl_suite.algorithms.head_options import HeadOptions
from jaxrl_suite.algorithms.lipschitz_options import LipschitzOptions


@dataclass(frozen=True)
class AgentConfig(LipschitzOptions, HeadOptions, offline.Config):
    """What every offline algorithm on the maximum-entropy actor-critic sets, with a world model or without."""

    critics: int = 2
    """Number of critics N."""
    aggregate: str = field(default="min", metadata={"later": True})
    """Which value of N critics is trusted: min, or mean."""
    gamma: float = 0.99
    """Discount per step."""
    tau: float = 0.005
    """Share of the critics in each update of the target critics."""
    actor_lr: float = 3e-4
    """Adam's step size for the actor."""
    critic_lr: float = 3e-4
    """Adam's step size for the critics."""
    alpha_lr: float = 3e-4
    """Adam's step size for the temperature."""
    precision: nets.Precision = field(default="float32", metadata={"later": True})
    """Matrix products of actor and critics: float32, or bfloat16 factors with float32 parameters and sums."""
    anneal: bool = False
    """Let the actor's step size fall to zero along a cosine over the run."""
    entropy_backup: bool = field(default=True, metadata={"later": True})
    """Whether targets hold the entropy term."""
    alpha_max: float = field(default=0.0, metadata={"later": True})
    """Upper bound of the temperature; 0 for none."""
    layer_norm: bool = field(default=False, metadata={"later": True})
    """Whether the critics have layer normalisation after every hidden layer, which keeps values away from the data from
    growing (Ball et al. 2023, arXiv 2302.02948)."""

    def actor_critic(self) -> ActorCriticConfig:
        """The part that shapes the actor-critic."""
        return ActorCriticConfig(
            critics=self.critics,
            hidden=self.hidden,
            batch=self.batch,
            head=self.value_head(),
            aggregate=self.aggregate,
            precision=self.precision,
            anneal=self.updates if self.anneal else 0,
            entropy_backup=self.entropy_backup,
            alpha_max=self.alpha_max,
            lipschitz=self.smoothness(),
            layer_norm=self.layer_norm,
        )

    def hypers(self, diversity: float = 0.0, kind: type[Hypers] = Hypers, **more: float) -> Hypers:
        """The part that a population may vary; of another `kind`, that has `more`."""
        return kind(self.gamma, self.tau, self.actor_lr, self.critic_lr, self.alpha_lr, diversity, **more)
