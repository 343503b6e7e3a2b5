"""Fetch a model from the Hugging Face Hub, without a long wait where the Hub does not answer."""

import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from http import HTTPStatus
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
from wbc_hf.hub.checksums import check_weights
from wbc_hf.hub.model_files import (
    CONFIG_FILE,
    MODEL_FILES,
    WEIGHTS_FILE,
    WEIGHTS_INDEX_FILE,
    find_file,
    find_weights,
)

logger = logging.getLogger(__name__)

# Seconds until a silent Hub counts as unreachable: below the ten that a person is asked to wait.
REACH_SECONDS = 8.0

# Answers of a proxy in the place of a host that it does not let anybody reach.
_BARRED = (HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED)
# The Hub explains each refusal in one of these headers. An answer without them is not the Hub's.
_HUB_HEADERS = ("X-Error-Code", "X-Error-Message")
_NO_HUB = "not in a Hub's words (is there a proxy or a log-in page in between?)"

T = TypeVar("T")


def fetch_from_hub(repo_id: str) -> Path:
    """Return the folder of a Hub model in the cache, downloaded if needed. Raises as `fetch_model` does."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise WbcError(
            f"{repo_id}: no such folder, and not a Hub id either (those look like owner/name). "
            "Pass the folder that training wrote, or the id of a model on the Hub."
        ) from error
    try:
        _check_is_model(_repository_info(repo_id))
    except HubUnreachableError as error:
        folder = _cached_snapshot(repo_id, error)
    else:
        folder = _download(repo_id)
    check_weights(folder, repo_id)
    return folder


def check_hub_reachable() -> None:
    """Check that the Hub answers, before calls such as `load_dataset` that would retry for half a minute.

    Raises:
        HubUnreachableError: No answer within `REACH_SECONDS`, or one that says the Hub is down or barred by a proxy.
    """
    response = _ask_hub(lambda: get_session().head(constants.ENDPOINT, timeout=REACH_SECONDS))
    # Not every endpoint has a front page (404), a mirror below a path for one.
    if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR or response.status_code in _BARRED:
        raise HubUnreachableError(_unreachable_message(f"answered {response.status_code}"))


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
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
            raise HubUnreachableError(_unreachable_message(f"answered {status}")) from error
        if not any(header in error.response.headers for header in _HUB_HEADERS):
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
    # A dropped connection is an HTTPError, a short file or a full disk an OSError, an answer of 500 both.
    except (httpx2.HTTPError, OSError) as error:
        raise WbcError(
            f"{repo_id}: the download from {constants.ENDPOINT} did not finish ({first_line(error)}). "
            "Run the same command again: it resumes where it stopped."
        ) from error


def _cached_snapshot(repo_id: str, error: HubUnreachableError) -> Path:
    """The model in the cache, with one warning; raises `error` where there is none or it is incomplete."""
    try:
        snapshot = Path(snapshot_download(repo_id, local_files_only=True, allow_patterns=list(MODEL_FILES)))
    except LocalEntryNotFoundError:
        raise HubUnreachableError(f"{repo_id}: no folder of that name here. {error}") from None
    # snapshot_download checks against the list of an earlier download, which from_pretrained does not write.
    if not _is_complete(snapshot):
        raise error
    logger.warning("%s could not be reached: using the copy of %s in the cache.", constants.ENDPOINT, repo_id)
    return snapshot


def _is_complete(snapshot: Path) -> bool:
    try:
        return find_file(snapshot, CONFIG_FILE) is not None and bool(find_weights(snapshot))
    except WbcError:
        return False


def _ask_hub(ask: Callable[[], T]) -> T:
    """Return what `ask` returns, or raise HubUnreachableError where that takes longer than `REACH_SECONDS`.

    A timeout alone does not bound the wait: it starts again for every address of a host and every piece of an answer,
    and name resolution has none. So `ask` runs in a thread, which is abandoned when time is up.
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
        "or do without the Hub: pass a local folder."
    )


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its class name; errors of huggingface_hub have several lines."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__
