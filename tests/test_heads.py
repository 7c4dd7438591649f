"""Value heads: projections and their oracles, supports, bad input."""

import functools
import math
from dataclasses import replace

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl_suite.errors import UserError
from jaxrl_suite.values import ensemble, heads, projections, supports
from jaxrl_suite.values.heads import HEADS, HeadConfig
from jaxrl_suite.values.projections import Support

BINS = 51
UNIT = Support(jnp.float32(0.0), jnp.float32(BINS))  # bins of width 1 between edges 0 to 51
WIDE = Support(jnp.float32(-30.0), jnp.float32(170.0))
SCALARS = ("two_hot", "hl_gauss", "two_hot_symexp", "symlog", "symlog_hl_gauss", "symlog_mse", "mse", "mse_softmax")
HISTOGRAMS = ("two_hot", "hl_gauss", "two_hot_symexp", "mse_softmax", "c51")  # whose decoded value is their own mean

gauss = jax.jit(projections.hl_gauss_probs, static_argnums=(2, 3))
hot = jax.jit(projections.two_hot, static_argnums=2)
c51 = jax.jit(projections.c51_project)
quickly = hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
fractions = st.floats(0.0, 1.0, width=32)


def head_of(name, bins=BINS, support="-30,170", **more):
    return heads.make(HeadConfig(name, bins=bins, support=support, **more))


def spread(probs, points):
    mean = probs @ points
    return probs @ np.square(points - mean)


# --- HL-Gauss ---
def scipy_probs(y, low, high, bins, ratio):
    """The reference's formula in float64."""
    edges = np.linspace(low, high, bins + 1)
    below = scipy.stats.norm.cdf(edges, np.clip(y, low, high)[..., None], ratio * (high - low) / bins)
    return np.diff(below) / (below[..., -1:] - below[..., :1])


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75, 2.0])
@pytest.mark.parametrize(("low", "high", "bins"), [(-10.0, 10.0, 51), (0.0, 1.0, 128), (-300.0, 4000.0, 101)])
def test_hl_gauss_is_that_of_scipy_in_float64(ratio, low, high, bins):
    y = np.linspace(low - 2.0, high + 2.0, 333).astype(np.float32)
    found = gauss(y, Support(jnp.float32(low), jnp.float32(high)), bins, ratio)
    expected = scipy_probs(y.astype(np.float64), low, high, bins, ratio)
    with jax.enable_x64(True):
        exact = projections.hl_gauss_probs(jnp.asarray(y, jnp.float64), Support(low, high), bins, ratio)
    np.testing.assert_allclose(exact, expected, atol=1e-12)
    # In float32 the place of y among the bins is known to two roundings; the density of the Gaussian magnifies it.
    np.testing.assert_allclose(found, expected, atol=1e-6 + 2 * 6e-8 * bins * 0.4 / ratio)


@pytest.mark.parametrize("ratio", [0.25, 0.75, 2.0])
def test_hl_gauss_is_that_of_scipy_to_a_millionth_where_bins_are_of_width_one(ratio):
    y = np.round(np.linspace(-2.0, BINS + 2.0, 999) * 256) / 256
    found = gauss(jnp.float32(y), UNIT, BINS, ratio)
    np.testing.assert_allclose(found, scipy_probs(y, 0.0, BINS, BINS, ratio), atol=1e-6)


@quickly
@hypothesis.given(fractions, st.sampled_from([0.25, 0.5, 0.75, 1.0, 2.0]))
def test_hl_gauss_probabilities_sum_to_one_and_none_is_negative(fraction, ratio):
    probs = gauss(jnp.float32(fraction * BINS), UNIT, BINS, ratio)
    assert float(jnp.min(probs)) >= 0.0
    np.testing.assert_allclose(jnp.sum(probs), 1.0, atol=1e-6)


def test_no_probability_is_below_zero_and_the_floor_is_finite():
    """float32's erf is not monotone: differences of it were -6e-8, whose entropy is not finite."""
    y = jnp.linspace(-3.0, 104.0, 200_001)[:35_000]  # four of these
    probs = gauss(y, Support(jnp.float32(0.0), jnp.float32(101.0)), 101, 1.0)
    assert float(jnp.min(probs)) >= 0.0
    assert bool(jnp.all(jnp.isfinite(projections.entropy(probs))))
    np.testing.assert_allclose(jnp.sum(probs, axis=-1), 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "error"), [(0.65, 1e-4), (0.75, 1e-4), (1.0, 1e-4), (2.0, 1e-4), (0.5, 2.4e-3), (0.25, 0.0928)]
)
def test_hl_gauss_keeps_the_mean_of_interior_values(ratio, error):
    inside = jnp.linspace(6 * ratio + 1, BINS - 6 * ratio - 1, 1_001)
    found = gauss(inside, UNIT, BINS, ratio) @ projections.centres(UNIT, BINS)
    worst = float(jnp.max(jnp.abs(found - inside)))
    assert worst <= error
    if ratio <= 0.5:  # a bias of exp(-2 pi^2 ratio^2) / pi that is really there
        assert worst == pytest.approx(math.exp(-2 * math.pi**2 * ratio**2) / math.pi, rel=0.02)


@pytest.mark.parametrize("place", [17.0, 23.4, 30.5, 33.99])
def test_hl_gauss_has_the_variance_of_the_gaussian_and_of_a_bin(place):
    support = Support(jnp.float32(0), jnp.float32(0.39 * BINS))
    probs = np.asarray(gauss(jnp.float32(place * 0.39), support, BINS, 0.75))
    points = 0.39 * (np.arange(BINS) + 0.5)
    # sigma = 0.75 w, w = 0.39: 0.75^2 w^2 + w^2 / 12, but for a ripple over the bin of exp(-2 pi^2 ratio^2)
    assert spread(probs, points) == pytest.approx(0.39**2 * (0.75**2 + 1 / 12), rel=5e-4)


@quickly
@hypothesis.given(st.floats(8.0, 30.0, width=32), st.integers(1, 10))
def test_hl_gauss_shifts_with_the_value(y, bins):
    here, there = gauss(jnp.float32(y), UNIT, BINS, 0.75), gauss(jnp.float32(y) + bins, UNIT, BINS, 0.75)
    np.testing.assert_allclose(there, jnp.roll(here, bins), atol=3e-6)


@quickly
@hypothesis.given(st.floats(-2.0, BINS + 2.0, width=32))
def test_projections_are_symmetric_under_reflection(y):
    y = jnp.float32(y)
    np.testing.assert_allclose(gauss(BINS - y, UNIT, BINS, 0.75), gauss(y, UNIT, BINS, 0.75)[::-1], atol=3e-6)
    np.testing.assert_allclose(hot(BINS - y, UNIT, BINS), hot(y, UNIT, BINS)[::-1], atol=2e-5)


def test_the_floor_of_the_cross_entropy():
    """ln(ratio sqrt(2 pi e)) with ratio^2 + 1/12 for ratio^2: 1.2003 nats at 0.75, on the average over a bin."""
    y = 25.0 + jnp.linspace(0.0, 1.0, 200, endpoint=False)
    floor = float(jnp.mean(projections.entropy(gauss(y, UNIT, BINS, 0.75))))
    assert floor == pytest.approx(1.2003, abs=1e-3)
    assert floor == pytest.approx(math.log(math.sqrt((0.75**2 + 1 / 12) * 2 * math.pi * math.e)), abs=1e-3)


def test_hl_gauss_of_a_small_ratio_is_one_hot_and_no_two_hot():
    """The limit of ratio -> 0 is biased by up to half a bin."""
    probs = gauss(jnp.float32(20.3), UNIT, BINS, 0.01)
    assert float(probs[20]) == pytest.approx(1.0) and float(probs @ projections.centres(UNIT, BINS)) == 20.5


# --- Two-hot ---
@quickly
@hypothesis.given(fractions)
def test_two_hot_goes_there_and_back(fraction):
    y = -30.0 + 200.0 * fraction
    probs = hot(jnp.float32(y), WIDE, BINS)
    assert int(jnp.sum(probs > 0)) <= 2
    np.testing.assert_allclose(jnp.sum(probs), 1.0, atol=1e-6)
    np.testing.assert_allclose(probs @ projections.atoms(WIDE, BINS), y, atol=200 * 1e-6)


@quickly
@hypothesis.given(fractions)
def test_two_hot_between_uneven_atoms_goes_there_and_back(fraction):
    points = projections.symexp_atoms(WIDE, BINS)
    y = -30.0 + 200.0 * fraction
    probs = projections.two_hot_between(jnp.float32(y), points)
    assert int(jnp.sum(probs > 1e-5)) <= 2
    np.testing.assert_allclose(jnp.sum(probs), 1.0, atol=1e-5)
    np.testing.assert_allclose(probs @ points, y, atol=2e-3)


def test_two_hot_between_even_atoms_is_two_hot():
    y = jnp.linspace(-40.0, 180.0, 99)
    between = projections.two_hot_between(y, projections.atoms(WIDE, BINS))
    np.testing.assert_allclose(between, hot(y, WIDE, BINS), atol=2e-5)


@pytest.mark.parametrize("x", [-1e4, -3.0, -1e-3, 0.0, 1e-3, 2.0, 1e4])
def test_symexp_undoes_symlog(x):
    assert float(projections.symexp(projections.symlog(jnp.float32(x)))) == pytest.approx(x, rel=1e-5)


# --- C51 ---
def naive_c51(probs, moved, low, high):
    """Algorithm 1 of the paper, with the whole mass on an atom that is hit."""
    bins, out = len(probs), np.zeros(len(probs))
    for p, z in zip(probs, moved, strict=True):
        b = (np.clip(z, low, high) - low) / ((high - low) / (bins - 1))
        lower, upper = int(np.floor(b)), int(np.ceil(b))
        if lower == upper:
            out[lower] += p
        else:
            out[lower] += p * (upper - b)
            out[upper] += p * (b - lower)
    return out


@pytest.mark.parametrize(("reward", "discount"), [(0.0, 1.0), (3.7, 0.9), (-60.0, 0.99), (200.0, 0.5), (4.0, 0.0)])
def test_c51_is_the_papers_algorithm(reward, discount):
    probs = scipy.stats.dirichlet.rvs(np.ones(BINS), random_state=0)[0]
    z = np.linspace(-30.0, 170.0, BINS)
    found = c51(jnp.float32(probs), jnp.float32(reward + discount * z), WIDE)
    np.testing.assert_allclose(found, naive_c51(probs, reward + discount * z, -30.0, 170.0), atol=1e-5)


def test_c51_keeps_the_mean_where_nothing_is_clipped():
    head, support = head_of("c51"), WIDE
    logits = jax.random.normal(jax.random.key(0), (7, BINS))
    reward, discount, shift = jnp.linspace(0.0, 20.0, 7), jnp.full(7, 0.6), jnp.full(7, 2.0)
    target = head.target(reward, discount, logits, shift, support)
    expected = reward + discount * (head.decode(logits, support) + shift)
    np.testing.assert_allclose(target.probs @ projections.atoms(support, BINS), expected, rtol=1e-5)
    np.testing.assert_array_equal(target.clipped, 0.0)


def test_c51_of_a_certain_next_value_is_two_hot():
    head = head_of("c51")
    logits = jnp.where(jnp.arange(BINS) == 17, 0.0, -1e9)[None]
    one = jnp.ones(1)
    target = head.target(3.3 * one, 0.9 * one, logits, 0.0 * one, WIDE)
    expected = hot(3.3 + 0.9 * projections.atoms(WIDE, BINS)[17], WIDE, BINS)
    np.testing.assert_allclose(target.probs[0], expected, atol=2e-5)


def test_c51_measures_the_mass_that_is_clipped():
    head = head_of("c51")
    logits = jnp.where(jnp.isin(jnp.arange(BINS), jnp.array([0, BINS - 1])), 0.0, -1e9)[None]  # half at either end
    one = jnp.ones(1)
    target = head.target(one, one, logits, 0 * one, WIDE)
    assert float(head.measure(logits, target, WIDE)["clipped_targets"]) == pytest.approx(0.5)


# --- Losses ---
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4, 1e32])
def test_softmax_and_mean_are_those_of_jax(scale):
    """Also where a logit's exponential is not finite."""
    logits = scale * jax.random.normal(jax.random.key(9), (4, BINS))
    points = projections.atoms(WIDE, BINS)
    expected = jax.nn.softmax(logits)
    np.testing.assert_allclose(projections.softmax(logits), expected, atol=1e-6)
    np.testing.assert_allclose(projections.log_softmax(logits), jax.nn.log_softmax(logits), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(projections.mean(logits, points), expected @ points, rtol=1e-5, atol=1e-4)
    slopes = jax.grad(lambda x: jnp.sum(projections.mean(x, points)))(logits)
    np.testing.assert_allclose(slopes, expected * (points - (expected @ points)[:, None]), atol=1e-3)
    assert bool(jnp.all(jnp.isnan(projections.mean(logits.at[:, 3].set(jnp.nan), points))))


@pytest.mark.parametrize("name", ["hl_gauss", "two_hot", "two_hot_symexp", "c51"])
def test_the_gradient_is_softmax_less_target(name):
    head = head_of(name)
    logits = jax.random.normal(jax.random.key(1), (3, BINS))
    y = jnp.array([-12.3, 40.0, 169.0])
    project = {
        "hl_gauss": lambda: gauss(y, WIDE, BINS, 0.75),
        "two_hot": lambda: hot(y, WIDE, BINS),
        "two_hot_symexp": lambda: projections.two_hot_between(y, projections.symexp_atoms(WIDE, BINS)),
        "c51": lambda: hot(y, WIDE, BINS),  # of an end, where all of the mass is at the reward
    }[name]
    goal = head.target(y, 0 * y, logits, 0 * y, WIDE)
    grads = jax.grad(lambda x: jnp.sum(head.loss(x, goal, WIDE)))(logits)
    np.testing.assert_allclose(grads, jax.nn.softmax(logits) - project(), atol=2e-6)
    step = jax.random.normal(jax.random.key(2), logits.shape)
    up, down = (jnp.sum(head.loss(logits + s * 1e-2 * step, goal, WIDE)) for s in (1, -1))
    assert float((up - down) / 2e-2) == pytest.approx(float(jnp.sum(grads * step)), abs=3e-3)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("y", [-30.0, 170.0, -1e3, 1e4, 1e30])
def test_loss_and_gradient_are_finite_far_beyond_the_ends(name, y):
    head = head_of(name)
    if name in ("mse", "quantile", "symlog_mse") and abs(y) > 1e5:
        y = 1e5  # a squared error of 1e30 is none in float32; these heads have no ends
    one = jnp.ones(2)
    support = head.support(jnp.array([0.0, 1.0]))
    target = head.target(y * one, 0 * one, jnp.zeros((2, head.size)), 0 * one, support)

    loss, grads = jax.value_and_grad(lambda x: jnp.sum(head.loss(x, target, support)))(jnp.zeros((2, head.size)))
    assert np.isfinite(loss) and np.all(np.isfinite(grads)) and float(jnp.max(jnp.abs(grads))) > 0
    numbers = head.measure(jnp.zeros((2, head.size)), target, support)
    assert all(np.isfinite(value) for value in numbers.values())
    if name in ("hl_gauss", "two_hot", "c51"):
        # Beyond the ends the target is that at the end: the probability concentrates in the last bin.
        assert abs(float(grads[0, 0 if y < 0 else -1])) > 0.4


@pytest.mark.parametrize("name", HEADS)
def test_a_target_that_is_no_number_shows_in_the_loss(name):
    """A clip must not hide NaN: the run is to be marked as diverged."""
    head, one = head_of(name), jnp.ones(1)
    support = head.support(jnp.array([0.0, 1.0]))
    target = head.target(jnp.nan * one, one, jnp.zeros((1, head.size)), one, support)
    assert np.isnan(head.loss(jnp.zeros((1, head.size)), target, support)).all()


@pytest.mark.parametrize("name", SCALARS)
def test_a_target_is_a_number(name):
    head = head_of(name)
    assert head.scalar
    support = head.support(jnp.array([0.0, 1.0]))
    logits = jax.random.normal(jax.random.key(3), (4, head.size))
    reward, discount, shift = (jnp.array(x) for x in ([1.0, 2, 3, 4], [0.9, 0.9, 0.0, 0.5], [0.0, -1, -2, 3]))
    target = head.target(reward, discount, logits, shift, support)
    np.testing.assert_allclose(target, reward + discount * (head.decode(logits, support) + shift), rtol=1e-6)


def test_mse_softmax_is_the_squared_error_of_the_mean():
    head = head_of("mse_softmax")
    logits, y = jax.random.normal(jax.random.key(4), (3, BINS)), jnp.array([0.0, 50.0, 500.0])
    expected = np.square(np.asarray(head.decode(logits, WIDE)) - [0.0, 50.0, 170.0])
    np.testing.assert_allclose(head.loss(logits, y, WIDE), expected, rtol=1e-5)


def test_quantiles_are_those_of_the_target():
    """The quantile loss in float64, and that its minimum lies at the quantiles."""
    head, levels = head_of("quantile", bins=5), (np.arange(5) + 0.5) / 5
    theta, target = np.array([-1.0, 0.2, 0.5, 1.0, 4.0]), np.array([0.0, 3.0, -2.5, 0.6, 0.7])
    error = target[None, :] - theta[:, None]
    huber = np.where(np.abs(error) <= 1, 0.5 * error**2, np.abs(error) - 0.5)
    expected = np.sum(np.mean(np.abs(levels[:, None] - (error < 0)) * huber, axis=1))
    assert float(head.loss(jnp.float32(theta), jnp.float32(target), ())) == pytest.approx(expected, rel=1e-6)
    normal = jnp.float32(scipy.stats.norm.ppf((np.arange(400) + 0.5) / 400) * 50)
    slope = jax.grad(lambda x: head.loss(x, normal, ()))
    found = jax.jit(lambda x: jax.lax.fori_loop(0, 3_000, lambda i, x: x - 10.0 * slope(x), x))(jnp.zeros(5))
    np.testing.assert_allclose(found, scipy.stats.norm.ppf(levels) * 50, atol=1.0)


def test_symlog_heads_underestimate_what_varies_and_symexp_atoms_do_not():
    """Jensen: {0, 100} equiprobable -> 9.05 behind symlog, 50 on atoms of the values themselves."""
    y = jnp.array([0.0, 100.0])
    for name, expected in (("symlog", math.sqrt(101) - 1), ("two_hot_symexp", 50.0), ("hl_gauss", 50.0)):
        head = head_of(name)
        support = head.support(None)
        loss = lambda x, head=head, support=support: jnp.mean(head.loss(x[None], y, support))  # noqa: E731
        step = lambda i, x, loss=loss: x - 2.0 * jax.grad(loss)(x)  # noqa: E731
        logits = jax.lax.fori_loop(0, 4_000, step, jnp.zeros(BINS))
        assert float(head.decode(logits, support)) == pytest.approx(expected, rel=0.02)


# --- Ensembles ---
@pytest.mark.parametrize("name", HEADS)
def test_ensembles_combine_numbers_or_whole_distributions(name):
    head = head_of(name)
    support = head.support(jnp.array([0.0, 1.0]))
    logits = jax.random.normal(jax.random.key(5), (4, 6, head.size))
    values = head.decode(logits, support)
    least = ensemble.combine(head, logits, support, "min")
    np.testing.assert_allclose(head.decode(least, support), jnp.min(values, axis=0), rtol=1e-6)
    rows = [[bool(jnp.array_equal(least[row], logits[member, row])) for member in range(4)] for row in range(6)]
    assert all(any(row) for row in rows)  # never the least of every output, which is no distribution
    if not name.startswith("symlog"):  # these average on their own scale
        mean = ensemble.combine(head, logits, support, "mean")
        np.testing.assert_allclose(head.decode(mean, support), jnp.mean(values, axis=0), rtol=1e-4, atol=1e-4)


# --- Bootstrapping from oneself ---
def one_sided_erf(y, support, bins, ratio):
    """A public implementation's slip: the distance to an edge below the value is cut to 1e-6."""
    edges = jnp.linspace(support.low, support.high, bins + 1)
    width = (support.high - support.low) / bins
    below = jax.scipy.special.erf(jnp.maximum(edges - y[..., None], 1e-6) / (jnp.sqrt(2.0) * ratio * width))
    return (below[..., 1:] - below[..., :-1]) / (below[..., -1:] - below[..., :1] + 1e-6)


@functools.partial(jax.jit, static_argnames=("project", "steps"))
def fixed_point(project, reward, start, steps=4_000, gamma=0.99):
    """Where v = E[project(reward + gamma v)] comes to rest: a state that leads to itself."""
    return jax.lax.fori_loop(0, steps, lambda i, v: project(reward + gamma * v), start)


HUNDRED, FINE = Support(jnp.float32(0.0), jnp.float32(100.0)), 101
PADDED = Support(jnp.float32(-5.0), jnp.float32(105.0))


def looks(support, projection=projections.hl_gauss_probs):
    return lambda y: projection(y, support, FINE, 0.75) @ projections.centres(support, FINE)


@pytest.mark.parametrize("value", [20.0, 50.0, 73.21])
def test_a_self_loop_comes_to_rest_at_its_value(value):
    found = fixed_point(looks(HUNDRED), jnp.float32(value * 0.01), jnp.float32(30.0))
    assert float(found) == pytest.approx(value, abs=1e-2)


@pytest.mark.parametrize("value", [0.0, 20.0, 73.21, 100.0])
def test_a_self_loop_of_two_hot_comes_to_rest_at_its_value_at_the_ends_too(value):
    project = lambda y: projections.two_hot(y, HUNDRED, FINE) @ projections.atoms(HUNDRED, FINE)  # noqa: E731
    found = fixed_point(project, jnp.float32(value * 0.01), jnp.float32(30.0))
    assert float(found) == pytest.approx(value, abs=1e-2)


def test_the_bias_at_the_ends_and_that_padding_takes_it_away():
    """1.81 at either end of an unpadded support, less than 0.005 with 5% on either side."""
    for value, biased in ((0.0, 1.81), (100.0, 98.19)):
        reward, start = jnp.float32(value * 0.01), jnp.float32(50.0)
        assert float(fixed_point(looks(HUNDRED), reward, start)) == pytest.approx(biased, abs=0.01)
        assert float(fixed_point(looks(PADDED), reward, start)) == pytest.approx(value, abs=0.005)


def test_at_an_end_the_cut_gaussian_is_off_by_two_thirds_of_a_bin():
    found = looks(HUNDRED)(jnp.float32(100.0))
    assert float(found) == pytest.approx(100.0 - 0.69 * 100 / FINE, abs=0.005)


def test_the_rule_of_padding_removes_the_bias_of_the_ends():
    """At 3 sigma + w from an end a bootstrapped value is off by less than a tenth of a bin."""
    returns = jnp.array([0.0, 40.0, 100.0])
    support = supports.padded(returns, supports.Geometry(FINE, 0.75))
    width = float(support.high - support.low) / FINE
    assert float(returns[0] - support.low) == pytest.approx((3 * 0.75 + 1) * width, rel=1e-3)
    for value in (0.0, 100.0):
        found = fixed_point(looks(support), jnp.float32(value * 0.01), jnp.float32(50.0))
        assert float(found) == pytest.approx(value, abs=0.1 * width)


def test_a_one_sided_erf_is_biased_upwards():
    """The trap in a public IQL: +0.598 bin for every value, self-loops of true value 0 and 50 at 55 and 98.9, and no
    target at all at the upper end. (Tarasov et al.'s "IQL fails with cross-entropy" was measured with it.)"""
    one_sided = looks(HUNDRED, one_sided_erf)
    width = 100.0 / FINE
    y = jnp.linspace(20.0, 80.0, 601)
    assert float(jnp.mean(jax.vmap(one_sided)(y) - y)) / width == pytest.approx(0.598, abs=0.005)
    for value, rest in ((0.0, 55.0), (50.0, 98.9)):
        found = fixed_point(one_sided, jnp.float32(value * 0.01), jnp.float32(value))
        assert float(found) == pytest.approx(rest, abs=0.5)
    assert float(jnp.sum(one_sided_erf(jnp.float32(100.0), HUNDRED, FINE, 0.75))) < 1e-3
    assert float(jnp.sum(gauss(jnp.float32(100.0), HUNDRED, FINE, 0.75))) == pytest.approx(1.0)


# --- Supports ---
def test_a_support_of_the_data_holds_their_returns_with_the_padding():
    returns = jnp.array([3.0, -7.0, jnp.nan, 250.0])  # a row that is not known is left out
    for geometry in (supports.Geometry(101, 0.75), supports.Geometry(100), supports.Geometry(21, 2.0)):
        low, high = supports.padded(returns, geometry)
        width = float(high - low) / geometry.cells
        assert float(-7.0 - low) == pytest.approx(geometry.pad * width, rel=1e-4)
        assert float(high - 250.0) == pytest.approx(geometry.pad * width, rel=1e-4)


@pytest.mark.parametrize("value", [0.0, -5.0, 1e5])
def test_a_support_of_equal_returns_is_no_point(value):
    low, high = supports.padded(jnp.full(3, value), supports.Geometry(101, 0.75))
    assert float(high - low) > 0.5 and float(low + high) / 2 == pytest.approx(value)


def test_a_support_behind_symlog_is_given_in_values():
    head = head_of("symlog", support="-99,9999")
    low, high = head.support(None)
    assert (float(low), float(high)) == (-99.0, 9999.0)
    for logits, value in ((jnp.arange(BINS) == 0, -99.0), (jnp.arange(BINS) == BINS - 1, 9999.0)):
        assert float(head.decode(1e4 * logits, Support(low, high))) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("name", ["hl_gauss", "two_hot", "c51"])
def test_small_logits_stand_for_the_middle_of_the_support(name):
    head = head_of(name)
    assert float(head.decode(jnp.zeros(BINS), WIDE)) == pytest.approx(70.0, rel=1e-5)


@pytest.mark.parametrize("name", [name for name in HEADS if name not in heads.WITHOUT_SUPPORT])
def test_a_head_begins_at_the_value_that_is_asked_for(name):
    head = head_of(name, initial_value="20")
    assert head.initial_bias is not None and head_of(name).initial_bias is None
    assert float(head.decode(head.initial_bias(WIDE), WIDE)) == pytest.approx(20.0, abs=0.02)


@pytest.mark.parametrize("place", [0.02, 0.3, 0.5, 0.9])
def test_the_first_distribution_is_the_flattest_with_its_mean(place):
    """Of the exponential family: logits on a line. No other distribution of that mean has more entropy."""
    points = jnp.linspace(-3.0, 7.0, 11)
    logits = projections.tilt(points, -3.0 + 10.0 * place)
    np.testing.assert_allclose(jnp.diff(logits, 2), 0.0, atol=1e-4 * (1.0 + float(jnp.max(jnp.abs(logits)))))
    probs = np.asarray(projections.softmax(logits), np.float64)
    assert probs @ np.asarray(points) == pytest.approx(-3.0 + 10.0 * place, abs=1e-3)
    bend = np.zeros(11)
    bend[[2, 3, 4]] = [1.0, -2.0, 1.0]  # keeps sum and mean
    entropy = lambda p: -np.sum(p * np.log(p))  # noqa: E731
    step = 0.1 * min(probs[2:5])
    assert entropy(probs) > max(entropy(probs + step * bend), entropy(probs - step * bend))


def test_a_first_value_beyond_the_outer_bins_is_moved_inwards():
    points = jnp.linspace(0.0, 1.0, 101)
    for value, place in ((-5.0, 1e-3), (5.0, 1.0 - 1e-3)):
        assert float(projections.mean(projections.tilt(points, value), points)) == pytest.approx(place, abs=1e-4)


def test_how_a_support_fits_its_targets_is_measured():
    head, y = head_of("hl_gauss"), jnp.array([-40.0, 0.0, 100.0, 175.0])
    exact = jnp.log(gauss(y, WIDE, BINS, 0.75) + 1e-30)
    found = head.measure(exact, y, WIDE)
    assert float(found["clipped_targets"]) == 0.5
    assert float(found["target_kl"]) == pytest.approx(0.0, abs=1e-5)
    uniform = head.measure(jnp.zeros((3, 4, BINS)), y, WIDE)  # three critics
    assert float(uniform["end_mass"]) == pytest.approx(2 / BINS, rel=1e-5)
    floor = float(jnp.mean(projections.entropy(gauss(y, WIDE, BINS, 0.75))))
    assert float(uniform["target_kl"]) == pytest.approx(math.log(BINS) - floor, rel=1e-4)


# --- Bad input ---
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (HeadConfig("hl_gaus"), "did you mean hl_gauss"),
        (HeadConfig("hl_gauss", support="10,-10"), "--support=10,-10 encloses no value"),
        (HeadConfig("two_hot", support="3,3"), "--support=3,3 encloses no value"),
        (HeadConfig("c51", support="0,inf"), "--support=0,inf encloses no value"),
        (HeadConfig("c51", support="0"), "--support=0 is neither auto nor two numbers"),
        (HeadConfig("c51", support="0,1,2"), "neither auto nor two numbers"),
        (HeadConfig("c51", support="a,b"), "neither auto nor two numbers"),
        (HeadConfig("hl_gauss", bins=1), "--bins=1 can hold no two values"),
        (HeadConfig("hl_gauss", bins=7), "--bins=7 leaves no bin.*give at least 8"),
        (HeadConfig("two_hot", bins=3), "--bins=3 leaves no bin.*give at least 4"),
        (HeadConfig("hl_gauss", sigma_ratio=0.0), "--sigma-ratio=0.0 leaves HL-Gauss no Gaussian"),
        (HeadConfig("symlog_hl_gauss", sigma_ratio=-1.0), "--sigma-ratio=-1.0"),
        (HeadConfig("hl_gauss", sigma_ratio=math.nan), "--sigma-ratio=nan"),
        (HeadConfig("hl_gauss", initial_value="low"), "--initial-value=low is neither middle nor a number"),
        (HeadConfig("c51", initial_value="inf"), "--initial-value=inf is neither"),
        (HeadConfig("mse", initial_value="0"), "--initial-value=0 is for heads with bins"),
        (HeadConfig("hl_gauss", support="1,9", initial_value="0"), "does not lie between the ends of --support=1,9"),
    ],
)
def test_bad_input_is_one_clear_line(config, message):
    with pytest.raises(UserError, match=message):
        heads.make(config)


def test_as_few_bins_as_the_error_offers_are_enough():
    for name, bins in (("hl_gauss", 8), ("two_hot", 4)):
        support = heads.make(HeadConfig(name, bins=bins)).support(jnp.array([0.0, 1.0]))
        assert np.isfinite(support.low) and float(support.low) < 0 < 1 < float(support.high)


def test_without_data_a_support_must_be_given():
    with pytest.raises(UserError, match="give --support=LO,HI"):
        heads.make("hl_gauss").support(None)


def test_a_support_that_does_not_fit_the_data_is_named():
    returns = np.array([0.0, 50.0, 120.0, np.nan, -3.0])
    narrow = HeadConfig("hl_gauss", support="0,100")
    wide = replace(narrow, support="-2500,2500")
    fits = replace(narrow, support="-2000,2000"), replace(narrow, support="-10,200"), replace(narrow, support="auto")
    for config in (*fits, HeadConfig("mse"), replace(wide, name="two_hot_symexp")):
        assert heads.complaint(config, returns) == ""
    assert "less than 3 of its 101 bins of 49.5" in heads.complaint(wide, returns)
    assert "-3 to 120" in (line := heads.complaint(narrow, returns)) and "2 of 4 lie outside" in line


def test_options_that_a_head_has_no_use_for_are_named():
    """Each option changes the program of exactly the heads that it is not vain for."""
    returns = np.array([0.0, 50.0])

    def program(config):
        head = heads.make(config)
        ends = head.support(None) if config.support != "auto" else head.support(jnp.asarray(returns))
        logits = jnp.zeros(head.size)
        target = head.target(
            jnp.float32(1.0), jnp.float32(0.9), jnp.linspace(0.0, 1.0, head.size), jnp.float32(0.0), ends
        )
        return head.size, float(jnp.sum(head.loss(logits + 0.1 * jnp.arange(head.size) / head.size, target, ends)))

    for name in heads.HEADS:
        for option, value in {"bins": 51, "sigma_ratio": 2.0, "support": "-10,70"}.items():
            usual, changed = HeadConfig(name), replace(HeadConfig(name), **{option: value})
            vain = "changes nothing" in heads.complaint(changed, returns)
            assert vain == (program(usual) == program(changed)), (name, option)
    line = heads.complaint(HeadConfig("mse", bins=51, sigma_ratio=2.0), returns)
    assert line.startswith("--bins=51, --sigma-ratio=2.0 changes nothing: --head=mse")
