"""Eight devices, forced upon the host: they exist in processes of their own; and commands that name devices."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_resume import checkpoints, run_directory

from experiments import offline_mbrl
from jaxrl_suite.train import sittings
from jaxrl_suite.train.interrupts import RESUMABLE

ROOT = Path(__file__).resolve().parent.parent


def on_devices(count):
    """An environment with so many devices."""
    flags = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={count}"
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def test_on_eight_devices():
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/eight_devices.py"],
        cwd=ROOT,
        env=on_devices(8),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=800,
    )
    assert result.returncode == 0, result.stdout[-6000:]


# --- Resuming elsewhere ---
EIGHT = "8 cpu, seed:2,data:4"
BC = ("--algo=bc", "--preset=smoke", "--updates=600", "--evaluations=12", "--episodes=1", "--seeds=2")


def start(out, devices, *words):
    command = [sys.executable, "-m", "experiments.offline_mbrl", f"--out={out}", "--checkpoint-seconds=0", *BC, *words]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=on_devices(devices))


def stopped(process, out):
    """Ask a run to save after two more checkpoints."""
    before, seen, deadline = checkpoints(out), set(), time.monotonic() + 300
    while len(seen) < 2 and process.poll() is None and time.monotonic() < deadline:
        seen |= checkpoints(out) - before
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == RESUMABLE, errors


def finished(process):
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


@pytest.mark.slow
def test_a_run_moves_from_eight_devices_to_one_and_back(tmp_path):
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    finished(start(whole, 1))
    mesh = "--mesh=seed:2,data:4"
    stopped(start(moved, 8, mesh), moved)
    path = run_directory(moved)
    stopped(start(moved, 1, f"--resume={path}"), moved)
    finished(start(moved, 8, mesh, f"--resume={path}"))
    assert sittings.layouts(path) == [EIGHT, "1 cpu", EIGHT]
    rows = pd.read_csv(moved / "offline_mbrl" / "summary.csv")
    assert list(rows["devices"]) == [f"{EIGHT} > 1 cpu > {EIGHT}"] * 2
    a, b = ((run_directory(out) / "metrics.jsonl").read_text().splitlines() for out in (whole, moved))
    assert len(a) == len(b) == 24
    np.testing.assert_allclose(*([json.loads(line)["loss"] for line in lines] for lines in (a, b)), rtol=1e-3)


# --- Bad input ---
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--mesh=data:2"], "asks for 2 devices, there are 1 (cpu); ask for fewer"),
        (["--mesh=seed:64", "--seeds=3"], "asks for 64 devices, there are 1 (cpu); ask for fewer"),
        (["--mesh=eight"], "is not a mesh"),
        (["--sampling=near"], "sampling"),
        (["--resume=nowhere"], "nowhere is not a run to resume"),
    ],
)
def test_one_line_and_exit_code_2(words, line, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command", "--algo=bc", "--preset=smoke", f"--out={tmp_path}", *words])
    with pytest.raises(SystemExit) as stop:
        offline_mbrl.main()
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and line in errors and errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_resume_needs_the_options_of_that_run(tmp_path, monkeypatch, capsys):
    (tmp_path / "run").mkdir()
    sittings.begin(tmp_path / "run", EIGHT)
    words = ["--algo=bc", "--preset=smoke", f"--out={tmp_path}", f"--resume={tmp_path / 'run'}"]
    monkeypatch.setattr(sys, "argv", ["command", *words])
    with pytest.raises(SystemExit) as stop:
        offline_mbrl.main()
    assert stop.value.code == 2
    assert "is not the newest run of these options; repeat the options" in capsys.readouterr().err
