"""Small valid files with bytes flipped, cut out, put in or overwritten: they load, whole, or one line says no.

A change may spare the data (padding, dates, unused members), or alter a number where a format keeps no checksum. What
must never come is another exception, a crash, a file elsewhere, or a data set whose parts do not fit each other.
"""

import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_data import CUT, TERMINAL, TIMEOUT, make, raw

from jaxrl_suite import data
from jaxrl_suite.errors import UserError

SHAPE = [(4, TERMINAL), (3, TIMEOUT), (5, CUT)]
KINDS = ["d4rl", "ours", "npz", "minari", "minari_metadata", "arrow", "arrow_metadata"]
CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large]


def contents():
    """Rows of three episodes, with states of a simulator."""
    states = {f"infos/{name}": np.random.default_rng(1).normal(size=(12, 2)) for name in ("qpos", "qvel")}
    return make(SHAPE) | states


def arrow(folder):
    """The data set as Minari would write it with Arrow, by hand: its package is not always there."""
    pa = pytest.importorskip("pyarrow", reason="needs the extra minari")
    import pyarrow.ipc

    source = data.write_minari(folder, "source-v0", contents(), "Toy-v0", {})
    target = folder / "arrow-v0"
    (target / "data").mkdir(parents=True)
    metadata = json.loads((source / "data" / "metadata.json").read_text()) | {"data_format": "arrow"}
    (target / "data" / "metadata.json").write_text(json.dumps(metadata))
    dataset, start = data.load(str(source))[0], 0
    for index, (length, _) in enumerate(SHAPE):
        rows, t = slice(start, start + length), dataset.transitions
        obs = np.concatenate([t.obs[rows], t.next_obs[rows][-1:]])
        columns = {
            "observations": pa.FixedSizeListArray.from_arrays(obs.reshape(-1), obs.shape[1]),
            "actions": pa.FixedSizeListArray.from_arrays(np.pad(t.action[rows], ((0, 1), (0, 0))).reshape(-1), 2),
            "rewards": pa.array(np.append(t.reward[rows], 0)),
            "terminations": pa.array(np.append(t.discount[rows] == 0, False)),
            "truncations": pa.array(np.append(dataset.truncated[rows], False)),
            "infos": pa.StructArray.from_arrays(
                [pa.FixedSizeListArray.from_arrays(np.append(x[rows], [0, 0]), 2) for x in dataset.sim_state],
                ["qpos", "qvel"],
            ),
        }
        batch = pa.RecordBatch.from_pydict(columns)
        (target / "data" / str(index)).mkdir()
        with pyarrow.ipc.new_file(str(target / "data" / str(index) / "part-0.arrow"), batch.schema) as writer:
            writer.write_batch(batch)
        start += length
    shutil.rmtree(source)
    return target


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """kind -> (what to load, the file whose bytes are changed, its bytes), made when first asked for."""
    made = {}

    def build(kind):
        folder = tmp_path_factory.mktemp(kind)
        arrays = contents()
        if kind == "d4rl":
            return (folder / "x.hdf5", raw(folder / "x.hdf5", arrays))
        if kind == "ours":
            data.write(folder / "x.hdf5", arrays, "Hopper-v4", {"seed": 1}, "MIT", "a test")
            return (folder / "x.hdf5",) * 2
        if kind == "npz":
            np.savez_compressed(folder / "x.npz", **arrays, env=np.array("Toy-v0"))
            return (folder / "x.npz",) * 2
        path = arrow(folder) if "arrow" in kind else data.write_minari(folder, "toy-v0", arrays, "Toy-v0", {})
        inside = "1/part-0.arrow" if kind == "arrow" else "main_data.hdf5"
        return path, path / "data" / ("metadata.json" if "metadata" in kind else inside)

    def get(kind):
        if kind not in made:
            path, file = build(kind)
            file = path.parent / file if isinstance(file, str) else file
            made[kind] = path, file, file.read_bytes()
        return made[kind]

    return get


@st.composite
def changes(draw, size):
    """A few changes of `size` bytes."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        where = draw(st.integers(0, size - 1))
        how = draw(st.sampled_from(["flip", "write", "cut", "insert", "end", "zero"]))
        count = draw(st.integers(1, 40))
        found.append((how, where, draw(st.binary(min_size=count, max_size=count))))
    return found


def changed(content, steps):
    x = bytearray(content)
    for how, where, block in steps:
        if how == "flip" and where < len(x):
            x[where] ^= block[0] or 1
        elif how == "write":
            x[where : where + len(block)] = block
        elif how == "cut":
            del x[where : where + len(block)]
        elif how == "insert":
            x[where:where] = block
        elif how == "end":
            del x[where:]
        else:
            x[where : where + len(block)] = bytes(len(block))
    return bytes(x)


def fits(dataset, info):
    """The parts fit each other, whatever the numbers are."""
    rows, t = info.rows, dataset.transitions
    assert 1 <= rows <= sum(length for length, _ in SHAPE)
    assert t.obs.shape == t.next_obs.shape == (rows, t.obs.shape[1])
    assert t.action.shape == dataset.next_action.shape == (rows, t.action.shape[1])
    flat = (t.reward, t.discount, dataset.truncated, dataset.episode, dataset.mc_return)
    assert all(x.shape == (rows,) for x in flat)
    assert all(np.isfinite(x).all() for x in (*t, dataset.next_action))
    assert all(x.ndim == 2 and len(x) == rows for x in dataset.sim_state or ())
    assert set(np.diff(dataset.episode)) <= {0, 1} and dataset.episode[-1] + 1 == info.episodes


def load_changed(files, kind, draw):
    path, file, content = files(kind)
    file.write_bytes(changed(content, draw.draw(changes(len(content)))))
    before = sorted(path.parent.rglob("*"))
    try:
        fits(*data.load(str(path)))
    except UserError as error:
        assert "\n" not in str(error) and path.name in str(error)
    finally:
        assert sorted(path.parent.rglob("*")) == before
        file.write_bytes(content)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=CHECKS)
@given(draw=st.data())
def test_changed_bytes(files, kind, draw):
    load_changed(files, kind, draw)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=800, deadline=None, suppress_health_check=CHECKS)
@given(draw=st.data())
def test_changed_bytes_for_long(files, kind, draw):
    load_changed(files, kind, draw)


@pytest.mark.parametrize("kind", KINDS)
def test_unchanged_they_hold_what_was_written(files, kind):
    path, _, _ = files(kind)
    dataset, info = data.load(str(path))
    arrays = contents()
    np.testing.assert_array_equal(dataset.transitions.obs, arrays["observations"])
    np.testing.assert_array_equal(dataset.transitions.next_obs, arrays["next_observations"])
    np.testing.assert_array_equal(dataset.transitions.action, arrays["actions"])
    for found, name in zip(dataset.sim_state, ("qpos", "qvel"), strict=True):
        np.testing.assert_array_equal(found, arrays[f"infos/{name}"].astype(np.float32))
    assert info.episodes == 3
    fits(dataset, info)


@pytest.mark.parametrize("size", [0, 2**64 - 16, 2**40])
def test_a_heap_that_does_not_end_does_not_hang(tmp_path, size):
    """HDF5 1.14 walks on the spot for ever where an object of its global heap takes no room."""
    path = tmp_path / "x.hdf5"
    data.write(path, make(SHAPE), "Hopper-v4", {"seed": 1}, "MIT", "a test")
    content = bytearray(path.read_bytes())
    at, found = content.index(b"GCOL") + 16, []
    while at < len(content) and (index := int.from_bytes(content[at : at + 2], "little")):
        found.append(index)
        at += 16 + (int.from_bytes(content[at + 8 : at + 16], "little") + 7) // 8 * 8
    assert found  # the texts of the attributes
    content[at + 8 : at + 16] = size.to_bytes(8, "little")  # of what is free behind them
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"truncated or damaged .a heap of texts does not end"):
        data.load(str(path))
