"""The networks of an actor-critic: a policy and N critics, initialised as in RAVL's code."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from jaxrl_suite import nets
from jaxrl_suite.types import Array, Key, Spec, Tree, ValueHead
from jaxrl_suite.values import ensemble, slopes

BIAS = nets.constant(0.1)


class Critics(NamedTuple):
    """N critics as functions of (weights, observations `[batch, .]`, actions `[batch, .]`)."""

    init: Callable[[Key, Tree], Tree]  # (key, support) -> weights
    logits: Callable[[Tree, Array, Array], Array]  # (weights, obs, action) -> [critics, batch, size]
    values: Callable[[Tree, Tree, Array, Array], Array]  # (weights, support, obs, action) -> [critics, batch]
    # (weights, support, obs, action) -> logits, and the values' gradients by the action [critics, batch, action_dim]
    with_gradients: Callable[[Tree, Tree, Array, Array], tuple[Array, Array]]


def actor(spec: Spec, hidden: tuple[int, ...], precision: nets.Precision) -> nets.Network:
    """The policy: mean and log-std of the action before the tanh."""
    narrow, dims = nets.symmetric_uniform(1e-3), {"mean": spec.action_dim, "log_std": spec.action_dim}
    return nets.mlp(
        spec.obs_dim, hidden, dims, bias_init=BIAS, head_init=narrow, head_bias_init=narrow, precision=precision
    )


def policy(spec: Spec, hidden: tuple[int, ...], precision: nets.Precision) -> nets.Network:
    """A policy without a spread of its own: the mean of the action before the tanh."""
    narrow, dims = nets.symmetric_uniform(1e-3), {"mean": spec.action_dim}
    return nets.mlp(
        spec.obs_dim, hidden, dims, bias_init=BIAS, head_init=narrow, head_bias_init=narrow, precision=precision
    )


def critics(
    spec: Spec,
    hidden: tuple[int, ...],
    number: int,
    head: ValueHead,
    precision: nets.Precision,
    *,
    scalar: bool,
    layer_norm: bool = False,
) -> Critics:
    """`number` critics with bounds from the fan-out. `scalar`: a logit is the value itself, so passes can be shared."""
    scalar = scalar and not layer_norm  # shared passes are for networks that are linear between the kinks of ReLU
    wide = nets.symmetric_uniform(3e-3)
    network = nets.mlp(
        spec.obs_dim + spec.action_dim,
        hidden,
        {slopes.HEAD: head.size},
        kernel_init=nets.fan_out_uniform(),
        bias_init=BIAS,
        head_init=wide,
        head_bias_init=wide,
        precision=precision,
        layer_norm=layer_norm,
    )
    every = nets.ensemble(network, number)

    def inputs(obs: Array, action: Array) -> Array:
        """Every critic's `[critics, batch, in]`; `obs` and `action` may each have a leading axis `[critics]`."""
        lead = obs.shape[:-1] if obs.ndim == 3 else (number, *obs.shape[:-1])
        return jnp.concatenate([jnp.broadcast_to(x, (*lead, x.shape[-1])) for x in (obs, action)], axis=-1)

    def logits(weights: Tree, obs: Array, action: Array) -> Array:
        return every.apply(weights, inputs(obs, action))[slopes.HEAD]

    def values(weights: Tree, support: Tree, obs: Array, action: Array) -> Array:
        return head.decode(logits(weights, obs, action), support)

    def with_gradients(weights: Tree, support: Tree, obs: Array, action: Array) -> tuple[Array, Array]:
        if scalar:
            value, by_input = slopes.values_and_slopes(weights, inputs(obs, action), precision)
            return value[..., None], by_input[..., spec.obs_dim :]
        return ensemble.with_action_gradients(
            lambda action: logits(weights, obs, action), lambda logits: head.decode(logits, support), action, number
        )

    def init(key: Key, support: Tree) -> Tree:
        weights = every.init(key)
        if head.initial_bias is None:
            return weights
        last = weights[slopes.HEAD]
        return {**weights, slopes.HEAD: {**last, "bias": last["bias"] + head.initial_bias(support)}}

    return Critics(init, logits, values, with_gradients)
