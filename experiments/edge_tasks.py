"""Outside the box, which settings are trained: offline algorithms in learned and in true dynamics, on recorded data of
a task."""

from __future__ import annotations

from typing import Any, NamedTuple

from experiments import needs
from jaxrl_suite.errors import unknown
from jaxrl_suite.report.claims import Needed

TASKS = ("pendulum", "hopper", "halfcheetah", "walker2d")
SEEDS = 5
# What all algorithms share at the quick preset: little enough for two cores, and few real rows, as in the papers.
QUICK: dict[str, Any] = {
    "updates": 5_000,
    "evaluations": 5,
    "hidden": (64, 64),
    "rollouts": 1_000,
    "real_ratio": 0.05,
}
# Pendulum rewards every step, and is learnt with larger steps and a shorter sight (chosen on seeds 1000 and 1001).
OWN: dict[str, dict[str, Any]] = {
    "pendulum": {"updates": 10_000, "gamma": 0.95, "actor_lr": 2e-3, "critic_lr": 2e-3},
}
# MOBILE bounds its targets by 0 from below, which no value of the pendulum reaches.
OF_ALGO: dict[tuple[str, str], dict[str, Any]] = {("pendulum", "mobile"): {"target_min": None}}
ACCURACIES = (-1.0, -0.5, 0.5)  # from a random model (-1) to half way to the truth; 0 and 1 are the methods' own worlds
HORIZONS = (1, 20)
CRITICS, DIVERSITIES = (2, 5, 10), (0.0, 1.0, 10.0)
TRUE = {"world": "oracle"}


class Arm(NamedTuple):
    """An algorithm with fields of its Config changed."""

    algo: str
    changes: dict[str, Any]


# With nothing but a penalty of the model's error beyond the base method. MOReL's preset has nothing else.
NEUTRAL = (
    Arm("mopo", {**TRUE, "alpha_max": 0.0}),
    Arm("mobile", {**TRUE, "alpha_max": 0.0, "entropy_backup": True, "target_min": None}),
)
STUDIES: dict[str, tuple[Arm, ...]] = {
    "methods": (
        *(Arm(algo, {}) for algo in ("mbpo", "ravl", "mopo")),
        *(Arm(algo, TRUE) for algo in ("mbpo", "ravl", "combo", "mopo")),
    ),
    "patches": (
        Arm("mbpo", TRUE),
        *(Arm("mbpo", {**TRUE, "patch": patch}) for patch in ("edge", "random")),
        Arm("ravl", TRUE),
    ),
    "penalties": (*(Arm(algo, TRUE) for algo in ("morel", "mobile", "rambo")), *NEUTRAL),
    "horizons": tuple(Arm("mbpo", {**TRUE, "horizon": horizon}) for horizon in HORIZONS),
    "accuracy": tuple(
        Arm(algo, {"world": "interpolate", "accuracy": accuracy})
        for algo in ("mbpo", "ravl")
        for accuracy in ACCURACIES
    ),
    "critics": tuple(
        Arm("ravl", {**TRUE, "critics": critics, "diversity": diversity})
        for critics in CRITICS
        for diversity in DIVERSITIES
    ),
    "norm": tuple(Arm(algo, {**world, "layer_norm": True}) for algo in ("mbpo", "ravl") for world in ({}, TRUE)),
}
FURTHER = ("norm",)  # studies that are made where they are asked for
# Whole episodes, from as few starts as leave as many rows per refresh as five steps from a thousand.
WHOLE: dict[str, dict[str, tuple[Arm, ...]]] = {
    "pendulum": {"horizons": (Arm("mbpo", {**TRUE, "horizon": 200, "rollouts": 25}),)}
}
# In MuJoCo's engine the walk behind a patch costs hours from a thousand starts: all arms of that study have fewer.
FEWER: dict[str, Any] = {task: {"rollouts": 200} for task in ("hopper", "halfcheetah", "walker2d")}


def patch_arm(task: str, arm: Arm) -> Arm:
    """An arm of the study of patches, as a task has it."""
    return Arm(arm.algo, {**arm.changes, **FEWER.get(task, {})})


def of_task(task: str, preset: str = "quick") -> dict[str, tuple[Arm, ...]]:
    """The studies of a task."""
    few = () if preset == "paper" else ("patches",)
    own = {name: [patch_arm(task, arm) if name in few else arm for arm in STUDIES[name]] for name in STUDIES}
    return {name: (*arms, *WHOLE.get(task, {}).get(name, ())) for name, arms in own.items()}


def dataset_of(task: str) -> str:
    """The data that a task's studies learn from, unless others are named."""
    return f"{task}-medium-replay-mini"


def needed(
    task: str, arm: Arm, preset: str = "quick", updates: int = 0, dataset: str = "", engine: str = "c"
) -> Needed:
    """The runs of an arm, as claims and summaries name them.

    Args:
        task: its name.
        arm: of one of its studies.
        preset: of the algorithms.
        updates: other than the preset's.
        dataset: other than the bundled one.
        engine: what steps the true dynamics, where an arm has them.

    Raises:
        UserError: no such preset.
    """
    quick = {**QUICK, **OWN.get(task, {})} if preset == "quick" else {}
    quick |= OF_ALGO.get((task, arm.algo), {})
    changes = {**quick, **({"updates": updates} if updates else {}), **arm.changes}
    if arm.changes.get("world", "learned") != "learned" and arm.changes.get("accuracy", 1.0) >= 0.0:
        changes["engine"] = engine
    return needs.needed(arm.algo, dataset or dataset_of(task), changes, preset)


def chosen(task: str, only: str, preset: str = "quick") -> dict[str, tuple[Arm, ...]]:
    """The studies of a task of these names; all without any.

    Raises:
        UserError: an unknown study.
    """
    names = [name.strip() for name in only.split(",")] if only else [name for name in STUDIES if name not in FURTHER]
    for name in names:
        if name not in STUDIES:
            raise unknown("study", name, STUDIES)
    return {name: of_task(task, preset)[name] for name in names}
