"""DQN on a chain whose values are known, where a time-out taken for an end, or an end for none, changes them all."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_suite import nets
from jaxrl_suite.algorithms import dqn, online, q_learning
from jaxrl_suite.envs import procmaze, termination
from jaxrl_suite.errors import UserError
from jaxrl_suite.types import Env, Spec, Timestep, Transition
from jaxrl_suite.values import heads

CELLS, GAMMA, LIMIT = 4, 0.8, 2
TINY = dqn.Config(
    envs=8, explore=800, replay=4_000, update_every=2, copy_every=50, epsilon=0.5, epsilon_steps=1, hidden=(32,),
    batch=64, gamma=GAMMA, learning_rate=3e-3, bins=51, support="-0.5,1.5",
)  # fmt: skip


def chain():
    """Left or right; right of the last cell ends the episode and pays 1. Cut after LIMIT steps, wherever that is."""

    def look(cell):
        return jax.nn.one_hot(cell, CELLS)

    def reset(key):
        cell = jax.random.randint(key, (), 0, CELLS)
        return (cell, jnp.int32(0)), look(cell)

    def step(state, action, key):
        cell, steps = state
        ended = (cell == CELLS - 1) & (action == 1)
        cell = jnp.clip(cell + 2 * action - 1, 0, CELLS - 1)
        cut = (steps + 1 >= LIMIT) & ~ended
        return (cell, steps + 1), Timestep(look(cell), ended * 1.0, ended, cut, jnp.bool_(True))

    return Env(Spec("chain", CELLS, 2, LIMIT, termination.never), reset, step)


def truth():
    value = GAMMA ** np.arange(CELLS - 1, -1, -1)
    left = GAMMA * value[np.maximum(np.arange(CELLS) - 1, 0)]
    return np.stack([left, value], axis=-1)


@partial(jax.jit, static_argnums=(0, 2))
def stretch(tick, state, ticks):
    return jax.lax.scan(lambda state, _: tick(state), state, None, ticks)


def learn(config, ticks=1_000):
    agent = dqn.make(chain(), config)
    state = jax.jit(lambda key: agent.explore(agent.init(key, agent.hypers)))(jax.random.key(0))
    state, metrics = stretch(agent.tick, state, ticks)
    return agent, state, metrics


@pytest.fixture(scope="module")
def learnt():
    return learn(replace(TINY, head="hl_gauss"))


slow = pytest.mark.slow
OTHERS = [pytest.param(name, marks=slow) for name in ("mse", "c51", "two_hot", "quantile", "mse_softmax")]


@pytest.mark.parametrize("head", ["hl_gauss", *OTHERS])
def test_values_of_a_chain_are_exact(head, learnt):
    agent, state, metrics = learnt if head == "hl_gauss" else learn(replace(TINY, head=head))
    np.testing.assert_allclose(agent.values(state, jnp.eye(CELLS)), truth(), atol=0.02)
    assert all(np.isfinite(x).all() for x in metrics.values())


@pytest.fixture(scope="module")
def q_learner():
    """A learner whose target network is another than its own, and rows of which some end."""
    config = heads.HeadConfig("mse")
    net = nets.mlp(CELLS, (8,), q_learning.outputs(2, config))
    learning = q_learning.make(net, 2, config, copy_every=3)
    keys = jax.random.split(jax.random.key(0), 4)
    learner = learning.init(keys[0])._replace(target=net.init(keys[1]))
    obs, after = jax.random.normal(keys[2], (2, 16, CELLS))
    action = jnp.arange(16) % 2
    rows = Transition(obs, action, jax.random.normal(keys[3], (16,)), jnp.float32(jnp.arange(16) % 3 > 0), after)
    return learning, learner, rows


RATES = dqn.Hypers(gamma=GAMMA, learning_rate=1e-2, epsilon=0.0)


def test_the_loss_is_the_bellman_error_to_the_target_networks_best_action(q_learner):
    """Q' chooses and judges; a row counts by its weight."""
    learning, learner, rows = q_learner
    share = jnp.float32(jnp.arange(16) % 4 > 0)
    _, metrics = learning.update(learner, rows, share, RATES)
    there = np.asarray(learning.values(learner._replace(weights=learner.target), rows.next_obs), np.float64)
    own = np.asarray(learning.values(learner, rows.next_obs), np.float64)
    assert (there.argmax(-1) != own.argmax(-1)).any()
    goal = np.asarray(rows.reward) + GAMMA * np.asarray(rows.discount) * there.max(axis=-1)
    found = np.asarray(learning.values(learner, rows.obs), np.float64)[np.arange(16), rows.action]
    np.testing.assert_allclose(metrics["loss"], np.mean(np.asarray(share) * np.square(found - goal)), rtol=1e-4)


def test_the_target_network_is_renewed_every_so_many_updates(q_learner):
    learning, learner, rows = q_learner
    for count in range(1, 7):
        before, (learner, _) = learner.target, learning.update(learner, rows, 1.0, RATES)
        expected = before if count % 3 else learner.weights
        for new, old in zip(jax.tree.leaves(learner.target), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(new, old)


def test_chance_falls_from_one_to_epsilon_after_exploration():
    found = [float(online.random_share(jnp.int32(step), 100, 50, 0.2)) for step in (0, 100, 125, 150, 10_000)]
    np.testing.assert_allclose(found, [1.0, 1.0, 0.6, 0.2, 0.2], rtol=1e-6)


def test_values_begin_where_they_are_asked_to():
    agent = dqn.make(chain(), replace(TINY, head="hl_gauss", support="-20,10", initial_value="-9"))
    state = jax.jit(lambda key: agent.init(key, agent.hypers))(jax.random.key(0))
    np.testing.assert_allclose(agent.values(state, jnp.eye(CELLS)), -9.0, atol=1.5)  # the middle is -5


def test_an_end_is_not_bootstrapped_and_a_time_out_is(learnt):
    _, state, _ = learnt
    rows = jax.tree.map(lambda x: np.asarray(x)[: int(state.replay.size)], state.replay.data)
    ends = (rows.obs[:, -1] == 1) & (rows.action == 1)
    np.testing.assert_array_equal(rows.discount == 0, ends)
    np.testing.assert_array_equal(rows.reward, ends)
    # The true successor, also where the episode was cut: never the first observation of the next one.
    moved = np.clip(rows.obs.argmax(-1) + 2 * rows.action - 1, 0, CELLS - 1)
    np.testing.assert_array_equal(rows.next_obs.argmax(-1), moved)


def test_stretches_are_one_program_and_a_state_is_all_there_is():
    agent = dqn.make(chain(), TINY)
    start = jax.jit(lambda key: agent.explore(agent.init(key, agent.hypers)))(jax.random.key(3))
    traces = []

    @partial(jax.jit, donate_argnums=())
    def part(state):
        traces.append(1)
        return jax.lax.scan(lambda state, _: agent.tick(state), state, None, 20)[0]

    there = part(part(start))
    saved = jax.tree.map(
        lambda x: x if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else np.array(x), part(start)
    )
    again = part(saved)
    assert len(traces) == 1
    assert int(there.learner.updates) == 2 * 20 * TINY.envs // TINY.update_every
    assert int(there.step) == TINY.explore + 2 * 20 * TINY.envs
    for one, other in zip(jax.tree.leaves(there), jax.tree.leaves(again), strict=True):
        if jax.dtypes.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_array_equal(one, other)


@slow
def test_seeds_run_side_by_side_in_mazes():
    config = dqn.Config(head="hl_gauss", bins=51, support="-11,1", hidden=(16,))
    agent = dqn.make(procmaze.make(3), config)
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    states = jax.jit(jax.vmap(lambda key: agent.explore(agent.init(key, agent.hypers))))(keys)
    states, metrics = jax.jit(jax.vmap(lambda s: jax.lax.scan(lambda s, _: agent.tick(s), s, None, 50)))(states)
    assert metrics["q"].shape == (2, 50) and np.isfinite(metrics["q"]).all()
    assert (np.asarray(metrics["clipped_targets"]) == 0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"update_every": 3}, "multiple of --update-every=3"),
        ({"explore": 801}, "--explore=801"),
        ({"explore": 0}, "--explore=0"),
        ({"replay": 4}, "--replay=4"),
        ({"epsilon": 1.5}, "--epsilon=1.5"),
        ({"head": "c52"}, "c51"),
        ({"head": "c51", "support": "auto"}, "--support"),
        ({"head": "c51", "support": "1,1"}, "encloses no value"),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    with pytest.raises(UserError, match=words):
        dqn.make(chain(), replace(TINY, **change))
