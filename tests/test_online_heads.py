"""Value heads online: MBPO and SAC by `mbpo_online`, pure and on the host, and the options of ensemble_vs_lipschitz."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_ensemble_vs_lipschitz import run
from test_lipschitz_costs import cost
from test_mbpo_online import CONFIG, KEY, SPEC, built

from experiments import at_once, ensemble_vs_lipschitz, lipschitz_arms, lipschitz_probes
from experiments.lipschitz_arms import LONG, Arm
from jaxrl_suite.algorithms import mbpo_host, mbpo_online, sac
from jaxrl_suite.algorithms.head_options import fields_of
from jaxrl_suite.envs import registry
from jaxrl_suite.errors import UserError
from jaxrl_suite.sweep import tasks
from jaxrl_suite.train import session
from jaxrl_suite.types import Timestep
from jaxrl_suite.values.heads import HeadConfig

HEAD = HeadConfig("hl_gauss", bins=21, support="-5,0")
WITH_HEAD = dataclasses.replace(CONFIG, **fields_of(HEAD), steps=CONFIG.explore + 2, period=2, utd=1, evaluations=1)


# --- The algorithm ---
def test_two_updates_with_hl_gauss_are_finite_and_values_lie_within_the_support():
    algorithm, state, update = built(WITH_HEAD)
    after, metrics = update(state)
    assert int(after.agent.critic_opt.count) == 2
    assert all(np.isfinite(value).all() for value in metrics.values())
    assert 0 < metrics["clipped_targets"] <= 1 and metrics["target_kl"] > 0  # a step costs up to 16
    rows = after.replay.data
    values = np.asarray(algorithm.q_values(after, rows.obs, rows.action))
    assert values.shape == (2, WITH_HEAD.steps) and (values >= -5).all() and (values <= 0).all()
    # The norms of layers bound logits, not such values: no bound is told.
    bounds = {head: lipschitz_probes.upper_bound(head, after.agent.critic) for head in ("mse", HEAD.name)}
    assert np.isfinite(bounds["mse"]).all() and np.isnan(bounds[HEAD.name]).all()


@pytest.mark.parametrize("real_ratio", [0.05, 1.0])
def test_on_the_host_critics_have_an_output_for_every_bin(real_ratio):
    spec = registry.spec("hopper")
    algorithm = mbpo_host.make(spec, dataclasses.replace(WITH_HEAD, real_ratio=real_ratio))
    explore, train = algorithm.phases
    obs = jnp.zeros((1, spec.obs_dim))
    state = jax.eval_shape(explore.init, KEY, algorithm.hypers, obs, None)
    flags = jnp.zeros(1, bool)
    answer = jnp.zeros((1, spec.action_dim)), Timestep(obs, jnp.zeros(1), flags, flags, flags)
    state, metrics = jax.eval_shape(train.update, state, answer)
    assert "clipped_targets" in metrics
    assert HEAD.bins in {leaf.shape[-1] for leaf in jax.tree.leaves(state.agent.critic)}


@pytest.mark.parametrize("make, spec", [(mbpo_online.make, SPEC), (mbpo_host.make, registry.spec("hopper"))])
@pytest.mark.parametrize(
    "changes, words",
    [
        ({"support": "auto"}, "give --support=LO,HI"),
        ({"head": "hl_gaus"}, "did you mean hl_gauss"),
        ({"head": "mse", "initial_value": "-1"}, "is for heads with bins"),
        ({"bins": 1}, "can hold no two values"),
    ],
)
def test_heads_that_cannot_be_are_refused(make, spec, changes, words):
    with pytest.raises(UserError, match=words):
        make(spec, dataclasses.replace(WITH_HEAD, **changes))


def test_published_identities_know_nothing_of_heads():
    for module in (mbpo_online, mbpo_host, sac):
        for config in module.PRESETS.values():
            assert not set(fields_of(HEAD)) & set(session.plain(config))
    assert session.plain(WITH_HEAD)["support"] == "-5,0"


# --- The experiment ---
def test_a_head_is_a_setting_of_every_arm_that_says_so():
    arms = lipschitz_arms.asked("pendulum", "quick", head=HEAD)
    assert {arm._replace(head=lipschitz_arms.PLAIN) for arm in arms} == set(lipschitz_arms.ARMS)  # and none longer
    assert {arm.head for arm in (*arms, *lipschitz_arms.asked("hopper", LONG, head=HEAD))} == {HEAD}
    arm = Arm("sac-utd", "layer-norm", 10_000, head=HEAD)
    config = arm.config("pendulum", "quick")
    assert config.actor_critic().head == HEAD and config.layer_norm and config.steps == 10_000
    words = "head=hl_gauss bins=21 support=-5,0 steps=10000 layer_norm=True"
    assert lipschitz_arms.text(arm) == words
    chosen = ensemble_vs_lipschitz.Options(**fields_of(HEAD))
    with_head, without = (
        ensemble_vs_lipschitz.Group(one, (0,), chosen, None) for one in (arm, arm._replace(head=lipschitz_arms.PLAIN))
    )
    assert with_head.run_ids != without.run_ids and with_head.settings == words
    assert with_head.label == f"{without.label}-hl_gauss"
    # Processes of several workers are told of it.
    command = tasks.words(at_once.of_group(with_head, lipschitz_arms.EXPERIMENT, chosen).task)
    assert {"--head=hl_gauss", "--bins=21", "--support=-5,0"} <= set(command)


def test_operations_of_critics_count_their_bins():
    plain, more = cost("sac"), cost("sac", **fields_of(HEAD))
    config = Arm("sac").config("pendulum", "quick")
    # Two critics; their targets, the actor's pass through them and their own gradient: six passes in all.
    assert more - plain == 2 * config.batch * 2 * 6 * config.hidden[-1] * (HEAD.bins - 1)


@pytest.mark.parametrize(
    "words, said",
    [
        (["--head=hlgauss"], "unknown value head 'hlgauss'; did you mean hl_gauss"),
        (["--head=hl_gauss"], "--support=auto needs a data set's returns, and there are none; give --support=LO,HI"),
        (["--head=hl_gauss", "--support=0,-400"], "encloses no value"),
        (["--head=hl_gauss", "--support=-400,0", "--bins=1"], "--bins=1 can hold no two values"),
        (["--head=hl_gauss", "--support=-400,0", "--sigma-ratio=0"], "leaves HL-Gauss no Gaussian"),
        (["--head=hl_gauss", "--support=-400,0", "--initial-value=9"], "does not lie between the ends"),
        (["--initial-value=9"], "--initial-value=9 is for heads with bins"),
    ],
)
def test_bad_options_are_refused_in_one_line(words, said, monkeypatch, capsys, tmp_path):
    assert run(monkeypatch, *words, f"--out={tmp_path}") == 2
    told = capsys.readouterr().err
    assert said in told and len(told.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_options_that_a_head_has_no_use_for_are_told(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(ensemble_vs_lipschitz.studies, "run_group", lambda *_: 1)
    assert run(monkeypatch, "--models=sac", "--bins=51", f"--out={tmp_path}") == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "--bins=51 changes nothing: --head=mse has no use for it" in told
