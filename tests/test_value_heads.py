"""experiments.value_heads: problems whose answers are known, arms that differ in their head only, runs found again."""

import dataclasses
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import (
    heads_claims,
    heads_later_claims,
    heads_maze,
    heads_online,
    heads_shifts,
    heads_studies,
    heads_tasks_claims,
    publishing,
    reproduce,
    value_heads,
)
from experiments.heads_studies import STUDIES
from jaxrl_suite.envs import procmaze
from jaxrl_suite.errors import UserError
from jaxrl_suite.train import rundir
from jaxrl_suite.values import heads
from jaxrl_suite.values.projections import Support
from paper_figs import value_heads as figures

NUMBERS = heads_maze.Numbers(1e-2, -11.0, 1.0, 0.0, 1.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def task():
    return jax.jit(heads_maze.prepare)(jax.random.key(1000), NUMBERS)


@pytest.fixture
def rates(monkeypatch):
    monkeypatch.setattr(heads_studies, "rates", lambda: _Any())


class _Any(dict):
    def __missing__(self, key):
        return 3e-3


# --- the problems ---
def test_the_log_follows_the_mazes_and_the_policy(task):
    log = task.log
    assert log.obs.shape == (heads_maze.MAZES * heads_maze.STEPS, heads_maze.SIZE**2 * 4)
    player, goal = (np.asarray(log.obs.reshape(-1, heads_maze.SIZE**2, 4)[..., i]).argmax(-1) for i in (0, 1))
    np.testing.assert_array_equal(log.ended, player == goal)
    assert (np.asarray(log.reward) == -1).all()
    obs, after = (np.asarray(x).reshape(heads_maze.MAZES, -1, heads_maze.SIZE**2 * 4) for x in (log.obs, log.next_obs))
    goes_on = ~np.asarray(log.ended).reshape(heads_maze.MAZES, -1)[:, :-1]
    np.testing.assert_array_equal(obs[:, 1:][goes_on], after[:, :-1][goes_on])
    actions = np.asarray(log.action).reshape(heads_maze.MAZES, -1)[:, 1:][goes_on]
    logged = np.asarray(log.next_action).reshape(heads_maze.MAZES, -1)[:, :-1][goes_on]
    np.testing.assert_array_equal(actions, logged)  # what SARSA's target takes is what was done


def test_noise_has_the_mean_that_is_said():
    for centred, mean in ((1.0, -1.0), (0.0, 0.5)):
        noisy = NUMBERS._replace(noise=3.0, centred=centred)
        reward = np.asarray(jax.jit(heads_maze.log)(jax.random.key(0), noisy).reward)
        assert abs(reward.mean() - mean) < 0.05
        assert np.ptp(reward) == pytest.approx(3.0, abs=0.01)


@pytest.mark.parametrize("sarsa", [False, True])
def test_true_values_have_no_error_and_the_best_score(task, sarsa):
    """The measures of the truth itself; uncentred noise raises it by eta / 2 for each step."""
    noisy = NUMBERS._replace(noise=1.0, centred=0.0)
    true = 0.5 * (task.logged if sarsa else task.optimal)
    learnt = heads_maze.Learnt(true[None], jax.nn.one_hot(jnp.arange(9), 9) + jnp.zeros((256, 1, 1)), {})
    found = heads_maze.measure(jnp.bool_(sarsa), noisy, task, learnt)
    assert found["value_error"][0] == pytest.approx(0.0, abs=1e-5)
    assert found["score"][0] == pytest.approx(100.0, abs=1e-3) if not sarsa else found["score"][0] > 60.0
    assert found["probe"][0] < 1.0


def test_a_probe_explains_what_is_linear():
    x = jax.random.normal(jax.random.key(0), (64, 9, 3))
    known = jnp.ones((64, 9), bool)
    assert heads_maze.probe(x, x @ jnp.array([1.0, -2.0, 0.5]) + 3.0, known) > 0.999
    assert heads_maze.probe(x, jax.random.normal(jax.random.key(1), (64, 9)), known) < 0.1


def test_the_loss_is_a_bellman_error_to_the_chosen_action(task):
    """mse by hand: Q-learning takes the best action of the next state, SARSA the logged one, ends nothing."""
    program = heads_maze.Program(heads.HeadConfig("mse"), (16,), "max", 5, 8)
    net, head = heads_maze.network(program, 1), heads.make("mse")
    weights, target = net.init(jax.random.key(0)), net.init(jax.random.key(1))
    rows = jax.tree.map(lambda x: x[:200], task.log)
    q, there = (
        np.asarray(heads_maze.logits_of(net, w, x))[..., 0] for w, x in ((weights, rows.obs), (target, rows.next_obs))
    )
    index = np.arange(200)
    for aim, value in (("max", there.max(axis=1)), ("sarsa", there[index, np.asarray(rows.next_action)])):
        goal = np.asarray(rows.reward) + heads_maze.GAMMA * ~np.asarray(rows.ended) * value
        expected = np.mean((q[index, np.asarray(rows.action)] - goal) ** 2)
        found = heads_maze.td_loss(head, net, weights, target, rows, (), aim)
        assert found == pytest.approx(expected, rel=1e-5)
    labelled = np.mean((q[index, np.asarray(rows.action)] - np.asarray(rows.optimal)) ** 2)
    assert heads_maze.td_loss(head, net, weights, target, rows, (), "labels") == pytest.approx(labelled, rel=1e-5)


def test_the_one_sided_fault_biases_a_fixed_point_by_more_than_half_a_bin():
    """The public trap: mass above the target only. Its mean lies 0.598 bins too high at a ratio of 0.75."""
    config = heads.HeadConfig("one_sided", 101, 0.75, "0,101")
    support, target = Support(jnp.float32(0.0), jnp.float32(101.0)), jnp.float32(50.3)
    for name, bias in (("one_sided", 0.598), ("hl_gauss", 0.0)):
        head = heads_maze.make_head(dataclasses.replace(config, name=name))
        gradient = jax.grad(lambda z, head=head: head.loss(z, target, support))
        logits = jax.lax.fori_loop(0, 4000, lambda _, z, g=gradient: z - 2.0 * g(z), jnp.zeros(101))
        # Which part of a bin the target is in matters a little to the faulty one.
        assert head.decode(logits, support) - target == pytest.approx(bias, abs=0.12 if bias else 0.01)
    assert not jax.grad(lambda z: heads_maze.one_sided(config).loss(z, jnp.float32(101.0), support))(
        jnp.zeros(101)
    ).any()


def test_a_learner_tells_which_share_of_its_targets_its_support_clips(task):
    """Rewards are -1: a support that begins at -0.5 holds no target, the one that fits all of them."""
    program = heads_maze.Program(heads.HeadConfig("two_hot", 51), (8,), "max", 5, 8)
    numbers = jax.tree.map(lambda x: jnp.float32(x) * jnp.ones(2), NUMBERS)
    numbers = numbers._replace(low=jnp.array([-11.0, -0.5]), high=jnp.array([1.0, 0.5]))
    learn = jax.jit(jax.vmap(partial(heads_maze.learn, program), (None, 0, None)))
    fit = learn(jax.random.key(0), numbers, task).fit
    assert fit["clipped_targets"].tolist() == [0.0, 1.0]
    assert set(fit) == set(value_heads.FIT)


# --- many variants for one network ---
def test_variants_name_the_moves_by_other_actions_and_the_first_by_its_own():
    for tasks in (1, 8, 120):
        found = np.asarray(heads_maze.actions_of(tasks))
        assert found[0].tolist() == [0, 1, 2, 3, 4]
        assert len({tuple(order) for order in found}) == tasks
        assert (np.sort(found, axis=1) == np.arange(5)).all()


def test_variants_change_what_is_told_and_the_names_of_moves_and_nothing_else(task):
    tasks = 3
    new, mazes = heads_maze.varied(task, tasks), np.arange(heads_maze.MAZES).repeat(heads_maze.STEPS) % tasks
    size = heads_maze.SIZE**2 * 4
    move_of = np.argsort(np.asarray(heads_maze.actions_of(tasks)), axis=1)  # what an action of a variant does
    for obs, before in ((new.log.obs, task.log.obs), (new.log.next_obs, task.log.next_obs)):
        np.testing.assert_array_equal(obs[:, :size], before)
        np.testing.assert_array_equal(np.asarray(obs[:, size:]).argmax(1), mazes)
        assert (np.asarray(obs[:, size:]).sum(1) == 1).all()
    for action, before in ((new.log.action, task.log.action), (new.log.next_action, task.log.next_action)):
        np.testing.assert_array_equal(move_of[mazes, action], before)
        assert (np.asarray(action) != np.asarray(before)).any()
    held = np.arange(heads_maze.HELD_OUT) % tasks
    np.testing.assert_array_equal(np.asarray(new.obs[..., size:]).argmax(-1), held[:, None] + np.zeros((1, 9), int))
    of_actions = np.take_along_axis(np.asarray(task.optimal), move_of[held][:, None] + np.zeros((1, 9, 1), int), -1)
    np.testing.assert_array_equal(heads_maze.of_moves(jnp.asarray(of_actions), tasks), task.optimal)


def test_one_network_learns_all_variants(task):
    """At a step size of zero values are those of the start: of the same network, read by each variant's own actions."""
    program = heads_maze.Program(heads.HeadConfig("mse"), (8,), "max", 5, 8, tasks=3)
    net = heads_maze.network(program, 1)
    learnt = jax.jit(partial(heads_maze.learn, program))(jax.random.key(0), NUMBERS._replace(rate=0.0), task)
    weights = net.init(jax.random.split(jax.random.fold_in(jax.random.key(0), 1))[0])
    q = heads_maze.logits_of(net, weights, heads_maze.varied(task, 3).obs)[..., 0]
    np.testing.assert_allclose(learnt.q[-1], heads_maze.of_moves(q, 3), atol=1e-6)
    assert np.abs(learnt.q[-1] - q).max() > 1e-3


def test_cqls_term_pushes_all_actions_down_but_the_logged_one_up(task):
    """Its gradient by Q of a row is the softmax of Q, less one at the logged action."""
    rows = jax.tree.map(lambda x: x[:6], task.log)
    head, tabular = (
        heads.make("mse"),
        heads_maze.network(heads_maze.Program(heads.HeadConfig("mse"), (), "max", 5, 8), 1),
    )
    q = jax.random.normal(jax.random.key(3), (6, 5))
    net = tabular._replace(apply=lambda weights, obs: {"q": weights})
    found = jax.grad(lambda q: heads_maze.conservatism(head, net, q, rows, ()))(q)
    expected = (jax.nn.softmax(q, axis=-1) - jax.nn.one_hot(rows.action, 5)) / 6
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_members_own_weight_holds_its_values_down(task):
    program = heads_maze.Program(heads.HeadConfig("mse"), (32,), "max", 500, 64, conservative=True)
    numbers = jax.tree.map(lambda x: jnp.float32(x) * jnp.ones(2), NUMBERS)._replace(conservative=jnp.array([0.0, 5.0]))
    q = jax.jit(jax.vmap(partial(heads_maze.learn, program), (None, 0, None)))(jax.random.key(0), numbers, task).q
    gap = [float((jnp.max(each, axis=-1) - jnp.mean(each, axis=-1)).mean()) for each in q[:, -1]]
    assert gap[1] > gap[0] + 0.3  # logged actions, the best ones more often than others, stand out


def test_labels_are_the_true_values_of_what_was_done(task):
    log, cells = task.log, heads_maze.SIZE**2
    player, goal = (np.asarray(log.obs.reshape(-1, cells, 4)[..., i]).argmax(-1) for i in (0, 1))
    at_goal = np.asarray(log.ended)
    np.testing.assert_allclose(np.asarray(log.optimal)[at_goal], -1.0)  # whatever is done there ends the episode
    assert (np.asarray(log.optimal)[~at_goal] < -1.0).all()
    # One move from the goal, the right one costs two steps, of which the second is discounted; no other is as good.
    best = np.full((cells, cells), -np.inf)
    np.maximum.at(best, (player, goal), np.asarray(log.optimal))
    assert best[0, 1] == pytest.approx(-1.0 - heads_maze.GAMMA, abs=1e-5)


def test_the_support_figure_shows_clipped_targets_where_rows_have_them():
    arms = (*STUDIES["heads"].arms, *STUDIES["support"].arms)
    cells = {"score_last": 1.0, "value_error": 2.0}
    rows = [{"algo": one.head, "settings": one.settings, "seed": seed, **cells} for one in arms for seed in (0, 1)]
    before = pd.DataFrame(rows).assign(clipped_targets=np.nan)
    after = before.assign(clipped_targets=before["settings"].map(lambda text: 0.5 if text else np.nan))
    assert [len(figures._support(table).axes) for table in (before, after)] == [2, 3]


def test_the_figures_of_longer_runs_and_of_more_bins_and_heads_are_drawn():
    """From rows of which some, older than the others, lack the scores at each evaluation."""
    names = ("heads", "long", "bins", "resolution", "conservative")
    arms = [one for name in names for one in STUDIES[name].arms]
    rows = [{"algo": one.head, "settings": one.settings, "seed": seed} for one in arms for seed in (0, 1)]
    frame = pd.DataFrame(rows).assign(score_last=50.0, score_best=60.0, value_error=1.0, updates=3_000)
    long = frame["settings"] == f"longer={heads_studies.LONGER}"
    frame.loc[long, "updates"] = 30_000
    for number, column in enumerate(value_heads.SCORES, 1):
        frame[column] = np.where(long, 10.0 * number, np.nan)
    line = figures._long(frame).axes[0].lines[0]  # of the first head, whose places are not moved aside
    np.testing.assert_array_equal(line.get_xdata(), [3, 6, 12, 18, 24, 30])
    np.testing.assert_array_equal(line.get_ydata(), [50, 10, 20, 30, 40, 50])
    cells = figures._bins(frame).axes[0]
    assert len(cells.get_yticks()) == 4 and len(cells.get_xticks()) == 8
    assert len(figures._conservative(frame).axes[0].get_legend_handles_labels()[1]) == len(heads_studies.HELD)
    assert figures._long(frame[~long]) is None


def test_labels_move_by_the_shift_and_are_as_good_as_noise():
    x = jax.random.normal(jax.random.key(0), (256, heads_shifts.DIM))
    still, moved = (np.asarray(heads_shifts.labels(jax.random.key(1), x, b)) for b in (0.0, 8.0))
    np.testing.assert_allclose(moved - still, 8.0, atol=1e-5)
    assert abs(still.mean()) < 0.2
    assert still.var() == pytest.approx(0.5, abs=0.1)


# --- arms ---
def test_arms_of_a_study_share_everything_but_what_they_name():
    for study in STUDIES.values():
        for one in study.arms:
            base = dataclasses.asdict(heads_studies.PRESETS["quick"][one.problem])
            given = dataclasses.asdict(one.config("quick"))
            assert {name for name in base if base[name] != given[name]} == {name for name, _ in one.changes}
    every = [one for study in STUDIES.values() for one in study.arms]
    assert len({one.needed for one in every}) == len(every)


def test_every_arm_has_a_head_that_can_be_made():
    """Before any is trained: a Gaussian may be too wide for its bins."""
    for one in (one for study in STUDIES.values() for one in study.arms):
        assert heads_maze.make_head(heads_studies.program(one, one.config("quick")).head).size > 0
    assert heads_studies.widths(21)[-1] == 2.0 and heads_studies.widths(51)[-1] == 8.0
    with pytest.raises(UserError, match="at least 27 bins"):
        heads_maze.make_head(heads.HeadConfig("hl_gauss", 21, 4.0))


def test_published_run_ids_are_those_of_the_arms_they_name():
    """Settings that came later must not rename what was run: else all would be made again."""
    published = {
        row["run_id"]: row for row in rundir.read_rows(publishing.RESULTS / value_heads.EXPERIMENT / "summary.csv")
    }
    rates, chosen, found = heads_studies.rates(), value_heads.Options(), set()
    for study in STUDIES.values():
        seeds = value_heads.seeds_of(study, chosen)
        for one in study.arms:
            ids = value_heads.run_ids([one], seeds, rates, chosen)
            assert {(published[name]["algo"], published[name]["settings"]) for name in ids & set(published)} <= {
                (one.head, one.settings)
            }
            found |= ids
    assert {name for name, row in published.items() if row["preset"] == "quick"} <= found


def test_heads_learn_from_the_same_rows_whatever_they_are():
    """Tasks come from the seed alone; so do the weights below the head."""
    program = heads_maze.Program(heads.HeadConfig("mse"), (16, 16), "max", 5, 8)
    first, second = (heads_maze.network(program, size).init(jax.random.key(0)) for size in (1, 51))
    for name in ("hidden_0", "hidden_1"):
        np.testing.assert_array_equal(first[name]["kernel"], second[name]["kernel"])


def test_every_claim_rests_on_a_study_that_its_command_makes():
    made = {name: {one.needed for one in study.arms} for name, study in STUDIES.items()}
    for claim in (*heads_claims.CLAIMS, *heads_tasks_claims.CLAIMS, *heads_later_claims.CLAIMS):
        words = claim.command.partition("--only=")[2].split(",")
        assert set(claim.needs) <= set().union(*(made[word] for word in words)), claim.id
    with pytest.raises(UserError, match=r"experiments\.value_heads"):
        reproduce.chosen_claims(heads_claims.CLAIMS[0].id)


def test_claims_written_after_the_rows_say_so_and_correct_none_that_were_before():
    sittings = {}
    for claim in (*heads_claims.CLAIMS, *heads_tasks_claims.CLAIMS, *heads_later_claims.CLAIMS):
        after = "written after the rows" in claim.source
        sittings.setdefault(after, {}).setdefault(claim.family, []).append(claim.id.removeprefix("heads-"))
    assert not set(sittings[False]) & set(sittings[True])
    assert [len(ids) for ids in sittings[True].values()] == [10, 5, 2]  # a family that grows changes published verdicts
    assert sittings[True][heads_later_claims.AUDITED][-1] == "small-gauss-beats-every-mse"


def test_more_updates_begin_with_those_of_the_preset(task):
    """So that the curve of a longer run goes on from the shorter one's score."""
    arms = [heads_studies.arm("mse", **more) for more in ({}, {"longer": heads_maze.EVALUATIONS})]
    programs = [heads_studies.program(one, one.config("smoke")) for one in arms]
    assert [each.updates for each in programs] == [20, 100]
    q = [jax.jit(partial(heads_maze.learn, each))(jax.random.key(0), NUMBERS, task).q for each in programs]
    np.testing.assert_allclose(q[1][0], q[0][-1], rtol=1e-4, atol=1e-5)
    assert np.abs(q[1][-1] - q[0][-1]).max() > 1e-2


def test_noise_never_makes_the_goal_a_place_to_avoid():
    """Above zero it raises a reward of -1 by half its width: from a width of 2 on, another policy would be the best."""
    configs = [one.config("quick") for one in STUDIES["noise"].arms]
    assert {config.centred for config in configs} == {True, False}
    assert all(config.centred or 0.5 * config.noise < 1.0 for config in configs)


def test_the_support_is_scaled_around_its_middle():
    ends = [heads_studies.numbers(heads_studies.Config(support=factor), 1e-3) for factor in (1.0, 10.0)]
    assert [(one.low, one.high) for one in ends] == [(-11.0, 1.0), (-65.0, 55.0)]
    assert ends[0].teleport == procmaze.teleport(heads_maze.SIZE)


def test_online_learning_has_the_support_of_the_offline_problem():
    one = heads_studies.arm("hl_gauss", heads_studies.ONLINE)
    program = heads_studies.program(one, one.config("quick"))
    assert program.head == heads.HeadConfig("hl_gauss", 51, 0.75, "-11,1")
    assert program.updates % heads_online.MULTIPLE == 0


@pytest.mark.slow
def test_online_learning_goes_at_the_rate_of_each_member_and_shows_every_stretch(task):
    config = heads.HeadConfig("hl_gauss", 51, 0.75, "-11,1")
    small = heads_online.Program(config, (8,), 2 * heads_online.MULTIPLE, 8)
    learner = heads_online.agent(small)
    numbers = jax.tree.map(lambda x: jnp.float32(x) * jnp.ones(2), NUMBERS)._replace(rate=jnp.array([0.0, 1e-2]))
    learn = jax.jit(jax.vmap(partial(heads_online.learn, small), (None, 0, None)))
    found = learn(jax.random.key(0), numbers, task)
    assert found.q.shape == (2, heads_maze.EVALUATIONS, *task.optimal.shape) and found.features.shape[-1] == 8
    at_start = learner.values(learner.init(jax.random.fold_in(jax.random.key(0), 1), learner.hypers), task.obs * 1.0)
    np.testing.assert_allclose(found.q[0], jnp.broadcast_to(at_start, found.q[0].shape), atol=1e-5)
    moved = jnp.max(jnp.abs(jnp.diff(found.q[1], axis=0)), axis=(1, 2, 3))
    assert (moved > 1e-4).all()  # each stretch learns


# --- the command ---
def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["value_heads", *words])
    with pytest.raises(SystemExit) as stopped:
        value_heads.main()
    return stopped.value.code


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--only=plastic", "plasticity"),
        ("--preset=quik", "did you mean quick"),
        ("--seeds=none", "neither a count"),
        ("--updates=7", "multiple of 5"),
        ("--updates=-5", "multiple of 5"),
        ("--updates=5 --only=online", "multiple of 20"),
        ("--bins=5", "unknown option"),
        ("--publish --preset=smoke", "only try the code"),
        ("--tune --publish --preset=paper", "leave out --preset=paper"),
        ("--tune --publish --updates=10", "leave out --updates"),
        ("--tune --seeds=3 --fresh", "--seeds=3, --fresh=True, --out="),
    ],
)
def test_bad_input_is_one_clear_line(monkeypatch, capsys, tmp_path, rates, word, said):
    assert (
        run(monkeypatch, *word.split(), *([] if "only" in word else ["--only=plasticity"]), "--out", str(tmp_path)) == 2
    )
    assert said in capsys.readouterr().err
    assert not list(tmp_path.rglob("summary.csv"))


def test_rows_of_tuning_seeds_are_not_published(monkeypatch, capsys, tmp_path):
    assert run(monkeypatch, "--publish", "--seeds=1000:1002", "--out", str(tmp_path)) == 2
    assert "reported seeds" in capsys.readouterr().err


def test_rates_are_the_best_of_the_table(tmp_path):
    table = tmp_path / "tuning.csv"
    with pytest.raises(UserError, match="--tune"):
        heads_studies.rates(table)
    lines = [
        f"{p}-{h}-{rate},{p},{h},{rate},1000,{-abs(rate - 1e-3)}"
        for p, names in heads_studies.TUNED.items()
        for h in names
        for rate in heads_studies.RATES
    ]
    table.write_text("\n".join(["key_id,problem,head,rate,seed,score", *lines]))
    assert set(heads_studies.rates(table).values()) == {1e-3}
    gone = [f"{one.split(',')[0]}-b,{','.join(one.split(',')[1:4])},1001,nan" for one in lines if ",0.001," in one]
    table.write_text("\n".join(["key_id,problem,head,rate,seed,score", *lines, *gone]))
    assert set(heads_studies.rates(table).values()) == {3e-4}, "a seed diverged at the best"
    table.write_text("\n".join(["key_id,problem,head,rate,seed,score", *lines[:-5]]))
    with pytest.raises(UserError, match="quantile"):
        heads_studies.rates(table)


def test_tuning_leaves_out_what_diverged():
    found = {"q": np.array([[[1.0, 2.0], [1.0, np.nan]]]), "score": np.array([[[3.0, 4.0], [5.0, 6.0]]])}
    np.testing.assert_array_equal(value_heads.scores_of(heads_studies.MAZE, found), [[4.0, np.nan]])
    found = {"error": np.array([[[1.0, 2.0], [np.nan, 1.0]]])}
    np.testing.assert_array_equal(value_heads.scores_of(heads_studies.SHIFTS, found), [[-1.5, np.nan]])


def test_tuning_some_studies_leaves_the_rows_of_others_alone(monkeypatch, tmp_path):
    table = tmp_path / "tuning.csv"
    before = [f"shifts-mse-0.01-{seed},shifts,mse,0.01,{seed},-0.000123" for seed in (1000, 1001)]
    table.write_text("\n".join(["key_id,problem,head,rate,seed,score", *before, ""]))
    trained = []

    def train(arms, configs, used, seeds):
        trained.append(arms[0].problem)
        scores = np.array([[[0.0, rate + seed] for seed in seeds] for rate in used])
        return {"score": scores, "q": np.zeros_like(scores)}

    monkeypatch.setattr(value_heads, "TUNING", table)
    monkeypatch.setattr(value_heads, "train", train)
    assert run(monkeypatch, "--tune", "--only=online", "--preset=smoke") == 0
    assert table.read_text().splitlines()[1:] == before  # as it was: nothing is published unless it is asked for
    trained.clear()
    assert run(monkeypatch, "--tune", "--only=online", "--publish") == 0
    assert trained == ["online"] * len(heads_studies.ALL)
    lines = table.read_text().splitlines()
    assert lines[1:3] == before
    assert lines[3] == "online-mse-0.0003-1000,online,mse,0.0003,1000,1000.0003"
    assert len(lines) == 3 + len(trained) * len(heads_studies.RATES) * len(value_heads.TUNING_SEEDS)


def test_runs_are_bit_equal_found_again_and_drawn(monkeypatch, capsys, tmp_path, rates):
    words = ("--preset=smoke", "--seeds=1000:1002", "--only=plasticity,memory,targets", "--out", str(tmp_path))
    assert run(monkeypatch, *words) == 0
    summary = tmp_path / "value_heads" / "summary.csv"
    first = rundir.read_rows(summary)
    assert len(first) == 2 * (4 + 8 + 3)
    assert {row["algo"] for row in first if np.isfinite(row["clipped_targets"])} == {"two_hot", "hl_gauss"}
    capsys.readouterr()
    monkeypatch.setattr(value_heads, "run_group", None)  # nothing is left to run
    assert run(monkeypatch, *words) == 0
    assert capsys.readouterr().out.count("have finished before") == 11
    assert rundir.read_rows(summary) == first or str(rundir.read_rows(summary)) == str(first)
    monkeypatch.undo()
    monkeypatch.setattr(heads_studies, "rates", lambda: _Any())
    again = ("--preset=smoke", "--seeds=1000:1002", "--only=plasticity,memory", "--out", str(tmp_path), "--fresh")
    assert run(monkeypatch, *again) == 0
    measured = ("run_id", "score_last", "value_error", *value_heads.ERRORS)
    key = partial(str.join, "|")
    before, after = (
        sorted(key([str(row[name]) for name in measured]) for row in rows)
        for rows in (first, rundir.read_rows(summary))
    )
    assert before == after
    assert set(figures.draw(tmp_path)) == {"value_heads/plasticity-smoke", "value_heads/memory-smoke"}
