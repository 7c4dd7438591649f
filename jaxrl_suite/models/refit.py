"""Fitting an ensemble again and again to rows that grow: a fixed number of steps from where the last fit ended.

Every fifth row is held out, for ever, and ranks the members; each fit draws every member a bootstrap of the others.
After Janner et al. 2019 (arXiv 1906.08253), who stop early: a variable length would keep seeds from running together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_suite import buffer
from jaxrl_suite.models import ensemble, fit
from jaxrl_suite.types import Array, Key, Metrics, Params, Spec, Stats, Transition, Tree, WorldModel

HELD = 5  # every fifth row is kept from training


@dataclass(frozen=True)
class RefitConfig:
    """The fits of an online model."""

    steps: int = 1_000
    """Gradient steps of each fit."""
    batch: int = 256
    """Transitions per member and gradient step."""
    learning_rate: float = 1e-3
    """Adam's step size."""


class Fitted(NamedTuple):
    """A model between two fits."""

    params: Params
    optimiser: Tree


class Refit(NamedTuple):
    """Pure functions."""

    init: Callable[[Key], Fitted]
    fit: Callable[[Fitted, buffer.Buffer, Key], tuple[Fitted, Metrics]]  # the buffer must not have come round


def training_row(index: Array) -> Array:
    """The row that is the `index`-th of those not held out."""
    return index // (HELD - 1) * HELD + index % (HELD - 1)


def held_row(index: Array) -> Array:
    """The row that is the `index`-th held out."""
    return index * HELD + HELD - 1


def make(spec: Spec, dynamics: ensemble.EnsembleConfig, config: RefitConfig) -> tuple[WorldModel, Refit]:
    """The ensemble as a world model, and its fits."""
    model, errors = ensemble.make(spec, dynamics), ensemble.mse(spec, dynamics)
    decay, adam = ensemble.decay(dynamics), optax.adam(config.learning_rate)
    members, dim = dynamics.members, spec.obs_dim + spec.action_dim

    def init(key: Key) -> Fitted:
        params = model.init(key, Stats(jnp.zeros(dim), jnp.ones(dim)))
        return Fitted(params, adam.init(params.weights))

    def objective(weights: Tree, params: Params, batch: Transition, key: Key) -> tuple[Array, Array]:
        loss, _ = model.loss(weights, params, batch, key)
        return loss + decay(weights), loss

    def again(fitted: Fitted, rows: buffer.Buffer, key: Key) -> tuple[Fitted, Metrics]:
        boot_key, held_key, scan_key = jax.random.split(key, 3)
        capacity, held = rows.data.reward.shape[0], rows.size // HELD
        params = fitted.params._replace(stats=fit.input_stats(rows.data, jnp.arange(capacity) < rows.size))
        bootstrap = jax.random.randint(boot_key, (members, capacity), 0, rows.size - held)

        def descend(carry: tuple[Tree, Tree], key: Key) -> tuple[tuple[Tree, Tree], Array]:
            weights, optimiser = carry
            batch_key, loss_key = jax.random.split(key)
            position = jax.random.randint(batch_key, (members, config.batch), 0, rows.size - held)
            batch = buffer.take(rows.data, training_row(jnp.take_along_axis(bootstrap, position, axis=1)))
            grads, loss = jax.grad(objective, has_aux=True)(weights, params, batch, loss_key)
            updates, optimiser = adam.update(grads, optimiser, weights)
            return (optax.apply_updates(weights, updates), optimiser), loss

        keys = jax.random.split(scan_key, config.steps)
        (weights, optimiser), losses = jax.lax.scan(descend, (params.weights, fitted.optimiser), keys)
        judged = held_row(jax.random.randint(held_key, (max(1, capacity // HELD),), 0, held))
        error = errors(weights, params, buffer.take(rows.data, judged))
        elites = jnp.argsort(error)[: dynamics.elites].astype(jnp.int32)
        params = params._replace(weights=weights, elites=elites)
        return Fitted(params, optimiser), {"fit_loss": jnp.mean(losses), "holdout_mse": jnp.mean(error[elites])}

    return model, Refit(init, again)
