"""The shared Dyna actor-critic: fit a world model to the data, then train on short rollouts that branch from it.

The skeleton of MBPO (Janner et al. 2019, arXiv 1906.08253) made offline, as MOPO, COMBO, RAVL and their relatives use
it: every period, policy and model imagine `horizon` steps from states of the data set into a ring buffer; then the
actor-critic takes its updates on batches that mix a share of real rows with imagined ones.

The last step of a rollout is stored with discount 1, as if the episode went on. States that only ever occur there are
bootstrapped from but never updated: the edge of reach (Sims et al. 2024, arXiv 2402.12527).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_suite import buffer
from jaxrl_suite.algorithms.actor_critic import ActorCritic, Hypers
from jaxrl_suite.algorithms.actor_critic import State as AgentState
from jaxrl_suite.algorithms.agent_config import AgentConfig
from jaxrl_suite.errors import UserError
from jaxrl_suite.models import ensemble, fit, imagine
from jaxrl_suite.types import (
    Algorithm,
    Array,
    Dataset,
    Key,
    Metrics,
    Params,
    Phase,
    Spec,
    Transition,
    Tree,
    WorldModel,
)


@dataclass(frozen=True)
class Config(AgentConfig):
    """What every Dyna-style offline algorithm sets."""

    updates: int = 3_000_000
    """Gradient updates of actor and critics."""
    evaluations: int = 3_000
    """Evaluations of the policy, evenly spaced."""
    period: int = 1_000
    """Updates between two refreshes of the imagined data."""
    rollouts: int = 50_000
    """Imagined rollouts per refresh."""
    horizon: int = 5
    """Steps k of an imagined rollout."""
    retain: int = 5
    """Refreshes that the ring buffer of imagined data holds."""
    real_ratio: float = 0.05
    """Share of real transitions in a batch."""
    dynamics: ensemble.EnsembleConfig = field(default_factory=ensemble.EnsembleConfig)
    """The world model."""
    fit: fit.FitConfig = field(default_factory=fit.FitConfig)
    """How the world model is fitted."""

    @property
    def real(self) -> int:
        """Real transitions per batch; they come first."""
        return int(self.real_ratio * self.batch)


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
    # (model, State, batch, key) -> the batch that an update is given; its first `config.real` rows are real
    relabel: Callable[[WorldModel, State, Transition, Key], Transition] = lambda model, state, batch, key: batch


PLAIN = Idea()


def make(spec: Spec, config: Config, ac: ActorCritic, hypers: Hypers, idea: Idea = PLAIN) -> Algorithm:
    """Model fit, then Dyna training of `ac` in the model, changed as `idea` says.

    Raises:
        UserError: sizes that do not fit each other.
    """
    period, ticks = _schedule(config)
    model, model_fit = fit.make(spec, config.dynamics, config.fit)
    real = config.real

    def init(key: Key, hypers: Hypers, data: Dataset, previous: Params) -> State:
        agent_key, key = jax.random.split(key)
        row = jax.tree.map(lambda leaf: leaf[0], data.transitions)
        capacity = config.rollouts * config.horizon * config.retain
        extra = idea.prepare(model, previous, data, jax.random.fold_in(agent_key, 1))
        return State(ac.init(agent_key, hypers, data.mc_return), previous, buffer.empty(row, capacity), key, extra)

    def dream(state: State, data: Dataset, key: Key) -> buffer.Buffer:
        """Branch `rollouts` rollouts of `horizon` steps from states of the data, and insert them."""
        start_key, rollout_key = jax.random.split(key)
        rows = buffer.share(buffer.draw(data, start_key, config.rollouts))
        changed = idea.transform(model, state)
        rollout, valid = imagine.imagine(
            changed,
            state.model,
            lambda obs, key: ac.policy(state.agent, obs, key),
            changed.start(state.model, rows),
            rows.transitions.obs,
            config.horizon,
            rollout_key,
        )
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rollout)
        return buffer.insert(state.imagined, flat, valid.reshape(-1))

    def mixed_batch(imagined: buffer.Buffer, data: Dataset, key: Key) -> Transition:
        real_key, imagined_key = jax.random.split(key)
        imagined_rows = buffer.sample(imagined, imagined_key, config.batch - real)
        return buffer.share(buffer.draw(data.transitions, real_key, real), imagined_rows)

    def update(state: State, data: Dataset) -> tuple[State, Metrics]:
        key, dream_key, learn_key = jax.random.split(state.key, 3)
        state, adapted = idea.adapt(model, state, data, jax.random.fold_in(dream_key, 1))
        state = state._replace(imagined=dream(state, data, dream_key), key=key)

        def learn(agent: AgentState, key: Key) -> tuple[AgentState, Metrics]:
            batch_key, update_key = jax.random.split(key)
            batch = mixed_batch(state.imagined, data, batch_key)
            batch = idea.relabel(model, state._replace(agent=agent), batch, jax.random.fold_in(update_key, 1))
            return ac.update(agent, batch, update_key)

        agent, metrics = jax.lax.scan(learn, state.agent, jax.random.split(learn_key, period))
        metrics = {**jax.tree.map(jnp.mean, metrics), **adapted}
        return state._replace(agent=agent), {**metrics, "imagined_rows": state.imagined.size.astype(jnp.float32)}

    def q_value(state: State, obs: Array, action: Array) -> Array:
        return ac.q_value(state.agent, obs, action)

    def act(state: State, carry: Tree, obs: Array, key: Key) -> tuple[Array, Tree]:
        return ac.act(state.agent, carry, obs, key)

    agent = Phase(
        name="agent",
        ticks=ticks,
        updates_per_tick=period,
        chunk=1,
        init=init,
        update=update,
        evaluate_every=max(1, ticks // config.evaluations),
    )
    return Algorithm(phases=(model_fit, agent), hypers=hypers, act=act, q_value=q_value)


def _schedule(config: Config) -> tuple[int, int]:
    """Updates per period and number of periods."""
    period = min(config.period, config.updates)
    if config.updates % period:
        raise UserError(
            f"--updates={config.updates} is not a multiple of --period={config.period}; "
            f"choose --updates={config.updates - config.updates % period}, say"
        )
    if not 0.0 <= config.real_ratio <= 1.0:
        raise UserError(f"--real-ratio={config.real_ratio} is a share of the batch: give a number from 0 to 1")
    return period, config.updates // period
