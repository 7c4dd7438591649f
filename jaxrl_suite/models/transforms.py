"""World models made pessimistic: a transform takes a WorldModel and returns one.

Weights and thresholds may be traced, and a transform may be built inside an update: a population then sweeps them in
one program. Transforms stack; one that measures by the sampled reward (ll_variance) belongs innermost, where the reward
is still the model's own.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from jaxrl_suite.errors import UserError
from jaxrl_suite.models.ensemble import EnsembleConfig
from jaxrl_suite.models.uncertainty import Uncertainty
from jaxrl_suite.types import Array, Key, Members, Params, Prediction, Tree, WorldModel


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
