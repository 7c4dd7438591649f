"""The arms on recorded data name their runs as a summary does, and a bound that is too tight is told."""

import itertools
import sys
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import lipschitz_probes, offline_mbrl, offline_probes, options, reproduce
from experiments.lipschitz_arms import MECHANISMS
from experiments.lipschitz_claims import KINDS
from experiments.lipschitz_offline_claims import CLAIMS, SMALLER, runs
from jaxrl_suite import data
from jaxrl_suite.algorithms import dyna, ideas, offline, registry
from jaxrl_suite.train import members
from jaxrl_suite.train.compose import population
from jaxrl_suite.types import Transition


def described(needed):
    words = reproduce.words_of(needed, "0:5", reproduce.Options())
    return options.offline(words, "test", "")


def test_settings_are_what_a_summary_will_say():
    """A claim whose settings are written in another order would find no rows, for ever."""
    needs = {needed for claim in CLAIMS for needed in claim.needs}
    assert len(needs) == len(SMALLER) * len(KINDS) * 2 * len(MECHANISMS)
    for needed in needs:
        shared, entry, config = described(needed)
        assert offline_mbrl._settings(shared, config, entry.presets["quick"]) == needed.settings


@pytest.mark.parametrize("algo, kind", list(itertools.product(SMALLER, KINDS)))
def test_arms_differ_in_model_and_mechanism_alone(algo, kind):
    arms = (("none", False), ("none", True), ("spectral", True))
    ensemble, single, smooth = (described(runs(algo, *arm, kind))[2] for arm in arms)
    assert ensemble.dynamics.deterministic == single.dynamics.deterministic == (kind == "deterministic")
    assert (ensemble.dynamics.members, single.dynamics.members, single.dynamics.elites) == (7, 1, 1)
    assert {name for name, value in vars(single).items() if value != getattr(ensemble, name)} == {"dynamics"}
    changed = {name for name, value in vars(smooth).items() if value != getattr(single, name)}
    assert changed == set(MECHANISMS["spectral"])


# --- what is measured of agents ---
def test_a_linear_value_is_told_as_it_is():
    keys = jax.random.split(jax.random.key(0), 3)
    slope, obs = jnp.array([3.0, 0.0, -4.0]), jax.random.normal(keys[0], (40, 3))
    next_obs, imagined = jax.random.normal(keys[1], (40, 3)), jax.random.normal(keys[2], (8, 40, 3))
    rows = Transition(obs, None, None, None, next_obs)
    found = lipschitz_probes.told(
        lambda x: x @ slope + 1.0, rows, imagined, obs @ slope, jnp.array([2.0, 9.0]), keys[0]
    )
    assert set(found) == set(lipschitz_probes.MEASURES)
    missed = np.asarray(next_obs, np.float64) - np.asarray(imagined, np.float64)
    np.testing.assert_allclose(found["value_error"], np.abs(missed.mean(axis=0) @ slope).mean(), rtol=1e-4)
    np.testing.assert_allclose(found["model_error"], np.linalg.norm(missed, axis=-1).mean(), rtol=1e-4)
    for name in ("slope_mean", "slope_max", "slope_found"):
        np.testing.assert_allclose(found[name], 5.0, rtol=1e-3)
    assert found["lipschitz_upper"] == 9.0 and found["slope_needed"] <= 5.0
    np.testing.assert_allclose(found["value_scale"], np.abs(np.asarray(obs @ slope) + 1.0).mean(), rtol=1e-4)


def test_rows_that_are_asked_about_are_those_that_the_fit_of_the_seed_held_out():
    entry = registry.get("mbpo")
    dataset, info = data.load("pendulum-medium-replay-mini")
    spec, config = offline_mbrl.spec_of(dataset, info), entry.presets["smoke"]
    algorithm = entry.make(spec, config)
    seeds = members.of((3, 5), (members.Variant(algorithm.hypers),))
    fit = jax.jit(population(algorithm.phases[offline_probes.MODEL]).init)(*members.arguments(seeds, dataset, 0, None))
    for place, seed in enumerate((3, 5)):
        chosen = np.asarray(offline_probes.held(spec, config, dataset, seed))
        assert set(chosen) <= set(np.asarray(fit.members.holdout[place]))
        assert not set(chosen) & set(np.asarray(fit.members.rows[place, :, : info.rows // 2]).ravel())
        assert len(set(chosen)) == lipschitz_probes.ROWS
    everywhere = offline_probes.held(spec, replace(config, world="oracle"), dataset, 3)
    assert everywhere[0] == 0 and everywhere[-1] > 0.99 * info.rows
    assert isinstance(config, dyna.Config)


def told(bound, **changes):
    """What is said of critics whose two layers have this norm, where states lie 2 apart and returns 10."""
    weights = {name: {"kernel": bound * jnp.eye(2)[None, None]} for name in ("first", "last")}  # [population, critics]
    config = replace(registry.get("sac_n").presets["smoke"], **{"lipschitz": "spectral", **changes})
    data = SimpleNamespace(mc_return=jnp.array([0.0, 10.0]), transitions=SimpleNamespace(obs=jnp.array([[0.0], [2.0]])))
    agent = SimpleNamespace(critic=weights)
    states = offline.State(agent, None, None, None), ideas.State(agent, None, None, None, None)
    lines = {offline_mbrl._too_tight(config, SimpleNamespace(result=state), data) for state in states}
    assert len(lines) == 1  # model-free and model-based states alike
    return lines.pop()


def test_a_bound_below_the_slope_of_the_returns_is_told():
    assert "constant of 4 can" in told(2.0) and "takes 5:" in told(2.0)
    assert told(2.3) == ""
    assert told(2.0, lipschitz="none") == ""
    assert told(2.0, head="hl_gauss") == ""  # its last layer gives logits


def test_a_run_tells_it(tmp_path, monkeypatch, capsys):
    words = ["--algo=sac_n", "--preset=smoke", "--updates=20", "--evaluations=1", "--episodes=1"]
    words += ["--lipschitz=spectral", "--lipschitz-bound=0.001", "--lipschitz-output", f"--out={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["run", *words])
    with pytest.raises(SystemExit) as stop:
        offline_mbrl.main()
    captured = capsys.readouterr()
    assert stop.value.code == 0, captured.err
    assert "raise the bound" in " ".join((captured.out + captured.err).split())
