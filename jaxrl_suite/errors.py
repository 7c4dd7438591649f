"""User errors: one clear line, exit code 2, no traceback."""

from __future__ import annotations

import difflib
import functools
import os
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


def complaint(error: BaseException) -> str:
    """The line for an error that users can mend: bad input, or devices that are not there; empty for any other one."""
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    # What JAX raises where it finds no device says little (AssertionError, and without words): ask it once more.
    return _no_device() if isinstance(error, RuntimeError | AssertionError) else ""


def _no_device() -> str:
    """That JAX finds no device, and what to do; empty where it finds some."""
    import jax  # not above: this file is for parts, too, that compute nothing

    try:
        jax.devices()
    except (RuntimeError, AssertionError):
        return (
            f"JAX finds no device with JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}; expected cpu, cuda or tpu: "
            "unset it to compute on what is there, or install the extra gpu or tpu (pip install -e '.[gpu]') on a "
            "machine that has one"
        )
    return ""


def exits_cleanly(main: Callable[..., int | None]) -> Callable[..., None]:
    """Decorate a command's `main`: what has a `complaint` becomes that line on stderr and exit code 2, Ctrl-C 130."""

    @functools.wraps(main)
    def run(*args: object, **kwargs: object) -> None:
        try:
            code = main(*args, **kwargs)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            code = 130
        except Exception as error:
            if not (line := complaint(error)):
                raise
            print(f"error: {line}", file=sys.stderr)
            code = 2
        sys.exit(code or 0)

    return run
