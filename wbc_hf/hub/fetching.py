"""A model's folder, from this machine or from the Hugging Face Hub, without a long wait for a Hub that is silent."""

import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, constants, get_session, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import validate_repo_id

from wbc_hf.errors import HubUnreachableError, WbcError

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"

# Everything that a model of this project or an ordinary ResNet is loaded from. No pattern matches a pickle
# (pytorch_model.bin, *.pt), so none can be fetched: loading one runs whatever its author put in.
MODEL_FILES = (
    CONFIG_FILE,
    "preprocessor_config.json",
    "model*.safetensors",
    WEIGHTS_INDEX_FILE,
    "wbc.json",
    "wbc*.safetensors",
    "metrics.json",
    "README.md",
)

# Seconds until a Hub that has said nothing counts as unreachable. Below the ten that a person is asked to wait, with
# room for looking into the cache.
REACH_SECONDS = 8.0

_HUB_DOWN = 500
_TOO_MANY_REQUESTS = 429
# What the proxy of an institution answers in the place of a host that it does not let anybody reach.
_BARRED = (403, 407)
# The Hub explains each refusal in one of these. An answer without them comes from something in between.
_HUB_EXPLAINS = ("X-Error-Code", "X-Error-Message")
_NO_HUB = "not in a Hub's words (is there a proxy or a log-in page in between?)"

T = TypeVar("T")


def fetch_model(model: str | Path) -> Path:
    """The folder of a model: a local one as it is, or a Hub model's files from the cache, downloaded where needed.

    Args:
        model: A folder with a `config.json`, or a Hub id such as `microsoft/resnet-50`. A folder that exists wins.

    Returns:
        The folder. One that came from the Hub lies in huggingface_hub's cache and must not be written to.

    Raises:
        HubUnreachableError: The Hub has not answered within `REACH_SECONDS` and the cache holds no complete copy.
        WbcError: `model` is neither a folder nor a Hub id, the folder or repository has no model in it, the
            repository does not exist or is not open to this user, or the download broke off.
    """
    folder = Path(model).expanduser()
    if folder.exists():
        return _checked_folder(folder)
    repo_id = str(model)
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise WbcError(
            f"{repo_id}: no such folder, and not a Hub id either (those look like owner/name). "
            "Pass the folder that training wrote, or the id of a model on the Hub."
        ) from error
    return _fetch_repository(repo_id)


def check_hub_reachable() -> None:
    """Ask the Hub for a sign of life, for use before calls such as `load_dataset` that would retry for half a minute.

    Raises:
        HubUnreachableError: No answer within `REACH_SECONDS`, or one that says the Hub is down or barred by a proxy.
    """
    response = _ask_hub(lambda: get_session().head(constants.ENDPOINT, timeout=REACH_SECONDS))
    # Not every endpoint has a front page (404), a mirror below a path for one.
    if response.status_code >= _HUB_DOWN or response.status_code in _BARRED:
        raise HubUnreachableError(_unreachable_message(f"answered {response.status_code}"))


def _checked_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise WbcError(f"{folder}: a file, where the folder of a model is expected. Pass the folder it lies in.")
    if not (folder / CONFIG_FILE).is_file():
        raise WbcError(
            f"{folder}: has no {CONFIG_FILE}, so it is not the folder of a model. Pass the folder that training wrote."
        )
    return folder


def _fetch_repository(repo_id: str) -> Path:
    try:
        _check_is_model(_repository_info(repo_id))
    except HubUnreachableError as error:
        return _cached_snapshot(repo_id, error)
    return _download(repo_id)


def _repository_info(repo_id: str) -> ModelInfo:
    try:
        return _ask_hub(lambda: HfApi().model_info(repo_id, timeout=REACH_SECONDS))
    except RepositoryNotFoundError as error:
        raise WbcError(
            f"{repo_id}: no folder of that name here, and no such model on {constants.ENDPOINT}, "
            "or a private one. Check the spelling; for a private model, log in with `hf auth login` or set HF_TOKEN."
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status >= _HUB_DOWN or status == _TOO_MANY_REQUESTS:
            raise HubUnreachableError(_unreachable_message(f"answered {status}")) from error
        if not any(header in error.response.headers for header in _HUB_EXPLAINS):
            raise HubUnreachableError(_unreachable_message(f"answered {status}, {_NO_HUB}")) from error
        raise WbcError(f"{repo_id}: {constants.ENDPOINT} refused access: {first_line(error)}") from error
    except json.JSONDecodeError as error:
        raise HubUnreachableError(_unreachable_message(f"answered with a page, {_NO_HUB}")) from error


def _check_is_model(info: ModelInfo) -> None:
    names = {sibling.rfilename for sibling in info.siblings or []}
    if CONFIG_FILE not in names:
        raise WbcError(f"{info.id}: has no {CONFIG_FILE} on the Hub, so it is not a transformers model.")
    if not names & {WEIGHTS_FILE, WEIGHTS_INDEX_FILE}:
        raise WbcError(
            f"{info.id}: has no {WEIGHTS_FILE} on the Hub. Weights in other formats are pickles, which can run code "
            "when they are loaded, and are never fetched. Choose a model with safetensors, or convert it first."
        )


def _download(repo_id: str) -> Path:
    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(MODEL_FILES)))
    except GatedRepoError as error:
        raise WbcError(
            f"{repo_id}: its owner grants access on request. Ask for it on {constants.ENDPOINT}/{repo_id}, "
            "then log in with `hf auth login` or set HF_TOKEN."
        ) from error
    # A dropped connection is an HTTPError, a file that came short or a full disk an OSError, an answer of 500 is both.
    except (httpx2.HTTPError, OSError) as error:
        raise WbcError(
            f"{repo_id}: the download from {constants.ENDPOINT} did not finish ({first_line(error)}). "
            "Run the same command again: it goes on where it stopped."
        ) from error


def _cached_snapshot(repo_id: str, error: HubUnreachableError) -> Path:
    """The copy that an earlier fetch left, with one warning; raises `error` where there is none or it lacks a part."""
    try:
        snapshot = Path(snapshot_download(repo_id, local_files_only=True, allow_patterns=list(MODEL_FILES)))
    except LocalEntryNotFoundError:
        raise HubUnreachableError(f"{repo_id}: no folder of that name here. {error}") from None
    # snapshot_download compares with the list of an earlier download; files that from_pretrained fetched have no list.
    if not _is_complete(snapshot):
        raise error
    logger.warning("%s could not be reached: using the copy of %s in the cache.", constants.ENDPOINT, repo_id)
    return snapshot


def _is_complete(snapshot: Path) -> bool:
    if not (snapshot / CONFIG_FILE).is_file():
        return False
    index = snapshot / WEIGHTS_INDEX_FILE
    if not index.is_file():
        return (snapshot / WEIGHTS_FILE).is_file()
    shards = set(json.loads(index.read_text())["weight_map"].values())
    return all((snapshot / shard).is_file() for shard in shards)


def _ask_hub(ask: Callable[[], T]) -> T:
    """What `ask` returns, or HubUnreachableError when it finds nobody or takes longer than `REACH_SECONDS`.

    A timeout alone does not bound the wait: it counts anew for every address of a host and for every piece of an
    answer, and name resolution knows none. So the question is asked in a thread, which is left behind when time is up.
    """
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(ask())
        except Exception as error:  # raised again below, in the caller's thread
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return outcome.result(timeout=REACH_SECONDS)
    except TimeoutError as error:
        raise HubUnreachableError(_unreachable_message(f"did not answer within {REACH_SECONDS:.0f} s")) from error
    except OfflineModeIsEnabled as error:
        raise HubUnreachableError(_unreachable_message("was not asked, because HF_HUB_OFFLINE is set")) from error
    except httpx2.TransportError as error:
        raise HubUnreachableError(_unreachable_message(f"could not be reached ({first_line(error)})")) from error


def _unreachable_message(what: str) -> str:
    return (
        f"The Hugging Face Hub at {constants.ENDPOINT} {what}. Check the network or the variable HF_ENDPOINT, "
        "or do without the Hub: pass a local folder, or train with --from_scratch."
    )


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its kind where it has none; huggingface_hub's errors go on for several."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__
