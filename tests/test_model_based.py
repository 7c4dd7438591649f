"""MOPO, MOReL, MOBILE and RAMBO: their ideas on hand-made models, and two updates of each against stored results."""

import dataclasses
import functools
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp
from support import random_data
from test_probes import check

from experiments import offline_mbrl
from jaxrl_suite.algorithms import actor_critic, dyna, mobile, mopo, morel, published, rambo, registry
from jaxrl_suite.algorithms.actor_critic import ActorCritic
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.envs.probes import PROBES
from jaxrl_suite.errors import UserError
from jaxrl_suite.models import ensemble, uncertainty
from jaxrl_suite.models.ensemble import EnsembleConfig
from jaxrl_suite.models.fit import FitConfig
from jaxrl_suite.train.memory import learn
from jaxrl_suite.types import Dataset, Members, Params, Prediction, Spec, Stats, Transition, WorldModel

GOLDEN = Path(__file__).parent / "golden" / "model_based.json"
MODULES = {"mopo": mopo, "morel": morel, "mobile": mobile, "rambo": rambo}
ENV = envs.make("pendulum")
SMALL = {
    "updates": 2,
    "period": 2,
    "rollouts": 16,
    "horizon": 2,
    "retain": 1,
    "real_ratio": 0.5,
    "batch": 16,
    "critics": 2,
    "hidden": (16, 16),
    "actor_lr": 1e-2,
    "critic_lr": 1e-2,
    "alpha_lr": 1e-2,
    "anneal": False,
    "alpha_max": 0.0,
    "evaluations": 1,
    "dynamics": EnsembleConfig(members=3, elites=2, hidden=(16,), evaluate="all"),
    "fit": FitConfig(steps=2, checks=1, batch=16),
}
OWN = {
    "mopo": {},
    # So cautious that some steps halt and some do not.
    "morel": {"pessimism": 1.3, "halt_penalty": 5.0},
    "mobile": {"samples": 2, "target_min": -100.0},
    "rambo": {"adversary": 0.1, "adversary_steps": 4, "adversary_batch": 8, "clone_steps": 3, "clone_lr": 1e-2},
}


def config_of(name, **changes):
    return MODULES[name].Config(**SMALL | OWN[name] | changes)


def made(name, **changes):
    return MODULES[name].make(ENV.spec, config_of(name, **changes))


# --- two updates of the whole ---
def first_period(algorithm):
    """The function hypers -> the agent's phase after its first period, in a model that is not fitted."""
    data = random_data(ENV, 100)
    fit, agent = algorithm.phases

    @jax.jit
    def run(hypers):
        params = fit.result(fit.init(jax.random.key(0), (), data, ()))
        # Members that differ visibly, so that ideas show in two updates.
        members = jax.tree.map(lambda x: 2.0 * x, params.weights.members)
        params = params._replace(weights=params.weights._replace(members=members))
        return agent.update(agent.init(jax.random.key(1), hypers, data, params), data)

    return lambda hypers: run(jax.tree.map(jnp.float32, hypers))


def norms(state):
    """Sum and norm of every learnt array, by its path."""
    agent = state.agent
    learnt = {"actor": agent.actor, "critic": agent.critic, "alpha": agent.log_alpha, "model": state.model.weights}
    leaves = jax.tree_util.tree_leaves_with_path(learnt)
    return {jax.tree_util.keystr(p): [float(jnp.sum(x)), float(jnp.sqrt(jnp.sum(x**2)))] for p, x in leaves}


@pytest.fixture(scope="module")
def runs():
    """By algorithm: (hypers, the jitted function from hypers to the first period's outcome)."""
    built = {name: made(name) for name in MODULES}
    return {name: (algorithm.hypers, first_period(algorithm)) for name, algorithm in built.items()}


@pytest.mark.parametrize("name", MODULES)
def test_two_updates_equal_the_golden_tree(runs, name):
    """Rewrite the file with `python tests/test_model_based.py` when the mathematics is meant to change."""
    hypers, run = runs[name]
    found, golden = norms(run(hypers)[0]), json.loads(GOLDEN.read_text())[name]
    assert found.keys() == golden.keys()
    for path, expected in golden.items():
        np.testing.assert_allclose(found[path], expected, rtol=1e-3, atol=1e-4, err_msg=path)


WITHOUT = {
    "mopo": {"penalty": 0.0},
    "morel": {"pessimism": 0.0},
    "mobile": {"penalty": 0.0},
    "rambo": {"adversary_lr": 0.0, "clone_lr": 0.0},
}


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def close(a, b):
    return all(np.allclose(x, y, rtol=1e-5, atol=1e-6) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


@pytest.fixture(scope="module")
def plain():
    """By the shape of the actor-critic: the first period of the skeleton without an idea."""

    @functools.cache
    def run(shape):
        config = config_of("morel")
        ac = actor_critic.make(ENV.spec, shape)
        return first_period(dyna.make(ENV.spec, config, ac, config.hypers()))(config.hypers())[0]

    return lambda name: run(config_of(name).actor_critic())


@pytest.mark.parametrize("name", WITHOUT)
def test_a_weight_of_zero_gives_the_plain_skeleton_bit_for_bit(runs, plain, name):
    """A traced zero, in the program that has the term. RAMBO's is another program before the updates too, and rounds
    differently here and there."""
    hypers, run = runs[name]
    equal = close if name == "rambo" else same
    base, zero = plain(name), run(hypers.replace(**WITHOUT[name]))[0]
    for part in ("actor", "critic", "log_alpha"):
        assert equal(getattr(zero.agent, part), getattr(base.agent, part)), part
    assert equal(zero.imagined, base.imagined)
    with_it, metrics = run(hypers)
    assert not same(with_it.agent.critic, base.agent.critic)
    assert same(with_it.model, base.model) == (name != "rambo")
    assert ("adversarial" in metrics) == (name == "rambo")


# --- what an algorithm hands to the skeleton ---
def idea_of(name, monkeypatch, ac=None, spec=ENV.spec, **changes):
    """The idea that the algorithm hands to the skeleton, built on the actor-critic `ac`, if given."""
    caught = []

    def make(spec, config, ac, hypers, idea=dyna.PLAIN):
        caught.append(idea)
        return SimpleNamespace(phases=())

    with monkeypatch.context() as patch:
        patch.setattr(dyna, "make", make)
        if ac:
            patch.setattr(actor_critic, "make", lambda spec, config: ac)
        config = dataclasses.replace(config_of(name, **changes), **({"clone_steps": 0} if name == "rambo" else {}))
        MODULES[name].make(spec, config)
    return caught[0]


@pytest.mark.parametrize("name", WITHOUT)
def test_a_configured_zero_leaves_the_term_out_of_the_program(name, monkeypatch):
    without = WITHOUT[name] if name != "rambo" else {"adversary_steps": 0}
    assert idea_of(name, monkeypatch, **without) is dyna.PLAIN
    assert idea_of(name, monkeypatch) is not dyna.PLAIN


PARAMS = Params((), Stats(jnp.zeros(1), jnp.ones(1)), jnp.array([2, 0], jnp.int32))


class Agent(NamedTuple):
    """As much of an agent's state as ideas read."""

    critic: float
    target_critic: float
    hypers: Any = ()


def toy_critic():
    """pi is always 0.5; Q is weight * the first observation + action, weight 1 online and 2 in the target."""
    agent = Agent(1.0, 2.0)
    functions = ActorCritic(
        init=None,
        update=None,
        policy=lambda state, obs, key: jnp.full((len(obs), 1), 0.5),
        act=lambda state, carry, obs, key: (jnp.full((len(obs), 1), 0.5), carry),
        q_value=lambda state, obs, action: state.critic * obs[:, 0] + action[:, 0],
    )
    return functions, agent


def state_of(agent, hypers, params=PARAMS, extra=()):
    return dyna.State(agent._replace(hypers=hypers), params, None, jax.random.key(0), extra)


def spread_model():
    """Three members whose means of the first observation differ by what the observation says: -x, 0, x."""

    def step(params, obs, action, key):
        mean = jnp.concatenate([obs, jnp.zeros((len(obs), 1))], axis=-1)
        mean = jnp.stack([-mean, 0.0 * mean, mean])
        return obs, Prediction(obs, jnp.zeros(len(obs)), jnp.ones(len(obs)), Members(mean, 0.0 * mean))

    return WorldModel(init=None, loss=None, start=lambda params, rows: rows.transitions.obs, step=step)


def rows_of(obs, reward):
    obs, reward = jnp.float32(obs)[:, None], jnp.float32(reward)
    return Transition(obs, 0.0 * obs, reward, jnp.ones(len(reward)), obs)


def data_of(rows):
    n = len(rows.reward)
    return Dataset(rows, rows.action, jnp.zeros(n, bool), jnp.zeros(n, jnp.int32), rows.reward, None)


# --- MOPO ---
def test_mopo_pays_the_reward_less_the_longest_spread(monkeypatch):
    def step(params, obs, action, key):
        std = jnp.array([[[3.0, 4.0]], [[1.0, 1.0]]])
        return obs, Prediction(obs, jnp.array([10.0]), jnp.ones(1), Members(0.0 * std, std))

    idea = idea_of("mopo", monkeypatch)
    state = state_of(toy_critic()[1], mopo.Hypers(penalty=0.5))
    model = idea.transform(WorldModel(None, None, None, step), state)
    _, prediction = model.step(PARAMS, jnp.zeros((1, 1)), jnp.zeros((1, 1)), jax.random.key(0))
    np.testing.assert_allclose(prediction.reward, [10.0 - 0.5 * 5.0])


# --- MOReL ---
@pytest.mark.parametrize("where", [0, 5, 9])
def test_the_greatest_disagreement_is_looked_for_on_all_rows(monkeypatch, where):
    monkeypatch.setattr(morel, "ROWS", 4)
    obs = np.linspace(-1.0, 1.0, 10)
    obs[where] = 8.0
    measure = uncertainty.make("max_pairwise")
    data = data_of(rows_of(obs, np.zeros(10)))
    assert float(morel.greatest(spread_model(), measure, PARAMS, data, jax.random.key(0))) == 16.0


def test_morel_divides_by_its_coefficient_and_compares_members_on_the_same_input(monkeypatch):
    """A public port multiplies, and measures the diameter of predictions across rows: 12 here, where members are at
    most 6 apart on a row."""
    idea = idea_of("morel", monkeypatch)
    data = data_of(rows_of([-3.0, 3.0, 1.0], [2.0, -1.0, 4.0]))
    extra = idea.prepare(spread_model(), PARAMS, data, jax.random.key(0))
    assert (float(extra.disagreement), float(extra.reward_min)) == (6.0, -1.0)
    state = state_of(toy_critic()[1], morel.Hypers(pessimism=3.0, halt_penalty=50.0), extra=extra)
    model = idea.transform(spread_model(), state)
    obs = jnp.array([[0.9], [1.0], [-1.1]])  # of disagreement 1.8, 2 and 2.2
    _, prediction = model.step(PARAMS, obs, jnp.zeros((3, 1)), jax.random.key(0))
    np.testing.assert_array_equal(prediction.discount, [1.0, 1.0, 0.0])
    np.testing.assert_array_equal(prediction.reward, [0.0, 0.0, -51.0])


# --- MOBILE ---
def test_inconsistency_is_the_sample_spread_of_the_elites_target_values():
    ac, agent = toy_critic()
    mean = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    found = mobile.inconsistency(ac, agent, Members(jnp.array(mean), jnp.zeros((4, 5, 3))), 3, jax.random.key(0))
    np.testing.assert_allclose(found, np.std(2.0 * mean[..., 0].astype(np.float64), axis=0, ddof=1), rtol=1e-5)


def test_inconsistency_averages_over_sampled_states():
    """Elites that agree differ by the noise of a mean over samples; values are averaged before they are compared."""
    ac, agent = toy_critic()
    elites = Members(jnp.zeros((2, 20_000, 2)), jnp.ones((2, 20_000, 2)))
    found = mobile.inconsistency(ac, agent, elites, 4, jax.random.key(0))
    # The variance of a mean of four values of variance 2^2.
    np.testing.assert_allclose(np.mean(np.square(found)), 2.0**2 / 4, rtol=0.05)


def test_one_elite_agrees_with_itself():
    ac, agent = toy_critic()
    np.testing.assert_array_equal(
        mobile.inconsistency(ac, agent, Members(jnp.ones((1, 3, 2)), jnp.ones((1, 3, 2))), 2, jax.random.key(0)), 0.0
    )


def test_mobile_penalises_imagined_rows_alone_by_the_elites_alone(monkeypatch):
    ac, agent = toy_critic()
    idea = idea_of("mobile", monkeypatch, ac=ac, batch=4)
    batch = rows_of([5.0, 5.0, 5.0, -7.0], [1.0, 2.0, 3.0, 4.0])
    state = state_of(agent, mobile.Hypers(penalty=0.1))
    found = idea.relabel(spread_model(), state, batch, jax.random.key(0))
    # Elites 2 and 0 say x and -x, their target values are 2x and -2x, whose sample deviation is 4|x| / sqrt 2.
    penalty = 0.1 * 4.0 * np.array([5.0, 7.0]) / np.sqrt(2.0)
    np.testing.assert_allclose(found.reward, [1.0, 2.0, 3.0 - penalty[0], 4.0 - penalty[1]], rtol=1e-5)
    assert same(found._replace(reward=batch.reward), batch)


def test_mobiles_temperature_is_fixed_where_its_authors_fix_it():
    """alpha_lr=0 keeps the temperature at 1, which alpha_max=0.2 cuts before the first step of the actor."""
    config = registry.preset(registry.get("mobile"), "paper", "hopper-medium-replay-v2")
    small = dataclasses.replace(config, hidden=(8,), batch=8)
    ac = actor_critic.make(ENV.spec, small.actor_critic())
    state = ac.init(jax.random.key(0), small.hypers(kind=mobile.Hypers, penalty=0.1), None)
    rows = random_data(ENV, 8).transitions
    for step in range(2):
        state, metrics = jax.jit(ac.update)(state, rows, jax.random.key(step))
        np.testing.assert_allclose(metrics["alpha"], 0.2, rtol=1e-6)


def test_mobile_bounds_its_targets_and_leaves_entropy_out():
    shape = mobile.PRESETS["paper"].actor_critic()
    assert (shape.target_min, shape.entropy_backup, shape.alpha_max) == (0.0, False, 1.0)


# --- RAMBO ---
def elites(seed=0):
    rng = np.random.default_rng(seed)
    return Members(jnp.float32(rng.normal(size=(3, 4, 2))), jnp.float32(np.exp(rng.normal(size=(3, 4, 2)))))


def test_the_mixture_is_one_of_joint_densities():
    """A public port multiplies mixtures of each dimension."""
    given, sample = elites(), np.random.default_rng(1).normal(size=(4, 2)).astype(np.float32)
    mean, std = (np.asarray(x, np.float64) for x in given)
    each = stats.norm.logpdf(sample, mean, std)
    np.testing.assert_allclose(
        jax.jit(rambo.log_density)(given, sample), logsumexp(each.sum(-1), axis=0) - np.log(3), rtol=1e-5
    )


def test_the_density_of_what_no_member_expected_does_not_underflow():
    given = Members(jnp.zeros((3, 1, 2)), jnp.full((3, 1, 2), 0.01))
    density = jax.jit(jax.value_and_grad(lambda x: jnp.sum(rambo.log_density(given, x))))
    value, slope = density(jnp.full((1, 2), 5.0))
    assert np.isfinite(value) and np.isfinite(slope).all()


def test_the_adversary_lowers_the_density_of_good_outcomes_and_raises_that_of_bad_ones():
    advantage = jnp.array([5.0, 1.0, 1.0, 1.0])
    slope = jax.grad(rambo.adversarial_loss)(jnp.zeros(4), advantage)
    a = np.asarray(advantage, np.float64)
    np.testing.assert_allclose(slope, (a - a.mean()) / a.std() / 4, rtol=1e-4)  # descent goes the other way
    assert slope[0] > 0 > slope[1]
    held = jax.grad(rambo.adversarial_loss, argnums=1)(jnp.ones(4), advantage)
    np.testing.assert_array_equal(held, 0.0)


TOY = Spec("toy", 1, 1, 10, lambda obs: obs[..., 0] > 1e6)


def adversary(config, data, model, ac, params, **changes):
    """The function lambda -> the model's params and the metrics, after `adversary_steps` on `data`."""
    with pytest.MonkeyPatch.context() as patch:
        if config is None:
            patch.setattr(ensemble, "decay", lambda config: lambda weights: 0.0)
            config = SMALL["dynamics"]
        idea = idea_of("rambo", patch, ac=ac[0], spec=TOY, adversary_batch=64, dynamics=config, **changes)

    @jax.jit
    def run(weight):
        hypers = rambo.Hypers(gamma=0.9, adversary=weight, adversary_lr=1e-2)
        opt = idea.prepare(model, params, data, jax.random.key(0))
        state, metrics = idea.adapt(model, state_of(ac[1], hypers, params, opt), data, jax.random.key(1))
        return state.model, metrics

    return run


def test_the_adversarial_model_promises_less():
    """Two linear members, and data that says nothing happens: the stronger the adversary, the less r + gamma Q is."""
    config = EnsembleConfig(members=2, elites=2, hidden=(), weight_decay=(0.0,), evaluate="all")
    model, data = ensemble.make(TOY, config), data_of(rows_of(np.zeros(8), np.zeros(8)))
    params = model.init(jax.random.key(0), Stats(jnp.zeros(2), jnp.ones(2)))
    run = adversary(config, data, model, toy_critic(), params, horizon=1, adversary_steps=100)
    promised = []
    for weight in (0.0, 1.0, 3.0):
        _, prediction = model.step(run(weight)[0], jnp.zeros((1, 1)), jnp.full((1, 1), 0.5), jax.random.key(0))
        promised.append(float(jnp.mean(prediction.members.mean @ jnp.array([0.9, 1.0]))))
    assert promised[0] > promised[1] + 0.05 > promised[2] + 0.1


def test_the_adversarial_models_weights_decay():
    """With nothing to fit and no adversary the L2 term alone is left: Adam's steps lead every kernel towards 0."""
    config = EnsembleConfig(members=2, elites=2, hidden=(), weight_decay=(0.1,), evaluate="all")
    model, data = ensemble.make(TOY, config), data_of(rows_of(np.zeros(8), np.zeros(8)))
    params = model.init(jax.random.key(0), Stats(jnp.zeros(2), jnp.ones(2)))
    idle = model._replace(loss=lambda weights, params, batch, key: (jnp.zeros(()), {}))
    after, _ = adversary(config, data, idle, toy_critic(), params, horizon=1, adversary_steps=5)(0.0)
    before, kernel = (np.asarray(p.weights.members["mean"]["kernel"]) for p in (params, after))
    large = np.abs(before) > 0.06
    np.testing.assert_allclose((before - kernel)[large], 5 * 1e-2 * np.sign(before[large]), rtol=0.05)
    assert large.any()


def test_the_advantage_along_a_rollout_that_goes_on_past_the_end():
    def step(params, obs, action, key):
        ones = jnp.ones((3, len(obs), 2))
        half = jnp.full(len(obs), 0.5)
        return obs, Prediction(obs + 2.0, 6.0 * half, half, Members(params.weights * ones, ones))

    model = WorldModel(None, lambda weights, params, batch, key: (jnp.square(weights), {}), None, step)
    params, data = PARAMS._replace(weights=jnp.zeros(())), data_of(rows_of(np.zeros(4), np.zeros(4)))
    _, metrics = adversary(None, data, model, toy_critic(), params, horizon=2, adversary_steps=4)(1.0)
    # r + gamma d Q(s', 0.5) - Q(s, 0.5), from 0 to 2 and from 2 to 4.
    np.testing.assert_allclose(metrics["advantage"], np.mean([3 + 0.45 * 2.5 - 0.5, 3 + 0.45 * 4.5 - 2.5]), rtol=1e-5)


def test_settings_that_cannot_be_are_refused():
    for name in MODULES:
        with pytest.raises(UserError, match="evaluate=all"):
            made(name, dynamics=dataclasses.replace(SMALL["dynamics"], evaluate="drawn"))
    with pytest.raises(UserError, match="no multiple of --horizon"):
        made("rambo", adversary_steps=3)
    with pytest.raises(UserError, match="unknown uncertainty"):
        made("mopo", uncertainty="max")


# --- presets ---
def test_one_fitted_model_serves_all():
    caches = {
        registry.get(name).make(ENV.spec, registry.get(name).presets["quick"]).phases[0].cache
        for name in ("ravl", *MODULES)
    }
    assert len(caches) == 1


def test_published_settings_are_settings():
    rows = [key for key in published.table() if key[0] in MODULES]
    assert {algo for algo, _ in rows} == set(MODULES)
    for algo, dataset in rows:
        MODULES[algo].make(ENV.spec, registry.preset(registry.get(algo), "paper", dataset))
    assert registry.preset(registry.get("mopo"), "paper", "hopper-medium-replay-v2").penalty == 2.5


# --- end to end ---
PROBE = {
    "updates": 1_500,
    "period": 500,
    "rollouts": 500,
    "horizon": 2,
    "real_ratio": 0.5,
    "batch": 64,
    "critics": 2,
    "hidden": (32, 32),
    "gamma": 0.9,
    "tau": 0.05,
    "actor_lr": 3e-3,
    "critic_lr": 3e-3,
    "alpha_lr": 3e-3,
    "anneal": False,
    "dynamics": EnsembleConfig(members=3, elites=2, hidden=(32, 32), evaluate="all"),
    "fit": FitConfig(steps=600, checks=3, batch=64),
}
WEIGHTS = {
    "mopo": {"penalty": 0.01},
    "morel": {"pessimism": 0.5, "halt_penalty": 1.0},
    "mobile": {"penalty": 0.1, "samples": 2, "target_min": None},
    "rambo": {"adversary": 3e-4, "adversary_steps": 20, "adversary_batch": 64, "clone_steps": 100, "clone_lr": 1e-3},
}
CASES = [
    pytest.param(name, probe, marks=() if (name, probe) == ("mopo", "probe-both") else pytest.mark.slow)
    for name in MODULES
    for probe in PROBES
]


@pytest.mark.parametrize(("name", "probe"), CASES)
def test_probes(name, probe):
    algorithm = MODULES[name].make(PROBES[probe].env.spec, MODULES[name].Config(**PROBE | WEIGHTS[name]))
    check(probe, algorithm, learn(algorithm, random_data(PROBES[probe].env, 1_000)), 0.15, 0.2)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_the_command_line(name, monkeypatch, capsys, tmp_path):
    words = [
        f"--algo={name}",
        "--dataset=hopper-medium-replay-mini",
        "--preset=smoke",
        "--seeds=2",
        f"--out={tmp_path}",
    ]
    monkeypatch.setattr(sys, "argv", ["command", *words])
    with pytest.raises(SystemExit) as stop:
        offline_mbrl.main()
    output = capsys.readouterr().out
    assert stop.value.code == 0 and "seed 1" in output and "diverged" not in output


if __name__ == "__main__":
    found = {name: norms(first_period(made(name))(made(name).hypers)[0]) for name in MODULES}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
