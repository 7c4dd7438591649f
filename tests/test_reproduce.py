"""Claims and publishing: functions of summary rows, which never change rows that are there."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from experiments import reproduce
from jaxrl_suite.report import Interval
from jaxrl_suite.train import rundir
from paper_figs import offline_mbrl as figure

CHOSEN = reproduce.Options(dataset="made-up")


def rows(returns, algo, behaviour=400.0, dataset="made-up"):
    return [
        {
            "algo": algo,
            "dataset": dataset,
            "preset": "quick",
            "seed": seed,
            "status": "finished",
            "return_last": value,
            "behaviour_return": behaviour,
            "q_last": value / 10,
            "mc_last": value / 9,
            "run_id": f"{algo}{seed}",
            "schema_version": 1,
        }
        for seed, value in enumerate(returns)
    ]


def test_claims_are_paired_t_intervals():
    bc, ravl = [500.0, 600.0, 550.0, 700.0], [900.0, 1200.0, 800.0, 1000.0]
    claims = reproduce.claims([*rows(bc, "bc"), *rows(ravl, "ravl"), *rows([0.0], "bc", dataset="other")], CHOSEN)
    expected = scipy_stats.ttest_rel(ravl, bc).confidence_interval()
    assert claims[0]["low"] == pytest.approx(expected.low, abs=1e-3)
    assert claims[0]["high"] == pytest.approx(expected.high, abs=1e-3)
    assert (claims[0]["n"], claims[0]["seeds"]) == (4, "0 1 2 3")
    assert claims[1]["estimate"] == pytest.approx(np.mean(ravl) - 400.0)
    assert [claim["verdict"] for claim in claims] == ["supported", "supported"]


def test_only_seeds_that_both_finished_are_paired():
    bc, ravl = rows([1.0, 2.0, 3.0], "bc"), rows([5.0, 6.0, 9.0], "ravl")
    ravl[1]["status"] = "diverged"
    assert reproduce.claims([*bc, *ravl], CHOSEN)[0]["seeds"] == "0 2"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 2.0, "supported"),
        (-2.0, -0.1, "not supported"),
        (-1.0, 1.0, "inconclusive"),
        (np.nan, np.nan, "inconclusive"),
    ],
)
def test_the_rule_of_the_verdict(low, high, expected):
    assert reproduce.verdict(Interval(0.0, low, high, 3)) == expected


def test_figures_are_functions_of_the_published_rows(tmp_path):
    path = tmp_path / "offline_mbrl" / "summary.csv"
    published = [*rows([500.0, 600.0], "bc"), *rows([900.0, 1200.0], "ravl")]
    rundir.upsert_rows(path, published, list(published[0]))
    (name, drawn), *others = figure.draw(tmp_path).items()
    assert (name, others) == ("offline_mbrl/made-up.png", [])
    lines = [line.get_ydata() for line in drawn.axes[0].get_lines()]
    assert any(np.array_equal(np.sort(y), [900.0, 1200.0]) for y in lines if len(y) == 2)
