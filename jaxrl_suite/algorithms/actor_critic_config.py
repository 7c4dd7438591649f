"""What sets an actor-critic: the shapes that a population must share, and the scalars that it may vary."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flax import struct

from jaxrl_suite import nets
from jaxrl_suite.values.heads import HeadConfig
from jaxrl_suite.values.lipschitz import Config as LipschitzConfig


@dataclass(frozen=True)
class ActorCriticConfig:
    """Shapes: what a population must share."""

    critics: int = 10
    """Number of critics N."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of actor and critics."""
    batch: int = 256
    """Transitions per gradient update."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """Value head of the critics."""
    aggregate: str = "min"
    """Which value of N critics is trusted: min, or mean."""
    precision: nets.Precision = "float32"
    """Matrix products of actor and critics."""
    anneal: int = 0
    """Updates over which the actor's step size falls to zero along a cosine; 0 for a constant one."""
    entropy_backup: bool = True
    """Whether the target holds the entropy term; without it the backup is called deterministic."""
    alpha_max: float = 0.0
    """Upper bound of the temperature; 0 for none."""
    target_entropy: float | None = None
    """Entropy that the temperature aims at; None for -|A|."""
    target_min: float | None = None
    """Lower bound of the targets; None for none."""
    lipschitz: LipschitzConfig = field(default_factory=LipschitzConfig)
    """What keeps the critics from being steep."""
    layer_norm: bool = False
    """Whether the critics have layer normalisation after every hidden layer."""

    def entropy_below(self, actions: int) -> float:
        """How far below zero the entropy that the temperature aims at is, with so many dimensions of the action."""
        return actions if self.target_entropy is None else -self.target_entropy


@struct.dataclass
class Hypers:
    """Traced scalars: a population sweeps them without recompiling."""

    gamma: Any = 0.99
    tau: Any = 0.005
    actor_lr: Any = 3e-4
    critic_lr: Any = 3e-4
    alpha_lr: Any = 3e-4
    diversity: Any = 0.0  # weight eta of EDAC's term
