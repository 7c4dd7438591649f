"""What holds on eight devices; `test_mesh.py` runs this file in a process that has them."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import random_data

from experiments import offline_mbrl, options
from jaxrl_suite import buffer, mesh
from jaxrl_suite.algorithms import bc, ravl
from jaxrl_suite.data import load as load_data
from jaxrl_suite.envs import registry
from jaxrl_suite.errors import UserError
from jaxrl_suite.train import checkpoint, identity, loop, members
from jaxrl_suite.train.compose import begin, chunk, places, population

ENV = registry.make("pendulum")
ROWS, SEEDS = 1603, (0, 1)  # rows that four shards do not divide
# EDAC's term makes rounding grow fast (see test_population); without it what is learnt can be compared.
CONFIG = dataclasses.replace(ravl.PRESETS["smoke"], updates=20, period=10, retain=3, diversity=0.0)
CAPACITY = CONFIG.rollouts * CONFIG.horizon * CONFIG.retain
RAVL = ravl.make(ENV.spec, CONFIG)
COLLECTIVE = re.compile(
    r"= (.*?) (all-gather|all-reduce|reduce-scatter|collective-permute|all-to-all)(?:-start)?\((.*)"
)


@pytest.fixture(scope="session")
def data():
    assert jax.device_count() == 8
    return jax.tree.map(np.asarray, random_data(ENV, ROWS))


def people(algorithm, seeds):
    return members.of(seeds, (members.Variant(algorithm.hypers),))


def trained(devices, data, algorithm=RAVL, seeds=SEEDS):
    """Every phase after one chunk: its state, metrics and compiled program."""
    rows, previous, phases = mesh.shard_rows(data, devices), None, []
    for index, phase in enumerate(map(population, algorithm.phases)):
        state = begin(phase, members.arguments(people(algorithm, seeds), rows, index, previous), devices)
        program = chunk(phase, devices, state).run.lower(state, rows).compile()
        before = jax.tree.map(lambda leaf: leaf.sharding, state)
        state, metrics = program(state, rows)
        assert jax.tree.map(lambda leaf: leaf.sharding, state) == before
        phases.append((state, metrics, program))
        previous = jax.jit(phase.result)(state)
    return phases


@pytest.fixture(scope="session")
def one(data):
    return trained(mesh.make(), data)


@pytest.fixture(scope="session")
def many(data):
    return trained(mesh.parse("seed:2,data:4", len(SEEDS)), data)


def leaves(tree):
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        yield jax.tree_util.keystr(path), np.asarray(jax.random.key_data(leaf) if key else leaf)


def assert_close(a, b):
    for (name, x), (_, y) in zip(leaves(a), leaves(b), strict=True):
        if not np.issubdtype(x.dtype, np.floating):
            np.testing.assert_array_equal(x, y, err_msg=name)
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4, err_msg=name)


# --- Global sampling ---
def test_what_is_drawn_is_bit_equal_to_one_device():
    numbers = {
        "row": np.arange(ROWS),
        "flag": np.arange(ROWS) % 3 == 0,
        "x": np.linspace(-1, 1, 2 * ROWS).reshape(-1, 2),
    }
    devices = mesh.parse("seed:2,data:4", 2)

    def draw(rows, keys):
        return jax.vmap(lambda key: buffer.draw(mesh.unpadded(rows), key, 64), spmd_axis_name="seed")(keys)

    keys = jax.random.split(jax.random.key(7), 2)
    sharded = jax.jit(mesh.on(devices, draw))(mesh.shard_rows(numbers, devices), keys)
    alone = jax.jit(draw)(numbers, keys)
    for name in numbers:
        assert sharded[name].dtype == alone[name].dtype
        np.testing.assert_array_equal(sharded[name], alone[name])
    assert len(np.unique(sharded["row"])) > 100


def test_a_ring_holds_and_yields_what_it_does_on_one_device():
    def turns(start):
        def turn(ring, number):
            rows = number * 10 + jnp.arange(10)
            return buffer.insert(ring, rows, rows % 3 != 0), None

        ring, _ = jax.lax.scan(turn, start, jnp.arange(9))
        return ring, buffer.sample(ring, jax.random.key(1), 24)

    start = buffer.empty(jnp.int32(0), 40)
    sharded = jax.jit(mesh.on(mesh.make(1, 8), turns))(start)
    for (name, a), (_, b) in zip(leaves(jax.jit(turns)(start)), leaves(sharded), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_training_gives_the_numbers_of_one_device(one, many):
    for (state, metrics, _), (other, others, _) in zip(one, many, strict=True):
        assert_close(state, other)
        assert_close(metrics, others)


def collectives(text):
    """(kind, sizes of what is sent or received) of every collective in a compiled program."""
    return [(m[2], {int(n) for n in re.findall(r"\d+", " ".join(re.findall(r"\[[\d,]*\]", m[1])))})
            for m in map(COLLECTIVE.search, text.splitlines()) if m]  # fmt: skip


def big(devices):
    """Sizes that only an axis of rows has: of the data, the bootstraps and the ring, whole and per shard."""
    bootstrap = 1536  # 1282 training rows, filled up
    whole = {ROWS, ROWS + 1, bootstrap, CAPACITY}
    return whole | {-(-n // devices) for n in whole}


def test_neither_data_nor_ring_are_gathered(many):
    for _, _, program in many:
        sent = collectives(program.as_text())
        assert any(kind == "all-reduce" for kind, _ in sent)
        assert not [found for found in sent if found[1] & big(4)]


def test_nor_are_the_data_when_a_fit_begins(data):
    devices = mesh.make(2, 4)
    arguments = members.arguments(people(RAVL, SEEDS), mesh.shard_rows(data, devices), 0, None)
    init = mesh.on(devices, population(RAVL.phases[0]).init)
    shardings = places(jax.eval_shape(init, *arguments), devices)
    sent = collectives(jax.jit(init, out_shardings=shardings).lower(*arguments).compile().as_text())
    assert sent and not [found for found in sent if found[1] & big(4)]


def test_that_check_sees_a_gather():
    devices = mesh.make(1, 4)
    rows = mesh.shard_rows({"x": np.zeros((ROWS + 1, 3), np.float32)}, devices)
    text = jax.jit(lambda rows: rows["x"] * 2, out_shardings=devices.place()).lower(rows).compile().as_text()
    assert any(kind == "all-gather" and sizes & big(4) for kind, sizes in collectives(text))


def test_every_gradient_is_reduced_once_per_update(many):
    """Within the loop over updates: a sum each for temperature, actor and critics, and one that brings the batch."""
    lines = [line for line in many[1][2].as_text().splitlines() if line.count("while/body") > 1]
    sums = [line for line in lines if " all-reduce(" in line or " all-reduce-start(" in line]
    assert len(sums) == 4
    assert not [
        line for line in lines if line not in sums and line.count("closed_call") == 3 and COLLECTIVE.search(line)
    ]


def bytes_on_a_device(tree):
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("shards", [2, 4, 8])
def test_bytes_per_device_fall_as_one_over_devices(data, shards):
    devices = mesh.make(1, shards)
    placed = mesh.shard_rows(data, devices)
    assert bytes_on_a_device(placed) <= sum(leaf.nbytes for leaf in jax.tree.leaves(data)) / shards * (1 + 8 / ROWS)
    state = members.template(RAVL, people(RAVL, SEEDS), placed, 1, devices)
    for leaf in jax.tree.leaves(state.members.imagined.data):
        assert leaf.sharding.shard_shape(leaf.shape) == (2, CAPACITY // shards, *leaf.shape[2:])
    fit = members.template(RAVL, people(RAVL, SEEDS), placed, 0, devices).members.rows
    assert fit.sharding.shard_shape(fit.shape) == (2, 7, 1536 // shards)


def test_members_along_seed_are_those_of_one_device_and_exchange_nothing(data):
    algorithm, seeds = bc.make(ENV.spec, bc.PRESETS["smoke"]), tuple(range(8))
    ((state, metrics, program),) = trained(mesh.parse("seed:8", 8), data, algorithm, seeds)
    ((alone, same, _),) = trained(mesh.make(), data, algorithm, seeds)
    assert_close(state, alone)
    assert_close(metrics, same)
    assert {shard.data.shape[0] for shard in state.members.key.addressable_shards} == {1}
    lines = program.as_text().splitlines()
    assert not [line for line in lines if COLLECTIVE.search(line) and line.count("while/body") > 1]


# --- Local sampling ---
def test_a_shard_draws_its_own_rows_all_of_them_and_moves_none():
    devices = mesh.make(1, 4, local=True)

    def draw(rows, key):
        return buffer.draw(mesh.unpadded(rows), key, 4000)

    program = jax.jit(mesh.on(devices, draw))
    rows = mesh.shard_rows(np.arange(103), devices)
    drawn = np.asarray(program(rows, jax.random.key(0))).reshape(4, -1)
    for shard, found in enumerate(drawn):
        np.testing.assert_array_equal(np.unique(found), np.arange(26 * shard, min(26 * shard + 26, 103)))
    counts = np.bincount(drawn.ravel(), minlength=103)
    assert counts.min() > 15 and counts.max() < 75  # 39 on average
    assert not collectives(program.lower(rows, jax.random.key(0)).compile().as_text())


@pytest.mark.parametrize("turns", [1, 2, 9])
def test_a_ring_fills_its_shards_together_and_keeps_the_newest(turns):
    def fill(start):
        def turn(ring, number):
            rows = 1 + number * 10 + jnp.arange(10)
            return buffer.insert(ring, rows, rows % 3 != 0), None

        ring, _ = jax.lax.scan(turn, start, jnp.arange(turns))
        return ring, buffer.sample(ring, jax.random.key(1), 2000)

    ring, drawn = jax.jit(mesh.on(mesh.make(1, 4, local=True), fill))(buffer.empty(jnp.int32(0), 40))
    newest = np.array([n for n in range(1, 10 * turns + 1) if n % 3])[-40:]
    np.testing.assert_array_equal(np.unique(drawn), newest)
    held = [np.count_nonzero(part) for part in np.split(np.asarray(ring.data), 4)]
    assert max(held) - min(held) <= 1


@pytest.mark.parametrize("local", [False, True])
def test_the_parts_of_a_batch_are_told_from_each_other(local):
    """MOBILE penalises imagined rows, COMBO raises real ones: wherever the parts lie that were drawn by shard."""

    def apart(real, imagined):
        return buffer.parts(buffer.share(real, imagined), 8)

    real, imagined = jnp.arange(8), jnp.arange(100, 124)
    parts = jax.jit(mesh.on(mesh.make(1, 4, local), apart))(real, imagined)
    np.testing.assert_array_equal(parts[0], real)
    np.testing.assert_array_equal(parts[1], imagined)


def test_ravl_learns_with_local_sampling_and_only_gradients_are_summed(data):
    config = dataclasses.replace(CONFIG, real_ratio=0.25)
    (_, (state, metrics, program)) = trained(mesh.make(2, 4, local=True), data, ravl.make(ENV.spec, config))
    text = program.as_text()
    assert all(np.isfinite(value).all() for value in metrics.values())
    assert not state.diverged.any()
    inner = [line for line in text.splitlines() if line.count("while/body") > 1]
    assert not [line for line in inner if "shard_map/psum" in line]
    assert not [found for found in collectives(text) if found[1] & big(4)]


# --- Checkpoints ---
@pytest.mark.parametrize("phase", [0, 1])
@pytest.mark.parametrize("shrinks", [True, False])
def test_a_checkpoint_goes_on_on_another_mesh(one, many, data, tmp_path, shrinks, phase):
    (state, _, _), (_, _, program) = (many, one)[not shrinks][phase], (one, many)[not shrinks][phase]
    checkpoint.save(tmp_path, 1, state, {})
    devices = mesh.make() if shrinks else mesh.make(2, 4)
    rows = mesh.shard_rows(data, devices)
    template = members.template(RAVL, people(RAVL, SEEDS), rows, phase, devices)
    loaded = checkpoint.load_latest(tmp_path, template, "").tree
    for (name, a), (_, b) in zip(leaves(state), leaves(loaded), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
    assert jax.tree.map(lambda leaf: leaf.sharding, loaded) == jax.tree.map(lambda leaf: leaf.sharding, template)
    assert state.diverged.sharding.num_devices != loaded.diverged.sharding.num_devices
    moved, _ = program(loaded, rows)  # compiled for that mesh
    assert not moved.diverged.any()
    if phase == 1:
        assert (np.asarray(moved.members.agent.critic_opt.count) == 2 * CONFIG.period).all()


# --- Identity ---
def described(*words):
    shared, entry, config = options.offline(["--algo=bc", "--preset=smoke", "--seeds=2", *words], "test", "")
    dataset, info = load_data(shared.dataset)
    return offline_mbrl.describe(shared, entry, config, offline_mbrl.spec_of(dataset, info), info)


def test_a_mesh_has_its_own_runs_and_local_sampling_its_own_rows_too():
    one, many, local, other = (
        described(*words)
        for words in (
            ["--mesh=data:1"],
            ["--mesh=data:4"],
            ["--mesh=data:4", "--sampling=local"],
            ["--mesh=data:8", "--sampling=local"],
        )
    )
    assert one.devices.layout() == "1 cpu" and many.devices.layout() == "4 cpu, seed:1,data:4"
    assert len({run.group for run in (one, many, local, other)}) == 4
    assert one.frozen == many.frozen and local.frozen["sampling"] == "local, 4 shards"
    assert len({identity.run_id(run.frozen, 0) for run in (one, many, local, other)}) == 3
    assert described("--mesh=seed:2", "--sampling=local").frozen == one.frozen  # one shard: nothing is local


# --- Bad input ---
@pytest.mark.parametrize(
    ("text", "seeds", "line"),
    [
        ("data:16", 1, "asks for 16 devices, there are 8"),
        ("seed:4,data:4", 4, "asks for 16 devices, there are 8"),
        ("seed:2", 3, "seed:2 does not divide the 3 seeds"),
        ("rows:2", 1, "is not a mesh; expected seed:N,data:M"),
        ("data:0", 1, "is not a mesh"),
        ("data:2,data:4", 1, "is not a mesh"),
    ],
)
def test_meshes_that_cannot_be(text, seeds, line):
    with pytest.raises(UserError, match=line):
        mesh.parse(text, seeds)


def test_an_empty_mesh_takes_all_devices_seeds_first():
    for seeds, expected in ((1, (1, 8)), (3, (1, 8)), (4, (4, 2)), (6, (2, 4)), (16, (8, 1))):
        assert mesh.parse("", seeds).mesh.devices.shape == expected


def test_more_shards_than_rows(data):
    with pytest.raises(UserError, match="5 rows leave a shard of data:8 empty"):
        mesh.shard_rows(jax.tree.map(lambda leaf: leaf[:5], data), mesh.make(1, 8))
    with pytest.raises(UserError, match="9 rows leave a shard of data:8 empty"):
        mesh.shard_rows(np.arange(9), mesh.make(1, 8))


def job(data, devices, **changes):
    algorithm = ravl.make(ENV.spec, dataclasses.replace(CONFIG, **changes))
    return loop.Job(ENV.spec, algorithm, mesh.shard_rows(data, devices), SEEDS, {}, devices=devices)


def test_what_does_not_divide_is_refused_before_anything_is_trained(data):
    loop.check(job(data, mesh.make(1, 8)))
    with pytest.raises(UserError, match="the 3025 rows of imagined data do not divide over data:8"):
        loop.check(job(data, mesh.make(1, 8), rollouts=121, horizon=5, retain=5))
    with pytest.raises(UserError, match="rows cannot be drawn in equal shares from 8 shards"):
        loop.check(job(data, mesh.make(1, 8, local=True), real_ratio=0.05))
    devices = mesh.make(1, 8, local=True)
    tenth = bc.make(ENV.spec, dataclasses.replace(bc.PRESETS["smoke"], top=0.1, batch=20))
    with pytest.raises(UserError, match="20 rows cannot be drawn in equal shares from 8 shards"):
        loop.check(loop.Job(ENV.spec, tenth, mesh.shard_rows(data, devices), SEEDS, {}, devices=devices))


# --- Chosen rows ---
@pytest.mark.parametrize("local", [False, True])
def test_the_best_tenth_is_that_of_one_device(data, local):
    """Rows chosen by the return of their episode, over shards that episodes cross and that differ in length."""
    algorithm = bc.make(ENV.spec, dataclasses.replace(bc.BEST_TENTH["smoke"], updates=20))
    ((state, metrics, _),) = trained(mesh.make(2, 4, local), data, algorithm)
    ((alone, same, _),) = trained(mesh.make(), data, algorithm)
    assert state.members.rows.shape == (2, 160)
    assert_close(state, alone)
    assert_close(metrics, same)
