"""Matrix products in bfloat16 (rounded factors, exact sums, and derivatives that are such products too), and soft
mixtures of experts."""

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


# --- soft mixtures of experts ---
def soft_moe(experts):
    shape = (3, 3, 4)
    return nets.soft_moe(shape, 5, 6, experts, {"q": 2}, nets.fan_in_uniform()), jax.random.normal(KEYS[2], (7, *shape))


def mixed(weights, tokens):
    """The layer in float64, token by token: Puigcerver et al. 2023, equations 1 and 2, of unit vectors."""
    phi, kernel, bias = (np.float64(weights[name]) for name in ("phi", "kernel", "bias"))
    channels, experts, slots = phi.shape
    unit = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
    flat = (phi / np.linalg.norm(phi, axis=0)).reshape(channels, -1) * float(weights["scale"])
    power = np.exp(unit @ flat)
    given = (power / power.sum(axis=0)).T @ tokens
    found = [np.maximum(given[i] @ kernel[i // slots] + bias[i // slots], 0.0) for i in range(experts * slots)]
    return (power / power.sum(axis=1, keepdims=True)) @ np.stack(found)


@pytest.mark.parametrize("experts", [1, 2, 8])
def test_a_soft_mixture_is_that_of_its_equations(experts):
    layer = nets._SoftExperts(experts, 6)
    tokens = jax.random.normal(KEYS[2], (2, 9, 5))
    weights = layer.init(jax.random.key(1), tokens)["params"]
    weights = {**weights, "scale": jnp.float32(3.0), "bias": jax.random.normal(KEYS[2], weights["bias"].shape)}
    assert weights["phi"].shape == (5, experts, -(-9 // experts)) and weights["kernel"].shape == (experts, 5, 6)
    found = layer.apply({"params": weights}, tokens)
    for own, theirs in zip(found, np.float64(tokens), strict=True):
        np.testing.assert_allclose(own, mixed(weights, theirs), rtol=2e-5, atol=2e-5)


def test_a_soft_mixture_treats_all_tokens_alike():
    layer, tokens, order = (
        nets._SoftExperts(4, 6),
        jax.random.normal(KEYS[2], (2, 9, 5)),
        np.random.default_rng(0).permutation(9),
    )
    weights = layer.init(jax.random.key(1), tokens)
    np.testing.assert_allclose(
        layer.apply(weights, tokens[:, order]), layer.apply(weights, tokens)[:, order], atol=1e-6
    )


@pytest.mark.parametrize("experts", [1, 4])
def test_a_network_with_experts_sees_every_place_from_every_place(experts):
    net, x = soft_moe(experts)
    weights = net.init(jax.random.key(2))
    out = net.apply(weights, x)
    assert out["q"].shape == (7, 2) and out["features"].shape == (7, 9 * 6)
    one = net.apply(weights, x[3])
    np.testing.assert_allclose(one["q"], out["q"][3], atol=1e-6)
    slopes = jax.grad(lambda x: net.apply(weights, x)["q"][0])(x[0])
    assert (jnp.abs(slopes).max(axis=-1) > 0).all()


def test_a_convolution_is_xlas_own():
    x, kernel = jax.random.normal(KEYS[2], (2, 3, 4, 5)), jax.random.normal(jax.random.key(1), (3, 3, 5, 6))
    theirs = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(nets._around(x) @ kernel.reshape(-1, 6), theirs, rtol=1e-5, atol=1e-4)
