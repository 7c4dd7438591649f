"""Sinks: what the loop logs, also as files of TensorBoard and of Weights & Biases (offline).

A sink is a function of the local logs: it is written anew at the start of a sitting, from the logs as they stand then
(`Sinks.begin`), and follows them from there. So a run that was killed and resumed shows each point once. What a sink
does has no influence on the run: its first error is told in one line, and ends the sink.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.train import identity, rundir

PROJECT = "jaxrl_suite"  # of Weights & Biases
EVAL = "eval"  # the kind of an evaluation; that of a training metric is its phase
PLACE = ("phase", "seed", "settings", "update")  # where a record belongs; the rest are values
Record = Mapping[str, Any]


class Sink(NamedTuple):
    """Somewhere that records go to."""

    write: Callable[[str, str, int, Mapping[str, float]], None]  # member, kind, update, values
    close: Callable[[], None]


# --- What a sink is asked to hold ---
def values(record: Record) -> dict[str, float]:
    """The finite numbers of a record; a truth value is 0 or 1."""
    numbers = {name: value for name, value in record.items() if name not in PLACE and isinstance(value, int | float)}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def member(record: Record, several: bool) -> str:
    """Whose record it is: `seed_3`, below its settings where members differ in them (`several`)."""
    settings = record.get("settings")
    return f"{settings}/seed_{record['seed']}" if several and settings else f"seed_{record['seed']}"


def logged(directory: Path) -> Iterator[tuple[str, Record]]:
    """Everything that a run directory's logs hold, as pairs of kind and record."""
    with contextlib.suppress(FileNotFoundError), open(directory / "metrics.jsonl", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            yield record["phase"], record
    if (directory / "eval.csv").exists():
        yield from ((EVAL, row) for row in rundir.read_rows(directory / "eval.csv"))


# --- TensorBoard ---
def _tensorboard(directory: Path) -> Sink:
    """One TensorBoard run per member, `tensorboard/<member>`; tags are `<kind>/<name>`, steps are updates."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder = _emptied(directory / "tensorboard")
    writers: dict[str, RecordWriter] = {}
    opened = contextlib.ExitStack()

    def write_event(writer: RecordWriter, **content: Any) -> None:
        writer.write(Event(wall_time=time.time(), **content).SerializeToString())
        writer.flush()  # so that TensorBoard shows it now, and a full disk is noticed here

    def writer_of(name: str) -> RecordWriter:
        if name not in writers:
            (folder / name).mkdir(parents=True)
            path = folder / name / f"events.out.tfevents.{int(time.time())}"
            writers[name] = RecordWriter(opened.enter_context(open(path, "xb")))  # noqa: SIM115
            write_event(writers[name], file_version="brain.Event:2")
        return writers[name]

    def write(name: str, kind: str, update: int, numbers: Mapping[str, float]) -> None:
        points = [Summary.Value(tag=f"{kind}/{tag}", simple_value=number) for tag, number in numbers.items()]
        write_event(writer_of(name), step=update, summary=Summary(value=points))

    return Sink(write, opened.close)


# --- Weights & Biases ---
def _wandb(directory: Path) -> Sink:
    """One offline run per member in `wandb/`, grouped by run directory; `<kind>/<name>` against `<kind>/update`."""
    import wandb

    _emptied(directory / "wandb")
    described = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config, variants = described["config"], dict(described.get("variants") or ())
    quiet = wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_machine_info=True)
    runs: dict[str, Any] = {}
    opened = contextlib.ExitStack()
    kinds: set[tuple[str, str]] = set()

    def run_of(name: str) -> Any:
        if name not in runs:
            changed = variants.get(name.rpartition("/")[0], {})
            runs[name] = wandb.init(
                mode="offline",
                project=PROJECT,
                dir=directory,
                id=identity.digest(directory.name, name),
                group=directory.name,
                name=f"{directory.name}/{name}",
                config={**config, "config": {**config["config"], **changed}, "member": name},
                reinit="create_new",
                settings=quiet,
            )
            opened.callback(runs[name].finish)
        return runs[name]

    def write(name: str, kind: str, update: int, numbers: Mapping[str, float]) -> None:
        run, step = run_of(name), f"{kind}/update"
        if (name, kind) not in kinds:
            kinds.add((name, kind))
            run.define_metric(f"{kind}/*", step_metric=step)
        run.log({step: update} | {f"{kind}/{tag}": number for tag, number in numbers.items()})

    return Sink(write, opened.close)


def _emptied(folder: Path) -> Path:
    """A folder of our own without what an earlier sitting left in it."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    return folder


SINKS: dict[str, Callable[[Path], Sink]] = {"tensorboard": _tensorboard, "wandb": _wandb}
# A module of each library: a bare `import wandb` would also take an empty folder of that name.
MODULES = {"tensorboard": "tensorboard.summary.writer.record_writer", "wandb": "wandb.sdk"}


# --- Choosing and using them ---
def parse(text: str) -> tuple[str, ...]:
    """`tensorboard,wandb` -> their names; nothing for an empty text.

    Raises:
        UserError: an unknown sink, or one whose extra is not installed.
    """
    names = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for name in names:
        if name not in SINKS:
            raise unknown("sink", name, SINKS, f"(in --log={text})")
        try:
            importlib.import_module(MODULES[name])
        except ImportError as error:
            raise UserError(f'--log={name} needs the extra: pip install -e ".[{name}]" ({error})') from error
    return names


class Sinks:
    """The sinks of one sitting in a run directory. Nothing that goes wrong in one of them is raised."""

    def __init__(self, names: Sequence[str], directory: Path, note: Callable[[str], None]) -> None:
        self._names, self._directory, self._note = names, directory, note
        self._open: dict[str, Sink] = {}
        self._several = False

    def __enter__(self) -> Sinks:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._open):
            with self._guarded(name):
                self._open.pop(name).close()

    def begin(self) -> None:
        """Open the sinks, empty, and write what the logs of the run directory hold."""
        for name in self._names:
            with self._guarded(name):
                described = json.loads((self._directory / "config.json").read_text(encoding="utf-8"))
                self._several = len(described.get("variants") or ()) > 1
                self._open[name] = SINKS[name](self._directory)
                for kind, record in logged(self._directory):
                    self._hand(name, kind, record)

    def write(self, kind: str, record: Record) -> None:
        """Hand a record on that has just been appended to the logs."""
        for name in list(self._open):
            with self._guarded(name):
                self._hand(name, kind, record)

    def _hand(self, name: str, kind: str, record: Record) -> None:
        self._open[name].write(member(record, self._several), kind, int(record["update"]), values(record))

    @contextlib.contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """Tell of an error once, and go on without the sink."""
        try:
            yield
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            self._note(f"--log={name} has stopped: {reason}; the run goes on, its own logs are complete")
            if (sink := self._open.pop(name, None)) is not None:
                with contextlib.suppress(Exception):  # what is told is the first error
                    sink.close()


def export(text: str, directory: Path, note: Callable[[str], None]) -> None:
    """Write the sinks that `text` names, as `parse` reads it, from the logs of a run that has finished."""
    with Sinks(parse(text), directory, note) as opened:
        opened.begin()
