"""The box's agents, studies, claims and command."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from experiments import (
    at_once,
    box_agent,
    box_claims,
    box_probes,
    box_studies,
    curves,
    diagnosis,
    edge_claims,
    edge_of_reach,
    edge_probes,
    edge_runs,
    edge_tasks,
    offline_mbrl,
    options,
    publishing,
    reproduce,
)
from experiments.box_studies import STUDIES, Arm
from jaxrl_suite import data
from jaxrl_suite.algorithms import actor_critic
from jaxrl_suite.algorithms.ideas import State
from jaxrl_suite.envs import box
from jaxrl_suite.errors import UserError
from jaxrl_suite.models import oracle
from jaxrl_suite.report import stats
from jaxrl_suite.sweep import tasks
from jaxrl_suite.train import rundir
from jaxrl_suite.types import Transition
from paper_figs import edge_of_reach as figures
from paper_figs import style

GAMMA, K = 0.9, 3
GRID = box.Grid(jnp.arange(25.0).reshape(5, 5), jnp.float32(8.0))


class Learner:
    """What the box's ideas read of a learner."""

    def __init__(self, **hypers):
        self.hypers = box_agent.Hypers(gamma=GAMMA, **{"horizon": K, **hypers})


def state(**hypers):
    return State(Learner(**hypers), None, None, None, GRID)


def batch():
    """Every fourth target is at the edge of reach: 4 < |s'| <= 5."""
    far = jnp.tile(jnp.array([1.0, 4.5, 4.0, 2.0]), 8)
    after = jnp.stack([far, jnp.linspace(-1.0, 1.0, 32)], axis=-1)
    return Transition(after - 0.5, jnp.full((32, 2), 0.5), jnp.arange(32.0), jnp.ones(32), after)


def relabelled(**hypers):
    return box_agent.patched(None, state(**hypers), batch(), jax.random.key(0))


# --- what networks see ---
def test_networks_see_states_times_the_members_scale():
    """The same weights at another scale are those of states so much larger."""
    config = dataclasses.replace(box_agent.PRESETS["smoke"], critics=3, diversity=1.0)
    plain = actor_critic.make(box.SPEC, config.actor_critic(), diverse=True)
    agent, key = box_agent.scaled(plain), jax.random.key(3)
    half, one = (
        plain.init(key, config.hypers(1.0, box_agent.Hypers, scale=scale), jnp.zeros(8)) for scale in (0.5, 1.0)
    )
    rows = batch()
    twice = rows._replace(obs=2.0 * rows.obs, next_obs=2.0 * rows.next_obs)
    for name in ("policy", "act", "q_value", "values"):
        last = {"policy": (key,), "act": ((), key)}.get(name, (rows.action,))
        found, known = (
            getattr(ac, name)(*((state, last[0], obs, last[1]) if name == "act" else (state, obs, *last)))
            for ac, state, obs in ((agent, half, twice.obs), (plain, one, rows.obs))
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, known)
    mine, theirs = agent.update(half, twice, key)[0], plain.update(one, rows, key)[0]
    for a, b in zip(jax.tree.leaves(mine.critic), jax.tree.leaves(theirs.critic), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


# --- patches ---
def test_without_a_patch_a_batch_stays_as_it_is():
    for old, new in zip(batch(), relabelled(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_an_edge_patch_puts_the_true_value_into_edge_targets_alone():
    old, new = batch(), relabelled(edge_patch=1.0)
    edge = np.arange(32) % 4 == 1
    true = np.asarray(box.look_up(GRID, old.next_obs))
    np.testing.assert_allclose(new.reward, np.where(edge, old.reward + GAMMA * true, old.reward), rtol=1e-6)
    np.testing.assert_array_equal(new.discount, ~edge)
    np.testing.assert_array_equal(new.next_obs, old.next_obs)


def test_a_random_patch_changes_as_many_targets_elsewhere():
    old, new = batch(), relabelled(random_patch=1.0)
    patched = np.asarray(new.discount) == 0
    assert patched.sum() == 8
    assert not patched[np.arange(32) % 4 == 1].any()
    true = np.asarray(box.look_up(GRID, old.next_obs))
    np.testing.assert_allclose(new.reward, np.where(patched, old.reward + GAMMA * true, old.reward), rtol=1e-6)


def test_each_member_is_paid_by_its_own_field():
    model = oracle.make(box.make())
    obs, action = jnp.array([[1.0, 0.0], [4.0, 1.0]]), jnp.array([[1.0, 0.0], [0.5, -1.0]])
    start = jax.vmap(lambda obs: box.restore(obs, None))(obs)
    params = model.init(jax.random.key(0), None)
    for distance, width in ((5.0, 2.0), (11.0, 3.0)):
        changed = box_agent.rewarded(model, state(distance=distance, width=width))
        _, prediction = changed.step(params, start, action, jax.random.key(0))
        np.testing.assert_allclose(prediction.obs, obs + action)
        np.testing.assert_allclose(prediction.reward, box.reward(box.at(distance, width), obs + action), rtol=1e-6)


def test_the_edge_is_that_of_the_members_own_rollouts():
    share = lambda k: float(box_agent.watched(None, state(horizon=k), batch(), jax.random.key(0))["edge_targets"])  # noqa: E731
    assert [share(k) for k in (1, 2, 3, 4)] == [0.0, 0.25, 0.25, 0.0]  # 2 < |s'| <= 3, 3 < |s'| <= 4, ...


@pytest.mark.parametrize("k", [1, 4, 20, 30])
def test_of_a_rollout_only_the_members_own_steps_are_left_each_as_often(k):
    rollouts = 400
    row = jnp.arange(30.0 * rollouts).reshape(30, rollouts)
    rollout = Transition(jnp.stack([row, -row], -1), row[..., None], row, jnp.ones_like(row), jnp.stack([row, row], -1))
    kept, _ = box_agent.shortened(None, state(horizon=k), rollout, row >= 0, jax.random.key(0))
    np.testing.assert_array_equal(kept.reward[:k], row[:k])  # the first k steps stay where they are
    np.testing.assert_array_equal(kept.reward % rollouts, row % rollouts)  # every row is of its own rollout
    np.testing.assert_array_equal(kept.obs, jnp.stack([kept.reward, -kept.reward], -1))  # and whole
    np.testing.assert_array_equal(kept.action[..., 0], kept.reward)
    counts = np.bincount(np.asarray(kept.reward // rollouts, int).ravel(), minlength=30)
    assert not counts[k:].any()
    np.testing.assert_allclose(counts[:k], 30 * rollouts / k, rtol=0.15)


# --- probes ---
def test_a_shell_holds_the_states_of_its_reach_on_all_sides():
    obs = np.asarray(box_probes.shell(jax.random.key(0), jnp.int32(4)))
    reach = np.asarray(box.reach(obs))
    assert (reach > 4.0 - 1e-5).all() and (reach <= 5.0 + 1e-5).all()
    assert {(axis, sign) for axis, sign in zip(np.abs(obs).argmax(1), np.sign(obs).sum(1) > 0, strict=True)} == {
        (axis, sign) for axis in (0, 1) for sign in (False, True)
    }


def test_the_effect_is_cohens_d():
    there, here = np.array([5.0, 7.0]), np.array([1.0, 2.0, 3.0])
    assert stats.effect_size(there, here) == pytest.approx((6.0 - 2.0) / np.sqrt((2.0 + 1.0) / 2))
    assert np.isnan(stats.effect_size(there[:0], here))


# --- studies and claims ---
def test_a_setting_has_one_name_in_all_studies():
    names: dict = {}
    for arm in (arm for study in STUDIES.values() for arm in study.arms):
        assert names.setdefault(arm.config("quick"), arm) == arm
    for study in STUDIES.values():
        assert len(set(study.arms)) == len(study.arms) > 0
    assert Arm("base") in STUDIES["diversity"].arms  # two critics, their diversity with a weight of zero


def test_members_of_a_group_differ_in_traced_numbers_only():
    traced = ("diversity", *box_agent.TRACED)
    for study in STUDIES.values():
        for group in box_studies.groups(study.arms, "quick"):
            configs = [arm.config("quick") for arm in group]
            assert len({dataclasses.replace(config, **dict.fromkeys(traced, 0.0)) for config in configs}) == 1
            assert len({config.diversity > 0 for config in configs}) == 1  # zero is another program


@pytest.mark.parametrize(
    ("names", "programs"),
    [(box_studies.USUAL, 9), (("rim", "inner"), 4), (("networks",), 12), (("norm",), 2), (tuple(STUDIES), 18)],
)
def test_studies_are_trained_by_few_programs_each_member_once_with_the_most_seeds_asked_for(names, programs):
    chosen = edge_of_reach.Options(episodes=edge_of_reach.EPISODES)
    groups = edge_of_reach.groups_of([STUDIES[name] for name in names], chosen)
    assert len(groups) == programs
    ids = [run_id for group in groups for run_id in group.run_ids]
    most: dict = {}
    for study, arm in ((STUDIES[name], arm) for name in names for arm in STUDIES[name].arms):
        most[arm] = max(most.get(arm, 0), study.seeds)
    assert len(ids) == len(set(ids)) == sum(most.values())
    costs = [group.cost for group in groups]
    assert costs == sorted(costs, reverse=True)  # the longest first, so that no process is left alone with it


def test_every_study_finds_its_rows_with_its_own_seeds(tmp_path):
    """Whatever study they were trained for: the map of rewards has two seeds, also of what methods have eight of."""
    chosen = edge_of_reach.Options(out=tmp_path, episodes=edge_of_reach.EPISODES)
    wanted = [STUDIES[name] for name in ("methods", "horizons", "rewards")]
    groups = edge_of_reach.groups_of(wanted, chosen)
    ids = [run_id for group in groups for run_id in group.run_ids]
    (folder := tmp_path / "edge_of_reach").mkdir()
    rundir.upsert_rows(folder / "summary.csv", [{"run_id": run_id} for run_id in ids], ["run_id"])
    assert all(edge_of_reach._made(group, chosen) for group in edge_of_reach.groups_of(wanted[:1], chosen))
    for study in wanted:
        rows = edge_of_reach.rows_of(study, groups, chosen)
        assert len({row["run_id"] for row in rows}) == len(rows) == study.seeds * len(study.arms)


def test_a_program_is_made_when_all_its_members_have_rows(tmp_path):
    chosen = edge_of_reach.Options(preset="smoke", out=tmp_path, episodes=edge_of_reach.EPISODES, seeds="2")
    wanted = [STUDIES["methods"], STUDIES["horizons"]]
    groups = edge_of_reach.groups_of(wanted, chosen)
    assert len(groups) == len(edge_of_reach.groups_of(wanted[:1], chosen)) == 3
    ids = [run_id for group in groups for run_id in group.run_ids]
    (folder := tmp_path / "edge_of_reach").mkdir()
    rundir.upsert_rows(folder / "summary.csv", [{"run_id": run_id} for run_id in ids[:-1]], ["run_id"])
    assert [edge_of_reach._made(group, chosen) for group in groups] == [True, True, False]
    rundir.upsert_rows(folder / "summary.csv", [{"run_id": ids[-1]}], ["run_id"])
    assert all(edge_of_reach._made(group, chosen) for group in groups)


def test_every_claim_rests_on_a_study_that_its_command_makes():
    seeds = {(study.name, box_studies.needed(arm)): study.seeds for study in STUDIES.values() for arm in study.arms}
    for claim in box_claims.CLAIMS:
        made = claim.command.partition("--only=")[2].split(",")
        for need in claim.needs:
            assert max(seeds.get((name, need), 0) for name in made) >= 8, (claim.id, need)


def test_reproduce_says_who_makes_the_runs_of_a_claim_of_the_box():
    with pytest.raises(UserError, match=r"experiments\.edge_of_reach"):
        reproduce.chosen_claims(box_claims.CLAIMS[0].id)
    assert all(claim.experiment == "offline_mbrl" for claim in reproduce.chosen_claims(""))


def test_settings_are_named_against_the_method():
    assert box_studies.text(Arm("ravl"), "quick") == ""
    assert box_studies.text(Arm("ravl", (("critics", 2), ("distance", 9.0))), "quick") == "critics=2 distance=9"


# --- the command ---
def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["edge_of_reach", *words])
    with pytest.raises(SystemExit) as stopped:
        edge_of_reach.main()
    return stopped.value.code


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--world=bax", "did you mean box"),
        ("--only=method", "did you mean methods"),
        ("--methods=bsae", "did you mean base"),
        ("--preset=quik", "did you mean quick"),
        ("--horizon=31", "ends after 30 steps"),
        ("--horizon=0", "at least 1"),
        ("--horizon=ten", "no list of numbers"),
        ("--width=0", "must be above 0"),
        ("--scale=0,1", "--scale=0 must be above 0"),
        ("--world=hopper --scale=0.1", "--scale is for --world=box"),
        ("--seeds=none", "neither a count"),
        ("--world=hopper --distance=9", "--distance is for --world=box"),
        ("--world=hopper --only=rewards", "unknown study 'rewards'"),
        ("--world=hopper --preset=quik", "did you mean quick"),
        ("--world=hopper --publish --updates=5", "leave out --updates"),
        ("--world=hopper --publish --engine=mjx --episodes=3", "leave out --episodes, --engine"),
        ("--world=hopper --publish --dataset=hopper-medium-expert-mini", "leave out --dataset"),
        ("--world=pendulum --engine=mjx", "mjx an engine of MuJoCo's tasks; leave it out"),
        ("--world=hopper --engine=mjc", "invalid choice 'mjc'"),
        ("--world=hopper --dataset=pendulum-medium-replay-mini", "takes data of Hopper-v4"),
        ("--world=hopper --dataset=hoper", "hoper"),
        ("--dataset=hopper-medium-replay-mini", "leave them out with --world=box"),
        ("--engine=mjx", "leave them out with --world=box"),
        ("--world=hopper --publish --seeds=1000:1002", "reported seeds, 0 to 99"),
        ("--world=hopper --publish --preset=smoke", "only try the code"),
        ("--world=hopper --episodes=-1", "positive whole number"),
        ("--publish --episodes=5", "leave out --episodes=5"),
        ("--world=pendulun", "did you mean pendulum"),
        ("--workers=0", "between 1 and"),
        ("--workers=2 --fresh", "one process"),
        ("--only=methods --part=9", "there are 3 programs"),
        ("--only=methods --part=1 --workers=2", "leave out --publish and --workers"),
        ("--world=hopper --part=1", "--part is for --world=box"),
    ],
)
def test_bad_input_is_one_clear_line(monkeypatch, capsys, tmp_path, word, said):
    assert run(monkeypatch, *word.split(), "--out", str(tmp_path)) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.rglob("config.json"))


def test_a_study_of_ones_own_cannot_be_published(monkeypatch, capsys, tmp_path):
    assert run(monkeypatch, "--methods=base", "--publish", "--out", str(tmp_path)) == 2
    assert "whole studies" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", ["--preset=smoke --only=methods,diversity", "--preset=smoke --methods=base,ravl --distance=8,9 --seeds=2"]
)
def test_processes_are_told_to_train_the_very_groups(monkeypatch, tmp_path, words):
    """Every program of the command is one that a process of its own is told to make."""
    handed = []
    monkeypatch.setattr(at_once, "work_off", lambda runs, workers, console: handed.extend(runs) or 130)
    assert run(monkeypatch, *words.split(), "--workers=2", f"--out={tmp_path}") == 130
    groups = []
    for each in handed:
        chosen = options.parse(edge_of_reach.Options, tasks.words(each.task)[2:], edge_of_reach.Options(), "test", "")
        assert chosen.workers == 1 and not chosen.publish and chosen.out == tmp_path
        chosen = dataclasses.replace(chosen, episodes=chosen.episodes or edge_of_reach.EPISODES)
        group = edge_of_reach.groups_of(edge_of_reach.chosen_studies(chosen), chosen)[chosen.part - 1]
        assert (group.id, group.label, tuple(group.run_ids)) == (each.group, each.label, each.run_ids)
        groups.append(group.id)
    assert len(groups) == len(set(groups)) > 1


@pytest.mark.parametrize("made", [False, True])
def test_a_part_is_the_program_of_its_number_even_where_another_command_has_made_its_rows(monkeypatch, tmp_path, made):
    trained = []
    monkeypatch.setattr(edge_of_reach, "_made", lambda group, chosen: made)
    monkeypatch.setattr(edge_of_reach, "rows_of", lambda study, groups, chosen: [])
    monkeypatch.setattr(edge_of_reach, "judged", lambda rows, chosen, console: None)
    monkeypatch.setattr(edge_of_reach.studies, "run_group", lambda group, *rest: trained.append(group.id) or 0)
    chosen = edge_of_reach.Options(preset="smoke", only="methods", episodes=edge_of_reach.EPISODES)
    ids = [group.id for group in edge_of_reach.groups_of(edge_of_reach.chosen_studies(chosen), chosen)]
    for part in (1, 2, 3):
        assert run(monkeypatch, "--preset=smoke", "--only=methods", f"--part={part}", f"--out={tmp_path}") == 0
    assert trained == ids


def test_methods_that_settings_make_the_same_are_told(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(at_once, "work_off", lambda runs, workers, console: 130)
    words = ("--preset=smoke", "--workers=2", f"--out={tmp_path}", "--critics=3,5")
    assert run(monkeypatch, *words, "--methods=base,minimum") == 130
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("once: minimum critics=3 is base critics=3, minimum is base critics=5")
    assert run(monkeypatch, *words, "--methods=base,ravl") == 130
    assert capsys.readouterr().out == ""


# --- outside the box ---
def test_settings_of_the_tasks_are_written_as_their_rows_say_them():
    """And every study trains settings of its own, all of them at the same number of updates."""
    needs = [
        edge_tasks.needed(task, arm)
        for task in ("hopper", "pendulum")
        for study, arms in edge_tasks.of_task(task).items()
        for arm in arms
        if study != "patches" or "patch" in arm.changes  # the others of these are the methods' own
    ]
    assert len(set(needs)) == len(needs)
    for need in needs:
        _, entry, config = options.offline(reproduce.words_of(need, "0:5", reproduce.Options()), "test", "")
        task = need.dataset.partition("-")[0]
        assert edge_tasks.needed(task, edge_tasks.Arm(need.algo, changed(config, entry.presets["quick"]))) == need
        assert config.updates == {"hopper": 5_000, "pendulum": 10_000}[task]


def test_other_data_and_engines_are_those_of_the_runs_and_the_engine_steps_true_dynamics_alone():
    arms = [edge_tasks.Arm("mbpo", {"world": "interpolate", "accuracy": accuracy}) for accuracy in (-0.5, 0.5)]
    arms += [edge_tasks.Arm("mbpo", {}), edge_tasks.Arm("mbpo", edge_tasks.TRUE)]
    for preset in ("quick", "paper"):
        needs = [edge_tasks.needed("hopper", arm, preset, 0, "hopper-medium-replay-v2", "mjx") for arm in arms]
        assert {need.dataset for need in needs} == {"hopper-medium-replay-v2"}
        assert ["engine=mjx" in need.settings for need in needs] == [False, True, False, True]
    starts = {preset: edge_tasks.of_task("hopper", preset)["patches"][0].changes for preset in ("quick", "paper")}
    assert ("rollouts" in starts["quick"], "rollouts" in starts["paper"]) == (True, False)


def changed(config, preset):
    names = [field.name for field in dataclasses.fields(config)]
    return {name: getattr(config, name) for name in names if getattr(config, name) != getattr(preset, name)}


def test_every_claim_about_a_task_rests_on_runs_of_its_studies():
    trained = {
        edge_tasks.needed(task, arm)
        for task in edge_claims.MEASURE
        for arms in edge_tasks.of_task(task).values()
        for arm in arms
    }
    assert {need for claim in edge_claims.CLAIMS for need in claim.needs} <= trained


@pytest.mark.parametrize(
    ("changes", "said"), [({}, False), ({"preset": "paper"}, True), ({"updates": 50}, True), ({"world": "box"}, False)]
)
def test_where_claims_are_about_other_runs_it_is_said(changes, said, capsys):
    """They name the quick preset's settings: at another nothing was judged, and nothing said."""
    chosen = dataclasses.replace(edge_of_reach.Options(world="hopper"), **changes)
    edge_of_reach.judged([], chosen, Console())
    assert ("no verdicts: the claims about hopper are for --preset=quick" in capsys.readouterr().out) == said
    assert {claim.preset for claim in edge_claims.CLAIMS} == {"quick"}


def test_a_score_that_there_is_not_is_a_dash():
    """The pendulum has no reference scores: its table showed nan."""
    row = {"algo": "mbpo", "settings": "", "return_last": -500.0, "q_last": -9.0, "mc_last": -8.0, "spread_effect": 0.1}
    cells = {
        score: [column._cells[0] for column in edge_runs.table("", [row | {"score_last": score}]).columns]
        for score in (float("nan"), 12.34)
    }
    shown = {str(score): found[4] for score, found in cells.items()}
    assert shown == {"nan": "-", "12.34": "12.3"}


def test_a_task_is_trained_asked_and_found_again(monkeypatch, capsys, tmp_path):
    """One arm in a learned and in the true world: rows with what the critics say at the ends of rollouts."""
    pytest.importorskip("mujoco")
    arms = (edge_tasks.Arm("mbpo", {}), edge_tasks.Arm("mbpo", edge_tasks.TRUE))
    monkeypatch.setattr(edge_tasks, "STUDIES", {"methods": arms})
    words = ("--world=hopper", "--preset=smoke", "--updates=50", "--seeds=1000:1002", "--out", str(tmp_path))
    assert run(monkeypatch, *words) == 0
    assert "hopper: methods" in capsys.readouterr().out
    path = tmp_path / "edge_of_reach" / "summary.csv"
    rows = pd.read_csv(path)
    assert list(rows["accuracy"]) == [0.0, 0.0, 1.0, 1.0] and list(rows["seed"]) == [1000, 1001] * 2
    assert (rows["experiment"] == "edge_of_reach").all() and rows["run_id"].is_unique
    true = rows[rows["accuracy"] == 1.0]
    assert (true["edge_penalty"] == 0).all() and (true["inside_penalty"] == 0).all()
    assert (rows.loc[rows["accuracy"] == 0.0, "inside_penalty"] > 0).all()
    assert rows["edge_share"].between(0.0, 0.5 / 5).all()  # half of a batch is real, and rollouts have five steps
    before = path.read_bytes()
    assert run(monkeypatch, *words) == 0
    assert path.read_bytes() == before


def test_studies_that_share_arms_are_judged_with_each_of_their_rows_once(monkeypatch, tmp_path):
    """On pendulum the arms without a patch are those of the methods."""
    judged = []

    def found(need, shared, console):
        return 0, [
            {"run_id": f"{need}-{seed}", "algo": need.algo, "settings": need.settings, "seed": seed} for seed in (0, 1)
        ]

    monkeypatch.setattr(edge_runs, "run", found)
    monkeypatch.setattr(edge_runs, "table", lambda title, rows: "")
    monkeypatch.setattr(edge_of_reach, "judged", lambda rows, chosen, console: judged.extend(rows))
    assert run(monkeypatch, "--world=pendulum", "--only=methods,patches", f"--out={tmp_path}") == 0
    ids = [row["run_id"] for row in judged]
    assert len(ids) == len(set(ids)) == 2 * (7 + 2)


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["mopo", "mbpo", "morel", "combo", "rambo", "mobile", "ravl"])
def test_any_model_based_run_can_be_diagnosed(monkeypatch, capsys, tmp_path, algo):
    """And it is the same run: found again, not trained again, when it is asked later."""
    # Asked at once, it is asked at every evaluation: test_a_diagnosis_at_every_evaluation_compiles_once.
    words = [f"--algo={algo}", "--dataset=pendulum-medium-replay-mini", "--preset=smoke", "--updates=20"]
    words += ["--evaluations=1", "--episodes=1", "--seeds=2", f"--out={tmp_path}"]
    for more in ([], ["--diagnose"]):
        monkeypatch.setattr(sys, "argv", ["offline_mbrl", *words, *more])
        with pytest.raises(SystemExit) as stopped:
            offline_mbrl.main()
        assert stopped.value.code == 0, capsys.readouterr().err
    assert "Edge of reach" in capsys.readouterr().out
    (path,) = tmp_path.glob("offline_mbrl/*/diagnosis.csv")
    rows = pd.read_csv(path)
    assert list(rows["seed"]) == [0, 1]
    assert (rows[["inside_spread", "edge_spread", "inside_penalty", "edge_penalty"]] > 0).all().all()
    assert rows["edge_share"].between(0.01, 0.5).all()
    assert (rows["value_error"] > 0).all() and (rows["model_error"] > 0).all()
    assert (rows["value_error"] < rows["lipschitz_upper"] * rows["model_error"]).all()


def test_a_diagnosis_at_every_evaluation_compiles_once(monkeypatch, capsys, tmp_path):
    """And asking changes no number of the run; what a resumed run asks again replaces what it asked before."""
    traced, imagined = [], edge_probes.imagine.imagine

    def counted(model, params, policy, start, obs, *rest):
        traced.append(len(obs) == edge_probes.STARTS)  # not the rollouts that train
        return imagined(model, params, policy, start, obs, *rest)

    monkeypatch.setattr(edge_probes.imagine, "imagine", counted)
    words = ["--algo=mbpo", "--world=oracle", "--dataset=pendulum-medium-replay-mini", "--preset=smoke", "--seeds=2"]
    words += ["--updates=20", "--period=10", "--evaluations=2", "--episodes=1"]
    for name, more in (("asked", ["--diagnose"]), ("not", [])):
        monkeypatch.setattr(sys, "argv", ["offline_mbrl", *words, *more, f"--out={tmp_path / name}"])
        with pytest.raises(SystemExit) as stopped:
            offline_mbrl.main()
        assert stopped.value.code == 0, capsys.readouterr().err
    assert sum(traced) == 1
    (asked,), (plain,) = (list((tmp_path / name).glob("offline_mbrl/*/eval.csv")) for name in ("asked", "not"))
    assert asked.read_bytes() == plain.read_bytes()
    path = asked.parent / "diagnosis.csv"
    rows = pd.read_csv(path)
    assert list(rows["update"]) == [10, 10, 20, 20] and list(rows["seed"]) == [0, 1, 0, 1]
    assert (rows["edge_penalty"] == 0).all() and rows["inside_spread"].nunique() == 4
    # The true dynamics err by rounding alone, and so do values in them, however steep.
    assert (rows["model_error"] < 1e-4).all() and (rows["value_error"] < 1e-4 * rows["slope_max"]).all()
    assert (rows["slope_mean"] <= rows["slope_max"]).all() and (rows["slope_max"] > 0).all()
    (taken,) = pd.read_csv(asked.parent / "seconds.csv").to_dict("records")
    assert taken["seconds_fit"] == 0 and taken["seconds_dream"] > 0 and taken["seconds_learn"] > 0
    # Asked of its checkpoint, the last evaluation says the same; what is asked again takes the place of what was.
    before = path.read_bytes()
    path.write_text("\n".join(before.decode().splitlines()[:3]) + "\n")
    dataset, _ = data.load("pendulum-medium-replay-mini")
    for _ in range(2):
        assert [row["update"] for row in diagnosis.written(asked.parent, dataset)] == [20, 20]
        assert path.read_bytes() == before


def test_there_is_nothing_to_diagnose_without_a_model(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["offline_mbrl", "--algo=iql", "--diagnose", f"--out={tmp_path}"])
    with pytest.raises(SystemExit) as stopped:
        offline_mbrl.main()
    assert stopped.value.code == 2 and "iql has none" in capsys.readouterr().err


@pytest.mark.slow
def test_two_at_a_time_leave_the_rows_of_one_after_the_other(tmp_path):
    """In the box, and on a task, where a run's own command trains it and this one asks it."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "NPROC": "1"}
    for words in ("--world=box --only=diversity --seeds=1", "--world=pendulum --only=horizons --updates=20 --seeds=1"):
        tables = []
        for workers in ("1", "2"):
            out = tmp_path / words[8:11] / workers
            command = f"-m experiments.edge_of_reach --preset=smoke {words} --workers={workers} --out={out}"
            subprocess.run([sys.executable, *command.split()], check=True, env=environment)
            found = pd.read_csv(out / "edge_of_reach" / "summary.csv").sort_values("run_id", ignore_index=True)
            tables.append(found.drop(columns=[name for name in found if "seconds" in name]))
        pd.testing.assert_frame_equal(*tables)


def test_a_map_says_how_many_seeds_a_cell_has_where_it_is_unusual_and_leaves_out_what_was_not_run():
    cells = [("a", 5, 4.0, 0), ("a", 5, 4.0, 1), ("a", 10, 8.0, 0), ("a", 10, 8.0, 1), ("a", 10, 8.0, 2)]
    made = pd.DataFrame(cells, columns=["algo", "horizon", "distance", "seed"])
    made = made.assign(score_last=made["seed"] * 10.0, q_last=1.0, highest_value=2.0)
    axes = Figure().subplots()
    figures._map(axes, made, "horizon", "distance", 2)
    assert [text.get_text() for text in axes.texts] == ["5\n(50)", "10\n(50)\nn = 3"]
    assert axes.patch.get_hatch()


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (3, 1), (5, 2)])
def test_panels_stand_in_rows_and_spare_ones_are_taken_away(count, rows):
    figure = Figure()
    made = style.panels(figure, count, 3)
    assert figure.axes == made and len(made) == count
    assert {axes.get_subplotspec().get_gridspec().nrows for axes in made} == {rows}


@pytest.mark.slow
def test_from_runs_to_published_figures(monkeypatch, capsys, tmp_path):
    """Made once, found again, published with claims, curves, shells and paths, and drawn."""
    small = {"methods": STUDIES["methods"]._replace(arms=(Arm("base"), Arm("patched")))}
    monkeypatch.setattr(edge_of_reach, "STUDIES", small)
    monkeypatch.setattr(publishing, "check", lambda *_: None)  # runs of seconds serve here
    words = ("--preset=smoke", "--seeds=2", "--only=methods", "--out", str(tmp_path / "runs"))
    assert run(monkeypatch, *words) == 0
    results = tmp_path / "results"
    monkeypatch.setattr(publishing, "RESULTS", results)
    assert run(monkeypatch, *words, "--publish") == 0
    said = capsys.readouterr().out
    assert "1 of 1 programs: nothing to train" in said
    folder = results / "edge_of_reach"
    rows = rundir.read_rows(folder / "summary.csv")
    assert sorted((row["algo"], row["seed"]) for row in rows) == [
        ("base", 0),
        ("base", 1),
        ("patched", 0),
        ("patched", 1),
    ]
    assert all(
        row["settings"] == "" and 0 < row["return_last"] < row["attainable"] < 30 and 0 <= row["edge_share"] < 1
        for row in rows
    )
    ids = {row["run_id"] for row in rows}
    assert set(curves.read(folder / "curves.csv")) == ids
    assert set(pd.read_csv(folder / "shells.csv")["run_id"]) == ids == set(pd.read_csv(folder / "paths.csv")["run_id"])
    walks = pd.read_csv(folder / "paths.csv")
    assert np.abs(walks.groupby(["run_id", "walk"])[["x", "y"]].diff()).max().max() <= 1.0 + 2e-4
    claims = rundir.read_rows(folder / "claims.csv")
    assert "box-near-patch-restores" in {claim["id"] for claim in claims}
    drawn = figures.draw(results)
    assert {"edge_of_reach/box-paths-smoke", "edge_of_reach/box-training-smoke"} <= set(drawn)
