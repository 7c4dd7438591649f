"""What a run is called, where it came from, and how it is asked to stop."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_suite import errors
from jaxrl_suite.train import identity
from jaxrl_suite.train.interrupts import RESUMABLE, Interrupts


# --- Identity ---
@dataclasses.dataclass(frozen=True)
class Config:
    lr: float = 3e-4
    hidden: tuple = (256, 256)
    out: Path = Path("runs") / "x"


def test_canonical_text():
    assert identity.canonical(Config()) == '{"hidden":[256,256],"lr":0.0003,"out":"runs/x"}'
    assert (
        identity.canonical({"b": np.float32(0.1), "a": {1: np.arange(2)}})
        == '{"a":{"1":[0,1]},"b":0.10000000149011612}'
    )
    assert identity.canonical([0.1 + 0.2, 1.0, 1, True, None]) == "[0.30000000000000004,1.0,1,true,null]"
    assert identity.canonical({"a": {"x", "b"}}) == '{"a":["b","x"]}'
    for bad in ({"f": len}, {1: 0, "1": 0}, object()):
        with pytest.raises(TypeError):
            identity.canonical(bad)


@given(st.dictionaries(st.text(max_size=3), st.floats() | st.integers() | st.lists(st.booleans()), max_size=4))
@settings(max_examples=50, deadline=None)
def test_canonical_does_not_depend_on_order_and_survives_json(config):
    text = identity.canonical(config)
    assert identity.canonical(dict(reversed(config.items()))) == text
    assert identity.canonical(json.loads(text)) == text


def test_identities_tell_apart_what_differs():
    config = {"algo": "ravl", "lr": 0.1}
    ids = [
        identity.run_id(config, 0),
        identity.run_id(config, 1),
        identity.run_id({**config, "lr": 0.2}, 0),
        identity.group_id(config, [0], None, "cpu"),
        identity.group_id(config, [0, 1], None, "cpu"),
        identity.group_id(config, [1, 0], None, "cpu"),
        identity.group_id(config, [0, 1], {"lr": [0.1, 0.2]}, "cpu"),
        identity.group_id(config, [0, 1], None, "cpu x 2"),
        identity.digest("ab", "c"),
        identity.digest("a", "bc"),
        identity.digest("abc"),
    ]
    assert len(set(ids)) == len(ids) and all(re.fullmatch("[0-9a-f]{12}", name) for name in ids)
    assert identity.run_id(dict(reversed(config.items())), np.int64(0)) == ids[0]
    assert identity.group_id(config, range(2), None, "cpu") == ids[4]


def test_code_version_follows_the_source(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.py").write_text("y = 1\n")
    first = identity.code_version(tmp_path)
    (tmp_path / "notes.txt").write_text("no source")
    assert identity.code_version(tmp_path) == first
    (tmp_path / "deep" / "b.py").write_text("y = 2\n")
    assert identity.code_version(tmp_path) != first
    assert identity.code_version("errors.py") == identity.code_version(errors) != identity.code_version("types.py")
    assert identity.code_version("jaxrl_suite.errors") == identity.code_version("errors.py")
    assert identity.code_version("train") != identity.code_version("models")
    for unknown in ("no_such_thing.py", "no_such_thing", "/no/such/folder"):
        with pytest.raises(ValueError, match="no source"):
            identity.code_version(unknown)


def test_file_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert identity.file_digest(tmp_path / "a") == expected


def test_provenance_holds_versions_and_no_absolute_path(monkeypatch):
    arguments = ["/data/me/experiments/x.py", "--out=/scratch/me/runs", "a,/b/c", "/", "runs/here", "1/2", "/tmp/"]
    monkeypatch.setattr(sys, "argv", arguments)
    record = identity.provenance()
    assert record["command"] == ["x.py", "--out=runs", "a,c", "/", "runs/here", "1/2", "tmp/"]
    assert set(record["versions"]) >= {"jax", "jaxlib", "flax", "optax", "numpy", "envpool", "orbax-checkpoint"}
    assert "not installed" not in record["versions"].values()
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", record["git_commit"])
    assert record["started"].endswith("+00:00")


def git(folder, *arguments):
    name = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", folder, *name, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_that_of_the_clone(tmp_path, monkeypatch):
    package = tmp_path / "clone" / "package"
    package.mkdir(parents=True)
    monkeypatch.setattr(identity, "PACKAGE", package)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (package / "errors.py").write_text("1")
    assert identity.provenance()["git_commit"] == "unknown"
    git(package.parent, "init", "-q")
    (package.parent / "results" / "deep").mkdir(parents=True)
    for name in ("other", "README.md", "results/deep/summary.csv", "package/README.md"):
        (package.parent / name).write_text("1")
    git(package.parent, "add", "other", "README.md", "results")
    git(package.parent, "commit", "-qm", "other")
    assert identity.provenance()["git_commit"] == "unknown"  # a repository that does not hold the package
    git(package.parent, "add", "package")
    git(package.parent, "commit", "-qm", "package")
    commit = git(package.parent, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    (package / "untracked").write_text("")
    for name in ("README.md", "results/deep/summary.csv"):  # what publishing writes between two runs of one clone
        (package.parent / name).write_text("2")
    assert identity.provenance()["git_commit"] == commit
    for name in ("package/README.md", "other", "package/errors.py"):
        (package.parent / name).write_text("2")
        assert identity.provenance()["git_commit"] == f"{commit}-dirty"
        (package.parent / name).write_text("1")
    (package / "errors.py").unlink()
    assert identity.provenance()["git_commit"] == f"{commit}-dirty"
    monkeypatch.setenv("PATH", "")
    assert identity.provenance()["git_commit"] == "unknown"


# --- Signals ---
@pytest.fixture
def handlers():
    """Known handlers, also where tests run in the background with signals ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_handlers_come_back(handlers, number):
    with Interrupts() as interrupts:
        assert not interrupts.requested
        signal.raise_signal(number)
        assert interrupts.requested
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert RESUMABLE == 75 == os.EX_TEMPFAIL


def test_the_second_interrupt_stops_at_once(handlers, capfd):
    with pytest.raises(KeyboardInterrupt), Interrupts():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert "again to stop at once" in capfd.readouterr().err
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ignored_signals_stay_ignored(handlers):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert not interrupts.requested
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_outside_the_main_thread_it_does_nothing(handlers):
    seen = []

    def work():
        with Interrupts() as interrupts:
            seen.append((interrupts.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, signal.SIG_DFL)]
