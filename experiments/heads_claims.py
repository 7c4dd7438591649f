"""The claims about value heads. Margins are fixed here, before the runs that are reported. Scores of the maze are 0 for
uniform actions, 100 for optimal ones; all of it is an analogue, on a small machine, of what the paper did on Atari."""

from __future__ import annotations

import functools

from experiments import heads_studies as studies
from experiments.heads_studies import EXPERIMENT, MANY, MAZE, ONLINE, SHIFTS, Arm, arm
from jaxrl_suite.report.claims import Claim, Needed, above, above_column, above_mean, level

PAPER = "Farebrother et al. 2024 (arXiv 2403.03950), {}; analogue of ours"
OURS = "ours: users need it, and the paper does not have it"
FAULT = "a public implementation's HL-Gauss (Tarasov et al. 2024, arXiv 2406.06309); its effect is shown here"
SCORE, FLAT = 5.0, 0.05  # margins: points of a score, and a mean squared error where the labels' variance is 0.5
SCORES = "mean paired difference of last scores over seeds, {}, 95% t-interval"
ERRORS = "mean paired difference of mean squared errors over seeds, {}, 95% t-interval"
WHERE = {
    SHIFTS: "in regression on shifting targets",
    MANY: "in regression on shifting targets of many points",
    MAZE: "in offline learning on a small maze",
    ONLINE: "in online learning (DQN) in small mazes",
}


def claimed(name: str, study: str, words: str, source: str, needs: tuple[Arm, ...], **more: object) -> Claim:
    """A claim on a study's arms, in that study's family."""
    build = functools.partial(Claim, experiment=EXPERIMENT, family=f"value heads: {study.split(',')[0]}")
    return build(
        id=f"heads-{name}",
        statement=f"{WHERE[needs[0].problem]}, {words}",
        source=source,
        needs=tuple(one.needed for one in needs),
        command=f"python -m experiments.{EXPERIMENT} --only={study}",
        seeds=studies.SEEDS,
        **more,  # type: ignore[arg-type]
    )


def _needed(*arms: Arm) -> list[list[Needed]]:
    return [[one.needed] for one in arms]


def _moving(prefix: str, study: str, problem: str, rate: float = 0.0, note: str = "") -> tuple[Claim, ...]:
    """The paper's order of heads where targets move; with a rate for all of them, or with those that were tuned."""
    of = {head: arm(head, problem, **({"rate": rate} if rate else {})) for head in studies.TUNED[SHIFTS]}
    at, part = (f" (rate {rate:g})", f", rate {rate:g}") if rate else ("", "")
    claim = functools.partial(
        claimed, study=study, source=PAPER.format("figure 17") + note, family=f"value heads: {study}{part}"
    )
    last, first = "error_32", "error_0"

    def below(name: str, words: str, better: str, worse: str, **more: str) -> Claim:
        return claim(
            f"{prefix}-{name}",
            words=words + at,
            needs=(of[worse], of[better]),
            statistic=ERRORS.format(f"{worse} minus {better}"),
            evidence=above("error_mean", of[worse].needed, of[better].needed),
            **more,
        )

    found = (
        claim(
            f"{prefix}-mse-grows",
            words=f"the squared-error head's error is larger at the last shift than at the first{at}",
            needs=(of["mse"],),
            statistic=ERRORS.format("b = 32 minus b = 0"),
            evidence=above_column(last, of["mse"].needed, first),
        ),
        *(
            claim(
                f"{prefix}-{head}-flat",
                words=f"the error of {head} does not grow from the first shift to the last{at}",
                needs=(of[head],),
                statistic=ERRORS.format("b = 0 minus b = 32"),
                evidence=above_column(first, of[head].needed, last),
                kind="non-inferiority",
                margin=FLAT,
            )
            for head in ("two_hot", "hl_gauss")
        ),
        below("gauss-below-two-hot", "the mean error of HL-Gauss is below that of two-hot", "hl_gauss", "two_hot"),
        below(
            "softmax-is-not-it",
            "cross-entropy (HL-Gauss) has a lower mean error than squared error on a softmax's mean",
            "hl_gauss",
            "mse_softmax",
            source=PAPER.format("figures 11, 12") + note,
        ),
    )
    if not rate:
        return found
    ours = below("gauss-below-mse", "the mean error of HL-Gauss is below that of squared error", "hl_gauss", "mse")
    return (*found, ours)


def _memory() -> tuple[Claim, ...]:
    """The same with more points: at the paper's rate for all heads, at a larger one, and at the better one of each."""
    slow, fast = studies.GIVEN
    note = "; points and updates chosen on seeds 1000 and 1001, where the effect showed at the paper's rate"
    mse, gauss = arm("mse", MANY, rate=fast), arm("hl_gauss", MANY, rate=slow)
    return (
        *_moving("memory", "memory", MANY, slow, note),
        *_moving("memory-faster", "memory", MANY, fast, note),
        claimed(
            "memory-gauss-below-mse-each-at-its-rate",
            "memory",
            "HL-Gauss has the lower mean error where each has the better rate on seeds 1000 and 1001 (HL-Gauss "
            f"{slow:g}, squared error {fast:g})",
            PAPER.format("figure 17") + note,
            (mse, gauss),
            family="value heads: memory, each at its rate",
            statistic=ERRORS.format("mse minus hl_gauss"),
            evidence=above("error_mean", mse.needed, gauss.needed),
        ),
    )


def _ranked(study: str, problem: str, prefix: str = "", more: tuple[tuple[str, ...], ...] = ()) -> tuple[Claim, ...]:
    """The paper's order of heads by score; `more` pairs are (name, words, figure, better head, worse head)."""
    pairs = (
        ("gauss-beats-mse", "HL-Gauss scores above squared error", "figure 4", "hl_gauss", "mse"),
        ("gauss-beats-c51", "HL-Gauss scores above C51", "figure 4", "hl_gauss", "c51"),
        ("mse-beats-two-hot", "squared error scores above two-hot", "figure 4", "mse", "two_hot"),
        *more,
    )
    mse, softmax = arm("mse", problem), arm("mse_softmax", problem)
    return (
        *(
            claimed(
                f"{prefix}{name}",
                study,
                words,
                PAPER.format(figure),
                (ours, theirs),
                statistic=SCORES.format(f"{ours.head} minus {theirs.head}"),
                evidence=above("score_last", ours.needed, theirs.needed),
            )
            for name, words, figure, ours, theirs in (
                (name, words, figure, arm(better, problem), arm(worse, problem))
                for name, words, figure, better, worse in pairs
            )
        ),
        claimed(
            f"{prefix}softmax-no-gain",
            study,
            "squared error on the mean of a softmax gains nothing over squared error",
            PAPER.format("figures 11, 12"),
            (mse, softmax),
            statistic=SCORES.format("mse minus mse_softmax"),
            evidence=above("score_last", mse.needed, softmax.needed),
            kind="non-inferiority",
            margin=SCORE,
        ),
    )


def _heads() -> tuple[Claim, ...]:
    mse, gauss = arm("mse"), arm("hl_gauss")
    probes = (
        ("probe-gauss-mse", "HL-Gauss more than with squared error", gauss, mse),
        ("probe-gauss-c51", "HL-Gauss more than with C51", gauss, arm("c51")),
        ("probe-c51-mse", "C51 more than with squared error", arm("c51"), mse),
    )
    return (
        *_ranked("heads", MAZE),
        *(
            claimed(
                name,
                "heads",
                f"frozen features explain the optimal value linearly with {words}",
                PAPER.format("figure 16"),
                (ours, theirs),
                statistic=f"mean paired difference of shares of variance explained, {ours.head} minus {theirs.head}, "
                "95% t-interval",
                evidence=above("probe", ours.needed, theirs.needed),
            )
            for name, words, ours, theirs in probes
        ),
    )


def noisy(name: str, width: float, centred: bool, source: str = PAPER.format("figure 14"), **more: object) -> Claim:
    """Whether noise of a width on the rewards costs HL-Gauss less than squared error."""
    side = "centred" if centred else "above zero, as in the paper"
    quiet = {head: studies.of_noise(head, 0.0, True) for head in ("mse", "hl_gauss")}
    loud = {head: studies.of_noise(head, width, centred) for head in ("mse", "hl_gauss")}
    ours, theirs = (loud["hl_gauss"], quiet["mse"]), (loud["mse"], quiet["hl_gauss"])
    return claimed(
        name,
        "noise",
        f"noise of width {width:g} on the rewards ({side}) costs HL-Gauss less of its score than squared error",
        source,
        (*ours, *theirs),
        statistic="half of the mean difference over seeds between what noise costs mse and what it costs "
        "hl_gauss, 95% t-interval",
        evidence=above_mean("score_last", _needed(*ours), _needed(*theirs)),
        **more,
    )


def _noise() -> tuple[Claim, ...]:
    return (
        noisy("noise-centred", studies.NOISES[True][-1], True),
        noisy("noise-uncentred", studies.NOISES[False][-1], False),
    )


def _transitions() -> tuple[Claim, ...]:
    gauss, mse = ("hl_gauss", "mse")
    return (
        claimed(
            "deterministic-equal",
            "transitions",
            "without any chance in transitions HL-Gauss scores as squared error does",
            PAPER.format("figure 15"),
            (studies.calm(gauss), studies.calm(mse)),
            statistic=SCORES.format("hl_gauss minus mse"),
            evidence=above("score_last", studies.calm(gauss).needed, studies.calm(mse).needed),
            kind="equivalence",
            margin=SCORE,
        ),
        claimed(
            "stochastic-gain",
            "transitions",
            "where every fourth action is a random one, HL-Gauss scores above squared error",
            PAPER.format("figures 4, 15"),
            (studies.slippery(gauss), studies.slippery(mse)),
            statistic=SCORES.format("hl_gauss minus mse"),
            evidence=above("score_last", studies.slippery(gauss).needed, studies.slippery(mse).needed),
        ),
    )


def _targets() -> tuple[Claim, ...]:
    sarsa = {head: arm(head, target="sarsa") for head in ("mse", "hl_gauss")}
    ours, theirs = (arm("hl_gauss"), sarsa["mse"]), (arm("mse"), sarsa["hl_gauss"])
    return (
        claimed(
            "sarsa-gap",
            "targets,heads",
            "HL-Gauss is farther above squared error with Q-learning's targets than with SARSA's",
            PAPER.format("figure 18"),
            (*ours, *theirs),
            statistic="half of the mean difference over seeds between the gaps hl_gauss minus mse of last scores, "
            "Q-learning minus SARSA, 95% t-interval",
            evidence=above_mean("score_last", _needed(*ours), _needed(*theirs)),
        ),
    )


def wide(ratio: float, source: str = PAPER.format("figure 13"), **more: object) -> Claim:
    """Whether HL-Gauss with a sigma of `ratio` bins scores above two-hot, over all numbers of bins."""
    return claimed(
        f"ratio-{ratio:g}-beats-two-hot",
        "bins,heads",
        f"HL-Gauss with a sigma of {ratio:g} bins scores above two-hot, over 21, 51 and 101 bins",
        source,
        (studies.of_bins("hl_gauss", 51, ratio), studies.of_bins("two_hot", 51)),
        statistic=SCORES.format("hl_gauss minus two_hot, each a mean over numbers of bins"),
        evidence=above_mean(
            "score_last",
            _needed(*(studies.of_bins("hl_gauss", bins, ratio) for bins in studies.BINS)),
            _needed(*(studies.of_bins("two_hot", bins) for bins in studies.BINS)),
        ),
        **more,
    )


def _bins() -> tuple[Claim, ...]:
    source = PAPER.format("figure 13")
    # The same sigma in units of value: 0.5 of 21 bins, 1 of 51 (0.41 of 21), 2 of 101 (0.42 of 21).
    same = [studies.of_bins("hl_gauss", bins, ratio) for bins, ratio in ((21, 0.5), (51, 1.0), (101, 2.0))]
    names = [f"{bins} bins" for bins in studies.BINS]
    return (
        *(wide(ratio) for ratio in (0.5, 0.75, 1.0, 2.0)),
        *(
            claimed(
                f"sigma-{studies.BINS[a]}-{studies.BINS[b]}",
                "bins,heads",
                f"at about the same sigma in units of value, HL-Gauss scores alike with {names[a]} and {names[b]}",
                source,
                (same[a], same[b]),
                statistic=SCORES.format(f"{names[a]} minus {names[b]}"),
                evidence=above("score_last", same[a].needed, same[b].needed),
                kind="equivalence",
                margin=SCORE,
            )
            for a, b in ((0, 1), (1, 2))
        ),
    )


def _support() -> tuple[Claim, ...]:
    fits = arm("hl_gauss")
    narrow = studies.of_support("hl_gauss", 0.5)
    return (
        claimed(
            "support-narrow-costs",
            "support,heads",
            "half the support that fits costs HL-Gauss score",
            OURS,
            (fits, narrow),
            statistic=SCORES.format("x1 minus x0.5"),
            evidence=above("score_last", fits.needed, narrow.needed),
        ),
        *(
            claimed(
                f"support-x{factor:g}-free",
                "support,heads",
                f"a support {factor:g} times too wide costs HL-Gauss nothing to speak of",
                OURS,
                (studies.of_support("hl_gauss", factor), fits),
                statistic=SCORES.format(f"x{factor:g} minus x1"),
                evidence=above("score_last", studies.of_support("hl_gauss", factor).needed, fits.needed),
                kind="non-inferiority",
                margin=SCORE,
            )
            for factor in (2.0, 5.0, 10.0)
        ),
    )


def _one_sided() -> tuple[Claim, ...]:
    fault, gauss = arm("one_sided", target="sarsa"), arm("hl_gauss", target="sarsa")
    q_fault, q_gauss = arm("one_sided"), arm("hl_gauss")
    bias = "mean paired difference of mean errors of Q over seeds, one_sided minus hl_gauss, 95% t-interval"
    return (
        claimed(
            "one-sided-bias",
            "one_sided,targets",
            "a one-sided Gaussian overestimates the values of the logging policy, against HL-Gauss",
            FAULT,
            (fault, gauss),
            statistic=bias,
            evidence=above("value_bias", fault.needed, gauss.needed),
        ),
        claimed(
            "one-sided-above-truth",
            "one_sided,targets",
            "with a one-sided Gaussian SARSA's values end above the true ones",
            FAULT,
            (fault,),
            statistic="mean error of Q over seeds, 95% t-interval",
            evidence=level("value_bias", fault.needed),
        ),
        claimed(
            "one-sided-score",
            "one_sided,heads",
            "a one-sided Gaussian costs Q-learning score, against HL-Gauss",
            FAULT,
            (q_gauss, q_fault),
            statistic=SCORES.format("hl_gauss minus one_sided"),
            evidence=above("score_last", q_gauss.needed, q_fault.needed),
        ),
    )


def _scaling() -> tuple[Claim, ...]:
    found = []
    for name, words, large in (
        (
            "depth",
            "six hidden layers in place of two, at the step size of two, cost HL-Gauss less than squared error",
            (6, 64),
        ),
        (
            "width",
            "twice the width, at the step size of the smaller, gains HL-Gauss more score than squared error",
            (2, 128),
        ),
    ):
        ours = (studies.of_size("hl_gauss", *large), arm("mse"))
        theirs = (studies.of_size("mse", *large), arm("hl_gauss"))
        found.append(
            claimed(
                f"scaling-{name}",
                "scaling,heads",
                words,
                PAPER.format("figures 5 to 7, where networks grow"),
                (*ours, *theirs),
                statistic="half of the mean difference over seeds between what the larger network changes with "
                "hl_gauss and with mse, last scores, 95% t-interval",
                evidence=above_mean("score_last", _needed(*ours), _needed(*theirs)),
            )
        )
    return tuple(found)


def _online() -> tuple[Claim, ...]:
    mse, gauss = arm("mse", ONLINE), arm("hl_gauss", ONLINE)
    more = (
        ("c51-beats-mse", "C51 scores above squared error", "figure 4", "c51", "mse"),
        (
            "gauss-beats-softmax",
            "cross-entropy (HL-Gauss) scores above squared error on a softmax's mean",
            "figures 11, 12",
            "hl_gauss",
            "mse_softmax",
        ),
    )
    return (
        *_ranked("online", ONLINE, "online-", more),
        claimed(
            "online-gauss-values",
            "online",
            "the values of HL-Gauss err less than those of squared error",
            OURS,
            (mse, gauss),
            statistic="mean paired difference of root mean squared errors of Q over seeds, mse minus hl_gauss, 95% "
            "t-interval",
            evidence=above("value_error", mse.needed, gauss.needed),
        ),
    )


CLAIMS = (
    *_moving("shifts", "plasticity", SHIFTS),
    *_memory(),
    *_heads(),
    *_targets(),
    *_one_sided(),
    *_bins(),
    *_support(),
    *_noise(),
    *_transitions(),
    *_scaling(),
    *_online(),
)
