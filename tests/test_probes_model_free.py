"""Learners from data alone reach the known values of the probe environments, and run from the command line."""

import sys

import pytest
from support import random_data
from test_probes import GAMMA, check

from experiments import offline_mbrl
from jaxrl_suite.algorithms import iql, rebrac, td3_bc
from jaxrl_suite.envs.probes import PROBES
from jaxrl_suite.train.memory import learn

SIZES = {
    "updates": 1_500,
    "evaluations": 3,
    "hidden": (32, 32),
    "batch": 64,
    "gamma": GAMMA,
    "tau": 0.05,
    "actor_lr": 3e-3,
    "critic_lr": 3e-3,
    "normalise": False,
}
LEARNERS = {
    # The bias of what is drawn to random actions is alpha / (1 + alpha) of the way, on values of about 1.
    "td3_bc": (td3_bc, td3_bc.Config(**SIZES, alpha=20.0)),
    # With a large expectile and weights that are steep, the best actions of the data count almost alone.
    "iql": (iql, iql.Config(**SIZES, value_lr=3e-3, expectile=0.9, beta=30.0)),
    "rebrac": (rebrac, rebrac.Config(**SIZES, actor_bc=0.02, critic_bc=0.02)),
}


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("learner", ["td3_bc", "iql", pytest.param("rebrac", marks=pytest.mark.slow)])
def test_values_and_actions(learner, name):
    module, config = LEARNERS[learner]
    algorithm = module.make(PROBES[name].env.spec, config)
    trained = learn(algorithm, random_data(PROBES[name].env, 1_000))
    check(name, algorithm, trained, value_tolerance=0.15, action_tolerance=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["bc10", "td3_bc", "rebrac", "iql"])
def test_from_the_command_line(algo, tmp_path, monkeypatch):
    words = [
        f"--algo={algo}",
        "--preset=smoke",
        "--seeds=2",
        "--dataset=hopper-medium-replay-mini",
        f"--out={tmp_path}",
    ]
    monkeypatch.setattr(sys, "argv", ["command", *words])
    with pytest.raises(SystemExit) as stop:
        offline_mbrl.main()
    assert stop.value.code == 0
    assert len((tmp_path / "offline_mbrl" / "summary.csv").read_text().splitlines()) == 3
