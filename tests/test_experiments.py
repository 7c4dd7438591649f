"""The commands as a user meets them: one table from a small run, and one clear line for every kind of bad input."""

import dataclasses
import inspect
import json
import re
import shutil
import sys
import types

import gymnasium
import h5py
import numpy as np
import pandas as pd
import pytest

import jaxrl_suite as jrs
from experiments import (
    collect,
    edge_of_reach,
    ensemble_vs_lipschitz,
    evaluate,
    heads_studies,
    offline_mbrl,
    options,
    value_heads,
)
from jaxrl_suite import data
from jaxrl_suite.algorithms import complaints
from jaxrl_suite.algorithms import registry as algorithms
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.errors import UserError, exits_cleanly
from jaxrl_suite.train import loop, rundir
from jaxrl_suite.train.display import Display
from jaxrl_suite.values import heads

ROWS = 400


def hopper_arrays(rows=ROWS, seed=0):
    """Made-up Hopper transitions in episodes of 50 rows."""
    generator = np.random.default_rng(seed)
    obs = generator.normal(0, 0.1, (rows + 1, 11)).astype(np.float32)
    obs[:, 0] += 1.2
    ends = (np.arange(1, rows + 1) % 50) == 0
    next_obs = obs[1:].copy()
    return {
        "observations": obs[:-1],
        "actions": generator.uniform(-1, 1, (rows, 3)).astype(np.float32),
        "rewards": generator.normal(1, 0.1, rows).astype(np.float32),
        "terminals": ends,
        "timeouts": np.zeros(rows, bool),
        "next_observations": next_obs,
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "hopper-made-up.hdf5"
    data.write(path, hopper_arrays(), env="Hopper-v4", provenance={"test": 1}, licence="MIT", source="a test")
    return path


def run(monkeypatch, capsys, main, *words):
    """Call a command as the shell would -> exit code, output, errors."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code, *capsys.readouterr()


BC = ("--algo=bc", "--preset=smoke", "--episodes=2", "--seeds=2", "--checkpoint-seconds=0")


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    """A finished BC run of two seeds -> its output folder and run directory."""
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["command", *BC, f"--dataset={dataset}", f"--out={out}"])
        with pytest.raises(SystemExit) as stop:
            offline_mbrl.main()
    assert stop.value.code == 0
    (path,) = (p for p in (out / "offline_mbrl").iterdir() if p.is_dir())
    return out, path


def test_a_run_leaves_rows_logs_provenance_and_a_figure(finished):
    out, path = finished
    rows = pd.read_csv(out / "offline_mbrl" / "summary.csv")
    assert list(rows["seed"]) == [0, 1]
    required = "experiment algo dataset preset seed updates return_last score_last score_best status run_id group_id"
    provenance = "schema_version wall_seconds git_commit host resumed"
    assert not set((required + " " + provenance).split()) - set(rows.columns)
    assert rows["run_id"].nunique() == 2
    assert rows["group_id"].nunique() == 1
    assert (rows["status"] == "finished").all()
    low, high = -20.272305, 3234.3
    np.testing.assert_allclose(rows["score_last"], 100 * (rows["return_last"] - low) / (high - low), rtol=1e-9)
    evals = pd.read_csv(path / "eval.csv")
    assert (evals.groupby("seed")["return_mean"].max().to_numpy() == rows["return_best"].to_numpy()).all()
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert {record["seed"] for record in records} == {0, 1}
    assert {"git_commit", "host", "versions", "command"} <= set(json.loads((path / "provenance.json").read_text()))
    assert (path / "curves.png").stat().st_size > 10_000


def test_load_gives_config_parameters_and_a_policy(finished):
    _, path = finished
    loaded = jrs.load(path)
    assert loaded.config["algo"] == "bc"
    assert loaded.seeds == (0, 1)
    obs = np.zeros((5, 11), np.float32)
    actions = [np.asarray(loaded.policy(seed)(obs)) for seed in loaded.seeds]
    assert actions[0].shape == (5, 3)
    assert np.abs(actions[0]).max() <= 1
    assert not np.allclose(*actions)


def test_evaluate_command_shows_a_row_per_seed(finished, monkeypatch, capsys):
    code, output, _ = run(monkeypatch, capsys, evaluate.main, finished[1], "--episodes=2")
    assert code == 0
    assert "2 episodes of each of 2 seeds" in output


def test_variants_in_one_program_leave_the_rows_of_runs_of_their_own(dataset, finished, tmp_path, monkeypatch, capsys):
    """Two seeds of two step sizes, one of them the preset's: its rows have the plain run's ids and numbers."""
    words = (*BC, f"--dataset={dataset}", f"--out={tmp_path}", "--vary", "learning_rate=3e-4", "learning-rate=1e-2")
    code, output, errors = run(monkeypatch, capsys, offline_mbrl.main, *words)
    assert code == 0, errors
    assert "bc learning_rate=0.01 episodes=2 on" in " ".join(output.split())
    rows = pd.read_csv(tmp_path / "offline_mbrl" / "summary.csv", dtype={"settings": str}).fillna({"settings": ""})
    assert list(zip(rows["settings"], rows["seed"], strict=True)) == [
        *(("episodes=2", 0), ("episodes=2", 1)),
        *(("learning_rate=0.01 episodes=2", 0), ("learning_rate=0.01 episodes=2", 1)),
    ]
    assert rows["group_id"].nunique() == 1
    plain = pd.read_csv(finished[0] / "offline_mbrl" / "summary.csv")
    assert list(rows["run_id"][:2]) == list(plain["run_id"])
    np.testing.assert_allclose(rows["return_last"][:2], plain["return_last"], rtol=0.05)
    (path,) = (p for p in (tmp_path / "offline_mbrl").iterdir() if p.is_dir())
    loaded = jrs.load(path)
    assert (loaded.seeds, loaded.settings) == ((0, 1), ("episodes=2", "learning_rate=0.01 episodes=2"))
    obs = np.zeros((1, 11), np.float32)
    assert not np.allclose(loaded.policy(1)(obs), loaded.policy(1, loaded.settings[1])(obs))
    with pytest.raises(UserError, match="no member with seed 2"):
        loaded.policy(2)
    code, output, _ = run(monkeypatch, capsys, evaluate.main, path, "--episodes=1")
    assert code == 0
    assert "settings" in output
    assert len(list(path.glob("curves*.png"))) == 2
    assert run(monkeypatch, capsys, offline_mbrl.main, *words)[0] == 0  # finished: returns at once


def test_a_video_without_its_extra(finished, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "imageio", None)
    line = refused(monkeypatch, capsys, evaluate.main, finished[1], "--episodes=1", "--video")
    assert "needs the extra" in line


def test_a_video_has_the_whole_range_of_actions():
    taken = []

    class Seen(gymnasium.Wrapper):
        """Notes the actions and draws nothing."""

        def step(self, action):
            taken.append(float(action[0]))
            return self.env.step(action)

        def render(self):
            return None

    loaded = types.SimpleNamespace(policy=lambda: lambda obs: np.full((len(obs), 1), 1.0, np.float32))
    frames = evaluate._frames(loaded, Seen(gymnasium.make("Pendulum-v1")))
    assert len(frames) == 201 and set(taken) == {2.0}


def test_a_users_own_algorithm(dataset, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_algorithm.py").write_text(
        "from jaxrl_suite.algorithms.bc import Config, make as base\n"
        "PRESETS = {'smoke': Config(updates=20, evaluations=1, hidden=(8,))}\n"
        "def build(spec, config):\n    return base(spec, config)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = ("--algo=my_algorithm:build", "--preset=smoke", "--episodes=1", f"--dataset={dataset}", f"--out={tmp_path}")
    code, output, errors = run(monkeypatch, capsys, offline_mbrl.main, *words)
    assert code == 0, errors
    assert "my_algorithm:build" in output


# --- Bad input ---
def refused(monkeypatch, capsys, main, *words):
    """The one line of a refusal."""
    code, _, errors = run(monkeypatch, capsys, main, *words)
    assert code == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert "Traceback" not in errors
    return errors


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--algo=ravel"], "did you mean ravl"),
        (["--vary", "critics=3"], "unknown traced setting 'critics'"),
        (["--vary", "tau=-1", "tau=1"], "--tau=-1.0 must not be negative"),
        (["--vary", "tau=0.1", "tau=7"], "--tau=7.0 must not be above 1"),
        (["--gamma=2"], "--gamma=2.0 must not be above 1"),
        (["--critic-lr=inf"], "--critic-lr=inf must be finite"),
        (["--alpha-lr=nan"], "--alpha-lr=nan must be finite"),
        (["--algo=no_such_module:make"], "cannot import"),
        (["--algo=json:make"], "no function 'make'"),
        (["--algo=:make"], "--algo=:make names no module"),
        (["--algo=.json:make"], "names no module"),
        (["--algo=sac"], "learns online"),
        (["--dataset=hoper-medium-replay-mini"], "did you mean hopper-medium-replay-mini"),
        (["--dataset=nowhere/file.hdf5"], "file.hdf5"),
        (["--preset=quik"], "did you mean quick"),
        (["--updats=3"], "did you mean --updates"),
        (
            ["--updates=many"],
            "error: --updates: invalid literal for int() with base 10: 'many'; expected --updates INT",
        ),
        (["--updates=0"], "--updates=0 must be at least 1"),
        (["--hidden=64,64"], "expected --hidden [INT [INT ...]] (see --help)"),
        (["--critics=-2"], "must be at least 1"),
        (["--dynamics.members=0"], "--dynamics.members=0 must be at least 1"),
        (["--episodes=0"], "--episodes=0"),
        (["--seeds=0"], "neither a count"),
        (["--seeds=5:2"], "neither a count"),
        (["--seeds=x"], "neither a count"),
        (["--seeds=0:99999999999999999999"], "--seeds=0:99999999999999999999 is too large; give seeds of at most"),
        (["--seeds=2147483647:2147483649"], "is too large"),
        (["--seeds=0:2147483648"], "give at most 10000"),
        (["--updates=301"], "not a multiple"),
        (["--real-ratio=2"], "share of the batch"),
        (["--head=hlgauss"], "unknown value head"),
        (["--head=symlog", "--aggregate=mean"], "cannot average critics behind symlog"),
        (["--algo=iql", "--updates=1000", "--evaluations=300"], "choose --updates=900, say, or a divisor"),
        (["--algo=iql", "--evaluations=0"], "--evaluations=0 must be at least 1"),
        (["--algo=rambo", "--dynamics.deterministic"], "needs densities, which a deterministic model lacks"),
        (["--algo=rambo", "--clone-steps=-1"], "--clone-steps=-1 must be at least 0"),
        (["stray"], "'stray' belongs to no option"),
    ],
)
def test_bad_options(monkeypatch, capsys, tmp_path, dataset, words, expected):
    given = [word.partition("=")[0] for word in words]
    defaults = [f"--out={tmp_path / 'out'}"] + ([] if "--dataset" in given else [f"--dataset={dataset}"])
    assert expected in refused(monkeypatch, capsys, offline_mbrl.main, *defaults, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("algo", "changes", "told"),
    [
        ("iql", {}, []),
        ("iql", {"bins": 51}, ["--bins=51 changes nothing: --head=mse has no use for it"]),
        ("iql", {"head": "hl_gauss", "support": "0,1"}, ["lie outside"]),
        ("sac_n", {"lipschitz_eps": 0.1}, ["--lipschitz-eps=0.1 changes nothing: --lipschitz=none has no use for it"]),
        ("mopo", {"deterministic": True}, ["--uncertainty=max_aleatoric is 0 everywhere for several deterministic"]),
        ("mopo", {"deterministic": True, "world": "oracle"}, []),
        ("mbpo", {"patch_steps": 7}, ["--patch-steps=7 changes nothing without --patch=edge or random"]),
    ],
)
def test_what_is_asked_in_vain_is_told(algo, changes, told, dataset):
    config = algorithms.get(algo).presets["smoke"]
    if changes.pop("deterministic", False):
        config = dataclasses.replace(config, dynamics=dataclasses.replace(config.dynamics, deterministic=True))
    config = dataclasses.replace(config, **changes)
    lines = complaints.of(config, data.load(str(dataset))[0])
    assert len(lines) == len(told) and all(part in line for part, line in zip(told, lines, strict=True)), lines


def damaged(path, kind):
    """A bad version of a data set at `path`."""
    arrays = hopper_arrays(60)
    if kind == "another environment":
        arrays["observations"] = np.zeros((60, 17), np.float32)
        arrays["next_observations"] = np.zeros((60, 17), np.float32)
    if kind == "NaN":
        arrays["rewards"][7] = np.nan
    if kind == "lengths":
        arrays["actions"] = arrays["actions"][:-1]
    if kind == "key":
        del arrays["rewards"]
    with h5py.File(path, "w") as file:
        file.attrs["env"] = "Hopper-v4"
        for name, values in arrays.items():
            file[name] = values
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:3000])
    if kind == "no HDF5":
        path.write_text("hello")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("another environment", "another environment"),
        ("NaN", "NaN"),
        ("lengths", "59"),
        ("key", "rewards"),
        ("truncated", "hdf5"),
        ("no HDF5", "HDF5"),
    ],
)
def test_bad_data(monkeypatch, capsys, tmp_path, kind, expected):
    path = tmp_path / "bad.hdf5"
    damaged(path, kind)
    before = path.read_bytes()
    line = refused(monkeypatch, capsys, offline_mbrl.main, *BC, f"--dataset={path}", f"--out={tmp_path / 'out'}")
    assert expected in line
    assert path.read_bytes() == before
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file(monkeypatch, capsys, tmp_path, dataset):
    blocked = tmp_path / "file"
    blocked.write_text("mine")
    line = refused(monkeypatch, capsys, offline_mbrl.main, *BC, f"--dataset={dataset}", f"--out={blocked}")
    assert "file" in line
    assert blocked.read_text() == "mine"


def copy_of(finished, tmp_path, monkeypatch):
    """A copy of the finished run whose end is forgotten, as if it had been stopped."""
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    path = out / "offline_mbrl" / finished[1].name
    (path / "status.json").unlink()
    return out, path


def test_two_processes_on_one_run_directory(monkeypatch, capsys, tmp_path, finished, dataset):
    out, path = copy_of(finished, tmp_path, monkeypatch)
    record = json.loads((path / "config.json").read_text())
    label, _, group = path.name.rpartition("-")
    with rundir.open_run(out, "offline_mbrl", label, record, group, False):
        line = refused(monkeypatch, capsys, offline_mbrl.main, *BC, f"--dataset={dataset}", f"--out={out}")
    assert path.name in line


def test_a_flipped_bit_in_a_checkpoint_is_noticed_and_the_older_one_used(
    monkeypatch, capsys, tmp_path, finished, dataset
):
    out, path = copy_of(finished, tmp_path, monkeypatch)
    evals = (path / "eval.csv").read_bytes()
    newest = sorted((path / "checkpoints").glob("*/step_*"))[-1]
    victim = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(bytes(content))
    code, output, errors = run(monkeypatch, capsys, offline_mbrl.main, *BC, f"--dataset={dataset}", f"--out={out}")
    assert code == 0, errors
    assert "note: " in output
    assert "resumed at update 50" in output
    assert (path / "eval.csv").read_bytes() == evals


def test_evaluate_refuses_what_is_no_run(monkeypatch, capsys, tmp_path):
    assert "not a run directory" in refused(monkeypatch, capsys, evaluate.main, tmp_path)
    assert "which run" in refused(monkeypatch, capsys, evaluate.main)


def test_only_runs_that_have_ended_are_loaded(monkeypatch, capsys, tmp_path, finished):
    _, path = copy_of(finished, tmp_path, monkeypatch)
    assert "has not finished; its command" in refused(monkeypatch, capsys, evaluate.main, path)
    (path / "status.json").write_text('{"status": "diverged"}')
    assert jrs.load(path).seeds == (0, 1)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--level=mediun"], "did you mean medium"),
        (["--env=hoper"], "did you mean"),
        (["--steps=0"], "--steps=0"),
        (["--rows=0"], "--rows=0"),
        (["--steps=100"], "--steps=100 leaves nothing"),
        (["--level=medium-expert", "--expert-steps=7"], "--expert-steps=7 leaves nothing"),
        (["--level=expert", "--expert-steps=42000"], "environments; give --expert-steps="),
        (["--level=medium-expert", "--rows=1"], "give at least 2"),
        (["--level=expert", "--threshold=nan"], "--threshold=nan must be finite"),
        (["--level=random", "--seed=-1"], "--seed=-1 must be at least 0"),
        (["--level=random", "--seed=2147483648"], "--seed=2147483648 is too large"),
    ],
)
def test_collect_refuses(monkeypatch, capsys, tmp_path, words, expected):
    monkeypatch.setattr(collect, "learner", lambda *words: pytest.fail("it trained"))
    assert expected in refused(monkeypatch, capsys, collect.main, f"--out={tmp_path}", *words)


def test_collect_refuses_a_folder_that_cannot_be_before_it_collects(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(collect, "arrays_of", lambda *words: pytest.fail("it collected"))
    line = refused(monkeypatch, capsys, collect.main, "--level=random", f"--out={tmp_path / 'file'}")
    assert "cannot use the folder" in line and "Not a directory" in line


@pytest.mark.parametrize("steps", [42_000, 5_004, 5_001])
def test_collect_refuses_steps_that_would_not_all_be_taken(steps, monkeypatch, capsys, tmp_path):
    line = refused(monkeypatch, capsys, collect.main, f"--steps={steps}", f"--out={tmp_path}")
    assert "a multiple of the chunk of 5000 or less than it, all of them multiples of the 8 env" in line
    assert "environments; give --steps=" in line


def test_collect_lists_the_bundled_data(monkeypatch, capsys):
    code, output, _ = run(monkeypatch, capsys, collect.main, "--list")
    assert code == 0
    rows = output.replace("\n", "")
    assert "149," in rows
    assert all(name in rows for name in data.REGISTRY)


def test_the_source_is_a_command_that_collects_the_same():
    chosen = collect.Options(level="expert", threshold=900.0, expert_steps=7000, hidden=(16, 8), publish=True)
    words = collect.command(chosen).split()[3:]
    again = options.parse(collect.Options, words, collect.Options(), "collect", "")
    assert dataclasses.replace(again, publish=True) == chosen


def test_random_level_writes_a_file_that_loads(monkeypatch, capsys, tmp_path):
    code, _, errors = run(
        monkeypatch, capsys, collect.main, "--level=random", "--rows=300", f"--out={tmp_path}", "--seed=3"
    )
    assert code == 0, errors
    dataset, info = data.load(str(tmp_path / "collect" / "hopper-random-mini.hdf5"))
    assert info.rows >= 300
    assert info.env == "Hopper-v4"
    assert info.provenance["options"]["seed"] == 3
    assert info.source.endswith("collect --env=hopper --level=random --seed 3 --rows 300")
    told = info.provenance["data"]
    assert (told["rows"], told["episodes"]) == (info.rows, info.episodes)
    assert told["return_mean"] == round(info.return_mean, 1)
    assert np.abs(dataset.transitions.action).max() <= 1


def test_collect_does_not_replace_the_rows_of_other_options(monkeypatch, capsys, tmp_path):
    words = ("--env=pendulum", "--level=random", "--rows=30", f"--out={tmp_path}")
    for _ in range(2):  # the same rows may be made again
        assert run(monkeypatch, capsys, collect.main, *words, "--format=d4rl,minari")[0] == 0
    for form in ("d4rl", "minari"):
        line = refused(monkeypatch, capsys, collect.main, *words, f"--format={form}", "--seed=3")
        assert "holds other rows (jaxrl_suite: python -m experiments.collect" in line and "--rows 30)" in line
    assert run(monkeypatch, capsys, collect.main, *words, "--seed=3", "--fresh")[0] == 0
    info = data.load(str(tmp_path / "collect" / "pendulum-random-mini.hdf5"))[1]
    assert info.provenance["options"]["seed"] == 3


def outcome(**facts):
    return lambda job, directory, display: types.SimpleNamespace(diverged=[False], **facts)


@pytest.mark.parametrize(("more", "told"), [([], "the same command resumes"), (["--fresh"], "without --fresh resumes")])
def test_a_stopped_collection_says_what_resumes_it(monkeypatch, capsys, tmp_path, more, told):
    monkeypatch.setattr(collect.loop, "run", outcome(finished=False))
    words = ("--env=pendulum", "--level=expert", "--threshold=-300", f"--out={tmp_path}", *more)
    code, output, errors = run(monkeypatch, capsys, collect.main, *words)
    assert code == 75 and told in output, errors


def test_a_learner_that_has_finished_is_logged_all_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(collect.loop, "run", outcome(finished=True))
    chosen, spec, display = collect.Options(out=tmp_path), envs.spec("pendulum"), Display(quiet=True)
    (config,) = collect.learners(chosen).values()
    path = collect.learner(chosen, spec, config, display)
    assert not (path / "tensorboard").exists()
    assert collect.learner(dataclasses.replace(chosen, log="tensorboard"), spec, config, display) == path
    assert (path / "tensorboard").is_dir()


def test_of_an_option_given_twice_the_last_counts_everywhere():
    words = ["--algo=bc", "--preset=paper", "--algo", "ravl", "--preset=smoke"]
    shared, entry, config = options.offline(words, "test", "")
    assert (shared.algo, entry.name) == ("ravl", "ravl")
    assert (shared.preset, config) == ("smoke", algorithms.preset(entry, "smoke"))


def test_seeds():
    assert options.parse_seeds("3") == (0, 1, 2)
    assert options.parse_seeds("8:11") == (8, 9, 10)
    with pytest.raises(UserError):
        options.parse_seeds("-1")


def test_ctrl_c_where_nothing_is_to_be_saved_is_one_line(capsys):
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        exits_cleanly(main)()
    assert (stop.value.code, capsys.readouterr().err) == (130, "interrupted\n")


def never(*_):
    raise AssertionError("trains")


@pytest.mark.parametrize(
    ("main", "table", "words"),
    [
        (offline_mbrl.main, "offline_mbrl/summary.csv", BC),
        (value_heads.main, "value_heads/summary.csv", ("--preset=smoke", "--only=targets")),
        (ensemble_vs_lipschitz.main, "ensemble_vs_lipschitz/summary.csv", ("--preset=smoke", "--models=sac")),
        (ensemble_vs_lipschitz.main, "ensemble_vs_lipschitz/diagnostics.csv", ("--preset=smoke", "--models=sac")),
        (edge_of_reach.main, "edge_of_reach/summary.csv", ("--preset=smoke",)),
        (edge_of_reach.main, "edge_of_reach/shells.csv", ("--preset=smoke",)),
        (edge_of_reach.main, "edge_of_reach/summary.csv", ("--preset=smoke", "--world=hopper")),
    ],
)
def test_a_damaged_table_is_found_before_anything_is_trained(monkeypatch, capsys, tmp_path, main, table, words):
    monkeypatch.setattr(loop, "run", never)
    monkeypatch.setattr(value_heads, "train", never)
    path = tmp_path / table
    path.parent.mkdir()
    path.write_text("garbage\n")
    code, _, error = run(monkeypatch, capsys, main, *words, f"--out={tmp_path}")
    assert (code, error.count("\n")) == (2, 1) and f"{path} is not a summary that can be read" in error
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [path] and path.read_text() == "garbage\n"


def test_host_of_a_pure_environment_is_refused_by_the_option(monkeypatch, capsys, tmp_path):
    words = ("--preset=smoke", "--env=pendulum", "--host", f"--out={tmp_path / 'runs'}")
    code, _, error = run(monkeypatch, capsys, ensemble_vs_lipschitz.main, *words)
    assert code == 2 and error.endswith("Pendulum-v1 is a pure environment, which needs no host; leave out --host\n")
    assert not (tmp_path / "runs").exists()


def test_a_model_that_is_not_there_is_refused_before_there_is_a_run(monkeypatch, capsys, dataset, tmp_path):
    words = ("--algo=mopo", "--preset=smoke", f"--dataset={dataset}", f"--model={tmp_path / 'no'}")
    code, _, error = run(monkeypatch, capsys, offline_mbrl.main, *words, f"--out={tmp_path / 'runs'}")
    assert code == 2 and f"--model={tmp_path / 'no'} holds no fitted model; give" in error
    assert not (tmp_path / "runs").exists()


def test_the_list_of_algorithms_is_of_those_that_its_commands_take(monkeypatch, capsys):
    code, output, _ = run(monkeypatch, capsys, offline_mbrl.main, "--algo")
    listed = re.findall(r"│ (\w+) +│ offline", output)
    assert code == 0 and sorted(listed) == sorted(
        each.name for each in algorithms.ALGORITHMS.values() if not each.online
    )
    assert "sac " not in output and "no pessimism beyond the least of two critics" in output


@pytest.mark.parametrize("main", [offline_mbrl.main, ensemble_vs_lipschitz.main])
def test_help_lists_every_head(monkeypatch, capsys, main):
    text = " ".join(run(monkeypatch, capsys, main, "--help")[1].replace("│", " ").split())
    told = re.search(r"Value head of the critics: ([\w, ]+)\.", text)
    assert told and sorted(told[1].split(", ")) == sorted(heads.HEADS)


def test_value_heads_describes_every_study():
    described = value_heads.__doc__.split("Studies:")[1].split("Without options")[0]
    only = inspect.getsource(value_heads.Options).split("Make only these studies")[1].split("by default all")[0]
    for text in (described, only):
        assert set(heads_studies.STUDIES) <= set(re.findall(r"\w+", text))
