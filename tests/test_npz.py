"""NumPy archives and episodes in memory: the same rows as from HDF5, and nothing that is not numbers."""

import dataclasses
import io
import zipfile
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data import CUT, TERMINAL, TIMEOUT, episodes, loop, make, raw, same, without

import jaxrl_suite as jrs
from jaxrl_suite import data
from jaxrl_suite.errors import UserError

quick = settings(max_examples=20, deadline=None)
SHAPE = [(3, TERMINAL), (4, TIMEOUT), (2, CUT)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("npz")


def save(path, arrays, **more):
    np.savez_compressed(path, **arrays, **more)
    return str(path)


# --- Archives ---
@quick
@given(shape=episodes(), seed=st.integers(0, 99), known=st.booleans(), stored=st.booleans())
def test_an_archive_holds_what_the_hdf5_file_holds(folder, shape, seed, known, stored):
    arrays = make(shape, seed) if known else without(make(shape, seed), "next_observations")
    arrays |= {"observations": np.asfortranarray(arrays["observations"])}
    (np.savez if stored else np.savez_compressed)(folder / "a.npz", **arrays)
    rows = loop(make(shape, seed), shape, 0.99, drop_last=not known)
    if not rows:
        with pytest.raises(UserError, match="no row has a known successor"):
            data.load(str(folder / "a.npz"))
        return
    dataset, info = data.load(str(folder / "a.npz"))
    same(dataset, make(shape, seed), rows)
    expected = data.load(raw(folder / "a.hdf5", arrays))[1]
    assert info[2:7] == expected[2:7] and info.provenance == expected.provenance


def test_other_types_infos_parity_and_names(folder, monkeypatch):
    arrays = make(SHAPE)
    wide = {key: x.astype(">f8") for key, x in arrays.items()}
    infos = {"infos/qpos": np.ones((9, 6)), "infos/qvel": np.zeros((9, 6))}
    path = save(folder / "own.npz", wide, env=np.array("Hopper-v4"), other=np.zeros(3), **infos)
    dataset, info = data.load(path)
    same(dataset, arrays, loop(arrays, SHAPE, 0.99))
    assert info.env == "Hopper-v4" and dataset.sim_state[0].shape == (9, 6)
    assert len(data.load(path, parity="d4rl")[0].episode) == 7
    part = data.load(path, window=lambda rows: (2, 5))[0]
    np.testing.assert_array_equal(part.transitions.obs, arrays["observations"][2:5])
    monkeypatch.setenv("JAXRL_SUITE_DATA", str(folder))
    assert data.load("own")[1].rows == 9 and "own" in data.names()


def member(path, name, content, compression=zipfile.ZIP_DEFLATED):
    """The archive with one member exchanged."""
    arrays = {key: x for key, x in make(SHAPE).items() if key != name}
    np.savez_compressed(path, **arrays)
    with zipfile.ZipFile(path, "a", compression) as archive:
        archive.writestr(f"{name}.npy", content)
    return str(path)


def npy(array, header=None):
    buffer = io.BytesIO()
    if header is None:
        np.lib.format.write_array(buffer, array, allow_pickle=True)
        return buffer.getvalue()
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + array.tobytes()


class Trap:
    """Unpickling it raises an error that no reader expects."""

    def __reduce__(self):
        return (exit, ("unpickled",))


def declared(shape, descr="<f4"):
    return {"shape": shape, "fortran_order": False, "descr": descr}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(np.array([Trap()], object)), "actions holds object, expected numbers"),
        (npy(np.array(["a"])), "actions holds <U1, expected numbers"),
        (npy(np.zeros(3, "M8[s]")), "actions holds datetime64"),
        (npy(np.zeros((9, 2), "f4,f4")), "actions holds .*, expected numbers"),
        (npy(np.zeros((9, 2), complex)), "actions holds complex128"),
        (npy(np.zeros((9, 2), "f4"), declared((10**12, 2))), "declares shape .*, which is not what is there"),
        (npy(np.zeros((9, 2), "f4"), declared((9, 1))), "declares shape"),
        (npy(np.zeros((9, 2), "f4"), declared((-9, -2))), "damaged"),
        (npy(np.zeros((9, 2), "f4"))[:-1], "declares shape"),
        (npy(np.zeros((9, 2), "f4"))[:50], "damaged"),
        (b"", "damaged"),
        (b"\x93NUMPY\x03\x00" + b"\x00" * 100, "damaged"),
        (npy(np.zeros((8, 2))), "actions has 8 rows, but observations has 9"),
        (npy(np.zeros((9, 2, 2))), r"actions has shape \(9, 2, 2\)"),
        (npy(np.full((9, 2), np.inf)), "actions has 9 rows with NaN or infinite"),
    ],
)
def test_members_that_are_no_columns(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as caught:
        data.load(member(tmp_path / "x.npz", "actions", content))
    assert "\n" not in str(caught.value)


def test_a_small_archive_that_declares_gigabytes_is_refused(tmp_path):
    path = member(tmp_path / "x.npz", "actions", npy(np.zeros((9, 2))))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    entry = content.rindex(b"PK\x01\x02")  # the member's place in the central directory: its true size stands there
    content[entry + 24 : entry + 28] = (2**31).to_bytes(4, "little")
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match="more than a file of this size can hold"):
        data.load(path)


def test_unusual_packing_and_double_members_are_refused(tmp_path):
    with pytest.raises(UserError, match="packed in an unusual way"):
        data.load(member(tmp_path / "x.npz", "actions", npy(np.zeros((9, 2))), zipfile.ZIP_LZMA))
    path = save(tmp_path / "y.npz", make(SHAPE))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("actions.npy", npy(np.ones((9, 2), "f4")))
    with pytest.raises(UserError, match="two members of one name"):
        data.load(path)


def test_nothing_is_ever_extracted(tmp_path):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    path = save(inside / "x.npz", make(SHAPE))
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../evil", "../../evil.npy", str(tmp_path / "evil"), "../actions.npy"):
            archive.writestr(name, b"evil")
    assert data.load(path)[1].rows == 9
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["x.npz"]


def test_missing_columns_and_foreign_bytes(tmp_path):
    with pytest.raises(UserError, match=r"missing actions, terminals; found next_observations, obs"):
        data.load(save(tmp_path / "x.npz", without(make(SHAPE), "actions", "terminals")))
    (tmp_path / "y.npz").write_bytes(b"\x89HDF no zip")
    with pytest.raises(UserError, match=r"y.npz: not an .npz file"):
        data.load(str(tmp_path / "y.npz"))
    with pytest.raises(UserError, match="no such file"):
        data.load("nowhere.npz")
    with pytest.raises(UserError, match=r"env has 4\d\d\d bytes"):
        data.load(save(tmp_path / "z.npz", make(SHAPE), env=np.array("x" * 1000)))


# --- Memory ---
class Tuple(NamedTuple):
    observations: object
    actions: object
    rewards: object
    terminations: object
    truncations: object


@dataclasses.dataclass
class Class:
    observations: object
    actions: object
    rewards: object
    terminations: object
    truncations: object


def split(arrays, shape, final):
    """Mappings of lists, as a Gymnasium loop collects them."""
    made, start = [], 0
    for length, _ in shape:
        rows = slice(start, start + length)
        obs = [*arrays["observations"][rows], *([arrays["next_observations"][start + length - 1]] if final else [])]
        columns = (obs, *(list(arrays[key][rows]) for key in ("actions", "rewards", "terminals", "timeouts")))
        made.append(dict(zip(Tuple._fields, columns, strict=True)))
        start += length
    return made


@quick
@given(shape=episodes(), seed=st.integers(0, 99), final=st.booleans(), kind=st.sampled_from([dict, Tuple, Class]))
def test_episodes_in_memory(shape, seed, final, kind):
    arrays = make(shape, seed)
    made = [kind(**episode) for episode in split(arrays, shape, final)]
    rows = loop(arrays, shape, 0.9, drop_last=not final)
    if not rows:
        with pytest.raises(UserError, match="no row has a known successor"):
            data.from_episodes(made)
        return
    dataset, info = jrs.from_episodes(iter(made), env="Toy-v0", gamma=0.9)
    same(dataset, arrays, rows)
    assert (info.env, info.rows, info.name, info.path, info.licence) == (
        "Toy-v0",
        len(rows),
        "episodes",
        "",
        "not stated",
    )
    unmarked = shape[-1][1] == CUT
    assert info.provenance.get("reader", {}).get("episode_ends_without_flag", 0) == unmarked
    assert data.from_episodes(made)[1].sha256 == info.sha256


def test_other_numbers_have_another_checksum():
    made = split(make(SHAPE), SHAPE, True)
    before = data.from_episodes(made)[1].sha256
    made[1]["rewards"][2] += 1
    assert data.from_episodes(made)[1].sha256 != before


def test_columns_of_width_one_are_flattened():
    made = split(make(SHAPE), SHAPE, True)
    wide = [{**e, "rewards": np.array(e["rewards"])[:, None]} for e in made]
    np.testing.assert_array_equal(data.from_episodes(wide)[0].transitions.reward, make(SHAPE)["rewards"])


def changed(index, **fields):
    def change(made):
        made[index] |= fields
        return made

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: [], "episodes: has no episodes"),
        (lambda made: made[0], r"expected a list of episodes, found one dict; give \[episode\]"),
        (lambda made: Tuple(**made[0]), "found one Tuple"),
        (lambda made: [1], "episode 0 has no observations; expected observations, actions"),
        (changed(1, rewards=None), "episode 1 has no rewards"),
        (changed(1, rewards=[1.0]), "episode 1: rewards has 1 rows, but actions has 4"),
        (changed(1, truncations=[0] * 5), "episode 1: truncations has 5 rows, but actions has 4"),
        (changed(1, observations=np.zeros((6, 3))), "episode 1: observations has 6 rows, expected 5 .or 4. for 4"),
        (changed(1, observations=np.zeros((5, 2))), "episode 1: observations has 2 columns, but episode 0 has 3"),
        (changed(1, observations=np.zeros((4, 3))), "episode 1: its final observation is missing, unlike"),
        (changed(1, observations=[[1.0], [1.0, 2.0]]), "episode 1: observations is not an array of numbers"),
        (changed(1, actions=np.zeros(4)), r"episode 1: actions has shape \(4,\), expected \(T, dim\)"),
        (changed(1, actions=[]), "episode 1: actions has shape"),
        (changed(1, actions=np.zeros((0, 2))), "episode 1 has no steps"),
        (changed(1, actions=[["a", "b"]] * 4), "episode 1: actions holds <U1, expected numbers"),
        (changed(1, rewards=[object()] * 4), "episode 1: rewards holds object"),
        (changed(1, rewards=[np.nan] * 4), "rewards has 4 rows with NaN"),
        (changed(1, terminations=[0.5] * 4), "terminals has 4 values other than 0 and 1"),
    ],
)
def test_wrong_episodes(change, message):
    with pytest.raises(UserError, match=message):
        data.from_episodes(change(split(make(SHAPE), SHAPE, True)))
