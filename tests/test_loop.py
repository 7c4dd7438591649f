"""The training loop in one process: a phase that is good enough ends, and stays ended."""

import dataclasses

import jax.numpy as jnp
import pandas as pd
import pytest
from support import random_data

from jaxrl_suite.algorithms import bc
from jaxrl_suite.envs.probes import PROBES
from jaxrl_suite.train import loop, rundir
from jaxrl_suite.train.display import Display
from jaxrl_suite.types import Phase

ENV = PROBES["probe-observation"].env
UPDATES = 5 * 20


@pytest.fixture(scope="module")
def job():
    config = dataclasses.replace(bc.PRESETS["smoke"], updates=UPDATES, evaluations=5, hidden=(8,), batch=16)
    return loop.Job(ENV.spec, bc.make(ENV.spec, config), random_data(ENV, 50), (0, 1), {}, checkpoint_seconds=0.0)


def train(job, out, **changes):
    """Run or go on -> outcome and evaluations. Never noted as finished."""
    with rundir.open_run(out, "loop", "bc", {}, "0", False) as directory:
        outcome = loop.run(dataclasses.replace(job, **changes), directory, Display())
        return outcome, pd.read_csv(directory.path / "eval.csv")


def test_a_phase_ends_when_every_member_is_good_enough_and_is_not_gone_on_with(job, tmp_path):
    whole, evals = train(job, tmp_path / "whole")
    assert whole.finished and evals["update"].unique().tolist() == [20, 40, 60, 80, 100]
    first, rest = evals["return_mean"].to_numpy().reshape(5, 2)[0], evals["return_mean"].to_numpy().reshape(5, 2)[1:]
    assert first.min() < first.max(), "the members must differ for this test"
    met = train(job, tmp_path / "met", enough=float(first.min()))
    # Again, as after a death between the last checkpoint and the note that the run has ended.
    for outcome, evals in (met, train(job, tmp_path / "met", enough=float(first.min()))):
        assert outcome.finished and evals["update"].unique().tolist() == [20]
    _, evals = train(job, tmp_path / "one", enough=float(first.max()))
    ends = [index + 2 for index, returns in enumerate(rest) if returns.min() >= first.max()]
    assert evals["update"].max() == 20 * min(ends, default=5) > 20


def test_a_member_whose_model_diverged_stays_marked_and_its_model_is_not_kept_for_others(job, tmp_path):
    def update(state, data):
        return state + 1.0, {"loss": state * jnp.nan}

    fit = Phase("fit", 1, 1, 1, lambda key, hypers, data, previous: jnp.float32(0.0), update, cache="fit")
    algorithm = job.algorithm._replace(phases=(fit, *job.algorithm.phases))
    broken = dataclasses.replace(job, algorithm=algorithm, cache=tmp_path / "models", cache_key="0")
    for _ in range(2):  # the second time it resumes in its last phase, as after a kill
        outcome, _ = train(broken, tmp_path)
        assert outcome.finished and outcome.diverged.tolist() == [True, True]
    assert not (tmp_path / "models").exists()
    healthy = fit._replace(update=lambda state, data: (state + 1.0, {"loss": state}))
    whole = dataclasses.replace(broken, algorithm=algorithm._replace(phases=(healthy, *job.algorithm.phases)))
    outcome, _ = train(whole, tmp_path / "whole")
    assert outcome.diverged.tolist() == [False, False] and list((tmp_path / "models").iterdir())
