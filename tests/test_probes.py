"""SAC and RAVL reach the known values of the probe environments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import random_data

from jaxrl_suite.algorithms import ravl, sac
from jaxrl_suite.envs.probes import PROBES
from jaxrl_suite.models.ensemble import EnsembleConfig
from jaxrl_suite.models.fit import FitConfig
from jaxrl_suite.train.memory import learn

GAMMA = 0.9
STARTS = jnp.array([[-1.0, 0.0], [1.0, 0.0]])


def starts(name):
    """Start observations of a probe: the signal is +-1 where it matters, 0 elsewhere."""
    matters = name in ("probe-observation", "probe-both")
    return STARTS if matters else jnp.zeros((1, 2))


def check(name, algorithm, trained, value_tolerance, action_tolerance):
    probe = PROBES[name]
    assert set(trained.traces.values()) == {1}
    assert not bool(trained.diverged[0])
    state = jax.tree.map(lambda leaf: leaf[0], trained.parameters)
    obs = starts(name)
    action, _ = algorithm.act(state, (), obs, jax.random.key(0))
    value = algorithm.q_value(state, obs, action)
    np.testing.assert_allclose(value, probe.optimal_value(obs, GAMMA), atol=value_tolerance)
    if name in ("probe-action", "probe-both"):
        np.testing.assert_allclose(action, probe.optimal_action(obs), atol=action_tolerance)


@pytest.mark.parametrize("name", PROBES)
def test_sac(name):
    config = sac.Config(
        steps=2_560,
        envs=16,
        explore=512,
        chunk=512,
        hidden=(32, 32),
        batch=64,
        gamma=GAMMA,
        tau=0.05,
        learning_rate=3e-3,
    )
    algorithm = sac.make(PROBES[name].env.spec, config)
    trained = learn(algorithm, None)
    check(name, algorithm, trained, value_tolerance=0.1, action_tolerance=0.15)


@pytest.mark.parametrize("name", PROBES)
def test_ravl(name):
    rate = 3e-3
    config = ravl.Config(
        updates=1_500,
        period=500,
        rollouts=500,
        horizon=2,
        real_ratio=0.5,
        batch=64,
        critics=4,
        hidden=(32, 32),
        gamma=GAMMA,
        tau=0.05,
        actor_lr=rate,
        critic_lr=rate,
        alpha_lr=rate,
        diversity=0.1,
        dynamics=EnsembleConfig(members=3, elites=2, hidden=(32, 32)),
        fit=FitConfig(steps=600, checks=3, batch=64),
    )
    algorithm = ravl.make(PROBES[name].env.spec, config)
    trained = learn(algorithm, random_data(PROBES[name].env, 1_000))
    check(name, algorithm, trained, value_tolerance=0.15, action_tolerance=0.2)
