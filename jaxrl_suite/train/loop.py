"""The one training loop: phases one after another, chunk by chunk, each chunk one XLA program.

Between chunks the loop writes metrics, evaluates, and saves the complete state when it is time. A run that was stopped
at any moment continues from its last checkpoint and ends with the same numbers as an undisturbed one: logs are cut back
to where they stood at that checkpoint, environments on the host are rebuilt by replaying their actions.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_suite import mesh
from jaxrl_suite.envs import scores
from jaxrl_suite.errors import UserError
from jaxrl_suite.mesh import SEED, Devices
from jaxrl_suite.train import checkpoint, identity, members, processes
from jaxrl_suite.train.compose import Chunk, Population, begin, chunk, compiled, population
from jaxrl_suite.train.display import Display
from jaxrl_suite.train.evaluate import Episodes, Evaluator, make_evaluator
from jaxrl_suite.train.host import Host
from jaxrl_suite.train.interrupts import Interrupts
from jaxrl_suite.train.members import Member, Variant
from jaxrl_suite.train.rundir import Log, RunDir
from jaxrl_suite.train.sinks import EVAL, Sinks
from jaxrl_suite.types import Algorithm, Metrics, Phase, Spec, Tree
from jaxrl_suite.values import supports

EVAL_COLUMNS = (
    "seed",
    "settings",
    "update",
    "episodes",
    "return_mean",
    "return_std",
    "length_mean",
    "score",
    "q_start",
    "mc_start",
)
# The sources that a fitted world model depends on, for the cache's key.
MODEL_SOURCES = ("models", "nets.py", "types.py", "buffer.py", "mesh.py", "data")


@dataclass(frozen=True)
class Job:
    """What is to be trained."""

    spec: Spec
    algorithm: Algorithm
    data: Any  # Dataset on the device; None for online algorithms
    seeds: tuple[int, ...]
    config: dict  # the frozen run config: everything that the result depends on, but the seeds
    variants: tuple[Variant, ...] = ()  # trained side by side, every seed of each; none for the algorithm's own hypers
    episodes: int = 10  # per evaluation and seed
    host_envs: int = 0  # environments on the host per seed
    checkpoint_seconds: float = 60.0
    cache: Path | None = None  # folder of fitted world models
    cache_key: str = ""  # data and everything else that a cached phase depends on
    model: Path | None = None  # an entry of such a folder, to be used instead of fitting
    devices: Devices | None = None  # the mesh; None for the default device
    sinks: tuple[str, ...] = ()  # names of train.sinks; no influence on the result
    evaluator: Evaluator | None = None  # what evaluates, where it is not whole episodes in the environment of `spec`
    observe: Callable[[Tree, int], None] | None = None  # sees members' states and updates done at every evaluation
    enough: float = math.inf  # a phase ends early once an evaluation's mean return reaches this, for every member

    @property
    def members(self) -> tuple[Member, ...]:
        """The population, in the order of its rows."""
        return members.of(self.seeds, self.variants or (Variant(self.algorithm.hypers),))


class NoLog:
    """The logs of the processes that do not lead a run: they write nothing."""

    def append(self, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""

    def offset(self) -> int:
        """Nothing has been written."""
        return 0

    def truncate(self, offset: int) -> None:
        """Nothing."""


class Outcome(NamedTuple):
    """What a run leaves behind."""

    finished: bool  # False: interrupted, and resumable
    result: Tree  # the last phase's result, leaves [population, ...]
    diverged: np.ndarray  # [population] bool
    seconds: float  # training and evaluation, over all sittings
    traces: dict[str, int]  # compiled programs per phase


@dataclass
class _Books:
    """The open files of a run."""

    metrics: Log | NoLog
    evals: Log | NoLog
    sinks: Sinks
    seconds_before: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def extra(self, **more: Any) -> dict:
        """What a checkpoint says besides the state: where the logs stand."""
        self.metrics.sync()
        self.evals.sync()
        return {
            "metrics": self.metrics.offset(),
            "evals": self.evals.offset(),
            "seconds": self.seconds(),
            **more,
        }

    def rewind(self, extra: dict) -> None:
        self.metrics.truncate(extra["metrics"])
        self.evals.truncate(extra["evals"])
        self.seconds_before = extra["seconds"]

    def add_metrics(self, phase: str, record: dict) -> None:
        self.metrics.append(record)
        self.sinks.write(phase, record)

    def add_evaluation(self, record: dict) -> None:
        self.evals.append(record)
        self.sinks.write(EVAL, record)


def config_hash(config: Mapping[str, Any], members: Sequence[Member]) -> str:
    """What a checkpoint must carry to belong to a run."""
    settings = list(dict.fromkeys(member.variant.settings for member in members))
    seeds = list(dict.fromkeys(member.seed for member in members))
    return identity.digest(identity.canonical(dict(config)), seeds, *([settings] if len(settings) > 1 else []))


def run(job: Job, directory: RunDir, display: Display) -> Outcome:
    """Train `job` to its end, or until a signal asks to stop, in its run directory."""
    check(job)
    metrics, evals = _logs(directory.path) if processes.leads() else (NoLog(), NoLog())
    with Interrupts() as interrupts, _host(job) as host, Sinks(job.sinks, directory.path, display.note) as sinks:
        books = _Books(metrics, evals, sinks)
        return _Run(job, directory, display, books, interrupts, host).all_phases()


def _logs(path: Path) -> tuple[Log, Log]:
    return Log.jsonl(path / "metrics.jsonl"), Log.csv(path / "eval.csv", EVAL_COLUMNS)


def check(job: Job) -> None:
    """Refuse what does not divide over the devices before anything is trained, not when its phase comes.

    Raises:
        UserError: rows that are drawn, or those of a ring buffer, do not divide.
    """
    if job.devices is None or job.devices.shards == 1:
        return
    for index, phase in enumerate(map(population, job.algorithm.phases)):
        state = members.template(job.algorithm, job.members, job.data, index, job.devices)
        jax.eval_shape(mesh.on(job.devices, phase.update), state, job.data)


@contextlib.contextmanager
def _host(job: Job) -> Iterator[Host | None]:
    if not any(phase.request for phase in job.algorithm.phases):
        yield None
        return
    host = Host(job.spec.name, job.seeds, job.host_envs)
    try:
        yield host
    finally:
        host.close()


class _Run:
    """One sitting of a run."""

    def __init__(
        self, job: Job, directory: RunDir, display: Display, books: _Books, interrupts: Interrupts, host: Host | None
    ) -> None:
        self.job, self.directory, self.display = job, directory, display
        self.books, self.interrupts, self.host = books, interrupts, host
        self.traces: dict[str, int] = {}
        self.complained: set[str] = set()
        self.programs: dict[str, tuple[Any, Any, Any]] = {}
        self.members = job.members
        self.diverged = np.zeros(len(self.members), bool)  # in the phases that are done
        gammas = [member.variant.gamma for member in self.members]
        whole = job.devices.place() if job.devices else None
        self.evaluator = job.evaluator or make_evaluator(job.spec, job.algorithm, gammas, job.episodes, whole)
        self.config_hash = config_hash(job.config, self.members)

    # --- Phases ---
    def all_phases(self) -> Outcome:
        phases = [population(phase) for phase in self.job.algorithm.phases]
        first, state, ticks = self._resume(phases)
        self.books.sinks.begin()
        result: Tree = None
        for index, phase in enumerate(phases[first:], start=first):
            if state is None and (cached := self._cached(phase, index, result)) is not None:
                result = self._share(cached, members.of_phase(phase, self.members))
                continue
            if state is None:
                state, ticks = begin(phase, self._arguments(index, result), self.job.devices), 0
            state = self._one_phase(index, phase, state, ticks)
            if state is None:
                return Outcome(False, None, self.diverged, self.books.seconds(), self.traces)
            mine = members.of_phase(phase, self.members)
            flags = np.asarray(state.diverged)
            self.diverged = self.diverged | np.asarray(members.share(flags, mine, self.members))
            result = jax.jit(phase.result, out_shardings=self._by_seed())(state)
            if not flags.any():  # others would take it for a fit like any other
                self._store(phase, result)
            result = self._share(result, mine)
            state = None
        return Outcome(True, result, self.diverged, self.books.seconds(), self.traces)

    def _one_phase(self, index: int, phase: Phase, state: Population, ticks: int) -> Population | None:
        """Run a phase from `ticks` on; None when interrupted (the state is saved)."""
        program = chunk(phase, self.job.devices, state)
        if phase.request is None and ticks < phase.ticks:
            program = compiled(program, state, self.job.data)
        self.display.phase(phase.name, phase.ticks * phase.updates_per_tick, ticks * phase.updates_per_tick)
        saved = time.monotonic()
        while ticks < phase.ticks:
            state, metrics = self._chunk(phase, program, state)
            ticks += phase.chunk
            self._log_metrics(phase, ticks, metrics, state.diverged)
            every = phase.evaluate_every * phase.chunk
            reached = False
            if every and (ticks % every == 0 or ticks == phase.ticks):
                reached = self._evaluate(state, ticks * phase.updates_per_tick, ticks // phase.chunk)
            # The loop's count, which a checkpoint keeps: a phase that ended early is not gone on with.
            ticks = phase.ticks if reached else ticks
            done = ticks == phase.ticks
            # Clocks and signals differ between processes; what they do about them must not.
            stop, due = processes.agree(
                self.interrupts.requested, time.monotonic() - saved > self.job.checkpoint_seconds
            )
            if done or stop or due:
                extra = self.books.extra(phase=index, ticks=ticks, diverged=self.diverged.tolist())
                checkpoint.save(self._folder(index, phase), ticks, state, {**extra, "config_hash": self.config_hash})
                saved = time.monotonic()
            if stop and not (done and index == len(self.job.algorithm.phases) - 1):
                return None
        self.traces[phase.name] = len(program.traces)
        self.display.phase_done()
        return state

    def _chunk(self, phase: Phase, program: Chunk, state: Population) -> tuple[Population, Metrics]:
        if phase.request is None:
            return program.run(state, self.job.data)
        return self._host_chunk(phase, state)

    def _host_chunk(self, phase: Phase, state: Population) -> tuple[Population, Metrics]:
        """A chunk on host environments: what comes before it, then ask for actions, step, learn."""
        assert self.host is not None
        request, update, before = self._host_programs(phase)
        state, first = before(state) if before else (state, {})
        records = []
        for _ in range(phase.chunk):
            state, action = request(state)
            timestep = self.host.step(np.asarray(action))
            state, metrics = update(state, (action, jax.tree.map(jnp.asarray, timestep)))
            records.append(metrics)
        return state, {**first, **{name: np.mean([one[name] for one in records], axis=0) for name in records[0]}}

    def _host_programs(self, phase: Phase) -> tuple[Any, Any, Any]:
        """The two compiled halves of a tick, and what comes before a chunk, compiled once per phase."""
        assert phase.request is not None
        if phase.name not in self.programs:
            self.programs[phase.name] = (
                jax.jit(phase.request, donate_argnums=0),
                jax.jit(phase.update, donate_argnums=0),
                jax.jit(phase.before, donate_argnums=0) if phase.before else None,
            )
        return self.programs[phase.name]

    def _arguments(self, index: int, previous: Tree) -> tuple:
        data = self.job.data if self.host is None else jnp.asarray(self.host.first_obs)
        mine = members.of_phase(self.job.algorithm.phases[index], self.members)
        return members.arguments(mine, data, index, previous)

    def _template(self, index: int) -> Population:
        data = self.job.data if self.host is None else jnp.asarray(self.host.first_obs)
        return members.template(self.job.algorithm, self.members, data, index, self.job.devices)

    def _by_seed(self) -> Any:
        """Where a phase's result lies: the members along `seed`."""
        return self.job.devices.place(SEED) if self.job.devices else None

    def _share(self, result: Tree, mine: Sequence[Member]) -> Tree:
        """What was made for the members of a phase, for all members."""
        if len(mine) == len(self.members):
            return result
        return jax.jit(lambda tree: members.share(tree, mine, self.members), out_shardings=self._by_seed())(result)

    # --- Records ---
    def _log_metrics(self, phase: Phase, ticks: int, metrics: Metrics, diverged: Any) -> None:
        values = {name: np.asarray(value) for name, value in metrics.items()}
        flags = np.asarray(diverged)
        for row, (seed, variant) in enumerate(members.of_phase(phase, self.members)):
            record = {"phase": phase.name, "update": ticks * phase.updates_per_tick, "seed": seed}
            record |= {"settings": variant.settings} if len(self.job.variants) > 1 and not phase.cache else {}
            numbers = {name: _number(value[row]) for name, value in values.items()}
            self.books.add_metrics(phase.name, {**record, **numbers, "diverged": bool(flags[row])})
        headline = {name: float(np.mean(value)) for name, value in values.items()}
        self._complain(phase.name, supports.clipped_complaint(headline.get("clipped_targets", 0.0)))
        self.display.progress(ticks * phase.updates_per_tick, headline)

    def _complain(self, phase: str, complaint: str) -> None:
        """Note what the metrics of a phase give reason to complain about, once."""
        if complaint and phase not in self.complained:
            self.display.note(f"{phase}: {complaint}")
            self.complained.add(phase)

    def _evaluate(self, state: Population, update: int, index: int) -> bool:
        """Evaluate and note it -> whether every member is good enough."""
        episodes = self.evaluator(state.members, [member.seed for member in self.members], index)
        for row, (seed, variant) in enumerate(self.members):
            who = {"seed": seed, "settings": variant.settings, "update": update}
            self.books.add_evaluation(who | eval_row(self.job.spec, episodes, row))
        if self.job.observe:
            self.job.observe(state.members, update)
        means = episodes.returns.mean(axis=1)
        self.display.evaluation(update, means)
        return bool(np.all(means >= self.job.enough))

    # --- Checkpoints and cache ---
    def _folder(self, index: int, phase: Phase) -> Path:
        return self.directory.path / "checkpoints" / f"{index}-{phase.name}"

    def _resume(self, phases: Sequence[Phase]) -> tuple[int, Population | None, int]:
        """The phase to go on with, its state (None: not begun) and the ticks done. Cuts the logs back."""
        for index in reversed(range(len(phases))):
            folder = self._folder(index, phases[index])
            if not checkpoint.exists(folder):
                continue
            loaded = checkpoint.load_latest(folder, self._template(index), self.config_hash)
            if loaded is None:
                continue
            for note in loaded.notes:
                self.display.note(note)
            self.books.rewind(loaded.extra)
            # Checkpoints of earlier versions do not say so.
            self.diverged = np.array(loaded.extra.get("diverged", self.diverged), bool)
            self._replay(phases[index], loaded.tree)
            return index, loaded.tree, loaded.extra["ticks"]
        self.books.rewind({"metrics": 0, "evals": 0, "seconds": 0.0})
        return 0, None, 0

    def _replay(self, phase: Phase, state: Population) -> None:
        if phase.actions is None or self.host is None:
            return
        log, count = phase.actions(state)
        self.host.replay(np.asarray(log)[:, : int(count)])

    def _cache_key(self, phase: Phase) -> str:
        devices = self.job.devices.kinds() if self.job.devices else [jax.devices()[0].device_kind]
        source = identity.code_version(*MODEL_SOURCES)
        return identity.digest(phase.cache, self.job.cache_key, list(self.job.seeds), devices, source)

    def _cached(self, phase: Phase, index: int, previous: Tree) -> Tree:
        """The phase's result from the model that the user gave or from the cache; None where there is neither."""
        if not phase.cache or (self.job.cache is None and self.job.model is None):
            return None
        state = jax.eval_shape(phase.init, *self._arguments(index, previous))
        shapes = jax.eval_shape(phase.result, state)
        sharding = self._by_seed()
        shapes = members.placed(shapes, sharding and jax.tree.map(lambda _: sharding, shapes))
        if self.job.model is not None:
            result = checkpoint.cached(self.job.model.parent, self.job.model.name, shapes, self.display.note)
            if result is None:
                raise UserError(
                    f"--model={self.job.model} holds no fitted model of this run's shapes and number of seeds"
                )
            self.display.note(f"{phase.name}: taken from {self.job.model}")
            return result
        assert self.job.cache is not None
        key = self._cache_key(phase)
        result = checkpoint.cached(self.job.cache, key, shapes, self.display.note)
        if result is not None:
            self.display.note(f"{phase.name}: fitted before; taken from {self.job.cache / key}")
        return result

    def _store(self, phase: Phase, result: Tree) -> None:
        if phase.cache and self.job.cache is not None:
            checkpoint.store(self.job.cache, self._cache_key(phase), result, self.display.note)


def _number(value: Any) -> float | None:
    """A JSON number; None for what JSON cannot hold."""
    value = float(value)
    return value if math.isfinite(value) else None


def eval_row(spec: Spec, episodes: Episodes, row: int) -> dict:
    """An evaluation of the population's member `row`: the columns EVAL_COLUMNS, but for seed, settings and update."""
    returns = episodes.returns[row]
    return {
        "episodes": len(returns),
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std(ddof=1)) if len(returns) > 1 else float("nan"),
        "length_mean": float(episodes.lengths[row].mean()),
        "score": float(scores.normalised_score(spec, returns.mean())),
        "q_start": float(episodes.q_start[row].mean()),
        "mc_start": float(episodes.discounted[row].mean()),
    }
