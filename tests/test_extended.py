"""Going on from a finished run as a longer one."""

import dataclasses

import jax
import numpy as np
import pandas as pd
import pytest

from jaxrl_suite.algorithms import mbpo_online
from jaxrl_suite.envs import registry
from jaxrl_suite.errors import UserError
from jaxrl_suite.train import extended, loop, rundir
from jaxrl_suite.train.display import Display

# No model: what a fit sums over the ring buffer, whose length differs, would round otherwise.
SHORT = dataclasses.replace(mbpo_online.PRESETS["smoke"], real_ratio=1.0, utd=1, evaluations=2, hidden=(8,), batch=16)
LONG = dataclasses.replace(SHORT, steps=SHORT.steps + 2 * SHORT.period, evaluations=4)


def job(config):
    spec = registry.spec("pendulum")
    return loop.Job(spec, mbpo_online.make(spec, config), None, (0, 1), {"steps": config.steps}, episodes=2)


def train(job, out):
    with rundir.open_run(out, "extended", "sac", job.config, "0", False) as directory:
        outcome = loop.run(job, directory, Display())
        return outcome.result, pd.read_csv(directory.path / "eval.csv")


def test_an_extended_run_is_the_longer_run(tmp_path):
    short, long = job(SHORT), job(LONG)
    folder = tmp_path / "on" / "extended" / "sac-0"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match="no checkpoint of its last phase; make that run anew"):
        extended.lay(short, tmp_path, long, folder)
    _, first = train(short, tmp_path / "short")
    for _ in range(2):  # the second time changes nothing
        extended.lay(short, tmp_path / "short" / "extended" / "sac-0", long, folder)
    found, evals = train(long, tmp_path / "on")
    wanted, whole = train(long, tmp_path / "long")
    pd.testing.assert_frame_equal(evals, whole, check_exact=True)
    pd.testing.assert_frame_equal(evals.iloc[: len(first)], first, check_exact=True)
    jax.tree.map(np.testing.assert_array_equal, found._replace(key=0), wanted._replace(key=0))
    assert found.replay.data.reward.shape == (2, LONG.steps) and np.all(found.replay.size > SHORT.steps)
    with pytest.raises(UserError, match="another configuration"):
        extended.lay(long, tmp_path / "short" / "extended" / "sac-0", job(LONG), tmp_path)
