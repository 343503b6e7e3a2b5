"""The monolayer of painted slides is found, whatever the stain, and nothing else is taken for it."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SlideFile
from tests.painted_slides import PaintedSlide
from tests.slide_files import paint, write_tiff
from wbc_hf.errors import UnreadableImageError
from wbc_hf.smear import Monolayer, find_monolayer, open_slide

FIELD = (480, 360)


@pytest.fixture(scope="module")
def monolayer(slide_file: SlideFile) -> Monolayer:
    return find_monolayer(open_slide(slide_file.path), field_size=FIELD)


def lies_in(painted: PaintedSlide, monolayer: Monolayer) -> list[bool]:
    """Whether each chosen field lies in the painted monolayer, by more than half of it."""
    return [painted.monolayer_share(field.core) > 0.5 for field in monolayer.fields]


def test_chosen_fields_lie_in_the_monolayer(slide_file: SlideFile, monolayer: Monolayer):
    assert len(monolayer.fields) >= 8
    assert np.mean(lies_in(slide_file.painted, monolayer)) >= 0.95
    assert (monolayer.pixel_size, monolayer.measured, monolayer.unreadable) == (0.25, False, ())
    assert max(monolayer.thumbnail.size) == 1000


def test_fields_come_in_reading_order_and_share_no_place(monolayer: Monolayer):
    cores = [field.core for field in monolayer.fields]
    assert [field.number for field in monolayer.fields] == list(range(1, len(cores) + 1))
    assert [(y, x) for x, y, *_ in cores] == sorted((y, x) for x, y, *_ in cores)
    for index, (x0, y0, x1, y1) in enumerate(cores):
        for other in cores[index + 1 :]:
            assert other[0] >= x1 or other[2] <= x0 or other[1] >= y1 or other[3] <= y0
    field = monolayer.fields[0]
    assert field.size[0] <= FIELD[0] and field.size[1] <= FIELD[1]
    assert field.read().size == field.size
    # Around its core a field shows half the width of the largest leucocytes, of which the neighbour shows the rest.
    assert field.core[0] - field.frame[0] == pytest.approx(12.5 / 0.25)


def test_a_cell_belongs_to_one_field_and_near_a_seam_to_both(monolayer: Monolayer):
    """Within 2 µm, 8 pixels, of a seam the finder may say otherwise in the field beside."""
    pairs = [
        (field, other)
        for field in monolayer.fields
        for other in monolayer.fields
        if other.core[0] == field.core[2] and other.core[1] == field.core[1]
    ]
    assert pairs
    for pair in pairs:
        seam, y = pair[0].core[2], pair[0].core[1] + 100
        for off, owners in ((-20, 1), (-9, 1), (-7, 2), (0, 2), (7, 2), (9, 1), (20, 1)):
            places = [(seam + off - field.frame[0], y - field.frame[1]) for field in pair]
            boxes = [(x - 20, top - 20, x + 20, top + 20) for x, top in places]
            assert sum(field.owns(box) for field, box in zip(pair, boxes, strict=True)) == owners


def test_the_size_of_a_pixel_is_measured_where_the_file_does_not_say_it(slide_file: SlideFile, tmp_path: Path):
    found = find_monolayer(open_slide(write_tiff(tmp_path / "a.tif", slide_file.pixels, pixel_size=None)))
    assert found.measured
    assert found.pixel_size == pytest.approx(0.25, rel=0.15)
    assert np.mean(lies_in(slide_file.painted, found)) >= 0.9


def test_without_a_pyramid_the_same_fields_are_found(slide_file: SlideFile, monolayer: Monolayer, tmp_path: Path):
    slide = open_slide(write_tiff(tmp_path / "a.tif", slide_file.pixels, levels=(1,)))
    assert not slide.has_pyramid
    found = {field.core for field in find_monolayer(slide, field_size=FIELD).fields}
    known = {field.core for field in monolayer.fields}
    assert len(found & known) >= 0.9 * len(known)


@pytest.mark.parametrize("shade", [235, None])
def test_what_shows_no_monolayer_is_named(shade: int | None, slide_file: SlideFile, tmp_path: Path):
    """An empty slide, and the thick part of one."""
    if shade is None:
        x, y = np.meshgrid(np.arange(4096), np.arange(2560)[:1])
        thick = slide_file.painted.thickness(x, y + 1280)[0]
        inside = np.flatnonzero((thick > 0.02) & (thick < 0.34))
        part = np.tile(slide_file.pixels[300:2300, inside.min() : inside.max()], (1, 2, 1))
    else:
        part = np.full((2000, 2200, 3), shade, np.uint8)
    slide = open_slide(write_tiff(tmp_path / "label.tif", np.ascontiguousarray(part)))
    with pytest.raises(UnreadableImageError, match=r"label.tif: shows no part where red cells lie side by side"):
        find_monolayer(slide)


def test_progress_is_told_and_turns_are_held(slide_file: SlideFile):
    told: list[tuple[int, int]] = []
    pixels: list[int] = []

    class Turn:
        def __init__(self, count: int):
            pixels.append(count)

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    find_monolayer(
        open_slide(slide_file.path),
        field_size=FIELD,
        progress=lambda done, total: told.append((done, total)),
        turn=Turn,
    )
    assert told[0][0] == 0 and told[-1][0] == told[-1][1] == len(told) - 1
    assert len(pixels) > told[-1][1] and min(pixels) > 0


@pytest.mark.long
def test_on_ten_slides_95_of_100_chosen_fields_lie_in_the_monolayer(tmp_path: Path):
    """Ten stains, four directions, other artefacts each time."""
    right: list[bool] = []
    for seed in range(10, 20):
        painted = PaintedSlide(4096, 3072, seed)
        path = write_tiff(tmp_path / "slide.tif", paint(painted))
        found = find_monolayer(open_slide(path), field_size=FIELD)
        assert len(found.fields) >= 5
        right += lies_in(painted, found)
    assert np.mean(right) >= 0.95
