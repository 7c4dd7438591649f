"""What trained agents say of the edge of reach of their own rollouts, where it is known by the rollouts' length alone.

Rollouts of k steps branch from the data. Their k-th successors are only ever targets: the edge. The states that they
act in are inside. Unlike the box's, such an edge is one of rollouts, not of places: other rollouts may pass there.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
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
from jaxrl_suite.train import session
from jaxrl_suite.types import Array, Dataset, Key, Tree

TITLE = "Edge of reach: standard deviations of critics and of the model's members, inside rollouts and at their ends"
STARTS = 500
MEASURE = "ensemble_std"  # of models.uncertainty: the dynamics penalty that stands beside the critics' spread


class Found(NamedTuple):
    """What an agent says of the states that its rollouts act in `[steps * starts]`, and of the last ones `[starts]`."""

    spread: Array
    doubt: Array
    valid: Array  # bool: the rollout was still under way
    last_spread: Array
    last_doubt: Array
    edge: Array  # bool: a target bootstraps from there


def of_run(path: Path, dataset: Dataset) -> list[dict[str, float]]:
    """The columns of a finished run's rows, member by member.

    horizon, accuracy: of its config. edge_share: of the targets, those that bootstrap from the edge.
    edge_spread, inside_spread: standard deviation of the critics at the policy's action; spread_effect: Cohen's d of
    the one against the other. edge_penalty, inside_penalty: what the dynamics model doubts there; 0 where it is true.

    Raises:
        UserError: the run is damaged.
    """
    run = session.load(path)
    config = session.build(run.config).config
    everyone = replace(config, dynamics=replace(config.dynamics, evaluate="all"))
    model = dyna.world(run.spec, everyone).model
    rows = jax.jit(buffer.draw, static_argnums=2)(dataset, jax.random.key(0), STARTS)
    measure = uncertainty.make(MEASURE)
    assert run.algorithm.q_values is not None
    q_values = run.algorithm.q_values

    def act(state: Tree, obs: Array, key: Key) -> Array:
        return run.algorithm.act(state, (), obs, key)[0]

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

    found = []
    for index in range(len(run.members)):
        state = jax.tree.map(lambda leaf, index=index: leaf[index], run.parameters)
        found.append(_columns(config, ask(state)))
    return found


def written(path: Path, dataset: Dataset) -> list[dict[str, Any]]:
    """The columns of a run's rows with seed and settings, also as diagnosis.csv in its folder."""
    owners = [{"seed": member.seed, "settings": member.variant.settings} for member in session.load(path).members]
    rows: list[dict[str, Any]] = [a | b for a, b in zip(owners, of_run(path, dataset), strict=True)]
    pd.DataFrame(rows).to_csv(path / "diagnosis.csv", index=False)
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A diagnosis for the terminal, a row per member."""
    shown = Table(
        "seed", "settings", "targets at the ends", "critics differ inside", "at the ends", "effect", title=TITLE
    )
    for name in ("model differs inside", "at the ends"):
        shown.add_column(name)
    names = ("inside_spread", "edge_spread", "spread_effect", "inside_penalty", "edge_penalty")
    for row in rows:
        numbers = [f"{row[name]:.3g}" for name in names]
        shown.add_row(str(row["seed"]), str(row["settings"]), f"{row['edge_share']:.1%}", *numbers)
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
