"""TD3+BC and ReBRAC: every equation against numpy, the delayed actor, and whole updates against stored results."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_suite import nets
from jaxrl_suite.algorithms import deterministic, networks, published, rebrac, td3_bc
from jaxrl_suite.errors import UserError
from jaxrl_suite.train import members
from jaxrl_suite.train.compose import chunk, population
from jaxrl_suite.types import Dataset, Spec, Transition
from jaxrl_suite.values import heads

GOLDEN = Path(__file__).parent / "golden"
SPEC = Spec("made-up", 3, 2, 10, lambda obs: obs[..., 0] > 1e9)
SMALL = {
    "updates": 2,
    "evaluations": 1,
    "hidden": (16, 16),
    "batch": 8,
    "tau": 0.1,
    "actor_lr": 1e-2,
    "critic_lr": 1e-2,
}
SIBLINGS = {
    "td3_bc": (td3_bc, td3_bc.Config(**SMALL)),
    "rebrac": (rebrac, rebrac.Config(**SMALL, actor_bc=0.3, critic_bc=0.7)),
}


def rows(number=32, seed=0):
    """A data set of random numbers, in episodes of four rows that run out of time."""
    keys = jax.random.split(jax.random.key(seed), 5)
    last = np.arange(number) % 4 == 3
    step = Transition(
        jax.random.normal(keys[0], (number, 3)),
        jnp.tanh(jax.random.normal(keys[1], (number, 2))),
        jax.random.normal(keys[2], (number,)),
        jnp.ones(number),
        jax.random.normal(keys[3], (number, 3)),
    )
    following = jnp.where(last[:, None], 0.0, jnp.tanh(jax.random.normal(keys[4], (number, 2))))
    return Dataset(step, following, jnp.asarray(last), jnp.arange(number) // 4, step.reward, None)


def after_a_tick(algorithm, data, hypers=None, key=0):
    (phase,) = algorithm.phases
    start = jax.jit(phase.init)(jax.random.key(key), hypers or algorithm.hypers, data, None)
    state, metrics = jax.jit(phase.update)(start, data)
    return start.learner, state.learner, metrics


def norms(learner):
    """Sum and norm of every learnt array, by its path."""
    learnt = {name: value for name, value in learner._asdict().items() if name not in ("hypers", "support")}
    leaves = jax.tree_util.tree_leaves_with_path(learnt)
    return {jax.tree_util.keystr(p): [float(jnp.sum(x)), float(jnp.sqrt(jnp.sum(x**2)))] for p, x in leaves}


@pytest.fixture(scope="module", params=SIBLINGS)
def ticked(request):
    module, config = SIBLINGS[request.param]
    return request.param, config, *after_a_tick(module.make(SPEC, config), rows())


def test_two_updates_equal_the_golden_tree(ticked):
    """Rewrite the files with `python tests/test_deterministic.py` when the mathematics is meant to change."""
    name, _, _, learner, _ = ticked
    golden, found = json.loads((GOLDEN / f"{name}.json").read_text()), norms(learner)
    assert found.keys() == golden.keys()
    for path, expected in golden.items():
        np.testing.assert_allclose(found[path], expected, rtol=1e-3, atol=1e-4, err_msg=path)


# --- The delayed actor ---
def test_the_actor_learns_once_in_delay_updates_and_the_targets_follow_then(ticked):
    _, config, start, learner, _ = ticked
    assert (learner.critic_opt.count, learner.actor_opt.count) == (2, 1)
    moved = max(
        float(jnp.max(jnp.abs(a - b)))
        for a, b in zip(*map(jax.tree.leaves, (start.actor, learner.actor)), strict=False)
    )
    np.testing.assert_allclose(moved, config.actor_lr, rtol=1e-3)  # Adam's first step, once
    for name in ("actor", "critic"):
        trees = getattr(start, name), getattr(learner, name), getattr(learner, f"target_{name}")
        for old, online, target in zip(*map(jax.tree.leaves, trees), strict=True):
            np.testing.assert_allclose(target, 0.9 * old + 0.1 * online, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("delay", "steps"), [(1, 6), (3, 2)])
def test_delays_of_other_lengths(delay, steps):
    config = td3_bc.Config(**{**SMALL, "updates": 6, "delay": delay, "hidden": (8,)})
    _, learner, metrics = after_a_tick(td3_bc.make(SPEC, config), rows())
    assert (learner.critic_opt.count, learner.actor_opt.count) == (6, steps)
    assert set(metrics) == {"bellman", "q_mean", "bc_mse"}


@pytest.mark.parametrize("delay", [0, 3, 4])
def test_a_delay_that_does_not_divide_is_refused(delay):
    with pytest.raises(UserError, match=f"--delay={delay} does not divide the 2 updates between two evaluations"):
        td3_bc.make(SPEC, td3_bc.Config(**{**SMALL, "delay": delay}))


# --- Targets ---
def test_the_noise_of_targets_is_clipped_and_so_are_actions():
    action = jnp.tile(jnp.array([[-0.95, 0.0, 0.6]]), (1000, 1))
    found = np.asarray(deterministic.smoothed(action, jax.random.key(3), 0.2, 0.5), np.float64)
    noise = np.asarray(jax.random.normal(jax.random.key(3), action.shape), np.float64)
    np.testing.assert_allclose(found, np.clip(action + np.clip(0.2 * noise, -0.5, 0.5), -1, 1), atol=1e-6)
    wild = np.asarray(deterministic.smoothed(action, jax.random.key(3), 50.0, 0.3))
    assert np.max(np.abs(wild - action)) <= 0.3 + 1e-6 and np.max(np.abs(wild)) <= 1.0
    assert np.unique(wild[:, 1].round(5)).size < 30  # all but a few lie on the bound


def forward(weights, x):
    """A network in numpy, with layer normalisation where it has some."""
    x = np.asarray(x, np.float64)
    for index in range(sum(name.startswith("hidden") for name in weights)):
        layer = weights[f"hidden_{index}"]
        x = np.maximum(x @ np.asarray(layer["kernel"], np.float64) + layer["bias"], 0.0)
        if f"norm_{index}" in weights:
            norm = weights[f"norm_{index}"]
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
            x = x * norm["scale"] + norm["bias"]
    (head,) = (layer for name, layer in weights.items() if not name.startswith(("hidden", "norm")))
    return x @ np.asarray(head["kernel"], np.float64) + head["bias"]


def test_layer_normalisation_equals_numpy():
    network = nets.mlp(4, (16, 8), {"value": 3}, bias_init=nets.symmetric_uniform(0.5), layer_norm=True)
    weights = jax.jit(network.init)(jax.random.key(0))
    weights = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), weights)
    x = jax.random.normal(jax.random.key(1), (5, 4))
    np.testing.assert_allclose(network.apply(weights, x)["value"], forward(weights, x), rtol=1e-4, atol=1e-5)
    assert not np.allclose(nets.mlp(4, (16, 8), {"value": 3}).apply(weights, x)["value"], forward(weights, x), rtol=0.1)


def test_shared_passes_are_left_where_layers_are_normalised():
    """Trap: the fused gradients hold for plain ReLU networks only, and would be wrong without a word."""
    critics = networks.critics(SPEC, (8, 8), 3, heads.make("mse"), "float32", scalar=True, layer_norm=True)
    weights, step = jax.jit(critics.init)(jax.random.key(0), ()), rows(6).transitions
    logits, slopes = critics.with_gradients(weights, (), step.obs, step.action)
    np.testing.assert_allclose(logits, critics.logits(weights, step.obs, step.action), rtol=1e-6)
    by_action = jax.grad(lambda action: jnp.sum(critics.values(weights, (), step.obs, action)[1]))(step.action)
    np.testing.assert_allclose(slopes[1], by_action, rtol=1e-5, atol=1e-7)


CASES = {"inside": (False, 1.0), "out of time": (True, 1.0), "terminal": (False, 0.0)}


@pytest.fixture(scope="module")
def one_row():
    """ReBRAC on a single row, which every batch repeats, and its update; nothing is smoothed, one update per tick."""
    config = rebrac.Config(**{**SMALL, "updates": 1, "delay": 1}, noise=0.0, critic_bc=0.7)
    algorithm = rebrac.make(SPEC, config)
    (phase,) = algorithm.phases
    return algorithm, jax.jit(phase.init), jax.jit(phase.update), jax.tree.map(lambda leaf: leaf[:1], rows())


@pytest.mark.parametrize("case", CASES)
def test_rebracs_critics_regress_on_the_penalised_target(one_row, case):
    """Trap: where an episode ran out of time no action follows; public code measures the distance to another's."""
    algorithm, init, update, row = one_row
    truncated, discount = CASES[case]
    step = row.transitions._replace(discount=jnp.array([discount]))
    row = row._replace(transitions=step, truncated=jnp.array([truncated]), next_action=row.next_action * ~truncated)
    state = init(jax.random.key(4), algorithm.hypers, row, None)
    # At the start targets are what they follow, and nothing would tell one from the other.
    moved = {name: jax.tree.map(lambda leaf: 3.0 * leaf, getattr(state.learner, name)) for name in ("actor", "critic")}
    learner = state.learner._replace(target_actor=moved["actor"], target_critic=moved["critic"])
    _, metrics = update(state._replace(learner=learner), row)

    def q(weights, obs, action):
        both = [jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), weights) for i in range(2)]
        return np.array([forward(each, np.concatenate([obs, action], axis=-1))[0, 0] for each in both])

    next_action = np.tanh(forward(learner.target_actor, step.next_obs))
    distance = np.sum(np.square(next_action - np.asarray(row.next_action)))
    next_value = np.min(q(learner.target_critic, step.next_obs, next_action)) - 0.7 * distance * (not truncated)
    y = float(step.reward[0]) + 0.99 * discount * next_value
    expected = np.mean(np.square(q(learner.critic, step.obs, step.action) - y))
    np.testing.assert_allclose(metrics["bellman"], expected, rtol=1e-4)
    assert distance > 0.1


def test_policy_and_values_are_asked_about_standardised_observations():
    """Trap: a policy that learns from standardised observations and acts on raw ones."""
    data = rows()
    data = data._replace(transitions=data.transitions._replace(obs=50.0 + 9.0 * data.transitions.obs))
    algorithm = td3_bc.make(SPEC, td3_bc.Config(**SMALL))
    (phase,) = algorithm.phases
    state = jax.jit(phase.init)(jax.random.key(0), algorithm.hypers, data, None)
    obs, action = data.transitions.obs, data.transitions.action
    mean, std = (np.asarray(f(np.asarray(obs, np.float64), axis=0)) for f in (np.mean, np.std))
    seen = (obs - mean) / (std + 1e-3)
    acted, _ = algorithm.act(state, (), obs, jax.random.key(0))
    np.testing.assert_allclose(acted, np.tanh(forward(state.learner.actor, seen)), rtol=1e-3, atol=1e-6)
    first = jax.tree.map(lambda leaf: leaf[0], state.learner.critic)
    expected = forward(first, np.concatenate([seen, action], axis=-1))[:, 0]
    np.testing.assert_allclose(algorithm.q_value(state, obs, action), expected, rtol=1e-3, atol=1e-6)


def test_rebracs_penalty_equals_numpy():
    data = rows()
    action = jnp.tanh(jax.random.normal(jax.random.key(9), (32, 2)))
    found = rebrac.penalty(algorithm_hypers("rebrac"), action, data)
    distance = np.square(np.asarray(action, np.float64) - data.next_action).sum(axis=1)
    np.testing.assert_allclose(found, 0.7 * np.where(np.arange(32) % 4 == 3, 0.0, distance), rtol=1e-6)


# --- Actors ---
def algorithm_hypers(name):
    module, config = SIBLINGS[name]
    return module.make(SPEC, config).hypers


Q = jnp.array([3.0, -1.0, 2.0, -4.0])
A, DATA = jnp.linspace(-0.9, 0.9, 8).reshape(4, 2), jnp.array([[0.3, -0.2]] * 4)


def test_td3_bcs_actor_loss_and_its_lambda():
    """lambda is a constant to the gradient: else the values' scale would be learnt away."""
    hypers = algorithm_hypers("td3_bc")
    loss, (by_q, by_action) = jax.value_and_grad(td3_bc.actor_loss, argnums=(1, 2))(hypers, Q, A, DATA)
    weight = 2.5 / 2.5  # the mean of |Q| is 2.5
    np.testing.assert_allclose(loss, -weight * 0.0 + np.mean(np.square(A - DATA)), rtol=1e-6)
    np.testing.assert_allclose(by_q, -weight / 4, rtol=1e-6)
    np.testing.assert_allclose(by_action, 2 * (A - DATA) / 8, rtol=1e-6)
    scaled = td3_bc.actor_loss(hypers, 1000 * (Q + 7), A, DATA)
    np.testing.assert_allclose(scaled, td3_bc.actor_loss(hypers, Q + 7, A, DATA), rtol=1e-5)
    np.testing.assert_array_equal(td3_bc.trusted(jnp.array([[3.0], [1.0]])), [3.0])


def test_rebracs_actor_loss():
    hypers = algorithm_hypers("rebrac")
    loss, (by_q, by_action) = jax.value_and_grad(rebrac.actor_loss, argnums=(1, 2))(hypers, Q + 1, A, DATA)
    size = np.mean(np.abs(np.array(Q) + 1))
    expected = np.mean(0.3 * np.sum(np.square(A - DATA), axis=1) - (np.array(Q) + 1) / size)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(by_q, -1 / size / 4, rtol=1e-6)
    np.testing.assert_allclose(by_action, 0.3 * 2 * (A - DATA) / 4, rtol=1e-6)
    np.testing.assert_array_equal(rebrac.trusted(jnp.array([[3.0], [1.0]])), [1.0])


# --- Populations, settings ---
def test_a_row_of_a_population_equals_the_solo_run():
    config = rebrac.Config(**{**SMALL, "updates": 20}, noise=0.1)
    algorithm, data = rebrac.make(SPEC, config), rows()
    phase = population(algorithm.phases[0])
    other = algorithm.hypers.replace(critic_bc=0.3)

    def trained(seeds, hypers):
        variants = [members.Variant(each) for each in hypers]
        with jax.enable_x64(True):
            wide = lambda tree: jax.tree.map(  # noqa: E731
                lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, tree
            )
            state = wide(jax.jit(phase.init)(*members.arguments(members.of(seeds, variants), data, 0, None)))
            return chunk(phase).run(state, wide(data))[0].members.learner

    together, alone = trained((0, 1), [algorithm.hypers, other]), trained((1,), [other])
    for many, one in zip(jax.tree.leaves(together.critic), jax.tree.leaves(alone.critic), strict=True):
        np.testing.assert_allclose(many[3], one[0], rtol=1e-5, atol=1e-10)
        assert not np.allclose(many[1], one[0], rtol=1e-6)


def test_published_settings_are_settings():
    config = published.applied(rebrac.PRESETS["paper"], "rebrac", "hopper-medium-replay-v2")
    assert config == dataclasses.replace(rebrac.Config(), actor_bc=0.05, critic_bc=0.5)
    assert published.applied(td3_bc.PRESETS["paper"], "td3_bc", "walker2d-medium") == td3_bc.Config(alpha=2.5)


if __name__ == "__main__":
    for name, (module, config) in SIBLINGS.items():
        _, learner, _ = after_a_tick(module.make(SPEC, config), rows())
        (GOLDEN / f"{name}.json").write_text(json.dumps(norms(learner), indent=1) + "\n")
