"""What a paper changes in the Dyna skeleton (`dyna`), as a record of pure functions; and several of them together."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from jaxrl_suite import buffer
from jaxrl_suite.algorithms.actor_critic import State as AgentState
from jaxrl_suite.types import Array, Dataset, Key, Metrics, Params, Transition, Tree, WorldModel


class State(NamedTuple):
    """The learner, the fitted model, and what the model has imagined."""

    agent: AgentState
    model: Params
    imagined: buffer.Buffer
    key: Key
    extra: Tree = ()  # what `Idea.prepare` made


class Idea(NamedTuple):
    """What a paper changes in the skeleton; every part is left as it is by default. Keys are consumed."""

    # (the model, State) -> the model that rollouts branch in; built inside the update, so it may close over the state
    transform: Callable[[WorldModel, State], WorldModel] = lambda model, state: model
    # (model, fitted params, data, key) -> State.extra, once: a threshold from the data, an optimiser
    prepare: Callable[[WorldModel, Params, Dataset, Key], Tree] = lambda model, params, data, key: ()
    # (model, State, data, key) -> State, metrics; before the rollouts of a period: the model learns on
    adapt: Callable[[WorldModel, State, Dataset, Key], tuple[State, Metrics]] = lambda model, state, data, key: (
        state,
        {},
    )
    # (model, State, rollouts, valid, key) -> rollouts, metrics; leaves [horizon, rollouts, ...], before they are stored
    amend: Callable[[WorldModel, State, Transition, Array, Key], tuple[Transition, Metrics]] = (
        lambda model, state, rollout, valid, key: (rollout, {})
    )
    # (model, State, batch, key) -> the batch that an update is given; its real rows are the first of `buffer.parts`
    relabel: Callable[[WorldModel, State, Transition, Key], Transition] = lambda model, state, batch, key: batch
    # (model, State, batch, key) -> metrics of an update's batch, as it was drawn; with the key that `relabel` has
    measure: Callable[[WorldModel, State, Transition, Key], Metrics] = lambda model, state, batch, key: {}


PLAIN = Idea()


def together(*ideas: Idea) -> Idea:
    """Several ideas as one, in their order: the first is the nearest to the model, and the first to relabel.

    Every idea sees its own part of `State.extra`. Among plain ones, an idea stays as it is, to the bit.
    """
    ideas = tuple(idea for idea in ideas if idea != PLAIN)
    if len(ideas) < 2:
        return ideas[0] if ideas else PLAIN

    def own(state: State, index: int) -> State:
        return state._replace(extra=state.extra[index])

    def transform(model: WorldModel, state: State) -> WorldModel:
        for index, idea in enumerate(ideas):
            model = idea.transform(model, own(state, index))
        return model

    def prepare(model: WorldModel, params: Params, data: Dataset, key: Key) -> Tree:
        keys = jax.random.split(key, len(ideas))
        return tuple(idea.prepare(model, params, data, keys[index]) for index, idea in enumerate(ideas))

    def adapt(model: WorldModel, state: State, data: Dataset, key: Key) -> tuple[State, Metrics]:
        keys = jax.random.split(key, len(ideas))
        metrics: Metrics = {}
        for index, idea in enumerate(ideas):
            after, more = idea.adapt(model, own(state, index), data, keys[index])
            extra = (*state.extra[:index], after.extra, *state.extra[index + 1 :])
            state, metrics = after._replace(extra=extra), {**metrics, **more}
        return state, metrics

    def amend(
        model: WorldModel, state: State, rollout: Transition, valid: Array, key: Key
    ) -> tuple[Transition, Metrics]:
        keys = jax.random.split(key, len(ideas))
        metrics: Metrics = {}
        for index, idea in enumerate(ideas):
            rollout, more = idea.amend(model, own(state, index), rollout, valid, keys[index])
            metrics |= more
        return rollout, metrics

    def relabel(model: WorldModel, state: State, batch: Transition, key: Key) -> Transition:
        keys = jax.random.split(key, len(ideas))
        for index, idea in enumerate(ideas):
            batch = idea.relabel(model, own(state, index), batch, keys[index])
        return batch

    def measure(model: WorldModel, state: State, batch: Transition, key: Key) -> Metrics:
        keys = jax.random.split(key, len(ideas))
        metrics: Metrics = {}
        for index, idea in enumerate(ideas):
            metrics |= idea.measure(model, own(state, index), batch, keys[index])
        return metrics

    return Idea(transform, prepare, adapt, amend, relabel, measure)
