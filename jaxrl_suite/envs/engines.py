"""The two engines under `envs.mujoco`: MuJoCo's own in C, called back from JAX, and MJX, which is JAX all through.

An engine is a function (qpos `[nq]`, qvel `[nv]`, control `[nu]`) -> (qpos, qvel, x) after one step of the environment,
`skip` steps of the simulator under the same control. It remembers nothing: every call starts its constraint solver
cold, where Gymnasium starts it from the previous solution. The solver runs to convergence, so that the two differ by
rounding (about 1e-13 in double precision; tests/test_mujoco.py compares them).

x `[]` is where the root is: `qpos[0]`, or with `lagging` what MuJoCo's `data.xpos` says of it. MuJoCo does not compute
`xpos` anew for the state that a step ends in: Runge-Kutta leaves it at the last of its four trial states.

A simulation that breaks down (a value that is not finite, or beyond MuJoCo's limits) answers NaN. MuJoCo by itself
would go on silently from the model's first pose, write a warning to a log file in the working folder, and take a
control of NaN for zero.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import os
import threading
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any, Literal

import jax
import numpy as np

from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.types import Array

Engine = Callable[[Array, Array, Array], tuple[Array, Array, Array]]  # (qpos, qvel, control) -> (qpos, qvel, x)
_ONE_AT_A_TIME = threading.Lock()  # the C engine's work space, and its handler of warnings, are the process's


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """MuJoCo's warnings would go to stderr and to a file in the working folder."""
    import mujoco

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def load(xml: str) -> Any:
    """MuJoCo's model (`mujoco.MjModel`) of one of the XML files that Gymnasium ships.

    Its MuJoCo environments are not imported: they need packages for rendering.

    Raises:
        UserError: MuJoCo or Gymnasium is not installed.
    """
    try:
        import mujoco

        text = resources.files("gymnasium").joinpath("envs", "mujoco", "assets", xml).read_text(encoding="utf-8")
    except ImportError as error:
        raise _missing(error) from error
    with _ONE_AT_A_TIME, _quiet():
        return mujoco.MjModel.from_xml_string(text)


def _missing(error: ImportError) -> UserError:
    return UserError(f"MuJoCo as a pure environment needs the extra: pip install 'jaxrl_suite[mujoco]' ({error})")


def _finish() -> None:
    """Wait for programs that still run: a callback into an interpreter that is shutting down aborts the process."""
    for array in jax.live_arrays():
        with contextlib.suppress(Exception):
            array.block_until_ready()


@functools.cache  # one pool of threads per task
def in_c(xml: str, skip: int, lagging: bool = False) -> Engine:
    """The C engine, a thread for each core; a batch is one call, and a row's result does not depend on the others."""
    model = load(xml)
    import mujoco.rollout

    threads = os.cpu_count() or 1
    pool, spaces = mujoco.rollout.Rollout(nthread=threads), [mujoco.MjData(model) for _ in range(threads)]
    half = _half(xml) if lagging else None
    seconds = skip * model.opt.timestep
    atexit.register(_finish)

    def on_host(qpos: Any, qvel: Any, control: Any) -> tuple[np.ndarray, ...]:
        dtype, shape = np.asarray(qpos).dtype, np.shape(qpos)[:-1]
        start = np.concatenate([np.zeros((*shape, 1)), qpos, qvel], -1, dtype=np.float64)  # the first entry is the time
        start = start.reshape(-1, start.shape[-1])
        controls = np.repeat(np.asarray(control, np.float64).reshape(-1, 1, model.nu), skip, axis=1)
        with _ONE_AT_A_TIME, _quiet():
            states, _ = pool.rollout(model, spaces, start, controls)
            last, x = states[:, -1], states[:, -1, 1:2]
            if lagging:
                before = states[:, -2] if skip > 1 else start
                x = _last_trial(half, lambda state: pool.rollout(half, spaces, state, controls[:, :1])[0][:, 0], before)
        last = np.concatenate([last, x], axis=-1)
        # A simulation that breaks down starts its clock again, or stops there.
        last[last[:, 0] < 0.99 * seconds] = np.nan
        last = last.reshape(*shape, -1).astype(dtype)
        return last[..., 1 : 1 + model.nq], last[..., 1 + model.nq : -1], last[..., -1]

    def advance(qpos: Array, qvel: Array, control: Array) -> tuple[Array, Array, Array]:
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, qpos.dtype), (qpos, qvel, qpos[..., 0]))
        return jax.pure_callback(on_host, shapes, qpos, qvel, control, vmap_method="broadcast_all")

    return advance


def _half(xml: str) -> Any:
    """The model in half steps of Euler's method, which change velocities by the acceleration at their beginning."""
    model = load(xml)
    import mujoco

    model.opt.timestep /= 2
    model.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_EULERDAMP
    return model


def _last_trial(half: Any, step: Callable[[np.ndarray], np.ndarray], before: np.ndarray) -> np.ndarray:
    """The root's x `[rows, 1]` in the last trial of the Runge-Kutta step from the states `before`.

    That trial moves by the velocity of the third, v + a h / 2, with the acceleration `a` at the second. MuJoCo's
    rollouts hand back states only, so that the two that it takes are found again, by a `step` of the model `half` each.
    """
    import mujoco

    x, v = slice(1, 2), slice(1 + half.nq, 2 + half.nq)
    second = step(before)
    second[:, 1 : 1 + half.nq] = before[:, 1 : 1 + half.nq]
    for row, start in zip(second, before, strict=True):
        mujoco.mj_integratePos(half, row[1 : 1 + half.nq], start[1 + half.nq :], half.opt.timestep)
    change = step(second)[:, v] - second[:, v]
    return before[:, x] + 2 * half.opt.timestep * (before[:, v] + change)


def in_jax(xml: str, skip: int, lagging: bool = False) -> Engine:
    """MJX, in JAX's precision at the time of this call. It takes a minute or so to compile on a CPU.

    It turns the pyramid of friction of a capsule that touches the ground and stands steeper than 60 degrees
    (google-deepmind/mujoco#2774). Only ant feels that, as the others move in a plane: from such a state, a velocity
    after a step was up to 1.7 off the C engine's. From first states they agree to 1e-5, from most others to 1e-3.
    """
    native = load(xml)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that an optional package is missing
            from mujoco import mjx
    except ImportError as error:
        raise _missing(error) from error
    model = mjx.put_model(native)

    def advance(qpos: Array, qvel: Array, control: Array) -> tuple[Array, Array, Array]:
        data = mjx.make_data(model).replace(qpos=qpos, qvel=qvel, ctrl=control)
        data = jax.lax.fori_loop(0, skip, lambda _, d: mjx.step(model, d), data)
        return data.qpos, data.qvel, data.xpos[1, 0] if lagging else data.qpos[0]

    return advance


Backend = Literal["c", "mjx"]
BACKENDS: dict[str, Callable[[str, int, bool], Engine]] = {"c": in_c, "mjx": in_jax}


def engine(backend: str, xml: str, skip: int, lagging: bool = False) -> Engine:
    """The engine of that name.

    Raises:
        UserError: no such backend, or a package is not installed.
    """
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    return BACKENDS[backend](xml, skip, lagging)
