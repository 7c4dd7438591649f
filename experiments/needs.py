"""Runs as claims and summaries name them: an algorithm, a data set, and what is changed in its preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jaxrl_suite.algorithms import registry
from jaxrl_suite.errors import unknown
from jaxrl_suite.report.claims import Needed
from jaxrl_suite.train import settings

REPLAYS = tuple(f"{task}-medium-replay-mini" for task in ("hopper", "halfcheetah", "walker2d"))  # the suite's data sets


def needed(algo: str, dataset: str, changes: Mapping[str, Any], preset: str = "quick") -> Needed:
    """The runs of an algorithm with fields of its Config changed; a field at its preset's value changes nothing.

    Raises:
        UserError: no such algorithm or preset.
    """
    entry = registry.get(algo)
    if preset not in entry.presets:
        raise unknown("preset", preset, entry.presets)
    before = registry.preset(entry, preset, dataset)
    text = settings.differences(settings.fields(replace(before, **changes)), settings.fields(before))
    return Needed(algo, dataset, text)
