"""From what a user gives to single pictures: the members of ZIP files, and the pages of files that have several."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wbc_hf.data.reading import SUFFIXES, FilePart, ImageSource, find_pages, part_name
from wbc_hf.data.zip_files import is_zip, list_members, problem_of_member
from wbc_hf.errors import UnreadableImageError

NO_PICTURE = "is no picture by the ending of its name"


@dataclass(frozen=True)
class NamedSource:
    """A picture, and what errors and reports call it."""

    source: ImageSource
    name: str


def unpack(source: ImageSource, name: str) -> list[NamedSource | UnreadableImageError]:
    """List the pictures in a ZIP file, in order of name, and what is left out of it; any other source is itself.

    What operating systems hide (names with a leading point, `__MACOSX`) is passed over.
    """
    if not isinstance(source, str | Path) or not is_zip(source):
        return [NamedSource(source, name)]
    try:
        members = list_members(source, name)
    except UnreadableImageError as error:
        return [error]
    found: list[NamedSource | UnreadableImageError] = []
    for member in members:
        path = PurePosixPath(member.filename)
        if any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in path.parts):
            continue
        suffix = path.suffix.lower()
        if suffix == ".zip":
            problem = "is a ZIP file within a ZIP file; unpack it first"
        else:
            problem = NO_PICTURE if suffix not in SUFFIXES else problem_of_member(member)
        if problem:
            found.append(UnreadableImageError(f"{name}: {member.filename}", problem))
        else:
            found.append(NamedSource(FilePart(source, member.filename), member.filename))
    return found or [UnreadableImageError(name, "is a ZIP file without files")]


def split_pages(source: ImageSource, name: str) -> Iterator[NamedSource | UnreadableImageError]:
    """Yield each page of a picture; of an animation the first frame, and then how many are left out."""
    pages = find_pages(source)
    if len(pages.numbers) == 1 or isinstance(source, bytes):
        yield NamedSource(source, name)
    else:
        assert isinstance(source, str | Path | FilePart)
        file, member = (source.file, source.member) if isinstance(source, FilePart) else (source, "")
        for number in pages.numbers:
            yield NamedSource(FilePart(file, member, number), part_name(name, number))
    if pages.frames:
        yield UnreadableImageError(name, f"is an animation: its first frame is read, {pages.frames} more are not")
