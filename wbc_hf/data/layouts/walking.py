"""Walk folders of pictures: through links to folders, past what operating systems and people lay beside pictures."""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from wbc_hf.data.reading import SUFFIXES
from wbc_hf.errors import WbcError

logger = logging.getLogger(__name__)

# What operating systems leave behind.
_OF_SYSTEMS = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
# Texts and tables lie beside pictures; any other file is taken for a picture, and reading it says why it is none.
_DOCUMENT = re.compile(
    r".*\.(txt|csv|tsv|jsonl?|xml|ya?ml|toml|names|md|rst|html?|pdf|docx?|odt|xlsx?|ods|arrow|py|ipynb|log|ini|bib)"
    r"|readme|licen[sc]e|copying|notice|authors|makefile|checksums",
    re.IGNORECASE,
)


def check_folder(root: Path) -> None:
    """Raises WbcError where a data set's folder is not there, or is none."""
    if not root.exists():
        raise WbcError(
            f"{root}: there is no such folder. A data set is a folder of class sub-folders, 'synthetic', "
            "'kaggle:owner/name', or the id of a Hub data set ('owner/name')."
        )
    if not root.is_dir():
        raise WbcError(f"{root}: is a file; a folder with one sub-folder per class, or a Parquet file, is expected.")


def walk_folder(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """Yield every folder and file below a folder, in order of name, depth first.

    Links to folders are followed, but for those that lead back to a folder above them. What is hidden is left out.

    Raises:
        WbcError: A folder may not be read.
    """
    return _walk(os.fspath(folder), frozenset())


def _walk(folder: str, above: frozenset[str]) -> Iterator[os.DirEntry[str]]:
    within = above | {os.path.realpath(folder)}
    try:
        with os.scandir(folder) as found:
            entries = sorted((entry for entry in found if not _is_hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise WbcError(
            f"{folder}: this folder cannot be read ({error.strerror}). Check its permissions, or remove it."
        ) from error
    for entry in entries:
        if not is_folder(entry):
            yield entry
        elif entry.is_symlink() and os.path.realpath(entry.path) in within:
            logger.warning("%s: links to a folder above it, and is left out.", entry.path)
        else:
            yield entry
            yield from _walk(entry.path, within)


def list_files(folder: Path) -> list[Path]:
    """List all files that `walk_folder` finds below a folder."""
    return [Path(entry.path) for entry in walk_folder(folder) if not is_folder(entry)]


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link to itself is none."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def is_document(name: str) -> bool:
    """Whether a file of this name is a text or a table, which lies beside pictures."""
    return _DOCUMENT.fullmatch(name) is not None


def is_picture(path: str | Path) -> bool:
    """Whether the ending of a file's name is that of a picture."""
    return os.path.splitext(path)[1].lower() in SUFFIXES


def find_pictures(folder: Path) -> list[Path]:
    """List the files below a folder, in order of name, without texts, tables and hidden ones.

    Those that are no pictures (videos, whole-slide images, links to nowhere) are among them: reading them says so.

    Raises:
        WbcError: There is none, or a folder may not be read.
    """
    found = [path for path in list_files(folder) if not is_document(path.name)]
    if not found:
        raise WbcError(f"{folder}: no pictures in this folder ({', '.join(sorted(SUFFIXES))}).")
    return found


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _OF_SYSTEMS
