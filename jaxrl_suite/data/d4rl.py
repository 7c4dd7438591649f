"""D4RL's MuJoCo data sets by name, version 2 alone: `hopper-medium-v2`.

Version 0 of hopper-medium-expert was stitched together wrongly, and version 1 has hopper's medium and expert data
swapped (D4RL#19, #76, #86). The files are those that D4RL itself downloads; no checksums are published for them, so
that of the first download is recorded and holds (see `fetch`). A folder's SHA256SUMS overrules it.

The environments are the closest that the suite has: D4RL recorded Hopper-v2, HalfCheetah-v2 and Walker2d-v2 with
mujoco-py, which match v4. Ant-v2 observes 111 numbers, as v3 does and later versions do not. 84 of them are contact
forces, which are 0 in envpool's v3, and, as Gymnasium's documentation says, in v2 with mujoco-py after 2.0; whether
they are in D4RL's files is not known here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from jaxrl_suite.data import container, fetch
from jaxrl_suite.errors import UserError

MIRROR_VARIABLE = "JAXRL_SUITE_D4RL_URL"
MIRROR = "https://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2"
ENVS = {"hopper": "Hopper-v4", "halfcheetah": "HalfCheetah-v4", "walker2d": "Walker2d-v4", "ant": "Ant-v3"}
LEVELS = ("random", "medium", "expert", "medium-replay", "medium-expert", "full-replay")
_NAME = re.compile(rf"({'|'.join(ENVS)})-({'|'.join(LEVELS)})-v(\d+)")


class Remote(NamedTuple):
    """A data set that can be downloaded."""

    name: str  # hopper-medium-replay-v2
    env: str
    level: str
    file: str  # hopper_medium_replay-v2.hdf5

    @property
    def url(self) -> str:
        """Where it is; JAXRL_SUITE_D4RL_URL names another folder of the same files."""
        return f"{(os.environ.get(MIRROR_VARIABLE) or MIRROR).rstrip('/')}/{self.file}"


def _remote(task: str, level: str) -> Remote:
    return Remote(f"{task}-{level}-v2", ENVS[task], level, f"{task}_{level.replace('-', '_')}-v2.hdf5")


REMOTES = {remote.name: remote for remote in (_remote(task, level) for task in ENVS for level in LEVELS)}


def refuse_old(name: str) -> None:
    """Say which version to take, if `name` is of another one."""
    match = _NAME.fullmatch(name)
    if match and match[3] != "2":
        raise UserError(
            f"{name}: D4RL's version {match[3]} is not supported (hopper's v0 is stitched wrongly, its v1 swapped); "
            f"use {match[1]}-{match[2]}-v2"
        )


def cache_folder() -> Path:
    """Where downloads are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jaxrl_suite" / "data"


def present(remote: Remote) -> Path | None:
    """The downloaded file, or None."""
    path = cache_folder() / remote.file
    return path if path.exists() else None


def expected(remote: Remote, folder: Path | None = None) -> str | None:
    """The checksum that the user's SHA256SUMS in the folder states, else the one recorded beside the file."""
    folder = folder or cache_folder()
    return checksums(folder).get(remote.file) or fetch.recorded(folder / remote.file)


def checksums(folder: Path) -> dict[str, str]:
    """File name -> sha256, from the folder's SHA256SUMS; empty without one.

    Raises:
        UserError: it cannot be read as text.
    """
    sums = folder / "SHA256SUMS"
    try:
        lines = sums.read_text(encoding="utf-8").splitlines() if sums.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{sums}: cannot be read as text ({container.one_line(error)}); write it anew with sha256sum, or remove it"
        ) from error
    pairs = (line.split(maxsplit=1) for line in lines if line.strip())
    return {pair[1].lstrip("*"): pair[0].lower() for pair in pairs if len(pair) == 2}


def download(
    remote: Remote,
    *,
    folder: Path | None = None,
    sha256: str | None = None,
    progress: fetch.Progress | None = None,
    limits: fetch.Limits = fetch.Limits(),  # noqa: B008 immutable
    fresh: bool = False,
) -> Path:
    """The data set's file, from the cache folder or from the web."""
    folder = folder or cache_folder()
    return fetch.fetch(
        remote.url,
        folder,
        remote.file,
        sha256=sha256 or checksums(folder).get(remote.file),
        progress=progress,
        verify=_is_d4rl,
        limits=limits,
        fresh=fresh,
    )


def _is_d4rl(path: Path) -> None:
    """Open it, but read the flags alone: a truncated file and a web page are told here, before they are trusted."""
    container.read(path, ("rewards", "terminals"))
