"""The data sets that come with the package: what each file says about itself holds, and its rows are physics."""

import hashlib

import jax
import numpy as np
import pytest

from jaxrl_suite import data, envs
from jaxrl_suite.data import registry
from jaxrl_suite.data.episodes import summary
from jaxrl_suite.envs.pool import Pool
from jaxrl_suite.train.host import env_seed

LARGEST = 8_000_000  # bytes; a clone and a wheel carry all of them
TIME_STEP = {"Hopper-v4": 0.008, "HalfCheetah-v4": 0.05, "Walker2d-v4": 0.008}
NAMES = sorted(data.REGISTRY)
PURE = [name for name in NAMES if envs.is_pure(data.REGISTRY[name].env)]
HOSTED = [name for name in NAMES if name not in PURE]
# Published results rest on these bytes.
FIRST = ("hopper-medium-replay-mini", "3becd3ab5b458e6cbcb747b980c9ffb9bf827ecbb5e20768bf1f235cda5c413f")


@pytest.fixture(scope="module", params=NAMES)
def loaded(request):
    return data.REGISTRY[request.param], *data.load(request.param)


def test_the_folder_and_the_registry_agree():
    folder = registry.bundled_folder()
    files = sorted(path.name for path in folder.glob("*.hdf5"))
    assert files == sorted(registry.checksums(folder)) == sorted(entry.file for entry in data.REGISTRY.values())


@pytest.mark.parametrize("name", NAMES)
def test_checksum_and_size(name):
    content = (registry.bundled_folder() / data.REGISTRY[name].file).read_bytes()
    assert hashlib.sha256(content).hexdigest() == data.REGISTRY[name].sha256
    assert len(content) <= LARGEST


def test_the_first_data_set_has_not_changed():
    assert data.REGISTRY[FIRST[0]].sha256 == FIRST[1]


def test_the_provenance_is_complete_and_true(loaded):
    entry, dataset, info = loaded
    said = info.provenance
    assert (info.env, info.licence) == (entry.env, entry.licence)
    assert (said["options"]["level"], said["options"]["publish"]) == (entry.level, True)
    assert entry.name == f"{said['options']['env']}-{entry.level}-mini"
    assert not said["recorded"]["git_commit"].endswith("-dirty")
    learners = said["learners"]
    assert set(learners) == {"medium-replay": {"medium"}, "medium-expert": {"medium", "expert"}}[entry.level]
    assert all(learner["provenance"]["versions"]["envpool"] for learner in learners.values())
    if "expert" in learners:
        assert learners["expert"]["final_return"] >= said["options"]["threshold"]
    if entry.name == FIRST[0]:  # it is older than this part of the provenance
        return
    episodes = summary(dataset)
    returns = episodes["return"]
    counts = {"rows": len(dataset.episode), "episodes": len(episodes)}
    numbers = {"return_mean": returns.mean(), "return_std": returns.std(ddof=0), "return_max": returns.max()}
    assert said["data"] == {**counts, **{key: pytest.approx(x, abs=0.1) for key, x in numbers.items()}}
    assert {"rows": info.rows, "episodes": info.episodes} == counts
    if entry.level == "medium-replay":
        assert 0.9 * said["options"]["rows"] < counts["rows"] <= said["options"]["rows"]
    else:
        halves = [learners[kind]["data"] for kind in ("medium", "expert")]
        assert [sum(half[key] for half in halves) for key in counts] == list(counts.values())
        split = halves[0]["episodes"]
        expected = pytest.approx([half["return_mean"] for half in halves], abs=0.1)
        assert [returns[:split].mean(), returns[split:].mean()] == expected
        assert halves[1]["return_mean"] > halves[0]["return_mean"]


@pytest.mark.parametrize("loaded", HOSTED, indirect=True)
def test_positions_move_as_velocities_say(loaded):
    """Every row, the ends of episodes included, is one step of physics: a successor from elsewhere would jump."""
    entry, dataset, _ = loaded
    obs, next_obs = dataset.transitions.obs, dataset.transitions.next_obs
    half = obs.shape[1] // 2  # obs holds all positions but x, then all velocities
    velocity = (obs[:, half + 1 :] + next_obs[:, half + 1 :]) / 2
    error = np.abs(next_obs[:, :half] - obs[:, :half] - TIME_STEP[entry.env] * velocity).max(axis=1)
    last = np.append(np.diff(dataset.episode) != 0, True)
    scale = np.quantile(error[~last], 0.99)
    jumps = np.abs(obs[1:, :half] - obs[:-1, :half] - TIME_STEP[entry.env] * velocity[:-1]).max(axis=1)[last[:-1]]
    assert np.median(error[last]) < scale < np.median(jumps)  # across borders the same measure does see a jump
    assert (error[last] > 5 * scale).mean() < 0.02
    assert np.abs(dataset.transitions.action).max() <= 1


@pytest.mark.parametrize("loaded", HOSTED, indirect=True)
def test_a_first_episode_can_be_played_again(loaded):
    """Seed and environment of the provenance lead to rows of the file."""
    entry, dataset, info = loaded
    seed, stream = info.provenance["options"]["seed"], {"medium-replay": 0, "medium-expert": 2}[entry.level]
    first = np.append(True, np.diff(dataset.episode) != 0)
    starts = np.flatnonzero(first)
    t = dataset.transitions
    pool = Pool(entry.env, [env_seed(seed, stream, i) for i in range(8)])
    obs = pool.reset()
    found = [
        (env, start) for env in range(8) for start in starts if np.allclose(t.obs[start], obs[env], rtol=0, atol=1e-6)
    ]
    assert found, "no episode starts where the environments of this seed start"
    env, start = found[0]
    actions = np.zeros((8, envs.spec(entry.env).action_dim), np.float32)
    for row in range(start, start + 15):
        actions[env] = t.action[row]
        timestep = pool.step(actions)
        if row > start and first[row]:
            break
        # Loose, and few steps: another processor rounds differently.
        np.testing.assert_allclose(timestep.obs[env], t.next_obs[row], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(timestep.reward[env], t.reward[row], rtol=1e-3, atol=1e-3)
    pool.close()


@pytest.mark.parametrize("loaded", PURE, indirect=True)
def test_a_row_of_a_pure_environment_is_one_of_its_steps(loaded):
    entry, dataset, _ = loaded
    env, t = envs.make(entry.env), dataset.transitions
    states = jax.vmap(lambda obs: env.restore(obs, None))(t.obs)
    _, seen = jax.jit(jax.vmap(env.step))(states, t.action, jax.random.split(jax.random.key(0), len(t.obs)))
    np.testing.assert_allclose(seen.obs, t.next_obs, rtol=0, atol=1e-4)
    np.testing.assert_allclose(seen.reward, t.reward, rtol=0, atol=1e-4)
    assert not seen.terminated.any() and (t.discount == 1).all()
