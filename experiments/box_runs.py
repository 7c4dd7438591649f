"""Training the box's settings, and writing down what the box knows of the agents that come of it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from experiments import box_agent, box_probes, box_studies, studies
from experiments.box_studies import EXPERIMENT, WORLD, Arm
from jaxrl_suite import mesh
from jaxrl_suite.algorithms import registry as algorithms
from jaxrl_suite.envs import box
from jaxrl_suite.train import identity, loop, rundir, session
from jaxrl_suite.types import Array

AGENT = "experiments.box_agent:make"
ROWS = 10_000  # start states of the data
SHELLS, PATHS = "shells.csv", "paths.csv"
SHOWN_SEEDS = 2  # of each setting, whose paths are kept
MEASURED = ("horizon", "distance", "width", "critics", "diversity", "edge_share", "edge_spread", "inside_spread")
MORE = (*MEASURED, "spread_effect", "attainable", "true_value", "highest_value")
COLUMNS = [*session.SUMMARY_COLUMNS, *MORE]
SHELL_COLUMNS = ["key_id", "run_id", "seed", "reach", "spread", "penalty", "value", "true_value"]
PATH_COLUMNS = ["key_id", "run_id", "seed", "walk", "step", "x", "y"]


class Choice(studies.Choice, Protocol):
    """Options that training needs."""

    @property
    def updates(self) -> int:
        """Gradient updates; 0 for the preset's."""
        ...

    @property
    def episodes(self) -> int:
        """Episodes per evaluation and seed."""
        ...

    @property
    def checkpoint_seconds(self) -> float:
        """Seconds between two checkpoints."""
        ...


class Group(studies.Group):
    """Settings that train side by side in one program, all seeds of each."""

    tables = (SHELLS, PATHS)

    def __init__(self, arms: Sequence[Arm], seeds: tuple[int, ...], chosen: Choice) -> None:
        self.arms, self.seeds, self.chosen = arms, seeds, chosen
        configs = [arm.config(chosen.preset, chosen.updates) for arm in arms]
        names = ("diversity", *box_agent.TRACED)
        varied = [name for name in names if len({getattr(config, name) for config in configs}) > 1]
        self.changes = [{name: getattr(config, name) for name in varied} for config in configs]
        texts = [f"{arm.method} {self.settings(arm)}".strip() for arm in arms]
        self.variants = dict(zip(texts, self.changes, strict=True))
        entry = algorithms.get(AGENT)
        plan = {"dataset": WORLD, "rows": ROWS, "preset": chosen.preset, "episodes": chosen.episodes}
        self.frozen = session.freeze(EXPERIMENT, entry, configs[0], box.SPEC.name, **plan)
        devices = mesh.parse("data:1", 1, False)
        variants = {"variants": self.changes} if varied else None
        self.id = identity.group_id(self.frozen, seeds, variants, devices.layout())
        self.configs = [session.variant_config(self.frozen, change) for change in self.changes for _ in seeds]
        ids = zip(self.configs, [*seeds] * len(arms), strict=True)
        self.run_ids = [identity.run_id(config, seed) for config, seed in ids]
        methods = "+".join(dict.fromkeys(arm.method for arm in arms))
        self.dataset = WORLD
        lengths = "+".join(str(k) for k in sorted({config.horizon for config in configs}))
        self.critics = configs[0].critics
        self.label = f"{methods}-{WORLD}-k{lengths}-n{self.critics}"

    @property
    def cost(self) -> int:
        """About how long it takes, beside others."""
        return len(self.run_ids) * (2 + self.critics)

    def ids_of(self, configs: Container[box_agent.Config], seeds: Container[int]) -> list[str]:
        """The run ids of the members with these configs and seeds."""
        own = [arm.config(self.chosen.preset, self.chosen.updates) for arm in self.arms]
        members = zip(itertools.product(own, self.seeds), self.run_ids, strict=True)
        return [run_id for (config, seed), run_id in members if config in configs and seed in seeds]

    def settings(self, arm: Arm) -> str:
        """What an arm changes in its method's preset."""
        return box_studies.text(arm, self.chosen.preset, self.chosen.updates)

    def shown(self) -> dict[str, Any]:
        """What stands in config.json."""
        several = {"variants": list(self.variants.items())} if len(self.variants) > 1 else {}
        return {"config": self.frozen, "seeds": self.seeds, **several}

    def job(self, built: session.Built, folder: Path) -> loop.Job:
        """All seeds of all settings, on the box's starts."""
        return loop.Job(
            spec=built.spec,
            algorithm=built.algorithm,
            data=jax.jit(box.data, static_argnums=1)(jax.random.key(0), ROWS),
            seeds=self.seeds,
            config=self.frozen,
            variants=session.variants_of(built, self.variants),
            episodes=self.chosen.episodes,
            checkpoint_seconds=self.chosen.checkpoint_seconds,
            evaluator=box_probes.evaluator(built.algorithm, self.chosen.episodes),
        )

    def complete(self, rows: list[dict], job: loop.Job, outcome: loop.Outcome, path: Path) -> None:
        """Add what the box knows of the final agents."""
        _record(self, job, rows, outcome, path)


def _record(group: Group, job: loop.Job, rows: list[dict], outcome: loop.Outcome, path: Path) -> None:
    """Complete the rows of a group, and write what else is known of its final agents beside the summary."""
    facts = {arm: _facts(arm.config(group.chosen.preset, group.chosen.updates)) for arm in group.arms}
    arms = [arm for arm in group.arms for _ in group.seeds]
    found = box_probes.shells(job.algorithm, outcome.result, [int(facts[arm]["horizon"]) for arm in arms])
    walks = box_probes.paths(job.algorithm, outcome.result)
    shares = _edge_shares(path / "metrics.jsonl")
    shell_rows, path_rows = [], []
    for index, (row, arm) in enumerate(zip(rows, arms, strict=True)):
        share = shares[row["seed"], row["settings"] if len(group.arms) > 1 else ""]
        row |= {"algo": arm.method, "settings": group.settings(arm), **facts[arm]}
        row |= {f"score_{end}": 100.0 * row[f"return_{end}"] / row["attainable"] for end in ("last", "best")}
        k = row["horizon"]
        edge = found.spread[index, k - 1] if k <= box_probes.REACHES else math.nan
        inside = found.spread[index, : k - 1].mean() if k > 1 else math.nan
        row |= {"edge_share": share, "edge_spread": edge, "inside_spread": inside, "spread_effect": found.effect[index]}
        owner = {"run_id": row["run_id"], "seed": row["seed"]}
        for reach in range(box_probes.REACHES):
            values = [float(x[index, reach]) for x in found[:4]]
            names = zip(("spread", "penalty", "value", "true_value"), values, strict=True)
            shell_rows.append({"key_id": f"{row['run_id']}-{reach}", **owner, "reach": reach + 1, **dict(names)})
        if row["seed"] - group.seeds[0] < SHOWN_SEEDS:
            path_rows += _path_rows(walks[index], owner)
    rundir.upsert_rows(path.parent / SHELLS, shell_rows, SHELL_COLUMNS, key="key_id")
    rundir.upsert_rows(path.parent / PATHS, path_rows, PATH_COLUMNS, key="key_id")


def _facts(config: box_agent.Config) -> dict[str, float]:
    """What a setting makes possible: the best return, the mean true value of a start, the highest value of all."""
    best, true = _possible(config.distance, config.width, config.gamma)
    named = {name: getattr(config, name) for name in ("horizon", "distance", "width", "critics", "diversity")}
    highest = 1.0 / (1.0 - config.gamma)
    return {**named, "attainable": float(best), "true_value": float(true), "highest_value": highest}


@jax.jit
def _possible(distance: Array, width: Array, gamma: Array) -> tuple[Array, Array]:
    """The best return, and the mean true value of a start."""
    field = box.at(distance, width)
    values = box.optimal_values(field, gamma, per_step=2)
    return box.mean_best_return(field), jnp.mean(box.look_up(values, box.starts(jax.random.key(0), (1_000,))))


def _edge_shares(metrics: Path) -> dict[tuple[int, str], float]:
    """The share of targets at the edge of reach over training, by seed and settings."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    shares: dict[tuple[int, str], list[float]] = {}
    for line in lines:
        shares.setdefault((line["seed"], line.get("settings", "")), []).append(line["edge_targets"])
    return {who: float(np.mean([share for share in mine if share is not None])) for who, mine in shares.items()}


def _path_rows(walks: np.ndarray, owner: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of one agent's walks `[WALKS, 31, 2]`."""
    return [
        {
            "key_id": f"{owner['run_id']}-{walk}-{step}",
            **owner,
            "walk": walk,
            "step": step,
            "x": round(float(place[0]), 4),
            "y": round(float(place[1]), 4),
        }
        for walk, places in enumerate(walks)
        for step, place in enumerate(places)
    ]
