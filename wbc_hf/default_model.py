"""The model that comes with the project, and which model is meant where none was named."""

import os
from pathlib import Path

from wbc_hf.errors import WbcError

DEFAULT_MODEL_FOLDER = Path(__file__).resolve().parents[1] / "models" / "starter"
VARIABLE = "WBC_HF_MODEL"


def choose_model(given: str | None) -> str:
    """The model that was named: by an argument, else by the variable WBC_HF_MODEL, else the one in models/starter.

    Raises:
        WbcError: None was named, and the package stands alone, without the project's models.
    """
    chosen = given or os.environ.get(VARIABLE)
    if chosen:
        return chosen
    if DEFAULT_MODEL_FOLDER.is_dir():
        return str(DEFAULT_MODEL_FOLDER)
    raise WbcError(
        f"no model was named, and {DEFAULT_MODEL_FOLDER} is not there: it comes with the repository, not with the "
        f"package alone. Name a folder or a Hub id, or set the variable {VARIABLE}."
    )
