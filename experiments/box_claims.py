"""The claims about the box. Margins are fixed here, before the runs that are reported; `return` is of at most 26.3."""

from __future__ import annotations

import functools

from experiments.box_studies import EXPERIMENT, WORLD
from jaxrl_suite.report.claims import Claim, Needed, above, above_column, level

SOURCE = "Sims et al. 2024 (arXiv 2402.12527), whose small world is not published in numbers; this one is ours"
OURS = "ours: reviewers of Sims et al. 2024 (arXiv 2402.12527) asked for it, the paper has none"
MARGIN = 4.0  # of returns: 15% of the best one
DIFFERENCE = "mean paired difference of last returns over seeds, {}, 95% t-interval"


def _run(method: str, settings: str = "") -> Needed:
    return Needed(method, WORLD, settings)


BASE, PATCHED, RANDOM, RAVL = map(_run, ("base", "patched", "random-patched", "ravl"))


def _claim(study: str, words: str, needs: tuple[Needed, ...], **more: object) -> Claim:
    command = f"python -m experiments.edge_of_reach --world={WORLD} --only={study}"
    family = f"{WORLD}: {study}"
    build = functools.partial(Claim, experiment=EXPERIMENT, family=family, command=command)
    return build(statement=f"in the box with its true dynamics, {words}", needs=needs, **more)  # type: ignore[arg-type]


def _methods() -> tuple[Claim, ...]:
    claim = functools.partial(_claim, "methods")
    return (
        claim(
            "the base method's Q-value at the start ends above 1 / (1 - gamma), the most that any policy can be worth",
            (BASE,),
            id="box-base-explodes",
            source=SOURCE,
            statistic="mean of the last Q-value at the start less 1 / (1 - gamma), 95% t-interval",
            evidence=above_column("q_last", BASE, "highest_value"),
        ),
        claim(
            "the base method with its edge-of-reach targets patched ends near the best return",
            (PATCHED,),
            id="box-patch-restores",
            source=SOURCE,
            statistic="mean of the last return less the best one, 95% t-interval",
            evidence=above_column("return_last", PATCHED, "attainable"),
            kind="non-inferiority",
            margin=MARGIN,
        ),
        claim(
            "patching as many targets at random leaves the base method's return as it is",
            (BASE, RANDOM),
            id="box-random-patch-does-not",
            source=OURS,
            statistic=DIFFERENCE.format("random-patched minus base"),
            evidence=above("return_last", RANDOM, BASE),
            kind="equivalence",
            margin=MARGIN,
        ),
        claim(
            "patching edge-of-reach targets gives a higher return than patching as many at random",
            (PATCHED, RANDOM),
            id="box-patch-beats-random-patch",
            source=OURS,
            statistic=DIFFERENCE.format("patched minus random-patched"),
            evidence=above("return_last", PATCHED, RANDOM),
        ),
        claim(
            "RAVL's return is above the base method's",
            (RAVL, BASE),
            id="box-ravl-beats-base",
            source=SOURCE,
            statistic=DIFFERENCE.format("RAVL minus base"),
            evidence=above("return_last", RAVL, BASE),
        ),
        claim(
            "RAVL's critics differ more at edge-of-reach states than inside",
            (RAVL,),
            id="box-ravl-spread",
            source=SOURCE,
            statistic="effect size d of the critics' standard deviation at the edge of reach against that inside, mean "
            "over seeds, 95% t-interval",
            evidence=level("spread_effect", RAVL),
        ),
    )


def _horizons() -> tuple[Claim, ...]:
    claim = functools.partial(_claim, "horizons")
    longer, whole = _run("base", "horizon=20"), _run("base", "horizon=30")
    return (
        claim(
            "rollouts of 20 steps in place of 10 raise the base method's return",
            (longer, BASE),
            id="box-longer-rollouts",
            source=OURS,
            statistic=DIFFERENCE.format("k = 20 minus k = 10"),
            evidence=above("return_last", longer, BASE),
        ),
        claim(
            "rollouts of a whole episode bring the base method near the best return",
            (whole,),
            id="box-whole-episodes",
            source=OURS,
            statistic="mean of the last return less the best one, k = 30, 95% t-interval",
            evidence=above_column("return_last", whole, "attainable"),
            kind="non-inferiority",
            margin=MARGIN,
        ),
    )


def _critics() -> tuple[Claim, ...]:
    claim = functools.partial(_claim, "critics")
    no_diversity, few = _run("ravl", "diversity=0"), _run("ravl", "critics=2")
    pairs = (
        ("box-minimum-repairs", "ten critics without diversity raise the base method's return", no_diversity, BASE),
        ("box-diversity-repairs", "diversity of two critics raises the base method's return", few, BASE),
        ("box-minimum-over-diversity", "ten critics alone do more than diversity of two", no_diversity, few),
    )
    return tuple(
        claim(
            words,
            (ours, theirs),
            id=name,
            source=OURS,
            statistic=DIFFERENCE.format(f"{' '.join(ours).strip()} minus {' '.join(theirs).strip()}"),
            evidence=above("return_last", ours, theirs),
        )
        for name, words, ours, theirs in pairs
    )


CLAIMS = (*_methods(), *_horizons(), *_critics())
