"""What `experiments.throughput` times: a row per piece of work, on made-up data of HalfCheetah's shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments import flops, timing
from experiments.flops import Flops
from jaxrl_suite import buffer, mesh
from jaxrl_suite.algorithms import actor_critic, ravl
from jaxrl_suite.algorithms.actor_critic import ActorCriticConfig, Hypers
from jaxrl_suite.envs import registry
from jaxrl_suite.models import ensemble, fit
from jaxrl_suite.models.ensemble import EnsembleConfig
from jaxrl_suite.models.fit import FitConfig
from jaxrl_suite.models.imagine import imagine
from jaxrl_suite.train.compose import begin, places, population
from jaxrl_suite.train.evaluate import make_evaluator
from jaxrl_suite.types import Array, Dataset, Params, Stats, Transition, Tree
from jaxrl_suite.values import heads

SPEC = registry.spec("HalfCheetah-v4")
NONE = Flops(0.0, 0.0)


class Work(NamedTuple):
    """A piece of work that can be repeated: `step(state, data) -> (state, output)`, jitted with the state donated."""

    step: Callable[[Tree, Tree], tuple[Tree, Tree]]
    state: Tree
    data: Tree
    units: float  # of work in a step
    unit: str
    flops: Flops = NONE  # of a unit
    once: bool = False  # too long for windows: timed once, after compiling
    host: bool = False  # a Python function, not to be jitted
    places: Any = None  # where state and output lie, if on several devices


class Row(NamedTuple):
    """A row of the benchmark."""

    name: str
    group: str  # machine, table or quick; buffer, critics, horizon, population, strong or weak where `size` varies
    size: int  # what varies within the group, 0 where nothing does
    build: Callable[[str], Work]  # precision -> Work; to be pickled, as rows are measured in processes of their own
    devices: int = 1


# --- Made-up data ---
def transitions(rows: int) -> Transition:
    """Normal observations, uniform actions."""
    keys = jax.random.split(jax.random.key(rows), 4)
    return Transition(
        obs=jax.random.normal(keys[0], (rows, SPEC.obs_dim)),
        action=jax.random.uniform(keys[1], (rows, SPEC.action_dim), minval=-1.0, maxval=1.0),
        reward=jax.random.normal(keys[2], (rows,)),
        discount=jnp.ones(rows),
        next_obs=jax.random.normal(keys[3], (rows, SPEC.obs_dim)),
    )


def dataset(rows: int) -> Dataset:
    """A data set of one endless episode."""
    made = transitions(rows)
    return Dataset(made, made.action, jnp.zeros(rows, bool), jnp.zeros(rows, jnp.int32), made.reward, None)


def fitted(dynamics: EnsembleConfig) -> Params:
    """An untrained world model: it costs what a trained one does."""
    width = SPEC.obs_dim + SPEC.action_dim
    return ensemble.make(SPEC, dynamics).init(jax.random.key(1), Stats(jnp.zeros(width), jnp.ones(width)))


# --- Shapes ---
def member_shape(dynamics: EnsembleConfig) -> flops.Shape:
    """A member of the dynamics ensemble: mean and log-variance of [next_obs, reward]."""
    return flops.mlp(SPEC.obs_dim + SPEC.action_dim, dynamics.hidden, 2 * (SPEC.obs_dim + 1))


def actor_shape(config: ActorCriticConfig) -> flops.Shape:
    """The policy: mean and log-std of the action."""
    return flops.mlp(SPEC.obs_dim, config.hidden, 2 * SPEC.action_dim)


def update_flops(config: ActorCriticConfig, diverse: bool) -> Flops:
    """An update of the actor-critic."""
    size = heads.make(config.head).size
    critic = flops.mlp(SPEC.obs_dim + SPEC.action_dim, config.hidden, size)
    return flops.update(actor_shape(config), critic, config.critics, config.batch, diverse, scalar=size == 1)


def settings(preset: str, precision: Any, **changes: Any) -> ravl.Config:
    """RAVL's settings of a preset, with fields changed."""
    config = dataclasses.replace(ravl.PRESETS[preset], precision=precision, **changes)
    return dataclasses.replace(config, dynamics=dataclasses.replace(config.dynamics, precision=precision))


# --- Work ---
def matmul(dtype: str, precision: str) -> Work:
    """The plain matrix product that runs at the machine's peak; a unit is 1e9 operations."""
    probe = timing.matmul_probe(dtype)
    return Work(lambda state, data: (state, probe.call()), (), (), probe.amount / 1e9, "GFLOP", host=True)


def bandwidth(precision: str) -> Work:
    """Reading and writing a large array; a unit is 1e9 bytes."""
    probe = timing.bandwidth_probe()
    return Work(lambda state, data: (state, probe.call()), (), (), probe.amount / 1e9, "GB", host=True)


def fitting(preset: str, precision: str, steps: int = 100) -> Work:
    """Gradient steps of the ensemble, with one look at the hold-out (1,000 rows)."""
    dynamics = settings(preset, precision).dynamics
    config = FitConfig(steps=steps, checks=1)
    _, phase = fit.make(SPEC, dynamics, config)
    data = dataset(5_000)
    state = jax.jit(phase.init)(jax.random.key(0), (), data, None)
    count = flops.fit_step(member_shape(dynamics), dynamics.members, config.batch)
    return Work(phase.update, state, data, steps, "steps", count)


def rollouts(preset: str, starts: int, horizon: int, precision: str) -> Work:
    """Imagined rollouts of the policy from `starts` states."""
    config = settings(preset, precision)
    shape = config.actor_critic()
    ac, model = actor_critic.make(SPEC, shape), ensemble.make(SPEC, config.dynamics)
    agent = jax.jit(ac.init)(jax.random.key(0), Hypers(), None)

    def step(key: Array, data: tuple) -> tuple[Array, Tree]:
        agent, params, obs = data
        key, rollout_key = jax.random.split(key)
        return key, imagine(model, params, partial(ac.policy, agent), obs, obs, horizon, rollout_key)

    count = flops.transition(member_shape(config.dynamics), actor_shape(shape))
    data = (agent, fitted(config.dynamics), transitions(starts).obs)
    return Work(step, jax.random.key(2), data, starts * horizon, "transitions", count)


def updates(
    preset: str,
    precision: str,
    diverse: bool = True,
    critics: int = 0,
    rows: int = 100_000,
    steps: int = 4,
    head: str = "mse",
) -> Work:
    """Updates of the actor-critic on batches drawn from a buffer of `rows` rows; 0 `critics` is the preset's number."""
    config = settings(preset, precision, head=head, support="-100,100").actor_critic()
    config = dataclasses.replace(config, critics=critics or config.critics)
    ac = actor_critic.make(SPEC, config, diverse=diverse)
    full = buffer.Buffer(transitions(rows), jnp.int32(rows), jnp.int32(0))
    agent = jax.jit(ac.init)(jax.random.key(0), Hypers(diversity=1.0), None)

    def step(state: Tree, data: buffer.Buffer) -> tuple[Tree, Tree]:
        def learn(agent: Tree, key: Array) -> tuple[Tree, Tree]:
            sample_key, update_key = jax.random.split(key)
            return ac.update(agent, buffer.sample(data, sample_key, config.batch), update_key)

        agent, key = state
        key, scan_key = jax.random.split(key)
        agent, metrics = jax.lax.scan(learn, agent, jax.random.split(scan_key, steps))
        return (agent, key), metrics

    return Work(step, (agent, jax.random.key(3)), full, steps, "updates", update_flops(config, diverse))


def period(preset: str, precision: str, length: int, members: int = 0, devices: int = 1, batch: int = 256) -> Work:
    """A period of RAVL as training runs it: rollouts into the ring buffer, then `length` updates on mixed batches.

    With `members` it is a population of them, and a unit is an update of one member; on several `devices` rows and
    batches are spread over them.
    """
    spread = mesh.make(data=devices) if devices > 1 else None
    config = settings(preset, precision, updates=length, period=length, batch=batch)
    phase = ravl.make(SPEC, config).phases[1]
    data = dataset(20_000)
    if spread is not None:
        data, members = mesh.shard_rows(jax.device_get(data), spread), max(members, 1)
    start = jax.random.key(4), config.hypers(config.diversity), data, fitted(config.dynamics)
    if members:
        phase, start = population(phase), _copies(members, *start)
    shape = config.actor_critic()
    imagined = flops.transition(member_shape(config.dynamics), actor_shape(shape))
    share = config.rollouts * config.horizon / length  # imagined transitions per update
    count = Flops(*(a + share * b for a, b in zip(update_flops(shape, True), imagined, strict=True)))
    units = length * max(members, 1)
    if spread is None:
        return Work(phase.update, jax.jit(phase.init)(*start), data, units, "updates", count, once=preset == "paper")
    state = begin(phase, start, spread)
    lie = places(state, spread), spread.place()
    return Work(mesh.on(spread, phase.update), state, data, units, "updates", count, places=lie)


def _copies(members: int, key: Array, hypers: Tree, data: Tree, model: Tree) -> tuple:
    """The arguments of a population's `init`: a key for each member, and the rest as often."""
    repeat = partial(jax.tree.map, lambda x: jnp.broadcast_to(jnp.asarray(x), (members, *jnp.shape(x))))
    return jax.random.split(key, members), repeat(hypers), data, repeat(model)


def evaluation(preset: str, precision: str, episodes: int = 10) -> Work:
    """Whole episodes of the deterministic policy on the host's environments."""
    config = settings(preset, precision, rollouts=10)
    algorithm = ravl.make(SPEC, config)
    evaluate = make_evaluator(SPEC, algorithm, config.gamma, episodes)
    start = jax.random.key(5), algorithm.hypers, dataset(10), fitted(config.dynamics)
    states = jax.tree.map(lambda leaf: leaf[None], jax.jit(algorithm.phases[1].init)(*start))

    def step(index: int, data: Tree) -> tuple[int, Tree]:
        evaluate(data, (0,), index)
        return index + 1, ()

    return Work(step, 1, states, episodes * SPEC.horizon, "environment steps", host=True)


# --- Rows ---
MACHINE = (
    Row("matmul-float32", "machine", 0, partial(matmul, "float32")),
    Row("matmul-bfloat16", "machine", 0, partial(matmul, "bfloat16")),
    Row("bandwidth", "machine", 0, bandwidth),
)
FIXED = (
    Row("ensemble", "table", 0, partial(fitting, "paper")),
    Row("rollouts-50k", "table", 0, partial(rollouts, "paper", 50_000, 5)),
    Row("rollouts-1k", "table", 0, partial(rollouts, "paper", 1_000, 5)),
    Row("ravl-10", "table", 0, partial(updates, "paper")),
    Row("ravl-50", "table", 0, partial(updates, "paper", critics=50, steps=2)),
    Row("sac-10", "table", 0, partial(updates, "paper", diverse=False)),
    Row("ravl-10-hl_gauss", "table", 0, partial(updates, "paper", head="hl_gauss")),
    Row("sac-10-hl_gauss", "table", 0, partial(updates, "paper", diverse=False, head="hl_gauss")),
    Row("end-to-end", "table", 0, partial(period, "paper", length=1_000)),
    Row("evaluation", "table", 0, partial(evaluation, "paper")),
    Row("quick-ensemble", "quick", 0, partial(fitting, "quick")),
    Row("quick-rollouts", "quick", 0, partial(rollouts, "quick", 5_000, 5)),
    Row("quick-ravl", "quick", 0, partial(updates, "quick", steps=20)),
    Row("quick-end-to-end", "quick", 0, partial(period, "quick", length=250)),
    Row("quick-evaluation", "quick", 0, partial(evaluation, "quick")),
)
# How cost grows: with the rows of the buffer (it should not), with critics and with the horizon (in proportion).
ROWS = (10_000, 100_000, 1_000_000, 10_000_000)
GROWTH = (
    *(
        Row(f"buffer-{n}", "buffer", n, partial(updates, "quick", rows=n, steps=20))
        for n in (10**4, 10**5, 10**6, 10**7)
    ),
    *(Row(f"critics-{n}", "critics", n, partial(updates, "paper", critics=n, steps=2)) for n in (2, 5, 10, 20, 50)),
    *(Row(f"horizon-{n}", "horizon", n, partial(rollouts, "paper", 1_000, n)) for n in (1, 2, 5, 10, 20)),
)


def populations(sizes: Sequence[int]) -> tuple[Row, ...]:
    """RAVL's quick preset with so many members in one program."""
    return tuple(
        Row(f"population-{n}", "population", n, partial(period, "quick", length=250, members=n)) for n in sizes
    )


def scaling(devices: Sequence[int]) -> tuple[Row, ...]:
    """RAVL's quick preset over so many devices: the same work (strong), and batches that grow with them (weak)."""
    part = partial(period, "quick", length=250)
    strong = (Row(f"strong-{n}", "strong", n, partial(part, devices=n), n) for n in devices)
    weak = (Row(f"weak-{n}", "weak", n, partial(part, devices=n, batch=256 * n), n) for n in devices)
    return (*strong, *weak)
