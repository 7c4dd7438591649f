"""Where tasks run: processes of this machine, a Ray cluster, or Slurm, behind one small interface."""

from jaxrl_suite.sweep.executors.choice import check, opened
from jaxrl_suite.sweep.executors.interface import LOST, Executor, Job, Place
from jaxrl_suite.sweep.executors.processes import local, pinned

__all__ = ["LOST", "Executor", "Job", "Place", "check", "local", "opened", "pinned"]
