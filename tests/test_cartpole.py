"""The cart-pole swing-up: mechanics, reward, episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_suite.envs import cartpole, registry

KEY = jax.random.key(0)
STEP = jax.jit(cartpole.step)


def at(x=0.0, theta=0.0, x_dot=0.0, theta_dot=0.0):
    return cartpole.State(*(jnp.float32(value) for value in (x, theta, x_dot, theta_dot)), jnp.int32(0))


def energy(state):
    """Of the cart and of a bob whose velocity is differentiated by hand."""
    x_dot, turn, theta = (np.asarray(v, np.float64) for v in (state.x_dot, state.theta_dot, state.theta))
    length, bob = cartpole.LENGTH, cartpole.BOB
    bob_speed = (x_dot + length * turn * np.cos(theta)) ** 2 + (length * turn * np.sin(theta)) ** 2
    kinetic = 0.5 * cartpole.CART * x_dot**2 + 0.5 * bob * bob_speed
    return kinetic + bob * cartpole.GRAVITY * length * np.cos(theta)


@jax.jit
def play(state, actions):
    return jax.lax.scan(lambda s, a: (lambda after: (after[0], after))(cartpole.step(s, a, KEY)), state, actions)[1]


def test_without_force_energy_and_the_middle_of_mass_are_kept():
    state = at(theta=2.0, theta_dot=1.0)
    states, _ = play(state, jnp.zeros((100, 1)))
    np.testing.assert_allclose(energy(states), energy(state), atol=2e-3)
    assert np.ptp(states.theta_dot) > 3.0  # it does swing
    momentum = (cartpole.CART + cartpole.BOB) * states.x_dot + cartpole.BOB * cartpole.LENGTH * (
        states.theta_dot * jnp.cos(states.theta)
    )
    np.testing.assert_allclose(momentum, momentum[0], atol=1e-3)


def test_the_work_of_the_force_is_what_energy_gains():
    states, _ = play(at(theta=3.0), jnp.full((8, 1), 0.5))
    gained = energy(states)[-1] - energy(at(theta=3.0))
    np.testing.assert_allclose(gained, 0.5 * cartpole.FORCE * np.asarray(states.x)[-1], rtol=1e-3)


def test_the_reward_is_one_upright_and_small_below():
    _, up = STEP(at(), jnp.zeros(1), KEY)
    assert up.reward == pytest.approx(1.0)
    _, pushed = STEP(at(), jnp.ones(1), KEY)
    distance = (float(pushed.obs[0]) + 0.6 * float(pushed.obs[2])) ** 2 + (0.6 * float(pushed.obs[1]) - 0.6) ** 2
    assert pushed.reward == pytest.approx(np.exp(-distance / 0.36) - 0.01, abs=1e-6)
    _, down = STEP(at(theta=np.pi), jnp.zeros(1), KEY)
    assert down.reward == pytest.approx(np.exp(-4.0), abs=1e-5)


def test_upright_is_not_stable_and_down_is():
    up, _ = play(at(theta=0.01), jnp.zeros((40, 1)))
    down, _ = play(at(theta=np.pi - 0.01), jnp.zeros((40, 1)))
    assert np.abs(up.theta).max() > 1.0
    assert np.abs(np.cos(down.theta) + 1.0).max() < 1e-3


def test_the_cart_stops_at_the_end_of_its_rail():
    states, _ = play(at(), jnp.ones((60, 1)))
    assert float(states.x.max()) == cartpole.RAIL
    assert float(states.x_dot[-1]) == 0.0


def test_an_episode_has_200_steps_and_an_observation_tells_the_state():
    env = registry.make("cartpole_swingup")
    state, obs = env.reset(KEY)
    assert obs.shape == (env.spec.obs_dim,) == (5,)
    assert float(obs[1]) < -0.99
    actions = jax.random.uniform(KEY, (200, 1), minval=-1.0, maxval=1.0)
    _, steps = play(state, actions)
    assert not steps.terminated.any() and list(np.flatnonzero(steps.truncated)) == [199]
    middle = env.restore(steps.obs[50], None)
    _, again = STEP(middle, actions[51], KEY)
    np.testing.assert_allclose(again.obs, steps.obs[51], atol=1e-5)
