"""Every algorithm has every property: resumed to the same bits, a population that is its members, a golden tree.

All of them with `-m slow`. By default one is checked of the model-free ones; for the model-based ones RAVL stands in
test_resume and test_population. What a term of an equation does, and the values of
the probes, are tested beside each algorithm; those of cloning are here. Rewrite the golden trees of the file that this
module keeps with `python tests/test_matrix.py` when the mathematics is meant to change.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import random_data
from test_deterministic import GOLDEN, SPEC, rows

from jaxrl_suite.algorithms import bc, published, registry
from jaxrl_suite.envs.probes import PROBES
from jaxrl_suite.models.ensemble import EnsembleConfig
from jaxrl_suite.models.fit import FitConfig
from jaxrl_suite.train import checkpoint, loop, members, rundir
from jaxrl_suite.train.compose import chunk, population
from jaxrl_suite.train.display import Display
from jaxrl_suite.train.memory import learn

OWN = GOLDEN / "matrix.json"
ENV = PROBES["probe-both"].env
ALL = tuple(registry.ALGORITHMS)
OFFLINE = tuple(name for name in ALL if not registry.get(name).online)
TINY = {
    "updates": 12,
    "evaluations": 3,
    "hidden": (8,),
    "batch": 8,
    "period": 4,
    "rollouts": 8,
    "horizon": 2,
    "retain": 2,
    "fit": FitConfig(steps=8, checks=2, batch=8),
    "adversary_steps": 4,
    "adversary_batch": 8,
    "clone_steps": 3,
    "steps": 96,  # SAC's, in the environment
    "envs": 4,
    "explore": 32,
    "chunk": 32,
}


def some(names, quick):
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


def made(name, spec, **changes):
    """The algorithm with as small a config as it takes."""
    entry = registry.get(name)
    config = entry.presets["smoke"]
    fields = {field.name for field in dataclasses.fields(config)}
    tiny = {key: value for key, value in (TINY | changes).items() if key in fields}
    if "dynamics" in fields:
        tiny["dynamics"] = EnsembleConfig(members=3, elites=2, hidden=(8,), evaluate=config.dynamics.evaluate)
    return entry.make(spec, dataclasses.replace(config, **tiny))


def leaves(tree):
    key = lambda x: jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    return [np.asarray(key(x)) for x in jax.tree.leaves(tree)]


# --- Resuming ---
class Crash(Exception):
    """What no part of the loop expects."""


def trained(job, out, seen=None):
    """Train in the run directory of `out`, from where it stands -> (outcome, metrics, evaluations)."""
    with rundir.open_run(out, "matrix", "run", {}, "0", False) as directory:
        outcome = loop.run(dataclasses.replace(job, observe=seen), directory, Display())
        return outcome, *((directory.path / name).read_bytes() for name in ("metrics.jsonl", "eval.csv"))


@pytest.mark.parametrize("name", some(ALL, ("bc",)))
def test_a_run_that_crashed_goes_on_to_the_same_bits(name, tmp_path):
    """It crashes after what it did was logged and before it was saved: the logs, too, must be cut back."""
    data = None if registry.get(name).online else random_data(ENV, 60)
    job = loop.Job(ENV.spec, made(name, ENV.spec), data, (0, 1), {}, episodes=2, checkpoint_seconds=0.0)
    whole, *logs = trained(job, tmp_path / "whole")
    evaluations = []

    def crash(states, update):
        evaluations.append(update)
        if len(evaluations) == 2:
            raise Crash

    with pytest.raises(Crash):
        trained(job, tmp_path / "broken", crash)
    saved = [path for path in (tmp_path / "broken").rglob("*") if checkpoint.exists(path)]
    assert saved, "nothing was saved, so nothing is resumed"
    broken, *again = trained(job, tmp_path / "broken", lambda states, update: evaluations.append(update))
    assert evaluations[2] == evaluations[1], "it went on behind its last checkpoint"
    assert again == logs
    for x, y in zip(leaves(whole.result), leaves(broken.result), strict=True):
        np.testing.assert_array_equal(x, y)


# --- Populations ---
def wide(tree):
    """The tree in float64, where rounding does not grow into visible differences."""
    return jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, tree)


def after_a_tick(algorithm, data, seeds, variants):
    """Members of `seeds` of every variant after the last phase's first tick, in models that are not fitted."""
    people = members.of(seeds, [members.Variant(hypers, str(i)) for i, hypers in enumerate(variants)])
    previous = None
    with jax.enable_x64(True):
        for index, phase in enumerate(map(population, algorithm.phases)):
            mine = members.of_phase(phase, people)
            state = wide(jax.jit(phase.init)(*members.arguments(mine, data, index, previous)))
            if index < len(algorithm.phases) - 1 and phase.cache:
                previous = members.share(phase.result(state), mine, people)
                continue
            program = chunk(phase)
            state, metrics = program.run(state, wide(data))
            assert len(program.traces) == 1
            previous = phase.result(state)
    return state, metrics


@pytest.mark.parametrize("name", some(ALL, ("bc",)))
def test_a_row_of_a_population_is_the_solo_run(name):
    """Two seeds of two step sizes in one program: each row is the run of that seed and step size alone."""
    online = registry.get(name).online
    algorithm, data = (made(name, ENV.spec), None) if online else (made(name, SPEC), rows())
    rate = "critic_lr" if hasattr(algorithm.hypers, "critic_lr") else "learning_rate"
    other = algorithm.hypers.replace(**{rate: 3 * getattr(algorithm.hypers, rate)})
    four, metrics = after_a_tick(algorithm, data, (0, 1), (algorithm.hypers, other))
    one, alone = after_a_tick(algorithm, data, (1,), (other,))
    assert not four.diverged.any()
    floats = 0
    for many, single in zip(leaves(four.members), leaves(one.members), strict=True):
        np.testing.assert_allclose(many[3], single[0], rtol=1e-5, atol=1e-8)
        floats += many.dtype.kind == "f" and not np.allclose(many[1], many[3], rtol=1e-6)
    assert floats, "the variants must differ for this test"
    for metric, value in alone.items():
        np.testing.assert_allclose(metrics[metric][3], value[0], rtol=1e-5, atol=1e-8, err_msg=metric)


# --- Golden trees ---
KEPT_HERE = ("bc", "bc10", "ravl")


def two_updates(name):
    """Sum and norm of every array that is learnt in two updates, in a model that is not fitted where there is one."""
    algorithm, data = made(name, SPEC, updates=2, evaluations=1, period=2), rows()
    previous = None
    for phase in algorithm.phases[:-1]:
        previous = phase.result(jax.jit(phase.init)(jax.random.key(0), (), data, None))
    agent = algorithm.phases[-1]
    state = jax.jit(agent.init)(jax.random.key(1), algorithm.hypers, data, previous)
    state, _ = jax.jit(agent.update)(state, data)
    learner = (state.agent if algorithm.phases[:-1] else state.learner)._asdict()
    learnt = {
        part: learner[part] for part in ("weights", "actor", "critic", "target_critic", "log_alpha") if part in learner
    }
    paths = jax.tree_util.tree_leaves_with_path(learnt)
    return {jax.tree_util.keystr(p): [float(jnp.sum(x)), float(jnp.sqrt(jnp.sum(x**2)))] for p, x in paths}


@pytest.mark.parametrize("name", KEPT_HERE)
def test_two_updates_equal_the_golden_tree(name):
    golden, found = json.loads(OWN.read_text())[name], two_updates(name)
    assert found.keys() == golden.keys()
    for path, expected in golden.items():
        np.testing.assert_allclose(found[path], expected, rtol=1e-3, atol=1e-4, err_msg=path)


def test_every_offline_algorithm_has_a_golden_tree():
    """In a file of its own, or in that of its family."""
    families = ("critic_family", "model_based", "matrix")
    kept = [name for family in families for name in json.loads((GOLDEN / f"{family}.json").read_text())]
    alone = [path.stem for path in GOLDEN.glob("*.json") if path.stem not in (*families, "actor_critic")]
    assert sorted([*kept, *alone]) == sorted(OFFLINE)


# --- Published settings ---
def test_every_published_row_is_a_setting_of_its_algorithm_with_a_source():
    """Of all but the base of the model-based ones, which no paper proposes for data that are recorded."""
    table = published.table()
    assert {algo for algo, _ in table} == set(OFFLINE) - {"mbpo"}
    for (algo, dataset), row in table.items():
        assert row.source.strip() and row.settings
        config = registry.preset(registry.get(algo), "paper", f"{dataset}-v2")
        registry.get(algo).make(SPEC, config)
        for name, text in row.settings.items():
            value = getattr(config, name)
            shown = "x".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()
            assert shown == text or float(shown) == float(text), (algo, dataset, name)


# --- Cloning on the probes: no values, but actions that are known ---
@pytest.mark.parametrize("name", some(PROBES, ("probe-both",)))
def test_what_cloning_does_on_the_probes(name):
    """Of random actions the mean is 0; of the tenth that was paid best, it is the best action."""
    env, obs = PROBES[name].env, jnp.array([[-1.0, 0.0], [1.0, 0.0]] if name == "probe-both" else [[0.0, 0.0]])
    data = random_data(env, 2_000)
    for top, expected in ((1.0, 0.0 * obs[:, :1]), (0.1, PROBES[name].optimal_action(obs))):
        config = bc.Config(updates=600, evaluations=1, hidden=(16,), batch=128, learning_rate=1e-2, top=top)
        algorithm = bc.make(env.spec, config)
        state = jax.tree.map(lambda leaf: leaf[0], learn(algorithm, data).parameters)
        action, _ = algorithm.act(state, (), obs, jax.random.key(0))
        if top == 1.0 or name in ("probe-action", "probe-both"):
            np.testing.assert_allclose(action, expected, atol=0.15)


if __name__ == "__main__":
    OWN.write_text(json.dumps({name: two_updates(name) for name in KEPT_HERE}, indent=1) + "\n")
