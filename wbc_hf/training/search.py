"""Which arguments train best: short trials judged on validation, the hopeless ones stopped early.

The study lies in a SQLite file, each step of it a transaction, so that a kill at any moment costs one trial. What a
trial needs is made by the caller; this module knows arguments and figures, no images.
"""

import csv
import dataclasses
import io
import math
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from accelerate.utils import release_memory
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from wbc_hf.errors import WbcError
from wbc_hf.evaluation import HEADLINE_NAMES
from wbc_hf.files import write_atomically
from wbc_hf.modeling import FREEZE_DEPTHS
from wbc_hf.training.arguments import DataArguments, LeucocyteTrainingArguments, ModelArguments
from wbc_hf.training.callbacks import EvaluationLines
from wbc_hf.training.search_figure import Trial, search_figure, spelt
from wbc_hf.training.trainer import LeucocyteTrainer

SEARCH_FOLDER = "search"
STUDY_FILE = "study.db"
TABLE_FILE = "trials.csv"
FIGURE_FILE = "trials.png"

Arguments = tuple[DataArguments, ModelArguments, LeucocyteTrainingArguments]
Space = dict[str, BaseDistribution]
TrainerMaker = Callable[[DataArguments, ModelArguments, LeucocyteTrainingArguments], LeucocyteTrainer]

_STUDY_NAME = "search"
_FAILURE = "failure"  # user attribute of a trial that came to nothing: why
_STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned"}
# So many trials go to their end before any is stopped: a median needs something to be the middle of.
_TRIALS_BEFORE_PRUNING = 4
_LEARNING_RATE_FACTOR = 10
_MOST_WEIGHT_DECAY = 0.2
_MOST_LABEL_SMOOTHING = 0.2
_MOST_AUGMENTATION = 2.0
# Argument, heading, how a value is written.
_COLUMNS = {
    "learning_rate": ("learning rate", ".2e"),
    "per_device_train_batch_size": ("batch", "d"),
    "freeze": ("freeze", "s"),
    "weight_decay": ("weight decay", ".3f"),
    "label_smoothing_factor": ("smoothing", ".3f"),
    "augmentation": ("augmentation", ".2f"),
}


@dataclass(frozen=True)
class Found:
    """What a search ends with.

    Attributes:
        arguments: Fresh ones of the run, holding the best values.
        record: What `run.json` says of the search.
    """

    arguments: Arguments
    record: dict


def check_search(data: DataArguments, model: ModelArguments, training: LeucocyteTrainingArguments) -> None:
    """What can be said before model and images are looked at.

    Raises:
        WbcError: A search that these arguments do not allow.
    """
    if training.world_size > 1:
        raise WbcError(
            "--search: trials run in one process. Search with `python train.py …`; a run on several processes can be "
            "given the values that it prints."
        )
    if data.streaming:
        raise WbcError("--search: every trial goes over all images, which a stream does not allow.")
    known = (*HEADLINE_NAMES, "loss")
    if metric_name(training) not in known:
        raise WbcError(f"--metric_for_best_model {training.metric_for_best_model}: is none of {', '.join(known)}.")
    space(data, model, training)


def search(
    data: DataArguments,
    model: ModelArguments,
    training: LeucocyteTrainingArguments,
    prepare: Callable[[], TrainerMaker],
) -> Found:
    """Run the trials that are still missing, write table and figure, and choose the best.

    The first trial has the values that were given. A trial that was interrupted is done again.

    Args:
        data, model, training: What was given; `training.search` counts all trials that are over, and `output_dir`
            has a folder `SEARCH_FOLDER`.
        prepare: Called once, where any trial is missing: computes what all trials share, and returns what makes a
            trainer with fresh weights for the arguments of a trial.

    Raises:
        WbcError: No trial came to its end.
    """
    folder = Path(training.output_dir) / SEARCH_FOLDER
    metric = metric_name(training)
    within = space(data, model, training)
    study = _open_study(folder / STUDY_FILE, training, _given(within, data, model, training))
    trials = over(study)
    if len(trials) < training.search:
        print(_announcement(within, training), flush=True)
        make_trainer = prepare()
        print("\n".join([_heading(within, metric), *(_line(trial, within) for trial in trials)]), flush=True)
    while len(trials) < training.search:
        _try(study, within, (data, model, training), make_trainer, number=len(trials) + 1)
        trials = over(study)
        _write_table(folder / TABLE_FILE, trials, within, metric)
        print(_line(trials[-1], within), flush=True)
    best = _best(trials, study)
    headings = {name: _COLUMNS[name][0] for name in within}
    search_figure(trials, best, headings, metric).savefig(folder / FIGURE_FILE, dpi=150)
    print(_closing(best, trials, metric, folder), flush=True)
    record = {"epochs": training.search_epochs, "metric": metric} | _record(trials, best, within)
    return Found(with_values(best.values, data, model, training), record)


def _record(trials: Sequence[Trial], best: Trial, within: Space) -> dict:
    return {
        "trials": len(trials),
        "pruned": sum(trial.state == "pruned" for trial in trials),
        "failed": sum(trial.state == "failed" for trial in trials),
        "best": {"trial": best.number, "value": best.value} | dict(best.values),
        "space": {name: _range(distribution) for name, distribution in within.items()},
    }


def space(data: DataArguments, model: ModelArguments, training: LeucocyteTrainingArguments) -> Space:
    """What the trials vary, around the values that were given: each of those is within.

    Batches only get smaller and no fewer layers are frozen, since what was given is known to fit into memory. What
    has a single choice is left out, and so is augmentation where the cached views hold one already.

    Raises:
        WbcError: A learning rate that has no tenth and no tenfold.
    """
    rate, batch = training.learning_rate, training.per_device_train_batch_size
    if rate <= 0:
        raise WbcError(f"--learning_rate {rate:g}: --search tries a tenth to ten times of it, so give one above 0.")
    depths = FREEZE_DEPTHS[FREEZE_DEPTHS.index(model.freeze) :]
    within: Space = {
        "learning_rate": FloatDistribution(rate / _LEARNING_RATE_FACTOR, rate * _LEARNING_RATE_FACTOR, log=True),
        "per_device_train_batch_size": CategoricalDistribution(sorted({max(1, batch // part) for part in (1, 2)})),
        # "all" is "stage4" by another name.
        "freeze": CategoricalDistribution([depth for depth in depths if depth != "all" or model.freeze == "all"]),
        "weight_decay": FloatDistribution(0.0, max(_MOST_WEIGHT_DECAY, training.weight_decay)),
        "label_smoothing_factor": FloatDistribution(0.0, max(_MOST_LABEL_SMOOTHING, training.label_smoothing_factor)),
        "augmentation": FloatDistribution(0.0, max(_MOST_AUGMENTATION, data.augmentation)),
    }
    if metric_name(training) == "loss":
        del within["label_smoothing_factor"]  # losses of different smoothing cannot be compared
    if model.cached_views:
        del within["augmentation"]
    return {name: distribution for name, distribution in within.items() if not distribution.single()}


def with_values(values: Mapping[str, float | int | str], *arguments: object) -> Arguments:
    """Fresh arguments with some values replaced, each in the dataclass that has it."""
    fresh = []
    for each in arguments:
        names = {field.name for field in dataclasses.fields(each)}
        changes = {name: value for name, value in values.items() if name in names}
        if isinstance(each, LeucocyteTrainingArguments):
            changes = {"push_to_hub": each.publish} | changes  # it had become `publish`, and will again
        fresh.append(dataclasses.replace(each, **changes))
    return tuple(fresh)


def trial_arguments(
    values: Mapping[str, float | int | str],
    data: DataArguments,
    model: ModelArguments,
    training: LeucocyteTrainingArguments,
) -> Arguments:
    """Arguments of one trial: a few epochs with a schedule of their own, judged after each, nothing saved."""
    short = {
        "output_dir": str(Path(training.output_dir) / SEARCH_FOLDER),
        "num_train_epochs": training.search_epochs,
        "max_steps": -1,
        "eval_strategy": "epoch",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "early_stopping_patience": 0,
        "report_to": "none",
        "push_to_hub": False,
    }
    return with_values(short | dict(values), data, model, training)


def metric_name(training: LeucocyteTrainingArguments) -> str:
    """What trials are judged by, without the "eval_" that transformers allows."""
    return training.metric_for_best_model.removeprefix("eval_")


def over(study: optuna.Study) -> list[Trial]:
    """The trials that count: finished, pruned or failed by themselves, not those that were interrupted."""
    frozen = study.get_trials(deepcopy=False, states=tuple(_STATES))
    return [_trial(number, each, study) for number, each in enumerate(frozen, start=1)]


def _trial(number: int, frozen: optuna.trial.FrozenTrial, study: optuna.Study) -> Trial:
    figures = [figure for figure in frozen.intermediate_values.values() if math.isfinite(figure)]
    failure = frozen.user_attrs.get(_FAILURE, "")
    return Trial(
        number=number,
        state="failed" if failure else _STATES[frozen.state],
        epochs=len(frozen.intermediate_values),
        value=_better(study)(figures) if figures else None,
        values=_rounded(frozen.params),
        seconds=frozen.duration.total_seconds(),
        failure=failure,
    )


def _rounded(values: Mapping[str, float | int | str]) -> dict[str, float | int | str]:
    """To six digits, so that what is printed is what was tried."""
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in values.items()}


def _better(study: optuna.Study) -> Callable[..., float]:
    return min if study.direction == optuna.study.StudyDirection.MINIMIZE else max


def _best(trials: Sequence[Trial], study: optuna.Study) -> Trial:
    """The best of the finished ones; of two that are as good the earlier, so that a draw leaves what was given."""
    finished = [trial for trial in trials if trial.state == "finished"]
    if not finished:
        raise WbcError(f"--search: none of {len(trials)} trials came to its end. Give a smaller --learning_rate.")
    return _better(study)(finished, key=lambda trial: trial.value)


# ---- the study


def _open_study(path: Path, training: LeucocyteTrainingArguments, given: dict[str, float | int | str]) -> optuna.Study:
    """The study of the folder, begun where there is none; what was under way waits to be done again."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Not by an address, in which a path with "?" or "#" would end there.
    storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": lambda: sqlite3.connect(path)})
    study = optuna.create_study(
        storage=storage,
        study_name=_STUDY_NAME,
        load_if_exists=True,
        direction="minimize" if metric_name(training) == "loss" else "maximize",
        # Three epochs are one rung of successive halving, and no bracket of Hyperband; a median needs neither.
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_TRIALS_BEFORE_PRUNING),
    )
    begun = study.get_trials(deepcopy=False)
    # With the same seed again, a search that was taken up would draw what it drew in the beginning.
    study.sampler = optuna.samplers.TPESampler(seed=training.seed + len(begun))
    if not begun:
        study.enqueue_trial(given)
    for trial in begun:
        if trial.state == TrialState.RUNNING:
            # In this order: a kill in between tries it twice, not never.
            study.enqueue_trial(trial.system_attrs.get("fixed_params", {}) | trial.params)
            study.tell(trial.number, state=TrialState.FAIL)
    return study


def _given(within: Space, *arguments: object) -> dict[str, float | int | str]:
    known = {name: value for each in arguments for name, value in vars(each).items()}
    return {name: known[name] for name in within}


def _try(study: optuna.Study, within: Space, arguments: Arguments, make_trainer: TrainerMaker, number: int) -> None:
    """One trial from fresh weights to its last word; an error leaves it under way, to be done again."""
    trial = study.ask(within)
    trainer = make_trainer(*trial_arguments(_rounded(trial.params), *arguments))
    trainer.remove_callback(EvaluationLines)
    training = arguments[-1]
    # `disable=None`: no bar where the output goes into a file.
    with tqdm(desc=f"Trial {number}", unit="step", delay=2, leave=False, disable=None) as bar:
        course = _Course(trial, metric_name(training), training.search_epochs, bar)
        trainer.add_callback(course)
        trainer.train()
    if course.state is TrialState.COMPLETE:
        study.tell(trial, _better(study)(course.figures))
    else:
        study.tell(trial, state=course.state)
    del trainer, course
    release_memory()


class _Course(TrainerCallback):
    """Tells the study of every epoch, and ends a trial that it has no hope in or whose loss is not finite."""

    def __init__(self, trial: optuna.Trial, metric: str, epochs: int, bar: tqdm):
        self.trial, self.metric, self.epochs, self.bar = trial, metric, epochs, bar
        self.figures: list[float] = []
        self.state = TrialState.COMPLETE

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self.bar.total = state.max_steps

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self.bar.update()

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs,
    ):
        finite = math.isfinite(metrics["eval_loss"])
        # The sampler takes a pruned trial whose figure is not a number for the worst of all.
        self.figures.append(metrics[f"eval_{self.metric}"] if finite else math.nan)
        self.trial.report(self.figures[-1], step=len(self.figures))
        if not finite:
            self.trial.set_user_attr(_FAILURE, "loss not finite")
        if not finite or (len(self.figures) < self.epochs and self.trial.should_prune()):
            self.state = TrialState.PRUNED
            control.should_training_stop = True


# ---- what a person sees of it


def _announcement(within: Space, training: LeucocyteTrainingArguments) -> str:
    ranges = ", ".join(f"{_COLUMNS[name][0]} {_spelt_range(name, each)}" for name, each in within.items())
    return (
        f"Searching: {training.search} trials of up to {training.search_epochs} epochs, judged on validation, "
        f"the first as given.\nVaried: {ranges}.\n"
    )


def _closing(best: Trial, trials: Sequence[Trial], metric: str, folder: Path) -> str:
    words = " ".join(f"--{name} {value}" for name, value in best.values.items())
    return (
        f"\nThe best of {len(trials)} trials is number {best.number}, {spelt(metric)} {best.value:.4f}:\n{words}\n"
        f"All of them: {folder / TABLE_FILE}, {folder / FIGURE_FILE}. Now the run with these values.\n"
    )


def _spelt_range(name: str, distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return "/".join(map(str, distribution.choices))
    return f"{distribution.low:g} to {distribution.high:g}"


def _range(distribution: BaseDistribution) -> list | dict[str, float | bool]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    return {"low": distribution.low, "high": distribution.high, "log": distribution.log}


def _heading(within: Space, metric: str) -> str:
    varied = "  ".join(f"{_COLUMNS[name][0]:>{_width(name)}}" for name in within)
    return f"trial  {spelt(metric):>8}  epochs  {varied}  seconds  state"


def _line(trial: Trial, within: Space) -> str:
    value = "–" if trial.value is None else f"{trial.value:.4f}"
    varied = "  ".join(f"{trial.values[name]:>{_width(name)}{_COLUMNS[name][1]}}" for name in within)
    state = f"{trial.state}: {trial.failure}" if trial.failure else trial.state
    return f"{trial.number:>5}  {value:>8}  {trial.epochs:>6}  {varied}  {trial.seconds:>7.1f}  {state}"


def _width(name: str) -> int:
    return max(8, len(_COLUMNS[name][0]))


def _write_table(path: Path, trials: Sequence[Trial], within: Space, metric: str) -> None:
    """All trials as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["number", "state", "epochs", metric, *within, "seconds", "failure"])
    for trial in trials:
        varied = [trial.values[name] for name in within]
        row = [trial.number, trial.state, trial.epochs, trial.value, *varied, round(trial.seconds, 2)]
        writer.writerow([*row, trial.failure])
    write_atomically(path, text.getvalue())
