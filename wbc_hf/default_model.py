"""The default model, and the choice of a model where none is named."""

import os
from pathlib import Path

from wbc_hf.errors import WbcError

_PACKAGE = Path(__file__).resolve().parent
# An installed wheel holds the model inside the package, the repository beside it.
DEFAULT_MODEL_FOLDER = next(
    (folder for folder in (_PACKAGE / "starter", _PACKAGE.parent / "models" / "starter") if folder.is_dir()),
    _PACKAGE / "starter",
)
DEFAULT_FINDER_FOLDER = DEFAULT_MODEL_FOLDER.with_name("finder")
VARIABLE = "WBC_HF_MODEL"


def choose_model(given: str | None = None) -> str:
    """Return the model that was named: by an argument, else by the variable WBC_HF_MODEL, else the default model.

    Raises:
        WbcError: None was named, and the default model is missing.
    """
    chosen = given or os.environ.get(VARIABLE)
    if chosen:
        return chosen
    if DEFAULT_MODEL_FOLDER.is_dir():
        return str(DEFAULT_MODEL_FOLDER)
    raise WbcError(
        f"no model was named, and the default model is missing: {DEFAULT_MODEL_FOLDER}. Name a folder or a Hub id, or "
        f"set the variable {VARIABLE}."
    )
