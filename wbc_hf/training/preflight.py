"""Checks of a run's arguments, made before model or images are loaded."""

from huggingface_hub import get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from wbc_hf.errors import WbcError, needs_extra
from wbc_hf.training.arguments import Arguments


def check_arguments(arguments: Arguments) -> None:
    """Check what each argument alone cannot tell.

    Raises:
        WbcError: A value is out of its range, two arguments contradict each other, or the run could not publish.
    """
    data, model, training = arguments
    if model.cached_views < 0:
        raise WbcError(f"--cached_views {model.cached_views}: 0 or more.")
    if model.cached_views and model.freeze == "none":
        raise WbcError("--cached_views: stores the output of frozen layers, so name them: --freeze stage3, for one.")
    if model.cached_views and data.streaming:
        raise WbcError("--cached_views: goes over the images once before training, which a stream does not allow.")
    if model.cached_views and training.dataloader_persistent_workers:
        raise WbcError(
            "--dataloader_persistent_workers: with --cached_views they would show the views of the first epoch for "
            "ever. Leave it out."
        )
    if data.augmentation < 0:
        raise WbcError(f"--augmentation {data.augmentation}: 0 or more.")
    if data.laboratories == "many" and not data.augmentation:
        raise WbcError("--laboratories many: is an augmentation, so --augmentation has to be above 0.")
    if data.painted < 0 or (data.painted and data.streaming):
        raise WbcError(f"--painted {data.painted}: 0 or more, and 0 with --streaming.")
    if not 0 <= data.balance <= 1:
        raise WbcError(f"--balance {data.balance}: 0 to 1.")
    if data.balance and data.streaming:
        raise WbcError("--balance: counts laboratories and classes first, which a stream does not allow.")
    for folder, spec in data.left_out_runs:
        if not spec or not folder.is_dir():
            raise WbcError(
                f"--left_out {folder}={spec}: is RUN=SET, the folder of a finished run and the set it did without."
            )
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
