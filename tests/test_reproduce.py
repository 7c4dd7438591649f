"""Claims and publishing: functions of summary rows, which never change rows that are there."""

import dataclasses
import io
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats as scipy_stats

from experiments import at_once, box_runs, claims, curves, options, publishing, reproduce, studies
from jaxrl_suite.algorithms import registry
from jaxrl_suite.errors import UserError
from jaxrl_suite.report import Interval, mean_interval
from jaxrl_suite.report.claims import RULES, Needed, above, judge, verdict
from jaxrl_suite.sweep import tasks
from jaxrl_suite.train import rundir, session, settings
from jaxrl_suite.train.display import make_console
from paper_figs import offline_mbrl as figure
from paper_figs.__main__ import main as draw_all

MADE_UP = claims.on_data("made-up")


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


def test_findings_are_paired_t_intervals_with_holms_correction():
    bc, ravl = [500.0, 600.0, 550.0, 700.0], [900.0, 1200.0, 800.0, 1000.0]
    findings = judge(MADE_UP, [*rows(bc, "bc"), *rows(ravl, "ravl"), *rows([0.0], "bc", dataset="other")])
    tests = [scipy_stats.ttest_rel(ravl, bc), scipy_stats.ttest_1samp(np.array(ravl) - 400.0, 0.0)]
    for finding, test in zip(findings, tests, strict=True):
        bounds = test.confidence_interval()
        assert finding.interval[1:] == (pytest.approx(bounds.low), pytest.approx(bounds.high), 4)
        assert finding.verdict == "supported"
        assert finding.seeds == (0, 1, 2, 3)
    adjusted = [finding.adjusted_p for finding in findings]
    low, high = sorted(float(test.pvalue) for test in tests)
    assert sorted(adjusted) == [pytest.approx(min(2 * low, 1)), pytest.approx(max(2 * low, high))]


def test_only_seeds_that_both_finished_are_paired():
    bc, ravl = rows([1.0, 2.0, 3.0], "bc"), rows([5.0, 6.0, 9.0], "ravl")
    ravl[1]["status"] = "diverged"
    assert judge(MADE_UP, [*bc, *ravl])[0].seeds == (0, 2)


def test_without_runs_a_claim_is_inconclusive():
    assert [finding.verdict for finding in judge(MADE_UP, [])] == ["inconclusive", "inconclusive"]
    assert claims.record(judge(MADE_UP, [])[0], "quick")["command"].endswith("--preset=quick")


def test_rows_that_cannot_support_a_claim_are_refused():
    tuned = rows([1.0], "ravl")
    tuned[0]["seed"] = 1000
    with pytest.raises(UserError, match="1000"):
        judge(MADE_UP, tuned)
    with pytest.raises(UserError, match="two rows of ravl"):
        judge(MADE_UP, [*rows([1.0], "ravl"), *rows([2.0], "ravl")])


def shown_text(table) -> str:
    console = Console(width=300, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_rows_of_other_settings_are_other_runs(tmp_path):
    """They enter a claim only where it asks for them."""
    bc, ravl = rows([500.0, 600.0], "bc"), rows([900.0, 1200.0], "ravl")
    varied = [row | {"settings": "diversity=0", "run_id": f"{row['run_id']}-0"} for row in rows([100.0, 150.0], "ravl")]
    assert judge(MADE_UP, [*bc, *ravl, *varied]) == judge(MADE_UP, [*bc, *ravl])
    asked = Needed("ravl", "made-up", "diversity=0")
    ablation = dataclasses.replace(MADE_UP[0], evidence=above("return_last", Needed("ravl", "made-up"), asked))
    assert judge([ablation], [*ravl, *varied])[0].interval.estimate == 925.0
    chosen = reproduce.Options(seeds="2", out=tmp_path)
    rundir.upsert_rows(tmp_path / "offline_mbrl" / "summary.csv", [*ravl, *varied], list(varied[0]))
    assert [row["return_last"] for row in reproduce.rows_of({asked: range(2)}, chosen)] == [100.0, 150.0]
    assert [row["return_last"] for row in reproduce.rows_of(dict.fromkeys(MADE_UP[1].needs, range(2)), chosen)] == [
        900.0,
        1200.0,
    ]


def test_without_a_choice_it_says_how_many_claims_have_commands_of_their_own(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(reproduce, "run_all", lambda *_: 0)
    monkeypatch.setattr(reproduce, "rows_of", lambda *_: [])
    for words, said in (([], True), (["--only=ravl-beats-bc"], False), (["--list"], True)):
        monkeypatch.setattr(sys, "argv", ["reproduce", f"--out={tmp_path}", *words])
        with pytest.raises(SystemExit) as stop:
            reproduce.main()
        assert stop.value.code == 0
        assert ("claims have commands of their own: see results/CLAIMS.md" in capsys.readouterr().out) == said


def test_a_claim_about_settings_makes_their_runs():
    asked = Needed("ravl", "made-up", "diversity=0 hidden=64x64 dynamics.members=3")
    words = reproduce.words_of(asked, "0:8", reproduce.Options(preset="smoke"))
    shared, _, config = options.offline(words, "test", "")
    assert (shared.algo, shared.dataset, shared.seeds, shared.preset) == ("ravl", "made-up", "0:8", "smoke")
    assert (config.diversity, config.hidden, config.dynamics.members) == (0.0, (64, 64), 3)


@pytest.mark.parametrize("preset", ["smoke", "quick", "paper"])
def test_the_rows_of_the_runs_are_those_that_the_claims_ask_for(preset):
    """A field at its preset's value is not told in a row: a claim that names it there would find no rows."""
    needs = dict.fromkeys(need for claim in reproduce.chosen_claims("", preset) for need in claim.needs)
    for need in needs:
        usual = settings.fields(registry.preset(registry.get(need.algo), preset, need.dataset))
        assert not [name for name, text in reproduce.changed(need).items() if settings.shown(usual[name]) == text], need


def test_several_at_a_time_are_the_same_runs(monkeypatch, tmp_path):
    """A process per algorithm, data set and group of seeds, with the command that makes those runs one by one."""
    handed = []
    monkeypatch.setattr(at_once, "work_off", lambda runs, workers, console: handed.extend(runs) or 0)
    chosen = reproduce.Options(workers=2, preset="smoke", out=tmp_path)
    needed = {
        Needed(algo, "hopper-medium-replay-mini", text): range(12)
        for algo, text in (("bc", ""), ("iql", "expectile=0.8"))
    }
    assert reproduce.run_all(needed, chosen, Console()) == 0
    assert [(run.algo, run.seeds, run.settings) for run in handed] == [
        (need.algo, part, reproduce.changed(need)) for need in needed for part in (tuple(range(8)), tuple(range(8, 12)))
    ]
    assert [tasks.words(run.task)[2:] for run in handed[2:]] == [
        reproduce.words_of(list(needed)[1], part, chosen) for part in ("0:8", "8:12")
    ]
    with pytest.raises(UserError, match="--workers=0 must be between 1 and"):
        at_once.prepare(0)


def test_runs_have_the_seeds_that_the_most_demanding_claim_rests_on():
    """Without `--seeds` a fresh clone makes exactly the published runs."""
    few, many = (dataclasses.replace(claim, seeds=count) for claim, count in zip(MADE_UP, (4, 20), strict=True))
    needed = reproduce.runs_of([few, many], ())
    assert needed == {Needed("bc", "made-up"): range(4), Needed("ravl", "made-up"): range(20)}
    assert reproduce.groups(needed[Needed("ravl", "made-up")]) == ["0:8", "8:16", "16:20"]
    assert set(reproduce.runs_of([few, many], (3, 4)).values()) == {(3, 4)}
    assert reproduce.groups((3, 4)) == ["3:5"]


def test_published_findings_stand_beside_the_new_ones(tmp_path):
    finding = judge(MADE_UP, [*rows([500.0, 600.0], "bc"), *rows([900.0, 1200.0], "ravl")])[0]
    (tmp_path / "one").mkdir()
    record = claims.record(finding, "quick") | {"estimate": 7.0, "ci_low": 5.0, "ci_high": 9.0, "n": 32}
    pd.DataFrame([record, record | {"preset": "paper", "n": 4}]).to_csv(tmp_path / "one" / "claims.csv")
    text = shown_text(reproduce.shown([finding], reproduce.published_records(tmp_path, "quick")))
    assert "7.0 [5.0, 9.0], n=32" in text
    assert "n=4" not in text
    assert "7.0" not in shown_text(reproduce.shown([finding], {}))


@pytest.mark.parametrize(
    ("kind", "margin", "low", "high", "p", "expected"),
    [
        ("superiority", 0.0, 0.1, 2.0, 0.01, "supported"),
        ("superiority", 0.0, 0.1, 2.0, 0.06, "inconclusive"),  # not after Holm's correction
        ("superiority", 0.0, -2.0, -0.1, 0.01, "not supported"),
        ("superiority", 0.0, -1.0, 1.0, 0.5, "inconclusive"),
        ("superiority", 0.0, np.nan, np.nan, np.nan, "inconclusive"),
        ("non-inferiority", 1.0, -0.9, 0.1, 0.01, "supported"),
        ("non-inferiority", 1.0, -3.0, -1.1, 0.9, "not supported"),
        ("non-inferiority", 1.0, -1.1, 3.0, 0.1, "inconclusive"),
        ("equivalence", 1.0, -0.9, 0.9, 0.01, "supported"),
        ("equivalence", 1.0, 1.1, 2.0, 0.9, "not supported"),
        ("equivalence", 1.0, -0.5, 1.5, 0.1, "inconclusive"),
    ],
)
def test_the_rule_of_the_verdict(kind, margin, low, high, p, expected):
    assert verdict(kind, margin, Interval(0.0, low, high, 3), p) == expected


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=12).filter(lambda x: np.ptp(x) > 1e-6), st.floats(0.1, 2.0))
def test_p_values_say_what_the_intervals_say(x, margin):
    """One claim alone: superiority's p-value and its 95% interval agree, the others' p-value never contradicts it."""
    values = np.array(x)
    interval = mean_interval(values)
    for kind, rule in RULES.items():
        p = rule.p_value(values, margin)
        if rule.supports(interval, margin):
            assert p < 0.05
        if kind == "superiority" and p < 0.05:
            assert rule.supports(interval, margin) or rule.refutes(interval, margin)


def test_equal_runs_are_no_evidence():
    """Differences of exactly zero: a p-value of 1 and no verdict."""
    same = judge(MADE_UP, [*rows([5.0, 6.0], "bc"), *rows([5.0, 6.0], "ravl")])[0]
    assert (same.interval.estimate, same.adjusted_p, same.verdict) == (0.0, 1.0, "inconclusive")


@pytest.mark.parametrize(("kind", "margin"), [("superiority", 1.0), ("equivalence", 0.0), ("better", 0.0)])
def test_a_claim_needs_a_kind_and_its_margin(kind, margin):
    with pytest.raises(ValueError, match="ravl-beats-bc"):
        dataclasses.replace(MADE_UP[0], kind=kind, margin=margin)


def test_publishing_appends_whole_rows_and_writes_the_claims(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "CLAIMS", MADE_UP)
    monkeypatch.setattr(session, "SUMMARY_COLUMNS", list(rows([1.0], "bc")[0]))
    first = [*rows([500.0, 600.0, 550.0], "bc"), *rows([900.0, 1200.0, 1000.0], "ravl")]
    publishing.publish(first, "offline_mbrl", tmp_path)
    summary = tmp_path / "offline_mbrl" / "summary.csv"
    before = summary.read_text()
    changed = [{**first[0], "return_last": 0.0}]
    publishing.publish([*changed, *rows([500.0, 600.0, 550.0, 700.0], "bc")[3:]], "offline_mbrl", tmp_path)
    assert summary.read_text().startswith(before)
    assert len(summary.read_text().splitlines()) == 8
    table = pd.read_csv(tmp_path / "offline_mbrl" / "claims.csv")
    assert list(table["id"]) == ["ravl-beats-bc", "ravl-beats-behaviour"]
    assert list(table["verdict"]) == ["supported", "supported"]
    text = (tmp_path / "CLAIMS.md").read_text()
    assert text.count("| supported |") == 2
    assert "--only=ravl-beats-bc" in text

    held = summary.read_text()
    with pytest.raises(UserError, match="two rows"):
        publishing.publish([{**first[0], "run_id": "another"}], "offline_mbrl", tmp_path)
    assert summary.read_text() == held


@pytest.mark.parametrize("experiment", [path.parent.name for path in publishing.RESULTS.glob("*/claims.csv")])
def test_published_claims_follow_from_the_published_rows(experiment):
    """claims.csv is what the code says of summary.csv today."""
    folder = publishing.RESULTS / experiment
    published = curves.joined(rundir.read_rows(folder / "summary.csv"), curves.read(folder / curves.CURVES))
    table = pd.read_csv(folder / "claims.csv").fillna({"seeds": ""})
    found = pd.DataFrame(claims.records(published, experiment), columns=claims.COLUMNS)
    pd.testing.assert_frame_equal(table, found, check_dtype=False)


def test_claims_about_curves_are_judged_when_the_curves_come_with_the_rows(tmp_path, monkeypatch):
    results = tmp_path / "results"
    shutil.copytree(publishing.RESULTS, results)
    shutil.copy(publishing.RESULTS.parent / "README.md", tmp_path)
    path = results / "offline_mbrl" / curves.CURVES
    text = path.read_text(encoding="utf-8")
    path.unlink()
    monkeypatch.setattr(publishing, "RESULTS", results)
    monkeypatch.setattr(curves, "publish", lambda folder, runs: (path.write_text(text, encoding="utf-8"), 0))
    publishing.publish_all([], "offline_mbrl", tmp_path, make_console())
    assert "offline-mse-degrades-cql" in set(pd.read_csv(results / "offline_mbrl" / "claims.csv")["id"])


def test_the_overview_is_that_of_the_published_claims():
    assert (publishing.RESULTS / "CLAIMS.md").read_text(encoding="utf-8") == claims.overview(publishing.RESULTS)


def test_the_overview_has_every_published_claim_by_id_below_its_experiment_and_family():
    families = {claim.id: claim.family for claim in claims.CLAIMS}
    head, *parts = claims.overview(publishing.RESULTS).split("\n## ")
    sections = {part.partition("\n")[0]: part for part in parts}
    assert all(f"*{word}*" in head for word in ("supported", "not supported", "inconclusive"))
    for path in publishing.RESULTS.glob("*/claims.csv"):
        name, ids = path.parent.name, list(pd.read_csv(path)["id"])
        tables = [table.partition("\n") for table in sections[name].split("\n### ")[1:]]
        found = [(one, family) for family, _, lines in tables for one in re.findall(r"^\| `(\S+)` \|", lines, re.M)]
        assert sorted(found) == sorted((one, families[one]) for one in ids)
        assert len({family for family, *_ in tables}) == len(tables)
        assert f"[{name}](#{name}): {len(ids)} claims in {len(tables)} families" in head
    assert "](#no-runs-yet)" in head and "No runs yet" in sections


def test_a_published_claim_that_the_code_does_not_know_is_refused(tmp_path):
    (tmp_path / "one").mkdir()
    record = claims.record(judge(MADE_UP, [])[0], "quick")
    pd.DataFrame([record | {"id": "gone"}]).to_csv(tmp_path / "one" / "claims.csv")
    with pytest.raises(UserError, match=r"names gone, of which .* knows nothing; write it anew"):
        claims.overview(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "ravl-min-over-diversity",
        "offline-hl-gauss-from-zero-beats-mse-cql",
        "offline-hl-gauss-beats-mse-cql",
    ],
)
def test_a_claim_that_is_asked_alone_is_corrected_with_its_family(monkeypatch, name):
    """From its own published rows each would be supported; with its family's others, as published, none is."""
    rows = publishing.published(publishing.RESULTS / "offline_mbrl")
    record = reproduce.published_records(publishing.RESULTS, "quick")[name]
    (claim,) = (claim for claim in claims.CLAIMS if claim.id == name)
    mine = [row for row in rows if Needed(row["algo"], row["dataset"], row["settings"]) in claim.needs]
    mine = [row for row in mine if row["preset"] == "quick"]
    (found,) = reproduce.findings_of([claim], mine, "quick")
    assert claims.record(found, "quick")["adjusted_p"] == record["adjusted_p"]
    assert (found.verdict, judge([claim], mine)[0].verdict) == (record["verdict"], "supported")
    told = []
    monkeypatch.setattr(reproduce, "shown", lambda findings, published: told.extend(findings) or "")
    studies.show_claims(claims.CLAIMS, mine, "quick", Console(file=io.StringIO()))
    assert {finding.claim.id: finding.adjusted_p for finding in told}[name] == found.adjusted_p


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--only=ravl-beats-bd"], "did you mean ravl-beats-bc"),
        (["--only=ravl-beats-bc,ravl-beats-bd"], "unknown claim 'ravl-beats-bd'; did you mean ravl-beats-bc"),
        (["--only=§"], "unknown claim '§'; python -m experiments.reproduce --list names those"),
        (["--only=ravl-beats-bc,"], "empty value"),
        (
            ["--only=ravl-beats-bc,hopper-long-mbpo-hops"],
            "the runs of hopper-long-mbpo-hops are made by python -m experiments.ensemble_vs_lipschitz",
        ),
        (["--only=hopper-long-mbpo-hops"], "--mechanisms=layer-norm --preset=long"),
        (["--seeds=1000:1002"], "reported seeds are 0 to 99"),
        (["--only=offline-tuned-hl-gauss-beats-mse-iql", "--preset=paper"], "is about --preset=quick"),
        (["--publish", "--preset=smoke"], "only try the code"),
        (["--preset=quik"], "did you mean quick"),
    ],
)
def test_reproduce_refuses(monkeypatch, capsys, tmp_path, words, expected):
    monkeypatch.setattr(sys, "argv", ["reproduce", f"--out={tmp_path}", *words])
    with pytest.raises(SystemExit) as stop:
        reproduce.main()
    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert expected in errors and errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("column", [True, False])
def test_figures_are_functions_of_the_published_rows(tmp_path, column):
    path = tmp_path / "offline_mbrl" / "summary.csv"
    published = [*rows([500.0, 600.0], "bc"), *rows([900.0, 1200.0], "ravl")]
    if column:  # rows of other settings are no part of this figure
        varied = rows([1.0, 2.0, 3.0], "ravl")
        published = [row | {"settings": ""} for row in published]
        published += [row | {"settings": "tau=1", "run_id": f"x{row['seed']}"} for row in varied]
    rundir.upsert_rows(path, published, list(published[0]))
    (name, drawn), *others = figure.draw(tmp_path).items()
    assert (name, others) == ("offline_mbrl/made-up", [])
    lines = [line.get_ydata() for line in drawn.axes[0].get_lines()]
    assert any(np.array_equal(np.sort(y), [900.0, 1200.0]) for y in lines if len(y) == 2)
    path.write_text(path.read_text().replace("finished", "diverged"))
    assert figure.draw(tmp_path) == {}


def test_the_same_rows_give_the_same_bytes_in_two_processes(tmp_path):
    drawn = []
    for attempt in ("one", "two"):
        path = tmp_path / attempt / "offline_mbrl" / "summary.csv"
        published = [*rows([500.0, 600.0, 700.0], "bc"), *rows([900.0, 1200.0, 1000.0], "ravl")]
        rundir.upsert_rows(path, published, list(published[0]))
        command = [sys.executable, "-m", "paper_figs", "--only=offline_mbrl", f"--results={tmp_path / attempt}"]
        subprocess.run(command, cwd=publishing.RESULTS.parent, check=True, capture_output=True)
        drawn.append({p.name: p.read_bytes() for p in path.parent.glob("made-up.*")})
    assert sorted(drawn[0]) == ["made-up.pdf", "made-up.png"]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("summary.csv", lambda text: text + "junk,1\n", r"summary\.csv is not .*: row 6 has 2 cells"),
        ("summary.csv", lambda text: text.replace("900.0", "many"), r"summary\.csv, row 4: return_last is 'many'"),
        ("curves.csv", lambda text: text[:-4], r"curves\.csv is half written"),
        ("shells.csv", lambda text: text[:-4], r"shells\.csv is half written"),
        ("shells.csv", lambda text: text.replace("0.25", "wide"), r"shells\.csv: reach is 'wide', expected a number"),
        ("paths.csv", lambda text: text[: text.rindex(",")] + "\n", r"paths\.csv is not .*: row 2 has 6 cells"),
    ],
)
def test_figures_refuse_damaged_files(monkeypatch, capsys, tmp_path, name, damage, expected):
    folder = tmp_path / "offline_mbrl"
    published = [*rows([500.0, 600.0], "bc"), *rows([900.0, 1200.0], "ravl")]
    rundir.upsert_rows(folder / "summary.csv", published, list(published[0]))
    columns = {"curves.csv": curves.COLUMNS, "shells.csv": box_runs.SHELL_COLUMNS, "paths.csv": box_runs.PATH_COLUMNS}
    for each, names in columns.items():
        cells = {**dict.fromkeys(names, 0.25), "seed": 1, "update": 1, "schema_version": 1}
        rundir.upsert_rows(folder / each, [{name: cells[name] for name in names}], names, names[0])
    monkeypatch.setattr(sys, "argv", ["paper_figs", "--only=offline_mbrl", f"--results={tmp_path}"])
    with pytest.raises(SystemExit) as stop:
        draw_all()
    assert stop.value.code == 0
    capsys.readouterr()
    for old in folder.glob("*.p*"):
        old.unlink()
    (folder / name).write_text(damage((folder / name).read_text()))
    with pytest.raises(SystemExit) as stop:
        draw_all()
    assert stop.value.code == 2
    assert re.search(expected, capsys.readouterr().err)
    assert not list(folder.glob("*.p*"))


@pytest.mark.parametrize(
    ("words", "expected"), [(["--only=offline_mbr"], "did you mean offline_mbrl"), ([], "has no rows")]
)
def test_figures_refuse(monkeypatch, capsys, tmp_path, words, expected):
    monkeypatch.setattr(sys, "argv", ["paper_figs", f"--results={tmp_path}", *words])
    with pytest.raises(SystemExit) as stop:
        draw_all()
    assert stop.value.code == 2
    assert expected in capsys.readouterr().err
