"""Painted slides: any part is painted alike, and says what it shows."""

import numpy as np

from tests.painted_slides import MONOLAYER, PaintedSlide


def test_a_part_is_painted_alike_in_whatever_tiles():
    slide = PaintedSlide(1024, 768, seed=3)
    whole = slide.paint((256, 128, 768, 512))
    assert whole.shape == (384, 512, 3) and whole.dtype == np.uint8
    again = PaintedSlide(1024, 768, seed=3)
    assert np.array_equal(again.paint((300, 200, 500, 400)), whole[72:272, 44:244])
    assert not np.array_equal(PaintedSlide(1024, 768, seed=4).paint((256, 128, 768, 512)), whole)


def test_leucocytes_are_where_it_says():
    slide = PaintedSlide(2048, 1024, seed=1, leucocytes=2, artefacts=0)
    everywhere = slide.leucocytes_in((0, 0, 2048, 1024))
    left, right = slide.leucocytes_in((0, 0, 1024, 1024)), slide.leucocytes_in((1024, 0, 2048, 1024))
    assert len(everywhere) > 10
    assert sorted(map(repr, left + right)) == sorted(map(repr, everywhere))
    image = slide.paint((0, 0, 2048, 1024)).astype(int)
    # Nuclei absorb red light, which red cells and glass let pass.
    middles = np.array([image[int(cell.y), int(cell.x), 0] for cell in everywhere])
    assert np.median(middles) < np.median(image[..., 0]) - 40


def test_the_parts_of_a_smear_differ_as_they_should():
    slide = PaintedSlide(4096, 2560, seed=0, artefacts=0)
    x, y = np.meshgrid(np.arange(0, 4096, 256), np.arange(0, 2560, 256))
    u = slide.thickness(x + 128, y + 128)

    def green(low: float, high: float) -> float:
        row, column = np.argwhere((u > low) & (u < high))[0]
        return float(slide.paint((column * 256, row * 256, column * 256 + 256, row * 256 + 256))[..., 1].mean())

    assert green(0.1, 0.3) < green(*MONOLAYER) - 15 < green(0.9, 1.0) - 15


def test_artefacts_hide_the_monolayer():
    bare, marked = (PaintedSlide(4096, 2560, seed=0, artefacts=artefacts) for artefacts in (0, 4))
    boxes = [(x, y, x + 256, y + 256) for x in range(0, 4096, 256) for y in range(0, 2560, 256)]
    shares = np.array([[slide.monolayer_share(box) for box in boxes] for slide in (bare, marked)])
    assert (shares[1] <= shares[0]).all() and shares[1].sum() < shares[0].sum()
