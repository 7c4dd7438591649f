"""Whether files that were published can be trusted: whole, of this version, and with numbers where numbers belong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrl_suite.errors import UserError
from jaxrl_suite.train import rundir

WHOLE_NUMBERS = ("seed", "updates", "update")


def whole(path: Path) -> None:
    """Refuse a file whose last line is torn: its last cell may be, too."""
    if not path.read_bytes().endswith(b"\n"):
        raise UserError(f"{path} is half written: its last line does not end; write it anew, or end the line")


def require(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Refuse rows that lack columns."""
    missing = [name for name in columns if rows and name not in rows[0]]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}; write it anew with the version installed here")


def table(path: Path, columns: Sequence[str]) -> None:
    """Refuse a csv file that is damaged, half written, lacks columns, or has no numbers beside its identifiers."""
    whole(path)
    rows = rundir.read_rows(path)
    require(path, rows, columns)
    for row in rows:
        numbers(path, row, [name for name in columns if not name.endswith("_id")])


def numbers(path: Path, row: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse a row that holds something else than numbers in these columns; NaN is one."""
    for name in names:
        kind = "whole number" if name in WHOLE_NUMBERS else "number"
        if isinstance(row[name], bool) or not isinstance(row[name], int if name in WHOLE_NUMBERS else int | float):
            raise UserError(f"{path}: {name} is {row[name]!r}, expected a {kind}; repair the file or write it anew")
