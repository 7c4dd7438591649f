"""Pure environments stepped from the host, and what a learner in them did, as a data set."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_suite import buffer
from jaxrl_suite.envs import box, registry
from jaxrl_suite.envs.stepped import PurePool, open_pool
from jaxrl_suite.errors import UserError
from jaxrl_suite.train import record
from jaxrl_suite.types import Transition


def walk(seeds, steps=65):
    pool, generator = PurePool(registry.make("box"), seeds), np.random.default_rng(0)
    obs, found = [pool.reset()], []
    for _ in range(steps):
        action = np.repeat(generator.uniform(-1, 1, (1, 2)), len(seeds), 0).astype(np.float32)
        found.append((obs[-1], action, pool.step(action)))
        obs.append(found[-1][2].obs)
    return found


def test_a_reset_takes_a_step_of_its_own():
    for step, (obs, action, seen) in enumerate(walk([3, 4])):
        resets = step % (box.HORIZON + 1) == box.HORIZON
        assert (seen.valid == (not resets)).all()
        assert (seen.truncated == (step % (box.HORIZON + 1) == box.HORIZON - 1)).all()
        if resets:
            assert (np.abs(seen.obs) <= 2).all() and (seen.reward == 0).all()
        else:
            np.testing.assert_allclose(seen.obs, obs + action, rtol=1e-6)


def test_an_environment_does_not_depend_on_its_neighbours():
    for (_, _, two), (_, _, one) in zip(walk([3, 4]), walk([4]), strict=True):
        for several, alone in zip(two, one, strict=True):
            np.testing.assert_array_equal(several[1], alone[0])


def test_a_pool_is_opened_by_name():
    assert isinstance(open_pool("pendulum", [0]), PurePool)
    with pytest.raises(UserError, match="unknown environment"):
        open_pool("pendulun", [0])


def test_a_rollout_in_a_pure_environment_is_a_data_set():
    arrays = record.rollout("pendulum", lambda obs, step: np.zeros((len(obs), 1), np.float32), 500, 0, envs=2)
    ends = np.flatnonzero(arrays["timeouts"])
    assert len(arrays["rewards"]) == 500 and not arrays["terminals"].any()
    np.testing.assert_array_equal(ends, [199, 249, 449, 499])
    inside = np.setdiff1d(np.arange(499), ends)
    np.testing.assert_array_equal(arrays["next_observations"][inside], arrays["observations"][inside + 1])


def test_what_a_learner_did_is_read_from_its_replay_buffer():
    """Two environments side by side: the first is cut after two steps, the second terminates after three."""
    first, second = [0.0, 1.0, 50.0, 51.0], [10.0, 11.0, 12.0, 70.0]
    obs = np.array([first, second]).T.reshape(-1, 1)
    after = np.array([[1.0, 2.0, 51.0, 52.0], [11.0, 12.0, 13.0, 71.0]]).T.reshape(-1, 1)
    discount = np.ones(8)
    discount[5] = 0.0
    arrays = record.recall(Transition(obs, obs, np.arange(8.0), discount, after), envs=2, ticks=4)
    np.testing.assert_array_equal(arrays["observations"][:, 0], first + second)
    np.testing.assert_array_equal(arrays["rewards"], [0, 2, 4, 6, 1, 3, 5, 7])
    np.testing.assert_array_equal(np.flatnonzero(arrays["timeouts"]), [1, 3, 7])
    np.testing.assert_array_equal(np.flatnonzero(arrays["terminals"]), [6])


def test_a_replay_buffer_that_came_round_is_no_record():
    """Trap: a ring buffer that is full overwrites its oldest rows, and episodes would be put together wrongly."""
    row = Transition(*(jnp.zeros(shape) for shape in ((1,), (1,), (), (), (1,))))
    for ticks, whole in ((3, True), (4, True), (5, False), (8, False)):  # of two rows, into eight places
        ring = buffer.empty(row, 8)
        for tick in range(ticks):
            rows = jax.tree.map(lambda leaf, tick=tick: jnp.full((2, *leaf.shape), float(tick)), row)
            ring = buffer.insert(ring, rows, jnp.ones(2, bool))
        taken = jax.tree.map(lambda leaf, ring=ring: leaf[: int(ring.size)], ring.data)
        if whole:
            assert len(record.recall(taken, 2, ticks)["rewards"]) == 2 * ticks
            continue
        with pytest.raises(UserError, match=f"holds 8 of the {2 * ticks} rows"):
            record.recall(taken, 2, ticks)
