"""Going on from a finished run as a longer one: its last state, in the longer run's shapes, where that run resumes.

What an online run has seen (its ring buffer, its log of actions) is an array with room for all its steps. A longer run
has longer ones, and so rounds sums over them otherwise: its numbers are of the same kind as those of one that had the
room from the start, and are not the same to the last bit.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxrl_suite import buffer
from jaxrl_suite.errors import UserError
from jaxrl_suite.train import checkpoint, host, loop, members
from jaxrl_suite.types import Algorithm, Array, Tree

LOGS = ("eval.csv", "metrics.jsonl")


def begun(algorithm: Algorithm, folder: Path) -> bool:
    """Whether a run has a state of its last phase."""
    return checkpoint.exists(folder / _place(algorithm))


def lay(shorter: loop.Job, finished: Path, longer: loop.Job, folder: Path) -> None:
    """Copy logs and last state of a finished run to the folder of a longer one, which resumes there.

    Does nothing where the longer run has a checkpoint of its last phase, so that it can be asked again. The checkpoint
    comes last: without it the longer run has not begun.

    Args:
        shorter: the job that has finished, with the members of the longer one.
        finished: its run directory.
        longer: the same algorithm with more ticks in the last phase.
        folder: its run directory, held by the caller.

    Raises:
        UserError: the finished run has no intact checkpoint of its last phase, or is not a shorter one of this kind.
    """
    if begun(longer.algorithm, folder):
        return
    index, name = len(longer.algorithm.phases) - 1, _place(longer.algorithm)
    digest = loop.config_hash(shorter.config, shorter.members)
    loaded = checkpoint.load_latest(finished / name, _template(shorter, index), digest)
    if loaded is None:
        raise UserError(f"{finished} has no checkpoint of its last phase; make that run anew with --fresh")
    state = jax.jit(lambda tree: _grown(tree, _template(longer, index)))(loaded.tree)
    for log in LOGS:
        shutil.copyfile(finished / log, folder / log)
    extra = {**loaded.extra, "config_hash": loop.config_hash(longer.config, longer.members)}
    checkpoint.save(folder / name, loaded.step, state, extra)


def _place(algorithm: Algorithm) -> str:
    """Where, in a run directory, the states of the last phase are."""
    return f"checkpoints/{len(algorithm.phases) - 1}-{algorithm.phases[-1].name}"


def _template(job: loop.Job, index: int) -> Tree:
    """Shapes of the state of a phase."""
    data = job.data
    if job.host_envs:
        envs = host.Host(job.spec.name, job.seeds, job.host_envs)
        data = jnp.asarray(envs.first_obs)
        envs.close()
    return members.template(job.algorithm, job.members, data, index, job.devices)


def _grown(state: Tree, shapes: Tree) -> Tree:
    """The state of a population with room for what a longer run will see; leaves are `[members, ...]`."""

    def one(found: Tree, want: Tree) -> Tree:
        room = jax.tree.leaves(want)[0].shape[1] if isinstance(found, buffer.Buffer) else 0
        if not isinstance(found, buffer.Buffer):
            return _padded(found, want)
        if room == jax.tree.leaves(found)[0].shape[1]:
            return found  # its rows keep their places
        return jax.vmap(lambda ring: buffer.grown(ring, room))(found)

    is_buffer = lambda node: isinstance(node, buffer.Buffer)  # noqa: E731
    return jax.tree.map(one, state, shapes, is_leaf=is_buffer)


def _padded(found: Array, want: Array) -> Array:
    """A log with zeros after its entries; anything else as it is."""
    if found.shape == want.shape:
        return found
    return jnp.pad(found, [(0, new - old) for old, new in zip(found.shape, want.shape, strict=True)])
