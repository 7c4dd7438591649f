"""Options that all experiments share, and how a command line becomes a frozen run config.

`--algo` and `--preset` are read first: they choose the dataclass, and so the options, that the rest is parsed into.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import jax
import tyro
from rich.table import Table

from jaxrl_suite.algorithms import registry
from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.train import settings, sinks

PRESETS = ("smoke", "quick", "paper")
LARGEST_SEED = 2**31 - 1  # what a traced int32 holds
MOST_SEEDS = 10_000  # of one command
GROUPS = ("--shared", "--config")  # fields of a command line's dataclass whose names are not part of the options
T = TypeVar("T")


@dataclass(frozen=True)
class Shared:
    """Options that all experiments share."""

    algo: str = "ravl"
    """Algorithm: a registered name (--algo alone lists them), or your own as package.module:make. Chosen first; it
    brings its own options."""
    dataset: str = "hopper-medium-replay-mini"
    """Data set: a name (see python -m experiments.collect --list), minari:<id>, or the path of a file or folder."""
    preset: str = "quick"
    """Settings to start from: smoke (seconds), quick (minutes on two cores), paper (published, an accelerator)."""
    seeds: str = "1"
    """How many seeds, from 0 on (8), or a range (8:16). All of them train in one program."""
    vary: tuple[str, ...] = ()
    """Traced settings to train side by side in one program, each with all seeds: diversity=0.1 diversity=1,tau=0.01"""
    out: Path = Path("runs")
    """Folder for runs."""
    fresh: bool = False
    """Start over beside an earlier run of the same configuration, instead of resuming or returning it."""
    model: Path | None = None
    """A fitted world model to use instead of fitting one: an entry of the cache, <out>/models/<key>."""
    episodes: int = 10
    """Episodes per evaluation and seed."""
    checkpoint_seconds: float = 60.0
    """Seconds between two checkpoints."""
    mesh: str = ""
    """Devices, as seed:2,data:4: members of the population lie along seed, rows along data. Empty: all that are there,
    along seed as far as the seeds divide, the rest along data."""
    resume: Path | None = None
    """Go on with the unfinished run in this folder, of the same options, on other devices than it was begun on."""
    distributed: str = ""
    """Several processes, usually one per host, as one run: HOST:PORT,PROCESSES,INDEX, where HOST:PORT (and the port
    after it) is an address of process 0. All give the same options but for INDEX, and share the folder of --out."""
    sampling: Literal["global", "local"] = "global"
    """Global: the rows of a single device, whatever the mesh. Local: every shard of the data draws from its own rows,
    which moves none of them, but is another stream of random numbers and so another run."""
    diagnose: bool = False
    """Also ask agents at every evaluation: critics' spread and the model's doubt where rollouts end; value-aware model
    error on held-out rows, slopes of the values and their bound. Of a run that has finished, the final ones."""
    log: str = ""
    """Also log to: tensorboard, wandb (offline), or both with a comma between; each needs the extra of its name."""


def parse_seeds(text: str) -> tuple[int, ...]:
    """`8` -> 0..7, `8:16` -> 8..15.

    Raises:
        UserError: the text is neither a positive count nor a range that goes up, or seeds are too many or too large.
    """
    match = re.fullmatch(r"(?:(\d+):)?(\d+)", text)
    first, last = (int(match[1] or 0), int(match[2])) if match else (0, 0)
    if last <= first:
        raise UserError(f"--seeds={text} is neither a count (8) nor a range that goes up (8:16)")
    require_seeds("--seeds", text, last - 1)
    if last - first > MOST_SEEDS:
        raise UserError(f"--seeds={text} are {last - first} seeds; give at most {MOST_SEEDS} to one command")
    return tuple(range(first, last))


def require_seeds(option: str, value: Any, largest: int) -> None:
    """Refuse seeds beyond what a program can hold.

    Raises:
        UserError: naming the option.
    """
    if largest > LARGEST_SEED:
        raise UserError(f"{option}={value} is too large; give seeds of at most {LARGEST_SEED}")


def peek(arguments: Sequence[str], option: str, default: str) -> str:
    """The last value of `--option=value` or `--option value`, wherever it stands: as tyro takes it."""
    found = default
    for argument, following in zip(arguments, [*arguments[1:], None], strict=False):
        if argument.startswith(f"--{option}="):
            found = argument.partition("=")[2]
        elif argument == f"--{option}" and following is not None:
            found = following
    return found


def parse(
    cls: type[T],
    arguments: Sequence[str],
    default: T,
    prog: str,
    description: str,
    elsewhere: Callable[[str], str] = lambda option: "",
) -> T:
    """`cls` from a command line, through tyro; what tyro refuses becomes one line.

    `elsewhere` says of an option that is unknown here who has it, if anybody does.

    Raises:
        UserError: an unknown option, or a value of the wrong type.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            value, rest = tyro.cli(
                cls,
                prog=prog,
                description=description,
                args=list(arguments),
                default=default,
                return_unknown_args=True,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{_one_line(complaint.getvalue())} (see --help)") from None
    if rest:
        option = next((word for word in rest if word.startswith("-")), "").partition("=")[0]
        if not option:
            raise UserError(f"{rest[0]!r} belongs to no option; write them as --name=value (see --help)")
        if told := elsewhere(option):
            raise UserError(f"{told} (see --help)")
        raise unknown("option", option, _options(default), "(see --help)")
    return value


def _one_line(box: str) -> str:
    """The words of tyro's framed complaint, without its title and the option's help, but with what the option takes."""
    words = re.sub(r"\x1b\[[0-9;]*m|[\u2500-\u257f]", " ", box).split()
    words = [word for word in words if word.strip("-+|")]  # the frame where there are only ASCII characters
    text = re.sub(r"^(Parsing error|Value error|Invalid choice|Missing argument) ", "", " ".join(words))
    text = text.removeprefix("Error parsing ").split(" For full helptext")[0].strip()
    told = re.fullmatch(r"(--\S+): (.*) Argument helptext: \1 (\[.*?\]\]|\{.*?\}|\S+) .*", text)
    if told:
        option, what, takes = told.groups()
        return f"{option}: {what.rstrip('.')}; expected {option} {takes}"
    return text or "the command line cannot be read"


def _options(value: Any, prefix: str = "--") -> list[str]:
    """The option names of a dataclass; nested ones as --outer.inner, but for the groups without a name."""
    names = []
    for item in dataclasses.fields(value):
        inner, name = getattr(value, item.name), prefix + item.name.replace("_", "-")
        if dataclasses.is_dataclass(inner):
            names += _options(inner, prefix if name in GROUPS else f"{name}.")
        else:
            names.append(name)
    return names


def offline(arguments: Sequence[str], prog: str, description: str) -> tuple[Shared, registry.Entry, Any]:
    """Shared options, the algorithm and its config, from a command line."""
    entry = registry.get(peek(arguments, "algo", Shared.algo))
    preset = peek(arguments, "preset", Shared.preset)
    start = registry.preset(entry, preset, peek(arguments, "dataset", Shared.dataset))
    kind = dataclasses.make_dataclass(
        "Options",
        [
            (name, Annotated[kind, tyro.conf.arg(name="")])
            for name, kind in (("shared", Shared), ("config", type(start)))
        ],
        frozen=True,
    )
    default = kind(Shared(algo=entry.name, preset=preset), start)
    options: Any = parse(kind, arguments, default, prog, description, lambda option: _owners(option, entry))
    settings.require_positive(options.shared)
    settings.require_positive(options.config)
    sinks.parse(options.shared.log)
    return options.shared, entry, options.config


def _owners(option: str, entry: registry.Entry) -> str:
    """That other algorithms have an option which `entry` lacks; empty where none has it."""
    have = [each.name for each in registry.ALGORITHMS.values() if option in _options(each.presets["quick"])]
    more = f", ... ({len(have)} algorithms)" if len(have) > 4 else ""
    return f"{entry.name} has no {option}: that is an option of {', '.join(have[:4])}{more}" if have else ""


def asks_for_algorithms(arguments: Sequence[str]) -> bool:
    """Whether `--algo` stands there without a value."""
    following = [*arguments[1:], "--"]
    return any(word == "--algo" and after.startswith("-") for word, after in zip(arguments, following, strict=True))


def algorithms() -> Table:
    """The registered algorithms that learn from a data set, family by family: no command with --algo takes others."""
    table = Table("algorithm", "family", "idea")
    offline = [entry for entry in registry.ALGORITHMS.values() if not entry.online]
    for entry in sorted(offline, key=lambda entry: (entry.family, entry.name)):
        table.add_row(entry.name, entry.family, entry.idea)
    table.caption = "options of one: --algo=NAME --help"
    return table


def arguments() -> list[str]:
    """The words after the command's name."""
    return sys.argv[1:]


def cache_programs() -> None:
    """Keep compiled programs in the user's cache folder: a second run, and every resumed one, starts at once."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxrl_suite" / "xla"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.02)
