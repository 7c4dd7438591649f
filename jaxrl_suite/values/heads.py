"""Value heads: how a critic's outputs stand for a value.

mse              a number, squared error
mse_softmax      the mean of a softmax over bins, squared error of the mean: the control for what cross-entropy adds
hl_gauss         a histogram that learns a Gaussian around the target by cross-entropy (Farebrother et al. 2024,
                 arXiv 2403.03950); `sigma_ratio` is the Gaussian's width in bins
two_hot          a histogram that learns the two atoms around the target
c51              a histogram that learns the whole distribution of the next state, moved and projected (Bellemare et al.
                 2017, arXiv 1707.06887)
quantile         quantiles, learnt by the Huber quantile loss (Dabney et al. 2018, arXiv 1710.10044)
two_hot_symexp   two-hot on atoms that lie evenly after symlog: its mean is that of the values themselves
symlog           two_hot of symlog(target); symlog_hl_gauss and symlog_mse likewise

The target of all but c51 and quantile is a number: r + gamma d (Q + shift), Q the mean of the distribution. Ensembles
of critics are then combined as numbers; for c51 and quantile the whole distribution of the least critic is taken. A
head behind symlog decodes symexp of a mean, which is below the mean of symexp: values of 0 and 100, equally likely,
become 9, not 50. It is there to show that; two_hot_symexp has no such bias.

Outputs begin near zero, so that a histogram begins uniform and its value in the middle of the support (for
two_hot_symexp: at the mean of its atoms).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_suite.errors import UserError, in_vain, unknown
from jaxrl_suite.types import Array, Metrics, Tree, ValueHead
from jaxrl_suite.values import projections, supports
from jaxrl_suite.values.projections import Support


@dataclass(frozen=True)
class HeadConfig:
    """What a value head is made of."""

    name: str = "mse"
    """Value head: a name of HEADS."""
    bins: int = 101
    """Bins (quantiles) of a head with a distribution."""
    sigma_ratio: float = 0.75
    """Width of HL-Gauss's Gaussian, in bins."""
    support: str = supports.AUTO
    """Range of values: auto, from the data set's returns, or LO,HI."""
    initial_value: str = supports.MIDDLE
    """Value that an untrained head with bins stands for: middle, of the support, or a number."""


class Projected(NamedTuple):
    """A target that is a distribution on a head's atoms."""

    probs: Array  # [..., bins]
    clipped: Array  # [...] share of its mass that lay outside the support


# --- Numbers ---
def mse() -> ValueHead:
    """A scalar regressed on its target by squared error."""

    def target(reward: Array, discount: Array, next_logits: Array, shift: Array, support: Tree) -> Array:
        return reward + discount * (next_logits[..., 0] + shift)

    return ValueHead(
        size=1,
        support=lambda stats: (),
        decode=lambda logits, support: logits[..., 0],
        target=target,
        loss=lambda logits, target, support: jnp.square(logits[..., 0] - target),
    )


# --- Histograms ---
def histogram(
    config: HeadConfig,
    geometry: supports.Geometry,
    points: Callable[[Support, int], Array],
    project: Callable[[Array, Support], Array],
) -> ValueHead:
    """A softmax over `points` that learns `project(target)`, a distribution, by cross-entropy."""

    def decode(logits: Array, support: Support) -> Array:
        return projections.mean(logits, points(support, config.bins))

    def loss(logits: Array, target: Array, support: Support) -> Array:
        return projections.cross_entropy(logits, project(target, support))

    def measure(logits: Array, target: Array, support: Support) -> Metrics:
        outside = (target < support.low) | (target > support.high)
        return _measures(logits, project(target, support), outside)

    return ValueHead(
        size=config.bins,
        support=supports.of(config.support, geometry, _bins(config)),
        decode=decode,
        target=_number(decode),
        loss=loss,
        average=_mixture,
        measure=measure,
        initial_bias=_initial_bias(config, points),
    )


def _initial_bias(config: HeadConfig, points: Callable[[Support, int], Array]) -> Callable[[Support], Array] | None:
    """Support -> logits of the flattest distribution with the value to begin at; None for the middle."""
    value = supports.parse_value(config.initial_value)
    return None if value is None else lambda support: projections.tilt(points(support, config.bins), value)


def _number(decode: Callable[[Array, Tree], Array]) -> Callable[..., Array]:
    """The target that is a number: of the mean that `decode` gives."""

    def target(reward: Array, discount: Array, next_logits: Array, shift: Array, support: Tree) -> Array:
        return reward + discount * (decode(next_logits, support) + shift)

    return target


def _mixture(logits: Array) -> Array:
    """Logits `[...]` of the mean of the distributions of `[members, ...]`."""
    return jax.nn.logsumexp(projections.log_softmax(logits), axis=0) - jnp.log(logits.shape[0])


def _measures(logits: Array, probs: Array, clipped: Array) -> Metrics:
    """Share of targets that were clipped, divergence of predictions from targets, mass predicted in the end bins."""
    found = projections.softmax(logits)
    return {
        "clipped_targets": jnp.mean(clipped.astype(jnp.float32)),
        "target_kl": jnp.mean(projections.cross_entropy(logits, probs) - projections.entropy(probs)),
        "end_mass": jnp.mean(found[..., 0] + found[..., -1]),
    }


def hl_gauss(config: HeadConfig) -> ValueHead:
    """Cross-entropy to a Gaussian around the target."""
    if not 0 < config.sigma_ratio < float("inf"):
        raise UserError(
            f"--sigma-ratio={config.sigma_ratio} leaves HL-Gauss no Gaussian; give a finite number above 0, such as "
            "0.75, or --head=two_hot"
        )
    project = lambda y, support: projections.hl_gauss_probs(y, support, config.bins, config.sigma_ratio)  # noqa: E731
    return histogram(config, supports.Geometry(config.bins, config.sigma_ratio), projections.centres, project)


def two_hot(config: HeadConfig) -> ValueHead:
    """Cross-entropy to the two atoms around the target."""
    project = lambda y, support: projections.two_hot(y, support, config.bins)  # noqa: E731
    return histogram(config, supports.Geometry(config.bins - 1), projections.atoms, project)


def two_hot_symexp(config: HeadConfig) -> ValueHead:
    """Two-hot on atoms that are narrow around zero and wide far from it."""
    points = projections.symexp_atoms
    project = lambda y, support: projections.two_hot_between(y, points(support, config.bins))  # noqa: E731
    return histogram(config, supports.Geometry(config.bins - 1), points, project)


def mse_softmax(config: HeadConfig) -> ValueHead:
    """Squared error of the mean of a softmax; targets are clipped as those of the other histograms are."""
    head = two_hot(config)

    def loss(logits: Array, target: Array, support: Support) -> Array:
        return jnp.square(head.decode(logits, support) - projections.clip(target, support))

    def measure(logits: Array, target: Array, support: Support) -> Metrics:
        metrics = head.measure(logits, target, support)
        return {name: metrics[name] for name in ("clipped_targets", "end_mass")}

    return head._replace(loss=loss, measure=measure)


def c51(config: HeadConfig) -> ValueHead:
    """Cross-entropy to the next state's distribution, moved by the reward, shrunk by the discount, and projected."""
    head = two_hot(config)

    def target(reward: Array, discount: Array, next_logits: Array, shift: Array, support: Support) -> Projected:
        reward, discount, shift = (x[..., None] for x in (reward, discount, shift))
        moved = reward + discount * (projections.atoms(support, config.bins) + shift)
        probs = projections.softmax(next_logits)
        outside = jnp.sum(probs * ((moved < support.low) | (moved > support.high)), axis=-1)
        return Projected(projections.c51_project(probs, moved, support), outside)

    return head._replace(
        target=target,
        loss=lambda logits, target, support: projections.cross_entropy(logits, target.probs),
        measure=lambda logits, target, support: _measures(logits, target.probs, target.clipped),
        scalar=False,
    )


# --- Quantiles ---
def quantile(config: HeadConfig) -> ValueHead:
    """Quantiles at (i + 1/2) / n, whose mean is the value."""
    levels = (jnp.arange(config.bins) + 0.5) / config.bins

    def target(reward: Array, discount: Array, next_logits: Array, shift: Array, support: Tree) -> Array:
        return reward[..., None] + discount[..., None] * (next_logits + shift[..., None])

    def loss(logits: Array, target: Array, support: Tree) -> Array:
        """Summed over the quantiles, averaged over the target's."""
        error = target[..., None, :] - logits[..., :, None]
        size = jnp.abs(error)
        huber = jnp.where(size <= 1.0, 0.5 * jnp.square(error), size - 0.5)
        weight = jnp.abs(levels[:, None] - (error < 0))
        return jnp.sum(jnp.mean(weight * huber, axis=-1), axis=-1)

    return ValueHead(
        size=config.bins,
        support=lambda stats: (),
        decode=lambda logits, support: jnp.mean(logits, axis=-1),
        target=target,
        loss=loss,
        scalar=False,
    )


# --- Behind symlog ---
def symlog(head: ValueHead, config: HeadConfig) -> ValueHead:
    """`head` on the scale of symlog. Its support stays on the scale of values, and is padded on that of symlog."""
    initial_bias = head.initial_bias
    small = lambda tree: jax.tree.map(projections.symlog, tree)  # noqa: E731

    def support(stats: Any) -> Tree:
        if stats is None or supports.parse(config.support):
            return head.support(stats)
        return jax.tree.map(projections.symexp, head.support(small(stats)))

    def decode(logits: Array, support: Tree) -> Array:
        return projections.symexp(head.decode(logits, small(support)))

    return head._replace(
        support=support,
        decode=decode,
        target=_number(decode),
        average=None,
        loss=lambda logits, target, support: head.loss(logits, small(target), small(support)),
        measure=lambda logits, target, support: head.measure(logits, small(target), small(support)),
        initial_bias=initial_bias and (lambda support: initial_bias(small(support))),
    )


def _small(config: HeadConfig) -> HeadConfig:
    """The config of a head that will stand behind symlog."""
    value = supports.parse_value(config.initial_value)
    if value is None:
        return config
    return replace(config, initial_value=str(float(projections.symlog(jnp.float32(value)))))


HEADS: dict[str, Callable[[HeadConfig], ValueHead]] = {
    "mse": lambda config: mse(),
    "mse_softmax": mse_softmax,
    "hl_gauss": hl_gauss,
    "two_hot": two_hot,
    "c51": c51,
    "quantile": quantile,
    "two_hot_symexp": two_hot_symexp,
    "symlog": lambda config: symlog(two_hot(_small(config)), config),
    "symlog_hl_gauss": lambda config: symlog(hl_gauss(_small(config)), config),
    "symlog_mse": lambda config: symlog(mse(), config),
}
WITHOUT_SUPPORT = ("mse", "symlog_mse", "quantile")
EVEN = ("hl_gauss", "two_hot", "c51", "mse_softmax")  # their bins are equally wide in units of value
# The heads that an option says nothing to. A number to begin at is refused where there is no support.
UNUSED = {
    "bins": ("mse", "symlog_mse"),
    "sigma_ratio": tuple(name for name in HEADS if not name.endswith("hl_gauss")),
    "support": WITHOUT_SUPPORT,
}


def make(config: HeadConfig | str) -> ValueHead:
    """The head that `config` describes; a name stands for that head with its defaults.

    Raises:
        UserError: the name is not registered, or the head cannot be of this size, ratio or support.
    """
    config = HeadConfig(config) if isinstance(config, str) else config
    if config.name not in HEADS:
        raise unknown("value head", config.name, HEADS)
    if config.bins < 2:
        raise UserError(f"{_bins(config)} can hold no two values; give at least 2, such as 101")
    supports.check_value(config.initial_value, config.support, config.name in WITHOUT_SUPPORT)
    return HEADS[config.name](config)


def require_scalar(config: HeadConfig | str, option: str) -> None:
    """Refuse a head whose targets are distributions, for an option that computes with a target as a number.

    Raises:
        UserError: the head's targets are no numbers, or there is no such head.
    """
    config = HeadConfig(config) if isinstance(config, str) else config
    if not make(config).scalar:
        raise UserError(
            f"{option} needs targets that are numbers, and those of --head={config.name} are not; use --head=mse or "
            "--head=hl_gauss"
        )


def require_even(config: HeadConfig, option: str) -> None:
    """Refuse to begin at a number where an option scales values and the head's bins are not evenly spaced.

    Raises:
        UserError: it does.
    """
    if config.name not in EVEN and supports.parse_value(config.initial_value) is not None:
        raise UserError(
            f"--initial-value={config.initial_value} with --head={config.name} is not known on the scale of {option}; "
            "use --initial-value=middle, or --head=hl_gauss"
        )


def require_ends(config: HeadConfig) -> None:
    """Refuse a support of the data's returns where there are no data, and what `make` refuses.

    Raises:
        UserError: the head has a support, and it is not given; or it cannot be made.
    """
    head = make(config)
    if config.name not in WITHOUT_SUPPORT:
        head.support(None)


def complaint(config: HeadConfig, returns: Any) -> str:
    """What is wrong with a head's options, and its support for data of these returns; empty where nothing is."""
    unused = [name for name, without in UNUSED.items() if config.name in without]
    if line := in_vain(config, unused, "--", f"--head={config.name}"):
        return line
    if config.name in WITHOUT_SUPPORT:
        return ""
    return supports.complaint(config.support, config.bins if config.name in EVEN else 0, returns)


def _bins(config: HeadConfig) -> str:
    return f"--bins={config.bins}"
