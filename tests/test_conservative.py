"""CQL's regulariser: the estimate against numpy and against an integral on a grid, and where its gradient pushes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_suite.distributions import TanhNormal
from jaxrl_suite.types import Transition
from jaxrl_suite.values import conservative

CRITICS, BATCH, SAMPLES, DIMS = 3, 5, 4, 2
KEY = jax.random.key(0)
propose = jax.jit(conservative.propose, static_argnums=2)


def features(obs, action, xp=jnp):
    """Made-up features of state and action `[rows, 6]`."""
    x, y, s = action[..., 0], action[..., 1], obs[..., 0]
    return xp.stack([x, y, x * y, xp.sin(3 * x) * s, xp.cos(2 * y), s], axis=-1)


WEIGHTS = np.asarray(jax.random.normal(jax.random.key(7), (CRITICS, 6)))


def q(weights, obs, action, xp=jnp):
    """Values `[critics, rows]` of critics that are linear in the features."""
    return xp.einsum("cf,rf->cr", weights, features(obs, action, xp))


def pi(obs):
    """A made-up policy that depends on the state; wide, so that weights of rare actions do not decide an estimate."""
    return TanhNormal(0.3 * obs[:, :DIMS], 0.1 + 0.1 * jnp.tanh(obs[:, 1:]))


def batch(seed, rows=BATCH):
    keys = jax.random.split(jax.random.key(seed), 3)
    obs, next_obs = jax.random.normal(keys[0], (rows, 3)), jax.random.normal(keys[1], (rows, 3))
    action = jnp.tanh(jax.random.normal(keys[2], (rows, DIMS)))
    return Transition(obs, action, jnp.zeros(rows), jnp.ones(rows), next_obs)


STATES, DATA = batch(1), batch(2, rows=7)


def density(mean, log_std, action):
    """Of the tanh normal, in float64 by the change of variables."""
    mean, std, action = np.float64(mean), np.exp(np.float64(log_std)), np.float64(action)
    normal = np.exp(-0.5 * ((np.arctanh(action) - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    return np.prod(normal / (1 - action**2), axis=-1)


@pytest.fixture(scope="module")
def offered():
    """What is proposed at STATES: actions, and their densities computed anew."""
    here, there = pi(STATES.obs), pi(STATES.next_obs)
    found = propose(here, there, SAMPLES, KEY)
    action = np.asarray(found.action)
    densities = np.full((BATCH, 3 * SAMPLES), 0.5**DIMS)
    for part, policy in enumerate((here, there), start=1):
        mine = slice(part * SAMPLES, (part + 1) * SAMPLES)
        densities[:, mine] = density(policy.mean[:, None], policy.log_std[:, None], action[:, mine])
    return found, action, densities


def test_densities_are_those_of_the_distributions_drawn_from(offered):
    found, action, densities = offered
    assert action.shape == (BATCH, 3 * SAMPLES, DIMS)
    np.testing.assert_allclose(np.exp(found.log_density), densities, rtol=1e-3)
    assert len(np.unique(action[..., 0])) == BATCH * 3 * SAMPLES


@jax.jit
def regulariser(weights):
    gap, metrics = conservative.regulariser(lambda o, a: q(weights, o, a), pi, STATES, DATA, SAMPLES, KEY)
    return jnp.sum(gap), (gap, metrics)


def test_every_critic_has_the_log_mean_of_all_weighted_values_less_its_mean_on_data(offered):
    """Traps: the logarithm of three values averaged over draws, and the sum of exponentials over the critics' axis."""
    _, action, densities = offered
    obs = np.float64(np.asarray(STATES.obs))
    ratio = np.empty((CRITICS, BATCH, 3 * SAMPLES))
    for state in range(BATCH):
        for k in range(3 * SAMPLES):
            value = q(np.float64(WEIGHTS), obs[state : state + 1], np.float64(action[state, k : k + 1]), np)[:, 0]
            ratio[:, state, k] = np.exp(value) / densities[state, k]
    up = q(np.float64(WEIGHTS), np.asarray(DATA.obs, float), np.asarray(DATA.action, float), np).mean(axis=1)
    expected = np.log(ratio.mean(axis=-1)).mean(axis=-1) - up
    _, (found, metrics) = regulariser(WEIGHTS)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["conservative"], expected.mean(), rtol=1e-4)
    of_three = np.log(ratio.reshape(CRITICS, BATCH, 3, SAMPLES).mean(axis=2)).mean(axis=(1, 2)) - up
    over_critics = np.log(ratio.mean(axis=(0, 2))).mean() - up
    assert np.all(np.abs(of_three - expected) > 1e-2)
    assert np.all(np.abs(over_critics - expected) > 1e-2)


@pytest.mark.parametrize("part", ["uniform", "here", "there", "all"])
def test_many_samples_give_the_integral(part):
    """Each of the three distributions by itself, and all together, against a grid of actions."""
    n = 100_000
    state = jax.tree.map(lambda x: x[:1], STATES)
    found = propose(pi(state.obs), pi(state.next_obs), n, KEY)
    start = {"uniform": 0, "here": n, "there": 2 * n, "all": 0}[part]
    mine = slice(start, 3 * n if part == "all" else start + n)
    action, log_density = found.action[0, mine], found.log_density[:, mine]
    obs = jnp.broadcast_to(state.obs, (action.shape[0], 3))
    estimate = conservative.log_integral(q(WEIGHTS, obs, action)[:, None], log_density)[:, 0]
    cells = 400
    line = (np.arange(cells) + 0.5) / cells * 2 - 1
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, DIMS)
    values = q(np.float64(WEIGHTS), np.broadcast_to(np.asarray(state.obs, float), (len(grid), 3)), grid, np)
    np.testing.assert_allclose(estimate, np.log(np.exp(values).sum(axis=-1) * (2 / cells) ** DIMS), atol=0.03)


def test_the_gradient_is_the_softmax_of_proposals_less_the_data(offered):
    """Trap: a stopped gradient of the first term, which leaves nothing to push values down."""
    found, action, _ = offered
    gradient, _ = jax.jit(jax.grad(regulariser, has_aux=True))(WEIGHTS)
    obs = np.repeat(np.asarray(STATES.obs, float)[:, None], 3 * SAMPLES, axis=1)
    phi = features(obs, np.float64(action), np)
    logits = np.einsum("cf,bkf->cbk", WEIGHTS, phi) - np.asarray(found.log_density, float)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    down = np.einsum("cbk,bkf->cf", softmax, phi) / BATCH
    up = features(np.asarray(DATA.obs, float), np.asarray(DATA.action, float), np).mean(axis=0)
    np.testing.assert_allclose(gradient, down - up, rtol=1e-3, atol=1e-5)
    assert np.linalg.norm(down) > 0.5


def test_a_constant_is_worth_the_volume_of_the_actions():
    """R of a constant Q is log 2^dims, whatever the constant: the mean over 3n, not the sum."""
    constant = lambda obs, action: jnp.full((2, obs.shape[0]), 5.0)  # noqa: E731
    flat = lambda obs: TanhNormal(jnp.zeros((obs.shape[0], DIMS)), jnp.full((obs.shape[0], DIMS), -0.1))  # noqa: E731
    gap = jax.jit(lambda states: conservative.regulariser(constant, flat, states, DATA, 2_000, KEY)[0])(STATES)
    np.testing.assert_allclose(gap, DIMS * np.log(2.0), atol=0.01)
