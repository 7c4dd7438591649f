"""What the short presets of the maximum-entropy algorithms share, so that they differ in their ideas alone.

Step sizes are those of RAVL's `quick` preset. One world model per data set and seed serves the model-based ones and
RAVL: the fits are the same, and the cache knows it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jaxrl_suite.algorithms import ravl

_RAVL = ravl.PRESETS

# --- without a world model ---
AGENT: dict[str, Any] = {
    "updates": 10_000,
    "hidden": (128, 128),
    "tau": 0.01,
    "actor_lr": 1e-3,
    "critic_lr": 1e-3,
    "alpha_lr": 3e-3,
    "anneal": True,
    "evaluations": 5,
}
AGENT_SMOKE: dict[str, Any] = AGENT | {"updates": 100, "hidden": (32, 32), "evaluations": 2}

# --- with one ---
QUICK: dict[str, Any] = AGENT | {
    "period": 250,
    "rollouts": 5_000,
    "horizon": 5,
    "retain": 5,
    "real_ratio": 0.5,
    "critics": 2,
    "dynamics": _RAVL["quick"].dynamics,
    "fit": _RAVL["quick"].fit,
}
SMOKE: dict[str, Any] = (QUICK | AGENT_SMOKE) | {
    "period": 50,
    "rollouts": 200,
    "dynamics": _RAVL["smoke"].dynamics,
    "fit": _RAVL["smoke"].fit,
}

# --- with one whose members are all evaluated ---
QUICK_ALL: dict[str, Any] = QUICK | {"dynamics": replace(QUICK["dynamics"], evaluate="all")}
SMOKE_ALL: dict[str, Any] = SMOKE | {"dynamics": replace(SMOKE["dynamics"], evaluate="all")}
