"""Painted cells: shapes, determinism, and that the types differ by what tells them apart under a microscope."""

import cv2
import numpy as np
import pytest

from wbc_hf.data import synthetic
from wbc_hf.data.synthetic import paint_cells, paint_field
from wbc_hf.labels import CLASS_NAMES

SIZE, CELLS = 96, 30


def absorbance(images: np.ndarray) -> np.ndarray:
    """Of red, green and blue light, in relation to the background: (n, height, width, 3)."""
    background = np.percentile(images, 90, axis=(1, 2), keepdims=True)
    return -np.log(np.maximum(images, 1) / background)


def median(values: np.ndarray) -> dict[str, float]:
    """(5 * CELLS,) figures of `painted` → the median of each class."""
    return dict(zip(CLASS_NAMES, np.median(values.reshape(len(CLASS_NAMES), CELLS), axis=1), strict=True))


@pytest.fixture(scope="module")
def painted() -> np.ndarray:
    """Absorbance of the middle of `CELLS` cells of each class, class by class."""
    images = paint_cells(np.repeat(np.arange(len(CLASS_NAMES)), CELLS), SIZE, seed=5)
    return absorbance(images)[:, SIZE // 5 : -SIZE // 5, SIZE // 5 : -SIZE // 5]


@pytest.fixture(scope="module")
def nuclei(painted) -> np.ndarray:
    """Only stained chromatin, or basophil granules, takes much of the red light: (n, height, width) bool."""
    red = np.stack([cv2.GaussianBlur(np.float32(image[..., 0]), (0, 0), 1) for image in painted])
    return red > 0.55 * np.percentile(red, 97, axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("size", [16, 32, 97, 512])
def test_shape_and_type(size):
    images = paint_cells([0, 4], size)
    assert images.shape == (2, size, size, 3)
    assert images.dtype == np.uint8
    assert images.std(axis=(1, 2, 3)).min() > 10


def test_no_labels_no_images():
    assert paint_cells([], 32).shape == (0, 32, 32, 3)
    field = paint_field([], 160, 120)
    assert (field.boxes.shape, field.labels.shape) == ((0, 4), (0,))
    assert field.image.shape == (120, 160, 3)


def test_same_seed_same_images_and_other_seed_others():
    labels = np.arange(5)
    first = paint_cells(labels, 48, seed=3)
    np.testing.assert_array_equal(first, paint_cells(list(labels), 48, seed=3))
    other = paint_cells(labels, 48, seed=4)
    assert all(np.abs(a.astype(int) - b).mean() > 3 for a, b in zip(first, other, strict=True))


def test_neither_batch_nor_chunk_changes_a_cell(monkeypatch):
    labels = np.arange(23) % 5
    images = paint_cells(labels, 64)
    for first in (1, 7, 22):
        np.testing.assert_array_equal(images[:first], paint_cells(labels[:first], 64))
    monkeypatch.setattr(synthetic, "CHUNK_PIXELS", 3 * 64**2)
    np.testing.assert_array_equal(images, paint_cells(labels, 64))


def test_two_cells_of_one_class_differ():
    images = paint_cells([2] * 8, 48).astype(int)
    distances = np.abs(images[:, None] - images).mean(axis=(2, 3, 4)) + 99 * np.eye(8)
    assert distances.min() > 3


def test_smears_differ_in_background_colour():
    background = np.percentile(paint_cells([4] * 40, 48), 90, axis=(1, 2))
    assert (background.std(axis=0) > 6).all()
    assert background.min() > 120


def test_eosinophil_granules_are_orange_red(painted):
    red, green, blue = np.moveaxis(painted, -1, 0)
    orange = (green > 0.35) & (red < 0.5 * green) & (blue > 0.4 * green)
    share = median(orange.mean(axis=(1, 2)))
    assert all(share["eosinophil"] > 1.5 * share[name] for name in CLASS_NAMES if name != "eosinophil"), share


def test_lymphocyte_nucleus_is_round_and_neutrophil_nucleus_is_not(nuclei):
    solidity = []
    for nucleus in nuclei.astype(np.uint8):
        points = cv2.findNonZero(nucleus)
        solidity.append(nucleus.sum() / max(cv2.contourArea(cv2.convexHull(points)), 1))
    solidity = median(np.array(solidity))
    assert solidity["lymphocyte"] > 0.9, solidity
    assert max(solidity["neutrophil"], solidity["eosinophil"]) < solidity["lymphocyte"] - 0.05, solidity


def test_lymphocyte_has_little_cytoplasm(painted, nuclei):
    cells = painted[..., 1] > 0.12
    share = median(nuclei.sum(axis=(1, 2)) / cells.sum(axis=(1, 2)))
    assert share["lymphocyte"] > share["neutrophil"] + 0.1, share


def test_monocyte_is_the_largest(nuclei):
    area = median(nuclei.mean(axis=(1, 2)))
    assert area["monocyte"] > 1.3 * max(area["neutrophil"], area["lymphocyte"]), area


def test_basophil_is_broken_up_by_granules(painted):
    outlines = []
    for red in painted[..., 0]:
        dark = np.uint8(red > 0.55 * np.percentile(red, 97))
        outlines.append(len(cv2.findContours(dark, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0]))
    outlines = median(np.array(outlines))
    assert outlines["basophil"] > 3 * max(outlines[n] for n in ("eosinophil", "lymphocyte", "neutrophil")), outlines


@pytest.mark.parametrize("count", [1, 4, 30])
def test_field_boxes_hold_the_leucocytes(count):
    labels = np.arange(count) % 5
    field = paint_field(labels, seed=count)
    assert field.image.shape == (480, 640, 3)
    assert (field.image.dtype, field.boxes.dtype, field.labels.dtype) == (np.uint8, np.int32, np.int64)
    np.testing.assert_array_equal(field.labels, labels)
    assert field.boxes.shape == (count, 4)
    assert (field.boxes[:, :2] >= 0).all()
    assert (field.boxes[:, 2:] <= (640, 480)).all()
    assert (field.boxes[:, 2:] - field.boxes[:, :2]).min() >= 20

    red = absorbance(field.image[None])[0, ..., 0]
    inside = np.zeros(red.shape, bool)
    for x0, y0, x1, y1 in field.boxes:
        inside[y0:y1, x0:x1] = True
        assert np.percentile(red[y0:y1, x0:x1], 90) > 0.4
    assert red[inside].mean() > 2 * red[~inside].mean()


def test_field_leucocytes_hardly_overlap():
    boxes = paint_field(np.arange(30) % 5, seed=1).boxes
    low = np.maximum(boxes[:, None, :2], boxes[:, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    area = np.diagonal(shared)
    assert (shared - np.diag(area) < 0.35 * np.minimum(area[:, None], area)).all()


def test_field_leucocytes_have_the_size_of_real_ones():
    boxes = np.concatenate([paint_field([4], seed=seed).boxes for seed in range(4)])
    assert 75 < np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1)) < 120


def test_field_is_deterministic_and_has_any_size():
    first, second, other = (paint_field([1, 2], 200, 150, seed=seed) for seed in (8, 8, 9))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.boxes, second.boxes)
    assert first.image.shape == (150, 200, 3)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("paint", [paint_cells, paint_field])
@pytest.mark.parametrize("label", [-1, 5])
def test_unknown_label(paint, label):
    with pytest.raises(ValueError, match=rf"label {label} names no class; allowed are 0 to 4: \('basophil'"):
        paint([0, label])


def test_labels_that_are_no_row_of_integers():
    with pytest.raises(ValueError, match=r"one row of integers, got shape \(1,\) of float64"):
        paint_cells([0.5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paint_cells([0], 8), "size must be 16 to 1024 pixels, got 8"),
        (lambda: paint_field([0], width=5000), "width must be 16 to 1024 pixels, got 5000"),
        (lambda: paint_field([0], height=0), "height must be 16 to 1024 pixels, got 0"),
        (lambda: paint_cells([0], seed=-1), "seed must not be negative, got -1"),
    ],
)
def test_size_or_seed_outside_its_range(call, message):
    with pytest.raises(ValueError, match=message):
        call()
