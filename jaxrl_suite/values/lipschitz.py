"""How steep a value is: bounds and estimates of its Lipschitz constant, and what keeps it small.

Zheng et al. 2023 (arXiv 2302.01244) hold that an ensemble of models helps mainly by smoothing the value: with p the
true dynamics and p^ the model, the value-aware model error obeys

    mean |V(s') - E_{s^ ~ p^} V(s^)| <= Lip(V) mean |s' - s^|,

so that a single model serves as well if Lip(V) is held down. Lip of a network of 1-Lipschitz units is at most the
product of its layers' spectral norms. Mechanisms, each for every critic by itself:

    spectral          W <- W min(1, beta / sigma(W)) after every step of gradient descent
    spectral_exact    W <- W beta / sigma(W)
    adversarial       + lambda E_s max_{|d_i| <= eps std_i} (Q(s + d, a) - Q(s, a))^2, the maximum by signed gradients
    random            the same with the signs of d drawn at random: noise of equal size
    gradient_penalty  + lambda E_s max(0, |grad_s Q(s, a)| - beta)^2

sigma is found by power iteration from where the last update left it. std is that of the batch's observations, so that
eps has no unit. Deviations: constants are ours, the paper's are not known to us. The norm is enforced by projection
rather than by a change of parameters; target critics are averages of projected ones, and the bound is convex, so it
holds for them too. The output layer is free unless `output` says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from jaxrl_suite.errors import UserError, in_vain, unknown
from jaxrl_suite.types import Array, Key, Metrics, Tree

Kind = Literal["none", "spectral", "spectral_exact", "adversarial", "random", "gradient_penalty"]
PROJECTIONS = ("spectral", "spectral_exact")
# The numbers that each mechanism has a use for.
USES: dict[str, tuple[str, ...]] = {
    "none": (),
    "spectral": ("bound", "output"),
    "spectral_exact": ("bound", "output"),
    "adversarial": ("weight", "eps", "steps"),
    "random": ("weight", "eps"),
    "gradient_penalty": ("bound", "weight"),
}
ITERATIONS = 2  # of the power method per update; it goes on from the last update
FIRST_ITERATIONS = 100  # at the start, from a random vector
TINY = 1e-12


@dataclass(frozen=True)
class Config:
    """A Lipschitz mechanism."""

    kind: Kind = "none"
    """none, spectral, spectral_exact, adversarial, random or gradient_penalty."""
    bound: float = 10.0
    """Beta: of every constrained layer's norm, or of the gradient that is not penalised."""
    weight: float = 0.1
    """Lambda, of the terms."""
    eps: float = 0.05
    """Size of the noise in standard deviations of the observations."""
    steps: int = 1
    """Signed gradient steps of an attack."""
    output: bool = False
    """Whether the output layer is constrained too."""

    @property
    def active(self) -> bool:
        """Whether it changes anything: not with an infinite bound, no weight or no noise."""
        projects = self.kind in PROJECTIONS and math.isfinite(self.bound)
        noisy = self.kind in ("adversarial", "random") and self.weight * self.eps > 0.0
        penalises = self.kind == "gradient_penalty" and self.weight > 0.0 and math.isfinite(self.bound)
        return projects or noisy or penalises


def check(config: Config) -> None:
    """Refuse what makes no sense.

    Raises:
        UserError: no such mechanism, or a number out of range.
    """
    if config.kind not in get_args(Kind):
        raise unknown("Lipschitz mechanism", config.kind, get_args(Kind))
    if config.kind == "spectral_exact" and not math.isfinite(config.bound):
        raise UserError("spectral_exact scales every layer to the bound, which must be finite; give, say, 10")
    if not config.bound > 0.0 or config.weight < 0.0 or config.eps < 0.0 or config.steps < 1:
        raise UserError(
            f"lipschitz: bound={config.bound:g} weight={config.weight:g} eps={config.eps:g} steps={config.steps}; "
            "expected a bound above 0, no negative weight or eps, and at least 1 step"
        )


def complaint(config: Config) -> str:
    """Which numbers of a mechanism are given that it has no use for; empty where it has, or none is given."""
    every = dict.fromkeys(name for names in USES.values() for name in names)
    unused = [name for name in every if name not in USES[config.kind]]
    return in_vain(config, unused, "--lipschitz-", f"--lipschitz={config.kind}")


# --- Norms of layers ---
def power_iteration(kernel: Array, u: Array, iterations: int) -> tuple[Array, Array]:
    """Spectral norm `[]` of `kernel` `[in, out]` from below, and the vector `u` `[out]` to go on from."""
    sigma = jnp.zeros(())
    for _ in range(iterations):
        v = _unit(kernel @ u)
        w = v @ kernel
        sigma = jnp.linalg.norm(w)
        u = w / jnp.maximum(sigma, TINY)
    return sigma, u


def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), TINY)


def norms(weights: Tree) -> dict[str, Array]:
    """Exact spectral norms `[...]` of a perceptron's linear layers by name; kernels may have leading axes."""
    kernels = {name: layer["kernel"] for name, layer in weights.items() if "kernel" in layer}
    return {name: jnp.linalg.norm(kernel, 2, axis=(-2, -1)) for name, kernel in kernels.items()}


def upper_bound(weights: Tree) -> Array:
    """The product of the layers' norms `[...]`: no value of a plain perceptron is steeper, anywhere.

    NaN for one with layer normalisation, which is as steep as its inputs are alike.
    """
    found = norms(weights)
    product = jnp.prod(jnp.stack(list(found.values())), axis=0)
    return product if len(found) == len(weights) else jnp.full_like(product, jnp.nan)


class Constraint(NamedTuple):
    """What holds critics' weights (leaves `[critics, ...]`) within bounds, and what it remembers between updates."""

    start: Callable[[Tree, Key], tuple[Tree, Tree]]  # weights -> weights, memory
    apply: Callable[[Tree, Tree], tuple[Tree, Tree]]  # (weights, memory) -> weights, memory


FREE = Constraint(lambda weights, key: (weights, ()), lambda weights, memory: (weights, memory))


def constraint(config: Config, layer_norm: bool = False) -> Constraint:
    """The projection that `config` asks for, of critics with or without layer normalisation; `FREE` without one.

    Raises:
        UserError: no such mechanism, a number out of range, or layer normalisation where norms are to be bounded.
    """
    check(config)
    if layer_norm and config.kind in PROJECTIONS:
        raise UserError(
            f"lipschitz={config.kind} bounds the norms of layers, which bounds no slope with layer normalisation; "
            "leave one of the two out, or take adversarial noise or the gradient penalty"
        )
    if not (config.active and config.kind in PROJECTIONS):
        return FREE
    exact = config.kind == "spectral_exact"

    def project(weights: Tree, memory: Tree, iterations: int) -> tuple[Tree, Tree]:
        layers, after = dict(weights), {}
        for name, u in memory.items():
            kernel = weights[name]["kernel"]
            sigma, after[name] = jax.vmap(lambda k, u: power_iteration(k, u, iterations))(kernel, u)
            factor = config.bound / jnp.maximum(sigma, TINY)
            factor = factor if exact else jnp.minimum(1.0, factor)
            layers[name] = {**weights[name], "kernel": kernel * factor[:, None, None]}
        return layers, after

    def start(weights: Tree, key: Key) -> tuple[Tree, Tree]:
        names = sorted(name for name in weights if config.output or name.startswith("hidden"))
        keys = jax.random.split(key, len(names))
        memory = {
            name: _unit(jax.random.normal(key, (shape := weights[name]["kernel"].shape)[:1] + shape[2:]))
            for name, key in zip(names, keys, strict=True)
        }
        return project(weights, memory, FIRST_ITERATIONS)

    return Constraint(start, lambda weights, memory: project(weights, memory, ITERATIONS))


# --- Terms of the critics' loss ---
def attack(value: Callable[[Array], Array], obs: Array, radius: Array, steps: int, key: Key) -> Array:
    """Perturbations d of `obs` `[..., batch, dim]` with |d_i| <= radius_i that move `value(obs + d)` far.

    Steps along the gradient's signs from a random start; a single one ends in a corner of the box: FGSM.
    """
    start = radius * jax.random.uniform(key, obs.shape, minval=-1.0, maxval=1.0)
    here = value(obs)

    def ascend(delta: Array, _: None) -> tuple[Array, None]:
        slope = jax.grad(lambda d: jnp.sum(jnp.square(value(obs + d) - here)))(delta)
        return jnp.clip(delta + 2.0 * radius / steps * jnp.sign(slope), -radius, radius), None

    return jax.lax.scan(ascend, start, None, length=steps)[0]


def term(config: Config, value: Callable[[Tree, Array], Array], obs: Array, key: Key) -> Callable[[Tree], Array]:
    """The function weights -> the term of every critic `[critics]`, lambda included.

    Args:
        config: which one.
        value: (weights, observations `[critics, batch, obs_dim]`) -> values `[critics, batch]`, actions held.
        obs: `[critics, batch, obs_dim]`.
        key: consumed.
    """
    radius = config.eps * jnp.std(obs[0], axis=0)

    def noise(weights: Tree) -> Array:
        if config.kind == "random":
            return radius * jax.random.rademacher(key, obs.shape, obs.dtype)
        frozen = jax.lax.stop_gradient(weights)
        return jax.lax.stop_gradient(attack(lambda x: value(frozen, x), obs, radius, config.steps, key))

    def robust(weights: Tree) -> Array:
        moved = value(weights, obs + noise(weights)) - value(weights, obs)
        return config.weight * jnp.mean(jnp.square(moved), axis=-1)

    def steep(weights: Tree) -> Array:
        excess = jnp.maximum(0.0, gradient_norms(lambda x: value(weights, x), obs) - config.bound)
        return config.weight * jnp.mean(jnp.square(excess), axis=-1)

    return steep if config.kind == "gradient_penalty" else robust


def added(config: Config, values: Callable[..., Array], more: Callable, critics: int) -> Callable:
    """The terms `more` of a critics' loss, and the term that `config` asks for; `more` itself where it asks for none.

    Both are functions (weights, learner's state, batch, key) -> scalar, metrics; `values` is that of the critics.
    """
    if not config.active or config.kind in PROJECTIONS:
        return more

    def terms(weights: Tree, state: Tree, batch: Tree, key: Key) -> tuple[Array, Metrics]:
        # `fold_in(key, n)` is `split(key)[n]`: a term that splits the key must not be given the noise's.
        extra, metrics = more(weights, state, batch, jax.random.fold_in(key, 3))
        obs = jnp.broadcast_to(batch.obs, (critics, *batch.obs.shape))
        value = lambda weights, obs: values(weights, state.support, obs, batch.action)  # noqa: E731
        smooth = term(config, value, obs, jax.random.fold_in(key, 2))(weights)
        return extra + jnp.sum(smooth), {**metrics, "smoothness": jnp.mean(smooth)}

    return terms


# --- Diagnostics ---
def gradient_norms(value: Callable[[Array], Array], obs: Array) -> Array:
    """Length of the value's gradient at each row `[...]` of `obs` `[..., dim]`: a local estimate, from below."""
    slope = jax.grad(lambda x: jnp.sum(value(x)))(obs)
    # The square root is kept off zero, where its gradient is not finite.
    return jnp.sqrt(jnp.sum(jnp.square(slope), axis=-1) + 1e-20)


def steepest(value: Callable[[Array], Array], obs: Array, radius: float, steps: int, key: Key) -> Array:
    """The largest |V(s + d) - V(s)| / |d| found at distance `radius` of each row `[batch]`: an estimate from below."""
    here = value(obs)
    delta = radius * _unit(jax.random.normal(key, obs.shape))

    def ratio(delta: Array) -> Array:
        return jnp.abs(value(obs + delta) - here) / jnp.linalg.norm(delta, axis=-1)

    def ascend(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        delta, best = carry
        slope = jax.grad(lambda d: jnp.sum(jnp.square(value(obs + d) - here)))(delta)
        # Where nothing changes there is no way up: the direction stays.
        moves = jnp.sum(jnp.square(slope), axis=-1, keepdims=True) > 0.0
        delta = jnp.where(moves, radius * _unit(slope), delta)
        return (delta, jnp.maximum(best, ratio(delta))), None

    return jax.lax.scan(ascend, (delta, ratio(delta)), None, length=steps)[0][1]


def value_aware_error(value: Callable[[Array], Array], next_obs: Array, imagined: Array) -> Array:
    """|V(s') - E V(s^)| per row `[batch]`; `imagined` `[samples, batch, dim]` are draws of the model."""
    return jnp.abs(value(next_obs) - jnp.mean(jax.vmap(value)(imagined), axis=0))


def model_error(next_obs: Array, imagined: Array) -> Array:
    """E |s' - s^| per row `[batch]`."""
    return jnp.mean(jnp.linalg.norm(imagined - next_obs, axis=-1), axis=0)


def slope_needed(values: Array, obs: Array) -> Array:
    """The least Lipschitz constant that can reach the values' range `[]` over rows `obs` `[batch, dim]`.

    Range over diameter; the diagonal of the rows' bounding box stands for the diameter, which is not larger.
    """
    diameter = jnp.linalg.norm(jnp.max(obs, axis=0) - jnp.min(obs, axis=0))
    return (jnp.max(values) - jnp.min(values)) / jnp.maximum(diameter, TINY)


def too_tight(bound: float, needed: float) -> str:
    """What to say of a bound below the slope that the values' range needs; nothing where it is above."""
    if not bound < needed:
        return ""
    return (
        f"no value with a Lipschitz constant of {bound:.3g} can reach the range of returns over these states, which "
        f"takes {needed:.3g}: values will be too small, and nothing else will tell; raise the bound"
    )
