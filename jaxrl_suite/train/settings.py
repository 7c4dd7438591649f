"""Settings of a run as people write them: `critics=2 hidden=64x64`. Pure functions of config dataclasses and text."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.types import Algorithm

SHARES = ("gamma", "tau", "expectile")  # settings that are at most one, in every algorithm that has them


def fields(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value of every field of a dataclass, and of those nested in it."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value, name = getattr(config, item.name), prefix + item.name
        found |= fields(value, f"{name}.") if dataclasses.is_dataclass(value) else {name: value}
    return found


def differences(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """What differs from the defaults, in their order: `critics=2 hidden=64x64`; empty where nothing does."""
    changed = {name: values[name] for name in defaults if values[name] != defaults[name]}
    return " ".join(f"{name}={shown(value)}" for name, value in changed.items())


def shown(value: Any) -> str:
    """A value as the command line takes it; lists with an x between."""
    if isinstance(value, tuple | list):
        return "x".join(map(shown, value))
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def require_positive(config: Any, prefix: str = "--") -> None:
    """Refuse sizes below one anywhere in a config: whole numbers, and the entries of tuples of whole numbers. Those
    that may be none (metadata `zero`) start at zero. Other numbers are finite, and shares at most one. `prefix` stands
    before a field's name in what is said.

    Raises:
        UserError: naming the option.
    """
    for item in dataclasses.fields(config):
        value, option = getattr(config, item.name), prefix + (item.name.replace("_", "-") if prefix else item.name)
        if dataclasses.is_dataclass(value):
            require_positive(value, f"{option}.")
        entries, least = value if isinstance(value, tuple) else (value,), 0 if item.metadata.get("zero") else 1
        if any(isinstance(n, int) and not isinstance(n, bool) and n < least for n in entries):
            raise UserError(f"{option}={value} must be at least {least}; give a whole number from there on")
        signed = item.metadata.get("signed") or "log_var" in item.name
        if any(isinstance(n, float) and n < 0 for n in entries) and not signed:
            raise UserError(f"{option}={value} must not be negative; give a number of at least 0")
        if any(isinstance(n, float) and not math.isfinite(n) for n in entries):
            raise UserError(f"{option}={value} must be finite; give another number")
        if item.name in SHARES and value > 1:
            raise UserError(f"{option}={value} must not be above 1; give a number from 0 to 1")


def changed(config: Any, owner: str, changes: Mapping[str, Any]) -> Any:
    """A config with some fields changed, for people who write Python.

    Raises:
        UserError: a field that `owner` has not, something else where a number belongs, or a number out of range.
    """
    known = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
    for name, value in changes.items():
        if name not in known:
            raise unknown(f"setting of {owner}", name, known)
        kind = {int: numbers.Integral, float: numbers.Real}.get(type(known[name]))
        if kind and (not isinstance(value, kind) or isinstance(value, bool)):
            a = "whole number" if kind is numbers.Integral else "number"
            raise UserError(f"{name}={value!r} is no {a}; give one, as in {name}={known[name]!r}")
    config = dataclasses.replace(config, **changes)
    require_positive(config, "")
    return config


# --- Variants: what members of one population may differ in ---
def traced(algorithm: Algorithm, config: Any) -> tuple[str, ...]:
    """The fields of a config that are traced scalars of the algorithm, by the same name in its Hypers."""
    hypers = algorithm.hypers
    names = [item.name for item in dataclasses.fields(hypers)] if dataclasses.is_dataclass(hypers) else []
    return tuple(name for name in names if isinstance(getattr(config, name, None), float))


def program(config: Any, names: Sequence[str]) -> Any:
    """What decides the compiled program: configs that are equal in this share one, and so a population.

    Of a traced number only whether it is zero counts: a weight of zero leaves its term out of the program.
    """
    return dataclasses.replace(config, **{name: float(getattr(config, name) != 0) for name in names})


def variants(config: Any, names: Sequence[str], words: Sequence[str]) -> tuple[Any, ...]:
    """A config per word, each `name=value` or several with commas between; the config itself without words.

    Args:
        config: what every variant starts from.
        names: the `traced` fields, which alone may vary.
        words: such as `diversity=0.1` or `tau=0.01,critic_lr=1e-3`.

    Raises:
        UserError: a word that is no setting, a field that is not traced, two variants that are equal, or a zero beside
            other values.
    """
    found = tuple(dataclasses.replace(config, **_changes(word, names)) for word in words) or (config,)
    if len(set(found)) < len(found):
        raise UserError(f"--vary {' '.join(words)} names the same variant twice; name each once")
    for name in names:
        values = [getattr(variant, name) for variant in found]
        if 0 in values and any(values):
            raise UserError(
                f"--vary {name}: 0 leaves a term out and so is another program; run it on its own, or use "
                "experiments.sweep --grid"
            )
    return found


def _changes(word: str, names: Sequence[str]) -> dict[str, float]:
    changes = {}
    for part in word.split(","):
        name, _, text = part.partition("=")
        name = name.strip().replace("-", "_")
        try:
            value = float(text)
        except ValueError:
            raise UserError(f"--vary {word}: expected name=number, with commas between, got {part!r}") from None
        if name not in names:
            raise unknown("traced setting", name, names, "(others need a program each: experiments.sweep --grid)")
        changes[name] = value
    return changes
