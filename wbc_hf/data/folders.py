"""Find images in a folder of class sub-folders, with or without split folders above them."""

import csv
from dataclasses import dataclass
from pathlib import Path

from wbc_hf.data.reading import SUFFIXES
from wbc_hf.errors import WbcError
from wbc_hf.labels import class_index, normalise_name

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    # Kaggle's paultimothymooney/blood-cells keeps the originals of its augmented TEST images beside them.
    "test simple": "test",
}
METADATA_FILE = "metadata.csv"
# Files of operating systems.
_NOT_DATA = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class FolderImage:
    """One file in a class folder, not opened yet.

    Attributes:
        path: The file.
        source: Its path relative to the folder that was given.
        class_name: Name of the class folder as it is.
        split: "train", "validation" or "test", or None where there is no split folder above the file.
        group: Group in `metadata.csv`, or None.
    """

    path: Path
    source: str
    class_name: str
    split: str | None
    group: str | None


def split_name(name: str) -> str | None:
    """The split of a folder name ("TRAIN", "val", "Testing"), or None."""
    return SPLIT_NAMES.get(normalise_name(name))


def scan_folder(root: Path) -> list[FolderImage]:
    """List the files of every class folder below `root`, in a fixed order.

    A file's class is the name of its folder; its split is the nearest folder above with the name of a split. Files
    directly in `root` or in a split folder are ignored. A `metadata.csv` in `root` with the columns
    `file_name` (relative to `root`) and `group` says which files show one physical cell.

    Raises:
        WbcError: No such folder, no class folders (a set without labels), a class folder without files, or a
            `metadata.csv` that lacks a column or names files that are not there.
    """
    if not root.exists():
        raise WbcError(
            f"{root}: there is no such folder. A data set is a folder of class sub-folders, 'synthetic', "
            "'kaggle:owner/name', or the id of a Hub data set ('owner/name')."
        )
    if not root.is_dir():
        raise WbcError(f"{root}: is a file; a folder with one sub-folder per class is expected.")
    groups = _read_groups(root / METADATA_FILE)
    images, unlabelled = [], 0
    for folder in sorted([root, *(path for path in root.rglob("*") if path.is_dir())]):
        parts = folder.relative_to(root).parts
        if any(part.startswith(".") for part in parts):
            continue
        files = [path for path in sorted(folder.iterdir()) if path.is_file() and _is_data(path)]
        with_picture = any(path.suffix.lower() in SUFFIXES for path in files)
        if not parts or split_name(parts[-1]):
            unlabelled += with_picture
            continue
        if class_index(parts[-1]) is None and not with_picture:
            continue
        if not files and not any(path.is_dir() for path in folder.iterdir()):
            raise WbcError(f"{folder}: this class folder is empty. Put images into it, or remove it.")
        split = next((name for part in reversed(parts[:-1]) if (name := split_name(part))), None)
        for path in files:
            source = path.relative_to(root).as_posix()
            images.append(FolderImage(path, source, parts[-1], split, groups.get(source)))
    unknown = sorted(groups.keys() - {image.source for image in images})
    if unknown:
        raise WbcError(
            f"{root / METADATA_FILE}: {len(unknown)} of its {len(groups)} file names are no files in class folders, "
            f"{unknown[0]} for one. They are written relative to the folder of {METADATA_FILE}, with forward slashes."
        )
    if not images:
        found = "pictures without class folders: a set without labels" if unlabelled else "no pictures"
        raise WbcError(f"{root}: {found}. Put each picture into a sub-folder named after its class.")
    return images


def find_pictures(folder: Path) -> list[Path]:
    """List all pictures below a folder, in order of name, without hidden ones.

    Raises:
        WbcError: There is none.
    """
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    ]
    if not found:
        raise WbcError(f"{folder}: no pictures in this folder ({', '.join(sorted(SUFFIXES))}).")
    return found


def _is_data(path: Path) -> bool:
    return not path.name.startswith(".") and path.name.lower() not in _NOT_DATA


def _read_groups(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"file_name", "group"} <= set(reader.fieldnames or ()):
            raise WbcError(f"{path}: has the columns {reader.fieldnames}; 'file_name' and 'group' are needed.")
        return {row["file_name"]: row["group"] for row in reader if row["group"]}
