"""Find the leucocytes in photographs of stained smears, whatever the stain, the microscope and the camera.

A small fully convolutional network (`wbc_hf.modeling.finder_network`) has learned many stains, real and painted, and
what is not smear. It finds cells 25 to 320 pixels wide in one pass over a copy of half the size, and wider ones in a
second pass over a copy that is a quarter of that.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from wbc_hf.data import Box, ImageSource, read_image
from wbc_hf.default_model import DEFAULT_FINDER_FOLDER
from wbc_hf.inference import BackendName, load_finder
from wbc_hf.modeling import MULTIPLE, decode, suppress

# The network sees a photograph at half its size: cells 25 px wide are 12 px wide there.
_SCALE = 0.5
# A small picture, as of one cell, is not shrunk below this longer side.
_LEAST_SIDE = 128
# Photographs of more than about 12 megapixels are shrunk further: memory stays below 1 GB.
_MAX_PIXELS = 2_400_000
# How much smaller the copy of the second pass is, and the least shorter side of that copy.
_SECOND_SCALE, _SECOND_SIDE = 0.25, 96
# A smaller picture, as of one cell, may show no background to tell the light by.
_SMALLEST_FIELD = 400
# The light is evened out to this level. It is measured on a copy of this size, width and height, within so many of its
# pixels, and is nowhere less than this share of the brightest: what is darker is no smear.
_LIGHT, _LIGHT_SIZE, _LIGHT_REACH, _LEAST_LIGHT = 225, (64, 48), 9, 0.4
# Pale photographs are stretched until this many levels lie between the 1st and the 99th percentile, and no more than
# this many times.
_LEVELS, _MOST_STRETCH = 110, 3
# A cell whose box ends nearer to the border than this share of its width is cut off.
_CUT = 0.02


@dataclass(frozen=True)
class FoundCell:
    """One leucocyte in a field.

    Attributes:
        box: x0, y0, x1, y1 of the whole cell in pixels, half-open, clipped to the field.
        cut: Whether the border of the field cuts it off.
        score: How sure the finder is, 0 to 1.
    """

    box: Box
    cut: bool
    score: float = 1.0


def find_cells(image: ImageSource) -> list[FoundCell]:
    """Detect the leucocytes in a photograph of a stained smear.

    Red cells, platelets, dirt and what is not smear are left out. Safe to be called from several threads.

    Args:
        image: Path, bytes of an image file, PIL image, or uint8 array (height, width, 3) in RGB order. A PIL image in
            mode RGB may have any size.

    Returns:
        The cells in reading order: row by row from the top, each row from the left.

    Raises:
        UnreadableImageError: From `read_image`.

    Example:
        >>> from wbc_hf import find_cells
        >>> [cell.box for cell in find_cells("field.jpg")]
    """
    field = image if isinstance(image, Image.Image) and image.mode == "RGB" else read_image(image)
    with _LOADING:
        finder = _default_finder()
    return finder.find(field)


@cache
def _default_finder() -> "Finder":
    return Finder(DEFAULT_FINDER_FOLDER)


_LOADING = threading.Lock()


class Finder:
    """A finder of leucocytes.

    Args:
        folder: With `config.json` and `model.safetensors`, as `FinderNetwork.save` writes them.
        backend: "openvino", "torch", or "auto": torch on a GPU, else OpenVINO.

    Raises:
        WbcError: The folder holds no finder, or a broken one.
    """

    def __init__(self, folder: Path, backend: BackendName = "auto"):
        self._config, self._run = load_finder(folder, backend)

    def find(self, field: Image.Image) -> list[FoundCell]:
        """Find the leucocytes of an RGB field of any size, in reading order."""
        width, height = field.size
        scale = min(1.0, max(_SCALE, _LEAST_SIDE / max(field.size)), (_MAX_PIXELS / (width * height)) ** 0.5)
        copy = _shrink(np.asarray(field), scale)
        if max(field.size) >= _SMALLEST_FIELD:
            copy = _even_light(copy)
        boxes, scores = self._boxes(copy, scale)
        if min(copy.shape[:2]) * _SECOND_SCALE >= _SECOND_SIDE:
            wider = self._boxes(_shrink(copy, _SECOND_SCALE), scale * _SECOND_SCALE)
            boxes, scores = suppress(np.concatenate([boxes, wider[0]]), np.concatenate([scores, wider[1]]))
        return _in_reading_order(_found_cell(box, score, field.size) for box, score in zip(boxes, scores, strict=True))

    def _boxes(self, copy: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """Boxes in pixels of the field and their scores, from a copy that is `scale` times as large."""
        # Two multiples at least: OpenVINO is wrong in bf16 where the deepest features are one pixel wide (2026.4).
        bottom, right = (max(-length % MULTIPLE, 2 * MULTIPLE - length) for length in copy.shape[:2])
        padded = cv2.copyMakeBorder(copy, 0, bottom, 0, right, cv2.BORDER_CONSTANT)
        outputs = self._run(np.ascontiguousarray(padded.transpose(2, 0, 1)))
        boxes, scores = decode(outputs, self._config.strides, self._config.thresholds)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        in_sight = (centres < copy.shape[1::-1]).all(axis=1)  # not in the padding
        return boxes[in_sight] / scale, scores[in_sight]


def _shrink(pixels: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1:
        return pixels
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _even_light(pixels: np.ndarray) -> np.ndarray:
    """Take vignettes and the colour of the light out, and stretch what is pale: RGB uint8, as large.

    Found cells of a laboratory that the network had not seen rose from half to three quarters by this.
    """
    small = cv2.resize(pixels, _LIGHT_SIZE, interpolation=cv2.INTER_AREA).astype(np.float32)
    light = cv2.GaussianBlur(cv2.dilate(small, np.ones((_LIGHT_REACH, _LIGHT_REACH))), (0, 0), _LIGHT_REACH / 1.5)
    brightest = np.percentile(light.reshape(-1, 3), 95, axis=0)
    light = np.maximum(light, _LEAST_LIGHT * np.maximum(brightest, 20)).astype(np.float32)
    even = cv2.divide(pixels, cv2.resize(light, pixels.shape[1::-1]), scale=_LIGHT, dtype=cv2.CV_8U)
    low, high = np.percentile(even[::4, ::4].mean(axis=2), (1, 99))
    stretch = np.clip(_LEVELS / max(high - low, 1), 1, _MOST_STRETCH)
    return cv2.LUT(even, np.clip(_LIGHT - (_LIGHT - np.arange(256)) * stretch, 0, 255).astype(np.uint8))


def _found_cell(box: np.ndarray, score: float, size: tuple[int, int]) -> FoundCell:
    low, high = box[:2], box[2:]
    margin = _CUT * (high - low)
    cut = bool((low < margin).any() or (high > np.array(size) - margin).any())
    x0, y0 = np.clip(np.floor(low), 0, np.array(size) - 1).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(high), np.array([x0, y0]) + 1, size).astype(int).tolist()
    return FoundCell((x0, y0, x1, y1), cut, round(float(score), 4))


def _in_reading_order(cells: Iterable[FoundCell]) -> list[FoundCell]:
    """Sort by rows; a row is as high as its first cell."""
    rows: list[list[FoundCell]] = []
    for cell in sorted(cells, key=lambda cell: (cell.box[1] + cell.box[3], cell.box)):
        if not rows or (cell.box[1] + cell.box[3]) / 2 >= rows[-1][0].box[3]:
            rows.append([])
        rows[-1].append(cell)
    return [cell for row in rows for cell in sorted(row, key=lambda cell: (cell.box[0] + cell.box[2], cell.box))]
