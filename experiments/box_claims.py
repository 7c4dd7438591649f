"""The claims about the box. Margins are fixed here, before the runs that are reported; the best return is 26."""

from __future__ import annotations

import functools
from collections.abc import Callable

from experiments.box_agent import QUICK
from experiments.box_studies import EXPERIMENT, INNER, INNER_LENGTHS, NETWORKS, WORLD, Arm, text
from jaxrl_suite.report.claims import Claim, Needed, above, above_column, above_mean, level

SOURCE = "Sims et al. 2024 (arXiv 2402.12527), whose small world is not published in numbers; this one is ours"
AFTER = f"{SOURCE}; written after the rows were published"
LATE = f"{WORLD}: written after the rows"  # a family of its own, so that it corrects no claim that was before
OURS = "ours: reviewers of Sims et al. 2024 (arXiv 2402.12527) asked for it, the paper has none"
HORIZON = QUICK.horizon
MARGIN = 4.0  # of returns: 15% of the best one
DIFFERENCE = "mean paired difference of last returns over seeds, {}, 95% t-interval"


def _run(method: str, settings: str = "") -> Needed:
    return Needed(method, WORLD, settings)


BASE = _run("base")
RIM = "distance=9 width=4"
PLACES = {"near": "", "rim": RIM, "inner": f"distance={INNER['distance']:g}"}  # of the reward -> settings
METHOD_WORDS = {"ravl": "RAVL (five diverse critics)", "minimum": "the least of five critics"}
STUDY_OF = {"near": "methods", "rim": "rim", "inner": "inner"}  # what makes the rows of a place
NEAR_WORDS = "with a reward whose middle is 8 steps away"
RIM_WORDS = "with a wider reward whose middle is 9 steps away"
INNER_WORDS = f"with a reward whose middle is {INNER['distance']:g} steps away"


def _claim(study: str, words: str, needs: tuple[Needed, ...], made: str = "", **more: object) -> Claim:
    """A claim of a study's family, whose rows another study may make."""
    command = f"python -m experiments.edge_of_reach --world={WORLD} --only={made or study}"
    family = f"{WORLD}: {study}"
    build = functools.partial(Claim, experiment=EXPERIMENT, family=family, command=command)
    return build(statement=f"in the box with its true dynamics, {words}", needs=needs, **more)  # type: ignore[arg-type]


def _patches(claim: Callable[..., Claim], place: str, settings: str, where: str, note: str = "") -> tuple[Claim, ...]:
    """Whether it is the targets at the edge that the base fails by."""
    base, patched, random = (_run(method, settings) for method in ("base", "patched", "random-patched"))
    return (
        _restores(claim, place, patched, where, SOURCE + note),
        claim(
            f"{where}, patching as many targets at random gains the base method nothing to speak of",
            (base, random),
            id=f"box-{place}-random-patch-does-not",
            source=OURS + note,
            statistic=DIFFERENCE.format("base minus random-patched"),
            evidence=above("return_last", base, random),
            kind="non-inferiority",
            margin=MARGIN,
        ),
        claim(
            f"{where}, patching edge-of-reach targets gives a higher return than patching as many at random",
            (patched, random),
            id=f"box-{place}-patch-beats-random-patch",
            source=OURS + note,
            statistic=DIFFERENCE.format("patched minus random-patched"),
            evidence=above("return_last", patched, random),
        ),
    )


def _methods(place: str, settings: str, where: str) -> tuple[Claim, ...]:
    claim = functools.partial(_claim, "methods", made=STUDY_OF[place])
    base = _run("base", settings)
    return (
        *_patches(claim, place, settings, where),
        _falls(claim, place, base, where, AFTER),
        *(_beats(claim, place, settings, where, method, SOURCE) for method in METHOD_WORDS),
        *_spread(claim, place, settings, where),
    )


def _spread(
    claim: Callable[..., Claim], place: str, settings: str, where: str, source: str = SOURCE
) -> tuple[Claim, ...]:
    return tuple(
        claim(
            f"{where}, the critics of {name} differ more at edge-of-reach states than inside",
            (_run(method, settings),),
            id=f"box-{place}-{method}-spread",
            source=source,
            statistic="effect size d of the critics' standard deviation at the edge of reach against that inside, mean "
            "over seeds, 95% t-interval",
            evidence=level("spread_effect", _run(method, settings)),
        )
        for method, name in (("ravl", "RAVL"), ("minimum", "the ensemble without diversity"))
    )


def _explodes(place: str, settings: str, where: str, **more: object) -> Claim:
    base = _run("base", settings)
    return _claim(
        "inner" if place == "inner" else "methods",
        f"{where}, the base method's Q-value at the start ends above 1 / (1 - gamma), the most there can be",
        (base,),
        STUDY_OF[place],
        id=f"box-{place}-base-explodes",
        statistic="mean of the last Q-value at the start less 1 / (1 - gamma), 95% t-interval",
        evidence=above_column("q_last", base, "highest_value"),
        **more,
    )


def _horizons() -> tuple[Claim, ...]:
    claim = functools.partial(_claim, "methods,horizons")
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
        _near_best(
            claim,
            "whole-episodes",
            "rollouts of a whole episode bring the base method near the best return",
            whole,
            OURS,
            ", k = 30",
        ),
    )


def _critics() -> tuple[Claim, ...]:
    claim = functools.partial(_claim, "methods,diversity")
    minimum, diverse, ravl = _run("minimum"), _run("ravl", "critics=2"), _run("ravl")
    pairs = (
        ("box-diversity-repairs", "diversity of two critics raises the base method's return", diverse, BASE),
        ("box-minimum-over-diversity", "the least of five critics does more than diversity of two", minimum, diverse),
        ("box-diversity-helps-minimum", "diversity raises the return of the least of five critics", ravl, minimum),
    )
    return tuple(
        claim(
            words,
            (ours, theirs),
            id=name,
            source=OURS,
            statistic=DIFFERENCE.format(
                f"{ours.algo} {ours.settings}".strip() + f" minus {theirs.algo} {theirs.settings}".rstrip()
            ),
            evidence=above("return_last", ours, theirs),
        )
        for name, words, ours, theirs in pairs
    )


def _ensemble() -> tuple[Claim, ...]:
    claim = functools.partial(_claim, "methods,ensemble")
    near, rim = _run("minimum", "critics=10"), _run("minimum", f"critics=10 {RIM}")
    return (
        _near_best(
            claim, "near-ten-restore", f"{NEAR_WORDS}, the least of ten critics ends near the best return", near, OURS
        ),
        claim(
            "with a wider reward whose middle is 9 steps away, the least of ten critics collects more than the base "
            "method",
            (rim, _run("base", RIM)),
            "rim",
            id="box-rim-ten-beats-base",
            source=OURS,
            statistic=DIFFERENCE.format("the least of ten minus base"),
            evidence=above("return_last", rim, _run("base", RIM)),
        ),
    )


def _falls(claim: Callable[..., Claim], name: str, base: Needed, where: str, source: str, family: str = LATE) -> Claim:
    return claim(
        f"{where}, the base method ends more than {MARGIN:g} below the best return",
        (base,),
        id=f"box-{name}-base-falls",
        source=source,
        family=family,
        statistic=f"mean of the best return less the last one, less {MARGIN:g}, 95% t-interval",
        evidence=above_column("attainable", base, "return_last", MARGIN),
    )


def _near_best(claim: Callable[..., Claim], name: str, words: str, run: Needed, source: str, which: str = "") -> Claim:
    return claim(
        words,
        (run,),
        id=f"box-{name}",
        source=source,
        statistic=f"mean of the last return less the best one{which}, 95% t-interval",
        evidence=above_column("return_last", run, "attainable"),
        kind="non-inferiority",
        margin=MARGIN,
    )


def _restores(claim: Callable[..., Claim], name: str, patched: Needed, where: str, source: str) -> Claim:
    words = f"{where}, the base method with its edge-of-reach targets patched ends near the best return"
    return _near_best(claim, f"{name}-patch-restores", words, patched, source)


def _beats(claim: Callable[..., Claim], name: str, settings: str, where: str, method: str, source: str) -> Claim:
    ours, base, words = _run(method, settings), _run("base", settings), METHOD_WORDS[method]
    return claim(
        f"{where}, {words} collects more than the base method",
        (ours, base),
        id=f"box-{name}-{method}-beats-base",
        source=source,
        statistic=DIFFERENCE.format(f"{method} minus base"),
        evidence=above("return_last", ours, base),
    )


def _networks() -> tuple[Claim, ...]:
    """Whether it hangs on the networks."""
    claim, found = functools.partial(_claim, "networks"), []
    for change, words in zip(
        NETWORKS, ("2x32 units", "2x128 units", "inputs a tenth as large", "layer norm"), strict=True
    ):
        settings = text(Arm("base", tuple(change.items())), "quick")
        where, name = f"{NEAR_WORDS} and networks with {words}", f"networks-{settings.replace('=', '-')}"
        base, patched = _run("base", settings), _run("patched", settings)
        found += [
            _falls(claim, name, base, where, OURS, f"{WORLD}: networks"),
            _restores(claim, name, patched, where, OURS),
            *(_beats(claim, name, settings, where, method, OURS) for method in METHOD_WORDS),
        ]
    return tuple(found)


def _norm() -> tuple[Claim, ...]:
    """Whether layer normalisation, with which the base reached the best return near the reward, does so elsewhere."""
    note = f"{OURS}; written when the rows of layer normalisation with the reward 8 steps away were known"
    claim, found = functools.partial(_claim, "norm"), []
    for place, where in (("rim", RIM_WORDS), ("inner", INNER_WORDS)):
        settings = f"layer_norm=True {PLACES[place]}"
        for method, words in (("base", "the base method"), ("ravl", METHOD_WORDS["ravl"])):
            ends = f"{where} and layer normalisation in the critics, {words} ends near the best return"
            found.append(_near_best(claim, f"norm-{place}-{method}-restores", ends, _run(method, settings), note))
    return tuple(found)


def _inner() -> tuple[Claim, ...]:
    """Where diversity does help: found on the map of rewards, with two of the seeds."""
    claim, found = functools.partial(_claim, "inner"), []
    source = f"{SOURCE}; written when two of the seeds were known"
    for k in INNER_LENGTHS:
        settings = f"{'' if k == HORIZON else f'horizon={k} '}distance={INNER['distance']:g}"
        where, ravl = f"{INNER_WORDS} and rollouts of {k} steps", _run("ravl", settings)
        found += [_beats(claim, f"inner-{k}", settings, where, method, source) for method in METHOD_WORDS]
        ends = f"{where}, RAVL ends near the best return"
        found.append(_near_best(claim, f"inner-{k}-ravl-restores", ends, ravl, source))
    return tuple(found)


def _inner_edge() -> tuple[Claim, ...]:
    """Whether what diversity repairs there is the edge of reach at all."""
    note = "; written when the base's rows were known, and two tuning seeds of the patches"
    claim = functools.partial(_claim, "inner", family=f"{WORLD}: the edge of an inner reward")
    settings = PLACES["inner"]
    whole = _run("base", f"horizon=30 {settings}")
    return (
        *_patches(claim, "inner", settings, INNER_WORDS, note),
        _near_best(
            claim,
            "inner-whole-episodes",
            f"{INNER_WORDS}, rollouts of a whole episode bring the base method near the best return",
            whole,
            OURS + note,
            ", k = 30",
        ),
    )


def _later() -> tuple[Claim, ...]:
    """What else the rows could answer, once all of them were known."""
    inner, note = PLACES["inner"], f"{OURS}; written after the rows were published"
    ravl, minimum = _run("ravl", inner), _run("minimum", inner)
    long, short = ([_run("base", f"horizon={k}") for k in pair] for pair in ((20, 30), (1, 5)))
    family = f"{LATE}, after an audit"
    return (
        *_spread(functools.partial(_claim, "inner", family=family), "inner", inner, INNER_WORDS, AFTER),
        _claim(
            "inner",
            f"{INNER_WORDS}, RAVL (five diverse critics) collects more than the least of five critics",
            (ravl, minimum),
            id="box-inner-diversity-helps-minimum",
            source=note,
            family=family,
            statistic=DIFFERENCE.format("ravl minus minimum"),
            evidence=above("return_last", ravl, minimum),
        ),
        _claim(
            "horizons",
            f"{NEAR_WORDS}, the base method collects more with rollouts of 20 and 30 steps than with those of 1 and 5",
            (*long, *short),
            id="box-near-long-over-short",
            source=note,
            family=family,
            statistic=DIFFERENCE.format("mean of k = 20 and 30 minus mean of k = 1 and 5"),
            evidence=above_mean("return_last", *([[one] for one in group] for group in (long, short))),
        ),
    )


CLAIMS = (
    _explodes("rim", RIM, RIM_WORDS, source=SOURCE),
    _explodes("near", "", NEAR_WORDS, source=AFTER, family=LATE),
    _explodes("inner", PLACES["inner"], INNER_WORDS, source=AFTER, family=LATE),
    *_methods("near", "", NEAR_WORDS),
    *_methods("rim", RIM, RIM_WORDS),
    *_ensemble(),
    *_horizons(),
    *_critics(),
    *_inner(),
    *_inner_edge(),
    *_networks(),
    *_norm(),
    *_later(),
)
