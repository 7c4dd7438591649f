"""What the processes of one run do together. With a single process, as usual, all of this is trivial.

Every process runs the same program on its own devices; the leader alone writes logs, rows and manifests.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxrl_suite.errors import UserError, complaint

VARIABLE = "JAXRL_SUITE_WORKER"  # set by the supervisor for its worker: the address of JAX's coordinator, count, index
CONNECT_SECONDS = 60


class Place(NamedTuple):
    """A process among those of a run."""

    host: str
    port: int
    size: int
    rank: int  # from 0 on; 0 leads

    def __str__(self) -> str:
        return f"{self.host}:{self.port},{self.size},{self.rank}"


def parse(text: str) -> Place:
    """`HOST:PORT,COUNT,INDEX`.

    Raises:
        UserError: the text is something else.
    """
    address, *numbers = text.split(",")
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and len(numbers) == 2 and all(number.isdecimal() for number in numbers)):
        raise UserError(
            f"--distributed={text} is not HOST:PORT,PROCESSES,INDEX; give the address of process 0, how many there "
            "are, and which one this is, from 0 on"
        )
    place = Place(host, int(port), *map(int, numbers))
    if not (place.rank < place.size and 0 < place.port < 65535):
        raise UserError(f"--distributed={text}: expected an index below {place.size} and a port from 1 to 65534")
    return place


def is_worker() -> bool:
    """Whether a supervisor has started this process."""
    return VARIABLE in os.environ


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Within this, be one of the processes of a run, if a supervisor has started this one.

    To be entered before JAX computes anything. A failure ends the process at once: JAX's own way out would wait for
    the others.
    """
    if not is_worker():
        yield
        return
    place = parse(os.environ[VARIABLE])
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    try:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            f"{place.host}:{place.port}", place.size, place.rank, initialization_timeout=CONNECT_SECONDS
        )
        yield
    except BaseException as error:
        if line := complaint(error):
            print(f"error: {line}", file=sys.stderr, flush=True)
            os._exit(2)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _end_with_supervisor() -> None:
    """The supervisor holds the other end of standard input; it is closed when the supervisor dies, however it does."""
    os.read(0, 1)  # not through sys.stdin, whose lock would be held when the interpreter ends
    os._exit(1)


def leads() -> bool:
    """Whether this process writes what the run leaves behind."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Wait here for all processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agree(*flags: bool) -> Sequence[bool]:
    """The same answers in all processes: yes where any of them says so."""
    if jax.process_count() == 1:
        return flags
    return [bool(answer) for answer in np.any(multihost_utils.process_allgather(np.array(flags)), axis=0)]
