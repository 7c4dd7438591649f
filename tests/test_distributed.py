"""Several processes: supervisors that meet, lose workers and each other, and a run that ends with the same bits."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from test_resume import assert_same_run, checkpoints, run_directory

from experiments import offline_mbrl
from jaxrl_suite.errors import UserError
from jaxrl_suite.train import processes, sittings, supervise
from jaxrl_suite.train.interrupts import RESUMABLE

ROOT = Path(__file__).resolve().parent.parent
WORKER = """
import os, sys, time, signal
place, (out, behave) = os.environ["JAXRL_SUITE_WORKER"], sys.argv[1:3]
rank = int(place.rpartition(",")[2])
with open(out + f"/starts-{rank}", "a") as file:
    file.write("x")
first = os.path.getsize(out + f"/starts-{rank}") == 1
if behave == "kill-once" and first:
    if rank == 1:
        os.kill(os.getpid(), 9)
    time.sleep(0.3)
    os.abort()  # as JAX does when a peer is gone
if behave == "die" and rank == 1:
    print("the reason", file=sys.stderr)
    sys.exit(1)
if behave == "refuse" and rank == 0:
    print("error: it cannot be", file=sys.stderr)
    sys.exit(2)
if behave in ("hang", "refuse", "die"):
    time.sleep(60)
if behave == "save":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    time.sleep(60)
"""


def free_port():
    """A port that is free, as is the next one."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                other.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


@pytest.fixture
def supervised(monkeypatch, tmp_path):
    """Two supervisors in threads, whose workers behave as told -> their exit codes, and the starts of each worker."""
    monkeypatch.setattr(supervise, "GRACE", 1.0)
    monkeypatch.setattr(supervise, "DEADLINE", 20.0)
    script = tmp_path / "worker.py"
    script.write_text(WORKER)

    def run(behave):
        monkeypatch.setattr(supervise, "_command", lambda: [sys.executable, str(script), str(tmp_path), behave])
        port, codes = free_port(), {}

        def one(rank):
            codes[rank] = supervise.run(processes.Place("127.0.0.1", port, 2, rank))

        threads = [threading.Thread(target=one, args=(rank,)) for rank in (1, 0)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return [codes[0], codes[1]], [(tmp_path / f"starts-{rank}").stat().st_size for rank in (0, 1)]

    return run


# --- Supervisors ---
def test_all_end_well(supervised, capfd):
    assert supervised("well") == ([0, 0], [1, 1])
    assert capfd.readouterr().err == ""


def test_a_killed_worker_makes_all_start_again_and_is_named(supervised, capfd):
    assert supervised("kill-once") == ([0, 0], [2, 2])
    line = "note: process 1: killed by SIGKILL; all processes start again from their last checkpoint\n"
    assert capfd.readouterr().err == line


def test_a_worker_that_always_dies_is_given_up(supervised, capfd):
    assert supervised("die") == ([1, 1], [3, 3])
    errors = capfd.readouterr().err.splitlines()
    assert errors.count("error: process 1: the reason; given up after 3 short attempts") == 2  # from each supervisor
    logs = [Path(line.rpartition(" ")[2]) for line in errors if "all that this worker said is in" in line]
    assert "the reason" in "".join(log.read_text() for log in logs)
    for log in logs:
        shutil.rmtree(log.parent)


def test_bad_input_ends_all_with_its_line(supervised, capfd):
    assert supervised("refuse") == ([2, 2], [1, 1])
    assert capfd.readouterr().err.splitlines() == ["error: it cannot be"] * 2


def test_verdicts():
    def report(code, **more):
        return {"code": code, "line": "why", **more}

    assert supervise._verdict({0: report(0), 1: report(0)}) == (0, "")
    assert supervise._verdict({0: report(RESUMABLE), 1: report(RESUMABLE)}) == (RESUMABLE, "")
    assert supervise._verdict({0: report(RESUMABLE), 1: report(-15, asked=True)}) == (RESUMABLE, "")
    assert supervise._verdict({0: report(-6), 1: report(-9)}) == (None, "process 1: why")
    assert supervise._verdict({0: report(1), 1: report(2)}) == (2, "why")


def test_a_peer_that_never_connects(monkeypatch):
    monkeypatch.setattr(supervise, "DEADLINE", 1.0)
    with pytest.raises(UserError, match=r"process 1, 2 of 3 did not connect to 127\.0\.0\.1:\d+ within 1 s; start"):
        supervise.run(processes.Place("127.0.0.1", free_port(), 3, 0))
    with pytest.raises(UserError, match=r"process 0 was not at 127\.0\.0\.1:\d+ within 1 s; start it"):
        supervise.run(processes.Place("127.0.0.1", free_port(), 3, 2))


def test_a_process_with_other_options_is_turned_away(monkeypatch, capfd):
    monkeypatch.setattr(supervise, "DEADLINE", 2.0)
    place, codes = processes.Place("127.0.0.1", free_port(), 2, 0), []

    def stranger():
        line = supervise._connect(place._replace(rank=1, size=3))
        codes.extend(line.receive(10.0))
        line.close()

    thread = threading.Thread(target=stranger)
    thread.start()
    with pytest.raises(UserError, match="process 1 of 2 did not connect"):
        supervise.run(place)
    thread.join()
    assert codes[0]["end"] == 2 and "its command is not that of process 0" in codes[0]["line"]


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = processes.Place("127.0.0.1", server.getsockname()[1], 2, 0)
        with pytest.raises(UserError, match="cannot listen on 127"):
            supervise.run(place)


@pytest.mark.parametrize(
    "words",
    [
        ["--distributed=here"],
        ["--distributed=here:1,2"],
        ["--distributed=here:x,2,0"],
        ["--distributed=here:80,2,2"],
        ["--distributed=here:65535,2,1"],
        ["--distributed=here:80,2,1", "--fresh"],
    ],
)
def test_bad_options_are_one_line(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command", *words])
    with pytest.raises(SystemExit) as stop:
        offline_mbrl.main()
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and errors.startswith("error: ") and errors.count("\n") == 1


# --- Runs ---
BC = ("--algo=bc", "--updates=400", "--evaluations=8")


def start(out, port, rank, *words):
    """One of two processes with a device each."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "experiments.offline_mbrl", f"--out={out}", "--preset=smoke", "--episodes=1"),
            *("--checkpoint-seconds=0", f"--distributed=127.0.0.1:{port},2,{rank}", *words),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )


def finish(*started):
    """Wait for all -> what they said on stderr."""
    said = [process.communicate(timeout=600) for process in started]
    assert [process.returncode for process in started] == [0] * len(started), said
    return "".join(errors for _, errors in said)


def worker_of(supervisor):
    """The process id of a supervisor's worker."""
    return int(Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()[0])


def wait_for_checkpoints(out, count):
    seen, deadline = set(), time.monotonic() + 300
    while len(seen) < count and time.monotonic() < deadline:
        seen |= checkpoints(out)
        time.sleep(0.005)
    assert len(seen) >= count


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out, port = tmp_path_factory.mktemp("undisturbed"), free_port()
    assert finish(*(start(out, port, rank, *BC) for rank in (0, 1))) == ""
    return out


def assert_equal_bits(one, other):
    assert_same_run(run_directory(one), run_directory(other))


@pytest.mark.slow
def test_losing_a_worker_changes_no_bit(undisturbed, tmp_path):
    port = free_port()
    both = [start(tmp_path, port, rank, *BC) for rank in (0, 1)]
    wait_for_checkpoints(tmp_path, 3)
    os.kill(worker_of(both[1]), signal.SIGKILL)
    note = "note: process 1: killed by SIGKILL; all processes start again from their last checkpoint\n"
    assert finish(*both) == note
    assert_equal_bits(undisturbed, tmp_path)
    assert sittings.layouts(run_directory(tmp_path)) == ["2 cpu over 2 processes, seed:1,data:2"]
    assert len((run_directory(tmp_path) / sittings.FILE).read_text().splitlines()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_losing_a_host_changes_no_bit_once_it_is_started_again(undisturbed, tmp_path, lost):
    port = free_port()
    both = [start(tmp_path, port, rank, *BC) for rank in (0, 1)]
    wait_for_checkpoints(tmp_path, 3)
    orphan = worker_of(both[lost])
    both[lost].kill()
    both[lost].communicate()
    for _ in range(100):
        if not Path(f"/proc/{orphan}").exists():
            break
        time.sleep(0.1)
    else:
        pytest.fail("the worker of a lost supervisor lives on")
    both[lost] = start(tmp_path, port, lost, *BC)
    assert " lost" in finish(*both)
    assert_equal_bits(undisturbed, tmp_path)


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one_and_their_run_goes_on_on_one(undisturbed, tmp_path):
    """SIGTERM to one process saves all; one process with one device resumes the run of two."""
    port = free_port()
    both = [start(tmp_path, port, rank, *BC) for rank in (0, 1)]
    wait_for_checkpoints(tmp_path, 2)
    both[1].terminate()
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [RESUMABLE, RESUMABLE], said
    path = run_directory(tmp_path)
    words = [f"--out={tmp_path}", "--preset=smoke", "--episodes=1", "--checkpoint-seconds=0", *BC]
    command = [sys.executable, "-m", "experiments.offline_mbrl", *words, f"--resume={path}"]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "JAX_PLATFORMS": "cpu"}, timeout=300)
    whole, moved = ((run_directory(out) / "metrics.jsonl").read_text().splitlines() for out in (undisturbed, tmp_path))
    assert len(whole) == len(moved)
    for a, b in zip(whole, moved, strict=True):
        np.testing.assert_allclose(json.loads(a)["loss"], json.loads(b)["loss"], rtol=1e-4)
    assert sittings.layouts(path) == ["2 cpu over 2 processes, seed:1,data:2", "1 cpu"]
    summary = (tmp_path / "offline_mbrl" / "summary.csv").read_text()
    assert "2 cpu over 2 processes, seed:1,data:2 > 1 cpu" in summary
