"""Fitting an ensemble as a phase: a fixed number of steps, and the best snapshot of every member.

After Sims et al. 2024 (arXiv 2402.12527): 80/20 split, a bootstrap of the training rows per member, Adam with coupled
L2, a snapshot of a member when its hold-out error falls by more than 1%, the members with the best snapshots as elites.

Deviations: the number of steps is fixed where the authors stop early or cut the learning rate (a variable length would
keep seeds from running together; snapshots make extra steps harmless); minibatches are drawn with replacement rather
than in epochs; a member keeps its own bootstrap, while the authors hand bootstraps around between epochs; inputs are
standardised by the training rows' own mean and std, where the authors take the state's from all next observations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_suite import buffer, mesh
from jaxrl_suite.errors import UserError
from jaxrl_suite.models import ensemble
from jaxrl_suite.models.ensemble import EnsembleConfig
from jaxrl_suite.types import Array, Dataset, Key, Metrics, Params, Phase, Spec, Stats, Transition, Tree, WorldModel

FILL = 256  # bootstraps are filled up, so that they divide over the devices of a mesh
LEAST_IMPROVEMENT = 0.01  # relative fall of the hold-out error that is worth a new snapshot


@dataclass(frozen=True)
class FitConfig:
    """The fit of a dynamics ensemble."""

    steps: int = 100_000
    """Gradient steps in all."""
    checks: int = 100
    """How often the hold-out error is measured, a divisor of steps."""
    batch: int = 256
    """Transitions per member and gradient step."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    holdout: float = 0.2
    """Share of the rows that is kept from training and ranks the members."""
    holdout_rows: int = 10_000
    """Rows of the hold-out that are evaluated, at most."""


class State(NamedTuple):
    """A fit under way."""

    params: Params  # weights in training; elites are ranked by the snapshots
    optimiser: Tree
    best: Tree  # snapshot of weights.members, leaves [members, ...]
    best_mse: Array  # [members] hold-out error of the snapshots
    rows: Array  # [members, n_train up to a multiple of FILL] int32: the bootstrap of every member, fixed
    holdout: Array  # [n_holdout] int32, fixed
    key: Key


def phase(
    model: WorldModel,
    mse: Callable[[Tree, Params, Transition], Array],
    config: FitConfig,
    members: int,
    decay: Callable[[Tree], Array] = lambda weights: jnp.zeros(()),
    cache: str = "",
) -> Phase:
    """The phase "model". It reads a `Dataset`, ignores hyper-parameters and the previous result, and yields `Params`.

    `mse(weights, params, batch)` is the error of every member `[members]` that snapshots and elites go by, and
    `decay(weights)` is added to the model's loss. Weights hold their leaves with a leading member axis in a field
    `members`. Every row serves: `next_obs` is the true successor also where an episode was cut.

    Raises:
        UserError: the configuration is impossible, or (from `init`) the data has too few rows.
    """
    _check(config)
    adam = optax.adam(config.learning_rate)

    def init(key: Key, hypers: Tree, data: Dataset, previous: Tree) -> State:
        split_key, bootstrap_key, weights_key, key = jax.random.split(key, 4)
        total = data.transitions.reward.shape[0]
        held = _held(config, total)
        if held >= total:
            raise UserError(f"the data set has {total} rows, of which the hold-out takes {held}; give more rows")
        order = jax.random.permutation(split_key, total).astype(jnp.int32)
        train, holdout = order[held:], order[: min(held, config.holdout_rows)]
        chosen = jnp.zeros(total, bool).at[train].set(True)
        params = model.init(weights_key, input_stats(data.transitions, chosen))
        bootstrap = jax.random.choice(bootstrap_key, train, (members, total - held))
        return State(
            params=params,
            optimiser=adam.init(params.weights),
            best=params.weights.members,
            best_mse=mse(params.weights, params, buffer.take(data.transitions, holdout)),
            rows=jnp.pad(bootstrap, ((0, 0), (0, -bootstrap.shape[1] % FILL))),
            holdout=holdout,
            key=key,
        )

    def objective(weights: Tree, params: Params, batch: Transition, key: Key) -> tuple[Array, Array]:
        loss, _ = model.loss(weights, params, batch, key)
        return loss + decay(weights), loss

    def train(state: State, data: Dataset) -> tuple[State, Array]:
        """`updates_per_tick` gradient steps; also the mean loss, without the decay."""
        key, scan_key = jax.random.split(state.key)
        total = data.transitions.reward.shape[0]

        def descend(carry: tuple[Tree, Tree], key: Key) -> tuple[tuple[Tree, Tree], Array]:
            weights, optimiser = carry
            batch_key, loss_key = jax.random.split(key)
            position = jax.random.randint(batch_key, (members, config.batch), 0, total - _held(config, total))
            rows = jax.vmap(buffer.take)(state.rows, position)
            batch = mesh.spread(buffer.take(data.transitions, rows), axis=1)
            grads, loss = jax.grad(objective, has_aux=True)(weights, state.params, batch, loss_key)
            updates, optimiser = adam.update(grads, optimiser, weights)
            return (optax.apply_updates(weights, updates), optimiser), loss

        keys = jax.random.split(scan_key, config.steps // config.checks)
        (weights, optimiser), losses = jax.lax.scan(descend, (state.params.weights, state.optimiser), keys)
        params = state.params._replace(weights=weights)
        return state._replace(params=params, optimiser=optimiser, key=key), jnp.mean(losses)

    def update(state: State, data: Dataset) -> tuple[State, Metrics]:
        state, loss = train(state, data)
        error = mse(state.params.weights, state.params, buffer.take(data.transitions, state.holdout))
        state = snapshot(state, error)
        elites = state.params.elites
        metrics = {"holdout_mse": jnp.mean(error[elites]), "best_mse": jnp.mean(state.best_mse[elites])}
        return state, {"loss": loss, **metrics}

    return Phase(
        name="model",
        ticks=config.checks,
        updates_per_tick=config.steps // config.checks,
        chunk=1,
        init=init,
        update=update,
        result=result,
        cache=cache,
    )


def make(spec: Spec, model: EnsembleConfig, config: FitConfig) -> tuple[WorldModel, Phase]:
    """The ensemble and the phase that fits it, whose result may be reused for the same data, seed and settings."""
    world = ensemble.make(spec, model)
    # How rollouts evaluate the members has no part in the fit.
    identity = f"{spec.name} {replace(model, evaluate='drawn')} {config}"
    errors, penalty = ensemble.mse(spec, model), ensemble.decay(model)
    return world, phase(world, errors, config, model.members, penalty, identity)


def snapshot(state: State, error: Array) -> State:
    """Keep the weights of the members whose hold-out error `[members]` improved enough, and rank the elites anew."""
    improved = error < (1.0 - LEAST_IMPROVEMENT) * state.best_mse
    select = jax.vmap(jnp.where)
    best = jax.tree.map(lambda new, old: select(improved, new, old), state.params.weights.members, state.best)
    best_mse = jnp.where(improved, error, state.best_mse)
    elites = jnp.argsort(best_mse)[: state.params.elites.shape[0]].astype(jnp.int32)
    return state._replace(params=state.params._replace(elites=elites), best=best, best_mse=best_mse)


def result(state: State) -> Params:
    """Every member as it was at its best, and the elites among them. What members share is as it was last."""
    return state.params._replace(weights=state.params.weights._replace(members=state.best))


def input_stats(rows: Transition, chosen: Array | None = None) -> Stats:
    """Mean and std of [obs, action] `[obs_dim + action_dim]` over the rows, or those `chosen` `[rows]`.

    Inputs that hardly vary are left unscaled.
    """
    where = None if chosen is None else chosen[:, None]
    mean = jnp.concatenate([jnp.mean(x, axis=0, where=where) for x in (rows.obs, rows.action)])
    std = jnp.concatenate([jnp.std(x, axis=0, where=where) for x in (rows.obs, rows.action)])
    # Rounding gives a constant column a tiny std, in proportion to its value.
    return Stats(mean, jnp.where(std > 1e-6 * (1.0 + jnp.abs(mean)), std, 1.0))


def _held(config: FitConfig, total: int) -> int:
    """Rows of `total` that the hold-out takes."""
    return max(1, round(config.holdout * total))


def _check(config: FitConfig) -> None:
    steps, checks = config.steps, config.checks
    if not 1 <= checks <= steps:
        raise UserError(f"fit: checks={checks} with steps={steps}; give at least 1 check and as many steps as checks")
    if steps % checks:
        raise UserError(
            f"fit: steps={steps} is no multiple of checks={checks}; choose steps={steps - steps % checks}, say"
        )
    if not 0.0 < config.holdout < 1.0:
        raise UserError(f"holdout is {config.holdout}; expected a share between 0 and 1")
