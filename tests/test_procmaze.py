"""ProcMaze: mazes are trees, returns are the published ones, values are those of the dynamics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_suite.envs import procmaze
from jaxrl_suite.errors import UserError

SIZE, N = 4, 1000
OPTIMAL, OPEN = -4.37, 11.4  # value_and_models, E2: mean optimal return with teleports, mean number of open cells


@pytest.fixture(scope="module")
def mazes():
    return jax.jit(jax.vmap(lambda key: procmaze.reset(key, SIZE)))(jax.random.split(jax.random.key(0), N))


def solved(mazes, gamma, rules):
    return jax.jit(jax.vmap(lambda maze: procmaze.values(maze, gamma, rules)))(mazes)


def test_mazes_are_trees_and_hold_player_and_goal(mazes):
    for ground in np.asarray(mazes.open).reshape(N, SIZE, SIZE):
        edges = (ground[1:] & ground[:-1]).sum() + (ground[:, 1:] & ground[:, :-1]).sum()
        assert edges == ground.sum() - 1
        reached = {tuple(np.argwhere(ground)[0])}
        todo = list(reached)
        while todo:
            i, j = todo.pop()
            near = {(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)} - reached
            new = {(a, b) for a, b in near if 0 <= a < SIZE and 0 <= b < SIZE and ground[a, b]}
            reached |= new
            todo += new
        assert len(reached) == ground.sum()
    rows = np.arange(N)
    assert mazes.open[rows, mazes.player].all() and mazes.open[rows, mazes.goal].all()


def test_sizes_and_optimal_returns_are_the_published_ones(mazes):
    q = solved(mazes, 1.0, procmaze.Rules(procmaze.teleport(SIZE)))
    returns = np.asarray(q.max(axis=-1))[np.arange(N), mazes.player]
    assert abs(returns.mean() - OPTIMAL) < 3 * returns.std() / N**0.5
    cells = np.asarray(mazes.open.sum(axis=1))
    assert abs(cells.mean() - OPEN) < 0.1 + 3 * cells.std() / N**0.5


def test_the_probability_of_a_teleport_is_a_tenth_of_one_over_the_longest_way():
    assert [procmaze.teleport(size) for size in (3, 4)] == pytest.approx([1 / 70, 0.01])


def test_values_are_those_of_breadth_first_distances(mazes):
    """Without teleports V is -(1 - gamma^(d + 1)) / (1 - gamma) at distance d from the goal."""
    v = np.asarray(solved(mazes, 0.9, procmaze.Rules(0.0)).max(axis=-1))
    for index in range(20):
        maze = jax.tree.map(lambda x, i=index: np.asarray(x)[i], mazes)
        there = np.asarray(procmaze.successors(jax.tree.map(jnp.asarray, maze)))
        distance = np.full(SIZE**2, np.inf)
        distance[maze.goal] = 0
        for _ in range(SIZE**2):
            distance = np.minimum(distance, distance[there].min(axis=1) + 1)
        expected = -(1 - 0.9 ** (distance + 1)) / (1 - 0.9)
        np.testing.assert_allclose(v[index][maze.open], expected[maze.open], rtol=1e-5)


def test_steps_follow_the_values():
    """The mean of -1 + gamma V over simulated steps is the Bellman backup: slips, teleports and ends are as said."""
    rules = procmaze.Rules(0.2, 0.3)
    maze = procmaze.reset(jax.random.key(3), SIZE)
    q = procmaze.values(maze, 0.9, rules)
    keys = jax.random.split(jax.random.key(4), 20_000)
    after, ended = jax.jit(jax.vmap(lambda key: procmaze.step(maze, jnp.int32(4), key, rules)))(keys)
    sampled = -1.0 + 0.9 * ~ended * q.max(axis=-1)[after.player]
    assert abs(sampled.mean() - q[maze.player, 4]) < 4 * sampled.std() / len(keys) ** 0.5


def test_the_environment_ends_with_the_step_from_the_goal():
    env = procmaze.make(SIZE)
    (maze, steps), obs = env.reset(jax.random.key(0))
    maze = maze._replace(player=maze.goal)
    _, last = env.step((maze, steps), jnp.int32(0), jax.random.key(1))
    assert last.terminated and last.reward == -1.0 and not last.truncated
    _, late = env.step((maze._replace(player=_another(maze)), jnp.int32(99)), jnp.int32(0), jax.random.key(1))
    assert late.truncated and not late.terminated
    assert obs.shape == (env.spec.obs_dim,) and obs.reshape(-1, 4)[:, 0].sum() == 1


def _another(maze):
    return jnp.argmax(maze.open & (jnp.arange(SIZE**2) != maze.goal)).astype(jnp.int32)


@pytest.mark.parametrize("options", [{"size": 1}, {"slip": 1.5}])
def test_impossible_mazes_are_refused(options):
    with pytest.raises(UserError, match="ProcMaze"):
        procmaze.make(**options)
