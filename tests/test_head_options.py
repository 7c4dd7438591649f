"""Value heads as an axis: every critic of every algorithm takes one, runs log how it fits, probes are reached."""

import dataclasses
import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import random_data
from test_probes import check
from test_probes_model_free import SIZES

from experiments import offline_mbrl
from jaxrl_suite.algorithms import actor_critic, edac, iql, mobile, registry, sac, sac_n, td3_bc
from jaxrl_suite.algorithms.head_options import HeadOptions
from jaxrl_suite.envs.probes import PROBES
from jaxrl_suite.errors import UserError
from jaxrl_suite.train import memory, session
from jaxrl_suite.train.compose import begin, population
from jaxrl_suite.train.memory import learn
from jaxrl_suite.types import Dataset, Spec, Transition
from jaxrl_suite.values import ensemble, heads
from jaxrl_suite.values.heads import HEADS, HeadConfig

SPEC = Spec("made-up", 3, 2, 10, lambda obs: obs[..., 0] > 1e9)
WITH_CRITICS = sorted(name for name in registry.ALGORITHMS if name not in ("bc", "bc10"))
MEASURED = {"clipped_targets", "target_kl", "end_mass"}
PROBE = PROBES["probe-both"]


def _slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def data(rows=64):
    keys = jax.random.split(jax.random.key(0), 5)
    steps = Transition(
        jax.random.normal(keys[0], (rows, 3)),
        jnp.tanh(jax.random.normal(keys[1], (rows, 2))),
        jax.random.normal(keys[2], (rows,)),
        jnp.ones(rows),
        jax.random.normal(keys[3], (rows, 3)),
    )
    none = jnp.zeros(rows, bool)
    returns = 20.0 * jax.random.normal(keys[4], (rows,))
    return Dataset(steps, steps.action, none, none.astype(jnp.int32), returns, None)


# --- Every algorithm ---
@pytest.mark.parametrize("name", WITH_CRITICS)
def test_every_critic_takes_a_head_and_logs_how_it_fits(name):
    """Traced, not run: shapes, and the names of what is logged."""
    entry = registry.get(name)
    config = dataclasses.replace(entry.presets["smoke"], head="hl_gauss", bins=21, support="-90,90")
    online = entry.family == registry.ONLINE
    spec, rows = (PROBE.env.spec, None) if online else (SPEC, data())
    algorithm = entry.make(spec, config)
    previous = None
    for phase in algorithm.phases:
        state = jax.eval_shape(phase.init, jax.random.key(0), algorithm.hypers, rows, previous)
        state, metrics = jax.eval_shape(phase.update, state, rows)
        previous = jax.eval_shape(phase.result, state)
    assert set(metrics) >= MEASURED
    # The last layer of every critic has an output for every bin.
    paths = jax.tree_util.tree_leaves_with_path(previous)
    kernels = [
        leaf.shape for path, leaf in paths if ".critic" in (text := jax.tree_util.keystr(path)) and "value" in text
    ]
    assert kernels and all(shape[-1] == 21 for shape in kernels)


@pytest.mark.parametrize("name", WITH_CRITICS)
def test_new_options_leave_published_runs_their_names(name):
    config = registry.get(name).presets["quick"]
    assert isinstance(config, HeadOptions)
    assert not {"bins", "sigma_ratio", "support", "initial_value"} & set(session.plain(config))
    assert session.plain(dataclasses.replace(config, bins=51))["bins"] == 51
    assert ("head" in session.plain(config)) == (name != "sac")


# --- The actor-critic ---
def updated(config, rows, steps=2, **hypers):
    ac = actor_critic.make(SPEC, config, diverse=True)
    state = jax.jit(ac.init)(jax.random.key(0), actor_critic.Hypers(diversity=0.5, critic_lr=1e-2), rows.mc_return)

    @jax.jit
    def run(state, batch):
        return jax.lax.scan(lambda s, key: ac.update(s, batch, key), state, jax.random.split(jax.random.key(1), steps))

    return ac, state, *run(state, rows.transitions)


@pytest.mark.parametrize(
    ("name", "aggregate"),
    [
        ("hl_gauss", "mean"),
        ("c51", "min"),
        ("quantile", "min"),
        ("symlog", "min"),
        *(_slow(name, "min") for name in HEADS if name not in ("mse", "c51", "quantile", "symlog")),
        *(_slow(name, "mean") for name in ("c51", "quantile")),
    ],
)
def test_diverse_critics_learn_with_every_head(name, aggregate):
    config = actor_critic.ActorCriticConfig(3, (16,), 64, HeadConfig(name, bins=11), aggregate=aggregate)
    rows = data()
    ac, before, after, metrics = updated(config, rows)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves((after, metrics)))
    values = ac.values(after, rows.transitions.obs, rows.transitions.action)
    assert values.shape == (3, 64)
    assert not np.allclose(values, ac.values(before, rows.transitions.obs, rows.transitions.action))


@pytest.mark.parametrize("name", ["hl_gauss", "two_hot_symexp", "quantile"])
def test_outputs_and_action_gradients_in_one_pass_are_those_of_automatic_differentiation(name):
    head = heads.make(HeadConfig(name, bins=11, support="-3,9"))
    support, keys = head.support(None), jax.random.split(jax.random.key(2), 3)
    weights = jax.random.normal(keys[0], (4, 2, 11))
    logits = lambda a: jnp.tanh(jnp.einsum("mba,mas->mbs", a, weights)) * 3.0  # noqa: E731
    action = jax.random.normal(keys[1], (5, 2))
    outputs, gradients = ensemble.with_action_gradients(logits, lambda x: head.decode(x, support), action, 4)
    np.testing.assert_allclose(outputs, logits(jnp.broadcast_to(action, (4, 5, 2))), rtol=1e-6)
    for member in range(4):
        value = lambda a, m=member: head.decode(jnp.tanh(a @ weights[m]) * 3.0, support)  # noqa: E731
        np.testing.assert_allclose(gradients[member], jax.vmap(jax.grad(value))(action), rtol=1e-4, atol=1e-5)


def test_the_target_of_hl_gauss_critics_is_the_least_value_as_a_number():
    """y = r + gamma d (min_j Q_j - alpha log pi): what the metrics see of clipping follows from it."""
    config = actor_critic.ActorCriticConfig(3, (16,), 64, HeadConfig("hl_gauss", support="-1,1"))
    far = data()
    far = far._replace(transitions=far.transitions._replace(reward=jnp.where(jnp.arange(64) < 16, 100.0, 0.0)))
    config = dataclasses.replace(config, entropy_backup=False)
    *_, metrics = updated(config, far, steps=1)
    assert float(metrics["clipped_targets"][0]) == 0.25


@pytest.mark.parametrize("name", ["sac_n", "iql", "rebrac"])
def test_critics_begin_at_the_value_that_is_asked_for(name):
    entry, rows = registry.get(name), data()
    config = dataclasses.replace(entry.presets["smoke"], head="hl_gauss", initial_value="-40")
    algorithm = entry.make(SPEC, config)
    state = algorithm.phases[-1].init(jax.random.key(0), algorithm.hypers, rows, None)
    values = algorithm.q_value(state, rows.transitions.obs, rows.transitions.action)
    # Kernels of the last layer are narrow, so that the bias decides; the returns go from about -60 to 60.
    np.testing.assert_allclose(values, -40.0, atol=3.0)


# --- IQL on scaled rewards ---
@pytest.mark.parametrize("head", ["two_hot_symexp", "symlog"])
def test_a_number_to_begin_at_is_refused_where_scaled_bins_would_change_it(head):
    config = dataclasses.replace(iql.PRESETS["smoke"], head=head, initial_value="50", scale_rewards=True)
    with pytest.raises(UserError, match=r"--initial-value=50.*--scale-rewards"):
        iql.make(SPEC, config)
    iql.make(SPEC, dataclasses.replace(config, scale_rewards=False))


def test_iqls_support_is_given_on_the_scale_of_the_data():
    rows = data()
    episodes = rows._replace(episode=jnp.repeat(jnp.arange(8), 8).astype(jnp.int32))
    config = dataclasses.replace(
        iql.PRESETS["smoke"], head="hl_gauss", support="-90,90", updates=2, evaluations=1, scale_rewards=True
    )
    phase = iql.make(SPEC, config).phases[0]
    learner = jax.jit(phase.init)(jax.random.key(0), iql.make(SPEC, config).hypers, episodes, None).learner
    assert float(learner.scale) != pytest.approx(1.0, abs=0.1)
    np.testing.assert_allclose(learner.support, 90.0 * learner.scale * jnp.array([-1.0, 1.0]), rtol=1e-6)


# --- Probes ---
CRITICS = {
    "sac_n": lambda head: (sac_n, sac_n.Config(**_agent(head))),
    "edac": lambda head: (edac, edac.Config(**_agent(head), diversity=0.1)),
    "td3_bc": lambda head: (td3_bc, td3_bc.Config(**SIZES, **head, alpha=20.0)),
    "iql": lambda head: (iql, iql.Config(**SIZES, **head, value_lr=3e-3, expectile=0.9, beta=30.0)),
}


def _agent(head):
    return {k: v for k, v in SIZES.items() if k != "normalise"} | {"alpha_lr": 3e-3, "critics": 3} | head


@pytest.mark.parametrize(
    ("learner", "head", "name"),
    [
        ("sac_n", "hl_gauss", "probe-both"),
        ("td3_bc", "hl_gauss", "probe-delayed"),
        ("iql", "hl_gauss", "probe-observation"),
        *(_slow("edac", "hl_gauss", name) for name in PROBES),
        *(_slow("sac_n", head, "probe-both") for head in HEADS if head not in ("mse", "hl_gauss", "mse_softmax")),
        *(_slow("td3_bc", "hl_gauss", name) for name in PROBES if name != "probe-delayed"),
    ],
)
def test_probes_are_reached(learner, head, name):
    module, config = CRITICS[learner]({"head": head, "bins": 101, "support": "-4,4"})
    algorithm = module.make(PROBES[name].env.spec, config)
    trained = learn(algorithm, random_data(PROBES[name].env, 1_000))
    # A wrong action of 0.25 costs 0.06, less than a bin: between two atoms the slope of two-hot values is weak.
    check(name, algorithm, trained, value_tolerance=0.15, action_tolerance=0.3 if head in ("two_hot", "c51") else 0.2)


# --- What a run says ---
def offline(monkeypatch, capsys, tmp_path, *words):
    start = ["--dataset=hopper-medium-replay-mini", "--preset=smoke", "--episodes=1", f"--out={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["command", *start, *words])
    with pytest.raises(SystemExit) as stop:
        offline_mbrl.main()
    return stop.value.code, *capsys.readouterr()


def test_a_run_complains_of_a_narrow_support_once(monkeypatch, capsys, tmp_path):
    code, out, _ = offline(monkeypatch, capsys, tmp_path, "--algo=td3_bc", "--head=hl_gauss", "--support=0,1")
    assert code == 0
    assert out.count("note: --support=0,1 is narrower than the data") == 1
    assert out.count("targets lie outside the support") == 1
    (log,) = tmp_path.glob("offline_mbrl/*/metrics.jsonl")
    last = json.loads(log.read_text().splitlines()[-1])
    assert last["clipped_targets"] > 0.05 and last["target_kl"] > 0 and 0 < last["end_mass"] < 1


def test_a_notebook_swaps_a_head_in_one_word_and_is_warned_of_a_narrow_support():
    make = functools.partial(memory.algorithm, "td3_bc", PROBE.env.spec, "smoke", updates=50, evaluations=1)
    rows = random_data(PROBE.env, 100)
    swapped = learn(make(head="hl_gauss"), rows)
    assert set(swapped.metrics) >= MEASURED and not swapped.diverged.any()
    narrow = make(head="hl_gauss", support="0.1,0.2")
    with (
        pytest.warns(UserWarning, match="targets lie outside the support"),
        pytest.warns(UserWarning, match=r"--support=0.1,0.2 is narrower than the data"),
    ):
        learn(narrow, rows)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--algo=bc", "--head=hl_gauss"], "bc has no --head: that is an option of td3_bc, rebrac, iql"),
        (["--algo=bc", "--haed=hl_gauss"], "unknown option '--haed'"),
        (["--algo=iql", "--head=c51"], "bootstraps from the number V(s')"),
        (["--algo=mobile", "--head=quantile"], "a lower bound of the targets"),
        (["--algo=td3_bc", "--head=hl_gauss", "--support=5,-5"], "--support=5,-5 encloses no value"),
        (["--algo=td3_bc", "--head=hl_gauss", "--bins=1"], "--bins=1 can hold no two values"),
        (["--algo=ravl", "--head=hl_gauss", "--sigma-ratio=0"], "--sigma-ratio=0.0 leaves HL-Gauss no Gaussian"),
        (["--algo=ravl", "--head=hl_gauss", "--sigma-ratio=inf"], "--sigma-ratio=inf must be finite"),
        (["--algo=cql", "--head=hlgauss"], "did you mean hl_gauss"),
    ],
)
def test_what_cannot_be_is_one_clear_line(monkeypatch, capsys, tmp_path, words, line):
    code, _, err = offline(monkeypatch, capsys, tmp_path, *words)
    assert code == 2 and line in err and len(err.splitlines()) == 1


def test_without_data_a_head_needs_a_support_of_its_own():
    config = dataclasses.replace(sac.PRESETS["smoke"], head="hl_gauss")
    with pytest.raises(UserError, match="give --support=LO,HI"):
        sac.make(PROBE.env.spec, config)
    sac.make(PROBE.env.spec, dataclasses.replace(config, support="-4,4"))


def test_mobile_bounds_the_targets_of_hl_gauss():
    config = dataclasses.replace(mobile.PRESETS["smoke"], head="hl_gauss")
    assert mobile.make(SPEC, config).phases


def test_targets_that_are_no_numbers_mark_a_run_as_diverged():
    rows = data()
    rows = rows._replace(transitions=rows.transitions._replace(reward=jnp.full(64, jnp.nan)))
    config = dataclasses.replace(sac_n.PRESETS["smoke"], head="hl_gauss", updates=2, evaluations=1, hidden=(16,))
    algorithm = sac_n.make(SPEC, config)
    phase = population(algorithm.phases[0])
    keys = jax.random.split(jax.random.key(0), 1)
    hypers = jax.tree.map(lambda x: jnp.float32(x)[None], algorithm.hypers)
    state = begin(phase, (keys, hypers, rows, None))
    after, _ = jax.jit(phase.update)(state, rows)
    assert bool(after.diverged[0])
