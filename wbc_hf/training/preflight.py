"""Checks of a run's arguments, made before model or images are loaded."""

import math

from huggingface_hub import get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import Trainer
from transformers.integrations.integration_utils import get_available_reporting_integrations
from transformers.training_args import OptimizerNames

from wbc_hf.errors import WbcError, needs_extra
from wbc_hf.evaluation import HEADLINE_NAMES
from wbc_hf.training.arguments import Arguments, LeucocyteTrainingArguments

_NOT_FOR_IMAGES = ("use_liger_kernel", "neftune_noise_alpha", "batch_eval_metrics")
_RANGES: dict[str, tuple[float, float]] = {
    "per_device_train_batch_size": (1, math.inf),
    "per_device_eval_batch_size": (1, math.inf),
    "gradient_accumulation_steps": (1, math.inf),
    "learning_rate": (0, math.inf),
    "weight_decay": (0, math.inf),
    "label_smoothing_factor": (0, 1),
    "dataloader_num_workers": (0, math.inf),
    "seed": (0, 2**32 - 1),
    "cached_views": (0, math.inf),
    "augmentation": (0, math.inf),
    "balance": (0, 1),
}


def check_arguments(arguments: Arguments) -> None:
    """Check what each argument alone cannot tell.

    Raises:
        WbcError: A value is out of its range, two arguments contradict each other, or the run could not publish.
    """
    data, model, training = arguments
    values = vars(data) | vars(model) | vars(training)
    for name, (least, most) in _RANGES.items():
        if not least <= values[name] <= most:
            allowed = f"{least} or more" if most == math.inf else f"{least} to {most}"
            raise WbcError(f"--{name} {values[name]}: {allowed}.")
    _check_training_arguments(training)
    if data.streaming and data.other_classes != "refuse":
        raise WbcError("--other_classes: goes over the images once before training, which a stream does not allow.")
    if model.cached_views and model.freeze == "none":
        raise WbcError("--cached_views: stores the output of frozen layers, so name them: --freeze stage3, for one.")
    if model.cached_views and data.streaming:
        raise WbcError("--cached_views: goes over the images once before training, which a stream does not allow.")
    if model.cached_views and training.dataloader_persistent_workers:
        raise WbcError(
            "--dataloader_persistent_workers: with --cached_views they would show the views of the first epoch for "
            "ever. Leave it out."
        )
    if data.laboratories == "many" and not data.augmentation:
        raise WbcError("--laboratories many: is an augmentation, so --augmentation has to be above 0.")
    if data.painted < 0 or (data.painted and data.streaming):
        raise WbcError(f"--painted {data.painted}: 0 or more, and 0 with --streaming.")
    if data.balance and data.streaming:
        raise WbcError("--balance: counts laboratories and classes first, which a stream does not allow.")
    for folder, spec in data.left_out_runs:
        if not spec or not folder.is_dir():
            raise WbcError(
                f"--left_out {folder}={spec}: is RUN=SET, the folder of a finished run and the set it did without."
            )
    _check_distillation(arguments)
    if data.painted and any(spec.split(":")[0] == "synthetic" for spec in data.dataset):
        raise WbcError(
            "--painted: are the same cells as those of --dataset synthetic, also as its test split. Leave it."
        )
    if data.streaming and training.max_steps <= 0:
        raise WbcError("--streaming: a stream has no length, so say how long to train, with --max_steps N.")
    if data.streaming and training.class_weights != "none":
        raise WbcError("--class_weights balanced: counts the classes first, which a stream does not allow.")
    if training.search:
        # Optuna is needed for a search only.
        with needs_extra("train"):
            from wbc_hf.training.search_space import check_search

        check_search(arguments)
    if training.publish and training.hub_model_id:
        _check_publishing(training.hub_model_id)


def _check_distillation(arguments: Arguments) -> None:
    data, model, training = arguments
    if model.teacher is None:
        if data.unlabelled:
            raise WbcError("--unlabelled: images without labels need a --teacher, whose predictions are learned.")
        return
    if model.cached_views:
        raise WbcError("--cached_views: a --teacher sees images, not the output of frozen layers. Leave one out.")
    if training.search:
        raise WbcError("--search: is for training on labels. Search without --teacher, then give what was found.")
    if not model.temperature > 0:
        raise WbcError(f"--temperature {model.temperature}: above 0.")
    if not 0 <= model.teacher_weight <= 1:
        raise WbcError(f"--teacher_weight {model.teacher_weight}: 0 to 1.")
    if data.unlabelled and data.streaming:
        raise WbcError("--unlabelled: compares images with the test split first, which a stream does not allow.")
    if data.unlabelled and (data.balance or training.class_weights != "none"):
        raise WbcError("--unlabelled: its images have no class to count, so leave --balance and --class_weights.")


def _check_training_arguments(training: LeucocyteTrainingArguments) -> None:
    """What Trainer would say of its arguments after the images were read, or after an epoch."""
    if training.num_train_epochs <= 0 and training.max_steps <= 0:
        raise WbcError(f"--num_train_epochs {training.num_train_epochs:g}: above 0.")
    if training.save_only_model and training.resume:
        raise WbcError("--save_only_model: leaves out of checkpoints what --resume needs. Leave out one of them.")
    if training.gradient_checkpointing or training.activation_checkpointing:
        raise WbcError(
            "--gradient_checkpointing: a ResNet has none. To save memory, take fewer images in "
            "--per_device_train_batch_size, and --gradient_accumulation_steps."
        )
    for name in _NOT_FOR_IMAGES:
        if getattr(training, name):
            raise WbcError(f"--{name}: is not for classifiers of images. Leave it out.")
    if training.fp16 and training.use_cpu:
        raise WbcError("--fp16: needs a GPU. Leave it out, or take --bf16.")
    known = (*HEADLINE_NAMES, "loss")
    if training.metric_for_best_model and training.metric_for_best_model.removeprefix("eval_") not in known:
        raise WbcError(f"--metric_for_best_model {training.metric_for_best_model}: is not one of {', '.join(known)}.")
    available = get_available_reporting_integrations()
    for name in training.report_to:
        if name not in available:
            raise WbcError(f"--report_to {name}: is not installed. Available are {', '.join(available)}, and none.")
    try:
        Trainer.get_optimizer_cls_and_kwargs(training)
    except (ValueError, RuntimeError, ImportError) as error:
        raise WbcError(f"--optim {OptimizerNames(training.optim).value}: {' '.join(str(error).split())}") from error


def _check_publishing(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise WbcError(f"--hub_model_id {repo_id}: not a name for a model on the Hub ({error})") from None
    if get_token() is None:
        raise WbcError(
            "--push_to_hub: no token for the Hub. Make one with write permission on "
            "https://huggingface.co/settings/tokens, then run `hf auth login` or set HF_TOKEN."
        )
