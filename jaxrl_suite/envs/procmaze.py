"""ProcMaze: a new random maze every episode, whose values are known exactly (Young et al. 2023, ICML, "The benefits of
model-based generalization in reinforcement learning"; the rules are those of its released environment).

A maze of g x g cells is carved by a randomised depth-first search: from the current cell to an unvisited neighbour
whose only visited neighbour is the current cell. So open cells form a tree. Start and goal are independent and uniform
over open cells. The episode ends with the step that begins at the goal; every step costs 1, that one too. A move goes
through if its target is open; then, with a small probability, the player is teleported to the goal.

Deviations: actions are whole numbers (0 stay, 1 up, 2 left, 3 down, 4 right); `slip` replaces an action by a uniform
one (ours, 0 in the paper); an empty cell is one that is open and holds neither player nor goal; after 100 steps an
episode is truncated, as in the paper's evaluations.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_suite.envs import termination
from jaxrl_suite.errors import UserError
from jaxrl_suite.types import Array, Env, Key, Spec, Timestep

ACTIONS, HORIZON = 5, 100
MOVES = np.array([[0, 0], [-1, 0], [0, -1], [1, 0], [0, 1]])  # NumPy's, as an import looks for no device
SWEEPS = 128  # of value iteration; 0.9 ** 128 is 1e-6


class Rules(NamedTuple):
    """What a step does at random. May be traced."""

    teleport: Array | float
    slip: Array | float = 0.0


class State(NamedTuple):
    """A maze and who is where; cells are numbered row by row."""

    open: Array  # [g * g] bool
    player: Array  # [] int32
    goal: Array  # [] int32


def teleport(size: int) -> float:
    """The paper's probability: a tenth of one over the longest way through a maze."""
    return 0.1 / ((size + 1) * -(-size // 2) - size % 2)


# --- Mazes ---
def _neighbours(size: int) -> Array:
    """The cell `[g * g, 5]` where each action leads on an empty grid; g * g where that is outside."""
    cells = jnp.stack(jnp.divmod(jnp.arange(size * size), size), axis=-1)
    there = cells[:, None] + MOVES
    inside = jnp.all((there >= 0) & (there < size), axis=-1)
    return jnp.where(inside, there[..., 0] * size + there[..., 1], size * size)


def carve(key: Key, size: int) -> Array:
    """A random maze `[g * g]`: the cells that are open."""
    cells = size * size
    near = _neighbours(size)[:, 1:]
    first_key, key = jax.random.split(key)
    first = jax.random.randint(first_key, (), 0, cells)
    ground = jnp.zeros(cells + 1, bool).at[first].set(True)  # the last entry is all that lies outside
    stack = jnp.zeros(cells + 1, jnp.int32).at[0].set(first)

    def extend(step: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        ground, stack, depth = carry
        options = near[stack[jnp.maximum(depth - 1, 0)]]
        around = jnp.sum(ground[near[jnp.minimum(options, cells - 1)]], axis=-1)
        free = (options < cells) & ~ground[options] & (around == 1) & (depth > 0)
        scores = jax.random.uniform(jax.random.fold_in(key, step), (4,))
        chosen = options[jnp.argmax(jnp.where(free, scores, -1.0))]
        grows = jnp.any(free)
        ground = ground.at[chosen].set(ground[chosen] | grows)
        stack = stack.at[depth].set(jnp.where(grows, chosen, stack[depth]))
        return ground, stack, jnp.where(grows, depth + 1, jnp.maximum(depth - 1, 0))

    ground, _, _ = jax.lax.fori_loop(0, 2 * cells, extend, (ground, stack, jnp.int32(1)))
    return ground[:-1]


def any_cell(key: Key, open_cells: Array) -> Array:
    """A uniform open cell."""
    return jax.random.categorical(key, jnp.where(open_cells, 0.0, -jnp.inf)).astype(jnp.int32)


def reset(key: Key, size: int) -> State:
    """A new maze."""
    maze_key, player_key, goal_key = jax.random.split(key, 3)
    ground = carve(maze_key, size)
    return State(ground, any_cell(player_key, ground), any_cell(goal_key, ground))


def observe(state: State) -> Array:
    """What is on each cell `[g * g * 4]`: player, goal, wall, nothing."""
    cells = jnp.arange(state.open.shape[0])
    player, goal = cells == state.player, cells == state.goal
    return jnp.stack([player, goal, ~state.open, state.open & ~player & ~goal], axis=-1).reshape(-1)


def successors(state: State) -> Array:
    """The cell `[g * g, 5]` that each action leads to from each cell, without slips and teleports."""
    cells = state.open.shape[0]
    there = _neighbours(round(cells**0.5))
    free = (there < cells) & state.open[jnp.minimum(there, cells - 1)]
    return jnp.where(free, there, jnp.arange(cells)[:, None])


def step(state: State, action: Array, key: Key, rules: Rules) -> tuple[State, Array]:
    """The next state, and whether the episode has ended: whether this step began at the goal."""
    slip_key, action_key, teleport_key = jax.random.split(key, 3)
    slipped = jax.random.uniform(slip_key) < rules.slip
    action = jnp.where(slipped, jax.random.randint(action_key, (), 0, ACTIONS), action)
    player = successors(state)[state.player, action]
    player = jnp.where(jax.random.uniform(teleport_key) < rules.teleport, state.goal, player)
    return state._replace(player=player), state.player == state.goal


# --- True values ---
def values(state: State, gamma: float, rules: Rules, policy: Array | None = None) -> Array:
    """Q `[g * g, 5]` of a policy `[g * g, 5]` (probabilities), or the optimal one, whatever the player's place."""
    there = successors(state)
    at_goal = (jnp.arange(state.open.shape[0]) == state.goal)[:, None]

    def back_up(_: Array, q: Array) -> Array:
        v = jnp.max(q, axis=-1) if policy is None else jnp.sum(policy * q, axis=-1)
        moved = (1.0 - rules.teleport) * v[there] + rules.teleport * v[state.goal]
        moved = (1.0 - rules.slip) * moved + rules.slip * jnp.mean(moved, axis=-1, keepdims=True)
        return jnp.where(at_goal, -1.0, -1.0 + gamma * moved)

    return jax.lax.fori_loop(0, SWEEPS, back_up, jnp.zeros((state.open.shape[0], ACTIONS)))


# --- The environment ---
def make(size: int = 4, slip: float = 0.0) -> Env:
    """ProcMaze as a pure environment; actions are whole numbers below 5.

    Raises:
        UserError: fewer than two cells a side, or a slip that is no probability.
    """
    if size < 2 or not 0.0 <= slip <= 1.0:
        raise UserError(f"ProcMaze of size {size} with slip {slip:g}: give at least 2 cells a side, a slip in 0 to 1")
    rules = Rules(teleport(size), slip)
    spec = Spec(f"procmaze-{size}", size * size * 4, ACTIONS, HORIZON, termination.never)

    def begin(key: Key) -> tuple[tuple[State, Array], Array]:
        state = reset(key, size)
        return (state, jnp.int32(0)), observe(state).astype(jnp.float32)

    def advance(state: tuple[State, Array], action: Array, key: Key) -> tuple[tuple[State, Array], Timestep]:
        place, steps = state
        place, ended = step(place, action, key, rules)
        truncated = (steps + 1 >= HORIZON) & ~ended
        obs = observe(place).astype(jnp.float32)
        return (place, steps + 1), Timestep(obs, jnp.float32(-1.0), ended, truncated, jnp.bool_(True))

    return Env(spec, begin, advance)
