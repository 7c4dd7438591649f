"""Environments: termination rules, scores, pendulum, probes, auto-reset, registry and the envpool bridge."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import envpool
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_suite import envs
from jaxrl_suite.envs import pendulum, registry, scores, termination
from jaxrl_suite.envs.autoreset import autoreset
from jaxrl_suite.envs.pool import Pool
from jaxrl_suite.envs.probes import PROBES, Probe
from jaxrl_suite.errors import UserError
from jaxrl_suite.types import Env, Spec, Timestep

KEY = jax.random.key(0)


def row(size: int, **entries: float) -> np.ndarray:
    """A healthy observation with entries `s3=...` replaced."""
    obs = np.zeros(size, np.float32)
    obs[0] = 1.25
    for name, value in entries.items():
        obs[int(name[1:])] = value
    return obs


# --- Termination ---
# Trap: much public code compares inside of abs(), `abs(s[1:] < 100)`, which lets large negative entries pass.
HOPPER = [
    (False, {}),
    (False, {"s0": 500.0}),  # the height has no upper limit, and is not among the bounded entries
    (True, {"s0": 0.69}),
    (False, {"s0": 0.71}),
    (True, {"s1": 0.21}),
    (True, {"s1": -0.21}),
    (False, {"s1": -0.19}),
    (True, {"s2": 101.0}),
    (True, {"s2": -101.0}),  # a misplaced parenthesis lets this one pass
    (True, {"s10": -100.0}),
    (False, {"s10": -99.0}),
    (True, {"s0": math.inf}),
    (True, {"s5": math.nan}),
]
WALKER = [
    (False, {}),
    (True, {"s0": 0.79}),
    (False, {"s0": 0.81}),
    (False, {"s0": 1.99}),
    (True, {"s0": 2.01}),
    (True, {"s1": 1.01}),
    (True, {"s1": -1.01}),
    (False, {"s1": 0.99}),
    (False, {"s1": -0.99}),
    (False, {"s2": -500.0}),  # only height and angle count
    (True, {"s1": math.nan}),
]
ANT = [
    (True, {}),  # 1.25 is too high
    (False, {"s0": 0.75}),
    (True, {"s0": 0.199}),
    (False, {"s0": 0.2}),  # the limits are inside
    (False, {"s0": 1.0}),
    (True, {"s0": 1.001}),
    (False, {"s0": 0.75, "s1": -500.0, "s26": 500.0}),  # no other entry is bounded
    (True, {"s0": 0.75, "s26": math.inf}),
    (True, {"s0": 0.75, "s4": math.nan}),
    (True, {"s0": math.nan}),
]


@pytest.mark.parametrize(
    ("rule", "size", "cases"),
    [(termination.hopper, 11, HOPPER), (termination.walker2d, 17, WALKER), (termination.ant, 27, ANT)],
)
def test_every_clause_of_a_termination_rule(rule, size, cases):
    states = np.stack([row(size, **entries) for _, entries in cases])
    answer = jax.jit(rule)(jnp.asarray(states)[None, :, None])[0, :, 0]  # leading axes are free
    assert answer.dtype == bool
    assert [(bool(a), e) for a, (_, e) in zip(answer, cases, strict=True)] == cases
    assert jax.eval_shape(rule, states[0]).shape == ()


def test_halfcheetah_never_terminates():
    states = np.full((2, 3, 17), np.nan, np.float32)
    answer = termination.halfcheetah(jnp.asarray(states))
    assert answer.shape == (2, 3) and answer.dtype == bool and not answer.any()


# --- Scores ---
def test_scores_are_the_affine_map_of_d4rl():
    hopper = envs.spec("hopper")
    # By hand: 100 * (1000 + 20.272305) / (3234.3 + 20.272305)
    assert scores.normalised_score(hopper, 1000.0) == pytest.approx(31.348889, abs=1e-4)
    for name, (low, high) in scores.REFERENCES.items():
        spec = hopper._replace(name=name, score_min=low, score_max=high)
        np.testing.assert_allclose(
            scores.normalised_score(spec, [low, high, (low + high) / 2]), [0, 100, 50], atol=1e-9
        )
    expected = {"halfcheetah": (-280.178953, 12135.0), "hopper": (-20.272305, 3234.3)}
    expected |= {"walker2d": (1.629008, 4592.3), "ant": (-325.6, 3879.7)}
    assert expected == scores.REFERENCES
    for name in ("halfcheetah", "hopper", "walker2d", "ant"):
        assert (envs.spec(name).score_min, envs.spec(name).score_max) == expected[name]


def test_a_spread_is_scaled_and_not_shifted():
    """The spread of the scores is the score's spread; a public kit puts a deviation through the score's map."""
    hopper = envs.spec("hopper")
    returns = np.array([[300.0, 900.0, 2500.0], [10.0, 10.0, 10.0]])
    found = scores.normalised_spread(hopper, returns.std(-1))
    np.testing.assert_allclose(found, scores.normalised_score(hopper, returns).std(-1), atol=1e-10)
    assert found[1] == 0.0  # the affine map would give 0.62


def test_tasks_without_references_score_nan():
    toy = envs.spec("pendulum")
    assert np.isnan(scores.normalised_score(toy, [1.0, 2.0])).all()
    assert math.isnan(float(scores.normalised_spread(toy, 1.0)))
    assert np.isnan(scores.normalised_score(toy._replace(score_min=0.0), 1.0))


# --- Pendulum ---
def gymnasium_episode(seed: int) -> tuple[np.ndarray, ...]:
    """(theta and theta_dot before each step [200, 2], actions, obs after, rewards, truncated) of random play."""
    env = gymnasium.make("Pendulum-v1")
    env.reset(seed=seed)
    world: Any = env.unwrapped
    # Actions beyond the limits too: both sides clip. Long pushes bring the speed to its limit.
    rng = np.random.default_rng(seed)
    actions = np.repeat(rng.uniform(-1.3, 1.3, (20, 1)), 10, axis=0).astype(np.float32)
    states, answers = [], []
    for action in actions:
        states.append(world.state)
        obs, reward, _, truncated, _ = env.step(np.clip(2 * action, -2, 2))
        answers.append((obs, reward, truncated))
    env.close()
    return np.array(states), actions, *(np.array(x) for x in zip(*answers, strict=True))


@jax.jit
def play(state: pendulum.State, actions: jax.Array) -> tuple[pendulum.State, Timestep]:
    return jax.lax.scan(lambda s, a: pendulum.step(s, a, KEY), state, actions)


@jax.jit
@jax.vmap
def one(theta: jax.Array, theta_dot: jax.Array, action: jax.Array) -> Timestep:
    return pendulum.step(pendulum.State(theta, theta_dot, jnp.int32(0)), action, KEY)[1]


def start_at(theta: float, theta_dot: float) -> pendulum.State:
    return pendulum.State(jnp.float32(theta), jnp.float32(theta_dot), jnp.int32(0))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_pendulum_is_gymnasiums(seed):
    states, actions, obs, reward, truncated = gymnasium_episode(seed)
    # Step by step, from gymnasium's state each time: nothing accumulates.
    single = one(*states.astype(np.float32).T, actions)
    np.testing.assert_allclose(single.obs, obs, atol=2e-5)
    np.testing.assert_allclose(single.reward, reward, atol=2e-4)
    # From the same first state over the whole episode: rounding grows with the instability near upright.
    _, free = play(start_at(*states[0]), actions)
    np.testing.assert_allclose(free.obs, obs, atol=2e-2)
    np.testing.assert_allclose(free.reward.sum(), reward.sum(), rtol=1e-3)
    np.testing.assert_array_equal(free.truncated, truncated)
    assert truncated.nonzero()[0].tolist() == [199]
    assert not free.terminated.any() and free.valid.all()


def test_the_pendulums_speed_is_limited_and_its_first_states_are_uniform():
    fast = one(np.full(200, 0.1, np.float32), np.full(200, 7.9, np.float32), np.ones((200, 1), np.float32))
    assert fast.obs[0, 2] == 8.0
    state, obs = jax.tree.map(np.asarray, jax.jit(jax.vmap(pendulum.reset))(jax.random.split(KEY, 4000)))
    for values, bound in ((state.theta, math.pi), (state.theta_dot, 1.0)):
        # Five standard errors of the mean and of the second moment of a uniform distribution.
        assert np.abs(values).max() <= bound
        assert abs(float(values.mean())) < 5 * bound / math.sqrt(3 * 4000)
        assert abs(float((values**2).mean()) - bound**2 / 3) < 5 * bound**2 * math.sqrt(4 / 45 / 4000)
    np.testing.assert_allclose(
        obs, np.stack([np.cos(state.theta), np.sin(state.theta), state.theta_dot], -1), atol=1e-6
    )


# --- Probes ---
GRID = np.linspace(-1.0, 1.0, 41, dtype=np.float32)[:, None]  # holds every probe's best action
GAMMA = 0.9
STARTS = {  # signal -> value of the start state
    "probe-constant": {0: 1.0},
    "probe-observation": {-1: -1.0, 1: 1.0},
    "probe-delayed": {0: GAMMA},
    "probe-action": {0: 1.0},
    "probe-both": {-1: 1.0, 1: 1.0},
}


class Asked(NamedTuple):
    """A probe's states and what follows from each of them for every action of the grid."""

    obs: Any  # [16, 2]
    value: Any  # [16]
    action: Any  # [16, 1]
    terminal: Any  # [16]
    answers: Timestep  # leaves [16, 41, ...]
    q: Any  # [16, 41]


def ask(probe: Probe) -> list[Asked]:
    """The states of 16 episodes, step after step, in one program; the last entry holds the terminal ones."""

    @jax.jit
    def run(keys: jax.Array) -> list[Asked]:
        every = jax.vmap(jax.vmap(lambda s, a: probe.env.step(s, a, KEY), (None, 0)), (0, None))
        states, obs = jax.vmap(probe.env.reset)(keys)
        asked = []
        for _ in range(probe.env.spec.horizon + 1):
            after, t = every(states, GRID)
            q = t.reward + GAMMA * (1 - t.terminated) * probe.optimal_value(t.obs, GAMMA)
            value, action = probe.optimal_value(obs, GAMMA), probe.optimal_action(obs)
            asked.append(Asked(obs, value, action, probe.env.spec.is_terminal(obs), t, q))
            states, obs = after[:, 0], t.obs[:, 0]
        return asked

    return jax.tree.map(np.asarray, run(jax.random.split(KEY, 16)))


@pytest.mark.parametrize("name", STARTS)
def test_a_probes_values_solve_its_bellman_equation(name):
    *alive, ended = ask(PROBES[name])
    start, horizon = alive[0], len(alive)
    found = {round(float(s)): pytest.approx(float(v)) for s, v in zip(start.obs[:, 0], start.value, strict=True)}
    assert found == STARTS[name]
    matters = name in ("probe-action", "probe-both")
    for taken, at in enumerate(alive):
        np.testing.assert_allclose(at.q.max(1), at.value, atol=1e-6)
        assert (np.ptp(at.q, axis=1) > 0.5).all() == matters
        np.testing.assert_allclose(at.action, GRID[at.q.argmax(1)] if matters else np.zeros((16, 1)), atol=1e-6)
        # The step count is in the observation; it ends by termination, as the observation says.
        assert (at.obs[:, 1] == taken).all() and not at.terminal.any()
        assert (at.answers.terminated == (taken + 1 == horizon)).all() and not at.answers.truncated.any()
    assert (ended.obs[:, 0] == start.obs[:, 0]).all() and (ended.obs[:, 1] == horizon).all()
    assert ended.terminal.all() and (ended.value == 0).all()


REWARDS = [  # probe, signal, action, reward of the first step
    ("probe-action", 0.0, 0.5, 1.0),
    ("probe-action", 0.0, -0.5, 0.0),
    ("probe-both", 1.0, -0.5, 0.0),
    ("probe-both", -1.0, -0.5, 1.0),
    ("probe-both", -1.0, -7.0, 0.75),  # clipped to -1
    ("probe-observation", -1.0, 0.3, -1.0),
    ("probe-delayed", 0.0, 0.3, 0.0),  # its second step pays
    ("probe-constant", 0.0, 0.3, 1.0),
]


def test_probes_rewards_by_hand():
    @jax.jit
    def rewards(states: jax.Array, actions: jax.Array) -> list[jax.Array]:
        steps = (PROBES[name].env.step for name, *_ in REWARDS)
        return [step(s, a, KEY)[1].reward for step, s, a in zip(steps, states, actions, strict=True)]

    states = np.array([[signal, 0.0] for _, signal, _, _ in REWARDS], np.float32)
    actions = np.array([[action] for _, _, action, _ in REWARDS], np.float32)
    assert [float(r) for r in rewards(states, actions)] == [reward for *_, reward in REWARDS]
    second = jnp.array([0.0, 1.0])
    assert float(PROBES["probe-delayed"].optimal_value(second, 0.3)) == 1.0


def test_a_probes_end_is_read_from_predictions_that_are_nearly_right():
    counts = [(0.1, False), (1.2, False), (1.8, True), (2.1, True)]
    obs = jnp.array([[0.0, count] for count, _ in counts])
    assert PROBES["probe-delayed"].env.spec.is_terminal(obs).tolist() == [ended for _, ended in counts]


# --- Auto-reset ---
def scan(env: Env, members: int, steps: int, action: float) -> tuple[np.ndarray, np.ndarray, Timestep]:
    """(first obs, obs to act on after every step, timesteps) of `members` environments."""

    @jax.jit
    def run(key: jax.Array) -> tuple[jax.Array, jax.Array, Timestep]:
        reset_key, step_key = jax.random.split(key)
        state, obs = jax.vmap(env.reset)(jax.random.split(reset_key, members))

        def step(state, key):
            actions = jnp.full((members, 1), action)
            state, timestep = jax.vmap(env.step)(state, actions, jax.random.split(key, members))
            return state, (state.obs, timestep)

        return obs, *jax.lax.scan(step, state, jax.random.split(step_key, steps))[1]

    return jax.tree.map(np.asarray, run(KEY))


def test_autoreset_gives_the_true_successor_and_the_next_start_apart():
    first, acted, timestep = scan(autoreset(PROBES["probe-delayed"].env), 3, 6, 0.0)
    ended = np.tile([[False], [True]], (3, 3))
    np.testing.assert_array_equal(first[:, 1], 0)
    np.testing.assert_array_equal(timestep.obs[..., 1], np.where(ended, 2, 1))
    np.testing.assert_array_equal(acted[..., 1], np.where(ended, 0, 1))
    np.testing.assert_array_equal(timestep.terminated, ended)
    np.testing.assert_array_equal(timestep.reward, np.where(ended, 1, 0))
    assert timestep.valid.all() and timestep.valid.shape == (6, 3)


def test_autoreset_draws_new_starts():
    first, acted, timestep = scan(autoreset(PROBES["probe-both"].env), 2, 64, 0.0)
    starts = np.concatenate([first[None], acted])[..., 0]
    np.testing.assert_array_equal(timestep.obs[..., 0], starts[:-1])  # the episode's own signal, not the next one's
    # 130 fair coins: fewer than 30 of a side has probability below 1e-9.
    assert 30 < (starts == 1).sum() < 100 and (starts[:, 0] != starts[:, 1]).any()


def test_autoreset_at_a_time_limit_and_without_cond():
    env = autoreset(pendulum.make())
    first, acted, timestep = scan(env, 1, 203, 0.3)
    theta = np.arctan2(first[0, 1], first[0, 0])
    pushes = np.full((200, 1), 0.3, np.float32)
    _, plain = play(start_at(theta, first[0, 2]), pushes)
    np.testing.assert_allclose(timestep.obs[:200, 0], plain.obs, atol=1e-3)
    assert timestep.truncated[:, 0].nonzero()[0].tolist() == [199]
    np.testing.assert_array_equal(timestep.obs[:199], acted[:199])
    assert np.abs(acted[199] - timestep.obs[199]).max() > 1e-2
    # The episode that follows goes on from where the state says.
    theta = np.arctan2(acted[199, 0, 1], acted[199, 0, 0])
    _, plain = play(start_at(theta, acted[199, 0, 2]), pushes)
    np.testing.assert_allclose(timestep.obs[200:, 0], plain.obs[:3], atol=1e-4)
    state, _ = jax.eval_shape(env.reset, KEY)
    assert "cond[" not in str(jax.make_jaxpr(env.step)(state, jnp.zeros(1), KEY))


def test_autoresets_state_can_be_donated():
    env = autoreset(pendulum.make())
    state, _ = jax.jit(env.reset)(KEY)
    step = jax.jit(env.step, donate_argnums=0)
    for _ in range(3):
        state, timestep = step(state, jnp.zeros(1), KEY)
    np.testing.assert_array_equal(state.obs, timestep.obs)
    assert int(state.inner.steps) == 3


# --- Registry ---
HOSTED = [
    *(("Hopper-v4", 11, 3), ("HalfCheetah-v4", 17, 6), ("Walker2d-v4", 17, 6)),
    *(("Ant-v3", 111, 8), ("Ant-v4", 27, 8)),
]


@pytest.mark.parametrize("task", HOSTED)
def test_host_tasks_by_every_name(task):
    canonical, obs_dim, action_dim = task
    names = [canonical, canonical.lower(), canonical.upper()]
    names += [] if canonical == "Ant-v3" else [canonical[:-3], canonical[:-3].lower()]  # "ant" is the newer one
    for name in names:
        spec = envs.spec(name)
        assert (spec.name, spec.obs_dim, spec.action_dim, spec.horizon) == (canonical, obs_dim, action_dim, 1000)
        assert not envs.is_pure(name)
        with pytest.raises(UserError, match=rf"{canonical} is no pure environment; .*Pool"):
            envs.make(name)


def test_pure_environments_are_what_their_specs_say():
    pure = [name for name in envs.names() if envs.is_pure(name)]
    assert pure == ["Pendulum-v1", "cartpole_swingup", "box", *PROBES]
    for name in ("pendulum", *pure):
        env = envs.make(name)
        state, obs = jax.eval_shape(env.reset, KEY)
        _, timestep = jax.eval_shape(env.step, state, jnp.zeros(env.spec.action_dim), KEY)
        assert env.spec == envs.spec(name)
        assert obs.shape == timestep.obs.shape == (env.spec.obs_dim,)
        assert obs.dtype == timestep.obs.dtype == timestep.reward.dtype == jnp.float32
        assert all(flag.shape == () and flag.dtype == bool for flag in timestep[2:])


@pytest.mark.parametrize("call", [envs.spec, envs.make, envs.is_pure])
def test_an_unknown_name_is_an_error_that_helps(call):
    with pytest.raises(UserError, match=r"unknown environment 'hoper'; did you mean hopper\?"):
        call("hoper")
    with pytest.raises(UserError, match="known: ant, box, cartpole_swingup, halfcheetah, hopper, pendulum, probe-"):
        call("foo")
    # Another version of a task is another task.
    with pytest.raises(UserError, match="Hopper-v4"):
        call("Hopper-v2")


# --- The envpool bridge ---
def random_actions(spec: Spec, steps: int, members: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, members, spec.action_dim))


def drive(name: str, seeds: list[int], actions: np.ndarray) -> tuple[np.ndarray, Timestep]:
    """(first obs, timesteps with leaves [steps, envs, ...]) of a fresh pool."""
    pool = Pool(name, seeds)
    first = pool.reset()
    steps = [pool.step(action) for action in actions]
    pool.close()
    return first, jax.tree.map(lambda *leaves: np.stack(leaves), *steps)


def raw(name: str, seeds: list[int], actions: np.ndarray, **config: object) -> Iterator[np.ndarray]:
    """Observations of envpool itself under another configuration."""
    pool = envpool.make_gymnasium(name, num_envs=len(seeds), seed=seeds, **config)
    pool.reset()
    yield from (pool.step(action)[0].astype(np.float32) for action in actions)
    pool.close()


@pytest.fixture(scope="module", params=["Hopper-v4", "Walker2d-v4"])
def played(request):
    """Random play of eight environments, long enough for several episodes each."""
    spec = envs.spec(request.param)
    seeds = [11, 5, 900, 0, 77, 5, 2**31 - 1, 3]
    actions = random_actions(spec, 300, len(seeds))
    return spec, seeds, actions, *drive(spec.name, seeds, actions)


def test_envpools_ends_are_the_termination_rules(played):
    spec, _, _, first, timestep = played
    assert timestep.terminated.sum() >= 16
    np.testing.assert_array_equal(spec.is_terminal(timestep.obs), timestep.terminated)
    assert not spec.is_terminal(first).any()


def test_the_ant_is_d4rls():
    """111 numbers, of which the contact forces are 0, and an end below 0.2 and above 1."""
    spec = envs.spec("ant")
    _, timestep = drive(spec.name, list(range(8)), random_actions(spec, 300, 8))
    assert timestep.terminated.sum() >= 8
    np.testing.assert_array_equal(spec.is_terminal(timestep.obs), timestep.terminated)
    assert not timestep.obs[..., 27:].any() and timestep.obs[..., :27].all()
    assert spec.is_terminal(np.full(111, np.nan)) and not spec.is_terminal(np.full(111, 0.2001))


def test_the_step_after_an_end_is_a_reset_and_invalid(played):
    spec, seeds, actions, first, timestep = played
    np.testing.assert_array_equal(timestep.valid[1:], ~(timestep.terminated | timestep.truncated)[:-1])
    assert timestep.valid[0].all()
    resets = timestep.obs[~timestep.valid]
    # Near the standing pose, as the first observations, but not the same again.
    assert np.abs(resets - first[0]).max() < 0.05 and len(np.unique(resets, axis=0)) > len(seeds)
    for ignored in (timestep.reward, timestep.terminated, timestep.truncated):
        assert not ignored[~timestep.valid].any()
    assert first.dtype == timestep.obs.dtype == timestep.reward.dtype == np.float32
    assert timestep.obs.shape == (300, len(seeds), spec.obs_dim) and timestep.valid.dtype == bool
    # The action of the reset step changes nothing.
    other = np.where(timestep.valid[..., None], actions, -actions)
    np.testing.assert_array_equal(drive(spec.name, seeds, other)[1].obs, timestep.obs)


def test_the_last_observation_of_a_terminated_episode_is_the_true_successor(played):
    """With envpool's own termination switched off, the simulation gives the same observation at that step."""
    spec, seeds, actions, _, timestep = played
    going_on = np.stack(list(raw(spec.name, seeds, actions[:100], terminate_when_unhealthy=False)))
    for member in range(len(seeds)):
        end = int(timestep.terminated[:, member].argmax())
        assert 0 < end < 100
        np.testing.assert_array_equal(timestep.obs[: end + 1, member], going_on[: end + 1, member])


def test_an_environment_depends_on_its_own_seed_only(played):
    spec, seeds, actions, first, timestep = played
    for member in (1, 6):
        alone, steps = drive(spec.name, seeds[member : member + 1], actions[:, member : member + 1])
        np.testing.assert_array_equal(alone[0], first[member])
        for found, expected in zip(steps, timestep, strict=True):
            np.testing.assert_array_equal(found[:, 0], expected[:, member])
    np.testing.assert_array_equal(first[1], first[5])  # the same seed
    assert all(
        (first[i] != first[j]).any() for i, j in itertools.combinations(range(len(seeds)), 2) if (i, j) != (1, 5)
    )


def test_a_time_limit_truncates_with_the_true_successor():
    spec = envs.spec("halfcheetah")
    actions = random_actions(spec, spec.horizon + 2, 1)
    _, timestep = drive(spec.name, [4], actions)
    assert timestep.truncated[:, 0].nonzero()[0].tolist() == [spec.horizon - 1]
    assert not timestep.terminated.any()
    assert (~timestep.valid[:, 0]).nonzero()[0].tolist() == [spec.horizon]
    going_on = np.stack(list(raw(spec.name, [4], actions, max_episode_steps=2000)))
    np.testing.assert_array_equal(timestep.obs[: spec.horizon], going_on[: spec.horizon])
    assert (timestep.obs[spec.horizon] != going_on[spec.horizon]).any()


def test_the_registrys_horizons_are_envpools():
    for name, *_ in HOSTED:
        spec, host = registry.spec(name), envpool.make_spec(name)
        assert host.config.max_episode_steps == spec.horizon
        assert host.observation_space.shape == (spec.obs_dim,) and host.action_space.shape == (spec.action_dim,)
        assert (host.action_space.low == -1).all() and (host.action_space.high == 1).all()


def test_probes_are_a_table_by_name():
    assert all(isinstance(probe, Probe) and probe.env.spec.name == name for name, probe in PROBES.items())
