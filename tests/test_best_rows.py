"""10% BC: exactly the rows of the best episodes, whatever the episodes look like."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_suite.algorithms import bc, offline, registry
from jaxrl_suite.errors import UserError
from jaxrl_suite.train import session
from jaxrl_suite.types import Dataset, Spec, Transition

SPEC = Spec("made-up", 2, 1, 10, lambda obs: obs[..., 0] > 1e9)
best = jax.jit(bc.best_rows, static_argnums=1)


def episodes(*rewards, terminated=True, first=0):
    """A data set with an episode per list of rewards; `terminated`: whether the last one does, the others do."""
    flat = np.concatenate(rewards).astype(np.float32)
    last = np.cumsum([len(part) for part in rewards]) - 1
    discount = np.ones(len(flat), np.float32)
    discount[last[: None if terminated else -1]] = 0.0
    truncated = np.zeros(len(flat), bool)
    truncated[-1] = not terminated
    index = np.repeat(np.arange(len(rewards), dtype=np.int32) + first, [len(part) for part in rewards])
    obs = np.random.default_rng(0).normal(size=(len(flat), 2)).astype(np.float32)
    action = np.zeros((len(flat), 1), np.float32)
    step = Transition(obs, action, flat, discount, obs)
    return jax.tree.map(jnp.asarray, Dataset(step, action, truncated, index, flat, None))


FOUR = ([1, 1, 1], [5, 5], [0.1] * 4, [7])


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.2, [3, 4]), (0.3, [3, 4, 9]), (0.5, [3, 4, 9, 0, 1]), (1.0, [3, 4, 9, 0, 1, 2, 5, 6, 7, 8]), (0.01, [3])],
)
def test_rows_come_by_the_return_of_their_episode(share, expected):
    found = best(episodes(*FOUR), share)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, expected)


def test_an_episode_that_the_end_of_the_data_cut_comes_last():
    """Its return is not known: where rewards are negative, a cut one would look best."""
    costs = ([-1, -1, -1], [-2, -1, -1], [-1])
    np.testing.assert_array_equal(best(episodes(*costs, terminated=False), 1.0), range(7))
    np.testing.assert_array_equal(best(episodes(*costs), 1.0), [6, 0, 1, 2, 3, 4, 5])


def test_a_last_episode_that_ran_out_of_time_counts():
    np.testing.assert_array_equal(best(episodes([1, 1], [9, 9], terminated=False), 0.5), [2, 3])


def test_a_single_episode_counts_cut_or_not():
    np.testing.assert_array_equal(best(episodes([1, 2, 3], terminated=False), 0.67), [0, 1])


def test_rows_of_equal_episodes_stay_together_and_numbers_may_start_anywhere():
    np.testing.assert_array_equal(best(episodes([1, 2], [2, 1], [3], first=40), 0.6), [0, 1, 2])


def test_returns_are_not_discounted():
    """Trap: public code ranks by discounted return, which prefers what comes early."""
    data = episodes([10, 0, 0, 0], [0, 0, 0, 10.5])
    early = data._replace(mc_return=jnp.array([10, 0, 0, 0, 7.6, 8.5, 9.4, 10.5]))
    np.testing.assert_array_equal(best(early, 0.5), [4, 5, 6, 7])
    total, known = offline.episode_returns(early)
    np.testing.assert_allclose(total, [10] * 4 + [10.5] * 4)
    assert known.all()


def test_only_these_rows_are_drawn():
    data = episodes(*([[0.0] * 5] * 8), [1.0] * 5)
    data = data._replace(transitions=data.transitions._replace(action=jnp.where(data.mc_return, 0.5, -0.5)[:, None]))
    config = dataclasses.replace(bc.BEST_TENTH["smoke"], top=5 / 45, hidden=(8,), learning_rate=1e-2)
    algorithm = bc.make(SPEC, config)
    (phase,) = algorithm.phases
    state = jax.jit(phase.init)(jax.random.key(0), algorithm.hypers, data, None)
    np.testing.assert_array_equal(state.rows, range(40, 45))
    update = jax.jit(phase.update)
    for _ in range(phase.ticks):
        state, _ = update(state, data)
    action, _ = algorithm.act(state, (), data.transitions.obs[40:], jax.random.key(0))
    np.testing.assert_allclose(action, 0.5, atol=0.1)


@pytest.mark.parametrize("top", [0.0, -0.1, 1.5])
def test_a_share_that_is_none_is_refused(top):
    with pytest.raises(UserError, match=r"--top=.* give a number above 0, at most 1"):
        bc.make(SPEC, dataclasses.replace(bc.PRESETS["smoke"], top=top))


def test_plain_bc_keeps_its_run_ids():
    plain, tenth = (
        session.freeze("offline_mbrl", registry.get(name), registry.get(name).presets["quick"], "Hopper-v5")
        for name in ("bc", "bc10")
    )
    assert "top" not in json.dumps(plain) and tenth["config"]["top"] == 0.1
    assert session.build({**tenth, "env": "pendulum"}).config == bc.BEST_TENTH["quick"]
