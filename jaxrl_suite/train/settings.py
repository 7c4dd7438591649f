"""Settings of a run as people write them: `critics=2 hidden=64x64`. Pure functions of config dataclasses and text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.types import Algorithm


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
