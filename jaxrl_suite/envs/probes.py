"""Probe environments: tiny tasks with known values, each of which one kind of mistake breaks.

After Andy Jones's blog post on debugging RL. To be run in this order: the first one that fails says where to look.

| name              | episode | pays at the end       | what fails it                                             |
|-------------------|---------|-----------------------|-----------------------------------------------------------|
| probe-constant    | 1 step  | 1                     | the loss or the optimiser of the value                    |
| probe-observation | 1 step  | s                     | inputs do not reach the value                             |
| probe-delayed     | 2 steps | 1                     | bootstrapping, gamma, the discount at the end             |
| probe-action      | 1 step  | 1 - (a - 0.5)^2       | the actor's gradient, the advantage                       |
| probe-both        | 1 step  | 1 - (a - 0.5 s)^2     | rows of observations and actions are mixed up             |

An observation is `[s, steps taken]`, s = +-1 at random where it matters and 0 elsewhere. All rewards before the last
step are 0. Episodes end by `terminated`, and an observation whose second entry has reached the horizon is terminal:
a learned model's termination rule can read it there, and no start state is mistaken for an end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_suite.types import Array, Env, Key, Spec, Timestep


class Probe(NamedTuple):
    """An environment and its solution; leading axes of `obs` `[..., 2]` are free."""

    env: Env
    optimal_value: Callable[[Array, float | Array], Array]  # (obs, gamma) -> value [...]; 0 at the end
    optimal_action: Callable[[Array], Array]  # obs -> action [..., 1]; 0 where every action is as good


def _probe(
    name: str,
    pay: Callable[[Array, Array], Array],
    best: Callable[[Array], Array],
    horizon: int = 1,
    random_signal: bool = False,
) -> Probe:
    """The probe that pays `pay(s, a)` at its last step, where `best(s)` is the best action."""

    def steps_left(obs: Array) -> Array:
        # Rounded, because a learned model predicts the count only nearly.
        return horizon - jnp.round(obs[..., 1])

    def is_terminal(next_obs: Array) -> Array:
        return steps_left(next_obs) <= 0

    def reset(key: Key) -> tuple[Array, Array]:
        signal = jax.random.rademacher(key, (), jnp.float32) if random_signal else jnp.zeros(())
        obs = jnp.stack([signal, jnp.zeros(())])
        return obs, obs  # Markov: the observation is the state

    def step(state: Array, action: Array, key: Key) -> tuple[Array, Timestep]:
        del key
        obs = state + jnp.array([0.0, 1.0])
        ended = is_terminal(obs)
        reward = jnp.where(ended, pay(state[0], jnp.clip(action[0], -1.0, 1.0)), 0.0)
        false = jnp.zeros_like(ended)
        return obs, Timestep(obs, reward, ended, false, ~false)

    def optimal_value(obs: Array, gamma: float | Array) -> Array:
        left, signal = steps_left(obs), obs[..., 0]
        return jnp.where(left > 0, gamma ** jnp.maximum(left - 1, 0) * pay(signal, best(signal)), 0.0)

    spec = Spec(name, obs_dim=2, action_dim=1, horizon=horizon, is_terminal=is_terminal)
    restore = lambda obs, sim_state: obs  # noqa: E731  nothing is lost: the steps are in the observation
    return Probe(Env(spec, reset, step, restore), optimal_value, lambda obs: best(obs[..., :1]))


_PROBES = (
    _probe("probe-constant", lambda s, a: jnp.ones_like(s), jnp.zeros_like),
    _probe("probe-observation", lambda s, a: s, jnp.zeros_like, random_signal=True),
    _probe("probe-delayed", lambda s, a: jnp.ones_like(s), jnp.zeros_like, horizon=2),
    _probe("probe-action", lambda s, a: 1 - (a - 0.5) ** 2, lambda s: jnp.full_like(s, 0.5)),
    _probe("probe-both", lambda s, a: 1 - (a - 0.5 * s) ** 2, lambda s: 0.5 * s, random_signal=True),
)
PROBES = {probe.env.spec.name: probe for probe in _PROBES}
