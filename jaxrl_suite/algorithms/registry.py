"""Algorithms by name, and a user's own by `package.module:make`."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxrl_suite.algorithms import (
    bc,
    combo,
    cql,
    edac,
    iql,
    mbpo,
    mobile,
    mopo,
    morel,
    published,
    rambo,
    ravl,
    rebrac,
    sac,
    sac_n,
    td3_bc,
)
from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.types import Algorithm, Spec

MODEL_BASED, MODEL_FREE, ONLINE, YOURS = "offline, model-based", "offline, model-free", "online", "your own"


class Entry(NamedTuple):
    """An algorithm: its presets by name, all of one Config class, and its factory."""

    name: str
    presets: Mapping[str, Any]
    make: Callable[[Spec, Any], Algorithm]
    family: str = YOURS
    idea: str = ""  # in one line

    @property
    def online(self) -> bool:
        """Whether it learns by acting, not from a data set."""
        return self.family == ONLINE


ALGORITHMS = {
    entry.name: entry
    for entry in (
        Entry("bc", bc.PRESETS, bc.make, MODEL_FREE, "clone the behaviour"),
        Entry("bc10", bc.BEST_TENTH, bc.make, MODEL_FREE, "10% BC: clone the tenth of the rows with the best returns"),
        Entry("td3_bc", td3_bc.PRESETS, td3_bc.make, MODEL_FREE, "climb the value, but stay near the data's actions"),
        Entry("rebrac", rebrac.PRESETS, rebrac.make, MODEL_FREE, "TD3+BC, with that distance in the target too"),
        Entry("iql", iql.PRESETS, iql.make, MODEL_FREE, "an expectile of the data's values; clone what beats it"),
        Entry("cql", cql.PRESETS, cql.make, MODEL_FREE, "low values of untaken actions"),
        Entry("sac_n", sac_n.PRESETS, sac_n.make, MODEL_FREE, "the least of N critics"),
        Entry("edac", edac.PRESETS, edac.make, MODEL_FREE, "the least of N diverse critics"),
        Entry("mbpo", mbpo.PRESETS, mbpo.make, MODEL_BASED, "no pessimism beyond the least of two critics"),
        Entry("mopo", mopo.PRESETS, mopo.make, MODEL_BASED, "penalty: the model's noise, off the reward"),
        Entry("morel", morel.PRESETS, morel.make, MODEL_BASED, "episodes halt where members disagree"),
        Entry("combo", combo.PRESETS, combo.make, MODEL_BASED, "low values of imagined states and untaken actions"),
        Entry("rambo", rambo.PRESETS, rambo.make, MODEL_BASED, "the model learns on, against the policy"),
        Entry("mobile", mobile.PRESETS, mobile.make, MODEL_BASED, "penalty: disagreement on the value of next states"),
        Entry("ravl", ravl.PRESETS, ravl.make, MODEL_BASED, "no penalty; the least of N diverse critics"),
        Entry("sac", sac.PRESETS, sac.make, ONLINE, "maximum entropy, two critics"),
    )
}


def preset(entry: Entry, name: str, dataset: str = "") -> Any:
    """The Config of a preset; `paper` has what is published for the data set, where something is.

    Raises:
        UserError: no such preset.
    """
    if name not in entry.presets:
        raise unknown("preset", name, entry.presets)
    config = entry.presets[name]
    return published.applied(config, entry.name, dataset) if name == "paper" else config


def get(name: str) -> Entry:
    """The entry of that name; `package.module:make` imports a user's own.

    The module must define `Config`, a frozen dataclass, beside `make(spec, config) -> Algorithm`; it may define
    `PRESETS`, a dict from preset names to Configs.

    Raises:
        UserError: no such algorithm, or the module does not hold what it should.
    """
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    if ":" not in name:
        raise unknown("algorithm", name, ALGORITHMS, "(or your own, as package.module:make)")
    module_name, _, factory = name.partition(":")
    if not module_name or module_name.startswith("."):
        raise UserError(f"--algo={name} names no module from the top; expected package.module:make")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"cannot import {module_name!r} for --algo={name}: {error}") from error
    if not callable(getattr(module, factory, None)):
        raise UserError(f"{module_name} has no function {factory!r}; expected {factory}(spec, config) -> Algorithm")
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise UserError(f"{module_name} has no dataclass Config beside {factory}; expected a frozen dataclass")
    presets = getattr(module, "PRESETS", None) or {preset: config() for preset in ("smoke", "quick", "paper")}
    return Entry(name, presets, getattr(module, factory))
