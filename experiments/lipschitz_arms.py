"""The arms of `ensemble_vs_lipschitz`: kinds of world model times mechanisms on the critics, and SAC."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, NamedTuple

from jaxrl_suite.algorithms import head_options, mbpo_online
from jaxrl_suite.algorithms.mbpo_online import Config
from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.models import ensemble, refit
from jaxrl_suite.report.claims import Needed
from jaxrl_suite.train import settings
from jaxrl_suite.values import heads
from jaxrl_suite.values.heads import HeadConfig

EXPERIMENT = "ensemble_vs_lipschitz"
AGENT = "jaxrl_suite.algorithms.mbpo_online:make"
HOST_AGENT = "jaxrl_suite.algorithms.mbpo_host:make"
SEEDS = 5
EPISODES = 10  # of an evaluation and seed, unless settings say otherwise
PLAIN = HeadConfig()  # the value head of the comparison
EVALUATIONS = 30  # of runs with steps of their own: enough for a curve
MODELS = {
    "probabilistic-ensemble": (False, False),
    "deterministic-ensemble": (True, False),
    "probabilistic-single": (False, True),
    "deterministic-single": (True, True),
}
MECHANISMS: dict[str, dict[str, Any]] = {
    "none": {},
    "spectral": {"lipschitz": "spectral", "lipschitz_bound": 5.0},
    "adversarial": {"lipschitz": "adversarial"},
    "random": {"lipschitz": "random"},
}
# Beside the comparison: what is to keep values from running away where there are many updates per step.
LAYER_NORM = "layer-norm"
EVERY_MECHANISM: dict[str, dict[str, Any]] = MECHANISMS | {LAYER_NORM: {"layer_norm": True}}
MODEL_FREE: dict[str, dict[str, Any]] = {"sac": {"real_ratio": 1.0, "utd": 1}, "sac-utd": {"real_ratio": 1.0}}
# What a task changes in the presets; `solved` is a return that we call solved, of at most 0 and 200.
QUICK: dict[str, dict[str, Any]] = {
    "pendulum": {"steps": 5_000, "explore": 500, "utd": 5, "gamma": 0.95, "learning_rate": 2e-3},
    # With 5% of real rows the errors of a model this small keep the values flat (seeds 1000 and 1001): half are real.
    "cartpole_swingup": {
        **{"steps": 12_000, "explore": 2_000, "utd": 10, "tau": 0.02, "evaluations": 10},
        "real_ratio": 0.5,
    },
}
# MuJoCo's tasks, small enough for minutes: a twentieth of the authors' steps, smaller networks, half of a batch real.
_SMALL: dict[str, Any] = {
    "steps": 6_000,
    "explore": 1_000,
    "period": 125,
    "utd": 8,
    "rollouts": 4_000,
    "retain": 4,
    "hidden": (128, 128),
    "gamma": 0.99,
    "learning_rate": 5e-4,
    "evaluations": 10,
    "real_ratio": 0.5,
}
# Settings per task of the authors' code (jannerm/mbpo); its schedule of rollouts stands in epochs of 1,000 steps. Its
# ant observes the 27 numbers of Ant-v4, and pays for contact forces besides.
AUTHORS: dict[str, dict[str, Any]] = {
    "hopper": {"utd": 20, "horizon": (1, 15), "horizon_epochs": (20, 150), "target_entropy": -1.0},
    "walker2d": {"utd": 20, "horizon": (1, 1), "target_entropy": -3.0},
    "halfcheetah": {"utd": 40, "horizon": (1, 1), "target_entropy": -3.0},
    "ant": {"utd": 20, "horizon": (1, 25), "horizon_epochs": (20, 100), "target_entropy": -4.0},
}
QUICK |= {env: {**_SMALL, "target_entropy": own["target_entropy"]} for env, own in AUTHORS.items()}
# The preset beside those of `mbpo_online`: what it takes to learn a task, in what it changes in quick. Chosen on seed
# 1000, of shares of real rows from 0.05 to 1, 1 to 20 updates per step, two discounts and two entropies to aim at.
LONG = "long"
LONGER: dict[str, dict[str, Any]] = {
    "hopper": {
        "steps": 42_000,
        "explore": 2_000,
        "period": 1_000,
        "rollouts": 20_000,
        "retain": 2,
        "learning_rate": 3e-4,
        "real_ratio": 0.8,
        "evaluations": 20,
        "dynamics": ensemble.EnsembleConfig(members=5, elites=3, hidden=(128, 128)),
        "fit": refit.RefitConfig(steps=300, batch=256),
    },
}
PRESETS = (*mbpo_online.PRESETS, LONG)
CHANGES = {"quick": QUICK, LONG: {env: QUICK[env] | own for env, own in LONGER.items()}, "paper": AUTHORS}
SOLVED = {"pendulum": -250.0, "cartpole_swingup": 100.0}
SOLVED |= {"hopper": 3_000.0, "walker2d": 3_000.0, "halfcheetah": 4_000.0, "ant": 3_000.0}
# The comparison's budgets end while MBPO still learns these; with twice the steps this kind of model solves them.
LEARNER, TWICE = "probabilistic-ensemble", {"pendulum": 10_000, "cartpole_swingup": 24_000}


class Arm(NamedTuple):
    """A kind of model (or none: SAC) and a mechanism; with the preset's steps or others, on the host or not.

    With `extends` the first of them are a finished run's with the preset's number of steps.
    """

    model: str
    mechanism: str = "none"
    steps: int = 0  # in all; 0 for the preset's
    host: bool = False  # step the task in envpool
    extends: bool = False  # go on from the run with the preset's steps
    head: HeadConfig = PLAIN  # the critics' value head

    @property
    def needs_model(self) -> bool:
        """Whether it has a world model."""
        return self.model in MODELS

    @property
    def changes(self) -> dict[str, Any]:
        """What it changes in the Config of its kind of model, besides steps."""
        return EVERY_MECHANISM[self.mechanism] | head_options.fields_of(self.head)

    def config(self, env: str, preset: str) -> Config:
        """Its Config.

        Raises:
            UserError: no such preset.
        """
        found = replace(default(self.model, env, preset), **self.changes)
        return replace(found, steps=self.steps, evaluations=EVALUATIONS) if self.steps else found

    def needed(self, env: str) -> Needed:
        """Its runs, as claims name them."""
        return Needed(self.model, env, text(self))


def default(model: str, env: str, preset: str) -> Config:
    """The Config of a kind of model without a mechanism.

    Raises:
        UserError: no such task, model or preset, or a preset that has no settings for the task.
    """
    if env not in QUICK:
        raise unknown("environment of this experiment", env, QUICK)
    if model not in (*MODELS, *MODEL_FREE):
        raise unknown("arm", model, (*MODELS, *MODEL_FREE))
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    if preset == LONG and env not in LONGER:
        raise UserError(f"--preset={LONG} has settings for {', '.join(LONGER)}, not for {env}; take quick or paper")
    own = CHANGES.get(preset, {}).get(env, {})
    config = replace(mbpo_online.PRESETS["quick" if preset == LONG else preset], **own)
    if model in MODEL_FREE:
        return replace(config, **MODEL_FREE[model])
    deterministic, single = MODELS[model]
    dynamics = replace(config.dynamics, deterministic=deterministic)
    return replace(config, dynamics=replace(dynamics, members=1, elites=1) if single else dynamics)


def text(arm: Arm, episodes: int = EPISODES) -> str:
    """What an arm changes in its kind of model and the preset: `lipschitz=spectral lipschitz_bound=5 steps=30000`."""
    usual = default(arm.model, "pendulum", "quick")
    before = settings.fields(usual) | {"steps": 0, "episodes": EPISODES, "host": False, "extends": False}
    own = settings.fields(replace(usual, **arm.changes))
    also = {"steps": arm.steps, "episodes": episodes, "host": arm.host, "extends": arm.extends}
    return settings.differences(own | also, before)


def steps_of(env: str, preset: str, asked: int) -> int:
    """What `Arm.steps` is where a command asks for so many environment steps: 0 where the preset has as many.

    Raises:
        UserError: no such task or preset, or a number that is not exploration and whole periods.
    """
    own = default("sac", env, preset)
    if asked in (0, own.steps):
        return 0
    if asked <= own.explore or (asked - own.explore) % own.period:
        raise UserError(
            f"--steps={asked}: expected {own.explore} steps of exploration and a multiple of {own.period} beyond, such "
            f"as {2 * own.steps - own.explore}, or 0 for the preset's {own.steps}"
        )
    return asked


ARMS = (*(Arm(*both) for both in itertools.product(MODELS, MECHANISMS)), *(Arm(name) for name in MODEL_FREE))
# At the preset that is long enough to learn a task: with what keeps values from running away, and without.
LEARNERS = tuple(Arm(model, mechanism) for mechanism in (LAYER_NORM, "none") for model in (LEARNER, "sac-utd"))


def every(env: str, preset: str) -> tuple[Arm, ...]:
    """What a command trains that names no arms: all, and where it takes more steps to solve the task, who does."""
    longer = (Arm(LEARNER, steps=TWICE[env]),) if preset == "quick" and env in TWICE else ()
    return (*ARMS, *longer)


def chosen(models: str, mechanisms: str, **more: Any) -> tuple[Arm, ...]:
    """The arms that lists with commas between name, all for empty ones; `more` are further fields of them.

    Of mechanisms, model-free arms have layer normalisation alone.

    Raises:
        UserError: an unknown model or mechanism, or mechanisms that none of the models takes.
    """
    wanted = models.split(",") if models else [*MODELS, *MODEL_FREE]
    how = mechanisms.split(",") if mechanisms else [*MECHANISMS]
    for name in wanted:
        if name not in (*MODELS, *MODEL_FREE):
            raise unknown("arm", name, (*MODELS, *MODEL_FREE))
    for name in how:
        if name not in EVERY_MECHANISM:
            raise unknown("mechanism", name, EVERY_MECHANISM)
    if not set(wanted) & set(MODELS) and not set(how) & {"none", LAYER_NORM}:
        raise UserError(
            f"--mechanisms={mechanisms} is for arms with a model, and --models={models} has none; SAC takes none or "
            f"{LAYER_NORM}"
        )
    free = {name if name == LAYER_NORM else "none" for name in how}
    return tuple(
        Arm(model, name, **more)
        for model in (*MODELS, *MODEL_FREE)
        if model in wanted
        for name in EVERY_MECHANISM
        if name in (how if model in MODELS else free)
    )


def asked(
    env: str,
    preset: str,
    models: str = "",
    mechanisms: str = "",
    steps: int = 0,
    host: bool = False,
    extend: bool = False,
    head: HeadConfig = PLAIN,
) -> tuple[Arm, ...]:
    """What a command trains, by its options: where they name no arms, those of the preset.

    Raises:
        UserError: an unknown model or mechanism, a number of steps that `steps_of` refuses, or one that extends none; a
            head that cannot be, or whose support is not given.
    """
    heads.require_ends(head)
    own: dict[str, Any] = {"steps": steps_of(env, preset, steps), "host": host, "extends": extend, "head": head}
    usual = default("sac", env, preset).steps
    if extend and own["steps"] <= usual:
        raise UserError(f"--extend goes on to more than the preset's {usual} steps; give their number with --steps")
    if preset == LONG and not (models or mechanisms):
        return tuple(arm._replace(**own) for arm in LEARNERS)
    named = models or mechanisms or steps or host or head != PLAIN
    return chosen(models, mechanisms, **own) if named else every(env, preset)
