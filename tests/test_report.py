"""Statistics against scipy and by simulation; the table's content; the figure's determinism."""

import io
import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats as scipy_stats

from jaxrl_suite.errors import UserError
from jaxrl_suite.report import (
    Interval,
    Reference,
    difference,
    iqm,
    mean_interval,
    p_value,
    paired_difference,
    plots,
    run_figure,
    run_table,
    to_markdown,
)

NAN = float("nan")


# --- statistics ---
@pytest.mark.parametrize("n", [2, 5, 30])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_intervals_agree_with_scipy(n, level):
    rng = np.random.default_rng(n)
    a, b = rng.normal(3.0, 2.0, n), rng.normal(1.0, 5.0, n + 3)
    one = mean_interval(a, level)
    np.testing.assert_allclose(one[1:3], scipy_stats.ttest_1samp(a, 0.0).confidence_interval(level))
    assert one.estimate == pytest.approx(a.mean()) and one.n == n
    paired = paired_difference(a, b[:n], level)
    np.testing.assert_allclose(paired[1:3], scipy_stats.ttest_rel(a, b[:n]).confidence_interval(level))
    assert paired.n == n
    welch = difference(a, b, level)
    np.testing.assert_allclose(welch[1:3], scipy_stats.ttest_ind(a, b, equal_var=False).confidence_interval(level))
    assert welch.estimate == pytest.approx(a.mean() - b.mean()) and welch.n == 2 * n + 3


def test_intervals_cover_what_they_promise():
    """10,000 data sets of five seeds: the standard error of the coverage is 0.0022."""
    rng = np.random.default_rng(0)
    data = rng.normal(7.0, 3.0, (10_000, 5))
    covered = [low <= 7.0 <= high for _, low, high, _ in map(mean_interval, data)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.008)


def test_welch_interval_covers_with_unequal_variances():
    rng = np.random.default_rng(1)
    pairs = zip(rng.normal(4.0, 1.0, (5_000, 6)), rng.normal(1.0, 5.0, (5_000, 10)), strict=True)
    covered = [low <= 3.0 <= high for _, low, high, _ in (difference(a, b) for a, b in pairs)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_pairing_removes_what_the_seeds_share():
    rng = np.random.default_rng(2)
    luck = rng.normal(0.0, 100.0, 8)
    a, b = luck + 5.0 + rng.normal(0.0, 1.0, 8), luck
    assert paired_difference(a, b).low > 0.0 > difference(a, b).low


def test_small_and_degenerate_samples():
    lone = mean_interval([4.0])
    assert lone.estimate == 4.0 and lone.n == 1 and math.isnan(lone.low) and math.isnan(lone.high) and not lone.bounded
    empty = mean_interval([])
    assert empty.n == 0 and math.isnan(empty.estimate) and math.isnan(iqm([]))
    assert mean_interval([2.0, 2.0, 2.0]) == Interval(2.0, 2.0, 2.0, 3)
    assert difference([3.0, 3.0], [1.0, 1.0]) == Interval(2.0, 2.0, 2.0, 4)
    one_sided = difference([3.0], [1.0, 2.0])
    assert one_sided.estimate == 1.5 and not one_sided.bounded
    assert math.isnan(mean_interval([1.0, NAN, 2.0]).estimate)  # a missing value is never dropped here
    with pytest.raises(ValueError, match="equally many"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="between 0 and 1"):
        mean_interval([1.0, 2.0], level=95)


@pytest.mark.parametrize("n", [1, 3, 4, 8, 11])
def test_iqm_is_the_mean_of_the_middle_half(n):
    x = np.random.default_rng(n).normal(size=n)
    cut = n // 4
    assert iqm(x) == pytest.approx(np.sort(x)[cut : n - cut].mean())
    assert iqm(x) == pytest.approx(scipy_stats.trim_mean(x, 0.25))


def test_iqm_ignores_an_outlier_which_the_mean_does_not():
    assert iqm([1.0, 1.0, 1.0, 1e9]) == 1.0
    assert mean_interval([1.0, 1.0, 1.0, 1e9]).estimate > 1e8


def test_iqm_never_drops_a_missing_value():
    assert math.isnan(iqm([1.0, 2.0, 3.0, NAN]))


@pytest.mark.parametrize("n", [2, 8])
def test_p_values_agree_with_scipy_and_with_the_interval(n):
    x = np.random.default_rng(n).normal(1.0, 1.0, n)
    assert p_value(x, 0.5) == pytest.approx(scipy_stats.ttest_1samp(x, 0.5).pvalue)
    assert p_value(x, mean_interval(x, 0.9).low) == pytest.approx(0.1)
    assert p_value([2.0, 2.0]) == 0.0 and p_value([2.0, 2.0], 2.0) == 1.0
    assert math.isnan(p_value([2.0])) and math.isnan(p_value([1.0, NAN, 2.0]))


# --- table ---
def row(seed, last, status="finished", **more):
    values = {"return_last": last, "return_best": last + 10, "score_last": last / 10, "score_best": last / 10 + 1}
    return {"seed": seed, "status": status, **values, **more}


BEHAVIOUR = Reference("behaviour", Interval(282.0, NAN, NAN, 412), Interval(9.3, NAN, NAN, 412), "episodes", "the data")
BC = Reference("BC", Interval(283.0, 260.0, 306.0, 8), None, source="results/bc")
ROWS = [row(2, 120.0), row(0, 100.0), row(1, 140.0), row(3, NAN, "diverged", return_best=5000.0)]


def markdown(rows, references=()):
    """The Markdown table as {first cell: other cells}."""
    lines = [line.strip("| ").split(" | ") for line in to_markdown(rows, references).splitlines()[2:]]
    return {cells[0]: [cell.strip() for cell in cells[1:]] for cells in lines}


def terminal(rows, references=(), width=200):
    console = Console(width=width, record=True, file=io.StringIO(), color_system=None)
    console.print(run_table(rows, references, "title"))
    return console.export_text()


def test_table_shows_every_seed_in_order_and_the_aggregate():
    table = markdown(ROWS)
    assert list(table)[:4] == ["seed 0", "seed 1", "seed 2", "seed 3"]
    assert table["seed 1"] == ["140.0", "150.0", "14.0", "15.0", "finished"]
    expected = mean_interval([100.0, 120.0, 140.0])
    assert table["mean [95% interval]"][0] == f"120.0 [{expected.low:.1f}, {expected.high:.1f}]"
    assert table["IQM"][:2] == ["120.0", "130.0"]


def test_a_diverged_seed_is_shown_and_left_out_of_every_column():
    table = markdown(ROWS)
    assert table["seed 3"] == ["-", "5000.0", "-", "-", "diverged"]
    assert table["mean [95% interval]"][1].startswith("130.0 ")
    assert table["mean [95% interval]"][-1] == "n=3 seeds; 1 diverged left out"
    lost = markdown([row(0, 1.0), row(1, 2.0), row(2, NAN, "running")])
    assert lost["mean [95% interval]"][-1] == "n=2 seeds; 1 without returns left out"
    none = markdown([row(0, NAN, "diverged")])
    assert none["mean [95% interval]"] == ["-", "-", "-", "-", "n=0 seeds; 1 diverged left out"]


def test_one_seed_has_no_interval():
    mean = markdown([row(0, 100.0)])["mean [95% interval]"]
    assert mean[0] == "100.0" and mean[-1] == "n=1, no interval"


def test_references_say_their_n_and_source():
    table = markdown(ROWS, [BEHAVIOUR, BC, BC._replace(name="a|b", returns=Interval(1.0, NAN, NAN, 1))])
    assert table["behaviour"] == ["282.0", "-", "9.3", "-", "n=412 episodes; the data"]
    assert table["BC"] == ["283.0 [260.0, 306.0]", "-", "-", "-", "n=8 seeds; results/bc"]
    assert table["a\\|b"][-1] == "n=1, no interval; results/bc"


def test_a_task_without_scores_and_a_column_with_gaps():
    bare = [row(s, 100.0 + s, score_last=None, score_best=NAN) for s in range(3)]
    assert markdown(bare)["mean [95% interval]"][2:4] == ["-", "-"]
    gap = [row(0, 100.0, score_last=NAN), row(1, 100.0), row(2, 100.0)]
    assert markdown(gap)["mean [95% interval]"][2] == "10.0 [10.0, 10.0] (n=2)"


def test_frame_and_terminal_show_the_same_content():
    assert to_markdown(pd.DataFrame(ROWS), [BC]) == to_markdown(ROWS, [BC])
    text = terminal(ROWS, [BEHAVIOUR, BC])
    cells = {part for cells in markdown(ROWS, [BEHAVIOUR, BC]).values() for cell in cells for part in cell.split()}
    assert {part.strip(";") for part in cells} <= set(text.replace(";", " ").split())
    assert max(map(len, terminal(ROWS, [BEHAVIOUR, BC], width=80).splitlines())) <= 80


def test_square_brackets_are_no_markup():
    assert "[bold]" in terminal(ROWS, [BC._replace(name="[bold]")])


def test_rows_that_cannot_be_shown_are_refused_in_one_line():
    with pytest.raises(UserError, match="no rows"):
        run_table([])
    with pytest.raises(UserError, match="lack score_best"):
        to_markdown([{k: v for k, v in row(0, 1.0).items() if k != "score_best"}])


# --- figure ---
def evaluations(seeds=3, points=4, growth=1.0):
    rng = np.random.default_rng(0)
    rows = [
        (s, 1000 * i, 200.0 + 30 * i + rng.normal(), 6.0 + i, 50.0 * growth**i, 60.0 + rng.normal())
        for s in range(seeds)
        for i in range(points)
    ]
    return pd.DataFrame(rows, columns=list(plots.COLUMNS))


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_the_same_numbers_give_the_same_bytes(tmp_path, suffix):
    first, second = (
        run_figure(evaluations(), [BEHAVIOUR, BC], "title", tmp_path / name / f"figure{suffix}").read_bytes()
        for name in "ab"
    )
    other = run_figure(evaluations(growth=2.0), [BEHAVIOUR, BC], "title", tmp_path / f"c{suffix}").read_bytes()
    assert first == second != other
    assert b"Matplotlib v" not in first and b"CreationDate" not in first


def test_a_user_style_does_not_change_the_figure(tmp_path):
    plain = run_figure(evaluations(), [], "t", tmp_path / "a.png").read_bytes()
    with matplotlib.rc_context({"lines.linewidth": 9.0, "font.size": 20, "axes.facecolor": "red"}):
        assert run_figure(evaluations(), [], "t", tmp_path / "b.png").read_bytes() == plain


def test_curves_mean_and_band_are_those_of_the_finite_seeds():
    evals = evaluations()
    evals.loc[(evals["seed"] == 2) & (evals["update"] >= 2000), "return_mean"] = [np.inf, np.nan]
    curves = plots._curves(evals, "return_mean")
    assert curves.left.tolist() == [3, 3, 2, 2] and np.isnan(curves.seeds[2, 2:]).all()
    kept = evals[(evals["update"] == 3000) & (evals["seed"] < 2)]["return_mean"]
    assert (curves.mean[3], curves.low[3], curves.high[3]) == pytest.approx(mean_interval(kept)[:3])
    assert plots._seeds(curves) == "3 seeds, 2 where fewest are left"


def test_only_exploding_values_get_a_logarithmic_axis():
    truth = np.array([[180.0, -20.0]])
    assert plots._symlog_limit(np.array([[1700.0]]), truth) == 0.0
    assert plots._symlog_limit(np.array([[1.0, -1e6]]), truth) == 100.0
    assert plots._symlog_limit(np.array([[NAN]]), np.array([[NAN]])) == 0.0


@pytest.mark.parametrize("kind", ["one point", "one seed, all diverged", "no truth"])
def test_poor_data_are_drawn_without_warnings(tmp_path, kind):
    evals = evaluations(seeds=1, points=1)
    if kind == "one seed, all diverged":
        evals.loc[:, ["return_mean", "score", "q_start", "mc_start"]] = NAN
    if kind == "no truth":
        evals = evaluations(growth=1e4).assign(mc_start=NAN, score=NAN)
    assert run_figure(evals, [BEHAVIOUR], kind, tmp_path / "a.png").stat().st_size > 1000


def test_figures_that_cannot_be_drawn_are_refused(tmp_path):
    with pytest.raises(UserError, match="lack q_start"):
        run_figure(evaluations().drop(columns="q_start"), [], "t", tmp_path / "a.png")
    with pytest.raises(UserError, match="lack any row"):
        run_figure(evaluations().iloc[:0], [], "t", tmp_path / "a.png")
    with pytest.raises(UserError, match=r"ending in \.png"):
        run_figure(evaluations(), [], "t", tmp_path / "a.docx")
