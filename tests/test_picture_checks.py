"""Pictures of a set are opened once; what was found is known again by their content."""

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from wbc_hf.data import picture_checks
from wbc_hf.data.picture_checks import check_pictures
from wbc_hf.data.rows import make_rows
from wbc_hf.errors import UnreadableImageError


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
