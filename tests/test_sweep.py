"""Sweeps: grids as pure functions, the loop with a task that fails on demand, and the command with real training."""

import glob
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from test_experiments import dataset, refused, run  # noqa: F401

from experiments import offline_mbrl, options, plans, sweep
from jaxrl_suite.algorithms import registry
from jaxrl_suite.errors import UserError
from jaxrl_suite.sweep import display, executors, grid, schedule, tasks
from jaxrl_suite.sweep.executors import processes
from jaxrl_suite.train import rundir, settings
from jaxrl_suite.train.display import make_console

ROOT = Path(__file__).resolve().parent.parent
PROVENANCE = ["wall_seconds", "git_commit", "host", "resumed"]
NAMES = st.text("abcdef_", min_size=1, max_size=6).filter(lambda name: name.strip("_") == name)
VALUES = st.lists(st.text("0123456789.e", min_size=1, max_size=4), min_size=1, max_size=3, unique=True)


# --- Grids ---
@given(st.dictionaries(NAMES, VALUES, max_size=3), st.integers(1, 3))
def test_a_grid_is_the_product_and_each_place_comes_once(varied, datasets):
    settings = grid.parse([f"{name.replace('_', '-')}={','.join(values)}" for name, values in varied.items()])
    assert {setting.name: list(setting.values) for setting in settings} == varied
    places = [f"d{index}" for index in range(datasets)]
    points = grid.expand({"has": dict.fromkeys(varied, 1), "lacks": {}}, places, settings)
    count = 1
    for values in varied.values():
        count *= len(values)
    assert len([point for point in points if point.algo == "has"]) == datasets * count
    assert [point.settings for point in points if point.algo == "lacks"] == [{}] * datasets
    assert len({(p.algo, p.dataset, *sorted(p.settings.items())) for p in points}) == len(points)


def test_an_unknown_setting_names_the_nearest():
    with pytest.raises(UserError, match="did you mean critics"):
        grid.expand({"a": {"critics": 2}, "b": {}}, ["d"], grid.parse(["critix=2"]))


@pytest.mark.parametrize("algo", ["bc", "ravl"])
def test_fields_are_those_of_the_command_line(algo):
    config = registry.get(algo).presets["smoke"]
    names = {f"--{name.replace('_', '-')}" for name in settings.fields(config)}
    assert names == set(options._options(config))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("critics", "3", ["--critics=3"]),
        ("hidden", "8x16", ["--hidden", "8", "16"]),
        ("anneal", "True", ["--anneal"]),
        ("anneal", "false", ["--no-anneal"]),
        ("dynamics.members", "2", ["--dynamics.members=2"]),
        ("actor_lr", "1e-3", ["--actor-lr=1e-3"]),
    ],
)
def test_a_setting_reaches_the_config(name, text, words):
    default = settings.fields(registry.get("ravl").presets["smoke"])[name]
    task = tasks.Task("m", {"algo": "ravl", "preset": "smoke", name: grid.option(name, text, default)})
    assert tasks.words(task) == ["-m", "m", "--algo=ravl", "--preset=smoke", *words]
    _, _, config = options.offline(tasks.words(task)[2:], "test", "")
    reached = settings.fields(config)[name]
    assert str(reached).lower() == text.lower() or reached in ((8, 16), 1e-3)


# --- Bad input ---
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--algo=ravl,bx"], "unknown algorithm 'bx'; did you mean bc"),
        (["--algo=ravl,,bc"], "empty value"),
        (["--algo=bc,bc"], "bc twice"),
        (["--algo=bc,sac", "--dataset={data}"], "sac learns online"),
        (["--experiment=offlin_mbrl"], "did you mean offline_mbrl"),
        (["--dataset=nowhere"], "unknown data set 'nowhere'"),
        (["--publish", "--preset=smoke"], "only try the code"),
        (["--preset=quik"], "did you mean quick"),
        (["--seeds=3:1", "--dataset={data}"], "--seeds=3:1"),
        (["--workers=0"], "--workers=0 must be at least 1"),
        (["--grid", "critix=1"], "unknown setting 'critix'; did you mean critics"),
        (["--grid", "critics"], "expected name=value"),
        (["--grid", "critics="], "empty value"),
        (["--grid", "critics=2", "critics=3"], "critics twice"),
        (["--grid", "critics=many", "--dataset={data}"], "many"),
        (["--grid", "critics=0", "--dataset={data}"], "--critics=0 must be at least 1"),
        (["--grid", "anneal=perhaps", "--dataset={data}"], "neither true nor false"),
        (["--wokers=2"], "did you mean --workers"),
        (["--trials=5", "--sampler=random"], "--trials=5, --sampler=random changes nothing: a grid has no use for it"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(words, expected, dataset, tmp_path, monkeypatch, capsys):  # noqa: F811
    words = [word.format(data=dataset) for word in words]
    assert expected in refused(monkeypatch, capsys, sweep.main, *words, f"--out={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


# --- The loop, with a task that ends as it is told ---
@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A maker of runs: behaviours -> runs of `fake_task` in one folder."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), str(ROOT)]))

    def make(*behaviours):
        return [
            tasks.Run(
                task=tasks.Task("fake_task", {"out": str(tmp_path), "group": f"g{index}", "behave": behave}),
                algo="fake",
                dataset="none",
                preset="smoke",
                settings={"behave": behave},
                seeds=(0,),
                out=tmp_path,
                experiment="fake",
                label="fake",
                group=f"g{index}",
                run_ids=(f"run-g{index}",),
            )
            for index, behave in enumerate(behaviours)
        ]

    return make


def work_off(runs, workers=4, asked=lambda: False, notify=lambda board: None):
    return schedule.work_off(runs, executors.local(workers), asked, notify)


def starts(runs):
    """How often the tasks of each group were started, also where there was nothing left to do."""
    path = runs[0].out / "starts.csv"
    return pd.read_csv(path)["group"].value_counts().to_dict() if path.exists() else {}


def failures(runs):
    return {row["group_id"]: row for row in rundir.read_rows(schedule.failures_file(runs[0]))}


def test_what_dies_is_tried_again_once_and_bad_input_never(fake):
    runs = fake("ok", "1", "2", "kill", "kill-once", "diverge")
    board = work_off(runs)
    assert {run.group for run in board.done} == {"g0", "g4", "g5"}
    assert starts(runs) == {"g0": 1, "g1": 2, "g2": 1, "g3": 2, "g4": 2, "g5": 1}
    rows = failures(runs)
    assert {group: (row["exit_code"], row["attempts"]) for group, row in rows.items()} == {
        "g1": (1, 2),
        "g2": (2, 1),
        "g3": (-signal.SIGKILL, 2),
    }
    assert rows["g1"]["last_lines"] == "first words | last words of g1"
    assert "last words of g1" in (runs[0].out / "fake" / rows["g1"]["log"]).read_text()
    assert [tasks.ending(run) for run in runs] == ["finished", "", "", "", "finished", "diverged"]


def test_a_second_sweep_starts_nothing_that_has_finished_and_clears_what_no_longer_fails(fake):
    work_off(fake("ok", "2"))
    runs = fake("2", "ok")  # the finished one would fail if it were started
    board = work_off(runs)
    assert len(board.done) == 2
    assert starts(runs) == {"g0": 1, "g1": 2}
    assert failures(runs) == {}


def test_states_are_told_without_a_process(fake):
    runs = fake("ok", "1", "ok", "ok")
    work_off(runs[:2])
    held = rundir.open_run(runs[2].out, "fake", "fake", {"group": "g2"}, "g2", False)
    before = sorted(runs[0].out.rglob("*"))
    assert [tasks.state(run) for run in runs] == ["finished", "resumable", "busy", "new"]
    held.close()
    assert tasks.state(runs[2]) == "resumable"
    assert sorted(runs[0].out.rglob("*")) == before
    rundir.drop_rows(runs[0].out / "fake" / "summary.csv", {"run-g0"}, "run_id")
    with pytest.raises(UserError, match="lacks 1 of its rows"):
        tasks.state(runs[0])


def test_a_held_run_is_left_to_its_holder_and_looked_at_again(fake, monkeypatch):
    monkeypatch.setattr(schedule, "LOOK_SECONDS", 0.05)
    runs, boards = fake("ok", "ok"), []
    held = rundir.open_run(runs[0].out, "fake", "fake", {"group": "g0"}, "g0", False)

    def notify(board):
        boards.append((len(board.done), len(board.elsewhere) + len(board.waiting)))
        if len(board.done) == 1:
            held.close()

    board = work_off(runs, notify=notify)
    assert [run.group for run in board.done] == ["g1", "g0"]
    assert (1, 1) in boards
    assert starts(runs) == {"g0": 1, "g1": 1}


def test_a_worker_that_finds_its_folder_taken_has_not_failed(fake, monkeypatch):
    """The folder is taken between the look at it and the worker's start."""
    monkeypatch.setattr(schedule, "LOOK_SECONDS", 0.05)
    (mine,) = fake("ok")
    held = rundir.open_run(mine.out, "fake", "fake", {"group": "g0"}, "g0", False)
    states = iter(["new"])
    monkeypatch.setattr(schedule, "state", lambda run: next(states, None) or tasks.state(run))
    board = work_off([mine], notify=lambda board: held.close() if not board.running else None)
    assert (board.done, board.failed) == ([mine], [])
    assert rundir.IN_USE in schedule.tail(schedule._log(mine), 0)


def test_two_sweeps_share_the_work(fake, monkeypatch):
    monkeypatch.setattr(schedule, "LOOK_SECONDS", 0.05)
    runs = fake(*["slow"] * 6)
    boards = []
    threads = [threading.Thread(target=lambda: boards.append(work_off(runs, workers=2))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [len(board.done) for board in boards] == [6, 6]
    assert [board.failed for board in boards] == [[], []]
    found = pd.read_csv(runs[0].out / "starts.csv")
    found = found[found["group"] != "group"]  # two workers may have begun this file, which is the test's own
    assert sorted(found["group"][found["found"] != "finished"]) == [f"g{index}" for index in range(6)]


def test_an_interrupted_worker_stops_the_sweep(fake):
    board = work_off(fake("75", "ok", "ok"), workers=1)
    assert board.stopped
    assert [run.group for run, _ in board.waiting] == ["g1", "g2", "g0"]
    assert not board.failed


def test_asked_to_stop_it_lets_workers_save(fake):
    runs = fake("save", "save", "ok")
    ready = [runs[0].out / "fake" / f"fake-g{index}" / "ready" for index in range(2)]
    board = work_off(runs, workers=2, asked=lambda: all(path.exists() for path in ready))
    assert board.stopped
    assert not board.running
    assert {run.group for run, _ in board.waiting} == {"g0", "g1", "g2"}
    assert not schedule.failures_file(runs[0]).exists()
    assert [tasks.state(run) for run in runs] == ["resumable", "resumable", "new"]


def test_a_second_request_kills_the_workers(fake):
    runs = fake("save")
    jobs = []

    def notify(board):
        jobs.extend(attempt.job for attempt in board.running)
        if (runs[0].out / "fake" / "fake-g0" / "ready").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work_off(runs, notify=notify)
    assert jobs[0].wait(10) == -signal.SIGKILL


# --- Small functions ---
def test_the_tail_of_a_log_is_one_printable_line_of_its_own_output(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"of an earlier attempt\n" + b"a\x00b\x1b[0m\n\n\xff\nend\n")
    assert schedule.tail(log, 22) == "a b [0m | \ufffd | end"


def test_the_estimate_is_the_mean_time_of_groups_over_the_workers(fake):
    (mine, other) = fake("ok", "ok")
    row = {"algo": "fake", "preset": "smoke", "status": "finished", "group_id": "a", "wall_seconds": 10.0}
    rows = [row, row, {**row, "group_id": "b", "wall_seconds": 30}, {**row, "preset": "paper", "wall_seconds": 900}]
    assert tasks.estimate(rows, [mine, mine, mine], 2) == tasks.Estimate(30.0, ())
    assert tasks.estimate(rows, [mine, other._replace(algo="x")], 1) == tasks.Estimate(20.0, ("x",))
    assert tasks.estimate([{**row, "status": "diverged"}], [mine], 1) == tasks.Estimate(0.0, ("fake",))


def test_workers_share_the_cores_unless_the_user_has_said_otherwise():
    found = executors.pinned({"OMP_NUM_THREADS": "7", "XLA_FLAGS": "--a=b"}, 1)
    assert (found["OMP_NUM_THREADS"], found["NPROC"]) == ("7", "1")
    assert found["XLA_FLAGS"] == "--a=b --xla_cpu_multi_thread_eigen=false"
    assert executors.pinned({}, 2)["XLA_FLAGS"] == ""


def test_the_display_tells_changes_once(fake):
    runs = fake("ok", "ok")
    text = io.StringIO()
    shown = display.Display(Console(file=text, width=200), 2)
    board = schedule.Board(schedule.deque(), done=runs[:1])
    board.failed = [schedule.Failure(runs[1], 3, 2, None, "why")]
    with shown.live():
        shown.update(board)
        shown.update(board)
    assert text.getvalue().count("failed: fake none behave=ok (exit code 3): why") == 1
    assert text.getvalue().count("0 running, 0 elsewhere, 1 done, 1 failed, 0 diverged of 2") == 1


def test_text_of_others_is_no_markup(fake, capsys):
    (mine,) = fake("[/x]")
    board = schedule.Board(schedule.deque(), failed=[schedule.Failure(mine, 1, 2, None, "no [/lib/a.so], axes [seed]")])
    console = make_console()
    display.Display(console, 1).update(board)
    console.print(display.plan([mine], ["new"]))
    output = capsys.readouterr().out
    assert "no [/lib/a.so], axes [seed]" in output and output.count("[/x]") == 2


# --- The command ---
def planned(dataset, tmp_path, *grid, **more):  # noqa: F811
    chosen = plans.Options(dataset=str(dataset), grid=grid, out=tmp_path, preset="smoke", seeds="0:2", **more)
    return plans.plan(chosen)


def test_traced_settings_share_a_program_and_others_do_not(dataset, tmp_path):  # noqa: F811
    runs = planned(dataset, tmp_path, "critics=2,3", "tau=0.1,0.2,1e-1", "diversity=0,0.5,1")
    assert [run.settings for run in runs] == [
        {"critics": critics, "tau": "0.1,0.2", "diversity": diversity}
        for critics in "23"
        for diversity in ("0", "0.5,1")
    ]
    assert [len(run.run_ids) for run in runs] == [4, 8, 4, 8]
    ids = [identity for run in runs for identity in run.run_ids]
    assert len(set(ids)) == len(ids)
    # A row's id does not depend on what shares its program.
    alone = planned(dataset, tmp_path, "critics=2,3", "tau=0.1,0.2,1e-1", "diversity=0,0.5,1", population=3)
    assert len(alone) == 12
    assert sorted(identity for run in alone for identity in run.run_ids) == sorted(ids)
    assert len({run.group for run in [*runs, *alone]}) == 16


SMOKE = ("--preset=smoke", "--episodes=1", "--checkpoint-seconds=0")


def test_only_model_based_runs_are_asked_what_a_diagnosis_asks(dataset, tmp_path):  # noqa: F811
    runs = planned(dataset, tmp_path, algo="mopo,iql,ravl", diagnose=True)
    assert ["--diagnose" in tasks.words(run.task) for run in runs] == [True, False, True]


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_an_out_that_cannot_be_used_is_refused_also_by_a_dry_run(dry, dataset, tmp_path, monkeypatch, capsys):  # noqa: F811
    words = ("--algo=bc", f"--dataset={dataset}", *SMOKE, *dry)
    (tmp_path / "file").write_text("text")
    code, _, error = run(monkeypatch, capsys, sweep.main, *words, f"--out={tmp_path / 'file' / 'runs'}")
    assert code == 2 and f"cannot use the folder {tmp_path / 'file' / 'runs'}: Not a directory" in error
    table = tmp_path / "offline_mbrl" / "summary.csv"
    table.parent.mkdir()
    table.write_text("garbage\n")
    code, _, error = run(monkeypatch, capsys, sweep.main, *words, f"--out={tmp_path}")
    assert code == 2 and f"{table} is not a summary that can be read" in error
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "file", table.parent, table]


def test_a_real_sweep_its_plan_and_its_rows(dataset, tmp_path, monkeypatch, capsys):  # noqa: F811
    words = ("--algo=bc", f"--dataset={dataset}", "--grid", "updates=20,40", *SMOKE, f"--out={tmp_path}", "--workers=2")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    code, output, _ = run(monkeypatch, capsys, sweep.main, *words, "--dry-run")
    assert code == 0
    assert "2 runs, 2 to do, 2 at a time; no finished run of bc" in output
    assert not list(tmp_path.iterdir())
    code, output, errors = run(monkeypatch, capsys, sweep.main, *words)
    assert code == 0, output + errors
    assert "2 done, 0 failed, 0 diverged of 2" in output
    rows = pd.read_csv(tmp_path / "offline_mbrl" / "summary.csv")
    assert sorted(rows["updates"]) == [20, 40]
    monkeypatch.setattr(processes, "local", lambda workers: executors.Executor(workers, None))  # nothing can start
    assert run(monkeypatch, capsys, sweep.main, *words)[0] == 0
    code, output, _ = run(monkeypatch, capsys, sweep.main, *words, "--dry-run")
    assert "2 runs, 0 to do" in output
    assert output.count("finished") == 2


def launch(dataset, out, *more):  # noqa: F811
    words = ("--algo=bc,ravl", f"--dataset={dataset}", "--grid", "updates=100,200", "--seeds=2", "--workers=2", *SMOKE)
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.sweep", *words, f"--out={out}", *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    )


def finish(process):
    output, _ = process.communicate(timeout=800)
    assert process.returncode == 0, output


def rows(out):
    table = pd.read_csv(out / "offline_mbrl" / "summary.csv").drop(columns=PROVENANCE)
    return table.sort_values("run_id").reset_index(drop=True)


def holders(out):
    """Process ids in the lock files of runs that are held."""
    for lock in glob.glob(f"{out}/offline_mbrl/*/lock"):
        written = Path(lock).read_text().split()  # nothing yet right after the lock has been taken
        if written and rundir._is_held(Path(lock).parent):
            yield int(written[0])


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_ends_it(dataset, tmp_path):  # noqa: F811
    process = launch(dataset, tmp_path)
    while process.poll() is None and not glob.glob(f"{tmp_path}/offline_mbrl/*/checkpoints/*/step_*"):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output
    assert "the same command resumes" in output
    assert list(holders(tmp_path)) == []
    finish(launch(dataset, tmp_path))
    assert len(rows(tmp_path)) == 8


@pytest.mark.slow
def test_a_run_whose_rows_another_group_has_renewed_still_counts_as_finished(dataset, tmp_path, monkeypatch, capsys):  # noqa: F811
    """Seeds 0 and 1 after seed 0 alone: the summary then has seed 0 of the second group."""
    words = (f"--dataset={dataset}", "--algo=bc", "--updates=20", *SMOKE, f"--out={tmp_path}")
    for seeds in ("1", "2", "1"):
        code, _, errors = run(monkeypatch, capsys, offline_mbrl.main, *words, f"--seeds={seeds}")
        assert code == 0, errors
    given = (*words[:2], "--grid", "updates=20", *words[3:], "--dry-run")
    assert "1 runs, 0 to do" in run(monkeypatch, capsys, sweep.main, *given)[1]
