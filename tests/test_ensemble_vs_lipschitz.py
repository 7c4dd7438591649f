"""The experiment on ensembles and Lipschitz values: arms, probes, claims, figures and the command."""

import dataclasses
import itertools
import sys
import types

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from experiments import (
    claims,
    curves,
    ensemble_vs_lipschitz,
    lipschitz_arms,
    lipschitz_claims,
    lipschitz_probes,
    lipschitz_saved,
    options,
    publishing,
)
from experiments.lipschitz_arms import ARMS, EVERY_MECHANISM, EXPERIMENT, LAYER_NORM, LONG, MECHANISMS, MODELS, Arm
from jaxrl_suite.envs import registry
from jaxrl_suite.errors import UserError
from jaxrl_suite.report.claims import judge
from jaxrl_suite.train import rundir, settings
from jaxrl_suite.types import Transition
from paper_figs import ensemble_vs_lipschitz as figures

QUICK = {env: {arm: arm.config(env, "quick") for arm in ARMS} for env in lipschitz_arms.QUICK}


# --- arms ---
def test_arms_are_every_model_with_every_mechanism_and_sac_twice():
    assert len(ARMS) == len(MODELS) * len(MECHANISMS) + 2 == len(set(QUICK["pendulum"].values()))
    for arm, config in QUICK["pendulum"].items():
        assert config.smoothness().active == (arm.mechanism != "none")
        assert (config.real == config.batch) == (not arm.needs_model)
        if arm.needs_model:
            assert config.dynamics.deterministic == arm.model.startswith("deterministic")
            assert (config.dynamics.members == 1) == arm.model.endswith("single")


def test_every_setting_of_every_task_is_one_that_the_command_takes():
    for env, arms in QUICK.items():
        for config in (*arms.values(), Arm("probabilistic-single").config(env, "paper")):
            settings.require_positive(config)
            assert (config.steps - config.explore) % config.period == 0
        paper = Arm("probabilistic-ensemble").config(env, "paper")
        assert paper.retain * paper.period == paper.epoch  # the authors draw the imagined rows of an epoch


def test_noise_is_of_equal_size_with_and_without_an_attack():
    plain, attacked = (QUICK["pendulum"][Arm("probabilistic-single", name)] for name in ("random", "adversarial"))
    assert dataclasses.replace(attacked, lipschitz="random") == plain


def test_one_text_names_a_mechanism_on_every_model():
    for name in MECHANISMS:
        assert len({lipschitz_arms.text(Arm(model, name)) for model in MODELS}) == 1
    assert lipschitz_arms.text(Arm("probabilistic-ensemble")) == ""


def test_other_steps_and_the_host_are_arms_of_their_own_that_say_so():
    longer = Arm("probabilistic-single", "spectral", 30_000)
    assert lipschitz_arms.text(longer) == "lipschitz=spectral lipschitz_bound=5 steps=30000"
    assert lipschitz_arms.text(longer._replace(mechanism="none"), episodes=5) == "steps=30000 episodes=5"
    hosted = longer._replace(steps=0, host=True)
    assert lipschitz_arms.text(hosted) == "lipschitz=spectral lipschitz_bound=5 host=True"
    of = lambda arm: ensemble_vs_lipschitz.Group(arm, (0,), ensemble_vs_lipschitz.Options(env="hopper"), None)  # noqa: E731
    assert of(hosted).run_ids != of(hosted._replace(host=False)).run_ids
    config = longer.config("hopper", "quick")
    assert (config.steps, config.evaluations, config.lipschitz) == (30_000, lipschitz_arms.EVALUATIONS, "spectral")
    assert dataclasses.replace(config, steps=6_000, evaluations=10) == longer._replace(steps=0).config(
        "hopper", "quick"
    )
    assert lipschitz_arms.steps_of("hopper", "quick", 30_000) == 30_000
    assert lipschitz_arms.steps_of("hopper", "quick", 6_000) == lipschitz_arms.steps_of("hopper", "quick", 0) == 0
    assert {arm.steps for arm in lipschitz_arms.chosen("sac,sac-utd", "", steps=30_000)} == {30_000}


def test_an_arm_that_extends_another_says_so_and_is_refused_without_it(tmp_path):
    arm = Arm("sac", LAYER_NORM, 82_000, host=True, extends=True)
    assert lipschitz_arms.text(arm) == "steps=82000 layer_norm=True host=True extends=True"
    asked = lipschitz_arms.asked("hopper", LONG, "sac", LAYER_NORM, steps=82_000, host=True, extend=True)
    assert asked == (arm,)
    for steps in (0, 42_000, 41_000):
        with pytest.raises(UserError, match="--extend goes on to more than the preset's 42000 steps"):
            lipschitz_arms.asked("hopper", LONG, steps=steps, extend=True)
    chosen = ensemble_vs_lipschitz.Options(env="hopper", preset=LONG, out=tmp_path)
    group, anew = (ensemble_vs_lipschitz.Group(one, (0,), chosen, None) for one in (arm, arm._replace(extends=False)))
    assert group.frozen == {**anew.frozen, "extends": 42_000} and group.run_ids != anew.run_ids
    assert group.shorter.arm == Arm("sac", LAYER_NORM, host=True)
    with pytest.raises(UserError, match="run the same command without --steps and --extend first"):
        ensemble_vs_lipschitz.extend(group)


def test_an_arm_that_extends_another_takes_its_diagnostics_along(monkeypatch, tmp_path):
    laid = []
    monkeypatch.setattr(ensemble_vs_lipschitz.extended, "lay", lambda *arguments: laid.append(arguments))
    chosen = ensemble_vs_lipschitz.Options(env="pendulum", preset="smoke", out=tmp_path)
    group = ensemble_vs_lipschitz.Group(Arm("sac", steps=280, extends=True), (0, 1), chosen, None)
    old, file = group.shorter, tmp_path / EXPERIMENT / ensemble_vs_lipschitz.DIAGNOSTICS
    with rundir.open_run(tmp_path, EXPERIMENT, old.label, old.shown(), old.id, False) as directory:
        rows = [
            {"key_id": f"{run_id}-{at}", "run_id": run_id, "evaluation": at, "value_error": 1.5}
            for run_id in (*old.run_ids, "another")
            for at in (1, 2)
        ]
        rundir.upsert_rows(file, rows, ensemble_vs_lipschitz.DIAGNOSTIC_COLUMNS, "key_id")
        directory.finish("finished")
    for _ in range(2):  # it can be asked again
        ensemble_vs_lipschitz.extend(group)
    found = [row for row in rundir.read_rows(file) if row["run_id"] in group.run_ids]
    assert {(row["key_id"], row["value_error"]) for row in found} == {
        (f"{run_id}-{at}", 1.5) for run_id in group.run_ids for at in (1, 2)
    }
    shorter, finished, longer, folder = laid[0]
    assert (shorter.config, longer.config) == (old.frozen, group.frozen)
    assert finished == directory.path and folder.name.startswith("sac-none-pendulum-280-on-")


def test_without_a_choice_the_quick_preset_also_trains_who_solves_the_task():
    (longer,) = set(lipschitz_arms.every("pendulum", "quick")) - set(lipschitz_arms.ARMS)
    (solved,) = (one for one in lipschitz_claims.CLAIMS if one.id == "pendulum-longer-mbpo-solves")
    assert solved.needs == (longer.needed("pendulum"),)
    for env, preset in (("pendulum", "smoke"), ("pendulum", "paper"), ("hopper", "quick")):
        assert lipschitz_arms.every(env, preset) == lipschitz_arms.ARMS


def test_layer_normalisation_is_an_arm_where_it_is_asked_for():
    chosen = lipschitz_arms.chosen
    assert chosen("", "") == ARMS and all(arm.mechanism != LAYER_NORM for arm in ARMS)
    names = "probabilistic-ensemble,sac-utd"
    assert chosen(names, LAYER_NORM) == tuple(Arm(name, LAYER_NORM) for name in names.split(","))
    both = chosen(names, f"{LAYER_NORM},spectral", host=True)
    assert {(arm.model, arm.mechanism) for arm in both} == {
        *itertools.product(["probabilistic-ensemble"], ["spectral", LAYER_NORM]),
        *itertools.product(["sac-utd"], ["none", LAYER_NORM]),
    }
    config = Arm("sac-utd", LAYER_NORM).config("hopper", "quick")
    assert config.layer_norm and config.actor_critic().layer_norm
    assert dataclasses.replace(config, layer_norm=False) == QUICK["hopper"][Arm("sac-utd")]
    assert lipschitz_arms.text(Arm("sac-utd", LAYER_NORM, host=True)) == "layer_norm=True host=True"


def test_the_long_preset_has_settings_of_its_own_and_few_arms():
    arms = lipschitz_arms.asked("hopper", LONG, host=True)
    assert {(arm.model, arm.mechanism, arm.host) for arm in arms} == {
        *itertools.product([lipschitz_arms.LEARNER, "sac-utd"], [LAYER_NORM, "none"], [True])
    }
    assert lipschitz_arms.asked("hopper", LONG, "sac", steps=3_000) == (Arm("sac", steps=3_000),)
    assert lipschitz_arms.asked("hopper", "quick", host=True) == lipschitz_arms.chosen("", "", host=True)
    assert lipschitz_arms.asked("pendulum", "quick") == lipschitz_arms.every("pendulum", "quick")
    assert lipschitz_arms.asked("pendulum", "quick", steps=5_000) == ARMS  # so many and no more
    ours, quick = (Arm(lipschitz_arms.LEARNER).config("hopper", preset) for preset in (LONG, "quick"))
    assert ours.utd == quick.utd and ours.hidden == quick.hidden and ours.steps > quick.steps
    settings.require_positive(ours)
    needs = {need for one in lipschitz_claims.CLAIMS if one.family.endswith(LONG) for need in one.needs}
    assert needs == {arm.needed("hopper") for arm in arms if arm != Arm("sac-utd", host=True)}


def test_published_run_ids_are_those_of_the_arms_they_name():
    """Options and settings that came later must not rename what was run."""
    published = rundir.read_rows(publishing.RESULTS / EXPERIMENT / "summary.csv")
    known = {}
    for row in published:
        env, text = row["dataset"], row["settings"]
        line = row["algo"], env, text
        if line not in known:
            fields = itertools.product(EVERY_MECHANISM, (0, int(row["env_steps"])), (False, True), (False, True))
            fields = (own for own in fields if own[1] or not own[3])
            (arm,) = (arm for more in fields if lipschitz_arms.text(arm := Arm(row["algo"], *more)) == text)
            chosen = ensemble_vs_lipschitz.Options(env=env, preset=row["preset"])
            known[line] = ensemble_vs_lipschitz.Group(arm, tuple(range(100)), chosen, None).run_ids
        assert known[line][int(row["seed"])] == row["run_id"]
    assert len(known) >= 34


# --- probes ---
def test_in_all_published_rows_the_value_aware_error_is_below_an_eighth_of_the_bound():
    """As lipschitz_probes says; with the policy in the value, the critics' bound would not have to hold."""
    for name in ("summary.csv", "diagnostics.csv"):
        rows = pd.read_csv(publishing.RESULTS / EXPERIMENT / name).dropna(subset=["value_error", "lipschitz_upper"])
        assert len(rows) > 150
        assert (rows["value_error"] < rows["lipschitz_upper"] * rows["model_error"] / 8).all()


def test_rewards_to_go_are_discounted_sums_that_end_with_the_rows():
    reward = jnp.array([1.0, 2.0, 3.0, 99.0])
    rows = Transition(jnp.zeros((4, 1)), None, reward, jnp.array([1.0, 0.0, 1.0, 1.0]), None)
    found = lipschitz_probes.rewards_to_go(rows, jnp.int32(3), jnp.float32(0.5))
    np.testing.assert_allclose(found, [2.0, 2.0, 3.0, 0.0])


# --- claims ---
def rows(seeds=3, **changes):
    """Made-up rows of all arms, whose value error is their slope."""
    noise, found = np.random.default_rng(0), []
    for number, arm in enumerate(ARMS):
        for seed in range(seeds):
            row = dict.fromkeys(ensemble_vs_lipschitz.COLUMNS, 0.5) | {"run_id": f"{number}-{seed}", "seed": seed}
            row |= {"algo": arm.model, "settings": lipschitz_arms.text(arm), "dataset": "pendulum", "preset": "quick"}
            row |= {"status": "finished", "return_last": -200.0 + noise.normal(), "solved": -250.0}
            row |= {"lipschitz_upper": 1.0 + number, "slope_mean": 20.0 - number, "value_error": 2.0 + number}
            row |= {"env_steps": 1000, "explore": 100, "model_error": 0.1, "log_model_error": noise.normal() / 100}
            found.append(row | changes)
    return found


def test_claims_say_what_the_rows_show():
    found = {finding.claim.id: finding for finding in judge(lipschitz_claims.CLAIMS, rows())}
    assert len(found) == len(lipschitz_claims.CLAIMS)
    assert found["pendulum-mbpo-solves"].verdict == "supported"
    assert found["pendulum-probabilistic-single-spectral-no-worse"].verdict == "supported"
    assert found["pendulum-deterministic-model-error-alike"].verdict == "supported"
    assert found["pendulum-probabilistic-adversarial-beats-random"].verdict == "inconclusive"
    assert found["pendulum-value-error-follows-lipschitz_upper"].interval.estimate == pytest.approx(1.0)
    assert found["pendulum-value-error-follows-slope_mean"].verdict == "not supported"
    assert found["cartpole-mbpo-solves"].interval.n == 0


def test_a_correlation_takes_seeds_that_finished_every_arm():
    some = [row | ({"status": "diverged"} if row["run_id"] == "3-1" else {}) for row in rows()]
    (claim,) = (c for c in lipschitz_claims.CLAIMS if c.id == "pendulum-value-error-follows-lipschitz_upper")
    assert claim.evidence(some).seeds == (0, 2)


def test_claims_at_other_steps_have_rows_of_their_own():
    (hops, beats) = (claim for claim in lipschitz_claims.CLAIMS if claim.family == "hopper at 30,000 steps")
    at = {"dataset": "hopper", "settings": "steps=30000"}
    ours = [row | at | {"return_last": 1_500.0} for row in rows() if row["algo"] == "probabilistic-ensemble"][:3]
    theirs = [row | at | {"return_last": 300.0} for row in rows() if row["algo"] == "sac-utd"]
    np.testing.assert_allclose(hops.evidence(ours).differences, [500.0] * 3)
    np.testing.assert_allclose(beats.evidence([*ours, *theirs]).differences, [1_200.0] * 3)
    short = [row | {"settings": ""} for row in ours]
    assert not len(hops.evidence(short).differences) and not len(beats.evidence([*short, *theirs]).differences)
    preset = next(claim for claim in lipschitz_claims.CLAIMS if claim.id == "hopper-mbpo-solves")
    assert not len(preset.evidence(ours).differences) and len(preset.evidence(short).differences) == 3


def test_every_claim_rests_on_runs_that_its_command_makes_from_nothing():
    """Runs that are extended are made by a part of the command before, with the same seeds in one program."""
    needs = {}
    for claim in lipschitz_claims.CLAIMS:
        finding = judge([claim], [])[0]._replace(seeds=(0, 1, 2))
        command = claims.record(finding, claim.preset or "quick")["command"]
        needs.setdefault(command, set()).update(claim.needs)
    for command, needed in needs.items():
        made = []
        for part in command.split(" && "):
            words, usual = part.split()[3:], ensemble_vs_lipschitz.Options()
            chosen = options.parse(ensemble_vs_lipschitz.Options, words, usual, "test", "")
            named = chosen.models, chosen.mechanisms, chosen.steps, chosen.host, chosen.extend
            arms = lipschitz_arms.asked(chosen.env, chosen.preset, *named)
            assert chosen.seeds == "0:3"
            assert {arm._replace(steps=0, extends=False) for arm in arms if arm.extends} <= set(made)
            made += arms
        assert needed <= {arm.needed(chosen.env) for arm in made}, command


def test_claims_of_a_preset_are_not_judged_by_the_runs_of_another(tmp_path):
    (hops,) = (one for one in lipschitz_claims.CLAIMS if one.id == "hopper-long-mbpo-hops")
    text = lipschitz_arms.text(Arm(lipschitz_arms.LEARNER, LAYER_NORM, host=True))
    mine = [row for row in rows() if row["algo"] == lipschitz_arms.LEARNER][:3]
    found = {
        preset: judge([hops], [row | {"dataset": "hopper", "settings": text, "preset": preset} for row in mine])[0]
        for preset in ("quick", LONG)
    }
    assert found["quick"].interval.n == 0 and found[LONG].interval.n == 3
    assert f"--mechanisms=layer-norm --preset={LONG}` |" in claims.overview(tmp_path)


# --- compute saved at equal return ---
ENSEMBLE, SINGLE = Arm("probabilistic-ensemble"), Arm("probabilistic-single", "spectral")


def curved(arm, returns, seed=0):
    """A row of pendulum with a curve of evenly spaced evaluations."""
    row = {"algo": arm.model, "settings": lipschitz_arms.text(arm), "dataset": "pendulum", "preset": "quick"}
    curve = [{"update": 100 * (at + 1), "return_mean": value} for at, value in enumerate(returns)]
    return row | {"seed": seed, "status": "finished", "return_last": returns[-1], curves.CURVE: curve}


def cost(arm):
    return lipschitz_saved.per_step(registry.spec("pendulum"), QUICK["pendulum"][arm])


def saved(*made, margin=10.0):
    return lipschitz_saved.saved(ENSEMBLE, SINGLE, "pendulum", margin)(made)


def test_operations_are_those_of_the_first_evaluation_at_the_target():
    # Target -110: the ensemble is there at 3 of 4 evaluations, the single model at 1 of 2, though it falls back.
    made = curved(ENSEMBLE, [-900.0, -300.0, -105.0, -100.0]), curved(SINGLE, [-110.0, -500.0])
    found = saved(*made)
    assert found.seeds == (0,)
    assert found.differences[0] == pytest.approx(np.log2(0.75 * cost(ENSEMBLE) / (0.5 * cost(SINGLE))))


def test_runs_that_never_get_there_speak_against_the_claim():
    late = lipschitz_saved.LATE
    never = saved(curved(ENSEMBLE, [-900.0, -100.0]), curved(SINGLE, [-900.0, -111.0])).differences[0]
    assert never == pytest.approx(np.log2(cost(ENSEMBLE) / (late * cost(SINGLE)))) and never < 0
    # The target is -510, the mean of -100 and -900 less 10: the second ensemble counts with what it spent, no more.
    ensembles = [curved(ENSEMBLE, [-100.0, -100.0]), curved(ENSEMBLE, [-900.0, -900.0], seed=1)]
    both = saved(*ensembles, curved(SINGLE, [-900.0, -900.0]), curved(SINGLE, [-900.0, -100.0], seed=1)).differences
    ratio = cost(ENSEMBLE) / cost(SINGLE)
    np.testing.assert_allclose(both, np.log2([0.5 * ratio / late, ratio]))


def test_without_curves_or_partners_nothing_is_found():
    ensemble, single = curved(ENSEMBLE, [-100.0]), curved(SINGLE, [-100.0])
    bare = {name: value for name, value in single.items() if name != curves.CURVE}
    for made in ([ensemble, bare], [single], [ensemble, single | {"seed": 1}], [ensemble | {"status": "diverged"}]):
        assert not len(saved(*made).differences)


def test_the_list_of_claims_counts_those_without_runs(tmp_path):
    command = "`python -m experiments.ensemble_vs_lipschitz --env=hopper` |"
    assert f"| ensemble_vs_lipschitz: hopper | 17 | {command}" in claims.overview(tmp_path)
    folder = tmp_path / EXPERIMENT
    folder.mkdir()
    one = {"id": "hopper-mbpo-solves", "estimate": 1.0, "ci_low": 0.5, "ci_high": 1.5}
    pd.DataFrame([dict.fromkeys(claims.COLUMNS, "x") | one]).to_csv(folder / "claims.csv", index=False)
    judged, _, lacking = claims.overview(tmp_path).partition("## No runs yet")
    assert "1.00 [0.50, 1.50]" in judged and f"| ensemble_vs_lipschitz: hopper | 16 | {command}" in lacking


# --- after a run ---
@pytest.mark.parametrize("mechanism, told", [("spectral", 1), ("none", 0)])
def test_a_run_whose_bound_is_below_the_slope_of_its_returns_says_so(mechanism, told, monkeypatch, tmp_path):
    notes = []
    display = types.SimpleNamespace(note=notes.append)
    group = ensemble_vs_lipschitz.Group(
        Arm("deterministic-single", mechanism), (0, 1), ensemble_vs_lipschitz.Options(), display
    )
    measured = dict.fromkeys(lipschitz_probes.MEASURES, 1.0) | {"lipschitz_upper": 4.0, "slope_needed": 5.0}
    rows = [{"key_id": run_id, "run_id": run_id, "evaluation": 1, **measured} for run_id in group.run_ids]
    rundir.upsert_rows(tmp_path / ensemble_vs_lipschitz.DIAGNOSTICS, rows, list(rows[0]), "key_id")
    taken = dict.fromkeys(ensemble_vs_lipschitz.PARTS, 1.0)
    monkeypatch.setattr(lipschitz_probes, "seconds", lambda *_: taken)
    found = [{"run_id": run_id} for run_id in group.run_ids]
    group.complete(found, None, types.SimpleNamespace(result=None), tmp_path / "run")
    assert found[1]["slope_needed"] == 5.0 and found[1]["seconds_seed"] == 1.5
    assert len(notes) == told and all("raise the bound" in note for note in notes)


# --- figures ---
def test_figures_are_drawn_per_task_from_the_files_alone(tmp_path):
    folder = tmp_path / EXPERIMENT
    folder.mkdir()
    made = rows()
    pd.DataFrame(made).to_csv(folder / "summary.csv", index=False)
    points = [
        {"run_id": row["run_id"], "seed": row["seed"], "update": update, "return_mean": -1.0 * update}
        | {"score": 0.0, "q_start": 0.0, "mc_start": 0.0, "schema_version": curves.SCHEMA_VERSION}
        for row in made
        for update in (10, 20)
    ]
    pd.DataFrame(points)[list(curves.COLUMNS)].to_csv(folder / curves.CURVES, index=False)
    drawn = figures.draw(tmp_path)
    assert set(drawn) == {f"{EXPERIMENT}/pendulum-{name}" for name in ("returns", "arms", "pareto")}
    lines = drawn[f"{EXPERIMENT}/pendulum-returns"].axes[0].lines
    assert len(lines) == len(MECHANISMS) + 2
    assert {line.get_label() for line in lines} > {"MBPO", "MBPO, spectral", "SAC"}
    np.testing.assert_allclose(lines[0].get_xdata(), [550, 1000])
    operations, _, seconds, _ = drawn[f"{EXPERIMENT}/pendulum-pareto"].axes
    # A column of each kind: 4 ensembles, 4 single models and both SACs, each with its curve, interval and last point.
    assert len(operations.lines) == len(seconds.lines) == 3 * (2 * len(MECHANISMS) + 2)
    cost = lipschitz_saved.per_step(registry.spec("pendulum"), QUICK["pendulum"][ARMS[0]])
    np.testing.assert_allclose(operations.lines[0].get_xdata(), [450e-12 * cost, 900e-12 * cost])
    np.testing.assert_allclose(seconds.lines[0].get_xdata(), [0.25, 0.5])


def test_large_marks_are_means_and_seeds_far_below_the_rest_are_told_of_at_the_edge():
    returns = [-100.0, -110.0, -120.0, -130.0, -3000.0]
    found = pd.DataFrame({"return_last": returns, "value_error": [1.0, 2.0, 4.0, 8.0, 16.0], "seconds_seed": 1.0})
    found = found.assign(algo="probabilistic-single", mechanism="none")
    axes = Figure().subplots()
    axes.set(xscale="log")
    figures._points(axes, found, "seconds_seed", "return_last")
    np.testing.assert_allclose(axes.collections[1].get_offsets()[0], [1.0, np.mean(returns)])
    figures._cut(axes, found, "seconds_seed", "return_last")
    assert axes.get_ylim()[0] == axes.lines[-1].get_ydata()[0] == -210.0  # four times 20 below the quartile -130
    assert axes.texts[0].get_text().startswith("arrows: 1 below, -3000")
    np.testing.assert_allclose(figures._mean(found["value_error"].to_numpy(), "log")[0], 4.0)


def test_runs_of_other_steps_have_a_figure_of_their_own(tmp_path):
    folder = tmp_path / EXPERIMENT
    folder.mkdir()
    made = [row for row in rows(2) if row["algo"] in ("probabilistic-ensemble", "sac-utd") and not row["settings"]]
    longer = [row | {"run_id": f"L{row['run_id']}", "settings": "steps=2000", "env_steps": 2000} for row in made]
    hosted = [row | {"run_id": f"H{row['run_id']}", "settings": "host=True"} for row in made]
    other = [row | {"run_id": f"O{row['run_id']}", "settings": "episodes=5"} for row in made]
    pd.DataFrame([*made, *longer, *hosted, *other]).to_csv(folder / "summary.csv", index=False)
    points = [
        {"run_id": row["run_id"], "seed": row["seed"], "update": 10, "return_mean": float(len(row["settings"]))}
        | {"score": 0.0, "q_start": 0.0, "mc_start": 0.0, "schema_version": curves.SCHEMA_VERSION}
        for row in (*made, *longer, *hosted, *other)
    ]
    pd.DataFrame(points)[list(curves.COLUMNS)].to_csv(folder / curves.CURVES, index=False)
    drawn = figures.draw(tmp_path)
    stem = f"{EXPERIMENT}/pendulum"
    wanted = {"": (1000, 0.0), "-steps=2000": (2000, 10.0), "-host=True": (1000, 9.0)}
    assert set(drawn) == {f"{stem}{name}-returns" for name in wanted}
    for name, (steps, value) in wanted.items():
        for line in drawn[f"{stem}{name}-returns"].axes[0].lines:
            assert (line.get_xdata()[0], line.get_ydata()[0]) == (steps, value)


# --- the command ---
def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["ensemble_vs_lipschitz", *words])
    with pytest.raises(SystemExit) as stopped:
        ensemble_vs_lipschitz.main()
    return stopped.value.code


@pytest.mark.parametrize(
    "words, said",
    [
        (["--env=humanoid"], "environment of this experiment"),
        (["--models=both"], "arm"),
        (["--mechanisms=spectrum"], "spectral"),
        (["--models=sac", "--mechanisms=spectral"], "SAC takes none or layer-norm"),
        (["--preset=fast"], "preset"),
        (["--preset=long"], "has settings for hopper, not for pendulum"),
        (["--episodes=0"], "at least 1"),
        (["--host"], "Pendulum-v1 is a pure environment"),
        (["--env=hopper", "--steps=-1"], "expected 1000 steps of exploration and a multiple of 125"),
        (["--env=hopper", "--steps=1000"], "or 0 for the preset's 6000"),
        (["--env=hopper", "--steps=30001"], "such as 11000"),
        (["--extend"], "goes on to more than the preset's 5000 steps"),
        (["--extend", "--steps=10000", "--models=sac"], "run the same command without --steps and --extend first"),
        (["--extend", "--steps=10000", "--fresh"], "--fresh starts over"),
        (["--publish", "--preset=smoke"], "only try the code"),
        (["--publish", "--seeds=1000:1002"], "reported seeds, 0 to 99"),
    ],
)
def test_bad_options_are_refused_in_one_line(words, said, monkeypatch, capsys, tmp_path):
    assert run(monkeypatch, *words, f"--out={tmp_path}") == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_leaves_rows_and_diagnostics_and_is_not_repeated(monkeypatch, capsys, tmp_path):
    words = ["--preset=smoke", "--models=deterministic-single,sac", "--mechanisms=spectral", "--seeds=2"]
    words += ["--episodes=2", f"--out={tmp_path}"]
    assert run(monkeypatch, *words) == 0
    found = rundir.read_rows(tmp_path / EXPERIMENT / "summary.csv")
    assert len(found) == 4 and {row["status"] for row in found} == {"finished"}
    for row in found:
        modelled = row["algo"] != "sac"
        assert np.isfinite([row["value_error"], row["model_error"]]).all() == modelled
        assert row["slope_found"] <= row["lipschitz_upper"] and row["seconds_learn"] > 0
        assert (row["seconds_fit"] > 0) == modelled
    told = rundir.read_rows(tmp_path / EXPERIMENT / "diagnostics.csv")
    assert len(told) == 2 * len(found)
    capsys.readouterr()
    assert run(monkeypatch, *words) == 0
    assert capsys.readouterr().out.count("has finished before") == 2
