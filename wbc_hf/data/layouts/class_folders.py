"""Class folders: `monocyte/a.png`, with folders of splits or patients above or below them."""

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wbc_hf.data.hub_sets import find_group_column
from wbc_hf.data.layouts.table_files import read_table
from wbc_hf.data.layouts.walking import check_folder, is_document, is_folder, is_picture, walk_folder
from wbc_hf.data.split_names import nearest_split, split_name
from wbc_hf.errors import WbcError
from wbc_hf.labels import class_index

logger = logging.getLogger(__name__)

METADATA_FILE = "metadata.csv"


@dataclass(frozen=True)
class FolderImage:
    """One file of a set in a folder, not opened yet.

    Attributes:
        path: The file.
        source: Its path relative to the folder that was given.
        class_name: Name of the class folder, or the class in a table, as it is.
        split: "train", "validation" or "test", or None where neither a folder on the way to the file names a split
            nor a table.
        group: Group in a table, or the folder of the patient; None where there is neither.
        test_set: Name of its test split where it is one of several ("Test-B"), or None.
    """

    path: Path
    source: str
    class_name: str
    split: str | None
    group: str | None
    test_set: str | None = None


def has_class_folders(root: Path) -> bool:
    """Whether a folder below `root` is named like a class."""
    return any(class_index(entry.name) is not None for entry in walk_folder(root) if is_folder(entry))


def scan_folder(root: Path) -> list[FolderImage]:
    """List the files of every class folder below `root`, in a fixed order.

    A file's class is the nearest folder above it that is named like a class, else the folder it lies in; its split is
    the nearest folder with the name of a split, above or below that of the class. Other folders between the class and
    the file are taken for patients, and make groups. Pictures outside of class folders are left out, which is said. A
    `metadata.csv` in `root` with the columns `file_name` (relative to `root`) and `group` says which files show one
    physical cell.

    Raises:
        WbcError: No such folder, no class folders (a set without labels), a class folder without files, or a
            `metadata.csv` that lacks a column or names files that are not there.
    """
    check_folder(root)
    groups = _read_groups(root / METADATA_FILE)
    files = _files_by_folder(root)
    for parts, inside in files.items():
        is_empty = not inside and not any(other[:-1] == parts for other in files if other)
        if is_empty and parts and class_index(parts[-1]) is not None:
            raise WbcError(f"{root.joinpath(*parts)}: this class folder is empty. Put images into it, or remove it.")
    # Beside folders of classes are others, of classes that are not known.
    beside = {parts[: known[0]] for parts in files if (known := _known_classes(parts))}
    images: list[FolderImage] = []
    loose: list[Path] = []
    patients = Counter[str]()
    for parts, inside in files.items():
        place = _class_place(parts, beside, with_picture=any(map(is_picture, inside)))
        if place is None:
            loose += [path for path in inside if not is_document(path.name)]
            continue
        split, test_set = nearest_split([*parts[:place], *parts[place + 1 :]])
        patient = "/".join(part for part in parts[place + 1 :] if not split_name(part)) or None
        if patient:
            patients[patient] += len(inside)
        for path in inside:
            source = path.relative_to(root).as_posix()
            group = groups.get(source) or patient
            images.append(FolderImage(path, source, parts[place], split, group, test_set))
    _check_metadata(root, groups, images)
    if not images:
        found = (
            "pictures without class folders: a set without labels" if any(map(is_picture, loose)) else "no pictures"
        )
        raise WbcError(
            f"{root}: {found}. Put each picture into a sub-folder named after its class, or write the classes into a "
            f"{METADATA_FILE} with the columns file_name and label."
        )
    _report(root, loose, patients)
    return images


def _files_by_folder(root: Path) -> dict[tuple[str, ...], list[Path]]:
    """The files of each folder by its path in parts, in order of path; a folder without files has an empty list."""
    files: dict[tuple[str, ...], list[Path]] = defaultdict(list, {(): []})
    for entry in walk_folder(root):
        path = Path(entry.path)
        if is_folder(entry):
            files[path.relative_to(root).parts] = []
        else:
            files[path.parent.relative_to(root).parts].append(path)
    return dict(sorted(files.items()))


def _known_classes(parts: Sequence[str]) -> list[int]:
    """Places of the folders that are named like a class, the nearest to the file first."""
    return [place for place in reversed(range(len(parts))) if class_index(parts[place]) is not None]


def _class_place(parts: Sequence[str], beside: Collection[Sequence[str]], *, with_picture: bool) -> int | None:
    """Which of the folders on the way to a file is that of its class; None where it has none."""
    if known := _known_classes(parts):
        return known[0]
    if not with_picture:
        return None
    others = [place for place, part in enumerate(parts) if not split_name(part)]
    like_known = [place for place in others if parts[:place] in beside]
    return (like_known or others)[-1] if others else None


def _check_metadata(root: Path, groups: Mapping[str, str], images: Sequence[FolderImage]) -> None:
    unknown = sorted(groups.keys() - {image.source for image in images})
    if unknown:
        raise WbcError(
            f"{root / METADATA_FILE}: {len(unknown)} of its {len(groups)} file names are no files in class folders, "
            f"{unknown[0]} for one. They are written relative to the folder of {METADATA_FILE}, with forward slashes."
        )


def _report(root: Path, loose: Sequence[Path], patients: Mapping[str, int]) -> None:
    if loose:
        logger.warning(
            "%s: left out %d files outside of class folders, %s for one. Move them into class folders to use them.",
            root,
            len(loose),
            loose[0].relative_to(root).as_posix(),
        )
    if patients:
        logger.warning(
            "%s: the %d folders within its class folders, %s for one, are taken for patients: the pictures of one "
            "stay in one split. Where they are none, put the pictures straight into the class folders.",
            root,
            len(patients),
            next(iter(patients)),
        )


def _read_groups(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    table = read_table(path)
    columns = list(table.columns)
    group = find_group_column(columns)
    if "file_name" not in columns or group is None:
        raise WbcError(f"{path}: has the columns {columns}; 'file_name' and 'label' or 'group' are needed.")
    return {name: value for name, value in zip(table["file_name"], table[group], strict=True) if value}
