"""What trained agents say of the edge of reach of their own rollouts, where it is known by the rollouts' length alone.

Rollouts of k steps branch from the data. Their k-th successors are only ever targets: the edge. The states that they
act in are inside. Unlike the box's, such an edge is one of rollouts, not of places: other rollouts may pass there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from rich.table import Table

from jaxrl_suite import buffer
from jaxrl_suite.algorithms import dyna
from jaxrl_suite.models import imagine, transforms, uncertainty
from jaxrl_suite.report import stats
from jaxrl_suite.train import rundir, session
from jaxrl_suite.train.members import Member
from jaxrl_suite.types import Algorithm, Array, Dataset, Key, Spec, Tree

TITLE = "Edge of reach: standard deviations of critics and of the model's members, inside rollouts and at their ends"
FILE, KEY = "diagnosis.csv", "key_id"
STARTS = 500
MEASURE = "ensemble_std"  # of models.uncertainty: the dynamics penalty that stands beside the critics' spread

Ask = Callable[[Tree], dict[str, float]]  # a member's state -> columns


class Found(NamedTuple):
    """What an agent says of the states that its rollouts act in `[steps * starts]`, and of the last ones `[starts]`."""

    spread: Array
    doubt: Array
    valid: Array  # bool: the rollout was still under way
    last_spread: Array
    last_doubt: Array
    edge: Array  # bool: a target bootstraps from there


def asker(algorithm: Algorithm, spec: Spec, config: dyna.Config, dataset: Dataset) -> Ask:
    """A function of a member's state -> its columns, compiled once. The same rows and draws serve every question.

    horizon, accuracy: of its config. edge_share: of the targets, those that bootstrap from the edge.
    edge_spread, inside_spread: standard deviation of the critics at the policy's action; spread_effect: Cohen's d of
    the one against the other. edge_penalty, inside_penalty: what the dynamics model doubts there; 0 where it is true.
    """
    everyone = replace(config, dynamics=replace(config.dynamics, evaluate="all"))
    model = dyna.world(spec, everyone).model
    rows = jax.jit(buffer.draw, static_argnums=2)(dataset, jax.random.key(0), STARTS)
    measure = uncertainty.make(MEASURE)
    assert algorithm.q_values is not None
    q_values = algorithm.q_values

    def act(state: Tree, obs: Array, key: Key) -> Array:
        return algorithm.act(state, (), obs, key)[0]

    @jax.jit
    def ask(state: Tree) -> Found:
        rollout, valid = imagine.imagine(
            model,
            state.model,
            functools.partial(act, state),
            model.start(state.model, rows),
            rows.transitions.obs,
            config.horizon,
            jax.random.key(1),
        )

        def spread(obs: Array) -> Array:
            return jnp.std(q_values(state, obs, act(state, obs, jax.random.key(2))), axis=0)

        def doubt(obs: Array) -> Array:
            key = jax.random.key(3)
            _, prediction = model.step(state.model, transforms.at(model, state.model, obs), act(state, obs, key), key)
            return transforms.doubt(measure, prediction)

        flat = rollout.obs.reshape(-1, rollout.obs.shape[-1])
        last = rollout.next_obs[-1]
        edge = valid[-1] & (rollout.discount[-1] > 0)
        return Found(spread(flat), doubt(flat), valid.reshape(-1), spread(last), doubt(last), edge)

    return lambda state: _columns(config, ask(state))


def of_run(path: Path, dataset: Dataset) -> list[dict[str, float]]:
    """The columns of a finished run's rows, member by member.

    Raises:
        UserError: the run is damaged.
    """
    run = session.load(path)
    ask = asker(run.algorithm, run.spec, session.build(run.config).config, dataset)
    return [ask(_member(run.parameters, index)) for index in range(len(run.members))]


def observer(ask: Ask, members: Sequence[Member], path: Path) -> Callable[[Tree, int], None]:
    """What `loop.Job.observe` takes: asks every member at every evaluation, for diagnosis.csv in the run's folder.

    A run that is resumed asks again where it was cut back, and the same rows take the place of the old ones.
    """

    def observe(states: Tree, update: int) -> None:
        who = [(member.seed, member.variant.settings) for member in members]
        _write(path, update, who, [ask(_member(states, index)) for index in range(len(members))])

    return observe


def written(path: Path, dataset: Dataset) -> list[dict[str, Any]]:
    """The rows of a finished run's last evaluation, asked now and written where they were not at the time."""
    run = session.load(path)
    last = int(run.evals["update"].max())
    known = _read(path, last)
    if len(known) < len(run.members):
        # A run without variants is loaded without the words for its settings; its evaluations have them.
        lines = run.evals[run.evals["update"] == last]
        _write(path, last, list(zip(lines["seed"], lines["settings"], strict=True)), of_run(path, dataset))
        known = _read(path, last)
    return known


def _read(path: Path, update: int) -> list[dict[str, Any]]:
    """The rows of an evaluation; none where nothing was asked then."""
    if not (path / FILE).exists():
        return []
    rows = pd.read_csv(path / FILE, dtype={"settings": str}).fillna({"settings": ""})
    return [
        {str(name): value for name, value in row.items()} for row in rows[rows["update"] == update].to_dict("records")
    ]


def _member(states: Tree, index: int) -> Tree:
    return jax.tree.map(lambda leaf: leaf[index], states)


def _write(path: Path, update: int, who: Sequence[tuple[int, str]], found: Sequence[Mapping[str, float]]) -> None:
    rows = [
        {KEY: f"{update}-{place}", "update": update, "seed": seed, "settings": settings, **columns}
        for place, ((seed, settings), columns) in enumerate(zip(who, found, strict=True))
    ]
    rundir.upsert_rows(path / FILE, rows, list(rows[0]), KEY)


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A diagnosis for the terminal, a row per member: of the last evaluation."""
    shown = Table(
        "seed", "settings", "targets at the ends", "critics differ inside", "at the ends", "effect", title=TITLE
    )
    for name in ("model differs inside", "at the ends"):
        shown.add_column(name)
    names = ("inside_spread", "edge_spread", "spread_effect", "inside_penalty", "edge_penalty")
    for row in rows:
        numbers = [f"{float(row[name]):.3g}" for name in names]
        shown.add_row(str(row["seed"]), str(row["settings"]), f"{float(row['edge_share']):.1%}", *numbers)
    return shown


def _columns(config: Any, found: Found) -> dict[str, float]:
    spread, doubt, valid, last_spread, last_doubt, edge = (np.asarray(x) for x in found)
    here, there = spread[valid], last_spread[edge]
    return {
        "horizon": config.horizon,
        "accuracy": {"learned": 0.0, "oracle": 1.0}.get(config.kind, config.accuracy),
        "edge_share": (1.0 - config.real / config.batch) * float(edge.sum() / max(valid.sum(), 1)),
        "edge_spread": _mean(there),
        "inside_spread": _mean(here),
        "spread_effect": stats.effect_size(there, here),
        "edge_penalty": _mean(last_doubt[edge]),
        "inside_penalty": _mean(doubt[valid]),
    }


def _mean(values: np.ndarray) -> float:
    """NaN without values: where every rollout has ended before its last step."""
    return float(values.mean()) if values.size else float("nan")
