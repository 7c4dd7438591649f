"""Search: spaces as pure functions, the driver with tasks that end as they are told, and the command."""

import glob
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pandas as pd
import pytest
from fake_search import WHERE, Steps, base, design, maker, searched
from fake_task import EVALUATIONS
from hypothesis import given
from hypothesis import strategies as st
from test_experiments import dataset, refused, run  # noqa: F401
from test_sweep import holders

from experiments import sweep
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.errors import UserError
from jaxrl_suite.sweep import executors, schedule, search, space, studies
from jaxrl_suite.sweep.executors import processes
from jaxrl_suite.sweep.space import Range
from jaxrl_suite.train import interrupts, rundir

ROOT = Path(__file__).resolve().parent.parent
LOCAL = executors.local
DEFAULTS = {"lr": 1e-3, "critics": 2, "hidden": (8, 8), "anneal": False, "head": "mse"}
NUMBERS = st.floats(1e-6, 1e6)
FLOATS = st.tuples(NUMBERS, NUMBERS, st.booleans()).filter(lambda r: r[0] < r[1]).map(lambda r: Range(*r))
WHOLE = st.integers(1, 10**6)
INTEGERS = st.tuples(WHOLE, WHOLE, st.booleans()).filter(lambda r: r[0] < r[1]).map(lambda r: Range(*r))
LISTS = st.lists(st.text("abcx0123", min_size=1, max_size=3), min_size=1, max_size=4, unique=True).map(tuple)


# --- Spaces ---
@given(st.fixed_dictionaries({}, optional={"lr": FLOATS | LISTS, "critics": INTEGERS, "hidden": LISTS}))
def test_a_space_is_read_as_it_is_written_and_keeps_its_types(where):
    words = [f"{name}={values}" for name, values in space.describe(where).items()]
    if not words:
        with pytest.raises(UserError, match="needs settings to vary"):
            space.parse(words, DEFAULTS)
        return
    found = space.parse(words, DEFAULTS)
    assert found == where
    for values in found.values():
        kind = type(values.low) if isinstance(values, Range) else str
        assert isinstance(values, tuple) and all(isinstance(value, kind) for value in values[:2])
    assert len(space.edges(found)) == sum(2 if isinstance(v, Range) else len(v) for v in found.values())


@given(FLOATS | INTEGERS | LISTS, st.integers(0, 2**31))
def test_what_is_drawn_lies_in_the_space_and_its_text_reads_back(values, seed):
    sampler = optuna.samplers.RandomSampler(seed=seed)
    trial = optuna.create_study(sampler=sampler).ask({"name": studies.distribution(values)})
    drawn = trial.params["name"]
    if not isinstance(values, Range):
        assert drawn in values
        return
    assert values.low <= drawn <= values.high
    assert type(values.low)(space.text(drawn)) == drawn


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "give --space"),
        (["lrr=1:2"], "unknown setting 'lrr'; did you mean lr"),
        (["lr"], "expected name=value"),
        (["lr=1:2", "lr=1:3"], "--space names lr twice"),
        (["lr=2:1"], "does not go up"),
        (["lr=1:1"], "does not go up"),
        (["lr=0:1:log"], "begins above 0"),
        (["lr=a:1"], "not a range of numbers"),
        (["lr=1:2:3"], "not a range of numbers"),
        (["lr=1:nan"], "not a range of numbers"),
        (["lr=1:2:lin"], "not a range of numbers"),
        (["critics=1.5:3"], "not a range of whole numbers"),
        (["hidden=8:16"], "hidden is not a number"),
        (["anneal=0:1"], "anneal is not a number"),
        (["head=a,"], "empty value"),
    ],
)
def test_a_space_that_cannot_be_read_is_one_line(words, expected):
    with pytest.raises(UserError, match=expected):
        space.parse(words, DEFAULTS)


# --- What runs have reached ---
def test_evaluations_count_once_all_seeds_have_them():
    evals = [
        {"update": update, "return_mean": value, "episodes": 4, "length_mean": 2.25}
        for update, value in [(10, 1.0), (10, 3.0), (20, 5.0), (20, 6.0), (30, 9.0)]
    ]
    assert search.curve(evals, "return_mean", 2) == [2.0, 5.5]
    assert search.spent(evals) == search.Cost(20, 45)
    assert search.spent([]) == search.Cost(0, 0)


def test_the_value_is_the_mean_over_seeds_unless_one_of_them_diverged():
    rows = [{"return_last": value, "status": "finished"} for value in (1.0, 3.0)]
    assert search.value_of(rows, "return_last").estimate == 2.0
    assert search.value_of([rows[0], {**rows[1], "status": "diverged"}], "return_last") is None
    assert search.value_of([rows[0], {**rows[1], "return_last": float("nan")}], "return_last") is None


# --- The driver, with tasks that take a step whenever they are asked for their exit code ---
@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(schedule, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(schedule, "LOOK_SECONDS", 0.0)


def starts(out):
    return Counter(pd.read_csv(out / "starts.csv")["group"])


def drawn(rows):
    return [(row["trial"], row["settings.x"], row["settings.n"], row["state"], row["value"]) for row in rows]


def states(rows):
    return [row["state"] for row in rows]


def nothing_starts(task, log):
    raise AssertionError(f"{task} was started")


@pytest.mark.parametrize(("sampler", "trials"), [("tpe", 12), ("random", 3)])  # the first ten of TPE are random
def test_the_same_sampler_seed_gives_the_same_trials(sampler, trials, tmp_path):
    first, again, other = (
        searched(tmp_path / name, trials, design(sampler=sampler, seed=seed))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert drawn(first) == drawn(again)
    assert not {x for _, x, *_ in drawn(first)} & {x for _, x, *_ in drawn(other)}
    assert states(first) == ["complete"] * trials
    assert [row["value"] for row in first] == pytest.approx([3 * row["settings.x"] + 0.5 for row in first])
    assert all(row["ci_low"] < row["value"] < row["ci_high"] for row in first)


def test_tpe_learns_from_the_trials_before(tmp_path):
    """After its ten random trials it draws large x, whose return is larger."""
    rows = searched(tmp_path, 25)
    late = sorted(row["settings.x"] for row in rows[10:])
    assert late[len(late) // 2] > 3.0  # the median of the log-uniform prior is 1


def test_a_finished_search_starts_nothing_and_more_trials_go_on(tmp_path):
    rows = searched(tmp_path, 4)
    assert drawn(searched(tmp_path, 4, start=nothing_starts)) == drawn(rows)
    more = searched(tmp_path, 6)
    assert drawn(more)[:4] == drawn(rows)
    assert drawn(more) == drawn(searched(tmp_path / "at-once", 6))
    assert set(starts(tmp_path).values()) == {1}


def test_a_process_that_dies_between_any_two_bytes_loses_and_doubles_nothing(tmp_path):
    """The journal is cut at every line, and within every line; the runs themselves are there."""
    whole = searched(tmp_path, 3)
    with studies.open_folder(base(tmp_path), design()) as folder:
        journal = folder.path / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) > 3 * (2 + EVALUATIONS)
    for count in range(len(lines)):
        for torn in (b"", lines[count][: len(lines[count]) // 2]):
            journal.write_bytes(b"".join(lines[:count]) + torn)
            # Numbers count on where a trial that was half drawn has been given up.
            assert [row[1:] for row in drawn(searched(tmp_path, 3, start=nothing_starts))] == [
                row[1:] for row in drawn(whole)
            ]


def test_a_stale_lock_of_the_journal_does_not_hold_up_a_search(tmp_path):
    searched(tmp_path, 1)
    (journal,) = tmp_path.glob("fake/search-*/journal.jsonl")
    os.symlink(journal, f"{journal}.lock")
    started = time.monotonic()
    assert len(searched(tmp_path, 2)) == 2
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("places", [1, 3])
def test_what_was_running_goes_on_where_it_stood(places, tmp_path):
    class Died(Exception):
        pass

    def die(board):
        if board.running and rng.random() < 0.4:
            raise Died

    rng = random.Random(places)
    died = 0
    while True:
        try:
            rows = searched(tmp_path, 5, design(sampler="random"), places, notify=die)
            break
        except Died:
            died += 1
    assert died > 2
    assert drawn(rows) == drawn(searched(tmp_path / "calm", 5, design(sampler="random"), places))


def test_failures_are_recorded_and_the_search_goes_on(tmp_path):
    where = {**WHERE, "behave": ("ok", "1", "2", "diverge", "refuse")}
    rows = searched(tmp_path, 12, design(where, sampler="random"))
    expected = {"ok": "complete", "1": "failed", "2": "failed", "diverge": "diverged", "refuse": "refused"}
    assert states(rows) == [expected[row["settings.behave"]] for row in rows]
    assert set(states(rows)) == set(expected.values())
    assert all((row["value"] is None) == (row["state"] != "complete") for row in rows)
    assert {row["why"] for row in rows if row["state"] == "refused"} == {"not this one"}
    (journal,) = tmp_path.glob("fake/search-*/journal.jsonl")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    study = optuna.load_study(study_name=None, storage=storage)
    counts = Counter(trial.state.name for trial in study.trials)
    assert counts == {"COMPLETE": states(rows).count("complete"), "FAIL": 12 - states(rows).count("complete")}


def test_no_finite_value_is_not_called_diverged(tmp_path):
    (row,) = searched(tmp_path, 1, design({**WHERE, "x": ("nan",)}))
    assert (row["state"], row["why"]) == ("undefined", "return_last is no finite number")


@pytest.mark.parametrize("objective", ["score_last", "score_best"])
def test_scores_are_no_objective_where_a_task_has_none(objective):
    studies.check(design(objective=objective), [1000], envs.spec("hopper"))
    with pytest.raises(
        UserError, match=f"no reference scores.* give --objective={objective.replace('score', 'return')}"
    ):
        studies.check(design(objective=objective), [1000], envs.spec("pendulum"))


def test_what_failed_is_tried_again_by_the_next_command(tmp_path):
    class Failing(Steps):
        def poll(self):
            self.work.close()
            self.code = 1
            return 1

    rows = searched(tmp_path, 3, design(sampler="random"), start=Failing)
    assert states(rows) == ["failed"] * 3
    again = searched(tmp_path, 3, design(sampler="random"))
    assert states(again) == ["complete"] * 3
    assert [row[1:3] for row in drawn(again)] == [row[1:3] for row in drawn(rows)]
    more = searched(tmp_path, 5, design(sampler="random"))
    calm = searched(tmp_path / "calm", 5, design(sampler="random"))
    assert [row[1:] for row in drawn(more)] == [row[1:] for row in drawn(calm)]


def test_a_failure_is_not_that_of_a_later_trial_with_the_same_settings(tmp_path):
    begun = []

    def start(task, log):
        job = Steps(task, log)
        begun.append(task)
        job.code = 2 if len(begun) == 1 else None  # bad input is not tried again
        return job

    rows = searched(tmp_path, 3, design({"x": ("1",), "n": ("3",)}, sampler="random"), start=start)
    assert states(rows) == ["failed", "complete", "complete"] and len(begun) == 2


def test_hopeless_trials_are_pruned_and_cost_less(tmp_path):
    rows = searched(tmp_path, 12, design(sampler="random", pruner="median"))
    assert set(states(rows)) == {"complete", "pruned"}
    for row in rows:
        assert row["evaluations"] == (EVALUATIONS if row["state"] == "complete" else 1)
        assert row["episodes"] == row["evaluations"] * 10
    # Optuna's rule: from the fifth complete trial on, what is below the median of the complete ones.
    before = []
    for row in rows:
        hopeless = len(before) >= 5 and row["settings.x"] < pd.Series(before).median()
        assert row["state"] == ("pruned" if hopeless else "complete")
        before += [] if hopeless else [row["settings.x"]]
    assert drawn(searched(tmp_path, 12, design(sampler="random", pruner="median"), start=nothing_starts)) == drawn(rows)


def test_hyperband_prunes_too(tmp_path):
    rows = searched(tmp_path, 12, design(sampler="random", pruner="hyperband"))
    assert set(states(rows)) == {"complete", "pruned"}


def test_every_evaluation_is_counted_once(tmp_path):
    where = {"x": ("1", "2"), "n": ("3",)}
    rows = searched(tmp_path, 6, design(where, sampler="random"), places=2)
    evals = pd.concat(map(pd.read_csv, glob.glob(f"{tmp_path}/fake/*/eval.csv")))
    assert len(evals) == 2 * 2 * EVALUATIONS
    assert sum(row["episodes"] for row in rows) == evals["episodes"].sum() == 60
    assert sum(row["env_steps"] for row in rows) == (evals["episodes"] * evals["length_mean"]).sum() == 1200
    assert states(rows) == ["complete"] * 6
    assert set(starts(tmp_path).values()) == {1}


def test_one_process_at_a_time_and_a_damaged_journal(tmp_path):
    searched(tmp_path, 1)
    with (
        studies.open_folder(base(tmp_path), design()) as folder,
        pytest.raises(UserError, match=rundir.IN_USE),
    ):
        studies.open_folder(base(tmp_path), design())
    (folder.path / "journal.jsonl").write_text("no journal\n")
    with pytest.raises(UserError, match="move the folder away"):
        searched(tmp_path, 1)


def test_another_space_sampler_or_base_is_another_search(tmp_path):
    others = [
        design(),
        design({"x": Range(0.1, 10.0)}),
        design(sampler="random"),
        design(seed=2),
        design(pruner="median"),
        design(objective="return_best"),
    ]
    files = [studies.find_results(base(tmp_path), other) for other in others]
    files.append(studies.find_results(maker(tmp_path, n="7")({}), design()))
    assert len(set(files)) == 7


# --- Processes that are killed ---
def test_killed_at_random_moments_it_ends_with_the_trials_of_an_undisturbed_search(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), str(ROOT)]))
    moment, words = random.Random(5), [sys.executable, "-m", "fake_search", str(tmp_path), "4"]
    for _ in range(2):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        (tmp_path / "starts.csv").unlink(missing_ok=True)
        deadline = time.monotonic() + 60
        while process.poll() is None and not (tmp_path / "starts.csv").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moment.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)  # its worker goes on alone
        process.wait()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, timeout=120)
    calm = searched(tmp_path / "calm", 4)
    found = drawn(searched(tmp_path, 4, start=nothing_starts))
    # A kill while a trial's settings are being drawn leaves its number unused; the next one draws the same.
    assert [line[1:] for line in found] == [line[1:] for line in drawn(calm)]
    assert all(before[0] < after[0] for before, after in itertools.pairwise(found))


# --- The command ---
SMOKE = ("--algo=bc", "--preset=smoke", "--episodes=1", "--seeds=1000:1002")
SPACE = ("--space", "learning_rate=1e-4:1e-2:log", "hidden=8,8x8")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--search=optima", *SPACE], "unknown search 'optima'; did you mean optuna"),
        ([*SPACE], "add --search=optuna"),
        (["--search=optuna"], "needs settings to vary"),
        (["--search=optuna", *SPACE, "--objective=return_lst"], "did you mean return_last"),
        (["--search=optuna", *SPACE, "--sampler=tpee"], "did you mean tpe"),
        (["--search=optuna", *SPACE, "--pruner=hyper"], "did you mean hyperband"),
        (["--search=optuna", *SPACE, "--trials=0"], "--trials=0 must be at least 1"),
        (["--search=optuna", *SPACE, "--seeds=4"], "seeds below 1000"),
        (["--search=optuna", *SPACE, "--seeds=999:1002"], "seeds below 1000"),
        (["--search=optuna", *SPACE, "--algo=bc,ravl"], "a search varies one run"),
        (["--search=optuna", *SPACE, "--grid", "updates=10,20"], "a search varies one run"),
        (["--search=optuna", *SPACE, "--grid", "hidden=16"], "--grid fixes hidden, and --space varies it"),
        (["--search=optuna", "--space", "learnin_rate=1:2"], "did you mean learning_rate"),
        (["--search=optuna", "--space", "batch=0:10"], "--batch=0 must be at least 1"),
        (["--search=optuna", "--space", "hidden=8,eight"], "eight"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(words, expected, dataset, tmp_path, monkeypatch, capsys):  # noqa: F811
    words = ("--algo=bc", f"--dataset={dataset}", *words, f"--out={tmp_path / 'out'}")
    assert expected in refused(monkeypatch, capsys, sweep.main, *words)
    assert not (tmp_path / "out").exists()


def test_without_optuna_one_line_names_the_extra(dataset, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setitem(sys.modules, "optuna", None)
    words = (*SMOKE, f"--dataset={dataset}", "--search=optuna", *SPACE, f"--out={tmp_path / 'out'}")
    assert 'pip install -e ".[sweep]"' in refused(monkeypatch, capsys, sweep.main, *words)
    assert not (tmp_path / "out").exists()


def command(dataset, out, trials):  # noqa: F811
    fixed = ("--grid", "updates=20", f"--dataset={dataset}", f"--out={out}", f"--trials={trials}")
    return (*SMOKE, *fixed, "--search=optuna", *SPACE)


def test_a_real_search_its_table_and_its_cost(dataset, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    words = (*command(dataset, tmp_path, 2), "--workers=2")
    code, output, _ = run(monkeypatch, capsys, sweep.main, *words, "--dry-run")
    assert code == 0
    assert "2 trials of bc" in output
    assert not list(tmp_path.iterdir())
    code, output, errors = run(monkeypatch, capsys, sweep.main, *words)
    assert code == 0, output + errors
    (file,) = (tmp_path / "offline_mbrl").glob("search-*.csv")
    rows = pd.read_csv(file)
    summary = pd.read_csv(tmp_path / "offline_mbrl" / "summary.csv")
    means = summary.groupby("group_id")["return_last"].mean()
    assert list(rows["value"]) == pytest.approx([means[group] for group in rows["group_id"]])
    assert set(summary["seed"]) == {1000, 1001}
    evals = pd.concat(map(pd.read_csv, glob.glob(f"{tmp_path}/offline_mbrl/*/eval.csv")))
    assert rows["episodes"].sum() == evals["episodes"].sum()
    assert f"{rows['episodes'].sum():,} episodes, {rows['env_steps'].sum():,} environment steps" in output
    best = rows.loc[rows["value"].idxmax()]
    (line,) = (line for line in output.splitlines() if line.startswith("  python -m experiments.offline_mbrl"))
    assert f"--learning-rate={float(best['settings.learning_rate'])!r}" in line
    assert "--updates=20" in line
    assert "--seeds=8" in line
    monkeypatch.setattr(processes, "local", lambda workers: LOCAL(workers)._replace(start=nothing_starts))
    code, output, _ = run(monkeypatch, capsys, sweep.main, *words)
    assert code == 0
    assert "2 of 2 trials were done before" in output
    assert "0 to do" in run(monkeypatch, capsys, sweep.main, *words, "--dry-run")[1]


class Failing:
    """A job that has failed."""

    def __init__(self, task, log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a") as file:
            file.write("no such luck\n")

    def poll(self):
        return 1


class Asked(Failing):
    """A job during which the search is asked to stop."""

    code = None

    def poll(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return self.code

    def terminate(self):
        self.code = interrupts.RESUMABLE


def test_a_search_in_which_every_trial_fails_says_so(dataset, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(processes, "local", lambda workers: LOCAL(workers)._replace(start=Failing))
    code, output, _ = run(monkeypatch, capsys, sweep.main, *command(dataset, tmp_path, 2))
    assert code == 1
    assert output.count("no such luck") == 2
    assert "2 of 2 trials failed" in output
    assert "no trial has a value" in output
    (file,) = (tmp_path / "offline_mbrl").glob("search-*.csv")
    assert list(pd.read_csv(file)["why"]) == ["no such luck"] * 2


def test_settings_that_do_not_go_together_are_refused_when_they_are_drawn(dataset, tmp_path, monkeypatch, capsys):  # noqa: F811
    words = ("--algo=ravl", f"--dataset={dataset}", "--preset=smoke", "--trials=3", "--sampler=random")
    where = ("--space", "updates=15,25", "period=4,10", f"--out={tmp_path}")
    code, output, _ = run(monkeypatch, capsys, sweep.main, "--search=optuna", *words, *where)
    assert code == 1
    assert output.count("is not a multiple of --period") == 3
    assert "3 trials: 3 refused" in output


def test_a_search_that_is_asked_to_stop_can_be_resumed(dataset, tmp_path, monkeypatch, capsys):  # noqa: F811
    for _ in range(2):
        monkeypatch.setattr(processes, "local", lambda workers: LOCAL(workers)._replace(start=Asked))
        code, output, _ = run(monkeypatch, capsys, sweep.main, *command(dataset, tmp_path, 2))
        assert code == 130
        assert "interrupted with 0 of 2 trials done; the same command resumes" in output
    (file,) = (tmp_path / "offline_mbrl").glob("search-*.csv")
    assert list(pd.read_csv(file)["state"]) == ["running"]


def launch(dataset, out):  # noqa: F811
    words = [sys.executable, "-m", "experiments.sweep", *command(dataset, out, 4), "--checkpoint-seconds=0"]
    return subprocess.Popen(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"})


@pytest.mark.slow
def test_a_real_search_killed_in_its_second_trial_ends_with_the_rows_of_an_undisturbed_one(dataset, tmp_path):  # noqa: F811
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    assert launch(dataset, calm).wait(600) == 0
    process, deadline = launch(dataset, rough), time.monotonic() + 300
    while not (rough / "offline_mbrl" / "summary.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for worker in holders(rough):
        os.kill(worker, signal.SIGKILL)
    assert launch(dataset, rough).wait(600) == 0
    rows = [pd.read_csv(next((out / "offline_mbrl").glob("search-*.csv"))) for out in (rough, calm)]
    assert list(rows[0]["state"]) == ["complete"] * 4
    pd.testing.assert_frame_equal(*rows, check_exact=True)
