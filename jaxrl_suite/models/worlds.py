"""Which world an algorithm imagines in: the ensemble that is fitted to the data, the true dynamics, or between them.

`accuracy` runs from -1, an ensemble that was never trained, over 0, the fitted one, to 1, the true dynamics (as in
figure 1 of Sims et al. 2024, arXiv 2402.12527). At 0 and 1 the worlds are those of `learned` and `oracle` themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp

from jaxrl_suite.envs import engines
from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.models import fit, oracle, transforms
from jaxrl_suite.models.ensemble import EnsembleConfig
from jaxrl_suite.models.fit import FitConfig
from jaxrl_suite.types import Key, Params, Phase, Spec, Stats, WorldModel

Kind = Literal["learned", "oracle", "interpolate"]


class World(NamedTuple):
    """A world model, and where its parameters come from."""

    model: WorldModel
    fits: tuple[Phase, ...]  # one phase, whose result `params` is given; none where nothing is fitted
    params: Callable[[Key, Any], Params]  # (key, what the fit left) -> the parameters for rollouts


def resolved(kind: Kind, accuracy: float) -> Kind:
    """The kind of world that an accuracy amounts to.

    Raises:
        UserError: no such kind, or an accuracy out of range or without a meaning.
    """
    if kind not in get_args(Kind):
        raise unknown("world", kind, get_args(Kind))
    if kind != "interpolate":
        if accuracy:
            raise UserError(f"--accuracy={accuracy:g} has no meaning with --world={kind}; give --world=interpolate")
        return kind
    if not -1.0 <= accuracy <= 1.0:
        raise UserError(f"--accuracy={accuracy:g}; expected -1 (random) to 1 (true), with 0 for the learned model")
    return {0.0: "learned", 1.0: "oracle"}.get(accuracy, "interpolate")  # type: ignore[return-value]


def make(
    spec: Spec, kind: Kind, accuracy: float, dynamics: EnsembleConfig, fitting: FitConfig, engine: engines.Backend = "c"
) -> World:
    """The world of that kind for `spec`; `engine` steps the true dynamics of MuJoCo's tasks.

    Raises:
        UserError: no such world, a true one is asked for where there is none, or an engine where nothing needs one.
    """
    kind = resolved(kind, accuracy)
    if engine != "c" and (kind == "learned" or accuracy < 0.0):
        raise UserError(
            f"--engine={engine} has no meaning without the true dynamics; give --world=oracle, or --world=interpolate "
            "with an accuracy above 0"
        )
    if kind == "oracle":
        return _true(spec, engine)
    learned, phase = fit.make(spec, dynamics, fitting)
    if kind == "learned":
        return World(learned, (phase,), lambda key, fitted: fitted)
    if accuracy > 0.0:
        model = transforms.interpolate(learned, oracle.of(spec.name, engine), accuracy, spec.is_terminal)
        return World(model, (phase,), lambda key, fitted: fitted._replace(weights=(fitted.weights, ())))
    model = transforms.interpolate(learned, learned, 1.0 + accuracy, spec.is_terminal)

    def with_random(key: Key, fitted: Params) -> Params:
        untrained = learned.init(key, fitted.stats)
        return fitted._replace(weights=(untrained.weights, fitted.weights))

    return World(model, (phase,), with_random)


def _true(spec: Spec, engine: engines.Backend) -> World:
    model, dim = oracle.of(spec.name, engine), spec.obs_dim + spec.action_dim
    return World(model, (), lambda key, fitted: model.init(key, Stats(jnp.zeros(dim), jnp.ones(dim))))
