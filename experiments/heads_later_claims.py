"""Claims about value heads that were written after their rows were published, and say so: what else the figures of
Farebrother et al. 2024 (arXiv 2403.03950) show, and the rows can answer. Corrected together, apart from the others."""

from __future__ import annotations

from collections.abc import Callable

from experiments.heads_claims import PAPER, SCORE, SCORES, WHERE
from experiments.heads_studies import EXPERIMENT, MAZE, ONLINE, SEEDS, Arm, arm, calm, of_size, slippery
from jaxrl_suite.report.claims import Claim, Evidence, Rows, above, above_column, above_mean


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
) -> Claim:
    return Claim(
        id=f"heads-{name}",
        statement=f"{WHERE[arms[0].problem]}, {words}",
        source=f"{PAPER.format(figure)}; written after the rows were published",
        experiment=EXPERIMENT,
        family="value heads: written after the rows",
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
        *(
            _claim(
                f"{one.head}-does-not-degrade",
                "heads",
                f"{one.head} ends within {SCORE:g} points of the best of its evaluations",
                "figure 4",
                (one,),
                "mean of the last score less the best over seeds, 95% t-interval",
                above_column("score_last", one.needed, "score_best"),
                "non-inferiority",
                SCORE,
            )
            for one in (gauss, two_hot)
        ),
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


CLAIMS = (_order(MAZE, "heads", ""), _order(ONLINE, "online", "online-"), *_degradation(), *_figures())
