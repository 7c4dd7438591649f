"""Claims about value heads that were written after their rows were published, and say so: what else the figures of
Farebrother et al. 2024 (arXiv 2403.03950) show, and the rows can answer. Corrected together, apart from the others, and
those of `_audited` and `_again`, which came later still, apart from these."""

from __future__ import annotations

from collections.abc import Callable

from experiments.heads_claims import PAPER, SCORE, SCORES, WHERE, noisy, wide
from experiments.heads_studies import EXPERIMENT, MAZE, ONLINE, SEEDS, STUDIES, Arm, arm, calm, of_size, slippery
from jaxrl_suite.report.claims import Claim, Evidence, Rows, above, above_column, above_each, above_mean

AFTER = f"{PAPER}; written after the rows were published"
FAMILY = "value heads: written after the rows"
AUDITED = f"{FAMILY}, after an audit"  # of its own, so that it corrects none that were before
AGAIN = f"{FAMILY}, after a second audit"


def _claim(
    name: str,
    study: str,
    words: str,
    figure: str,
    arms: tuple[Arm, ...],
    statistic: str,
    evidence: Callable[[Rows], Evidence],
    kind: str = "superiority",
    margin: float = 0.0,
    family: str = FAMILY,
) -> Claim:
    return Claim(
        id=f"heads-{name}",
        statement=f"{WHERE[arms[0].problem]}, {words}",
        source=AFTER.format(figure),
        experiment=EXPERIMENT,
        family=family,
        needs=tuple(one.needed for one in arms),
        statistic=statistic,
        evidence=evidence,
        kind=kind,
        margin=margin,
        command=f"python -m experiments.{EXPERIMENT} --only={study}",
        seeds=SEEDS,
    )


def _order(problem: str, study: str, prefix: str) -> Claim:
    c51, two_hot = arm("c51", problem), arm("two_hot", problem)
    return _claim(
        f"{prefix}c51-beats-two-hot",
        study,
        "C51 scores above two-hot",
        "figure 4",
        (c51, two_hot),
        SCORES.format("c51 minus two_hot"),
        above("score_last", c51.needed, two_hot.needed),
    )


def _stays(one: Arm, family: str = FAMILY) -> Claim:
    return _claim(
        f"{one.head}-does-not-degrade",
        "heads",
        f"{one.head} ends within {SCORE:g} points of the best of its evaluations",
        "figure 4",
        (one,),
        "mean of the last score less the best over seeds, 95% t-interval",
        above_column("score_last", one.needed, "score_best"),
        "non-inferiority",
        SCORE,
        family,
    )


def _degradation() -> tuple[Claim, ...]:
    mse, gauss, two_hot = arm("mse"), arm("hl_gauss"), arm("two_hot")
    return (
        _claim(
            "mse-degrades",
            "heads",
            f"squared error ends more than {SCORE:g} points below the best of its evaluations",
            "figure 4, where squared error loses score with more updates",
            (mse,),
            f"mean of the best score less the last over seeds, less {SCORE:g}, 95% t-interval",
            above_column("score_best", mse.needed, "score_last", SCORE),  # the best is never below the last
        ),
        _stays(gauss),
        _stays(two_hot),
        _claim(
            "two-hot-below-peak",
            "heads",
            "the best evaluations of squared error are above those of two-hot",
            "figure 4",
            (mse, two_hot),
            SCORES.replace("last", "best").format("mse minus two_hot"),
            above("score_best", mse.needed, two_hot.needed),
        ),
    )


def _figures() -> tuple[Claim, ...]:
    small, large = of_size("hl_gauss", 2, 16), of_size("mse", 2, 128)
    calm_gauss, calm_c51 = calm("hl_gauss"), calm("c51")
    chance = (slippery("hl_gauss"), calm("mse")), (slippery("mse"), calm("hl_gauss"))
    sarsa = arm("hl_gauss", target="sarsa"), arm("mse", target="sarsa")
    return (
        _claim(
            "small-gauss-beats-large-mse",
            "scaling",
            "HL-Gauss with the smallest network (16x16) scores above squared error with the largest (128x128)",
            "figure 5",
            (small, large),
            SCORES.format("hl_gauss minus mse"),
            above("score_last", small.needed, large.needed),
        ),
        _claim(
            "deterministic-gauss-beats-c51",
            "transitions",
            "without any chance in transitions HL-Gauss scores above C51",
            "figure 15",
            (calm_gauss, calm_c51),
            SCORES.format("hl_gauss minus c51"),
            above("score_last", calm_gauss.needed, calm_c51.needed),
        ),
        _claim(
            "chance-widens-the-gap",
            "transitions",
            "HL-Gauss is farther above squared error where every fourth action is a random one than without any chance",
            "figure 15",
            (*chance[0], *chance[1]),
            "half of the mean difference over seeds between the gaps hl_gauss minus mse of last scores, random actions "
            "minus no chance, 95% t-interval",
            above_mean("score_last", *([[one.needed] for one in group] for group in chance)),
        ),
        _claim(
            "sarsa-equal",
            "targets",
            "with SARSA's targets HL-Gauss scores as squared error does",
            "figure 18",
            sarsa,
            SCORES.format("hl_gauss minus mse"),
            above("score_last", sarsa[0].needed, sarsa[1].needed),
            "equivalence",
            SCORE,
        ),
    )


def _audited() -> tuple[Claim, ...]:
    small = of_size("hl_gauss", 2, 16)
    sizes = [arm("mse"), *(one for one in STUDIES["scaling"].arms if one.head == "mse")]
    known = {"source": AFTER.format("figure 14"), "family": AUDITED}
    return (
        _stays(arm("c51"), AUDITED),
        wide(0.25, AFTER.format("figure 13"), family=AUDITED),
        noisy("noise-1-centred", 1.0, True, **known),
        noisy("noise-1-uncentred", 1.0, False, **known),
        _claim(
            "small-gauss-beats-every-mse",
            "scaling,heads",
            f"HL-Gauss with the smallest network (16x16) scores above squared error with each of {len(sizes)} networks",
            "figure 5",
            (small, *sizes),
            SCORES.format("hl_gauss minus the hardest mse"),
            above_each("score_last", [small.needed], {one.settings: [one.needed] for one in sizes}),
            family=AUDITED,
        ),
    )


def _again() -> tuple[Claim, ...]:
    mse, softmax, c51, gauss = (arm(head) for head in ("mse", "mse_softmax", "c51", "hl_gauss"))
    pairs = (
        ("c51-beats-mse", "C51 scores above squared error", "figure 4", c51, mse),
        (
            "gauss-beats-softmax",
            "cross-entropy (HL-Gauss) scores above squared error on a softmax's mean",
            "figures 11, 12",
            gauss,
            softmax,
        ),
    )
    return tuple(
        _claim(
            name,
            "heads",
            words,
            figure,
            (ours, theirs),
            SCORES.format(f"{ours.head} minus {theirs.head}"),
            above("score_last", ours.needed, theirs.needed),
            family=AGAIN,
        )
        for name, words, figure, ours, theirs in pairs
    )


CLAIMS = (
    _order(MAZE, "heads", ""),
    _order(ONLINE, "online", "online-"),
    *_degradation(),
    *_figures(),
    *_audited(),
    *_again(),
)
