"""The folder of a model: a local one, or one that is fetched from the Hugging Face Hub."""

import shutil
from pathlib import Path

from wbc_hf.errors import WbcError
from wbc_hf.hub.model_files import CONFIG_FILE, NOTICE_FILE, find_file


def fetch_model(model: str | Path) -> Path:
    """Return the folder of a model: a local one as it is, or that of a Hub model in the cache, downloaded if needed.

    Args:
        model: A folder with a `config.json`, or a Hub id such as `microsoft/resnet-50`. A folder that exists wins.

    Returns:
        The folder. That of a Hub model is in huggingface_hub's cache and must not be written to.

    Raises:
        HubUnreachableError: The Hub did not answer within `REACH_SECONDS` and the cache holds no complete model.
        WbcError: `model` is neither a folder nor a Hub id, the folder or repository has no model in it, the
            repository does not exist or is not open to this user, the download broke off, or the weights are not
            those that `push_folder` published.
    """
    folder = Path(model).expanduser()
    if not folder.exists():
        from wbc_hf.hub.fetching import fetch_from_hub

        return fetch_from_hub(str(model))
    if not folder.is_dir():
        raise WbcError(f"{folder}: a file, where the folder of a model is expected. Pass the folder it lies in.")
    if not (folder / CONFIG_FILE).is_file():
        raise WbcError(
            f"{folder}: has no {CONFIG_FILE}, so it is not the folder of a model. Pass the folder that training wrote."
        )
    return folder


def copy_notice(model: Path, derived: Path) -> bool:
    """Copy the licence notice of a model's weights to the folder of one that derives from it; whether there is one."""
    notice = find_file(model, NOTICE_FILE)
    if notice is not None:
        shutil.copyfile(notice, derived / NOTICE_FILE)
    return notice is not None
