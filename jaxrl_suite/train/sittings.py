"""On which devices a run has been computed: a line per sitting in its directory."""

from __future__ import annotations

import datetime
import itertools
import json
from pathlib import Path

from jaxrl_suite.errors import UserError
from jaxrl_suite.train import rundir

FILE = "sittings.jsonl"


def begin(path: Path, devices: str) -> None:
    """Note in a run directory that a sitting begins, and on which devices."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    rundir.Log.jsonl(path / FILE).append({"started": now, "devices": devices})


def layouts(path: Path) -> list[str]:
    """The device layouts that a run has been computed on, in turn; its group id has the first one.

    Raises:
        UserError: no run directory that says so stands there.
    """
    try:
        lines = (Path(path) / FILE).read_text(encoding="utf-8").splitlines()
        layouts = [str(json.loads(line)["devices"]) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a run to resume (no readable {FILE}); give the folder of a run") from error
    if not layouts:
        raise UserError(f"{path} has not begun; start it without --resume")
    return [layout for layout, _ in itertools.groupby(layouts)]
