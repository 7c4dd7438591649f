"""The tanh-normal against numerical integration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jaxrl_suite import distributions as d


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (1.5, -1.0), (-0.7, 0.5)])
def test_density_integrates_to_one_and_matches_the_change_of_variables(mean, log_std):
    density = jax.jit(lambda a: jnp.exp(d.log_prob(d.tanh_normal(jnp.array([mean]), jnp.array([log_std])), a[None])))
    # Integrated over u = arctanh(a), where the integrand is smooth: da = (1 - a^2) du.
    grid = np.linspace(-6.0, 6.0, 4001)
    action = np.tanh(grid)
    values = np.asarray(jax.vmap(density)(jnp.asarray(action))) * (1 - action**2)
    assert integrate.trapezoid(values, grid) == pytest.approx(1.0, abs=2e-3)
    inner = np.abs(grid) < 2.0
    expected = stats.norm(mean, np.exp(log_std)).pdf(grid)
    np.testing.assert_allclose(values[inner], expected[inner], rtol=2e-3)


def test_sampled_log_prob_is_the_density_of_the_sample():
    policy = d.tanh_normal(jnp.array([[0.3, -0.5]] * 64), jnp.array([[-0.5, 0.2]] * 64))
    action, log_prob = d.sample_and_log_prob(policy, jax.random.key(0))
    np.testing.assert_allclose(d.log_prob(policy, action), log_prob, rtol=2e-3, atol=2e-3)


def test_expected_log_prob_equals_its_integral():
    policy = d.tanh_normal(jnp.zeros((200_000, 1)), jnp.zeros((200_000, 1)))
    _, log_prob = d.sample_and_log_prob(policy, jax.random.key(1))
    grid = np.linspace(-8, 8, 20001)
    pdf = stats.norm.pdf(grid)
    expected = integrate.trapezoid(
        pdf * (stats.norm.logpdf(grid) - 2 * (np.log(2) - grid - np.logaddexp(0, -2 * grid))), grid
    )
    assert float(jnp.mean(log_prob)) == pytest.approx(expected, abs=0.01)


def test_gradients_stay_finite_at_saturation():
    def loss(mean):
        return jnp.sum(d.sample_and_log_prob(d.tanh_normal(mean, jnp.full((1, 2), 5.0)), jax.random.key(0))[1])

    assert jnp.all(jnp.isfinite(jax.grad(loss)(jnp.array([[50.0, -50.0]]))))


def test_log_std_is_clipped_and_mode_is_inside():
    policy = d.tanh_normal(jnp.array([0.2]), jnp.array([9.0]))
    assert float(policy.log_std[0]) == d.LOG_STD_MAX
    np.testing.assert_allclose(d.mode(policy), np.tanh(0.2), rtol=1e-6)
