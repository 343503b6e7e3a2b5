"""Training views for the finder: augmented squares of photographs with boxed leucocytes, and the targets for them.

A view is turned, scaled so that its cells are between `SMALLEST` and `LARGEST` pixels wide, restained, blurred, coded
as JPEG, and often has artefacts. What it shows beside the smear is background.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from finder_training.artefacts import ARTEFACTS, NOT_SMEAR, Altered
from finder_training.smear_variation import debris, record, restain
from wbc_hf.modeling import FinderConfig

VIEW = 288  # side of a training view in pixels of the network's input
SMALLEST, LARGEST = 11.0, 170.0  # width of cells in training views, in pixels
_VISIBLE = 0.4  # a cell of which the view shows less is neither cell nor background
_LEAST_VISIBLE = 0.12  # what shows less than this is background
_CELL_MARGIN = 1.12  # side of a pasted piece in widths of its cell


@dataclass(frozen=True)
class Example:
    """A photograph with its boxes.

    Attributes:
        image: RGB uint8 (height, width, 3).
        boxes: float (n, 4): x0, y0, x1, y1 in pixels.
        complete: Whether every leucocyte is boxed. Where not, only the boxes and what touches them are learned from.
        source: Name of the set.
    """

    image: np.ndarray
    boxes: np.ndarray
    complete: bool
    source: str


class TrainingViews(Dataset):
    """Augmented views of examples with the targets of the network.

    An item is asked for by its number, which seeds its augmentation, and the index of an example; -1 stands for a
    picture without any smear.
    """

    def __init__(self, examples: Sequence[Example], config: FinderConfig, seed: int):
        self.examples, self.config, self.seed = examples, config, seed
        self._with_cells = [index for index, example in enumerate(examples) if len(example.boxes)]

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        """`pixels`, uint8 (3, `VIEW`, `VIEW`), and what `make_targets` gives."""
        number, index = key
        rng = np.random.default_rng([self.seed, number])
        if index >= 0:
            view, boxes, ignored = self._view(self.examples[index], rng)
        else:
            make = list(NOT_SMEAR.values())[rng.integers(len(NOT_SMEAR))]
            view, boxes, ignored = make(rng, VIEW, VIEW), np.zeros((0, 4)), np.zeros((VIEW, VIEW), bool)
            view = record(view, rng) if rng.random() < 0.3 else view
        pixels = torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1)))
        return {"pixels": pixels} | make_targets(boxes, ignored, self.config)

    def _view(self, example: Example, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The view, RGB uint8; the boxes (n, 4) in it; and bool (`VIEW`, `VIEW`): what is not learned from."""
        image, boxes = example.image, example.boxes
        if example.complete and rng.random() < 0.3:
            image, boxes = self._with_pasted_cells(example, rng)
        if example.complete and len(boxes) and rng.random() < 0.5:
            image = debris(image, rng, red_cell=0.6 * float(np.median(box_sizes(boxes))))
        matrix, angle = _choose_view(image, boxes, rng)
        view, shown = _warp(image, matrix, rng)
        boxes = _transform_boxes(boxes, matrix, angle)
        ignored = np.zeros((VIEW, VIEW), bool) if example.complete else shown & ~_ellipses(boxes, 1.2)
        view, hidden = restain(view, rng, shown), ~shown
        if rng.random() < 0.45:
            for name in rng.choice(list(ARTEFACTS), rng.integers(1, 3), replace=False):
                altered = ARTEFACTS[name](view, rng)
                view, boxes = _fit(altered.image), _fit_boxes(boxes, altered)
                ignored, hidden = _fit_mask(ignored, altered, 0), _fit_mask(hidden, altered, 1)
                hidden |= _fit(altered.hidden.astype(np.uint8), cv2.INTER_NEAREST) > 0
        boxes, unsure = _visible_boxes(boxes, hidden)
        for x0, y0, x1, y1 in unsure:
            ignored[int(y0) : math.ceil(y1), int(x0) : math.ceil(x1)] = True
        return record(view, rng), boxes, ignored

    def _with_pasted_cells(self, example: Example, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One to four cells of this and other examples upon it, often so that they touch."""
        image, boxes = example.image.copy(), list(example.boxes)
        size = float(np.median(box_sizes(example.boxes))) if boxes else rng.uniform(50, 120)
        for _ in range(rng.integers(1, 5)):
            own = bool(boxes) and rng.random() < 0.4
            other = example if own else self.examples[rng.choice(self._with_cells)]
            cell = _cut_out(other, size * rng.uniform(0.8, 1.25), rng)
            if cell is None:
                continue
            place, extent = np.array(_place_for(cell.shape, image.shape, boxes, rng)), np.array(cell.shape[1::-1])
            middle, half = place + extent / 2, extent / 2 / _CELL_MARGIN
            box = np.concatenate([middle - half, middle + half])
            inside = (place >= 0).all() and (place + extent < image.shape[1::-1]).all()
            if inside and all(max(_share(box, one), _share(one, box)) <= 0.12 for one in boxes):
                _paste(image, cell, (int(place[0]), int(place[1])))
                boxes.append(box)
        return image, np.array(boxes).reshape(-1, 4)


def _choose_view(image: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """The affine matrix (2, 3) from a photograph to a view, and its angle: often round a cell, at any scale."""
    extent = np.array(image.shape[1::-1])
    size = float(np.median(box_sizes(boxes))) if len(boxes) else rng.uniform(40, 120)
    scale = math.exp(rng.uniform(math.log(SMALLEST), math.log(LARGEST))) / size
    # A photograph that fills a corner of the view teaches little.
    scale = max(scale, 0.45 * VIEW / extent.max() * (0.35 if rng.random() < 0.15 else 1))
    centre = rng.uniform(0, 1, 2) * extent
    if len(boxes) and rng.random() < 0.8:
        box = boxes[rng.integers(len(boxes))]
        centre = (box[:2] + box[2:]) / 2 + rng.uniform(-0.5, 0.5, 2) * VIEW / scale
    if rng.random() < 0.75:  # no more beyond the border than needed
        half = np.minimum(VIEW / scale / 2, extent / 2)
        centre = np.clip(centre, half, extent - half)
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.35 else rng.integers(4) * np.pi / 2
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < 0.5:
        turn[0] *= -1
    return np.column_stack([turn, VIEW / 2 - turn @ centre]), angle


def _warp(image: np.ndarray, matrix: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The view, and bool (`VIEW`, `VIEW`): where it shows the photograph."""
    scale = math.sqrt(abs(np.linalg.det(matrix[:, :2])))
    shown = cv2.warpAffine(np.ones(image.shape[:2], np.uint8), matrix, (VIEW, VIEW), flags=cv2.INTER_NEAREST) > 0
    factor = min(1.0, scale)
    if factor < 0.7:  # averaged first, so that nothing aliases
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        matrix = np.column_stack([matrix[:, :2] / factor, matrix[:, 2]])
    outside = _outside(image, rng)
    return cv2.warpAffine(image, matrix, (VIEW, VIEW), flags=cv2.INTER_LINEAR, borderValue=outside), shown


def _ellipses(boxes: np.ndarray, factor: float) -> np.ndarray:
    """bool (`VIEW`, `VIEW`): the ellipses in boxes, `factor` times as wide."""
    mask = np.zeros((VIEW, VIEW), np.uint8)
    for x0, y0, x1, y1 in boxes:
        centre, axes = (round((x0 + x1) / 2), round((y0 + y1) / 2)), (x1 - x0, y1 - y0)
        cv2.ellipse(mask, centre, (round(factor * axes[0] / 2), round(factor * axes[1] / 2)), 0, 0, 360, 1, -1)
    return mask > 0


def _fit(image: np.ndarray, interpolation: int = cv2.INTER_AREA) -> np.ndarray:
    """An altered view back to `VIEW` pixels."""
    return image if image.shape[:2] == (VIEW, VIEW) else cv2.resize(image, (VIEW, VIEW), interpolation=interpolation)


def _fit_boxes(boxes: np.ndarray, altered: Altered) -> np.ndarray:
    height, width = altered.image.shape[:2]
    return (boxes + np.tile(altered.offset, 2)) * (VIEW / np.tile([width, height], 2))


def _fit_mask(mask: np.ndarray, altered: Altered, fill: int) -> np.ndarray:
    (x, y), padded = altered.offset, np.full(altered.image.shape[:2], fill, np.uint8)
    padded[y : y + VIEW, x : x + VIEW] = mask
    return _fit(padded, cv2.INTER_NEAREST) > 0


def _cut_out(example: Example, size: float, rng: np.random.Generator) -> np.ndarray | None:
    """A cell of an example with a margin, resized and turned; None where its border cuts it off."""
    if not len(example.boxes):
        return None
    x0, y0, x1, y1 = example.boxes[rng.integers(len(example.boxes))]
    height, width = example.image.shape[:2]
    wide, high = (x1 - x0) * (_CELL_MARGIN - 1) / 2, (y1 - y0) * (_CELL_MARGIN - 1) / 2
    left, top, right, bottom = int(x0 - wide), int(y0 - high), int(x1 + wide) + 1, int(y1 + high) + 1
    factor = size / max(x1 - x0, y1 - y0)
    if min(left, top) < 0 or right > width or bottom > height or factor * min(right - left, bottom - top) < 8:
        return None
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    cell = cv2.resize(example.image[top:bottom, left:right], None, fx=factor, fy=factor, interpolation=interpolation)
    return np.rot90(cell, int(rng.integers(4)))


def _place_for(
    cell: tuple[int, ...], image: tuple[int, ...], boxes: Sequence[np.ndarray], rng: np.random.Generator
) -> tuple[int, int]:
    """The upper left corner for a cell: beside another one, or anywhere."""
    size = np.array(cell[1::-1])
    if boxes and rng.random() < 0.6:
        beside = boxes[int(rng.integers(len(boxes)))]
        angle, reach = rng.uniform(0, 2 * np.pi), ((beside[2:] - beside[:2]).max() + size.max()) / 2
        middle = (beside[:2] + beside[2:]) / 2 + reach * rng.uniform(0.88, 1.1) * np.array(
            [np.cos(angle), np.sin(angle)]
        )
    else:
        middle = rng.uniform(0, 1, 2) * image[1::-1]
    x, y = (middle - size / 2).astype(int).tolist()
    return x, y


def _paste(image: np.ndarray, cell: np.ndarray, place: tuple[int, int]) -> None:
    """Blend an elliptical cell in; its background takes on the light of the field, so that no rim tells."""
    high, wide = cell.shape[:2]
    y, x = np.mgrid[-1 : 1 : high * 1j, -1 : 1 : wide * 1j]
    cover = np.clip((1 - np.hypot(x, y)) / 0.14, 0, 1)[..., None]
    here = image[place[1] : place[1] + high, place[0] : place[0] + wide]
    light = np.quantile(here.reshape(-1, 3), 0.9, 0) / np.maximum(np.quantile(cell.reshape(-1, 3), 0.9, 0), 1)
    here[:] = np.clip(here * (1 - cover) + cell * np.clip(light, 0.6, 1.6) * cover, 0, 255)


def _share(box: np.ndarray, other: np.ndarray) -> float:
    """Share of a box that lies in another."""
    wide, high = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    return max(wide, 0) * max(high, 0) / max((box[2] - box[0]) * (box[3] - box[1]), 1e-6)


def box_sizes(boxes: np.ndarray) -> np.ndarray:
    """Square roots of the areas of boxes (n, 4): (n,)."""
    return np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def _transform_boxes(boxes: np.ndarray, matrix: np.ndarray, angle: float) -> np.ndarray:
    """Boxes round the ellipses in boxes, in a turned and scaled view."""
    if not len(boxes):
        return boxes
    centres = np.column_stack([boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]]) / 2
    centres = centres @ matrix[:, :2].T + matrix[:, 2]
    scale = math.sqrt(abs(np.linalg.det(matrix[:, :2])))
    a, b = ((boxes[:, 2:] - boxes[:, :2]) / 2 * scale).T
    c, s = np.cos(angle), np.sin(angle)
    half = np.column_stack([np.hypot(a * c, b * s), np.hypot(a * s, b * c)])
    return np.hstack([centres - half, centres + half])


def _visible_boxes(boxes: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes clipped to what the view shows of them, and those of which it shows too little to tell."""
    clear, unsure = [], []
    for x0, y0, x1, y1 in boxes:
        area = (x1 - x0) * (y1 - y0)
        left, top, right, bottom = max(0.0, x0), max(0.0, y0), min(float(VIEW), x1), min(float(VIEW), y1)
        if right - left < 2 or bottom - top < 2:
            continue
        part = hidden[int(top) : math.ceil(bottom), int(left) : math.ceil(right)]
        visible = (right - left) * (bottom - top) / area * (1 - part.mean())
        if visible < _LEAST_VISIBLE:
            continue
        if visible < _VISIBLE:
            unsure.append((left, top, right, bottom))
            continue
        if part.any():  # a straight border within the view: the box ends there
            rows, columns = np.flatnonzero(~part.all(1)), np.flatnonzero(~part.all(0))
            left, right = int(left) + columns[0], min(right, int(left) + columns[-1] + 1.0)
            top, bottom = int(top) + rows[0], min(bottom, int(top) + rows[-1] + 1.0)
        clear.append((left, top, right, bottom))
    return np.array(clear).reshape(-1, 4), np.array(unsure).reshape(-1, 4)


def _outside(image: np.ndarray, rng: np.random.Generator) -> tuple[int, ...]:
    """Colour beyond the border of a photograph."""
    kind = rng.integers(4)
    if kind == 0:
        return (0, 0, 0)
    if kind == 1:
        return (255, 255, 255)
    if kind == 2:
        return tuple(np.quantile(image[::7, ::7].reshape(-1, 3), 0.8, 0).astype(int).tolist())
    return tuple(rng.integers(0, 256, 3).tolist())


def make_targets(boxes: np.ndarray, ignored: np.ndarray, config: FinderConfig) -> dict[str, torch.Tensor]:
    """Targets at each stride: heat (1, rows, columns), -1 where ignored, and the regression (4, rows, columns).

    Cells at the edge of a stride's range of sizes are ignored there: either answer will do.
    """
    targets = {}
    sizes = box_sizes(boxes)
    for stride, (low, high) in zip(config.strides, config.sizes, strict=True):
        side = VIEW // stride
        heat = np.zeros((side, side), np.float32)
        skip = cv2.resize(ignored.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST) > 0
        regression = np.zeros((4, side, side), np.float32)
        y, x = np.mgrid[:side, :side] + 0.5
        for (x0, y0, x1, y1), size in zip(boxes, sizes, strict=True):
            cx, cy = (x0 + x1) / 2 / stride, (y0 + y1) / 2 / stride
            wide, tall = (x1 - x0) / stride, (y1 - y0) / stride
            if not low * 0.8 <= size <= high * 1.2:
                continue
            if not low <= size <= high:
                skip |= (np.abs(x - cx) < wide / 2) & (np.abs(y - cy) < tall / 2)
                continue
            sx, sy = max(0.7, 0.11 * wide), max(0.7, 0.11 * tall)
            bump = np.exp(-(((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2) / 2).astype(np.float32)
            row, column = min(side - 1, max(0, int(cy))), min(side - 1, max(0, int(cx)))
            bump[row, column] = 1
            near = (bump > 0.3) & (bump > heat)
            regression[:2, near] = (cx - x)[near], (cy - y)[near]
            regression[2:, near] = np.log([[wide], [tall]])
            heat = np.maximum(heat, bump)
            skip[row, column] = False
        heat[skip & (heat < 1)] = -1
        targets[f"heat{stride}"] = torch.from_numpy(heat)
        targets[f"box{stride}"] = torch.from_numpy(regression)
    return targets
