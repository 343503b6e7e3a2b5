"""Near-duplicates: every kind is found, distinct cells stay apart, and a second search is served from the cache."""

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from wbc_hf.data import describe, paint_cells
from wbc_hf.data.near_duplicates import (
    Link,
    NearDuplicate,
    find_near_duplicates,
    group_images,
    group_slides,
    link_images,
)

Change = Callable[[Image.Image], Image.Image]


@pytest.fixture(scope="module")
def cells() -> list[Image.Image]:
    return [Image.fromarray(cell) for cell in paint_cells(np.arange(10) % 5, size=192, seed=3)]


def compare(images: list[Image.Image]) -> list[Link]:
    return link_images(len(images), lambda index: describe(images[index]))


def rotated(angle: float, border: int, value: int = 0) -> Change:
    def change(image: Image.Image) -> Image.Image:
        matrix = cv2.getRotationMatrix2D((image.width / 2, image.height / 2), angle, 1)
        pixels = cv2.warpAffine(
            np.asarray(image), matrix, image.size, borderMode=border, borderValue=(value, value, value)
        )
        return Image.fromarray(pixels)

    return change


def compressed(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=20)
    return Image.open(stream).convert("RGB")


CHANGES: dict[str, Change] = {
    "mirrored": ImageOps.mirror,
    "negative": ImageOps.invert,
    "mirrored negative": lambda image: ImageOps.mirror(ImageOps.invert(image)),
    "red for blue": lambda image: Image.fromarray(np.asarray(image)[:, :, ::-1].copy()),
    "stretched": lambda image: image.resize((image.width * 5 // 4, image.height)),
    "half": lambda image: image.resize((image.width // 2, image.height // 2)),
    "JPEG 20": compressed,
    "on white": rotated(17, cv2.BORDER_CONSTANT, 255),
    "on grey": rotated(133, cv2.BORDER_CONSTANT, 128),
    "on black": rotated(45, cv2.BORDER_CONSTANT),
    "on a mirror": rotated(71, cv2.BORDER_REFLECT_101),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_near_duplicate_is_found_and_nothing_else(name: str, cells: list[Image.Image]):
    found = compare([*cells, *map(CHANGES[name], cells)])
    assert {(first, second) for first, second, *_ in found} == {(index, index + 10) for index in range(10)}
    assert {mirrored for *_, mirrored in found} == {"mirrored" in name}


def test_distinct_cells_stay_apart():
    painted = [Image.fromarray(cell) for cell in paint_cells(np.arange(60) % 5, size=128, seed=8)]
    assert compare(painted) == []


def test_images_without_key_points(cells: list[Image.Image]):
    plain = Image.new("RGB", (64, 64), "white")
    dotted = plain.copy()
    dotted.putpixel((3, 3), (0, 0, 0))
    tiny = Image.new("RGB", (16, 16), "black")
    assert compare([]) == compare([plain]) == compare([plain, dotted, tiny]) == compare([cells[0]]) == []


def test_one_different_pixel(cells: list[Image.Image]):
    changed = cells[0].copy()
    changed.putpixel((5, 5), (0, 0, 0))
    assert [link[:2] for link in compare([cells[0], changed])] == [(0, 1)]


def test_a_second_search_reads_nothing(cells: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WBC_HF_CACHE", str(tmp_path))
    images = {"a": cells[0], "b": cells[1], "c": ImageOps.mirror(cells[0])}
    sources = ["x", "y", "z"]
    first = find_near_duplicates(list(images), sources, lambda i: list(images.values())[i])
    assert [(pair.first, pair.second, pair.mirrored) for pair in first] == [("x", "z", True)]
    # The same content under other names and in another order: nothing is read.
    again = find_near_duplicates(["c", "a", "b", "b"], ["1", "2", "3", "4"], pytest.fail)
    assert [(pair.first, pair.second, pair.matches is None) for pair in again] == [("3", "4", True), ("1", "2", False)]
    (file,) = (tmp_path / "near_duplicates").iterdir()
    whole = file.read_text()
    file.write_text(whole[:5])
    assert find_near_duplicates(list(images), sources, lambda i: list(images.values())[i]) == first
    assert file.read_text() == whole


def test_groups_share_a_given_group_a_photograph_or_a_cell():
    sources = ["a.png", "b.png", "BloodImage_00001_0.jpg", "c.png", "BloodImage_00001_1.jpg", "d.png"]
    pairs = [NearDuplicate("c.png", "d.png", 12, False), NearDuplicate("d.png", "b.png", None, False)]
    groups = group_images(sources, ["cell", None, None, None, None, "cell"], pairs)
    photograph = "BloodImage_00001_0.jpg"
    assert groups == ["a.png", "a.png", photograph, "a.png", photograph, "a.png"]
    assert group_images([], [], []) == []


def test_groups_of_one_slide_are_joined():
    sources = ["20190526_1_0.jpg", "Raabin/20190526_2_0.jpg", "mine.png", "95-8-10-1_3_0.jpg", "other.png"]
    assert group_slides(sources, ["a", "b", "b", "c", "d"]) == ["a", "a", "a", "c", "d"]


def test_a_cache_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("WBC_HF_CACHE", str(tmp_path / "file" / "cache"))
    noise = np.random.default_rng(7).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert find_near_duplicates(["0" * 64], ["a.png"], lambda _: Image.fromarray(noise)) == []
    (message,) = caplog.messages
    assert "cannot be kept (Not a directory), so these images are compared anew each time." in message
