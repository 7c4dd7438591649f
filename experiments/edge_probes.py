"""What trained agents say of the edge of reach of their own rollouts, where it is known by the rollouts' length alone.

Rollouts of k steps branch from the data. Their k-th successors are only ever targets: the edge. The states that they
act in are inside. Unlike the box's, such an edge is one of rollouts, not of places: other rollouts may pass there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_suite import buffer
from jaxrl_suite.algorithms import dyna
from jaxrl_suite.models import imagine, transforms, uncertainty
from jaxrl_suite.report import stats
from jaxrl_suite.train import session
from jaxrl_suite.types import Algorithm, Array, Dataset, Key, Spec, Tree

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
    return [ask(member(run.parameters, index)) for index in range(len(run.members))]


def member(states: Tree, index: int) -> Tree:
    """The state of one member of a population."""
    return jax.tree.map(lambda leaf: leaf[index], states)


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
