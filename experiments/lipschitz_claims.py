"""The claims about ensembles and Lipschitz values. Margins are fixed here, before the runs that are reported."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

from experiments import lipschitz_saved
from experiments.lipschitz_arms import (
    EXPERIMENT,
    LAYER_NORM,
    LEARNER,
    LONG,
    LONGER,
    MECHANISMS,
    MODELS,
    SEEDS,
    TWICE,
    Arm,
)
from jaxrl_suite.report.claims import Claim, Evidence, Needed, Rows, above, above_column, level
from jaxrl_suite.report.comparison import settings_of

SOURCE = "Zheng et al. 2023 (arXiv 2302.01244), on other tasks; settings and margins are ours"
LATER = "pendulum's runs were published before this rule"
# Of returns from about -1,500 to -150, 0 to 200, 0 to 3,500, 0 to 4,000, and 0 to 10,000.
RETURN_MARGIN = {"pendulum": 100.0, "cartpole_swingup": 15.0, "hopper": 200.0, "walker2d": 250.0, "halfcheetah": 500.0}
ERROR_MARGIN = 0.3  # of the logarithm of the model error: a factor of 1.35
# One who stands still on hopper collects about one per step, of at most 1,000.
MORE_STEPS, LONG_STEPS, HOPS = 30_000, 82_000, 1_000.0
SOLVING_SEEDS = {"pendulum": 10, "cartpole_swingup": SEEDS}
LEARNS = "ours, after Janner et al. 2019 (arXiv 1906.08253), with smaller networks and fewer steps"
DIFFERENCE = "mean paired difference of {} over seeds, {}, 95% t-interval"
AFTER, AUDITED = "written after the rows were published", ("pendulum", "cartpole_swingup")
SLOPES = (
    ("lipschitz_upper", "the product of the critics' spectral norms"),
    ("slope_mean", "the mean length of the value's gradient"),
)
KINDS = ("probabilistic", "deterministic")
MECHANICAL = ("spectral", "adversarial")


def correlation(needs: Sequence[Needed], x: str, y: str) -> Callable[[Rows], Evidence]:
    """Spearman's correlation of two columns across arms, one per seed that finished all of them."""

    def evidence(rows: Rows) -> Evidence:
        by_seed: dict[int, dict[Needed, tuple[float, float]]] = {}
        for row in rows:
            needed = Needed(row["algo"], row["dataset"], settings_of(row))
            if needed in needs and row["status"] == "finished":
                by_seed.setdefault(int(row["seed"]), {})[needed] = (float(row[x]), float(row[y]))
        whole = {seed: mine for seed, mine in sorted(by_seed.items()) if len(mine) == len(needs)}
        found = [float(scipy_stats.spearmanr(*zip(*mine.values(), strict=True)).statistic) for mine in whole.values()]
        return Evidence(np.array(found), tuple(whole))

    return evidence


def compared(
    pair: Callable[..., Claim],
    kind: str,
    ensemble: Needed,
    single: Mapping[str, Needed],
    margin: float,
    metric: str = "return_last",
    outcome: str = "last return",
) -> tuple[Claim, ...]:
    """An ensemble without a mechanism against single models with each, `single["none"]` among them, as claims.

    `pair` takes a name, words, the metric and two arms. Both comparisons, online and on recorded data, ask these.
    """
    return (
        pair(
            f"{kind}-ensemble-beats-single",
            f"without a mechanism, a {kind} ensemble gives a higher {outcome} than a single model",
            metric,
            ensemble,
            single["none"],
        ),
        *(
            pair(
                f"{kind}-single-{name}-no-worse",
                f"a single {kind} model with the {name} mechanism is no worse than the ensemble without",
                metric,
                single[name],
                ensemble,
                kind="non-inferiority",
                margin=margin,
            )
            for name in MECHANICAL
        ),
        *(
            pair(
                f"{kind}-single-{name}-helps",
                f"the {name} mechanism raises the {outcome} of a single {kind} model",
                metric,
                single[name],
                single["none"],
            )
            for name in MECHANICAL
        ),
        pair(
            f"{kind}-adversarial-beats-random",
            f"with a single {kind} model, adversarial noise gives a higher {outcome} than random noise",
            metric,
            single["adversarial"],
            single["random"],
        ),
    )


def _on(env: str) -> tuple[Claim, ...]:
    margin = RETURN_MARGIN[env]
    command = f"python -m experiments.{EXPERIMENT} --env={env}"

    def claim(name: str, words: str, needs: Sequence[Needed], **more: Any) -> Claim:
        build = functools.partial(Claim, experiment=EXPERIMENT, family=f"{EXPERIMENT}: {env}", command=command)
        return build(
            id=f"{env.partition('_')[0]}-{name}",
            statement=f"on {env}, {words}",
            needs=tuple(needs),
            source=SOURCE,
            seeds=SEEDS,
            **more,
        )

    def arm(model: str, mechanism: str = "none") -> Needed:
        return Arm(model, mechanism).needed(env)

    def pair(name: str, words: str, metric: str, ours: Needed, theirs: Needed, **more: Any) -> Claim:
        both = f"{ours.algo} {ours.settings}".strip() + f" minus {theirs.algo} {theirs.settings}".rstrip()
        statistic = DIFFERENCE.format(metric, both)
        return claim(name, words, (ours, theirs), statistic=statistic, evidence=above(metric, ours, theirs), **more)

    def of_kind(kind: str) -> tuple[Claim, ...]:
        single, ensemble = arm(f"{kind}-single"), arm(f"{kind}-ensemble")
        return (
            *compared(pair, kind, ensemble, {name: arm(f"{kind}-single", name) for name in MECHANISMS}, margin),
            pair(
                f"{kind}-model-error-alike",
                f"the model error of a single {kind} model is that of the ensemble's members, within a factor of 1.35",
                "log_model_error",
                single,
                ensemble,
                kind="equivalence",
                margin=ERROR_MARGIN,
            ),
        )

    def saves(kind: str, mechanism: str) -> Claim:
        ensemble, single = Arm(f"{kind}-ensemble"), Arm(f"{kind}-single", mechanism)
        both = (ensemble.needed(env), single.needed(env))
        found = claim(
            f"{kind}-single-{mechanism}-saves-compute",
            f"a single {kind} model with the {mechanism} mechanism needs fewer operations than the ensemble without to "
            f"return what the ensemble does at the end, less {margin:g}",
            both,
            statistic="mean over seeds of log2 of the operations of the ensemble over those of the single model, until "
            "the first evaluation at or above the ensemble's mean last return less the margin; without one, an "
            f"ensemble's run counts with all its operations, a single model's with {lipschitz_saved.LATE:g} times "
            "all; 95% t-interval",
            evidence=lipschitz_saved.saved(ensemble, single, env, margin),
        )
        source = f"{SOURCE}; {LATER}" if env == "pendulum" else SOURCE
        return replace(found, family=f"compute saved on {env}", source=source)

    every = [arm(model, mechanism) for model in MODELS for mechanism in MECHANISMS]
    learner = arm(LEARNER)
    return (
        claim(
            "mbpo-solves",
            "MBPO with a probabilistic ensemble ends above the return that we call solved",
            (learner,),
            statistic="mean of the last return less that return, 95% t-interval",
            evidence=above_column("return_last", learner, "solved"),
        ),
        *(one for kind in KINDS for one in of_kind(kind)),
        *_follows(claim, "", "the arms with a model", every),
        *(saves(kind, mechanism) for kind in KINDS for mechanism in MECHANICAL),
        *_later(env, claim),
    )


def _follows(claim: Callable[..., Claim], prefix: str, arms: str, needs: Sequence[Needed]) -> list[Claim]:
    """Whether the value-aware model error rises with what is known of the value's slope."""
    return [
        claim(
            f"{prefix}value-error-follows-{name}",
            f"across {arms}, the value-aware model error rises with {words}",
            needs,
            statistic=f"Spearman's correlation of value_error and {name} over {len(needs)} arms, mean over seeds, "
            "95% t-interval",
            evidence=correlation(needs, name, "value_error"),
        )
        for name, words in SLOPES
    ]


def _later(env: str, claim: Callable[..., Claim]) -> tuple[Claim, ...]:
    """What an audit of the first rows asked for: model errors of all arms, and correlations within a kind of model."""

    def arm(model: str, mechanism: str) -> Needed:
        return Arm(model, mechanism).needed(env)

    found = [
        claim(
            f"{model}-{name}-model-error-alike",
            f"with the {name} mechanism the model error of a {model.replace('-', ' ')} is what it is without, within a "
            "factor of 1.35",
            (arm(model, name), arm(model, "none")),
            statistic=DIFFERENCE.format("log_model_error", f"{name} minus none"),
            evidence=above("log_model_error", arm(model, name), arm(model, "none")),
            kind="equivalence",
            margin=ERROR_MARGIN,
        )
        for model in MODELS
        for name in MECHANISMS
        if name != "none"
    ]
    for kind in KINDS:
        mine = [arm(model, name) for model in MODELS if model.startswith(kind) for name in MECHANISMS]
        found += _follows(claim, f"{kind}-", f"the arms with {kind} models", mine)
    known = f"{SOURCE}; {AFTER}" if env in AUDITED else SOURCE
    return tuple(replace(one, source=known, family=f"model error and slopes by kind on {env}") for one in found)


def _longer() -> tuple[Claim, ...]:
    """Whether MBPO learns hopper at all, and whether its model is what it learns by."""
    ours, theirs = (Arm(name, steps=MORE_STEPS).needed("hopper") for name in (LEARNER, "sac-utd"))
    claim = functools.partial(
        Claim,
        experiment=EXPERIMENT,
        family=f"hopper at {MORE_STEPS:,} steps",
        command=f"python -m experiments.{EXPERIMENT} --env=hopper --steps={MORE_STEPS} "
        "--models=probabilistic-ensemble,sac-utd --mechanisms=none",
        seeds=SEEDS,
    )
    where = f"on hopper at {MORE_STEPS:,} steps, MBPO with a probabilistic ensemble"
    return (
        claim(
            id="hopper-longer-mbpo-hops",
            statement=f"{where} returns more than {HOPS:,.0f}, which is what standing still collects",
            source=f"{LEARNS}; the level is ours",
            needs=(ours,),
            statistic=f"mean of the last return less {HOPS:,.0f}, 95% t-interval",
            evidence=level("return_last", ours, HOPS),
        ),
        claim(
            id="hopper-longer-mbpo-beats-sac",
            statement=f"{where} returns more than SAC with as many updates",
            source=LEARNS,
            needs=(ours, theirs),
            statistic=DIFFERENCE.format("return_last", "probabilistic-ensemble minus sac-utd"),
            evidence=above("return_last", ours, theirs),
        ),
    )


def _learnt(steps: int = 0) -> tuple[Claim, ...]:
    """Whether MBPO learns hopper in envpool with layer normalisation, and whether its model is what it learns by.

    At the steps of the preset, what layer normalisation does is asked, too; at others, what they do.
    """

    def arm(model: str, mechanism: str = LAYER_NORM) -> Needed:
        return Arm(model, mechanism, steps, host=True, extends=steps > 0).needed("hopper")

    where = f"on hopper in envpool at {steps or LONGER['hopper']['steps']:,} steps, with layer normalisation"
    mbpo = f"{where} MBPO with a probabilistic ensemble"
    ours, free = arm(LEARNER), arm("sac-utd")
    at = f"hopper-{LONG}-{steps}" if steps else f"hopper-{LONG}"
    claim = functools.partial(
        Claim,
        experiment=EXPERIMENT,
        family=f"hopper at the preset {LONG}" + (f", {steps:,} steps" if steps else ""),
        preset=LONG,
    )

    def command(*needs: Needed) -> str:
        models = ",".join(dict.fromkeys(need.algo for need in needs))
        mechanisms = LAYER_NORM if all("layer_norm" in need.settings for need in needs) else f"{LAYER_NORM},none"
        made = f"python -m experiments.{EXPERIMENT} --env=hopper --host --models={models} --mechanisms={mechanisms}"
        # What is extended has to be there, with the same seeds in one program.
        return f"{made} && {made} --steps={steps} --extend" if steps else made

    def hops(name: str, words: str, needs: Needed, seeds: int = SEEDS, added: str = "") -> Claim:
        return claim(
            id=f"{at}-{name}-hops",
            statement=f"{words} returns more than {HOPS:,.0f}, which is what standing still collects",
            source=f"{LEARNS}, layer normalisation after Ball et al. 2023 (arXiv 2302.02948); the level is ours{added}",
            needs=(needs,),
            statistic=f"mean of the last return less {HOPS:,.0f}, 95% t-interval",
            evidence=level("return_last", needs, HOPS),
            command=command(needs),
            seeds=seeds,
        )

    def above_other(
        name: str, words: str, metric: str, needs: Needed, other: Needed, source: str, seeds: int = SEEDS
    ) -> Claim:
        both = f"{needs.algo} {needs.settings} minus {other.algo} {other.settings}"
        return claim(
            id=f"{at}-{name}",
            statement=words,
            source=source,
            needs=(needs, other),
            statistic=DIFFERENCE.format(metric, both),
            evidence=above(metric, needs, other),
            command=command(needs, other),
            seeds=seeds,
        )

    added = "seeds 5 to 9 were added when the first three had been seen to differ much"
    if steps:
        added = "written when four of these seeds had hopped at the preset's steps, before any was trained on"
    both = (
        hops("mbpo", mbpo, ours, 2 * SEEDS, f"; {added}"),
        hops("sac", f"{where} SAC with as many updates", free),
        above_other(
            "mbpo-beats-sac", f"{mbpo} returns more than SAC with as many updates", "return_last", ours, free, LEARNS
        ),
    )
    if steps:
        before = Arm(LEARNER, LAYER_NORM, host=True).needed("hopper")
        words = f"{mbpo} returns more than at the preset's steps"
        return (*both, above_other("more-steps-help", words, "return_last", ours, before, "ours", 2 * SEEDS))
    plain = arm(LEARNER, "none")
    return (
        *both,
        above_other("layer-norm-helps", f"{mbpo} returns more than without", "return_last", ours, plain, "ours"),
        above_other("values-run-away", f"{mbpo} has smaller values than without", "value_scale", plain, ours, "ours"),
    )


def _twice(env: str, steps: int, seeds: int) -> Claim:
    """Whether MBPO solves a task when it may go on learning; the same claim at the quick preset is `mbpo-solves`."""
    ours = Arm(LEARNER, steps=steps).needed(env)
    return Claim(
        id=f"{env}-longer-mbpo-solves",
        statement=f"on {env} at {steps:,} steps, MBPO with a probabilistic ensemble ends above the return that we call "
        "solved",
        source="ours, after Janner et al. 2019 (arXiv 1906.08253): twice the quick preset's steps, chosen when "
        "that had left two seeds of five unsolved; the level is ours",
        experiment=EXPERIMENT,
        needs=(ours,),
        statistic="mean of the last return less that return, 95% t-interval",
        evidence=above_column("return_last", ours, "solved"),
        family=f"{env} at {steps:,} steps",
        command=f"python -m experiments.{EXPERIMENT} --env={env} --steps={steps} --models={LEARNER} --mechanisms=none",
        seeds=seeds,
    )


CLAIMS = (
    *(claim for env in RETURN_MARGIN for claim in _on(env)),
    *_longer(),
    *_learnt(),
    *_learnt(LONG_STEPS),
    *(_twice(env, steps, SOLVING_SEEDS[env]) for env, steps in TWICE.items()),
)
