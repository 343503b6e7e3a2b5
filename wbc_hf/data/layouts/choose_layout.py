"""Which layout a folder has, and the rows of the set in it."""

from pathlib import Path

from datasets import Dataset, Image

from wbc_hf.data.layouts.boxed_cells import cut_cells, find_boxed_cells
from wbc_hf.data.layouts.class_folders import has_class_folders, scan_folder
from wbc_hf.data.layouts.saved import read_saved
from wbc_hf.data.layouts.tables import read_label_table, read_metadata
from wbc_hf.data.layouts.walking import check_folder
from wbc_hf.data.rows import make_rows

_COLUMNS = ("class_name", "split", "test_set", "group", "source")


def folder_rows(root: Path) -> Dataset:
    """Rows of the set in a folder, or in a Parquet file. Images stay where they are; boxed cells are cut out.

    What `datasets` has saved comes first, then a `metadata.csv` with labels, class folders, boxes, and other tables.

    Raises:
        WbcError: There is no such folder, or no set in it, or it is broken.
    """
    root = root.expanduser()
    if (rows := read_saved(root)) is not None:
        return rows
    check_folder(root)
    if (rows := read_metadata(root)) is not None:
        return rows
    if not has_class_folders(root):
        if cells := find_boxed_cells(root):
            return make_rows(
                {"image": Image().encode_example(picture)} | {name: getattr(cell, name) for name in _COLUMNS}
                for cell, picture in zip(cells, cut_cells(cells), strict=True)
            )
        if (rows := read_label_table(root)) is not None:
            return rows
    return make_rows(
        {"image": {"path": str(file.path), "bytes": None}} | {name: getattr(file, name) for name in _COLUMNS}
        for file in scan_folder(root)
    )
