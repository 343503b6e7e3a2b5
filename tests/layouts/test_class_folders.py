"""Folders: which file has which class, split and group, and what is said of a folder that is no data set."""

import os
from pathlib import Path

import pytest

from tests.tiny_sets import write_set
from wbc_hf.data.layouts.class_folders import scan_folder
from wbc_hf.data.split_names import split_name
from wbc_hf.errors import WbcError


def scanned(root: Path) -> dict[str, tuple[str, str | None, str | None]]:
    return {image.source: (image.class_name, image.split, image.group) for image in scan_folder(root)}


def refused(root: Path) -> str:
    with pytest.raises(WbcError) as caught:
        scan_folder(root)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("TRAIN", "train"),
        ("Training", "train"),
        ("val", "validation"),
        ("valid", "validation"),
        ("dev", "validation"),
        ("Validation", "validation"),
        ("test", "test"),
        ("Testing", "test"),
        ("TEST_SIMPLE", "test"),
        ("Test-A", "test"),
        ("TestB", "test"),
        ("test_external", "test"),
        ("Training set", "train"),
        ("test images", "test"),
        ("train-b", None),
        ("test neutrophil", None),
        ("basophil", None),
        ("trainer", None),
    ],
)
def test_split_names(name: str, split: str | None):
    assert split_name(name) == split


def test_class_folders(tmp_path: Path):
    write_set(tmp_path, {"Basophils": 1, "EOS": 2})
    assert scanned(tmp_path) == {
        "Basophils/000.png": ("Basophils", None, None),
        "EOS/000.png": ("EOS", None, None),
        "EOS/001.png": ("EOS", None, None),
    }
    assert [image.path for image in scan_folder(tmp_path)] == sorted(tmp_path.rglob("*.png"))


def test_split_folders_however_deep(tmp_path: Path):
    write_set(tmp_path, {"images/TRAIN/EOSINOPHIL": 1, "images/TEST/EOSINOPHIL": 1, "images/TEST/more/monocyte": 1})
    assert scanned(tmp_path) == {
        "images/TRAIN/EOSINOPHIL/000.png": ("EOSINOPHIL", "train", None),
        "images/TEST/EOSINOPHIL/000.png": ("EOSINOPHIL", "test", None),
        "images/TEST/more/monocyte/000.png": ("monocyte", "test", None),
    }


def test_a_split_above_the_folder_that_was_given_does_not_count(tmp_path: Path):
    write_set(tmp_path, {"train/monocyte": 1})
    assert scanned(tmp_path / "train") == {"monocyte/000.png": ("monocyte", None, None)}


def test_what_lies_beside_the_pictures(tmp_path: Path):
    write_set(tmp_path, {"monocyte": 1, ".cache/monocyte": 1, "docs": 0})
    (tmp_path / "docs" / "readme.pdf").touch()
    (tmp_path / "overview.png").touch()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / "monocyte" / name).touch()
    # Not a picture by its name, but it stands where pictures are: reading will tell and name it.
    (tmp_path / "monocyte" / "notes.txt").touch()
    assert list(scanned(tmp_path)) == ["monocyte/000.png", "monocyte/notes.txt"]


def test_what_is_left_out_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_set(tmp_path, {"train/monocyte": 1, "train": 1, "slides": 0, "__MACOSX/train/monocyte": 1})
    for name in ("slides/smear.svs", "readme.md"):
        (tmp_path / name).touch()
    assert list(scanned(tmp_path)) == ["train/monocyte/000.png"]
    assert caplog.messages == [
        f"{tmp_path}: left out 2 files outside of class folders, slides/smear.svs for one. Move them into class "
        "folders to use them."
    ]


def test_links_to_folders_and_files(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_set(tmp_path / "disk", {"test/monocyte": 1, "batch": 1, "eosinophil": 1})
    cells = write_set(tmp_path / "cells", {"train/monocyte": 1})
    (cells / "test").symlink_to(tmp_path / "disk" / "test")
    (cells / "train" / "eosinophil").symlink_to(tmp_path / "disk" / "eosinophil")
    (cells / "train" / "monocyte" / "batch").symlink_to(tmp_path / "disk" / "batch")
    (cells / "train" / "monocyte" / "gone.png").symlink_to(tmp_path / "gone.png")
    (cells / "train" / "loop").symlink_to(cells)
    assert scanned(cells) == {
        "test/monocyte/000.png": ("monocyte", "test", None),
        "train/eosinophil/000.png": ("eosinophil", "train", None),
        "train/monocyte/000.png": ("monocyte", "train", None),
        "train/monocyte/gone.png": ("monocyte", "train", None),
        "train/monocyte/batch/000.png": ("monocyte", "train", "batch"),
    }
    assert f"{cells}/train/loop: links to a folder above it, and is left out." in caplog.messages


def test_patients_within_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_set(tmp_path, {"eos/P1": 1, "mono/P1": 1, "mono/P2/left": 1, "mono": 1})
    assert scanned(tmp_path) == {
        "eos/P1/000.png": ("eos", None, "P1"),
        "mono/000.png": ("mono", None, None),
        "mono/P1/000.png": ("mono", None, "P1"),
        "mono/P2/left/000.png": ("mono", None, "P2/left"),
    }
    assert caplog.messages == [
        f"{tmp_path}: the 3 folders within its class folders, P1 for one, are taken for patients: the pictures of one "
        "stay in one split. Where they are none, put the pictures straight into the class folders."
    ]


def test_splits_within_classes(tmp_path: Path):
    write_set(tmp_path, {"eos/train": 1, "eos/Test": 1, "mono/train/P1": 1})
    assert scanned(tmp_path) == {
        "eos/train/000.png": ("eos", "train", None),
        "eos/Test/000.png": ("eos", "test", None),
        "mono/train/P1/000.png": ("mono", "train", "P1"),
    }


def test_an_unknown_class_beside_known_ones_is_named_whatever_lies_within_it(tmp_path: Path):
    write_set(tmp_path, {"train/eos/P1": 1, "train/blast/P1": 1, "test/blast/P2": 1, "test/mono": 1})
    assert {source: name for source, (name, *_) in scanned(tmp_path).items()} == {
        "train/eos/P1/000.png": "eos",
        "train/blast/P1/000.png": "blast",
        "test/blast/P2/000.png": "blast",
        "test/mono/000.png": "mono",
    }


def test_several_test_splits(tmp_path: Path):
    write_set(tmp_path, {"Train/eos": 1, "Test-A/eos": 1, "Test-B/eos": 1, "Test/eos": 1})
    assert {image.source[:-12]: (image.split, image.test_set) for image in scan_folder(tmp_path)} == {
        "Test": ("test", None),
        "Test-A": ("test", "Test-A"),
        "Test-B": ("test", "Test-B"),
        "Train": ("train", None),
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read(tmp_path: Path):
    write_set(tmp_path, {"monocyte": 1, "basophil": 1})
    (tmp_path / "basophil").chmod(0)
    assert refused(tmp_path) == (
        f"{tmp_path}/basophil: this folder cannot be read (Permission denied). Check its permissions, or remove it."
    )
    (tmp_path / "basophil").chmod(0o755)


def test_a_class_of_any_name_is_found_by_its_pictures(tmp_path: Path):
    write_set(tmp_path, {"monocyte": 1, "platelet": 1})
    assert {class_name for class_name, *_ in scanned(tmp_path).values()} == {"monocyte", "platelet"}


def test_groups_from_metadata(tmp_path: Path):
    write_set(tmp_path, {"monocyte": 3})
    # As Excel saves it, with a byte order mark.
    (tmp_path / "metadata.csv").write_text(
        "file_name,group,stain\nmonocyte/000.png,cell 7,MGG\nmonocyte/002.png,,MGG\n", encoding="utf-8-sig"
    )
    assert [group for _, _, group in scanned(tmp_path).values()] == ["cell 7", None, None]


def test_patients_from_metadata(tmp_path: Path):
    write_set(tmp_path, {"monocyte": 1})
    (tmp_path / "metadata.csv").write_text("file_name,Patient_ID\nmonocyte/000.png,P7\n")
    assert [group for _, _, group in scanned(tmp_path).values()] == ["P7"]


def test_metadata_without_groups(tmp_path: Path):
    write_set(tmp_path, {"monocyte": 1})
    (tmp_path / "metadata.csv").write_text("file_name,stain\nmonocyte/000.png,MGG\n")
    assert refused(tmp_path) == (
        f"{tmp_path}/metadata.csv: has the columns ['file_name', 'stain']; 'file_name' and 'label' or 'group' are "
        "needed."
    )


def test_metadata_of_other_files(tmp_path: Path):
    write_set(tmp_path, {"monocyte": 1})
    (tmp_path / "metadata.csv").write_text("file_name,group\nmonocyte/000.png,a\n000.png,a\n001.png,a\n")
    assert refused(tmp_path) == (
        f"{tmp_path}/metadata.csv: 2 of its 3 file names are no files in class folders, 000.png for one. "
        "They are written relative to the folder of metadata.csv, with forward slashes."
    )


def test_no_such_folder(tmp_path: Path):
    assert refused(tmp_path / "cells") == (
        f"{tmp_path}/cells: there is no such folder. A data set is a folder of class sub-folders, 'synthetic', "
        "'kaggle:owner/name', or the id of a Hub data set ('owner/name')."
    )


def test_a_file(tmp_path: Path):
    (tmp_path / "cells.zip").touch()
    expected = (
        f"{tmp_path}/cells.zip: is a file; a folder with one sub-folder per class, or a Parquet file, is expected."
    )
    assert refused(tmp_path / "cells.zip") == expected


@pytest.mark.parametrize("name", ["train", "."])
def test_a_set_without_labels(name: str, tmp_path: Path):
    write_set(tmp_path, {name: 3})
    assert refused(tmp_path) == (
        f"{tmp_path}: pictures without class folders: a set without labels. "
        "Put each picture into a sub-folder named after its class, or write the classes into a metadata.csv with the "
        "columns file_name and label."
    )


def test_a_folder_without_pictures(tmp_path: Path):
    (tmp_path / "docs").mkdir()
    assert refused(tmp_path).startswith(
        f"{tmp_path}: no pictures. Put each picture into a sub-folder named after its "
    )


@pytest.mark.parametrize("left_behind", [None, ".DS_Store", "Thumbs.db"])
def test_an_empty_class(left_behind: str | None, tmp_path: Path):
    write_set(tmp_path, {"monocyte": 1, "basophil": 0})
    if left_behind:
        (tmp_path / "basophil" / left_behind).touch()
    expected = f"{tmp_path}/basophil: this class folder is empty. Put images into it, or remove it."
    assert refused(tmp_path) == expected


def test_a_folder_of_class_folders_may_have_the_name_of_a_class(tmp_path: Path):
    write_set(tmp_path, {"neutrophil/band neutrophil": 1, "neutrophil/segmented neutrophil": 1})
    assert len(scanned(tmp_path)) == 2
