"""An executor by its name."""

from __future__ import annotations

import contextlib
import importlib
from types import ModuleType

from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.sweep.executors import processes
from jaxrl_suite.sweep.executors.interface import Executor, Place

SHORTEST = 5  # minutes: Slurm gives notice 90 seconds before the end, and a run takes a while to begin
# What each understands beside the number of workers.
OPTIONS = {
    "local": (),
    "ray": ("address", "cpus", "gpus", "memory"),
    "slurm": ("cpus", "gpus", "memory", "partition", "time"),
}


def check(name: str, address: str, place: Place) -> None:
    """Refuse what cannot be meant, before anything starts.

    Raises:
        UserError: an unknown executor, or an option that it does not have.
    """
    if name not in OPTIONS:
        raise unknown("executor", name, OPTIONS)
    given = {"address": address, **place._asdict()}
    usual = {"address": "", **Place()._asdict()}
    for option, value in given.items():
        if value != usual[option] and option not in OPTIONS[name]:
            owners = " and ".join(other for other, names in OPTIONS.items() if option in names)
            raise UserError(f"--{option}={value} has no meaning with --executor={name}; it is for {owners}")
    if name == "slurm" and place.gpus != int(place.gpus):
        raise UserError(f"--gpus={place.gpus} must be a whole number with --executor=slurm")
    if name == "slurm" and place.time < SHORTEST:
        raise UserError(f"--time={place.time} leaves no time to save before the job ends; give at least {SHORTEST}")


def opened(name: str, workers: int, address: str, place: Place) -> contextlib.AbstractContextManager[Executor]:
    """An executor to use within `with`.

    Args:
        name: local, ray or slurm.
        workers: how many tasks at a time.
        address: of a Ray cluster; empty starts one on this machine.
        place: what each worker gets on a cluster.

    Raises:
        UserError: see `check`; or what the executor needs is not installed, not there, or does not answer.
    """
    check(name, address, place)
    if name == "ray":
        return _module("on_ray", "ray").cluster(workers, address, place)
    if name == "slurm":
        return contextlib.nullcontext(_module("on_slurm", "submitit").jobs(workers, place))
    return contextlib.nullcontext(processes.local(workers))


def _module(name: str, library: str) -> ModuleType:
    """One of the modules whose library is an extra."""
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise UserError(f"this executor needs the extra: pip install -e '.[sweep]' ({error})") from error
    return importlib.import_module(f"jaxrl_suite.sweep.executors.{name}")
