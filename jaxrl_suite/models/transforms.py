"""World models changed: a transform takes a WorldModel, or two, and returns one.

`penalise` and `halt` make a model pessimistic, `interpolate` lies between two. Weights and thresholds may be traced,
and a transform may be built inside an update: a population then sweeps them in one program. Transforms stack; one that
measures by the sampled reward (ll_variance) belongs innermost, where the reward is still the model's own.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrl_suite.errors import UserError
from jaxrl_suite.models.ensemble import EnsembleConfig
from jaxrl_suite.models.uncertainty import Uncertainty
from jaxrl_suite.types import (
    Array,
    Dataset,
    Key,
    Members,
    Metrics,
    Params,
    Prediction,
    Stats,
    Transition,
    Tree,
    WorldModel,
)


def penalise(model: WorldModel, uncertainty: Uncertainty, weight: float | Array) -> WorldModel:
    """The model whose reward is r - weight * u(s, a): MOPO's pessimism.

    The step raises:
        UserError: the model evaluates only the drawn member.
    """

    def change(prediction: Prediction) -> Prediction:
        return prediction._replace(reward=prediction.reward - weight * doubt(uncertainty, prediction))

    return _after(model, change)


def halt(model: WorldModel, uncertainty: Uncertainty, threshold: float | Array, reward: float | Array) -> WorldModel:
    """The model that ends the episode with `reward` where u(s, a) > threshold: MOReL's pessimism.

    The step raises:
        UserError: the model evaluates only the drawn member.
    """

    def change(prediction: Prediction) -> Prediction:
        unknown = doubt(uncertainty, prediction) > threshold
        return prediction._replace(
            reward=jnp.where(unknown, reward, prediction.reward),
            discount=jnp.where(unknown, 0.0, prediction.discount),
        )

    return _after(model, change)


def interpolate(a: WorldModel, b: WorldModel, t: float | Array, is_terminal: Callable[[Array], Array]) -> WorldModel:
    """The model whose next observation and reward lie on the line from `a` (t = 0) to `b` (t = 1).

    Its parameters hold the weights of both as `weights=(of a, of b)`; statistics and elites they share. It is Markov in
    the observation: both begin every step anew from it, so that a simulator forgets what an observation does not tell.
    Both draw by the same key: at t = 0 and 1 it is one of them to the bit, and spreads of members lie on the line too.
    An episode ends by the task's rule, as there is nothing between ended and not ended.
    """

    def half(params: Params, index: int) -> Params:
        return params._replace(weights=params.weights[index])

    def between(x: Array, y: Array) -> Array:
        return (1.0 - t) * x + t * y

    def init(key: Key, stats: Stats) -> Params:
        key_a, key_b = jax.random.split(key)
        first = a.init(key_a, stats)
        return first._replace(weights=(first.weights, b.init(key_b, stats).weights))

    def loss(weights: Tree, params: Params, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        loss_a, metrics = a.loss(weights[0], half(params, 0), batch, key)
        loss_b, more = b.loss(weights[1], half(params, 1), batch, key)
        return loss_a + loss_b, {**metrics, **more}

    def start(params: Params, rows: Dataset) -> Array:
        return rows.transitions.obs

    def step(params: Params, obs: Array, action: Array, key: Key) -> tuple[Array, Prediction]:
        one, other = (
            model.step(own, at(model, own, obs), action, key)[1]
            for model, own in ((a, half(params, 0)), (b, half(params, 1)))
        )
        members = None
        if one.members is not None and other.members is not None:
            members = Members(*map(between, one.members, other.members))
        next_obs = between(one.obs, other.obs)
        discount = 1.0 - is_terminal(next_obs)
        return next_obs, Prediction(next_obs, between(one.reward, other.reward), discount, members)

    return WorldModel(init=init, loss=loss, start=start, step=step)


def at(model: WorldModel, params: Params, obs: Array) -> Tree:
    """The model's states `[batch]` at `obs` `[batch, obs_dim]`, of which nothing but the observation is known."""
    none = jnp.zeros(obs.shape[0])
    rows = Transition(obs, none[:, None], none, none, obs)
    flags = jnp.zeros(obs.shape[0], bool)
    return model.start(params, Dataset(rows, rows.action, flags, flags.astype(jnp.int32), none, None))


def doubt(uncertainty: Uncertainty, prediction: Prediction) -> Array:
    """The uncertainty `[batch]` of a prediction.

    Raises:
        UserError: it is that of the drawn member only.
    """
    sample = jnp.concatenate([prediction.obs, prediction.reward[:, None]], axis=-1)
    return uncertainty(every(prediction), sample)


def every(prediction: Prediction) -> Members:
    """What all members predict.

    Raises:
        UserError: only the drawn one was evaluated.
    """
    if prediction.members is None:
        raise _only_drawn()
    return prediction.members


def check(config: EnsembleConfig) -> None:
    """What an algorithm asks up front, before anything is fitted.

    Raises:
        UserError: the model would evaluate only the drawn member.
    """
    if config.evaluate != "all":
        raise _only_drawn()


def _after(model: WorldModel, change: Callable[[Prediction], Prediction]) -> WorldModel:
    def step(params: Params, state: Tree, action: Array, key: Key) -> tuple[Tree, Prediction]:
        state, prediction = model.step(params, state, action, key)
        return state, change(prediction)

    return model._replace(step=step)


def _only_drawn() -> UserError:
    return UserError(
        "the world model evaluates only the member that it draws, and uncertainty needs all: "
        "set --dynamics.evaluate=all (evaluate='all' in its EnsembleConfig)"
    )
