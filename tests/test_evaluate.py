"""Evaluation: what counts of an episode, against steps by hand in a pure and in a host environment."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from jaxrl_suite.envs import registry
from jaxrl_suite.envs.pool import Pool
from jaxrl_suite.envs.probes import PROBES
from jaxrl_suite.train.evaluate import make_evaluator
from jaxrl_suite.train.host import env_seed

GAMMAS = [0.9, 0.5]  # of two members, who act by their own numbers


def evaluated(spec, dims, states, episodes):
    """Outcomes of a policy that takes the member's number, whose value is that number."""
    algorithm = SimpleNamespace(
        act=lambda state, carry, obs, key: (jnp.full((len(obs), dims), state), carry),
        q_value=lambda state, obs, action: state + 0.0 * obs[:, 0],
    )
    return make_evaluator(spec, algorithm, GAMMAS, episodes)(jnp.float32(states), (0, 1), 3)


def test_a_pure_episode_counts_until_it_ends_and_not_after(monkeypatch):
    """It ends in its second step, which pays 1, and would pay on in each of the five steps of the horizon."""
    env = PROBES["probe-delayed"].env
    longer = env._replace(spec=env.spec._replace(horizon=5))
    monkeypatch.setattr(registry, "make", lambda name: longer)
    found = evaluated(longer.spec, 1, [0.25, -1.0], 3)
    np.testing.assert_array_equal(found.returns, np.ones((2, 3)))
    np.testing.assert_allclose(found.discounted, np.tile([[0.9], [0.5]], 3))
    np.testing.assert_array_equal(found.lengths, np.full((2, 3), 2))
    np.testing.assert_array_equal(found.q_start, np.tile([[0.25], [-1.0]], 3))


def test_an_episode_on_the_host_counts_until_it_ends_and_not_after():
    """Hopper falls at once, and the pool goes on with other episodes until the last of these has ended."""
    spec, actions = registry.spec("hopper"), np.repeat([0.0, 1.0], 2)
    found = evaluated(spec, 3, [0.0, 1.0], 2)
    pool = Pool(spec.name, [env_seed(seed, 1, 3, episode) for seed in (0, 1) for episode in (0, 1)])
    pool.reset()
    steps = [pool.step(np.tile(actions[:, None], 3)) for _ in range(300)]
    pool.close()
    ended, reward = (np.array([getattr(step, name) for step in steps], float) for name in ("terminated", "reward"))
    lengths = ended.argmax(0) + 1
    assert ended.any(0).all() and len(set(lengths)) > 1
    counted = reward * (np.arange(300)[:, None] < lengths)
    weights = np.repeat(GAMMAS, 2) ** np.arange(300)[:, None]
    np.testing.assert_array_equal(found.lengths.ravel(), lengths)
    np.testing.assert_allclose(found.returns.ravel(), counted.sum(0), rtol=1e-6)
    np.testing.assert_allclose(found.discounted.ravel(), (weights * counted).sum(0), rtol=1e-6)
