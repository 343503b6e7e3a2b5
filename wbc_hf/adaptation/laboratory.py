"""A laboratory that a user keeps: its name, what was adapted to it, and what was counted since."""

import hashlib
import re
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from wbc_hf.adaptation.results import STRICT, Adaptation
from wbc_hf.errors import WbcError
from wbc_hf.files import check_json, write_json

MAX_NAME = 60
_FORMAT = 1
_MAX_SLUG = 30
_ADVICE = "Remove the laboratory, and adapt again."


@dataclass(frozen=True)
class _Version:
    format: int


def _is_name(name: str) -> str:
    try:
        normalise_laboratory(name)
    except WbcError as error:
        raise ValueError(str(error)) from error
    return name


@dataclass(frozen=True)
class CountRecord:
    """One specimen that was counted with a laboratory's model, in numbers.

    Attributes:
        time: When, in UTC, ISO 8601.
        cells: Number of cells.
        distance: How far its cells lie from those that the model was adapted to, as the caller measures it.
        unlike: Whether that is too far.
    """

    __pydantic_config__ = STRICT

    time: str
    cells: int
    distance: float
    unlike: bool


@dataclass(frozen=True)
class Laboratory:
    """A laboratory's record, `laboratory.json` in its folder.

    Attributes:
        name: As its user typed it.
        made: When it was kept first, in UTC, ISO 8601.
        changed: When its present model was kept.
        adaptation: What was done to which model. Names and versions of the base model and the software are in it.
        version: Of the adapted model: the first digits of its weights' SHA-256.
        revision: Number of the sub-folder of `revisions` that holds the present model.
        keep_cells: Whether reviewed cells are kept.
        history: What was counted with it, oldest first.
        format: Of the record.
    """

    __pydantic_config__ = STRICT

    name: Annotated[str, AfterValidator(_is_name)]
    made: str
    changed: str
    adaptation: Adaptation
    version: str
    revision: int
    keep_cells: bool
    history: tuple[CountRecord, ...] = ()
    format: int = _FORMAT

    @property
    def labelled(self) -> int:
        """Number of cells with labels that the model was adapted to."""
        return sum((self.adaptation.labelled or {}).values())

    @property
    def unlabelled(self) -> int:
        """Number of cells without labels that the model was adapted to."""
        return self.adaptation.cells - self.labelled

    def model_name(self, base: str) -> str:
        """Name of its model, for reports, from the name of its base model."""
        return f"{base}, adapted to {self.name}"

    def drift(self) -> str | None:
        """When the present run of unlike specimens began, in UTC; None if the last one was not unlike.

        Only what was counted with the present model is looked at: what a model has been adapted to since is no drift.
        """
        began = None
        for record in reversed(self.history):
            if not record.unlike or record.time < self.changed:
                break
            began = record.time
        return began

    def save(self, file: Path) -> None:
        """Write the record in one step.

        Raises:
            OSError: It cannot be written.
        """
        write_json(file, asdict(self))

    @classmethod
    def load(cls, file: Path) -> "Laboratory":
        """Read a record.

        Raises:
            FileNotFoundError: There is none.
            WbcError: It is broken, or of another version of this project.
        """
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise WbcError(f"{file}: cannot be read ({error}). {_ADVICE}") from error
        name = f"{file}: cannot be read as a record"
        if check_json(content, _Version, name, _ADVICE).format != _FORMAT:
            raise WbcError(f"{file}: was written by another version of wbc_hf. Update the package.")
        return check_json(content, cls, name, _ADVICE)


def normalise_laboratory(name: str) -> str:
    """Check a laboratory's name, and return it with single spaces and composed letters.

    Raises:
        WbcError: It is empty, too long, without any letter or digit, or holds control characters.
    """
    normalised = " ".join(unicodedata.normalize("NFC", name).split())
    if not 1 <= len(normalised) <= MAX_NAME:
        raise WbcError(f"{_shown(name)}: the name of a laboratory has 1 to {MAX_NAME} characters.")
    if not normalised.isprintable():
        raise WbcError(
            f"{_shown(name)}: holds characters that cannot be seen. Name the laboratory by letters and digits."
        )
    if not any(letter.isalnum() for letter in normalised):
        raise WbcError(f"{_shown(name)}: has no letter or digit. Name the laboratory as you would on an envelope.")
    return normalised


def laboratory_folder_name(name: str) -> str:
    """Name of a laboratory's folder: the same for names that differ in case or spaces, and safe on every system.

    Raises:
        WbcError: It is no name of a laboratory.
    """
    key = unicodedata.normalize("NFC", normalise_laboratory(name).casefold())
    plain = unicodedata.normalize("NFKD", key).encode("ascii", "ignore").decode()
    slug = "-".join(re.findall("[a-z0-9]+", plain))[:_MAX_SLUG].strip("-") or "laboratory"
    # The digest tells apart what the slug does not, and no device of Windows is called like that.
    return f"{slug}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def _shown(name: str) -> str:
    shown = name.encode("unicode_escape").decode() if not name.isprintable() else name
    return shown if len(shown) <= MAX_NAME else f"{shown[:MAX_NAME]}…"
