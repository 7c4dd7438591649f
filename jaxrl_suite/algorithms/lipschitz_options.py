"""The options of a Lipschitz mechanism, as every algorithm with maximum-entropy critics has them."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxrl_suite.values.lipschitz import Config, Kind


@dataclass(frozen=True)
class LipschitzOptions:
    """What keeps critics from being steep."""

    lipschitz: Kind = field(default="none", metadata={"later": True})
    """What keeps critics smooth: none, spectral, spectral_exact, adversarial, random or gradient_penalty."""
    lipschitz_bound: float = field(default=10.0, metadata={"later": True})
    """Beta: of every hidden layer's spectral norm, or of the gradients that are not penalised."""
    lipschitz_weight: float = field(default=0.1, metadata={"later": True})
    """Lambda of the adversarial, random and gradient_penalty terms."""
    lipschitz_eps: float = field(default=0.05, metadata={"later": True})
    """Size of the noise on observations, in their standard deviations."""
    lipschitz_steps: int = field(default=1, metadata={"later": True})
    """Signed gradient steps of an attack: 1 is FGSM, more are PGD."""
    lipschitz_output: bool = field(default=False, metadata={"later": True})
    """Whether the spectral norm of the output layer is bounded too."""

    def smoothness(self) -> Config:
        """The mechanism."""
        return Config(
            self.lipschitz,
            self.lipschitz_bound,
            self.lipschitz_weight,
            self.lipschitz_eps,
            self.lipschitz_steps,
            self.lipschitz_output,
        )
