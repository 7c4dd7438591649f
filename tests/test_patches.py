"""Patches of targets at the ends of rollouts, where the true value is the policy's own, by Monte Carlo."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import random_data
from test_model_based import ENV, SMALL, same

from jaxrl_suite.algorithms import actor_critic, dyna, edge, mbpo
from jaxrl_suite.algorithms.ideas import State
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.envs.probes import PROBES
from jaxrl_suite.errors import UserError
from jaxrl_suite.models import oracle
from jaxrl_suite.train import session
from jaxrl_suite.types import Stats, Transition

KEY = jax.random.key(0)
GAMMA = 0.9


class Learner:
    """As much of an agent's state as a patch reads."""

    hypers = actor_critic.Hypers(gamma=GAMMA)


def state_of(model):
    return State(Learner(), model.init(KEY, Stats(jnp.zeros(1), jnp.ones(1))), None, KEY)


def constant(agent, obs, key):
    return jnp.full((len(obs), 1), 0.3)


def rollouts(valid, discount, env=ENV):
    """Rollouts [horizon, n] with rewards of their own."""
    valid, discount = jnp.asarray(valid, bool), jnp.asarray(discount, jnp.float32)
    horizon, n = valid.shape
    obs = random_data(env, horizon * n).transitions.obs.reshape(horizon, n, -1)
    reward = jnp.arange(horizon * n, dtype=jnp.float32).reshape(horizon, n)
    return Transition(obs, jnp.zeros((horizon, n, 1)), reward, discount, obs[::-1]), valid


# Columns: goes on to the end; ends before its last step; ends in it; goes on to the end.
VALID = [[1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 1, 1]]
DISCOUNT = [[1, 1, 1, 1], [1, 0, 1, 1], [1, 0, 0, 1]]
MODEL = oracle.make(ENV)


@functools.cache
def amended(which, seed=0):
    rollout, valid = rollouts(VALID, DISCOUNT)
    idea = edge.patch_rollouts(which, 3, constant, 3)
    found, metrics = jax.jit(lambda key: idea.amend(MODEL, state_of(MODEL), rollout, valid, key))(jax.random.key(seed))
    return rollout, valid, found, metrics


def pendulum_value(obs, action, steps):
    """The discounted reward of a constant action, in float64."""
    theta, speed = np.arctan2(obs[1], obs[0]), float(obs[2])
    total, torque = 0.0, 2.0 * action
    for t in range(steps):
        angle = (theta + np.pi) % (2 * np.pi) - np.pi
        total -= GAMMA**t * (angle**2 + 0.1 * speed**2 + 0.001 * torque**2)
        speed = np.clip(speed + (15.0 * np.sin(theta) + 3.0 * torque) * 0.05, -8.0, 8.0)
        theta += speed * 0.05
    return total


def test_the_ends_of_rollouts_are_patched_and_no_other_row():
    rollout, valid, found, metrics = amended("edge")
    ends = np.zeros((3, 4), bool)
    ends[2, [0, 3]] = True
    np.testing.assert_array_equal(edge.ends(rollout, valid), ends)
    np.testing.assert_array_equal(found.discount, np.where(ends, 0.0, rollout.discount))
    np.testing.assert_array_equal(np.asarray(found.reward)[~ends], np.asarray(rollout.reward)[~ends])
    assert same(found._replace(reward=rollout.reward, discount=rollout.discount), rollout)
    values = [pendulum_value(np.float64(obs), 0.3, 3) for obs in np.asarray(rollout.next_obs)[ends]]
    np.testing.assert_allclose(
        np.asarray(found.reward)[ends], np.asarray(rollout.reward)[ends] + GAMMA * np.array(values), rtol=1e-4
    )
    np.testing.assert_allclose(metrics["patched"], 2 / 11)
    np.testing.assert_allclose(metrics["patch_value"], np.mean(values), rtol=1e-4)


def test_the_control_patches_as_many_rows_inside_and_all_of_them_as_often():
    rollout, valid = rollouts(VALID, DISCOUNT)
    chosen = np.asarray(jax.jit(jax.vmap(lambda key: edge.others(rollout, valid, key)))(jax.random.split(KEY, 1_000)))
    assert (chosen.sum((1, 2)) == 2).all() and not chosen[:, 2].any()
    inside = np.array(DISCOUNT[:2], bool)
    assert not chosen[:, :2][:, ~inside].any()
    np.testing.assert_allclose(chosen[:, :2].mean(0)[inside], 2 / 7, atol=0.05)
    _, _, found, metrics = amended("random", 5)
    _, _, ends, _ = amended("edge")
    patched = np.asarray(found.discount) != np.asarray(rollout.discount)
    assert patched.sum() == (np.asarray(ends.discount) != np.asarray(rollout.discount)).sum() == 2
    values = [pendulum_value(np.float64(obs), 0.3, 3) for obs in np.asarray(rollout.next_obs)[patched]]
    expected = np.asarray(rollout.reward)[patched] + GAMMA * np.array(values)
    np.testing.assert_allclose(np.asarray(found.reward)[patched], expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["patched"], 2 / 11)


def test_a_walk_that_ends_counts_no_reward_after_its_end():
    """Where an episode of two steps pays 1 at its end: 1 a step before it, gamma two before, however long the walk."""
    env = PROBES["probe-delayed"].env
    model, obs = oracle.make(env), jnp.array([[0.0, 1.0], [0.0, 0.0]])
    for steps, expected in ((1, [1.0, 0.0]), (2, [1.0, GAMMA]), (9, [1.0, GAMMA])):
        found = edge.follow(model, state_of(model), constant, obs, steps, KEY)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def period(config, env, data):
    """The state after a whole period, and its metrics."""
    return after_a_period(mbpo.make(env.spec, config), data)


def after_a_period(algorithm, data):
    hypers = jax.tree.map(jnp.float32, algorithm.hypers)
    agent = algorithm.phases[-1]
    return jax.jit(lambda hypers: agent.update(agent.init(KEY, hypers, data, None), data))(hypers)


def test_rows_at_the_ends_are_stored_with_their_value_and_the_others_as_they_were():
    config = mbpo.Config(**SMALL, world="oracle", patch_steps=2)
    data = random_data(ENV, 50)
    base, _ = period(config, ENV, data)
    patched, metrics = period(dataclasses.replace(config, patch="edge"), ENV, data)
    rows, before = patched.imagined.data, base.imagined.data
    n = config.rollouts
    assert same(jax.tree.map(lambda x: x[:n], rows), jax.tree.map(lambda x: x[:n], before))  # the first of two steps
    np.testing.assert_array_equal(rows.discount, np.repeat([1.0, 0.0], n))
    assert (np.asarray(rows.reward[n:]) < np.asarray(before.reward[n:])).all()  # rewards of the pendulum are negative
    assert float(metrics["patched"]) == 0.5 and not same(patched.agent.critic, base.agent.critic)


def test_the_control_is_drawn_without_a_look_at_the_actions():
    """`fold_in(key, n)` is `split(key)[n]`: the key of the choice was that of the rollouts' second step, and the rows
    with the lowest second actions were chosen."""

    def amend(model, state, rollout, valid, key):
        chosen = edge.others(rollout, valid, jax.random.split(key)[0])
        return rollout, {"relation": jnp.corrcoef(chosen[0], rollout.action[1, :, 0])[0, 1]}

    config = mbpo.Config(**SMALL | {"rollouts": 1_000, "horizon": 5}, world="oracle")
    ac = actor_critic.make(ENV.spec, config.actor_critic())
    algorithm = dyna.make(ENV.spec, config, ac, config.hypers(), dyna.Idea(amend=amend))
    _, metrics = after_a_period(algorithm, random_data(ENV, 50))
    assert abs(float(metrics["relation"])) < 0.15  # of a thousand; it was 0.7


def test_without_a_patch_nothing_is_named_or_changed():
    """Published run ids stay: the fields are left out at their defaults. And the idea is none at all."""
    plain = session.plain(mbpo.Config())
    assert not {"patch", "patch_steps"} & set(plain)
    assert session.plain(mbpo.Config(world="oracle", patch="edge"))["patch"] == "edge"
    assert edge.patch_rollouts("none", 3, constant, 1) is dyna.PLAIN


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patch": "edge"}, "give --world=oracle"),
        ({"patch": "edge", "world": "interpolate", "accuracy": 0.5}, "give --world=oracle"),
        ({"patch": "random", "world": "oracle", "horizon": 1}, "give at least 2"),
        ({"patch": "egde", "world": "oracle"}, "did you mean edge"),
    ],
)
def test_a_patch_that_cannot_be_is_refused(changes, said):
    with pytest.raises(UserError, match=said):
        mbpo.make(ENV.spec, mbpo.Config(**SMALL | changes))


@pytest.mark.slow
def test_hopper_is_patched_through_the_c_engine():
    pytest.importorskip("mujoco")
    env = envs.pure("hopper")
    small = SMALL | {"rollouts": 3, "batch": 4}
    data = random_data(env, 8)
    state, metrics = period(mbpo.Config(**small, world="oracle", patch="edge", patch_steps=3), env, data)
    assert 0 < float(metrics["patched"]) <= 0.5 and float(metrics["patch_value"]) > 0
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.imagined.data))
