"""The comparison of algorithms: its numbers, what may be bold, and its three formats."""

import csv
import io
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_suite.errors import UserError
from jaxrl_suite.report import difference, mean_interval, paired_difference
from jaxrl_suite.report.comparison import METRICS, Task, compare
from jaxrl_suite.report.formats import CSV_COLUMNS, FORMATS, spanned, to_csv, to_latex, to_markdown

NAN = float("nan")
HOP = Task("hop", "quick")


def rows(algo, returns, dataset="hop", preset="quick", first=0, **more):
    return [
        {
            "algo": algo,
            "dataset": dataset,
            "preset": preset,
            "seed": seed,
            "updates": 100,
            "status": "finished",
            "return_last": value,
            "q_last": NAN,
            **more,
        }
        for seed, value in enumerate(returns, start=first)
    ]


def best(table):
    return sorted((task.dataset, algo) for (task, algo), cell in table.cells.items() if cell.best)


def markdown(table, columns="algo"):
    """The grid as {(row, column): cell}, and the caption."""
    grid, caption = to_markdown(table, columns).split("\n\n")
    head, _, *body = [line.strip("| ").split(" | ") for line in grid.splitlines()]
    return {(line[0], name): cell for line in body for name, cell in zip(head[1:], line[1:], strict=True)}, caption


# --- numbers ---
def test_a_cell_is_the_t_interval_over_seeds():
    table = compare(
        [*rows("a", [1.0, 2.0, 6.0]), *rows("b", [5.0]), *rows("a", [7.0, 8.0], dataset="walk")], "return_last"
    )
    assert table.tasks == (HOP, Task("walk", "quick")) and table.algos == ("a", "b")
    assert table.cells[HOP, "a"].interval == mean_interval([1.0, 2.0, 6.0])
    assert table.cells[HOP, "b"].interval.n == 1 and not table.cells[HOP, "b"].interval.bounded
    assert (Task("walk", "quick"), "b") not in table.cells


def test_the_order_of_rows_does_not_matter():
    made = [*rows("b", [1.0, 2.0, 6.0]), *rows("a", [4.0, 5.0, 9.0], first=1), *rows("a", [0.0], dataset="ant")]
    assert compare(made, "return_last") == compare(made[::-1], "return_last")


def test_seeds_that_diverged_or_have_no_value_are_counted_apart():
    made = rows("a", [1.0, 2.0, NAN, "", 500.0])
    made[4]["status"] = "diverged"
    cell = compare(made, "return_last").cells[HOP, "a"]
    assert (cell.interval, cell.diverged, cell.missing) == (mean_interval([1.0, 2.0]), 1, 2)
    text = markdown(compare(made, "return_last"))[0]["hop", "a"]
    assert text.endswith("n=2, 1 diverged left out, 2 without value left out")


def test_settings_are_lines_of_their_own():
    """The runner-up may be the same algorithm with other settings; empty and absent settings are the preset."""
    plain, bold = rows("a", [1.0, 2.0, 3.0]), rows("a", [91.0, 92.0, 95.0], settings="tau=1")
    table = compare([*plain, *bold], "return_last")
    assert table.algos == ("a", "a tau=1") and best(table) == [("hop", "a tau=1")]
    assert table.cells[HOP, "a"].interval == mean_interval([1.0, 2.0, 3.0])
    assert "changed in its preset" in table.caption and "changed" not in compare(plain, "return_last").caption
    for empty in ("", NAN, None):
        assert compare(rows("a", [1.0, 2.0, 3.0], settings=empty), "return_last") == compare(plain, "return_last")
    with pytest.raises(UserError, match="a tau=1 on hop, preset quick, has several rows for seed 0"):
        compare([*bold, *bold[:1]], "return_last")


# --- what is bold ---
def test_bold_needs_a_difference_that_the_interval_tells_apart():
    clear, close = rows("b", [1.0, 2.0, 3.0]), rows("b", [10.0, 13.0, 9.0])
    assert best(compare([*rows("a", [11.0, 12.0, 13.5]), *clear], "return_last")) == [("hop", "a")]
    assert best(compare([*rows("a", [11.0, 12.0, 13.5]), *close], "return_last")) == []
    assert best(compare(rows("a", [11.0, 12.0, 13.0]), "return_last")) == [], "there is no runner-up"
    assert best(compare([*rows("a", [99.0]), *rows("b", [1.0])], "return_last")) == [], "one seed has no interval"


def test_equal_seeds_are_paired_and_others_are_not():
    luck = np.array([0.0, 100.0, 200.0, 300.0])
    ours, theirs = luck + np.array([5.0, 6.0, 5.0, 7.0]), luck
    assert paired_difference(ours, theirs).low > 0.0 > difference(ours, theirs).low
    assert best(compare([*rows("a", ours), *rows("b", theirs)], "return_last")) == [("hop", "a")]
    assert best(compare([*rows("a", ours), *rows("b", theirs)[::-1]], "return_last")) == [("hop", "a")]
    assert best(compare([*rows("a", ours), *rows("b", theirs, first=4)], "return_last")) == []
    assert best(compare([*rows("a", ours + 900.0), *rows("b", theirs, first=4)], "return_last")) == [("hop", "a")]


def test_only_the_runner_up_counts_and_data_sets_are_apart():
    made = [*rows("a", [9.0, 9.1]), *rows("b", [8.0, 8.1]), *rows("c", [-500.0, 500.0])]
    assert best(compare(made, "return_last")) == [("hop", "a")]
    made += [*rows("a", [1.0, 1.1], dataset="walk"), *rows("c", [3.0, 3.2], dataset="walk")]
    assert best(compare(made, "return_last")) == [("hop", "a"), ("walk", "c")]


def test_losing_seeds_never_makes_the_best():
    made = [*rows("a", [900.0, 901.0, 902.0, 1.0]), *rows("b", [5.0, 6.0, 7.0, 6.5])]
    made[3]["status"] = "diverged"
    assert best(compare(made, "return_last")) == []
    made[3]["return_last"], made[3]["status"] = 903.0, "finished"
    assert best(compare(made, "return_last")) == [("hop", "a")]
    made[4]["status"] = "diverged"
    assert best(compare(made, "return_last")) == [("hop", "a")], "the runner-up lost one, which only flatters it"


samples = st.lists(st.lists(st.integers(-9, 9), min_size=2, max_size=5), min_size=2, max_size=4)


@settings(deadline=None)
@given(samples)
def test_bold_follows_its_rule(drawn):
    names = "abcd"[: len(drawn)]
    table = compare([row for name, x in zip(names, drawn, strict=True) for row in rows(name, x)], "return_last")
    ranked = sorted(drawn, key=lambda x: -np.mean(x))
    gap = (paired_difference if len(ranked[0]) == len(ranked[1]) else difference)(*ranked[:2])
    assert len(best(table)) <= 1
    if np.mean(ranked[1]) == np.mean(ranked[0]):
        assert best(table) == []
    elif [np.mean(x) for x in drawn].count(np.mean(ranked[1])) == 1:  # else the runner-up is one of several
        assert best(table) == ([("hop", names[drawn.index(ranked[0])])] if gap.low > 0 else [])


def test_a_metric_without_a_better_side_marks_nothing():
    made = [*rows("a", [1.0, 1.1], q_last=50.0), *rows("b", [5.0, 5.1], q_last=1.0)]
    assert best(compare(made, "return_last")) == [("hop", "b")]
    table = compare(made, "q_last")
    assert best(table) == [] and "Nothing is bold" in table.caption and "runner-up" not in table.caption
    assert {name for name, metric in METRICS.items() if not metric.best} == {"q_last"}


# --- formats ---
@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((1234.56, -2.0, 3000.04), "1,234.6 [-2.0, 3,000.0]"),
        ((0.0325, 0.0288, 0.0362), "0.033 [0.029, 0.036]"),
        ((5.04, 4.99, 5.09), "5.040 [4.990, 5.090]"),
        ((0.528, 0.333, 0.722), "0.53 [0.33, 0.72]"),
        ((-0.0004, -0.5, 0.5), "0.00 [-0.50, 0.50]"),
        ((5.0, 4.0, 6.0), "5.0 [4.0, 6.0]"),
        ((0.0, 0.0, 0.0), "0.0 [0.0, 0.0]"),
        ((7.25, float("nan"), float("nan")), "7.2"),
    ],
)
def test_an_interval_has_as_many_digits_as_it_takes(numbers, text):
    assert spanned(*numbers) == text


def small():
    made = [*rows("a_1", [90.0, 91.0]), *rows("b", [8.0, 9.5]), *rows("b", [-4.0], dataset="walk|50%")]
    return compare(made, "return_last")


def test_markdown_both_ways_round():
    cells, caption = markdown(small())
    assert cells["hop", "a\\_1"] == f"**90.5** [{mean_interval([90.0, 91.0]).low:.1f}, 96.9], n=2"
    flipped, _ = markdown(small(), "dataset")
    assert {(column, row): cell for (row, column), cell in flipped.items()} == cells
    assert "runner-up" in caption and "preset quick" in caption
    assert to_markdown(small()).splitlines()[3] == "| walk\\|50% | - | -4.0, n=1 |"


def test_latex_is_balanced_escaped_and_booktabs():
    text = to_latex(small())
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith("\\\\")]
    assert [len(re.findall(r"(?<!\\)&", line)) for line in lines] == [2, 2, 2]
    assert r"a\_1" in text and r"walk\textbar{}50\%" in text and r"95\% t-interval" in text
    assert r"$\mathbf{90.5}$ $[84.1, 96.9]$, $n=2$" in text and "$-4.0$, $n=1$" in text
    assert text.count(r"\mathbf") == 1 and "\\usepackage{booktabs}" in text
    stripped = re.sub(r"\\[{}$%&#_]", "", text)
    assert stripped.count("{") == stripped.count("}") and stripped.count("$") % 2 == 0
    assert stripped.count(r"\begin") == stripped.count(r"\end") == 2


def test_a_bracket_at_the_start_of_a_latex_row_is_no_option():
    assert "\n{}[x & " in to_latex(compare(rows("a", [1.0], dataset="[x"), "return_last"))


@pytest.mark.parametrize("symbol", list(r"\~^<>|&%$#_{}"))
def test_no_special_character_reaches_latex_bare(symbol):
    """What remains after taking out commands and escaped characters is plain text."""
    text = to_latex(compare(rows(f"x{symbol}y", [1.0]), "return_last"))
    (header,) = re.findall(r"data set & (.*) \\\\", text)
    plain = re.sub(r"\\(text[a-z]+\{\}|[&%$#_{}])", "", header)
    assert plain == "xy" and header != "xy"


def test_csv_holds_every_cell_in_full():
    table = small()
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert list(lines[0]) == list(CSV_COLUMNS) and len(lines) == 3 and "nan" not in to_csv(table)
    for line in lines:
        cell = table.cells[Task(line["dataset"], line["preset"]), line["algo"]]
        read = [float(line[name] or "nan") for name in ("mean", "low", "high")]
        assert read == pytest.approx(list(cell.interval[:3]), rel=0, abs=0, nan_ok=True)
        counts = (cell.interval.n, cell.diverged, cell.missing, cell.best)
        assert (line["n"], line["diverged"], line["missing"], line["best"]) == tuple(map(str, counts))


def test_several_presets_are_apart_and_named():
    table = compare([*rows("a", [1.0, 2.0]), *rows("a", [1.0], preset="paper")], "return_last")
    assert set(markdown(table)[0]) == {("hop, paper", "a"), ("hop, quick", "a")}
    assert "preset" not in table.caption


def test_columns_that_do_not_exist_are_refused():
    for show in (to_markdown, to_latex):
        with pytest.raises(ValueError, match="columns"):
            show(small(), "seed")
    assert set(FORMATS) == {"markdown", "latex", "csv"}


# --- refusals ---
@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ([], "no rows"),
        ([{"algo": "a"}], "lack dataset, preset, return_last, seed, status, updates"),
        ([*rows("a", [1.0]), *rows("a", [2.0])], "several rows for seed 0"),
        ([*rows("a", [1.0]), *rows("a", [2.0], first=1, updates=7)], "100 and 7 updates"),
        (rows("a", ["many"]), "'many', not a number"),
        ([{**rows("a", [1.0])[0], "seed": NAN}], "a seed is nan"),
        ([{**rows("a", [1.0])[0], "seed": 1.5}], "a seed is 1.5"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(made, expected):
    with pytest.raises(UserError, match=expected):
        compare(made, "return_last")


def test_an_unknown_metric_names_its_neighbours():
    with pytest.raises(UserError, match="did you mean return_last"):
        compare(rows("a", [1.0]), "return_lst")


def test_a_cell_without_any_seed_says_why_or_nothing():
    gone = rows("a", [NAN, NAN], status="diverged")
    assert markdown(compare([*gone, *rows("b", [1.0])], "return_last"))[0]["hop", "a"] == "-, n=0, 2 diverged left out"
    table = compare([*rows("a", [1.0]), *rows("b", [1.0], q_last=2.0)], "q_last")
    assert markdown(table)[0]["hop", "a"] == "-" and math.isnan(table.cells[HOP, "a"].interval.estimate)
