"""Evaluate the policies of a finished run: whole episodes on start states that training never saw.

The table has a row per seed: mean return with the 95% interval over episodes, normalised score, episode length, and the
critic's estimate at the start beside the discounted return that followed.
"""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.table import Table

from experiments import options
from jaxrl_suite.envs import scores
from jaxrl_suite.errors import UserError, exits_cleanly
from jaxrl_suite.report import stats
from jaxrl_suite.train import session
from jaxrl_suite.train.display import make_console
from jaxrl_suite.train.evaluate import Episodes, make_evaluator

# Training evaluates with indices from 1 up; this one is far beyond them.
INDEX = 1_000_000


@dataclass(frozen=True)
class Options:
    """Options of an evaluation."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """The run directory, such as runs/offline_mbrl/ravl-hopper-medium-replay-mini-<id>."""
    episodes: int = 100
    """Episodes per seed."""
    video: bool = False
    """Also write a video of one episode of the first seed beside the run (needs the extra `video`)."""


def table(run: session.Run, episodes: Episodes) -> Table:
    """A row per member."""
    several = len(run.settings) > 1
    shown = Table(
        *(["settings"] if several else []),
        "seed",
        "return [95% interval]",
        "score",
        "length",
        "Q at start",
        "true discounted return",
    )
    for row, (seed, variant) in enumerate(run.members):
        mean = stats.mean_interval(episodes.returns[row])
        bounds = f" [{mean.low:,.1f}, {mean.high:,.1f}]" if np.isfinite(mean.low) else ""
        shown.add_row(
            *([variant.settings] if several else []),
            str(seed),
            f"{mean.estimate:,.1f}{bounds}",
            f"{float(scores.normalised_score(run.spec, mean.estimate)):.1f}",
            f"{episodes.lengths[row].mean():,.0f}",
            f"{episodes.q_start[row].mean():,.1f}",
            f"{episodes.discounted[row].mean():,.1f}",
        )
    return shown


def record_video(run: session.Run, path: Path) -> Path:
    """One episode of the first seed's policy as an mp4, rendered by Gymnasium.

    Raises:
        UserError: the extra `video` is missing, or nothing here can render.
    """
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo's own default needs a display
    try:
        import gymnasium
        import imageio.v3 as imageio
    except ImportError as error:
        raise UserError(f"--video needs the extra: pip install -e '.[video]' ({error})") from error
    try:
        frames = _frames(run, gymnasium.make(run.spec.name, render_mode="rgb_array"))
        imageio.imwrite(path, np.stack(frames), fps=125)
    except Exception as error:  # whatever OpenGL, MuJoCo or ffmpeg raise
        raise UserError(f"--video cannot render: {error}; try MUJOCO_GL=osmesa, or a machine with a display") from error
    return path


def _frames(run: session.Run, env: Any) -> list[Any]:
    """The pictures of an episode; Gymnasium's action bounds may be others than the policy's -1 and 1."""
    from gymnasium.wrappers import RescaleAction

    policy, env = run.policy(), RescaleAction(env, np.float32(-1.0), np.float32(1.0))
    obs, _ = env.reset(seed=INDEX)
    frames = [env.render()]
    ended = False
    while not ended:
        obs, _, terminated, truncated, _ = env.step(np.asarray(policy(obs[None].astype(np.float32)))[0])
        frames.append(env.render())
        ended = terminated or truncated
    env.close()
    return frames


@exits_cleanly
def main() -> int:
    """Evaluate the run that the command line names."""
    chosen = options.parse(Options, options.arguments(), Options(), "python -m experiments.evaluate", __doc__ or "")
    if chosen.run is None:
        raise UserError("which run? give its directory: python -m experiments.evaluate runs/offline_mbrl/<run>")
    if chosen.episodes < 1:
        raise UserError(f"--episodes={chosen.episodes} must be at least 1")
    run = session.load(chosen.run)
    console = make_console()
    console.print(
        f"{run.config['algo']} on {run.spec.name}: {chosen.episodes} episodes of each of {len(run.seeds)} seeds"
    )
    gammas = [member.variant.gamma for member in run.members]
    evaluate = make_evaluator(run.spec, run.algorithm, gammas, chosen.episodes)
    console.print(table(run, evaluate(run.parameters, [member.seed for member in run.members], INDEX)))
    if chosen.video:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Gymnasium's on -v4 environments, JAX's on ffmpeg's fork
            video = record_video(run, chosen.run / "episode.mp4")
        console.print(f"video: {video}")
    return 0


if __name__ == "__main__":
    main()
