"""Some rows of a data set, as each of several hosts reads them: equal to those rows of the whole."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data import TERMINAL, episodes, leaves, make, raw, without

from jaxrl_suite import data
from jaxrl_suite.data import hdf5
from jaxrl_suite.errors import UserError

quick = settings(max_examples=25, deadline=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("window")


def assert_window(path, draw):
    whole, info = data.load(str(path))
    rows = info.rows
    first = draw(st.integers(0, rows - 1))
    last = draw(st.integers(first + 1, rows))
    part, same = data.load(str(path), window=lambda total: (first, last) if total == rows else None)
    for a, b in zip(leaves(whole), leaves(part), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a[first:last], b)
    assert same == info


@quick
@given(shape=episodes(), seed=st.integers(0, 99), compact=st.booleans(), draw=st.data())
def test_windows_of_our_own_files(folder, shape, seed, compact, draw):
    arrays = make(shape, seed)
    if not compact:
        arrays["next_observations"] += 1.0  # then every row is the end of an episode
    arrays |= {"infos/qpos": np.random.default_rng(seed).normal(size=(len(arrays["rewards"]), 2)).astype(np.float32)}
    arrays |= {"infos/qvel": arrays["infos/qpos"] + 1}
    data.write(folder / "ours.hdf5", arrays, env="none", provenance={}, licence="", source="")
    assert_window(folder / "ours.hdf5", draw.draw)


@quick
@given(shape=episodes(), seed=st.integers(0, 99), known=st.booleans(), draw=st.data())
def test_windows_of_foreign_files(folder, shape, seed, known, draw):
    arrays = make(shape, seed)
    if not known and max(length for length, _ in shape) == 1:
        return  # no row has a known successor
    path = raw(folder / "foreign.hdf5", arrays if known else without(arrays, "next_observations"))
    assert_window(path, draw.draw)


def test_other_rows_are_not_read(monkeypatch):
    """Of the bundled data set: vectors of the episodes around the window, and three numbers per row of the others."""
    seen, original = [], hdf5.read

    def read(*args, **kwargs):
        arrays, attributes = original(*args, **kwargs)
        seen.append(arrays)
        return arrays, attributes

    monkeypatch.setattr(hdf5, "read", read)
    part, info = data.load("hopper-medium-replay-mini", window=lambda rows: (rows // 2, rows // 2 + 1000))
    assert len(part.episode) == 1000 and info.rows > 100_000
    flags, columns = seen
    assert all(array.size == info.rows for array in flags.values())
    assert 1000 <= len(columns["observations"]) < 3000
    assert {len(array) for name, array in columns.items() if "end" not in name} == {len(columns["observations"])}


def test_a_part_that_is_damaged_is_one_line(folder):
    path = str(folder / "damaged.hdf5")
    data.write(path, make([(3, TERMINAL)] * 4), env="none", provenance={}, licence="", source="")
    with h5py.File(path, "a") as file:
        file["observations"][7] = np.nan
    data.load(path, window=lambda rows: (0, 4))  # the host that has these rows does not see it
    with pytest.raises(UserError, match="observations has 1 rows with NaN"):
        data.load(path, window=lambda rows: (5, 8))
