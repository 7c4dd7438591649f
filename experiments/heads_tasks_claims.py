"""The claims about one network for many variants of the maze, about values that are given as labels, and about CQL's
term. Margins are fixed here, before the runs that are reported."""

from __future__ import annotations

import functools

from experiments import heads_studies as studies
from experiments.heads_claims import OURS, PAPER, SCORE, SCORES, claimed
from experiments.heads_studies import TASKS, Arm, arm, of_size, of_tasks
from jaxrl_suite.report.claims import Claim, above, above_mean, level

SMALL, USUAL, LARGE, DEEP = (2, 16), (2, 64), (2, 128), (6, 64)  # layers and units
Arms = tuple[Arm, Arm]


def _tasks() -> tuple[Claim, ...]:
    mse, gauss = ({size: of_tasks(head, *size) for size in studies.SIZES} for head in ("mse", "hl_gauss"))
    alone = {head: of_size(head, *LARGE) for head in ("mse", "hl_gauss")}
    one = f"where one network learns {TASKS} variants,"
    paper = PAPER.format("figures 6 and 7, many variants of a game")

    def pair(name: str, words: str, better: Arm, worse: Arm, what: str, least: float = 0.0) -> Claim:
        return claimed(
            f"tasks-{name}",
            "tasks",
            f"{one} {words}",
            paper,
            (better, worse),
            statistic=SCORES.format(what),
            evidence=above("score_last", better.needed, worse.needed, least),
        )

    def gap(name: str, words: str, ours: Arms, theirs: Arms, what: str, study: str = "tasks", of: str = paper) -> Claim:
        return claimed(
            f"tasks-{name}",
            study,
            words,
            of,
            (*ours, *theirs),
            statistic=f"half of the mean difference over seeds between {what}, last scores, 95% t-interval",
            evidence=above_mean("score_last", *([[each.needed] for each in arms] for arms in (ours, theirs))),
        )

    return (
        pair(
            "gauss-beats-mse",
            "HL-Gauss scores above squared error with the widest network (2x128)",
            gauss[LARGE],
            mse[LARGE],
            "hl_gauss minus mse",
        ),
        pair(
            "width-gains-gauss",
            "HL-Gauss scores more with the widest network (2x128) than with the narrowest (2x16)",
            gauss[LARGE],
            gauss[SMALL],
            "2x128 minus 2x16",
        ),
        gap(
            "width-gains-gauss-more",
            f"{one} eight times the width (2x128 for 2x16) gains HL-Gauss more than squared error",
            (gauss[LARGE], mse[SMALL]),
            (mse[LARGE], gauss[SMALL]),
            "what width gains hl_gauss and what it gains mse",
        ),
        pair(
            "depth-costs-mse",
            f"six hidden layers in place of two cost squared error more than {SCORE:g} points",
            mse[USUAL],
            mse[DEEP],
            f"2x64 minus 6x64, less {SCORE:g}",
            SCORE,
        ),
        gap(
            "depth-costs-gauss-less",
            f"{one} six hidden layers in place of two cost HL-Gauss less than squared error",
            (gauss[DEEP], mse[USUAL]),
            (mse[DEEP], gauss[USUAL]),
            "what depth changes with hl_gauss and with mse",
        ),
        gap(
            "widen-the-gap",
            f"with 2x128 HL-Gauss is farther above squared error with {TASKS} variants than with one",
            (gauss[LARGE], alone["mse"]),
            (mse[LARGE], alone["hl_gauss"]),
            f"the gaps hl_gauss minus mse with {TASKS} variants and with one",
            "tasks,scaling",
            OURS,
        ),
    )


def _labels() -> tuple[Claim, ...]:
    source = PAPER.format("figure 9, chess from a search's values")
    of = {head: arm(head, target="labels") for head in ("mse", "mse_softmax", "two_hot", "hl_gauss")}
    gauss = of["hl_gauss"]
    return (
        *(
            claimed(
                f"labels-gauss-beats-{rival.replace('_', '-')}",
                "labels",
                f"from optimal values as labels, HL-Gauss scores above {words}",
                source,
                (gauss, of[rival]),
                statistic=SCORES.format(f"hl_gauss minus {rival}"),
                evidence=above("score_last", gauss.needed, of[rival].needed),
            )
            for rival, words in (
                ("mse", "squared error"),
                ("mse_softmax", "squared error on a softmax's mean"),
                ("two_hot", "two-hot"),
            )
        ),
        claimed(
            "labels-gauss-near-optimal",
            "labels",
            f"from optimal values as labels, HL-Gauss ends less than {SCORE:g} points below the optimal policy",
            source,
            (gauss,),
            statistic=f"mean of the last score less {100.0 - SCORE:g} over seeds, 95% t-interval",
            evidence=level("score_last", gauss.needed, 100.0 - SCORE),
        ),
    )


def _conservative() -> tuple[Claim, ...]:
    claim = functools.partial(claimed, study="conservative", source=PAPER.format("figure 8, CQL on Wordle"))
    of = {head: [arm(head, conservative=alpha) for alpha in studies.ALPHAS] for head in studies.RIVALS}
    gauss = [[one.needed] for one in of["hl_gauss"]]
    two_hot = [[one.needed] for one in of["two_hot"]]
    return (
        *(
            claim(
                f"conservative-{alpha:g}-gauss-beats-mse",
                words=f"with CQL's term at a weight of {alpha:g}, HL-Gauss scores above squared error",
                needs=(ours, theirs),
                statistic=SCORES.format("hl_gauss minus mse"),
                evidence=above("score_last", ours.needed, theirs.needed),
            )
            for alpha, ours, theirs in zip(studies.ALPHAS, of["hl_gauss"], of["mse"], strict=True)
        ),
        claim(
            "conservative-gauss-beats-two-hot",
            words=f"with CQL's term, HL-Gauss scores above two-hot, over {len(studies.ALPHAS)} weights of it",
            needs=(*of["hl_gauss"], *of["two_hot"]),
            statistic=SCORES.format("hl_gauss minus two_hot, each a mean over weights"),
            evidence=above_mean("score_last", gauss, two_hot),
        ),
    )


CLAIMS = (*_tasks(), *_labels(), *_conservative())
