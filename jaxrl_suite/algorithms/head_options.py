"""The options by which every critic of every algorithm takes its value head."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from jaxrl_suite.values.heads import HeadConfig


@dataclass(frozen=True)
class HeadOptions:
    """How the critics' outputs stand for a value."""

    head: str = "mse"
    """Value head of the critics: mse, hl_gauss, two_hot, c51, quantile, mse_softmax, two_hot_symexp, symlog,
    symlog_mse, symlog_hl_gauss."""
    bins: int = field(default=101, metadata={"later": True})
    """Bins (or quantiles) of a head with a distribution."""
    sigma_ratio: float = field(default=0.75, metadata={"later": True})
    """Width of HL-Gauss's Gaussian, in bins."""
    support: str = field(default="auto", metadata={"later": True})
    """Values that a head's bins cover: auto, the data set's returns with padding, or LO,HI."""
    initial_value: str = field(default="middle", metadata={"later": True})
    """Value that critics with bins begin at: middle, of the support, or a number, such as 0."""

    def value_head(self) -> HeadConfig:
        """The part that shapes the value head."""
        return HeadConfig(self.head, self.bins, self.sigma_ratio, self.support, self.initial_value)


@dataclass(frozen=True)
class OnlineHeadOptions(HeadOptions):
    """The same without data, where runs had been published before there were heads."""

    head: str = field(default="mse", metadata={"later": True})
    """Value head of the critics: mse, hl_gauss, two_hot, c51, quantile, mse_softmax, two_hot_symexp, symlog,
    symlog_mse, symlog_hl_gauss."""
    support: str = field(default="auto", metadata={"later": True})
    """Values that a head's bins cover: LO,HI, which a head with a support needs, for there are no data to tell."""


def fields_of(head: HeadConfig) -> dict[str, Any]:
    """The fields of HeadOptions that stand for this value head."""
    own = asdict(head)
    return {"head": own.pop("name"), **own}
