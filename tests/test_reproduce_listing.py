"""What experiments.reproduce says of its claims and of the runs that are missing, without starting one."""

import re
import sys

import pytest

from experiments import claims, publishing, reproduce
from jaxrl_suite.report.claims import Needed
from jaxrl_suite.sweep import tasks
from jaxrl_suite.train import rundir


@pytest.fixture
def told(monkeypatch, capsys, tmp_path):
    """Call the command, which must start no run -> its output."""

    def run(*words):
        monkeypatch.setattr(reproduce, "run_all", lambda *_: pytest.fail("a run was started"))
        monkeypatch.setattr(sys, "argv", ["reproduce", f"--out={tmp_path}", *words])
        with pytest.raises(SystemExit) as stop:
            reproduce.main()
        assert stop.value.code == 0
        return capsys.readouterr().out

    return run


def mini_rows(algo, seeds, text="", seconds=60.0):
    """Rows of a program of so many seeds on the first claims' data."""
    shared = {"algo": algo, "dataset": claims.MINI, "preset": "quick", "settings": text, "status": "finished"}
    shared |= {"wall_seconds": seconds, "group_id": f"{algo}{text}{seeds}", "schema_version": 1}
    return [shared | {"seed": seed, "run_id": f"{algo}{text}{seeds}-{seed}"} for seed in range(seeds)]


def test_several_claims_are_chosen_by_their_ids_with_commas_between():
    names = ["ravl-needs-min", "ravl-beats-bc"]
    assert [claim.id for claim in reproduce.chosen_claims(",".join(names))] == names
    assert [claim.id for claim in reproduce.chosen_claims(", ".join(names))] == names


def test_the_list_names_claims_with_published_verdict_seeds_and_rows_that_are_there(told, tmp_path):
    made = [*mini_rows("bc", 32), *mini_rows("ravl", 8), *mini_rows("ravl", 8, "aggregate=mean")]
    rundir.upsert_rows(tmp_path / "offline_mbrl" / "summary.csv", made, list(made[0]))
    published = reproduce.published_records(publishing.RESULTS, "quick")
    head, *lines = told("--list", "--only=ravl-beats-bc,ravl-needs-min,ravl-needs-diversity").splitlines()
    cells = {line.split()[0]: re.split(r"  +", line)[1:] for line in lines}
    assert head.startswith("claim") and str(tmp_path) in head
    assert cells == {
        name: [published[name]["verdict"], *rest]
        for name, rest in {
            "ravl-beats-bc": ("32", "40 of 64"),
            "ravl-needs-min": ("8", "16 of 16"),
            "ravl-needs-diversity": ("8", "8 of 16"),
        }.items()
    }
    every = [line.split()[0] for line in told("--list").splitlines()[1:-1]]
    assert every == [claim.id for claim in reproduce.chosen_claims("")]
    (line,) = told("--list", "--only=ravl-beats-bc", "--preset=smoke", "--seeds=3").splitlines()[1:]
    assert re.split(r"  +", line) == ["ravl-beats-bc", "-", "3", "0 of 6"]


def test_a_dry_run_says_what_is_missing_and_how_long_it_takes_by_published_rows(told, monkeypatch):
    published = [
        *mini_rows("bc", 4, seconds=60.0),
        *mini_rows("bc", 8, seconds=200.0),
        *mini_rows("ravl", 2, seconds=30.0),
    ]
    monkeypatch.setattr(publishing, "published", lambda _: published)
    assert reproduce.seconds_per_seed(published, "quick") == {
        Needed("bc", claims.MINI): 20.0,  # 15 of one program, 25 of the other
        Needed("ravl", claims.MINI): 15.0,
    }
    words = "--dry-run", "--only=ravl-beats-bc,ravl-needs-min", "--seeds=12"
    text = told(*words)
    assert "6 of 6 runs are missing" in text and "about 7.0 minutes on one worker" in text  # 12 * (20 + 15) seconds
    assert "of other machines, and 2 more runs of which no rows are published" in text
    assert text.count("aggregate=mean") == 2 and "8:12" in text
    assert "no published rows of them to tell the time from" in told(*words, "--preset=smoke")
    monkeypatch.setattr(tasks, "state", lambda run: "resumable" if run.algo == "bc" else "finished")
    text = told(*words)
    assert "2 of 6 runs are missing" in text and "about 4.0 minutes" in text and "│ ravl" not in text
    monkeypatch.setattr(tasks, "state", lambda run: "finished")
    assert told(*words).strip().startswith("0 of 6 runs are missing") and "minutes" not in told(*words)
