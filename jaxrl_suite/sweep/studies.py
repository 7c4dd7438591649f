"""Studies: what a search depends on, its folder, and what Optuna knows of it.

Trial k is drawn by a sampler seeded with (seed, k), so that a search that was stopped goes on as an undisturbed one
would have. With several workers that holds for random search only: TPE also looks at which trials have ended by then.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxrl_suite.errors import UserError, unknown
from jaxrl_suite.report import tables
from jaxrl_suite.sweep.space import Range, Space, describe
from jaxrl_suite.sweep.tasks import Run
from jaxrl_suite.train import files, identity, rundir
from jaxrl_suite.types import Spec

if TYPE_CHECKING:
    import optuna

# Not Optuna's CMA-ES, which keeps a pickle in the study, nor its Gaussian process, which needs torch.
ENGINES, SAMPLERS, PRUNERS = ("optuna",), ("tpe", "random"), ("none", "median", "hyperband")
TUNING = 1000  # seeds from here on are for searches
HOW, WHY, RETRY = "how", "why", "retry_of"  # notes on a trial: how it ended without a value, why, and what it repeats


class Design(NamedTuple):
    """What the suggestions of a search depend on, besides the run that it varies."""

    space: Space
    objective: str  # a column of the summary, to be maximised
    sampler: str
    seed: int
    pruner: str


def check(design: Design, seeds: Sequence[int], spec: Spec) -> None:
    """Refuse what cannot be searched with; `spec` is of the environment that the trials are evaluated in.

    Raises:
        UserError: an unknown objective, sampler or pruner, scores where there are none, or seeds that claims are tested
            on.
    """
    for kind, known in {"objective": tables.VALUES, "sampler": SAMPLERS, "pruner": PRUNERS}.items():
        if getattr(design, kind) not in known:
            raise unknown(kind, getattr(design, kind), known)
    if design.objective.startswith("score") and spec.score_min is None:
        raise UserError(
            f"--objective={design.objective}: {spec.name} has no reference scores to measure by; "
            f"give --objective={design.objective.replace('score', 'return')}"
        )
    if min(seeds) < TUNING:
        raise UserError(
            f"seed {min(seeds)} cannot be searched on: seeds below {TUNING} are kept to test what a search has found; "
            f"give tuning seeds, such as --seeds={TUNING}:{TUNING + 4}"
        )


def open_folder(base: Run, design: Design) -> rundir.RunDir:
    """The folder of a search, `<out>/<experiment>/search-<label>-<digest>`, held by this process.

    Args:
        base: the run without what varies.
        design: what varies, and how.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    return rundir.open_run(base.out, base.experiment, f"search-{base.label}", *_named(base, design), False)


def find_results(base: Run, design: Design) -> Path:
    """The file of rows that a search writes; changes nothing."""
    return results_file(rundir.look(base.out, base.experiment, f"search-{base.label}", _named(base, design)[1])[0])


def results_file(folder: Path) -> Path:
    """Beside the folder of a search, `search-<label>-<digest>.csv`."""
    return folder.with_name(f"{folder.name}.csv")


def _named(base: Run, design: Design) -> tuple[dict, str]:
    """Everything that the suggestions depend on, and its digest."""
    config = {
        "base": {"algo": base.algo, "dataset": base.dataset, "preset": base.preset, "settings": base.settings},
        "seeds": base.seeds,
        "group": base.group,
        **design._asdict(),
        "space": describe(design.space),
    }
    return config, identity.digest("search", config)


# --- The study ---
def library() -> Any:
    """Optuna, without its running commentary.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError('--search=optuna needs Optuna: pip install -e ".[sweep]"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_study(folder: Path, design: Design) -> optuna.Study:
    """The study in a folder that this process holds, ready to go on.

    Trials that were running stay so, and failed ones are queued to be tried again; a trial that was still being drawn
    when its process died is given up.

    Raises:
        UserError: Optuna is not installed, or its journal cannot be read.
    """
    optuna = library()
    journal = folder / "journal.jsonl"
    pruners = optuna.pruners.NopPruner, optuna.pruners.MedianPruner, optuna.pruners.HyperbandPruner
    pruner = dict(zip(PRUNERS, pruners, strict=True))[design.pruner]()
    try:
        with files.guarded(folder):
            # Nobody else has this folder: a lock and half a line are what a killed process left.
            journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
            rundir.Log.jsonl(journal)
            storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
            study = optuna.create_study(
                study_name=folder.name,
                storage=storage,
                load_if_exists=True,
                direction="maximize",
                pruner=pruner,
            )
    except (ValueError, LookupError, TypeError, AssertionError) as error:
        raise UserError(
            f"Optuna cannot read {journal} ({error}); move the folder away to search anew, finished runs are kept"
        ) from error
    _clear_up(study, design.space)
    return study


def _clear_up(study: optuna.Study, space: Space) -> None:
    states = library().trial.TrialState
    repeated = {trial.user_attrs.get(RETRY) for trial in study.trials}
    for trial in study.trials:
        if trial.state == states.RUNNING and not is_drawn(trial, space):
            study.tell(trial.number, state=states.FAIL)
        failed = trial.state == states.FAIL and trial.user_attrs.get(HOW) == "failed"
        if failed and trial.number not in repeated:
            study.enqueue_trial(trial.params, user_attrs={RETRY: trial.number})


def is_drawn(trial: optuna.trial.FrozenTrial, space: Space) -> bool:
    """Whether a trial has all of its settings."""
    return set(trial.params) == set(space)


def trials_of(study: optuna.Study, space: Space) -> list[optuna.trial.FrozenTrial]:
    """The trials that count: with all of their settings drawn, and not repeated by a later one."""
    drawn = [trial for trial in study.get_trials(deepcopy=False) if is_drawn(trial, space)]
    repeated = {trial.user_attrs.get(RETRY) for trial in drawn}
    return [trial for trial in drawn if trial.number not in repeated]


def next_sampler(study: optuna.Study, design: Design) -> optuna.samplers.BaseSampler:
    """The sampler of the next trial: it depends on how many were drawn before."""
    optuna = library()
    known = study.get_trials(deepcopy=False)
    index = sum(is_drawn(trial, design.space) and RETRY not in trial.user_attrs for trial in known)
    seed = int(np.random.SeedSequence([design.seed, index]).generate_state(1)[0])
    if design.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():  # Optuna 4 calls both arguments experimental; they are the defaults of Optuna 5
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # The constant liar takes trials that are running for bad ones, so that the next is not drawn beside them.
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)


def distribution(values: Range | tuple[str, ...]) -> optuna.distributions.BaseDistribution:
    """What Optuna draws from."""
    kinds = library().distributions
    if not isinstance(values, Range):
        return kinds.CategoricalDistribution(values)
    kind = kinds.IntDistribution if isinstance(values.low, int) else kinds.FloatDistribution
    return kind(values.low, values.high, log=values.log)
