"""A Ray cluster: an actor per task, which runs it as a process of its node.

What travels is the name of `processes.Supervisor` and an `Order` of plain words, no code. Nodes share the folder of
runs and the working folder under the same paths, and have the package installed. When the sweep dies, Ray ends its
actors; a worker whose actor dies, with its node or alone, is asked by its leash to save and stop. When the cluster's
head dies, Ray itself ends the sweep after a minute, with exit code 1; the same command resumes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from jaxrl_suite.errors import UserError
from jaxrl_suite.sweep.executors import processes
from jaxrl_suite.sweep.executors.interface import LOST, Executor, Place
from jaxrl_suite.sweep.tasks import Task
from jaxrl_suite.train import interrupts

DIED = 1
GIGABYTE = 2**30
OBJECTS = 100 * 2**20  # bytes of a local Ray's object store: only words go through it
ANSWER_SECONDS = 20.0
KILL_SECONDS = 5.0
PROBE = """
import sys, ray
try:
    ray.init(sys.argv[1], log_to_driver=False)
except Exception as error:
    sys.exit(" ".join(str(error).split()))
"""
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}


class RayJob:
    """An actor that runs one task."""

    def __init__(self, actor: Any, ordered: processes.Order, log: Path) -> None:
        self._actor = actor
        self._placed = actor.__ray_ready__.remote()
        self._ended = actor.run.remote(ordered)
        self._log = log
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code; `LOST` with the actor; None while it runs or waits for resources."""
        if self._code is None and _is_there(self._ended):
            self._code = self._result()
            ray.kill(self._actor)  # its place is free
        return self._code

    def terminate(self) -> None:
        """Ask the worker to save and stop; withdraw it where it has no place yet."""
        if _is_there(self._placed):
            self._actor.signal.remote(signal.SIGTERM)
        else:
            self._code = interrupts.RESUMABLE  # nothing has begun
            ray.kill(self._actor)

    def kill(self) -> None:
        """Kill the worker, then its actor."""
        if _is_there(self._placed):
            with contextlib.suppress(RayError, GetTimeoutError):
                ray.get(self._actor.signal.remote(signal.SIGKILL), timeout=KILL_SECONDS)
        ray.kill(self._actor)

    def _result(self) -> int:
        try:
            return ray.get(self._ended)
        except RayActorError as error:
            code, reason = DIED if error.actor_init_failed else LOST, f"place lost: {str(error).splitlines()[0]}"
        except RayTaskError as error:
            code, reason = DIED, str(error.cause)
        processes.note(self._log, reason)
        return code


def _is_there(reference: Any) -> bool:
    return bool(ray.wait([reference], timeout=0)[0])


@contextlib.contextmanager
def cluster(workers: int, address: str, place: Place) -> Iterator[Executor]:
    """Connect to a cluster, or start one on this machine, for as long as this lasts.

    Args:
        workers: tasks at a time; those without resources wait for them.
        address: host:port, or "auto" for the cluster of this node; empty starts one.
        place: what each worker gets.

    Raises:
        UserError: no cluster answers, or it has no node that is large enough.
    """
    if address:
        _ask(address)
        ray.init(address, **QUIET)
    else:
        _begin(workers * place.cpus)
    try:
        _require(place)
        remote: Any = ray.remote
        memory = int(place.memory * GIGABYTE) or None
        kind = remote(max_concurrency=2, num_cpus=place.cpus, num_gpus=place.gpus, memory=memory)(processes.Supervisor)

        def start(task: Task, log: Path) -> RayJob:
            return RayJob(kind.remote(), processes.order(task, log, place.cpus), log)

        yield Executor(workers, start, takes_back=True)
    finally:
        ray.shutdown()


def _begin(cpus: int) -> None:
    """Start Ray on this machine, to end with this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns that this default will change
    with warnings.catch_warnings():
        # JAX has threads, and Ray forks: its child only blocks a signal, and executes a program.
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        ray.init("local", num_cpus=cpus, object_store_memory=OBJECTS, include_dashboard=False, **QUIET)


def _ask(address: str) -> None:
    """Try an address in a process of its own: Ray retries for minutes, and may end the process that asks.

    Raises:
        UserError: no cluster that this version of Ray can use answers there in time.
    """
    hint = "run ray start --head there and the sweep on one of its nodes, or leave --address empty to start Ray here"
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE, address], capture_output=True, text=True, timeout=ANSWER_SECONDS
        )
    except subprocess.TimeoutExpired:
        waited = f"within {ANSWER_SECONDS:.0f} seconds"
        raise UserError(f"no Ray cluster answers at --address={address} {waited}; {hint}") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise UserError(f"Ray at --address={address} cannot be used: {lines[-1] if lines else 'it ended'}; {hint}")


def _require(place: Place) -> None:
    """Refuse what no node could ever serve: its workers would wait for ever."""
    wanted = {"CPU": place.cpus, "GPU": place.gpus, "memory": place.memory * GIGABYTE}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
        asked = f"--cpus={place.cpus} --gpus={place.gpus:g} --memory={place.memory:g}"
        raise UserError(f"no node of the Ray cluster has {asked}; ask for less, or add a node")
