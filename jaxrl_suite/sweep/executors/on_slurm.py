"""Slurm, through submitit: a job per task.

submitit sends a pickle: here the name of `processes.supervise` and an `Order` of plain words, no code. It lies beside
the exit code, a pickle too, in `logs/submitit/`, which only the sweep and its own jobs write. Nodes share the folder of
runs. Slurm tells a job 90 seconds before its time is up: the worker saves, and the loop submits it again, as it does
when a job is pre-empted or cancelled by hand. Jobs of a sweep that was killed go on; the next sweep waits for them. A
job that dies without a result is known from sacct, after minutes.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import submitit

from jaxrl_suite.errors import UserError
from jaxrl_suite.sweep.executors import processes
from jaxrl_suite.sweep.executors.interface import LOST, Executor, Place
from jaxrl_suite.sweep.tasks import Task
from jaxrl_suite.train import interrupts

DIED = 1


class SlurmJob:
    """A submitit job, and where the worker writes."""

    def __init__(self, job: Any, log: Path) -> None:
        self._job = job
        self._log = log
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code; `LOST` where the job has ended without leaving one; None while it waits or runs."""
        if self._code is None and self._job.done():
            self._code = self._result()
        return self._code

    def terminate(self) -> None:
        """Cancel it: Slurm asks the worker to save, and kills it half a minute later (its KillWait)."""
        self._job.cancel(check=False)
        self._job.watcher.clear()  # or sacct would be asked again in minutes
        if not self._job.paths.stdout.exists():
            self._code = interrupts.RESUMABLE  # it was still in the queue

    kill = terminate  # Slurm does not wait for the sweep

    def _result(self) -> int:
        try:
            return self._job.result()
        except submitit.core.utils.UncompletedJobError:
            code, reason = LOST, f"place lost: Slurm job {self._job.job_id} left no exit code, state {self._job.state}"
        except submitit.core.utils.FailedJobError:
            code, reason = DIED, f"Slurm job {self._job.job_id} failed, see {self._job.paths.stderr}"
        processes.note(self._log, reason)
        return code


def jobs(workers: int, place: Place, cluster: str = "slurm") -> Executor:
    """At most `workers` jobs at a time.

    Args:
        workers: jobs in the queue or running.
        place: what each gets.
        cluster: as submitit names it; "local" runs jobs on this machine, for tests.

    Raises:
        UserError: this machine has no Slurm; `start` raises it where Slurm refuses a job.
    """
    if cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise UserError("--executor=slurm needs sbatch and srun on the PATH; start the sweep on a node of the cluster")
    parameters = {
        "name": "jaxrl_suite",
        "timeout_min": place.time,
        "cpus_per_task": place.cpus,
        **({"gpus_per_node": int(place.gpus)} if place.gpus else {}),
        **({"mem_gb": place.memory} if place.memory else {}),
        **({"slurm_partition": place.partition} if place.partition else {}),
    }

    def start(task: Task, log: Path) -> SlurmJob:
        ordered = processes.order(task, log, place.cpus)
        executor = submitit.AutoExecutor(folder=log.resolve().parent / "submitit", cluster=cluster)
        executor.update_parameters(**parameters)
        try:
            return SlurmJob(executor.submit(processes.supervise, ordered), log)
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError, OSError) as error:
            hint = "see --partition, --time, --cpus, --gpus and --memory"
            raise UserError(f"Slurm refuses a job: {error}; {hint}") from error

    return Executor(workers, start, takes_back=True)
