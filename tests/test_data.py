"""The data reader against plain loops, and every way in which a file can be wrong."""

import hashlib
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_suite import data
from jaxrl_suite.data import registry
from jaxrl_suite.data.episodes import reward_to_go
from jaxrl_suite.errors import UserError

OBS, ACT = 3, 2
TERMINAL, TIMEOUT, BOTH, CUT = "terminal", "timeout", "both", "cut"
quick = settings(max_examples=30, deadline=None)


@st.composite
def episodes(draw, longest=6):
    """[(length, ending)]; only the last episode may lack a flag."""
    ending = st.sampled_from([TERMINAL, TIMEOUT, BOTH])
    found = draw(st.lists(st.tuples(st.integers(1, longest), ending), min_size=1, max_size=6))
    return [*found[:-1], (found[-1][0], CUT)] if draw(st.booleans()) else found


def make(shape, seed=0, obs_dim=OBS):
    """Arrays of a file with these episodes. No observation occurs twice, so a pair across a border is seen."""
    rng = np.random.default_rng(seed)
    rows = sum(length for length, _ in shape)
    obs, action = rng.normal(size=(rows, obs_dim)), rng.normal(size=(rows, ACT))
    arrays = {
        "observations": obs.astype(np.float32),
        "actions": action.astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.zeros(rows, bool),
        "next_observations": np.zeros((rows, obs_dim), np.float32),
    }
    row = 0
    for length, ending in shape:
        for _ in range(length - 1):
            arrays["next_observations"][row] = arrays["observations"][row + 1]
            row += 1
        arrays["next_observations"][row] = rng.normal(size=obs_dim)
        arrays["terminals"][row] = ending in (TERMINAL, BOTH)
        arrays["timeouts"][row] = ending in (TIMEOUT, BOTH)
        row += 1
    return arrays


def raw(path, arrays, **attributes):
    """A foreign file, as D4RL writes them."""
    with h5py.File(path, "w") as file:
        for key, x in arrays.items():
            file.create_dataset(key, data=x, compression="gzip" if np.ndim(x) else None)
        for key, value in attributes.items():
            file.attrs[key] = value
    return str(path)


def without(arrays, *names):
    return {key: x for key, x in arrays.items() if key not in names}


def leaves(dataset):
    """All arrays of a data set."""
    state = () if dataset.sim_state is None else dataset.sim_state
    return [*dataset.transitions, *dataset[1:5], *state]


def loop(arrays, shape, gamma, drop_last=False):
    """The rules as a plain loop over episodes -> list of rows (obs, action, reward, discount, next_obs, ...)."""
    rows, start, index = [], 0, 0
    for length, _ in shape:
        kept = length - 1 if drop_last else length
        for step in range(kept):
            i = start + step
            last = step == kept - 1
            rows.append(
                {
                    "row": i,
                    "discount": 0.0 if arrays["terminals"][i] else 1.0,
                    "next_obs": arrays["next_observations"][i],
                    "next_action": np.zeros(ACT) if last else arrays["actions"][i + 1],
                    "truncated": last and not arrays["terminals"][i],
                    "episode": index,
                    "mc": sum(gamma**k * float(arrays["rewards"][i + k]) for k in range(length - step)),
                }
            )
        start += length
        index += kept > 0
    return rows


def same(dataset, arrays, rows):
    """The data set is these rows, exactly; sums to float32 rounding."""
    index = [row["row"] for row in rows]
    t = dataset.transitions
    np.testing.assert_array_equal(t.obs, arrays["observations"][index])
    np.testing.assert_array_equal(t.action, arrays["actions"][index])
    np.testing.assert_array_equal(t.reward, arrays["rewards"][index].reshape(-1))
    np.testing.assert_array_equal(t.discount, [row["discount"] for row in rows])
    np.testing.assert_array_equal(t.next_obs, [row["next_obs"] for row in rows])
    np.testing.assert_array_equal(dataset.next_action, np.array([row["next_action"] for row in rows], np.float32))
    np.testing.assert_array_equal(dataset.truncated, [row["truncated"] for row in rows])
    np.testing.assert_array_equal(dataset.episode, [row["episode"] for row in rows])
    np.testing.assert_allclose(dataset.mc_return, [row["mc"] for row in rows], rtol=1e-5, atol=1e-5)
    floats = (*t, dataset.next_action, dataset.mc_return)
    assert all(isinstance(x, np.ndarray) and x.dtype == np.float32 for x in floats)
    assert dataset.episode.dtype == np.int32 and dataset.truncated.dtype == np.bool_


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def saved(folder):
    """A written file that no test may change."""
    path = folder / "saved.hdf5"
    data.write(path, make([(40, TERMINAL), (30, TIMEOUT), (5, CUT)]), "Toy-v0", {"seed": 3}, "MIT", "a test")
    return path


# --- The rules ---
@quick
@given(shape=episodes(), gamma=st.sampled_from([0.0, 0.9, 0.99, 1.0]), seed=st.integers(0, 99))
def test_written_files_come_back_exactly(folder, shape, gamma, seed):
    arrays, path = make(shape, seed), folder / "round.hdf5"
    data.write(path, arrays, "Toy-v0", {"seed": seed}, "MIT", "a test")
    with h5py.File(path) as file:  # the compact form holds the ends alone
        assert "next_observations" not in file
        assert file["episode_end_next_observations"].shape == (len(shape), OBS)
        assert file["observations"].compression_opts == 9 and file["observations"].shuffle
    dataset, info = data.load(str(path), gamma=gamma)
    same(dataset, arrays, loop(arrays, shape, gamma))
    assert (info.rows, info.episodes, info.provenance) == (len(arrays["rewards"]), len(shape), {"seed": seed})


@quick
@given(shape=episodes(), seed=st.integers(0, 99))
def test_d4rl_files_with_next_observations(folder, shape, seed):
    arrays = make(shape, seed)
    older = {**arrays, "rewards": arrays["rewards"][:, None], "terminals": arrays["terminals"][:, None].astype(float)}
    dataset, _ = data.load(raw(folder / "d4rl.hdf5", older))
    same(dataset, arrays, loop(arrays, shape, 0.99))


@quick
@given(shape=episodes(), seed=st.integers(0, 99))
def test_missing_timeouts_are_inferred_from_the_jumps(folder, shape, seed):
    arrays = make(shape, seed)
    dataset, info = data.load(raw(folder / "untimed.hdf5", without(arrays, "timeouts")))
    same(dataset, arrays, loop(arrays, shape, 0.99))
    unflagged = sum(ending == TIMEOUT for _, ending in shape[:-1])
    assert info.provenance.get("reader", {}).get("episode_ends_inferred", 0) == unflagged


def test_without_either_borders_cannot_be_found_and_the_file_is_refused(folder):
    """Trap: read on, it would pair the last row before a time-out with the first one of another episode."""
    arrays = make([(3, TIMEOUT), (4, TERMINAL), (2, CUT)])
    bare = without(arrays, "timeouts", "next_observations")
    with pytest.raises(UserError, match=r"neither timeouts nor next_observations.*add timeouts"):
        data.load(raw(folder / "neither.hdf5", bare))
    np.savez(folder / "neither.npz", **bare)
    with pytest.raises(UserError, match="neither timeouts nor next_observations"):
        data.load(str(folder / "neither.npz"))


def test_a_file_as_d4rls_scripts_write_it(folder):
    """Groups of metadata with texts and a policy's weights beside the rows, log-probabilities, states in float32."""
    shape = [(5, TERMINAL), (7, TIMEOUT), (3, CUT)]
    arrays, rng = make(shape, obs_dim=11), np.random.default_rng(2)
    states = {f"infos/{name}": rng.normal(size=(15, 6)).astype(np.float32) for name in ("qpos", "qvel")}
    path = raw(folder / "hopper_medium-v2.hdf5", arrays | states | {"infos/action_log_probs": np.zeros(15, np.float32)})
    with h5py.File(path, "a") as file:
        file["metadata/algorithm"] = np.bytes_("SAC")
        file["metadata/iteration"] = 3
        file["metadata/policy/fc0/weight"] = rng.normal(size=(4, 11))
        file["metadata/policy/nonlinearity"] = "relu"
    dataset, info = data.load(path)
    same(dataset, arrays, loop(arrays, shape, 0.99))
    assert (info.env, info.rows, info.episodes, info.provenance) == ("Hopper-v4", 15, 3, {})
    for found, expected in zip(dataset.sim_state, states.values(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_an_unmarked_time_out_of_a_foreign_file_is_a_border_too(folder):
    arrays = make([(3, TIMEOUT), (4, TIMEOUT), (2, CUT)])
    arrays["timeouts"][2] = False  # as in D4RL's replay sets
    dataset, _ = data.load(raw(folder / "unmarked.hdf5", arrays))
    same(dataset, arrays, loop(arrays, [(3, TIMEOUT), (4, TIMEOUT), (2, CUT)], 0.99))


@quick
@given(shape=episodes(), seed=st.integers(0, 99))
def test_rows_without_a_known_successor_are_dropped(folder, shape, seed):
    arrays = make(shape, seed)
    path = raw(folder / "bare.hdf5", without(arrays, "next_observations"))
    rows = loop(arrays, shape, 0.99, drop_last=True)
    if not rows:
        with pytest.raises(UserError, match="no row has a known successor"):
            data.load(path)
        return
    dataset, info = data.load(path)
    same(dataset, arrays, rows)
    assert info.provenance == {"reader": {"rows_dropped": len(shape)}} and info.rows == len(rows)


@quick
@given(shape=episodes(), seed=st.integers(0, 99))
def test_no_pair_crosses_a_border(folder, shape, seed):
    """Said without the loop: obs and action are unique, so a pair tells which rows it joins.

    Traps: d4rl.qlearning_dataset takes the next row's observation for the successor, which at a terminal row is the
    first one of another episode, and drops what ran out of time; a public port rolls the actions on for next_action.
    """
    arrays, path = make(shape, seed), folder / "pairs.hdf5"
    data.write(path, arrays, "Toy-v0", {}, "MIT", "a test")
    dataset, _ = data.load(str(path))
    lengths = [length for length, _ in shape]
    border = np.cumsum(lengths)[:-1] - 1  # rows before another episode
    obs = dataset.transitions.obs
    assert not (dataset.transitions.next_obs[border] == obs[border + 1]).any()
    assert (dataset.next_action[border] == 0).all() and (dataset.next_action[-1] == 0).all()
    inside = np.setdiff1d(np.arange(len(obs) - 1), border)
    np.testing.assert_array_equal(dataset.transitions.next_obs[inside], obs[inside + 1])
    np.testing.assert_array_equal(np.bincount(dataset.episode), lengths)


@quick
@given(shape=episodes(), seed=st.integers(0, 99))
def test_parity_is_the_old_qlearning_dataset(folder, shape, seed):
    arrays = make(shape, seed)
    path = raw(folder / "parity.hdf5", arrays)
    expected = []
    for i in range(len(arrays["rewards"]) - 1):
        if not arrays["timeouts"][i]:
            expected.append((i, i + 1, float(arrays["terminals"][i])))
    if not expected:
        with pytest.raises(UserError, match="no row"):
            data.load(path, parity="d4rl")
        return
    t = data.load(path, parity="d4rl")[0].transitions
    now, then, done = (list(column) for column in zip(*expected, strict=True))
    np.testing.assert_array_equal(t.obs, arrays["observations"][now])
    np.testing.assert_array_equal(t.next_obs, arrays["observations"][then])
    np.testing.assert_array_equal(t.action, arrays["actions"][now])
    np.testing.assert_array_equal(t.reward, arrays["rewards"][now])
    np.testing.assert_array_equal(1 - t.discount, done)


def test_parity_needs_timeouts_and_a_known_name(folder, saved):
    path = raw(folder / "untimed.hdf5", without(make([(3, TERMINAL)]), "timeouts"))
    with pytest.raises(UserError, match="needs timeouts"):
        data.load(path, parity="d4rl")
    with pytest.raises(UserError, match="unknown parity 'd4lr'; did you mean d4rl"):
        data.load(str(saved), parity="d4lr")
    with pytest.raises(UserError, match=r"gamma is 1.5"):
        data.load(str(saved), gamma=1.5)


@quick
@given(st.lists(st.tuples(st.floats(-9, 9), st.booleans()), min_size=1, max_size=70), st.floats(0, 1))
def test_reward_to_go_is_the_backward_sum(rows, gamma):
    rewards, ends = (np.array(column) for column in zip(*rows, strict=True))
    ends[-1] = True
    total, expected = 0.0, []
    for reward, end in zip(rewards[::-1], ends[::-1], strict=True):
        total = reward + (0.0 if end else gamma * total)
        expected.append(total)
    np.testing.assert_allclose(reward_to_go(rewards, ends, gamma), expected[::-1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_row_that_leads_elsewhere_is_written_as_an_end(folder, terminal):
    """As the other formats read it; with the timeouts as they were, the file would make two episodes one."""
    arrays = make([(2, TERMINAL if terminal else TIMEOUT), (2, TIMEOUT), (3, CUT)])
    unmarked = {**arrays, "timeouts": np.zeros(7, bool)}
    path = folder / "unmarked-ours.hdf5"
    data.write(path, unmarked, "Toy-v0", {}, "MIT", "a test")
    np.savez(folder / "unmarked.npz", **unmarked)
    dataset, info = data.load(str(path))
    same(dataset, arrays, loop(arrays, [(2, ""), (2, ""), (3, "")], 0.99))
    for ours, theirs in zip(leaves(dataset), leaves(data.load(str(folder / "unmarked.npz"))[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert info.provenance == {}


def test_successors_that_an_earlier_version_stored_in_full_tell_ends_too(folder):
    arrays = make([(3, TIMEOUT), (2, CUT)])
    unmarked = {**arrays, "timeouts": np.zeros(5, bool)}
    path = raw(folder / "in-full.hdf5", unmarked, schema="jaxrl_suite/1", env="Toy-v0")
    assert data.load(path)[1].episodes == 2
    part, info = data.load(path, window=lambda rows: (2, 4))
    assert info.episodes == 2 and part.episode.tolist() == [0, 1] and part.truncated.tolist() == [True, False]


# --- Facts about a file ---
def test_info_counts_completed_episodes_alone(saved):
    arrays = make([(40, TERMINAL), (30, TIMEOUT), (5, CUT)])
    info = data.load(str(saved))[1]
    returns = [arrays["rewards"][:40].sum(dtype=float), arrays["rewards"][40:70].sum(dtype=float)]
    np.testing.assert_allclose(info[5:7], [np.std(returns), np.max(returns)])
    assert info.return_mean == pytest.approx(np.mean(returns))
    assert (info.name, info.env, info.rows, info.episodes) == ("saved", "Toy-v0", 75, 3)
    assert info.sha256 == hashlib.sha256(saved.read_bytes()).hexdigest() and info.bytes == saved.stat().st_size
    assert (info.licence, info.source, info.path) == ("MIT", "a test", str(saved))


def test_the_only_episode_counts_though_cut(folder):
    arrays = make([(5, CUT)])
    info = data.load(raw(folder / "lone.hdf5", arrays))[1]
    assert info.return_mean == pytest.approx(arrays["rewards"].sum(dtype=float))


@pytest.mark.parametrize(
    ("file", "env"),
    [
        ("hopper_medium-v2.hdf5", "Hopper-v4"),
        ("halfcheetah-random.hdf5", "HalfCheetah-v4"),
        ("walker2d.expert.h5", "Walker2d-v4"),
        ("ant_medium_replay-v2.hdf5", "Ant-v3"),
        ("my-hopper.hdf5", None),
    ],
)
def test_env_is_guessed_from_the_first_word(folder, file, env):
    info = data.load(raw(folder / file, make([(3, TERMINAL)])))[1]
    assert info.env == env and info.licence == info.source == "not stated" and info.provenance == {}
    assert data.load(raw(folder / file, make([(3, TERMINAL)]), env=np.bytes_("Mine-v1")))[1].env == "Mine-v1"


@pytest.mark.parametrize("text", ["{broken", "[1]", "[" * 100_000, 7])
def test_provenance_that_is_not_a_json_object_is_ignored(folder, text):
    assert data.load(raw(folder / "p.hdf5", make([(3, TERMINAL)]), provenance=text))[1].provenance == {}


@pytest.mark.parametrize(
    ("env", "obs_dim", "nq", "clips"),
    [
        ("Hopper-v4", 11, 6, True),
        ("Walker2d-v4", 17, 9, True),
        ("HalfCheetah-v4", 17, 9, False),
        ("Ant-v4", 27, 15, False),
    ],
)
def test_sim_state_is_read_off_the_observation(folder, env, obs_dim, nq, clips):
    arrays = make([(4, TERMINAL), (3, CUT)], obs_dim=obs_dim)
    seen = 13 if env == "Ant-v4" else nq - 1
    arrays["observations"][0, -1], arrays["observations"][4, seen + 1] = -10.0, 10.0  # first rows: nobody's successor
    arrays["observations"][4, 0] = 11.0  # a position is not clipped
    path = folder / "sim.hdf5"
    data.write(path, arrays, env, {}, "MIT", "a test")
    dataset = data.load(str(path))[0]
    assert dataset.sim_state is not None
    qpos, qvel = dataset.sim_state
    obs = arrays["observations"]
    assert qpos.shape == (7, nq) and qpos.dtype == qvel.dtype == np.float32
    np.testing.assert_array_equal(qpos[:, : nq - seen], 0)
    np.testing.assert_array_equal(qpos[:, nq - seen :], obs[:, :seen])
    expected = obs[:, seen:].copy()
    expected[[0, 4] if clips else []] = np.nan
    np.testing.assert_array_equal(qvel, expected)


def test_stored_sim_state_wins_and_is_dropped_with_its_row(folder):
    arrays = make([(4, TERMINAL), (3, CUT)], obs_dim=11)
    infos = {"infos/qpos": np.arange(42.0).reshape(7, 6), "infos/qvel": np.arange(42.0).reshape(7, 6) - 99}
    infos["infos/qvel"][2] = np.nan  # unknown
    data.write(folder / "infos.hdf5", {**arrays, **infos}, "Hopper-v4", {}, "MIT", "a test")
    stored = data.load(str(folder / "infos.hdf5"))[0].sim_state
    path = raw(folder / "infos2.hdf5", {**without(arrays, "next_observations"), **infos})
    dropped = data.load(path)[0].sim_state
    assert stored is not None and dropped is not None
    for x, y, z in zip(stored, infos.values(), dropped, strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(z, y[[0, 1, 2, 4, 5]])
    assert data.load(raw(folder / "hopper.hdf5", arrays))[0].sim_state is None  # a foreign file does not state it


def test_stats():
    x = np.random.default_rng(0).normal(3, 2, (50, 4)).astype(np.float32)
    x[:, 2] = 123456.79  # in float32 sums, a mean of many equal numbers is rounded, and the deviation is not 0
    mean, std = data.stats(np.repeat(x, 1000, axis=0))
    np.testing.assert_allclose(mean, x.mean(0, dtype=float), rtol=1e-6)
    np.testing.assert_allclose(std, np.where(np.arange(4) == 2, 1, x.std(0, dtype=float)), rtol=1e-6)
    assert mean.dtype == std.dtype == np.float32


# --- Writing ---
def test_bytes_depend_on_the_content_alone(folder):
    arrays = make([(4, TERMINAL)], obs_dim=11) | {"infos/qpos": np.ones((4, 6)), "infos/qvel": np.ones((4, 6))}
    first = data.write(folder / "one.hdf5", arrays, "Hopper-v4", {"a": 1, "b": 2}, "MIT", "a test")
    time.sleep(1.1)  # HDF5 stores whole seconds, where it stores time
    reordered = dict(reversed(arrays.items()))
    second = data.write(folder / "two.hdf5", reordered, "Hopper-v4", {"b": 2, "a": 1}, "MIT", "a test")
    assert first == second == hashlib.sha256((folder / "two.hdf5").read_bytes()).hexdigest()
    assert data.write(folder / "two.hdf5", arrays, "Hopper-v4", {}, "MIT", "a test") != first


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path, arrays = tmp_path / "x.hdf5", make([(4, TERMINAL)])
    data.write(path, arrays, "Toy-v0", {}, "MIT", "a test")
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(h5py.File, "create_dataset", full)
    with pytest.raises(UserError, match=r"cannot be written .no space left"):
        data.write(path, make([(5, TERMINAL)]), "Toy-v0", {}, "MIT", "a test")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match="cannot be written"):
        data.write(path / "below" / "y.hdf5", arrays, "Toy-v0", {}, "MIT", "a test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: without(a, "timeouts", "rewards"), "missing rewards, timeouts; found actions, next_obs"),
        (lambda a: {**a, "infos/qposs": a["actions"]}, "cannot write infos/qposs"),
        (lambda a: {**a, "episode_end_next_observations": a["observations"]}, "cannot write episode_end"),
        (lambda a: {**a, "rewards": a["rewards"] * np.nan}, "rewards has 4 rows with NaN"),
    ],
)
def test_bad_arrays_are_not_written(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        data.write(tmp_path / "x.hdf5", change(make([(4, TERMINAL)])), "Toy-v0", {}, "MIT", "a test")
    assert not list(tmp_path.iterdir())


def test_reading_changes_nothing(folder):
    path = Path(raw(folder / "untouched.hdf5", make([(4, TERMINAL)])))
    path.chmod(0o444)
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    data.load(str(path))
    data.load(str(path), parity="d4rl")
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


# --- Bad files ---
def test_missing_and_foreign_files(folder, saved):
    with pytest.raises(UserError, match=r"nowhere.hdf5: no such file"):
        data.load(str(folder / "nowhere.hdf5"))
    with pytest.raises(UserError, match="not a file"):
        data.load(str(folder))
    for content in (b"", b"PK\x03\x04 not hdf5 at all", saved.read_bytes()[4:]):
        (folder / "bad.hdf5").write_bytes(content)
        with pytest.raises(UserError, match="not an HDF5 file"):
            data.load(str(folder / "bad.hdf5"))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files(folder, saved, share):
    content = saved.read_bytes()
    (folder / "short.hdf5").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"short.hdf5: truncated or damaged"):
        data.load(str(folder / "short.hdf5"))


@pytest.mark.parametrize("key", ["observations", "rewards", "terminals", "episode_end_next_observations"])
def test_flipped_bytes_in_a_compressed_chunk(folder, saved, key):
    content = bytearray(saved.read_bytes())
    with h5py.File(saved) as file:
        chunk = file[key].id.get_chunk_info(0)
    content[chunk.byte_offset + chunk.size // 2] ^= 0xFF
    (folder / "flipped.hdf5").write_bytes(content)
    with pytest.raises(UserError, match=r"flipped.hdf5: truncated or damaged") as caught:
        data.load(str(folder / "flipped.hdf5"))
    assert "\n" not in str(caught.value)


def _spoil(name, row, value):
    def change(arrays):
        x = arrays[name].astype(np.float64)
        x[row] = value
        return {**arrays, name: x}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: without(a, "actions", "terminals"), "missing actions, terminals; found next_observations, obs"),
        (lambda a: {"episode_0/observations": a["observations"]}, "missing observations.*found episode_0"),
        (_spoil("observations", [2, 3], np.nan), "observations has 2 rows with NaN or infinite values.* row 2"),
        (_spoil("rewards", 1, np.inf), "rewards has 1 rows with NaN or infinite values.* row 1"),
        (_spoil("actions", 0, 1e300), "actions has 1 rows with NaN or infinite"),  # beyond float32
        (_spoil("next_observations", 3, -np.inf), "next_observations has 1 rows"),
        (_spoil("terminals", 2, 0.5), "terminals has 1 values other than 0 and 1, the first is row 2"),
        (lambda a: {**a, "actions": a["actions"][:-1]}, "actions has 3 rows, but observations has 4"),
        (lambda a: {**a, "timeouts": a["timeouts"][:-1]}, "timeouts has 3 rows, but observations has 4"),
        (lambda a: {**a, "rewards": a["observations"]}, r"rewards has shape \(4, 3\), expected \(rows,\)"),
        (lambda a: {**a, "rewards": np.float32(1)}, r"rewards has shape \(\), expected"),
        (lambda a: {**a, "observations": a["rewards"]}, r"observations has shape \(4,\), expected \(rows, dim\)"),
        (lambda a: {**a, "observations": np.zeros((4, 8, 8, 3))}, "observations has shape .*, expected"),
        (lambda a: {**a, "next_observations": a["actions"]}, "next_observations has 2 columns, expected 3"),
        (lambda a: {**a, "infos/qpos": a["actions"][:2]}, "infos/qpos has 2 rows, but observations has 4"),
        (lambda a: {key: x[:0] for key, x in a.items()}, "observations is empty"),
        (lambda a: {**a, "observations": h5py.Empty("f")}, "observations is empty"),
        (lambda a: {**a, "actions": np.array([b"a", b"b"])}, "actions holds .*S1.*, expected numbers"),
        (lambda a: {**a, "actions": np.array(["a", "b"], object)}, "actions holds object, expected numbers"),
        (lambda a: {**a, "actions": a["actions"].astype(complex)}, "actions holds complex.*, expected numbers"),
        (lambda a: {**without(a, "actions"), "actions/x": a["actions"]}, "actions is a group"),
        (
            lambda a: {**without(a, "next_observations"), "episode_end_next_observations": a["observations"][:3]},
            "has 3 rows, expected one per episode .1.",
        ),
    ],
)
def test_wrong_contents(tmp_path, change, message):
    arrays = change(make([(4, TERMINAL)]))
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        for key, x in arrays.items():
            file.create_dataset(
                key, data=x, dtype=h5py.string_dtype() if getattr(x, "dtype", None) == np.dtype(object) else None
            )
    with pytest.raises(UserError, match=message) as caught:
        data.load(str(path))
    assert "\n" not in str(caught.value) and "x.hdf5: " in str(caught.value)


def _external_link(file, other):
    file["actions"] = h5py.ExternalLink(other, "/actions")


def _soft_link(file, other):
    file["away"] = h5py.ExternalLink(other, "/")
    file["actions"] = h5py.SoftLink("/away/actions")


def _virtual(file, other):
    layout = h5py.VirtualLayout((4, ACT), np.float32)
    layout[:] = h5py.VirtualSource(other, "actions", (4, ACT))
    file.create_virtual_dataset("actions", layout)


def _external_storage(file, other):
    file.create_dataset("actions", (4, ACT), np.float32, external=[(other, 0, 4 * ACT * 4)])


def _external_group(file, other):
    file["actions"] = np.zeros((4, ACT))
    file["infos"] = h5py.ExternalLink(other, "/")


@pytest.mark.parametrize("point", [_external_link, _soft_link, _virtual, _external_storage, _external_group])
def test_what_points_outside_the_file_is_refused(tmp_path, point):
    arrays = make([(4, TERMINAL)])
    secret = raw(tmp_path / "secret.hdf5", {**arrays, "qpos": arrays["actions"], "qvel": arrays["actions"]})
    path = tmp_path / "x.hdf5"
    with h5py.File(raw(path, without(arrays, "actions")), "a") as file:
        point(file, secret)
    with pytest.raises(UserError, match="expected the data in this file itself"):
        data.load(str(path))


def test_a_small_file_that_declares_terabytes_is_refused(tmp_path):
    path = raw(tmp_path / "x.hdf5", without(make([(4, TERMINAL)]), "observations"))
    with h5py.File(path, "a") as file:
        file.create_dataset("observations", (10**10, 100), np.float32, chunks=(1000, 100))
    with pytest.raises(UserError, match="more than a file of this size can hold"):
        data.load(path)


def test_a_newer_schema_asks_for_an_upgrade(folder):
    path = raw(folder / "newer.hdf5", make([(4, TERMINAL)]), schema="jaxrl_suite/2")
    with pytest.raises(UserError, match=r"has schema jaxrl_suite/2.*upgrade"):
        data.load(path)


def test_sim_state_that_does_not_fit_is_an_error(folder):
    attributes = {"env": "Hopper-v4", "sim_state": "from_observations"}
    path = raw(folder / "misfit.hdf5", make([(4, TERMINAL)]), **attributes)
    with pytest.raises(UserError, match="observations has 3 columns, Hopper-v4 has 11"):
        data.load(path)


# --- Names ---
@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """A registry of one bundled data set, `toy-mini`, and an empty folder of the user's own."""
    folder, own = tmp_path / "bundled", tmp_path / "own"
    own.mkdir()
    sha256 = data.write(folder / "toy-mini.hdf5", make([(4, TERMINAL)]), "Toy-v0", {}, "", "")
    (folder / "SHA256SUMS").write_text(f"{sha256}  toy-mini.hdf5\n")
    sums = registry.checksums(folder)
    entry = data.Entry("toy-mini", "Toy-v0", "toy-mini.hdf5", sums["toy-mini.hdf5"], "mini", "MIT", "us", "a toy")
    monkeypatch.setattr(registry, "bundled_folder", lambda: folder)
    monkeypatch.setattr(registry, "REGISTRY", {"toy-mini": entry})
    monkeypatch.setenv("JAXRL_SUITE_DATA", str(own))
    return folder, own, entry


def test_bundled_and_local_names(bundle):
    _, own, _ = bundle
    raw(own / "mine.hdf5", make([(6, TERMINAL)]))
    raw(own / "toy-mini.hdf5", make([(6, TERMINAL)]))  # a bundled name cannot be taken
    info = data.load("toy-mini")[1]
    assert (info.name, info.rows, info.licence, info.source) == ("toy-mini", 4, "MIT", "us")
    assert data.load("mine")[1].rows == 6
    assert [(found.name, found.rows) for found in data.catalogue()] == [("toy-mini", 4), ("mine", 6)]


def test_unknown_names(bundle, monkeypatch):
    _, own, _ = bundle
    raw(own / "hopper-mine.hdf5", make([(6, TERMINAL)]))
    with pytest.raises(UserError, match=r"unknown data set 'toymini'; did you mean toy-mini.*path of an .hdf5"):
        data.load("toymini")
    with pytest.raises(UserError, match="did you mean hopper-mine"):
        data.load("hopper-mien")
    with pytest.raises(UserError, match="x/toy-mini: no such file"):  # a separator makes it a path
        data.load("x/toy-mini")
    monkeypatch.setenv("JAXRL_SUITE_DATA", str(own / "nowhere"))
    with pytest.raises(UserError, match=r"JAXRL_SUITE_DATA names .* not a folder"):
        data.load("toymini")


def test_damaged_bundled_files_are_refused_and_listed(bundle, monkeypatch):
    folder, own, entry = bundle
    path = folder / "toy-mini.hdf5"
    content = path.read_bytes()
    (own / "broken.hdf5").write_bytes(b"no")

    def problem(message):
        with pytest.raises(UserError, match=message):
            data.load("toy-mini")
        listed = {info.name: info for info in data.catalogue()}["toy-mini"]
        assert listed.rows == 0 and np.isnan(listed.return_mean) and listed.env == "Toy-v0"
        assert listed.provenance["problem"]

    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    problem("the file is damaged .sha256 .*; reinstall")
    path.unlink()
    problem("missing from this installation")
    path.write_bytes(content)
    monkeypatch.setattr(registry, "REGISTRY", {"toy-mini": entry._replace(sha256="")})
    problem("no checksum")
    assert [info.name for info in data.catalogue() if "problem" in info.provenance] == ["toy-mini", "broken"]


def test_the_real_registry_reads_its_sums():
    sums = registry.checksums(registry.bundled_folder())
    for name, entry in data.REGISTRY.items():
        assert (entry.name, entry.file) == (name, f"{name}.hdf5") and entry.sha256 == sums.get(entry.file, "")
