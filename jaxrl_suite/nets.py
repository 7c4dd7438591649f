"""Networks as pure functions. The only file that imports flax.linen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrl_suite.errors import unknown
from jaxrl_suite.types import Array, Key, Tree

Initializer = Callable[..., Array]
Precision = Literal["float32", "bfloat16"]


class Network(NamedTuple):
    """A network: weights are a PyTree, outputs are named."""

    init: Callable[[Key], Tree]  # key -> weights
    apply: Callable[[Tree, Array], dict[str, Array]]  # (weights, x [..., in_dim]) -> {head: [..., size]}


# --- Matrix products ---
def product(precision: Precision) -> Callable[[Array, Array], Array]:
    """The matrix product (x `[..., in]`, kernel `[in, out]`) -> `[..., out]`, in float32.

    With bfloat16 the factors are rounded and the sums are not, in the product's derivatives too: left to itself,
    automatic differentiation would multiply the float32 cotangents in float32.

    Raises:
        UserError: the precision is not known.
    """
    if precision not in get_args(Precision):
        raise unknown("precision", precision, get_args(Precision))
    if precision == "float32":
        return jnp.matmul
    return lambda x, kernel: _rounded(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], kernel.shape[-1])


@jax.custom_vjp
def _rounded(a: Array, b: Array) -> Array:
    """`a @ b` of matrices rounded to bfloat16, summed in float32."""
    return jnp.matmul(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), preferred_element_type=jnp.float32)


def _rounded_forward(a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    return _rounded(a, b), (a, b)


def _rounded_backward(factors: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    a, b = factors
    return _rounded(cotangent, b.T), _rounded(a.T, cotangent)


_rounded.defvjp(_rounded_forward, _rounded_backward)


# --- Networks ---
def symmetric_uniform(bound: float) -> Initializer:
    """Initialiser U(-bound, bound)."""

    def init(key: Key, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def fan_in_uniform(scale: float = 1.0) -> Initializer:
    """Initialiser U(-b, b) with b = scale / sqrt(fan_in), PyTorch's default for linear layers and convolutions."""

    def init(key: Key, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        bound = scale / jnp.sqrt(math.prod(shape[:-1]))
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def fan_out_uniform() -> Initializer:
    """Initialiser U(-b, b) with b = 1 / sqrt(fan_out): what PyTorch's default does to weights stored as (in, out)."""

    def init(key: Key, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        bound = 1.0 / jnp.sqrt(shape[1])
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def constant(value: float) -> Initializer:
    """Initialiser that fills with `value`."""
    return nn.initializers.constant(value)


def half_truncated_normal() -> Initializer:
    """Initialiser of the PETS/MBPO dynamics networks: normal with std 1 / (2 sqrt(fan_in)), cut at two std."""

    def init(key: Key, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        return jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype) / (2.0 * jnp.sqrt(shape[0]))

    return init


class _Affine(nn.Module):
    """The parameters of a linear layer, named and drawn as `nn.Dense` does."""

    size: int
    kernel_init: Initializer
    bias_init: Initializer

    @nn.compact
    def __call__(self, width: int) -> tuple[Array, Array]:
        kernel = self.param("kernel", self.kernel_init, (width, self.size))
        return kernel, self.param("bias", self.bias_init, (self.size,))


class _MLP(nn.Module):
    hidden: tuple[int, ...]
    heads: tuple[tuple[str, int], ...]
    activation: Callable[[Array], Array]
    kernel_init: Initializer
    bias_init: Initializer
    head_init: Initializer
    head_bias_init: Initializer
    dot: Callable[[Array, Array], Array]
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x: Array) -> dict[str, Array]:
        for index, width in enumerate(self.hidden):
            kernel, bias = _Affine(width, self.kernel_init, self.bias_init, name=f"hidden_{index}")(x.shape[-1])
            x = self.activation(self.dot(x, kernel) + bias)
            if self.layer_norm:
                # The two-pass variance: E[x^2] - E[x]^2 loses the digits of units that hardly differ.
                x = nn.LayerNorm(use_fast_variance=False, name=f"norm_{index}")(x)
        # One product for all heads: narrow ones run far below a processor's peak.
        layers = [
            _Affine(size, self.head_init, self.head_bias_init, name=name)(x.shape[-1]) for name, size in self.heads
        ]
        kernel, bias = (jnp.concatenate(parts, axis=-1) for parts in zip(*layers, strict=True))
        cuts = list(itertools.accumulate(size for _, size in self.heads))[:-1]
        outputs = jnp.split(self.dot(x, kernel) + bias, cuts, axis=-1)
        return {name: out for (name, _), out in zip(self.heads, outputs, strict=True)}


def mlp(
    in_dim: int,
    hidden: tuple[int, ...],
    heads: Mapping[str, int],
    activation: Callable[[Array], Array] = nn.relu,
    kernel_init: Initializer | None = None,
    bias_init: Initializer = nn.initializers.zeros,
    head_init: Initializer | None = None,
    head_bias_init: Initializer | None = None,
    precision: Precision = "float32",
    layer_norm: bool = False,
) -> Network:
    """A multi-layer perceptron whose last hidden layer feeds one linear layer per named head.

    `layer_norm` standardises every hidden layer over its units, after the activation, with a learnt scale and shift.

    Raises:
        UserError: the precision is not known.
    """
    kernel_init = kernel_init or fan_in_uniform()
    module = _MLP(
        hidden=tuple(hidden),
        heads=tuple(heads.items()),
        activation=activation,
        kernel_init=kernel_init,
        bias_init=bias_init,
        head_init=head_init or kernel_init,
        head_bias_init=head_bias_init or bias_init,
        dot=product(precision),
        layer_norm=layer_norm,
    )
    return Network(
        init=lambda key: module.init(key, jnp.zeros((1, in_dim)))["params"],
        apply=lambda weights, x: module.apply({"params": weights}, x),  # type: ignore[arg-type, return-value]
    )


class _NatureCNN(nn.Module):
    heads: tuple[tuple[str, int], ...]
    head_init: Initializer

    @nn.compact
    def __call__(self, x: Array) -> dict[str, Array]:
        lead, init = x.shape[:-3], fan_in_uniform()
        x = x.reshape(-1, *x.shape[-3:]).astype(jnp.float32) / 255.0
        for index, (width, size, stride) in enumerate(((32, 8, 4), (64, 4, 2), (64, 3, 1))):
            conv = nn.Conv(width, (size, size), stride, padding="VALID", kernel_init=init, name=f"conv_{index}")
            x = nn.relu(conv(x))
        x = nn.relu(nn.Dense(512, kernel_init=init, name="hidden_0")(x.reshape(*lead, -1)))
        return {name: nn.Dense(size, kernel_init=self.head_init, name=name)(x) for name, size in self.heads}


def nature_cnn(shape: tuple[int, int, int], heads: Mapping[str, int], head_init: Initializer | None = None) -> Network:
    """DQN's network for pictures (Mnih et al. 2015): bytes `[..., height, width, channels]`, three convolutions, a
    layer of 512, and a linear layer per named head."""
    module = _NatureCNN(tuple(heads.items()), head_init or fan_in_uniform())
    return Network(
        init=lambda key: module.init(key, jnp.zeros((1, *shape), jnp.uint8))["params"],
        apply=lambda weights, x: module.apply({"params": weights}, x),  # type: ignore[arg-type, return-value]
    )


# --- Soft mixtures of experts ---
def _around(x: Array) -> Array:
    """Each place of a grid `[batch, height, width, channels]` with its eight neighbours; 0 beyond the rim."""
    (high, wide), padded = x.shape[1:3], jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate([padded[:, i : i + high, j : j + wide] for i in range(3) for j in range(3)], axis=-1)


def _unit(x: Array, axis: int) -> Array:
    """Vectors along an axis with length 1."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=axis, keepdims=True) + 1e-6)


class _SoftExperts(nn.Module):
    """The layer: tokens `[batch, tokens, channels]` -> `[batch, tokens, units]`."""

    experts: int
    units: int

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        count, channels = tokens.shape[-2:]
        slots = -(-count // self.experts)
        phi = self.param("phi", symmetric_uniform(1.0), (channels, self.experts, slots))
        scale = self.param("scale", constant(1.0), ())
        # U(-b, b) with b = 1 / sqrt(channels), as `fan_in_uniform` draws a single layer
        per_expert = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform", batch_axis=0)
        kernel = self.param("kernel", per_expert, (self.experts, channels, self.units))
        bias = self.param("bias", constant(0.0), (self.experts, self.units))
        logits = jnp.einsum("btc,ces->btes", _unit(tokens, -1), scale * _unit(phi, 0))
        dispatch, combine = jax.nn.softmax(logits, axis=1), jax.nn.softmax(logits, axis=(2, 3))
        given = jnp.einsum("btes,btc->besc", dispatch, tokens)
        found = nn.relu(jnp.einsum("besc,ecu->besu", given, kernel) + bias[:, None])
        return jnp.einsum("btes,besu->btu", combine, found)


class _SoftMoE(nn.Module):
    channels: int
    units: int
    experts: int
    heads: tuple[tuple[str, int], ...]
    head_init: Initializer

    @nn.compact
    def __call__(self, x: Array) -> dict[str, Array]:
        lead = x.shape[:-3]
        x = x.reshape(-1, *x.shape[-3:])
        for index in range(2):
            x = nn.relu(nn.Dense(self.channels, kernel_init=fan_in_uniform(), name=f"conv_{index}")(_around(x)))
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        x = _SoftExperts(self.experts, self.units, name="experts")(tokens).reshape(*lead, -1)
        outputs = {name: nn.Dense(size, kernel_init=self.head_init, name=name)(x) for name, size in self.heads}
        return {**outputs, "features": x}


def soft_moe(
    shape: tuple[int, int, int],
    channels: int,
    units: int,
    experts: int,
    heads: Mapping[str, int],
    head_init: Initializer,
) -> Network:
    """A network for pictures `[..., height, width, channels]`, small ones, that ends in a soft mixture of experts.

    The layer is that of Puigcerver et al. 2023 (arXiv 2308.00951) with its normalisation of tokens and slots; that the
    places of the picture are its tokens is from Obando-Ceron et al. 2024 (arXiv 2402.08609).

    Two 3x3 convolutions let each place see what is two steps away. All experts together have as many slots as there are
    places, or a few more. A linear layer per named head follows; beside their outputs stands the mixture's own,
    `features` `[..., places * units]`.
    """
    module = _SoftMoE(channels, units, experts, tuple(heads.items()), head_init)
    return Network(
        init=lambda key: module.init(key, jnp.zeros((1, *shape)))["params"],
        apply=lambda weights, x: module.apply({"params": weights}, x),  # type: ignore[arg-type, return-value]
    )


def ensemble(network: Network, members: int) -> Network:
    """Independent copies of a network; weights and inputs carry a leading axis `[members]`."""
    return Network(
        init=lambda key: jax.vmap(network.init)(jax.random.split(key, members)),
        apply=jax.vmap(network.apply),
    )
