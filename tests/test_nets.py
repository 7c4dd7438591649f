"""Matrix products in bfloat16: rounded factors, exact sums, and derivatives that are such products too."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_suite import nets
from jaxrl_suite.errors import UserError
from jaxrl_suite.values.slopes import values_and_slopes

KEYS = jax.random.split(jax.random.key(0), 3)
X, KERNEL = jax.random.normal(KEYS[0], (2, 8, 16)), jax.random.normal(KEYS[1], (16, 4))


def rounded(x):
    """To bfloat16's eight bits and back, in float64 so that sums are exact."""
    return np.asarray(x.astype(jnp.bfloat16).astype(jnp.float32), np.float64)


def test_factors_are_rounded_and_sums_are_not():
    found = jax.jit(nets.product("bfloat16"))(X, KERNEL)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, rounded(X) @ rounded(KERNEL), rtol=1e-5, atol=1e-5)
    assert np.max(np.abs(found - X @ KERNEL)) > 1e-3  # float32 would be this far off


def test_derivatives_are_products_of_rounded_factors():
    cotangent = jax.random.normal(KEYS[2], (2, 8, 4))
    _, pull = jax.vjp(nets.product("bfloat16"), X, KERNEL)
    by_x, by_kernel = pull(cotangent)
    rows, cots = rounded(X).reshape(-1, 16), rounded(cotangent).reshape(-1, 4)
    np.testing.assert_allclose(by_x, rounded(cotangent) @ rounded(KERNEL).T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_kernel, rows.T @ cots, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", ["gradient", "gradient of a gradient", "shared passes"])
def test_no_product_falls_back_to_float32(order):
    """Read from what is handed to the compiler: every matrix product has bfloat16 factors and a float32 result."""
    network = nets.ensemble(nets.mlp(6, (8, 8), {"value": 1}, precision="bfloat16"), 3)
    weights, x = network.init(KEYS[0]), jax.random.normal(KEYS[1], (3, 5, 6))

    def values(weights, x):
        return jnp.sum(jnp.square(network.apply(weights, x)["value"]))

    def slopes(weights, x):
        return jnp.sum(jnp.square(jax.grad(values, argnums=1)(weights, x)))

    def shared(weights, x):
        value, slope = values_and_slopes(weights, x, "bfloat16")
        return jnp.sum(jnp.square(value)) + jnp.sum(jnp.square(slope))

    loss = {"gradient": values, "gradient of a gradient": slopes, "shared passes": shared}[order]
    text = jax.jit(jax.grad(loss)).lower(weights, x).as_text()
    products = re.findall(r"dot_general.* : \((tensor<.*)\) -> (tensor<.*)", text)
    assert len(products) >= 6
    assert all(factors.count("bf16>") == 2 and "f32>" in result for factors, result in products)


def test_weights_and_their_gradients_stay_in_float32():
    network = nets.mlp(6, (8,), {"mean": 2, "log_var": 3}, precision="bfloat16")
    weights = network.init(KEYS[0])
    grads = jax.grad(lambda w: jnp.sum(network.apply(w, X[..., :6])["mean"]))(weights)
    assert {leaf.dtype for leaf in jax.tree.leaves((weights, grads))} == {jnp.dtype(jnp.float32)}


def test_an_unknown_precision_is_refused():
    with pytest.raises(UserError, match="unknown precision 'bfloat'; did you mean bfloat16"):
        nets.mlp(6, (8,), {"mean": 2}, precision="bfloat")
