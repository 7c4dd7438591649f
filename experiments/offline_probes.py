"""What is measured on offline agents with a world model: the values' slopes, value-aware model error, time by part.

The measures are those of `lipschitz_probes`, on the rows that the fit of the model held out for the agent's seed; with
--model=PATH on those that a fit of this run would have, which another fit may have learnt from. Where nothing is
fitted, as in the true dynamics, all rows serve.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments import lipschitz_probes
from experiments.lipschitz_probes import ROWS, SAMPLES
from jaxrl_suite import buffer
from jaxrl_suite.algorithms import dyna
from jaxrl_suite.models import imagine
from jaxrl_suite.train.compose import Population, population
from jaxrl_suite.types import Algorithm, Array, Dataset, Key, Spec, Tree

MODEL = 0  # a model is what is fitted first


def held(spec: Spec, config: dyna.Config, dataset: Dataset, seed: int) -> Array:
    """The rows that a seed's model has not learnt from, evenly spread `[ROWS]`; all rows where none is fitted."""
    fits = dyna.world(spec, config).fits
    if not fits:
        return _spread(jnp.arange(dataset.transitions.reward.shape[0]))
    start = jax.jit(lambda key, data: fits[0].init(key, None, data, None).holdout)  # the rest is not computed
    return _spread(start(jax.random.fold_in(jax.random.key(seed), MODEL), dataset))


def _spread(rows: Array) -> Array:
    return rows[(jnp.arange(ROWS) * rows.shape[0]) // ROWS]


def asker(
    algorithm: Algorithm, spec: Spec, config: dyna.Config, dataset: Dataset
) -> Callable[[Tree, int], dict[str, float]]:
    """A function of a member's state and seed -> `lipschitz_probes.MEASURES`, compiled once.

    Values with bins are no output of a layer: no product of norms bounds their slope, and `lipschitz_upper` is NaN.
    """
    model = dyna.world(spec, config).model
    rows_of = functools.cache(lambda seed: buffer.take(dataset, held(spec, config, dataset, seed)))

    @jax.jit
    def ask(state: Tree, rows: Dataset) -> dict[str, Array]:
        draw_key, slope_key = jax.random.split(jax.random.key(4))

        def value(obs: Array) -> Array:
            assert algorithm.q_value is not None
            return algorithm.q_value(state, obs, algorithm.act(state, (), obs, draw_key)[0])

        def successors(key: Key) -> Array:
            start = model.start(state.model, rows)
            return model.step(state.model, start, rows.transitions.action, key)[1].obs

        imagined = jax.lax.map(successors, jax.random.split(draw_key, SAMPLES))
        upper = lipschitz_probes.upper_bound(config.head, state.agent.critic)
        return lipschitz_probes.told(value, rows.transitions, imagined, rows.mc_return, upper, slope_key)

    return lambda state, seed: {name: float(x) for name, x in ask(state, rows_of(seed)).items()}


def seconds(
    algorithm: Algorithm, spec: Spec, config: dyna.Config, dataset: Dataset, seeds: tuple[int, ...], states: Tree
) -> dict[str, float]:
    """What fits, rollouts and updates take over a whole run and population, from one tick of each timed by itself.

    A fit counts where it was taken from the cache, too. What an idea adds to rollouts counts as updates.

    Args:
        algorithm, spec, config, dataset: of the run.
        seeds: those that a model was fitted for.
        states: of all members after training, leaves `[population, ...]`.
    """
    *fits, agent = map(population, algorithm.phases)
    found = dict.fromkeys(("seconds_fit", "seconds_dream", "seconds_learn"), 0.0)
    for phase in fits:
        keys = jnp.stack([jax.random.fold_in(jax.random.key(seed), MODEL) for seed in seeds])
        begun = jax.jit(phase.init)(keys, None, dataset, None)
        found["seconds_fit"] += lipschitz_probes.timed(jax.jit(phase.update), begun, dataset) * phase.ticks
    whole = Population(states, jnp.zeros(jax.tree.leaves(states)[0].shape[0], bool))
    tick = lipschitz_probes.timed(jax.jit(agent.update), whole, dataset)
    model = dyna.world(spec, config).model

    def dream(state: Any, data: Dataset) -> Tree:
        rows = buffer.draw(data, jax.random.key(0), config.rollouts)
        start, act = model.start(state.model, rows), lambda obs, key: algorithm.act(state, (), obs, key)[0]
        return imagine.imagine(model, state.model, act, start, rows.transitions.obs, config.horizon, jax.random.key(1))

    dream_tick = lipschitz_probes.timed(lipschitz_probes.of_all(dream), states, dataset)
    return found | {
        "seconds_dream": dream_tick * agent.ticks,
        "seconds_learn": max(tick - dream_tick, 0.0) * agent.ticks,
    }
