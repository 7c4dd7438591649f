"""SAC-N, EDAC, CQL and COMBO: what sets each apart from its base, where terms push, probes, and golden trees.

Rewrite the golden trees with `python tests/test_critic_family.py` when the mathematics is meant to change.
"""

import csv
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import random_data

from experiments import heads_fault, offline_mbrl, options, reproduce
from jaxrl_suite import data as data_sets
from jaxrl_suite.algorithms import actor_critic, combo, cql, dyna, edac, networks, ravl, registry, sac_n
from jaxrl_suite.envs.probes import PROBES
from jaxrl_suite.errors import UserError
from jaxrl_suite.models.ensemble import EnsembleConfig
from jaxrl_suite.models.fit import FitConfig
from jaxrl_suite.report.claims import Needed
from jaxrl_suite.train import members, settings
from jaxrl_suite.train.compose import chunk, population
from jaxrl_suite.train.memory import learn
from jaxrl_suite.types import Dataset, Spec, Transition, ValueHead
from jaxrl_suite.values import heads

GOLDEN = Path(__file__).parent / "golden" / "critic_family.json"
SUMMARY = Path(__file__).parents[1] / "results" / "offline_mbrl" / "summary.csv"
FAMILY = {"sac_n": sac_n, "edac": edac, "cql": cql, "combo": combo}
# With a single action dimension every gradient of unit length is a sign, and EDAC's term is flat: here are two.
SPEC = Spec("made-up", 3, 2, 10, lambda obs: obs[..., 0] > 1e9)
TINY = {"updates": 2, "evaluations": 1, "batch": 8, "critics": 3, "hidden": (16,)}
DREAM = {
    "period": 2,
    "rollouts": 8,
    "horizon": 2,
    "real_ratio": 0.5,
    "dynamics": EnsembleConfig(members=2, elites=1, hidden=(16,)),
    "fit": FitConfig(steps=2, checks=1, batch=8),
}
RATES = {"tau": 0.1, "actor_lr": 1e-2, "critic_lr": 1e-2, "alpha_lr": 1e-2}


def config_of(module, **changes):
    base = TINY | RATES | (DREAM if issubclass(module.Config, dyna.Config) else {})
    return module.Config(**base | changes)


@cache
def data(rows=50):
    keys = jax.random.split(jax.random.key(0), 4)
    steps = Transition(
        jax.random.normal(keys[0], (rows, 3)),
        jnp.tanh(jax.random.normal(keys[1], (rows, 2))),
        jax.random.normal(keys[2], (rows,)),
        jnp.ones(rows),
        jax.random.normal(keys[3], (rows, 3)),
    )
    none = jnp.zeros(rows, bool)
    return Dataset(steps, steps.action, none, none.astype(jnp.int32), steps.reward, None)


@cache
def program(module, **changes):
    """An algorithm, and hypers -> what it learnt in two updates, in an untrained model where it has one; metrics."""
    algorithm = module.make(SPEC, config_of(module, **changes))

    @jax.jit
    def run(hypers, data):
        previous = None
        for phase in algorithm.phases[:-1]:
            previous = phase.result(phase.init(jax.random.key(0), (), data, None))
        agent = algorithm.phases[-1]
        state, metrics = agent.update(agent.init(jax.random.key(0), hypers, data, previous), data)
        return learnt(state.agent if algorithm.phases[:-1] else state.learner), metrics

    return algorithm, run


@cache
def two_updates(module, **changes):
    algorithm, run = program(module, **changes)
    return run(algorithm.hypers, data())


def text(module, **changes):
    """The program of two updates before it is compiled: what two have in common, they compute alike to the bit."""
    algorithm, run = program(module, **changes)
    return run.lower(algorithm.hypers, data()).as_text()


def learnt(state):
    return {"actor": state.actor, "critic": state.critic, "target": state.target_critic, "alpha": state.log_alpha}


def norms(state):
    """Sum and norm of every learnt array, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(p): [float(jnp.sum(x)), float(jnp.sqrt(jnp.sum(x**2)))] for p, x in leaves}


# --- What sets each apart ---
@pytest.mark.parametrize("name", FAMILY)
def test_two_updates_equal_the_golden_tree(name):
    golden, found = json.loads(GOLDEN.read_text())[name], norms(two_updates(FAMILY[name])[0])
    assert found.keys() == golden.keys()
    for path, expected in golden.items():
        np.testing.assert_allclose(found[path], expected, rtol=1e-3, atol=1e-4, err_msg=path)


SIBLINGS = {
    "edac": ({"diversity": 0.0}, sac_n, {}),
    "cql": ({"cql_weight": 0.0}, sac_n, {"entropy_backup": False}),
    "combo": ({"cql_weight": 0.0}, ravl, {"diversity": 0.0, "entropy_backup": False, "anneal": True}),
}


@pytest.mark.parametrize("name", SIBLINGS)
def test_without_its_term_it_is_its_base(name):
    """SAC-N, SAC without entropy in its targets, and the plain Dyna skeleton: the same program, so the same bits."""
    changes, base, settings_of_base = SIBLINGS[name]
    assert text(FAMILY[name], **changes) == text(base, **settings_of_base)
    assert text(FAMILY[name]) != text(FAMILY[name], **changes)


@pytest.mark.parametrize(("name", "weight"), [("edac", "diversity"), ("cql", "cql_weight")])
def test_terms_change_what_is_learnt(name, weight):
    plain, found = (norms(two_updates(FAMILY[name], **changes)[0]) for changes in ({weight: 0.0}, {}))
    assert not all(np.allclose(found[path], plain[path], rtol=1e-2) for path in plain)


def test_the_weight_is_traced():
    """A member of a population whose weight is zero has the term in its program, times zero."""
    algorithm, run = program(cql)
    assert "cql_weight" in settings.traced(algorithm, config_of(cql))
    found, _ = run(algorithm.hypers.replace(cql_weight=0.0), data())
    expected, _ = two_updates(cql, cql_weight=0.0)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


# --- Where the conservative term pushes ---
REAL, ALL = 4, 8


@cache
def parts():
    """Tiny networks, a state of theirs, and a batch whose imagined rows are its real ones again, all of one action."""
    config = config_of(cql)
    critics = networks.critics(SPEC, (16,), 3, heads.make("mse"), "float32", scalar=True)
    agent = actor_critic.make(SPEC, config.actor_critic())
    state = jax.jit(agent.init)(jax.random.key(1), config.hypers(kind=cql.Hypers, cql_weight=1.0), None)
    actor = networks.actor(SPEC, (16,), "float32")
    pi = lambda weights, obs: actor_critic.distributions.tanh_normal(**actor.apply(weights, obs))  # noqa: E731
    rows = jax.tree.map(lambda x: jnp.concatenate([x[:REAL]] * (ALL // REAL)), data().transitions)
    rows = rows._replace(action=jnp.full_like(rows.action, 0.8))
    return actor_critic.Parts(pi, critics), state, rows


def term_of(name):
    module, changes = (cql, {}) if name == "cql" else (combo, {"rho_s": name})
    return module.term(config_of(module, **changes), parts()[0])


@pytest.mark.parametrize("name", ["cql", "mix", "model"])
def test_values_fall_elsewhere_and_rise_on_data(name):
    """Gradient steps, for every critic, with squares of values in place of a Bellman error.

    Trap: a stopped gradient pushes nothing down, and values rise everywhere.
    """
    (_, critics), state, rows = parts()
    line = jnp.linspace(-1.0, 1.0, 9)
    grid = jnp.stack(jnp.meshgrid(line, line), axis=-1).reshape(-1, 2)
    obs, action = jnp.repeat(rows.obs, 81, axis=0), jnp.tile(grid, (ALL, 1))

    def values(weights):
        """Every critic's values at the data's action, and at a grid of actions."""
        on_data = critics.values(weights, (), rows.obs, rows.action)
        return on_data, critics.values(weights, (), obs, action)

    def loss(weights, key):
        return term_of(name)(weights, state, rows, key)[0] + sum(jnp.sum(v**2) / v.shape[1] for v in values(weights))

    @jax.jit
    def after(weights, keys):
        step = lambda w, key: (jax.tree.map(lambda x, g: x - 0.05 * g, w, jax.grad(loss)(w, key)), None)  # noqa: E731
        return [jnp.mean(v, axis=-1) for v in values(jax.lax.scan(step, weights, keys)[0])]

    on_data, elsewhere = after(state.critic, jax.random.split(jax.random.key(0), 100))  # all but zero before
    assert np.all(on_data > 0.05)
    assert np.all(elsewhere < -0.02)


@pytest.mark.parametrize("name", ["mix", "model"])
def test_which_rows_combos_term_reads(name):
    """The data term reads real rows alone, and rho says where values are pushed down."""
    _, state, rows = parts()
    # At first a policy all but ignores its observation, and values are all but zero.
    state = state._replace(
        actor=jax.tree.map(lambda x: 5.0 * x, state.actor), critic=jax.tree.map(lambda x: 5.0 * x, state.critic)
    )
    term = jax.jit(lambda batch: term_of(name)(state.critic, state, batch, jax.random.key(0))[0])

    def changes(part, **fields):
        moved = {f: getattr(rows, f).at[part].add(-0.3) for f in fields}
        return bool(term(rows._replace(**moved)) != term(rows))

    real, imagined = slice(0, REAL), slice(REAL, ALL)
    assert changes(real, action=True)
    assert not changes(imagined, action=True)
    assert changes(imagined, next_obs=True)
    assert changes(real, next_obs=True) == (name == "mix")


@pytest.mark.slow
def test_real_rows_come_first_in_the_batches_of_the_skeleton(monkeypatch):
    """What the term takes for real rows are rows of the data set."""
    asked = []
    monkeypatch.setattr(
        cql.conservative,
        "regulariser",
        lambda values, pi, states, data, samples, key: (
            asked.append(data.obs.shape) or jnp.zeros(3),
            {"reward": jnp.sum(data.reward), "imagined": jnp.sum(states.reward)},
        ),
    )
    marked = data()._replace(transitions=data().transitions._replace(reward=jnp.full(50, 1e3)))
    algorithm = combo.make(SPEC, config_of(combo, rho_s="model"))
    model, agent = algorithm.phases
    fitted = model.result(jax.jit(model.init)(jax.random.key(0), (), data(), None))
    state = jax.jit(agent.init)(jax.random.key(0), algorithm.hypers, marked, fitted)
    _, metrics = jax.jit(agent.update)(state, marked)
    assert asked == [(REAL, 3)]
    assert metrics["reward"] == REAL * 1e3  # and imagined rewards are those of an untrained model
    assert metrics["imagined"] < 1e3


# --- Any value head, and what cannot be ---
def pair():
    """A made-up head: two outputs whose sum is the value; its target is a pair of halves."""

    def target(reward, discount, next_logits, shift, support):
        half = 0.5 * (reward + discount * (jnp.sum(next_logits, axis=-1) + shift))
        return jnp.stack([half, half], axis=-1)

    return ValueHead(
        size=2,
        support=lambda stats: (),
        decode=lambda logits, support: jnp.sum(logits, axis=-1),
        target=target,
        loss=lambda logits, target, support: jnp.sum(jnp.square(logits - target), axis=-1),
        scalar=False,
    )


def test_heads_of_several_outputs_work(monkeypatch):
    """The term reads values, whatever a critic's outputs are."""
    monkeypatch.setitem(heads.HEADS, "pair", lambda config: pair())
    found, metrics = two_updates(cql, head="pair")
    assert found["critic"]["value"]["kernel"].shape == (3, 16, 2)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(found))
    assert abs(metrics["conservative"] - 2 * np.log(2.0)) < 1.0  # near that of a constant, as all values are near zero


def test_a_bound_of_targets_needs_targets_that_are_numbers(monkeypatch):
    monkeypatch.setitem(heads.HEADS, "pair", lambda config: pair())
    shape = replace(config_of(sac_n, head="pair").actor_critic(), target_min=0.0)
    with pytest.raises(UserError, match=r"lower bound of the targets.*--head=pair.*--head=mse"):
        actor_critic.make(SPEC, shape)
    actor_critic.make(SPEC, replace(shape, head=heads.HeadConfig("mse")))


@pytest.mark.parametrize(
    ("module", "changes", "message"),
    [
        (cql, {"samples": 0}, "--samples=0.*at least 1"),
        (combo, {"samples": 0}, "--samples=0.*at least 1"),
        (combo, {"rho_s": "models"}, "did you mean model"),
        (combo, {"real_ratio": 0.1}, "--real-ratio=0.1 of --batch=8.*no real row"),
        (combo, {"real_ratio": 1.0, "rho_s": "model"}, "no imagined row"),
        (sac_n, {"critics": 0}, "--critics=0.*at least 1"),
        (edac, {"critics": 1}, "--critics=1 cannot be diverse"),
        (cql, {"head": "msé"}, "did you mean mse"),
        (sac_n, {"aggregate": "max"}, "unknown aggregate"),
    ],
)
def test_what_cannot_be_is_refused(module, changes, message):
    with pytest.raises(UserError, match=message):
        module.make(SPEC, config_of(module, **changes))


# --- Registered, published ---
@pytest.mark.parametrize(
    ("name", "dataset", "expected"),
    [
        ("combo", "walker2d-medium-v2", {"horizon": 1, "cql_weight": 5.0, "real_ratio": 0.5, "entropy_backup": False}),
        ("combo", "hopper-medium-replay-mini", {"horizon": 5, "cql_weight": 0.5}),
        ("cql", "hopper-medium", {"cql_weight": 5.0, "samples": 10, "entropy_backup": False}),
        ("sac_n", "hopper-medium", {"critics": 500, "entropy_backup": True}),
        ("edac", "halfcheetah-medium-expert", {"critics": 10, "diversity": 5.0}),
    ],
)
def test_the_paper_preset_has_what_is_published(name, dataset, expected):
    config = registry.preset(registry.get(name), "paper", dataset)
    assert {field: getattr(config, field) for field in expected} == expected


@heads_fault.registered()
def test_run_ids_of_published_rows_are_those_of_their_settings():
    """Moving or adding fields of a Config must not rename what was run."""
    rows = [row for row in csv.DictReader(SUMMARY.read_text(encoding="utf-8").splitlines()) if row["preset"] == "quick"]
    dataset, info = data_sets.load("hopper-medium-replay-mini")
    spec, checked = offline_mbrl.spec_of(dataset, info), 0
    for algo, text in {(row["algo"], row["settings"]) for row in rows if row["dataset"] == info.name}:
        words = reproduce.words_of(Needed(algo, info.name, text), "0:100", reproduce.Options())
        shared, entry, config = options.offline(words, "test", "")
        run = offline_mbrl.describe(shared, entry, config, spec, info)
        ids = dict(zip(run.seeds, run.run_ids, strict=True))
        line = (algo, text, info.name)
        found = {int(r["seed"]): r["run_id"] for r in rows if (r["algo"], r["settings"], r["dataset"]) == line}
        assert {seed: ids[seed] for seed in found} == found
        checked += len(found)
    assert checked >= 80


# --- A population is its members ---
def test_a_row_of_a_population_is_the_solo_run():
    algorithm = cql.make(SPEC, config_of(cql, updates=20))
    agent = population(algorithm.phases[0])
    program = chunk(agent)

    def after(seeds):
        people = members.arguments(members.of(seeds, [members.Variant(algorithm.hypers)]), data(), 0, None)
        return program.run(jax.jit(agent.init)(*people), data())

    (both, metrics), (alone, alone_metrics) = after((0, 1)), after((1,))
    for a, b in zip(*(jax.tree.leaves(learnt(run.members.learner)) for run in (both, alone)), strict=True):
        np.testing.assert_allclose(a[1], b[0], rtol=1e-3, atol=1e-4)
    for name, value in alone_metrics.items():
        np.testing.assert_allclose(metrics[name][1], value[0], rtol=1e-3, atol=1e-5, err_msg=name)


# --- Probes ---
GAMMA, RATE = 0.9, 3e-3
LEARNT = {
    "updates": 1_500,
    "evaluations": 1,
    "batch": 64,
    "critics": 4,
    "hidden": (32, 32),
    "gamma": GAMMA,
    "tau": 0.05,
    "actor_lr": RATE,
    "critic_lr": RATE,
    "alpha_lr": RATE,
}
# A conservative term biases values and actions: its weight is small here.
SETTINGS = {
    "sac_n": {},
    "edac": {"diversity": 0.1},
    "cql": {"cql_weight": 0.01, "samples": 4},
    "combo": {
        "cql_weight": 0.01,
        "samples": 4,
        "period": 500,
        "rollouts": 500,
        "horizon": 2,
        "anneal": False,
        "dynamics": EnsembleConfig(members=3, elites=2, hidden=(32, 32)),
        "fit": FitConfig(steps=600, checks=3, batch=64),
    },
}
QUICK_PROBES = {("edac", "probe-both"), ("cql", "probe-action")}


@pytest.mark.parametrize(
    ("name", "probe"),
    [
        pytest.param(name, probe, marks=[] if (name, probe) in QUICK_PROBES else pytest.mark.slow)
        for name in FAMILY
        for probe in PROBES
    ],
)
def test_the_known_values_of_a_probe(name, probe):
    known, module = PROBES[probe], FAMILY[name]
    algorithm = module.make(known.env.spec, module.Config(**LEARNT | SETTINGS[name]))
    trained = learn(algorithm, random_data(known.env, 1_000))
    assert not bool(trained.diverged[0])
    state = jax.tree.map(lambda leaf: leaf[0], trained.parameters)
    matters = probe in ("probe-observation", "probe-both")
    obs = jnp.array([[-1.0, 0.0], [1.0, 0.0]]) if matters else jnp.zeros((1, 2))
    action, _ = algorithm.act(state, (), obs, jax.random.key(0))
    np.testing.assert_allclose(algorithm.q_value(state, obs, action), known.optimal_value(obs, GAMMA), atol=0.15)
    if probe in ("probe-action", "probe-both"):
        np.testing.assert_allclose(action, known.optimal_action(obs), atol=0.2)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: norms(two_updates(FAMILY[name])[0]) for name in FAMILY}, indent=1) + "\n")
