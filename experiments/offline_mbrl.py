"""Train an offline algorithm on a data set and print what it reaches, beside the data set's behaviour and BC.

The same command again resumes a run that was stopped, and prints the table of one that has finished. A run directory
holds config.json, provenance.json, metrics.jsonl, eval.csv, checkpoints and a figure; rows per seed go to
<out>/offline_mbrl/summary.csv. With --diagnose diagnosis.csv stands in the run directory: a row per member and
evaluation (of the last one only, where a run is asked afterwards, or was made by several processes), and seconds.csv,
the time by part.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from experiments import diagnosis, options
from jaxrl_suite import data, mesh
from jaxrl_suite.algorithms import complaints, dyna, offline
from jaxrl_suite.algorithms import registry as algorithms
from jaxrl_suite.algorithms.lipschitz_options import LipschitzOptions
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.envs import scores
from jaxrl_suite.errors import UserError, exits_cleanly
from jaxrl_suite.report import plots, stats, tables
from jaxrl_suite.train import (
    checkpoint,
    identity,
    interrupts,
    loop,
    processes,
    rundir,
    session,
    settings,
    sinks,
    sittings,
    supervise,
)
from jaxrl_suite.train.display import Display, make_console
from jaxrl_suite.types import Dataset, Spec
from jaxrl_suite.values import lipschitz

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

    frozen: dict  # the config of the first variant
    seeds: tuple[int, ...]
    variants: dict[str, dict[str, float]]  # settings as text -> fields that they change, trained side by side
    group: str
    label: str
    devices: mesh.Devices

    @property
    def configs(self) -> list[dict]:
        """The frozen config of every member, in the order of the population."""
        return [session.variant_config(self.frozen, change) for change in self.variants.values() for _ in self.seeds]

    @property
    def run_ids(self) -> list[str]:
        """The run id of every member."""
        seeds = [*self.seeds] * len(self.variants)
        return [identity.run_id(config, seed) for config, seed in zip(self.configs, seeds, strict=True)]


def devices_of(shared: options.Shared) -> mesh.Devices:
    """The mesh of a run.

    Raises:
        UserError: the devices are not there, or the seeds do not divide.
    """
    return mesh.parse(shared.mesh, len(options.parse_seeds(shared.seeds)), shared.sampling == "local")


def describe(
    shared: options.Shared, entry: algorithms.Entry, config: Any, spec: Spec, info: data.DatasetInfo
) -> Described:
    """The frozen config of a run on these devices, its seeds, variants, group id and label.

    Raises:
        UserError: the algorithm learns online, the seeds or the settings to vary cannot be read, or devices do not fit.
    """
    if entry.online:
        raise UserError(
            f"{entry.name} learns online; use python -m experiments.collect, or choose an offline one (--algo)"
        )
    devices = devices_of(shared)
    mesh.check_rows(info.rows, devices)
    algorithm = entry.make(spec, config)
    if shared.model and not any(phase.cache for phase in algorithm.phases):
        raise UserError(f"--model={shared.model}: {entry.name} of these settings fits no world model; leave it out")
    names = settings.traced(algorithm, config)
    configs = settings.variants(config, names, shared.vary)
    for variant in configs:
        settings.require_positive(variant)
    frozen = session.freeze(
        EXPERIMENT,
        entry,
        configs[0],
        spec.name,
        dataset=info.name,
        dataset_sha256=info.sha256,
        rows=info.rows,
        preset=shared.preset,
        episodes=shared.episodes,
        model=identity.digest(str(shared.model)) if shared.model else "",
        **({"sampling": f"local, {devices.shards} shards"} if devices.local else {}),
    )
    seeds = options.parse_seeds(shared.seeds)
    varied = [name for name in names if len({getattr(variant, name) for variant in configs}) > 1]
    changes = [{name: getattr(variant, name) for name in varied} for variant in configs]
    preset = algorithms.preset(entry, shared.preset, shared.dataset)
    texts = [_settings(shared, variant, preset) for variant in configs]
    begun_on = sittings.layouts(shared.resume)[0] if shared.resume else devices.layout()
    group = identity.group_id(frozen, seeds, {"variants": changes} if varied else None, begun_on)
    label = f"{entry.name.replace(':', '.')}-{info.name}"
    return Described(frozen, seeds, dict(zip(texts, changes, strict=True)), group, label, devices)


def _settings(shared: options.Shared, config: Any, preset: Any) -> str:
    """What a run changes in its preset, as text."""
    run = {"episodes": shared.episodes, "model": shared.model and shared.model.name}
    default = {"episodes": options.Shared.episodes, "model": None}
    return settings.differences(settings.fields(config) | run, settings.fields(preset) | default)


def check_resume(shared: options.Shared, run: Described) -> None:
    """Refuse --resume with the folder of another run.

    Raises:
        UserError: the options do not describe the run in that folder.
    """
    if shared.resume is None:
        return
    path, _ = rundir.look(shared.out, EXPERIMENT, run.label, run.group)
    if shared.fresh or path.resolve() != shared.resume.resolve():
        raise UserError(
            f"--resume={shared.resume} is not the newest run of these options; repeat the options that it was started "
            "with (provenance.json has the command), and its --out"
        )


def check_files(shared: options.Shared, run: Described) -> None:
    """Refuse files that would spoil the run once it has begun, or ended, before its directory is made.

    Raises:
        UserError: the summary that its rows go to is damaged, or --model is no fitted model.
    """
    rundir.check_rows(shared.out / EXPERIMENT / "summary.csv")
    ended = rundir.look(shared.out, EXPERIMENT, run.label, run.group)[1] == "finished" and not shared.fresh
    if shared.model and not ended and not checkpoint.exists(shared.model):
        raise UserError(
            f"--model={shared.model} holds no fitted model; give an entry of the cache, such as "
            f"{shared.out / 'models'}/<key>, or leave it out to fit one"
        )


def open_run(shared: options.Shared, run: Described) -> rundir.RunDir:
    """The run's directory: held by the process that leads, and found by those that follow it."""
    if processes.leads():
        shown = {"config": run.frozen, "seeds": run.seeds}
        if len(run.variants) > 1:
            shown["variants"] = list(run.variants.items())
        directory = rundir.open_run(shared.out, EXPERIMENT, run.label, shown, run.group, shared.fresh)
    processes.wait("the run is open")
    if not processes.leads():
        directory = rundir.RunDir(rundir.look(shared.out, EXPERIMENT, run.label, run.group)[0], "resumable", None)
    (finished,) = processes.agree(directory.state == "finished")
    directory.state = "finished" if finished else directory.state
    return directory


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
    found = (row["algo"], row["settings"], row["dataset"], row["preset"], row["status"])
    return found == ("bc", "", dataset, preset, "finished")


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


def _too_tight(config: Any, outcome: loop.Outcome, dataset: Dataset) -> str:
    """What to say where a Lipschitz mechanism has kept critics flatter than the returns of the data are."""
    smooth = isinstance(config, LipschitzOptions) and config.smoothness().active
    if not (smooth and config.head == "mse"):  # other heads' values are no output of a layer
        return ""
    state: Any = outcome.result
    learner = state.learner if isinstance(state, offline.State) else state.agent  # without and with a world model
    upper = lipschitz.upper_bound(learner.critic)  # [population, critics]
    needed = lipschitz.slope_needed(dataset.mc_return, dataset.transitions.obs)
    return lipschitz.too_tight(float(upper.max(axis=1).mean()), float(needed))


def train(shared: options.Shared, entry: algorithms.Entry, config: Any, console: Console) -> int:
    """One run, end to end -> exit code."""
    if shared.diagnose and not isinstance(config, dyna.Config):
        raise UserError(f"--diagnose is about rollouts in a world model, and {entry.name} has none; leave it out")
    dataset, info = data.load(shared.dataset, window=functools.partial(mesh.window, devices=devices_of(shared)))
    spec = spec_of(dataset, info)
    described = describe(shared, entry, config, spec, info)
    check_resume(shared, described)
    check_files(shared, described)
    frozen, seeds, group, devices = described.frozen, described.seeds, described.group, described.devices
    built = session.build(frozen)
    leads = processes.leads()
    display = Display(console, quiet=not leads)
    with open_run(shared, described) as directory:
        display.header(header(shared, info, seeds, devices, directory.path))
        for line in complaints.of(config, dataset):
            display.note(line)
        summary = directory.path.parent / "summary.csv"
        resumed = directory.state == "resumable"
        if directory.state != "finished":
            job = loop.Job(
                spec=spec,
                algorithm=built.algorithm,
                data=mesh.shard_rows(dataset, devices, info.rows),
                seeds=seeds,
                config=frozen,
                variants=session.variants_of(built, described.variants),
                episodes=shared.episodes,
                checkpoint_seconds=shared.checkpoint_seconds,
                cache=None if devices.processes > 1 else shared.out / "models",
                cache_key=info.sha256,
                model=shared.model,
                devices=devices,
                sinks=sinks.parse(shared.log) if leads else (),
            )
            if shared.diagnose and devices.processes == 1:
                ask = diagnosis.asker(built.algorithm, spec, config, dataset)
                job = replace(job, observe=diagnosis.observer(ask, job.members, directory.path))
            if leads:
                sittings.begin(directory.path, devices.layout())
            outcome = loop.run(job, directory, display)
            if not outcome.finished:
                display.note(f"interrupted and saved; {interrupts.resumes(shared.fresh)}")
                return interrupts.RESUMABLE
            if not leads:
                return 0
            if line := _too_tight(config, outcome, dataset):
                display.note(line)
            more = {
                "dataset": info.name,
                "preset": shared.preset,
                "behaviour_return": info.return_mean,
                "group_id": group,
                "resumed": resumed,
                "devices": " > ".join(sittings.layouts(directory.path)),
            }
            rows = session.summary_rows(directory, job.members, described.configs, outcome, more)
            rundir.upsert_rows(summary, rows, session.SUMMARY_COLUMNS)
            directory.finish("diverged" if np.all(outcome.diverged) else "finished")
        elif leads:
            sinks.export(shared.log, directory.path, display.note)
        if not leads:
            return 0
        lines = references(spec, info, shared.out, shared.preset, entry.name)
        evals = session.evals_of(directory.path)
        # By run id: a later run of more seeds replaces these rows by its own.
        ids = set(described.run_ids)
        rows = [row for row in rundir.read_rows(summary) if row["run_id"] in ids]
        if not rows:
            raise UserError(f"{directory.path} has finished, but {summary} lacks its rows; repeat it with --fresh")
        for text in described.variants:
            title = f"{entry.name} {text}".strip() + f" on {info.name}"
            name = "-".join(["curves", *text.split()]) if len(described.variants) > 1 else "curves"
            figure = plots.run_figure(evals[evals["settings"] == text], lines, title, directory.path / f"{name}.png")
            mine = [row for row in rows if row["settings"] == text]
            console.print(tables.run_table(mine, lines, f"{title}, after {mine[0]['updates']} updates"))
            console.print(f"rows: {summary}   figure: {figure}")
        if shared.diagnose:
            for table in diagnosis.tables(diagnosis.written(directory.path, dataset), directory.path):
                console.print(table)
    return 0


@exits_cleanly
def main() -> int:
    """Run what the command line describes."""
    options.cache_programs()
    with processes.joined():
        words = options.arguments()
        if options.asks_for_algorithms(words):
            make_console().print(options.algorithms())
            return 0
        shared, entry, config = options.offline(words, "python -m experiments.offline_mbrl", __doc__ or "")
        if shared.distributed and not processes.is_worker():
            return supervise.run(processes.parse(shared.distributed), shared.fresh)
        return train(shared, entry, config, make_console())


if __name__ == "__main__":
    main()
