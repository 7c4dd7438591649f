"""Correlations against scipy and published numbers; Holm's correction against the closed test it shortens."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from jaxrl_suite.report import holm, pearson, spearman

NAN = float("nan")
numbers = st.lists(st.integers(-1000, 1000), min_size=4, max_size=30)


# --- correlations ---
@pytest.mark.parametrize("n", [4, 10, 40])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_pearson_agrees_with_scipy(n, level):
    x, noise = np.random.default_rng(n).normal(size=(2, n))
    expected = scipy_stats.pearsonr(x, x + noise)
    found = pearson(x, x + noise, level)
    assert found.estimate == pytest.approx(expected.statistic) and found.n == n
    assert found[1:3] == pytest.approx(tuple(expected.confidence_interval(level)))


@settings(deadline=None)
@given(numbers, st.randoms())
def test_spearman_agrees_with_scipy_also_with_ties(x, random):
    y = random.sample(x, len(x))
    if len(set(x)) == 1:
        assert math.isnan(spearman(x, y).estimate)
    else:
        assert spearman(x, y).estimate == pytest.approx(scipy_stats.spearmanr(x, y).statistic)


def test_spearman_interval_is_that_of_bonett_and_wright():
    """Data and bounds of the example of `ci.spear` in Bonett's R package statpsych."""
    y = [21, 4, 9, 12, 35, 18, 10, 22, 24, 1, 6, 8, 13, 16, 19]
    x = [67, 28, 30, 28, 52, 40, 25, 37, 44, 10, 14, 20, 28, 40, 51]
    assert spearman(x, y)[:3] == pytest.approx((0.8699639, 0.5840951, 0.9638297), abs=1e-6)


@settings(deadline=None)
@given(numbers)
def test_spearman_sees_only_the_order(x):
    y = np.random.default_rng(0).permutation(x)
    assert spearman(np.exp(np.asarray(x) / 1000.0), y) == pytest.approx(spearman(x, y), nan_ok=True)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_correlations_do_not_depend_on_the_unit(scale):
    x, y = np.random.default_rng(0).normal(size=(2, 12))
    assert pearson(x * scale, y) == pytest.approx(pearson(x, y))
    assert pearson(y, -x).estimate == pytest.approx(-pearson(x, y).estimate)


@pytest.mark.parametrize("correlation", [pearson, spearman])
def test_what_is_not_defined_is_nan(correlation):
    for x in ([2.0] * 12, [1.0, NAN, *range(10)], [1.0, np.inf, *range(10)]):
        found = correlation(x, np.arange(12.0))
        assert math.isnan(found.estimate) and not found.bounded and found.n == 12
    assert math.isnan(correlation([], []).estimate) and math.isnan(correlation([1.0], [2.0]).estimate)
    with pytest.raises(ValueError, match="one length"):
        correlation([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="between 0 and 1"):
        correlation(np.arange(12.0), np.arange(12.0) ** 2 % 7, level=95)


def test_no_interval_where_the_approximation_fails():
    x = np.arange(9.0)
    assert not pearson(x[:3], x[:3] ** 2).bounded and pearson(x[:4], x[:4] ** 2).bounded
    shuffled = np.random.default_rng(0).permutation(10)
    assert not spearman(x, shuffled[:9]).bounded and spearman(range(10), shuffled).bounded
    assert not spearman(range(20), range(20)).bounded, "one order is no certainty"
    assert pearson(range(20), range(20))[:3] == (1.0, 1.0, 1.0)


# --- Holm ---
def closed_test(p):
    """The adjusted value of a claim: the largest of Bonferroni's over all families within the family that hold it."""
    members = range(len(p))
    subsets = [s for size in range(1, len(p) + 1) for s in itertools.combinations(members, size)]
    bonferroni = {s: min(1.0, len(s) * min(p[i] for i in s)) for s in subsets}
    return [max(value for s, value in bonferroni.items() if i in s) for i in members]


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.03, 0.04, 0.2, 0.7, 1.0]), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p):
    assert holm(p).tolist() == pytest.approx(closed_test(p))


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]).tolist() == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]).tolist() == []


def test_a_claim_that_could_not_be_tested_still_counts():
    adjusted = holm([NAN, 0.02, 0.01])
    assert adjusted[1:].tolist() == pytest.approx([0.04, 0.03]) and math.isnan(adjusted[0])


@pytest.mark.parametrize("p", [[-0.1], [1.1], 0.5, [[0.1]]])
def test_what_is_no_family_of_p_values_is_refused(p):
    with pytest.raises(ValueError, match="p-values"):
        holm(p)
