"""Which layout a folder has, and the rows of the set in it."""

from pathlib import Path

from datasets import Dataset, Image

from wbc_hf.data.layouts.boxed_cells import cut_cells, find_boxed_cells
from wbc_hf.data.layouts.class_folders import FolderImage, has_class_folders, scan_folder
from wbc_hf.data.layouts.saved import read_saved
from wbc_hf.data.layouts.tables import read_label_table, read_metadata
from wbc_hf.data.layouts.walking import check_folder
from wbc_hf.data.rows import TEXT_FEATURES, make_rows


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
    images = read_metadata(root)
    if images is None and not has_class_folders(root):
        if cells := find_boxed_cells(root):
            pictures = map(Image().encode_example, cut_cells(cells))
            return make_rows(map(_row, pictures, cells))
        images = read_label_table(root)
    if images is None:
        images = scan_folder(root)
    return make_rows(_row({"path": str(image.path), "bytes": None}, image) for image in images)


def _row(picture: object, image: FolderImage) -> dict[str, object]:
    return {"image": picture, **{name: getattr(image, name) for name in TEXT_FEATURES}}
