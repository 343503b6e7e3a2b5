"""Layouts of folders that hold a set: which one a folder has, and its rows. `docs/data.md` has a table of them."""

from typing import TYPE_CHECKING

from wbc_hf.lazy_names import lazy_names

if TYPE_CHECKING:
    from wbc_hf.data.layouts.choose_layout import folder_rows
    from wbc_hf.data.layouts.class_folders import FolderImage, has_class_folders, scan_folder
    from wbc_hf.data.layouts.walking import find_pictures, is_document, is_folder, walk_folder

__getattr__ = lazy_names(__name__)
