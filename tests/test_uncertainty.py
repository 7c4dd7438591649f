"""Measures of uncertainty against their definitions, written out in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxrl_suite.errors import UserError
from jaxrl_suite.models import uncertainty
from jaxrl_suite.types import Members

NAMES = list(uncertainty.UNCERTAINTIES)
M, B, D = 5, 6, 4


def members(seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    mean, std = offset + rng.normal(size=(M, B, D)), np.exp(rng.normal(size=(M, B, D)) - 0.5)
    return Members(jnp.float32(mean), jnp.float32(std)), jnp.float32(offset + rng.normal(size=(B, D)))


def wide(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def measure(name):
    return jax.jit(uncertainty.make(name))


# --- the definitions, one row at a time: mu, sigma [members, dim], x [dim] ---
def total(mu, sigma):
    return np.mean(sigma**2 + mu**2, axis=0) - np.mean(mu, axis=0) ** 2


def leave_one_out(mu, sigma, x):
    found = []
    for i in range(len(mu)):
        rest_mu, rest_sigma = np.delete(mu, i, 0), np.delete(sigma, i, 0)
        m, v, own = rest_mu.mean(0), total(rest_mu, rest_sigma), sigma[i] ** 2
        found.append(np.sum(0.5 * (np.log(v / own) + (own + (mu[i] - m) ** 2) / v - 1)))
    return np.mean(found)


DEFINITIONS = {
    "max_aleatoric": lambda mu, sigma, x: max(np.linalg.norm(s) for s in sigma),
    "max_pairwise": lambda mu, sigma, x: max(np.linalg.norm(a - b) for a in mu for b in mu),
    "ensemble_std": lambda mu, sigma, x: np.linalg.norm(np.sqrt(total(mu, sigma))),
    "ensemble_variance": lambda mu, sigma, x: np.linalg.norm(total(mu, sigma)),
    "epistemic_std": lambda mu, sigma, x: np.sqrt(np.mean(np.var(mu, axis=0))),
    "loo_kl": leave_one_out,
    "ll_variance": lambda mu, sigma, x: np.var([stats.norm.logpdf(x, m, s).sum() for m, s in zip(mu, sigma)]),  # noqa: B905
}


@pytest.mark.parametrize("name", NAMES)
def test_each_measure_is_its_definition(name):
    given, sample = members()
    (mu, sigma), x = wide(given), wide(sample)
    expected = [DEFINITIONS[name](mu[:, row], sigma[:, row], x[row]) for row in range(B)]
    np.testing.assert_allclose(measure(name)(given, sample), expected, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_members_does_not_matter(name):
    given, sample = members(1)
    turned = jax.tree.map(lambda x: x[jnp.array([3, 0, 4, 2, 1])], given)
    np.testing.assert_allclose(measure(name)(turned, sample), measure(name)(given, sample), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("number", [1, M])
def test_members_that_agree_without_noise_are_sure(name, number):
    """An oracle is one such member."""
    one, sample = members(2)
    alike = Members(jnp.tile(one.mean[:1], (number, 1, 1)), jnp.zeros((number, B, D)))
    np.testing.assert_array_equal(measure(name)(alike, sample), np.zeros(B))


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"max_aleatoric", "ensemble_std", "ensemble_variance"}))
@pytest.mark.parametrize("number", [1, M])
def test_noise_that_all_members_agree_on_is_no_disagreement(name, number):
    one, sample = members(3)
    alike = jax.tree.map(lambda x: jnp.tile(x[:1], (number, 1, 1)), one)
    np.testing.assert_allclose(measure(name)(alike, sample), np.zeros(B), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_are_finite_also_where_members_agree(name):
    given, sample = members(4)
    alike = jax.tree.map(lambda x: jnp.tile(x[:1], (M, 1, 1)), given)
    derive = jax.jit(jax.grad(lambda m: jnp.sum(uncertainty.make(name)(m, sample))))
    for case in (given, alike, alike._replace(std=jnp.zeros((M, B, D)))):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(derive(case)))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(derive(given)))


@pytest.mark.parametrize("name", ["max_pairwise", "epistemic_std", "ensemble_std", "loo_kl"])
def test_small_disagreement_about_large_numbers_is_not_drowned(name):
    """In float32 a difference of squares or a Gram matrix of means around 1000 has errors of the order of 0.1."""
    given, sample = members(5, offset=1000.0)
    (mu, sigma), x = wide(given), wide(sample)
    expected = [DEFINITIONS[name](mu[:, row], sigma[:, row], x[row]) for row in range(B)]
    np.testing.assert_allclose(measure(name)(given, sample), expected, rtol=1e-4)


def test_pairwise_is_between_members_and_not_to_their_mean():
    """OfflineRL-Kit's "pairwise-diff" would find 2/3 of 3 here."""
    given = Members(jnp.array([0.0, 0.0, 3.0])[:, None, None], jnp.ones((3, 1, 1)))
    np.testing.assert_allclose(uncertainty.max_pairwise(given), [3.0], rtol=1e-6)


def test_the_spread_of_the_means_and_the_total_spread_have_names_of_their_own():
    """OfflineRL-Kit's "ensemble_std" is the former."""
    given = Members(jnp.array([-1.0, 1.0])[:, None, None], jnp.full((2, 1, 1), 2.0))
    np.testing.assert_allclose(uncertainty.epistemic_std(given), [1.0], rtol=1e-6)
    np.testing.assert_allclose(uncertainty.ensemble_std(given), [np.sqrt(5.0)], rtol=1e-6)


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(UserError, match="did you mean max_pairwise"):
        uncertainty.make("max-pairwise")


@pytest.mark.parametrize("name", uncertainty.UNCERTAINTIES)
def test_measures_that_are_zero_for_a_kind_of_model_are_told(name):
    key = jax.random.key(0)
    for number in (1, 3):
        for quiet in (False, True):
            mean, std = jax.random.normal(key, (number, 4, 3)), jnp.full((number, 4, 3), 0.0 if quiet else 0.5)
            found = uncertainty.make(name)(Members(mean, std), mean[0])
            told = uncertainty.complaint(name, number, quiet)
            assert bool(told) == bool(jnp.all(found == 0.0)), (number, quiet)
            assert not told or told.startswith(f"--uncertainty={name} is 0 everywhere for")
