"""Laboratories that a user keeps by name: an adapted model as a small difference, and what was counted with it."""

import logging
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from wbc_hf.adaptation.adaptation_cell import AdaptationCell
from wbc_hf.adaptation.laboratory import CountRecord, Laboratory, laboratory_folder_name, normalise_laboratory
from wbc_hf.adaptation.results import Adaptation
from wbc_hf.adaptation.reviewed_cells import (
    KeptCell,
    list_reviewed_cells,
    read_reviewed_cells,
    write_reviewed_cell,
)
from wbc_hf.errors import WbcError
from wbc_hf.files import TEMPORARY_FILES, write_atomically
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import CALIBRATION_FILE, REFERENCES_FILE, Calibration, digest_weights

if TYPE_CHECKING:
    from wbc_hf.adaptation.weight_difference import Weights

logger = logging.getLogger(__name__)

MAX_HISTORY = 1000
RECORD_FILE, DIFFERENCE_FILE = "laboratory.json", "difference.safetensors"
_REVISIONS, _CELLS, _LOCK = "revisions", "cells", ".lock"
_LOCK_SECONDS = 30.0
_FOLDER = re.compile("-[0-9a-f]{12}$")  # as `laboratory_folder_name` gives them
_VERSION_DIGITS = 12  # as in `ModelIdentity`


def laboratories_folder() -> Path:
    """The folder in the variable WBC_HF_LABORATORIES, else `wbc_hf/laboratories` in the user's folder for data.

    That is XDG_DATA_HOME, by default `~/.local/share`.
    """
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(os.environ.get("WBC_HF_LABORATORIES") or Path(data, "wbc_hf", "laboratories")).expanduser()


class Laboratories:
    """Laboratories by name, in a folder. Several threads and processes may use it at once.

    Names that differ in case or spaces alone are one laboratory. Whatever breaks off, a reader finds the old state of
    a laboratory or the new one. See docs/laboratories.md.

    Attributes:
        folder: Made when something is kept first, and closed to other users.
    """

    def __init__(self, folder: Path | None = None):
        """Open a store, by default that in `laboratories_folder`."""
        self.folder = laboratories_folder() if folder is None else folder.expanduser()

    def names(self) -> tuple[str, ...]:
        """Names of all laboratories, in order."""
        return tuple(laboratory.name for laboratory in self.list())

    def list(self) -> tuple[Laboratory, ...]:
        """All laboratories in order of name. What cannot be read is left out with a warning."""
        found = []
        for file in self.folder.glob(f"*/{RECORD_FILE}"):
            try:
                laboratory = Laboratory.load(file)
                _check_place(laboratory, file.parent)
            except FileNotFoundError:  # another process has just removed it
                continue
            except WbcError as error:
                logger.warning("Left out %s", error)
                continue
            found.append(laboratory)
        return tuple(sorted(found, key=lambda laboratory: laboratory.name.casefold()))

    def __contains__(self, name: str) -> bool:
        """Whether there is a laboratory of this name, however it is spelt.

        Raises:
            WbcError: It is no name of a laboratory.
        """
        return (self._folder_of(name) / RECORD_FILE).exists()

    def show(self, name: str) -> Laboratory:
        """The record of a laboratory.

        Raises:
            WbcError: There is no such laboratory, or its record is broken.
        """
        folder = self._folder_of(name)
        try:
            laboratory = Laboratory.load(folder / RECORD_FILE)
        except FileNotFoundError:
            raise self._missing(name) from None
        _check_place(laboratory, folder)
        return laboratory

    def size(self, name: str) -> int:
        """Bytes that a laboratory takes on the disk, also one that is broken.

        Raises:
            WbcError: There is no such laboratory.
        """
        total = 0
        for path in self._existing(name).rglob("*"):
            with suppress(FileNotFoundError):  # a temporary file of another process
                total += path.stat().st_size if path.is_file() else 0
        return total

    # ---- the model

    def keep(
        self,
        name: str,
        base: Predictor | str | Path,
        adapted: Path,
        adaptation: Adaptation,
        *,
        keep_cells: bool | None = None,
    ) -> Laboratory:
        """Keep an adapted model under a name, as a laboratory of its own or in the place of its model before.

        Args:
            name: 1 to 60 characters, as its user says it. Where the laboratory exists, it keeps its first spelling.
            base: The model before the adaptation: its predictor, folder or Hub id.
            adapted: The folder that `adapt` wrote.
            adaptation: What `adapt` returned.
            keep_cells: Whether reviewed cells may be kept: pictures of patients' cells. False removes those that are.
                None leaves it as it is, in a new laboratory False.

        Raises:
            WbcError: The name is none, `adapted` was not adapted from `base` or is broken, or the store cannot be
                written.
        """
        from wbc_hf.modeling import load_classifier

        folder = self._folder_of(name)
        if not isinstance(base, Predictor):
            base = Predictor.from_pretrained(base, "torch")
        _check_base(f"{adapted}", adaptation, base)
        network = load_classifier(adapted)
        if Calibration.load(adapted) is None:
            raise WbcError(f"{adapted}: has no calibration, so it is none that was adapted. Adapt the model again.")
        with self._writing():
            before = Laboratory.load(folder / RECORD_FILE) if (folder / RECORD_FILE).exists() else None
            now = _now()
            laboratory = Laboratory(
                name=normalise_laboratory(name) if before is None else before.name,
                made=now if before is None else before.made,
                changed=now,
                adaptation=adaptation,
                version=digest_weights(network)[:_VERSION_DIGITS],
                revision=1 if before is None else before.revision + 1,
                keep_cells=keep_cells if keep_cells is not None else before is not None and before.keep_cells,
                history=() if before is None else before.history,
            )
            _tidy(folder, None if before is None else before.revision)
            _write_revision(_revision_of(folder, laboratory), base.resnet.state_dict(), network.state_dict(), adapted)
            if not laboratory.keep_cells:
                _remove_tree(folder / _CELLS)
            laboratory.save(folder / RECORD_FILE)
            _tidy(folder, laboratory.revision)
        return laboratory

    def load(self, name: str, base: Predictor) -> Predictor:
        """The adapted model of a laboratory, in memory, on the library of `base`, from which it was adapted.

        Raises:
            WbcError: There is no such laboratory, it was adapted from another model than `base`, or it is broken.
        """
        while True:
            laboratory = self.show(name)
            try:
                return self._load(laboratory, base)
            except WbcError:
                # Another process may have replaced the model since its record was read.
                if self.show(name).revision == laboratory.revision:
                    raise

    def _load(self, laboratory: Laboratory, base: Predictor) -> Predictor:
        from wbc_hf.adaptation.weight_difference import load_difference

        _check_base(laboratory.name, laboratory.adaptation, base)
        revision = _revision_of(self._folder_of(laboratory.name), laboratory)
        weights = load_difference(base.resnet.state_dict(), revision / DIFFERENCE_FILE)
        try:
            calibration = Calibration.load(revision)
        except WbcError as error:
            raise WbcError(f"{laboratory.name}: cannot be read. Adapt to this laboratory again. ({error})") from error
        if calibration is None:
            raise WbcError(f"{revision}: has no {CALIBRATION_FILE}. Adapt to this laboratory again.")
        predictor = base.with_weights(weights, laboratory.model_name(base.identity.name), calibration)
        if predictor.identity.version != laboratory.version:
            raise WbcError(
                f"{revision / DIFFERENCE_FILE}: gives a model of version {predictor.identity.version}, not "
                f"{laboratory.version}, so it was changed. Adapt to this laboratory again."
            )
        return predictor

    # ---- reviewed cells

    def add_cells(self, name: str, cells: Iterable[AdaptationCell]) -> None:
        """Keep reviewed cells of a laboratory. One that it has already gets its new label and group.

        Args:
            name: Of the laboratory.
            cells: With labels. Of their groups digests are kept: name the specimen and the photograph.

        Raises:
            WbcError: There is no such laboratory, it keeps no cells, a cell has no label, or the store cannot be
                written.
        """
        with self._writing():
            laboratory = self.show(name)
            if not laboratory.keep_cells:
                raise WbcError(
                    f"{laboratory.name}: keeps no pictures of cells, since nobody asked for it. Ask for it when the "
                    "model is adapted to this laboratory."
                )
            for cell in cells:
                write_reviewed_cell(self._folder_of(name) / _CELLS, cell)

    def cells(self, name: str) -> tuple[AdaptationCell, ...]:
        """The reviewed cells of a laboratory, as `adapt` takes them.

        Raises:
            WbcError: There is no such laboratory, or a file is broken.
        """
        self.show(name)
        return tuple(read_reviewed_cells(self._folder_of(name) / _CELLS))

    def list_cells(self, name: str) -> tuple[KeptCell, ...]:
        """Classes and groups of the reviewed cells of a laboratory, without reading the pictures.

        Raises:
            WbcError: There is no such laboratory.
        """
        return tuple(list_reviewed_cells(self._existing(name) / _CELLS))

    def cell_counts(self, name: str) -> dict[str, int]:
        """Number of reviewed cells of each class by name, also of a laboratory that is broken.

        Raises:
            WbcError: There is no such laboratory.
        """
        counts = Counter(cell.label for cell in self.list_cells(name))
        return {of_class: counts[label] for label, of_class in enumerate(CLASS_NAMES)}

    def forget_cells(self, name: str) -> None:
        """Remove the reviewed cells of a laboratory, and keep no more until it is asked for again.

        Raises:
            WbcError: There is no such laboratory, or the store cannot be written.
        """
        with self._writing():
            laboratory = self.show(name)
            folder = self._folder_of(name)
            _remove_tree(folder / _CELLS)
            replace(laboratory, keep_cells=False).save(folder / RECORD_FILE)

    def remove(self, name: str) -> None:
        """Remove a laboratory with all that is kept of it, also one that is broken.

        Raises:
            WbcError: There is no such laboratory, or the store cannot be written.
        """
        with self._writing():
            folder = self._existing(name)
            # Pictures first, the record before the rest: what breaks off leaves no picture of which nobody knows.
            _remove_tree(folder / _CELLS)
            (folder / RECORD_FILE).unlink(missing_ok=True)
            _remove_tree(folder)

    # ---- what was counted

    def record_count(self, name: str, cells: int, distance: float, unlike: bool) -> None:
        """Record that a specimen was counted with a laboratory's model. The last `MAX_HISTORY` are kept.

        Args:
            name: Of the laboratory.
            cells, distance, unlike: As in `CountRecord`, the distance a finite number.

        Raises:
            WbcError: There is no such laboratory, or the store cannot be written.
        """
        with self._writing():
            laboratory = self.show(name)
            record = CountRecord(_now(), int(cells), float(distance), bool(unlike))  # NumPy's go into no JSON
            history = (*laboratory.history, record)[-MAX_HISTORY:]
            replace(laboratory, history=history).save(self._folder_of(name) / RECORD_FILE)

    # ---- the folder

    def tidy(self) -> None:
        """Remove what killed processes left behind: half-made models, files and laboratories.

        Raises:
            WbcError: The store cannot be written.
        """
        if not self.folder.is_dir():
            return
        with self._writing():
            # None but these: the folder may hold what somebody else keeps there.
            for folder in (it for it in self.folder.iterdir() if _FOLDER.search(it.name) and it.is_dir()):
                for file in folder.rglob(TEMPORARY_FILES):
                    if file.is_file():
                        file.unlink()
                if (folder / RECORD_FILE).exists():
                    with suppress(WbcError):  # whoever asks for a broken one is told so
                        _tidy(folder, Laboratory.load(folder / RECORD_FILE).revision)
                elif {it.name for it in folder.iterdir()} <= {_REVISIONS}:
                    _remove_tree(folder)

    def _folder_of(self, name: str) -> Path:
        return self.folder / laboratory_folder_name(name)

    def _existing(self, name: str) -> Path:
        folder = self._folder_of(name)
        if not folder.is_dir():
            raise self._missing(name)
        return folder

    def _missing(self, name: str) -> WbcError:
        names = ", ".join(self.names())
        there = f"There are: {names}." if names else "There are none yet."
        return WbcError(f"{normalise_laboratory(name)}: no laboratory of this name in {self.folder}. {there}")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Keep other writers out. Readers need no lock, since whatever they read is replaced in one step."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(self.folder / _LOCK, timeout=_LOCK_SECONDS):
                yield
        except Timeout as error:
            raise WbcError(
                f"{self.folder}: another process has been writing for {_LOCK_SECONDS:.0f} s. Wait, or end it."
            ) from error
        except OSError as error:
            raise WbcError(
                f"{self.folder}: laboratories cannot be written there ({error.strerror or error}). Name another "
                "folder with the variable WBC_HF_LABORATORIES."
            ) from error


def _now() -> str:
    # To the millisecond, since what was counted before and after an adaptation is told apart by it.
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _check_place(laboratory: Laboratory, folder: Path) -> None:
    """Raises a WbcError if a record lies in the folder of another name: somebody has copied it."""
    if laboratory_folder_name(laboratory.name) != folder.name:
        raise WbcError(f"{folder}: holds the record of {laboratory.name}, whose folder is another. Remove the copy.")


def _check_base(name: str, adaptation: Adaptation, base: Predictor) -> None:
    """Raises a WbcError if a model was adapted from another one than `base`."""
    if base.identity.version != adaptation.version:
        raise WbcError(
            f"{name}: was adapted from the model {adaptation.model}, version {adaptation.version}; this is "
            f"{base.identity.name}, version {base.identity.version}. Give the former, or adapt again."
        )


def _revision_of(folder: Path, laboratory: Laboratory) -> Path:
    return folder / _REVISIONS / f"{laboratory.revision}"


def _write_revision(revision: Path, base: "Weights", weights: "Weights", adapted: Path) -> None:
    """Write a model to a temporary folder, and rename that."""
    from wbc_hf.adaptation.weight_difference import save_difference

    revision.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=revision.parent) as temporary:
        made = Path(temporary) / revision.name
        made.mkdir()
        save_difference(base, weights, made / DIFFERENCE_FILE)
        for name in (CALIBRATION_FILE, REFERENCES_FILE):
            write_atomically(made / name, (adapted / name).read_bytes())
        made.rename(revision)


def _tidy(folder: Path, revision: int | None) -> None:
    """Remove all models of a laboratory but one: older ones, and what a killed process left behind."""
    for path in (folder / _REVISIONS).glob("*"):
        if path.name != f"{revision}":
            _remove_tree(path)


def _remove_tree(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
