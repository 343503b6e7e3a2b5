"""The hyperparameters that a search varies, and the arguments of its trials."""

from pathlib import Path

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from wbc_hf.errors import WbcError
from wbc_hf.modeling import FREEZE_DEPTHS
from wbc_hf.training.arguments import Arguments, LeucocyteTrainingArguments
from wbc_hf.training.run_folder import SEARCH_FOLDER
from wbc_hf.training.search_storage import connect

Values = dict[str, float | int | str]
Space = dict[str, BaseDistribution]

_LEARNING_RATE_FACTOR = 10
_MAX_WEIGHT_DECAY = 0.2
_MAX_LABEL_SMOOTHING = 0.2
_MAX_AUGMENTATION = 2.0


def check_search(arguments: Arguments) -> None:
    """Check the arguments of a search before model and images are loaded.

    Raises:
        WbcError: These arguments do not allow a search.
    """
    data, _, training = arguments
    if training.world_size > 1:
        raise WbcError(
            "--search: trials run in one process. Search with `python train.py …`; a run on several processes can be "
            "given the values that it prints."
        )
    if data.streaming:
        raise WbcError("--search: every trial goes over all images, which a stream does not allow.")
    search_space(arguments)
    if training.search_storage:
        connect(training.search_storage)


def metric_name(training: LeucocyteTrainingArguments) -> str:
    """The metric that trials are compared by, without the "eval_" that transformers allows."""
    return str(training.metric_for_best_model).removeprefix("eval_")


def search_space(arguments: Arguments) -> Space:
    """Ranges of the hyperparameters; each contains the value that was given.

    Batches only get smaller and no fewer layers are frozen, since what was given is known to fit into memory.
    Hyperparameters with a single choice are left out, and so is the augmentation where the cached views fix it.

    Raises:
        WbcError: The learning rate is 0 or less, so that it has no tenth and no tenfold.
    """
    data, model, training = arguments
    rate, batch = training.learning_rate, training.per_device_train_batch_size
    if rate <= 0:
        raise WbcError(f"--learning_rate {rate:g}: --search tries a tenth to ten times of it, so give one above 0.")
    depths = FREEZE_DEPTHS[FREEZE_DEPTHS.index(model.freeze) :]
    space: Space = {
        "learning_rate": FloatDistribution(rate / _LEARNING_RATE_FACTOR, rate * _LEARNING_RATE_FACTOR, log=True),
        "per_device_train_batch_size": CategoricalDistribution(sorted({max(1, batch // part) for part in (1, 2)})),
        # "all" is "stage4" by another name.
        "freeze": CategoricalDistribution([depth for depth in depths if depth != "all" or model.freeze == "all"]),
        "weight_decay": FloatDistribution(0.0, max(_MAX_WEIGHT_DECAY, training.weight_decay)),
        "label_smoothing_factor": FloatDistribution(0.0, max(_MAX_LABEL_SMOOTHING, training.label_smoothing_factor)),
        "augmentation": FloatDistribution(0.0, max(_MAX_AUGMENTATION, data.augmentation)),
    }
    if metric_name(training) == "loss":
        del space["label_smoothing_factor"]  # losses of different smoothing cannot be compared
    if model.cached_views:
        del space["augmentation"]
    return {name: distribution for name, distribution in space.items() if not distribution.single()}


def trial_arguments(values: Values, arguments: Arguments) -> Arguments:
    """Arguments of one trial: a few epochs with a schedule of their own, evaluated after each, nothing saved."""
    short = {
        "output_dir": str(Path(arguments.training.output_dir) / SEARCH_FOLDER),
        "num_train_epochs": arguments.training.search_epochs,
        "max_steps": -1,
        "eval_strategy": "epoch",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "early_stopping_patience": 0,
        "report_to": "none",
        "push_to_hub": False,
    }
    return arguments.with_values(short | values)
