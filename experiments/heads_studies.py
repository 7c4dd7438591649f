"""The studies of value heads: which settings are trained for which figure, how they are named and grouped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from experiments import heads_maze, heads_online, heads_shifts, offline_mbrl
from jaxrl_suite.envs import procmaze
from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.report.claims import Needed
from jaxrl_suite.train import settings
from jaxrl_suite.values.heads import HeadConfig

EXPERIMENT = "value_heads"
MAZE, SHIFTS, MANY, ONLINE = "maze", "shifts", "many_shifts", "online"
MOVING = (SHIFTS, MANY)  # regression on targets that move
TUNING = offline_mbrl.PUBLISHED / EXPERIMENT / "tuning.csv"
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
ALL = ("mse", "mse_softmax", "two_hot", "c51", "hl_gauss", "quantile")
TUNED = {SHIFTS: ("mse", "mse_softmax", "two_hot", "hl_gauss"), MAZE: ALL, ONLINE: ALL}
FIRST, SEEDS = 4, 10  # reported: seeds 0 to 3 had been looked at while the maze was settled


@dataclass(frozen=True)
class Config:
    """What one run is made of, but for its head and problem."""

    updates: int = 3_000
    """Gradient updates; of the shifts, for each of the five."""
    batch: int = 64
    """Batch size."""
    hidden: tuple[int, ...] = (64, 64)
    """Hidden layers."""
    bins: int = 51
    """Bins of a head with a distribution."""
    ratio: float = 0.75
    """HL-Gauss's sigma in bins."""
    support: float = 1.0
    """Width of the support around the middle of the values, as a multiple of what fits."""
    target: str = "max"
    """max (Q-learning), sarsa, or labels: the optimal values themselves."""
    noise: float = 0.0
    """Width of the rewards' uniform noise."""
    centred: bool = True
    """Whether that noise has mean 0; otherwise it is above 0, as in the paper."""
    slip: float = 0.0
    """Probability that an action is replaced by a random one."""
    teleport: bool = True
    """Whether the maze teleports players to the goal now and then."""
    points: int = field(default=256, metadata={"later": True})
    """Points of a regression, all to be remembered."""
    tasks: int = field(default=1, metadata={"later": True})
    """Variants of the maze that one network learns; in each, actions make other moves."""
    conservative: float = field(default=0.0, metadata={"later": True})
    """Weight alpha of CQL's term; 0 for none."""
    longer: int = field(default=1, metadata={"later": True})
    """How many times as many updates."""
    experts: int = field(default=0, metadata={"later": True})
    """Experts of a soft mixture, which takes the place of the last hidden layer; 0 for none. Then `hidden` holds the
    channels of its tokens and the units of each expert."""
    rate: float = field(default=0.0, metadata={"later": True})
    """Adam's step size; 0 for the one that was tuned for the head."""

    @property
    def steps(self) -> int:
        """Gradient updates in all."""
        return self.updates * self.longer


PRESETS = {
    "smoke": {
        MAZE: Config(updates=20, batch=16, hidden=(16, 16)),
        SHIFTS: Config(updates=5, batch=16, hidden=(16,)),
        MANY: Config(updates=5, batch=16, hidden=(16,), points=512),
        ONLINE: Config(updates=20, batch=16, hidden=(16, 16)),
    },
    "quick": {
        MAZE: Config(),
        SHIFTS: Config(updates=500, hidden=(128, 128), bins=101),
        MANY: Config(updates=2_000, hidden=(128, 128), bins=101, points=2_048),
        ONLINE: Config(updates=10_000),
    },
    "paper": {
        MAZE: Config(updates=50_000, batch=256, hidden=(256, 256)),
        SHIFTS: Config(updates=5_000, batch=512, hidden=(512, 512), bins=101),
        MANY: Config(updates=5_000, batch=512, hidden=(512, 512), bins=101, points=50_000),
        ONLINE: Config(updates=100_000, batch=256, hidden=(256, 256)),
    },
}
# The values of the maze are in [-10, 0]; noise of width 3 around zero makes returns of -25 to 5.
MIDDLE, HALF, NOISY = -5.0, 6.0, 3.0


class Arm(NamedTuple):
    """A head on a problem with fields of its Config changed."""

    head: str
    changes: tuple[tuple[str, object], ...] = ()
    problem: str = MAZE

    def config(self, preset: str, updates: int = 0) -> Config:
        """Its Config.

        Raises:
            UserError: no such preset.
        """
        if preset not in PRESETS:
            raise unknown("preset", preset, PRESETS)
        config = replace(PRESETS[preset][self.problem], **dict(self.changes))  # type: ignore[arg-type]
        return replace(config, updates=updates) if updates else config

    @property
    def settings(self) -> str:
        """What it changes, as a summary says it."""
        before = settings.fields(Config())
        return settings.differences(before | dict(self.changes), before)

    @property
    def needed(self) -> Needed:
        """Its runs, as claims name them."""
        return Needed(self.head, self.problem, self.settings)


class Study(NamedTuple):
    """Settings that one figure shows."""

    name: str
    words: str
    arms: tuple[Arm, ...]
    seeds: int = SEEDS


def arm(head: str, problem: str = MAZE, /, **changes: object) -> Arm:
    """An arm by keywords."""
    return Arm(head, tuple(changes.items()), problem)


GIVEN = (1e-3, 3e-3)  # rates of the larger regression: the paper's, and what squared error would choose
BINS, WIDTHS = (21, 51, 101), (0.25, 0.5, 0.75, 1.0, 2.0)
FINER, WIDER = (*BINS, 201), (*WIDTHS, 4.0, 8.0)  # claims average over the first, which so stay as they are
FACTORS = (0.5, 1.0, 2.0, 5.0, 10.0)
# Around zero, and above it: there a width of 2 makes a step worth 0, and more makes the goal a place to avoid, for
# which neither score nor true values are those of the best policy. Rows with 3 above zero were published before that.
NOISES = {True: (0.0, 1.0, 3.0), False: (0.0, 1.0, 1.5)}
DEPTHS, UNITS = (1, 2, 4, 6), (16, 64, 128)
RIVALS = ("mse", "two_hot", "hl_gauss")
ALPHAS = (0.1, 0.3, 1.0)  # of CQL's term: the paper's
HELD = (*RIVALS, "c51", "mse_softmax")  # heads with that term
LONGER = 10
EXPERTS, EXPERT = (1, 2, 4, 8), (16, 32)  # the paper's numbers of them; channels of a token, units of an expert
TASKS, SIZES = 8, ((2, 16), (2, 64), (2, 128), (4, 64), (6, 64))  # layers and units


def of_bins(head: str, bins: int, ratio: float = 0.75) -> Arm:
    """An arm of the map of bins and ratios."""
    changes: dict[str, object] = {} if bins == Config.bins else {"bins": bins}
    return arm(head, **(changes if ratio == Config.ratio else changes | {"ratio": ratio}))


def widths(bins: int) -> tuple[float, ...]:
    """The ratios of so many bins: those whose Gaussian, three sigma and a bin to either side, leaves a bin between."""
    return tuple(ratio for ratio in WIDER if 2 * (3 * ratio + 1) < bins)


def of_support(head: str, factor: float) -> Arm:
    """An arm with a support of another width."""
    return arm(head, **({} if factor == 1.0 else {"support": factor}))


def of_noise(head: str, noise: float, centred: bool) -> Arm:
    """An arm with noisy rewards, on a support that holds what the loudest noise does, whatever its own is."""
    changes: dict[str, object] = {"support": NOISY}
    changes |= {"noise": noise} if noise else {}
    return arm(head, **(changes if centred or not noise else changes | {"centred": False}))


def of_size(head: str, layers: int, units: int, **more: object) -> Arm:
    """An arm with another network, and what more it changes."""
    hidden = (units,) * layers
    return arm(head, **more, **({} if hidden == Config.hidden else {"hidden": hidden}))


def of_tasks(head: str, layers: int, units: int) -> Arm:
    """An arm with another network, for many variants."""
    return of_size(head, layers, units, tasks=TASKS)


def of_experts(head: str, experts: int) -> Arm:
    """An arm with a soft mixture of experts."""
    return arm(head, experts=experts, hidden=EXPERT)


def calm(head: str) -> Arm:
    """Transitions without any chance."""
    return arm(head, teleport=False)


def slippery(head: str) -> Arm:
    """Every fourth action is a random one."""
    return arm(head, slip=0.25)


def _each_once(studies: Sequence[Study]) -> dict[str, Study]:
    """Studies by name, without the arms that an earlier one has: a setting is trained, and published, once."""
    known: set[Arm] = set()
    found = {}
    for study in studies:
        new = tuple(dict.fromkeys(one for one in study.arms if one not in known))
        known |= set(new)
        found[study.name] = study._replace(arms=new)
    return found


STUDIES = _each_once(
    (
        Study("plasticity", "targets that move", tuple(arm(head, SHIFTS) for head in TUNED[SHIFTS])),
        Study(
            "memory",
            "targets that move, of more points, at rates that are the same for all heads",
            tuple(arm(head, MANY, rate=rate) for rate in GIVEN for head in TUNED[SHIFTS]),
        ),
        Study("heads", "all heads as they are, and probes of their features", tuple(map(arm, TUNED[MAZE]))),
        Study(
            "long",
            f"all heads with {LONGER} times the updates",
            tuple(arm(head, longer=LONGER) for head in TUNED[MAZE]),
        ),
        Study("targets", "SARSA in place of Q-learning", tuple(arm(head, target="sarsa") for head in RIVALS)),
        Study(
            "one_sided",
            "HL-Gauss, and a public implementation's one-sided Gaussian",
            (arm("one_sided"), arm("one_sided", target="sarsa")),
        ),
        Study(
            "bins",
            "bins and the width of HL-Gauss's Gaussian",
            (
                *(of_bins("hl_gauss", bins, ratio) for bins in BINS for ratio in WIDTHS),
                *(of_bins("two_hot", bins) for bins in BINS),
            ),
        ),
        Study(
            "resolution",
            "more bins and wider Gaussians",
            (
                *(of_bins("hl_gauss", bins, ratio) for bins in FINER for ratio in widths(bins)),
                *(of_bins("two_hot", bins) for bins in FINER),
            ),
        ),
        Study(
            "support",
            "supports too narrow and too wide",
            tuple(of_support(head, factor) for head in ("hl_gauss", "two_hot") for factor in FACTORS),
        ),
        Study(
            "noise",
            "noisy rewards, around zero and above it",
            tuple(of_noise(head, noise, side) for head in RIVALS for side in NOISES for noise in NOISES[side]),
        ),
        Study(
            "transitions",
            "deterministic and slippery mazes",
            tuple(make(head) for head in ("mse", "c51", "hl_gauss") for make in (calm, slippery)),
        ),
        Study(
            "scaling",
            "depth and width of the network",
            tuple(
                of_size(head, *size)
                for head in ("mse", "hl_gauss")
                for size in (*((n, 64) for n in DEPTHS), *((2, n) for n in UNITS))
            ),
        ),
        Study(
            "experts",
            "a soft mixture of experts in the network, by their number",
            tuple(of_experts(head, number) for head in ("mse", "hl_gauss") for number in EXPERTS),
        ),
        Study(
            "tasks",
            f"one network for {TASKS} variants of the maze, by its size",
            tuple(of_tasks(head, *size) for head in ("mse", "hl_gauss") for size in SIZES),
        ),
        Study(
            "labels",
            "optimal values given as labels, as a search gives them",
            tuple(arm(head, target="labels") for head in TUNED[SHIFTS]),
        ),
        Study(
            "conservative",
            "CQL's term, by its weight",
            tuple(arm(head, conservative=alpha) for head in HELD for alpha in ALPHAS),
        ),
        Study("online", "DQN, whose data are its own", tuple(arm(head, ONLINE) for head in ALL)),
    )
)


# --- Programs ---
def program(one: Arm, config: Config) -> heads_maze.Program | heads_shifts.Program | heads_online.Program:
    """What decides the compiled program. The faulty head is HL-Gauss but for its loss."""
    head = HeadConfig(one.head, config.bins, config.ratio)
    if one.problem == ONLINE:
        low, high = ends(config)
        head = replace(head, support=f"{low:g},{high:g}")
        return heads_online.Program(head, config.hidden, config.steps, config.batch)
    if one.problem in MOVING:
        return heads_shifts.Program(head, config.hidden, config.steps, config.batch, config.points)
    shape = (config.hidden, config.target, config.steps, config.batch, config.tasks)
    return heads_maze.Program(head, *shape, config.conservative > 0, config.experts)


def ends(config: Config) -> tuple[float, float]:
    """The ends of the support."""
    half = HALF * config.support
    return MIDDLE - half, MIDDLE + half


def numbers(config: Config, rate: float) -> heads_maze.Numbers:
    """What members of a program differ in."""
    teleport = procmaze.teleport(heads_maze.SIZE) if config.teleport else 0.0
    chance = (config.noise, float(config.centred), config.slip, teleport)
    return heads_maze.Numbers(rate, *ends(config), *chance, config.conservative)


def multiple(studies: Sequence[Study]) -> int:
    """What the updates of these studies' runs must be a multiple of."""
    online = any(one.problem == ONLINE for study in studies for one in study.arms)
    return heads_online.MULTIPLE if online else heads_maze.EVALUATIONS


def groups(arms: Sequence[Arm], preset: str, updates: int = 0) -> list[list[Arm]]:
    """The arms by the program that trains them."""
    found: dict[object, list[Arm]] = {}
    for one in arms:
        found.setdefault(program(one, one.config(preset, updates)), []).append(one)
    return list(found.values())


def rates(path: Path = TUNING) -> dict[tuple[str, str], float]:
    """The rate of Adam by problem and head: the best of the tuning's table, of those at which no seed diverged.

    Raises:
        UserError: there is no table, or it lacks a head.
    """
    if not path.exists():
        raise UserError(f"there is no {path}; make it with python -m experiments.value_heads --tune --publish")
    best: dict[tuple[str, str], float] = {}
    for (problem, head), scores in pd.read_csv(path).groupby(["problem", "head"]):
        means = scores.groupby("rate")["score"].agg(lambda of_seeds: of_seeds.mean(skipna=False)).dropna()
        if len(means):
            best[str(problem), str(head)] = float(means.idxmax())  # type: ignore[arg-type]
    lacking = sorted({(problem, head) for problem in TUNED for head in TUNED[problem]} - set(best))
    if lacking:
        command = "python -m experiments.value_heads --tune --publish"
        raise UserError(f"{path} lacks {lacking[0]}; make it anew with {command}")
    return best | {(MAZE, "one_sided"): best[MAZE, "hl_gauss"]}
