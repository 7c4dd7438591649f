"""Runs in memory, for notebooks and tests: no run directory, no resume, arrays and tables returned.

What is to be kept, or reported, is made by the loop in a run directory (`train.loop`), which runs the same phases.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxrl_suite.algorithms import complaints, registry
from jaxrl_suite.errors import UserError
from jaxrl_suite.models import fit as fits
from jaxrl_suite.models.ensemble import EnsembleConfig
from jaxrl_suite.models.fit import FitConfig
from jaxrl_suite.train import loop, members, settings
from jaxrl_suite.train.compose import Population, begin, chunk, compiled, population
from jaxrl_suite.train.evaluate import Evaluator, make_evaluator
from jaxrl_suite.types import Algorithm, Array, Dataset, Params, Phase, Spec, Tree, WorldModel
from jaxrl_suite.values import supports


class Trained(NamedTuple):
    """What training in memory leaves behind."""

    algorithm: Algorithm
    seeds: tuple[int, ...]
    parameters: Tree  # the last phase's state, leaves [seeds, ...]
    diverged: np.ndarray  # [seeds] bool
    evaluations: pd.DataFrame  # a row per evaluation and seed, the columns of a run's eval.csv; empty without a spec
    metrics: pd.DataFrame  # a row per chunk and seed: phase, update, seed and the phase's metrics
    traces: dict[str, int]  # compiled programs per phase

    def __repr__(self) -> str:
        phases = ", ".join(phase.name for phase in self.algorithm.phases)
        last = self.evaluations.groupby("seed", sort=False)["return_mean"].last()
        returns = ", ".join(f"{value:.1f}" for value in last) or "not evaluated"
        gone = f", diverged {int(self.diverged.sum())}" if self.diverged.any() else ""
        return f"Trained(phases {phases}; seeds {list(self.seeds)}; last returns {returns}{gone})"

    def policy(self, seed: int | None = None) -> Callable[[Any], Array]:
        """The deterministic policy of a seed (the first one by default): obs `[batch, obs_dim]` -> action."""
        return policy_of(self.algorithm, self.parameters, 0 if seed is None else self.seeds.index(seed))


class Fitted(NamedTuple):
    """A fitted world model."""

    model: WorldModel
    params: Params
    metrics: pd.DataFrame  # a row per check: update, loss, holdout_mse, best_mse

    def __repr__(self) -> str:
        last = self.metrics.iloc[-1]
        elites = np.asarray(self.params.elites).tolist()
        return f"Fitted(steps {int(last['update'])}; elites {elites}; best hold-out mse {last['best_mse']:.4g})"


def policy_of(algorithm: Algorithm, parameters: Tree, index: int) -> Callable[[Any], Array]:
    """The deterministic policy of member `index` of `parameters`: obs `[batch, obs_dim]` -> action."""
    state = jax.tree.map(lambda leaf: leaf[index], parameters)
    act = jax.jit(lambda obs: algorithm.act(state, (), obs, jax.random.key(0))[0])
    return lambda obs: act(jnp.asarray(obs))


def algorithm(name: str, spec: Spec, preset: str = "quick", dataset: str = "", **changes: Any) -> Algorithm:
    """A registered algorithm (or `package.module:make`) for `spec`: a preset with fields of its Config changed.

    The `paper` preset has what is published for `dataset`, where something is.

    Raises:
        UserError: no such algorithm, preset or field, numbers out of range, or sizes that do not fit each other.
    """
    entry = registry.get(name)
    config = settings.changed(registry.preset(entry, preset, dataset), name, changes)
    return entry.make(spec, config)._replace(config=config)


def learn(
    algorithm: Algorithm,
    dataset: Dataset | None,
    seeds: int | Sequence[int] = (0,),
    *,
    spec: Spec | None = None,
    model: Params | None = None,
    episodes: int = 5,
    gamma: float = 0.99,
) -> Trained:
    """Run all phases of an algorithm, every seed in one program, as the loop does with a run directory.

    `dataset` is None where the algorithm learns in a pure environment. `seeds` is how many, from 0 on, or which. With
    `spec` the policy is evaluated when a run would be, on `episodes` episodes per seed; `gamma` discounts `mc_start`.
    With `model` (`Fitted.params`) the first phase is left out, and all seeds share that model. Settings that do nothing
    or do not fit the data are warned of, as the commands do, where the algorithm is one that `algorithm` made.

    Raises:
        UserError: no seeds, a host environment to learn in, or a `model` and no phase that fits one.
    """
    chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    _check(algorithm, chosen, model)
    for line in complaints.of(algorithm.config, dataset) if dataset else ():
        warnings.warn(line, stacklevel=2)
    evaluator = make_evaluator(spec, algorithm, gamma, episodes) if spec else None
    previous: Tree = None
    if model is not None:
        previous = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(chosen), *leaf.shape)), model)
    dataset = jax.tree.map(jnp.asarray, dataset)  # once, not in each chunk
    people = members.of(chosen, (members.Variant(algorithm.hypers),))
    diverged, traces = np.zeros(len(chosen), bool), {}
    evaluations: list[dict] = []
    metrics: list[dict] = []
    for index in range(0 if model is None else 1, len(algorithm.phases)):
        phase = population(algorithm.phases[index])
        state = begin(phase, members.arguments(people, dataset, index, previous))
        program = compiled(chunk(phase), state, dataset)
        for chunks in range(1, phase.ticks // phase.chunk + 1):
            state, values = program.run(state, dataset)
            update = chunks * phase.chunk * phase.updates_per_tick
            _warn(values)
            metrics += [
                {"phase": phase.name, "update": update, "seed": seed, **{k: float(v[row]) for k, v in values.items()}}
                for row, seed in enumerate(chosen)
            ]
            if evaluator and spec and _due(phase, chunks):
                evaluations += _evaluate(evaluator, spec, state, chosen, update, chunks)
        diverged, traces[phase.name] = diverged | np.asarray(state.diverged), len(program.traces)
        previous = jax.jit(phase.result)(state)
    columns = [name for name in loop.EVAL_COLUMNS if name != "settings"]
    tables = pd.DataFrame(evaluations, columns=columns), pd.DataFrame(metrics)
    return Trained(algorithm, chosen, state.members, diverged, *tables, traces)


def fit(
    spec: Spec, dataset: Dataset, model: EnsembleConfig | None = None, config: FitConfig | None = None, seed: int = 0
) -> Fitted:
    """Fit a dynamics ensemble to a data set. `config.holdout` of its rows only rank the members.

    Raises:
        UserError: settings that contradict each other, or a fit that met a number that is not finite.
    """
    world, phase = fits.make(spec, model or EnsembleConfig(), config or FitConfig(steps=2_000, checks=20))
    alone = Algorithm(phases=(phase,), hypers=(), act=_no_policy)
    trained = learn(alone, dataset, (seed,))
    if trained.diverged.any():
        raise UserError("the fit of the world model met a number that is not finite; lower learning_rate")
    params = fits.result(jax.tree.map(lambda leaf: leaf[0], trained.parameters))
    return Fitted(world, params, trained.metrics.drop(columns=["phase", "seed"]))


def _no_policy(*_: Any) -> Any:
    raise UserError("a world model has no policy; train an agent")


def _check(algorithm: Algorithm, seeds: tuple[int, ...], model: Params | None) -> None:
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds are {list(seeds)}; expected at least one, and each once")
    if any(phase.request for phase in algorithm.phases):
        raise UserError("this algorithm learns on a host environment; use python -m experiments.collect")
    if model is not None and len(algorithm.phases) < 2:
        raise UserError("a model was given, but this algorithm has no phase that fits one; leave `model` out")


def _warn(values: Mapping[str, Array]) -> None:
    """Say that a support clips targets: Python shows the same warning once."""
    share = float(np.mean(values["clipped_targets"])) if "clipped_targets" in values else 0.0
    if complaint := supports.clipped_complaint(share):
        warnings.warn(complaint, stacklevel=3)


def _due(phase: Phase, chunks: int) -> bool:
    """Whether the loop would evaluate after this chunk."""
    every = phase.evaluate_every
    return every > 0 and (chunks % every == 0 or chunks == phase.ticks // phase.chunk)


def _evaluate(
    evaluator: Evaluator, spec: Spec, state: Population, seeds: tuple[int, ...], update: int, index: int
) -> list[dict]:
    outcome = evaluator(state.members, seeds, index)
    return [{"seed": seed, "update": update, **loop.eval_row(spec, outcome, row)} for row, seed in enumerate(seeds)]
