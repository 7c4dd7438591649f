"""The command that compares published rows, as a user meets it; and the README's table, made of the same rows."""

import csv
import io
import re
import shutil
import sys

import pytest
from rich.console import Console

from experiments import findings, plans, publishing, sweep, tables
from jaxrl_suite.errors import UserError
from jaxrl_suite.report import comparison, mean_interval
from jaxrl_suite.report.comparison import METRICS
from jaxrl_suite.report.formats import COLUMNS, FORMATS
from jaxrl_suite.sweep import tasks
from jaxrl_suite.train import rundir, session

PUBLISHED = publishing.RESULTS / "offline_mbrl"


@pytest.fixture
def command(monkeypatch, capsys):
    """Call the command as the shell would -> exit code, output, errors."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["tables", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            tables.main()
        return stop.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(command):
    """The one line of a refusal."""

    def run(*words):
        code, output, errors = command(*words)
        assert (code, output) == (2, "") and errors.startswith("error: ")
        assert errors.count("\n") == 1 and "Traceback" not in errors
        return errors

    return run


@pytest.fixture
def folder(tmp_path):
    """A folder of two algorithms -> its path."""
    rows = [
        {
            **{name: "" if name == "settings" else 1 for name in session.SUMMARY_COLUMNS},
            **{"algo": algo, "dataset": "hop", "preset": "quick", "seed": seed, "status": "finished"},
            **{"run_id": f"{algo}{seed}", "return_last": base + seed**2, "schema_version": rundir.SCHEMA_VERSION},
        }
        for algo, base in (("bc", 1.0), ("ravl", 100.0))
        for seed in range(3)
    ]
    rundir.upsert_rows(tmp_path / "made-up" / "summary.csv", rows, session.SUMMARY_COLUMNS)
    return tmp_path / "made-up"


def rewrite(folder, change):
    """Change the summary's text."""
    path = folder / "summary.csv"
    path.write_text(change(path.read_text()))


# --- what it shows ---
def test_published_rows_are_tabled(command):
    code, output, errors = command(PUBLISHED, "--format=csv", "--metric=score_last")
    assert (code, errors) == (0, "")
    published = rundir.read_rows(PUBLISHED / "summary.csv")
    lines = list(csv.DictReader(io.StringIO(output)))
    assert lines and {line["algo"] for line in lines} == {comparison.line_of(row) for row in published}
    for line in lines:
        place = (line["algo"], line["dataset"], line["preset"], "finished")
        mine = [r for r in published if (comparison.line_of(r), r["dataset"], r["preset"], r["status"]) == place]
        expected = mean_interval([float(row["score_last"]) for row in mine])
        assert float(line["mean"]) == pytest.approx(expected.estimate) and int(line["n"]) == expected.n


def test_formats_columns_and_files(command, folder, tmp_path):
    code, shown, _ = command(folder)
    assert code == 0 and shown.startswith("| algorithm | hop |\n") and "\n| ravl | **101.7**" in shown
    assert shown.count("**") == 2 and command(folder, "--columns=dataset")[1] == shown
    assert command(folder, "--columns=algo")[1].startswith("| data set | bc | ravl |\n")
    for name, (ending, _) in FORMATS.items():
        path = tmp_path / "new" / f"table{ending}"
        code, output, errors = command(folder, f"--out={path}")
        assert (code, errors) == (0, "") and str(path) in output
        assert path.read_text() == command(folder, f"--format={name}")[1]
    path = tmp_path / "table.txt"
    assert command(folder, f"--out={path}", "--format=markdown")[0] == 0
    assert path.read_text() == shown


def test_a_preset_is_chosen(command, folder):
    rewrite(
        folder, lambda text: text + "".join(text.splitlines(True)[-3:]).replace("quick", "paper").replace("ravl", "x")
    )
    assert "hop, quick" in command(folder)[1]
    only = command(folder, "--preset=paper")[1]
    assert "preset paper" in only and "ravl" not in only


def test_settings_are_compared_as_lines_of_their_own(command, folder):
    plain = command(folder)[1]
    varied = [
        row | {"settings": "tau=1 critics=2", "run_id": f"x{row['seed']}"} for row in tables.published(folder)[:3]
    ]
    rundir.upsert_rows(folder / "summary.csv", varied, session.SUMMARY_COLUMNS)
    code, shown, _ = command(folder)
    assert code == 0 and "what is changed in its preset" in shown
    assert re.findall(r"^\| (\w.*?) \|", shown, re.M) == ["algorithm", "bc", "bc tau=1 critics=2", "ravl"]
    assert "bc tau=1" not in plain and "changed in its preset" not in plain
    lines = list(csv.DictReader(io.StringIO(command(folder, "--format=csv")[1])))
    assert [line["algo"] for line in lines] == ["bc", "bc tau=1 critics=2", "ravl"]
    assert lines[0]["mean"] == lines[1]["mean"] and "| tau=1" not in shown
    assert "| bc | bc tau=1 critics=2 | ravl |" in command(folder, "--columns=algo")[1]
    assert command(folder, "--settings=none")[1] == plain and command(folder, "--settings=all")[1] == shown


def test_algorithms_are_chosen(command, folder):
    shown = command(folder, "--algo=ravl")[1]
    assert "| ravl | 101.7" in shown and "bc" not in shown and "**" not in shown  # nothing to be better than
    assert command(folder, "--algo=ravl, bc")[1] == command(folder)[1]


def test_a_sweep_over_settings_closes_with_their_table(folder, monkeypatch):
    rows = [row | {"settings": "tau=1" if row["algo"] == "bc" else ""} for row in tables.published(folder)]
    console = Console(file=io.StringIO(), width=200)
    monkeypatch.setattr(tasks, "rows_of", lambda _: rows)
    (run, *_) = plans.plan(plans.Options(algo="bc", preset="smoke", seeds="1"))
    sweep.closing([run._replace(settings={"tau": "1"})], console)
    shown = console.file.getvalue()
    assert "| bc tau=1 | " in shown and "\n| ravl | " in shown


def test_help_names_every_choice(command):
    code, output, _ = command("--help")
    assert code == 0 and set(re.findall(r"\w+", output)) >= {*METRICS, *FORMATS, *COLUMNS}
    assert set(METRICS) <= set(session.SUMMARY_COLUMNS)


# --- what it refuses ---
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--metric=return_lst"], "did you mean return_last"),
        (["--format=latx"], "did you mean latex"),
        (["--columns=algos"], "did you mean algo"),
        (["--algo=ravl,bd"], "unknown algorithm 'bd'; did you mean bc?"),
        (["--algo=ravl,"], "empty value"),
        (["--settings=non"], "unknown settings 'non'; did you mean none?"),
        (["--preset=quik"], "did you mean quick"),
        (["--metrik=a"], "did you mean --metric"),
        (["--out=a.docx"], "say which with --format"),
        (["more"], "'more' belongs to no option"),
    ],
)
def test_nonsense_is_refused_in_one_line(refused, folder, words, expected):
    assert expected in refused(folder, *words)


def test_rows_that_all_change_settings_leave_none_without(refused, folder):
    rows = [row | {"settings": "tau=1"} for row in tables.published(folder)]
    rundir.upsert_rows(folder / "summary.csv", rows, session.SUMMARY_COLUMNS)
    assert "--settings=none leaves no rows" in refused(folder, "--settings=none")


def test_folders_without_results_are_refused(refused, folder, tmp_path):
    assert "which results" in refused()
    assert "did you mean" in refused(tmp_path / "made-upp") and str(folder) in refused(tmp_path)
    assert "there is no folder" in refused(tmp_path / "not" / "here")
    empty = tmp_path / "made-up" / "empty"
    empty.mkdir()
    assert "has no summary.csv" in refused(empty)
    assert f"give its folder: python -m experiments.tables {folder}" in refused(folder / "summary.csv")
    assert "too long" in refused(tmp_path / ("x" * 300))


def test_rates_are_no_returns(refused, tmp_path):
    line = refused(publishing.RESULTS / "throughput")
    assert "are rates of work done, no returns" in line and "another version" not in line
    named = line.partition("folders with returns: ")[2].strip().split(", ")
    assert str(PUBLISHED) in named and len(named) == len(list(publishing.RESULTS.glob("*/summary.csv"))) - 1
    shutil.copytree(publishing.RESULTS / "throughput", tmp_path / "throughput")
    assert "give a folder with returns" in refused(tmp_path / "throughput", "--preset=quick")


def test_half_written_and_damaged_summaries_are_refused(refused, folder):
    whole = (folder / "summary.csv").read_text()
    header = whole.splitlines()[0]
    for text, expected in {
        "": "it is empty",
        header + "\n": "no rows",
        whole[:-20]: "cells, the header",
        whole.replace(",return_last", "", 1): "cells, the header",
        whole.replace("101.0", "lots"): "'lots', expected a number",
        whole + whole.splitlines(True)[1]: "several rows for seed 0",
    }.items():
        rewrite(folder, lambda _, text=text: text)
        assert expected in refused(folder)
    (folder / "summary.csv").write_bytes(b"\xff\xfe\x00")
    assert "not a summary that can be read" in refused(folder)


@pytest.mark.parametrize("version", ["0", "", "99"])
def test_rows_of_another_schema_are_refused(refused, folder, version):
    rows = rundir.read_rows(folder / "summary.csv")
    (folder / "summary.csv").unlink()
    with (folder / "summary.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([*rows[:-1], {**rows[-1], "schema_version": version}])
    assert "schema" in (line := refused(folder)) and (version or "none") in line


def test_rows_without_a_schema_are_refused(refused, folder):
    rewrite(folder, lambda text: text.replace("schema_version", "something", 1))
    assert "6 of 6 rows are of schema none" in refused(folder)


def test_the_rows_are_never_overwritten(refused, folder, tmp_path):
    before = (folder / "summary.csv").read_bytes()
    assert "would replace the rows" in refused(folder, f"--out={folder / 'summary.csv'}")
    assert "is a folder" in refused(folder, f"--out={folder}", "--format=csv")
    blocked = tmp_path / "file"
    shutil.copy(folder / "summary.csv", blocked)
    assert "cannot use the folder" in refused(folder, f"--out={blocked / 'table.md'}")
    assert (folder / "summary.csv").read_bytes() == before


# --- the README ---
@pytest.mark.parametrize("name", publishing.TABLES)
def test_the_readme_shows_the_published_rows(name):
    text = (publishing.RESULTS.parent / "README.md").read_text(encoding="utf-8")
    assert text.count(findings.start(name)) == 1
    shown = text.partition(findings.start(name))[2].partition(findings.END)[0]
    rows = rundir.read_rows(PUBLISHED / "summary.csv")
    assert shown.strip() == publishing.TABLES[name](rows).strip()


def test_a_readme_without_a_marker_is_refused_and_untouched(tmp_path):
    readme = tmp_path / "README.md"
    for text in ("# nothing", f"{findings.start('offline_mbrl')}\n{findings.END}\n{findings.start('suite')}\n"):
        readme.write_text(text)
        with pytest.raises(UserError, match="lacks the markers <!-- table:"):
            publishing.renew_readme(readme)
        assert readme.read_text() == text
