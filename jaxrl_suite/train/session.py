"""A run from its frozen config: build, train in a run directory, leave summary rows; and load it again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxrl_suite.algorithms import registry as algorithms
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.errors import UserError
from jaxrl_suite.train import checkpoint, identity, loop, members, memory, rundir
from jaxrl_suite.train.members import Member, Variant
from jaxrl_suite.types import Algorithm, Array, Dataset, Spec, Transition, Tree

SUMMARY_COLUMNS = [
    *("experiment", "algo", "dataset", "preset", "settings", "seed", "updates"),
    *("return_last", "return_best", "score_last", "score_best", "q_last", "mc_last", "behaviour_return", "status"),
    *("run_id", "group_id", "schema_version"),
    *("wall_seconds", "git_commit", "host", "resumed"),
]


class Built(NamedTuple):
    """A run config made real."""

    spec: Spec
    entry: algorithms.Entry
    config: Any  # the algorithm's Config
    algorithm: Algorithm


def freeze(experiment: str, entry: algorithms.Entry, config: Any, env: str, **more: Any) -> dict:
    """The frozen run config: everything that a result depends on, but the seeds. Plain JSON."""
    whole = {"experiment": experiment, "algo": entry.name, "env": env, "config": plain(config), **more}
    return json.loads(identity.canonical(whole))


def plain(config: Any) -> dict[str, Any]:
    """A config dataclass as a dict. A field that came after results had been published (metadata `later`) is left out
    at its default, which means what its absence meant: so the run ids of published rows stay."""
    values = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.metadata.get("later") and value == item.default:
            continue
        values[item.name] = plain(value) if dataclasses.is_dataclass(value) else value
    return values


def build(run_config: Mapping[str, Any]) -> Built:
    """Environment facts, config and algorithm of a frozen run config."""
    entry = algorithms.get(run_config["algo"])
    kind = type(next(iter(entry.presets.values())))
    config = _from_plain(kind(), run_config["config"])
    spec = envs.spec(run_config["env"])
    return Built(spec, entry, config, entry.make(spec, config))


def _from_plain(default: Any, values: Mapping[str, Any]) -> Any:
    """The dataclass of `default` with `values` from JSON: lists become tuples, dicts nested dataclasses."""
    known = {item.name for item in dataclasses.fields(default)}
    if set(values) - known:
        raise UserError(
            f"the run's config has unknown fields {sorted(set(values) - known)}; it is from another version"
        )
    changes = {}
    for name, value in values.items():
        old = getattr(default, name)
        if dataclasses.is_dataclass(old):
            value = _from_plain(old, value)
        changes[name] = tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(default, **changes)


def variants_of(built: Built, changes: Mapping[str, Mapping[str, float]]) -> tuple[Variant, ...]:
    """What members of one program may differ in: settings as text -> the fields of the config that they change."""
    found = []
    for settings, change in changes.items():
        config = dataclasses.replace(built.config, **change)
        hypers = built.entry.make(built.spec, config).hypers
        found.append(Variant(hypers, settings, getattr(config, "gamma", 0.99)))
    return tuple(found)


def variant_config(run_config: Mapping[str, Any], change: Mapping[str, float]) -> dict:
    """The frozen run config of a variant: what it would have been had it run alone."""
    return {**run_config, "config": {**run_config["config"], **change}}


# --- After a run ---
def evals_of(path: Path) -> pd.DataFrame:
    """The evaluations of a run directory."""
    evals = pd.read_csv(path / "eval.csv", dtype={"settings": str})
    return evals.assign(settings=evals["settings"].fillna("") if "settings" in evals else "")


def summary_rows(
    directory: rundir.RunDir,
    population: Sequence[Member],
    run_configs: Sequence[Mapping[str, Any]],
    outcome: loop.Outcome,
    more: dict,
) -> list[dict]:
    """A row per member, each with its own frozen config: what it scored last and at best, and where it came from."""
    evals = evals_of(directory.path)
    provenance = json.loads((directory.path / "provenance.json").read_text())
    rows = []
    for index, ((seed, variant), run_config) in enumerate(zip(population, run_configs, strict=True)):
        mine = evals[(evals["seed"] == seed) & (evals["settings"] == variant.settings)]
        last = mine.iloc[-1]
        best = mine.iloc[int(np.argmax(mine["return_mean"].fillna(-np.inf).to_numpy()))]  # all may be NaN
        rows.append(
            {
                "experiment": run_config["experiment"],
                "algo": run_config["algo"],
                "settings": variant.settings,
                "seed": seed,
                "updates": int(last["update"]),
                "return_last": last["return_mean"],
                "return_best": best["return_mean"],
                "score_last": last["score"],
                "score_best": best["score"],
                "q_last": last["q_start"],
                "mc_last": last["mc_start"],
                "status": "diverged" if outcome.diverged[index] else "finished",
                "run_id": identity.run_id(dict(run_config), seed),
                "schema_version": rundir.SCHEMA_VERSION,
                "wall_seconds": round(outcome.seconds, 1),
                "git_commit": provenance["git_commit"],
                "host": provenance["host"],
                **more,
            }
        )
    return rows


# --- Loading ---
_LOST = "{} has finished, but lacks the checkpoint of its last phase; repeat its command with --fresh"


class Run(NamedTuple):
    """A finished run: its config, what it learnt, and its policy."""

    config: dict
    members: tuple[Member, ...]
    spec: Spec
    algorithm: Algorithm
    parameters: Tree  # the last phase's state, leaves [members, ...]
    evals: pd.DataFrame

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, each once."""
        return tuple(dict.fromkeys(member.seed for member in self.members))

    @property
    def settings(self) -> tuple[str, ...]:
        """What the run's variants change, each once; one text, empty for a preset as it is, where nothing varies."""
        return tuple(dict.fromkeys(member.variant.settings for member in self.members))

    def member(self, seed: int | None = None, settings: str | None = None) -> int:
        """The row of a member in `parameters`; by default the first seed of the first variant.

        Raises:
            UserError: the run has no such member.
        """
        wanted = self.seeds[0] if seed is None else seed, self.settings[0] if settings is None else settings
        known = [(member.seed, member.variant.settings) for member in self.members]
        if wanted not in known:
            raise UserError(
                f"the run has no member with seed {wanted[0]} and settings {wanted[1]!r}; it has seeds "
                f"{list(self.seeds)} and settings {list(self.settings)}"
            )
        return known.index(wanted)

    def policy(self, seed: int | None = None, settings: str | None = None) -> Callable[[Any], Array]:
        """The deterministic policy of a member (the first one by default): obs `[batch, obs_dim]` -> action."""
        return memory.policy_of(self.algorithm, self.parameters, self.member(seed, settings))

    def sampling_policy(self, seed: int | None = None) -> Callable[[Any, int], np.ndarray]:
        """The stochastic policy of a seed: (obs `[batch, obs_dim]`, step) -> action, the same for the same step."""
        index = self.member(seed)
        sample = self.algorithm.sample
        if sample is None:
            raise UserError(f"{self.config['algo']} has no stochastic policy; use its deterministic one")
        state = jax.tree.map(lambda leaf: leaf[index], self.parameters)
        key = jax.random.key(self.members[index].seed)
        draw = jax.jit(lambda obs, step: sample(state, obs, jax.random.fold_in(key, step)))
        return lambda obs, step: np.asarray(draw(obs, step))


def load(path: str | Path) -> Run:
    """Config, parameters and policy of a finished run.

    Raises:
        UserError: no finished run stands there, or its checkpoint is damaged.
    """
    path = Path(path)
    try:
        record = json.loads((path / "config.json").read_text())
        run_config, seeds = record["config"], tuple(record["seeds"])
        changes = {text: dict(change) for text, change in record.get("variants") or [("", {})]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a run directory (no readable config.json); give the folder of a run") from error
    if not rundir.ending(path):
        raise UserError(f"{path} has not finished; its command (in provenance.json) resumes it, without --fresh")
    built = build(run_config)
    index = len(built.algorithm.phases) - 1
    folder = path / "checkpoints" / f"{index}-{built.algorithm.phases[index].name}"
    if not checkpoint.exists(folder):
        raise UserError(_LOST.format(path))
    population = members.of(seeds, variants_of(built, changes))
    template = members.template(built.algorithm, population, _stand_in(built, run_config, len(seeds)), index)
    loaded = checkpoint.load_latest(folder, template, loop.config_hash(run_config, population))
    if loaded is None:
        raise UserError(_LOST.format(path))
    return Run(run_config, population, built.spec, built.algorithm, loaded.tree.members, evals_of(path))


def _stand_in(built: Built, run_config: Mapping[str, Any], population: int) -> Any:
    """Shapes of the data that the run was trained on: a data set, or the first observations of host environments."""
    spec = built.spec
    if built.entry.online or any(phase.request for phase in built.algorithm.phases):
        return jax.ShapeDtypeStruct((population, built.config.envs, spec.obs_dim), jnp.float32)
    rows = run_config["rows"]

    def shape(*dims: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct((rows, *dims), dtype)

    transitions = Transition(shape(spec.obs_dim), shape(spec.action_dim), shape(), shape(), shape(spec.obs_dim))
    flag, index = shape(dtype=np.bool_), shape(dtype=np.int32)
    return Dataset(transitions, shape(spec.action_dim), flag, index, shape(), None)
