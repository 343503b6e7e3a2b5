"""Publish a trained model as an ordinary model repository on the Hugging Face Hub, and the page as a Space."""

import fnmatch
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Literal

import httpx2
import yaml
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    RepoCard,
    SpaceCard,
    constants,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RemoteEntryNotFoundError
from huggingface_hub.utils import validate_repo_id

from wbc_hf.errors import WbcError
from wbc_hf.files import read_text
from wbc_hf.hub.card_changes import read_changes, write_changes
from wbc_hf.hub.checksums import format_checksums
from wbc_hf.hub.fetching import check_hub_reachable, first_line
from wbc_hf.hub.model_files import (
    CARD_FILE,
    CHECKSUMS_FILE,
    CONFIG_FILE,
    METRICS_FILE,
    NOTICE_FILE,
    PROCESSOR_FILE,
    WEIGHTS_FILE,
    find_file,
)

REQUIRED_FILES = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)

# An allow-list: a run's folder also holds training_args.bin (a pickle that may carry a token), optimizer.pt,
# checkpoints, and predictions.csv and run.json (names and paths of images).
PUBLISHED_FILES = (
    *REQUIRED_FILES,
    NOTICE_FILE,
    PROCESSOR_FILE,
    "wbc.json",
    "wbc*.safetensors",
    METRICS_FILE,
    "figures/*.png",
)

# These figures show images of the data set, whose licence may forbid passing them on; other figures are charts.
WITHHELD_FILES = ("figures/misclassified*",)

# In a card, the id of a model that is not published yet.
UNNAMED_MODEL = "OWNER/NAME"


def push_folder(folder: Path, repo_id: str, *, private: bool = False, changes: str | None = None) -> str:
    """Publish the model in a folder. The folder is never changed.

    All files go into one commit, so that the repository holds either the new model or the old one. Other files on the
    Hub stay; its `README.md` is replaced, and so is `SHA256SUMS`, by which `fetch_model` checks the
    weights. The token comes from HF_TOKEN or `hf auth login` and is written nowhere.

    The card has to say under "Changes" what this version is, in a line that is not published yet: training and
    adapting write one, and `changes` is another. Lines that are published already are kept below. Without a new line
    a push is refused, unless card and weights are those that are published: a push can always be repeated.

    Args:
        folder: The folder of a training, with at least `REQUIRED_FILES`.
        repo_id: `owner/name`; created if it does not exist.
        private: Make a new repository private; by default as the owner's settings say.
        changes: What is new in this version, which the published card says with the date of today.

    Returns:
        The address of the repository.

    Raises:
        HubUnreachableError: The Hub does not answer.
        WbcError: A required file or the token is missing, `repo_id` or the card is not valid, the card names no
            licence or no change that is not published yet, an existing repository is public where `private` was asked
            for, or the push failed.
    """
    names = list_published(folder)
    card = _card_with_changes(folder, repo_id, changes)
    _check_may_push(repo_id, "a model")
    again = f"wbc-hf push {folder} {repo_id}" + (" --private" if private else "")
    again += "" if changes is None else f" --changes {shlex.quote(changes)}"
    with _explain_failure(repo_id, f"The model in {folder} is whole and unchanged. To push it again: {again}"):
        _check_card(card, folder / CARD_FILE, ModelCard)
        api = HfApi()
        url = _make_repository(api, repo_id, "model", private)
        checksums = format_checksums(folder, names)
        card = _continue_changes(card, checksums, api, repo_id)
        additions = [CommitOperationAdd(name, folder / name) for name in names if name != CARD_FILE]
        additions.append(CommitOperationAdd(CARD_FILE, card.encode()))
        additions.append(CommitOperationAdd(CHECKSUMS_FILE, checksums.encode()))
        # Not `upload_folder`: with Xet it commits in several steps, and a break between two leaves half a model.
        api.create_commit(repo_id, additions, commit_message="Publish model with wbc-hf")
    return url


def push_space(folder: Path, repo_id: str, *, private: bool = False) -> str:
    """Publish a folder as a Gradio Space, in one commit. Files of the Space that the folder lacks are deleted.

    Args:
        folder: What the Space runs: `README.md` with the front matter of a Space, `app.py`, `requirements.txt` and all
            that they need.
        repo_id: `owner/name`; created if it does not exist.
        private: Make a new Space private; by default as the owner's settings say.

    Returns:
        The address of the Space.

    Raises:
        HubUnreachableError: The Hub does not answer.
        WbcError: The token is missing, `repo_id` or the front matter is not valid, an existing Space is public where
            `private` was asked for, one of the files is a link to what lies elsewhere, or the push failed.
    """
    _check_may_push(repo_id, "a Space")
    with _explain_failure(repo_id, "The Space is as it was. Push it again."):
        card = read_text(folder / CARD_FILE)
        _check_card(card, folder / CARD_FILE, SpaceCard)
        api = HfApi()
        url = _make_repository(api, repo_id, "space", private)
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
        names = [name for name in names if find_file(folder, name) is not None]
        gone = set(api.list_repo_files(repo_id, repo_type="space")) - {*names, ".gitattributes"}
        operations = [CommitOperationAdd(name, folder / name) for name in names]
        api.create_commit(
            repo_id,
            [*operations, *(CommitOperationDelete(name) for name in sorted(gone))],
            commit_message="Publish page with wbc-hf",
            repo_type="space",
        )
    return url


def list_published(folder: Path) -> list[str]:
    """List the files of a folder that are published, sorted, as relative paths with forward slashes.

    Raises:
        WbcError: One of `REQUIRED_FILES` is missing, or one of the files is a link to what lies elsewhere.
    """
    missing = [name for name in REQUIRED_FILES if find_file(folder, name) is None]
    if missing:
        raise WbcError(f"{folder}: has no {' and no '.join(missing)}. Push the folder that a finished training wrote.")
    matches = {path.relative_to(folder).as_posix() for pattern in PUBLISHED_FILES for path in folder.glob(pattern)}
    names = [name for name in sorted(matches) if not any(fnmatch.fnmatch(name, each) for each in WITHHELD_FILES)]
    return [name for name in names if find_file(folder, name) is not None]


def _card_with_changes(folder: Path, repo_id: str, changes: str | None) -> str:
    """The card of a folder under the name of its repository, with one more change where it is given."""
    path = folder / CARD_FILE
    card = read_text(path).replace(UNNAMED_MODEL, repo_id)
    if changes is not None:
        if not changes.strip():
            raise WbcError('--changes "": says nothing. Say in a sentence what is new in this version.')
        line = f"{datetime.now(UTC).date()}: {' '.join(changes.split())}"
        card = write_changes(card, [line, *read_changes(card)])
    if not read_changes(card):
        raise WbcError(f'{path}: has no "## Changes" that say what this version is. Say it with --changes "TEXT".')
    return card


def _continue_changes(card: str, checksums: str, api: HfApi, repo_id: str) -> str:
    """The card with its new changes above those of the published card."""
    published = _published_text(api, repo_id, CARD_FILE)
    before, ours = read_changes(published), read_changes(card)
    new = [change for change in ours if change not in before]
    if new + before != ours:
        card = write_changes(card, new + before)
    if not new and (card, checksums) != (published, _published_text(api, repo_id, CHECKSUMS_FILE)):
        raise WbcError(
            f"{repo_id}: its card has every change of this one already, the newest being {before[0]!r}, but the "
            'model or the card is another. Say what is new in this version with --changes "TEXT".'
        )
    return card


def _published_text(api: HfApi, repo_id: str, name: str) -> str:
    """A text file of a repository as it is now; empty where there is none."""
    # Not from the cache, which answers with an older one where the Hub does not.
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = Path(api.hf_hub_download(repo_id, name, local_dir=folder))
        except RemoteEntryNotFoundError:
            return ""
        return path.read_text(encoding="utf-8", errors="replace")


def _make_repository(api: HfApi, repo_id: str, kind: Literal["model", "space"], private: bool) -> str:
    """Make a repository unless it is there. Returns its address; refuses one that is not as private as asked for."""
    sdk = "gradio" if kind == "space" else None
    # `private=False` would make a repository public even where an organisation's own default is private.
    url = api.create_repo(repo_id, repo_type=kind, space_sdk=sdk, private=private or None, exist_ok=True)
    if private and not api.repo_info(repo_id, repo_type=kind).private:
        raise WbcError(f"{repo_id}: exists and is public, so this push would not be private. Choose another name.")
    return str(url)


def _check_may_push(repo_id: str, what: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise WbcError(f"{repo_id}: not a name for {what} on the Hub ({error}) Give one like owner/name.") from error
    if get_token() is None:
        raise WbcError(
            "No token for the Hub. Make one with write permission on https://huggingface.co/settings/tokens, "
            "then run `hf auth login` or set HF_TOKEN."
        )
    check_hub_reachable()


@contextmanager
def _explain_failure(repo_id: str, remedy: str) -> Iterator[None]:
    try:
        yield
    # A dropped connection and an answer of 500 are HTTPErrors; a failed large file is a RuntimeError (one file), a
    # ValueError (the whole batch) or, in the Xet client, an OSError.
    except (httpx2.HTTPError, RuntimeError, ValueError, OSError) as error:
        message = f"{repo_id}: the push to {constants.ENDPOINT} did not finish: {_reason(error)}. {remedy}"
        raise WbcError(message) from error


def _check_card(text: str, path: Path, kind: type[RepoCard]) -> None:
    try:
        card = kind(text)
        card.validate()
    except HfHubHTTPError:
        raise
    # Invalid YAML front matter fails before the Hub is asked.
    except (ValueError, yaml.YAMLError) as error:
        raise WbcError(f"{path}: the Hub does not accept this {kind.repo_type} card: {error}") from error
    if not card.data.get("license"):
        raise WbcError(f"{path}: names no licence. Give one in its front matter, such as `license: apache-2.0`.")


def _reason(error: Exception) -> str:
    # The error of an upload or a download names the file, its cause the reason.
    names_file = isinstance(error, RuntimeError | LocalEntryNotFoundError)
    cause = error.__cause__ if names_file and isinstance(error.__cause__, Exception) else error
    if isinstance(cause, HfHubHTTPError):
        status = cause.response.status_code
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return f"the Hub answered {status}: the token is not valid or may not write there"
        return f"the Hub answered {status} ({first_line(cause)})"
    return first_line(cause)
