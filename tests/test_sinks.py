"""Sinks: TensorBoard and Weights & Biases hold what the local logs hold, each point once, and never stop a run."""

import csv
import json
import math
import resource
import struct
import sys
from collections import Counter

import numpy as np
import pytest
from test_resume import assert_same, finish, killed, launch, run_directory

from experiments import collect, offline_mbrl, options, sweep
from jaxrl_suite.errors import UserError
from jaxrl_suite.train import rundir, sinks
from jaxrl_suite.train.loop import EVAL_COLUMNS

pytest.importorskip("tensorboard", reason='needs tensorboard: pip install -e ".[dev]"')
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

METRICS = [
    {"phase": phase, "update": update, "seed": seed, "loss": update / 7 + seed, "diverged": False, "gone": None}
    for phase, update in (("model", 5), ("model", 10), ("agent", 5), ("agent", 10))
    for seed in (0, 1)
]
EVALS = [
    {**dict.fromkeys(EVAL_COLUMNS, math.nan), "seed": seed, "update": update, "return_mean": 3.5 * update + seed}
    for update in (5, 10)
    for seed in (0, 1)
]


@pytest.fixture
def run(tmp_path):
    """A run directory with its configuration and no logs yet."""
    path = tmp_path / "made-up-run"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"config": {"algo": "made-up", "config": {"tau": 0.5}}, "seeds": [0]}))
    return path


class Sitting:
    """Logs and sinks side by side, as the loop keeps them."""

    def __init__(self, path, *names):
        self.metrics = rundir.Log.jsonl(path / "metrics.jsonl")
        self.evals = rundir.Log.csv(path / "eval.csv", EVAL_COLUMNS)
        self.notes = []
        self.sinks = sinks.Sinks(names, path, self.notes.append)
        self.sinks.begin()

    def add(self, metrics=(), evals=()):
        for record in metrics:
            self.metrics.append(record)
            self.sinks.write(record["phase"], record)
        for record in evals:
            self.evals.append(record)
            self.sinks.write("eval", record)
        return self


def expected(path, several=False):
    """(member, tag, update) -> value of everything that the local logs hold."""
    points = {}
    for line in (path / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        for name in set(record) - {"phase", "seed", "settings", "update"}:
            if record[name] is not None:
                points[sinks.member(record, several), f"{record['phase']}/{name}", record["update"]] = record[name]
    for row in csv.DictReader((path / "eval.csv").read_text().splitlines()):
        for name in set(row) - {"seed", "settings", "update"}:
            if math.isfinite(float(row[name] or "nan")):
                points[sinks.member(row, several), f"eval/{name}", int(row["update"])] = float(row[name])
    return points


def tensorboard(path):
    """The same from TensorBoard's own reader; fails where a point is there twice."""
    points = {}
    for folder in {file.parent for file in (path / "tensorboard").rglob("*tfevents*")}:
        read = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        read.Reload()
        for tag in read.Tags()["scalars"]:
            for event in read.Scalars(tag):
                place = str(folder.relative_to(path / "tensorboard")), tag, event.step
                assert place not in points
                points[place] = event.value
    return points


def wandb_records(path):
    """The records of a .wandb file: blocks of 32 kB, in them pieces with a header of checksum, length and kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    raw, place, whole, records = path.read_bytes(), 7, b"", []
    while place + 7 <= len(raw):
        if 32768 - place % 32768 < 7:  # too little is left of this block for a header
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", raw, place)
        whole += raw[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the end of one
            records.append(Record.FromString(whole))
            whole = b""
    return records


def wandb_points(path):
    """The same from the files of Weights & Biases, and what each run is -> (points, run by member)."""
    points, described = Counter(), {}
    values = {}
    for file in (path / "wandb").rglob("*.wandb"):
        records = wandb_records(file)
        (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
        name = run.display_name.partition("/")[2]
        described[name] = run
        for record in records:
            if record.WhichOneof("record_type") != "history":
                continue
            items = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
            kind = next(key.partition("/")[0] for key in items if "/" in key)
            update = items.pop(f"{kind}/update")
            for tag, value in items.items():
                if not tag.startswith("_"):
                    points[name, tag, update] += 1
                    values[name, tag, update] = value
    assert set(points.values()) <= {1}
    return values, described


def assert_mirrored(found, wanted, rtol=1e-6):
    """TensorBoard holds float32."""
    assert set(found) == set(wanted) and wanted
    places = sorted(wanted)
    np.testing.assert_allclose([found[p] for p in places], [float(wanted[p]) for p in places], rtol=rtol)


# --- what they hold ---
def test_tensorboard_holds_what_the_logs_hold(run):
    with Sitting(run, "tensorboard").add(METRICS, EVALS).sinks:
        assert_mirrored(tensorboard(run), expected(run))  # already before it is closed
    points = tensorboard(run)
    assert points["seed_1", "eval/return_mean", 10] == 36.0 and points["seed_0", "model/diverged", 5] == 0.0
    assert {member for member, _, _ in points} == {"seed_0", "seed_1"}
    assert not [tag for _, tag, _ in points if tag.endswith(("gone", "q_start", "seed", "update"))]


def test_a_resumed_run_shows_each_point_once_and_none_that_was_cut(run):
    killed = Sitting(run, "tensorboard").add(METRICS[:6], EVALS[:2])
    stood = killed.metrics.offset()
    killed.add([{**METRICS[6], "loss": 1e9}, {**METRICS[7], "update": 999}])
    killed.metrics.truncate(stood)  # as the loop does when it resumes; the sinks were never closed
    with killed.sinks, Sitting(run, "tensorboard").add(METRICS[6:], EVALS[2:]).sinks:
        assert_mirrored(tensorboard(run), expected(run))
    assert len(expected(run)) == 2 * len(METRICS) + len(EVALS)


def test_members_that_differ_in_settings_are_apart(run):
    described = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(described | {"variants": [["", {}], ["tau=1", {"tau": 1.0}]]}))
    records = [{"phase": "agent", "update": 1, "seed": 0, "settings": text, "loss": 1.0} for text in ("", "tau=1")]
    with Sitting(run, "tensorboard").add(records).sinks:
        pass
    assert set(tensorboard(run)) == {("seed_0", "agent/loss", 1), ("tau=1/seed_0", "agent/loss", 1)}
    assert sinks.member(records[1], several=False) == "seed_0"
    assert sinks.member({"seed": 0, "settings": math.nan}, several=False) == "seed_0"


def test_weights_and_biases_holds_what_the_logs_hold(run):
    """The real library, offline. An earlier sitting leaves nothing behind."""
    wandb = pytest.importorskip("wandb", reason='needs wandb: pip install -e ".[wandb]"')
    with Sitting(run, "wandb").add(METRICS[:2], EVALS[:1]).sinks:
        pass
    wandb.teardown()  # waits for the process that writes, as the end of a command does
    (run / "metrics.jsonl").write_text("")
    (run / "eval.csv").unlink()
    sitting = Sitting(run, "wandb")
    with sitting.add(METRICS, EVALS).sinks:
        pass
    wandb.teardown()
    assert sitting.notes == []
    points, described = wandb_points(run)
    assert_mirrored(points, expected(run), rtol=0)
    assert set(described) == {"seed_0", "seed_1"} and len({each.run_id for each in described.values()}) == 2
    assert {each.run_group for each in described.values()} == {run.name}
    config = {item.key: json.loads(item.value_json) for item in described["seed_0"].config.update}
    assert config["algo"] == "made-up" and config["config"] == {"tau": 0.5} and config["member"] == "seed_0"


# --- in a run ---
WORDS = ("--algo=bc", "--preset=smoke", "--episodes=2", "--updates=200", "--evaluations=8")


def test_a_killed_and_resumed_run_is_mirrored_and_is_the_run_without_sinks(tmp_path, monkeypatch, capsys):
    class Moment:
        """Kill after the second checkpoint."""

        randint, uniform = staticmethod(lambda *_: 2), staticmethod(lambda *_: 0.0)

    def start(out):
        return launch("experiments.offline_mbrl", out, *WORDS, "--log=tensorboard")

    assert killed(start, tmp_path / "logged", Moment)
    finish(start(tmp_path / "logged"))
    finish(launch("experiments.offline_mbrl", tmp_path / "plain", *WORDS))
    assert_same(tmp_path / "logged", tmp_path / "plain")  # run and group ids too
    path = run_directory(tmp_path / "logged")
    assert_mirrored(tensorboard(path), expected(path))

    # A finished run gets sinks from its logs, without training.
    path, before = run_directory(tmp_path / "plain"), expected(path)
    monkeypatch.setattr(sys, "argv", ["run", *WORDS, f"--out={tmp_path / 'plain'}", "--log=tensorboard"])
    with pytest.raises(SystemExit) as stop:
        offline_mbrl.main()
    assert stop.value.code == 0, capsys.readouterr().err
    assert_mirrored(tensorboard(path), before)


# --- what goes wrong ---
def test_a_sink_that_fails_is_told_once_and_the_others_go_on(run, monkeypatch):
    def broken(_):
        def write(*_):
            raise RuntimeError("the\nlibrary is cross")

        return sinks.Sink(write, close=write)

    monkeypatch.setitem(sinks.SINKS, "wandb", broken)
    sitting = Sitting(run, "wandb", "tensorboard")
    with sitting.add(METRICS, EVALS).sinks:
        pass
    assert sitting.notes == [
        "--log=wandb has stopped: the library is cross; the run goes on, its own logs are complete"
    ]
    assert_mirrored(tensorboard(run), expected(run))


def test_a_full_disk_stops_the_sink_alone(run):
    """The system refuses to let its files grow, as a full disk does."""
    sitting = Sitting(run, "tensorboard")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        for record in METRICS:
            sitting.sinks.write(record["phase"], record)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (note,) = sitting.notes
    assert "--log=tensorboard has stopped: [Errno" in note and "\n" not in note
    with sitting.sinks:
        sitting.add(METRICS)
    assert len(sitting.notes) == 1 and len((run / "metrics.jsonl").read_text().splitlines()) == len(METRICS)


def test_logs_that_cannot_be_read_stop_the_sink_alone(run):
    (run / "metrics.jsonl").write_text("{half")
    notes = []
    sinks.export("tensorboard", run, notes.append)
    assert len(notes) == 1 and "--log=tensorboard has stopped" in notes[0]


def test_a_folder_that_is_in_the_way_stops_the_sink_alone(run):
    (run / "tensorboard").write_text("a file")
    sitting = Sitting(run, "tensorboard").add(METRICS)
    assert len(sitting.notes) == 1 and (run / "tensorboard").read_text() == "a file"


@pytest.mark.parametrize("command", [offline_mbrl, collect, sweep])
@pytest.mark.parametrize(
    ("log", "expected"),
    [("tensorbord", "did you mean tensorboard"), ("tensorboard", 'pip install -e ".[tensorboard]"')],
)
def test_an_unknown_sink_or_a_missing_extra_is_told_before_training(
    monkeypatch, capsys, tmp_path, command, log, expected
):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    monkeypatch.setattr(sys, "argv", ["command", f"--out={tmp_path / 'out'}", f"--log={log}"])
    with pytest.raises(SystemExit) as stop:
        command.main()
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and errors.startswith("error: ") and errors.count("\n") == 1
    assert expected in errors and not (tmp_path / "out").exists()


def test_names_of_sinks():
    assert sinks.parse("") == () and sinks.parse("tensorboard, tensorboard,") == ("tensorboard",)
    with pytest.raises(UserError, match="unknown sink"):
        sinks.parse("tensorboard,x")


def test_a_sweep_hands_the_sinks_to_its_runs():
    (planned,) = sweep.plan(sweep.Options(algo="bc", preset="smoke", log="tensorboard"))
    (plain,) = sweep.plan(sweep.Options(algo="bc", preset="smoke"))
    assert planned.task.options["log"] == "tensorboard" and planned.group == plain.group
    shared, *_ = options.offline([f"--{n}={v}" for n, v in planned.task.options.items()], "test", "")
    assert shared.log == "tensorboard"
