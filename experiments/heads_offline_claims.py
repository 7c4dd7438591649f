"""The claims about value heads in the offline algorithms, on one bundled data set and at the quick presets.

Only the head differs within a pair; step sizes are those of squared error, so that a head that wants others (the paper
gives its classifiers four times the step size) may do worse here than it could. Margins and families are fixed here,
before the runs that are reported. The runs with `one_sided` are made by experiments/heads_fault.py alone.
"""

from __future__ import annotations

from typing import Any

from jaxrl_suite.report.claims import Claim, Needed, above, above_column

EXPERIMENT, DATASET = "offline_mbrl", "hopper-medium-replay-mini"
SEEDS, SCORE = 5, 5.0  # SCORE: margin in points of a normalised score
# What the quick preset is made smaller by, as summary.csv says it.
SMALLER = {"iql": "", "rebrac": "", "ravl": "updates=10000 critics=4", "cql": "", "sac_n": "", "edac": ""}
PAPER = "Farebrother et al. 2024 (arXiv 2403.03950), figure 4"
OFFLINE = "Tarasov et al. 2024 (arXiv 2406.06309); analogue of ours"
SOURCES = {
    "iql": OFFLINE,
    "rebrac": OFFLINE,
    "sac_n": f"ours; {OFFLINE} has an ensemble of another kind",
    "cql": f"{PAPER}, where CQL learns Atari from a tenth of its replay; analogue of ours",
}
FAULT_COMMAND = "python -m experiments.heads_fault"
LAST = "mean paired difference of last normalised scores over seeds, {}, 95% t-interval"


def runs(algo: str, head: str = "mse", start: str = "") -> Needed:
    """The runs of an algorithm with a head, and a value that it begins at, as claims name them."""
    sizes = SMALLER[algo].split()
    chosen = [] if head == "mse" else [f"head={head}", *([f"initial_value={start}"] if start else [])]
    return Needed(algo, DATASET, " ".join([*sizes[:1], *chosen, *sizes[1:]]))  # in the order of the config's fields


def _claim(name: str, words: str, ours: Needed, theirs: Needed, heads: str, family: str, **more: object) -> Claim:
    given = {"statistic": LAST.format(heads), "evidence": above("score_last", ours, theirs), **more}
    return Claim(
        id=name,
        statement=f"on {DATASET}, {words}",
        experiment=EXPERIMENT,
        family=f"{family} on {DATASET}",
        needs=(ours, theirs),
        seeds=SEEDS,
        **given,  # type: ignore[arg-type]
    )


def _swapped() -> tuple[Claim, ...]:
    """HL-Gauss in place of squared error, in each algorithm; CQL has the paper's other heads too."""
    every = tuple(
        _claim(
            f"offline-hl-gauss-beats-mse-{algo}",
            f"{algo} scores above itself with squared error when its critics have HL-Gauss heads",
            runs(algo, "hl_gauss"),
            runs(algo),
            "hl_gauss minus mse",
            "value heads offline",
            source=SOURCES.get(algo, "ours: no paper tells of this pair"),
        )
        for algo in SMALLER
    )
    pairs = (("hl-gauss", "two-hot"), ("hl-gauss", "c51"))
    return every + tuple(
        _claim(
            f"offline-{better}-beats-{worse}-cql",
            f"cql scores higher with {better} heads than with {worse} heads",
            runs("cql", better.replace("-", "_")),
            runs("cql", worse.replace("-", "_")),
            f"{better} minus {worse}",
            "value heads offline",
            source=f"{PAPER}; analogue of ours",
        )
        for better, worse in pairs
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


CLAIMS = (*_swapped(), *_begun(), *_fault())
