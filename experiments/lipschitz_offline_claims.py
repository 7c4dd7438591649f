"""An ensemble or one Lipschitz model, on recorded data: the arms of `ensemble_vs_lipschitz` under RAVL and MOPO.

Zheng et al. 2023 (arXiv 2302.01244) compare online; this is the same question where no new data come. The mechanisms
and their constants are the online arms', not tuned here. The runs are `experiments.offline_mbrl`'s at the quick presets
(`experiments.reproduce` makes them); those of the ensembles without a mechanism are rows of the suite, and were known
before these claims were written. Margins and families are fixed here, before the other runs. Deterministic models have
no noise, which is MOPO's penalty: with them it takes the greatest distance between two members' means in its place, and
a single model has none. What a mechanism does to an ensemble has families of its own, fixed when the single models of
the probabilistic kind were known; MOPO's deterministic arms were added when all others were.
"""

from __future__ import annotations

import functools
from typing import Any

from experiments.lipschitz_arms import MECHANISMS, SEEDS
from experiments.lipschitz_claims import DIFFERENCE, KINDS, MECHANICAL, compared
from jaxrl_suite.report.claims import Claim, Needed, above

EXPERIMENT, DATASET = "offline_mbrl", "hopper-medium-replay-mini"
SCORE = 5.0  # margin in points of a normalised score
SINGLE, DETERMINISTIC = "dynamics.members=1 dynamics.elites=1", "dynamics.deterministic=True"
DOUBT = "uncertainty=max_pairwise"
# What stands before and after the mechanism where summary.csv lists what the quick preset has changed.
SMALLER = {"ravl": ("updates=10000", "critics=4"), "mopo": ("", "")}
SOURCE = "ours; Zheng et al. 2023 (arXiv 2302.01244) ask it online"


def runs(algo: str, mechanism: str = "none", single: bool = True, kind: str = "probabilistic") -> Needed:
    """The runs of an algorithm with a kind of model and a mechanism, as claims name them."""
    changed = [f"{name}={value:g}" if name.endswith("bound") else f"{name}={value}" for name, value in _own(mechanism)]
    before, after = SMALLER[algo]
    parts = [before, *changed, after, SINGLE if single else ""]
    if kind == "deterministic":
        parts += [DETERMINISTIC, DOUBT if algo == "mopo" else ""]
    return Needed(algo, DATASET, " ".join(part for part in parts if part))


def _own(mechanism: str) -> list[tuple[str, Any]]:
    return list(MECHANISMS[mechanism].items())


def _under(algo: str, kind: str) -> tuple[Claim, ...]:
    model = "model" if kind == "probabilistic" else f"{kind} model"

    def pair(name: str, words: str, metric: str, ours: Needed, theirs: Needed, family: str = "", **more: Any) -> Claim:
        return Claim(
            id=f"offline-{algo}-{name}",
            statement=f"on {DATASET}, under {algo}, {words}",
            source=SOURCE,
            experiment=EXPERIMENT,
            family=f"{family or f'ensemble or Lipschitz {model}'} under {algo} on {DATASET}",
            needs=(ours, theirs),
            statistic=DIFFERENCE.format(metric, f"{ours.settings or 'preset'} minus {theirs.settings or 'preset'}"),
            evidence=above(metric, ours, theirs),
            seeds=SEEDS,
            **more,
        )

    single = {name: runs(algo, name, kind=kind) for name in MECHANISMS}
    several = {name: runs(algo, name, single=False, kind=kind) for name in MECHANISMS}
    compare = functools.partial(compared, metric="score_last", outcome="last score")
    upon = functools.partial(pair, metric="score_last", family=f"mechanisms on a {kind} ensemble")
    return (
        *compare(pair, kind, several["none"], single, SCORE),
        *(
            upon(
                f"{kind}-ensemble-{name}-helps",
                f"the {name} mechanism raises the last score of a {kind} ensemble, too",
                ours=several[name],
                theirs=several["none"],
            )
            for name in MECHANICAL
        ),
        upon(
            f"{kind}-ensemble-adversarial-beats-random",
            f"with a {kind} ensemble, adversarial noise gives a higher last score than random noise",
            ours=several["adversarial"],
            theirs=several["random"],
        ),
    )


CLAIMS = tuple(claim for algo in SMALLER for kind in KINDS for claim in _under(algo, kind))
