"""The claims about one network for many variants of the maze, about values that are given as labels, about CQL's term,
about ten times the updates, about more bins and about mixtures of experts. Margins are fixed here, before the runs that
are reported."""

from __future__ import annotations

import functools

from experiments import heads_studies as studies
from experiments.heads_claims import OURS, PAPER, SCORE, SCORES, claimed
from experiments.heads_studies import (
    EXPERTS,
    LONGER,
    MAZE,
    TASKS,
    TUNED,
    Arm,
    arm,
    of_bins,
    of_experts,
    of_size,
    of_tasks,
)
from jaxrl_suite.report.claims import Claim, above, above_column, above_mean, level

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
    of = {head: [arm(head, conservative=alpha) for alpha in studies.ALPHAS] for head in studies.HELD}
    mean = {head: [[one.needed] for one in arms] for head, arms in of.items()}
    over, more = f"over {len(studies.ALPHAS)} weights of it", "value heads: conservative, more heads"
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
            words=f"with CQL's term, HL-Gauss scores above two-hot, {over}",
            needs=(*of["hl_gauss"], *of["two_hot"]),
            statistic=SCORES.format("hl_gauss minus two_hot, each a mean over weights"),
            evidence=above_mean("score_last", mean["hl_gauss"], mean["two_hot"]),
        ),
        claim(
            "conservative-c51-beats-mse",
            words=f"with CQL's term, C51 scores above squared error, {over}",
            needs=(*of["c51"], *of["mse"]),
            statistic=SCORES.format("c51 minus mse, each a mean over weights"),
            evidence=above_mean("score_last", mean["c51"], mean["mse"]),
            family=more,
        ),
        claim(
            "conservative-softmax-no-gain",
            words=f"with CQL's term, squared error on a softmax's mean gains nothing over squared error, {over}",
            needs=(*of["mse"], *of["mse_softmax"]),
            statistic=SCORES.format("mse minus mse_softmax, each a mean over weights"),
            evidence=above_mean("score_last", mean["mse"], mean["mse_softmax"]),
            kind="non-inferiority",
            margin=SCORE,
            family=more,
        ),
    )


def _long() -> tuple[Claim, ...]:
    """What more updates do to each head; the first tenth of them are those of the study `heads`, and were known."""
    of = {head: arm(head, longer=LONGER) for head in TUNED[MAZE]}
    source, where = PAPER.format("figure 4"), f"after {LONGER} times the updates,"
    pairs = (
        ("gauss-beats-mse", "HL-Gauss scores above squared error", "hl_gauss", "mse"),
        ("gauss-beats-c51", "HL-Gauss scores above C51", "hl_gauss", "c51"),
        ("mse-beats-two-hot", "squared error scores above two-hot", "mse", "two_hot"),
        ("gauss-beats-softmax", "HL-Gauss scores above squared error on a softmax's mean", "hl_gauss", "mse_softmax"),
    )
    ours, theirs = (of["hl_gauss"], arm("mse")), (of["mse"], arm("hl_gauss"))
    return (
        *(
            claimed(
                f"long-{name}",
                "long",
                f"{where} {words}",
                source,
                (of[better], of[worse]),
                statistic=SCORES.format(f"{better} minus {worse}"),
                evidence=above("score_last", of[better].needed, of[worse].needed),
            )
            for name, words, better, worse in pairs
        ),
        claimed(
            "long-mse-degrades",
            "long",
            f"{where} squared error is more than {SCORE:g} points below the best of its evaluations",
            source,
            (of["mse"],),
            statistic=f"mean of the best score less the last over seeds, less {SCORE:g}, 95% t-interval",
            evidence=above_column("score_best", of["mse"].needed, "score_last", SCORE),
        ),
        *(
            claimed(
                f"long-{head.replace('_', '-')}-does-not-degrade",
                "long",
                f"{where} {head} is within {SCORE:g} points of the best of its evaluations",
                source,
                (of[head],),
                statistic="mean of the last score less the best over seeds, 95% t-interval",
                evidence=above_column("score_last", of[head].needed, "score_best"),
                kind="non-inferiority",
                margin=SCORE,
            )
            for head in ("two_hot", "c51", "hl_gauss")
        ),
        claimed(
            "long-gains-gauss-more",
            "long,heads",
            f"{LONGER} times the updates gain HL-Gauss more than squared error",
            source,
            (*ours, *theirs),
            statistic="half of the mean difference over seeds between what more updates gain hl_gauss and what they "
            "gain mse, last scores, 95% t-interval",
            evidence=above_mean("score_last", *([[one.needed] for one in arms] for arms in (ours, theirs))),
        ),
    )


def _resolution() -> tuple[Claim, ...]:
    """What lies beyond the map of bins and ratios, whose best ratios were its largest."""
    claim = functools.partial(claimed, source=PAPER.format("figure 13"))
    finest, two_hot = of_bins("hl_gauss", 201), of_bins("two_hot", 201)
    coarse, fine, widest = (of_bins("hl_gauss", *pair) for pair in ((101, 2.0), (201, 4.0), (101, 8.0)))
    pairs = (
        (
            "ratio-8-costs",
            "resolution,bins",
            "with 101 bins a sigma of 8 bins costs HL-Gauss score, against one of 2",
            coarse,
            widest,
            "ratio 2 minus ratio 8",
        ),
        (
            "ratio-0.75-beats-two-hot-201",
            "resolution",
            "with 201 bins HL-Gauss with a sigma of 0.75 bins scores above two-hot",
            finest,
            two_hot,
            "hl_gauss minus two_hot",
        ),
    )
    return (
        claim(
            "sigma-101-201",
            "resolution,bins",
            "at the same sigma in units of value, HL-Gauss scores alike with 101 bins and 201 bins",
            needs=(coarse, fine),
            statistic=SCORES.format("101 bins minus 201 bins"),
            evidence=above("score_last", coarse.needed, fine.needed),
            kind="equivalence",
            margin=SCORE,
        ),
        *(
            claim(
                name,
                study,
                words,
                needs=(ours, theirs),
                statistic=SCORES.format(what),
                evidence=above("score_last", ours.needed, theirs.needed),
            )
            for name, study, words, ours, theirs, what in pairs
        ),
    )


def _experts() -> tuple[Claim, ...]:
    """Of figure 5: HL-Gauss scores more by a constant factor, whatever the number of experts, and with one of them more
    than squared error with any number."""
    claim = functools.partial(claimed, study="experts", source=PAPER.format("figure 5, mixtures of experts in Atari"))
    mse, gauss = ({number: of_experts(head, number) for number in EXPERTS} for head in ("mse", "hl_gauss"))
    few, many = EXPERTS[0], EXPERTS[-1]
    ours, theirs = (gauss[many], mse[few]), (mse[many], gauss[few])
    pairs = (
        (
            "one-gauss-beats-most-mse",
            f"HL-Gauss with one expert scores above squared error with {many}",
            gauss[few],
            mse[many],
            f"hl_gauss with 1 minus mse with {many}",
        ),
        (
            "more-gain-gauss",
            f"{many} experts in place of one raise the score of HL-Gauss",
            gauss[many],
            gauss[few],
            f"hl_gauss with {many} minus with 1",
        ),
        (
            "more-gain-mse",
            f"{many} experts in place of one raise the score of squared error",
            mse[many],
            mse[few],
            f"mse with {many} minus with 1",
        ),
    )
    return (
        claim(
            "experts-gauss-beats-mse",
            words="with a soft mixture of experts, HL-Gauss scores above squared error, over all numbers of experts",
            needs=(*gauss.values(), *mse.values()),
            statistic=SCORES.format("hl_gauss minus mse, each a mean over numbers of experts"),
            evidence=above_mean("score_last", *([[one.needed] for one in of.values()] for of in (gauss, mse))),
        ),
        *(
            claim(
                f"experts-{name}",
                words=words,
                needs=(better, worse),
                statistic=SCORES.format(what),
                evidence=above("score_last", better.needed, worse.needed),
            )
            for name, words, better, worse, what in pairs
        ),
        claim(
            "experts-same-gap",
            words=f"HL-Gauss is as far from squared error with {many} experts as with one, to {2 * SCORE:g} points",
            needs=(*ours, *theirs),
            statistic="half of the mean difference over seeds between the gaps hl_gauss minus mse with "
            f"{many} experts and with one, last scores, 95% t-interval",
            evidence=above_mean("score_last", *([[one.needed] for one in arms] for arms in (ours, theirs))),
            kind="equivalence",
            margin=SCORE,
        ),
    )


CLAIMS = (*_tasks(), *_labels(), *_conservative(), *_long(), *_resolution(), *_experts())
