"""Claims about heads in the offline algorithms name their runs as a summary does; the faulty head is no option."""

import csv
import pathlib

import pytest

from experiments import (
    claims,
    heads_fault,
    heads_maze,
    heads_offline_claims,
    heads_tuning,
    offline_mbrl,
    options,
    publishing,
    reproduce,
)
from experiments.heads_offline_claims import CLAIMS, RATES, SMALLER, rates, runs
from experiments.needs import REPLAYS
from jaxrl_suite.envs import registry
from jaxrl_suite.errors import UserError
from jaxrl_suite.values import heads
from paper_figs import heads_everywhere

PUBLISHED = pathlib.Path(__file__).resolve().parent.parent / "results"


def test_settings_are_what_a_summary_will_say_and_the_algorithm_takes_them():
    """A claim whose settings are written in another order, or of a head that is refused, would find no rows, ever."""
    for needed in {needed for claim in CLAIMS for needed in claim.needs}:
        if "one_sided" in needed.settings:
            continue
        words = reproduce.words_of(needed, "0:5", reproduce.Options())
        shared, entry, config = options.offline(words, "test", "")
        assert offline_mbrl._settings(shared, config, entry.presets["quick"]) == needed.settings
        entry.make(registry.spec(needed.dataset.split("-")[0]), config)


def test_heads_of_a_pair_differ_in_the_head_alone():
    for algo in SMALLER:
        words = [reproduce.words_of(runs(algo, head), "0:5", reproduce.Options()) for head in ("mse", "hl_gauss")]
        plain, swapped = (options.offline(each, "test", "")[2] for each in words)
        assert (plain.head, swapped.head) == ("mse", "hl_gauss")
        changed = {name for name, value in vars(plain).items() if value != getattr(swapped, name)}
        assert changed == {"head"}


def test_the_faulty_head_is_known_only_while_it_is_shown():
    config = heads.HeadConfig(heads_fault.FAULT, 101, 0.75, "0,101")
    with pytest.raises(UserError, match="unknown value head 'one_sided'"):
        heads.make(config)
    with pytest.raises(RuntimeError), heads_fault.registered():
        assert heads.HEADS[heads_fault.FAULT] is heads_maze.one_sided
        assert heads.make(config).size == 101
        raise RuntimeError
    assert heads_fault.FAULT not in heads.HEADS


def test_every_algorithm_has_a_claim_on_every_data_set_and_on_all_together():
    ids = {claim.id for claim in CLAIMS}
    assert len(ids) == len(CLAIMS)
    for algo in SMALLER:
        every = [claim for claim in CLAIMS if claim.id.startswith(f"offline-hl-gauss-beats-mse-{algo}")]
        assert [{need.dataset for need in claim.needs} for claim in every] == [
            *({dataset} for dataset in REPLAYS),
            set(REPLAYS),
        ]


def test_what_the_fault_does_is_corrected_with_its_families(monkeypatch):
    """Also where a claim is of a family whose other runs are none of this command's."""
    published = reproduce.published_records(publishing.RESULTS, "quick")
    rows = [row for row in publishing.published(publishing.RESULTS / "offline_mbrl") if row["preset"] == "quick"]
    told = []
    monkeypatch.setattr(reproduce, "run_all", lambda *_: 0)
    monkeypatch.setattr(
        reproduce,
        "rows_of",
        lambda needed, _: [row for row in rows if (row["algo"], row["dataset"], row["settings"]) in needed],
    )
    monkeypatch.setattr(reproduce, "shown", lambda findings, _: told.extend(findings) or "")
    monkeypatch.setattr("sys.argv", ["heads_fault"])
    with pytest.raises(SystemExit):
        heads_fault.main()
    found = {finding.claim.id: claims.record(finding, "quick")["adjusted_p"] for finding in told}
    assert found == {name: published[name]["adjusted_p"] for name in found}
    assert "offline-hl-gauss-beats-mse-iql" in found


# --- step sizes of their own ---
def test_tuning_trains_all_step_sizes_of_a_head_in_one_program_on_tuning_seeds():
    planned = heads_tuning.plan(heads_tuning.Options(algo="iql,ravl", preset="smoke", out=pathlib.Path("nowhere")))
    assert list(planned) == [(algo, head) for algo in ("iql", "ravl") for head in ("mse", "hl_gauss")]
    for (algo, head), (run,) in planned.items():
        assert (run.algo, run.seeds) == (algo, (1000, 1001, 1002))
        words = " ".join(map(str, run.task.options["vary"]))
        assert words == " ".join(f"critic_lr={rate:g}" for rate in RATES)
        assert run.settings["head"] == head
        assert len(run.run_ids) == len(RATES) * 3


@pytest.mark.parametrize(("preset", "usual"), [("quick", 1e-3), ("paper", 3e-4)])
def test_a_row_that_names_no_step_size_has_its_presets(preset, usual, monkeypatch):
    row = dict.fromkeys(heads_tuning.COLUMNS, 0) | {"algo": "iql", "dataset": REPLAYS[0], "preset": preset}
    rows = [row | {"settings": text} for text in ("head=mse", "head=mse critic_lr=0.003")]
    monkeypatch.setattr(heads_tuning.tasks, "rows_of", lambda runs: rows)
    assert [found["critic_lr"] for found in heads_tuning.rows_of({("iql", "mse"): []})] == [usual, 0.003]


@pytest.mark.parametrize(
    ("command", "words", "says"),
    [
        (heads_tuning, ["--seeds=3"], "tuning takes seeds from 1000 on"),
        (heads_tuning, ["--algo=iql,bc"], "unknown algorithm of this tuning 'bc'"),
        (heads_tuning, ["--publish", "--preset=smoke"], "--publish is for the default seeds"),
        (heads_tuning, ["--workers=0"], "workers"),
        (heads_fault, ["--publish", "--preset=smoke"], "only try the code"),
    ],
)
def test_what_cannot_be_done_is_refused(command, words, says, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", [command.__name__, *words])
    with pytest.raises(SystemExit) as left:
        command.main()
    assert left.value.code == 2
    assert says in capsys.readouterr().err


def test_the_best_step_size_of_each_head_is_taken_and_claimed_about(tmp_path, monkeypatch):
    path = tmp_path / "heads-tuning.csv"
    assert rates(path) == {}
    lines = ["algo,head,critic_lr,seed,score_last"]
    scores = {("mse", 0.001): (5, 5), ("mse", 0.003): (0, 9), ("hl_gauss", 0.001): (1, 1), ("hl_gauss", 0.003): (1, 2)}
    lines += [f"iql,{head},{rate},{1000 + i},{x}" for (head, rate), xs in scores.items() for i, x in enumerate(xs)]
    path.write_text("\n".join(lines))
    tried = (0.001, 0.003)
    assert rates(path, tried) == {("iql", "mse"): 0.001, ("iql", "hl_gauss"): 0.003}
    assert rates(path) == {}  # not all step sizes have been tried
    monkeypatch.setattr(heads_offline_claims, "FIRST", tried)
    monkeypatch.setattr(heads_offline_claims, "rates", lambda among: rates(path, among))
    (claim,) = heads_offline_claims._tuned()  # of the others the table knows nothing
    assert [need.settings for need in claim.needs] == ["head=hl_gauss critic_lr=0.003", ""]
    path.write_text("\n".join([*lines, *(line.replace("iql", "edac") for line in lines[1:])]))
    both = heads_offline_claims._tuned()
    assert [one.id.rpartition("-")[2] for one in both] == ["iql", "edac"]
    assert both[0].family == claim.family != both[1].family  # so that verdicts that are published stay
    monkeypatch.setattr(heads_offline_claims, "RATES", tried)
    again = heads_offline_claims._tuned()[2:]
    assert [one.id for one in again] == [f"offline-widely-tuned-hl-gauss-beats-mse-{algo}" for algo in ("iql", "edac")]
    assert {one.family for one in again}.isdisjoint(one.family for one in both)


def test_a_step_size_at_which_a_seed_diverged_is_not_chosen(tmp_path):
    """It was evaluated as it stood before, and may have stood well."""
    path = tmp_path / "heads-tuning.csv"
    rows = [("0.001", "1000", "5", "finished"), ("0.01", "1000", "9", "finished"), ("0.01", "1001", "9", "diverged")]
    lines = [",".join(("iql", "mse", *row)) for row in rows]
    path.write_text("\n".join(["algo,head,critic_lr,seed,score_last,status", *lines]))
    assert rates(path, (0.001, 0.01)) == {("iql", "mse"): 0.001}
    path.write_text("\n".join(["algo,head,critic_lr,seed,score_last,status", *lines[1:]]))
    assert rates(path, (0.01,)) == {}


def test_gains_are_those_after_half_of_the_updates_over_tasks_and_seeds_that_finished_all():
    """And a curve of an odd number of evaluations is halved at the first that is not before the middle."""
    needs = [runs("cql", dataset=dataset) for dataset in REPLAYS[:2]]

    def row(need, seed, scores):
        curve = [{"update": 10 * (index + 1), "score": score} for index, score in enumerate(scores)]
        known = {"algo": need.algo, "dataset": need.dataset, "settings": need.settings, "status": "finished"}
        return {**known, "seed": seed, "curve": curve}

    rows = [row(needs[0], 0, [9, 5, 7]), row(needs[1], 0, [0, 2, 0]), row(needs[0], 1, [0, 0, 9])]
    found = heads_offline_claims.late_gain(needs)(rows)
    assert found.seeds == (0,)  # seed 1 lacks a task
    assert found.differences.tolist() == [0.0]  # (7 - 5 + 0 - 2) / 2
    assert heads_offline_claims.negated(heads_offline_claims.late_gain(needs[:1]))(rows).differences.tolist() == [
        -2,
        -9,
    ]


def test_the_figure_has_the_order_of_the_table_and_hollow_marks_of_the_best_of_five_step_sizes():
    (figure,) = heads_everywhere.draw(PUBLISHED).values()
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names[::-1] == ["rebrac", "cql", "iql", "edac", "sac_n", "ravl"]
    with (PUBLISHED / "offline_mbrl" / "claims.csv").open() as file:
        judged = {row["id"]: float(row["estimate"]) for row in csv.DictReader(file) if row["ci_low"]}
    known = {name: judged[heads_everywhere.TUNED + name] for name in names if heads_everywhere.TUNED + name in judged}
    hollow = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "white" and len(line.get_xdata())]
    drawn = {names[round(line.get_ydata()[0])]: line.get_xdata()[0] for line in hollow}
    assert drawn == pytest.approx(known, abs=1e-2)  # claims.csv is rounded
