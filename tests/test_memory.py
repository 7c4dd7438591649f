"""Training in memory: what it returns, that it is the loop's training, and that bad input is one clear line."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import random_data

import jaxrl_suite as jrs
from jaxrl_suite.algorithms import bc
from jaxrl_suite.envs import registry
from jaxrl_suite.errors import UserError

ENV = registry.make("pendulum")
DYNAMICS = jrs.EnsembleConfig(members=3, elites=2, hidden=(16, 16))
FIT = jrs.FitConfig(steps=60, checks=3, batch=32)
TINY = {"updates": 20, "period": 10, "rollouts": 20, "hidden": (8,), "critics": 2, "evaluations": 2}


@pytest.fixture(scope="module")
def data():
    return random_data(ENV, 450)


@pytest.fixture(scope="module")
def cloned(data):
    algorithm = jrs.algorithm("bc", ENV.spec, "smoke", updates=40, hidden=(8,))
    return jrs.learn(algorithm, data, seeds=(3, 5), spec=ENV.spec, episodes=2)


@pytest.fixture(scope="module")
def fitted(data):
    return jrs.fit(ENV.spec, data, DYNAMICS, FIT)


def test_tables_have_a_row_per_evaluation_and_seed(cloned):
    assert list(cloned.evaluations["seed"]) == [3, 5, 3, 5]
    assert list(cloned.evaluations["update"]) == [20, 20, 40, 40]
    assert np.isfinite(cloned.evaluations["return_mean"]).all()
    assert set(cloned.metrics["phase"]) == {"agent"}
    assert not cloned.diverged.any()
    assert cloned.traces == {"agent": 1}


def test_a_seed_is_the_same_in_any_company(cloned, data):
    alone = jrs.learn(cloned.algorithm, data, seeds=(5,))
    assert alone.evaluations.empty
    obs = data.transitions.obs[:4]
    np.testing.assert_allclose(alone.policy()(obs), cloned.policy(5)(obs), rtol=1e-4, atol=1e-5)
    assert not np.allclose(cloned.policy(3)(obs), cloned.policy(5)(obs))


def test_a_fit_lowers_the_error_and_can_be_reused(fitted, data):
    assert fitted.metrics["best_mse"].iloc[-1] < fitted.metrics["best_mse"].iloc[0]
    ravl = jrs.algorithm("ravl", ENV.spec, "smoke", dynamics=DYNAMICS, **TINY)
    trained = jrs.learn(ravl, data, seeds=2, model=fitted.params)
    assert set(trained.metrics["phase"]) == {"agent"}
    for given, used in zip(jax.tree.leaves(fitted.params), jax.tree.leaves(trained.parameters.model), strict=True):
        np.testing.assert_array_equal(used, jnp.stack([given, given]))


def test_records_print_shapes_and_stay_pytrees(cloned, fitted, data):
    assert repr(data.transitions).startswith("Transition(obs=float32[450, 3], action=float32[450, 1], reward=")
    assert "sim_state=None" in repr(data)
    for thing in (data, cloned, fitted):
        assert len(repr(thing)) < 500
    shapes = jax.eval_shape(lambda rows: rows, data)
    assert type(shapes) is type(data)
    assert repr(shapes) == repr(data)
    assert "0" in repr(jax.tree.map(lambda _: 0, data))
    assert "last returns not evaluated" in repr(cloned._replace(evaluations=cloned.evaluations[:0]))


def test_episodes_are_summed_up(data):
    table = jrs.episodes(data)
    assert table["length"].sum() == 450
    np.testing.assert_allclose(table["return"].sum(), np.asarray(data.transitions.reward, np.float64).sum(), rtol=1e-6)
    first = np.asarray(data.episode) == 0
    assert table["length"][0] == first.sum()
    assert list(table["truncated"]) == [True, True, False]  # the pendulum's episodes of 200 steps; the last is cut off
    assert not table["terminated"].any()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda d: jrs.algorithm("rawl", ENV.spec), "did you mean ravl"),
        (lambda d: jrs.algorithm("ravl", ENV.spec, "quik"), "did you mean quick"),
        (lambda d: jrs.algorithm("ravl", ENV.spec, critic=3), "did you mean critics"),
        (lambda d: jrs.learn(bc.make(ENV.spec, bc.PRESETS["smoke"]), d, seeds=0), "at least one"),
        (lambda d: jrs.learn(bc.make(ENV.spec, bc.PRESETS["smoke"]), d, seeds=(1, 1)), "each once"),
        (lambda d: jrs.learn(bc.make(ENV.spec, bc.PRESETS["smoke"]), d, model=()), "no phase that fits one"),
        (lambda d: jrs.learn(jrs.algorithm("sac", jrs.spec("hopper"), "smoke"), None), "host environment"),
        (lambda d: jrs.load_dataset("hoper-medium-replay-mini"), "did you mean hopper-medium-replay-mini"),
    ],
)
def test_bad_input_is_one_line(call, words, data):
    with pytest.raises(UserError, match=words) as caught:
        call(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("support", "words"), [("-9,0", "is narrower than the data"), ("-1e7,1e7", "is far wider")])
def test_a_support_that_does_not_fit_the_data_is_warned_of_before_training(support, words, data):
    algorithm = jrs.algorithm("iql", ENV.spec, "smoke", head="hl_gauss", support=support)
    with pytest.raises(UserWarning, match=words):  # here every warning is an error
        jrs.learn(algorithm, data)


@pytest.mark.slow
def test_a_number_that_is_not_finite_is_said(data):
    broken = data._replace(transitions=data.transitions._replace(reward=data.transitions.reward * jnp.inf))
    with pytest.raises(UserError, match="not finite"):
        jrs.fit(ENV.spec, broken, DYNAMICS, FIT)


def test_public_names_exist_and_are_imported_late():
    assert set(jrs.__all__) <= set(dir(jrs))
    assert all(getattr(jrs, name) is not None for name in jrs.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lern'"):
        jrs.lern  # noqa: B018
    late = "import sys, jaxrl_suite; sys.exit(bool({'jax', 'pandas', 'envpool'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", late], timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gamma": 1.5}, "gamma=1.5 must not be above 1"),
        ({"gamma": "0.9"}, "gamma='0.9' is no number; give one, as in gamma=0.99"),
        ({"batch": 0}, "batch=0 must be at least 1"),
        ({"batch": 32.5}, "batch=32.5 is no whole number"),
        ({"critics": True}, "critics=True is no whole number"),
        ({"critic_lr": -1e-3}, "critic_lr=-0.001 must not be negative"),
        ({"tau": float("nan")}, "tau=nan must be finite"),
        ({"hidden": (64, 0)}, "hidden=(64, 0) must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(changes, said):
    with pytest.raises(UserError) as refused:
        jrs.algorithm("ravl", ENV.spec, **changes)
    assert str(refused.value).startswith(said)


def test_numbers_of_other_kinds_are_numbers():
    config = jrs.algorithm("ravl", ENV.spec, gamma=1, critics=np.int64(3)).config
    assert (config.gamma, config.critics) == (1, 3)
