"""The box: a plane to walk in, whose edge of reach and whose true values are known exactly.

s' = s + a with |a| <= 1 in each of two coordinates; episodes start uniformly in [-2, 2]^2, last 30 steps and never
terminate. So the states that can be reached in t steps are the box |s|_inf <= 2 + t, and those that rollouts of k steps
meet as a last successor only, never as a state to act in, are the shell 2 + (k - 1) < |s|_inf <= 2 + k: the edge of
reach (Sims et al. 2024, arXiv 2402.12527, whose own small world is not published in numbers; this one is ours).

The reward of a step is the field at the state it leads to, the largest of two bumps, height exp(-|s' - c|^2 / 2 w^2).
With it, V(s) = max over the box around s of r(s') + gamma V(s'), which a sliding maximum over a grid computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_suite.envs import termination
from jaxrl_suite.errors import UserError
from jaxrl_suite.types import Array, Dataset, Env, Key, Spec, Timestep, Transition

START, HORIZON = 2.0, 30
SPEC = Spec("box", obs_dim=2, action_dim=2, horizon=HORIZON, is_terminal=termination.never)


# --- The reward ---
@dataclass(frozen=True)
class Field:
    """Bumps of reward. All numbers may be traced."""

    centres: tuple[tuple[Any, Any], ...] = ((9.0, 0.0), (-1.0, -1.0))
    """Where the bumps are: a large one near the rim of what ten steps reach, and a small one among the starts."""
    widths: tuple[Any, ...] = (4.0, 1.0)
    """Their standard deviations."""
    heights: tuple[Any, ...] = (1.0, 0.2)
    """Their rewards at the top, at most 1."""


def at(distance: Any, width: Any = 4.0) -> Field:
    """The default field with its large bump at `(distance, 0)`, and of another width."""
    return Field(centres=((distance, 0.0), Field.centres[1]), widths=(width, Field.widths[1]))


def check(field: Field) -> Field:
    """The field, if it is one.

    Raises:
        UserError: lists of different lengths, a reward above 1, or a width that is none.
    """
    if not len(field.centres) == len(field.widths) == len(field.heights) > 0:
        raise UserError("a field of the box needs as many widths and heights as centres, and at least one of each")
    if not all(0.0 < height <= 1.0 for height in field.heights):
        raise UserError(f"heights of the box's bumps are {field.heights}; expected numbers above 0, at most 1")
    if not all(width > 0.0 for width in field.widths):
        raise UserError(f"widths of the box's bumps are {field.widths}; expected numbers above 0")
    return field


def reward(field: Field, obs: Array) -> Array:
    """The field `[...]` at states `[..., 2]`."""
    centres, widths, heights = (jnp.array(x, jnp.float32) for x in (field.centres, field.widths, field.heights))
    squared = jnp.sum((obs[..., None, :] - centres) ** 2, axis=-1)
    return jnp.max(heights * jnp.exp(-squared / (2.0 * widths**2)), axis=-1)


# --- The environment ---
class State(NamedTuple):
    """Where the walker is."""

    obs: Array  # [2]
    steps: Array  # [] int32 steps since the reset


def move(obs: Array, action: Array) -> Array:
    """The next state `[..., 2]`."""
    return obs + jnp.clip(action, -1.0, 1.0)


def starts(key: Key, shape: tuple[int, ...] = ()) -> Array:
    """Start states `[*shape, 2]`."""
    return jax.random.uniform(key, (*shape, 2), minval=-START, maxval=START)


def restore(obs: Array, sim_state: tuple[Array, Array] | None) -> State:
    """The state that `obs` `[2]` shows. Only the steps are lost: they count from 0, so the episode is cut later."""
    del sim_state
    return State(obs, jnp.int32(0))


def make(field: Field | None = None) -> Env:
    """The box with a field of reward.

    Raises:
        UserError: a field that is none.
    """
    known = check(field or Field())

    def reset(key: Key) -> tuple[State, Array]:
        obs = starts(key)
        return State(obs, jnp.int32(0)), obs

    def step(state: State, action: Array, key: Key) -> tuple[State, Timestep]:
        del key
        after = State(move(state.obs, action), state.steps + 1)
        false = jnp.zeros((), bool)
        return after, Timestep(after.obs, reward(known, after.obs), false, after.steps >= HORIZON, ~false)

    return Env(SPEC, reset, step, restore)


def data(key: Key, rows: int, field: Field | None = None) -> Dataset:
    """Start states with uniformly random actions, each row an episode that is cut after its one step."""
    start_key, action_key = jax.random.split(key)
    obs = starts(start_key, (rows,))
    action = jax.random.uniform(action_key, (rows, SPEC.action_dim), minval=-1.0, maxval=1.0)
    after = move(obs, action)
    gain = reward(check(field or Field()), after)
    transitions = Transition(obs, action, gain, jnp.ones(rows), after)
    return Dataset(
        transitions, jnp.zeros_like(action), jnp.ones(rows, bool), jnp.arange(rows, dtype=jnp.int32), gain, None
    )


# --- Reach ---
def reach(obs: Array) -> Array:
    """How many steps `[...]` from the nearest start a state `[..., 2]` is; 0 or less for a start state."""
    return jnp.max(jnp.abs(obs), axis=-1) - START


def edge(obs: Array, k: int | Array) -> Array:
    """Whether rollouts of `k` steps can only end in a state `[..., 2]`: (k - 1) < reach <= k, bool `[...]`."""
    far = jnp.max(jnp.abs(obs), axis=-1)  # no difference is taken: START + k is exact, and so is the shell
    return (far > START + (k - 1)) & (far <= START + k)


# --- True values, by value iteration on a grid ---
class Grid(NamedTuple):
    """Values on a square around the origin, whose rows are the first coordinate."""

    values: Array  # [n, n]
    half: Array  # [] half the side of the square


def points(half: float, per_step: int) -> Array:
    """The grid's states `[n, n, 2]`, `per_step` to a step of 1."""
    line = jnp.linspace(-half, half, 2 * round(half * per_step) + 1)
    return jnp.stack(jnp.meshgrid(line, line, indexing="ij"), axis=-1)


def _best_neighbour(values: Array, per_step: int) -> Array:
    """The largest value within one action of each point; nobody walks off the grid."""
    side = 2 * per_step + 1
    for window in ((side, 1), (1, side)):
        values = jax.lax.reduce_window(values, -jnp.inf, jax.lax.max, window, (1, 1), "SAME")
    return values


def optimal_values(field: Field, gamma: Any, half: float = START + HORIZON, per_step: int = 4) -> Grid:
    """V* of the discounted task without an end.

    The iteration begins with the value of standing still for ever, and so after n rounds has the best of n moves and
    then standing still: all that is worth doing has been done once the square has been crossed.
    """
    gain = reward(field, points(half, per_step))
    sweep = lambda _, values: _best_neighbour(gain + gamma * values, per_step)  # noqa: E731
    values = jax.lax.fori_loop(0, 2 * round(half) + 2, sweep, gain / (1.0 - gamma))
    return Grid(values, jnp.float32(half))


def best_returns(field: Field, steps: int = HORIZON, half: float = START + HORIZON, per_step: int = 4) -> Grid:
    """The largest sum of rewards over `steps` steps, which an episode's return can reach."""
    gain = reward(field, points(half, per_step))
    sweep = lambda _, values: _best_neighbour(gain + values, per_step)  # noqa: E731
    return Grid(jax.lax.fori_loop(0, steps, sweep, jnp.zeros_like(gain)), jnp.float32(half))


def look_up(grid: Grid, obs: Array) -> Array:
    """The grid's value `[...]` at states `[..., 2]`, bilinear; off the grid, that of the nearest point on its rim."""
    last = grid.values.shape[0] - 1
    place = jnp.clip((obs + grid.half) * (last / (2.0 * grid.half)), 0.0, last)
    low = jnp.clip(jnp.floor(place), 0, last - 1).astype(jnp.int32)
    (i, j), (u, v) = (jnp.moveaxis(x, -1, 0) for x in (low, place - low))
    near = grid.values[i, j] * (1 - v) + grid.values[i, j + 1] * v
    far = grid.values[i + 1, j] * (1 - v) + grid.values[i + 1, j + 1] * v
    return near * (1 - u) + far * u


def optimal_q(field: Field, grid: Grid, gamma: Any, obs: Array, action: Array) -> Array:
    """Q* `[...]` of taking `action` and going on as well as one can, from the grid of V*."""
    after = move(obs, action)
    return reward(field, after) + gamma * look_up(grid, after)


def mean_best_return(field: Field) -> Array:
    """What the best policy collects per episode, over all start states."""
    line = np.linspace(-START, START, 41)
    obs = jnp.stack(jnp.meshgrid(line, line), axis=-1)
    return jnp.mean(look_up(best_returns(field), obs))
