"""Imagined rollouts with a mask: a world model and a policy, `horizon` steps from given states."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_suite.types import Array, Key, Params, Transition, Tree, WorldModel

Policy = Callable[[Array, Key], Array]  # (obs [batch, obs_dim], key) -> action [batch, action_dim] in [-1, 1]


class _Carry(NamedTuple):
    state: Tree  # ModelState[batch]
    obs: Array  # [batch, obs_dim]
    alive: Array  # [batch] bool


def imagine(
    model: WorldModel, params: Params, policy: Policy, start_state: Tree, start_obs: Array, horizon: int, key: Key
) -> tuple[Transition, Array]:
    """Roll the policy out in the model; returns transitions and their mask, both with leading axes `[horizon, batch]`.

    A transition that terminates is valid and has discount 0; what follows it is not valid. The last step of a rollout
    that is cut at the horizon keeps discount 1, so its value is bootstrapped from a state that may never be an input of
    any update: the edge of reach (Sims et al. 2024).
    """

    def step(carry: _Carry, key: Key) -> tuple[_Carry, tuple[Transition, Array]]:
        policy_key, model_key = jax.random.split(key)
        action = policy(carry.obs, policy_key)
        state, prediction = model.step(params, carry.state, action, model_key)
        row = Transition(carry.obs, action, prediction.reward, prediction.discount, prediction.obs)
        # Ended rollouts stand still: were they to go on, they could reach inf, which no mask by multiplication undoes.
        state, obs = _where(carry.alive, (state, prediction.obs), (carry.state, carry.obs))
        return _Carry(state, obs, carry.alive & (prediction.discount > 0.0)), (row, carry.alive)

    first = _Carry(start_state, start_obs, jnp.ones(start_obs.shape[0], bool))
    _, rollout = jax.lax.scan(step, first, jax.random.split(key, horizon))
    return rollout


def _where(mask: Array, new: Tree, old: Tree) -> Tree:
    """Rows of `new` where `mask` `[batch]` holds, else rows of `old`."""
    return jax.tree.map(lambda a, b: jax.vmap(jnp.where)(mask, a, b), new, old)
