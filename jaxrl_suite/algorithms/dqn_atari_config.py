"""What DQN on Atari is made of: `dqn_atari.Config`, its presets, and what the paper has for each head."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxrl_suite.algorithms.head_options import HeadOptions

REGRESSIONS = ("mse", "mse_softmax", "quantile")


@dataclass(frozen=True)
class Config(HeadOptions):
    """DQN on Atari. Steps are the agent's, of four frames each, of all environments together."""

    bins: int = 51
    """Bins (or quantiles) of a head with a distribution."""
    support: str = "-10,10"
    """Values that a head's bins cover."""
    steps: int = 50_000_000
    """Steps in all, exploration included."""
    envs: int = 4
    """Games that step together."""
    explore: int = 20_000
    """Steps with uniformly random actions before training starts."""
    replay: int = 1_000_000
    """Newest steps that are learnt from."""
    update_every: int = 4
    """Steps for each gradient update."""
    copy_every: int = 2_000
    """Updates between two copies of the network into the target's."""
    epsilon: float = 0.01
    """Probability of a random action, in the end."""
    epsilon_steps: int = 250_000
    """Steps after exploration in which that probability falls from 1."""
    batch: int = 32
    """Transitions per gradient update."""
    gamma: float = 0.99
    """Discount per step."""
    learning_rate: float = 2.5e-4
    """Adam's step size."""
    adam_eps: float = 3.125e-4
    """Adam's epsilon."""
    evaluations: int = 200
    """How often the newest training episodes are looked at."""


PRESETS = {
    "smoke": replace(
        Config(), steps=200, explore=80, replay=120, copy_every=10, epsilon_steps=60, batch=4, evaluations=3
    ),
    # Short: some minutes on two cores. It does not play well.
    "quick": replace(
        Config(), steps=20_000, explore=2_000, replay=20_000, copy_every=250, epsilon_steps=8_000, evaluations=10
    ),
    "paper": Config(),
}


def with_head(config: Config, head: str) -> Config:
    """A preset with a head, and with Adam's step size and epsilon that the paper has for it."""
    if head in REGRESSIONS:
        return replace(config, head=head, learning_rate=6.25e-5, adam_eps=1.5e-4)
    return replace(config, head=head)
