"""DQN on Atari, with any value head, as Farebrother et al. 2024 (arXiv 2403.03950, appendix B) train it.

The update is that of `q_learning`, on stacks of four frames, by the Nature network (Mnih et al. 2015), with Adam and
rewards clipped to [-1, 1]; the environments are those of `envs.atari`, which the loop steps on the host. Heads with
bins have 51 on [-10, 10], HL-Gauss's sigma is 0.75 of one. What is measured is, as in the paper, the return of training
episodes, not clipped.

Deviations: `envs` games step together, then come envs / update_every updates; screens are envpool's, whose games begin
with at most one idle step; weights start as PyTorch's defaults, the outputs' near zero; a draw that hits a game's reset
(one of some hundred) weighs nothing in its batch; a game cut after 27,000 steps is bootstrapped. The paper has no
settings for mse_softmax and quantile: they take those of mse. Only `paper` has its budget.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_suite import buffer, frames, nets
from jaxrl_suite.algorithms import q_learning
from jaxrl_suite.algorithms.dqn_atari_config import PRESETS, Config, with_head
from jaxrl_suite.algorithms.online import random_share
from jaxrl_suite.algorithms.q_learning import Learner
from jaxrl_suite.errors import UserError
from jaxrl_suite.types import Algorithm, Array, Key, Metrics, Phase, Spec, Timestep, Tree
from jaxrl_suite.values import heads

__all__ = ["PRESETS", "Config", "State", "make", "with_head"]

DEPTH = 4  # frames of a stack
KEPT = 20  # newest episodes whose returns are known
CHUNK = 500  # ticks of one, at most


@struct.dataclass
class Hypers:
    """What members of one program may differ in."""

    gamma: Any
    learning_rate: Any
    epsilon: Any


class Episode(NamedTuple):
    """An episode so far, or a whole one."""

    returned: Array  # [...] sum of its rewards, not clipped
    length: Array  # [...] steps


class State(NamedTuple):
    """The learner, its experience, and all that decides its next action."""

    learner: Learner
    replay: buffer.Buffer  # of frames.Row
    stack: Array  # [envs, height, width, DEPTH] what the next action is for
    fresh: Array  # [envs] bool: the newest frame is the first of its episode
    running: Episode  # [envs]
    ended: buffer.Buffer  # the newest whole episodes
    actions: Array  # [ticks, envs] every action so far: replaying it rebuilds the games
    tick: Array
    hypers: Hypers
    key: Key


def make(spec: Spec, config: Config) -> Algorithm:
    """DQN in a game; its policy's observations are stacks `[batch, height, width, DEPTH]`.

    Raises:
        UserError: sizes do not fit each other, or a head with bins has no support.
    """
    _check(config)
    envs, actions = config.envs, spec.action_dim
    side = round(spec.obs_dim**0.5)
    outputs, near_zero = q_learning.outputs(actions, config.value_head()), nets.fan_in_uniform(0.3)
    net = nets.nature_cnn((side, side, DEPTH), outputs, near_zero)
    learning = q_learning.make(net, actions, config.value_head(), config.copy_every, config.adam_eps)
    each = (config.steps - config.explore) // envs // config.evaluations  # ticks between two evaluations
    chunk = next(ticks for ticks in range(min(each, CHUNK), 0, -1) if each % ticks == 0)
    ticks = config.explore // envs + each * config.evaluations

    def init(key: Key, hypers: Hypers, data: Array, previous: Tree) -> State:
        """`data` holds the first frames `[envs, height, width]`."""
        net_key, key = jax.random.split(key)
        fresh, none = jnp.ones(envs, bool), Episode(jnp.zeros(envs), jnp.zeros(envs))
        return State(
            learner=learning.init(net_key),
            replay=frames.empty(data, config.replay // envs),
            stack=frames.push(jnp.zeros((*data.shape, DEPTH), data.dtype), data, fresh),
            fresh=fresh,
            running=none,
            ended=buffer.empty(jax.tree.map(lambda x: x[0], none), KEPT),
            actions=jnp.zeros((ticks, envs), jnp.uint8),
            tick=jnp.int32(0),
            hypers=hypers,
            key=key,
        )

    def choose(state: State) -> tuple[State, Array]:
        key, chance_key, action_key = jax.random.split(state.key, 3)
        share = random_share(state.tick * envs, config.explore, config.epsilon_steps, state.hypers.epsilon)
        anything = jax.random.randint(action_key, (envs,), 0, actions)
        best = jnp.argmax(learning.values(state.learner, state.stack), axis=-1)
        action = jnp.where(jax.random.uniform(chance_key, (envs,)) < share, anything, best).astype(jnp.int32)
        return state._replace(key=key, actions=state.actions.at[state.tick].set(action.astype(jnp.uint8))), action

    def remember(state: State, data: tuple[Array, Timestep]) -> State:
        """What the host answered becomes a row, and the next stack."""
        action, seen = data
        clipped = jnp.clip(seen.reward, -1.0, 1.0)
        row = frames.Row(state.stack[..., -1], state.fresh, action, clipped, 1.0 - seen.terminated, seen.valid)
        sums = Episode(state.running.returned + seen.reward, state.running.length + seen.valid)
        over, fresh = seen.terminated | seen.truncated, ~seen.valid
        return state._replace(
            replay=frames.insert(state.replay, row),
            stack=frames.push(state.stack, seen.obs, fresh),
            fresh=fresh,
            running=jax.tree.map(lambda x: jnp.where(over, 0.0, x), sums),
            ended=buffer.insert(state.ended, sums, over),
            tick=state.tick + 1,
        )

    def explore(state: State, data: Any) -> tuple[State, Metrics]:
        state = remember(state, data)
        return state, {"rows": state.replay.size * float(envs)}

    def train(state: State, data: Any) -> tuple[State, Metrics]:
        state = remember(state, data)

        def update(learner: Learner, key: Key) -> tuple[Learner, Metrics]:
            rows, weight = frames.sample(state.replay, key, config.batch, DEPTH)
            return learning.update(learner, rows, weight, state.hypers)

        key, learn_key = jax.random.split(state.key)
        keys = jax.random.split(learn_key, envs // config.update_every)
        learner, metrics = jax.lax.scan(update, state.learner, keys)
        return state._replace(learner=learner, key=key), jax.tree.map(jnp.mean, metrics)

    first, rest = config.explore // envs, ticks - config.explore // envs
    kept = lambda key, hypers, data, previous: previous  # noqa: E731
    log = lambda state: (state.actions, state.tick)  # noqa: E731
    return Algorithm(
        phases=(
            Phase("explore", first, 0, first, init, explore, request=choose, actions=log),
            Phase(
                "train",
                rest,
                envs // config.update_every,
                chunk,
                kept,
                train,
                evaluate_every=each // chunk,
                request=choose,
                actions=log,
            ),
        ),
        hypers=Hypers(config.gamma, config.learning_rate, config.epsilon),
        act=lambda state, carry, obs, key: (jnp.argmax(learning.values(state.learner, obs), axis=-1), carry),
        q_value=lambda state, obs, action: q_learning.pick(learning.values(state.learner, obs)[..., None], action)[
            ..., 0
        ],
    )


def _check(config: Config) -> None:
    heads.require_ends(config.value_head())
    envs = config.envs
    if envs % config.update_every or config.explore % envs or not envs <= KEPT:
        raise UserError(
            f"--envs={envs} must be a multiple of --update-every={config.update_every} and at most {KEPT}, and "
            f"--explore={config.explore} a multiple of the environments"
        )
    if config.explore < envs * (DEPTH + 1) or config.replay < envs * (DEPTH + 1):
        raise UserError(f"--explore and --replay must each hold {DEPTH + 1} steps of {envs} environments; give more")
    if config.steps - config.explore < envs * config.evaluations:
        raise UserError(
            f"--steps={config.steps} leaves no step for each of {config.evaluations} evaluations; give more"
        )
