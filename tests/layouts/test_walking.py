"""Folders of pictures: what is in them, through links, and what is passed over."""

from pathlib import Path

import pytest

from tests.tiny_sets import write_set
from wbc_hf.data import find_pictures, read_image
from wbc_hf.errors import UnreadableImageError, WbcError


def test_everything_but_documents_and_what_is_hidden(tmp_path: Path):
    write_set(tmp_path, {"b": 1, "__MACOSX/b": 1, ".cache": 1})
    for name in ("a.mp4", "z.svs", "phone.HEIC", "labels.csv", "README", "notes.txt", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).touch()
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert [path.relative_to(tmp_path).as_posix() for path in find_pictures(tmp_path)] == [
        *("a.mp4", "b/000.png", "gone.jpg", "phone.HEIC", "z.svs")
    ]


def test_links_to_folders_are_followed_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_set(tmp_path, {"disk": 2, "smear": 1})
    (tmp_path / "smear" / "more").symlink_to(tmp_path / "disk")
    (tmp_path / "smear" / "again").symlink_to(tmp_path / "smear")
    (tmp_path / "smear" / "self").symlink_to(tmp_path / "smear" / "self")
    found = [path.relative_to(tmp_path).as_posix() for path in find_pictures(tmp_path / "smear")]
    assert found == ["smear/000.png", "smear/more/000.png", "smear/more/001.png", "smear/self"]
    assert caplog.messages == [f"{tmp_path}/smear/again: links to a folder above it, and is left out."]
    with pytest.raises(UnreadableImageError, match="self: "):
        read_image(tmp_path / "smear" / "self")


def test_a_folder_without_pictures(tmp_path: Path):
    (tmp_path / "labels.csv").touch()
    with pytest.raises(WbcError, match=r"no pictures in this folder \("):
        find_pictures(tmp_path)
