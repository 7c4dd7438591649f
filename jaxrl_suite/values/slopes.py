"""Values of scalar ReLU critics together with their gradients by the input, and both differentiated in two passes.

EDAC's term needs the gradient of a gradient: told apart, Bellman error and diversity take a forward and a backward pass
each, a tangent pass, and two products for the weights. But a ReLU network is linear where its units do not switch, so
with v(x) = w^T D_l K_l^T ... D_1 K_1^T x (D the pattern of active units, biases left out) and per-row cotangents c of
the value and s of the slope dv/dx, the weights' gradient is that of the number

    sum over rows of w^T D_l K_l^T ... D_1 K_1^T (c x + s),

one forward pass of u = c x + s (and c b for every bias b) with the pattern kept, and one product of it with the
backward pass that gave the slopes. That makes four passes in place of six.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jaxrl_suite import nets
from jaxrl_suite.types import Array, Tree

HEAD = "value"


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def values_and_slopes(weights: Tree, x: Array, precision: nets.Precision = "float32") -> tuple[Array, Array]:
    """Values `[members, batch]` of inputs `x` `[members, batch, in]`, and their gradients by the input, of its shape.

    `weights` are those of `nets.ensemble(nets.mlp(...))` with ReLU units and one head `value` of size 1. Derivatives
    are those of automatic differentiation, up to rounding.
    """
    return _forward(weights, x, precision)[0]


def _forward(weights: Tree, x: Array, precision: nets.Precision) -> tuple[tuple[Array, Array], tuple]:
    dot = jax.vmap(nets.product(precision))
    active, hidden = [], x
    for layer in _hidden(weights):
        hidden = dot(hidden, layer["kernel"]) + layer["bias"][:, None]
        active.append(hidden > 0)
        hidden = jnp.where(active[-1], hidden, 0.0)
    head = weights[HEAD]
    values = jnp.sum(hidden * jnp.swapaxes(head["kernel"], 1, 2), axis=-1) + head["bias"]
    deltas, back = [], jnp.swapaxes(head["kernel"], 1, 2)
    for layer, pattern in zip(reversed(_hidden(weights)), reversed(active), strict=True):
        deltas.append(jnp.where(pattern, back, 0.0))
        back = dot(deltas[-1], jnp.swapaxes(layer["kernel"], 1, 2))
    slopes = jnp.broadcast_to(back, x.shape)  # without a hidden layer it is the head's weights, for every row
    return (values, slopes), (weights, x, active, deltas[::-1], slopes)


def _backward(precision: nets.Precision, residuals: tuple, cotangents: tuple[Array, Array]) -> tuple[Tree, Array]:
    dot = jax.vmap(nets.product(precision))
    weights, x, active, deltas, slopes = residuals
    c, s = cotangents
    scale, u = c[..., None], c[..., None] * x + s
    grads = {}
    for index, (layer, pattern, delta) in enumerate(zip(_hidden(weights), active, deltas, strict=True)):
        kernel = dot(jnp.swapaxes(u, 1, 2), delta)
        grads[f"hidden_{index}"] = {"kernel": kernel, "bias": jnp.sum(scale * delta, axis=1)}
        u = jnp.where(pattern, dot(u, layer["kernel"]) + scale * layer["bias"][:, None], 0.0)
    grads[HEAD] = {"kernel": jnp.sum(u, axis=1)[..., None], "bias": jnp.sum(c, axis=1)[:, None]}
    return grads, scale * slopes


def _hidden(weights: Tree) -> list[Tree]:
    return [weights[f"hidden_{index}"] for index in range(len(weights) - 1)]


values_and_slopes.defvjp(_forward, _backward)
