"""Train an offline algorithm on a data set and print what it reaches, beside the data set's behaviour and BC.

The same command again resumes a run that was stopped, and prints the table of one that has finished. A run directory
holds config.json, provenance.json, metrics.jsonl, eval.csv, checkpoints and a figure; rows per seed go to
<out>/offline_mbrl/summary.csv.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from experiments import options
from jaxrl_suite import data, mesh
from jaxrl_suite.algorithms import registry as algorithms
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.envs import scores
from jaxrl_suite.errors import UserError, exits_cleanly
from jaxrl_suite.report import plots, stats, tables
from jaxrl_suite.train import identity, interrupts, loop, rundir, session
from jaxrl_suite.train.display import Display
from jaxrl_suite.types import Dataset, Spec

EXPERIMENT = "offline_mbrl"
PUBLISHED = Path(__file__).resolve().parent.parent / "results"


def spec_of(dataset: Dataset, info: data.DatasetInfo) -> Spec:
    """The environment that a data set was recorded on.

    Raises:
        UserError: it does not say, or its shapes are those of another environment.
    """
    if info.env is None:
        raise UserError(
            f"{info.name} does not say its environment; add an attribute env, such as 'Hopper-v4', to the file"
        )
    spec = envs.spec(info.env)
    found = dataset.transitions.obs.shape[1], dataset.transitions.action.shape[1]
    if found != (spec.obs_dim, spec.action_dim):
        raise UserError(
            f"{info.name} has {found[0]} observation and {found[1]} action dimensions; {spec.name} has "
            f"{spec.obs_dim} and {spec.action_dim}: it is a data set of another environment"
        )
    return spec


class Described(NamedTuple):
    """What a run is, before anything is trained: what names its directory and its rows."""

    frozen: dict
    seeds: tuple[int, ...]
    group: str
    label: str
    devices: mesh.Devices


def describe(
    shared: options.Shared, entry: algorithms.Entry, config: Any, spec: Spec, info: data.DatasetInfo
) -> Described:
    """The frozen config of a run on these devices, its seeds, group id and label.

    Raises:
        UserError: the algorithm learns online, the seeds cannot be read, or the devices do not fit.
    """
    if entry.online:
        raise UserError(f"{entry.name} learns online; use python -m experiments.collect, or choose bc or ravl")
    seeds = options.parse_seeds(shared.seeds)
    devices = mesh.parse(shared.mesh, len(seeds), shared.sampling == "local")
    mesh.check_rows(info.rows, devices)
    frozen = session.freeze(
        EXPERIMENT,
        entry,
        config,
        spec.name,
        dataset=info.name,
        dataset_sha256=info.sha256,
        rows=info.rows,
        preset=shared.preset,
        episodes=shared.episodes,
        model=identity.digest(str(shared.model)) if shared.model else "",
        **({"sampling": f"local, {devices.shards} shards"} if devices.local else {}),
    )
    group = identity.group_id(frozen, seeds, None, devices.layout())
    return Described(frozen, seeds, group, f"{entry.name.replace(':', '.')}-{info.name}", devices)


def references(spec: Spec, info: data.DatasetInfo, out: Path, preset: str, algo: str) -> list[tables.Reference]:
    """The lines to compare with: the data set's behaviour, and BC from this folder's runs or the published results."""
    behaviour = stats.Interval(info.return_mean, float("nan"), float("nan"), info.episodes)
    score = stats.Interval(
        float(scores.normalised_score(spec, info.return_mean)), float("nan"), float("nan"), info.episodes
    )
    lines = [tables.Reference("behaviour", behaviour, score, "episodes", f"all episodes of {info.name}")]
    for folder in (out, PUBLISHED):
        source = "published results" if folder == PUBLISHED else "this folder's runs"
        summary = folder / EXPERIMENT / "summary.csv"
        known = rundir.read_rows(summary) if summary.exists() else []
        rows = [row for row in known if _is_bc(row, info.name, preset)]
        if rows and algo != "bc":
            returns = stats.mean_interval([float(row["return_last"]) for row in rows])
            points = stats.mean_interval([float(row["score_last"]) for row in rows])
            return [*lines, tables.Reference("BC", returns, points, "seeds", f"{source}, preset {preset}")]
    return lines


def _is_bc(row: dict, dataset: str, preset: str) -> bool:
    return (row["algo"], row["dataset"], row["preset"], row["status"]) == ("bc", dataset, preset, "finished")


def header(
    shared: options.Shared, info: data.DatasetInfo, seeds: tuple[int, ...], devices: mesh.Devices, path: Path
) -> dict[str, str]:
    """What is about to run."""
    return {
        "algorithm": f"{shared.algo}, preset {shared.preset}, seeds {seeds[0]} to {seeds[-1]} in one program",
        "data set": f"{info.name}: {info.rows:,} rows, {info.episodes:,} episodes of {info.env}, "
        f"return {info.return_mean:,.0f} ± {info.return_std:,.0f}, best {info.return_max:,.0f}",
        "devices": f"{devices.layout()} ({devices.mesh.devices.flat[0].device_kind})",
        "run": str(path),
    }


def train(shared: options.Shared, entry: algorithms.Entry, config: Any, console: Console) -> int:
    """One run, end to end -> exit code."""
    dataset, info = data.load(shared.dataset)
    spec = spec_of(dataset, info)
    frozen, seeds, group, label, devices = describe(shared, entry, config, spec, info)
    built = session.build(frozen)
    display = Display(console)
    shown = {"config": frozen, "seeds": seeds}
    with rundir.open_run(shared.out, EXPERIMENT, label, shown, group, shared.fresh) as directory:
        display.header(header(shared, info, seeds, devices, directory.path))
        summary = directory.path.parent / "summary.csv"
        resumed = directory.state == "resumable"
        if directory.state != "finished":
            job = loop.Job(
                spec=spec,
                algorithm=built.algorithm,
                data=mesh.shard_rows(dataset, devices),
                seeds=seeds,
                config=frozen,
                gamma=getattr(config, "gamma", 0.99),
                episodes=shared.episodes,
                checkpoint_seconds=shared.checkpoint_seconds,
                cache=shared.out / "models",
                cache_key=info.sha256,
                model=shared.model,
                devices=devices,
            )
            outcome = loop.run(job, directory, display)
            if not outcome.finished:
                display.note("interrupted and saved; the same command resumes")
                return interrupts.RESUMABLE
            more = {
                "dataset": info.name,
                "preset": shared.preset,
                "behaviour_return": info.return_mean,
                "group_id": group,
                "resumed": resumed,
            }
            rows = session.summary_rows(directory, frozen, seeds, outcome, more)
            rundir.upsert_rows(summary, rows, session.SUMMARY_COLUMNS)
            directory.finish("diverged" if np.all(outcome.diverged) else "finished")
        lines = references(spec, info, shared.out, shared.preset, entry.name)
        evals = session.evals_of(directory.path)
        figure = plots.run_figure(evals, lines, f"{entry.name} on {info.name}", directory.path / "curves.png")
        # By run id: a later run of more seeds replaces these rows by its own.
        ids = {identity.run_id(frozen, seed) for seed in seeds}
        mine = [row for row in rundir.read_rows(summary) if row["run_id"] in ids]
        if not mine:
            raise UserError(f"{directory.path} has finished, but {summary} lacks its rows; repeat it with --fresh")
        console.print(tables.run_table(mine, lines, f"{entry.name} on {info.name}, after {mine[0]['updates']} updates"))
        console.print(f"rows: {summary}   figure: {figure}")
    return 0


@exits_cleanly
def main() -> int:
    """Run what the command line describes."""
    options.cache_programs()
    shared, entry, config = options.offline(options.arguments(), "python -m experiments.offline_mbrl", __doc__ or "")
    return train(shared, entry, config, Console(highlight=False, soft_wrap=True))


if __name__ == "__main__":
    main()
