"""The actor-critic's update: its pieces against their definitions, and as a whole against a stored result."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_suite import distributions
from jaxrl_suite.algorithms import actor_critic as ac
from jaxrl_suite.algorithms import networks
from jaxrl_suite.algorithms.agent_config import AgentConfig
from jaxrl_suite.algorithms.registry import ALGORITHMS
from jaxrl_suite.types import Spec, Transition

GOLDEN = Path(__file__).parent / "golden" / "actor_critic.json"
SPEC = Spec("made-up", 3, 2, 10, lambda obs: obs[..., 0] > 1e9)
CONFIG = ac.ActorCriticConfig(critics=3, hidden=(16, 16), batch=8)
HYPERS = ac.Hypers(gamma=0.9, tau=0.1, diversity=0.5, actor_lr=1e-2, critic_lr=1e-2, alpha_lr=1e-2)


def batch(seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    return Transition(
        jax.random.normal(keys[0], (8, 3)),
        jnp.tanh(jax.random.normal(keys[1], (8, 2))),
        jax.random.normal(keys[2], (8,)),
        jnp.array([1.0, 0.0] * 4),
        jax.random.normal(keys[3], (8, 3)),
    )


@pytest.fixture(scope="module")
def learner():
    parts = ac.make(SPEC, CONFIG, diverse=True)
    return parts, jax.jit(parts.init)(jax.random.key(0), HYPERS, None), jax.jit(parts.update)


def norms(state):
    """Sum and norm of every learnt array, by its path."""
    learnt = {"actor": state.actor, "critic": state.critic, "target": state.target_critic, "alpha": state.log_alpha}
    leaves = jax.tree_util.tree_leaves_with_path(learnt)
    return {jax.tree_util.keystr(p): [float(jnp.sum(x)), float(jnp.sqrt(jnp.sum(x**2)))] for p, x in leaves}


def test_three_updates_equal_the_golden_tree(learner):
    """Rewrite the file with `python tests/test_actor_critic.py` when the mathematics is meant to change."""
    _, state, update = learner
    for step in range(3):
        state, _ = update(state, batch(step), jax.random.key(step))
    golden = json.loads(GOLDEN.read_text())
    found = norms(state)
    assert found.keys() == golden.keys()
    for path, expected in golden.items():
        np.testing.assert_allclose(found[path], expected, rtol=1e-3, atol=1e-4, err_msg=path)


@pytest.mark.parametrize("aggregate", ["min", "mean"])
def test_targets_are_those_of_the_target_critics_combined_as_asked(aggregate):
    """Where they differ from the online ones, as at the start they do not."""
    parts = ac.make(SPEC, dataclasses.replace(CONFIG, aggregate=aggregate, entropy_backup=False))
    state = jax.jit(parts.init)(jax.random.key(0), HYPERS, None)
    state = state._replace(target_critic=jax.tree.map(lambda leaf: -3.0 * leaf, state.critic))
    rows, key = batch(), jax.random.key(5)
    after, metrics = jax.jit(parts.update)(state, rows, key)
    action = parts.policy(after, rows.next_obs, jax.random.split(key, 3)[2])
    there = np.asarray(parts.values(state._replace(critic=state.target_critic), rows.next_obs, action), np.float64)
    found = np.asarray(parts.values(state, rows.obs, rows.action), np.float64)
    error = {
        how: np.mean(np.square(found - rows.reward - 0.9 * rows.discount * of(there, axis=0)))
        for how, of in {"min": np.min, "mean": np.mean}.items()
    }
    np.testing.assert_allclose(metrics["bellman"], error[aggregate], rtol=1e-4)
    assert abs(error["min"] - error["mean"]) > 1e-3 * error["min"]


def test_targets_are_bounded_from_below_where_that_is_asked():
    parts = ac.make(SPEC, dataclasses.replace(CONFIG, target_min=-3.0))
    state = jax.jit(parts.init)(jax.random.key(0), HYPERS, None)
    rows = batch()._replace(reward=10.0 * batch().reward, discount=jnp.zeros(8))
    _, metrics = jax.jit(parts.update)(state, rows, jax.random.key(0))
    found, bounded = parts.values(state, rows.obs, rows.action), np.maximum(rows.reward, -3.0)
    assert 0 < np.sum(bounded == -3.0) < 8
    np.testing.assert_allclose(metrics["bellman"], np.mean(np.square(found - bounded)), rtol=1e-5)


def test_the_temperature_falls_where_entropy_is_negative_but_above_its_target():
    """The target is -|A| = -2 and not 0, which the two cases beside this one cannot tell apart."""
    parts = ac.make(SPEC, CONFIG)
    state = jax.jit(parts.init)(jax.random.key(0), HYPERS, None)
    head = state.actor["log_std"]
    narrow = {**state.actor, "log_std": {**head, "bias": head["bias"] - 1.9}}
    after, metrics = jax.jit(parts.update)(state._replace(actor=narrow), batch(), jax.random.key(0))
    assert -1.7 < metrics["entropy"] < -0.3
    assert after.log_alpha < 0


def test_the_target_critics_move_by_tau(learner):
    _, state, update = learner
    after, _ = update(state, batch(), jax.random.key(0))
    for old, online, new in zip(
        *(jax.tree.leaves(tree) for tree in (state.target_critic, after.critic, after.target_critic)), strict=True
    ):
        np.testing.assert_allclose(new, 0.9 * old + 0.1 * online, rtol=1e-5, atol=1e-7)


def test_critics_regress_on_a_target_that_entropy_raises(learner):
    """y = r + gamma d (min_j Q_j(s', a') - alpha log pi(a' | s')), an unlikely action is worth more.

    Trap: a public file adds alpha log pi, which rewards certainty.
    """
    parts, state, update = learner
    rows, key = batch(), jax.random.key(5)
    after, metrics = update(state, rows, key)
    # The actor and the temperature have learnt by then, the critics have not.
    out = networks.actor(SPEC, CONFIG.hidden, "float32").apply(after.actor, rows.next_obs)
    policy = distributions.tanh_normal(out["mean"], out["log_std"])
    action, log_prob = distributions.sample_and_log_prob(policy, jax.random.split(key, 3)[2])
    following = np.min(parts.values(state._replace(critic=state.target_critic), rows.next_obs, action), axis=0)
    found = np.asarray(parts.values(state, rows.obs, rows.action), np.float64)

    def error(sign):
        value = following + sign * np.exp(float(after.log_alpha)) * np.asarray(log_prob)
        y = np.asarray(rows.reward) + 0.9 * np.asarray(rows.discount) * value
        return np.mean(np.square(found - y))

    np.testing.assert_allclose(metrics["bellman"], error(-1), rtol=1e-4)
    assert abs(error(1) - error(-1)) > 0.1 * error(-1)


def test_policies_act_without_noise(learner):
    """Trap: a public port evaluates agents by actions that it samples."""
    parts, state, _ = learner
    obs = batch().obs
    actions = [parts.act(state, (), obs, jax.random.key(seed))[0] for seed in (0, 1)]
    np.testing.assert_array_equal(*actions)
    out = networks.actor(SPEC, CONFIG.hidden, "float32").apply(state.actor, obs)
    np.testing.assert_allclose(actions[0], np.tanh(out["mean"]), rtol=1e-6)
    assert not np.allclose(parts.policy(state, obs, jax.random.key(0)), actions[0], atol=0.1)


def test_temperature_rises_where_entropy_is_below_its_target_and_falls_above():
    """The gradient of the temperature loss has the sign of (entropy - target): Adam's first step is lr by sign."""
    parts = ac.make(SPEC, CONFIG)
    init, update = jax.jit(parts.init), jax.jit(parts.update)
    state = init(jax.random.key(0), HYPERS, None)
    fresh, metrics = update(state, batch(), jax.random.key(0))
    assert metrics["entropy"] > -SPEC.action_dim
    assert fresh.log_alpha < 0
    certain = jax.tree_util.tree_map_with_path(
        lambda path, x: (
            x - 20.0 if "log_std" in jax.tree_util.keystr(path) and "bias" in jax.tree_util.keystr(path) else x
        ),
        state.actor,
    )
    narrowed, metrics = update(state._replace(actor=certain), batch(), jax.random.key(0))
    assert metrics["entropy"] < -SPEC.action_dim
    assert narrowed.log_alpha > 0


def test_eta_zero_equals_no_diversity(learner):
    parts, _, update = learner
    plain = ac.make(SPEC, CONFIG)
    state = jax.jit(parts.init)(jax.random.key(1), HYPERS.replace(diversity=0.0), None)
    with_term, _ = update(state, batch(), jax.random.key(1))
    without, _ = jax.jit(plain.update)(state, batch(), jax.random.key(1))
    for a, b in zip(jax.tree.leaves(with_term.critic), jax.tree.leaves(without.critic), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


if __name__ == "__main__":
    parts = ac.make(SPEC, CONFIG, diverse=True)
    state, step_ = jax.jit(parts.init)(jax.random.key(0), HYPERS, None), jax.jit(parts.update)
    for i in range(3):
        state, _ = step_(state, batch(i), jax.random.key(i))
    GOLDEN.write_text(json.dumps(norms(state), indent=1) + "\n")


# --- layer normalisation ---
@pytest.mark.parametrize("layer_norm", [False, True])
def test_layer_normalisation_keeps_values_far_from_the_data_from_growing(layer_norm):
    """Without it a ReLU network is linear far away, and its values grow as inputs do; with it they stay as they are."""
    parts = ac.make(SPEC, dataclasses.replace(CONFIG, layer_norm=layer_norm))
    state, rows = parts.init(jax.random.key(0), HYPERS, None), batch()
    near, far = (parts.values(state, scale * rows.obs, scale * rows.action) for scale in (1e3, 1e5))
    growth = np.abs(far) / np.abs(near)
    np.testing.assert_allclose(growth, 1.0 if layer_norm else 100.0, rtol=0.2)


ENTROPIC = [e.name for e in ALGORITHMS.values() if isinstance(e.presets["quick"], AgentConfig)]


@pytest.mark.parametrize("name", ENTROPIC)
def test_layer_normalisation_is_an_option_of_every_maximum_entropy_algorithm(name):
    config = ALGORITHMS[name].presets["quick"]
    assert not config.actor_critic().layer_norm
    assert dataclasses.replace(config, layer_norm=True).actor_critic().layer_norm
