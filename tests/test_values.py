"""Value heads, ensembles of critics, EDAC's diversity term."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_suite.errors import UserError
from jaxrl_suite.values import ensemble, heads

MEMBERS, BATCH, OBS, ACT, WIDTH = 4, 5, 3, 2, 8


def critic(weights, obs, action):
    """A smooth critic of one (obs, action): float64 throughout."""
    hidden = jnp.tanh(jnp.concatenate([obs, action]) @ weights["w"] + weights["b"])
    return jnp.sum(hidden * weights["v"])


@pytest.fixture(scope="module")
def problem():
    with jax.enable_x64(True):
        k = jax.random.split(jax.random.key(0), 5)
        weights = {
            "w": jax.random.normal(k[0], (MEMBERS, OBS + ACT, WIDTH), jnp.float64),
            "b": jax.random.normal(k[1], (MEMBERS, WIDTH), jnp.float64),
            "v": jax.random.normal(k[2], (MEMBERS, WIDTH), jnp.float64),
        }
        obs, action = (jax.random.normal(key, (BATCH, d), jnp.float64) for key, d in ((k[3], OBS), (k[4], ACT)))
    return weights, obs, action


def fast(weights, obs, action):
    def q(actions):
        batched = jax.vmap(critic, in_axes=(None, 0, 0))
        return jax.vmap(batched, in_axes=(0, None, 0))(weights, obs, actions)

    return ensemble.diversity(ensemble.action_gradients(q, action, MEMBERS))


def direct(weights, obs, action):
    """The definition: a Jacobian per sample and member, and the double sum over pairs."""
    total = 0.0
    for row in range(BATCH):
        gradients = []
        for member in range(MEMBERS):
            mine = jax.tree.map(lambda leaf, m=member: leaf[m], weights)
            gradient = jax.jacfwd(lambda a, w=mine, r=row: critic(w, obs[r], a))(action[row])
            gradients.append(gradient / (jnp.sqrt(jnp.sum(gradient**2)) + 1e-10))
        for i in range(MEMBERS):
            for j in range(MEMBERS):
                total += 0.0 if i == j else jnp.dot(gradients[i], gradients[j])
    return total / BATCH / (MEMBERS - 1)


def test_diversity_and_its_gradient_equal_the_per_sample_jacobian(problem):
    with jax.enable_x64(True):
        value, grads = jax.jit(jax.value_and_grad(fast))(*problem)
        expected, expected_grads = jax.jit(jax.value_and_grad(direct))(*problem)
        np.testing.assert_allclose(value, expected, rtol=1e-10)
        for name, expected_grad in expected_grads.items():
            np.testing.assert_allclose(grads[name], expected_grad, rtol=1e-7, atol=1e-12)


def test_diversity_of_equal_opposed_and_single_members():
    same = jnp.ones((3, 2, 4))
    np.testing.assert_allclose(ensemble.diversity(same), 3.0, rtol=1e-6)  # N (N - 1) pairs over N - 1
    opposed = jnp.stack([jnp.ones((2, 4)), -jnp.ones((2, 4))])
    np.testing.assert_allclose(ensemble.diversity(opposed), -2.0, rtol=1e-6)
    assert ensemble.diversity(jnp.ones((1, 2, 4))) == 0.0


def test_diversity_has_a_finite_gradient_where_an_action_gradient_vanishes():
    assert jnp.all(jnp.isfinite(jax.grad(lambda g: ensemble.diversity(g))(jnp.zeros((3, 2, 4)))))


def test_pessimistic_takes_each_rows_least_member():
    logits = jnp.array([[[1.0], [5.0]], [[2.0], [-1.0]]])
    np.testing.assert_array_equal(ensemble.combine(heads.mse(), logits, (), "min"), [[1.0], [-1.0]])


def test_mse_head_is_the_soft_bellman_target():
    head = heads.mse()
    target = head.target(jnp.array([1.0]), jnp.array([0.9]), jnp.array([[10.0]]), jnp.array([-2.0]), ())
    np.testing.assert_allclose(target, [1.0 + 0.9 * 8.0], rtol=1e-6)
    np.testing.assert_allclose(head.loss(jnp.array([[7.0]]), target, ()), [1.2**2], rtol=1e-5)
    terminal = head.target(jnp.array([1.0]), jnp.array([0.0]), jnp.array([[jnp.pi]]), jnp.array([3.0]), ())
    np.testing.assert_allclose(terminal, [1.0])


def test_unknown_head_names_the_nearest():
    with pytest.raises(UserError, match="did you mean mse"):
        heads.make("mes")
