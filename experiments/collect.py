"""Collect a data set: train online SAC and record what it did, or what it can do.

Levels: `random`, uniformly random actions. `medium-replay`, everything that a SAC learner experienced on its way to
`--steps` environment steps; with fewer `--rows`, whole episodes evenly spaced in the order in which they began, as many
as fit. `medium`, rollouts of the stochastic policy that this learner ends with. `expert`, rollouts of the stochastic
policy of a learner after `--expert-steps`, written only if its evaluation return reaches `--threshold` (a stated
return, not D4RL's million steps). `medium-expert`, half of each. Files follow the D4RL HDF5 schema (`--format=d4rl`),
Minari's, or both, and say how they were made.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.table import Column, Table

from experiments import options
from jaxrl_suite import data
from jaxrl_suite.algorithms import registry as algorithms
from jaxrl_suite.algorithms import sac
from jaxrl_suite.data import d4rl
from jaxrl_suite.data.episodes import episode_returns
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.errors import UserError, exits_cleanly, unknown
from jaxrl_suite.train import files, identity, interrupts, loop, record, rundir, session, settings, sinks
from jaxrl_suite.train.display import Display, make_console
from jaxrl_suite.types import Spec

LEVELS = ("random", "medium", "medium-replay", "expert", "medium-expert")
LICENCE = "MIT"
ROWS = 100_000  # of every level but medium-replay, unless --rows says otherwise
WIDTH = 280  # of the table of data sets where no terminal has a width
ENDINGS = {"d4rl": ".hdf5", "minari": "-v0"}  # of a data set's name, by format


@dataclass(frozen=True)
class Options:
    """Options of a collection."""

    env: str = "hopper"
    """Environment: hopper, halfcheetah, walker2d, ant, or a pure one, such as pendulum."""
    level: str = "medium-replay"
    """What to record: random, medium, medium-replay, expert, medium-expert."""
    seed: int = field(default=0, metadata={"zero": True})
    """Seed of learner, environments and recording."""
    steps: int = 150_000
    """Environment steps of the medium learner (and, without --rows, of medium-replay)."""
    expert_steps: int = 500_000
    """Environment steps of the expert learner."""
    threshold: float = field(default=2_500.0, metadata={"signed": True})
    """Mean evaluation return that the expert learner must reach."""
    stop_at_threshold: bool = False
    """End the expert learner at the first evaluation that reaches the threshold, after --expert-steps at the latest."""
    rows: int | None = None
    """Rows of the data set: by default 100,000, and of medium-replay everything. Fewer rows of medium-replay are whole
    episodes, evenly spaced over the learner's life."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of SAC's hidden layers."""
    out: Path = Path("runs")
    """Folder for runs; data sets go to <out>/collect, beside the learners' runs."""
    format: str = "d4rl"
    """Formats to write, with commas between: d4rl (one HDF5 file), minari (a folder that the package minari reads)."""
    fresh: bool = False
    """Start over beside an earlier run of the same configuration, and replace a data set of other options."""
    publish: bool = False
    """Also copy the data set among those bundled with the package, and record its checksum."""
    checkpoint_seconds: float = 60.0
    """Seconds between two checkpoints."""
    log: str = ""
    """Also log the learners' training to: tensorboard, wandb (offline), or both with a comma between."""
    list: bool = False
    """Show the known data sets with size, returns, licence and source, and stop."""


def catalogue() -> Table:
    """The known data sets."""
    table = Table(Column("name", no_wrap=True), "environment", "rows", "episodes", "return", "MB", "licence", "source")
    for info in data.catalogue():
        problem = info.provenance.get("problem")
        spread = str(problem or f"{info.return_mean:,.0f} ± {info.return_std:,.0f}")
        size = f"{info.bytes / 1e6:.1f}"
        table.add_row(
            info.name, str(info.env), f"{info.rows:,}", f"{info.episodes:,}", spread, size, info.licence, info.source
        )
    return table


def learners(chosen: Options) -> dict[str, sac.Config]:
    """The learners that the level needs, medium first.

    Raises:
        UserError: steps that one of them would not all take.
    """
    asked = {"medium": ("--steps", chosen.steps), "expert": ("--expert-steps", chosen.expert_steps)}
    found = {}
    for kind, (option, steps) in asked.items():
        if kind in chosen.level:
            found[kind] = dataclasses.replace(sac.PRESETS["quick"], steps=steps, hidden=chosen.hidden)
            sac.check(found[kind], option)
    return found


def learner(
    chosen: Options, spec: Spec, config: sac.Config, display: Display, enough: float | None = None
) -> Path | None:
    """Train SAC to its last step, or until an evaluation reaches `enough` -> its run directory, or None when
    interrupted."""
    more = {} if enough is None else {"enough": enough}
    frozen = session.freeze("collect", algorithms.get("sac"), config, spec.name, episodes=10, **more)
    built = session.build(frozen)
    seeds = (chosen.seed,)
    group = identity.group_id(frozen, seeds, None, "host")
    label = f"sac-{spec.name.lower()}"
    with rundir.open_run(
        chosen.out, "collect", label, {"config": frozen, "seeds": seeds}, group, chosen.fresh
    ) as opened:
        display.header({"learner": f"SAC on {spec.name}, {config.steps:,} steps", "run": str(opened.path)})
        if opened.state == "finished":
            sinks.export(chosen.log, opened.path, display.note)
            return opened.path
        job = loop.Job(
            spec=spec,
            algorithm=built.algorithm,
            data=None,
            seeds=seeds,
            config=frozen,
            host_envs=0 if envs.is_pure(spec.name) else config.envs,
            checkpoint_seconds=chosen.checkpoint_seconds,
            sinks=sinks.parse(chosen.log),
            enough=math.inf if enough is None else enough,
        )
        outcome = loop.run(job, opened, display)
        if not outcome.finished:
            return None
        opened.finish("diverged" if outcome.diverged[0] else "finished")
        return opened.path


def experience(run: session.Run, rows: int | None) -> record.Arrays:
    """Everything that a learner did, or at most `rows` of it: from its replay buffer, or, where the host kept the
    environments, rebuilt from its recorded actions."""
    state = run.parameters
    if envs.is_pure(run.spec.name):
        taken = jax.tree.map(lambda leaf: np.asarray(leaf[0, : int(state.replay.size[0])]), state.replay.data)
        return record.recall(taken, state.obs.shape[1], int(state.tick[0]), rows)
    actions = np.asarray(state.actions)[0, : int(state.tick[0])]
    return record.replay(run.spec.name, run.seeds[0], actions, rows)


def uniform(spec: Spec, seed: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """Uniformly random actions."""
    generator = np.random.default_rng(seed)
    return lambda obs, step: generator.uniform(-1.0, 1.0, (len(obs), spec.action_dim)).astype(np.float32)


def summary(arrays: record.Arrays) -> dict[str, float]:
    """What a file says of its contents: rows, episodes, and the undiscounted returns of the episodes."""
    ends = arrays["terminals"] | arrays["timeouts"]
    returns = episode_returns(arrays["rewards"], ends, completed=True)
    spread = {"return_mean": returns.mean(), "return_std": returns.std(), "return_max": returns.max()}
    return {"rows": len(ends), "episodes": len(returns)} | {name: round(float(x), 1) for name, x in spread.items()}


def arrays_of(chosen: Options, spec: Spec, display: Display) -> tuple[record.Arrays | None, dict[str, Any]]:
    """The level's transitions and facts about the learners, or None when interrupted."""
    rows = chosen.rows or ROWS
    if chosen.level == "random":
        return record.rollout(spec.name, uniform(spec, chosen.seed), rows, chosen.seed), {}
    facts: dict[str, Any] = {}
    parts = []
    share = rows // 2 if chosen.level == "medium-expert" else rows
    for kind, config in learners(chosen).items():  # all of them are checked before the first trains
        enough = chosen.threshold if kind == "expert" and chosen.stop_at_threshold else None
        path = learner(chosen, spec, config, display, enough)
        if path is None:
            return None, {}
        run = session.load(path)
        final, taken = float(run.evals["return_mean"].iloc[-1]), int(run.evals["update"].iloc[-1])
        started = json.loads((path / "provenance.json").read_text(encoding="utf-8"))
        facts[kind] = {
            "final_return": round(final, 1),
            "updates": taken,
            "config": run.config["config"],
            "provenance": started,
        }
        if kind == "expert" and final < chosen.threshold:
            raise UserError(
                f"the expert's return is {final:.0f}, short of --threshold={chosen.threshold:.0f}; "
                "raise --expert-steps, or lower the threshold and say so"
            )
        if chosen.level == "medium-replay":
            return experience(run, chosen.rows), facts
        parts.append(record.rollout(spec.name, run.sampling_policy(), share, chosen.seed))
        facts[kind]["data"] = summary(parts[-1])
    return record.concatenate(*parts), facts


def command(chosen: Options) -> str:
    """The command line that collects the same rows again: whatever decides them and is not at its default."""
    words = [f"--env={chosen.env}", f"--level={chosen.level}"]
    for name in ("seed", "steps", "expert_steps", "threshold", "stop_at_threshold", "rows", "hidden"):
        value = getattr(chosen, name)
        if value != getattr(Options(), name):
            shown = () if value is True else value if isinstance(value, tuple) else (value,)
            words += [f"--{name.replace('_', '-')}", *map(str, shown)]
    return " ".join(["python -m experiments.collect", *words])


def formats_of(text: str) -> tuple[str, ...]:
    """What `--format` asks for.

    Raises:
        UserError: one of them is unknown.
    """
    found = tuple(part.strip() for part in text.split(","))
    for part in found:
        if part not in ENDINGS:
            raise unknown("format", part, ENDINGS)
    return found


def publish(path: Path) -> Path:
    """Copy a data set among the bundled ones and note its checksum."""
    folder = Path(str(resources.files("jaxrl_suite"))) / "data" / "bundled"
    target = folder / path.name
    shutil.copyfile(path, target)
    sums = folder / "SHA256SUMS"
    others = (
        [line for line in sums.read_text().splitlines() if not line.endswith(f" {path.name}")] if sums.exists() else []
    )
    sums.write_text("\n".join(sorted([*others, f"{identity.file_digest(target)}  {path.name}"])) + "\n")
    return target


def folder_of(chosen: Options) -> Path:
    """Where the data sets are written."""
    return chosen.out / "collect"


def path_of(form: str, chosen: Options) -> Path:
    """Where the data set is written in one format."""
    name = f"{chosen.env.partition('-')[0].lower()}-{chosen.level}-mini"
    return folder_of(chosen) / ("minari" if form == "minari" else "") / f"{name}{ENDINGS[form]}"


def refuse_others(chosen: Options) -> None:
    """Refuse to replace the rows of another command, but with --fresh.

    Raises:
        UserError: naming the command of the rows that are there, or these cannot be read.
    """
    for form in () if chosen.fresh else formats_of(chosen.format):
        path = path_of(form, chosen)
        if not path.exists():
            continue
        info = data.load(str(path), window=lambda rows: (0, 1))[1]
        made = info.provenance["minari"].get("description") if form == "minari" else info.source
        if made != source_of(chosen):
            raise UserError(
                f"{path} holds other rows ({made}); move it away, give another folder with --out, or replace it, "
                "training anew, with --fresh"
            )


def source_of(chosen: Options) -> str:
    """What a file says of where its rows are from."""
    return f"jaxrl_suite: {command(chosen)}"


def written(
    form: str, chosen: Options, spec: Spec, arrays: record.Arrays, facts: dict[str, Any]
) -> tuple[Path, data.DatasetInfo]:
    """Write the data set in one format, and read it back."""
    recorded = json.loads(identity.canonical(dataclasses.replace(chosen, out=Path("runs"), log="")))
    del recorded["format"]  # one collection, whatever its formats
    provenance = {"options": recorded, "learners": facts, "data": summary(arrays), "recorded": identity.provenance()}
    path, source = path_of(form, chosen), source_of(chosen)
    if form == "minari":
        told = provenance | {"licence": LICENCE, "level": chosen.level, "env_version": env_version(spec)}
        data.write_minari(path.parent, path.name, arrays, spec.name, told, source)
    else:
        data.write(
            path,
            arrays,
            env=spec.name,
            provenance=provenance,
            licence=LICENCE,
            source=source,
            level=chosen.level,
            env_version=env_version(spec),
        )
    return path, data.load(str(path))[1]


def env_version(spec: Spec) -> str:
    """The environment with the version of the library that steps it."""
    return spec.name if envs.is_pure(spec.name) else f"{spec.name}, envpool {version('envpool')}"


@exits_cleanly
def main() -> int:
    """Run the collection that the command line describes."""
    options.cache_programs()
    chosen = options.parse(Options, options.arguments(), Options(), "python -m experiments.collect", __doc__ or "")
    console = make_console()
    if chosen.list:
        make_console(WIDTH).print(catalogue())
        console.print(
            f"and {len(d4rl.REMOTES)} of D4RL by name, downloaded when asked for: python -m experiments.fetch --list"
        )
        return 0
    if chosen.level not in LEVELS:
        raise unknown("level", chosen.level, LEVELS)
    settings.require_positive(chosen)
    options.require_seeds("--seed", chosen.seed, chosen.seed)
    if chosen.level == "medium-expert" and chosen.rows == 1:
        raise UserError("--rows=1 cannot be half medium, half expert; give at least 2")
    sinks.parse(chosen.log)
    formats = formats_of(chosen.format)
    if chosen.publish and "d4rl" not in formats:
        raise UserError("--publish bundles the HDF5 file, which --format=minari alone does not write; use d4rl,minari")
    spec = envs.spec(chosen.env)
    with files.guarded(folder_of(chosen)):  # before hours of collecting, not after
        folder_of(chosen).mkdir(parents=True, exist_ok=True)
    refuse_others(chosen)
    display = Display(console)
    arrays, facts = arrays_of(chosen, spec, display)
    if arrays is None:
        display.note(f"interrupted; {interrupts.resumes(chosen.fresh)}")
        return interrupts.RESUMABLE
    for form in formats:
        path, info = written(form, chosen, spec, arrays, facts)
        console.print(
            f"{path}: {info.rows:,} rows, {info.episodes:,} episodes, "
            f"return {info.return_mean:,.1f} ± {info.return_std:,.1f}, best {info.return_max:,.1f}, "
            f"{info.bytes / 1e6:.1f} MB, sha256 {info.sha256}"
        )
    if chosen.publish:
        console.print(f"published as {publish(path_of('d4rl', chosen)).name}")
    return 0


if __name__ == "__main__":
    main()
