"""The arms on recorded data name their runs as a summary does, and a bound that is too tight is told."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from experiments import offline_mbrl, options, reproduce
from experiments.lipschitz_arms import MECHANISMS
from experiments.lipschitz_offline_claims import CLAIMS, SMALLER, runs
from jaxrl_suite.algorithms import registry


def described(needed):
    words = reproduce.words_of(needed, "0:5", reproduce.Options())
    return options.offline(words, "test", "")


def test_settings_are_what_a_summary_will_say():
    """A claim whose settings are written in another order would find no rows, for ever."""
    needs = {needed for claim in CLAIMS for needed in claim.needs}
    assert len(needs) == len(SMALLER) * (len(MECHANISMS) + 1)
    for needed in needs:
        shared, entry, config = described(needed)
        assert offline_mbrl._settings(shared, config, entry.presets["quick"]) == needed.settings


@pytest.mark.parametrize("algo", SMALLER)
def test_arms_differ_in_model_and_mechanism_alone(algo):
    ensemble, single, smooth = (described(runs(algo, *arm))[2] for arm in (("none", False), ("none",), ("spectral",)))
    assert (ensemble.dynamics.members, single.dynamics.members, single.dynamics.elites) == (7, 1, 1)
    assert {name for name, value in vars(single).items() if value != getattr(ensemble, name)} == {"dynamics"}
    changed = {name for name, value in vars(smooth).items() if value != getattr(single, name)}
    assert changed == set(MECHANISMS["spectral"])


def told(bound, **changes):
    """What is said of critics whose two layers have this norm, where states lie 2 apart and returns 10."""
    weights = {name: {"kernel": bound * jnp.eye(2)[None, None]} for name in ("first", "last")}  # [population, critics]
    config = replace(registry.get("sac_n").presets["smoke"], **{"lipschitz": "spectral", **changes})
    data = SimpleNamespace(mc_return=jnp.array([0.0, 10.0]), transitions=SimpleNamespace(obs=jnp.array([[0.0], [2.0]])))
    states = SimpleNamespace(critic=weights), SimpleNamespace(agent=SimpleNamespace(critic=weights))
    lines = {offline_mbrl._too_tight(config, SimpleNamespace(result=state), data) for state in states}
    assert len(lines) == 1  # model-free and model-based states alike
    return lines.pop()


def test_a_bound_below_the_slope_of_the_returns_is_told():
    assert "constant of 4 can" in told(2.0) and "takes 5:" in told(2.0)
    assert told(2.3) == ""
    assert told(2.0, lipschitz="none") == ""
    assert told(2.0, head="hl_gauss") == ""  # its last layer gives logits


@pytest.mark.slow
def test_a_run_tells_it(tmp_path, monkeypatch, capsys):
    words = ["--algo=sac_n", "--preset=smoke", "--updates=20", "--evaluations=1", "--episodes=1"]
    words += ["--lipschitz=spectral", "--lipschitz-bound=0.001", "--lipschitz-output", f"--out={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["run", *words])
    with pytest.raises(SystemExit) as stop:
        offline_mbrl.main()
    captured = capsys.readouterr()
    assert stop.value.code == 0, captured.err
    assert "raise the bound" in " ".join((captured.out + captured.err).split())
