"""User errors: one clear line, exit code 2, no traceback."""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any


class UserError(Exception):
    """Bad input. The message says what was wrong, what was expected and what to do."""


def in_vain(config: Any, names: Iterable[str], prefix: str, by: str) -> str:
    """Which of the fields `names` of a dataclass are given, though `by` has no use for them; empty where none is."""
    usual = type(config)()
    given = [name for name in names if getattr(config, name) != getattr(usual, name)]
    options = ", ".join(f"{prefix}{name.replace('_', '-')}={getattr(config, name)}" for name in given)
    return f"{options} changes nothing: {by} has no use for it" if given else ""


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> UserError:
    """The error for a name that is not registered, with the nearest names first."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    offer = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return UserError(f"unknown {kind} {name!r}; {offer}{' ' + hint if hint else ''}")


def exits_cleanly(main: Callable[..., int | None]) -> Callable[..., None]:
    """Decorate a command's `main`: a UserError becomes one line on stderr and exit code 2, Ctrl-C exit code 130."""

    @functools.wraps(main)
    def run(*args: object, **kwargs: object) -> None:
        try:
            code = main(*args, **kwargs)
        except UserError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            code = 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            code = 130
        sys.exit(code or 0)

    return run
