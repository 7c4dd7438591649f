"""The box: dynamics, reach, and true values against closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_suite.envs import box, registry
from jaxrl_suite.errors import UserError

GAMMA = 0.9


def field(**changes):
    return dataclasses.replace(box.Field(), **changes)


ONE = field(centres=((5.0, 0.0),), widths=(2.0,), heights=(1.0,))
FLAT = field(centres=((0.0, 0.0),), widths=(1e6,), heights=(1.0,))
values = jax.jit(box.optimal_values, static_argnames=("field", "half", "per_step"))


# --- dynamics ---
def test_a_step_adds_the_action_clipped():
    env = registry.make("box")
    state, obs = env.reset(jax.random.key(0))
    after, timestep = env.step(state, jnp.array([0.5, -3.0]), jax.random.key(1))
    np.testing.assert_allclose(timestep.obs, obs + jnp.array([0.5, -1.0]))
    np.testing.assert_allclose(timestep.reward, box.reward(box.Field(), timestep.obs))
    assert not timestep.terminated and not timestep.truncated and int(after.steps) == 1


def test_an_episode_is_cut_after_thirty_steps_and_never_terminates():
    env = registry.make("box")
    state, _ = env.reset(jax.random.key(0))
    for _ in range(29):
        state, timestep = env.step(state, jnp.ones(2), jax.random.key(1))
        assert not timestep.truncated
    _, timestep = env.step(state, jnp.ones(2), jax.random.key(1))
    assert timestep.truncated and not timestep.terminated


def test_starts_fill_their_box():
    obs = np.asarray(box.starts(jax.random.key(3), (4_000,)))
    assert np.abs(obs).max() <= 2.0
    np.testing.assert_allclose(obs.mean(0), 0.0, atol=0.08)
    np.testing.assert_allclose(obs.std(0), 4 / np.sqrt(12), atol=0.05)


def test_the_reward_is_the_larger_bump_and_at_most_one():
    obs = np.array([[9.0, 0.0], [-1.0, -1.0], [5.0, 3.0], [0.0, -1.0]])
    large = np.exp(-((obs - [9.0, 0.0]) ** 2).sum(1) / 32)
    small = 0.2 * np.exp(-((obs + 1.0) ** 2).sum(1) / 2)
    np.testing.assert_allclose(box.reward(box.Field(), jnp.asarray(obs)), np.maximum(large, small), rtol=1e-5)
    anywhere = 20 * jax.random.normal(jax.random.key(0), (1_000, 2))
    assert float(box.reward(box.Field(), anywhere).max()) <= 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"widths": (1.0,)}, "as many widths"),
        ({"heights": (1.5, 0.2)}, "at most 1"),
        ({"widths": (0.0, 1.0)}, "above 0"),
    ],
)
def test_a_field_that_is_none_is_refused(change, words):
    with pytest.raises(UserError, match=words):
        box.make(field(**change))


def test_data_are_one_step_episodes_of_the_box():
    rows = box.data(jax.random.key(0), 500)
    t = rows.transitions
    np.testing.assert_allclose(t.next_obs, t.obs + t.action)
    np.testing.assert_allclose(t.reward, box.reward(box.Field(), t.next_obs))
    assert rows.truncated.all() and (t.discount == 1).all() and len(np.unique(rows.episode)) == 500
    assert np.abs(t.obs).max() <= 2.0


# --- reach ---
def test_reach_counts_the_steps_from_the_nearest_start():
    obs = jnp.array([[0.0, 0.0], [2.0, -2.0], [3.5, 0.0], [0.0, -12.0]])
    np.testing.assert_allclose(box.reach(obs), [-2.0, 0.0, 1.5, 10.0])


@pytest.mark.parametrize("k", [1, 10, 30])
def test_the_edge_is_half_open(k):
    inner, outer = 2.0 + (k - 1), 2.0 + k
    above = np.nextafter(np.float32(outer), np.float32(99))
    obs = jnp.array(
        [[inner, 0.0], [0.0, -np.nextafter(np.float32(inner), np.float32(99))], [outer, outer], [above, 0.0]]
    )
    np.testing.assert_array_equal(box.edge(obs, k), [False, True, True, False])


def test_rollouts_of_k_steps_reach_the_edge_at_their_last_step_only_and_never_pass_it():
    """Greedy walks outwards from the corners, in float32 sums."""
    k = 10
    obs = jnp.concatenate([box.starts(jax.random.key(0), (500,)), jnp.full((1, 2), 2.0)])
    for step in range(1, k + 1):
        obs = box.move(obs, jnp.where(obs > 0, 1.0, -1.0))
        assert float(box.reach(obs).max()) <= step
        if step < k:
            assert not box.edge(obs, k).any()
    assert box.edge(obs, k).any()


# --- true values ---
def test_a_constant_reward_is_worth_the_geometric_series():
    grid = values(FLAT, GAMMA, half=6.0, per_step=2)
    np.testing.assert_allclose(grid.values, 1 / (1 - GAMMA), rtol=1e-5)


def test_a_bump_is_worth_the_straight_way_to_it():
    """From (2, 0) to the top at (5, 0): three steps, of which each is greedy; from the diagonal, the longer side."""
    grid = values(ONE, GAMMA, half=8.0, per_step=4)
    bump = lambda *d: np.exp(-np.sum(np.square(d)) / 8)  # noqa: E731

    def along(path):
        first = sum(GAMMA**t * bump(*place) for t, place in enumerate(path))
        return first + GAMMA ** len(path) / (1 - GAMMA)

    straight = along([(2, 0), (1, 0), (0, 0)])
    diagonal = along([(1, 0), (0, 0)])
    found = box.look_up(grid, jnp.array([[2.0, 0.0], [3.0, 1.0], [5.0, 0.0]]))
    np.testing.assert_allclose(found, [straight, diagonal, 1 / (1 - GAMMA)], rtol=1e-5)


def test_the_bellman_residual_vanishes_on_the_default_field():
    grid = values(box.Field(), 0.99)
    obs = box.points(float(grid.half), 4)[::16, ::16].reshape(-1, 2)
    line = jnp.linspace(-1.0, 1.0, 9)
    actions = jnp.stack(jnp.meshgrid(line, line), axis=-1).reshape(-1, 1, 2)
    inside = jnp.max(jnp.abs(obs), axis=-1) < grid.half - 1
    q = box.optimal_q(box.Field(), grid, 0.99, obs, jnp.broadcast_to(actions, (81, len(obs), 2)))
    residual = jnp.abs(jnp.max(q, axis=0) - box.look_up(grid, obs))
    assert float(jnp.max(residual * inside)) < 1e-3  # of values up to 100


def test_no_value_passes_that_of_the_top_for_ever():
    grid = values(box.Field(), 0.99)
    assert float(grid.values.max()) <= 100.0 + 1e-3
    assert float(box.look_up(grid, jnp.array([9.0, 0.0]))) == pytest.approx(100.0, rel=1e-5)


def test_a_policy_that_follows_the_true_values_collects_them():
    """Greedy by Q* from a start: the discounted rewards of a long walk add up to V* there."""
    grid, obs = values(box.Field(), GAMMA), jnp.array([0.5, -1.5])
    line = jnp.linspace(-1.0, 1.0, 9)
    actions = jnp.stack(jnp.meshgrid(line, line), axis=-1).reshape(-1, 2)

    def step(obs, _):
        best = actions[jnp.argmax(box.optimal_q(box.Field(), grid, GAMMA, obs, actions))]
        after = box.move(obs, best)
        return after, box.reward(box.Field(), after)

    _, rewards = jax.jit(lambda: jax.lax.scan(step, obs, None, length=200))()
    collected = np.sum(np.asarray(rewards, np.float64) * GAMMA ** np.arange(200))
    np.testing.assert_allclose(collected, box.look_up(grid, obs), rtol=2e-3)


def test_the_best_return_of_an_episode():
    """Three steps to the top and 27 of standing there."""
    grid = jax.jit(lambda: box.best_returns(ONE, 30, half=8.0))()
    expected = np.exp(-4 / 8) + np.exp(-1 / 8) + 28
    np.testing.assert_allclose(box.look_up(grid, jnp.array([2.0, 0.0])), expected, rtol=1e-5)


def test_between_grid_points_values_are_bilinear():
    line = jnp.linspace(-2.0, 2.0, 5)
    grid = box.Grid(3.0 * line[:, None] - line[None, :] + line[:, None] * line[None, :], jnp.float32(2.0))
    obs = jax.random.uniform(jax.random.key(0), (50, 2), minval=-2.0, maxval=2.0)
    x, y = obs.T
    np.testing.assert_allclose(box.look_up(grid, obs), 3 * x - y + x * y, rtol=1e-4, atol=1e-5)
    corner = box.look_up(grid, jnp.array([2.0, 2.0]))
    np.testing.assert_allclose(box.look_up(grid, jnp.array([7.0, 2.0])), corner)
