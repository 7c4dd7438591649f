"""Online MBPO: schedules, held-out rows, batches, what leaves it as it is, and deterministic models."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_suite import buffer
from jaxrl_suite.algorithms import actor_critic, mbpo_host, mbpo_online
from jaxrl_suite.algorithms.actor_critic import ActorCriticConfig
from jaxrl_suite.algorithms.online import truncated_linear
from jaxrl_suite.envs import registry
from jaxrl_suite.errors import UserError
from jaxrl_suite.models import ensemble, refit
from jaxrl_suite.train.host import Host
from jaxrl_suite.types import Stats, Transition

SPEC = registry.spec("pendulum")
CONFIG = mbpo_online.PRESETS["smoke"]
KEY = jax.random.key(0)


# --- schedule ---
@pytest.mark.parametrize("name, low, high, start, end", [("hopper", 1, 15, 20, 150), ("ant", 1, 25, 20, 100)])
def test_the_schedule_ends_where_it_should_and_never_falls(name, low, high, start, end):
    of = lambda epoch: int(truncated_linear(jnp.int32(epoch), (start, end), (low, high)))  # noqa: E731
    lengths = [of(epoch) for epoch in range(200)]
    assert lengths[0] == lengths[start] == low and lengths[end] == lengths[-1] == high
    assert lengths[end - 1] < high and lengths == sorted(lengths)
    middle = (start + end) // 2
    assert lengths[middle] == int(np.floor(low + (middle - start) / (end - start) * (high - low)))
    assert int(truncated_linear(jnp.int32(7), (20, 150), (1, 1))) == 1


# --- rows ---
@pytest.mark.parametrize("size", [5, 7, 23, 100])
def test_every_row_is_trained_on_or_held_out(size):
    held = size // refit.HELD
    training = np.asarray(refit.training_row(jnp.arange(size - held)))
    kept = np.asarray(refit.held_row(jnp.arange(held)))
    assert sorted([*training, *kept]) == list(range(size))


def test_a_batch_has_a_twentieth_of_real_rows():
    assert dataclasses.replace(CONFIG, batch=256).real == 12  # 244 are imagined


# --- a run of the smoke preset ---
@functools.cache
def built(config=CONFIG):
    algorithm = mbpo_online.make(SPEC, config)
    explore, train = algorithm.phases
    init = jax.jit(lambda key: explore.init(key, algorithm.hypers, None, None))
    state, _ = jax.jit(lambda state: explore.update(state, None))(init(KEY))
    return algorithm, state, jax.jit(lambda state: train.update(state, None))


def test_a_tick_steps_fits_imagines_and_learns():
    algorithm, state, update = built()
    assert int(state.step) == int(state.replay.size) == CONFIG.explore and int(state.imagined.size) == 0
    after, metrics = update(state)
    assert int(after.step) == int(after.replay.size) == CONFIG.explore + CONFIG.period
    assert int(after.imagined.size) == CONFIG.rollouts
    assert metrics["fit_loss"] < 1e3 and metrics["horizon"] == 1
    assert int(after.agent.actor_opt.count) == CONFIG.period * CONFIG.utd
    assert algorithm.phases[1].updates_per_tick == CONFIG.period * CONFIG.utd
    # Real rows are what the environment does: each successor is the next row's observation, within an episode.
    rows = after.replay.data
    np.testing.assert_array_equal(rows.next_obs[:199], rows.obs[1:200])
    assert not np.array_equal(rows.next_obs[199], rows.obs[200])
    # Imagined rows branch from states that were seen.
    starts = {tuple(row) for row in np.asarray(rows.obs[: CONFIG.explore])}
    assert {tuple(row) for row in np.asarray(after.imagined.data.obs[: CONFIG.rollouts])} <= starts


def test_batches_are_real_rows_first_then_rows_of_the_newest_refresh():
    config = dataclasses.replace(CONFIG, real_ratio=0.1, retain=2, horizon=(1, 2), horizon_epochs=(0, 1), epoch=10_000)
    real, ac = config.real, actor_critic.make(SPEC, ActorCriticConfig(2, (16, 16), config.batch))

    def count(state, batch, key):
        # Rollouts have length 1: half of the ring is too old.
        old = jnp.sum(batch.reward[real:] <= config.rollouts * config.retain)
        return state, {"old": old * 1.0, "imagined": jnp.sum(batch.reward > 0) * 1.0}

    spied = ac._replace(update=count)
    tick = mbpo_online.parts(SPEC, config, spied)
    _, state, _ = built()
    # The ring holds rewards 0 ... capacity - 1, in order; the newest are at its end.
    capacity = config.rollouts * 2 * config.retain
    row = jax.tree.map(lambda leaf: leaf[0], state.replay.data)
    full = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape[1:])), state.replay.data)
    ring = buffer.insert(
        buffer.empty(row, capacity), full._replace(reward=1.0 + jnp.arange(capacity)), jnp.ones(capacity, bool)
    )
    _, metrics = jax.jit(tick.learn)(state._replace(imagined=ring, step=jnp.int32(0)))
    assert metrics["old"] == 0 and metrics["imagined"] == config.batch - real and real == 3


def test_without_a_model_a_batch_is_real_and_nothing_is_imagined():
    _, state, update = built(dataclasses.replace(CONFIG, real_ratio=1.0))
    after, metrics = update(state)
    assert int(after.imagined.size) == 0 and "fit_loss" not in metrics
    for old, new in zip(jax.tree.leaves(state.model), jax.tree.leaves(after.model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_no_weight_and_no_bound_leave_mbpo_as_it_is_to_the_bit():
    _, state, update = built()
    plain, _ = update(state)
    for more in ({"lipschitz": "adversarial", "lipschitz_weight": 0.0}, {"lipschitz_bound": float("inf")}):
        changed = dataclasses.replace(CONFIG, **{"lipschitz": "spectral", **more})
        assert not changed.smoothness().active
        _, other, step = built(changed)
        same, _ = step(other)
        for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(same), strict=True):
            keyed = jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
            np.testing.assert_array_equal(*((jax.random.key_data(a), jax.random.key_data(b)) if keyed else (a, b)))


# --- models ---
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_fit_learns_linear_dynamics_and_ranks_members_by_held_out_rows(deterministic):
    dynamics = ensemble.EnsembleConfig(
        members=3, elites=2, hidden=(16,), deterministic=deterministic, weight_decay=(0.0, 0.0)
    )
    model, fits = refit.make(SPEC, dynamics, refit.RefitConfig(steps=400, batch=64, learning_rate=3e-3))
    keys = jax.random.split(KEY, 3)
    obs, action = jax.random.normal(keys[0], (400, 3)), jax.random.uniform(keys[1], (400, 1))
    rows = Transition(obs, action, obs[:, 0], jnp.ones(400), 1.1 * obs + action)
    ring = buffer.insert(buffer.empty(jax.tree.map(lambda x: x[0], rows), 500), rows, jnp.ones(400, bool))
    fit = jax.jit(fits.fit)
    before = jax.jit(fits.init)(KEY)
    fitted, metrics = fit(before, ring, keys[2])
    assert float(metrics["holdout_mse"]) < 0.02
    weights = jax.tree.leaves(fitted.params.weights.members)[0]
    assert not np.allclose(weights[0], weights[1])
    error = ensemble.mse(SPEC, dynamics)(fitted.params.weights, fitted.params, rows)
    assert int(jnp.argmax(error)) not in fitted.params.elites or np.ptp(np.asarray(error)) < 1e-3
    again, more = fit(fitted, ring, KEY)
    assert float(more["holdout_mse"]) < float(metrics["holdout_mse"]) * 1.2  # it goes on from there
    next_obs, prediction = jax.jit(model.step)(again.params, obs, action, KEY)
    assert (np.abs(np.asarray(prediction.obs - rows.next_obs)).mean() < 0.3) and next_obs.shape == obs.shape


def test_rows_that_are_held_out_are_not_trained_on_and_judge_alone():
    """They alone pay 3: who has never seen them misses each by 3, in one of four dimensions."""
    dynamics = ensemble.EnsembleConfig(members=2, elites=1, hidden=(16,), deterministic=True, weight_decay=(0.0, 0.0))
    _, fits = refit.make(SPEC, dynamics, refit.RefitConfig(steps=400, batch=64, learning_rate=3e-3))
    obs = jax.random.normal(KEY, (400, 3))
    held = jnp.isin(jnp.arange(400), refit.held_row(jnp.arange(80)))
    rows = Transition(obs, jnp.zeros((400, 1)), 3.0 * held, jnp.ones(400), obs)
    ring = buffer.insert(buffer.empty(jax.tree.map(lambda x: x[0], rows), 500), rows, jnp.ones(400, bool))
    _, metrics = jax.jit(fits.fit)(jax.jit(fits.init)(KEY), ring, KEY)
    np.testing.assert_allclose(metrics["holdout_mse"], 3.0**2 / 4, rtol=0.05)


def test_rollouts_are_as_long_as_the_schedule_says():
    config = dataclasses.replace(CONFIG, horizon=(1, 3), horizon_epochs=(0, 10))
    ac = actor_critic.make(SPEC, config.actor_critic())
    _, state, _ = built()
    ring = buffer.empty(jax.tree.map(lambda leaf: leaf[0], state.replay.data), 3 * config.rollouts)
    dream = jax.jit(mbpo_online.parts(SPEC, config, ac).dream)
    for epoch, steps in ((0, 1), (5, 2), (10, 3)):
        found = dream(state._replace(imagined=ring, step=jnp.int32(epoch * config.epoch)))
        assert int(found.imagined.size) == steps * config.rollouts  # a pendulum never ends


def test_a_deterministic_model_whose_output_is_zero_predicts_that_nothing_changes():
    dynamics = ensemble.EnsembleConfig(members=2, elites=1, hidden=(8,), deterministic=True)
    model = ensemble.make(SPEC, dynamics)
    params = model.init(KEY, Stats(jnp.zeros(4), jnp.ones(4)))
    params = params._replace(weights=jax.tree.map(jnp.zeros_like, params.weights))
    obs, action = jax.random.normal(KEY, (6, 3)), jnp.ones((6, 1))
    for seed in range(2):
        _, prediction = model.step(params, obs, action, jax.random.key(seed))
        np.testing.assert_array_equal(prediction.obs, obs)
        np.testing.assert_array_equal(prediction.reward, 0.0)


def test_a_deterministic_loss_is_the_squared_error_in_units_of_the_targets_variance():
    dynamics = ensemble.EnsembleConfig(members=2, elites=1, hidden=(8,), deterministic=True)
    model = ensemble.make(SPEC, dynamics)
    params = model.init(KEY, Stats(jnp.zeros(4), jnp.ones(4)))
    keys = jax.random.split(KEY, 4)
    rows = Transition(
        jax.random.normal(keys[0], (2, 9, 3)),
        jax.random.normal(keys[1], (2, 9, 1)),
        100.0 * jax.random.normal(keys[2], (2, 9)),
        jnp.ones((2, 9)),
        jax.random.normal(keys[3], (2, 9, 3)),
    )
    loss, _ = model.loss(params.weights, params, rows, KEY)
    mean, log_var = ensemble.forward(SPEC, dynamics)(params.weights, params.stats, rows.obs, rows.action)
    wanted = np.asarray(ensemble.targets(rows), np.float64)
    variance = wanted.reshape(-1, 4).var(axis=0)
    expected = (((wanted - np.asarray(mean)) ** 2) / variance).mean(axis=(1, 2)).sum()
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    assert (np.exp(0.5 * np.asarray(log_var)) == 0).all()


# --- bad settings ---
@pytest.mark.parametrize(
    "env, changes, words",
    [
        ("pendulum", {"steps": 241}, "multiple"),
        ("pendulum", {"explore": 0, "steps": 40}, "at least 5"),
        ("pendulum", {"envs": 2, "explore": CONFIG.explore + 1, "steps": CONFIG.steps + 1}, "both of these of --envs"),
        ("pendulum", {"real_ratio": 1.5}, "share"),
        ("pendulum", {"lipschitz": "spectrum"}, "spectral"),
    ],
)
def test_settings_without_a_meaning_are_refused(env, changes, words):
    with pytest.raises(UserError, match=words):
        mbpo_online.make(registry.spec(env), dataclasses.replace(CONFIG, **changes))


# --- MuJoCo's tasks ---
def test_the_entropy_aimed_at_is_minus_the_actions_dimensions_unless_set():
    assert ActorCriticConfig().entropy_below(3) == 3
    assert dataclasses.replace(CONFIG, target_entropy=-1.0).actor_critic().entropy_below(3) == 1.0


@pytest.mark.slow
def test_the_temperature_aims_at_the_entropy_that_is_set():
    def step(aim):
        config = dataclasses.replace(CONFIG, target_entropy=aim)
        ac = actor_critic.make(SPEC, config.actor_critic())
        rows = Transition(jnp.ones((4, 3)), jnp.ones((4, 1)), jnp.ones(4), jnp.ones(4), jnp.ones((4, 3)))
        state = ac.init(KEY, mbpo_online.make(SPEC, config).hypers, None)
        return float(jax.jit(ac.update)(state, rows, KEY)[0].log_alpha)

    assert step(None) == step(-1.0)  # -|A|
    assert step(-9.0) < 0.0 < step(9.0)  # more entropy than asked for lowers the temperature


@pytest.mark.slow
def test_a_tick_in_a_mujoco_task_stays_inside_the_program():
    pytest.importorskip("mujoco")
    config = dataclasses.replace(CONFIG, target_entropy=-1.0)
    algorithm = mbpo_online.make(registry.spec("hopper"), config)
    explore, train = algorithm.phases
    assert explore.request is None and train.request is None  # no loop on the host
    start = lambda key: explore.update(explore.init(key, algorithm.hypers, None, None), None)[0]  # noqa: E731
    tick = jax.jit(jax.vmap(lambda key: train.update(start(key), None)[0]))
    states = tick(jax.random.split(KEY, 2))
    rows = jax.tree.map(np.asarray, states.replay.data)
    size = config.explore + config.period
    assert (states.replay.size == size).all() and not np.array_equal(rows.obs[0], rows.obs[1])
    # Episodes begin anew: hopper falls within 200 random steps, and what follows is no successor.
    ends = rows.discount[:, :size] == 0
    assert ends.any(axis=1).all()
    follows = (rows.next_obs[:, : size - 1] == rows.obs[:, 1:size]).all(axis=-1)
    np.testing.assert_array_equal(follows, ~ends[:, :-1])


# --- On the host ---
def step(phase, state, host):
    """A tick as the training loop makes it, with environments of one member."""
    state, action = jax.jit(phase.request)(state)
    timestep = host.step(np.asarray(action)[None])
    return state, (action, jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), timestep))


def test_on_the_host_a_chunk_is_a_fit_and_as_many_steps_as_a_period():
    config = dataclasses.replace(CONFIG, explore=60, steps=80, envs=2)
    algorithm = mbpo_host.make(registry.spec("hopper"), config)
    explore, train = algorithm.phases
    host, again = (Host("Hopper-v4", (0,), config.envs) for _ in range(2))
    state = jax.jit(explore.init)(KEY, algorithm.hypers, jnp.asarray(host.first_obs[0]), None)
    update, ended = jax.jit(explore.update), 0
    for _ in range(explore.ticks):
        state, data = step(explore, state, host)
        state, _ = update(state, data)
        ended += int((~data[1].valid).sum())
    # A reset is a step, but no row: hopper falls within thirty random steps.
    assert ended > 0 and int(state.step) == config.explore and int(state.replay.size) == config.explore - ended
    fresh, metrics = jax.jit(train.before)(state)
    assert int(fresh.imagined.size) == config.rollouts and np.isfinite(metrics["fit_loss"])
    assert train.chunk * config.envs == config.period == config.steps - config.explore
    update = jax.jit(train.update)
    state, data = step(train, fresh, host)
    state, metrics = update(state, data)
    assert int(state.agent.actor_opt.count) == train.updates_per_tick == config.utd * config.envs
    assert int(state.imagined.size) == config.rollouts and np.isfinite(metrics["bellman"])
    # A pool begun anew stands at the same place after the actions that were noted.
    log, count = train.actions(state)
    assert int(count) == explore.ticks + 1
    again.replay(np.asarray(log)[None, : int(count) - 1])
    np.testing.assert_array_equal(again.step(np.asarray(log)[None, int(count) - 1]).obs[0], state.obs)
    for pool in (host, again):
        pool.close()


def test_on_the_host_sac_has_nothing_to_fit_and_pure_environments_are_refused():
    config = dataclasses.replace(CONFIG, real_ratio=1.0)
    assert mbpo_host.make(registry.spec("hopper"), config).phases[1].before is None
    with pytest.raises(UserError, match="leave out --host"):
        mbpo_host.make(SPEC, CONFIG)
