"""`kill -9` at random moments: the resumed run ends with the bits of an undisturbed one."""

import glob
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jaxrl_suite as jrs
from jaxrl_suite import data

ROOT = Path(__file__).resolve().parent.parent
PROVENANCE = ["wall_seconds", "git_commit", "host", "resumed"]


def launch(module, out, *more):
    """A command of the package that saves after every chunk."""
    return subprocess.Popen(
        [sys.executable, "-m", module, f"--out={out}", "--checkpoint-seconds=0", *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )


def start(out, *more):
    words = more or ("--updates=300", "--evaluations=6")
    return launch("experiments.offline_mbrl", out, "--algo=ravl", "--preset=smoke", *words)


def collect(out):
    """Online SAC on Hopper: one chunk of exploration, three of training."""
    return launch("experiments.collect", out, "--env=hopper", "--steps=20000", "--hidden", "16", "16")


def finish(process):
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def run_directory(out, experiment="offline_mbrl"):
    """The first attempt, also where `--fresh` has put another beside it."""
    attempts = [p for p in (out / experiment).iterdir() if (p / "config.json").exists()]
    return min(attempts, key=lambda path: len(path.name))


def checkpoints(out):
    """Paths of the complete checkpoints. `glob.glob`, unlike `rglob`, bears folders that vanish while it looks."""
    return set(glob.glob(f"{out}/**/step_*", recursive=True))


def killed(begin, out, moment):
    """Start a run and kill it at a random moment after one to three more checkpoints -> whether that was in time."""
    process, before = begin(out), checkpoints(out)
    wanted, seen, deadline = moment.randint(1, 3), set(), time.monotonic() + 300
    while process.poll() is None and len(seen) < wanted and time.monotonic() < deadline:
        time.sleep(0.005)
        seen |= checkpoints(out) - before  # only the last two are kept
    time.sleep(moment.uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def disturbed(begin, out, kills):
    """Kill a run at random moments, start it again each time, and let the last one finish."""
    moment = random.Random(1)
    count = sum(killed(begin, out, moment) for _ in range(kills))
    finish(begin(out))
    return count


def assert_same(a, b):
    assert_same_run(run_directory(a), run_directory(b))
    summaries = [pd.read_csv(out / "offline_mbrl" / "summary.csv").drop(columns=PROVENANCE) for out in (a, b)]
    pd.testing.assert_frame_equal(*summaries, check_exact=True)


def assert_same_run(one, other):
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    assert (one / "eval.csv").read_bytes() == (other / "eval.csv").read_bytes()
    for x, y in zip(*(jax_leaves(jrs.load(path).parameters) for path in (one, other)), strict=True):
        np.testing.assert_array_equal(x, y)


def jax_leaves(tree):
    import jax

    raw = [
        jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        for x in jax.tree.leaves(tree)
    ]
    return [np.asarray(x) for x in raw]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    return out, finish(start(out))


def test_killed_twice(undisturbed, tmp_path):
    assert disturbed(start, tmp_path, 2) >= 1
    assert_same(undisturbed[0], tmp_path)


def test_collection_killed_twice_rebuilds_its_environments_and_writes_the_same_data(tmp_path):
    """The state of host environments cannot be saved: they are rebuilt from their seeds and replayed actions."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(collect(whole))
    assert disturbed(collect, broken, 2) >= 1
    assert_same_run(run_directory(whole, "collect"), run_directory(broken, "collect"))
    files = [data.load(str(out / "collect" / "hopper-medium-replay-mini.hdf5"))[0] for out in (whole, broken)]
    for x, y in zip(*(jax_leaves(dataset) for dataset in files), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
@pytest.mark.parametrize("where", [["--env=pendulum"], ["--env=hopper", "--host"]])
def test_online_mbpo_killed_twice_goes_on_to_the_same_bits(where, tmp_path):
    """Model, optimiser, replay and imagined rows, and where the episode stands: all of it is in the checkpoint."""
    words = [*where, "--preset=smoke", "--models=probabilistic-ensemble", "--mechanisms=spectral"]
    # Three chunks: exploration and two ticks, each of which fits, imagines and learns.
    start = lambda out: launch("experiments.ensemble_vs_lipschitz", out, *words, "--seeds=2", "--episodes=2")  # noqa: E731
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(whole))
    assert disturbed(start, broken, 2) >= 1
    assert_same_run(*(run_directory(out, "ensemble_vs_lipschitz") for out in (whole, broken)))
    kept = [(out / "ensemble_vs_lipschitz" / "diagnostics.csv").read_bytes() for out in (whole, broken)]
    assert kept[0] == kept[1]


@pytest.mark.slow
def test_killed_ten_times(tmp_path):
    def longer(out):
        return start(out, "--updates=2000", "--evaluations=4")

    finish(longer(tmp_path / "whole"))
    assert disturbed(longer, tmp_path / "killed", 10) == 10
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_a_finished_run_returns_at_once_and_fresh_starts_beside_it(undisturbed):
    out, output = undisturbed
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.suffix in (".csv", ".jsonl", ".json")}
    again = finish(start(out))
    assert again.splitlines()[-1] == output.splitlines()[-1]
    assert {p: p.read_bytes() for p in before} == before
    finish(start(out, "--updates=300", "--evaluations=6", "--fresh"))
    assert len([p for p in (out / "offline_mbrl").iterdir() if (p / "config.json").exists()]) == 2


def test_sigterm_saves_and_says_that_the_run_can_be_resumed(undisturbed, tmp_path):
    process = start(tmp_path)
    deadline = time.monotonic() + 300
    while not checkpoints(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 75, output
    assert "resumes" in output
    finish(start(tmp_path))
    assert_same(undisturbed[0], tmp_path)
    record = json.loads((run_directory(tmp_path) / "status.json").read_text())
    assert record["status"] == "finished"
