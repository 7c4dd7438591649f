"""Environments by name: MuJoCo tasks on the host (`envs.pool`), pure environments and probes."""

from __future__ import annotations

import re
from collections.abc import Callable

from jaxrl_suite.envs import box, cartpole, engines, mujoco, pendulum, probes, termination
from jaxrl_suite.envs.scores import REFERENCES
from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.types import Array, Env, Spec


def _short(name: str) -> str:
    """The name in lower case and without its version."""
    return re.sub(r"-v\d+$", "", name.lower())


def _mujoco(name: str, obs_dim: int, action_dim: int, is_terminal: Callable[[Array], Array]) -> Spec:
    return Spec(name, obs_dim, action_dim, 1000, is_terminal, *REFERENCES[_short(name)])


_HOST = (
    _mujoco("Hopper-v4", 11, 3, termination.hopper),
    _mujoco("HalfCheetah-v4", 17, 6, termination.halfcheetah),
    _mujoco("Walker2d-v4", 17, 6, termination.walker2d),
    _mujoco("Ant-v3", 111, 8, termination.ant),  # D4RL's: the 84 contact forces that v4 leaves out are 0 in envpool
    _mujoco("Ant-v4", 27, 8, termination.ant),  # after v3, for "ant" is the last of them
)
_PURE = {
    env.spec.name: env
    for env in (pendulum.make(), cartpole.make(), box.make(), *(probe.env for probe in probes.PROBES.values()))
}
_SPECS = {spec.name: spec for spec in (*_HOST, *(env.spec for env in _PURE.values()))}
_CANONICAL = {alias: name for name in _SPECS for alias in (name.lower(), _short(name))}


def names() -> tuple[str, ...]:
    """Canonical names of all environments."""
    return tuple(_SPECS)


def spec(name: str) -> Spec:
    """The Spec of an environment; the name in any case, with or without its version ("hopper", "Hopper-v4").

    Raises:
        UserError: no such environment.
    """
    canonical = _CANONICAL.get(name.lower())
    if canonical is None:
        known = _SPECS if re.search(r"-v\d+$", name) else map(_short, _SPECS)  # in the style of who asks
        raise unknown("environment", name, dict.fromkeys(known))
    return _SPECS[canonical]


def is_pure(name: str) -> bool:
    """Whether `make` can build it; training and evaluation run the others on the host, in `envs.pool`."""
    return spec(name).name in _PURE


def make(name: str) -> Env:
    """The pure environment of that name.

    Raises:
        UserError: no such environment, or it runs on the host.
    """
    canonical = spec(name).name
    if canonical not in _PURE:
        raise UserError(
            f"{canonical} is no pure environment; expected one of {', '.join(_PURE)}; "
            "step it on the host with jaxrl_suite.envs.pool.Pool"
        )
    return _PURE[canonical]


def pure(name: str, backend: str = "c") -> Env:
    """The pure environment of that name, a host task's pure version included: what an oracle world model steps.

    `make` answers for what is always pure; the versions of MuJoCo's tasks need the extra `mujoco`, and `backend`
    ("c" or "mjx") is theirs alone.

    Raises:
        UserError: no such environment, no such backend, a backend for what has none, or a package is missing.
    """
    if backend not in engines.BACKENDS:
        raise unknown("backend", backend, engines.BACKENDS)
    if not is_pure(name):
        return mujoco.make(spec(name), backend)
    if backend != "c":
        raise UserError(f"{spec(name).name} is pure as it is, {backend} an engine of MuJoCo's tasks; leave it out")
    return make(name)
