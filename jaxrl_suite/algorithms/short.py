"""What the short presets of the penalised model-based algorithms share, so that they differ in their ideas alone.

One world model per data set and seed serves them and RAVL: the fits are the same, and the cache knows it. Step sizes
are those of RAVL's `quick` preset.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jaxrl_suite.algorithms import ravl

_RAVL = {"quick": ravl.PRESETS["quick"], "smoke": ravl.PRESETS["smoke"]}

QUICK: dict[str, Any] = {
    "updates": 10_000,
    "period": 250,
    "rollouts": 5_000,
    "horizon": 5,
    "retain": 5,
    "real_ratio": 0.5,
    "critics": 2,
    "hidden": (128, 128),
    "tau": 0.01,
    "actor_lr": 1e-3,
    "critic_lr": 1e-3,
    "alpha_lr": 3e-3,
    "anneal": True,
    "evaluations": 5,
    "dynamics": replace(_RAVL["quick"].dynamics, evaluate="all"),
    "fit": _RAVL["quick"].fit,
}
SMOKE: dict[str, Any] = QUICK | {
    "updates": 100,
    "period": 50,
    "rollouts": 200,
    "hidden": (32, 32),
    "evaluations": 2,
    "dynamics": replace(_RAVL["smoke"].dynamics, evaluate="all"),
    "fit": _RAVL["smoke"].fit,
}
