"""Executors: what the loop makes of lost places, workers that outlive nobody, Ray and Slurm, and rows that depend
neither on where runs went nor on what was killed."""

import contextlib
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from test_experiments import dataset, refused  # noqa: F401
from test_sweep import ROOT, SMOKE, failures, fake, finish, holders, launch, rows, starts  # noqa: F401

from experiments import options, sweep
from jaxrl_suite.errors import UserError
from jaxrl_suite.sweep import executors, schedule, tasks
from jaxrl_suite.sweep.executors import LOST, choice, processes
from jaxrl_suite.train import rundir

FORKS = pytest.mark.filterwarnings(r"ignore:os.fork\(\) was called:RuntimeWarning")  # Ray forks, and JAX has threads
SEEDS = "--seeds=8"


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def is_alive(pid):
    """Whether a process runs; one that has ended and is not collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- The loop, with places that come and go as they are told ---
class Scripted:
    """A job that has ended with a code."""

    def __init__(self, code):
        self.code = code

    def poll(self):
        return self.code

    def terminate(self):
        raise AssertionError("it has ended")

    kill = terminate


@pytest.fixture
def scripted(tmp_path):
    """Codes of one run's attempts -> the board, and how many attempts were started."""

    def play(*codes, takes_back=True):
        run = tasks.Run(
            *(tasks.Task("m", {}), "fake", "none", "smoke", {}, (0,)), *(tmp_path, "fake", "fake", "g", ("run-g",))
        )
        left = list(codes)

        def start(task, log):
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "a") as file:
                file.write(f"words before {left[0]}\n")
            if left[0] == "finishes":
                with rundir.open_run(run.out, "fake", "fake", {}, "g", False) as directory:
                    rundir.upsert_rows(directory.path.parent / "summary.csv", [{"run_id": "run-g"}], ["run_id"])
                    directory.finish("finished")
                return Scripted(int(not left.pop(0)))
            return Scripted(left.pop(0))

        board = schedule.work_off([run], executors.Executor(1, start, takes_back), lambda: False, lambda board: None)
        return board, len(codes) - len(left)

    return play


def test_a_lost_place_is_no_attempt(scripted):
    """Three lost nodes and a worker that died: one more attempt is left, and succeeds."""
    board, started = scripted(LOST, LOST, 1, LOST, "finishes")
    assert (len(board.done), board.failed, started) == (1, [], 5)


def test_what_loses_every_place_is_given_up(scripted):
    board, started = scripted(*[LOST] * 20)
    assert started == schedule.LOSSES + 1
    assert [(failure.code, failure.last_lines) for failure in board.failed] == [(LOST, f"words before {LOST}")]


@pytest.mark.parametrize("code", [75, -signal.SIGTERM])
def test_a_place_that_is_taken_back_is_replaced_however_often(scripted, code):
    board, started = scripted(*[code] * 10, "finishes")
    assert (len(board.done), board.stopped, started) == (1, False, 11)


def test_on_this_machine_a_worker_that_was_asked_to_stop_stops_the_sweep(scripted):
    board, started = scripted(75, "finishes", takes_back=False)
    assert (board.stopped, started) == (True, 1)


def test_a_worker_that_ends_well_elsewhere_has_not_finished_here(scripted):
    board, started = scripted(0, 0)
    assert (board.done, started) == ([], 2)
    assert "nodes must share --out" in board.failed[0].last_lines


# --- Workers on this machine ---
PARENT = """
import sys, time
from pathlib import Path
from jaxrl_suite.sweep import executors, tasks
task = tasks.Task("fake_task", {"out": sys.argv[1], "group": "g", "behave": "save"})
job = executors.local(1).start(task, Path(sys.argv[1]) / "log")
print(job.pid, flush=True)
time.sleep(600)
"""


def test_a_worker_saves_and_stops_when_the_sweep_is_killed(fake, tmp_path):  # noqa: F811
    fake()
    parent = subprocess.Popen([sys.executable, "-c", PARENT, tmp_path], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    wait_for((tmp_path / "fake" / "fake-g" / "ready").exists)
    assert is_alive(pid)
    parent.kill()
    parent.communicate()
    wait_for(lambda: not is_alive(pid), 10)
    assert rundir.look(tmp_path, "fake", "fake", "g")[1] == "resumable"


def test_a_worker_whose_parent_has_died_already_does_not_begin(tmp_path):
    command = [sys.executable, "-I", processes.LEASH, "1", sys.executable, "-c", "open('begun', 'w')"]
    assert subprocess.run(command, cwd=tmp_path).returncode == 75
    assert list(tmp_path.iterdir()) == []


def test_an_order_is_plain_words(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("SECRET", "1")
    order = processes.order(tasks.Task("m", {"seeds": "8", "flag": False}), tmp_path / "logs" / "log", 3)
    assert processes.Order(*json.loads(json.dumps(order))) == order
    assert order.words == ["-m", "m", "--seeds=8", "--no-flag"]
    assert order.environment["JAX_PLATFORMS"] == "cpu"
    assert order.environment["NPROC"] == "3"
    assert "SECRET" not in order.environment


# --- Bad input ---
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--executor=slrum"], "unknown executor 'slrum'; did you mean slurm"),
        (["--address=head:6379"], "--address=head:6379 has no meaning with --executor=local; it is for ray"),
        (["--cpus=2"], "it is for ray and slurm"),
        (["--executor=ray", "--partition=long"], "it is for slurm"),
        (["--executor=slurm", "--gpus=0.5"], "--gpus=0.5 must be a whole number"),
        (["--executor=slurm", "--time=1"], "--time=1 leaves no time to save"),
        (["--executor=ray", "--cpus=0"], "--cpus=0 must be at least 1"),
        (["--executor=ray", "--memory=-1"], "--memory=-1.0 must not be negative"),
    ],
)
def test_options_that_cannot_be_meant(words, expected, tmp_path, monkeypatch, capsys):
    assert expected in refused(monkeypatch, capsys, sweep.main, *words, f"--out={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "library"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_library_names_the_extra(name, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=r"needs the extra: pip install -e '\.\[sweep\]'"):
        choice.opened(name, 1, "", executors.Place())


# --- Slurm ---
TOOLS = {
    # Runs the script at once, in a session of its own; the options of the script are comments to bash.
    "sbatch": """
        grep '^#SBATCH' "${@: -1}" > {folder}/asked
        SLURM_JOB_ID=$$ SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 \\
            setsid bash "${@: -1}" > {folder}/output 2>&1 < /dev/null &
        echo $! > {folder}/pid.$$
        echo "Submitted batch job $$" """,
    "srun": """
        while [[ $1 == --* ]]; do
            [[ $1 == --output ]] && { name=${2//%j/$SLURM_JOB_ID}; exec > "${name//%t/0}"; }
            [[ $1 == --output || $1 == --error ]] && shift
            shift
        done
        exec "$@" """,
    "sacct": """
        echo 'JobID|State|NodeList'
        for file in {folder}/pid.*; do
            state=RUNNING; kill -0 -- -$(cat $file) 2> /dev/null || state=NODE_FAIL
            echo "${file##*.}|$state|here"
        done""",
    "scancel": "kill -TERM -- -$(cat {folder}/pid.$1)",  # as Slurm does: every process of the job
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """An executor of jobs that shell scripts with the names of Slurm's tools run on this machine."""
    pytest.importorskip("submitit")
    from jaxrl_suite.sweep.executors import on_slurm

    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in TOOLS.items():
        (tools / name).write_text("#!/bin/bash\n" + text.replace("{folder}", str(tools)))
        (tools / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)

    def make(**place):
        return on_slurm.jobs(4, executors.Place(**place))

    return make


def play(runs, executor, asked=lambda: False):
    return schedule.work_off(runs, executor, asked, lambda board: None)


def test_slurm_jobs_end_as_their_workers_do(slurm, fake):  # noqa: F811
    runs = fake("ok", "1", "2", "diverge")
    board = play(runs, slurm(cpus=2, gpus=1.0, memory=3.0, partition="long", time=7))
    assert {run.group for run in board.done} == {"g0", "g3"}
    assert starts(runs) == {"g0": 1, "g1": 2, "g2": 1, "g3": 1}
    assert failures(runs)["g1"]["last_lines"] == "first words | last words of g1"
    asked = (runs[0].out / "tools" / "asked").read_text()
    for flag in ("cpus-per-task=2", "gpus-per-node=1", "mem=3GB", "partition=long", "time=7", "signal=USR2@90"):
        assert f"--{flag}\n" in asked


def test_asked_to_stop_slurm_jobs_save(slurm, fake):  # noqa: F811
    runs = fake("save", "ok")
    ready = runs[0].out / "fake" / "fake-g0" / "ready"
    board = play(runs, slurm(), ready.exists)
    assert board.stopped
    assert not board.failed
    assert tasks.state(runs[0]) == "resumable"


def test_asked_to_stop_slurm_jobs_in_the_queue_are_withdrawn(slurm, fake):  # noqa: F811
    (run,) = fake("ok")
    executor = slurm()
    (run.out / "tools" / "sbatch").write_text("#!/bin/bash\necho Submitted batch job 7\n")
    (run.out / "tools" / "scancel").write_text(f"#!/bin/bash\necho $1 > {run.out}/cancelled\n")
    job = executor.start(run.task, run.out / "logs" / "log")
    assert job.poll() is None
    job.terminate()
    assert (job.poll(), (run.out / "cancelled").read_text()) == (75, "7\n")


def test_a_slurm_job_whose_time_is_up_saves_and_is_submitted_again(slurm, fake, monkeypatch):  # noqa: F811
    monkeypatch.setattr(schedule, "ATTEMPTS", 1)  # had the worker died of the signal, that would be all
    (run,) = fake("save-once")
    ready = run.out / "fake" / "fake-g0" / "ready"
    told = []

    def tell():  # to every process of the job, as Slurm does
        if ready.exists() and not told:
            told.extend((run.out / "tools").glob("pid.*"))
            os.killpg(int(told[0].read_text()), signal.SIGUSR2)
            (worker,) = pd.read_csv(run.out / "starts.csv")["pid"]
            os.kill(worker, signal.SIGUSR2)
        return False

    board = play([run], slurm(), tell)
    assert (board.done, board.failed) == ([run], [])
    assert starts([run]) == {"g0": 2}


def test_a_slurm_node_that_dies_loses_nothing(slurm, fake, monkeypatch):  # noqa: F811
    import submitit

    monkeypatch.setattr(submitit.core.core.Job, "_results_timeout_s", 0)
    (run,) = fake("save-once")
    ready = run.out / "fake" / "fake-g0" / "ready"
    killed = []

    def kill():
        if ready.exists() and not killed:
            killed.extend((run.out / "tools").glob("pid.*"))
            os.killpg(int(killed[0].read_text()), signal.SIGKILL)
        return False

    board = play([run], slurm(), kill)
    assert (board.done, board.failed, board.lost) == ([run], [], {"g0": 1})
    assert "left no exit code, state NODE_FAIL" in schedule._log(run).read_text()


def test_what_slurm_refuses_is_one_line(slurm, fake):  # noqa: F811
    (run,) = fake("ok")
    slurm()
    refusing = run.out / "tools" / "sbatch"
    refusing.write_text("#!/bin/bash\necho 'Batch job submission failed: Invalid partition' >&2; exit 1\n")
    with pytest.raises(UserError, match=r"Slurm refuses a job: .*Invalid partition"):
        play([run], slurm(partition="none"))


def test_without_slurm_on_this_machine(monkeypatch, tmp_path):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="needs sbatch and srun on the PATH"):
        choice.opened("slurm", 1, "", executors.Place())


# --- Ray ---
def test_a_ray_address_that_does_not_answer(monkeypatch):
    pytest.importorskip("ray")
    from jaxrl_suite.sweep.executors import on_ray

    monkeypatch.setattr(on_ray, "ANSWER_SECONDS", 1.0)
    with pytest.raises(UserError, match=r"no Ray cluster answers at --address=127\.0\.0\.1:9 within 1 seconds"):
        on_ray.cluster(1, "127.0.0.1:9", executors.Place()).__enter__()


@pytest.mark.slow
def test_ray_jobs_end_as_their_workers_do_and_as_they_are_asked(fake):  # noqa: F811
    """On a Ray of this machine with two places."""
    pytest.importorskip("ray")
    with choice.opened("ray", 2, "", executors.Place()) as executor:
        runs = fake("ok", "1", "2", "diverge", "kill-once")
        board = play(runs, executor)
        assert {run.group for run in board.done} == {"g0", "g3", "g4"}
        assert starts(runs) == {"g0": 1, "g1": 2, "g2": 1, "g3": 1, "g4": 2}
        assert failures(runs)["g1"]["last_lines"] == "first words | last words of g1"
        folder = runs[0].out / "fake"
        saving, killed, waiting = (
            executor.start(tasks.Task("fake_task", {"out": str(folder.parent), "group": group, "behave": "save"}), log)
            for group, log in [(group, folder / f"{group}.log") for group in "abc"]
        )
        wait_for(lambda: all((folder / f"fake-{group}" / "ready").exists() for group in "ab"))
        assert [job.poll() for job in (saving, killed, waiting)] == [None] * 3
        waiting.terminate()
        assert waiting.poll() == 75
        saving.terminate()
        killed.kill()
        wait_for(lambda: saving.poll() is not None and killed.poll() is not None)
        assert saving.poll() == 75
        assert killed.poll() in (-signal.SIGKILL, LOST)
        workers = pd.read_csv(folder.parent / "starts.csv")["pid"]
        assert not any(map(is_alive, workers))
        assert rundir.look(folder.parent, "fake", "fake", "c")[1] == "new"


# --- The same rows, wherever runs go and whatever is killed: two algorithms x two settings x eight seeds ---
@pytest.fixture(scope="module")
def calm(dataset, tmp_path_factory):  # noqa: F811
    """The rows of an undisturbed local sweep."""
    out = tmp_path_factory.mktemp("calm")
    finish(launch(dataset, out, SEEDS))
    assert len(rows(out)) == 2 * 2 * 8
    return rows(out)


def assert_same(out, calm):
    pd.testing.assert_frame_equal(rows(out), calm, check_exact=True)
    given_up = out / "offline_mbrl" / "failures.csv"
    assert not given_up.exists() or not rundir.read_rows(given_up)


@pytest.fixture
def nodes(monkeypatch):
    """A Ray cluster of two nodes on this machine, a core each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    yield cluster, second
    cluster.shutdown()


@pytest.mark.slow
@FORKS
def test_two_ray_nodes_give_the_same_rows(nodes, dataset, tmp_path, calm):  # noqa: F811
    cluster, _ = nodes
    finish(launch(dataset, tmp_path, SEEDS, "--executor=ray", f"--address={cluster.address}"))
    assert_same(tmp_path, calm)


@pytest.mark.slow
@FORKS
def test_losing_a_ray_node_loses_nothing(nodes, dataset, tmp_path, calm):  # noqa: F811
    cluster, second = nodes
    process = launch(dataset, tmp_path, SEEDS, "--executor=ray", f"--address={cluster.address}")
    wait_for(lambda: len(list(holders(tmp_path))) == 2 or process.poll() is not None, 300)
    time.sleep(3)
    cluster.remove_node(second, allow_graceful=False)
    finish(process)
    assert_same(tmp_path, calm)
    logs = [log.read_text() for log in (tmp_path / "offline_mbrl" / "logs").glob("*.log")]
    assert sum("place lost" in text for text in logs) == 1


@pytest.mark.slow
def test_submitit_gives_the_same_rows(dataset, tmp_path, calm, monkeypatch):  # noqa: F811
    """Through the executor that submitit has for machines without Slurm."""
    pytest.importorskip("submitit")
    from jaxrl_suite.sweep.executors import on_slurm

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    words = ["--algo=bc,ravl", f"--dataset={dataset}", "--grid", "updates=100,200", SEEDS, f"--out={tmp_path}", *SMOKE]
    chosen = options.parse(sweep.Options, words, sweep.Options(), "test", "")
    board = play(sweep.plan(chosen), on_slurm.jobs(2, executors.Place(), cluster="local"))
    assert (len(board.done), board.failed) == (4, [])
    assert_same(tmp_path, calm)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_rows(dataset, tmp_path, calm):  # noqa: F811
    """Each round kills a worker first, and then the runner with what workers it has left."""
    moment, killed = random.Random(3), 0
    for _ in range(5):
        process, deadline = launch(dataset, tmp_path, SEEDS), time.monotonic() + 300
        while process.poll() is None and not list(holders(tmp_path)) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moment.uniform(0, 6))
        killed += kill_workers(tmp_path, 1)
        time.sleep(moment.uniform(0, 6))
        process.kill()
        killed += kill_workers(tmp_path, 2)
        process.communicate()
    assert killed >= 5
    finish(launch(dataset, tmp_path, SEEDS))
    assert_same(tmp_path, calm)


def kill_workers(out, count):
    """Kill some of the processes that hold a run -> how many there were to kill."""
    found = list(holders(out))[:count]
    for worker in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    return len(found)
