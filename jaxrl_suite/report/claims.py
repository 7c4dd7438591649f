"""Claims: a sentence, the runs behind it, and the rule that turns an interval into a verdict.

A verdict is *supported*, *not supported* or *inconclusive*. The rule of a claim follows from its kind and margin, which
are fixed in code before the runs are made. Claims of one family are corrected together (Holm 1979): a claim is only
supported if its adjusted p-value is below 0.05 too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import stats as scipy_stats

from jaxrl_suite.errors import UserError
from jaxrl_suite.report.comparison import line_of, settings_of
from jaxrl_suite.report.multiplicity import holm
from jaxrl_suite.report.stats import LEVEL, NAN, Interval, mean_interval, p_value

Rows = Sequence[Mapping[str, Any]]
REPORTED = 100  # seeds below are reported, those from 1000 on are for tuning
ALPHA = 1.0 - LEVEL
SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = "supported", "not supported", "inconclusive"


class Evidence(NamedTuple):
    """What the runs say about a claim."""

    differences: np.ndarray  # [n] one per seed
    seeds: tuple[int, ...]
    rivals: int = 1
    """Of how many comparisons this is the least favourable one."""


class Needed(NamedTuple):
    """Runs that a claim needs, at the preset and seeds that are asked for."""

    algo: str
    dataset: str
    settings: str = ""  # what is changed in the preset, as a summary says it: `diversity=0`


@dataclass(frozen=True)
class Claim:
    """One sentence that runs can support or not."""

    id: str
    statement: str
    source: str
    """Paper with figure or table; says so where the comparison is our own."""
    experiment: str
    family: str
    """Claims of the same family are corrected together."""
    needs: tuple[Needed, ...]
    statistic: str
    """What is estimated, in words."""
    evidence: Callable[[Rows], Evidence]
    kind: str = "superiority"
    """superiority, non-inferiority or equivalence."""
    margin: float = 0.0
    """Of non-inferiority and equivalence, in the units of the statistic."""
    command: str = ""
    """What makes its runs; empty for experiments.reproduce."""
    seeds: int = 8
    """How many seeds its verdict rests on, from 0 on: what reproduces it."""
    preset: str = ""
    """The only preset whose runs it is about; empty for one that can be asked at any."""

    def __post_init__(self) -> None:
        if self.kind not in RULES:
            raise ValueError(f"{self.id}: a claim's kind is one of {', '.join(RULES)}, not {self.kind!r}")
        if (self.kind == "superiority") != (self.margin == 0.0) or self.margin < 0.0:
            raise ValueError(f"{self.id}: {self.kind} with a margin of {self.margin}")


class Rule(NamedTuple):
    """A kind of claim: when an interval supports it, when it speaks against it, and the p-value of its test."""

    supports: Callable[[Interval, float], bool]
    refutes: Callable[[Interval, float], bool]
    p_value: Callable[[np.ndarray, float], float]
    words: str


def _one_sided(x: np.ndarray, null: float) -> float:
    """Student's t-test that the mean of `x` [n] is at most `null`. Fewer than two values give NaN."""
    if len(x) < 2:
        return NAN
    if np.ptp(x) == 0.0:  # all values are the same
        return 0.0 if x[0] > null else 1.0
    return float(scipy_stats.ttest_1samp(x, null, alternative="greater").pvalue)


# Superiority is tested on both sides, so that its p-value says the same as its 95% interval. The tests with a margin
# are one-sided; asking the 95% interval too makes them stricter than the usual 5%.
RULES = {
    "superiority": Rule(
        lambda i, m: i.low > 0.0,
        lambda i, m: i.high < 0.0,
        lambda x, m: p_value(x),
        "supported if the 95% interval is above 0, not supported if below",
    ),
    "non-inferiority": Rule(
        lambda i, m: i.low > -m,
        lambda i, m: i.high < -m,
        lambda x, m: _one_sided(x, -m),
        "supported if the 95% interval is above -{margin:g}, not supported if below",
    ),
    "equivalence": Rule(
        lambda i, m: -m < i.low and i.high < m,
        lambda i, m: i.high < -m or i.low > m,
        lambda x, m: max(_one_sided(x, -m), _one_sided(-x, -m)) if len(x) > 1 else NAN,
        "supported if the 95% interval is within ±{margin:g}, not supported if outside",
    ),
}


class Finding(NamedTuple):
    """A claim with what was found."""

    claim: Claim
    interval: Interval
    adjusted_p: float  # Holm's, within the family
    seeds: tuple[int, ...]
    verdict: str
    rivals: int = 1  # of its evidence


def rule(claim: Claim, rivals: int = 1) -> str:
    """The rule of a claim in words, with so many rivals in its evidence."""
    words = RULES[claim.kind].words.format(margin=claim.margin)
    if rivals > 1:
        words += f" at {1.0 - ALPHA / rivals:.1%} (Bonferroni for {rivals} rivals)"
    return f"{words}; Holm-adjusted p < {ALPHA:.2f} in family {claim.family}"


def verdict(kind: str, margin: float, interval: Interval, adjusted_p: float, against: Interval | None = None) -> str:
    """What an interval says; a wider one may stand for it, `against`, in speaking against. Without bounds, nothing."""
    if not interval.bounded:
        return INCONCLUSIVE
    if RULES[kind].refutes(interval if against is None else against, margin):
        return NOT_SUPPORTED
    return SUPPORTED if RULES[kind].supports(interval, margin) and adjusted_p < ALPHA else INCONCLUSIVE


def judge(claims: Sequence[Claim], rows: Rows, beside: Sequence[Claim] = (), known: Rows = ()) -> list[Finding]:
    """Findings on `claims` from summary rows of one preset. A family counts in whole, also where runs are missing.

    Args:
        claims: what is asked.
        rows: of their runs.
        beside: the other claims of their families, which only count in the correction.
        known: the rows of those.

    Raises:
        UserError: rows of tuning seeds.
    """
    tuning = sorted({int(row["seed"]) for row in rows if int(row["seed"]) >= REPORTED})
    if tuning:
        raise UserError(f"rows of seeds {tuning} cannot support a claim: reported seeds are 0 to {REPORTED - 1}")
    every = [*((claim, rows) for claim in claims), *((claim, known) for claim in beside)]
    found = [claim.evidence(_about(claim, its)) for claim, its in every]
    p_values = [RULES[c.kind].p_value(e.differences, c.margin) for (c, _), e in zip(every, found, strict=True)]
    adjusted = np.full(len(every), NAN)
    for family in {claim.family for claim in claims}:
        members = [index for index, (claim, _) in enumerate(every) if claim.family == family]
        adjusted[members] = holm([p_values[index] for index in members])
    findings = []
    for claim, evidence, p in zip(claims, found, adjusted, strict=False):  # without those beside
        interval = mean_interval(evidence.differences)
        # Bonferroni: out of many rivals that are no better, the worst comparison is often below 0 by chance.
        against = mean_interval(evidence.differences, 1.0 - ALPHA / evidence.rivals)
        said = verdict(claim.kind, claim.margin, interval, float(p), against)
        findings.append(Finding(claim, interval, float(p), evidence.seeds, said, evidence.rivals))
    return findings


def _about(claim: Claim, rows: Rows) -> Rows:
    """The rows of the presets that a claim speaks of."""
    return [row for row in rows if row["preset"] == claim.preset] if claim.preset else rows


# --- Evidence ---
def above(metric: str, ours: Needed, theirs: Needed, least: float = 0.0) -> Callable[[Rows], Evidence]:
    """Differences of a metric between two algorithms, less `least`, paired by seed; a diverged run is left out with its
    partner."""

    def evidence(rows: Rows) -> Evidence:
        found = _paired(_by_seed(rows, ours, metric), _by_seed(rows, theirs, metric))
        return found._replace(differences=found.differences - least)

    return evidence


def above_column(metric: str, ours: Needed, column: str, least: float = 0.0) -> Callable[[Rows], Evidence]:
    """Differences between a metric and another column of the same row, such as the behaviour's return, less `least`."""

    def evidence(rows: Rows) -> Evidence:
        found = _paired(_by_seed(rows, ours, metric), _by_seed(rows, ours, column))
        return found._replace(differences=found.differences - least)

    return evidence


def level(metric: str, ours: Needed, least: float = 0.0) -> Callable[[Rows], Evidence]:
    """A metric less a number, one value per seed: what is claimed is that it is above."""

    def evidence(rows: Rows) -> Evidence:
        values = _by_seed(rows, ours, metric)
        return Evidence(np.array([values[seed] - least for seed in sorted(values)]), tuple(sorted(values)))

    return evidence


def above_each(
    metric: str, ours: Sequence[Needed], rivals: Mapping[str, Sequence[Needed]]
) -> Callable[[Rows], Evidence]:
    """Differences of a metric to the hardest rival, on several tasks; a seed counts where it finished all of them.

    `ours` and each rival are the same algorithm on every task, in the same order; a difference is a mean over tasks.
    The hardest rival is the one with the largest p-value of the one-sided test against 0: where that is small, so are
    all the others (an intersection-union test, which needs no correction for the number of rivals, and has a p-value
    that can be corrected with those of other claims). That one of them is above ours does need it: see `judge`. Without
    its rows nothing is found.
    """

    def evidence(rows: Rows) -> Evidence:
        mine = _over_tasks(rows, ours, metric)
        found = [_paired(mine, _over_tasks(rows, theirs, metric)) for theirs in rivals.values()]
        lacking = [one for one in found if len(one.differences) < 2]
        hardest = lacking[0] if lacking else max(found, key=lambda one: _one_sided(one.differences, 0.0))
        return hardest._replace(rivals=len(found))

    return evidence


def above_mean(
    metric: str, ours: Sequence[Sequence[Needed]], theirs: Sequence[Sequence[Needed]]
) -> Callable[[Rows], Evidence]:
    """Differences between the means of two groups of algorithms, each given as its runs on the same tasks, per seed."""

    def mean(rows: Rows, group: Sequence[Sequence[Needed]]) -> dict[int, float]:
        return _mean_by_seed([_over_tasks(rows, needed, metric) for needed in group])

    return lambda rows: _paired(mean(rows, ours), mean(rows, theirs))


def _over_tasks(rows: Rows, needed: Sequence[Needed], metric: str) -> dict[int, float]:
    """The mean of a metric over tasks by seed, of the seeds that finished them all."""
    return _mean_by_seed([_by_seed(rows, one, metric) for one in needed])


def _mean_by_seed(columns: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """The mean over columns of the seeds that all of them have."""
    common = set.intersection(*(set(column) for column in columns))
    return {seed: float(np.mean([column[seed] for column in columns])) for seed in sorted(common)}


def _paired(a: Mapping[int, float], b: Mapping[int, float]) -> Evidence:
    seeds = tuple(sorted(set(a) & set(b)))
    return Evidence(np.array([a[seed] - b[seed] for seed in seeds]), seeds)


def _by_seed(rows: Rows, needed: Needed, column: str) -> dict[int, float]:
    """A column of the finished runs by seed.

    Raises:
        UserError: two runs of one seed, of which nobody can say which one counts.
    """
    values: dict[int, float] = {}
    for row in rows:
        if (row["algo"], row["dataset"], settings_of(row), row["status"]) != (*needed, "finished"):
            continue
        seed, value = int(row["seed"]), float(row[column])
        if seed in values:
            raise UserError(
                f"two rows of {line_of(row)} on {needed.dataset} with seed {seed}; keep those of one configuration"
            )
        if math.isfinite(value):
            values[seed] = value
    return values
