"""The box's studies: which settings are trained for which figure, and how settings are written and grouped."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from experiments import box_agent
from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.report.claims import Needed
from jaxrl_suite.train import settings

EXPERIMENT = "edge_of_reach"
WORLD = "box"
METHODS: dict[str, dict[str, Any]] = {
    "base": {},
    "patched": {"edge_patch": 1.0},
    "random-patched": {"random_patch": 1.0},
    "minimum": {"critics": 5},
    "ravl": {"critics": 5, "diversity": 1.0},
}
RIM = {"distance": 9.0, "width": 4.0}  # a reward nearer to the rim, and wider, than that of the presets
INNER, INNER_LENGTHS = {"distance": 4.0}, (10, 20)  # where the map showed RAVL to repair something, with two seeds
NETWORKS: tuple[dict[str, Any], ...] = (
    {"hidden": (32, 32)},
    {"hidden": (128, 128)},
    {"scale": 0.1},
    {"layer_norm": True},
)
HORIZONS = (1, 5, 10, 20, 30)
DISTANCES, LENGTHS = (4.0, 7.0, 8.0, 9.0, 11.0), (5, 10, 20)
CRITICS, DIVERSITIES = (5, 10), (0.0, 0.1, 1.0, 100.0)


class Arm(NamedTuple):
    """A method with fields of its Config changed."""

    method: str
    changes: tuple[tuple[str, Any], ...] = ()

    def config(self, preset: str, updates: int = 0) -> box_agent.Config:
        """Its Config.

        Raises:
            UserError: no such preset.
        """
        return replace(default(self.method, preset, updates), **dict(self.changes))


class Study(NamedTuple):
    """Settings that one figure shows."""

    name: str
    words: str
    arms: tuple[Arm, ...]
    seeds: int


def _arms(methods: Sequence[str], **fields: Sequence[Any]) -> tuple[Arm, ...]:
    """Every combination."""
    values = itertools.product(*fields.values())
    changes = [tuple(zip(fields, chosen, strict=True)) for chosen in values]
    return tuple(Arm(method, change) for method in methods for change in changes)


def _single(fields: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """One value of each field."""
    return {name: (value,) for name, value in fields.items()}


def default(method: str, preset: str, updates: int = 0) -> box_agent.Config:
    """The Config of a method in a preset.

    Raises:
        UserError: no such method or preset.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if preset not in box_agent.PRESETS:
        raise unknown("preset", preset, box_agent.PRESETS)
    config = replace(box_agent.PRESETS[preset], **METHODS[method])
    return replace(config, updates=updates) if updates else config


def text(arm: Arm, preset: str, updates: int = 0) -> str:
    """What an arm changes in its method, as a summary says it: `horizon=5 critics=2`."""
    before = settings.fields(default(arm.method, preset))
    return settings.differences(settings.fields(arm.config(preset, updates)), before)


def needed(arm: Arm, preset: str = "quick") -> Needed:
    """The runs of an arm, as claims name them."""
    return Needed(arm.method, WORLD, text(arm, preset))


def custom(methods: str, **lists: str) -> Study | None:
    """The study that options describe, or None where they describe none: lists with commas between.

    Raises:
        UserError: an unknown method, or something that is no number.
    """
    given = {name: _numbers(name, words) for name, words in lists.items() if words}
    if not methods and not given:
        return None
    names = [name.strip() for name in methods.split(",")] if methods else list(METHODS)
    for name in names:
        default(name, "quick")
    return Study("custom", "what the options say", _arms(names, **given), 1)


def _numbers(name: str, words: str) -> tuple[Any, ...]:
    kind = type(getattr(box_agent.QUICK, name))
    try:
        return tuple(kind(word) for word in words.split(","))
    except ValueError:
        raise UserError(f"--{name}={words} is no list of numbers; give some between commas, as in 5,10") from None


def groups(arms: Sequence[Arm], preset: str, updates: int = 0) -> list[list[Arm]]:
    """The arms, each once, by the program that trains them: in traced numbers members of one may differ."""
    found: dict[Any, dict[box_agent.Config, Arm]] = {}
    for arm in arms:
        config = arm.config(preset, updates)
        untraced: dict[str, Any] = dict.fromkeys(box_agent.TRACED, 0.0)
        program = replace(config, diversity=float(config.diversity > 0), **untraced)
        found.setdefault(program, {}).setdefault(config, arm)
    return [list(mine.values()) for mine in found.values()]


def alike(arms: Sequence[Arm], preset: str, updates: int = 0) -> list[tuple[Arm, Arm]]:
    """Each arm that is another by a different name, which `groups` leaves out, with the one that is trained for it."""
    first: dict[box_agent.Config, Arm] = {}
    pairs = [(arm, first.setdefault(arm.config(preset, updates), arm)) for arm in arms]
    return [(arm, trained) for arm, trained in pairs if arm != trained]


def _named(studies: Sequence[Study]) -> dict[str, Study]:
    """Studies by name, in which a setting has the name of the first arm that is it: rows have one name each."""
    first: dict[box_agent.Config, Arm] = {}
    arms = {
        study.name: dict.fromkeys(first.setdefault(arm.config("quick"), arm) for arm in study.arms) for study in studies
    }
    return {study.name: study._replace(arms=tuple(arms[study.name])) for study in studies}


STUDIES = _named(
    (
        Study("methods", "the methods as they are", _arms(tuple(METHODS)), 8),
        Study("horizons", "rollouts from one step to the whole episode", _arms(("base",), horizon=HORIZONS), 8),
        Study("ensemble", "the least of ten critics", _arms(("minimum",), critics=(10,)), 8),
        Study("diversity", "diversity of two critics", _arms(("ravl",), critics=(2,), diversity=DIVERSITIES), 8),
        Study(
            "critics",
            "number of critics against their diversity",
            _arms(("ravl",), critics=CRITICS, diversity=DIVERSITIES),
            2,
        ),
        Study(
            "rewards",
            "the reward's distance against the rollouts' length",
            _arms(("base", "patched", "minimum", "ravl"), distance=DISTANCES, horizon=LENGTHS),
            2,
        ),
        Study(
            "rim",
            "a wider reward nearer to the rim of reach",
            (*_arms(tuple(METHODS), **_single(RIM)), *_arms(("minimum",), critics=(10,), **_single(RIM))),
            8,
        ),
        Study(
            "inner",
            "a reward four steps away, where most rollouts pass",
            (
                *_arms(("base", "minimum", "ravl"), **_single(INNER), horizon=INNER_LENGTHS),
                *_arms(("patched", "random-patched"), **_single(INNER)),
                *_arms(("base",), **_single(INNER), horizon=(30,)),
            ),
            8,
        ),
        Study(
            "networks",
            "networks of other sizes, whose inputs are scaled, or with layer normalisation",
            tuple(
                arm for change in NETWORKS for arm in _arms(("base", "patched", "minimum", "ravl"), **_single(change))
            ),
            8,
        ),
        Study(
            "norm",
            "layer normalisation at the other places of the reward",
            tuple(
                arm for place in (RIM, INNER) for arm in _arms(("base", "ravl"), **_single(place), layer_norm=(True,))
            ),
            8,
        ),
    )
)
FURTHER = ("rim", "inner", "networks", "norm")  # studies that are made where they are asked for
USUAL = tuple(name for name in STUDIES if name not in FURTHER)
