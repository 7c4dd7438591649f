"""The claims about value heads in the offline algorithms, on the bundled replay data and at the quick presets.

Only the head differs within a pair; step sizes are those of squared error, so that a head that wants others (the paper
gives its classifiers four times the step size) may do worse here than it could: where results/offline_mbrl/
heads-tuning.csv has step sizes of an algorithm, chosen on tuning seeds with the same budget for both heads
(experiments/heads_tuning.py), a second claim compares the two heads with the best of each. Margins and families are
fixed here, before the runs that are reported; rows of squared error were known before, and all of hopper's when the
claims about three data sets were written. The runs with `one_sided` are made by experiments/heads_fault.py alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.curves import CURVE
from experiments.needs import REPLAYS, needed
from experiments.offline_mbrl import EXPERIMENT, PUBLISHED
from jaxrl_suite.report.claims import Claim, Evidence, Needed, Rows, above, above_column, above_mean, level

DATASET = REPLAYS[0]
SEEDS, SCORE = 5, 5.0  # SCORE: margin in points of a normalised score
# What the quick preset is made smaller by.
SMALLER: dict[str, dict[str, Any]] = {
    "iql": {},
    "rebrac": {},
    "ravl": {"updates": 10_000, "critics": 4},
    "cql": {},
    "sac_n": {},
    "edac": {},
}
TUNED = ("iql", "rebrac")  # the cheap ones, by default: others cost five times as much
FIRST, RATES = (3e-4, 1e-3, 3e-3), (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # of the critics: what was tried first, and in all
OF_FIRST = (*TUNED, "edac")  # what has claims on the best of the first
TUNING = PUBLISHED / EXPERIMENT / "heads-tuning.csv"
PAPER = "Farebrother et al. 2024 (arXiv 2403.03950), figure 4"
OFFLINE = "Tarasov et al. 2024 (arXiv 2406.06309); analogue of ours"
SOURCES = {
    "iql": OFFLINE,
    "rebrac": OFFLINE,
    "sac_n": f"ours; {OFFLINE} has an ensemble of another kind",
    "cql": f"{PAPER}, where CQL learns Atari from a tenth of its replay; analogue of ours",
}
ENSEMBLES = {"ravl": "heads of RAVL", "sac_n": "heads of SAC-N", "edac": "heads of EDAC"}  # -> family
RIVALS = ("mse_softmax", "two_hot", "c51")  # in these; HL-Gauss's loss to squared error there was known before
FAULT_COMMAND = "python -m experiments.heads_fault"
LAST = "mean paired difference of last normalised scores over seeds, {}, 95% t-interval"


def runs(algo: str, head: str = "mse", start: str = "", dataset: str = DATASET, rate: float = 0.0) -> Needed:
    """The runs of an algorithm with a head, as claims name them.

    Args:
        algo: its name.
        head: of its critics.
        start: value that critics with bins begin at; the middle of their support without one.
        dataset: its name.
        rate: step size of the critics; 0 for the preset's.
    """
    changes = {"head": head, **({"initial_value": start} if start else {}), **({"critic_lr": rate} if rate else {})}
    return needed(algo, dataset, {**SMALLER[algo], **changes})


def rates(path: Path = TUNING, among: Sequence[float] = RATES) -> dict[tuple[str, str], float]:
    """The critics' step size by algorithm and head: the best in the tuning's table.

    Args:
        path: of the table; without one there is nothing.
        among: the step sizes to choose from; heads that were not tried at all of them are left out, and so are step
            sizes at which a seed diverged.
    """
    if not path.exists():
        return {}
    tried: dict[tuple[str, str], dict[float, pd.DataFrame]] = {}
    for (algo, head, rate), rows in pd.read_csv(path).groupby(["algo", "head", "critic_lr"]):
        tried.setdefault((str(algo), str(head)), {})[float(rate)] = rows  # type: ignore[arg-type]
    found = {}
    for pair, of in tried.items():
        scores = {r: float(of[r]["score_last"].mean()) for r in among if r in of and not _diverged(of[r])}
        if set(among) <= set(of) and scores:
            found[pair] = max(scores, key=scores.__getitem__)
    return found


def _diverged(rows: pd.DataFrame) -> bool:
    """Whether a run did, so that its score is that of a policy from before; tables of old do not say."""
    return "status" in rows and bool((rows["status"] == "diverged").any())


def _claim(name: str, words: str, ours: Needed, theirs: Needed, heads: str, family: str, **more: object) -> Claim:
    where = ours.dataset
    given = {"statistic": LAST.format(heads), "evidence": above("score_last", ours, theirs), **more}
    return Claim(
        id=name,
        statement=f"on {where}, {words}",
        experiment=EXPERIMENT,
        family=f"{family} on {where}",
        needs=(ours, theirs),
        seeds=SEEDS,
        **given,  # type: ignore[arg-type]
    )


def _source(algo: str) -> str:
    return SOURCES.get(algo, "ours: no paper tells of this pair")


def _swapped(dataset: str) -> tuple[Claim, ...]:
    """HL-Gauss in place of squared error, in each algorithm."""
    suffix = "" if dataset == DATASET else f"-{dataset.split('-')[0]}"
    return tuple(
        _claim(
            f"offline-hl-gauss-beats-mse-{algo}{suffix}",
            f"{algo} scores above itself with squared error when its critics have HL-Gauss heads",
            runs(algo, "hl_gauss", dataset=dataset),
            runs(algo, dataset=dataset),
            "hl_gauss minus mse",
            "value heads offline",
            source=_source(algo),
        )
        for algo in SMALLER
    )


def _over_all(algo: str, name: str, words: str, family: str, source: str, chosen: Mapping[str, float]) -> Claim:
    """HL-Gauss in place of squared error in an algorithm, on average over all data sets, at the step sizes `chosen` by
    head (without one, the preset's)."""
    gauss, mse = (
        tuple(runs(algo, head, dataset=dataset, rate=chosen.get(head, 0.0)) for dataset in REPLAYS)
        for head in ("hl_gauss", "mse")
    )
    return Claim(
        id=f"offline-{name}hl-gauss-beats-mse-{algo}-everywhere",
        statement=f"on {len(REPLAYS)} data sets ({', '.join(REPLAYS)}), {algo} scores above itself with squared error "
        f"on average when its critics have HL-Gauss heads{words}",
        source=source,
        experiment=EXPERIMENT,
        family=f"{family} on {len(REPLAYS)} data sets",
        needs=(*gauss, *mse),
        statistic="mean paired difference over seeds of the last normalised score's mean over data sets, hl_gauss "
        "minus mse, 95% t-interval",
        evidence=above_mean("score_last", [gauss], [mse]),
        seeds=SEEDS,
        preset="quick" if chosen else "",
    )


def _together() -> tuple[Claim, ...]:
    """The same over all data sets."""
    return tuple(_over_all(algo, "", "", "value heads offline", _source(algo), {}) for algo in SMALLER)


def _tuned() -> tuple[Claim, ...]:
    """Both heads with the best step size of their own, which is the quick preset's; only where a table has them.

    Those of `TUNED` came first and are a family of their own, which the others do not correct. Then more step sizes
    were tried, because all choices lay at the ends.
    """
    few = {
        algo: f"value heads offline, step sizes {'' if algo in TUNED else 'of costlier algorithms '}tuned,"
        for algo in OF_FIRST
    }
    more = dict.fromkeys(SMALLER, "value heads offline, more step sizes tuned,")
    known = "; written when the verdict on three step sizes was known"
    return (*_chosen("tuned", FIRST, few), *_chosen("widely-tuned", RATES, more, known))


def _chosen(name: str, among: Sequence[float], families: Mapping[str, str], note: str = "") -> tuple[Claim, ...]:
    """The claims on algorithms, each in its family, with the best of some step sizes; with a note where the best of the
    first ones had been claimed about."""
    found = rates(among=among)
    best = {(algo, head): runs(algo, head, rate=rate) for (algo, head), rate in found.items()}
    return tuple(
        _claim(
            f"offline-{name}-hl-gauss-beats-mse-{algo}",
            f"{algo} scores above itself with squared error when its critics have HL-Gauss heads, and each head has "
            f"the best of {len(among)} step sizes",
            best[algo, "hl_gauss"],
            best[algo, "mse"],
            "hl_gauss minus mse",
            family,
            source=_source(algo) + (note if algo in OF_FIRST else ""),
            preset="quick",
        )
        for algo, family in families.items()
        if {(algo, "hl_gauss"), (algo, "mse")} <= set(best)
    )


def _transferred(algo: str) -> tuple[Claim, ...]:
    """Both heads with the step sizes that were chosen on the first data set, on all of them."""
    chosen = {head: rate for (name, head), rate in rates().items() if name == algo}
    if not {"hl_gauss", "mse"} <= set(chosen):
        return ()
    words = f", and each head has the best of {len(RATES)} step sizes on {DATASET}"
    family = f"value heads offline, step sizes of {DATASET},"
    source = f"{_source(algo)}; written when the rows of {DATASET} were known"
    return (_over_all(algo, "widely-tuned-", words, family, source, chosen),)


def late_gain(needs: Sequence[Needed]) -> Callable[[Rows], Evidence]:
    """What the score gains from half of the updates to the end, by seed, as a mean over tasks."""

    def gain(row: Mapping[str, Any]) -> float:
        curve = row[CURVE]
        half = next(at for at in curve if at["update"] >= curve[-1]["update"] / 2)
        return curve[-1]["score"] - half["score"]

    def evidence(rows: Rows) -> Evidence:
        known = [{**row, "late_gain": gain(row)} for row in rows if CURVE in row]
        found = [level("late_gain", need)(known) for need in needs]
        gains = [dict(zip(one.seeds, one.differences, strict=True)) for one in found]
        seeds = sorted(set.intersection(*map(set, gains)))
        return Evidence(np.array([np.mean([of_task[seed] for of_task in gains]) for seed in seeds]), tuple(seeds))

    return evidence


def _degrading() -> tuple[Claim, ...]:
    """Whether more gradient steps cost CQL score, with squared error and with HL-Gauss."""
    where = f"on {len(REPLAYS)} data sets ({', '.join(REPLAYS)}), cql with"
    shared: dict[str, Any] = {
        "source": f"{PAPER}; analogue of ours",
        "experiment": EXPERIMENT,
        "family": "more gradient steps in CQL",
        "seeds": SEEDS,
    }
    words = "mean over seeds of the score's gain from half of the updates to the end, itself a mean over data sets"
    mse, gauss = (tuple(runs("cql", head, dataset=dataset) for dataset in REPLAYS) for head in ("mse", "hl_gauss"))
    return (
        Claim(
            id="offline-mse-degrades-cql",
            statement=f"{where} squared error loses score in the second half of its updates",
            needs=mse,
            statistic=f"{words}, with its sign changed, 95% t-interval",
            evidence=negated(late_gain(mse)),
            **shared,
        ),
        Claim(
            id="offline-hl-gauss-does-not-degrade-cql",
            statement=f"{where} HL-Gauss loses less than {SCORE:g} points in the second half of its updates",
            needs=gauss,
            statistic=f"{words}, 95% t-interval",
            evidence=late_gain(gauss),
            kind="non-inferiority",
            margin=SCORE,
            **shared,
        ),
    )


def negated(found: Callable[[Rows], Evidence]) -> Callable[[Rows], Evidence]:
    """Evidence with its sign changed: what is claimed to be lost."""

    def evidence(rows: Rows) -> Evidence:
        known = found(rows)
        return known._replace(differences=-known.differences)

    return evidence


def _rivals(algo: str, family: str, source: str, *rivals: str) -> tuple[Claim, ...]:
    """HL-Gauss against other heads in one algorithm."""
    return tuple(
        _claim(
            f"offline-hl-gauss-beats-{worse.replace('_', '-')}-{algo}",
            f"{algo} scores higher with hl-gauss heads than with {worse.replace('_', '-')} heads",
            runs(algo, "hl_gauss"),
            runs(algo, worse),
            f"hl-gauss minus {worse.replace('_', '-')}",
            family,
            source=source,
        )
        for worse in rivals
    )


def _later() -> tuple[Claim, ...]:
    """What rows of CQL that were there could answer."""
    heads = {head: tuple(runs("cql", head, dataset=dataset) for dataset in REPLAYS) for head in ("hl_gauss", "mse")}
    return (
        _claim(
            "offline-c51-beats-two-hot-cql",
            "cql scores higher with c51 heads than with two-hot heads",
            runs("cql", "c51"),
            runs("cql", "two_hot"),
            "c51 minus two_hot",
            "heads of CQL, written after the rows,",
            source=f"{PAPER}; analogue of ours; written after the rows were published",
        ),
        Claim(
            id="offline-hl-gauss-peaks-higher-cql",
            statement=f"on {len(REPLAYS)} data sets ({', '.join(REPLAYS)}), the best evaluations of cql with "
            "HL-Gauss heads are above those with squared error, on average",
            source="Farebrother et al. 2024 (arXiv 2403.03950), figure 10, robots that learn from recorded data with a "
            "conservative term; analogue of ours; written after the rows were published",
            experiment=EXPERIMENT,
            family=f"peaks of CQL on {len(REPLAYS)} data sets, written after the rows",
            needs=(*heads["hl_gauss"], *heads["mse"]),
            statistic="mean paired difference over seeds of the best normalised score's mean over data sets, hl_gauss "
            "minus mse, 95% t-interval",
            evidence=above_mean("score_best", [heads["hl_gauss"]], [heads["mse"]]),
            seeds=SEEDS,
        ),
    )


def _begun() -> tuple[Claim, ...]:
    """A histogram begins at the middle of its support, squared error near 0. Is that what min-ensembles suffer from?"""
    source = "ours: the difference of first values is a side effect of swapping the head"
    gauss, zero = ({algo: runs(algo, "hl_gauss", start) for algo in SMALLER} for start in ("", "0"))
    return tuple(
        _claim(
            f"offline-{name}-{algo}",
            words.format(algo),
            zero[algo],
            theirs,
            statistic,
            f"first values of HL-Gauss, {name},",
            source=source,
        )
        for algo in SMALLER
        for name, words, theirs, statistic in (
            (
                "zero-beats-middle",
                "{} with HL-Gauss heads scores higher when its critics begin at 0 than at the middle of their support",
                gauss[algo],
                "begun at 0 minus at the middle",
            ),
            (
                "hl-gauss-from-zero-beats-mse",
                "{} scores above itself with squared error when its critics have HL-Gauss heads that begin at 0",
                runs(algo),
                "hl_gauss from 0 minus mse",
            ),
        )
    )


def _fault() -> tuple[Claim, ...]:
    """IQL with a public implementation's one-sided Gaussian: is that why "IQL fails with cross-entropy"?"""
    gauss, fault, mse = (runs("iql", head) for head in ("hl_gauss", "one_sided", "mse"))
    values = "mean {} over seeds, on the scale of returns, 95% t-interval"
    source = "a public implementation's HL-Gauss (Tarasov et al. 2024, arXiv 2406.06309); its effect is shown here"
    shared: dict[str, Any] = {"source": source, "family": "one-sided IQL"}
    ran = {**shared, "command": FAULT_COMMAND}
    return (
        _claim(
            "iql-one-sided-inflates",
            "IQL's critics promise more at the starts with a one-sided Gaussian than with HL-Gauss",
            fault,
            gauss,
            "",
            **ran
            | {
                "statistic": values.format("paired difference of Q, one_sided minus hl_gauss,"),
                "evidence": above("q_last", fault, gauss),
            },
        ),
        _claim(
            "iql-one-sided-above-truth",
            "IQL's critics with a one-sided Gaussian promise more at the starts than the policy collects",
            fault,
            fault,
            "",
            **ran
            | {
                "statistic": values.format("difference of Q and the discounted return that followed"),
                "evidence": above_column("q_last", fault, "mc_last"),
            },
        ),
        _claim(
            "iql-one-sided-costs",
            "IQL with HL-Gauss heads scores above IQL with their one-sided fault",
            gauss,
            fault,
            "hl_gauss minus one_sided",
            **ran,
        ),
        _claim(
            "iql-hl-gauss-not-worse",
            "IQL with HL-Gauss heads, without the fault, scores at most 5 points below squared error",
            gauss,
            mse,
            "hl_gauss minus mse",
            kind="non-inferiority",
            margin=SCORE,
            **shared,
        ),
    )


CLAIMS = (
    *(claim for dataset in REPLAYS for claim in _swapped(dataset)),
    *_rivals("cql", "value heads offline", f"{PAPER}; analogue of ours", "two_hot", "c51"),
    *_rivals("iql", "heads of IQL", OFFLINE, "two_hot", "mse_softmax"),  # the others' targets are none that IQL takes
    *_rivals("rebrac", "heads of ReBRAC", OFFLINE, "mse_softmax", "two_hot", "c51", "quantile"),
    *(claim for algo, family in ENSEMBLES.items() for claim in _rivals(algo, family, _source(algo), *RIVALS)),
    *_begun(),
    *_fault(),
    *_together(),
    *_degrading(),
    *_later(),
    *_tuned(),
    *_transferred("cql"),
)
