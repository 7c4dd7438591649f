"""The claims that this suite tests, and how findings are written down."""

from __future__ import annotations

import collections
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import (
    box_claims,
    edge_claims,
    heads_claims,
    heads_later_claims,
    heads_offline_claims,
    heads_tasks_claims,
    lipschitz_claims,
    lipschitz_offline_claims,
    norm_claims,
)
from experiments.needs import REPLAYS
from experiments.offline_mbrl import EXPERIMENT
from jaxrl_suite.algorithms import registry
from jaxrl_suite.errors import UserError
from jaxrl_suite.report.claims import Claim, Finding, Needed, above, above_column, above_each, above_mean, judge, rule
from jaxrl_suite.report.formats import spanned

SEEDS = 32  # the gap to BC is small beside its spread: what eight seeds say, the next eight take back
MINI = "hopper-medium-replay-mini"
# Quick presets at the same number of updates; settings as summary.csv says them.
SUITE = {
    "bc": "hidden=128x128",
    **dict.fromkeys(("bc10", "td3_bc", "rebrac", "iql", "cql", "sac_n", "edac"), ""),
    **dict.fromkeys(("mopo", "morel", "combo", "rambo", "mobile"), ""),
    "ravl": "updates=10000 critics=4",
}
HALVED, SAME_SCORE = ("ravl", "iql", "rebrac"), 5.0
RAVL = "Sims et al. 2024 (arXiv 2402.12527)"
COLUMNS = [
    *("id", "statement", "source", "statistic", "estimate", "ci_low", "ci_high", "n", "adjusted_p"),
    *("rule", "verdict", "seeds", "preset", "command"),
]
HEAD = [  # of CLAIMS.md
    "# Claims",
    "",
    "Written by `python -m experiments.reproduce --publish` from the `claims.csv` files, which hold the rules too. The",
    "command of a claim makes its runs and says its verdict.",
    "",
    "A claim is *supported* where the whole 95% interval says what the claim says, and its p-value stays below 0.05",
    "when all claims of its family are corrected together (Holm). It is *not supported* where the whole interval says",
    "the contrary, which no correction weakens. It is *inconclusive* where neither holds, or there is no interval:",
    "these runs leave it open. What the interval must lie above or within is the claim's `rule` in `claims.csv`.",
    "",
]
TABLE = [
    "| id | claim | source | estimate [95% interval] | seeds | preset | verdict | command |",
    "| --- | --- | --- | ---: | ---: | --- | --- | --- |",
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


def on_suite(datasets: Sequence[str]) -> tuple[Claim, ...]:
    """Model-based algorithms against model-free ones, over several data sets at the same number of updates."""

    def runs(algo: str) -> tuple[Needed, ...]:
        return tuple(Needed(algo, dataset, SUITE[algo]) for dataset in datasets)

    based = [algo for algo in SUITE if registry.get(algo).family == registry.MODEL_BASED]
    free = [algo for algo in SUITE if registry.get(algo).family == registry.MODEL_FREE]
    every = tuple(needed for algo in SUITE for needed in runs(algo))
    claim = functools.partial(
        Claim,
        source="this comparison is ours; every paper reports such a table, at its own settings and updates",
        experiment=EXPERIMENT,
        family="model-based against model-free",
        seeds=5,
    )
    where = f"on {len(datasets)} data sets ({', '.join(datasets)}) at the same updates"
    together = claim(
        id="model-based-beats-model-free",
        statement=f"{where}, model-based algorithms score above model-free ones on average",
        needs=every,
        statistic=f"difference of mean last scores, {', '.join(based)} minus {', '.join(free)}, paired by seed, "
        "95% t-interval",
        evidence=above_mean("score_last", [runs(algo) for algo in based], [runs(algo) for algo in free]),
    )
    return together, *(
        claim(
            id=f"{algo}-beats-model-free",
            statement=f"{where}, {algo} scores above every model-free algorithm",
            needs=(*runs(algo), *(needed for rival in free for needed in runs(rival))),
            statistic="mean difference of last scores, paired by seed, to the model-free algorithm with the "
            f"largest one-sided p-value, out of {', '.join(free)}, 95% t-interval",
            evidence=above_each("score_last", runs(algo), {rival: runs(rival) for rival in free}),
        )
        for algo in based
    )


def on_precision(dataset: str) -> tuple[Claim, ...]:
    """Matrix products in bfloat16 against float32, by an algorithm of each family on one data set."""
    every = {algo: (Needed(algo, dataset, SUITE[algo]), f"{SUITE[algo]} precision=bfloat16".strip()) for algo in HALVED}
    return tuple(
        Claim(
            id=f"bfloat16-equals-float32-{algo}",
            statement=f"on {dataset}, bfloat16 factors in the matrix products of actor and critics leave {algo}'s last "
            f"score within {SAME_SCORE:g} points",
            source="ours: mixed precision is an option of this suite",
            experiment=EXPERIMENT,
            family=f"bfloat16 on {dataset}",
            needs=(single, Needed(algo, dataset, half)),
            statistic="mean paired difference of last normalised scores over seeds, bfloat16 minus float32, 95% "
            "t-interval",
            evidence=above("score_last", Needed(algo, dataset, half), single),
            kind="equivalence",
            margin=SAME_SCORE,
            seeds=5,
        )
        for algo, (single, half) in every.items()
    )


def _arm(needed: Needed) -> str:
    return f"{needed.algo} {needed.settings}".strip()


CLAIMS = (
    *on_data(MINI),
    *ablation(MINI),
    *on_suite(REPLAYS),
    *on_precision(MINI),
    *box_claims.CLAIMS,
    *heads_claims.CLAIMS,
    *heads_later_claims.CLAIMS,
    *heads_tasks_claims.CLAIMS,
    *heads_offline_claims.CLAIMS,
    *lipschitz_offline_claims.CLAIMS,
    *norm_claims.CLAIMS,
    *edge_claims.CLAIMS,
    *lipschitz_claims.CLAIMS,
)


def records(rows: Sequence[Mapping[str, Any]], experiment: str = EXPERIMENT) -> list[dict[str, object]]:
    """The rows of claims.csv that follow from summary rows: of every preset, the claims of which there are runs."""
    mine = [claim for claim in CLAIMS if claim.experiment == experiment]
    return [
        record(finding, preset)
        for preset in sorted({str(row["preset"]) for row in rows})
        for finding in judge(mine, [row for row in rows if row["preset"] == preset])
        if finding.interval.n
    ]


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
        "rule": rule(claim, finding.rivals),
        "verdict": finding.verdict,
        "seeds": " ".join(map(str, finding.seeds)),
        "preset": preset,
        "command": _each_with(command_of(claim, preset), _span(finding.seeds)),
    }


def command_of(claim: Claim, preset: str = "") -> str:
    """What makes a claim's runs, at a preset or at its own."""
    preset = preset or claim.preset
    command = claim.command or f"python -m experiments.reproduce --only={claim.id}"
    return _each_with(command, f" --preset={preset}" if preset else "")


def _each_with(command: str, option: str) -> str:
    """A command with an option, which each part of several (`a && b`) takes."""
    return " && ".join(f"{part}{option}" for part in command.split(" && "))


def _span(seeds: Sequence[int]) -> str:
    """The option that gives these seeds: all from the first to the last."""
    return f" --seeds={min(seeds)}:{max(seeds) + 1}" if seeds else ""


def overview(results: Path) -> str:
    """CLAIMS.md: every results/*/claims.csv with a table per family, and in short the claims without runs.

    Raises:
        UserError: a claims.csv that lacks columns, or names a claim that there is no more.
    """
    published = {path.parent.name: _published(path) for path in sorted(results.glob("*/claims.csv"))}
    lacking = _without_runs(
        {row["id"] for families in published.values() for rows in families.values() for row in rows}
    )
    contents = [
        f"- [{name}](#{name}): {_counted(sum(map(len, families.values())), 'claim')} in "
        f"{_counted(len(families), 'family', 'families')}"
        for name, families in published.items()
    ]
    more = ["- [Claims without runs](#no-runs-yet)"] if lacking else []
    body = [line for name, families in published.items() for line in _of_experiment(name, families)]
    return "\n".join([*HEAD, *contents, *more, *body, *lacking]) + "\n"


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _published(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of a claims.csv by family, in the order of the file.

    Raises:
        UserError: it lacks columns, or names a claim that there is no more.
    """
    table = pd.read_csv(path)
    anew = "write it anew with experiments.reproduce --publish"
    if missing := sorted(set(COLUMNS) - set(table.columns)):
        raise UserError(f"{path} lacks {', '.join(missing)}; {anew}")
    families = {claim.id: claim.family for claim in CLAIMS}
    if strange := sorted(set(table["id"]) - set(families)):
        raise UserError(f"{path} names {', '.join(strange)}, of which experiments/claims.py knows nothing; {anew}")
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_dict("records"):
        found.setdefault(families[row["id"]], []).append(row)  # type: ignore[arg-type]
    return found


def _of_experiment(name: str, families: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The heading of an experiment, and a heading and a table for each family."""
    tables = [
        line for family, rows in families.items() for line in ("", f"### {family}", "", *TABLE, *map(_line, rows))
    ]
    return ["", f"## {name}", *tables]


def _line(row: Mapping[str, Any]) -> str:
    """A claim as a line of its family's table."""
    estimate = spanned(row["estimate"], row["ci_low"], row["ci_high"])
    cells = (row["statement"], row["source"], estimate, row["n"], row["preset"], row["verdict"])
    escaped = " | ".join(str(cell).replace("|", "\\|") for cell in cells)
    return f"| `{row['id']}` | {escaped} | `{row['command']}` |"


def _without_runs(judged: set[str]) -> list[str]:
    """A table with a line per family and command of the claims that are not judged yet; nothing where all are."""
    lacking = collections.Counter((claim.family, command_of(claim)) for claim in CLAIMS if claim.id not in judged)
    head = ["", "## No runs yet", "", "| family | claims | command |", "| --- | ---: | --- |"] if lacking else []
    return head + [f"| {family} | {count} | `{command}` |" for (family, command), count in lacking.items()]
