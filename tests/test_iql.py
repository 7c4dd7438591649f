"""IQL: every equation against direct computation, and a whole update against a stored result."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from test_best_rows import episodes
from test_deterministic import GOLDEN, SPEC, after_a_tick, forward, norms, rows

from jaxrl_suite import distributions
from jaxrl_suite.algorithms import iql, published

CONFIG = iql.Config(
    updates=2,
    evaluations=1,
    hidden=(16, 16),
    batch=8,
    tau=0.1,
    actor_lr=1e-2,
    critic_lr=1e-2,
    value_lr=1e-2,
)
X = np.random.default_rng(0).exponential(size=500)


# --- V ---
def slope(expectile, v):
    """Of the mean loss, by V; zero where V is the expectile."""
    return float(jax.grad(lambda v: jnp.mean(iql.expectile_loss(jnp.asarray(X) - v, expectile)))(v))


@pytest.mark.parametrize("expectile", [0.1, 0.5, 0.7, 0.9, 0.99])
def test_the_loss_is_least_at_the_expectile(expectile):
    expected = scipy.stats.expectile(X, expectile)
    with jax.enable_x64(True):
        assert abs(slope(expectile, expected)) < 1e-9
        assert slope(expectile, expected - 0.01) < -1e-4 and slope(expectile, expected + 0.01) > 1e-4


def test_the_limits_are_the_mean_and_the_maximum():
    with jax.enable_x64(True):
        assert abs(slope(0.5, X.mean())) < 1e-9
        assert slope(1.0, X.max() + 1e-6) == 0.0 > slope(1.0, X.max() - 0.1)


# --- The policy ---
@pytest.mark.parametrize("beta", [0.0, 3.0, 10.0])
def test_weights_are_clipped_and_finite(beta):
    advantage = np.array([-1e30, -1.0, 0.0, 0.3, 1.5, 2.0, 1e30])
    with np.errstate(over="ignore"):
        expected = np.minimum(np.exp(beta * advantage), 100.0)
    np.testing.assert_allclose(iql.weights_of(jnp.asarray(advantage, jnp.float32), beta), expected, rtol=1e-5)


def test_the_policys_density_is_that_of_a_plain_normal():
    """Not of a squashed one: only the mean goes through tanh."""
    mean, log_std, action = jnp.array([[0.2, -0.8]]), jnp.array([-1.0, 0.3]), jnp.array([[1.0, -0.9]])
    expected = scipy.stats.norm.logpdf(action, mean, np.exp(log_std)).sum()
    np.testing.assert_allclose(distributions.normal_log_prob(mean, log_std, action), [expected], rtol=1e-5)
    least = scipy.stats.norm.logpdf(0.0, 0.0, np.exp(-5.0))
    np.testing.assert_allclose(distributions.normal_log_prob(jnp.zeros(1), jnp.array([-30.0]), jnp.zeros(1)), least)


@pytest.fixture(scope="module")
def ticked():
    return after_a_tick(iql.make(SPEC, CONFIG), rows())


def test_the_policys_step_size_falls_along_a_cosine():
    """Of two updates the second has half the step size; Adam's direction hardly changes on one row."""
    row = jax.tree.map(lambda leaf: leaf[:1], rows())
    algorithm = iql.make(SPEC, iql.Config(**{**vars(CONFIG), "evaluations": 2, "deterministic": True}))
    (phase,) = algorithm.phases
    states = [jax.jit(phase.init)(jax.random.key(0), algorithm.hypers, row, None)]
    update = jax.jit(phase.update)
    for _ in range(2):
        states.append(update(states[-1], row)[0])
    biases = [np.asarray(state.learner.actor["mean"]["mean"]["bias"]) for state in states]
    steps = [np.max(np.abs(after - before)) for before, after in itertools.pairwise(biases)]
    np.testing.assert_allclose(steps[0], 1e-2, rtol=1e-3)
    np.testing.assert_allclose(steps[1], 0.5e-2, rtol=0.1)
    np.testing.assert_array_equal(states[2].learner.actor["log_std"], 0.0)  # a deterministic policy has none


# --- The critics ---
@pytest.fixture(scope="module")
def one_row():
    algorithm = iql.make(SPEC, iql.Config(**{**vars(CONFIG), "updates": 1, "normalise": False}))
    (phase,) = algorithm.phases
    return algorithm, jax.jit(phase.init), jax.jit(phase.update), jax.tree.map(lambda leaf: leaf[:1], rows())


@pytest.mark.parametrize(("discount", "scale"), [(0.0, 1.0), (1.0, 1.0), (1.0, 5.0)])
def test_v_and_critics_regress_on_their_targets(one_row, discount, scale):
    algorithm, init, update, row = one_row
    step = row.transitions._replace(discount=jnp.array([discount]))
    row = row._replace(transitions=step)
    start = init(jax.random.key(4), algorithm.hypers, row, None)
    # At the start the target critics are the critics, and nothing would tell one from the other.
    target = jax.tree.map(lambda leaf: 3.0 * leaf, start.learner.critic)
    start = start._replace(learner=start.learner._replace(target_critic=target, scale=jnp.float32(scale)))
    after, metrics = update(start, row)

    def q_of(critic):
        both = [jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), critic) for i in range(2)]
        return np.array([forward(each, np.concatenate([step.obs, step.action], axis=-1))[0, 0] for each in both])

    q, least = q_of(start.learner.critic), q_of(target).min()
    u = least - forward(start.learner.value, step.obs)[0, 0]
    np.testing.assert_allclose(metrics["value_loss"], (0.7 if u > 0 else 0.3) * u**2, rtol=1e-4)
    # The critics bootstrap from the new V, and the policy is weighted by it.
    y = scale * float(step.reward[0]) + 0.99 * discount * forward(after.learner.value, step.next_obs)[0, 0]
    np.testing.assert_allclose(metrics["bellman"], np.mean(np.square(q - y)), rtol=1e-4)
    advantage = least - forward(after.learner.value, step.obs)[0, 0]
    np.testing.assert_allclose(metrics["advantage"], advantage, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(metrics["weight"], np.exp(3.0 * advantage), rtol=1e-4)


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_better_action_is_cloned_and_without_temperature_both_are(deterministic):
    """In one place 0.5 pays 1 and -0.5 nothing: the weights decide, whichever loss they weigh."""
    better = jnp.arange(32) % 2 == 0
    data = rows()
    step = data.transitions._replace(
        obs=jnp.zeros((32, 3)), action=jnp.where(better[:, None], 0.5, -0.5) * jnp.ones(2), discount=jnp.zeros(32)
    )
    data = data._replace(transitions=step._replace(reward=1.0 * better))
    changes = {"updates": 400, "batch": 32, "hidden": (16,), "deterministic": deterministic, "normalise": False}
    algorithm = iql.make(SPEC, iql.Config(**{**vars(CONFIG), **changes}))
    (phase,) = algorithm.phases
    init, update = jax.jit(phase.init), jax.jit(phase.update)
    for beta, expected in ((0.0, 0.0), (10.0, 0.5)):
        start = init(jax.random.key(0), jax.tree.map(jnp.float32, algorithm.hypers.replace(beta=beta)), data, None)
        state, _ = update(start, data)
        action, _ = algorithm.act(state, (), step.obs[:1], jax.random.key(0))
        np.testing.assert_allclose(action, expected, atol=0.15)


def test_only_the_critics_targets_follow_by_tau(ticked):
    start, learner, _ = ticked
    assert (learner.critic_opt.count, learner.actor_opt.count, learner.value_opt.count) == (2, 2, 2)
    # The first of two steps shows in the second's target: 0.9 (0.9 w0 + 0.1 w1) + 0.1 w2, w1 within 0.01 of w0.
    for old, online, target in zip(
        *map(jax.tree.leaves, (start.critic, learner.critic, learner.target_critic)), strict=True
    ):
        np.testing.assert_allclose(target, 0.9 * old + 0.1 * online, atol=0.09 * 0.0101)


def test_rewards_are_scaled_by_the_range_of_known_returns():
    """CORL's rule for locomotion; values are reported on the scale of the data."""
    data = episodes([1, 2], [-2, 0], [90], terminated=False)  # returns 3 and -2; the last one was cut
    np.testing.assert_allclose(iql.reward_scale(data, 10), 10 / 5)
    np.testing.assert_allclose(iql.reward_scale(episodes([1, 2], [2, 1]), 10), 1.0)
    algorithm = iql.make(SPEC, iql.Config(**{**vars(CONFIG), "scale_rewards": True}))
    (phase,) = algorithm.phases
    data = rows()
    state = jax.jit(phase.init)(jax.random.key(0), algorithm.hypers, data, None)
    returns = np.asarray(data.transitions.reward, np.float64).reshape(-1, 4).sum(axis=1)
    np.testing.assert_allclose(state.learner.scale, 10 / np.ptp(returns), rtol=1e-5)
    values = [
        algorithm.q_value(state._replace(learner=state.learner._replace(scale=scale)), *data.transitions[:2])
        for scale in (jnp.ones(()), state.learner.scale)
    ]
    np.testing.assert_allclose(values[0], values[1] * state.learner.scale, rtol=1e-5)


def test_two_updates_equal_the_golden_tree(ticked):
    """Rewrite the file with `python tests/test_iql.py` when the mathematics is meant to change."""
    golden, found = json.loads((GOLDEN / "iql.json").read_text()), norms(ticked[1])
    assert found.keys() == golden.keys()
    for path, expected in golden.items():
        np.testing.assert_allclose(found[path], expected, rtol=1e-3, atol=1e-4, err_msg=path)


def test_published_settings_are_settings():
    config = published.applied(iql.PRESETS["paper"], "iql", "hopper-medium-replay-v2")
    assert config == iql.Config(tau=0.001, scale_rewards=True, deterministic=True)


if __name__ == "__main__":
    found_ = norms(after_a_tick(iql.make(SPEC, CONFIG), rows())[1])
    (GOLDEN / "iql.json").write_text(json.dumps(found_, indent=1) + "\n")
