"""Tables of labels: a `metadata.csv` as of `datasets`' imagefolder, or any table that names pictures and classes."""

import csv
import io
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from datasets import Dataset, Image, load_dataset
from datasets.exceptions import DatasetsError

from wbc_hf.data.hub_sets import LABEL_COLUMNS, find_columns, find_group_column, group_name
from wbc_hf.data.layouts.walking import is_document, is_folder, is_picture, walk_folder
from wbc_hf.data.reading import image_content
from wbc_hf.data.rows import make_rows
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
_SNIFFED = 10_000  # characters that tell the separator


def read_metadata(root: Path) -> Dataset | None:
    """Rows of the pictures that `metadata.csv`, `.jsonl` or `.parquet` files label; None where none has labels.

    They are read by `datasets`' imagefolder: `file_name` is relative to the file. The group is in one of
    `GROUP_COLUMNS`, the split in a column `split` or the name of a folder.

    Raises:
        WbcError: A file cannot be read, or its columns differ from those of another.
    """
    files = [path for path in _files(root) if path.name in _METADATA_NAMES]
    if not files:
        return None
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
    return _rows(root, labelled, files[0].name)


def read_label_table(root: Path) -> Dataset | None:
    """Rows of the pictures that tables in `root` name and label; None where there is no such table.

    Which column names pictures (by path, name, or name without ending) and which classes is told by what stands in
    them, and is said. Two tables called after splits hold these.

    Raises:
        WbcError: A table cannot be read.
    """
    tables = [path for path in _files(root) if path.parent == root and path.suffix.lower() in _SEPARATED]
    pictures = _Pictures(root) if tables else None
    labelled: list[_Labelled] = []
    names: list[str] = []
    for path in tables:
        assert pictures is not None
        if found := _read_table(path, pictures):
            labelled += found
            names.append(path.name)
    return _rows(root, labelled, ", ".join(names)) if labelled else None


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
        for path in _files(root):
            if is_picture(path):
                for name in (path.relative_to(root).as_posix(), path.name, path.stem):
                    self._by_name[name].add(path)

    def find(self, name: str) -> Path | None:
        """The picture of this name; None where there is none, or several."""
        found = self._by_name.get(name.strip().replace("\\", "/").removeprefix("./"), set())
        return next(iter(found)) if len(found) == 1 else None


def _read_table(path: Path, pictures: _Pictures) -> list[_Labelled]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        separator = csv.Sniffer().sniff(text[:_SNIFFED], delimiters=",;\t|").delimiter
        # Every value as it is written.
        table = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False).fillna("")
    except csv.Error:
        return []  # of one column, or none
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise WbcError(f"{path}: cannot be read as a table ({reason}). Save it as CSV in UTF-8.") from error
    files = _best_column(table, table.columns, lambda value: pictures.find(value) is not None)
    others = [name for name in table.columns if name != files]
    others.sort(key=lambda name: str(name).lower() not in LABEL_COLUMNS)
    classes = _best_column(table, others, lambda value: class_index(value) is not None)
    if files is None or classes is None:
        return []
    logger.warning("%s: takes the pictures from its column %r and the classes from %r.", path, files, classes)
    group = find_group_column(others)
    split = next((name for name in others if str(name).lower() in _SPLIT_COLUMNS), None)
    return [
        _Labelled(
            pictures.find(row[files]) or pictures.root / row[files].replace("\\", "/").lstrip("/"),
            row[classes] or None,
            row[group] or None if group else None,
            row[split] if split else path.stem if split_name(path.stem) else None,
        )
        for row in table.to_dict("records")
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


def _rows(root: Path, labelled: Sequence[_Labelled], table: str) -> Dataset:
    """Rows of what a table labels; says how many pictures have no label there."""
    used = [each for each in labelled if each.class_name is not None]
    known = {each.path for each in used}
    if len(known) < len(used):
        path, times = Counter(each.path for each in used).most_common(1)[0]
        raise WbcError(f"{root}: {table} names {path.name} {times} times. One row a picture is needed.")
    left_out = [path for path in _files(root) if not is_document(path.name) and path not in known]
    left_out = [path for path in left_out if path.name not in _METADATA_NAMES]
    if left_out:
        logger.warning(
            "%s: left out %d files without a label in %s, %s for one.",
            root,
            len(left_out),
            table,
            left_out[0].relative_to(root).as_posix(),
        )
    rows = []
    for each in used:
        parts = each.path.relative_to(root).parts
        split, test_set = nearest_split([*parts[:-1], *([each.split] if each.split else [])])
        rows.append(
            {
                "image": {"path": str(each.path), "bytes": None},
                "class_name": each.class_name,
                "split": split,
                "test_set": test_set,
                "group": each.group,
                "source": "/".join(parts),
            }
        )
    return make_rows(rows)


def _files(root: Path) -> list[Path]:
    return [Path(entry.path) for entry in walk_folder(root) if not is_folder(entry)]
