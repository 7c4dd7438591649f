"""Value heads online: DQN in ProcMaze, a new maze each episode, measured as the offline problem is (heads_maze).

The learner acts, remembers and learns (jaxrl_suite/algorithms/dqn.py, at its own defaults but for what `Program`
holds): its data come from its policy, and move with it. Discount, network, copies of the target, evaluations, the mazes
of the measures and the measures themselves are those of the fixed log, so that rows of both compare.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments import heads_maze
from experiments.heads_maze import EVALUATIONS, Learnt, Numbers, Task
from jaxrl_suite.algorithms import dqn
from jaxrl_suite.envs import procmaze
from jaxrl_suite.types import Array, Key
from jaxrl_suite.values import heads

MULTIPLE = EVALUATIONS * dqn.Config.envs // dqn.Config.update_every  # of which a run's updates must be one


class Program(NamedTuple):
    """What makes a program of its own. The head's support is its own, for DQN has no traced one."""

    head: heads.HeadConfig
    hidden: tuple[int, ...]
    updates: int
    batch: int

    @property
    def sarsa(self) -> bool:
        """Always Q-learning."""
        return False


def agent(program: Program) -> dqn.DQN:
    """DQN as the offline problem's learner, where the two have something in common."""
    head = program.head
    config = dqn.Config(
        head=head.name,
        bins=head.bins,
        sigma_ratio=head.sigma_ratio,
        support=head.support,
        hidden=program.hidden,
        batch=program.batch,
        gamma=heads_maze.GAMMA,
        copy_every=heads_maze.COPY,
    )
    return dqn.make(procmaze.make(heads_maze.SIZE), config)


def learn(program: Program, key: Key, numbers: Numbers, task: Task) -> Learnt:
    """Train one member at the rate of `numbers`; its values and features at all cells of the mazes of `task`, whose log
    it does not see."""
    learner, obs = agent(program), task.obs.astype(jnp.float32)
    hypers = replace(learner.hypers, learning_rate=numbers.rate)
    state = learner.explore(learner.init(jax.random.fold_in(key, 1), hypers))
    ticks = program.updates // MULTIPLE

    def stretch(state: dqn.State, _: None) -> tuple[dqn.State, Array]:
        state, _ = jax.lax.scan(lambda state, _: (learner.tick(state)[0], None), state, None, ticks)
        return state, learner.values(state, obs)

    state, q = jax.lax.scan(stretch, state, None, EVALUATIONS)
    return Learnt(q, heads_maze.features(state.learner.weights, task.obs), {})
