"""Lipschitz mechanisms and diagnostics, against linear algebra and closed forms."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_suite import nets
from jaxrl_suite.algorithms import actor_critic as ac
from jaxrl_suite.algorithms import mbpo, ravl, registry, sac
from jaxrl_suite.envs import pendulum
from jaxrl_suite.errors import UserError
from jaxrl_suite.models import oracle
from jaxrl_suite.train import session
from jaxrl_suite.types import Spec, Transition
from jaxrl_suite.values import lipschitz
from jaxrl_suite.values.lipschitz import Config

SPEC = Spec("made-up", 3, 2, 10, lambda obs: obs[..., 0] > 1e9)
BASE = ac.ActorCriticConfig(critics=3, hidden=(16, 16), batch=32)
HYPERS = ac.Hypers(gamma=0.9, tau=0.1, actor_lr=1e-2, critic_lr=1e-2, alpha_lr=1e-2)
KEY = jax.random.key(0)


def batch(seed=0, rows=32):
    keys = jax.random.split(jax.random.key(seed), 4)
    return Transition(
        jax.random.normal(keys[0], (rows, 3)) * jnp.array([1.0, 3.0, 0.2]),
        jnp.tanh(jax.random.normal(keys[1], (rows, 2))),
        10.0 * jax.random.normal(keys[2], (rows,)),
        jnp.ones(rows),
        jax.random.normal(keys[3], (rows, 3)),
    )


@functools.cache
def learner(config):
    parts = ac.make(SPEC, dataclasses.replace(BASE, lipschitz=config))
    return parts, jax.jit(parts.init), jax.jit(parts.update)


def trained(config, updates):
    _, init, update = learner(config)
    state, metrics = init(KEY, HYPERS, None), {}
    for step in range(updates):
        state, metrics = update(state, batch(step), jax.random.key(step))
    return state, metrics


def layer_norms(weights, names=("hidden_0", "hidden_1")):
    """By singular values, in float64, `[layers, critics]`."""
    kernels = [np.asarray(weights[name]["kernel"], np.float64) for name in names]
    return np.array([np.linalg.svd(kernel, compute_uv=False)[:, 0] for kernel in kernels])


# --- power iteration ---
@pytest.mark.parametrize("shape", [(4, 7), (64, 64), (5, 1), (1, 3)])
def test_power_iteration_finds_the_largest_singular_value_from_below(shape):
    kernel = jax.random.normal(jax.random.key(sum(shape)), shape)
    true = np.linalg.svd(np.asarray(kernel, np.float64), compute_uv=False)[0]
    u = jax.random.normal(jax.random.key(1), shape[1:])
    for iterations in (1, 3, 200):
        sigma, vector = lipschitz.power_iteration(kernel, u, iterations)
        assert float(sigma) <= true * (1 + 1e-6)
    np.testing.assert_allclose(sigma, true, rtol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(vector), 1.0, rtol=1e-5)


def test_power_iteration_goes_on_where_it_stopped():
    kernel = jax.random.normal(KEY, (20, 30))
    u = jax.random.normal(jax.random.key(1), (30,))
    at_once, _ = lipschitz.power_iteration(kernel, u, 10)
    for _ in range(10):
        sigma, u = lipschitz.power_iteration(kernel, u, 1)
    np.testing.assert_allclose(sigma, at_once, rtol=1e-6)


# --- spectral normalisation ---
@pytest.mark.parametrize("output", [False, True])
def test_bounded_layers_stay_within_a_thousandth_of_their_bound_online_and_target(output):
    """A peer's spectral norm was dropped when layers were copied, and never applied: norms must be seen to change."""
    names = ("hidden_0", "hidden_1", "value") if output else ("hidden_0", "hidden_1")
    free, _ = trained(Config(), 60)
    assert (layer_norms(free.critic, names) > 0.45).all()
    state, _ = trained(Config("spectral", bound=0.3, output=output), 60)
    for weights in (state.critic, state.target_critic):
        assert (layer_norms(weights, names) <= 0.3 * 1.001).all()
    assert (layer_norms(state.critic, names) > 0.29).all()
    # What is not named is free.
    assert output or (layer_norms(state.critic, ("value",)) > 0.45).all()


def test_exact_layers_have_the_norm_itself():
    state, _ = trained(Config("spectral_exact", bound=3.0), 30)
    np.testing.assert_allclose(layer_norms(state.critic), 3.0, rtol=1e-3)
    assert (layer_norms(state.target_critic) <= 3.003).all()


def test_layers_below_the_bound_are_left_alone():
    weights = learner(Config())[1](KEY, HYPERS, None).critic
    constraint = lipschitz.constraint(Config("spectral", bound=1e3))
    same, memory = constraint.start(weights, KEY)
    for a, b in zip(jax.tree.leaves(weights), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(a, b)
    assert {name: u.shape for name, u in memory.items()} == {"hidden_0": (3, 16), "hidden_1": (3, 16)}


def test_layer_normalisation_has_no_bound_and_none_is_told():
    parts = ac.make(SPEC, dataclasses.replace(BASE, layer_norm=True))
    weights = jax.jit(parts.init)(KEY, HYPERS, None).critic
    assert {name for name in weights if name.startswith("norm")} == {"norm_0", "norm_1"}
    assert set(lipschitz.norms(weights)) == {"hidden_0", "hidden_1", "value"}
    bound = lipschitz.upper_bound(weights)
    assert bound.shape == (3,) and np.isnan(bound).all()
    assert not lipschitz.too_tight(float(bound[0]), 1e6)  # nothing is known, so nothing is said


@pytest.mark.parametrize("kind", lipschitz.PROJECTIONS)
def test_norms_of_layers_are_not_bounded_where_that_would_bound_no_slope(kind):
    with pytest.raises(UserError, match="bounds no slope with layer normalisation"):
        ac.make(SPEC, dataclasses.replace(BASE, layer_norm=True, lipschitz=Config(kind)))


def test_no_pair_of_inputs_is_steeper_than_the_bound():
    state, _ = trained(Config("spectral", bound=0.3), 60)
    bound = np.asarray(lipschitz.upper_bound(state.critic), np.float64)
    norms = layer_norms(state.critic, ("hidden_0", "hidden_1", "value"))
    np.testing.assert_allclose(bound, norms.prod(axis=0), rtol=1e-4)
    keys = jax.random.split(KEY, 4)
    x = 3.0 * jax.random.normal(keys[0], (10_000, 5))
    near = jnp.where(jnp.arange(10_000)[:, None] % 2 == 0, 1e-2, 3.0)
    y = x + near * jax.random.normal(keys[1], x.shape)
    values = jax.jit(learner(Config())[0].values)
    difference = jnp.abs(values(state, x[:, :3], x[:, 3:]) - values(state, y[:, :3], y[:, 3:]))
    distance = jnp.linalg.norm(x - y, axis=-1)
    assert (np.asarray(difference) <= bound[:, None] * np.asarray(distance) * (1 + 1e-4) + 1e-5).all()
    # Local estimates come from below.
    value = lambda obs: values(state, obs, x[:50, 3:])[0]  # noqa: E731
    gradients = lipschitz.gradient_norms(value, x[:50, :3])
    found = lipschitz.steepest(value, x[:50, :3], 0.1, 3, KEY)
    assert 0 < gradients.max() <= bound[0] * (1 + 1e-5) and 0 < found.max() <= bound[0] * (1 + 1e-3)


# --- attacks ---
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_an_attack_on_a_linear_value_reaches_the_closed_maximum(steps):
    """max over |d_i| <= r_i of (g . d)^2 is (sum_i |g_i| r_i)^2."""
    slope, radius = jnp.array([1.0, -2.0, 0.5]), 0.1 * jnp.array([1.0, 0.3, 2.0])
    obs = batch().obs[None]
    moved = lipschitz.attack(lambda x: x @ slope, obs, radius, steps, KEY)
    np.testing.assert_allclose(jnp.abs(moved @ slope), float(jnp.abs(slope) @ radius), rtol=1e-4)
    found = lipschitz.term(Config("adversarial", weight=0.3, eps=0.2, steps=steps), lambda w, x: x @ w, obs, KEY)(slope)
    best = np.abs(np.asarray(slope)) @ (0.2 * np.asarray(obs[0], np.float64).std(axis=0))
    np.testing.assert_allclose(found, [0.3 * best**2], rtol=1e-4)


def test_more_steps_find_more_than_one_on_a_bent_value_and_random_noise_least():
    weights = learner(Config())[1](jax.random.key(3), HYPERS, None).critic
    critics = nets.ensemble(nets.mlp(5, (16, 16), {"value": 1}), 3)
    weights = jax.tree.map(lambda leaf: 3.0 * leaf, weights)
    rows = batch(1, 500)
    obs = jnp.broadcast_to(rows.obs, (3, 500, 3))
    inputs = lambda x: jnp.concatenate([x, jnp.broadcast_to(rows.action, (3, 500, 2))], axis=-1)  # noqa: E731
    value = lambda weights, x: critics.apply(weights, inputs(x))["value"][..., 0]  # noqa: E731
    of = lambda **more: float(jnp.sum(lipschitz.term(Config(eps=1.0, **more), value, obs, KEY)(weights)))  # noqa: E731
    assert of(kind="adversarial", steps=10) >= of(kind="adversarial") > 1.2 * of(kind="random")


def test_random_noise_is_of_the_size_of_an_attack():
    """A value that is the displacement's own length: both move by eps std in every coordinate."""
    obs = batch().obs[None]
    length = lambda w, x: w * jnp.linalg.norm((x - obs) / jnp.std(obs[0], axis=0) + 1e-12, axis=-1)  # noqa: E731
    for kind in ("random", "adversarial"):
        found = lipschitz.term(Config(kind, weight=1.0, eps=0.2), length, obs, KEY)(jnp.float32(1.0))
        np.testing.assert_allclose(found, [3 * 0.2**2], rtol=1e-3)


def test_the_gradient_penalty_counts_what_is_above_its_bound():
    slope = jnp.array([3.0, 4.0, 0.0])
    of = lambda bound: lipschitz.term(  # noqa: E731
        Config("gradient_penalty", bound=bound, weight=0.5), lambda w, x: x @ w, batch().obs[None], KEY
    )
    np.testing.assert_allclose(of(3.0)(slope), [0.5 * 4.0], rtol=1e-5)
    np.testing.assert_allclose(of(6.0)(slope), [0.0])
    np.testing.assert_allclose(jax.grad(lambda w: of(3.0)(w)[0])(slope), 2.0 * slope / 5.0, rtol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        Config("spectral", bound=0.3),
        Config("adversarial", weight=10.0, eps=0.3),
        Config("gradient_penalty", bound=0.1, weight=10.0),
    ],
)
def test_a_mechanism_makes_the_critic_less_steep_than_it_was(config):
    plain, smooth = (trained(c, 60)[0] for c in (Config(), config))
    rows = batch(7)
    values = learner(Config())[0].values
    norms = jax.jit(lambda s: lipschitz.gradient_norms(lambda x: values(s, x, rows.action)[0], rows.obs))
    assert norms(smooth).mean() < 0.7 * norms(plain).mean()


# --- what changes nothing ---
@pytest.mark.parametrize(
    "config",
    [
        Config("spectral", bound=np.inf),
        Config("adversarial", weight=0.0),
        Config("random", eps=0.0),
        Config("gradient_penalty", weight=0.0),
        Config("gradient_penalty", bound=np.inf),
    ],
)
def test_without_weight_or_with_an_infinite_bound_the_learner_is_the_plain_one_to_the_bit(config):
    (plain, metrics), (same, others) = trained(Config(), 3), trained(config, 3)
    assert not config.active and metrics.keys() == others.keys()
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_loose_bound_projects_by_one_to_the_bit():
    """Here the projection does run."""
    (plain, _), (same, _) = trained(Config(), 3), trained(Config("spectral", bound=1e6), 3)
    assert same.norms and not plain.norms
    for a, b in zip(jax.tree.leaves(plain.critic), jax.tree.leaves(same.critic), strict=True):
        np.testing.assert_array_equal(a, b)


def test_noise_has_a_key_that_no_other_term_draws_from(monkeypatch):
    """CQL's proposals split their key into three."""
    keys = []
    monkeypatch.setattr(lipschitz, "term", lambda config, value, obs, key: keys.append(key) or jnp.zeros_like)
    more = lambda weights, state, batch, key: (keys.extend(jax.random.split(key, 3)) or 0.0, {})  # noqa: E731
    lipschitz.added(Config("random"), None, more, 3)(jnp.zeros(3), None, batch(), KEY)
    assert len(np.unique([jax.random.key_data(key) for key in keys], axis=0)) == len(keys) == 4


def test_published_identities_know_nothing_of_the_options():
    for module in (ravl, mbpo, sac):
        for config in module.PRESETS.values():
            frozen = session.freeze("x", registry.get(module.__name__.rpartition(".")[2]), config, "hopper")
            assert not [name for name in frozen["config"] if name.startswith("lipschitz")]
    changed = dataclasses.replace(ravl.PRESETS["quick"], lipschitz="spectral", lipschitz_bound=3.0)
    frozen = session.freeze("x", registry.get("ravl"), changed, "hopper")["config"]
    assert (frozen["lipschitz"], frozen["lipschitz_bound"]) == ("spectral", 3.0)
    assert changed.actor_critic().lipschitz == Config("spectral", bound=3.0)


# --- value-aware error ---
def test_the_value_aware_error_of_the_true_dynamics_is_zero():
    env = pendulum.make()
    model, obs = oracle.of("Pendulum-v1"), jnp.array([[1.0, 0.0, 0.3], [0.0, 1.0, -2.0]])
    action = jnp.array([[0.5], [-1.0]])
    states = jax.vmap(lambda o: env.restore(o, None))(obs)
    true = jax.vmap(env.step)(states, action, jax.random.split(KEY, 2))[1].obs
    _, imagined = model.step(model.init(KEY, None), states, action, KEY)
    value = lambda x: jnp.sin(3.0 * x) @ jnp.array([1.0, 2.0, -1.0])  # noqa: E731
    np.testing.assert_array_equal(lipschitz.value_aware_error(value, true, imagined.obs[None]), 0.0)
    np.testing.assert_array_equal(lipschitz.model_error(true, imagined.obs[None]), 0.0)


def test_the_value_aware_error_is_the_difference_of_means_and_never_above_slope_times_error():
    keys = jax.random.split(KEY, 3)
    slope = jnp.array([1.0, -2.0, 0.5])
    next_obs, imagined = jax.random.normal(keys[0], (40, 3)), jax.random.normal(keys[1], (7, 40, 3))
    found = lipschitz.value_aware_error(lambda x: x @ slope, next_obs, imagined)
    expected = np.abs((np.asarray(next_obs) - np.asarray(imagined).mean(axis=0)) @ np.asarray(slope))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    network = nets.mlp(3, (16, 16), {"value": 1})
    for seed in range(20):
        weights = jax.tree.map(lambda leaf: 2.0 * leaf, network.init(jax.random.key(seed)))
        value = lambda x, w=weights: network.apply(w, x)["value"][..., 0]  # noqa: E731
        error = lipschitz.value_aware_error(value, next_obs, imagined)
        bound = lipschitz.upper_bound(weights) * lipschitz.model_error(next_obs, imagined)
        assert (np.asarray(error) <= np.asarray(bound) * (1 + 1e-5)).all()


# --- bad settings ---
def test_a_bound_that_cannot_reach_the_values_is_told():
    obs = jnp.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    needed = float(lipschitz.slope_needed(jnp.array([0.0, 50.0, -50.0]), obs))
    assert needed == pytest.approx(20.0)
    assert "raise the bound" in lipschitz.too_tight(19.0, needed)
    assert not lipschitz.too_tight(21.0, needed)


@pytest.mark.parametrize(
    "config, words",
    [
        (Config("spectrum"), "spectral"),
        (Config("spectral", bound=0.0), "bound above 0"),
        (Config("spectral_exact", bound=np.inf), "finite"),
        (Config("adversarial", steps=0), "at least 1 step"),
        (Config("random", weight=-1.0), "no negative"),
    ],
)
def test_settings_without_a_meaning_are_refused(config, words):
    with pytest.raises(UserError, match=words):
        ac.make(SPEC, dataclasses.replace(BASE, lipschitz=config))


def test_numbers_that_a_mechanism_has_no_use_for_are_told():
    """Each changes what exactly the mechanisms that it is not vain for do."""
    other = {"bound": 0.5, "weight": 0.7, "eps": 0.2, "steps": 3, "output": True}
    weights = {
        "hidden_0": {"kernel": 9.0 * jax.random.normal(jax.random.key(0), (1, 3, 8)), "bias": jnp.zeros((1, 8))},
        "out": {"kernel": 9.0 * jax.random.normal(jax.random.key(1), (1, 8, 1)), "bias": jnp.zeros((1, 1))},
    }
    obs = jax.random.normal(jax.random.key(2), (1, 5, 3))

    def value(weights, obs):
        hidden = jnp.sin(jnp.einsum("cbi,cio->cbo", obs, weights["hidden_0"]["kernel"]))
        return jnp.einsum("cbi,cio->cbo", hidden, weights["out"]["kernel"])[..., 0]

    def effect(config):
        projected, _ = lipschitz.constraint(config).start(weights, jax.random.key(3))
        adds = config.kind not in ("none", *lipschitz.PROJECTIONS)
        return jax.tree.leaves((projected, adds and lipschitz.term(config, value, obs, jax.random.key(4))(weights)))

    for kind in lipschitz.USES:
        for name, number in other.items():
            usual = lipschitz.Config(kind)
            changed = dataclasses.replace(usual, **{name: number})
            same = all(np.array_equal(a, b) for a, b in zip(effect(usual), effect(changed), strict=True))
            assert bool(lipschitz.complaint(changed)) == same, (kind, name)
