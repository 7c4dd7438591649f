"""A population is its members: same numbers, same cost, one program; a diverged member does not disturb the others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import random_data

from jaxrl_suite import mesh
from jaxrl_suite.algorithms import bc, ravl
from jaxrl_suite.algorithms import registry as algorithms
from jaxrl_suite.envs import registry
from jaxrl_suite.train import compose, members
from jaxrl_suite.train.compose import chunk, population
from jaxrl_suite.types import Phase

ENV = registry.make("pendulum")
# EDAC's term divides by the length of an action gradient, and where one all but vanishes it makes visible what was
# rounding, in float64 too: of four seeds one or two meet such a batch within their first hundred updates. For others
# metrics agree to rtol 1e-5; of the weights, those whose gradient is zero but for rounding move by Adam's step size.
CONFIG = dataclasses.replace(ravl.PRESETS["smoke"], updates=100, period=100, diversity=0.0)
DIVERSE = dataclasses.replace(CONFIG, diversity=1.0, tau=0.005, actor_lr=3e-4, critic_lr=3e-4, alpha_lr=3e-4)


def arguments(algorithm, seeds, data, index, previous, hypers=None):
    variants = [members.Variant(h) for h in hypers or [algorithm.hypers]]
    return members.arguments(members.of(seeds, variants), data, index, previous)


@pytest.fixture(scope="module")
def data():
    return random_data(ENV, 400)


@pytest.fixture(scope="module")
def algorithm():
    return ravl.make(ENV.spec, CONFIG)


SEEDS = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def models(algorithm, data):
    """A fitted world model per seed."""
    fit = population(algorithm.phases[0])
    fitted, _ = chunk(fit).run(jax.jit(fit.init)(*arguments(algorithm, SEEDS, data, 0, None)), data)
    return fit.result(fitted)


def wide(tree):
    """The tree in float64, where rounding does not grow into visible differences within a hundred updates."""
    return jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, tree)


def agent_after_a_tick(algorithm, data, seeds, models):
    """The RAVL agent of `seeds` after its first 100 updates."""
    agent = population(algorithm.phases[1])
    program = chunk(agent)
    with jax.enable_x64(True):
        state = wide(jax.jit(agent.init)(*arguments(algorithm, seeds, data, 1, models)))
        lowered = program.run.lower(state, wide(data))
        state, metrics = program.run(state, wide(data))
    return state, metrics, lowered


@pytest.fixture(scope="module")
def four(algorithm, data, models):
    return agent_after_a_tick(algorithm, data, SEEDS, models)


@pytest.fixture(scope="module")
def solo(algorithm, data, models):
    return agent_after_a_tick(algorithm, data, (2,), jax.tree.map(lambda leaf: leaf[2:3], models))


def test_a_row_equals_the_solo_run_for_the_first_hundred_updates(four, solo):
    row = jax.tree.map(lambda leaf: leaf[2], four[0].members.agent)
    alone = jax.tree.map(lambda leaf: leaf[0], solo[0].members.agent)
    for a, b in zip(jax.tree.leaves(row), jax.tree.leaves(alone), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-12)
    for name, value in solo[1].items():
        np.testing.assert_allclose(four[1][name][2], value[0], rtol=1e-5, err_msg=name)


def test_with_diversity_a_row_equals_the_solo_run_for_the_first_hundred_updates(data):
    """At the published step sizes, from untrained models."""
    algorithm = ravl.make(ENV.spec, DIVERSE)
    fit = population(algorithm.phases[0])
    models = fit.result(jax.jit(fit.init)(*arguments(algorithm, SEEDS, data, 0, None)))
    four, metrics, _ = agent_after_a_tick(algorithm, data, SEEDS, models)
    solo, alone, _ = agent_after_a_tick(algorithm, data, SEEDS[:1], jax.tree.map(lambda leaf: leaf[:1], models))
    for name in ("actor", "critic", "target_critic", "log_alpha"):
        weights = [jax.tree.leaves(getattr(run.members.agent, name)) for run in (four, solo)]
        for a, b in zip(*weights, strict=True):
            np.testing.assert_allclose(a[0], b[0], rtol=1e-5, atol=1e-4, err_msg=name)
    for name, value in alone.items():
        np.testing.assert_allclose(metrics[name][0], value[0], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("block", [1, 2])
def test_members_that_take_turns_learn_as_they_do_side_by_side(algorithm, data, models, four, block, monkeypatch):
    """A CPU takes as many at once as its caches hold; these four fit, so that less is said to fit here."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(four[0].members)) / 4
    monkeypatch.setattr(compose, "CACHED", int(block * size) + 64)
    state, metrics, _ = agent_after_a_tick(algorithm, data, SEEDS, models)
    assert compose.together(state.members, 4) == block
    for a, b in zip(jax.tree.leaves(state.members.agent), jax.tree.leaves(four[0].members.agent), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-12)
    for name, values in four[1].items():
        np.testing.assert_allclose(metrics[name], values, rtol=1e-5, err_msg=name)


def test_blocks_divide_the_members_and_accelerators_take_all_at_once(monkeypatch):
    state = {"weights": jnp.zeros((12, 1024), jnp.float32), "key": jax.random.split(jax.random.key(0), 12)}
    own = 4096 + 8
    for fit, block in ((0.5, 1), (1, 1), (4.9, 4), (5, 4), (6.1, 6), (11.9, 6), (12, 12), (100, 12)):
        monkeypatch.setattr(compose, "CACHED", int(fit * own))
        assert compose.together(state, 12) == block, fit
    monkeypatch.setattr(compose, "CACHED", 1)
    with mesh._IN_USE(mesh.make(1, 1)):
        assert compose.together(state, 12) == 1
    monkeypatch.setattr(mesh, "alone", lambda: False)
    assert compose.together(state, 12) == 12
    monkeypatch.undo()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compose.together({"weights": jnp.zeros((2, 10**7))}, 2) == 2


def test_four_cost_at_most_4_2_times_the_flops_of_one(four, solo):
    flops = [run[2].cost_analysis()["flops"] for run in (four, solo)]
    assert 3.5 < flops[0] / flops[1] <= 4.2


def test_members_differ(four):
    weights = jax.tree.leaves(four[0].members.agent.actor)[0]
    assert not np.allclose(weights[0], weights[1])


def test_a_diverged_member_is_frozen_and_marked_while_the_others_go_on(data):
    algorithm = bc.make(ENV.spec, bc.PRESETS["smoke"])
    phase = population(algorithm.phases[0])
    keys, hypers, rows, previous = arguments(algorithm, (0, 1, 2), data, 0, None)
    # The second member's step size overflows its weights at once.
    hypers = hypers.replace(learning_rate=jnp.array([3e-4, 1e38, 3e-4]))
    state = jax.jit(phase.init)(keys, hypers, rows, previous)
    before = jax.tree.map(np.array, state.members.learner.weights)
    program = chunk(phase)
    for _ in range(2):
        state, _ = program.run(state, rows)
    np.testing.assert_array_equal(state.diverged, [False, True, False])
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(state.members.learner.weights), strict=True):
        np.testing.assert_array_equal(old[1], new[1])
        assert np.all(np.isfinite(new))
    assert not np.allclose(jax.tree.leaves(before)[1][0], jax.tree.leaves(state.members.learner.weights)[1][0])
    assert len(program.traces) == 1


def test_variants_of_traced_hypers_are_the_runs_they_would_be_alone(algorithm, data, models):
    """Two seeds of two variants in one program, each row as the solo run of that seed with those hypers."""
    other = algorithm.hypers.replace(gamma=0.9, tau=0.05, critic_lr=1e-3)
    agent = population(algorithm.phases[1])
    program = chunk(agent)
    two = jax.tree.map(lambda leaf: leaf[:2], models)

    def after_a_tick(seeds, hypers, models):
        with jax.enable_x64(True):
            state = wide(jax.jit(agent.init)(*arguments(algorithm, seeds, data, 1, models, hypers)))
            return program.run(state, wide(data))[0].members

    together = after_a_tick((0, 1), [algorithm.hypers, other], jax.tree.map(lambda x: jnp.concatenate([x, x]), two))
    alone = after_a_tick((1,), [other], jax.tree.map(lambda leaf: leaf[1:], two))
    for wide_leaf, leaf in zip(
        jax.tree.leaves(together.agent.critic), jax.tree.leaves(alone.agent.critic), strict=True
    ):
        np.testing.assert_allclose(wide_leaf[3], leaf[0], rtol=1e-5, atol=1e-8)
        assert not np.allclose(wide_leaf[1], leaf[0], rtol=1e-3)  # the same seed with other hypers


def test_what_does_not_depend_on_hypers_is_made_once_per_seed(algorithm):
    people = members.of((5, 7), [members.Variant(algorithm.hypers), members.Variant(algorithm.hypers, "tau=0.1")])
    assert [(m.seed, m.variant.settings) for m in people] == [(5, ""), (7, ""), (5, "tau=0.1"), (7, "tau=0.1")]
    fit, agent = algorithm.phases
    assert members.of_phase(agent, people) == people
    assert members.of_phase(fit, people) == people[:2]
    shared = members.share(jnp.array([[5.0], [7.0]]), members.of_phase(fit, people), people)
    np.testing.assert_array_equal(shared, [[5.0], [7.0], [5.0], [7.0]])


# --- types: JAX compiles a program anew for a weakly typed number, and a checkpoint brings back strong ones ---
def weak(tree):
    return [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if leaf.weak_type]


@pytest.mark.parametrize("name", ["bc", "ravl", "sac"])
def test_a_resumed_run_goes_on_with_the_program_it_had(name, data):
    entry = algorithms.get(name)
    algorithm = entry.make(ENV.spec, entry.presets["smoke"])
    previous = None
    for index, phase in enumerate(map(population, algorithm.phases)):
        begun = jax.eval_shape(phase.init, *arguments(algorithm, (0, 1), data, index, previous))
        after, _ = jax.eval_shape(lambda state, phase=phase: chunk(phase).run(state, data), begun)
        assert weak(begun) == weak(after) == []
        assert jax.tree.map(lambda x: (x.shape, x.dtype), begun) == jax.tree.map(lambda x: (x.shape, x.dtype), after)
        previous = jax.eval_shape(phase.result, begun)


def test_a_phase_that_begins_with_weak_numbers_is_made_strong():
    one = lambda key, hypers, data, previous: {"x": jnp.full((), 2) * 0.5, "rate": hypers}  # noqa: E731
    phase = Phase("weak", 1, 1, 1, one, lambda state, data: (state, {}))
    assert weak(jax.eval_shape(lambda: one(None, 1e-3, None, None))) == ["['rate']", "['x']"]
    keys = jnp.stack([jax.random.key(0), jax.random.key(1)])
    assert weak(jax.eval_shape(population(phase).init, keys, jnp.ones(2), None, None)) == []
