"""The claims that this suite tests, and how findings are written down."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.offline_mbrl import EXPERIMENT
from jaxrl_suite.errors import UserError
from jaxrl_suite.report.claims import Claim, Finding, Needed, above, above_column, rule

SEEDS = 32  # the gap to BC is small beside its spread: eight seeds, and sixteen, left it open
MINI = "hopper-medium-replay-mini"
RAVL = "Sims et al. 2024 (arXiv 2402.12527)"
COLUMNS = [
    *("id", "statement", "source", "statistic", "estimate", "ci_low", "ci_high", "n", "adjusted_p"),
    *("rule", "verdict", "seeds", "preset", "command"),
]


def on_data(dataset: str) -> tuple[Claim, ...]:
    """RAVL against BC and against the data's own behaviour, on one data set."""
    ravl, bc = Needed("ravl", dataset), Needed("bc", dataset)
    family, source = f"ravl on {dataset}", f"{RAVL}; this comparison on this data set is ours"
    return (
        Claim(
            id="ravl-beats-bc",
            statement=f"RAVL's last return on {dataset} is above BC's",
            source=source,
            experiment=EXPERIMENT,
            family=family,
            needs=(bc, ravl),
            statistic="mean paired difference of last returns over seeds, 95% t-interval",
            evidence=above("return_last", ravl, bc),
            seeds=SEEDS,
        ),
        Claim(
            id="ravl-beats-behaviour",
            statement=f"RAVL's last return on {dataset} is above the mean return of the data's episodes",
            source=source,
            experiment=EXPERIMENT,
            family=family,
            needs=(ravl,),
            statistic="mean difference of last return to the data's over seeds, 95% t-interval",
            evidence=above_column("return_last", ravl, "behaviour_return"),
            seeds=SEEDS,
        ),
    )


def ablation(dataset: str) -> tuple[Claim, ...]:
    """Which half of RAVL's critic does the work on one data set: the minimum over members, or their diversity."""
    full, no_min, no_diversity = (Needed("ravl", dataset, text) for text in ("", "aggregate=mean", "diversity=0"))
    family, source = f"ravl's critic on {dataset}", f"{RAVL}; its reviewers asked for this ablation, the paper has none"
    pairs = (
        ("ravl-needs-min", full, no_min, "with the mean of the critics in place of their minimum, RAVL is worse"),
        ("ravl-needs-diversity", full, no_diversity, "without the diversity term, RAVL is worse"),
        ("ravl-min-over-diversity", no_diversity, no_min, "RAVL loses more without the minimum than without diversity"),
    )
    return tuple(
        Claim(
            id=name,
            statement=f"on {dataset}, {words}, by last return",
            source=source,
            experiment=EXPERIMENT,
            family=family,
            needs=(ours, theirs),
            statistic=f"mean paired difference of last returns over seeds, {_arm(ours)} minus {_arm(theirs)}, "
            "95% t-interval",
            evidence=above("return_last", ours, theirs),
        )
        for name, ours, theirs, words in pairs
    )


def _arm(needed: Needed) -> str:
    return f"{needed.algo} {needed.settings}".strip()


CLAIMS = (*on_data(MINI), *ablation(MINI))


def record(finding: Finding, preset: str) -> dict[str, object]:
    """The row of claims.csv."""
    claim, interval = finding.claim, finding.interval
    return {
        "id": claim.id,
        "statement": claim.statement,
        "source": claim.source,
        "statistic": claim.statistic,
        "estimate": round(interval.estimate, 3),
        "ci_low": round(interval.low, 3),
        "ci_high": round(interval.high, 3),
        "n": interval.n,
        "adjusted_p": float(f"{finding.adjusted_p:.3g}"),
        "rule": rule(claim),
        "verdict": finding.verdict,
        "seeds": " ".join(map(str, finding.seeds)),
        "preset": preset,
        "command": f"python -m experiments.reproduce --only={claim.id} --preset={preset}{_span(finding.seeds)}",
    }


def _span(seeds: Sequence[int]) -> str:
    """The option that gives these seeds: all from the first to the last."""
    return f" --seeds={min(seeds)}:{max(seeds) + 1}" if seeds else ""


def overview(results: Path) -> str:
    """CLAIMS.md: one table of every results/*/claims.csv.

    Raises:
        UserError: a claims.csv that lacks columns.
    """
    lines = [
        "# Claims",
        "",
        "Written by `python -m experiments.reproduce --publish` from the `claims.csv` files, which hold the rules too.",
        "",
        "| claim | source | estimate [95% interval] | seeds | preset | verdict | command |",
        "| --- | --- | ---: | ---: | --- | --- | --- |",
    ]
    for path in sorted(results.glob("*/claims.csv")):
        table = pd.read_csv(path)
        missing = sorted(set(COLUMNS) - set(table.columns))
        if missing:
            raise UserError(f"{path} lacks {', '.join(missing)}; write it anew with experiments.reproduce --publish")
        for row in table.to_dict("records"):
            estimate = f"{row['estimate']:.1f} [{row['ci_low']:.1f}, {row['ci_high']:.1f}]"
            cells = (row["statement"], row["source"], estimate, row["n"], row["preset"], row["verdict"])
            lines.append(
                "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + f" | `{row['command']}` |"
            )
    return "\n".join(lines) + "\n"
