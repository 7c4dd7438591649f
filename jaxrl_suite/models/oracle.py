"""The true dynamics as a world model: any pure environment whose states can be restored from the rows of a data set.

There is nothing to learn: no weights, a loss of zero, and one member, which is certain of what it says. Every measure
of `models.uncertainty` is 0 then by its definition, and with it whatever an algorithm derives from them: Sims et al.
2024 (arXiv 2402.12527) ask what is left of pessimism about dynamics when there is no error in them.

A rollout begins at `env.restore`, which says what an observation does not tell, from the data's own states where they
are known. Hopper's and Walker2d's data hold NaN where a velocity was clipped in the observation; such a rollout begins
at the limit, in a state that looks the same and is not the one that was. A rollout is never truncated by the
environment's own horizon, because a model's are cut where the algorithm says.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_suite.envs import registry as envs
from jaxrl_suite.errors import UserError
from jaxrl_suite.types import (
    Array,
    Dataset,
    Env,
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


def make(env: Env) -> WorldModel:
    """The environment as a world model.

    Raises:
        UserError: its observations do not tell its states.
    """
    restore = env.restore
    if restore is None:
        raise UserError(
            f"{env.spec.name} cannot serve as a world model: its observations do not tell the simulator's state; "
            "give its Env a `restore`, or take another environment"
        )

    def init(key: Key, stats: Stats) -> Params:
        return Params((), stats, jnp.zeros(1, jnp.int32))

    def loss(weights: Tree, params: Params, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        return jnp.zeros(()), {}

    def start(params: Params, rows: Dataset) -> Tree:
        shown = jax.vmap(lambda obs: restore(obs, None))(rows.transitions.obs)
        if rows.sim_state is None:
            return shown
        stored = jax.vmap(restore)(rows.transitions.obs, rows.sim_state)
        known = jnp.all(jnp.isfinite(jnp.concatenate(rows.sim_state, axis=-1)), axis=-1)
        return jax.tree.map(lambda a, b: jax.vmap(jnp.where)(known, a, b), stored, shown)

    def step(params: Params, state: Tree, action: Array, key: Key) -> tuple[Tree, Prediction]:
        state, seen = jax.vmap(env.step)(state, action, jax.random.split(key, action.shape[0]))
        mean = jnp.concatenate([seen.obs, seen.reward[:, None]], axis=-1)[None]
        discount = 1.0 - seen.terminated.astype(jnp.float32)
        return state, Prediction(seen.obs, seen.reward, discount, Members(mean, jnp.zeros_like(mean)))

    return WorldModel(init=init, loss=loss, start=start, step=step)


def of(name: str, engine: str = "c") -> WorldModel:
    """The true dynamics of a registered environment; those of MuJoCo's tasks run on `engine`, "c" or "mjx".

    Raises:
        UserError: it has no pure version or no such engine, a package is missing, or its observations do not tell its
            states.
    """
    return make(envs.pure(name, engine))
