"""A run from its frozen config: build, train in a run directory, leave summary rows; and load it again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxrl_suite.algorithms import registry as algorithms
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.errors import UserError
from jaxrl_suite.train import checkpoint, identity, loop, memory, rundir
from jaxrl_suite.types import Algorithm, Array, Dataset, Spec, Transition, Tree

SUMMARY_COLUMNS = [
    *("experiment", "algo", "dataset", "preset", "seed", "updates"),
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
    plain = {"experiment": experiment, "algo": entry.name, "env": env, "config": dataclasses.asdict(config), **more}
    return json.loads(identity.canonical(plain))


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


# --- After a run ---
def evals_of(path: Path) -> pd.DataFrame:
    """The evaluations of a run directory."""
    return pd.read_csv(path / "eval.csv")


def summary_rows(
    directory: rundir.RunDir, run_config: Mapping[str, Any], seeds: tuple[int, ...], outcome: loop.Outcome, more: dict
) -> list[dict]:
    """A row per seed: what it scored last and at best, and where it came from."""
    evals = evals_of(directory.path)
    provenance = json.loads((directory.path / "provenance.json").read_text())
    rows = []
    for index, seed in enumerate(seeds):
        mine = evals[evals["seed"] == seed]
        last = mine.iloc[-1]
        best = mine.iloc[int(np.argmax(mine["return_mean"]))]
        rows.append(
            {
                "experiment": run_config["experiment"],
                "algo": run_config["algo"],
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
class Run(NamedTuple):
    """A finished run: its config, what it learnt, and its policy."""

    config: dict
    seeds: tuple[int, ...]
    spec: Spec
    algorithm: Algorithm
    parameters: Tree  # the last phase's state, leaves [seeds, ...]
    evals: pd.DataFrame

    def policy(self, seed: int | None = None) -> Callable[[Any], Array]:
        """The deterministic policy of a seed (the first one by default): obs `[batch, obs_dim]` -> action."""
        return memory.policy_of(self.algorithm, self.parameters, 0 if seed is None else self.seeds.index(seed))

    def sampling_policy(self, seed: int | None = None) -> Callable[[Any, int], np.ndarray]:
        """The stochastic policy of a seed: (obs `[batch, obs_dim]`, step) -> action, the same for the same step."""
        index = 0 if seed is None else self.seeds.index(seed)
        sample = self.algorithm.sample
        if sample is None:
            raise UserError(f"{self.config['algo']} has no stochastic policy; use its deterministic one")
        state = jax.tree.map(lambda leaf: leaf[index], self.parameters)
        key = jax.random.key(self.seeds[index])
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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a run directory (no readable config.json); give the folder of a run") from error
    built = build(run_config)
    index = len(built.algorithm.phases) - 1
    folder = path / "checkpoints" / f"{index}-{built.algorithm.phases[index].name}"
    if not checkpoint.exists(folder):
        raise UserError(f"{path} has no checkpoint of its last phase; let the run finish first")
    template = loop.template(built.algorithm, seeds, _stand_in(built, run_config, len(seeds)), index)
    loaded = checkpoint.load_latest(folder, template, loop.config_hash(run_config, seeds))
    if loaded is None:
        raise UserError(f"{path} has no checkpoint of its last phase; let the run finish first")
    return Run(run_config, seeds, built.spec, built.algorithm, loaded.tree.members, evals_of(path))


def _stand_in(built: Built, run_config: Mapping[str, Any], population: int) -> Any:
    """Shapes of the data that the run was trained on: a data set, or the first observations of host environments."""
    spec = built.spec
    if built.entry.online:
        return jax.ShapeDtypeStruct((population, built.config.envs, spec.obs_dim), jnp.float32)
    rows = run_config["rows"]

    def shape(*dims: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct((rows, *dims), dtype)

    transitions = Transition(shape(spec.obs_dim), shape(spec.action_dim), shape(), shape(), shape(spec.obs_dim))
    flag, index = shape(dtype=np.bool_), shape(dtype=np.int32)
    return Dataset(transitions, shape(spec.action_dim), flag, index, shape(), None)
