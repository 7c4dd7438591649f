"""Published learning curves: appended whole, by run id, and read by the page and the figure without run directories."""

import json
import math
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from experiments import curves, page, report
from jaxrl_suite.errors import UserError
from jaxrl_suite.report import mean_interval
from jaxrl_suite.train import identity, rundir, session
from paper_figs import learning_curves as figure
from paper_figs import style
from paper_figs.__main__ import main as draw_all

NAN = float("nan")


def config(algo, tau=0.5):
    return {"experiment": "offline_mbrl", "algo": algo, "config": {"tau": tau}}


def returns(algo, seed, tau=0.5, points=3):
    """A made-up learning curve."""
    return [(1.0 + seed) * (algo == "ravl") + place * 10.0 / tau + seed / 3 for place in range(points)]


def make_run(runs, algo, seeds, variants=None, name="", shift=0.0):
    """A run directory as the loop leaves it -> its path."""
    path = runs / (name or f"{algo}-{seeds[0]}")
    path.mkdir(parents=True)
    more = {"variants": [[text, {"tau": tau}] for text, tau in variants.items()]} if variants else {}
    (path / "config.json").write_text(json.dumps({"config": config(algo), "seeds": seeds, **more}))
    log = rundir.Log.csv(path / "eval.csv", ("settings", "seed", "update", *curves.VALUES))
    for place in range(3):
        for text, tau in (variants or {"": 0.5}).items():
            for seed in seeds:
                value = returns(algo, seed, tau)[place] + shift
                row = {"settings": text, "seed": seed, "update": 10 * place, "return_mean": value, "score": value / 8}
                log.append(row | {"q_start": NAN if algo == "bc" else 2.5, "mc_start": value / 2})
    return path


def make_rows(algo, seeds, settings="", tau=0.5, **more):
    """The summary rows of such a run."""
    return [
        {
            **dict.fromkeys(session.SUMMARY_COLUMNS, 1.0),
            **{"experiment": "offline_mbrl", "algo": algo, "dataset": "made-up", "preset": "quick", "seed": seed},
            **{"updates": 20, "return_last": returns(algo, seed, tau)[-1], "status": "finished", "settings": settings},
            **{"run_id": identity.run_id(config(algo, tau), seed), "group_id": f"group-{algo}{settings}"},
            **{"schema_version": rundir.SCHEMA_VERSION, "git_commit": "c0ffee", "behaviour_return": 12.0, **more},
        }
        for seed in seeds
    ]


@pytest.fixture
def folder(tmp_path):
    """results/offline_mbrl with rows of BC and RAVL, two seeds each -> its path."""
    path = tmp_path / "results" / "offline_mbrl"
    add_rows(path, [*make_rows("bc", [0, 1]), *make_rows("ravl", [0, 1])])
    return path


def add_rows(folder, rows):
    rundir.upsert_rows(folder / "summary.csv", rows, [*session.SUMMARY_COLUMNS])


@pytest.fixture
def runs(tmp_path):
    """The run directories of these rows, and one of a run that is not published -> their folder."""
    make_run(tmp_path / "runs", "bc", [0, 1])
    make_run(tmp_path / "runs", "ravl", [0, 1])
    make_run(tmp_path / "runs", "ravl", [7])
    return tmp_path / "runs"


# --- publishing ---
def test_curves_of_published_rows_are_appended_once(folder, runs):
    assert curves.publish(folder, runs) == (4, 0)
    path = folder / curves.CURVES
    first = path.read_text()
    assert first.splitlines()[0] == ",".join(curves.COLUMNS) and len(first.splitlines()) == 1 + 4 * 3
    for row in rundir.read_rows(folder / "summary.csv"):
        found = curves.read(path)[row["run_id"]]
        assert [at["return_mean"] for at in found] == returns(row["algo"], row["seed"])  # to the bit
        assert [at["update"] for at in found] == [0, 10, 20] and {at["seed"] for at in found} == {row["seed"]}
        assert all(math.isnan(at["q_start"]) == (row["algo"] == "bc") for at in found)
    assert curves.publish(folder, runs) == (0, 0) and path.read_text() == first

    add_rows(folder, [*make_rows("ravl", [7, 8])])
    assert curves.publish(folder, runs) == (1, 1)  # of seed 8 there is no run directory
    assert path.read_text().startswith(first) and len(path.read_text().splitlines()) == 1 + 5 * 3


def test_without_run_directories_nothing_is_written(folder, tmp_path):
    assert curves.publish(folder, tmp_path / "nowhere") == (0, 4)
    assert not (folder / curves.CURVES).exists() and curves.read(folder / curves.CURVES) == {}


def test_of_several_attempts_that_is_taken_which_was_published(folder, tmp_path):
    make_run(tmp_path / "runs", "bc", [0, 1], name="bc-0-r2", shift=5.0)
    assert curves.publish(folder, tmp_path / "runs") == (0, 4)
    make_run(tmp_path / "runs", "bc", [0, 1])
    make_run(tmp_path / "runs", "bc", [0, 1], name="bc-0-r3", shift=-5.0)
    assert curves.publish(folder, tmp_path / "runs") == (2, 2)
    found = curves.read(folder / curves.CURVES)[make_rows("bc", [1])[0]["run_id"]]
    assert [at["return_mean"] for at in found] == returns("bc", 1)


def test_settings_that_were_trained_side_by_side_are_apart(folder, tmp_path):
    make_run(tmp_path / "runs", "ravl", [0, 1], {"": 0.5, "tau=0.1": 0.1})
    add_rows(folder, make_rows("ravl", [0, 1], "tau=0.1", 0.1))
    assert curves.publish(folder, tmp_path / "runs") == (4, 2)
    found = curves.read(folder / curves.CURVES)
    for tau in (0.5, 0.1):
        run_id = identity.run_id(config("ravl", tau), 1)
        assert [at["return_mean"] for at in found[run_id]] == returns("ravl", 1, tau)


def test_a_diverged_run_has_a_curve_too(folder, tmp_path):
    path = make_run(tmp_path / "runs", "ravl", [5])
    (path / "eval.csv").write_text((path / "eval.csv").read_text().replace(repr(returns("ravl", 5)[-1]), "nan"))
    add_rows(folder, make_rows("ravl", [5], return_last=NAN, status="diverged"))
    assert curves.publish(folder, tmp_path / "runs") == (1, 4)


DAMAGE = [
    (lambda text: text[:-3], "is half written"),
    (lambda text: text[: text.rindex(",") - 4] + "\n", "cells, the header"),
    (lambda text: text.replace(",1\n", ",0\n"), "schema 0, this version reads 1"),
    (lambda text: text.replace(",1\n", ",99\n"), "schema 99"),
    (lambda text: text.replace(",score,", ",points,"), "lacks the columns score"),
    (lambda text: text.replace(",10,", ",ten,", 1), "update is 'ten'"),
    (lambda text: text.replace("run_id,", "run,"), "lacks the columns run_id"),
    (lambda text: "", "is half written"),
]


@pytest.mark.parametrize(("change", "words"), DAMAGE)
def test_damaged_or_old_curves_are_refused_and_stay_as_they_are(folder, runs, monkeypatch, capsys, change, words):
    curves.publish(folder, runs)
    path = folder / curves.CURVES
    path.write_text(change(path.read_text()))
    damaged = path.read_bytes()
    add_rows(folder, make_rows("ravl", [7]))
    with pytest.raises(UserError, match=words):
        curves.publish(folder, runs)
    monkeypatch.setattr(sys, "argv", ["report", f"--results={folder.parent}"])
    with pytest.raises(SystemExit) as stop:
        report.main()
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and words in errors and errors.count("\n") == 1
    assert path.read_bytes() == damaged and not (folder.parent / "index.html").exists()


# --- the page ---
def data_of(text):
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def built(folder, *runs):
    own = [run for where in runs for run in report.runs_of(where)]
    return page.build(report.experiments_of(folder.parent), own)


def test_the_page_draws_published_curves_without_run_directories(folder, runs):
    assert data_of(built(folder)) == []
    curves.publish(folder, runs)
    text = built(folder)
    bc, ravl = data_of(text)
    assert bc["name"] == "offline_mbrl: bc on made-up, preset quick, seeds 0, 1"
    assert [line["seed"] for line in ravl["seeds"]] == [0, 1]
    assert ravl["seeds"][1]["return_mean"] == [[10 * place, value] for place, value in enumerate(returns("ravl", 1))]
    assert "Published without a curve" not in text and "4 runs with learning curves" in text
    assert text == built(folder)


def test_the_page_says_how_many_rows_have_no_curve(folder, runs):
    curves.publish(folder, runs)
    add_rows(folder, make_rows("ravl", [2, 3, 4]))
    assert "Published without a curve: 3 of 7 rows." in built(folder)


def test_published_runs_are_not_drawn_twice_and_others_are_added(folder, runs):
    curves.publish(folder, runs)
    names = [line["name"] for line in data_of(built(folder, runs))]
    assert [name.partition(", seeds")[2].strip() for name in names] == ["0, 1", "0, 1", "7"] and names[2] == (
        "ravl-7, seeds 7"
    )


def test_settings_are_lines_and_rows_of_their_own_on_the_page(folder, tmp_path):
    make_run(tmp_path / "runs", "ravl", [0, 1], {"": 0.5, "tau=0.1": 0.1})
    add_rows(folder, make_rows("ravl", [0, 1], "tau=0.1", 0.1))
    curves.publish(folder, tmp_path / "runs")
    text = built(folder)
    assert [line["name"].partition(" on ")[0] for line in data_of(text)] == [
        "offline_mbrl: ravl",
        "offline_mbrl: ravl tau=0.1",
    ]
    assert '<th scope="row">ravl tau=0.1</th>' in text  # of the aggregate
    assert "<td>tau=0.1</td>" in text  # of the rows
    assert "<h3>offline_mbrl: ravl tau=0.1 on made-up, preset quick</h3>" in text


# --- the figure ---
def test_the_figure_shows_means_with_t_intervals(folder, runs):
    curves.publish(folder, runs)
    ((name, drawn),) = figure.draw(folder.parent).items()
    assert name == "offline_mbrl/learning-curves-made-up-quick-20"
    lines = {line.get_label(): line.get_ydata() for line in drawn.axes[0].get_lines()}
    assert set(lines) == {"bc (2 seeds)", "ravl (2 seeds)", "mean return of the data"}
    both = np.array([returns("ravl", 0), returns("ravl", 1)])
    np.testing.assert_allclose(lines["ravl (2 seeds)"], both.mean(0))
    excess = [line for line in drawn.axes[1].get_lines() if str(line.get_label()).startswith(("bc", "ravl"))]
    assert [line.get_label() for line in excess] == ["ravl (2 seeds)"]  # BC has no critics
    np.testing.assert_allclose(excess[0].get_ydata(), 2.5 - both.mean(0) / 2)
    bands = [area.get_paths()[0].vertices[:, 1] for area in drawn.axes[0].collections]
    intervals = [mean_interval(at) for at in both.T]
    lowest, highest = min(i.low for i in intervals), max(i.high for i in intervals)
    assert [(band.min(), band.max()) for band in bands][1] == (pytest.approx(lowest), pytest.approx(highest))


def test_the_figure_of_settings_and_of_a_lost_seed(folder, runs, tmp_path):
    make_run(tmp_path / "more", "ravl", [0, 1], {"": 0.5, "tau=0.1": 0.1})
    add_rows(folder, make_rows("ravl", [0, 1], "tau=0.1", 0.1))
    add_rows(folder, make_rows("bc", [1], status="diverged"))
    curves.publish(folder, tmp_path / "more")
    curves.publish(folder, runs)
    ((_, drawn),) = figure.draw(folder.parent).items()
    labels = {line.get_label() for line in drawn.axes[0].get_lines()}
    assert labels == {"bc (1 seed)", "ravl (2 seeds)", "ravl tau=0.1 (2 seeds)", "mean return of the data"}
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn.axes[0].get_lines()}) == 4


def test_no_two_lines_of_a_figure_look_alike(folder, tmp_path):
    """Eighteen lines; and a step size of the critics is none of them."""
    taus = {f"tau={place}": float(place) for place in range(1, 18)} | {"critic_lr=0.003": 0.25}
    make_run(tmp_path / "runs", "ravl", [0], {"": 0.5, **taus})
    for settings, tau in taus.items():
        add_rows(folder, make_rows("ravl", [0], settings, tau))
    curves.publish(folder, tmp_path / "runs")
    ((_, drawn),) = figure.draw(folder.parent).items()
    handles, labels = drawn.legends[0].legend_handles, [text.get_text() for text in drawn.legends[0].get_texts()]
    lines = [str(line._unscaled_dash_pattern) + line.get_color() for line in handles]
    assert len(labels) == 19 and not any("critic_lr" in label for label in labels)  # with the mean of the data
    assert len(set(lines)) == 19


def test_lines_of_as_many_updates_share_a_figure_and_bc_is_in_each(folder, runs):
    curves.publish(folder, runs)
    summary = pd.read_csv(folder / "summary.csv", dtype={"run_id": str})
    summary.loc[summary["algo"] == "ravl", "updates"] += 1
    summary.to_csv(folder / "summary.csv", index=False)
    alone, both = figure.draw(folder.parent).values()
    labels = [{line.get_label() for line in drawn.axes[0].get_lines()} for drawn in (alone, both)]
    assert labels[0] == {"bc (2 seeds)", "mean return of the data"}
    assert labels[1] == {"bc (2 seeds)", "ravl (2 seeds)", "mean return of the data"}


def test_a_line_that_ends_before_the_others_says_after_how_many_updates(folder, runs):
    curves.publish(folder, runs)
    summary = pd.read_csv(folder / "summary.csv", dtype={"run_id": str})
    short = summary.loc[summary["algo"] == "bc", "run_id"]
    points = pd.read_csv(folder / curves.CURVES, dtype={"run_id": str})
    last = points["update"].max()
    points[~(points["run_id"].isin(short) & (points["update"] == last))].to_csv(folder / curves.CURVES, index=False)
    ((_, drawn),) = figure.draw(folder.parent).items()
    labels = {line.get_label() for line in drawn.axes[0].get_lines()}
    end = points.loc[points["update"] < last, "update"].max()
    assert {f"bc (2 seeds, {end} updates)", "ravl (2 seeds)"} < labels


def test_without_curves_there_is_nothing_to_draw(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["paper_figs", "--only=learning_curves", f"--results={folder.parent}"])
    with pytest.raises(SystemExit) as stop:
        draw_all()
    line = f"learning_curves: nothing to draw; no row in {folder} has what it shows\n"
    assert stop.value.code == 0 and capsys.readouterr().out == line
    assert [path.name for path in folder.iterdir()] == ["summary.csv"]


def test_the_same_curves_give_the_same_bytes_in_two_processes(folder, runs, tmp_path):
    curves.publish(folder, runs)
    with mpl.rc_context(style.RC):
        for name, drawn in figure.draw(folder.parent).items():
            style.save(drawn, tmp_path / name.rpartition("/")[2])
    command = [sys.executable, "-m", "paper_figs", "--only=learning_curves", f"--results={folder.parent}"]
    subprocess.run(command, cwd=report.page.TEMPLATE.parent.parent, check=True, capture_output=True)
    for kind in ("png", "pdf"):
        made = folder / f"learning-curves-made-up-quick-20.{kind}"
        assert made.read_bytes() == (tmp_path / made.name).read_bytes()


def test_published_curves_belong_to_published_rows():
    """What is committed, if anything: each curve ends where its row says."""
    for path in (report.page.TEMPLATE.parent.parent / "results").glob("*/curves.csv"):
        rows = pd.read_csv(path.parent / "summary.csv", dtype={"run_id": str}).set_index("run_id")
        for run_id, found in curves.read(path).items():
            assert found[-1]["return_mean"] == pytest.approx(rows.loc[run_id, "return_last"])
            assert found[-1]["update"] == rows.loc[run_id, "updates"]
