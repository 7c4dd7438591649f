"""Compute saved at equal return: what arms spend until they return as much as an ensemble without a mechanism does.

The rule. The target of a kind of model is the mean over seeds of its ensemble's last return, less the task's margin of
returns; it is taken as given. A run has reached it at its first evaluation at or above, and has spent by then its
operations per environment step times the steps that it trained. An ensemble's run that never gets there counts with
all that it spent, which is too little, and a single model's with ten times all that it spent; both speak against the
claim. Per seed, the difference is the base-2 logarithm of the ensemble's operations over the single model's: 1 is half
the operations.

Operations are counted, not timed: the published runs shared their machine with others. The rule was written
before the arms of cart-pole swing-up were compared, though the mean of their ensemble was known by then; pendulum's
rows were published before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import curves, flops
from experiments.lipschitz_arms import Arm
from jaxrl_suite.algorithms.mbpo_online_config import Config
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.report.claims import Evidence, Rows
from jaxrl_suite.report.comparison import settings_of
from jaxrl_suite.types import Spec
from jaxrl_suite.values import heads

NOISE = ("adversarial", "random")
LATE = 10.0  # how many times its operations a single model's run counts that never reaches the target


class Spent(NamedTuple):
    """Operations of a run until it reached a target; infinite if it did not."""

    reached: float
    whole: float


def per_step(spec: Spec, config: Config) -> float:
    """Operations per environment step of training, fits and rollouts of its tick included."""
    actor = flops.mlp(spec.obs_dim, config.hidden, 2 * spec.action_dim)
    critic = flops.mlp(spec.obs_dim + spec.action_dim, config.hidden, heads.make(config.value_head()).size)
    update = flops.update(actor, critic, config.critics, config.batch, diverse=False).done
    passes = 2.0 * config.batch * config.critics
    # Noise takes the values at the rows and at the moved ones, forward and back; an attack first the values at the
    # rows, and in each of its steps those at the moved ones and their gradient there.
    if config.lipschitz in NOISE and config.smoothness().active:
        update += passes * 2 * (3 * critic.all - critic.first)
    if config.lipschitz == "adversarial" and config.smoothness().active:
        update += passes * critic.all * (1 + 2 * config.lipschitz_steps)
    if config.real == config.batch:
        return config.utd * update
    dynamics = config.dynamics
    member = flops.mlp(
        spec.obs_dim + spec.action_dim, dynamics.hidden, (spec.obs_dim + 1) * (2 - dynamics.deterministic)
    )
    fit = config.fit.steps * flops.fit_step(member, dynamics.members, config.fit.batch).done
    dream = config.rollouts * max(config.horizon) * flops.transition(member, actor).done
    return config.utd * update + (fit + dream) / config.period


def trained(config: Config, curve: Sequence[Mapping[str, Any]]) -> list[float]:
    """Environment steps of training (without exploration) before each evaluation; updates are even over them."""
    return [(config.steps - config.explore) * at["update"] / curve[-1]["update"] for at in curve]


def until(target: float, cost: float, config: Config, curve: Sequence[Mapping[str, Any]]) -> Spent:
    """What a run of `cost` operations per step has spent at its first evaluation at or above the target."""
    spent = [cost * steps for steps in trained(config, curve)]
    there = (now for now, at in zip(spent, curve, strict=True) if at["return_mean"] >= target)
    return Spent(next(there, math.inf), spent[-1])


def target(rows: Rows, ensemble: Arm, env: str, margin: float) -> float:
    """The return to reach: what the ensemble's seeds return at the end, on average, less the margin; NaN without."""
    last = [row["return_last"] for row in rows if _is(row, ensemble, env)]
    return float(np.mean(last)) - margin if last else math.nan


def spent(rows: Rows, arm: Arm, env: str, goal: float) -> dict[int, Spent]:
    """What each seed of an arm spends until it returns `goal`; rows without a curve are left out."""
    found = {}
    for row in rows:
        if _is(row, arm, env) and curves.CURVE in row:
            config = arm.config(env, row["preset"])
            found[int(row["seed"])] = until(goal, per_step(envs.spec(env), config), config, row[curves.CURVE])
    return found


def saved(ensemble: Arm, single: Arm, env: str, margin: float) -> Callable[[Rows], Evidence]:
    """The rule as evidence for a claim: an entry per seed that both arms finished and whose curves are known."""

    def evidence(rows: Rows) -> Evidence:
        goal = target(rows, ensemble, env, margin)
        theirs, ours = spent(rows, ensemble, env, goal), spent(rows, single, env, goal)
        seeds = tuple(sorted(set(theirs) & set(ours)))
        return Evidence(np.array([halvings(theirs[seed], ours[seed]) for seed in seeds]), seeds)

    return evidence


def halvings(theirs: Spent, ours: Spent) -> float:
    """How often the ensemble's operations can be halved until they are the single model's."""
    single = ours.reached if math.isfinite(ours.reached) else LATE * ours.whole
    return math.log2(min(theirs.reached, theirs.whole) / single)


def _is(row: Mapping[str, Any], arm: Arm, env: str) -> bool:
    return (row["algo"], row["dataset"], settings_of(row), row["status"]) == (*arm.needed(env), "finished")
