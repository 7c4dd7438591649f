"""How unsure a world model is of a step: pure functions of what its members predict -> [batch].

Lu et al. 2022 (Revisiting Design Choices in Offline Model-Based RL, arXiv 2110.04135) compare these on one footing.
With mu_i and sigma_i the mean and spread that member i predicts for [next_obs, reward], in raw units:

    max_aleatoric      max_i |sigma_i|                                           MOPO (arXiv 2005.13239)
    max_pairwise       max_{i,j} |mu_i - mu_j|                                   MOReL (arXiv 2005.05951)
    ensemble_variance  |S|, S = mean_i (sigma_i^2 + mu_i^2) - (mean_i mu_i)^2    the law of total variance
    ensemble_std       |sqrt S|
    epistemic_std      sqrt(mean over dimensions of Var_i mu_i)                  what disagrees, without the noise
    loo_kl             mean_i KL(N_i || N(mu_-i, sigma^2_-i))                    M2AC: one against the rest's moments
    ll_variance        Var_i log N_i(x) of the sampled x = [next_obs, reward]    LOMPO

All members count, elites or not, as in MOPO's code. `loo_kl` is averaged over the members where M2AC takes the one that
was drawn: a Prediction does not tell which it was, and the average varies less. Two readings found in public code are
other measures: the distance of a member to the mean of all is no pairwise distance, and the spread of the means alone
is no law of total variance (here it has its own name, epistemic_std).

Members that agree, without noise, are sure of everything: every measure is 0 then, with finite derivatives. Differences
are taken before squares, which in float32 would drown them.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrl_suite.errors import unknown
from jaxrl_suite.types import Array, Members

Uncertainty = Callable[[Members, Array], Array]  # (members, the sampled [next_obs, reward] [batch, dim]) -> [batch]

NOISE = ("max_aleatoric",)  # measures of the members' spreads alone
DISAGREEMENT = ("max_pairwise", "epistemic_std", "loo_kl", "ll_variance")  # those that compare members
LEAST_VARIANCE = 1e-12  # of a density; keeps a member without noise from dividing by zero


def max_aleatoric(members: Members) -> Array:
    """The longest vector of spreads."""
    return _root(jnp.max(_square_sum(members.std), axis=0))


def max_pairwise(members: Members) -> Array:
    """The greatest distance between two members' means."""
    distances = _square_sum(members.mean[:, None] - members.mean[None])
    return _root(jnp.max(distances, axis=(0, 1)))


def ensemble_variance(members: Members) -> Array:
    """Length of the variances of the members' mixture."""
    return _root(_square_sum(_total_variance(members)))


def ensemble_std(members: Members) -> Array:
    """Length of the standard deviations of the members' mixture."""
    return _root(jnp.sum(_total_variance(members), axis=-1))


def epistemic_std(members: Members) -> Array:
    """Root mean square, over dimensions, of the standard deviation of the members' means."""
    return _root(jnp.mean(_variance(members.mean), axis=-1))


def loo_kl(members: Members) -> Array:
    """KL divergence from every member to the Gaussian with the moments of the others' mixture, averaged."""
    number = members.mean.shape[0]
    if number < 2:
        return jnp.zeros(members.mean.shape[1])
    others = (1.0 - jnp.eye(number)) / (number - 1)
    centred, variance = members.mean - members.mean[0], jnp.square(members.std)

    def divergence(weights: Array, mean: Array, own: Array) -> Array:
        rest_mean = _weighted(weights, centred)
        rest = _weighted(weights, variance + jnp.square(centred - rest_mean))
        own, rest = jnp.maximum(own, LEAST_VARIANCE), jnp.maximum(rest, LEAST_VARIANCE)
        terms = jnp.log(rest) - jnp.log(own) + (own + jnp.square(mean - rest_mean)) / rest - 1.0
        return 0.5 * jnp.sum(terms, axis=-1)

    return jnp.mean(jax.vmap(divergence)(others, centred, variance), axis=0)


def ll_variance(members: Members, sample: Array) -> Array:
    """Variance, over members, of the log density of `sample` `[batch, dim]`."""
    variance = jnp.maximum(jnp.square(members.std), LEAST_VARIANCE)
    log_density = -0.5 * jnp.sum(jnp.square(sample - members.mean) / variance + jnp.log(variance), axis=-1)
    return _variance(log_density)


def _of_members(measure: Callable[[Members], Array]) -> Uncertainty:
    return lambda members, sample: measure(members)


UNCERTAINTIES: dict[str, Uncertainty] = {
    "max_aleatoric": _of_members(max_aleatoric),
    "max_pairwise": _of_members(max_pairwise),
    "ensemble_std": _of_members(ensemble_std),
    "ensemble_variance": _of_members(ensemble_variance),
    "epistemic_std": _of_members(epistemic_std),
    "loo_kl": _of_members(loo_kl),
    "ll_variance": ll_variance,
}


def make(name: str) -> Uncertainty:
    """The measure of that name.

    Raises:
        UserError: the name is not registered.
    """
    if name not in UNCERTAINTIES:
        raise unknown("uncertainty", name, UNCERTAINTIES)
    return UNCERTAINTIES[name]


def complaint(name: str, members: int, deterministic: bool) -> str:
    """Why a measure is 0 everywhere for models of this kind; empty where it is not."""
    one, quiet = members < 2, deterministic
    if (quiet and name in NOISE) or (one and name in DISAGREEMENT) or (one and quiet):
        kind = (
            f"{'one' if one else 'several'} {'deterministic' if quiet else 'probabilistic'} member{'' if one else 's'}"
        )
        return f"--uncertainty={name} is 0 everywhere for {kind}: it changes nothing; choose another, or other members"
    return ""


def _variance(x: Array) -> Array:
    """Variance over the first axis. Centred on the first entry, so that equal entries give exactly 0."""
    return jnp.var(x - x[0], axis=0)


def _total_variance(members: Members) -> Array:
    return jnp.mean(jnp.square(members.std), axis=0) + _variance(members.mean)


def _weighted(weights: Array, x: Array) -> Array:
    return jnp.sum(weights[:, None, None] * x, axis=0)


def _square_sum(x: Array) -> Array:
    return jnp.sum(jnp.square(x), axis=-1)


def _root(x: Array) -> Array:
    """The square root, with the derivative 0 at 0, where its own is not finite."""
    positive = x > 0.0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)
