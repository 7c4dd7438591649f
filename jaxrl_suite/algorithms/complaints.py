"""What a Config asks for in vain, or what of it does not fit the data: one home for commands and notebooks."""

from __future__ import annotations

from typing import Any

from jaxrl_suite.algorithms import dyna, mbpo
from jaxrl_suite.algorithms.head_options import HeadOptions
from jaxrl_suite.algorithms.lipschitz_options import LipschitzOptions
from jaxrl_suite.models import uncertainty
from jaxrl_suite.types import Dataset
from jaxrl_suite.values import heads, lipschitz


def of(config: Any, dataset: Dataset) -> list[str]:
    """What to say of a Config, before anything is trained, as lines for the user."""
    found = []
    if isinstance(config, HeadOptions):
        found.append(heads.complaint(config.value_head(), dataset.mc_return))
    if isinstance(config, LipschitzOptions):
        found.append(lipschitz.complaint(config.smoothness()))
    if isinstance(config, dyna.Config) and config.kind != "oracle" and hasattr(config, "uncertainty"):
        dynamics = config.dynamics
        found.append(uncertainty.complaint(config.uncertainty, dynamics.members, dynamics.deterministic))
    if isinstance(config, mbpo.Config) and config.patch == "none" and config.patch_steps != mbpo.Config().patch_steps:
        found.append(f"--patch-steps={config.patch_steps} changes nothing without --patch=edge or random")
    return [line for line in found if line]
