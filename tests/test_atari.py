"""DQN on Atari: stacks never show another episode, the network is the Nature one, a run leaves its rows."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import atari_heads
from jaxrl_suite import frames, nets
from jaxrl_suite.algorithms import dqn_atari
from jaxrl_suite.envs import atari
from jaxrl_suite.errors import UserError
from jaxrl_suite.train import compose, host, members, rundir
from jaxrl_suite.types import Timestep

ENVS, DEPTH, CAPACITY = 2, 4, 12
insert, draw = jax.jit(frames.insert), jax.jit(frames.sample, static_argnums=(2, 3))


# --- stacks ---
def story(lengths, ticks):
    """Frames of one environment as the host tells them: (frame, fresh, valid) per tick; a frame names its episode and
    its step. The row after the last step of an episode holds the frame that this step led to, and is the reset."""
    rows = []
    for episode, length in enumerate([*lengths, *[1] * ticks], start=1):
        rows += [(10 * episode + min(step, 9), step == 0, step < length) for step in range(length + 1)]
    return rows[:ticks]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(1, 7), max_size=6), min_size=ENVS, max_size=ENVS), st.integers(DEPTH + 1, 30))
def test_stacks_are_those_of_the_actor_and_never_cross_an_episode(lengths, ticks):
    told = [story(mine, ticks) for mine in lengths]
    replay, stack = frames.empty(jnp.zeros((ENVS, 1, 1), jnp.uint8), CAPACITY), np.zeros((ENVS, 1, 1, DEPTH), np.uint8)
    acted = []
    for tick in range(ticks):
        frame, fresh, valid = (np.array([told[env][tick][i] for env in range(ENVS)]) for i in range(3))
        frame = frame.astype(np.uint8)[:, None, None]
        stack = np.asarray(frames.push(jnp.array(stack), jnp.array(frame), jnp.array(fresh)))
        acted.append(stack[:, 0, 0])
        # The action names its row, so that a draw can be found again.
        action = jnp.arange(ENVS) + ENVS * tick
        replay = insert(replay, frames.Row(frame, fresh, action, action * 1.0, action * 0.5, valid))
    rows, weight = jax.tree.map(np.asarray, draw(replay, jax.random.key(ticks), 64, DEPTH))
    tick, env = rows.action // ENVS, rows.action % ENVS
    np.testing.assert_array_equal(weight, [told[e][t][2] for t, e in zip(tick, env, strict=True)])
    np.testing.assert_array_equal(rows.reward, rows.action)
    np.testing.assert_array_equal(rows.discount, 0.5 * rows.action)
    assert tick.max() < ticks - 1  # the newest has no successor yet
    oldest = max(0, ticks - CAPACITY)
    assert tick.min() >= oldest + DEPTH - 1
    for index in np.flatnonzero(weight):
        t, e = tick[index], env[index]
        np.testing.assert_array_equal(rows.obs[index, 0, 0], acted[t][e])
        np.testing.assert_array_equal(rows.next_obs[index, 0, 0], acted[t + 1][e])
        episodes = {int(frame) // 10 for frame in (*rows.obs[index, 0, 0], *rows.next_obs[index, 0, 0]) if frame}
        assert len(episodes) == 1


# --- the network ---
def test_the_network_is_the_nature_one():
    net = nets.nature_cnn((84, 84, 4), {"q": 6})
    weights = jax.eval_shape(net.init, jax.random.key(0))
    shapes = {name: layer["kernel"].shape for name, layer in weights.items()}
    assert shapes == {
        "conv_0": (8, 8, 4, 32),
        "conv_1": (4, 4, 32, 64),
        "conv_2": (3, 3, 64, 64),
        "hidden_0": (7 * 7 * 64, 512),
        "q": (512, 6),
    }
    assert sum(x.size for x in jax.tree.leaves(weights)) == 1_687_206
    out = jax.eval_shape(net.apply, weights, jax.ShapeDtypeStruct((3, 2, 84, 84, 4), jnp.uint8))
    assert out["q"].shape == (3, 2, 6)


def test_initial_weights_of_a_convolution_are_bounded_by_its_fan_in():
    kernel = nets.fan_in_uniform()(jax.random.key(0), (8, 8, 4, 32))
    assert 0.95 / 16 < jnp.max(jnp.abs(kernel)) <= 1 / 16


# --- the games ---
def test_games_begin_and_end_as_the_pool_promises():
    spec = atari.spec("pong")
    assert spec.name == "Pong-v5" and atari.is_game(spec.name) and not atari.is_game("Hopper-v4")
    games = atari.Atari(spec.name, [3, 4], horizon=3)
    first = games.reset()
    assert first.shape == (2, 84, 84) and first.dtype == np.uint8
    seen = [games.step(np.array([2, 3])) for _ in range(5)]
    games.close()
    assert [bool(x.truncated.all()) for x in seen] == [False, False, True, False, False]
    assert [bool(x.valid.all()) for x in seen] == [True, True, True, False, True]
    assert not any(x.terminated.any() for x in seen)


def test_the_table_of_games_is_that_of_envpool():
    import envpool

    for name, (actions, low, high) in atari.GAMES.items():
        made = envpool.make_gymnasium(name + atari.VERSION, num_envs=1)
        assert made.action_space.n == actions and low < high
        made.close()


def test_a_host_of_games_is_rebuilt_by_its_actions_and_a_game_depends_on_its_seed_alone():
    actions = np.random.default_rng(0).integers(0, 6, (1, 30, 2))
    one, again = (host.Host("Pong-v5", [5], 2) for _ in range(2))
    alone = atari.Atari("Pong-v5", [host.env_seed(5, 0, 1)])
    alone.reset()
    for tick in range(30):
        seen, single = one.step(actions[:, tick]), alone.step(actions[0, tick, 1:])
    np.testing.assert_array_equal(seen.obs[0, 1], single.obs[0])
    again.replay(actions[:, :29])
    np.testing.assert_array_equal(again.step(actions[:, 29]).obs, seen.obs)
    for pool in (one, again, alone):
        pool.close()


# --- the learner ---
def tiny(**changes):
    return dataclasses.replace(dqn_atari.with_head(dqn_atari.PRESETS["smoke"], "hl_gauss"), **changes)


def test_an_episode_is_counted_whole_and_rewards_are_clipped_for_learning_only():
    spec = atari.spec("Pong")._replace(obs_dim=36**2)
    algorithm = dqn_atari.make(spec, tiny())
    explore = jax.jit(algorithm.phases[0].update)
    init = jax.jit(lambda data: algorithm.phases[0].init(jax.random.key(0), algorithm.hypers, data, None))
    state = init(jnp.zeros((4, 36, 36), jnp.uint8))
    valid, ended = np.ones(4, bool), np.zeros(4, bool)
    for tick in range(6):
        ended[1] = tick == 3
        valid[1] = tick != 4  # the reset
        reward = np.full(4, 5.0, np.float32) * valid
        seen = Timestep(np.full((4, 36, 36), tick, np.uint8), reward, ended.copy(), np.zeros(4, bool), valid.copy())
        state, _ = explore(state, (jnp.zeros(4, jnp.int32), seen))
    assert int(state.ended.size) == 1
    assert (float(state.ended.data.returned[0]), float(state.ended.data.length[0])) == (20.0, 4.0)
    np.testing.assert_array_equal(state.running.returned, [30.0, 5.0, 30.0, 30.0])
    rows = state.replay.data
    np.testing.assert_array_equal(rows.reward[:6, 1], [1, 1, 1, 1, 0, 1])
    np.testing.assert_array_equal(rows.discount[:6, 1], [1, 1, 1, 0, 1, 1])
    np.testing.assert_array_equal(rows.valid[:6, 1], [1, 1, 1, 1, 0, 1])
    np.testing.assert_array_equal(rows.fresh[:6, 1], [1, 0, 0, 0, 0, 1])
    looked = atari_heads.training_episodes(algorithm._replace(q_value=lambda state, obs, action: jnp.zeros(4)))
    found = looked(jax.tree.map(lambda x: jnp.stack([x, x]), state), (0, 1), 0)
    assert found.returns.tolist() == [[20.0], [20.0]] and found.lengths.tolist() == [[4.0], [4.0]]


class Lamps:
    """The left or the right half is lit: the action of that side pays 1. Then all is dark, and any action pays 0.5 and
    ends the game. What a reset answers is nonsense, which must not be learnt from."""

    def __init__(self, envs):
        self.rng, self.envs, self.stage = np.random.default_rng(0), envs, 0

    def reset(self):
        self.side, self.stage = self.rng.integers(0, 2, self.envs), 0
        frame = np.zeros((self.envs, 36, 36), np.uint8)
        for env, side in enumerate(self.side):
            frame[env, :, 18 * side : 18 * side + 18] = 255
        return frame

    def step(self, action):
        flag, dark, no = np.ones(self.envs, bool), np.zeros((self.envs, 36, 36), np.uint8), np.zeros(self.envs, bool)
        self.stage += 1
        if self.stage == 1:
            return Timestep(dark, (action == self.side) * np.float32(1), no, no, flag)
        if self.stage == 2:
            return Timestep(dark + 255, np.full(self.envs, 0.5, np.float32), flag, no, flag)
        return Timestep(self.reset(), np.full(self.envs, -1, np.float32), no, no, no)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["hl_gauss", "c51", "mse"])
def test_values_of_a_game_of_pictures_are_learnt(head):
    config = tiny(
        head=head, explore=200, steps=2_200, replay=2_000, evaluations=1, epsilon=0.5, epsilon_steps=1, batch=32,
        learning_rate=1e-3, adam_eps=1e-6, copy_every=50, gamma=0.8, support="-1,3",
    )  # fmt: skip
    algorithm = dqn_atari.make(atari.spec("Pong")._replace(obs_dim=36**2, action_dim=2), config)
    game = Lamps(4)
    init = jax.jit(lambda first: algorithm.phases[0].init(jax.random.key(0), algorithm.hypers, first, None))
    state = init(jnp.array(game.reset()))
    for phase in algorithm.phases:
        request, update = jax.jit(phase.request, donate_argnums=0), jax.jit(phase.update, donate_argnums=0)
        for _ in range(phase.ticks):
            state, action = request(state)
            state, _ = update(state, (action, jax.tree.map(jnp.asarray, game.step(np.asarray(action)))))
    start = game.reset()
    stacks = frames.push(jnp.zeros((4, 36, 36, 4), jnp.uint8), jnp.array(start), jnp.ones(4, bool))
    after = frames.push(stacks, jnp.zeros((4, 36, 36), jnp.uint8), jnp.zeros(4, bool))
    right, wrong, dark = (
        algorithm.q_value(state, obs, jnp.array(action))
        for obs, action in ((stacks, game.side), (stacks, 1 - game.side), (after, game.side))
    )
    for found, value in ((right, 1.0 + 0.8 * 0.5), (wrong, 0.8 * 0.5), (dark, 0.5)):
        np.testing.assert_allclose(found, value, atol=0.08)


def test_a_step_on_the_host_changes_no_type_and_so_compiles_nothing_anew():
    algorithm = dqn_atari.make(atari.spec("Pong"), tiny())
    begin, phase = (compose.population(phase) for phase in algorithm.phases)
    variants = [members.Variant(algorithm.hypers)]
    first = jax.ShapeDtypeStruct((1, 4, 84, 84), jnp.uint8)
    state = jax.eval_shape(begin.init, *members.arguments(members.of((0,), variants), first, 0, None))
    asked, action = jax.eval_shape(phase.request, state)
    flag = jax.ShapeDtypeStruct((1, 4), bool)
    seen = Timestep(first, jax.ShapeDtypeStruct((1, 4), jnp.float32), flag, flag, flag)
    after, _ = jax.eval_shape(phase.update, asked, (action, seen))
    types = [jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree) for tree in (state, asked, after)]
    assert types[0] == types[1] == types[2]
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))


def test_the_presets_have_the_papers_settings():
    paper = dqn_atari.PRESETS["paper"]
    gauss, mse = (dqn_atari.with_head(paper, head) for head in ("hl_gauss", "mse"))
    assert (gauss.learning_rate, gauss.adam_eps, gauss.bins, gauss.support) == (2.5e-4, 3.125e-4, 51, "-10,10")
    assert (mse.learning_rate, mse.adam_eps) == (6.25e-5, 1.5e-4)
    assert paper.steps * atari.SKIP == 200_000_000 and paper.copy_every * paper.update_every == 8_000
    for head in ("hl_gauss", "mse"):
        phases = dqn_atari.make(atari.spec("Pong"), dqn_atari.with_head(paper, head)).phases
        assert sum(phase.ticks for phase in phases) * paper.envs == paper.steps
        assert all(phase.ticks % phase.chunk == 0 for phase in phases)


# --- the command ---
def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["atari_heads", *words])
    with pytest.raises(SystemExit) as stopped:
        atari_heads.main()
    return stopped.value.code


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--game=Pnog", "did you mean Pong"),
        ("--head=hlgauss", "hl_gauss"),
        ("--preset=quik", "did you mean quick"),
        ("--steps=-1", "--steps=-1 must be positive"),
        ("--steps=2000", "leaves no step"),
        ("--seeds=none", "neither a count"),
        ("--publish --preset=smoke", "--publish takes no runs of --preset=smoke"),
        ("--publish --steps=40000", "leave out --steps"),
        ("--publish --seeds=1000:1001", "reported seeds"),
    ],
)
def test_bad_input_is_one_clear_line(monkeypatch, capsys, tmp_path, words, said):
    assert run(monkeypatch, *words.split(), "--out", str(tmp_path)) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_missing_envpool_is_one_clear_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "envpool", None)
    assert run(monkeypatch, "--out", str(tmp_path)) == 2
    assert "pip install 'envpool>=1.2'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change", [{"explore": 82}, {"envs": 24, "explore": 240}, {"update_every": 3}, {"explore": 16}]
)
def test_sizes_that_do_not_fit_are_refused(change):
    with pytest.raises(UserError, match=r"--explore|--envs"):
        dqn_atari.make(atari.spec("Pong"), tiny(**change))


@pytest.mark.slow
def test_a_run_leaves_rows_and_curves_and_resumes_with_the_same_bits(monkeypatch, capsys, tmp_path):
    words = ("--preset=smoke", "--head=hl_gauss", "--game=Breakout", "--checkpoint-seconds=0.001")
    assert run(monkeypatch, *words, "--out", str(tmp_path / "whole")) == 0
    row = rundir.read_rows(tmp_path / "whole" / "atari_heads" / "summary.csv")[0]
    assert (row["dataset"], row["algo"], row["status"], row["frames"]) == ("Breakout", "hl_gauss", "finished", 800)
    assert len(rundir.read_rows(tmp_path / "whole" / "atari_heads" / "curves.csv")) == 3

    class Stopping(atari_heads.loop.Interrupts):
        """Asks to stop after the second look, which is after the first chunk of training."""

        def __getattribute__(self, name):
            if name != "requested":
                return super().__getattribute__(name)
            self.looks = self.__dict__.get("looks", 0) + 1
            return self.looks > 1

    with monkeypatch.context() as patch:
        patch.setattr(atari_heads.loop, "Interrupts", Stopping)
        assert run(monkeypatch, *words, "--out", str(tmp_path / "parts")) == 75
    assert run(monkeypatch, *words, "--out", str(tmp_path / "parts")) == 0
    read = lambda name: [next((tmp_path / part).rglob(name)).read_text() for part in ("whole", "parts")]  # noqa: E731
    for name in ("eval.csv", "metrics.jsonl"):
        whole, parts = read(name)
        assert whole == parts
    capsys.readouterr()
    assert run(monkeypatch, *words, "--out", str(tmp_path / "parts")) == 0
    assert "has finished before" in capsys.readouterr().out


@pytest.mark.slow
def test_a_diverged_run_says_so(monkeypatch, tmp_path):
    monkeypatch.setitem(dqn_atari.PRESETS, "smoke", dataclasses.replace(dqn_atari.PRESETS["smoke"], gamma=float("inf")))
    assert run(monkeypatch, "--preset=smoke", "--head=mse", "--out", str(tmp_path)) == 0
    assert rundir.read_rows(tmp_path / "atari_heads" / "summary.csv")[0]["status"] == "diverged"
