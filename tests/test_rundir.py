"""Run directories, logs, summaries: nothing is lost, overwritten or half done."""

import csv
import json
import os
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxrl_suite.errors import UserError
from jaxrl_suite.train import files, identity, rundir
from jaxrl_suite.train.rundir import Log, open_run, read_rows, upsert_rows

CONFIG = {"lr": 1e-4, "hidden": (256, 256), "seeds": [0, 1]}


def start(out, config=CONFIG, fresh=False, label="ravl-hopper", group="0123abcd"):
    return open_run(out, "offline", label, config, group, fresh)


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def full(*_, **__):
    raise OSError(28, "No space left on device")


# --- Run directories ---
def test_a_run_from_new_to_finished(tmp_path):
    with start(tmp_path) as run:
        assert run.path == tmp_path / "offline" / "ravl-hopper-0123abcd" and run.state == "new"
    with start(tmp_path) as run:
        assert run.state == "resumable"
        run.finish("diverged")
        assert run.state == "finished"
    before = snapshot(tmp_path)
    with start(tmp_path) as run:
        assert run.state == "finished"
    assert snapshot(tmp_path) == before
    assert json.loads((run.path / "status.json").read_text()) == {"status": "diverged"}
    assert json.loads((run.path / "config.json").read_text()) == json.loads(identity.canonical(CONFIG))
    assert json.loads((run.path / "provenance.json").read_text())["python"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_fresh_starts_beside_and_the_newest_attempt_is_opened(tmp_path):
    paths = []
    for _ in range(11):
        with start(tmp_path, fresh=True) as run:
            assert run.state == "new"
            paths.append(run.path.name)
    assert paths == ["ravl-hopper-0123abcd"] + [f"ravl-hopper-0123abcd-r{i}" for i in range(2, 12)]
    (tmp_path / "offline" / "ravl-hopper-0123abcd-r99x").mkdir()  # somebody else's
    with start(tmp_path) as run:
        assert (run.path.name, run.state) == ("ravl-hopper-0123abcd-r11", "resumable")


def test_a_run_that_was_killed_before_its_config_was_there_is_new(tmp_path):
    with start(tmp_path) as run:
        (run.path / "config.json").unlink()
    with start(tmp_path) as run:
        assert run.state == "new" and (run.path / "config.json").exists()


def test_labels_cannot_leave_the_folder(tmp_path):
    with start(tmp_path, label="../mujoco/hopper v0") as run:
        assert run.path.parent == tmp_path / "offline"
        assert run.path.name == "..-mujoco-hopper-v0-0123abcd"


@pytest.mark.parametrize("text", ['{"lr": 1}', "{", "", b"\xff", "[" * 100_000])
def test_another_or_a_damaged_config_is_refused_and_untouched(tmp_path, text):
    with start(tmp_path) as run:
        (run.path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=r"config\.json describes another run.*--fresh"):
        start(tmp_path)
    after = snapshot(tmp_path)
    assert {path for path in after if after[path] != before.get(path)} <= {run.path / "lock"}
    with start(tmp_path, fresh=True) as beside:  # the lock of the refused one is not held either
        assert beside.path.name.endswith("-r2")


HOLD = """
import sys
from pathlib import Path
from jaxrl_suite.train.rundir import open_run
run = open_run(Path(sys.argv[1]), "offline", "ravl-hopper", {}, "0123abcd", False)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_run_of_another_process_is_refused_until_it_dies(tmp_path):
    with start(tmp_path, {}), pytest.raises(UserError, match=rf"in use by process {os.getpid()} on "):
        start(tmp_path, {})
    command = [sys.executable, "-c", HOLD, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"in use by process {process.pid} on .*wait for it or use --out"):
            start(tmp_path, {})
        process.kill()
        process.wait()
    with start(tmp_path, {}) as run:
        assert run.state == "resumable"


def harm_out(tmp_path):
    (tmp_path / "out").write_text("a file")


def harm_experiment(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "offline").write_text("a file")


def harm_run(tmp_path):
    (tmp_path / "out" / "offline").mkdir(parents=True)
    (tmp_path / "out" / "offline" / "ravl-hopper-0123abcd").write_text("a file")


@pytest.mark.parametrize("harm", [harm_out, harm_experiment, harm_run])
def test_a_file_in_place_of_a_folder(tmp_path, harm):
    harm(tmp_path)
    with pytest.raises(UserError, match=r"cannot use the folder .*out.*--out"):
        start(tmp_path / "out")


@pytest.mark.parametrize("number", [13, 28, 30])
@pytest.mark.parametrize("place", ["os.replace", "os.fsync", "os.pwrite", "os.open"])
def test_what_the_system_refuses_names_the_folder_and_leaves_no_lock(tmp_path, monkeypatch, place, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(place, refuse)
        with pytest.raises(UserError, match=f"cannot use the folder .*ravl-hopper-0123abcd: {os.strerror(number)}"):
            start(tmp_path)
    with start(tmp_path) as run:
        assert run.state in ("new", "resumable")  # the folder's own fsync comes after the file is in place
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    files.write_atomically(tmp_path / "a", "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="No space left"):
            files.write_atomically(tmp_path / "a", "new")
    assert snapshot(tmp_path) == {tmp_path / "a": b"old"}


# --- Logs ---
def test_a_json_log(tmp_path):
    log = Log.jsonl(tmp_path / "metrics.jsonl")
    log.append({"seed": np.int64(3), "loss": np.float32(0.5), "bad": float("nan"), "done": True, "name": "π\n"})
    log.sync()
    lines = log.path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"seed": 3, "loss": 0.5, "bad": None, "done": True, "name": "π\n"}]


def test_a_csv_log_has_a_fixed_header(tmp_path):
    log = Log.csv(tmp_path / "eval.csv", ["a", "b"])
    assert log.path.read_text() == "a,b\n"
    log.append({"b": np.float64(0.1) + 0.2, "a": "x,y"})
    assert log.path.read_text() == 'a,b\n"x,y",0.30000000000000004\n'
    with pytest.raises(ValueError, match="columns"):
        log.append({"a": 1})
    with pytest.raises(ValueError, match="one line"):
        log.append({"a": "two\nlines", "b": 1})
    log.truncate(0)
    assert log.path.read_text() == "a,b\n"
    with pytest.raises(UserError, match="other columns"):
        Log.csv(log.path, ["a", "c"])


def test_writers_that_begin_a_log_together_write_one_header_and_lose_no_row(tmp_path, monkeypatch):
    write, together = Log._write, threading.Barrier(4)
    monkeypatch.setattr(Log, "_write", lambda log, line: time.sleep(0.02) or write(log, line))

    def work(number):
        together.wait()
        Log.csv(tmp_path / "starts.csv", ["worker"]).append({"worker": number})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    header, *rows = (tmp_path / "starts.csv").read_text().splitlines()
    assert header == "worker" and sorted(rows) == ["0", "1", "2", "3"]


def test_a_resumed_run_cuts_what_came_after_its_checkpoint(tmp_path):
    log = Log.jsonl(tmp_path / "metrics.jsonl")
    log.append({"n": 1})
    known = log.offset()
    log.append({"n": 2})
    again = Log.jsonl(log.path)
    again.truncate(known)
    again.append({"n": 3})
    assert log.path.read_text() == '{"n":1}\n{"n":3}\n'


@pytest.mark.parametrize("offset", [3, 9])
def test_a_log_that_the_checkpoint_did_not_know(tmp_path, offset):
    log = Log.jsonl(tmp_path / "metrics.jsonl")
    log.append({"n": 1})
    with pytest.raises(UserError, match="not the log that its checkpoint knew"):
        log.truncate(offset)
    assert log.path.read_text() == '{"n":1}\n'


ROWS = st.lists(st.tuples(st.integers(), st.text(st.characters(codec="utf-8"), max_size=5)), max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, cut=st.integers(0, 10_000))
def test_a_log_cut_anywhere_opens_with_the_whole_lines_before(tmp_path, rows, cut):
    path = tmp_path / "torn.jsonl"
    path.unlink(missing_ok=True)
    log, ends = Log.jsonl(path), [0]
    for number, text in rows:
        log.append({"n": number, "text": text})
        ends.append(log.offset())
    cut = cut % (ends[-1] + 1)
    os.truncate(path, cut)
    again = Log.jsonl(path)
    whole = max(i for i, end in enumerate(ends) if end <= cut)
    assert again.offset() == ends[whole]
    assert [tuple(json.loads(line).values()) for line in path.read_bytes().split(b"\n")[:-1]] == rows[:whole]


def test_a_long_torn_line_and_a_torn_header(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"{}\n" + b"x" * 200_000)
    assert Log.jsonl(path).offset() == 3
    path.write_bytes(b"a,")
    assert Log.csv(path, ["a", "b"]).path.read_text() == "a,b\n"


def test_a_row_on_a_full_disk_is_not_half_there(tmp_path, monkeypatch):
    log = Log.jsonl(tmp_path / "metrics.jsonl")
    log.append({"n": 1})
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:4]))
    with pytest.raises(UserError, match=re.escape(f"cannot use the folder {tmp_path}: No space left")):
        log.append({"n": 2})
    assert log.path.read_text() == '{"n":1}\n'


# --- Summaries ---
COLUMNS = ["run_id", "seed", "score", "schema_version"]


def row(run, seed=0, score=0.5, version=1):
    return {"run_id": run, "seed": seed, "score": score, "schema_version": version}


def test_rows_are_added_or_replaced(tmp_path):
    path = tmp_path / "new" / "summary.csv"
    upsert_rows(path, [row("a"), row("b", 1)], COLUMNS)
    upsert_rows(path, [row("a", score=0.1 + 0.2), row("c", 2, float("nan"))], COLUMNS)
    rows = read_rows(path)
    assert [r["run_id"] for r in rows] == ["a", "b", "c"]
    assert rows[0] == row("a", score=0.1 + 0.2) | {"settings": ""} and np.isnan(rows[2]["score"])
    assert [path.name for path in path.parent.iterdir()] == ["summary.csv"]


def test_cells_come_back_as_they_were(tmp_path):
    path = tmp_path / "summary.csv"
    values = {"run_id": "12345678e901", "group_id": "000000000001", "git_commit": "1" * 40, "host": "7"}
    values |= {"n": -3, "x": np.float32(0.1).item(), "y": 1e-300, "ok": True, "bad": False, "text": 'a,"b"\nc\r'}
    upsert_rows(path, [values | {"none": None, "z": np.float64(2), "k": np.int32(4)}], list(values))
    (back,) = read_rows(path)
    assert {name: back[name] for name in values} == values
    assert {name: type(back[name]) for name in values} == {name: type(value) for name, value in values.items()}
    assert np.isnan(back["none"]) and (back["z"], back["k"]) == (2.0, 4)


def test_unknown_columns_of_older_rows_stay(tmp_path):
    path = tmp_path / "summary.csv"
    path.write_text("old,run_id,score,schema_version\n007,a,0.50,1\n")
    upsert_rows(path, [row("b")], COLUMNS)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"run_id": "a", "seed": "", "score": "0.50", "schema_version": "1", "old": "007"}
    assert rows[1]["old"] == "" and list(rows[0]) == [*COLUMNS, "old"]


DAMAGED = {
    "empty": b"",
    "torn": b"run_id,seed\na,1\nb\n",
    "merge": b"run_id,seed\n<<<<<<< HEAD\na,1\n",
    "binary": b"\xff\xfe\x00",
    "nul": b"run_id,seed\na,\0\n",
    "quote": b'run_id,seed\na,"1\n',
    "header": b"run_id,run_id\na,b\n",
    "no key": b"seed,score\n1,2\n",
    "empty key": b"run_id,seed\n,2\n",
    "version": b"run_id,schema_version\na,x\n",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_summary_is_refused_and_untouched(tmp_path, damage):
    path = tmp_path / "summary.csv"
    path.write_bytes(DAMAGED[damage])
    with pytest.raises(UserError, match=r"summary\.csv is not a summary that can be read: .*repair it or move it away"):
        upsert_rows(path, [row("b")], COLUMNS)
    assert snapshot(tmp_path) == {path: DAMAGED[damage]}


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [("seed", "x", "whole number"), ("seed", "1.5", "whole number"), ("q_last", "?", "number")],
)
def test_a_text_where_numbers_belong_is_refused_with_its_file_and_row(tmp_path, name, text, kind):
    path = tmp_path / "summary.csv"
    path.write_text(f"run_id,{name}\na,1\nb,\nc,{text}\n")
    with pytest.raises(UserError, match=rf"summary\.csv, row 4: {name} is '{re.escape(text)}', expected a {kind};"):
        read_rows(path)


def test_a_newer_schema_is_refused_and_untouched(tmp_path):
    path = tmp_path / "summary.csv"
    path.write_text(f"run_id,schema_version\na,{rundir.SCHEMA_VERSION + 1}\n")
    before = snapshot(tmp_path)
    for use in (lambda: upsert_rows(path, [row("b")], COLUMNS), lambda: read_rows(path)):
        with pytest.raises(UserError, match="schema 3, this version knows 2"):
            use()
    assert snapshot(tmp_path) == before


def test_a_missing_summary_and_a_missing_key(tmp_path):
    with pytest.raises(UserError, match="there is no summary"):
        read_rows(tmp_path / "summary.csv")
    with pytest.raises(ValueError, match="needs a run_id"):
        upsert_rows(tmp_path / "summary.csv", [{"seed": 1}], COLUMNS)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot use the folder"):
        upsert_rows(tmp_path / "file" / "summary.csv", [row("a")], COLUMNS)


UPSERT = """
import sys
from pathlib import Path
from jaxrl_suite.train.rundir import upsert_rows
sys.stdin.readline()
for i in range(25):
    rows = [{"run_id": f"{sys.argv[2]}{i}", "seed": i}, {"run_id": "shared", "seed": i}]
    upsert_rows(Path(sys.argv[1]), rows, ["run_id", "seed"])
"""


def test_two_processes_lose_no_rows(tmp_path):
    path = tmp_path / "summary.csv"
    commands = [[sys.executable, "-c", UPSERT, path, name] for name in "ab"]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for command in commands]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.wait() for process in processes] == [0, 0]
    for process in processes:
        process.stdin.close()
    ids = [row["run_id"] for row in read_rows(path)]
    assert sorted(ids) == sorted(["shared", *(f"{name}{i}" for name in "ab" for i in range(25))])
    assert [path.name for path in tmp_path.iterdir()] == ["summary.csv"]


def test_the_lock_excludes_threads(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(20):
            with files.locked(tmp_path / "lock"):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 80 and set(most) == {1} and not list(tmp_path.iterdir())
