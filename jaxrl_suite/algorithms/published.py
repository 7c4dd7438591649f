"""Published settings per algorithm and data set: published.csv, a table with sources, read into `Config`s.

A row changes fields of an algorithm's `paper` preset on one data set. What has no row is the preset as it is.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import re
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

TRUTH = {"true": True, "false": False}
Config = TypeVar("Config")


class Row(NamedTuple):
    """A line of the table."""

    algo: str
    dataset: str  # D4RL's name without version, such as hopper-medium-replay
    settings: dict[str, str]  # field of the Config, dotted where nested -> its value as text
    source: str


@functools.cache
def table() -> dict[tuple[str, str], Row]:
    """All rows, by algorithm and data set."""
    text = resources.files("jaxrl_suite.algorithms").joinpath("published.csv").read_text(encoding="utf-8")
    rows = [
        Row(
            line["algo"],
            line["dataset"],
            dict(part.split("=", 1) for part in line["settings"].split()),
            line["source"],
        )
        for line in csv.DictReader(text.splitlines())
    ]
    assert len({row[:2] for row in rows}) == len(rows), "a data set stands twice with an algorithm"
    return {(row.algo, row.dataset): row for row in rows}


def family_of(dataset: str) -> str:
    """What the table calls a data set: `hopper-medium-replay` for its mini, its v2, and a file of that name."""
    stem = Path(dataset).stem if dataset.lower().endswith((".hdf5", ".h5", ".npz")) else dataset
    return re.sub(r"(-v\d+|-mini)$", "", stem.lower().replace("_", "-"))


def applied(config: Config, algo: str, dataset: str) -> Config:
    """The config with what is published for this data set."""
    row = table().get((algo, family_of(dataset)))
    for name, text in (row.settings if row else {}).items():
        config = _changed(config, name, text)
    return config


def _changed(config: Any, name: str, text: str) -> Any:
    """A dataclass with one field, dotted where nested, set from text.

    Raises:
        ValueError: no such field, or text that is not of its type: the table is wrong.
    """
    head, _, rest = name.partition(".")
    if head not in {field.name for field in dataclasses.fields(config)}:
        raise ValueError(f"published.csv: {type(config).__module__} has no setting {name!r}")
    value = getattr(config, head)
    return dataclasses.replace(config, **{head: _changed(value, rest, text) if rest else _parsed(text, value)})


def _parsed(text: str, like: Any) -> Any:
    if isinstance(like, bool):
        return TRUTH[text]
    if isinstance(like, tuple):
        return tuple(type(like[0])(part) for part in text.split("x"))
    return type(like)(text)
