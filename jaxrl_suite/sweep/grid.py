"""Grids: a list of runs as the product of algorithms, data sets and settings. Pure functions of text."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxrl_suite.errors import UserError, unknown

TRUTH = {"true": True, "1": True, "false": False, "0": False}


class Setting(NamedTuple):
    """A field of a Config, dotted where nested, and the texts of the values that it takes."""

    name: str
    values: tuple[str, ...]


class Point(NamedTuple):
    """A place in the grid."""

    algo: str
    dataset: str
    settings: dict[str, str]  # field -> text of its value


def split(option: str, text: str) -> tuple[str, ...]:
    """`a,b` -> (a, b).

    Raises:
        UserError: nothing between two commas, or the same twice.
    """
    values = tuple(value.strip() for value in text.split(","))
    if not all(values):
        raise UserError(f"{option}={text} has an empty value; give values with commas between, such as a,b")
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise UserError(f"{option}={text} names {twice[0]} twice; name it once")
    return values


def parse(words: Sequence[str], option: str = "--grid") -> tuple[Setting, ...]:
    """`critics=2,10` -> Setting("critics", ("2", "10")); dashes in a name stand for underscores.

    Raises:
        UserError: a word is not name=value,value, or a field is named twice.
    """
    settings: list[Setting] = []
    for word in words:
        name, equals, values = word.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if not (name and equals):
            raise UserError(f"{option} {word!r} is not a setting; expected name=value,value such as critics=2,10")
        if name in {setting.name for setting in settings}:
            raise UserError(f"{option} names {name} twice; give all its values at once: {name}=a,b")
        settings.append(Setting(name, split(f"{option} {name}", values)))
    return tuple(settings)


def expand(known: Mapping[str, Mapping[str, Any]], datasets: Sequence[str], settings: Sequence[Setting]) -> list[Point]:
    """The product, algorithms outermost; a setting varies only those algorithms that have the field.

    Args:
        known: algorithm -> its fields, dotted where nested, with their defaults.
        datasets: their names.
        settings: what varies.

    Raises:
        UserError: a field that none of the algorithms has.
    """
    everything = sorted({name for names in known.values() for name in names})
    for setting in settings:
        if setting.name not in everything:
            raise unknown("setting", setting.name, everything, f"(of {', '.join(known)}; see --help of --algo)")
    points = []
    for algo, names in known.items():
        mine = [setting for setting in settings if setting.name in names]
        for dataset, *values in itertools.product(datasets, *(setting.values for setting in mine)):
            points.append(Point(algo, dataset, dict(zip((s.name for s in mine), values, strict=True))))
    return points


def parts(points: Sequence[Point], most: int) -> list[Sequence[Point]]:
    """The points in their order, `most` at a time."""
    return [points[first : first + most] for first in range(0, len(points), most)]


def merged(points: Sequence[Point]) -> dict[str, str]:
    """The settings of several points, field -> texts of its values with commas between."""
    names = dict.fromkeys(name for point in points for name in point.settings)
    return {name: ",".join(dict.fromkeys(point.settings[name] for point in points)) for name in names}


def option(name: str, text: str, default: Any) -> str | bool | list[str]:
    """The text of a value as plain JSON, for a field with this default; `64x64` is a list.

    Raises:
        UserError: no truth value where the field is one.
    """
    if isinstance(default, bool):
        if text.lower() not in TRUTH:
            raise UserError(f"{name}={text} is neither true nor false")
        return TRUTH[text.lower()]
    return text.split("x") if isinstance(default, tuple) else text
