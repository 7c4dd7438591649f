"""Searches: one run whose settings Optuna draws, its cost in online evaluations, and the best trials."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from rich.console import Console

from experiments import plans
from experiments.plans import FAILED, INTERRUPTED, Options
from jaxrl_suite.algorithms import registry
from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.sweep import display, grid, schedule, space, studies, tasks
from jaxrl_suite.sweep.search import Driver
from jaxrl_suite.train import interrupts, rundir, settings


class Search(NamedTuple):
    """What a search varies, how, and the run that it makes of some texts of the varied settings."""

    base: tasks.Run
    design: studies.Design
    make: Callable[[Mapping[str, str]], tasks.Run]


def plan(chosen: Options) -> Search:
    """A search from its options; every edge of its space is read as the experiment will read it.

    Raises:
        UserError: an option or an edge that the search or its experiment would refuse.
    """
    if chosen.search not in studies.ENGINES:
        raise unknown("search", chosen.search, studies.ENGINES)
    facts = plans.facts_of(chosen.dataset)
    base, *others = plans.plan(chosen, facts)
    if others or any(len(setting.values) > 1 for setting in grid.parse(chosen.grid)):
        raise UserError(
            "a search varies one run; give one algorithm, one data set and one value for each setting in --grid, "
            "and name what is to vary in --space"
        )
    fields = settings.fields(next(iter(registry.get(base.algo).presets.values())))
    where = space.parse(chosen.space, fields)
    for name in where.keys() & base.settings.keys():
        raise UserError(f"--grid fixes {name}, and --space varies it; name it in one of them")
    design = studies.Design(where, chosen.objective, chosen.sampler, chosen.sampler_seed, chosen.pruner)
    ((spec, _),) = facts.values()
    studies.check(design, base.seeds, spec)

    def make(texts: Mapping[str, str]) -> tasks.Run:
        return plans.plan(replace(chosen, grid=(*chosen.grid, *map("=".join, texts.items()))), facts)[0]

    point = grid.Point(base.task.options["algo"], base.task.options["dataset"], {})
    for edge in space.edges(where):  # each alone: what goes together shows when it is drawn
        plans.read(plans.task_of([point._replace(settings=edge)], (), chosen, fields))
    return Search(base, design, make)


def show(planned: Search, chosen: Options, console: Console) -> int:
    """What would be searched, how much of it is done, and how long the rest may take -> exit code."""
    base, design, _ = planned
    for name, values in space.describe(design.space).items():
        console.print(f"{name}: {values}")
    file = studies.find_results(base, design)
    ended = [row for row in rundir.read_rows(file) if row["state"] != "running"] if file.exists() else []
    left = max(0, chosen.trials - len(ended))
    console.print(f"{chosen.trials} trials of {base.name} on seeds {base.seeds[0]} to {base.seeds[-1]}")
    console.print(f"{left} to do, {chosen.workers} at a time; {plans.estimate([base] * left, chosen)}")
    return 0


def run(planned: Search, chosen: Options, console: Console) -> int:
    """Bring a search to its end -> exit code."""
    base, design, make = planned
    studies.library()  # before anything is written
    with studies.open_folder(base, design) as folder:
        driver = Driver(folder.path, design, make, chosen.trials, chosen.workers, console.print)
        before = chosen.trials - driver.left
        if before > 0:
            console.print(f"{before} of {chosen.trials} trials were done before")
        first = driver.begin()
        board = plans.work_off(first, driver.left, chosen, console, driver.look)
        if board is None:
            return INTERRUPTED
        driver.look(board)  # some trials have ended while the others were asked to save
        driver.write()
        rows = driver.results()
    if board.stopped:
        ended = sum(row["state"] != "running" for row in rows)
        console.print(f"interrupted with {ended} of {chosen.trials} trials done; {interrupts.resumes()}")
        return INTERRUPTED
    return closing(rows, driver, base, console)


def closing(rows: Sequence[Mapping[str, Any]], driver: Driver, base: tasks.Run, console: Console) -> int:
    """The best trials, what all of them have cost, and the command of the best -> exit code."""
    states = Counter(row["state"] for row in rows)
    ranked = sorted((row for row in rows if row["state"] == "complete"), key=lambda row: -row["value"])
    if ranked:
        console.print(display.trials(ranked, driver.design.space))
    console.print(f"{len(rows)} trials: {', '.join(f'{count} {state}' for state, count in states.items())}")
    episodes, steps = (sum(row[name] for row in rows) for name in ("episodes", "env_steps"))
    console.print(f"online evaluations: {episodes:,} episodes, {steps:,} environment steps")
    if ranked:
        best = driver.runs[ranked[0]["trial"]].task
        words = tasks.words(best._replace(options={**best.options, "seeds": "8"}))
        console.print(f"best of {len(ranked)} on the seeds it was chosen by, and so optimistic; on other seeds:")
        console.print(f"  python {shlex.join(words)}")
    console.print(f"rows: {driver.file}")
    failed = states["failed"] + states["refused"]
    if failed:
        console.print(f"{failed} of {len(rows)} trials failed; see the column why, and {schedule.failures_file(base)}")
    if not ranked:
        console.print("no trial has a value")
    return FAILED if failed or not ranked else 0
