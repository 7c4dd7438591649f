"""The vocabulary: every part of the suite is one of these records of data or of pure functions.

Shapes are written without the leading axes that `vmap` adds. `key` is a typed JAX key and is consumed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array
Key = jax.Array
Tree = Any  # a PyTree of arrays
Metrics = dict[str, Array]


def _shapes(record: Any) -> str:
    """A record by the shapes of its arrays: what a notebook should print in place of their numbers."""
    fields = zip(record._fields, record, strict=True)
    return f"{type(record).__name__}({', '.join(f'{name}={_shape(value)}' for name, value in fields)})"


def _shape(value: Any) -> str:
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return f"({', '.join(map(_shape, value))})"
    return f"{value.dtype}{list(value.shape)}" if hasattr(value, "shape") else repr(value)


# --- Experience ---
class Transition(NamedTuple):
    """One step of experience; leading axes are free."""

    obs: Array  # [..., obs_dim]
    action: Array  # [..., action_dim]
    reward: Array  # [...]
    discount: Array  # [...] 1 - terminated; gamma belongs to the algorithm
    next_obs: Array  # [..., obs_dim] the true successor, also at the end of an episode

    def __repr__(self) -> str:
        return _shapes(self)


class Dataset(NamedTuple):
    """What offline phases read. All fields share the leading axis `[rows]`."""

    transitions: Transition
    next_action: Array  # [rows, action_dim] zeros on the last row of an episode
    truncated: Array  # [rows] bool: the episode was cut here without terminating
    episode: Array  # [rows] int32 index of the episode
    mc_return: Array  # [rows] discounted reward to go, within the episode
    sim_state: tuple[Array, Array] | None  # (qpos [rows, nq], qvel [rows, nv]) where known

    def __repr__(self) -> str:
        return _shapes(self)


class Timestep(NamedTuple):
    """What an environment returns for an action: JAX arrays from a pure one, numpy arrays from the host."""

    obs: Any  # [..., obs_dim] ALWAYS the true successor, also when the episode ended
    reward: Any  # [...]
    terminated: Any  # [...] bool
    truncated: Any  # [...] bool
    valid: Any  # [...] bool: False for the step in which a host environment resets itself


class Spec(NamedTuple):
    """Static facts about a task."""

    name: str
    obs_dim: int
    action_dim: int
    horizon: int  # steps after which an episode is truncated
    is_terminal: Callable[[Array], Array]  # next_obs [..., obs_dim] -> bool [...], the known termination rule
    score_min: float | None = None  # return of the reference random policy
    score_max: float | None = None  # return of the reference expert


class Env(NamedTuple):
    """A pure environment. Actions are in [-1, 1]; nothing resets by itself (see `envs.autoreset`)."""

    spec: Spec
    reset: Callable[[Key], tuple[Tree, Array]]  # key -> (EnvState, obs)
    step: Callable[[Tree, Array, Key], tuple[Tree, Timestep]]  # (EnvState, action, key) -> (EnvState, Timestep)
    # (obs, sim_state of the data's row or None) -> EnvState; None where an observation does not tell the state
    restore: Callable[[Array, tuple[Array, Array] | None], Tree] | None = None


# --- World models ---
class Params(NamedTuple):
    """What a world model learns and remembers."""

    weights: Tree  # gradients are taken over these only
    stats: Stats  # input normalisation
    elites: Array  # [elites] int32 indices of the members that `step` draws from


class Stats(NamedTuple):
    """Mean and standard deviation used to standardise a vector."""

    mean: Array  # [dim]
    std: Array  # [dim]


class Members(NamedTuple):
    """Predictive distribution of every ensemble member over [next_obs, reward]."""

    mean: Array  # [members, batch, obs_dim + 1]
    std: Array  # [members, batch, obs_dim + 1]


class Prediction(NamedTuple):
    """One imagined step of a batch."""

    obs: Array  # [batch, obs_dim]
    reward: Array  # [batch]
    discount: Array  # [batch] 1 - terminated
    members: Members | None  # None when only the drawn member was evaluated


class WorldModel(NamedTuple):
    """A learned or true simulator as pure functions."""

    init: Callable[[Key, Stats], Params]
    loss: Callable[[Tree, Params, Transition, Key], tuple[Array, Metrics]]  # (weights, params, batch, key)
    start: Callable[[Params, Dataset], Tree]  # rows -> ModelState[batch]; Markov models: obs
    step: Callable[[Params, Tree, Array, Key], tuple[Tree, Prediction]]  # a batch, so that members share the work


# --- Values ---
class ValueHead(NamedTuple):
    """How a critic's outputs stand for a value: a scalar or a distribution over a support."""

    size: int  # outputs per critic
    support: Callable[[Any], Tree]  # data statistics -> Support; () for mse
    decode: Callable[[Array, Tree], Array]  # logits [..., size] -> value [...]
    target: Callable[[Array, Array, Array, Array, Tree], Any]  # (reward, discount, next_logits, shift, support)
    loss: Callable[[Array, Any, Tree], Array]  # (logits [..., size], target, support) -> loss [...]
    scalar: bool = True  # targets are numbers [...], not distributions
    # [members, ..., size] -> [..., size]; None where no outputs stand for the mean of the members' values
    average: Callable[[Array], Array] | None = lambda logits: logits.mean(axis=0)
    # (logits, target, support) -> how well the support holds the targets, and the head fits them
    measure: Callable[[Array, Any, Tree], Metrics] = lambda logits, target, support: {}
    initial_bias: Callable[[Tree], Array] | None = None  # Support -> what to add to the outputs' first bias [size]


# --- Training ---
class Phase(NamedTuple):
    """A stretch of training that the loop runs to its end: fit a model, train an agent, collect data.

    One tick is one period: it rolls out or refits once, then scans a static number of gradient updates.
    A phase on a host environment has `request`: the loop steps the environment with the action asked for and hands
    `(action, Timestep)` to `update` as its data. The environment is rebuilt, on resume, from `actions(State)`. What is
    too much for every tick, such as fitting a model, is `before` each chunk.
    """

    name: str
    ticks: int
    updates_per_tick: int
    chunk: int  # ticks per XLA program, a divisor of `ticks`; the loop logs, evaluates and saves between chunks
    init: Callable[[Key, Tree, Any, Tree], Tree]  # (key, hypers, data, previous phase's result) -> State
    update: Callable[[Tree, Any], tuple[Tree, Metrics]]  # (State, data) -> (State, scalar metrics)
    result: Callable[[Tree], Tree] = lambda state: state  # what the next phase is given
    evaluate_every: int = 0  # chunks between two evaluations of the policy in State; 0 for none
    cache: str = ""  # not empty: the result depends on data, seeds, source and this text alone, and may be reused
    request: Callable[[Tree], tuple[Tree, Array]] | None = None  # State -> (State, action [envs, action_dim])
    actions: Callable[[Tree], tuple[Array, Array]] | None = None  # State -> (log [ticks, envs, action_dim], count)
    before: Callable[[Tree], tuple[Tree, Metrics]] | None = None  # on a host environment: State -> (State, metrics)


class Algorithm(NamedTuple):
    """Phases in their order, and the policy that the last one leaves behind."""

    phases: tuple[Phase, ...]
    hypers: Any  # a struct of traced scalars: what a population may vary without recompiling
    act: Callable[[Tree, Tree, Array, Key], tuple[Array, Tree]]  # (State, carry, obs [batch, obs_dim], key)
    sample: Callable[[Tree, Array, Key], Array] | None = None  # (State, obs, key) -> a stochastic policy's action
    q_value: Callable[[Tree, Array, Array], Array] | None = (
        None  # (State, obs, action) -> the estimate the policy trusts
    )
    q_values: Callable[[Tree, Array, Array], Array] | None = None  # the same of every critic [critics, batch]
    config: Any = None  # the Config that it was made of, for who would check that against a data set
