"""Pictures of a set are opened once; what was found is known again by their content."""

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from wbc_hf.data import (
    find_near_duplicates,
    group_images,
    load_leucocytes,
    loading,
    paint_cells,
    picture_checks,
    read_image,
)
from wbc_hf.data.picture_checks import check_pictures
from wbc_hf.data.rows import make_rows
from wbc_hf.errors import UnreadableImageError
from wbc_hf.files import sha256_of_file
from wbc_hf.labels import CLASS_NAMES


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WBC_HF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pictures"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pictures that are decoded."""
    names: list[str] = []
    read = picture_checks.read_image

    def note(content: object, name: str) -> Image.Image:
        names.append(name)
        return read(content, name=name)

    monkeypatch.setattr(picture_checks, "read_image", note)
    return names


def rows_of(folder: Path) -> Dataset:
    files = sorted(folder.iterdir())
    return make_rows([{"image": {"path": str(file), "bytes": None}, "source": file.name} for file in files])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / name)
    Image.new("RGB", (16, 16), "#808080").save(folder / "blank.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def test_a_second_load_decodes_nothing_and_finds_the_same(folder: Path, opened: list[str]):
    checked = check_pictures(rows_of(folder))
    first, faults = checked.digests, checked.faults
    assert sorted(opened) == ["a.png", "b.png", "blank.png", "broken.png"]
    assert faults == {"blank.png": "blank"}
    assert isinstance(first[3], UnreadableImageError) and first[3].name == "broken.png"
    assert len({*map(str, first)}) == 4
    opened.clear()
    again = check_pictures(rows_of(folder))
    assert opened == []
    assert list(map(str, again.digests)) == list(map(str, first)) and again.faults == faults


def test_content_counts_and_not_the_name(folder: Path, opened: list[str]):
    check_pictures(rows_of(folder))
    (folder / "a.png").rename(folder / "z.png")
    opened.clear()
    check_pictures(rows_of(folder))
    assert opened == []
    # Other bytes of the same length under a name that is known.
    (folder / "broken.png").write_bytes(b"No picture")
    check_pictures(rows_of(folder))
    assert "broken.png" in opened


def test_a_file_that_is_gone_is_an_error_and_never_kept(folder: Path):
    rows = rows_of(folder)
    content = (folder / "b.png").read_bytes()
    (folder / "b.png").unlink()
    assert isinstance(check_pictures(rows).digests[1], UnreadableImageError)
    (folder / "b.png").write_bytes(content)
    assert isinstance(check_pictures(rows).digests[1], str)


def test_a_broken_cache_is_said_and_made_anew(folder: Path, cache: Path, opened: list[str], caplog):
    check_pictures(rows_of(folder))
    (file,) = cache.iterdir()
    file.write_text("[")
    opened.clear()
    assert check_pictures(rows_of(folder)).faults == {"blank.png": "blank"}
    assert len(opened) == 4 and "is broken, so the images are read again" in caplog.text


def test_a_cache_that_cannot_be_kept_is_said(folder: Path, cache: Path, caplog):
    cache.parent.write_text("a file")
    assert check_pictures(rows_of(folder)).faults == {"blank.png": "blank"}
    assert "cannot be kept" in caplog.text


def test_a_set_is_compared_by_what_was_described_when_its_pictures_were_checked(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
):
    root = tmp_path / "cells"
    labels = np.arange(15) % len(CLASS_NAMES)
    for number, (label, cell) in enumerate(zip(labels, paint_cells(labels, size=96, seed=1), strict=True)):
        folder = root / CLASS_NAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(cell).save(folder / f"{number}.png")
    first = root / CLASS_NAMES[0]
    Image.open(first / "0.png").rotate(90).save(first / "turned.png")
    Image.open(first / "5.png").save(first / "5 again.bmp")
    (first / "0 again.png").write_bytes((first / "0.png").read_bytes())
    monkeypatch.setattr(loading, "read_image", lambda *_: pytest.fail("a picture was decoded once more"))
    leucocytes = load_leucocytes(root)
    assert len(opened) == 17  # of two identical files one
    groups = {row["source"]: row["group"] for split in leucocytes.values() for row in split.remove_columns("image")}
    files = sorted(path for path in root.rglob("*") if path.is_file())
    names = [path.relative_to(root).as_posix() for path in files]
    digests = [sha256_of_file(path) for path in files]
    monkeypatch.setenv("WBC_HF_CACHE", str(tmp_path / "another cache"))
    apart = find_near_duplicates(digests, names, lambda index: read_image(files[index]))
    assert {*leucocytes.near_duplicates} == {*apart} and len(apart) >= 3
    expected = group_images(names, [None] * len(names), apart)
    assert groups == dict(zip(names, expected, strict=True))
    opened.clear()
    monkeypatch.setenv("WBC_HF_CACHE", str(tmp_path / "cache"))
    assert load_leucocytes(root).near_duplicates == leucocytes.near_duplicates
    assert not opened
