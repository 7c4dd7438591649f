"""Checkpoints come back bit for bit, or not at all: damage, strangers and kills are all noticed."""

import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxrl_suite.errors import UserError
from jaxrl_suite.train import checkpoint
from jaxrl_suite.train.checkpoint import exists, load_latest, save

EXTRA = {"config_hash": "abc", "metrics": 120, "note": [1, None, "x"]}


@flax.struct.dataclass
class Inner:
    weights: dict
    flag: jax.Array
    width: int = flax.struct.field(pytree_node=False, default=7)


class State(NamedTuple):
    inner: Inner
    opt: tuple
    key: jax.Array
    keys: jax.Array
    count: int
    ratio: float
    on: bool
    nothing: None
    empty: jax.Array
    host: np.ndarray


def make_state(seed=0):
    values = np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32)
    odd = np.array([np.nan, -0.0, np.inf, 1e-45], np.float32)  # a payload, a sign, a subnormal: bits, not values
    weights = {"w": jnp.asarray(values), "half": jnp.asarray(values, jnp.bfloat16), "odd": jnp.asarray(odd)}
    return State(
        inner=Inner(weights, jnp.array([True, False])),
        opt=optax.adam(1e-3).init(weights),
        key=jax.random.key(seed),
        keys=jax.random.split(jax.random.key(seed + 1, impl="rbg"), 2),
        count=2**70 + seed,
        ratio=0.1,
        on=True,
        nothing=None,
        empty=jnp.zeros((0, 3)),
        host=np.array([1.0 + 2**-50, 2.0]),  # 64 bits, which JAX would cut to 32
    )


STATE = make_state()


def small(value=0.0):
    return {"w": jnp.full(5, float(value)), "n": jnp.int32(3)}


def bits(leaf):
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes()
    if isinstance(leaf, bool | int | float):
        return type(leaf).__name__, leaf
    return np.dtype(leaf.dtype).name, leaf.shape, np.asarray(leaf).tobytes()


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert [bits(x) for x in jax.tree.leaves(a)] == [bits(x) for x in jax.tree.leaves(b)]


def shapes(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two checkpoints of a mixed tree; tests copy the folder before they harm it."""
    folder = tmp_path_factory.mktemp("saved")
    save(folder, 1, make_state(1), EXTRA)
    save(folder, 2, make_state(2), EXTRA)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


# --- The round trip ---
def test_a_mixed_tree_comes_back_bit_for_bit(saved):
    loaded = load_latest(saved, STATE, "abc")
    assert (loaded.step, loaded.extra, loaded.notes) == (2, EXTRA, [])
    assert_same(loaded.tree, make_state(2))
    assert isinstance(loaded.tree.host, np.ndarray) and loaded.tree.inner.width == 7
    assert jax.random.uniform(loaded.tree.key) == jax.random.uniform(jax.random.key(2))


def test_a_template_of_shapes_gives_arrays_that_can_be_donated_and_are_bound_to_no_device(tmp_path):
    init = jax.jit(lambda key: {"key": key, "w": jax.random.normal(key, (4,)), "b": jnp.ones(3, jnp.bfloat16)})
    state = init(jax.random.key(3))
    save(tmp_path, 5, state, {})
    loaded = load_latest(tmp_path, jax.eval_shape(init, jax.random.key(0)), "")
    assert_same(loaded.tree, state)
    assert not any(leaf.committed for leaf in jax.tree.leaves(loaded.tree))
    doubled = jax.jit(lambda tree: {**tree, "w": 2 * tree["w"]}, donate_argnums=0)(loaded.tree)
    np.testing.assert_array_equal(doubled["w"], 2 * state["w"])


def test_shardings_of_the_template_are_kept(tmp_path):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    tree = {"w": jnp.arange(4.0), "keys": jax.random.split(jax.random.key(0), 2), "none": jnp.zeros((0, 2))}
    save(tmp_path, 0, tree, {})
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
    loaded = load_latest(tmp_path, template, "")
    assert_same(loaded.tree, tree)
    assert all(leaf.sharding == sharding for leaf in jax.tree.leaves(loaded.tree))


def test_without_a_template_leaves_come_by_their_paths(saved):
    tree = load_latest(saved, None, "abc").tree
    np.testing.assert_array_equal(tree[".inner.weights['w']"], make_state(2).inner.weights["w"])
    assert tree[".count"] == 2**70 + 2 and tree[".key"] == jax.random.key(2)
    assert len(tree) == len(jax.tree.leaves(STATE))


class Before(NamedTuple):
    a: jax.Array
    b: jax.Array


class After(NamedTuple):
    b: jax.Array
    a: jax.Array


def test_fields_that_changed_places_keep_their_values(tmp_path):
    save(tmp_path, 0, Before(jnp.zeros(2), jnp.ones(2)), {})
    assert_same(load_latest(tmp_path, After(jnp.zeros(2), jnp.zeros(2)), "").tree, After(jnp.ones(2), jnp.zeros(2)))


def test_trees_without_arrays(tmp_path):
    save(tmp_path, 0, {"n": 3, "x": float("inf"), "none": ()}, {})
    assert load_latest(tmp_path, {"n": 0, "x": 0.0, "none": ()}, "").tree == {"n": 3, "x": float("inf"), "none": ()}


def test_what_is_no_number_is_refused(tmp_path):
    for leaf in ("text", np.array(["text"]), np.array([object()])):
        with pytest.raises(TypeError, match="a checkpoint holds"):
            save(tmp_path, 0, {"x": leaf}, {})
    assert load_latest(tmp_path, {"x": 0}, "") is None


def test_saving_is_fast_quiet_and_leaves_no_threads(tmp_path, capfd, caplog):
    tree = [jnp.asarray(np.random.default_rng(i).normal(size=(256, 256)), jnp.float32) for i in range(20)]  # 5 MB
    save(tmp_path, 0, tree, {})
    before, level = set(threading.enumerate()), logging.getLogger("absl").level
    took = []
    for step in (1, 2, 3):
        began = time.perf_counter()
        save(tmp_path, step, tree, {})
        took.append(time.perf_counter() - began)
    load_latest(tmp_path, shapes(tree), "")
    assert min(took) < 1.0, took
    assert set(threading.enumerate()) <= before
    assert capfd.readouterr() == ("", "") and not caplog.records
    assert logging.getLogger("absl").level == level


# --- Which ones are kept ---
def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_last_two_are_kept(tmp_path):
    assert not exists(tmp_path / "none") and load_latest(tmp_path / "none", small(), "") is None
    for step in (1, 2, 10):
        assert save(tmp_path, step, small(step), {}) == tmp_path / f"step_{step}"
    assert names(tmp_path) == ["step_10", "step_2"] and exists(tmp_path)
    assert load_latest(tmp_path, small(), "").step == 10


def test_a_step_can_be_saved_again_and_later_steps_are_given_up(tmp_path):
    for step in (1, 2):
        save(tmp_path, step, small(step), {})
    save(tmp_path, 2, small(20), {})
    assert names(tmp_path) == ["step_1", "step_2-2"]
    assert load_latest(tmp_path, small(), "").tree["w"][0] == 20
    save(tmp_path, 1, small(10), {})
    assert names(tmp_path) == ["step_1-2"]
    assert load_latest(tmp_path, small(), "").tree["w"][0] == 10


def test_a_damaged_one_is_not_what_is_kept(tmp_path):
    for step in (1, 2):
        save(tmp_path, step, small(step), {})
    flip(tmp_path / "step_2" / "manifest.json", 0)
    save(tmp_path, 3, small(3), {})
    assert names(tmp_path) == ["step_1", "step_3"]


def test_what_a_killed_process_left_is_ignored_and_removed(folder):
    shutil.copytree(folder / "step_2", folder / "3.tmp")
    shutil.copytree(folder / "step_2", folder / "step_9.tmp")
    assert load_latest(folder, STATE, "abc").step == 2
    save(folder, 4, STATE, EXTRA)
    assert names(folder) == ["step_2", "step_4"]


# --- Damage ---
def flip(path, position, bit=0):
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def all_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_one_flipped_bit_anywhere_is_noticed_and_the_older_one_used(folder, monkeypatch):
    # Reading is tested once, below; here what counts is which one is chosen.
    monkeypatch.setattr(checkpoint, "_restore", lambda path, leaves, template: path.name)
    newest = all_files(folder / "step_2")
    assert len(newest) > 5
    for path in newest:
        size = path.stat().st_size
        for position, bit in {(0, 0), (size // 3, 5), (size // 2, 3), (size - 1, 7)} if size else ():
            flip(path, position, bit)
            loaded = load_latest(folder, STATE, "abc")
            assert (loaded.step, loaded.tree) == (1, "step_1"), (path.name, position)
            assert "step_2 is damaged" in loaded.notes[0] and "step 1" in loaded.notes[-1]
            flip(path, position, bit)
    assert load_latest(folder, STATE, "abc").step == 2


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1]) if path.stat().st_size else path.write_bytes(b"x")


def stranger(path):
    (path.parent / "stranger").write_bytes(b"")


@pytest.mark.parametrize("harm", [truncate, os.unlink, stranger])
def test_missing_cut_and_unknown_files_are_noticed(folder, tmp_path, harm, monkeypatch):
    monkeypatch.setattr(checkpoint, "_restore", lambda path, leaves, template: path.name)
    for index, path in enumerate(all_files(folder / "step_2")):
        copy = shutil.copytree(folder, tmp_path / str(index))
        harm(copy / path.relative_to(folder))
        assert load_latest(copy, STATE, "abc").step == 1, path.name


def test_the_older_one_is_read_in_full(folder):
    flip(max(all_files(folder / "step_2"), key=lambda path: path.stat().st_size), 500)
    loaded = load_latest(folder, STATE, "abc")
    assert_same(loaded.tree, make_state(1))


def test_all_damaged_is_one_clear_line(folder):
    for step in (1, 2):
        (folder / f"step_{step}" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=r"no intact checkpoint in .*checkpoints.*--fresh") as caught:
        load_latest(folder, STATE, "abc")
    assert "step_1" in str(caught.value) and "step_2" in str(caught.value)


# --- Strangers ---
def test_another_configuration_is_refused(saved):
    with pytest.raises(UserError, match=r"another configuration \(abc, expected other\).*--fresh"):
        load_latest(saved, STATE, "other")


CHANGES = {
    "shape": ({"w": jnp.zeros((5, 1)), "n": jnp.int32(0)}, r"\['w'\] is float32\[5\], expected float32\[5, 1\]"),
    "dtype": ({"w": jnp.zeros(5, jnp.bfloat16), "n": jnp.int32(0)}, r"is float32\[5\], expected bfloat16"),
    "missing": ({"w": jnp.zeros(5)}, r"\['n'\] is int32\[\], expected not there"),
    "more": ({"w": jnp.zeros(5), "n": jnp.int32(0), "z": 1}, r"\['z'\] is not there, expected the int of Python"),
    "kind": ({"w": jnp.zeros(5), "n": 3}, r"\['n'\] is int32\[\], expected the int of Python"),
    "key": ({"w": jnp.zeros(5), "n": jax.random.key(0)}, r"\['n'\] is int32\[\], expected key<fry>\[\]"),
    "structure": ([jnp.zeros(5), jnp.int32(0)], "another tree"),
}


@pytest.fixture(scope="module")
def small_saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    save(folder, 0, small(), {})
    return folder


@pytest.mark.parametrize("change", CHANGES)
def test_another_tree_is_refused(small_saved, change):
    template, message = CHANGES[change]
    with pytest.raises(UserError, match=message):
        load_latest(small_saved, template, "")


def test_another_kind_of_key_is_refused(tmp_path):
    save(tmp_path, 0, jax.random.key(0, impl="rbg"), {})
    with pytest.raises(UserError, match="the root is key<rbg>"):
        load_latest(tmp_path, jax.random.key(0), "")


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    save(tmp_path, 0, small(), {})
    monkeypatch.undo()
    with pytest.raises(UserError, match="format 2, this version reads 1"):
        load_latest(tmp_path, small(), "")


# --- Kills and full disks ---
class Killed(BaseException):
    """Stands for `kill -9`: nothing may clean up after it."""


PLACES = [(os, "rename"), (os, "fsync"), (os, "mkdir"), (shutil, "rmtree")]


def killing(monkeypatch, at):
    """Let the process die instead of its `at`-th change of the file system; what orbax writes is one, and one file."""
    count = itertools.count()

    def wrap(original):
        def call(*args, **kwargs):
            if next(count) == at:
                raise Killed
            return original(*args, **kwargs)

        return call

    def saving(path, data):
        path.mkdir()
        (path / "half").write_bytes(b"half")
        if next(count) == at:
            raise Killed
        (path / "rest").write_bytes(b"rest")

    for module, name in PLACES:
        monkeypatch.setattr(module, name, wrap(getattr(module, name)))
    monkeypatch.setattr(checkpoint.ocp, "save", saving)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    for step in (1, 2):
        save(folder, step, small(step), {})
    return folder


def test_a_kill_at_any_moment_leaves_a_state_that_loads(two, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_restore", lambda path, leaves, template: path.name)
    survived = []
    for at in itertools.count():
        folder = shutil.copytree(two, tmp_path / str(at))
        with monkeypatch.context() as patch:
            killing(patch, at)
            try:
                save(folder, 3, small(3), {})
                break
            except Killed:
                pass
        loaded = load_latest(folder, small(), "")
        assert loaded.step in (2, 3) and loaded.notes == []
        assert loaded.tree == f"step_{loaded.step}"
        survived.append(loaded.step)
    assert survived == sorted(survived) and set(survived) == {2, 3} and len(survived) > 10
    assert names(folder) == ["step_2", "step_3"]
    save(tmp_path / "0", 4, small(4), {})
    assert names(tmp_path / "0") == ["step_2", "step_4"]


SAVING = """
import sys, jax.numpy as jnp
from pathlib import Path
from jaxrl_suite.train.checkpoint import save
for step in range(1000):
    save(Path(sys.argv[1]), step, {"w": jnp.full(5, float(step)), "n": jnp.int32(3)}, {})
    print(step, flush=True)
"""


def test_a_true_kill(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SAVING, tmp_path], stdout=subprocess.PIPE, text=True)
    with process:
        lines = [process.stdout.readline() for _ in range(3)]
        time.sleep(0.03)  # into the next one
        process.kill()
    assert lines == ["0\n", "1\n", "2\n"]
    loaded = load_latest(tmp_path, small(), "")
    assert loaded.step >= 2 and loaded.tree["w"][0] == loaded.step and loaded.notes == []


def full(*_):
    raise OSError(28, "No space left on device")


def full_tensorstore(*_):
    raise ValueError("RESOURCE_EXHAUSTED: Failed to write 7 bytes [os_error_code='28']")


@pytest.mark.parametrize("place", ["os.fsync", "os.rename", "ocp.save"])
def test_a_full_disk_is_a_user_error_and_the_older_state_stays(two, tmp_path, monkeypatch, place):
    folder = shutil.copytree(two, tmp_path / "folder")
    with monkeypatch.context() as patch:
        target = "jaxrl_suite.train.checkpoint." + place
        patch.setattr(target, full_tensorstore if place == "ocp.save" else full)
        with pytest.raises(UserError, match=r"cannot use the folder .*folder: No space left.*--out"):
            save(folder, 3, small(3), {})
    assert load_latest(folder, small(), "").step == 2


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot use the folder .*file"):
        save(tmp_path / "file" / "checkpoints", 0, small(), {})


def test_the_manifest_says_what_is_there(saved):
    manifest = json.loads((saved / "step_2" / "manifest.json").read_text())
    leaves = {leaf["path"]: (leaf["kind"], leaf["shape"], leaf["dtype"]) for leaf in manifest["leaves"]}
    assert leaves[".inner.weights['half']"] == ("array", [3, 4], "bfloat16")
    assert leaves[".keys"] == ("key", [2], "key<rbg>")
    assert all(len(digest) == 64 for digest in manifest["files"].values())
