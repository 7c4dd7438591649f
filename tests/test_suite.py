"""Comparing many algorithms on several data sets with few seeds: intervals, claims, figure."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments import claims, options, reproduce
from jaxrl_suite.algorithms import registry
from jaxrl_suite.report import aggregate, mean_interval
from jaxrl_suite.report.claims import Needed, above_each, above_mean, judge
from jaxrl_suite.report.jackknife import jackknife_interval
from jaxrl_suite.train import settings
from paper_figs import algorithms

TASKS = ("hopper", "walker2d")


def rows(algo, scores, settings=""):
    """Summary rows from `scores` [seeds, tasks]."""
    return [
        {
            "algo": algo,
            "dataset": task,
            "preset": "quick",
            "settings": settings,
            "seed": seed,
            "updates": 100,
            "score_last": float(value),
            "status": "finished",
        }
        for seed, line in enumerate(np.asarray(scores, float))
        for task, value in zip(TASKS, line, strict=True)
    ]


def needed(algo):
    return [Needed(algo, task) for task in TASKS]


# --- Jackknife ---
def test_of_a_mean_it_is_students_interval_over_seeds():
    scores = np.random.default_rng(0).normal(50.0, 10.0, (5, 3))
    found, expected = jackknife_interval(aggregate.mean, scores), mean_interval(scores.mean(axis=1))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_of_two_algorithms_seeds_are_left_out_together():
    """What both owe to the seed cancels in a difference of means."""
    rng = np.random.default_rng(1)
    luck = rng.normal(0.0, 100.0, (6, 1))
    ours, theirs = luck + rng.normal(1.0, 0.1, (6, 2)), luck + rng.normal(0.0, 0.1, (6, 2))
    found = jackknife_interval(lambda a, b: aggregate.mean(a) - aggregate.mean(b), ours, theirs)
    assert found.high - found.low < 1.0
    assert found.low < 1.0 < found.high


def test_two_seeds_and_missing_scores_have_no_bounds():
    assert not jackknife_interval(aggregate.iqm, np.ones((2, 3))).bounded
    assert not jackknife_interval(aggregate.mean, np.array([[1.0], [np.nan], [2.0]])).bounded
    with pytest.raises(ValueError, match="equal seeds"):
        jackknife_interval(aggregate.probability_of_improvement, np.ones((3, 2)), np.ones((4, 2)))


def test_what_no_seed_changes_has_no_bounds_and_probabilities_stay_within_0_and_1():
    """One task won and two lost by every run are no certain third; nothing is more than certain."""
    bc = np.full((5, 3), 1.0)
    saturated = jackknife_interval(aggregate.probability_of_improvement, bc * [2.0, 0.0, 0.0], bc)
    assert saturated.estimate == pytest.approx(1 / 3) and not saturated.bounded
    nearly = bc[:, :1] + np.array([[1.0], [1.0], [1.0], [1.0], [-1.0]])
    free, kept = (
        jackknife_interval(aggregate.probability_of_improvement, nearly, bc[:, :1], **more)
        for more in ({}, {"within": (0.0, 1.0)})
    )
    assert free.high > 1.0 and kept == free._replace(high=1.0, low=max(free.low, 0.0))


# --- Claims over several tasks ---
@pytest.mark.parametrize("algo", claims.SUITE)
def test_settings_of_the_suite_are_written_as_its_rows_say_them(algo):
    """And all of them make the same number of updates, which the comparison rests on."""
    need = Needed(algo, claims.MINI, claims.SUITE[algo])
    shared, entry, config = options.offline(reproduce.words_of(need, "0:5", reproduce.Options()), "test", "")
    preset = registry.preset(entry, shared.preset, shared.dataset)
    assert settings.differences(settings.fields(config), settings.fields(preset)) == claims.SUITE[algo]
    assert (config.updates, config.hidden) == (10_000, (128, 128))


def test_every_offline_algorithm_is_in_the_suite():
    """But for the base of the model-based ones, which is no paper's answer to offline learning."""
    offline = {entry.name for entry in registry.ALGORITHMS.values() if not entry.online}
    assert set(claims.SUITE) == offline - {"mbpo"}


@pytest.mark.parametrize("claim", claims.on_precision(claims.MINI), ids=lambda claim: claim.id)
def test_settings_of_mixed_precision_are_written_as_their_rows_say_them(claim):
    single, half = (
        options.offline(reproduce.words_of(need, "0:5", reproduce.Options()), "test", "")[2] for need in claim.needs
    )
    preset = registry.preset(registry.get(claim.needs[0].algo), "quick", claims.MINI)
    assert (single.precision, half.precision) == ("float32", "bfloat16")
    assert settings.differences(settings.fields(half), settings.fields(preset)) == claim.needs[1].settings


def test_the_hardest_rival_decides():
    ours, easy, hard = np.full((4, 2), 50.0), np.full((4, 2), 10.0), np.full((4, 2), 49.0)
    noise = np.array([[0.0, 0.0], [1.0, 1.0], [-1.0, -1.0], [2.0, 2.0]])
    found = [*rows("ours", ours), *rows("easy", easy + noise), *rows("hard", hard + noise)]
    evidence = above_each("score_last", needed("ours"), {"easy": needed("easy"), "hard": needed("hard")})
    np.testing.assert_allclose(evidence(found).differences, 1.0 - noise[:, 0])
    # The hardest is the one with the largest p-value, though another's interval reaches lower and its mean is less.
    apart = {"near": 2.0 - 0.5 * noise, "far": 9.6 - 3.0 * noise}
    more = [row for name, x in apart.items() for row in rows(name, 50.0 - x)]
    chosen = above_each("score_last", needed("ours"), {name: needed(name) for name in apart})([*found, *more])
    near, far = (stats.ttest_1samp(x[:, 0], 0.0) for x in apart.values())
    assert near.pvalue < far.pvalue and near.confidence_interval().low < far.confidence_interval().low
    np.testing.assert_allclose(chosen.differences, apart["far"][:, 0])


@pytest.mark.parametrize(("rivals", "said"), [(1, "not supported"), (8, "inconclusive")])
def test_one_rival_of_many_refutes_by_bonferronis_interval(rivals, said):
    """In the 95% interval ours is below the hardest rival, in that for one out of eight it is not."""
    noise = np.array([[-2.0], [-1.0], [0.0], [1.0], [2.0]])
    hard, ours = rows("0", 52.5 + np.hstack([noise, noise])), rows("ours", np.full((5, 2), 50.0))
    easy = [row for name in range(1, rivals) for row in rows(str(name), 10.0 + np.hstack([noise, noise]))]
    evidence = above_each("score_last", needed("ours"), {str(name): needed(str(name)) for name in range(rivals)})
    claim = dataclasses.replace(claims.CLAIMS[0], evidence=evidence)
    (found,) = judge([claim], [*ours, *hard, *easy])
    assert found.interval.high < 0 and found.verdict == said
    assert ("below at 99.4% (Bonferroni for 8 rivals)" in claims.record(found, "quick")["rule"]) == (rivals == 8)
    hard = rows("0", 60.0 + np.hstack([noise, noise]))
    assert judge([claim], [*ours, *hard, *easy])[0].verdict == "not supported"


def test_a_rival_without_runs_leaves_the_claim_open():
    found = [*rows("ours", np.full((4, 2), 50.0)), *rows("easy", np.full((4, 2), 10.0))]
    evidence = above_each("score_last", needed("ours"), {"easy": needed("easy"), "absent": needed("absent")})
    assert len(evidence(found).differences) == 0


def test_a_seed_counts_where_it_finished_every_task():
    ours, theirs = rows("ours", [[1.0, 3.0], [5.0, 7.0], [9.0, 11.0]]), rows("theirs", np.zeros((3, 2)))
    ours[2]["status"] = "diverged"  # seed 1 on the first task
    evidence = above_mean("score_last", [needed("ours")], [needed("theirs")])([*ours, *theirs])
    assert evidence.seeds == (0, 2)
    np.testing.assert_allclose(evidence.differences, [2.0, 10.0])


def test_groups_are_compared_by_their_means():
    found = [*rows("a", np.full((3, 2), 1.0)), *rows("b", np.full((3, 2), 3.0)), *rows("c", np.full((3, 2), 5.0))]
    evidence = above_mean("score_last", [needed("a"), needed("b")], [needed("c")])(found)
    np.testing.assert_allclose(evidence.differences, -3.0)


# --- Figure ---
def table(*parts):
    return pd.DataFrame([row for part in parts for row in part])


def suite_rows(algo, scores):
    return rows(algo, scores, claims.SUITE[algo])


def test_a_suite_is_what_finished_the_same_seeds_on_the_same_data():
    more = suite_rows("bc", np.arange(12.0).reshape(6, 2))
    other = [row | {"updates": 7} for row in suite_rows("ravl", np.zeros((6, 2)))]
    alone = [row | {"dataset": "pendulum"} for row in suite_rows("bc", np.zeros((3, 2)))[::2]]
    broken = suite_rows("mopo", np.ones((5, 2)))
    broken[-1]["status"] = "diverged"
    (suite,) = algorithms.suites(table(more, suite_rows("iql", np.ones((5, 2))), other, alone, broken))
    assert (suite.name, suite.datasets, suite.seeds) == ("algorithms-quick-100", TASKS, (0, 1, 2, 3))
    np.testing.assert_array_equal(suite.scores["bc"], np.arange(8.0).reshape(4, 2))
    assert set(suite.scores) == {"bc", "iql", "mopo"}


def test_an_algorithm_counts_once_at_the_settings_of_the_suite():
    ours, other = np.full((3, 2), 1.0), np.full((3, 2), 2.0)
    heads = [row for algo in ("iql", "ravl") for row in rows(algo, other, f"{claims.SUITE[algo]} head=c51".strip())]
    (suite,) = algorithms.suites(table(*(suite_rows(algo, ours) for algo in ("bc", "iql", "ravl")), heads))
    assert set(suite.scores) == {"bc", "iql", "ravl"}
    assert all((scores == 1.0).all() for scores in suite.scores.values())


def test_rows_of_one_algorithm_or_one_data_set_make_no_suite():
    assert algorithms.suites(table(suite_rows("bc", np.ones((5, 2))))) == []
    one = [
        row
        for row in (*suite_rows("bc", np.ones((5, 2))), *suite_rows("iql", np.ones((5, 2))))
        if row["dataset"] == "hopper"
    ]
    assert algorithms.suites(table(one)) == []


def test_the_figure_shows_every_algorithm(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "offline_mbrl"
    folder.mkdir()
    names = ("bc", "ravl", "iql")
    table(*(suite_rows(algo, rng.normal(30.0, 5.0, (5, 2))) for algo in names)).to_csv(
        folder / "summary.csv", index=False
    )
    ((name, figure),) = algorithms.draw(tmp_path).items()
    assert name == "offline_mbrl/algorithms-quick-100"
    order = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert set(order) == set(names)
    (word,) = figure.axes[1].texts  # in place of BC's comparison with itself
    assert word.get_text() == "the reference" and word.get_position()[1] == order.index("bc")


def test_an_estimate_without_interval_is_hollow():
    """IQL wins one task and loses the other with every seed, RAVL does not."""
    scores = {"bc": np.full((5, 2), 10.0), "iql": np.full((5, 2), (20.0, 0.0)), "ravl": np.full((5, 2), 20.0)}
    scores["ravl"][0] = 0.0
    (suite,) = algorithms.suites(table(*(suite_rows(algo, found) for algo, found in scores.items())))
    left, axes, _ = algorithms._figure(suite).axes
    hollow = [line.get_xydata()[0] for line in axes.get_lines() if line.get_markerfacecolor() == "white"]
    place = [label.get_text() for label in left.get_yticklabels()].index("iql")
    np.testing.assert_array_equal(hollow, [[0.5, place]])
    assert "hollow: no interval" in axes.get_xlabel()
