"""Pessimistic world models on hand-made disagreement."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_suite.errors import UserError
from jaxrl_suite.models import ensemble, transforms, uncertainty
from jaxrl_suite.models.ensemble import EnsembleConfig
from jaxrl_suite.models.imagine import imagine
from jaxrl_suite.types import Members, Params, Prediction, Spec, Stats, WorldModel

PARAMS = Params((), Stats(jnp.zeros(1), jnp.ones(1)), jnp.zeros(1, jnp.int32))
PAIRWISE = uncertainty.make("max_pairwise")


def line(evaluate_all=True):
    """Walks by the action and pays the new position. Two members disagree by the position, without noise."""

    def step(params, obs, action, key):
        obs = obs + action
        mean = jnp.stack([jnp.zeros((len(obs), 2)), jnp.concatenate([obs, jnp.zeros_like(obs)], axis=-1)])
        members = Members(mean, jnp.zeros_like(mean)) if evaluate_all else None
        return obs, Prediction(obs, obs[:, 0], jnp.ones(len(obs)), members)

    return WorldModel(init=None, loss=None, start=None, step=step)


def step(model, obs):
    obs = jnp.float32(obs)[:, None]
    return model.step(PARAMS, obs, jnp.zeros_like(obs), jax.random.key(0))


def test_the_reward_is_penalised_and_nothing_else():
    state, prediction = step(transforms.penalise(line(), PAIRWISE, 0.5), [2.0, -4.0])
    plain_state, plain = step(line(), [2.0, -4.0])
    np.testing.assert_allclose(prediction.reward, [2.0 - 0.5 * 2.0, -4.0 - 0.5 * 4.0])
    np.testing.assert_array_equal(prediction.obs, plain.obs)
    np.testing.assert_array_equal(prediction.discount, plain.discount)
    np.testing.assert_array_equal(state, plain_state)


def test_the_sampled_step_reaches_the_measure():
    def measure(members, sample):
        return sample[:, 0] + 10.0 * sample[:, 1]

    _, prediction = step(transforms.penalise(line(), measure, 1.0), [2.0])
    np.testing.assert_allclose(prediction.reward, [2.0 - 22.0])


def test_the_weight_may_be_traced_and_mapped():
    rewards = jax.jit(jax.vmap(lambda w: step(transforms.penalise(line(), PAIRWISE, w), [3.0])[1].reward))
    np.testing.assert_allclose(rewards(jnp.array([0.0, 1.0, 2.0])), [[3.0], [0.0], [-3.0]])


def test_steps_halt_above_the_threshold_and_not_on_it():
    _, prediction = step(transforms.halt(line(), PAIRWISE, 2.0, -7.0), [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(prediction.reward, [1.0, 2.0, -7.0])
    np.testing.assert_array_equal(prediction.discount, [1.0, 1.0, 0.0])


def test_a_threshold_without_bound_leaves_the_model_as_it_was():
    _, prediction = step(transforms.halt(line(), PAIRWISE, jnp.inf, -7.0), [1.0, 1e9])
    np.testing.assert_array_equal(prediction.reward, jnp.float32([1.0, 1e9]))
    np.testing.assert_array_equal(prediction.discount, [1.0, 1.0])


@pytest.mark.parametrize("name", uncertainty.UNCERTAINTIES)
def test_both_take_every_measure(name):
    """Three rows of members that differ in mean and spread; the row between the others is the threshold."""
    rng, measure = np.random.default_rng(1), uncertainty.make(name)
    spread = Members(jnp.float32(rng.normal(size=(4, 3, 2))), jnp.float32(np.exp(rng.normal(size=(4, 3, 2)))))

    def fixed(params, obs, action, key):
        return obs, Prediction(obs, obs[:, 0], jnp.ones(len(obs)), spread)

    model = WorldModel(init=None, loss=None, start=None, step=fixed)
    obs = [1.0, -2.0, 0.5]
    doubt = np.asarray(measure(spread, jnp.float32([obs, obs]).T))
    assert len(set(doubt)) == 3
    _, penalised = step(transforms.penalise(model, measure, 0.5), obs)
    np.testing.assert_allclose(penalised.reward, np.float32(obs) - 0.5 * doubt, rtol=1e-5)
    _, halted = step(transforms.halt(model, measure, float(np.median(doubt)), -7.0), obs)
    np.testing.assert_array_equal(halted.discount, doubt <= np.median(doubt))
    np.testing.assert_array_equal(halted.reward, np.where(doubt <= np.median(doubt), np.float32(obs), -7.0))


def test_rollouts_end_with_the_halted_step():
    """A public port rolls on past the end, and stores what follows."""
    model, start = transforms.halt(line(), PAIRWISE, 2.5, -7.0), jnp.array([[0.0], [-5.0]])
    rows, valid = imagine(model, PARAMS, lambda obs, key: jnp.ones_like(obs), start, start, 4, jax.random.key(0))
    np.testing.assert_array_equal(valid, [[1, 1], [1, 0], [1, 0], [0, 0]])
    np.testing.assert_array_equal(rows.reward[:3, 0], [1.0, 2.0, -7.0])
    np.testing.assert_array_equal(rows.discount[:3, 0], [1.0, 1.0, 0.0])
    np.testing.assert_array_equal(rows.reward[0, 1], -7.0)


def test_a_halting_model_can_be_penalised():
    model = transforms.penalise(transforms.halt(line(), PAIRWISE, 2.0, -7.0), PAIRWISE, 1.0)
    np.testing.assert_array_equal(step(model, [1.0, 3.0])[1].reward, [0.0, -10.0])


@pytest.mark.parametrize(
    "model",
    [transforms.penalise(line(False), PAIRWISE, 0.1), transforms.halt(line(False), PAIRWISE, 0.1, 0.0)],
)
def test_a_model_that_shows_only_the_drawn_member_is_refused_while_it_is_traced(model):
    with pytest.raises(UserError, match="evaluate=all"):
        jax.eval_shape(lambda obs: step(model, obs), jnp.ones(2))


def test_the_configuration_is_checked_up_front():
    transforms.check(EnsembleConfig(evaluate="all"))
    with pytest.raises(UserError, match="evaluate=all"):
        transforms.check(EnsembleConfig())


def test_an_ensemble_of_one_member_without_noise_is_not_penalised():
    spec = Spec("toy", 1, 1, 10, lambda obs: obs[..., 0] > 1e6)
    model = ensemble.make(spec, EnsembleConfig(members=1, elites=1, hidden=(), evaluate="all", min_log_var=-80.0))
    params = model.init(jax.random.key(0), Stats(jnp.zeros(2), jnp.ones(2)))
    members = params.weights.members | {"log_var": {"kernel": jnp.zeros((1, 2, 2)), "bias": jnp.full((1, 2), -80.0)}}
    params = params._replace(weights=params.weights._replace(members=members))

    @jax.jit
    def rewards():
        models = [transforms.penalise(model, measure, 1.0) for measure in uncertainty.UNCERTAINTIES.values()]
        ones, key = jnp.ones((3, 1)), jax.random.key(1)
        return [m.step(params, ones, ones, key)[1].reward for m in (model, *models)]

    plain, *penalised = rewards()
    np.testing.assert_allclose(penalised, np.tile(plain, (len(penalised), 1)), atol=1e-6)
