"""Search: Optuna suggests settings, every trial is an ordinary run, and the study is told what becomes of it.

Every evaluation in the true environment is a price that offline learning means to avoid: `Driver.results` counts them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from jaxrl_suite.errors import UserError
from jaxrl_suite.report import stats
from jaxrl_suite.sweep import studies, tasks
from jaxrl_suite.sweep.display import short, with_interval
from jaxrl_suite.sweep.schedule import Board
from jaxrl_suite.sweep.space import text
from jaxrl_suite.sweep.tasks import Run
from jaxrl_suite.train import files, rundir

if TYPE_CHECKING:
    import optuna


# --- What a run has reached, and what it has cost ---
class Cost(NamedTuple):
    """Use of the true environment. What a resumed run evaluates again are the same episodes, and counts once."""

    episodes: int
    env_steps: int


def evaluations(run: Run) -> list[dict[str, Any]]:
    """The rows of the evaluations of a run so far.

    Raises:
        UserError: the file is damaged.
    """
    path = _evaluations_file(run)
    return rundir.read_rows(path) if path.exists() and path.stat().st_size else []


def _evaluations_file(run: Run) -> Path:
    return rundir.look(run.out, run.experiment, run.label, run.group)[0] / "eval.csv"


def spent(evals: Iterable[Mapping[str, Any]]) -> Cost:
    """Episodes and environment steps of some evaluations."""
    counts = [(row["episodes"], row["episodes"] * row["length_mean"]) for row in evals]
    return Cost(sum(episodes for episodes, _ in counts), round(sum(steps for _, steps in counts)))


def curve(evals: Iterable[Mapping[str, Any]], column: str, seeds: int) -> list[float]:
    """The mean over seeds of every evaluation that all seeds have, in their order."""
    by_update: dict[int, list[float]] = {}
    for row in evals:
        by_update.setdefault(row["update"], []).append(row[column])
    return [sum(values) / seeds for _, values in sorted(by_update.items()) if len(values) == seeds]


def value_of(rows: Sequence[Mapping[str, Any]], objective: str) -> stats.Interval | None:
    """The mean of a column over seeds; None where it is not finite.

    None also where a seed has diverged, so that the others do not speak for it.
    """
    value = stats.mean_interval([row[objective] for row in rows])
    return None if _diverged(rows) or not math.isfinite(value.estimate) else value


def _diverged(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(row["status"] == "diverged" for row in rows)


# --- Trials as runs ---
@dataclass
class Live:
    """A trial that has not ended, and its run."""

    trial: optuna.Trial
    run: Run
    reported: int  # evaluations that the study knows
    read: int = 0  # bytes of evaluations that have been looked at


class Driver:
    """Keeps a board supplied with trials, and tells the study what becomes of them."""

    def __init__(
        self,
        folder: Path,
        design: studies.Design,
        make: Callable[[dict[str, str]], Run],
        trials: int,
        places: int,
        say: Callable[[str], None],
    ) -> None:
        """Open the study, and take up what was running.

        Args:
            folder: of the search, held by this process.
            design: of the search.
            make: texts of the varied settings -> the run; may refuse them with a UserError.
            trials: how many there are to be, with those that the study has already.
            places: how many may run at a time.
            say: told in a line how a trial has ended.

        Raises:
            UserError: see `studies.open_study`.
        """
        self.study, self.file = studies.open_study(folder, design), studies.results_file(folder)
        self.design, self.trials, self.places, self._make, self._say = design, trials, places, make, say
        self.states = studies.library().trial.TrialState
        self.live: dict[int, Live] = {}
        self._told = 0  # how many of the board's failures the study knows
        self.runs: dict[int, Run] = {}  # of every trial whose settings the experiment takes
        for frozen in self._known():
            if frozen.state == self.states.RUNNING:
                self._begin(studies.library().Trial(self.study, frozen._trial_id), len(frozen.intermediate_values))
                continue
            with contextlib.suppress(UserError):  # it was refused
                self.runs[frozen.number] = self._run(frozen.params)

    @property
    def left(self) -> int:
        """How many trials have not ended."""
        ended = sum(trial.state.is_finished() for trial in self._known())
        queued = sum(trial.state == self.states.WAITING for trial in self.study.get_trials(deepcopy=False))
        return max(0, self.trials - ended, len(self.live)) + queued

    def begin(self) -> list[Run]:
        """The runs to start with."""
        taken_up = [live.run for live in self.live.values()]
        return [*taken_up, *self._fill()]

    def look(self, board: Board) -> None:
        """Tell the study what has happened on the board, prune, and supply new runs in place of those that ended.

        Raises:
            UserError: a file cannot be read or written.
        """
        known = set(self.live)
        with files.guarded(self.file.parent):
            for run in board.done:
                for live in self._of(run):
                    self._complete(live)
            for failure in board.failed[self._told :]:  # an earlier one says nothing of trials drawn since
                for live in self._of(failure.run):
                    self._fail(live.trial, "failed", failure.last_lines)
            self._told = len(board.failed)
            for attempt in board.running:
                if any(self._is_hopeless(live) for live in self._of(attempt.run)):
                    board.prune(attempt)
            if not board.stopped:
                board.waiting.extend((run, 1) for run in self._fill())
        if set(self.live) != known:
            self.write()

    def results(self) -> list[dict[str, Any]]:
        """A row per trial that counts: its state, settings and value, and what it has cost.

        Raises:
            UserError: a summary, or the evaluations of a run, cannot be read.
        """
        runs = list(self.runs.values())
        summary = {row["run_id"]: row for row in tasks.rows_of(runs)} if runs else {}
        paid: set[str] = set()
        rows = []
        for frozen in self._known():
            run = self.runs.get(frozen.number)
            # A run that two trials share has been paid for once.
            cost = spent(evaluations(run)) if run and run.group not in paid else Cost(0, 0)
            paid |= {run.group} if run else set()
            mine = [summary[run_id] for run_id in run.run_ids if run_id in summary] if run else []
            rows.append(_row(frozen, run, mine, self.design, cost))
        return rows

    def write(self) -> None:
        """Renew the file of results."""
        files.write_atomically(self.file, pd.DataFrame(self.results()).to_csv(index=False))

    def _known(self) -> list[optuna.trial.FrozenTrial]:
        return studies.trials_of(self.study, self.design.space)

    def _run(self, params: Mapping[str, Any]) -> Run:
        return self._make({name: text(params[name]) for name in self.design.space})

    def _of(self, run: Run) -> list[Live]:
        """The trials that this run stands for: several, where the same settings were drawn again."""
        return [live for live in self.live.values() if live.run.group == run.group]

    def _fill(self) -> list[Run]:
        """Draw trials until every place has one -> their runs."""
        new = []
        kinds = {name: studies.distribution(values) for name, values in self.design.space.items()}
        while len(self.live) < self.places and self._is_wanted():
            self.study.sampler = studies.next_sampler(self.study, self.design)
            new += self._begin(self.study.ask(kinds), 0)
        return new

    def _is_wanted(self) -> bool:
        queued = any(trial.state == self.states.WAITING for trial in self.study.get_trials(deepcopy=False))
        return queued or len(self._known()) < self.trials

    def _begin(self, trial: optuna.Trial, reported: int) -> list[Run]:
        """Have a trial run -> its run; none where the experiment refuses the settings."""
        try:
            run = self._run(trial.params)
        except UserError as error:
            self._fail(trial, "refused", str(error))
            return []
        self.runs[trial.number], self.live[trial.number] = run, Live(trial, run, reported)
        return [run]

    def _complete(self, live: Live) -> None:
        self._report(live)
        rows = tasks.rows_of([live.run])
        value = value_of(rows, self.design.objective)
        if _diverged(rows):
            self._fail(live.trial, "diverged", "a seed has diverged")
        elif value is None:
            self._fail(live.trial, "undefined", f"{self.design.objective} is no finite number")
        else:
            words = f"{self.design.objective} {with_interval(*value[:3])}"
            self._end(live.trial, words, self.states.COMPLETE, value.estimate)

    def _is_hopeless(self, live: Live) -> bool:
        """Report what is new, and end the trial where the pruner says so."""
        if not (self._report(live) and live.trial.should_prune()):
            return False
        self._end(live.trial, f"pruned after {live.reported} evaluations", self.states.PRUNED)
        return True

    def _report(self, live: Live) -> bool:
        """Report the evaluations that are new -> whether there are any."""
        path = _evaluations_file(live.run)
        size = path.stat().st_size if path.exists() else 0
        if size == live.read:
            return False
        live.read = size
        column = "return_mean" if self.design.objective.startswith("return") else "score"
        new = curve(evaluations(live.run), column, len(live.run.seeds))[live.reported :]
        for value in new:
            live.trial.report(value, live.reported)
            live.reported += 1
        return bool(new)

    def _fail(self, trial: optuna.Trial, how: str, why: str) -> None:
        trial.set_user_attr(studies.WHY, why)
        trial.set_user_attr(studies.HOW, how)
        told = how == "failed"  # by the display, as in any sweep
        self._end(trial, "" if told else f"{how}: {why}", self.states.FAIL)

    def _end(self, trial: optuna.Trial, words: str, state: Any, value: float | None = None) -> None:
        self.live.pop(trial.number, None)
        self.study.tell(trial, value, state)
        settings = " ".join(f"{name}={short(trial.params[name])}" for name in self.design.space)
        if words:
            self._say(f"trial {trial.number}: {words} ({settings})")


def _row(
    frozen: optuna.trial.FrozenTrial,
    run: Run | None,
    rows: Sequence[Mapping[str, Any]],
    design: studies.Design,
    cost: Cost,
) -> dict[str, Any]:
    """A trial as a row; the interval over seeds stands where the trial has run to its end."""
    state = frozen.state.name.lower()
    value = value_of(rows, design.objective) if state == "complete" else None
    return {
        "trial": frozen.number,
        "state": frozen.user_attrs.get(studies.HOW, "failed") if state == "fail" else state,
        **{f"settings.{name}": frozen.params[name] for name in design.space},
        "objective": design.objective,
        "value": frozen.value,  # of a pruned trial: its last evaluation
        "ci_low": value.low if value else math.nan,
        "ci_high": value.high if value else math.nan,
        "seeds": f"{run.seeds[0]}:{run.seeds[-1] + 1}" if run else "",
        "evaluations": len(frozen.intermediate_values),  # that it was judged by; a pruned one may have cost one more
        **cost._asdict(),
        "why": frozen.user_attrs.get(studies.WHY, ""),
        "group_id": run.group if run else "",
        "run_ids": " ".join(run.run_ids) if run else "",
        "schema_version": rundir.SCHEMA_VERSION,
    }
