"""The true dynamics as a world model, the way to them from a random one, and what pessimism about them leaves."""

import dataclasses
import functools
import json
import sys
from pathlib import Path
from typing import NamedTuple

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import random_data
from test_model_based import ENV, OWN, SMALL, first_period, norms, same
from test_probes import check

from experiments import offline_mbrl, options
from jaxrl_suite import data
from jaxrl_suite.algorithms import combo, mbpo, mobile, mopo, morel, rambo, registry
from jaxrl_suite.envs.autoreset import autoreset
from jaxrl_suite.envs.probes import PROBES
from jaxrl_suite.errors import UserError
from jaxrl_suite.models import ensemble, imagine, oracle, transforms, uncertainty, worlds
from jaxrl_suite.models.ensemble import EnsembleConfig
from jaxrl_suite.train import record, session
from jaxrl_suite.train.memory import learn
from jaxrl_suite.types import Dataset, Env, Spec, Stats, Timestep, Transition

GOLDEN = Path(__file__).parent / "golden" / "mbpo.json"
KEY = jax.random.key(0)
STATS = Stats(jnp.zeros(4), jnp.ones(4))
PURE = [ENV, *(PROBES[name].env for name in ("probe-delayed", "probe-both"))]


# --- restore ---
@pytest.mark.parametrize("env", PURE, ids=lambda env: env.spec.name)
def test_a_restored_state_goes_on_as_the_one_that_was_seen(env):
    def both(key):
        reset_key, action_key, step_key = jax.random.split(key, 3)
        state, obs = env.reset(reset_key)
        actions = jax.random.uniform(action_key, (3, env.spec.action_dim), minval=-1.0, maxval=1.0)
        for action in actions[: env.spec.horizon - 1]:
            state, seen = env.step(state, action, step_key)
            obs = seen.obs
        return tuple(env.step(start, actions[0], step_key)[1] for start in (state, env.restore(obs, None)))

    true, restored = jax.jit(jax.vmap(both))(jax.random.split(KEY, 50))
    np.testing.assert_allclose(restored.obs, true.obs, atol=1e-5)
    np.testing.assert_allclose(restored.reward, true.reward, atol=1e-4)
    np.testing.assert_array_equal(restored.terminated, true.terminated)


def test_an_environment_that_resets_itself_is_restored_too():
    world = autoreset(ENV)
    obs = jnp.array([0.6, 0.8, -3.0])
    state = world.restore(obs, None)
    np.testing.assert_array_equal(state.obs, obs)
    assert jax.tree.structure(state) == jax.tree.structure(world.reset(KEY)[0])
    assert autoreset(ENV._replace(restore=None)).restore is None


# --- the true dynamics as a world model ---
class Hidden(NamedTuple):
    position: jax.Array
    velocity: jax.Array  # not observed


def hidden_env(terminates=False):
    """A point that shows its position alone; it is truncated in every step."""

    def step(state, action, key):
        after = Hidden(state.position + state.velocity, state.velocity + action[0])
        obs = after.position[None]
        return after, Timestep(obs, 10.0 * after.position, obs[0] > 5.0, jnp.bool_(True), jnp.bool_(True))

    def restore(obs, sim_state):
        return Hidden(obs[0], jnp.zeros(()) if sim_state is None else sim_state[1][0])

    spec = Spec("hidden", 1, 1, 5, lambda obs: obs[..., 0] > 5.0)
    return Env(spec, lambda key: (Hidden(jnp.zeros(()), jnp.zeros(())), jnp.zeros(1)), step, restore)


def rows_at(obs, sim_state=None):
    n = len(obs)
    zeros = jnp.zeros(n)
    rows = Transition(obs, zeros[:, None], zeros, zeros, obs)
    return Dataset(rows, rows.action, zeros > 0, jnp.zeros(n, jnp.int32), zeros, sim_state)


def test_one_step_from_rows_of_data_is_what_the_data_say():
    data, model = random_data(ENV, 300), oracle.make(ENV)
    params = model.init(KEY, STATS)
    rows = data.transitions
    _, found = jax.jit(model.step)(params, model.start(params, data), rows.action, KEY)
    np.testing.assert_allclose(found.obs, rows.next_obs, atol=1e-5)
    np.testing.assert_allclose(found.reward, rows.reward, atol=1e-4)
    np.testing.assert_array_equal(found.discount, rows.discount)
    assert model.loss(params.weights, params, rows, KEY)[0] == 0.0 and params.weights == ()


def test_only_termination_ends_and_rollouts_are_not_truncated():
    model = oracle.make(hidden_env())
    params = model.init(KEY, STATS)
    rows = rows_at(jnp.array([[0.0], [4.5]]))
    push = lambda obs, key: jnp.ones((2, 1))  # noqa: E731
    rollout, valid = imagine.imagine(model, params, push, model.start(params, rows), rows.transitions.obs, 3, KEY)
    # By the velocities 0, 1, 2, which no observation tells: the state is carried.
    np.testing.assert_array_equal(rollout.next_obs[:, 0, 0], [0.0, 1.0, 3.0])
    np.testing.assert_array_equal(rollout.discount[:, 1], [1.0, 0.0, 0.0])
    np.testing.assert_array_equal(valid[:, 1], [True, True, False])


def test_states_of_the_data_are_used_where_it_has_them():
    """Velocities that an observation clips are NaN in the data: 13% of the rows of the bundled Hopper replay."""
    model, obs = oracle.make(hidden_env()), jnp.array([[0.0], [1.0]])
    params = model.init(KEY, STATS)
    some, half = jnp.array([[2.0], [-2.0]]), jnp.array([[jnp.nan], [-2.0]])
    for sim_state, expected in ((None, [0.0, 1.0]), ((obs, some), [2.0, -1.0]), ((obs, half), [0.0, -1.0])):
        state = model.start(params, rows_at(obs, sim_state))
        _, prediction = model.step(params, state, jnp.zeros((2, 1)), KEY)
        np.testing.assert_array_equal(prediction.obs[:, 0], expected)


@pytest.mark.parametrize("name", uncertainty.UNCERTAINTIES)
def test_every_uncertainty_of_the_truth_is_zero(name):
    data, model = random_data(ENV, 100), oracle.make(ENV)
    params = model.init(KEY, STATS)
    measure = uncertainty.make(name)

    def doubt(action):
        return transforms.doubt(measure, model.step(params, model.start(params, data), action, KEY)[1])

    np.testing.assert_array_equal(doubt(data.transitions.action), 0.0)
    slope = jax.grad(lambda action: jnp.sum(doubt(action)))(data.transitions.action)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize(
    ("name", "engine"),
    [("hopper", "c"), ("walker2d", "c"), ("halfcheetah", "c"), pytest.param("hopper", "mjx", marks=pytest.mark.slow)],
)
def test_mujoco_goes_on_from_bundled_data_as_the_data_do(name, engine):
    """On the rows whose state is known; the others are finite, and end where the data end."""
    pytest.importorskip("mujoco")
    dataset, info = data.load(f"{name}-medium-replay-mini")
    rows = jax.tree.map(lambda leaf: jnp.asarray(leaf[:: info.rows // 500]), dataset)
    model = oracle.of(name, engine)
    params = model.init(KEY, STATS)
    _, found = jax.jit(model.step)(params, model.start(params, rows), rows.transitions.action, KEY)
    known = np.isfinite(rows.sim_state[1]).all(-1)
    assert known.mean() > 0.5 and np.isfinite(found.obs).all()
    np.testing.assert_allclose(found.obs[known], rows.transitions.next_obs[known], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.reward[known], rows.transitions.reward[known], rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(found.discount[known], rows.transitions.discount[known])


def test_ant_goes_on_from_recorded_data_as_the_data_do(tmp_path):
    """Its x and y are lost in the data, and with them, of the reward, where MuJoCo last saw the torso."""
    pytest.importorskip("mujoco")
    rng = np.random.default_rng(0)
    arrays = record.rollout("Ant-v4", lambda obs, step: rng.uniform(-1, 1, (len(obs), 8)).astype(np.float32), 300, 0)
    data.write(tmp_path / "ant.hdf5", arrays, "Ant-v4", {}, "MIT", "a test")
    rows = jax.tree.map(jnp.asarray, data.load(str(tmp_path / "ant.hdf5"))[0])
    model = oracle.of("ant")
    params = model.init(KEY, STATS)
    _, found = jax.jit(model.step)(params, model.start(params, rows), rows.transitions.action, KEY)
    error = np.abs(np.asarray(found.obs) - rows.transitions.next_obs).max(-1)
    assert np.median(error) < 1e-3 and np.quantile(error, 0.95) < 2e-2  # contacts, and another MuJoCo in envpool
    np.testing.assert_allclose(found.reward, rows.transitions.reward, atol=0.15)
    np.testing.assert_array_equal(found.discount, rows.transitions.discount)


# --- pessimism about the truth ---
TRUE = {**SMALL, "world": "oracle", "updates": 6, "period": 3}
MODULES = {"mopo": mopo, "morel": morel, "mobile": mobile, "rambo": rambo, "combo": combo, "mbpo": mbpo}
OF_COMBO = {"cql_weight": 1.0, "samples": 2, "entropy_backup": True}
CHANGES = {
    "mopo": {"penalty": 5.0},
    "morel": {"pessimism": 3.0, "halt_penalty": 50.0},
    "mobile": {"penalty": 5.0, "samples": 2, "target_min": None, "entropy_backup": True},
    "rambo": OWN["rambo"] | {"clone_steps": 0},
    "combo": OF_COMBO,
    "mbpo": {},
}


@functools.cache
def two_periods(name):
    """The state after six updates in the true dynamics, and the metrics of the last three."""
    algorithm = MODULES[name].make(ENV.spec, MODULES[name].Config(**TRUE | CHANGES[name]))
    data = random_data(ENV, 100)
    (agent,) = algorithm.phases
    hypers = jax.tree.map(jnp.float32, algorithm.hypers)
    state = jax.jit(agent.init)(jax.random.key(1), hypers, data, None)
    update = jax.jit(agent.update)
    return update(update(state, data)[0], data)


def learnt(state):
    return state.agent.actor, state.agent.critic, state.agent.target_critic, state.agent.log_alpha


@pytest.mark.parametrize("name", ["mopo", "morel", "mobile", "rambo"])
def test_under_the_truth_pessimism_about_dynamics_is_the_base(name):
    """Sims et al. 2024: the penalties vanish with the errors. RAMBO has no weights to turn against the policy."""
    (found, metrics), (base, _) = two_periods(name), two_periods("mbpo")
    for mine, plain in zip(jax.tree.leaves(learnt(found)), jax.tree.leaves(learnt(base)), strict=True):
        np.testing.assert_allclose(mine, plain, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.imagined.data.reward, base.imagined.data.reward)
    np.testing.assert_array_equal(found.imagined.data.discount, base.imagined.data.discount)
    assert "adversarial" not in metrics


def test_under_the_truth_conservative_values_stay_conservative():
    (found, _), (base, _) = two_periods("combo"), two_periods("mbpo")
    assert not same(found.agent.critic, base.agent.critic)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(learnt(found)))


def test_the_base_learns_in_a_true_probe_from_imagined_rows_alone():
    env = PROBES["probe-both"].env
    config = mbpo.Config(
        **SMALL | {"updates": 1_500, "period": 500, "rollouts": 500, "horizon": 1, "real_ratio": 0.0, "batch": 64},
        world="oracle",
        gamma=0.9,
        tau=0.05,
    )
    config = dataclasses.replace(config, hidden=(32, 32), actor_lr=3e-3, critic_lr=3e-3, alpha_lr=3e-3)
    algorithm = mbpo.make(env.spec, config)
    check("probe-both", algorithm, learn(algorithm, random_data(env, 1_000)), 0.15, 0.2)


def test_two_updates_of_the_base_equal_the_golden_tree():
    """Rewrite the file with `python tests/test_oracle.py` when the mathematics is meant to change."""
    found, golden = golden_run(), json.loads(GOLDEN.read_text())
    assert found.keys() == golden.keys()
    for path, expected in golden.items():
        np.testing.assert_allclose(found[path], expected, rtol=1e-3, atol=1e-4, err_msg=path)


def golden_run():
    algorithm = mbpo.make(ENV.spec, mbpo.Config(**SMALL))
    return norms(first_period(algorithm)(algorithm.hypers)[0])


# --- from a random model to the truth ---
SMALL_MODEL = EnsembleConfig(members=3, elites=2, hidden=(16,), evaluate="all")


@pytest.fixture(scope="module")
def between():
    """(learned model, oracle, parameters of the model between, one step at any t)."""
    learned, true = ensemble.make(ENV.spec, SMALL_MODEL), oracle.make(ENV)
    params = transforms.interpolate(learned, true, 0.5, ENV.spec.is_terminal).init(KEY, STATS)
    rows = random_data(ENV, 50).transitions

    @jax.jit
    def step(t):
        model = transforms.interpolate(learned, true, t, ENV.spec.is_terminal)
        return model.step(params, rows.obs, rows.action, KEY)[1]

    return learned, true, params, rows, step


def test_the_ends_of_the_line_are_the_two_models(between):
    learned, true, params, rows, step = between
    for t, model, weights in ((0.0, learned, params.weights[0]), (1.0, true, ())):
        own = params._replace(weights=weights)
        _, expected = jax.jit(model.step)(own, transforms.at(model, own, rows.obs), rows.action, KEY)
        found = step(t)
        np.testing.assert_allclose(found.obs, expected.obs, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found.reward, expected.reward, rtol=1e-6, atol=1e-6)


def test_what_lies_between_is_on_the_line_and_doubt_fades_with_accuracy(between):
    step = between[-1]
    none, some, full = step(0.0), step(0.25), step(1.0)
    np.testing.assert_allclose(some.obs, 0.75 * none.obs + 0.25 * full.obs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(some.reward, 0.75 * none.reward + 0.25 * full.reward, rtol=1e-5, atol=1e-5)
    for name in ("max_aleatoric", "max_pairwise", "epistemic_std"):
        measure = uncertainty.make(name)
        doubts = [np.asarray(transforms.doubt(measure, prediction)) for prediction in (none, some, full)]
        np.testing.assert_allclose(doubts[1], 0.75 * doubts[0], rtol=1e-3, atol=1e-5)
        assert doubts[0].min() > 0.0
        np.testing.assert_allclose(doubts[2], 0.0, atol=1e-5)


def test_between_two_worlds_the_state_is_the_observation_and_the_task_says_when_it_ends():
    env = hidden_env()
    true = oracle.make(env)
    model = transforms.interpolate(true, true._replace(step=far_ahead(true)), 0.5, env.spec.is_terminal)
    params = model.init(KEY, STATS)
    obs = jnp.array([[0.0], [4.0]])
    state = model.start(params, rows_at(obs, (obs, 9.0 + obs)))
    state, prediction = model.step(params, state, jnp.ones((2, 1)), KEY)
    np.testing.assert_array_equal(prediction.obs[:, 0], [1.0, 5.0])  # no velocity; halfway to 2 further on
    np.testing.assert_array_equal(prediction.discount, [1.0, 1.0])  # one of the two had ended at 6
    _, prediction = model.step(params, state, jnp.ones((2, 1)), KEY)
    np.testing.assert_array_equal(prediction.obs[:, 0], [2.0, 6.0])  # the velocity of the first step is forgotten
    np.testing.assert_array_equal(prediction.discount, [1.0, 0.0])


def far_ahead(model):
    def step(params, state, action, key):
        state, prediction = model.step(params, state, action, key)
        obs = prediction.obs + 2.0
        return state, prediction._replace(obs=obs, discount=1.0 - (obs[:, 0] > 5.0))

    return step


def test_accuracy_chooses_the_two_ends():
    make = functools.partial(worlds.make, ENV.spec, dynamics=SMALL_MODEL, fitting=SMALL["fit"])
    learned, worse, better, best = (make("interpolate", accuracy) for accuracy in (0.0, -0.75, 0.25, 1.0))
    plain = make("learned", 0.0)
    assert learned.fits[0].cache == worse.fits[0].cache == better.fits[0].cache == plain.fits[0].cache != ""
    assert best.fits == () and best.params(KEY, None).weights == ()
    fitted = ensemble.make(ENV.spec, SMALL_MODEL).init(jax.random.key(5), STATS)
    assert learned.params(KEY, fitted) is fitted
    assert same(better.params(KEY, fitted).weights, (fitted.weights, ()))
    random, trained = worse.params(KEY, fitted).weights
    assert same(trained, fitted.weights) and not same(random, fitted.weights)
    assert not same(random, worse.params(jax.random.key(1), fitted).weights[0])  # every seed its own
    rows = rows_at(jnp.array([[1.0, 0.0, 0.5]]))

    def ahead(world, params):
        return world.model.step(params, world.model.start(params, rows), jnp.ones((1, 1)), KEY)[1].obs

    ends = [ahead(plain, fitted._replace(weights=weights)) for weights in (random, trained)]
    found = ahead(worse, worse.params(KEY, fitted))
    np.testing.assert_allclose(found, 0.75 * ends[0] + 0.25 * ends[1], rtol=1e-5, atol=1e-6)


# --- what cannot be ---
def test_worlds_that_there_are_not_are_refused():
    config = functools.partial(mopo.Config, **SMALL)
    cases = [
        ({"world": "orcale"}, "did you mean oracle"),
        ({"accuracy": 0.5}, "no meaning with --world=learned"),
        ({"world": "oracle", "accuracy": 0.5}, "no meaning with --world=oracle"),
        ({"world": "interpolate", "accuracy": 1.5}, "expected -1"),
        ({"world": "interpolate", "accuracy": float("nan")}, "expected -1"),
        ({"engine": "mjx"}, "no meaning without the true dynamics"),
        ({"world": "interpolate", "accuracy": -0.5, "engine": "mjx"}, "no meaning without the true dynamics"),
        ({"world": "oracle", "engine": "mjx"}, "an engine of MuJoCo.s tasks; leave it out"),
        ({"world": "oracle", "horizon": 201}, "longer than an episode"),
        ({"world": "interpolate", "accuracy": 0.5, "dynamics": EnsembleConfig()}, "evaluate=all"),
    ]
    for changes, message in cases:
        with pytest.raises(UserError, match=message):
            mopo.make(ENV.spec, dataclasses.replace(config(), **changes))
    mopo.make(ENV.spec, dataclasses.replace(config(), world="oracle", dynamics=EnsembleConfig()))
    with pytest.raises(UserError, match="RAMBO"):
        rambo.make(ENV.spec, rambo.Config(**SMALL | OWN["rambo"], world="interpolate", accuracy=0.5))
    with pytest.raises(UserError, match="observations do not tell"):
        oracle.make(ENV._replace(restore=None))


def test_published_run_ids_do_not_know_of_worlds():
    entry = registry.get("ravl")
    plain = session.freeze("x", entry, entry.presets["quick"], "Hopper-v4")["config"]
    assert not {"world", "accuracy"} & set(plain)
    changed = dataclasses.replace(entry.presets["quick"], world="interpolate", accuracy=-0.5)
    assert session.freeze("x", entry, changed, "Hopper-v4")["config"]["accuracy"] == -0.5


def test_the_command_line_takes_accuracies_below_zero():
    words = ["--algo=mopo", "--world=interpolate", "--accuracy=-0.5"]
    assert options.offline(words, "p", "d")[2].accuracy == -0.5
    with pytest.raises(UserError, match="must not be negative"):
        options.offline(["--algo=mopo", "--penalty=-0.5"], "p", "d")


# --- end to end ---
@pytest.fixture(scope="module")
def pendulum_file(tmp_path_factory):
    data = random_data(ENV, 600)
    rows, path = data.transitions, tmp_path_factory.mktemp("data") / "pendulum.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs["env"] = "Pendulum-v1"
        columns = {"observations": rows.obs, "actions": rows.action, "rewards": rows.reward}
        columns |= {"next_observations": rows.next_obs, "terminals": rows.discount == 0, "timeouts": data.truncated}
        for name, column in columns.items():
            file[name] = np.asarray(column)
    return path


def command(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["command", "--preset=smoke", *words])
    with pytest.raises(SystemExit) as stop:
        offline_mbrl.main()
    return stop.value.code, capsys.readouterr()


RUNS = [(name, "oracle") for name in ("ravl", "mbpo", "mopo", "morel", "mobile", "combo", "rambo")]
RUNS += [("mopo", "interpolate"), ("morel", "interpolate"), ("mobile", "interpolate")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "world"), RUNS)
def test_every_algorithm_runs_in_every_world(name, world, pendulum_file, monkeypatch, capsys, tmp_path):
    words = [f"--algo={name}", f"--dataset={pendulum_file}", f"--world={world}", "--seeds=2", f"--out={tmp_path}"]
    words += ["--accuracy=-0.5"] if world == "interpolate" else []
    code, output = command(monkeypatch, capsys, *words)
    assert code == 0 and "seed 1" in output.out and "diverged" not in output.out
    (path,) = (path for path in (tmp_path / "offline_mbrl").iterdir() if path.is_dir())
    assert session.load(path).policy()(np.zeros((1, 3))).shape == (1, 1)


def test_a_fitted_model_for_a_run_that_fits_none_is_refused(pendulum_file, monkeypatch, capsys, tmp_path):
    words = ["--algo=mbpo", f"--dataset={pendulum_file}", "--world=oracle", f"--model={tmp_path}", f"--out={tmp_path}"]
    code, output = command(monkeypatch, capsys, *words)
    assert code == 2 and "fits no world model" in output.err


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden_run(), indent=1) + "\n")
