"""The claims about layer normalisation in the critics of offline algorithms: the box, where it leaves the edge of reach
nothing to spoil, says nothing about recorded data.

Those on hopper and on all data sets were fixed before the runs (the rows without it were known); those on the other two
alone were not, and say so.
"""

from __future__ import annotations

from collections.abc import Callable

from experiments.needs import REPLAYS, needed
from experiments.offline_mbrl import EXPERIMENT
from jaxrl_suite.report.claims import Claim, Evidence, Needed, Rows, above, above_mean

SEEDS = 5
# An algorithm -> what the suite's quick runs change in its preset.
ALGOS: dict[str, dict[str, object]] = {"sac_n": {}, "edac": {}, "mopo": {}, "ravl": {"updates": 10_000, "critics": 4}}


def arms(algo: str, dataset: str) -> tuple[Needed, Needed]:
    """The runs of an algorithm with layer normalisation and without."""
    plain = ALGOS[algo]
    return needed(algo, dataset, {**plain, "layer_norm": True}), needed(algo, dataset, plain)


def _claim(
    algo: str,
    name: str,
    where: str,
    needs: tuple[Needed, ...],
    words: str,
    evidence: Callable[[Rows], Evidence],
    note: str = "",
) -> Claim:
    return Claim(
        id=f"layer-norm-helps-{algo}{name}",
        statement=f"on {where}, {algo} scores above itself when its critics have layer normalisation",
        source=f"ours: what the box shows (--only=networks of experiments.edge_of_reach), asked of recorded data{note}",
        experiment=EXPERIMENT,
        family=f"layer normalisation offline on {where}",
        needs=needs,
        statistic=f"mean paired difference over seeds of {words}, with minus without, 95% t-interval",
        evidence=evidence,
        seeds=SEEDS,
    )


def _on(dataset: str, name: str = "", note: str = "") -> tuple[Claim, ...]:
    pairs = {algo: arms(algo, dataset) for algo in ALGOS}
    return tuple(
        _claim(algo, name, dataset, pair, "last normalised scores", above("score_last", *pair), note)
        for algo, pair in pairs.items()
    )


def _everywhere() -> tuple[Claim, ...]:
    where = f"{len(REPLAYS)} data sets ({', '.join(REPLAYS)})"
    found = []
    for algo in ALGOS:
        normed, plain = zip(*(arms(algo, dataset) for dataset in REPLAYS), strict=True)
        words, evidence = "the last normalised score's mean over data sets", above_mean("score_last", [normed], [plain])
        found.append(_claim(algo, "-everywhere", where, (*normed, *plain), words, evidence))
    return tuple(found)


AFTER = "; written after the rows"
CLAIMS = (
    *_on(REPLAYS[0]),
    *_everywhere(),
    *(claim for dataset in REPLAYS[1:] for claim in _on(dataset, f"-{dataset.split('-')[0]}", AFTER)),
)
