"""Data sets that the real minari package wrote load to exactly what went in; broken ones are refused."""

import dataclasses
import json
import shutil
import sys

import h5py
import numpy as np
import pytest
from test_data import CUT, TERMINAL, TIMEOUT, loop, make, raw

from experiments import collect
from jaxrl_suite import data
from jaxrl_suite.data import minari as reader
from jaxrl_suite.data.memory import FIELDS
from jaxrl_suite.errors import UserError

minari = pytest.importorskip("minari", reason="needs the extra minari")
gymnasium = pytest.importorskip("gymnasium")
OBS, ACT = 3, 2
LENGTHS = [3, 1, 4, 2, 1, 3, 2, 1, 2, 5, 1, 2]  # more than ten: episode_10 must not come after episode_1
FORMATS = ["hdf5", "arrow"]


def box(*shape, dtype=np.float32, low=-np.inf, high=np.inf):
    return gymnasium.spaces.Box(low, high, shape, dtype)


def buffers(lengths=LENGTHS, seed=0, obs=(OBS,), dtype=np.float32):
    """Episodes whose rows are all different; they end in turn terminated, truncated and both."""
    rng = np.random.default_rng(seed)
    made = []
    for index, length in enumerate(lengths):
        last = np.arange(length) == length - 1
        made.append(
            minari.data_collector.EpisodeBuffer(
                observations=rng.normal(size=(length + 1, *obs)).astype(dtype),
                actions=rng.uniform(-1, 1, size=(length, ACT)).astype(np.float32),
                rewards=list(rng.normal(size=length)),
                terminations=list(last & (index % 3 != 1)),
                truncations=list(last & (index % 3 != 0)),
                infos={"noise": rng.normal(size=(length + 1, 2))},
            )
        )
    return made


def flat(episodes):
    """The same as rows in the D4RL layout, for the plain loop."""
    rows = {
        "observations": [e.observations[:-1] for e in episodes],
        "next_observations": [e.observations[1:] for e in episodes],
        "actions": [e.actions for e in episodes],
        "rewards": [np.asarray(e.rewards, np.float32) for e in episodes],
        "terminals": [e.terminations for e in episodes],
    }
    return {key: np.concatenate(x) for key, x in rows.items()}


def same(dataset, episodes):
    arrays = flat(episodes)
    rows = loop(arrays, [(len(e.actions), "") for e in episodes], 0.99)
    t = dataset.transitions
    np.testing.assert_array_equal(t.obs, arrays["observations"])
    np.testing.assert_array_equal(t.action, arrays["actions"])
    np.testing.assert_array_equal(t.reward, arrays["rewards"])
    np.testing.assert_array_equal(t.next_obs, arrays["next_observations"])
    np.testing.assert_array_equal(t.discount, [row["discount"] for row in rows])
    np.testing.assert_array_equal(dataset.truncated, [row["truncated"] for row in rows])
    np.testing.assert_array_equal(dataset.episode, [row["episode"] for row in rows])
    np.testing.assert_array_equal(dataset.next_action, np.array([row["next_action"] for row in rows], np.float32))
    np.testing.assert_allclose(dataset.mc_return, [row["mc"] for row in rows], rtol=1e-5, atol=1e-5)


def write(name, data_format="hdf5", episodes=None, **options):
    spaces = {"observation_space": box(OBS), "action_space": box(ACT, low=-1, high=1)} | options
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **kwargs: None)  # about authors and links that we do not give
        minari.create_dataset_from_buffers(name, episodes or buffers(), data_format=data_format, **spaces)
    return reader.root() / name


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.delenv("JAXRL_SUITE_DATA", raising=False)


# --- What the real package writes ---
@pytest.mark.parametrize("data_format", FORMATS)
def test_what_minari_wrote_comes_back_exactly(data_format):
    path = write("toy/walk-v0", data_format)
    dataset, info = data.load("minari:toy/walk-v0")
    same(dataset, buffers())
    assert (info.rows, info.episodes, info.env) == (sum(LENGTHS), len(LENGTHS), None)
    assert info.name == "minari:toy/walk-v0" and info.source == "Minari toy/walk-v0"
    assert info.provenance["minari"]["dataset_id"] == "toy/walk-v0" and "reader" not in info.provenance
    for where in (path, path / "data"):
        other, again = data.load(str(where))
        assert (again.sha256, again.rows) == (info.sha256, info.rows)
        np.testing.assert_array_equal(other.transitions.obs, dataset.transitions.obs)


def test_both_formats_and_memory_hold_the_same_rows():
    write("a-v0", "hdf5"), write("b-v0", "arrow")
    loaded = [data.load("minari:a-v0")[0], data.load("minari:b-v0")[0], data.from_episodes(buffers())[0]]
    real = minari.load_dataset("b-v0")  # the package's own episodes are episodes in memory
    loaded.append(data.from_episodes(real.iterate_episodes())[0])
    for other in loaded[1:]:
        for x, y in zip((*loaded[0].transitions, *loaded[0][1:5]), (*other.transitions, *other[1:5]), strict=True):
            np.testing.assert_array_equal(x, y)


def test_the_environment_is_read_as_text():
    write("pendulum-v0", episodes=buffers(), env="Pendulum-v1")  # spaces as above
    assert data.load("minari:pendulum-v0")[1].env == "Pendulum-v1"


@pytest.mark.parametrize("data_format", FORMATS)
def test_windows_are_rows_of_the_whole(data_format):
    write("toy-v0", data_format)
    whole, info = data.load("minari:toy-v0")
    part, same_info = data.load("minari:toy-v0", window=lambda rows: (4, rows - 5))
    np.testing.assert_array_equal(part.transitions.obs, whole.transitions.obs[4:-5])
    np.testing.assert_array_equal(part.episode, whole.episode[4:-5])
    assert same_info == info


def test_an_end_without_a_flag_is_a_border_and_is_told():
    episodes = buffers([3, 2, 2])
    episodes[1].truncations[-1] = False
    episodes[2].observations[0] = episodes[1].observations[-1]  # no jump betrays the border
    write("toy-v0", episodes=episodes)
    dataset, info = data.load("minari:toy-v0")
    same(dataset, episodes)
    assert info.provenance["reader"] == {"episode_ends_without_flag": 1} and info.episodes == 3


def test_a_flag_within_an_episode_ends_it_there():
    episodes = buffers([4])
    episodes[0].terminations[1] = True
    write("toy-v0", episodes=episodes)
    dataset, _ = data.load("minari:toy-v0")
    np.testing.assert_array_equal(dataset.episode, [0, 0, 1, 1])
    np.testing.assert_array_equal(dataset.transitions.discount, [1, 0, 1, 0])
    np.testing.assert_array_equal(dataset.transitions.next_obs, episodes[0].observations[1:])


# --- The simulator's states ---
NQ, NV = 3, 2


def with_states(spoil=None, at=1):
    """Episodes whose infos hold states, nested beside other things; `spoil` changes the infos of episode `at`."""
    rng, made = np.random.default_rng(5), []
    for index, episode in enumerate(buffers()):
        rows = len(episode.observations)
        infos = {
            "qpos": rng.normal(size=(rows, NQ)),
            "qvel": rng.normal(size=(rows, NV)).astype(np.float32),
            "goal": {"qpos": rng.normal(size=(rows, 7)), "name": ["there"] * rows},
            "success": [False] * rows,
        }
        infos = spoil(infos) if spoil and index == at else infos
        made.append(dataclasses.replace(episode, infos=infos))
    return made


def states(episodes):
    return [np.concatenate([e.infos[key][:-1] for e in episodes]).astype(np.float32) for key in ("qpos", "qvel")]


@pytest.mark.parametrize("data_format", FORMATS)
def test_states_of_the_simulator_are_those_of_the_observations(data_format):
    """Row t of the infos stands beside observation t; the final one's is no row's."""
    path = write("toy-v0", data_format, with_states())
    dataset, info = data.load(str(path))
    same(dataset, with_states())
    in_memory = data.from_episodes(with_states())[0]
    theirs = data.from_episodes(minari.load_dataset("toy-v0").iterate_episodes())[0]
    for loaded in (dataset, in_memory, theirs):
        for found, expected in zip(loaded.sim_state, states(with_states()), strict=True):
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == np.float32
    assert "reader" not in info.provenance


@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")  # the collector's own folders
@pytest.mark.parametrize("data_format", FORMATS)
def test_what_a_real_collector_records_is_what_the_simulator_was_in(data_format):
    """Gymnasium's pendulum through Minari's DataCollector: the states lead to the observations."""

    class WithState(gymnasium.Wrapper):
        def told(self):
            angle, speed = self.unwrapped.state
            return {"qpos": np.array([angle]), "qvel": np.array([speed]), "steps": 0}

        def reset(self, **options):
            return self.env.reset(**options)[0], self.told()

        def step(self, action):
            return *self.env.step(action)[:4], self.told()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **kwargs: None)
        pendulum = gymnasium.make("Pendulum-v1", max_episode_steps=12)
        env = minari.DataCollector(WithState(pendulum), record_infos=True, data_format=data_format)
        for seed in range(3):
            env.reset(seed=seed)
            while not env.step(env.action_space.sample())[3]:
                pass
        env.create_dataset("pendulum/random-v0")
        env.close()
    dataset, info = data.load("minari:pendulum/random-v0")
    (angle,), (speed,) = (x.T for x in dataset.sim_state)
    assert (info.rows, info.episodes) == (36, 3) and "reader" not in info.provenance
    np.testing.assert_allclose(dataset.transitions.obs.T, [np.cos(angle), np.sin(angle), speed], atol=1e-6)


def dropped(*names):
    return lambda infos: {key: x for key, x in infos.items() if key not in names}


SPOILT = {
    "one of them is missing": dropped("qpos"),
    "both are missing": dropped("qpos", "qvel"),
    "no infos": lambda infos: None,
    "a row less: those of the steps alone": lambda infos: infos | {"qpos": infos["qpos"][1:]},
    "another width": lambda infos: infos | {"qvel": infos["qvel"][:, :1]},
    "numbers without a width": lambda infos: infos | {"qpos": infos["qpos"][:, 0]},
    "matrices": lambda infos: infos | {"qpos": np.zeros((len(infos["qpos"]), NQ, 2))},
    "texts": lambda infos: infos | {"qpos": ["left"] * len(infos["qpos"])},
    "a group": lambda infos: infos | {"qpos": {"x": infos["qpos"]}},
}


@pytest.mark.parametrize("why", SPOILT)
@pytest.mark.parametrize("data_format", [*FORMATS, "memory"])
def test_an_episode_whose_states_do_not_fit_has_unknown_ones_and_is_told(data_format, why):
    if data_format == "arrow" and why.startswith("a row less"):
        pytest.skip("columns of one length are all that Arrow can hold")
    episodes = with_states(SPOILT[why], at=2)
    if data_format == "memory":
        dataset, info = data.from_episodes(episodes)
    else:
        dataset, info = data.load(str(write("toy-v0", data_format, episodes)))
    same(dataset, episodes)
    assert info.provenance["reader"] == {"episodes_without_sim_state": 1}
    for found, expected in zip(dataset.sim_state, states(with_states()), strict=True):
        lost = dataset.episode == 2
        assert np.isnan(found[lost]).all()
        np.testing.assert_array_equal(found[~lost], expected[~lost])


def test_states_that_fit_nowhere_are_told_and_left_out():
    spoil = SPOILT["numbers without a width"]
    episodes = [dataclasses.replace(e, infos=spoil(e.infos)) for e in with_states()]
    dataset, info = data.load(str(write("toy-v0", episodes=episodes)))
    assert dataset.sim_state is None
    assert info.provenance["reader"] == {"episodes_without_sim_state": len(LENGTHS)}


def test_states_behind_a_link_are_not_followed(tmp_path):
    path = write("toy-v0", episodes=with_states())
    main, secret = path / "data" / "main_data.hdf5", tmp_path / "secret.hdf5"
    with h5py.File(main, "a") as file, h5py.File(secret, "w") as other:
        other["qpos"] = file["episode_0/infos/qpos"][()]
        replace(file, "episode_0/infos/qpos", h5py.ExternalLink(str(secret), "/qpos"))
    dataset, info = data.load(str(path))
    assert np.isnan(dataset.sim_state[0][: LENGTHS[0]]).all()
    assert info.provenance["reader"] == {"episodes_without_sim_state": 1}


def test_states_count_towards_what_a_file_can_hold():
    """Links within the file to one array: it is small enough, all of them are not."""

    def link(file):
        rows = reader.LARGEST_RATIO * file.id.get_filesize() // (8 * 5 * 8)  # an eighth of what there may be
        file.create_dataset("all", (rows, 5), np.float64, chunks=True)
        for index in range(len(LENGTHS)):
            for name in ("qpos", "qvel"):
                file.require_group(f"episode_{index}/infos")[name] = file["all"]

    with pytest.raises(UserError, match="declares more than a file of this size can hold"):
        data.load(str(spoil(link)))


# --- What we do not read ---
def test_other_spaces_are_refused():
    space = gymnasium.spaces.Dict({"a": box(OBS)})
    (plain,) = buffers([2])
    episodes = [dataclasses.replace(plain, observations={"a": plain.observations})]
    write("dict-v0", episodes=episodes, observation_space=space)
    with pytest.raises(UserError, match=r"observation_space is Dict; expected a Box of vectors"):
        data.load("minari:dict-v0")
    images = buffers([2], obs=(32, 32, 3), dtype=np.uint8)
    write("image-v0", episodes=images, observation_space=box(32, 32, 3, dtype=np.uint8, low=0, high=255))
    with pytest.raises(UserError, match=r"observation_space is Box of shape \(32, 32, 3\)"):
        data.load("minari:image-v0")
    discrete = [dataclasses.replace(plain, actions=np.array([0, 1]))]
    write("discrete-v0", episodes=discrete, action_space=gymnasium.spaces.Discrete(2))
    with pytest.raises(UserError, match=r"action_space is Discrete"):
        data.load("minari:discrete-v0")


def test_parquet_is_refused():
    path = write("toy-v0", "parquet")
    with pytest.raises(UserError, match=r"data_format is 'parquet', expected hdf5 or arrow"):
        data.load(str(path))


def test_arrow_without_pyarrow_says_what_to_install(monkeypatch):
    write("toy-v0", "arrow")
    monkeypatch.setitem(sys.modules, "pyarrow.ipc", None)
    with pytest.raises(UserError, match=r"pip install 'jaxrl_suite\[minari\]'"):
        data.load("minari:toy-v0")


# --- Names ---
@pytest.mark.parametrize(
    "name", ["../secret-v0", "a/../../b", "/etc", "", ".", "a//b", "a/.hidden", "~", "a\\b", "a\x00b", "a-v0/", "ü-v0"]
)
def test_ids_that_leave_the_folder_are_refused(name):
    with pytest.raises(UserError, match="is no Minari id"):
        data.load(f"minari:{name}")


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    path = write("toy-v0")
    shutil.move(path, tmp_path / "away")
    (reader.root() / "linked").symlink_to(tmp_path)
    with pytest.raises(UserError, match="leads outside"):
        data.load("minari:linked/away")
    assert data.load(str(tmp_path / "away"))[1].rows == sum(LENGTHS)


def test_unknown_ids():
    with pytest.raises(UserError, match=r"no such data set under .*; run `minari download mujoco/x-v0`"):
        data.load("minari:mujoco/x-v0")
    with pytest.raises(UserError, match="not a file"):
        reader.root().mkdir()
        data.load(str(reader.root()))


# --- Broken files ---
@pytest.mark.parametrize("data_format", FORMATS)
def test_the_checksum_covers_every_file(data_format):
    path = write("toy-v0", data_format) / "data"
    before = data.load(str(path))[1].sha256
    with pytest.raises(UserError, match="the file is damaged"):
        reader.load_minari(path, expected_sha256="0" * 64)
    metadata = json.loads((path / "metadata.json").read_text())
    (path / "metadata.json").write_text(json.dumps(metadata | {"description": "other"}))
    assert data.load(str(path))[1].sha256 != before


def change_metadata(path, **changes):
    file = path / "data" / "metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total_episodes": 13}, "total_episodes is 13, but the files hold 12"),
        ({"total_steps": 1}, "total_steps is 1, but the files hold 27"),
        ({"data_format": "zarr"}, "data_format is 'zarr'"),
        ({"data_format": ["hdf5"]}, "data_format is"),
        ({"observation_space": "{"}, "observation_space is unreadable"),
        ({"action_space": 7}, "action_space is unreadable"),
        ({"observation_space": json.dumps({"type": "Box", "shape": [4]})}, "has 4 dimensions, but the files hold 3"),
    ],
)
def test_metadata_that_does_not_fit(changes, message):
    path = write("toy-v0")
    change_metadata(path, **changes)
    with pytest.raises(UserError, match=message):
        data.load(str(path))


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, "\xff"])
def test_metadata_that_is_no_object(text):
    path = write("toy-v0")
    (path / "data" / "metadata.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"metadata.json"):
        data.load(str(path))


def spoil(action):
    """A change of the HDF5 file of a data set."""
    path = write("toy-v0")
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        action(file)
    return path


def replace(file, name, value):
    del file[name]
    file[name] = value


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda f: f.move("episode_4", "episode_12"), "episode 4 is missing, expected all up to 12"),
        (lambda f: f.move("episode_4", "episode_04"), "episode 4 is missing"),
        (lambda f: f["episode_2"].pop("rewards"), "episode_2 has no rewards"),
        (lambda f: replace(f, "episode_2/rewards", np.zeros(3)), "episode 2: rewards has 3 rows, but actions has 4"),
        (lambda f: replace(f, "episode_2/observations", np.zeros((4, 3))), "observations has 4 rows, expected 5"),
        (lambda f: replace(f, "episode_2/observations", np.zeros((5, 4))), "has 4 columns, but episode 0 has 3"),
        (lambda f: replace(f, "episode_2/observations", np.zeros(5)), r"observations has shape \(5,\), expected vec"),
        (lambda f: replace(f, "episode_2/actions", np.array([b"a"] * 4)), "holds .*S1.*, expected numbers"),
        (lambda f: replace(f, "episode_2/terminations", np.full(4, 2)), "terminals has 4 values other than 0 and 1"),
        (lambda f: replace(f, "episode_2/rewards", np.full(4, np.nan)), "rewards has 4 rows with NaN"),
        (lambda f: replace(f, "episode_2/rewards", h5py.ExternalLink("x", "/")), "expected the data in this file"),
        (lambda f: replace(f, "episode_2", h5py.SoftLink("/episode_1")), "expected the data in this file"),
        (lambda f: f.clear(), "has no episodes"),
    ],
)
def test_wrong_contents(action, message):
    path = spoil(action)
    with pytest.raises(UserError, match=message) as caught:
        data.load(str(path))
    assert "\n" not in str(caught.value)


def test_files_of_one_episode_many_times_are_no_bomb():
    """Links within the file to one large array: each is small enough, all of them are not."""

    def link(file):
        file.clear()
        shape = {"observations": (200_001, 3), "actions": (200_000, 2)}
        for name in FIELDS:
            file.create_dataset(name, shape.get(name, (200_000,)), np.float64, chunks=True)
        for index in range(40):
            for name in FIELDS:
                file.require_group(f"episode_{index}")[name] = file[name]

    with pytest.raises(UserError, match="declares more than a file of this size can hold"):
        data.load(str(spoil(link)))


def test_links_in_the_folder_are_refused(tmp_path):
    path = write("toy-v0") / "data"
    shutil.move(path / "main_data.hdf5", tmp_path / "main_data.hdf5")
    (path / "main_data.hdf5").symlink_to(tmp_path / "main_data.hdf5")
    with pytest.raises(UserError, match="is a symbolic link"):
        data.load(str(path))


def test_arrow_folders_that_are_incomplete():
    path = write("toy-v0", "arrow") / "data"
    shutil.copy(path / "3" / "part-0.arrow", path / "3" / "part-1.arrow")
    with pytest.raises(UserError, match=r"3: holds 2 .arrow files, expected one"):
        data.load(str(path))
    (path / "3" / "part-1.arrow").unlink()
    content = (path / "3" / "part-0.arrow").read_bytes()
    for share in (0, 0.3, 0.9):
        (path / "3" / "part-0.arrow").write_bytes(content[: int(len(content) * share)])
        with pytest.raises(UserError, match=r"3/part-0.arrow: truncated or damaged"):
            data.load(str(path))
    shutil.rmtree(path / "3")
    with pytest.raises(UserError, match="episode 3 is missing, expected all up to 11"):
        data.load(str(path))


# --- What we write ---
def test_the_real_minari_reads_what_we_write(tmp_path, monkeypatch):
    arrays = make([(3, TERMINAL), (4, TIMEOUT), (1, TERMINAL), (2, CUT)])
    expected = data.load(raw(tmp_path / "same.hdf5", arrays))[0]
    for _ in range(2):  # the second replaces the first
        path = data.write_minari(reader.root(), "toy/walk-v1", arrays, "Toy-v0", {"seed": 3}, "a test")
    assert [p.name for p in path.parent.iterdir()] == ["walk-v1"]
    dataset, info = data.load("minari:toy/walk-v1")
    for x, y in zip((*expected.transitions, *expected[1:5]), (*dataset.transitions, *dataset[1:5]), strict=True):
        np.testing.assert_array_equal(x, y)
    assert info.env == "Toy-v0" and info.provenance["minari"]["jaxrl_suite"] == {"seed": 3}
    real = minari.load_dataset("toy/walk-v1")
    assert (real.total_episodes, real.total_steps, real.env_spec.id) == (4, 10, "Toy-v0")
    assert real.observation_space.shape == (OBS,) and real.action_space.shape == (ACT,)
    theirs = data.from_episodes(real.iterate_episodes())[0]
    for x, y in zip((*theirs.transitions, *theirs[1:5]), (*dataset.transitions, *dataset[1:5]), strict=True):
        np.testing.assert_array_equal(x, y)
    assert "toy/walk-v1" in minari.list_local_datasets()


def test_states_are_written_and_the_final_observations_is_unknown(tmp_path):
    arrays = make([(3, TERMINAL), (4, TIMEOUT), (2, CUT)])
    infos = {"infos/qpos": np.arange(27.0).reshape(9, NQ), "infos/qvel": -np.arange(18.0).reshape(9, NV)}
    path = data.write_minari(reader.root(), "toy-v1", arrays | infos, "Toy-v0", {})
    found = data.load(str(path))[0].sim_state
    expected = data.load(raw(tmp_path / "same.hdf5", arrays | infos))[0].sim_state
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_array_equal(x, y)
    first = next(iter(minari.load_dataset("toy-v1").iterate_episodes()))
    np.testing.assert_array_equal(first.infos["qpos"][:3], infos["infos/qpos"][:3])
    assert first.infos["qpos"].shape == (4, NQ) and np.isnan(first.infos["qpos"][3]).all()


def test_what_minari_cannot_say_is_not_written(tmp_path):
    arrays = make([(3, TERMINAL)])
    for name in ("../x-v0", "toy", "a/../b-v0", "/x-v0"):
        with pytest.raises(UserError, match="is no Minari id"):
            data.write_minari(tmp_path / "out", name, arrays, "Toy-v0", {})
    arrays["next_observations"][0] += 1
    with pytest.raises(UserError, match="row 0 leads elsewhere"):
        data.write_minari(tmp_path / "out", "toy-v0", arrays, "Toy-v0", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        data.write_minari(tmp_path / "file", "toy-v0", make([(3, TERMINAL)]), "Toy-v0", {})
    assert not (tmp_path / "out").exists()


def test_collect_writes_both_formats(tmp_path, monkeypatch, capsys):
    words = ["collect", "--level=random", "--rows=60", f"--out={tmp_path}", "--format=d4rl,minari"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as stop:
        collect.main()
    assert stop.value.code == 0, capsys.readouterr().err
    flat_file, info = data.load(str(tmp_path / "collect" / "hopper-random-mini.hdf5"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "collect" / "minari"))
    folder, other = data.load("minari:hopper-random-mini-v0")
    for x, y in zip((*flat_file.transitions, *flat_file[1:5]), (*folder.transitions, *folder[1:5]), strict=True):
        np.testing.assert_array_equal(x, y)
    assert info.env == other.env == "Hopper-v4"
    assert info.provenance["options"] == other.provenance["minari"]["jaxrl_suite"]["options"]
    assert minari.load_dataset("hopper-random-mini-v0").total_steps == info.rows


@pytest.mark.parametrize(
    ("word", "message"), [("--format=d4lr", "did you mean d4rl"), ("--format=minari", "--publish")]
)
def test_collect_refuses_formats(tmp_path, monkeypatch, capsys, word, message):
    monkeypatch.setattr("sys.argv", ["collect", "--level=random", f"--out={tmp_path}", word, "--publish"])
    with pytest.raises(SystemExit) as stop:
        collect.main()
    assert stop.value.code == 2 and message in capsys.readouterr().err
