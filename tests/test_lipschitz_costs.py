"""What the arms of ensemble_vs_lipschitz cost, and what they return for a budget."""

import dataclasses
import shutil
import sys

import numpy as np
import pytest

from experiments import lipschitz_arms, lipschitz_costs, lipschitz_seconds, publishing
from experiments.lipschitz_arms import Arm
from jaxrl_suite.algorithms import mbpo_online
from jaxrl_suite.envs import registry
from jaxrl_suite.train import rundir
from jaxrl_suite.train.display import make_console

SPEC = registry.spec("pendulum")


def cost(model, mechanism="none", **changes):
    return lipschitz_costs.per_step(
        SPEC, dataclasses.replace(Arm(model, mechanism).config("pendulum", "quick"), **changes)
    )


def test_a_step_without_a_model_costs_its_updates_as_counted_by_hand():
    config = Arm("sac").config("pendulum", "quick")
    actor, critic = 3 * 64 + 64 * 64 + 64 * 2, 4 * 64 + 64 * 64 + 64
    passes = 4 * actor - 3 * 64  # forward twice more than its own gradient's passes; none to the inputs
    critics = 2 * (3 * critic + 3 * critic - 4 * 64)
    assert cost("sac") == 2 * config.batch * (passes + critics)
    assert cost("sac-utd") == Arm("sac-utd").config("pendulum", "quick").utd * cost("sac")


def test_a_model_costs_in_proportion_to_its_members_and_an_attack_to_its_steps():
    updates = cost("sac-utd")
    one, five = cost("probabilistic-single"), cost("probabilistic-ensemble")
    dream = cost("probabilistic-single", fit=dataclasses.replace(mbpo_online.PRESETS["quick"].fit, steps=0)) - updates
    assert five - updates - dream == pytest.approx(5 * (one - updates - dream))
    attacked = [cost("probabilistic-single", "adversarial", lipschitz_steps=n) for n in (1, 2, 3)]
    assert (
        attacked[2] - attacked[1] == pytest.approx(attacked[1] - attacked[0])
        and attacked[0] > attacked[1] - attacked[0]
    )
    assert attacked[0] > cost("probabilistic-single", "random") > one == cost("probabilistic-single", "spectral")
    assert cost("probabilistic-single", "adversarial", lipschitz_weight=0.0) == one


def test_a_budget_below_the_first_evaluation_buys_nothing_that_is_known():
    assert np.isnan(lipschitz_costs.return_at(9.0, 2.0, [5, 10], [0.0, 1.0]))
    assert lipschitz_costs.return_at(15.0, 2.0, [5, 10], [0.0, 1.0]) == 0.5
    assert lipschitz_costs.return_at(99.0, 2.0, [5, 10], [0.0, 1.0]) == 1.0


def test_budgets_are_of_the_cheapest_model_and_half_the_dearest_arm():
    arms, rows, known = [Arm("sac"), Arm("deterministic-single"), Arm("probabilistic-ensemble", "adversarial")], [], {}
    for number, arm in enumerate(arms):
        for seed in range(2):
            name = f"{number}{seed}"
            rows.append({"algo": arm.model, "dataset": "pendulum", "preset": "quick", "status": "finished"})
            rows[-1] |= {"settings": lipschitz_arms.text(arm), "run_id": name, "seed": seed, "return_last": 100.0}
            rows[-1] |= {"seconds_seed": (20.0, 40.0, 10.0)[number]}
            # Returns that rise by one with each percent of training.
            known[name] = [{"update": update, "return_mean": float(update)} for update in range(1, 101)]
    dearest, cheapest, free = lipschitz_costs.budgets(rows, known, "pendulum")
    spent = [line["tera_flops"] for line in (free, cheapest, dearest)]
    assert free["return_cheapest"] == cheapest["return_cheapest"] == 100.0  # spent all they have
    assert dearest["return_cheapest"] == pytest.approx(100 * spent[1] / spent[2], rel=0.01)
    assert dearest["return_half"] == pytest.approx(50.0)
    # By the clock the dearest was the quickest arm with a model; the others had spent half or a quarter by then.
    assert [line["return_seconds"] for line in (free, cheapest, dearest)] == [50.0, 25.0, 100.0]
    assert lipschitz_costs.budgets(rows, {}, "pendulum") == []


def test_the_budget_tells_how_many_seeds_return_what_the_ensemble_does_and_for_how_much():
    rows, known = [], {}
    for arm, last in ((Arm("probabilistic-ensemble"), 300.0), (Arm("sac"), 200.0), (Arm("deterministic-single"), 0.0)):
        for seed in range(2):
            row = {"algo": arm.model, "dataset": "pendulum", "preset": "quick", "status": "finished", "seed": seed}
            row |= {"seconds_seed": 1.0}
            rows.append(row | {"settings": "", "run_id": f"{arm.model}{seed}", "return_last": last})
            reached = last - 1000.0 * seed * (arm.model == "sac")  # SAC's second seed does not get there
            known[rows[-1]["run_id"]] = [{"update": at, "return_mean": reached * at / 2} for at in (1, 2)]
    ensemble, single, free = lipschitz_costs.budgets(rows, known, "pendulum")
    assert ensemble["target"] == free["target"] == 200.0  # less the margin of 100
    assert (ensemble["seeds_there"], free["seeds_there"]) == (2, 1)
    assert ensemble["tera_flops_there"] == ensemble["tera_flops"] and np.isnan(free["tera_flops_there"])
    assert np.isnan(single["target"]) and single["seeds_there"] == 0  # there is no deterministic ensemble


def test_the_published_budgets_follow_from_the_published_rows(tmp_path, monkeypatch):
    folder = tmp_path / lipschitz_arms.EXPERIMENT
    shutil.copytree(publishing.RESULTS / lipschitz_arms.EXPERIMENT, folder)
    before = (folder / lipschitz_costs.BUDGET).read_text()
    (folder / lipschitz_costs.BUDGET).unlink()
    monkeypatch.setattr(sys, "argv", ["lipschitz_costs", f"--results={tmp_path}"])
    with pytest.raises(SystemExit) as stopped:
        lipschitz_costs.main()
    assert stopped.value.code == 0
    assert (folder / lipschitz_costs.BUDGET).read_text() == before


# --- by the clock ---
def test_rows_take_their_seconds_from_the_table_that_has_their_arm(tmp_path):
    row = {
        "dataset": "pendulum",
        "preset": "quick",
        "algo": "sac",
        "settings": "",
        "env_steps": 3_000,
        "explore": 1_000,
    }
    rows = [row | {"seconds_seed": 9.0}, row | {"seconds_seed": 9.0, "settings": "steps=5000", "env_steps": 5_000}]
    rows += [row | {"seconds_seed": 9.0, "settings": "host=True"}]
    assert lipschitz_seconds.joined(rows, tmp_path / "none.csv") == rows
    line = dict.fromkeys(lipschitz_seconds.COLUMNS, "") | row | {"key_id": "a", "seconds": 2.0}
    known = {name: line[name] for name in lipschitz_seconds.COLUMNS}
    rundir.upsert_rows(tmp_path / "seconds.csv", [known], lipschitz_seconds.COLUMNS, "key_id")
    found = lipschitz_seconds.joined(rows, tmp_path / "seconds.csv")
    assert [one["seconds_seed"] for one in found] == [4.0, 8.0, 9.0]


def test_every_part_of_an_arm_is_timed_and_no_model_takes_no_time():
    arms = [Arm("sac"), Arm("deterministic-single")]
    free, modelled = lipschitz_seconds.measure("pendulum", arms, "smoke", 1, make_console())
    assert free["fit"] == free["dream"] == 0 and min(free["learn"], modelled["fit"], modelled["dream"]) > 0
    for line in (free, modelled):
        assert line["seconds"] == pytest.approx(line["fit"] + line["dream"] + line["learn"], rel=0.01)


@pytest.mark.parametrize(
    ("module", "word", "said"),
    [
        (lipschitz_costs, "--foo", "--foo"),
        (lipschitz_costs, "--results={}", "has no rows"),
        (lipschitz_seconds, "--results={}", "has no rows"),
        (lipschitz_seconds, "--env=pendulm", "pendulum"),
        (lipschitz_seconds, "--rounds=0", "rounds"),
    ],
)
def test_bad_options_are_one_line_and_nothing_is_written(monkeypatch, capsys, tmp_path, module, word, said):
    monkeypatch.setattr(sys, "argv", ["command", word.format(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 2 and said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
