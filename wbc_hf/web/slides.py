"""Whole slides on the page: a folder of them on the server, what is left to read of them, the map of what was read."""

import base64
from collections.abc import Sequence
from pathlib import Path

from wbc_hf.data import slide_kind, walk_folder
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.smear import (
    NOT_KNOWN,
    SlideField,
    SlideMap,
    Specimen,
    companions,
    file_digest,
    open_slide,
    unread_fields,
)
from wbc_hf.web.rendering import render
from wbc_hf.web.uploads import Upload

MAX_LISTED = 2000  # slides of the folder
_OF_SEVERAL_FILES = (".mrxs", ".vms", ".vmu", ".ndpis")


class SlideFolder:
    """Slides in a folder of the server, for visitors to read: by their path in it, and no other file.

    Args:
        folder: The folder. Links in it that lead out of it are not followed.

    Raises:
        WbcError: There is no such folder.
    """

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise WbcError(f"--slides {folder}: there is no such folder. Name one that holds whole slides.")
        self._folder = folder.resolve()

    def names(self) -> list[str]:
        """Paths of the slides within the folder, in order; of a DICOM slide that of its first file.

        One that links lead to by several paths is listed once.
        """
        found: dict[Path, str] = {}
        for entry in walk_folder(self._folder):
            path = Path(entry.path)
            if len(found) < MAX_LISTED and self._may_be_read(path):
                slide = path.parent if path.suffix.lower() == ".dcm" else path
                found.setdefault(slide.resolve(), path.relative_to(self._folder).as_posix())
        return list(found.values())

    def find(self, name: str) -> Path:
        """The file of a slide.

        Raises:
            WbcError: It is not in the folder, is no slide, or it or a file that belongs to it leads out of the folder.
        """
        try:
            path = self._folder / name
            if name.strip() and self._may_be_read(path):
                self._check_companions(path, name)
                return path
        except (OSError, ValueError):  # no possible path
            pass
        raise WbcError(f"{name or 'no name'}: is no slide in the server's folder of slides. Choose one of the list.")

    def find_again(self, known: SlideMap) -> Path | None:
        """The file of a slide that a specimen was read from, by its content; None where it is not in the folder.

        Raises:
            WbcError: It names files that lead out of the folder.
        """
        names = self.names()
        # It seldom moved.
        names.sort(key=lambda it: (it != known.name, Path(it).name != Path(known.name).name))
        for name in names if known.digest else ():
            path = self._folder / name
            try:
                same = known.digest.startswith(f"{path.stat().st_size}-") and file_digest(path) == known.digest
            except OSError:
                continue  # gone meanwhile
            if same:
                return self.find(name)
        return None

    def _check_companions(self, path: Path, name: str) -> None:
        for beside in companions(path):
            try:
                leads_out = beside.exists() and not beside.resolve().is_relative_to(self._folder)
            except (OSError, RuntimeError, ValueError):  # no possible path, or a link to itself: nothing opens it
                continue
            if leads_out:
                shown = beside.relative_to(path.parent) if beside.is_relative_to(path.parent) else beside.name
                raise WbcError(
                    f"{name}: is not read, since “{shown}”, which belongs to it, leads out of the server's folder of "
                    "slides: whoever runs the page copies it there."
                )

    def _may_be_read(self, path: Path) -> bool:
        real = path.resolve()
        return real.is_relative_to(self._folder) and real.is_file() and slide_kind(path) is not None


def check_given(upload: Upload) -> Upload | UnreadableImageError:
    """What a visitor gave, or why it is not read: a slide of several files, which names others on the server."""
    if Path(str(upload.source)).suffix.lower() not in _OF_SEVERAL_FILES:
        return upload
    reason = "is one of several files of a slide: whoever runs the page puts them into its folder (--slides)"
    return UnreadableImageError(upload.name, reason)


def is_slide(upload: Upload) -> bool:
    """Whether an upload is a whole slide, and not a field of one."""
    source = upload.source
    return upload.field is None and isinstance(source, str | Path) and slide_kind(source) is not None


def as_uploads(fields: Sequence[SlideField]) -> list[Upload]:
    """Fields of a slide, to be read one after the other."""
    return [Upload(field.slide.path, field.name, field=field) for field in fields]


def find_rest(specimen: Specimen, folder: SlideFolder | None) -> tuple[list[Upload], list[str]]:
    """List the fields that are left of the slides of a specimen that was kept or loaded, where the slides are there.

    Args:
        specimen: The specimen; of a second reading nothing is left, since it is of what the first reader had.
        folder: Of the server's slides.

    Returns:
        The fields in their order, and a sentence for each slide that cannot be read on.
    """
    uploads: list[Upload] = []
    sentences = []
    for known in () if specimen.about.second_of else specimen.slides:
        if len(known.fields) <= sum(it.place is not None and it.place.slide == known.name for it in specimen.pictures):
            continue
        try:
            path = None if folder is None else folder.find_again(known)
            if path is None:
                sentences.append(_not_here(known, folder))
            else:
                uploads += as_uploads(unread_fields(specimen, known, open_slide(path, known.name)))
        except WbcError as error:
            sentences.append(f"No more of the slide is read: {error}")
        except OSError as error:  # whose text has the folder of the server
            sentences.append(f"No more of the slide is read: {known.name}: {not_opened(error)}.")
    return uploads, sentences


def not_opened(error: OSError) -> str:
    """Why the file of a slide is not read, without its place on the server, which visitors do not learn."""
    return f"cannot be read now ({error.strerror or type(error).__name__})"


def _not_here(known: SlideMap, folder: SlideFolder | None) -> str:
    if not known.digest:
        return f"{known.name}: {NOT_KNOWN}."
    why = "this page has no folder of slides" if folder is None else "is not in the server's folder of slides"
    return f"{known.name}: {why}; give the slide again, and reading goes on where it stopped."


def render_slides(specimen: Specimen) -> str:
    """Render each slide with the fields of its monolayer, and which were read; "" where there is no slide."""
    read = {picture.name for picture in specimen.pictures if picture.place is not None}
    shown = [
        {
            "slide": slide,
            "image": base64.b64encode(slide.thumbnail).decode(),
            "fields": [
                (x0, y0, x1 - x0, y1 - y0, f"{slide.name}, field {number}" in read)
                for number, (x0, y0, x1, y1) in enumerate(slide.fields, 1)
            ],
        }
        for slide in specimen.slides
    ]
    return render("slides", slides=shown)
