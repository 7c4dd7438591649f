"""World models: the ensemble's mathematics, how rows are drawn, imagined rollouts and the fit."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats as scipy_stats

from jaxrl_suite.errors import UserError
from jaxrl_suite.models import ensemble, fit
from jaxrl_suite.models.ensemble import EnsembleConfig
from jaxrl_suite.models.fit import FitConfig
from jaxrl_suite.models.imagine import imagine
from jaxrl_suite.types import Dataset, Params, Phase, Prediction, Spec, Stats, Transition, WorldModel

SPEC = Spec("toy", obs_dim=2, action_dim=1, horizon=10, is_terminal=lambda obs: obs[..., 0] > 1e6)
NOISE = 0.1


def numpy_of(key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def transitions(rng: np.random.Generator, *lead: int) -> Transition:
    obs, action = rng.normal(size=(*lead, 2)), rng.uniform(-1, 1, size=(*lead, 1))
    return Transition(
        *(jnp.float32(x) for x in (obs, action, rng.normal(size=lead), np.ones(lead), obs + rng.normal(size=obs.shape)))
    )


def dataset(rows: Transition) -> Dataset:
    n = rows.reward.shape[0]
    return Dataset(rows, rows.action, jnp.zeros(n, bool), jnp.zeros(n, jnp.int32), rows.reward, None)


STATS = Stats(jnp.zeros(3), jnp.ones(3))


def unset(config: EnsembleConfig, stats: Stats = STATS) -> Params:
    """Parameters as `init` shapes them, with all members' weights zero: nothing random to compile."""
    shapes = jax.eval_shape(ensemble.make(SPEC, config).init, jax.random.key(0), stats)
    members = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes.weights.members)
    weights = ensemble.Weights(jax.tree.map(jnp.asarray, members), jnp.full(3, 0.5), jnp.full(3, -10.0))
    return Params(weights, stats, jnp.arange(config.elites))


def random(params: Params, rng: np.random.Generator) -> Params:
    members = jax.tree.map(lambda leaf: jnp.float32(0.3 * rng.normal(size=leaf.shape)), params.weights.members)
    return params._replace(weights=params.weights._replace(members=members))


# --- The ensemble's density ---
def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(x, 0.0)


def test_loss_is_the_gaussian_likelihood_summed_by_hand() -> None:
    config = EnsembleConfig(members=3, elites=2, hidden=(8,))
    model = ensemble.make(SPEC, config)
    stats = Stats(jnp.array([0.3, -0.2, 0.1]), jnp.array([0.5, 2.0, 0.02]))  # the last one drives inputs past the clip
    params = random(unset(config, stats), numpy_of(8))
    high, low = jnp.array([0.5, 0.1, -0.3]), jnp.array([-1.0, -2.0, -3.0])
    weights = params.weights._replace(max_log_var=high, min_log_var=low)
    batch = transitions(numpy_of(0), 3, 5)
    error = ensemble.mse(SPEC, config)
    loss, metrics = jax.jit(model.loss)(weights, params, batch, jax.random.key(1))

    w = jax.tree.map(np.asarray, weights.members)
    expected, errors = 0.0, []
    for m in range(3):
        x = np.concatenate([batch.obs[m], batch.action[m]], axis=-1)
        x = np.clip((x - np.asarray(stats.mean)) / np.asarray(stats.std), -10, 10)
        h = x @ w["hidden_0"]["kernel"][m] + w["hidden_0"]["bias"][m]
        h = h / (1 + np.exp(-h))
        mean, lv = (h @ w[head]["kernel"][m] + w[head]["bias"][m] for head in ("mean", "log_var"))
        lv = np.asarray(high) - softplus(np.asarray(high) - lv)
        lv = np.asarray(low) + softplus(lv - np.asarray(low))
        target = np.concatenate([batch.next_obs[m] - batch.obs[m], batch.reward[m][:, None]], axis=-1)
        log_density = scipy_stats.norm.logpdf(target, mean, np.exp(lv / 2))
        expected += np.mean(-2 * log_density - np.log(2 * np.pi))
        errors.append(np.mean((target - mean) ** 2))
    np.testing.assert_allclose(metrics["nll"], expected / 3, rtol=1e-4)
    np.testing.assert_allclose(loss, expected + 0.01 * float(jnp.sum(high) - jnp.sum(low)), rtol=1e-4)
    np.testing.assert_allclose(jax.jit(error)(weights, params, batch), errors, rtol=1e-4)


def test_the_same_rows_for_every_member_need_no_copies() -> None:
    config = EnsembleConfig(members=3, elites=2, hidden=(8,))
    params = random(unset(config), numpy_of(8))
    rows = transitions(numpy_of(1), 5)
    copies = jax.tree.map(lambda x: jnp.broadcast_to(x, (3, *x.shape)), rows)
    error = jax.jit(ensemble.mse(SPEC, config))
    np.testing.assert_allclose(error(params.weights, params, rows), error(params.weights, params, copies), rtol=1e-6)


def test_soft_clamp_stays_near_its_bounds_and_keeps_gradients() -> None:
    x = jnp.array([-1e3, -10.0, -4.75, 0.5, 1e3])
    low, high = jnp.float32(-10.0), jnp.float32(0.5)
    y = ensemble.soft_clamp(x, low, high)
    # The lower bound is applied last and holds exactly; the upper one can be passed by softplus(low - high) at most.
    assert float(y.min()) >= -10.0 and float(y.max()) <= 0.5 + 1e-4
    np.testing.assert_allclose(y[2], -4.75, atol=0.02)
    by_bounds = jax.grad(lambda b: jnp.sum(ensemble.soft_clamp(x, b[0], b[1])))(jnp.array([low, high]))
    assert (by_bounds > 1.0).all()


@pytest.mark.parametrize(
    ("depth", "rates"),
    [(1, [2.5e-5]), (4, [2.5e-5, 5e-5, 7.5e-5, 7.5e-5]), (6, [2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 7.5e-5, 7.5e-5])],
)
def test_decay_gradient_is_the_rate_times_the_kernel(depth: int, rates: list[float]) -> None:
    config = EnsembleConfig(members=2, elites=1, hidden=(4,) * depth)
    weights = random(unset(config), numpy_of(9)).weights
    grads = jax.grad(ensemble.decay(config))(weights)
    expected = {f"hidden_{i}": rate for i, rate in enumerate(rates)} | {"mean": 1e-4, "log_var": 1e-4}
    assert set(expected) == set(weights.members)
    for name, rate in expected.items():
        np.testing.assert_allclose(grads.members[name]["kernel"], rate * weights.members[name]["kernel"], rtol=1e-5)
        assert not grads.members[name]["bias"].any()
    assert not grads.max_log_var.any() and not grads.min_log_var.any()


# --- Drawing elites ---
MEMBERS, ELITES = 5, [3, 0, 4]


def constant_members(evaluate: str) -> tuple[WorldModel, Params]:
    """Linear members without noise: delta = 10 (m + 1), reward = 10 (m + 1) + action."""
    config = EnsembleConfig(members=MEMBERS, elites=3, hidden=(), evaluate=evaluate)  # type: ignore[arg-type]
    model = ensemble.make(SPEC, config)
    params = unset(config)
    zero = params.weights.members
    constants = 10.0 * (1 + jnp.arange(MEMBERS))[:, None]
    zero["mean"] = {
        "kernel": zero["mean"]["kernel"].at[:, 2, 2].set(1.0),
        "bias": jnp.broadcast_to(constants, (MEMBERS, 3)),
    }
    zero["log_var"]["bias"] += -40.0
    weights = params.weights._replace(members=zero, min_log_var=jnp.full(3, -40.0))
    return model, params._replace(weights=weights, elites=jnp.array(ELITES, jnp.int32))


def drawn_member(evaluate: str, rows: int, keys: int) -> np.ndarray:
    """The member that predicted each row `[keys, rows]`; checks on the way that rows kept their own inputs."""
    model, params = constant_members(evaluate)
    obs = jnp.stack([1000.0 * jnp.arange(rows), -1000.0 * jnp.arange(rows)], axis=-1)
    action = jnp.linspace(-1.0, 1.0, rows)[:, None]
    step = jax.jit(jax.vmap(lambda key: model.step(params, obs, action, key)))
    state, prediction = step(jax.random.split(jax.random.key(0), keys))
    np.testing.assert_array_equal(state, prediction.obs)
    if evaluate == "all":
        means = 10.0 * (1 + np.arange(MEMBERS))[:, None, None] + np.concatenate([obs, action], axis=-1)
        np.testing.assert_allclose(prediction.members.mean, np.broadcast_to(means, (keys, *means.shape)))
        np.testing.assert_allclose(prediction.members.std, np.exp(0.5 * (-40 + np.log(2))), rtol=1e-3)
    else:
        assert prediction.members is None
    delta = np.asarray(prediction.obs - obs)
    np.testing.assert_allclose(delta, np.round(delta / 10) * 10, atol=1e-2)
    np.testing.assert_allclose(delta[..., 0], delta[..., 1], atol=1e-2)  # one member for every dimension
    np.testing.assert_allclose(prediction.reward, delta[..., 0] + np.asarray(action)[:, 0], atol=2e-2)
    return np.round(delta[..., 0] / 10).astype(int) - 1


KEYS = 3000
FIVE_SIGMA = 5 * np.sqrt(2 / 9 / KEYS)  # of a frequency whose expectation is 1/3


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return drawn_member("drawn", rows=6, keys=KEYS)


def frequencies(member: np.ndarray) -> np.ndarray:
    """How often each row drew each member `[rows, members]`."""
    return np.stack([(member == m).mean(axis=0) for m in range(MEMBERS)], axis=-1)


def test_every_elite_gets_exactly_its_share_and_every_row_draws_uniformly(drawn: np.ndarray) -> None:
    counts = np.stack([(drawn == m).sum(axis=1) for m in range(MEMBERS)], axis=-1)
    np.testing.assert_array_equal(counts, np.tile([2, 0, 0, 2, 2], (KEYS, 1)))
    np.testing.assert_allclose(frequencies(drawn), np.tile([1 / 3, 0, 0, 1 / 3, 1 / 3], (6, 1)), atol=FIVE_SIGMA)


def test_all_draws_as_drawn_does_and_shows_every_member(drawn: np.ndarray) -> None:
    every = drawn_member("all", rows=6, keys=KEYS)
    np.testing.assert_allclose(frequencies(every), frequencies(drawn), atol=np.sqrt(2) * FIVE_SIGMA)


@pytest.mark.parametrize(("rows", "groups", "share"), [(7, 3, 3), (1, 3, 1)])
def test_rows_that_do_not_divide_are_split_evenly_too(rows: int, groups: int, share: int) -> None:
    split = jax.jit(jax.vmap(lambda key: ensemble.balanced(key, rows, groups)))
    row, slot = jax.tree.map(np.asarray, split(jax.random.split(jax.random.key(0), KEYS)))
    assert row.shape == (KEYS, groups, share) and slot.shape == (KEYS, rows)
    back = np.take_along_axis(row.reshape(KEYS, -1), slot, axis=1)
    np.testing.assert_array_equal(back, np.tile(np.arange(rows), (KEYS, 1)))
    for group in range(groups):
        frequency = (slot // share == group).mean(axis=0)
        np.testing.assert_allclose(frequency, 1 / groups, atol=FIVE_SIGMA)


def test_samples_have_the_predicted_spread_and_the_termination_rule_applies() -> None:
    config = EnsembleConfig(members=1, elites=1, hidden=())
    spec = SPEC._replace(is_terminal=lambda obs: obs[..., 0] > 1.0)
    model = ensemble.make(spec, config)
    params = unset(config)
    obs = jnp.ones((4000, 2))
    next_obs, prediction = jax.jit(model.step)(params, obs, jnp.zeros((4000, 1)), jax.random.key(1))
    np.testing.assert_array_equal(prediction.discount, next_obs[:, 0] <= 1.0)
    std = np.exp(0.5 * float(ensemble.soft_clamp(jnp.zeros(()), jnp.float32(-10.0), jnp.float32(0.5))))
    sample = np.concatenate([next_obs - obs, prediction.reward[:, None]], axis=-1)
    np.testing.assert_allclose(np.cov(sample.T), np.diag([std**2] * 3), atol=0.05)
    np.testing.assert_allclose(sample.mean(axis=0), 0.0, atol=0.05)


# --- Imagination ---
def test_imagined_rollouts_are_masked_after_they_terminate() -> None:
    """Trap: public ports roll on past the end, and train on what follows."""

    def step(params, state, action, key):
        obs, clock = state
        obs = obs + action
        discount = 1.0 - (obs[:, 0] > 2.0)
        return (obs, clock + 1), Prediction(obs, clock.astype(jnp.float32), discount, None)

    model = WorldModel(init=None, loss=None, start=None, step=step)  # type: ignore[arg-type]
    params = Params((), Stats(jnp.zeros(1), jnp.ones(1)), jnp.zeros(1, jnp.int32))
    speed = jnp.array([[1.0], [0.5], [0.1]])
    start = jnp.zeros((3, 1))
    roll = jax.jit(
        lambda key: imagine(model, params, lambda obs, key: speed, (start, jnp.zeros(3, jnp.int32)), start, 5, key)
    )
    rows, valid = roll(jax.random.key(0))
    assert rows.obs.shape == (5, 3, 1) and rows.reward.shape == valid.shape == (5, 3)
    np.testing.assert_array_equal(valid, [[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 1, 1]])
    # Row 0 ends with the step to 3, which counts; row 1 ends with the last step; row 2 is cut and keeps discount 1.
    np.testing.assert_array_equal(np.where(valid, rows.discount, 9)[:, 0], [1, 1, 0, 9, 9])
    np.testing.assert_array_equal(rows.discount[:, 1], [1, 1, 1, 1, 0])
    np.testing.assert_array_equal(rows.discount[:, 2], [1, 1, 1, 1, 1])
    np.testing.assert_allclose(rows.obs[:, 1, 0], [0, 0.5, 1, 1.5, 2])
    np.testing.assert_allclose(rows.next_obs[:, 1, 0], [0.5, 1, 1.5, 2, 2.5])
    np.testing.assert_array_equal(rows.reward[:, 2], [0, 1, 2, 3, 4])  # the model's own state is carried
    np.testing.assert_allclose(rows.next_obs[3:, 0, 0], 4.0)  # an ended rollout stands at 3, and does not drift on
    np.testing.assert_array_equal(rows.action, np.tile(speed, (5, 1, 1)))


def test_imagination_gives_policy_and_model_new_keys_in_every_step() -> None:
    def step(params, obs, action, key):
        return obs, Prediction(obs, jax.random.normal(key, (2,)), jnp.ones(2), None)

    model = WorldModel(init=None, loss=None, start=None, step=step)  # type: ignore[arg-type]
    params = Params((), Stats(jnp.zeros(1), jnp.ones(1)), jnp.zeros(1, jnp.int32))
    start = jnp.zeros((2, 1))
    rows, _ = imagine(
        model, params, lambda obs, key: jax.random.normal(key, obs.shape), start, start, 4, jax.random.key(0)
    )
    draws = np.concatenate([np.ravel(rows.action), np.ravel(rows.reward)])
    assert np.unique(draws).size == 16


# --- The fit ---
MODEL = EnsembleConfig(members=3, elites=2, hidden=(32,))
FIT = FitConfig(steps=1500, checks=150, batch=64, learning_rate=3e-3)


@pytest.fixture(scope="module")
def linear_data() -> Dataset:
    """A linear system with noise of std `NOISE` in every output."""
    rows, rng = transitions(numpy_of(2), 2000), numpy_of(3)
    x = np.concatenate([rows.obs, rows.action], axis=-1)
    y = x @ np.array([[0.5, -0.3, 1.0], [0.2, 0.4, -0.5], [1.0, -1.0, 0.3]]) + NOISE * rng.normal(size=(2000, 3))
    return dataset(rows._replace(next_obs=rows.obs + jnp.float32(y[:, :2]), reward=jnp.float32(y[:, 2])))


class Fitted(NamedTuple):
    phase: Phase
    other: fit.State  # of another seed, before any tick
    first: fit.State
    second: fit.State  # after one tick
    last: fit.State
    history: list[dict[str, float]]


@pytest.fixture(scope="module")
def fitted(linear_data: Dataset) -> Fitted:
    _, phase = fit.make(SPEC, MODEL, FIT)
    traces = []

    def traced_update(state, data):
        traces.append(1)
        return phase.update(state, data)

    update = jax.jit(traced_update, donate_argnums=0)
    init = jax.jit(phase.init)
    other, state = (init(jax.random.key(seed), (), linear_data, ()) for seed in (1, 0))
    first = jax.tree.map(jnp.copy, state)
    history: list[dict[str, float]] = []
    states: list[fit.State] = []
    for _ in range(phase.ticks):
        state, metrics = update(state, linear_data)
        history.append({name: float(value) for name, value in metrics.items()})
        states = states or [jax.tree.map(jnp.copy, state)]
    assert len(traces) == 1
    return Fitted(phase, other, first, states[0], state, history)


def test_initial_weights_bounds_and_elites(fitted: Fitted) -> None:
    params = fitted.first.params
    heads = [np.asarray(params.weights.members[head]["kernel"]) for head in ("mean", "log_var")]
    kernel = np.concatenate(heads, axis=-1)  # [3, 32, 6]
    assert np.abs(kernel).max() <= 2 / (2 * np.sqrt(32))
    np.testing.assert_allclose(kernel.std(), 0.8796 / (2 * np.sqrt(32)), rtol=0.12)  # 0.8796: the cut at two std
    assert not np.array_equal(kernel[0], kernel[1])
    np.testing.assert_array_equal(params.weights.max_log_var, [0.5] * 3)
    np.testing.assert_array_equal(params.weights.min_log_var, [-10.0] * 3)
    np.testing.assert_array_equal(params.elites, [0, 1])
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(params))  # a weak type would recompile the first update


def test_fit_reaches_the_noise_floor(fitted: Fitted, linear_data: Dataset) -> None:
    phase, state, history = fitted.phase, fitted.last, fitted.history
    assert (phase.name, phase.ticks, phase.updates_per_tick) == ("model", 150, 10)
    assert set(history[0]) == {"loss", "holdout_mse", "best_mse"}
    assert history[-1]["best_mse"] < 1.3 * NOISE**2  # measured on hold-out rows
    spread = float(jnp.mean(jnp.var(ensemble.targets(linear_data.transitions), axis=0)))
    assert history[-1]["best_mse"] < 0.05 * spread  # spread: what predicting the mean would get
    assert history[-1]["loss"] < history[0]["loss"]
    best = [row["best_mse"] for row in history]
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in itertools.pairwise(best))

    params = phase.result(state)
    rows = jax.tree.map(lambda x: x[state.holdout], linear_data.transitions)
    error = np.asarray(ensemble.mse(SPEC, MODEL)(params.weights, params, rows))
    np.testing.assert_allclose(error, state.best_mse, rtol=1e-4)  # the result holds the snapshots
    np.testing.assert_array_equal(params.elites, np.argsort(error)[:2])
    _, log_var = ensemble.forward(SPEC, MODEL)(params.weights, params.stats, rows.obs, rows.action)
    np.testing.assert_allclose(np.exp(0.5 * np.asarray(log_var)).mean(axis=(0, 1)), NOISE, rtol=0.25)


def test_split_bootstrap_and_input_scale_are_fixed_by_the_key(fitted: Fitted, linear_data: Dataset) -> None:
    first, state = fitted.first, fitted.last
    rows, holdout = np.asarray(first.rows)[:, :1600], np.asarray(first.holdout)
    assert rows.shape == (3, 1600) and holdout.shape == (400,)
    assert first.rows.shape[1] % fit.FILL == 0 and not first.rows[:, 1600:].any()
    assert not np.isin(rows, holdout).any()
    for member in rows:
        assert abs(np.unique(member).size / 1600 - (1 - np.exp(-1))) < 0.05  # a bootstrap leaves 1/e of the rows out
    assert not np.array_equal(rows[0], rows[1])
    train = np.setdiff1d(np.arange(2000), holdout)
    x = np.concatenate([linear_data.transitions.obs, linear_data.transitions.action], axis=-1)[train]
    np.testing.assert_allclose(first.params.stats.mean, x.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(first.params.stats.std, x.std(axis=0), rtol=1e-4)
    for before, after in zip(
        (first.rows, first.holdout, *first.params.stats),
        (state.rows, state.holdout, *state.params.stats),
        strict=True,
    ):
        np.testing.assert_array_equal(before, after)


def test_inputs_that_never_vary_are_left_unscaled() -> None:
    rows = transitions(numpy_of(4), 50)
    rows = rows._replace(obs=rows.obs.at[:, 1].set(1000.1), action=jnp.zeros((50, 1)))
    np.testing.assert_array_equal(fit.input_stats(rows).std[1:], [1.0, 1.0])


def test_snapshots_need_one_per_cent_and_are_taken_member_by_member(fitted: Fitted) -> None:
    first = fitted.first
    old = jax.tree.map(jnp.zeros_like, first.best)
    new = jax.tree.map(jnp.ones_like, first.best)
    state = first._replace(
        params=first.params._replace(weights=first.params.weights._replace(members=new)),
        best=old,
        best_mse=jnp.array([1.0, 2.0, 0.5]),
    )
    after = jax.jit(fit.snapshot)(state, jnp.array([0.995, 0.9, jnp.nan]))
    np.testing.assert_allclose(after.best_mse, [1.0, 0.9, 0.5])
    for leaf in jax.tree.leaves(after.best):
        assert not leaf[0].any() and leaf[1].all() and not leaf[2].any()
    np.testing.assert_array_equal(after.params.elites, [2, 1])
    assert after.params.elites.dtype == jnp.int32
    params = fit.result(after)
    assert params.weights.members is after.best
    assert params.weights.max_log_var is after.params.weights.max_log_var


def test_two_seeds_at_once_equal_one_at_a_time(fitted: Fitted, linear_data: Dataset) -> None:
    phase, both = fitted.phase, jax.tree.map(lambda *leaves: jnp.stack(leaves), fitted.other, fitted.first)
    together, metrics = jax.jit(jax.vmap(phase.update, in_axes=(0, None)))(both, linear_data)
    for name, value in fitted.history[0].items():
        np.testing.assert_allclose(metrics[name][1], value, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(together.best), jax.tree.leaves(fitted.second.best), strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-5, atol=1e-5)
    assert not np.array_equal(together.rows[0], together.rows[1])
    assert float(metrics["loss"][0]) != float(metrics["loss"][1])
    # Shapes alone: to compile a second `init` would double this file's time.
    mapped = jax.vmap(lambda key: phase.init(key, (), linear_data, ()))
    shapes = jax.eval_shape(mapped, jax.random.split(jax.random.key(0), 2))
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, both)


def test_members_train_on_their_own_bootstrap_and_decay_passes_through_adam() -> None:
    data = dataset(transitions(numpy_of(6), 40)._replace(reward=jnp.arange(40.0)))  # the reward names the row

    def make(allowed: jax.Array):
        def init(key, stats):
            weights = ensemble.Weights({"w": jnp.full((2, 1), 2.0)}, jnp.zeros(1), jnp.zeros(1))
            return Params(weights, stats, jnp.arange(1, dtype=jnp.int32))

        def strangers(weights, params, batch, key):
            return jnp.sum(~jax.vmap(jnp.isin)(batch.reward, allowed)).astype(jnp.float32), {}

        model = WorldModel(init=init, loss=strangers, start=None, step=None)  # type: ignore[arg-type]
        config = FitConfig(steps=1, checks=1, batch=500, learning_rate=0.1)
        decay = lambda weights: 0.5 * 0.01 * jnp.sum(weights.members["w"] ** 2)  # noqa: E731
        return fit.phase(model, lambda weights, params, batch: jnp.mean(weights.members["w"], -1), config, 2, decay)

    state = jax.jit(make(jnp.zeros((2, 1))).init)(jax.random.key(0), (), data, ())
    update = jax.jit(lambda allowed, state: make(allowed.astype(jnp.float32)).update(state, data))
    after, metrics = update(state.rows, state)
    assert float(metrics["loss"]) == 0.0
    _, swapped = update(state.rows[::-1], state)
    assert float(swapped["loss"]) > 0.0
    # Adam's first step has its full size whatever the gradient's: coupled decay, while AdamW would move by 0.002.
    np.testing.assert_allclose(after.params.weights.members["w"], 1.9, rtol=1e-4)
    np.testing.assert_allclose(after.best_mse, 1.9, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elites": 8}, "elites is 8"),
        ({"elites": 0}, "elites is 0"),
        ({"evaluate": "some"}, "'drawn' or 'all'"),
        ({"weight_decay": ()}, "weight_decay is empty"),
    ],
)
def test_impossible_ensembles_are_refused(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ensemble.make(SPEC, replace(EnsembleConfig(), **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"checks": 7}, "steps=1498"), ({"checks": 0}, "checks=0"), ({"holdout": 1.0}, "between 0 and 1")],
)
def test_impossible_fits_are_refused(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit.make(SPEC, MODEL, replace(FIT, **change))


def test_too_few_rows_are_refused() -> None:
    _, phase = fit.make(SPEC, MODEL, FIT)
    with pytest.raises(UserError, match="1 rows"):
        phase.init(jax.random.key(0), (), dataset(transitions(numpy_of(7), 1)), ())


def test_the_cache_knows_what_shapes_the_fit_and_nothing_else() -> None:
    def identity(**change) -> str:
        return fit.make(SPEC, replace(MODEL, **change), FIT)[1].cache

    assert identity() == identity(evaluate="all") != identity(members=4)
