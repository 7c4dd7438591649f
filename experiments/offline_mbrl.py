"""Train an offline algorithm on a data set and print what it reaches, beside the data set's behaviour and BC.

The same command again resumes a run that was stopped, and prints the table of one that has finished. A run directory
holds config.json, provenance.json, metrics.jsonl, eval.csv, checkpoints and a figure; rows per seed go to
<out>/offline_mbrl/summary.csv.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from experiments import options
from jaxrl_suite import data, mesh
from jaxrl_suite.algorithms import registry as algorithms
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.envs import scores
from jaxrl_suite.errors import UserError, exits_cleanly
from jaxrl_suite.report import plots, stats, tables
from jaxrl_suite.train import identity, interrupts, loop, rundir, session, settings, sinks
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

    frozen: dict  # the config of the first variant
    seeds: tuple[int, ...]
    variants: dict[str, dict[str, float]]  # settings as text -> fields that they change, trained side by side
    group: str
    label: str

    @property
    def configs(self) -> list[dict]:
        """The frozen config of every member, in the order of the population."""
        return [session.variant_config(self.frozen, change) for change in self.variants.values() for _ in self.seeds]

    @property
    def run_ids(self) -> list[str]:
        """The run id of every member."""
        seeds = [*self.seeds] * len(self.variants)
        return [identity.run_id(config, seed) for config, seed in zip(self.configs, seeds, strict=True)]


def describe(
    shared: options.Shared, entry: algorithms.Entry, config: Any, spec: Spec, info: data.DatasetInfo
) -> Described:
    """The frozen config of a run on these devices, its seeds, variants, group id and label.

    Raises:
        UserError: the algorithm learns online, or the seeds or the settings to vary cannot be read.
    """
    if entry.online:
        raise UserError(f"{entry.name} learns online; use python -m experiments.collect, or choose bc or ravl")
    names = settings.traced(entry.make(spec, config), config)
    configs = settings.variants(config, names, shared.vary)
    for variant in configs:
        options.require_positive(variant)
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
    )
    seeds = options.parse_seeds(shared.seeds)
    varied = [name for name in names if len({getattr(variant, name) for variant in configs}) > 1]
    changes = [{name: getattr(variant, name) for name in varied} for variant in configs]
    texts = [_settings(shared, variant, entry.presets[shared.preset]) for variant in configs]
    group = identity.group_id(frozen, seeds, {"variants": changes} if varied else None, mesh.layout())
    label = f"{entry.name.replace(':', '.')}-{info.name}"
    return Described(frozen, seeds, dict(zip(texts, changes, strict=True)), group, label)


def _settings(shared: options.Shared, config: Any, preset: Any) -> str:
    """What a run changes in its preset, as text."""
    run = {"episodes": shared.episodes, "model": shared.model and shared.model.name}
    default = {"episodes": options.Shared.episodes, "model": None}
    return settings.differences(settings.fields(config) | run, settings.fields(preset) | default)


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


def header(shared: options.Shared, info: data.DatasetInfo, seeds: tuple[int, ...], path: Path) -> dict[str, str]:
    """What is about to run."""
    kinds = sorted({device.device_kind for device in jax.devices()})
    return {
        "algorithm": f"{shared.algo}, preset {shared.preset}, seeds {seeds[0]} to {seeds[-1]} in one program",
        "data set": f"{info.name}: {info.rows:,} rows, {info.episodes:,} episodes of {info.env}, "
        f"return {info.return_mean:,.0f} ± {info.return_std:,.0f}, best {info.return_max:,.0f}",
        "devices": f"{jax.device_count()} x {', '.join(kinds)}",
        "run": str(path),
    }


def train(shared: options.Shared, entry: algorithms.Entry, config: Any, console: Console) -> int:
    """One run, end to end -> exit code."""
    dataset, info = data.load(shared.dataset)
    spec = spec_of(dataset, info)
    described = describe(shared, entry, config, spec, info)
    frozen, seeds, group = described.frozen, described.seeds, described.group
    built = session.build(frozen)
    display = Display(console)
    shown = {"config": frozen, "seeds": seeds}
    if len(described.variants) > 1:
        shown["variants"] = list(described.variants.items())
    with rundir.open_run(shared.out, EXPERIMENT, described.label, shown, group, shared.fresh) as directory:
        display.header(header(shared, info, seeds, directory.path))
        summary = directory.path.parent / "summary.csv"
        resumed = directory.state == "resumable"
        if directory.state != "finished":
            job = loop.Job(
                spec=spec,
                algorithm=built.algorithm,
                data=mesh.shard_rows(dataset),
                seeds=seeds,
                config=frozen,
                variants=session.variants_of(built, described.variants),
                episodes=shared.episodes,
                checkpoint_seconds=shared.checkpoint_seconds,
                cache=shared.out / "models",
                cache_key=info.sha256,
                model=shared.model,
                sinks=sinks.parse(shared.log),
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
            rows = session.summary_rows(directory, job.members, described.configs, outcome, more)
            rundir.upsert_rows(summary, rows, session.SUMMARY_COLUMNS)
            directory.finish("diverged" if np.all(outcome.diverged) else "finished")
        else:
            sinks.export(shared.log, directory.path, display.note)
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
    return 0


@exits_cleanly
def main() -> int:
    """Run what the command line describes."""
    options.cache_programs()
    shared, entry, config = options.offline(options.arguments(), "python -m experiments.offline_mbrl", __doc__ or "")
    return train(shared, entry, config, Console(highlight=False, soft_wrap=True))


if __name__ == "__main__":
    main()
