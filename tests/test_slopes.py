"""Values and slopes in shared passes: the same numbers as automatic differentiation, for fewer operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_suite import nets
from jaxrl_suite.values import ensemble
from jaxrl_suite.values.slopes import values_and_slopes

MEMBERS, BATCH, WIDTH = 4, 32, 7


def loss(values, slopes):
    """Bellman's and EDAC's terms in one: not linear in either."""
    return jnp.sum(jnp.square(values - 1.3)) + 0.7 * ensemble.diversity(slopes[..., 4:])


def shared(weights, x):
    return loss(*values_and_slopes(weights, x))


def problem(hidden):
    """An ensemble in float64, and its loss with each term differentiated by itself."""
    network = nets.ensemble(nets.mlp(WIDTH, hidden, {"value": 1}, bias_init=nets.symmetric_uniform(0.5)), MEMBERS)
    keys = jax.random.split(jax.random.key(0), 2)
    weights = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), network.init(keys[0]))
    x = jax.random.normal(keys[1], (MEMBERS, BATCH, WIDTH), jnp.float64)

    def apart(weights, x):
        def values(x):
            return network.apply(weights, x)["value"][..., 0]

        return loss(values(x), jax.grad(lambda x: jnp.sum(values(x)))(x))

    return weights, x, apart


@pytest.mark.parametrize("hidden", [(12, 6, 9), (8,), ()])
def test_shared_passes_equal_automatic_differentiation(hidden):
    with jax.enable_x64(True):
        weights, x, apart = problem(hidden)
        found, expected = (jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(weights, x) for f in (shared, apart))
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_a_population_is_its_members():
    with jax.enable_x64(True):
        weights, x, _ = problem((12, 6))
        two = jax.tree.map(lambda leaf: jnp.stack([leaf, 2.0 * leaf]), weights)
        together = jax.jit(jax.vmap(jax.grad(shared), in_axes=(0, None)))(two, x)
        alone = jax.jit(jax.grad(shared))(jax.tree.map(lambda leaf: leaf[1], two), x)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-10, atol=1e-12)


def test_four_passes_where_automatic_differentiation_takes_six():
    with jax.enable_x64(True):
        weights, x, apart = problem((64, 64))
        few, many = (jax.jit(jax.grad(f)).lower(weights, x).compile().cost_analysis()["flops"] for f in (shared, apart))
    passes = 2.0 * MEMBERS * BATCH * (7 * 64 + 64 * 64 + 64)
    assert few / passes < 4.5
    assert many / passes > 5.5
