"""The cell finder on painted fields, whose leucocytes are known, and on pictures that show no smear."""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from finder_training.artefacts import ARTEFACTS, NOT_SMEAR
from wbc_hf.data.synthetic import PaintedField, paint_field
from wbc_hf.default_model import DEFAULT_FINDER_FOLDER
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import match_boxes
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.smear.finder import Box, Finder, find_cells

SEEDS = range(300, 306)


def paint(count: int, seed: int) -> PaintedField:
    return paint_field(np.random.default_rng(seed).integers(0, len(CLASS_NAMES), count), seed=seed)


def hits(truth: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """Of each leucocyte, how many boxes have their middle in it."""
    middles = np.array(boxes, float).reshape(-1, 2, 2).mean(axis=1)
    inside = (middles >= truth[:, None, :2]) & (middles <= truth[:, None, 2:])
    return inside.all(axis=2).sum(axis=1)


def image_of(field: PaintedField) -> Image.Image:
    return Image.fromarray(field.image)


@pytest.mark.parametrize(("count", "most_wrong"), [(1, 0), (8, 1), (24, 2)])
def test_each_leucocyte_gets_one_box(count: int, most_wrong: int):
    wrong = false = 0
    for seed in SEEDS:
        field = paint(count, seed)
        cells = find_cells(image_of(field))
        found = hits(field.boxes, [cell.box for cell in cells])
        wrong += int((found != 1).sum())
        false += len(cells) - int(found.sum())
    assert wrong <= most_wrong
    assert false <= 1


def test_boxes_fit_the_cells():
    """Intersection over union: a cell's edge is guessed from its nucleus."""
    overlaps = []
    for seed in SEEDS:
        field = paint(3, seed)
        for cell in find_cells(image_of(field)):
            x0, y0 = np.maximum(field.boxes[:, :2], cell.box[:2]).T
            x1, y1 = np.minimum(field.boxes[:, 2:], cell.box[2:]).T
            shared = np.maximum(x1 - x0, 0) * np.maximum(y1 - y0, 0)
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (*field.boxes, cell.box)]
            overlaps.append((shared / (np.array(areas[:-1]) + areas[-1] - shared)).max())
    assert np.mean(overlaps) > 0.75
    assert min(overlaps) > 0.4


@pytest.mark.parametrize("name", ["neutrophil", "eosinophil"])
def test_the_lobes_of_a_nucleus_are_one_cell(name: str):
    for seed in SEEDS:
        field = paint_field([CLASS_NAMES.index(name)] * 4, seed=seed)
        assert len(find_cells(image_of(field))) == 4, seed


@pytest.mark.parametrize(("name", "most_wrong"), [("lymphocyte", 2), ("basophil", 0), ("monocyte", 0)])
def test_touching_cells_are_parted(name: str, most_wrong: int):
    """Of one cell two pictures side by side. Two lymphocytes much smaller than the red cells pass for two lobes."""
    wrong = 0
    for seed in SEEDS:
        field = paint_field([CLASS_NAMES.index(name)], seed=seed)
        x0, y0, x1, y1 = field.boxes[0]
        shift = x1 - x0 if x1 + (x1 - x0) <= 640 else x0 - x1
        twice = field.image.copy()
        twice[y0:y1, x0 + shift : x1 + shift] = field.image[y0:y1, x0:x1]
        boxes = np.concatenate([field.boxes, np.add(field.boxes, [shift, 0, shift, 0])])
        wrong += hits(boxes, [cell.box for cell in find_cells(Image.fromarray(twice))]).tolist() != [1, 1]
    assert wrong <= most_wrong


def test_cells_on_the_border_are_cut():
    field = paint_field([CLASS_NAMES.index("lymphocyte")], seed=301)
    (whole,) = find_cells(image_of(field))
    assert not whole.cut
    x0, y0, x1, y1 = field.boxes[0]
    middle = int(x0 + x1) // 2, int(y0 + y1) // 2
    found = 0
    for corner in ((middle[0], 0, 640, 480), (0, 0, middle[0], 480), (0, middle[1], 640, 480), (0, 0, 640, middle[1])):
        part = image_of(field).crop(corner)
        for cell in find_cells(part):
            found += 1
            assert cell.cut
            assert min(*cell.box[:2], part.width - cell.box[2], part.height - cell.box[3]) == 0
    assert found >= 3  # half a lymphocyte is little to go by


def test_a_field_without_leucocytes_gives_none():
    """Red cells and platelets only."""
    for seed in SEEDS:
        assert find_cells(image_of(paint_field([], seed=seed))) == [], seed


@pytest.mark.parametrize("scale", [0.6, 2])
def test_magnification_does_not_matter(scale: float):
    for seed in SEEDS:
        image = image_of(paint(6, seed))
        resized = image.resize((round(640 * scale), round(480 * scale)), Image.Resampling.LANCZOS)
        cells, again = find_cells(image), find_cells(resized)
        boxes = [tuple((np.array(cell.box) / scale).tolist()) for cell in again]
        pairs = match_boxes([cell.box for cell in cells], boxes)
        assert len(pairs) == len(cells) == len(again), seed
        for one, two in pairs:
            assert boxes[two] == pytest.approx(cells[one].box, abs=18), seed


def test_cells_come_in_reading_order():
    cell = image_of(paint_field([CLASS_NAMES.index("lymphocyte")], 300, 240, seed=301))
    sheet = Image.new("RGB", (900, 520), "white")
    for index in range(6):
        # The rows lean: each cell stands a little higher than the one before.
        sheet.paste(cell, (300 * (index % 3), 40 + 240 * (index // 3) - 5 * (index % 3)))
    boxes = [found.box for found in find_cells(sheet)]
    assert len(boxes) == 6
    assert [box[0] // 300 for box in boxes] == [0, 1, 2, 0, 1, 2]
    assert [int(box[1] > 250) for box in boxes] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (16, 3000), (640, 480)])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (120, 60, 160), (230, 200, 190)])
def test_plain_pictures_give_none(size: tuple[int, int], colour: tuple[int, int, int]):
    assert find_cells(Image.new("RGB", size, colour)) == []


@pytest.mark.parametrize("size", [(16, 16), (17, 400), (640, 480), (1600, 1200)])
def test_noise_gives_few(size: tuple[int, int]):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    assert len(find_cells(Image.fromarray(pixels))) <= 3


@pytest.mark.parametrize("grain", [4, 8, 32])
def test_coloured_blobs_give_none(grain: int):
    """As large as nuclei, but green ones among them, which no stain makes."""
    pixels = np.random.default_rng(0).integers(0, 256, (480 // grain, 640 // grain, 3), dtype=np.uint8)
    assert find_cells(Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC)) == []


@pytest.mark.parametrize("ink", ["black", "navy", "darkred"])
def test_documents_give_few(ink: str):
    page = Image.new("RGB", (800, 1100), "white")
    draw = ImageDraw.Draw(page)
    for y in range(40, 1060, 24):
        draw.text((40, y), "The quick brown fox jumps over the lazy dog. " * 2, fill=ink)
    assert len(find_cells(page)) <= 3


# ---- what is not smear


@pytest.mark.parametrize("name", ARTEFACTS)
def test_what_is_not_smear_changes_nothing(name: str):
    """Frames, eyepieces, banners, scale bars, arrows, drawn boxes, pens: no box on them, and no cell is lost."""
    lost = false = 0
    for seed in SEEDS:
        field = paint(4, seed)
        altered = ARTEFACTS[name](field.image, np.random.default_rng(seed))
        boxes = field.boxes + np.tile(altered.offset, 2)
        clear = [not altered.hidden[y0:y1, x0:x1].any() for x0, y0, x1, y1 in boxes]
        cells = find_cells(Image.fromarray(altered.image))
        found = hits(boxes, [cell.box for cell in cells])
        lost += int((found[clear] != 1).sum())
        false += len(cells) - int(found.sum())
    assert lost <= 1
    assert false <= 1


@pytest.mark.parametrize("margin", [20, 80])
def test_a_white_frame_changes_nothing(margin: int):
    for seed in SEEDS:
        image = image_of(paint(4, seed))
        framed = Image.new("RGB", (640 + 2 * margin, 480 + 2 * margin), "white")
        framed.paste(image, (margin, margin))
        assert len(find_cells(framed)) == len(find_cells(image)), seed


@pytest.mark.parametrize("name", NOT_SMEAR)
def test_pictures_without_a_smear_give_none(name: str):
    pictures = [NOT_SMEAR[name](np.random.default_rng(seed)) for seed in range(10)]
    assert sum(bool(find_cells(Image.fromarray(picture))) for picture in pictures) <= 1


# ---- the model


def test_backends_find_the_same_cells():
    fields = [image_of(paint(8, seed)) for seed in SEEDS]
    openvino, pytorch = (Finder(DEFAULT_FINDER_FOLDER, backend) for backend in ("openvino", "torch"))
    for field in fields:
        cells, others = openvino.find(field), pytorch.find(field)
        pairs = match_boxes([cell.box for cell in cells], [other.box for other in others])
        assert len(pairs) == len(cells) == len(others)
        for one, two in pairs:
            assert cells[one].score == pytest.approx(others[two].score, abs=0.05)
            assert cells[one].box == pytest.approx(others[two].box, abs=4)


def test_several_threads_may_look_at_once():
    fields = [image_of(paint(3, seed)) for seed in SEEDS]
    alone = [find_cells(field) for field in fields]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(find_cells, fields * 3)) == alone * 3


@pytest.mark.parametrize("broken", ["missing", "config.json", "model.safetensors"])
def test_a_broken_model_is_named(broken: str, tmp_path: Path):
    folder = tmp_path / "finder"
    if broken != "missing":
        shutil.copytree(DEFAULT_FINDER_FOLDER, folder)
        (folder / broken).write_bytes(b"{")
    with pytest.raises(WbcError, match="holds no finder that can be loaded") as error:
        Finder(folder)
    assert str(folder) in str(error.value)


def test_cells_have_a_score_and_the_surest_is_sure():
    cells = find_cells(image_of(paint(4, 301)))
    assert all(0 <= cell.score <= 1 for cell in cells)
    assert max(cell.score for cell in cells) > 0.7
