"""Hyperparameter search with Optuna: short trials compared on validation, poor ones pruned.

The study is an SQLite file of the run's folder, or lies in a database that several processes share. Each step of it is
a transaction, so that a kill at any moment costs one trial.
"""

import copy
import math
import sqlite3
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from accelerate.utils import release_memory
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from transformers import ResNetForImageClassification
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import Leucocytes
from wbc_hf.errors import WbcError
from wbc_hf.files import write_atomically
from wbc_hf.modeling import digest_weights, freeze
from wbc_hf.safe_text import say
from wbc_hf.training import search_storage
from wbc_hf.training.arguments import Arguments
from wbc_hf.training.caches import Caches
from wbc_hf.training.callbacks import EvaluationLines
from wbc_hf.training.components import build_caches, build_trainer
from wbc_hf.training.record import print_audit
from wbc_hf.training.run_folder import SEARCH_FOLDER, check_same_run, run_manifest, search_manifest
from wbc_hf.training.search_space import Space, Values, metric_name, search_space, trial_arguments
from wbc_hf.training.trainer import DivergedError, LeucocyteTrainer

STUDY_FILE = "study.db"
TABLE_FILE = "trials.csv"
HISTORY_FILE = "history.png"
SLICES_FILE = "hyperparameters.png"

Row = dict[str, Any]  # of the table of trials
Claim = Callable[[optuna.Study], None]

_STUDY_NAME = "search"
_FAILURE = "failure"  # user attribute of a failed trial: the reason
_STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned"}
# Those that count towards the number that was asked for, with the ones that wait to be run again.
_FINISHED = tuple(_STATES)
_COUNTED = (*_FINISHED, TrialState.RUNNING, TrialState.WAITING)
_FIXED = "fixed_params"  # Optuna's attribute of a trial that was enqueued: its values
# Trials that are not pruned, since a median needs values.
_STARTUP_TRIALS = 4
_POLL_SECONDS = 1.0  # between two looks at the trials of other processes


@dataclass
class TrialTrainers:
    """The trainers of trials: the same images and the same initial weights, other hyperparameters.

    Attributes:
        network: With the layers frozen that `arguments` say; it is copied for each trial.
        arguments: Of the run.
    """

    leucocytes: Leucocytes
    network: ResNetForImageClassification
    processor: BaseImageProcessor
    arguments: Arguments

    @cached_property
    def caches(self) -> Caches | None:
        """What all trials share; computed when it is first needed."""
        return build_caches(self.leucocytes, self.network, self.processor, *self.arguments)

    def build(self, arguments: Arguments) -> LeucocyteTrainer:
        """Build the trainer of one trial, whose `arguments` freeze no fewer layers than those of the run."""
        data, model, training = arguments
        network = copy.deepcopy(self.network)
        freeze(network, model.freeze)
        return build_trainer(self.leucocytes, network, self.processor, data, training, self.caches)


def search(
    arguments: Arguments,
    leucocytes: Leucocytes,
    network: ResNetForImageClassification,
    processor: BaseImageProcessor,
) -> tuple[Arguments, dict]:
    """Begin or resume the search of a run's folder.

    Returns:
        The arguments with the best values, and what `run.json` says of the search.

    Raises:
        WbcError: The folder holds another search or run, or no trial finished.
    """
    folder = Path(arguments.training.output_dir)
    # Once the run itself has begun, further trials could only contradict it.
    run = run_manifest(folder, arguments, leucocytes)
    check_same_run(replace(run, entries={"search": arguments.training.search}))
    manifest = search_manifest(folder / SEARCH_FOLDER, arguments, leucocytes)
    trainers = TrialTrainers(leucocytes, network, processor, arguments)
    fresh = not manifest.exists()
    if fresh:
        print_audit(leucocytes)
    check_same_run(manifest)
    ranges = ", ".join(f"{name} {_format_range(each)}" for name, each in search_space(arguments).items())
    shared = ", by all processes together," if arguments.training.search_storage else ""
    say(
        f"Searching: {arguments.training.search} trials{shared} of up to {arguments.training.search_epochs} epochs, "
        f"compared on validation, the first as given.\nVaried: {ranges}.\n",
        flush=True,
    )
    if fresh:
        _ = trainers.caches  # where they find no room, the folder stays free for other arguments
    claim = None
    if arguments.training.search_storage:
        # A name or a path does not say which weights the trials begin with. The head is new in each process.
        version = None if arguments.model.from_scratch else digest_weights(network.base_model)[:12]
        shared_by = replace(manifest, entries={**manifest.entries, "model_version": version})
        claim = partial(search_storage.claim, manifest=shared_by)
        with search_storage.faults_named():
            claim(_open_study(arguments))
    manifest.write()
    return run_trials(arguments, trainers, claim)


def run_trials(arguments: Arguments, trainers: TrialTrainers, claim: Claim | None = None) -> tuple[Arguments, dict]:
    """Run the trials that are missing, write table and plots, and choose the best.

    The first trial has the values that were given. An interrupted trial is run again. Processes that share the study
    share its number of trials, and return the same: each waits for the last trial of the others.

    Args:
        arguments: `training.search` is the number of trials, and `training.output_dir` has a folder `SEARCH_FOLDER`.
        trainers: Builds the trainer of each trial.
        claim: Checks before each trial that the study, which others share, is still that of this search: of two
            searches that began at the same moment, one was overwritten.

    Raises:
        WbcError: No trial finished, or the database does not answer.
    """
    training = arguments.training
    folder = Path(training.output_dir) / SEARCH_FOLDER
    space, metric = search_space(arguments), metric_name(training)
    with search_storage.faults_named() if training.search_storage else nullcontext():
        study = _open_study(arguments)
        rows = _run_missing(study, space, arguments, trainers, claim)
        best = _best(rows, metric)
        _write_plots(folder, study, metric)
    values = {name: best[name] for name in space}
    say(
        f"\nThe best of {len(rows)} trials is number {best['trial']}, {metric} {best[metric]:.4f}:\n"
        f"{' '.join(f'--{name} {value}' for name, value in values.items())}\n"
        f"Table and plots of all: {folder}."
        f"{'' if training.search_only else ' Now the run with these values.'}\n",
        flush=True,
    )
    record = {
        "epochs": training.search_epochs,
        "metric": metric,
        "trials": len(rows),
        "pruned": sum(row["state"] == "pruned" for row in rows),
        "failed": sum(row["state"] == "failed" for row in rows),
        "best": {"trial": best["trial"], "value": best[metric]} | values,
        "space": {name: _range(distribution) for name, distribution in space.items()},
    }
    return arguments.with_values(values), record


def _run_missing(
    study: optuna.Study, space: Space, arguments: Arguments, trainers: TrialTrainers, claim: Claim | None
) -> list[Row]:
    """Run trials until there are as many as asked for, those of other processes among them, and list all."""
    training, metric = arguments.training, metric_name(arguments.training)
    table = Path(training.output_dir) / SEARCH_FOLDER / TABLE_FILE
    # Whoever has the study alone knows that nobody runs what was interrupted.
    watch = search_storage.Watch(search_storage.PATIENCE_SECONDS if training.search_storage else 0)
    columns = ("trial", "epochs", metric, *space, "seconds", "state")
    shown: set[int] | None = None
    waiting = False
    _enqueue_given(study, space, arguments)
    while True:
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        silent = watch.silent(running)
        for trial in silent:
            # In this order: a kill in between leaves a copy, which is not run, and not a gap.
            study.enqueue_trial(trial.system_attrs.get(_FIXED, {}) | trial.params)
            _give_up(study, trial)
        rows = _list_trials(study, space, metric)
        if rows:
            write_atomically(table, pd.DataFrame(rows.values()).to_csv(index=False, lineterminator="\r\n"))
        if shown is None and len(rows) < training.search:
            shown = set()
            say(_format_row({name: name for name in columns}), flush=True)
        if shown is not None:
            for number in sorted(rows.keys() - shown):
                say(_format_row(rows[number]), flush=True)
            shown.update(rows)
        if len(rows) >= training.search:
            return list(rows.values())
        others = len(running) - len(silent)
        if len(rows) + others < training.search:
            waiting = False
            if claim is not None:
                claim(study)
            if begun := _ask(study, space, training.search):
                _run_trial(study, begun, arguments, trainers)
                release_memory()
            continue
        if not waiting:
            say(f"Waiting for other processes, which run {others} of the trials.", flush=True)
            waiting = True
        time.sleep(_POLL_SECONDS)


# ---- the study


def _open_study(arguments: Arguments) -> optuna.Study:
    """Load the study of a search, or create it without trials."""
    training = arguments.training
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if training.search_storage:
        storage = search_storage.connect(training.search_storage)
    else:
        path = Path(training.output_dir) / SEARCH_FOLDER / STUDY_FILE
        # Not by an address, in which a path with "?" or "#" would end there.
        storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": lambda: sqlite3.connect(path)})
    study = optuna.create_study(
        storage=storage,
        study_name=training.search_study if training.search_storage else _STUDY_NAME,
        load_if_exists=True,
        direction="minimize" if metric_name(training) == "loss" else "maximize",
        # Three epochs are one rung of successive halving, and no bracket of Hyperband; a median needs neither.
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS),
    )
    begun = study.get_trials(deepcopy=False)
    # With the same seed again, a resumed search would draw the values of the first trials again, and so would several
    # processes. What these draw depends on who is first in any case.
    seed = None if training.search_storage else training.seed + len(begun)
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    return study


def _enqueue_given(study: optuna.Study, space: Space, arguments: Arguments) -> None:
    """Make the values that were given the first trial. Of two processes that do so, `_ask` leaves one."""
    if not study.get_trials(deepcopy=False):
        given = {name: value for each in arguments for name, value in vars(each).items()}
        study.enqueue_trial({name: given[name] for name in space})


def _ask(study: optuna.Study, space: Space, number: int) -> optuna.Trial | None:
    """Begin a trial, unless other processes began as many at the same moment, or one with the same given values."""
    trial = study.ask(space)
    own, *before = reversed(study.get_trials(deepcopy=False)[: trial.number + 1])
    before = [each for each in before if each.state in _COUNTED]
    fixed = own.system_attrs.get(_FIXED)
    # Numbers are given out one by one, so that of all who look here exactly the last are too many.
    if len(before) >= number or (
        fixed and any(fixed in (each.system_attrs.get(_FIXED), each.params) for each in before)
    ):
        _give_up(study, own)
        return None
    return trial


def _give_up(study: optuna.Study, trial: FrozenTrial) -> None:
    with suppress(UpdateFinishedTrialError):  # another process was first
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def _run_trial(study: optuna.Study, trial: optuna.Trial, arguments: Arguments, trainers: TrialTrainers) -> None:
    """Run one trial from the initial weights; an error leaves it in the state of running, to be run again."""
    callback = TrialCallback(trial, metric_name(arguments.training), arguments.training.search_epochs)
    try:
        with search_storage.beating(trial) if arguments.training.search_storage else nullcontext():
            trainer = trainers.build(trial_arguments(_rounded(trial.params), arguments))
            trainer.remove_callback(EvaluationLines)
            trainer.add_callback(callback)
            try:
                trainer.train()
            except DivergedError:
                callback.fail()
        if callback.state is TrialState.COMPLETE:
            study.tell(trial, _better(callback.metric)(callback.figures), skip_if_finished=True)
        else:
            study.tell(trial, state=callback.state, skip_if_finished=True)
    except UpdateFinishedTrialError:
        say("A trial was not heard of for too long; another process runs it again.", flush=True)


class TrialCallback(EvaluationLines):
    """Shows a bar, reports every epoch to the study, and ends trials that are pruned or whose loss is not finite."""

    def __init__(self, trial: optuna.Trial, metric: str, epochs: int):
        self.trial, self.metric, self.epochs = trial, metric, epochs
        self.figures: list[float] = []
        self.state = TrialState.COMPLETE

    def on_evaluate(self, args, state, control, **kwargs):
        metrics = kwargs["metrics"]
        if not math.isfinite(metrics["eval_loss"]):
            self.fail()
            control.should_training_stop = True
            return
        self._report(metrics[f"eval_{self.metric}"])
        if len(self.figures) < self.epochs and self.trial.should_prune():
            self.state = TrialState.PRUNED
            control.should_training_stop = True

    def fail(self) -> None:
        """Report a loss that is not finite: for the sampler a pruned trial with such a figure is the worst of all."""
        self._report(math.nan)
        self.trial.set_user_attr(_FAILURE, "loss not finite")
        self.state = TrialState.PRUNED

    def _report(self, figure: float) -> None:
        self.figures.append(figure)
        self.trial.report(figure, step=len(self.figures))


def _better(metric: str) -> Callable:
    return min if metric == "loss" else max


# ---- its table and its plots


def _list_trials(study: optuna.Study, space: Space, metric: str) -> dict[int, Row]:
    """List the trials that finished, were pruned or failed by themselves, not those that were interrupted.

    By their number in the study. Each has its number from 1, also among those that are running, the epochs that were
    evaluated, the best of the metric on validation ("" where none is finite), the hyperparameters, the seconds that it
    took, and its state ("finished", "pruned" or "failed") with the reason of a failure.
    """
    rows = {}
    counted = study.get_trials(deepcopy=False, states=(*_FINISHED, TrialState.RUNNING))
    for number, trial in enumerate(counted, start=1):
        if trial.state not in _FINISHED:
            continue
        figures = [figure for figure in trial.intermediate_values.values() if math.isfinite(figure)]
        failure = trial.user_attrs.get(_FAILURE, "")
        rows[trial.number] = (
            {"trial": number, "epochs": len(trial.intermediate_values)}
            | {metric: _better(metric)(figures) if figures else ""}
            | {name: _rounded(trial.params)[name] for name in space}
            | {"seconds": round(trial.duration.total_seconds(), 1) if trial.duration else ""}
            | {"state": "failed" if failure else _STATES[trial.state], "failure": failure}
        )
    return rows


def _rounded(values: Values) -> Values:
    """Round to six digits, so that what is printed is what was tried."""
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in values.items()}


def _best(rows: Sequence[Row], metric: str) -> Row:
    """Choose the best finished trial; of equal ones the earlier, so that a draw keeps the values that were given."""
    finished = [row for row in rows if row["state"] == "finished"]
    if not finished:
        raise WbcError(f"--search: none of {len(rows)} trials finished. Give a smaller --learning_rate.")
    return _better(metric)(finished, key=itemgetter(metric))


def _range(distribution: BaseDistribution) -> list | dict[str, float | bool]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    return {name: getattr(distribution, name) for name in ("low", "high", "log")}


def _format_range(distribution: BaseDistribution) -> str:
    values = _range(distribution)
    return "/".join(map(str, values)) if isinstance(values, list) else f"{values['low']:g} to {values['high']:g}"


def _format_row(row: Row) -> str:
    """Right-aligned below the heading, which is made of the row's names."""
    cells = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in row.items()}
    return "  ".join(f"{cell:>{max(8, len(name))}}" for name, cell in cells.items()).rstrip()


def _write_plots(folder: Path, study: optuna.Study, metric: str) -> None:
    """Plot the best value so far over the trials, and the values over each hyperparameter."""
    import matplotlib.pyplot as plt
    from optuna.visualization.matplotlib import plot_optimization_history, plot_slice

    # Optuna sets a style for the whole process, and warns of what may change.
    with plt.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, plot in ((HISTORY_FILE, plot_optimization_history), (SLICES_FILE, plot_slice)):
            plot(study, target_name=metric)
            plt.savefig(folder / name, dpi=150, bbox_inches="tight")
            plt.close()
