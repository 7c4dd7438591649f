"""The shared Dyna actor-critic: fit a world model to the data, then train on short rollouts that branch from it.

The skeleton of MBPO (Janner et al. 2019, arXiv 1906.08253) made offline, as MOPO, COMBO, RAVL and their relatives use
it: every period, policy and model imagine `horizon` steps from states of the data set into a ring buffer; then the
actor-critic takes its updates on batches that mix a share of real rows with imagined ones.

The last step of a rollout is stored with discount 1, as if the episode went on. States that only ever occur there are
bootstrapped from but never updated: the edge of reach (Sims et al. 2024, arXiv 2402.12527).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from jaxrl_suite import buffer
from jaxrl_suite.algorithms.actor_critic import ActorCritic, Hypers
from jaxrl_suite.algorithms.actor_critic import State as AgentState
from jaxrl_suite.algorithms.agent_config import AgentConfig
from jaxrl_suite.algorithms.ideas import PLAIN, Idea, State
from jaxrl_suite.envs import engines
from jaxrl_suite.errors import UserError
from jaxrl_suite.models import ensemble, fit, imagine, transforms, worlds
from jaxrl_suite.types import (
    Algorithm,
    Array,
    Dataset,
    Key,
    Metrics,
    Phase,
    Spec,
    Transition,
    Tree,
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
    world: worlds.Kind = field(default="learned", metadata={"later": True})
    """Where rollouts branch: in the learned model, in the true dynamics (oracle), or between (interpolate)."""
    accuracy: float = field(default=0.0, metadata={"later": True, "signed": True})
    """With --world=interpolate: from -1 (random) over 0 (learned) to 1 (true)."""
    engine: engines.Backend = field(default="c", metadata={"later": True})
    """What steps a MuJoCo task's true dynamics: c, fast on CPUs, or mjx, inside the program, for accelerators."""

    @property
    def real(self) -> int:
        """Real transitions per batch: the first of its parts, see `buffer.parts`."""
        return int(self.real_ratio * self.batch)

    @property
    def kind(self) -> worlds.Kind:
        """The kind of world, where an accuracy of 0 or 1 is that of a plain one."""
        return worlds.resolved(self.world, self.accuracy)


def make(spec: Spec, config: Config, ac: ActorCritic, hypers: Hypers, idea: Idea = PLAIN) -> Algorithm:
    """Model fit, where there is one, then Dyna training of `ac` in the model, changed as `idea` says.

    Raises:
        UserError: sizes that do not fit each other, or a world that there is not.
    """
    period, ticks = _schedule(config)
    _check_horizon(spec, config)
    model, fits, params_of = world(spec, config)
    real = config.real

    def init(key: Key, hypers: Hypers, data: Dataset, previous: Tree) -> State:
        agent_key, key, idea_key, params_key = jax.random.split(key, 4)
        row = jax.tree.map(lambda leaf: leaf[0], data.transitions)
        capacity = config.rollouts * config.horizon * config.retain
        params = params_of(params_key, previous)
        extra = idea.prepare(model, params, data, idea_key)
        return State(ac.init(agent_key, hypers, data.mc_return), params, buffer.empty(row, capacity), key, extra)

    def dream(state: State, data: Dataset, key: Key) -> tuple[buffer.Buffer, Metrics]:
        """Branch `rollouts` rollouts of `horizon` steps from states of the data, and insert them."""
        start_key, rollout_key, amend_key = jax.random.split(key, 3)
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
        rollout, noted = idea.amend(model, state, rollout, valid, amend_key)
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rollout)
        return buffer.insert(state.imagined, flat, valid.reshape(-1)), noted

    def mixed_batch(imagined: buffer.Buffer, data: Dataset, key: Key) -> Transition:
        real_key, imagined_key = jax.random.split(key)
        imagined_rows = buffer.sample(imagined, imagined_key, config.batch - real)
        return buffer.share(buffer.draw(data.transitions, real_key, real), imagined_rows)

    def update(state: State, data: Dataset) -> tuple[State, Metrics]:
        key, dream_key, learn_key, adapt_key = jax.random.split(state.key, 4)
        state, adapted = idea.adapt(model, state, data, adapt_key)
        imagined, noted = dream(state, data, dream_key)
        state = state._replace(imagined=imagined, key=key)

        def learn(agent: AgentState, key: Key) -> tuple[AgentState, Metrics]:
            batch_key, update_key, idea_key = jax.random.split(key, 3)
            batch = mixed_batch(state.imagined, data, batch_key)
            seen = (model, state._replace(agent=agent), batch, idea_key)
            agent, metrics = ac.update(agent, idea.relabel(*seen), update_key)
            return agent, {**metrics, **idea.measure(*seen)}

        agent, metrics = jax.lax.scan(learn, state.agent, jax.random.split(learn_key, period))
        metrics = {**jax.tree.map(jnp.mean, metrics), **adapted, **noted}
        return state._replace(agent=agent), {**metrics, "imagined_rows": state.imagined.size.astype(jnp.float32)}

    def q_value(state: State, obs: Array, action: Array) -> Array:
        return ac.q_value(state.agent, obs, action)

    def act(state: State, carry: Tree, obs: Array, key: Key) -> tuple[Array, Tree]:
        return ac.act(state.agent, carry, obs, key)

    def q_values(state: State, obs: Array, action: Array) -> Array:
        assert ac.values is not None
        return ac.values(state.agent, obs, action)

    agent = Phase(
        name="agent",
        ticks=ticks,
        updates_per_tick=period,
        chunk=1,
        init=init,
        update=update,
        evaluate_every=max(1, ticks // config.evaluations),
    )
    values = q_values if ac.values else None
    return Algorithm(phases=(*fits, agent), hypers=hypers, act=act, q_value=q_value, q_values=values)


def world(spec: Spec, config: Config) -> worlds.World:
    """What an algorithm of this config imagines in.

    Raises:
        UserError: there is no such world, or no such engine for it.
    """
    return worlds.make(spec, config.world, config.accuracy, config.dynamics, config.fit, config.engine)


def check_members(config: Config) -> None:
    """What an idea that needs all members asks up front. The true dynamics are one member, always evaluated.

    Raises:
        UserError: the model would evaluate only the drawn member.
    """
    if config.kind != "oracle":
        transforms.check(config.dynamics)


def _check_horizon(spec: Spec, config: Config) -> None:
    if config.kind != "learned" and config.horizon > spec.horizon:
        raise UserError(
            f"--horizon={config.horizon} is longer than an episode of {spec.name}, which ends after {spec.horizon} "
            f"steps; give at most --horizon={spec.horizon}"
        )


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
