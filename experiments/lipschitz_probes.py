"""What is measured on values in a model: value-aware model error on held-out real rows, slopes, and time by part.

The value of an observation is that of the policy's action there. `lipschitz_upper` bounds the slope of the critics,
over observations and actions together; the policy's slope, which the value has in it too, is not counted. With layer
normalisation there is none, nor with a head whose value is no output of a layer, and it is NaN. In all other published
rows the value-aware error is below an eighth of `lipschitz_upper` times the model error.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_suite import buffer
from jaxrl_suite.algorithms import actor_critic, mbpo_online
from jaxrl_suite.models import ensemble, refit
from jaxrl_suite.train import compose
from jaxrl_suite.types import Algorithm, Array, Key, Spec, Transition, Tree
from jaxrl_suite.values import lipschitz

ROWS = 512  # held-out rows that are asked about, evenly spread
SAMPLES = 8  # draws of the model for each
RADIUS, STEPS = 0.05, 5  # of the search for steep places
MEASURES = (
    *("value_error", "model_error", "lipschitz_upper", "slope_mean", "slope_max", "slope_found"),
    *("value_scale", "slope_needed"),
)


def rewards_to_go(rows: Transition, size: Array, gamma: Array) -> Array:
    """Discounted sums of the rewards that follow each row `[rows]`, as if episodes went on where they were cut."""
    reward = jnp.where(jnp.arange(rows.reward.shape[0]) < size, rows.reward, 0.0)
    step = lambda after, now: ((total := now[0] + gamma * now[1] * after), total)  # noqa: E731
    return jax.lax.scan(step, jnp.zeros(()), (reward, rows.discount), reverse=True)[1]


def measure(spec: Spec, config: mbpo_online.Config, algorithm: Algorithm, state: Any, key: Key) -> dict[str, Array]:
    """`MEASURES` of one agent; the model's are NaN where there is none."""
    model, modelled = ensemble.make(spec, config.dynamics), config.real < config.batch
    draw_key, slope_key = jax.random.split(key)
    held = jnp.maximum(state.replay.size // refit.HELD, 1)
    chosen = refit.held_row((jnp.arange(ROWS) * held) // ROWS)
    rows = buffer.take(state.replay.data, chosen)

    def value(obs: Array) -> Array:
        action = algorithm.act(state, (), obs, key)[0]  # deterministic: the key has no part in it
        assert algorithm.q_value is not None
        return algorithm.q_value(state, obs, action)

    def imagine(key: Key) -> Array:
        return model.step(state.model.params, rows.obs, rows.action, key)[1].obs

    imagined = jax.lax.map(imagine, jax.random.split(draw_key, SAMPLES))
    to_go = rewards_to_go(state.replay.data, state.replay.size, state.agent.hypers.gamma)
    whole = chosen < state.replay.size - 2.0 / (1.0 - config.gamma)  # later sums lack most of their terms
    to_go = jnp.where(whole, to_go[chosen], to_go[0])
    found = told(value, rows, imagined, to_go, upper_bound(config.head, state.agent.critic), slope_key)
    return found if modelled else found | dict.fromkeys(("value_error", "model_error"), jnp.float32(jnp.nan))


def upper_bound(head: str, critic: Tree) -> Array:
    """A bound of every critic's slope `[critics]`; NaN for heads whose values are no output of a layer."""
    upper = lipschitz.upper_bound(critic)
    return upper if head == "mse" else jnp.full_like(upper, jnp.nan)


def told(
    value: Callable[[Array], Array], rows: Transition, imagined: Array, to_go: Array, upper: Array, key: Key
) -> dict[str, Array]:
    """`MEASURES`, each `[]`, of a value.

    Args:
        value: observations `[batch, obs_dim]` -> values `[batch]`.
        rows: real ones, `[batch, ...]`.
        imagined: what the model draws for their successors, `[samples, batch, obs_dim]`.
        to_go: discounted returns from the rows on, `[batch]`.
        upper: a bound of every critic's slope, `[critics]`.
        key: consumed.
    """
    slopes, values = lipschitz.gradient_norms(value, rows.obs), value(rows.obs)
    return {
        "value_error": jnp.mean(lipschitz.value_aware_error(value, rows.next_obs, imagined)),
        "model_error": jnp.mean(lipschitz.model_error(rows.next_obs, imagined)),
        "lipschitz_upper": jnp.max(upper),
        "slope_mean": jnp.mean(slopes),
        "slope_max": jnp.max(slopes),
        "slope_found": jnp.max(lipschitz.steepest(value, rows.obs, RADIUS, STEPS, key)),
        "value_scale": jnp.mean(jnp.abs(values)),
        "slope_needed": lipschitz.slope_needed(to_go, rows.obs),
    }


def measures(spec: Spec, config: mbpo_online.Config, algorithm: Algorithm) -> Any:
    """The function members' states -> `MEASURES`, each `[population]`, compiled once."""
    return jax.jit(jax.vmap(lambda state: measure(spec, config, algorithm, state, jax.random.key(0))))


def parts(spec: Spec, config: mbpo_online.Config, host: bool = False) -> dict[str, tuple[Callable[[Tree], Tree], int]]:
    """The parts of a run that take its time, by name: a program of the population's states, and how often it is called.

    Steps of pure environments count with the updates; those on a `host` are not counted.
    """
    tick = mbpo_online.parts(spec, config, actor_critic.make(spec, config.actor_critic()))
    ticks = (config.steps - config.explore) // config.period
    found: dict[str, tuple[Callable[[Any], Any], int]] = {}
    if config.real < config.batch:
        found |= {"fit": (tick.fit, ticks), "dream": (tick.dream, ticks)}
    step = (lambda state: tick.improve(state, state.key)) if host else tick.learn
    found["learn"] = step, ticks * (config.period // config.envs if host else 1)
    programs = {name: jax.jit(jax.vmap(part)) if host else of_all(part) for name, (part, _) in found.items()}
    return {name: (programs[name], often) for name, (_, often) in found.items()}


def of_all(part: Callable[..., Tree]) -> Callable[..., Tree]:
    """A part of one member's tick, of its state and what is shared, as a compiled program of all members' states, in
    blocks as training updates them."""

    def program(states: Tree, *shared: Tree) -> Tree:
        members = jax.tree.leaves(states)[0].shape[0]
        return compose.in_turn(lambda state, given: part(state, *given), states, shared, members)

    return jax.jit(program)


def seconds(spec: Spec, config: mbpo_online.Config, states: Tree, host: bool = False) -> dict[str, float]:
    """What fits, rollouts and updates take over a whole run and population, from one tick of each timed by itself."""
    found = dict.fromkeys(("fit", "dream", "learn"), 0.0)
    found |= {name: timed(program, states) * often for name, (program, often) in parts(spec, config, host).items()}
    return {f"seconds_{name}": value for name, value in found.items()}


def timed(program: Callable[..., Tree], *arguments: Tree) -> float:
    """Seconds of a jitted program, compiled before: the faster of two runs."""
    once(program, *arguments)
    return min(once(program, *arguments) for _ in range(2))


def once(program: Callable[..., Tree], *arguments: Tree) -> float:
    """Seconds of a program."""
    start = time.perf_counter()
    jax.block_until_ready(_numbers(program(*arguments)))
    return time.perf_counter() - start


def _numbers(tree: Tree) -> list[Array]:
    return [leaf for leaf in jax.tree.leaves(tree) if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
