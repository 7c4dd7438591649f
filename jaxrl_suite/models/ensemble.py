"""The dynamics ensemble of RAVL (Sims et al. 2024, arXiv 2402.12527), in the line of PETS and MBPO.

Every member maps standardised (obs, action) to a diagonal Gaussian over [next_obs - obs, reward]. The log-variance is
softly clamped between two learned vectors that all members share. A deterministic ensemble predicts means alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_suite import mesh, nets
from jaxrl_suite.errors import UserError
from jaxrl_suite.types import (
    Array,
    Dataset,
    Key,
    Members,
    Metrics,
    Params,
    Prediction,
    Spec,
    Stats,
    Transition,
    Tree,
    WorldModel,
)

INPUT_CLIP = 10.0  # standardised inputs beyond this are outliers
LEAST_VARIANCE = 1e-6  # of a target that hardly varies, in raw units


@dataclass(frozen=True)
class EnsembleConfig:
    """The dynamics ensemble."""

    members: int = 7
    """Networks that are trained."""
    elites: int = 5
    """Networks with the least hold-out error, which rollouts draw from."""
    hidden: tuple[int, ...] = (200, 200, 200, 200)
    """Widths of the hidden layers."""
    evaluate: Literal["drawn", "all"] = "drawn"
    """Evaluate only the drawn elite of a transition, or all members (what uncertainty penalties need)."""
    weight_decay: tuple[float, ...] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)
    """L2 coefficient per layer: the last one is for the output heads; deeper networks repeat the one before it."""
    max_log_var: float = 0.5
    """Initial upper bound of the log-variance."""
    min_log_var: float = -10.0
    """Initial lower bound of the log-variance."""
    bound_weight: float = 0.01
    """Weight of the term that pulls the two bounds together."""
    precision: nets.Precision = field(default="float32", metadata={"later": True})
    """Matrix products of the ensemble: float32, or bfloat16 factors with float32 parameters and sums."""
    deterministic: bool = field(default=False, metadata={"later": True})
    """Predict means alone, without noise, by squared errors in units of the batch's variance."""


class Weights(NamedTuple):
    """What the ensemble learns."""

    members: Tree  # leaves [members, ...]
    max_log_var: Array  # [obs_dim + 1] shared by all members
    min_log_var: Array  # [obs_dim + 1]


Forward = Callable[[Weights, Stats, Array, Array], tuple[Array, Array]]


def soft_clamp(x: Array, low: Array, high: Array) -> Array:
    """`x` squeezed into about [low, high], with a gradient everywhere and for both bounds (PETS, appendix A.1)."""
    x = high - jax.nn.softplus(high - x)
    return low + jax.nn.softplus(x - low)


def balanced(key: Key, rows: int, groups: int) -> tuple[Array, Array]:
    """A random split into equal groups: the row of every slot `[groups, share]`, the slot of every row `[rows]`.

    Every row is in every group with the same probability. Where the rows do not divide, spare slots repeat some rows,
    and no row points to them.
    """
    share = -(-rows // groups)
    order = jax.random.permutation(key, groups * share)
    slot = jnp.zeros_like(order).at[order].set(jnp.arange(groups * share), unique_indices=True)
    return (order % rows).reshape(groups, share), slot[:rows]


def targets(batch: Transition) -> Array:
    """What the members regress on: [next_obs - obs, reward] `[..., obs_dim + 1]`, in raw units."""
    return jnp.concatenate([batch.next_obs - batch.obs, batch.reward[..., None]], axis=-1)


def forward(spec: Spec, config: EnsembleConfig) -> Forward:
    """The function (weights, stats, obs, action) -> mean and log-variance of `targets`, each `[members, batch, dim]`.

    `obs` and `action` are `[members, batch, ...]`, or `[batch, ...]` for the same rows in every member.
    """
    network = _network(spec, config)

    def apply(weights: Weights, stats: Stats, obs: Array, action: Array) -> tuple[Array, Array]:
        x = (jnp.concatenate([obs, action], axis=-1) - stats.mean) / stats.std
        x = jnp.clip(x, -INPUT_CLIP, INPUT_CLIP)
        members = jax.tree.leaves(weights.members)[0].shape[0]
        out = network.apply(weights.members, jnp.broadcast_to(x, (members, *x.shape[-2:])))
        if config.deterministic:
            return out["mean"], jnp.full_like(out["mean"], -jnp.inf)  # a standard deviation of 0
        return out["mean"], soft_clamp(out["log_var"], weights.min_log_var, weights.max_log_var)

    return apply


def mse(spec: Spec, config: EnsembleConfig) -> Callable[[Weights, Params, Transition], Array]:
    """The function (weights, params, batch) -> squared error of every member's mean `[members]`, in raw units.

    Leaves of `batch` are `[members, batch, ...]`, or `[batch, ...]` for the same rows in every member.
    """
    predict = forward(spec, config)

    def error(weights: Weights, params: Params, batch: Transition) -> Array:
        mean, _ = predict(weights, params.stats, batch.obs, batch.action)
        return jnp.mean(jnp.square(mean - targets(batch)), axis=(-2, -1))

    return error


def decay(config: EnsembleConfig) -> Callable[[Weights], Array]:
    """The function weights -> sum over layers of coefficient / 2 * |kernel|^2, to be added to the loss.

    Its gradient passes through Adam's scaling: coupled L2, not AdamW. Biases and bounds are free.
    """
    *first, head = config.weight_decay
    hidden = [first[min(layer, len(first) - 1)] if first else head for layer in range(len(config.hidden))]
    heads = ("mean",) if config.deterministic else ("mean", "log_var")
    rates = {f"hidden_{layer}": rate for layer, rate in enumerate(hidden)} | dict.fromkeys(heads, head)

    def penalty(weights: Weights) -> Array:
        layers = weights.members
        terms = [0.5 * rate * jnp.sum(jnp.square(layers[name]["kernel"])) for name, rate in rates.items()]
        return jnp.sum(jnp.stack(terms))

    return penalty


def make(spec: Spec, config: EnsembleConfig) -> WorldModel:
    """The ensemble as a world model. Leaves of the batch that `loss` takes are `[members, batch, ...]`.

    Raises:
        UserError: the configuration contradicts itself.
    """
    _check(config)
    network, predict = _network(spec, config), forward(spec, config)
    dim = spec.obs_dim + 1

    def init(key: Key, stats: Stats) -> Params:
        # With the type given: a weakly typed leaf would change its type, and so recompile, after the first update.
        bounds = (jnp.full(dim, bound, jnp.float32) for bound in (config.max_log_var, config.min_log_var))
        return Params(Weights(network.init(key), *bounds), stats, jnp.arange(config.elites, dtype=jnp.int32))

    def loss(weights: Weights, params: Params, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        """Sum over members of the mean of log var + (target - mean)^2 / var, and a term that tightens the bounds."""
        mean, log_var = predict(weights, params.stats, batch.obs, batch.action)
        squared = jnp.square(targets(batch) - mean)
        nll = jnp.mean(log_var + squared * jnp.exp(-log_var), axis=(-2, -1))
        bounds = config.bound_weight * jnp.sum(weights.max_log_var - weights.min_log_var)
        return jnp.sum(nll) + bounds, {"nll": jnp.mean(nll), "mse": jnp.mean(squared)}

    def squared_loss(weights: Weights, params: Params, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        """Sum over members of the mean squared error, every dimension in units of its targets' variance."""
        mean, _ = predict(weights, params.stats, batch.obs, batch.action)
        wanted = targets(batch)
        squared = jnp.square(wanted - mean)
        variance = jnp.maximum(jnp.var(wanted.reshape(-1, dim), axis=0), LEAST_VARIANCE)
        return jnp.sum(jnp.mean(squared / variance, axis=(-2, -1))), {"mse": jnp.mean(squared)}

    def gaussians(params: Params, members: Tree, obs: Array, action: Array) -> Members:
        """Predictions of the given networks over [next_obs, reward]; `obs` is `[members, batch, .]` or `[batch, .]`."""
        mean, log_var = predict(params.weights._replace(members=members), params.stats, obs, action)
        return Members(mean.at[..., :-1].add(obs), jnp.exp(0.5 * log_var))

    def draw(params: Params, obs: Array, action: Array, key: Key) -> Members:
        """Prediction `[batch, dim]` of one elite per row, each elite evaluated on its share of the rows only."""
        row, slot = balanced(key, obs.shape[0], config.elites)
        elites = jax.tree.map(lambda leaf: leaf[params.elites], params.weights.members)
        shares = gaussians(params, elites, *mesh.spread((obs[row], action[row]), axis=1))
        return Members(*(leaf.reshape(-1, dim)[slot] for leaf in shares))

    def pick(params: Params, every: Members, key: Key) -> Members:
        """Prediction `[batch, dim]` of one elite per row, out of the predictions of all members."""
        member = jax.random.choice(key, params.elites, (every.mean.shape[1],))
        return Members(*(jnp.take_along_axis(leaf, member[None, :, None], axis=0)[0] for leaf in every))

    def step(params: Params, obs: Array, action: Array, key: Key) -> tuple[Array, Prediction]:
        """Next observation and reward of each row, sampled from the Gaussian of one uniformly random elite."""
        draw_key, noise_key = jax.random.split(key)
        every = None
        if config.evaluate == "all":
            every = gaussians(params, params.weights.members, obs, action)
            drawn = pick(params, every, draw_key)
        else:
            drawn = draw(params, obs, action, draw_key)
        sample = drawn.mean + drawn.std * jax.random.normal(noise_key, drawn.mean.shape)
        next_obs, reward = sample[:, :-1], sample[:, -1]
        discount = 1.0 - spec.is_terminal(next_obs)
        return next_obs, Prediction(next_obs, reward, discount, every)

    def start(params: Params, rows: Dataset) -> Array:
        return rows.transitions.obs

    return WorldModel(init=init, loss=squared_loss if config.deterministic else loss, start=start, step=step)


def _network(spec: Spec, config: EnsembleConfig) -> nets.Network:
    dim = spec.obs_dim + 1
    member = nets.mlp(
        in_dim=spec.obs_dim + spec.action_dim,
        hidden=config.hidden,
        heads={"mean": dim} if config.deterministic else {"mean": dim, "log_var": dim},
        activation=jax.nn.silu,
        kernel_init=nets.half_truncated_normal(),
        precision=config.precision,
    )
    return nets.ensemble(member, config.members)


def _check(config: EnsembleConfig) -> None:
    if not 1 <= config.elites <= config.members:
        raise UserError(
            f"elites is {config.elites}; expected 1 to members ({config.members}): lower elites or raise members"
        )
    if config.evaluate not in ("drawn", "all"):
        raise UserError(f"evaluate is {config.evaluate!r}; expected 'drawn' or 'all'")
    if not config.weight_decay:
        raise UserError("weight_decay is empty; expected one coefficient per layer: give 0 for none")
