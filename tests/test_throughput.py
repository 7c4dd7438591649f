"""The benchmark: its counts against XLA's, its clock against known work, and the command as a user meets it."""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import flops, measure, profiling, report, throughput, timing, workloads
from experiments.workloads import Row
from jaxrl_suite.errors import UserError
from paper_figs import throughput as figure

QUICK = ("--windows=1", "--seconds=0.05")
SETTINGS = measure.Settings("float32", 1, 0.05)


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        throughput.main()
    return stop.value.code, *capsys.readouterr()


# --- Counts ---
def test_counts_of_the_peers_table():
    """What stands beside the peers' rates: 1.40, 7.4, 35.5 and 4.6 GFLOP, 0.54 MFLOP, up to how they were rounded."""
    member, actor, critic = flops.mlp(23, (200,) * 4, 36), flops.mlp(17, (256,) * 3, 12), flops.mlp(23, (256,) * 3, 1)
    assert flops.fit_step(member, 7, 256).plain == pytest.approx(1.40e9, rel=0.005)
    assert flops.transition(member, actor).plain == pytest.approx(0.54e6, rel=0.005)
    assert flops.update(actor, critic, 10, 256, True).plain == pytest.approx(7.4e9, rel=0.01)
    assert flops.update(actor, critic, 50, 256, True).plain == pytest.approx(35.5e9, rel=0.01)
    assert flops.update(actor, critic, 10, 256, False).plain == pytest.approx(4.6e9, rel=0.015)


@pytest.mark.parametrize("name", ["quick-ensemble", "quick-ravl", "sac-10", "ravl-10-hl_gauss"])
def test_counts_equal_what_xla_compiles(name):
    """XLA counts a loop's body once, so a unit is one step; it also counts what is not a matrix product."""
    work = next(row for row in workloads.FIXED if row.name == name).build("float32")
    compiled = jax.jit(work.step).lower(work.state, work.data).compile()
    expected = work.flops.done
    if name == "quick-ensemble":  # after the loop: the hold-out's 1,000 rows
        expected += 2.0 * 7 * 1_000 * workloads.member_shape(workloads.settings("quick", "float32").dynamics).all
    assert 1.0 <= compiled.cost_analysis()["flops"] / expected < 1.1


# --- The profile ---
def test_a_compiled_program_is_read_as_what_it_is():
    """A batched product of known size, wherever XLA puts it; and the bytes of its two factors and its output."""
    a, b = jnp.ones((3, 64, 32)), jnp.ones((3, 32, 16))
    program = jax.jit(lambda a, b: jnp.tanh(jnp.einsum("bij,bjk->bik", a, b))).lower(a, b).compile().as_text()
    found = profiling.operations(program)
    products = [operation for operation in found.values() if operation.flops]
    outermost = [operation for operation in products if operation.kind != "dot"] or products
    assert [operation.flops for operation in outermost] == [2.0 * 3 * 64 * 32 * 16]
    assert outermost[0].bytes == 4.0 * (a.size + b.size + 3 * 64 * 16)
    assert "f32[3,64,16]" in outermost[0].output and "dot_general" in outermost[0].source


def test_contracted_axes_and_tuples_are_counted():
    program = "\n".join(
        [
            "ENTRY %main (a: f32[8,2,5]) -> (f32[2,5,3], s32[4]) {",
            "  %a = f32[8,2,5]{2,1,0} parameter(0)",
            "  %b = bf16[8,3,2]{2,1,0} parameter(1)",
            "  %c = f32[2,5,3]{2,1,0} dot(%a, %b), lhs_batch_dims={1}, lhs_contracting_dims={0}, "
            'rhs_contracting_dims={0}, metadata={op_name="jit(f)/while/body/dot_general"}',
            "  ROOT %d = (f32[2,5,3]{2,1,0}, s32[4]{0}) tuple(%c, %e)",
            "}",
        ]
    )
    found = profiling.operations(program)
    assert found["c"].flops == 2.0 * 2 * 5 * 3 * 8
    assert found["c"].bytes == 4.0 * 80 + 2.0 * 48 + 4.0 * 30
    assert found["c"].source == "dot_general"
    assert found["d"].output == "f32[2,5,3]+s32[4]" and found["d"].flops == 0.0


def test_a_profile_says_where_the_time_goes(monkeypatch, capsys, tmp_path):
    path = tmp_path / "throughput" / "profile.csv"
    code, out, _ = run(monkeypatch, capsys, "--profile", "--only=quick-rollouts", f"--out={tmp_path}")
    assert code == 0 and "matrix product" in out
    rows = pd.read_csv(path)
    assert set(rows["row"]) == {"quick-rollouts"} and rows["id"].is_unique
    assert rows["share"].sum() == pytest.approx(1.0)
    assert (rows["kind"] == "matrix product").any() and rows["gflops"].max() > 0


# --- The clock ---
class Clock:
    """A clock that work itself moves."""

    now = 0.0

    def work(self, seconds):
        def call():
            self.now += seconds

        return call


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: made.now)
    return made


def test_a_reference_of_half_the_work_takes_half_as_long(clock):
    timed = timing.interleaved(clock.work(4e-3), clock.work(2e-3), windows=3, seconds=0.02)
    assert timed == pytest.approx((4e-3, 4e-3, 4e-3, 0.5, 2e-3))


def test_a_machine_that_slows_down_between_windows_leaves_the_ratio(clock):
    """Everything takes longer and longer; rates fall, what they are of the reference's stays."""

    def slowing(seconds):
        def call():
            clock.now += seconds * (1.0 + clock.now)

        return call

    timed = timing.interleaved(slowing(4e-3), slowing(2e-3), windows=5, seconds=0.02)
    assert timed.high > 1.2 * timed.low
    assert timed.ratio == pytest.approx(0.5, rel=0.02)


def test_windows_hold_as_many_calls_as_fill_them(clock):
    calls = []
    work = clock.work(0.01)
    timing.interleaved(lambda: calls.append(work()), clock.work(0.05), windows=2, seconds=0.1)
    assert len(calls) == 2 + 2 * 10  # to warm up and to find the number; then the windows


def test_work_is_done_again_on_its_own_result():
    """A donated state is handed on, not used twice."""
    work = workloads.Work(lambda state, data: (state + data, state), jnp.zeros(()), jnp.ones(()), 1, "steps")
    loop = measure.Loop(work)
    assert [float(loop()) for _ in range(3)] == [0.0, 1.0, 2.0]
    assert loop.compile_seconds > 0


# --- The command ---
def test_a_run_writes_rows_and_figure_and_keeps_them(monkeypatch, capsys, tmp_path):
    words = ("--only=matmul-float32,bandwidth,quick-rollouts", *QUICK, f"--out={tmp_path}")
    code, out, _ = run(monkeypatch, capsys, *words)
    assert code == 0
    rows = pd.read_csv(tmp_path / "throughput" / "summary.csv").set_index("name")
    assert list(rows.reset_index()[list(throughput.COLUMNS)].columns) == list(throughput.COLUMNS)
    assert (rows["rate"] > 0).all() and (rows["peak_gb"] > 0.05).all()
    timed = rows.loc["quick-rollouts"]
    assert timed["rate_low"] <= timed["rate"] <= timed["rate_high"]
    np.testing.assert_allclose(
        timed["utilisation"], timed["rate"] * timed["gflop_done"] / timed["peak_gflops"], rtol=0.5
    )
    assert 0 < timed["fraction"] < 1.5 and timed["compile_seconds"] > 0
    assert (tmp_path / "throughput" / "roofline.png").exists()
    page = tmp_path / "index.html"
    report.write(tmp_path, page)  # measurements have no seeds, and a page all the same
    assert "quick-rollouts" in page.read_text() and "measurements, not runs with seeds" in page.read_text()
    before = (tmp_path / "throughput" / "summary.csv").read_bytes()
    code, out, _ = run(monkeypatch, capsys, *words)
    assert code == 0 and out.count("measured before") == 3
    assert (tmp_path / "throughput" / "summary.csv").read_bytes() == before


def test_both_precisions_of_a_machine_share_its_figures(tmp_path):
    """README asks for both in one folder: the machine was measured with each, and growth is a line of each."""
    measured = [
        *(("machine", name, 0, 100.0) for name in ("matmul-float32", "matmul-bfloat16", "bandwidth")),
        *(("critics", f"critics-{size}", size, 50.0 / size) for size in (2, 4)),
    ]
    rows = [
        {"group": group, "name": name, "size": size, "rate": rate * faster, "precision": precision}
        for precision, faster in (("float32", 1.0), ("bfloat16", 2.0))
        for group, name, size, rate in measured
    ]
    (tmp_path / "throughput").mkdir()
    pd.DataFrame(rows).assign(gflop_done=0.0).to_csv(tmp_path / "throughput" / "summary.csv", index=False)
    drawn = figure.draw(tmp_path)
    assert "roof: 200 GB/s, 200 GFLOP/s" in drawn["throughput/roofline"].axes[0].get_legend_handles_labels()[1]
    lines = {line.get_label(): line.get_ydata() for line in drawn["throughput/growth"].axes[0].get_lines()}
    np.testing.assert_allclose(lines["float32"], [0.04, 0.08])
    np.testing.assert_allclose(lines["bfloat16"], [0.02, 0.04])


def die(precision):
    os._exit(1)


def test_a_process_that_dies_is_one_line():
    with pytest.raises(UserError, match="process that measured doomed died"):
        throughput.alone(measure.measure, Row("doomed", "table", 0, die), SETTINGS)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--only=ravl-11"], "did you mean ravl-10"),
        (["--windows=0"], "--windows=0 must be at least 1"),
        (["--seconds=0"], "--seconds=0.0 must be above 0"),
        (["--seconds=inf"], "--seconds=inf must be finite"),
        (["--precision=float16"], "unknown precision 'float16'"),
        (["--population=1,zero"], "--population=1,zero is no list of positive whole numbers"),
        (["--devices=0"], "--devices=0 is no list of positive whole numbers"),
    ],
)
def test_bad_input_is_one_line(monkeypatch, capsys, tmp_path, words, expected):
    code, _, err = run(monkeypatch, capsys, *words, f"--out={tmp_path}")
    assert code == 2
    assert expected in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "throughput").exists()


def test_options_choose_rows():
    def names(**words):
        return [row.name for row in throughput.chosen_rows(throughput.Options(**words))]

    assert names() == [row.name for row in (*workloads.MACHINE, *workloads.FIXED)]
    assert names(population="1,4") == ["population-1", "population-4"]
    assert names(only="sac-10", population="2") == ["sac-10", "population-2"]
    assert [name for name in names(growth=True) if name.startswith("critics")] == [
        f"critics-{n}" for n in (2, 5, 10, 20, 50)
    ]
