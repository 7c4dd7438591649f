"""Aggregates against rliable and against their definitions in Agarwal et al. (2021); bootstrap against closed forms."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from jaxrl_suite.report import aggregate, profile_band, stratified_bootstrap
from jaxrl_suite.report.bootstrap import expanded_tail

NAN = float("nan")
STATISTICS = (aggregate.mean, aggregate.median, aggregate.iqm)


def rounded(runs, tasks, seed):
    """Scores with ties."""
    return np.random.default_rng(seed).normal(0.0, 30.0, (runs, tasks)).round(-1)


matrices = st.builds(rounded, st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**32 - 1))


def scores(runs=10, tasks=3, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    return shift + np.array([10.0, 50.0, 90.0])[:tasks] + rng.normal(0.0, 20.0, (runs, tasks))


# --- point estimates ---
@pytest.mark.parametrize("runs", [1, 5, 10, 13])
def test_point_estimates_agree_with_rliable(runs):
    metrics = pytest.importorskip("rliable.metrics", reason="comes with the extra dev")
    a, b = scores(runs), scores(runs + 2, seed=1, shift=10.0).round(0)
    assert aggregate.mean(a) == pytest.approx(metrics.aggregate_mean(a))
    assert aggregate.median(a) == pytest.approx(metrics.aggregate_median(a))
    assert aggregate.iqm(a) == pytest.approx(metrics.aggregate_iqm(a))
    assert aggregate.optimality_gap(a, 60.0) == pytest.approx(metrics.aggregate_optimality_gap(a, 60.0))
    improvement = aggregate.probability_of_improvement(a.round(0), b)
    assert improvement == pytest.approx(metrics.probability_of_improvement(a.round(0), b))


@settings(deadline=None)
@given(matrices)
def test_aggregates_follow_their_definitions(x):
    runs, tasks = x.shape
    pooled = sorted(x.ravel())
    middle = pooled[len(pooled) // 4 : len(pooled) - len(pooled) // 4]
    assert aggregate.mean(x) == pytest.approx(sum(pooled) / len(pooled))
    assert aggregate.iqm(x) == pytest.approx(sum(middle) / len(middle))
    means = sorted(sum(x[:, task]) / runs for task in range(tasks))
    assert aggregate.median(x) == pytest.approx((means[(tasks - 1) // 2] + means[tasks // 2]) / 2)
    short = [max(0.0, 40.0 - value) for value in pooled]
    assert aggregate.optimality_gap(x, 40.0) == pytest.approx(sum(short) / len(short))
    above = [sum(value > threshold for value in pooled) / len(pooled) for threshold in (-3.0, x[0, 0], 70.0)]
    np.testing.assert_allclose(aggregate.performance_profile(x, [-3.0, x[0, 0], 70.0]), above)


@settings(deadline=None)
@given(matrices, st.integers(0, 2**32 - 1))
def test_probability_of_improvement_counts_pairs(x, seed):
    rng = np.random.default_rng(seed)
    y = rng.choice(x.ravel(), (rng.integers(1, 6), x.shape[1]))  # values of x, so that ties occur
    tasks = []
    for task in range(x.shape[1]):
        pairs = list(itertools.product(x[:, task], y[:, task]))
        tasks.append(sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs))
    ours = aggregate.probability_of_improvement(x, y)
    assert ours == pytest.approx(np.mean(tasks))
    assert ours + aggregate.probability_of_improvement(y, x) == pytest.approx(1.0)


@settings(deadline=None)
@given(matrices, st.floats(0.1, 10.0), st.floats(-50.0, 50.0))
def test_aggregates_move_with_the_scale(x, factor, shift):
    for statistic in STATISTICS:
        assert statistic(factor * x + shift) == pytest.approx(factor * statistic(x) + shift, abs=1e-9)


def test_leading_axes_are_kept():
    many = np.stack([scores(seed=s) for s in range(4)]).reshape(2, 2, 10, 3)
    for statistic in (*STATISTICS, lambda x: aggregate.optimality_gap(x, 60.0)):
        assert statistic(many).shape == (2, 2)
        assert statistic(many)[1, 0] == statistic(many[1, 0])
    assert aggregate.probability_of_improvement(many, many + 1.0).shape == (2, 2)
    assert aggregate.performance_profile(many, [0.0, 1.0, 2.0]).shape == (2, 2, 3)


def test_a_missing_run_is_never_dropped():
    holes = scores()
    holes[3, 1] = NAN
    both = np.stack([holes, scores()])
    for statistic in (*STATISTICS, lambda x: aggregate.optimality_gap(x, 60.0)):
        assert np.isnan(statistic(both)).tolist() == [True, False]
    assert np.isnan(aggregate.probability_of_improvement(both, both[::-1])).all()
    assert np.isnan(aggregate.performance_profile(both, [0.0])).ravel().tolist() == [True, False]


def test_an_iqm_withstands_a_quarter_of_outliers_and_no_more():
    x = np.ones((8, 1))
    x[:2] = 1e9
    assert aggregate.iqm(x) == 1.0
    x[:3] = 1e9
    assert aggregate.iqm(x) > 1e8


@pytest.mark.parametrize("shape", [(3,), (0, 2), (2, 0)])
def test_shapes_that_are_no_scores_are_refused(shape):
    with pytest.raises(ValueError, match="runs, tasks"):
        aggregate.mean(np.zeros(shape))
    with pytest.raises(ValueError, match="same tasks"):
        aggregate.probability_of_improvement(np.zeros((2, 2)), np.zeros((2, 3)))


# --- bootstrap ---
def test_bootstrap_of_a_share_is_binomial():
    """Resampled means of 16 ones among 25 are Binomial(25, 0.64) / 25: the bounds are its quantiles."""
    ones = np.array([1.0] * 16 + [0.0] * 9)[:, None]
    found = stratified_bootstrap(aggregate.mean, ones, rng=np.random.default_rng(0), resamples=40_000)
    tail = expanded_tail(25)
    expected = scipy_stats.binom.ppf([tail, 1.0 - tail], 25, 0.64) / 25
    assert (found.estimate, found.n) == (0.64, 25)
    assert [found.low, found.high] == pytest.approx(expected.tolist())


def test_bootstrap_is_stratified_as_scipy_resamples_several_samples():
    x = scores(12)
    ours = stratified_bootstrap(aggregate.iqm, x, rng=np.random.default_rng(0), resamples=20_000)
    theirs = scipy_stats.bootstrap(
        tuple(x.T),
        lambda *tasks, axis: aggregate.iqm(np.stack(tasks, axis=-1)),
        method="percentile",
        vectorized=True,
        n_resamples=20_000,
        confidence_level=1.0 - 2.0 * expanded_tail(12),
        rng=np.random.default_rng(1),
    ).confidence_interval
    # The Monte Carlo error of such quantiles is about 0.05 here; without strata the interval is 10 wider.
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.3)


def test_expanded_percentiles_restore_students_interval():
    """For normal resamples with the variance of the bootstrap, (n - 1) / n s^2 / n, the bounds are Student's."""
    for n in (10, 25):
        half = -scipy_stats.norm.ppf(expanded_tail(n)) * np.sqrt((n - 1) / n / n)
        assert half == pytest.approx(scipy_stats.t.ppf(0.975, n - 1) / np.sqrt(n))
    assert expanded_tail(10**6) == pytest.approx(0.025, abs=1e-6)


def test_the_generator_alone_decides():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first, again, other = (
        stratified_bootstrap(aggregate.iqm, scores(), rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert (np.random.get_state()[1] == before).all()
    for wrong in (0, None, np.random):
        with pytest.raises(TypeError, match="numpy Generator"):
            stratified_bootstrap(aggregate.iqm, scores(), rng=wrong)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 10.0), st.floats(-50.0, 50.0))
def test_the_interval_moves_with_the_scale(factor, shift):
    a, b = (
        stratified_bootstrap(aggregate.iqm, x, rng=np.random.default_rng(0), resamples=150)
        for x in (scores(), factor * scores() + shift)
    )
    assert b.low < b.estimate < b.high
    assert b[:3] == pytest.approx([factor * value + shift for value in a[:3]], abs=1e-8)


def test_two_algorithms_are_resampled_independently():
    """The variance of a difference is the sum: with the same draws for both, it would vanish here."""
    x = scores()
    found = stratified_bootstrap(lambda a, b: aggregate.mean(a) - aggregate.mean(b), x, x, rng=np.random.default_rng(0))
    lone = stratified_bootstrap(aggregate.mean, x, rng=np.random.default_rng(0))
    assert (found.estimate, found.n) == (0.0, 60)
    assert found.high - found.low == pytest.approx(np.sqrt(2.0) * (lone.high - lone.low), rel=0.1)


def test_few_runs_or_missing_ones_have_an_estimate_but_no_interval():
    few = stratified_bootstrap(aggregate.iqm, scores(9), rng=np.random.default_rng(0))
    assert few.estimate == aggregate.iqm(scores(9)) and few.n == 27 and not few.bounded
    mixed = stratified_bootstrap(
        aggregate.probability_of_improvement, scores(10), scores(9), rng=np.random.default_rng(0)
    )
    assert np.isfinite(mixed.estimate) and not mixed.bounded
    holes = scores()
    holes[0, 0] = np.inf
    assert not stratified_bootstrap(aggregate.iqm, holes, rng=np.random.default_rng(0)).bounded


def test_profile_band_is_pointwise_and_within_0_and_1():
    thresholds = [-1000.0, 40.0, 60.0, 1000.0]
    band = profile_band(scores(), thresholds, np.random.default_rng(0), resamples=500)
    np.testing.assert_array_equal(band.estimate, aggregate.performance_profile(scores(), thresholds))
    assert band.estimate[[0, 3]].tolist() == band.low[[0, 3]].tolist() == band.high[[0, 3]].tolist() == [1.0, 0.0]
    assert (band.low[1:3] > 0.0).all() and (band.low[1:3] < band.estimate[1:3]).all()
    assert (band.estimate[1:3] < band.high[1:3]).all() and (band.high[1:3] < 1.0).all()
    at_40 = stratified_bootstrap(
        lambda x: (x > 40.0).mean(axis=(-2, -1)), scores(), rng=np.random.default_rng(0), resamples=500
    )
    assert (band.low[1], band.high[1], band.n) == (at_40.low, at_40.high, at_40.n)
    assert np.isnan(profile_band(scores(9), thresholds, np.random.default_rng(0)).low).all()


def test_nonsense_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="at least one resample"):
        stratified_bootstrap(aggregate.iqm, scores(), rng=rng, resamples=0)
    with pytest.raises(ValueError, match="at least one resample"):
        stratified_bootstrap(aggregate.iqm, rng=rng)
    with pytest.raises(ValueError, match=r"shape \[runs, tasks\]"):
        stratified_bootstrap(aggregate.iqm, scores()[None], rng=rng)
    with pytest.raises(ValueError, match="between 0 and 1"):
        stratified_bootstrap(aggregate.iqm, scores(), rng=rng, level=95)
