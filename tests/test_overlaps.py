"""Overlaps: windows of one painted field lie where they were cut, other fields stay apart, cells meet one to one."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from wbc_hf.data import describe, match, paint_field
from wbc_hf.smear import overlaps
from wbc_hf.smear.overlaps import FieldIndex, Overlap, describe_field, match_cells

SIZE = (640, 480)
SAME_PLACE = Overlap(0, np.eye(2, 3), 99)


def painted(seed: int, width: int = 640, height: int = 480) -> Image.Image:
    return Image.fromarray(paint_field(np.arange(3) % 5, width, height, seed).image)


@pytest.fixture(scope="module")
def smear() -> Image.Image:
    """Larger than one field of it."""
    return painted(4, 1000, 720)


@pytest.fixture(scope="module")
def field(smear: Image.Image) -> Image.Image:
    return smear.crop((0, 0, *SIZE))


def photographed_again(image: Image.Image) -> Image.Image:
    """A little brighter, and as a JPEG."""
    stream = io.BytesIO()
    ImageEnhance.Brightness(image).enhance(1.08).save(stream, "JPEG", quality=60)
    return Image.open(stream).convert("RGB")


def found(*fields: Image.Image) -> list[Overlap]:
    """What the last field overlaps."""
    index = FieldIndex()
    return [index.add(describe_field(field)) for field in fields][-1]


def moved(overlap: Overlap, point: tuple[float, float]) -> np.ndarray:
    return overlap.affine @ [*point, 1]


@pytest.mark.parametrize("shift", [(0, 0), (250, 30), (60, 230), (320, 240)])
def test_a_shifted_field_lies_where_it_was_cut(smear: Image.Image, field: Image.Image, shift: tuple[int, int]):
    new = photographed_again(smear.crop((*shift, shift[0] + SIZE[0], shift[1] + SIZE[1])))
    (overlap,) = found(field, new)
    # In the middle of what both show.
    point = (SIZE[0] - shift[0]) / 2, (SIZE[1] - shift[1]) / 2
    assert moved(overlap, point) == pytest.approx(np.add(point, shift), abs=2)


def test_a_turned_field_of_another_size(smear: Image.Image, field: Image.Image):
    turned = smear.rotate(4, Image.Resampling.BICUBIC, center=(500, 360)).crop((200, 140, 800, 600))
    (overlap,) = found(field, photographed_again(turned))
    assert moved(overlap, (300, 220)) == pytest.approx((500, 360), abs=3)


def test_other_fields_do_not_overlap():
    index = FieldIndex()
    assert [index.add(describe_field(painted(seed))) for seed in range(4)] == [[]] * 4


def test_mirror_images_and_other_scales_are_other_fields(field: Image.Image):
    assert found(field, field.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == []
    assert found(field, field.crop((100, 80, 500, 380)).resize(SIZE)) == []


def test_what_stands_in_every_photograph_is_no_overlap():
    """Text has key points enough, in the same place of both."""
    fields = [painted(seed) for seed in (6, 7)]
    for field in fields:
        draw = ImageDraw.Draw(field)
        draw.rectangle((0, 0, 640, 90), fill="white")
        draw.text((10, 10), "Haematology, Dr. A. Smith", fill="black", font_size=30)
        draw.text((10, 46), "2026-03-14 10:25:31", fill="black", font_size=30)
    assert match(*(describe(field, 384, 300) for field in fields)) is not None
    assert found(*fields) == []


def test_the_same_pixels_overlap_without_key_points():
    empty = Image.new("RGB", SIZE, (230, 220, 215))
    ImageDraw.Draw(empty).ellipse((300, 200, 390, 290), fill=(120, 60, 150))
    (overlap,) = found(empty, empty.copy())
    assert overlap.earlier == 0
    assert (overlap.affine == np.eye(2, 3)).all()
    assert found(empty, empty.resize((480, 640))) == []


def test_every_earlier_field_is_named(smear: Image.Image, field: Image.Image):
    overlaps = found(field, painted(9), smear.crop((150, 100, 790, 580)), photographed_again(field))
    assert [overlap.earlier for overlap in overlaps] == [0, 2]


def test_a_field_is_left_as_it_is(field: Image.Image):
    before = field.copy()
    found(field, field)
    assert field == before


# ---- cells


def test_cells_meet_where_the_overlap_brings_them():
    painted_field = paint_field(np.arange(5), 1000, 720, seed=11)
    whole, shift = Image.fromarray(painted_field.image), (260, 150)
    boxes = [tuple(map(int, box)) for box in painted_field.boxes]
    here = [i for i, (x0, y0, x1, y1) in enumerate(boxes) if x1 <= SIZE[0] and y1 <= SIZE[1]]
    there = [i for i, (x0, y0, _, _) in enumerate(boxes) if x0 >= shift[0] and y0 >= shift[1]]
    (overlap,) = found(whole.crop((0, 0, *SIZE)), photographed_again(whole.crop((*shift, 1000, 720))))
    new_boxes = [tuple(np.subtract(boxes[index], shift * 2).tolist()) for index in there]

    pairs = match_cells(new_boxes, [boxes[index] for index in here], overlap)

    same = {(there[new], here[old]) for new, old in pairs.items()}
    assert same == {(index, index) for index in set(here) & set(there)}
    assert same


def test_cells_meet_one_to_one():
    clump, left, right = (100, 100, 200, 160), (100, 100, 155, 160), (150, 100, 200, 160)
    assert match_cells([left, right], [clump], SAME_PLACE) == {0: 0}
    assert match_cells([right, left], [left, right], SAME_PLACE) == {0: 1, 1: 0}
    assert match_cells([left], [(156, 100, 200, 160)], SAME_PLACE) == {}
    assert match_cells([], [clump], SAME_PLACE) == match_cells([clump], [], SAME_PLACE) == {}


def test_a_cell_that_the_border_cuts_is_the_same_cell():
    assert match_cells([(0, 0, 40, 90)], [(0, 0, 90, 90)], SAME_PLACE) == {0: 0}


def test_turned_cells_meet():
    """A quarter turn about the origin: x comes from -y, y from x."""
    quarter = Overlap(0, np.array([[0.0, -1, 0], [1, 0, 0]]), 99)
    assert match_cells([(100, -60, 130, -10)], [(10, 100, 60, 130)], quarter) == {0: 0}
    assert match_cells([(100, -60, 130, -10)], [(100, 10, 130, 60)], quarter) == {}


def test_of_many_fields_the_likeliest_are_compared(monkeypatch: pytest.MonkeyPatch):
    """A field that overlaps the first of many is still found, and the number of comparisons does not grow."""
    fields = [Image.fromarray(paint_field([0, 2, 4], width=320, height=240, seed=seed).image) for seed in range(30)]
    index = FieldIndex()
    for field in fields:
        index.add(describe_field(field))
    compared = []
    compare = overlaps._compare
    monkeypatch.setattr(overlaps, "_compare", lambda *given: compared.append(given[2]) or compare(*given))
    assert [overlap.earlier for overlap in index.add(describe_field(fields[0].crop((20, 10, 320, 240))))] == [0]
    assert len(compared) <= overlaps._CANDIDATES
    assert [overlap.earlier for overlap in index.add(describe_field(fields[7]))] == [7]
