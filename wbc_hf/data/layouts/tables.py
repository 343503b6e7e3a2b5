"""Tables of labels: a `metadata.csv` as of `datasets`' imagefolder, or any table that names pictures and classes."""

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pandas as pd
from datasets import Image, load_dataset
from datasets.exceptions import DatasetsError

from wbc_hf.data.hub_sets import LABEL_COLUMNS, find_columns, find_group_column, group_name
from wbc_hf.data.layouts.class_folders import FolderImage
from wbc_hf.data.layouts.table_files import read_table
from wbc_hf.data.layouts.walking import is_document, is_picture, list_files
from wbc_hf.data.reading import image_content
from wbc_hf.data.split_names import nearest_split, split_name
from wbc_hf.errors import WbcError
from wbc_hf.hub import check_cache_is_writable
from wbc_hf.labels import class_index

logger = logging.getLogger(__name__)

# As datasets' imagefolder calls them.
_METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_SEPARATED = frozenset({".csv", ".tsv"})
_SPLIT_COLUMNS = ("split", "set", "subset")
# Of the names in a column of files so many have to be those of pictures, and of classes so many in one of labels.
_MOST = 0.5
# Of a column per class, as programs write numbers and truth.
_YES, _NO = frozenset({"1", "1.0", "true"}), frozenset({"0", "0.0", "false", ""})


def read_metadata(root: Path) -> list[FolderImage] | None:
    """The pictures that `metadata.csv`, `.jsonl` or `.parquet` files label; None where none has labels.

    `file_name` is relative to the file, and leads to nothing outside of its folder. The group is in one of
    `GROUP_COLUMNS`, the split in a column `split` or the name of a folder.

    Raises:
        WbcError: A file cannot be read, lacks `file_name`, or its columns differ from those of another.
    """
    files = [path for path in list_files(root) if path.name in _METADATA_NAMES]
    if not files:
        return None
    is_csv = [path.suffix == ".csv" for path in files]
    if all(is_csv):
        labelled = [each for path in files for each in _read_metadata_csv(path)]
        return _images(root, labelled, files[0].name) if labelled else None
    return _read_with_imagefolder(root, files)


def _read_metadata_csv(path: Path) -> list["_Labelled"]:
    """What a `metadata.csv` says of pictures; [] where it has no labels."""
    table = read_table(path)
    if "file_name" not in table.columns:
        found = f"the columns {', '.join(table.columns)}" if len(table.columns) else "no columns"
        raise WbcError(
            f"{path}: has {found}. Needed are file_name, relative to its folder, and label or group. A table with "
            "columns of other names is read as labels.csv."
        )
    label = next((name for name in LABEL_COLUMNS if name in table.columns), None)
    if label is None:
        return []
    group = find_group_column(table.columns)
    split = next((name for name in _SPLIT_COLUMNS if name in table.columns), None)
    return [
        _Labelled(
            _inside(path, row["file_name"]),
            row[label] or None,
            (row[group] or None) if group else None,
            (row[split] or None) if split else None,
        )
        for row in table.to_dict("records")
    ]


def _inside(table: Path, name: str) -> Path:
    """The file of a name in a table. Raises WbcError where it would lie outside of the folder: sets are strangers'."""
    relative = os.path.normpath(name.replace("\\", "/"))
    if os.path.isabs(relative) or relative.split("/")[0] in ("", ".", "..") or ":" in relative.split("/")[0]:
        raise WbcError(
            f"{table}: names {name[:100]!r}, which is no file of its folder. Write file names relative to "
            f"{table.parent}, without '..'."
        )
    return table.parent / relative


def _read_with_imagefolder(root: Path, files: Sequence[Path]) -> list[FolderImage] | None:
    """What `datasets`' imagefolder reads of `metadata.jsonl` and `.parquet` files; None where they have no labels."""
    try:
        table = load_dataset("imagefolder", data_files=[str(path.absolute()) for path in files], split="train")
        table = table.cast_column("image", Image(decode=False))
    except (DatasetsError, ValueError, KeyError, OSError) as error:
        check_cache_is_writable(str(root), error)
        # The reason is in what the builder's own error came from.
        reason = " ".join(str(error.__cause__ or error).split())
        raise WbcError(
            f"{files[0]}: cannot be read as metadata of pictures ({reason}). Needed are the columns file_name, "
            "relative to its folder, and label."
        ) from error
    if not set(LABEL_COLUMNS) & set(table.features):
        return None
    columns = find_columns(str(files[0]), table.features)
    groups = table[columns.group] if columns.group else [None] * len(table)
    absolute = root.absolute()
    paths = [root / Path(str(image_content(image))).relative_to(absolute) for image in table[columns.image]]
    given = next((table[name] for name in _SPLIT_COLUMNS if name in table.features), [None] * len(table))
    labelled = [
        _Labelled(path, columns.class_name(value), group_name(group), split)
        for path, value, group, split in zip(paths, table[columns.label], groups, given, strict=True)
    ]
    return _images(root, labelled, files[0].name)


def read_label_table(root: Path) -> list[FolderImage] | None:
    """The pictures that tables in `root` name and label; None where there is no such table.

    Which column names pictures (by path, name, or name without ending) and which classes is told by what stands in
    them, and is said. Two tables called after splits hold these.

    Raises:
        WbcError: A table cannot be read.
    """
    tables = [path for path in list_files(root) if path.parent == root and path.suffix.lower() in _SEPARATED]
    if not tables:
        return None
    pictures = _Pictures(root)
    found = {path.name: labelled for path in tables if (labelled := _read_table(path, pictures))}
    return _images(root, list(chain(*found.values())), ", ".join(found)) if found else None


@dataclass(frozen=True)
class _Labelled:
    """A picture and what a table says of it; the class is None where it says none."""

    path: Path
    class_name: str | None
    group: str | None
    split: str | None


class _Pictures:
    """The pictures below a folder, by path, by name, and by name without ending."""

    def __init__(self, root: Path):
        self.root = root
        self._by_name: dict[str, set[Path]] = defaultdict(set)
        for path in list_files(root):
            if is_picture(path):
                for name in (path.relative_to(root).as_posix(), path.name, path.stem):
                    self._by_name[name].add(path)

    def find(self, name: str) -> Path | None:
        """The picture of this name; None where there is none, or several."""
        found = self._by_name.get(name.strip().replace("\\", "/").removeprefix("./"), set())
        return next(iter(found)) if len(found) == 1 else None


def _read_table(path: Path, pictures: _Pictures) -> list[_Labelled]:
    table = read_table(path)
    files = _best_column(table, table.columns, lambda value: pictures.find(value) is not None)
    others = [name for name in table.columns if name != files]
    others.sort(key=lambda name: name.lower() not in LABEL_COLUMNS)
    classes = _best_column(table, others, lambda value: class_index(value) is not None)
    if files is None:
        return []
    if classes is not None:
        logger.warning("%s: takes the pictures from its column %r and the classes from %r.", path, files, classes)
        class_names = [value or None for value in table[classes]]
    elif columns := _columns_of_classes(path, table[others]):
        logger.warning(
            "%s: takes the pictures from its column %r and the classes from its columns %s, which hold 1 for the "
            "class of a picture.",
            path,
            files,
            ", ".join(columns),
        )
        class_names = _marked_classes(path, table, files, columns)
    else:
        return []
    group = find_group_column(others)
    split = next((name for name in others if name.lower() in _SPLIT_COLUMNS), None)
    return [
        _Labelled(
            pictures.find(row[files]) or pictures.root / row[files].replace("\\", "/").lstrip("/"),
            class_name,
            row[group] or None if group else None,
            row[split] if split else path.stem if split_name(path.stem) else None,
        )
        for row, class_name in zip(table.to_dict("records"), class_names, strict=True)
    ]


def _columns_of_classes(path: Path, table: pd.DataFrame) -> list[str]:
    """The columns of a table with one for each class ("one-hot"); [] where fewer than two are named like classes.

    All columns of 0 and 1 are among them: a set may have classes that are not known here.
    """
    named = [name for name in table.columns if class_index(name) is not None]
    if len(named) < 2:
        return []
    marks = [name for name in table.columns if set(table[name].str.lower()) <= _YES | _NO]
    if odd := [name for name in named if name not in marks]:
        value = next(value for value in table[odd[0]] if value.lower() not in _YES | _NO)
        raise WbcError(
            f"{path}: its column {odd[0]!r} is named like a class and holds {value[:100]!r}. Write 1 for the class of "
            "a picture and 0 for the others, or one column 'label' with the names of the classes."
        )
    return marks


def _marked_classes(path: Path, table: pd.DataFrame, files: str, columns: list[str]) -> list[str | None]:
    """The class of each row by the column that holds its 1; None of a row without one."""
    marked = table[columns].apply(lambda column: column.str.lower()).isin(_YES)
    several = marked.sum(axis=1) > 1
    if several.any():
        row = several.idxmax()
        raise WbcError(
            f"{path}: {several.sum()} of its rows have a 1 in several columns, that of {table.at[row, files]} in "
            f"{' and '.join(name for name in columns if marked.at[row, name])}. A picture has one class: correct the "
            "rows, or remove the columns that are no classes."
        )
    return [
        name if any_mark else None for name, any_mark in zip(marked.idxmax(axis=1), marked.any(axis=1), strict=True)
    ]


def _best_column(table: pd.DataFrame, names: Iterable[str], fits: Callable[[str], bool]) -> str | None:
    """The column of which most values fit, the first of several alike; None where that is not even half of one."""
    best, most = None, _MOST
    for name in names:
        values = [value for value in table[name] if value]
        share = sum(map(fits, values)) / len(values) if values else 0
        if share > most or (best is None and share == most):
            best, most = name, share
    return best


def _images(root: Path, labelled: Sequence[_Labelled], table: str) -> list[FolderImage]:
    """What a table labels; says how many pictures have no label there."""
    images = []
    for each in labelled:
        if each.class_name is not None:
            parts = each.path.relative_to(root).parts
            split, test_set = nearest_split([*parts[:-1], *([each.split] if each.split else [])])
            images.append(FolderImage(each.path, "/".join(parts), each.class_name, split, each.group, test_set))
    known = Counter(image.path for image in images)
    if len(known) < len(images):
        path, times = known.most_common(1)[0]
        raise WbcError(f"{root}: {table} names {path.name} {times} times. One row a picture is needed.")
    left_out = [path for path in list_files(root) if not is_document(path.name) and path not in known]
    left_out = [path for path in left_out if path.name not in _METADATA_NAMES]
    if left_out:
        logger.warning(
            "%s: left out %d files without a label in %s, %s for one.",
            root,
            len(left_out),
            table,
            left_out[0].relative_to(root).as_posix(),
        )
    return images
