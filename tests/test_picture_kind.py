"""A picture of one cell is told from a field by the boxes in it."""

import pytest

from wbc_hf.smear import FoundCell, PictureKind, kind_of_picture


def found(*boxes: tuple[int, int, int, int], cut: bool = False) -> list[FoundCell]:
    return [FoundCell(box, cut) for box in boxes]


@pytest.mark.parametrize(
    ("cells", "size", "kind"),
    [
        (found((100, 100, 260, 260)), (360, 363), PictureKind.CELL),  # in the middle of a square
        (found((5, 0, 235, 238), cut=True), (240, 320), PictureKind.CELL),  # fills an oblong one
        (found((100, 100, 260, 260)) + found((300, 0, 360, 60), cut=True), (360, 363), PictureKind.CELL),
        (found((100, 100, 260, 260), (270, 270, 350, 350)), (360, 363), PictureKind.UNCLEAR),
        (found((10, 10, 120, 120)), (360, 363), PictureKind.UNCLEAR),  # in a corner
        ([], (120, 120), PictureKind.UNCLEAR),
        ([], (640, 480), PictureKind.FIELD),
        (found((240, 160, 400, 320)), (640, 480), PictureKind.FIELD),  # in the middle, but not of a square
        (found((0, 0, 60, 60), (100, 100, 160, 160), (200, 0, 260, 60)), (300, 300), PictureKind.FIELD),
        (found((900, 900, 1100, 1100)), (2048, 2048), PictureKind.FIELD),  # of a square camera
    ],
)
def test_kinds(cells: list[FoundCell], size: tuple[int, int], kind: PictureKind):
    assert kind_of_picture(cells, size) is kind
