"""Ideas together, patches of targets at the edge of reach with their control, and what ensembles say there."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import random_data
from test_model_based import ENV, SMALL, same

from jaxrl_suite.algorithms import actor_critic, dyna, edge, mbpo, ravl
from jaxrl_suite.algorithms.ideas import PLAIN, Idea, State, together
from jaxrl_suite.errors import UserError
from jaxrl_suite.models import ensemble, oracle, uncertainty
from jaxrl_suite.types import Params, Stats, Transition

KEY = jax.random.key(0)
GAMMA = 0.9


class Learner:
    """As much of an agent's state as ideas read."""

    hypers = actor_critic.Hypers(gamma=GAMMA)


STATE = State(Learner(), Params((), Stats(jnp.zeros(1), jnp.ones(1)), jnp.zeros(1, jnp.int32)), None, KEY)


def batch_of(next_obs, discount=None):
    next_obs = jnp.float32(next_obs)
    n = len(next_obs)
    discount = jnp.ones(n) if discount is None else jnp.float32(discount)
    return Transition(
        jnp.zeros((n, 1)), jnp.zeros((n, 1)), jnp.arange(n, dtype=jnp.float32), discount, next_obs[:, None]
    )


def outside(next_obs):
    return next_obs[:, 0] > 10.0


def value(obs):
    return 100.0 + obs[:, 0]


def relabelled(idea, batch, key=KEY):
    return idea.relabel(None, STATE, batch, key), idea.measure(None, STATE, batch, key)


# --- patches ---
def test_targets_at_the_edge_hold_the_true_value_and_no_bootstrap():
    batch = batch_of([1.0, 11.0, 12.0, 11.0, 2.0], [1.0, 1.0, 1.0, 0.0, 1.0])
    found, metrics = relabelled(edge.patch(value, outside), batch)
    # A terminal successor is no target of a bootstrap, wherever it lies.
    np.testing.assert_allclose(found.reward, [0.0, 1.0 + GAMMA * 111.0, 2.0 + GAMMA * 112.0, 3.0, 4.0], rtol=1e-6)
    np.testing.assert_array_equal(found.discount, [1.0, 0.0, 0.0, 0.0, 1.0])
    assert same(found._replace(reward=batch.reward, discount=batch.discount), batch)
    np.testing.assert_allclose(metrics["patched"], 2 / 5)


def test_a_q_function_is_asked_for_the_policys_action():
    idea = edge.patch(
        lambda obs, action: obs[:, 0] + 1000.0 * action[:, 0], outside, lambda agent, obs, key: jnp.full_like(obs, 0.5)
    )
    found, _ = relabelled(idea, batch_of([1.0, 11.0]))
    np.testing.assert_allclose(found.reward, [0.0, 1.0 + GAMMA * 511.0], rtol=1e-6)


def test_the_control_patches_as_many_targets_none_of_them_at_the_edge_and_all_as_often():
    next_obs = np.array([1.0, 11.0, 2.0, 12.0, 3.0, 4.0, 5.0, 13.0])
    batch = batch_of(next_obs, [1, 1, 1, 1, 1, 1, 0, 0])  # two at the edge, four inside, two ended
    found, metrics = jax.jit(jax.vmap(lambda key: relabelled(edge.patch_random(value, outside), batch, key)))(
        jax.random.split(KEY, 2_000)
    )
    chosen = (np.asarray(found.discount) == 0) & (np.asarray(batch.discount) > 0)
    assert (chosen.sum(-1) == 2).all() and not chosen[:, next_obs > 10].any()
    np.testing.assert_allclose(chosen.mean(0)[[0, 2, 4, 5]], 0.5, atol=0.05)
    expected = np.asarray(batch.reward) + GAMMA * (100.0 + next_obs)
    np.testing.assert_allclose(found.reward, np.where(chosen, expected, batch.reward), rtol=1e-6)
    np.testing.assert_allclose(metrics["patched"], 2 / 8)  # of the very rows that were patched, by the same key


def test_the_control_patches_no_more_than_there_is():
    found, metrics = relabelled(edge.patch_random(value, outside), batch_of([11.0, 12.0, 13.0, 1.0]))
    np.testing.assert_array_equal(found.discount, [1.0, 1.0, 1.0, 0.0])
    np.testing.assert_allclose(metrics["patched"], 1 / 4)


def test_a_run_tells_the_shares_and_changes_only_where_it_patches():
    """Whole periods of the base: watched alone it is the base to the bit; a patch of nothing too."""
    data = random_data(ENV, 100)
    config = mbpo.Config(**SMALL, world="oracle")

    def run(*ideas):
        algorithm = mbpo.make(ENV.spec, config, together(*ideas))
        hypers = jax.tree.map(jnp.float32, algorithm.hypers)
        state = jax.jit(algorithm.phases[0].init)(KEY, hypers, data, None)
        return jax.jit(algorithm.phases[0].update)(state, data)

    fast = lambda obs: jnp.abs(obs[:, 2]) > 3.0  # noqa: E731
    nowhere = lambda obs: obs[:, 0] > 2.0  # noqa: E731
    minus = lambda obs: -100.0 * jnp.ones(len(obs))  # noqa: E731
    base, _ = run()
    watched, seen = run(edge.watch(fast), edge.patch(minus, nowhere))
    patched, metrics = run(edge.watch(fast), edge.patch(minus, fast))
    assert same(watched.agent.critic, base.agent.critic) and not same(patched.agent.critic, base.agent.critic)
    assert 0 < float(seen["edge_targets"]) < 1 and float(seen["patched"]) == 0
    assert float(metrics["patched"]) == float(metrics["edge_targets"]) == float(seen["edge_targets"])


# --- ideas together ---
def noisy(name, amount):
    """An idea that uses all its seams, and its own part of the state."""

    def transform(model, state):
        return model._replace(start=lambda params, rows: model.start(params, rows) * state.extra + amount)

    def adapt(model, state, data, key):
        return state._replace(extra=state.extra + amount, key=jax.random.fold_in(state.key, 1)), {name: state.extra}

    return Idea(
        transform=transform,
        prepare=lambda model, params, data, key: amount,
        adapt=adapt,
        relabel=lambda model, state, batch, key: batch._replace(reward=batch.reward * state.extra + amount),
        measure=lambda model, state, batch, key: {f"{name}_seen": jnp.sum(batch.reward)},
    )


def test_ideas_act_in_their_order_each_on_its_own_part_of_the_state():
    idea = together(noisy("a", 2.0), PLAIN, noisy("b", 3.0))
    state = STATE._replace(extra=idea.prepare(None, None, None, KEY))
    assert state.extra == (2.0, 3.0)
    model = oracle.make(ENV)._replace(start=lambda params, rows: 1.0)
    assert idea.transform(model, state).start(None, None) == (1.0 * 2.0 + 2.0) * 3.0 + 3.0
    after, metrics = idea.adapt(None, state, None, KEY)
    assert after.extra == (4.0, 6.0) and metrics == {"a": 2.0, "b": 3.0}
    batch = batch_of([0.0, 0.0])
    np.testing.assert_array_equal(idea.relabel(None, state, batch, KEY).reward, [9.0, 15.0])
    # Both measure what was drawn, not what the other made of it.
    assert idea.measure(None, state, batch, KEY) == {"a_seen": 1.0, "b_seen": 1.0}


def test_one_idea_among_plain_ones_is_itself():
    idea = noisy("a", 1.0)
    assert together() is PLAIN and together(PLAIN, Idea()) is PLAIN and together(PLAIN, idea) is idea


# --- what ensembles say ---
def test_a_diagnosis_is_the_spread_of_the_critics_and_the_doubt_of_the_model():
    values = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    model = ensemble.make(ENV.spec, dataclasses.replace(SMALL["dynamics"], evaluate="all"))
    params = model.init(KEY, Stats(jnp.zeros(4), jnp.ones(4)))
    obs, action = random_data(ENV, 7).transitions[:2]
    measure = uncertainty.make("max_pairwise")

    def found(model, params):
        state = STATE._replace(model=params)
        return edge.diagnose(lambda state, obs, action: jnp.array(values), model, measure, state, obs, action, KEY)

    learned = found(model, params)
    wide = values.astype(np.float64)
    np.testing.assert_allclose(learned.gap, wide.mean(0) - wide.min(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(learned.std, wide.std(0), rtol=1e-5)
    means = np.asarray(model.step(params, obs, action, KEY)[1].members.mean, np.float64)
    pairs = np.sqrt(np.square(means[:, None] - means[None]).sum(-1)).max((0, 1))
    np.testing.assert_allclose(learned.penalty, pairs, rtol=1e-4)
    true = oracle.make(ENV)
    np.testing.assert_array_equal(found(true, true.init(KEY, params.stats)).penalty, 0.0)
    drawn = ensemble.make(ENV.spec, dataclasses.replace(SMALL["dynamics"], evaluate="drawn"))
    with pytest.raises(UserError, match="evaluate=all"):
        found(drawn, params)


def test_an_algorithm_gives_the_values_of_all_its_critics():
    config = ravl.Config(**SMALL | {"critics": 3}, world="oracle")
    algorithm = ravl.make(ENV.spec, config)
    data = random_data(ENV, 20)
    hypers = jax.tree.map(jnp.float32, algorithm.hypers)
    state = jax.jit(algorithm.phases[0].init)(KEY, hypers, data, None)
    obs, action = data.transitions[:2]
    values = algorithm.q_values(state, obs, action)
    assert values.shape == (3, 20)
    np.testing.assert_allclose(jnp.min(values, axis=0), algorithm.q_value(state, obs, action), rtol=1e-6)
    assert dyna.world(ENV.spec, config).fits == ()
