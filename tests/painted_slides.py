"""Paint whole slides of blood smears, block by block, of any size: thick part, monolayer, feathered edge, artefacts.

A smear is pushed from a drop to a feather: red cells overlap in several layers at its head, lie side by side in its
monolayer, and flat with wide gaps at its end. Where each part lies is known, so that whoever looks for the monolayer
can be judged. Figures measured on painted slides say nothing about real ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from wbc_hf.data.box_files import Box
from wbc_hf.data.synthetic import Row, Squares, Stain, draw_discs, draw_leucocytes, draw_smear, photograph
from wbc_hf.data.synthetic import stain_leucocytes as _stain

BLOCK = 256  # pixels: each block of a slide has random numbers of its own, so that any part can be painted alone
_MARGIN = 8  # pixels around a block, so that its focus knows what lies beside it
_STAMPS = 128  # different red cells of a slide
# Ends of the parts along the smear, from its head, 0, to its feather, 1; what lies between them is neither.
THICK_END, MONOLAYER, FEATHER_START = 0.42, (0.44, 0.74), 0.76
# Mean distance between red cells in µm along the smear.
_SPACING = (
    (0.0, 3.9),
    (THICK_END, 4.6),
    (MONOLAYER[0], 8.0),
    (MONOLAYER[1], 10.4),
    (FEATHER_START, 13.0),
    (1.0, 17.0),
)
# Share of places without a red cell; towards the feather whole patches are bare.
_EMPTY, _FEATHER_EMPTY = 0.1, 0.35
_DISORDER = 0.22  # of the red cells, in mean distances
# Shares of the classes, in the order of `CLASS_NAMES`: those of healthy adults.
_SHARES = (0.01, 0.03, 0.30, 0.07, 0.59)
_GLASS = 0.06  # of the shorter side: bare glass around the smear


@dataclass(frozen=True)
class PaintedLeucocyte:
    """One leucocyte of a painted slide: its centre in pixels, its radius in pixels, and its class as an index."""

    x: float
    y: float
    radius: float
    label: int


class PaintedSlide:
    """A painted slide.

    Args:
        width, height: In pixels.
        seed: Random seed, not negative.
        pixel_size: Width of a pixel in µm.
        leucocytes: In the monolayer, for each 10,000 µm². Smears of healthy people have about 0.15.
        artefacts: Number of pen strokes, scratches, bubbles and specks of dirt, each.
    """

    def __init__(
        self,
        width: int,
        height: int,
        seed: int = 0,
        *,
        pixel_size: float = 0.25,
        leucocytes: float = 0.6,
        artefacts: int = 2,
    ):
        self.size, self.seed, self.pixel_size, self._leucocytes = (width, height), seed, pixel_size, leucocytes
        rng = np.random.default_rng([seed, 2**33])
        smear = draw_smear([rng])
        # Light that changes from block to block would show their seams.
        self._smear = smear | {"shade": np.zeros(1, np.float32)}
        self._smear["haemoglobin"] = np.maximum(self._smear["haemoglobin"], 0.85)
        no_stain = np.zeros((1, len(Stain), 8, 8), np.float32)
        self._white = photograph(no_stain, self._smear, [rng], np.ones(1))[0].mean(axis=(0, 1))
        self._along = int(rng.integers(4))  # the head is left, top, right or below
        self._waves = rng.uniform([0.005, 1, 0], [0.02, 3, 6.28], (3, 3))
        self._streaks = rng.standard_normal((40, 40)).astype(np.float32)
        self._stamps = self._draw_stamps(rng)
        self._marks = self._draw_marks(rng, artefacts)

    def thickness(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """How far along the smear places lie: 0 at its head, 1 at the end of its feather, outside of both on glass.

        Args:
            x, y: In pixels.
        """
        wide, high = self.size
        u, v = np.asarray(x) / wide, np.asarray(y) / high
        along, across = ((u, v), (v, u), (1 - u, v), (1 - v, u))[self._along]
        waves = sum(size * np.sin(2 * np.pi * many * across + phase) for size, many, phase in self._waves)
        along = (along - _GLASS) / (1 - 2 * _GLASS) + waves
        return np.where((across < _GLASS) | (across > 1 - _GLASS), -1, along)

    def monolayer_share(self, box: Box, steps: int = 16) -> float:
        """Share of a box, in pixels, that lies in the monolayer and is not hidden by an artefact."""
        x, y = np.meshgrid(*(np.linspace(box[axis], box[axis + 2], steps) for axis in (0, 1)))
        u = self.thickness(x, y)
        return float(((u >= MONOLAYER[0]) & (u <= MONOLAYER[1]) & ~self._hidden(x, y)).mean())

    def leucocytes_in(self, box: Box) -> list[PaintedLeucocyte]:
        """The leucocytes whose centres lie in a box, in pixels, half-open."""
        return [
            PaintedLeucocyte(float(x), float(y), float(radius), int(label))
            for _, cells, labels in self._groups(box)
            for (x, y, radius), label in zip(cells, labels, strict=True)
            if box[0] <= x < box[2] and box[1] <= y < box[3]
        ]

    def paint(self, box: Box) -> np.ndarray:
        """Paint a part of the slide, the same whatever part is asked for: RGB (height, width, 3) uint8."""
        left, top, right, bottom = box
        image = np.empty((bottom - top, right - left, 3), np.uint8)
        for column in range(left // BLOCK, -(-right // BLOCK)):
            for row in range(top // BLOCK, -(-bottom // BLOCK)):
                x, y = max(left, column * BLOCK), max(top, row * BLOCK)
                x1, y1 = min(right, (column + 1) * BLOCK), min(bottom, (row + 1) * BLOCK)
                block = self._block(column, row)
                part = block[y - row * BLOCK : y1 - row * BLOCK, x - column * BLOCK : x1 - column * BLOCK]
                image[y - top : y1 - top, x - left : x1 - left] = part
        return image

    def _block(self, column: int, row: int) -> np.ndarray:
        corner = np.array([column, row]) * BLOCK - _MARGIN
        side = BLOCK + 2 * _MARGIN
        around = (*corner.tolist(), *(corner + side).tolist())
        stains = np.zeros((len(Stain), side, side), np.float32)
        covered: np.ndarray = np.zeros((side, side), np.float32)
        centres = [np.empty((0, 3))]
        for rngs, cells, labels in self._groups(around):
            centres.append(cells)
            self._add_leucocytes(stains, covered, cells - [*corner, 0], labels, rngs)
        red_cells: np.ndarray = np.zeros((side, side), np.float32)
        for x, y, flat, stamp in self._red_cells(around, np.concatenate(centres)):
            _add(red_cells, self._stamps[flat, stamp], x - corner[0], y - corner[1])
        stains[Stain.HAEMOGLOBIN] += red_cells * np.maximum(1 - covered, 0)
        rng = np.random.default_rng([self.seed, 1, column, row])
        image = photograph(stains[None], self._smear, [rng], np.array([1 / self.pixel_size]))[0]
        image = self._mark(image, corner)
        return image[_MARGIN : _MARGIN + BLOCK, _MARGIN : _MARGIN + BLOCK]

    def _spacing(self, u: float) -> float:
        places, widths = np.array(_SPACING).T
        return float(np.interp(u, places, widths))

    def _blocks(self, box: Box) -> Iterator[tuple[int, int, float]]:
        """Blocks of a box that hold smear: column, row, and how far along it their middle lies."""
        for column in range(max(0, box[0] // BLOCK), -(-min(box[2], self.size[0]) // BLOCK)):
            for row in range(max(0, box[1] // BLOCK), -(-min(box[3], self.size[1]) // BLOCK)):
                u = float(self.thickness(np.array((column + 0.5) * BLOCK), np.array((row + 0.5) * BLOCK)))
                yield column, row, u

    def _groups(self, box: Box) -> Iterator[tuple[list[np.random.Generator], np.ndarray, np.ndarray]]:
        """Leucocytes of each block of a box: random streams, (n, 3) of x, y and radius in pixels, and classes."""
        # A cell over the border of a block is painted in both.
        reach = int(9 / self.pixel_size)
        for column, row, u in self._blocks((box[0] - reach, box[1] - reach, box[2] + reach, box[3] + reach)):
            rng = np.random.default_rng([self.seed, 2, column, row])
            area = (BLOCK * self.pixel_size) ** 2 / 10_000
            crowded = (9 / self._spacing(max(u, MONOLAYER[0]))) ** 2  # not as red cells are in the thick part
            count = rng.poisson(self._leucocytes * area * crowded)
            places = (rng.random((count, 2)) + np.array([column, row])) * BLOCK
            labels = rng.choice(len(_SHARES), count, p=_SHARES)
            rngs = [np.random.default_rng([self.seed, 3, column, row, index]) for index in range(count)]
            radii = draw_leucocytes(labels, rngs)["radius"] / self.pixel_size if count else np.empty(0)
            keep = _apart(places, radii) & self._on_smear(places)
            chosen = np.flatnonzero(keep)
            fresh = [np.random.default_rng([self.seed, 3, column, row, int(index)]) for index in chosen]
            yield fresh, np.column_stack([places, radii])[chosen], labels[chosen]

    def _on_smear(self, places: np.ndarray) -> np.ndarray:
        u = self.thickness(places[:, 0], places[:, 1])
        return (u >= 0) & (u <= 1)

    def _add_leucocytes(
        self,
        stains: np.ndarray,
        covered: np.ndarray,
        cells: np.ndarray,
        labels: np.ndarray,
        rngs: list[np.random.Generator],
    ) -> None:
        """Add leucocytes, (n, 3) of x, y and radius in pixels of the canvas, to its stains."""
        if not len(labels):
            return
        pixels = int(2 * 1.4 * cells[:, 2].max()) + 4
        corners = np.floor(cells[:, :2] - pixels / 2).astype(int)
        offsets = (cells[:, :2] - (corners + pixels / 2)) * self.pixel_size
        squares = Squares(pixels, np.full(len(labels), pixels * self.pixel_size), offsets)
        amounts, bodies = _stain(draw_leucocytes(labels, rngs), rngs, squares)
        for (left, top), amount, body in zip(corners.tolist(), amounts, bodies, strict=True):
            _add(covered, body, left + pixels / 2, top + pixels / 2)
            for stain, canvas in zip(amount, stains, strict=True):
                _add(canvas, stain, left + pixels / 2, top + pixels / 2)

    def _draw_stamps(self, rng: np.random.Generator) -> np.ndarray:
        """Thickness of red cells as they are, and as they lie flat at the feather: (2, `_STAMPS`, side, side)."""
        one: Row = {name: values[0] for name, values in self._smear.items()}
        r = rng.random((6, _STAMPS), np.float32)
        stamps = []
        for flat in (0, 1):
            radius = one["red_cell_radius"] * (0.9 + 0.2 * r[0]) * (1 + 0.15 * flat)
            middle = np.full(_STAMPS, 1.35 * radius.max())
            pallor = one["pallor"] * (0.3 + 0.8 * r[5]) * (1 - 0.8 * flat)
            shape = 0.8 + 0.2 * r[1], 2 * np.pi * r[2], 0.07 * r[3], 0.85 + 0.3 * r[4]
            discs = np.array([middle, middle, radius, *shape, pallor], np.float32).T
            side = 2 * round(float(middle[0]) / self.pixel_size)
            stamps.append([draw_discs(disc[None], (side, side), 1 / self.pixel_size) for disc in discs])
        wider = len(stamps[1][0]) - len(stamps[0][0])
        low, high = wider // 2, wider - wider // 2
        return np.array([[np.pad(stamp, (low, high)) for stamp in stamps[0]], stamps[1]])

    def _red_cells(self, box: Box, leucocytes: np.ndarray) -> list[list[int]]:
        """Red cells of a box: x, y in pixels, whether it lies flat, and the number of its stamp."""
        found = [np.empty((0, 4), int)]
        reach = self._stamps.shape[-1] // 2
        for column, row, u in self._blocks((box[0] - reach, box[1] - reach, box[2] + reach, box[3] + reach)):
            if not -0.1 < u < 1.1:
                continue
            rng = np.random.default_rng([self.seed, 4, column, row])
            spacing = self._spacing(u) / self.pixel_size
            columns, rows = round(BLOCK / spacing), round(BLOCK / spacing / 0.866)
            line, place = np.divmod(np.arange(rows * columns), columns)
            r = rng.random((5, rows * columns), np.float32)
            x = (column + (place + 0.5 * (line % 2) + _DISORDER * (2 * r[0] - 1)) / columns) * BLOCK
            y = (row + (line + 0.25 + _DISORDER * (2 * r[1] - 1)) / rows) * BLOCK
            at = self.thickness(x, y)
            late = np.clip((at - MONOLAYER[1]) / (FEATHER_START - MONOLAYER[1]), 0, 1)
            keep = r[2] > _EMPTY + (_FEATHER_EMPTY - _EMPTY) * late
            keep &= (self._streaks_at(x, y) * late < 0.45) & (at >= 0) & (at <= 1)
            found.append(np.column_stack([x, y, late > r[3], r[4] * _STAMPS])[keep].astype(int))
        cells = np.concatenate(found)
        if len(leucocytes):
            away = np.hypot(*(cells[:, None, :2] - leucocytes[None, :, :2]).transpose(2, 0, 1))
            cells = cells[(away > leucocytes[:, 2] + 2.4 / self.pixel_size).all(axis=1)]
        return cells.tolist()

    def _streaks_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Smooth noise at places in pixels: where it is high, the feather is bare."""
        step = 45.0 / self.pixel_size
        return cv2.remap(
            cv2.resize(self._streaks, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC),
            (x / step * 4 % 159).astype(np.float32)[None],
            (y / step * 4 % 159).astype(np.float32)[None],
            cv2.INTER_LINEAR,
        )[0]

    # ---- artefacts

    def _draw_marks(self, rng: np.random.Generator, number: int) -> list[tuple[str, np.ndarray, float, np.ndarray]]:
        """Artefacts: kind, points in pixels (k, 2), width in pixels, and the share of light that passes (3,)."""
        size = np.array(self.size)
        # On a piece of a slide they are as small as it is.
        micrometre = min(1, size.min() * self.pixel_size / 4000) / self.pixel_size
        marks = []
        for _ in range(number):
            start, turn = rng.random(2) * size, rng.uniform(0, 2 * np.pi)
            pen = start + np.outer(np.linspace(-0.25, 0.25, 9), [np.cos(turn), np.sin(turn)]) * size.min()
            pen += rng.normal(0, 0.01 * size.min(), pen.shape)
            ink = np.array([(0.15, 0.2, 0.6), (0.1, 0.5, 0.2), (0.1, 0.1, 0.1)])[rng.integers(3)]
            marks.append(("pen", pen, rng.uniform(60, 140) * micrometre, ink))
            scratch = rng.random(2) * size + np.outer([-1, 1], rng.normal(0, 0.15, 2) * size)
            marks.append(("scratch", scratch, rng.uniform(15, 40) * micrometre, np.ones(3)))
            bubble = rng.random((1, 2)) * size
            marks.append(("bubble", bubble, rng.uniform(100, 240) * micrometre, np.full(3, 0.25)))
            dirt = rng.random((1, 2)) * size
            marks.append(("dirt", dirt, rng.uniform(20, 70) * micrometre, np.array([0.3, 0.25, 0.2])))
        return marks

    def _mark(self, image: np.ndarray, corner: np.ndarray) -> np.ndarray:
        """Draw the artefacts on a block whose upper left corner lies there on the slide."""
        height, width = image.shape[:2]
        light = None
        for kind, points, wide, passing in self._marks:
            low, high = points.min(axis=0) - wide - corner, points.max(axis=0) + wide - corner
            if (high < 0).any() or (low > [width, height]).any():
                continue
            if light is None:
                light = image.astype(np.float32)
            mask = _mask(kind, points - corner, wide, (height, width))
            if kind == "bubble":
                disc = _mask("dirt", points - corner, wide, (height, width))
                light = light * (1 - disc[..., None]) + disc[..., None] * (0.5 * light + 110)
            painted = self._white if kind == "scratch" else light * passing
            light = light * (1 - mask[..., None]) + mask[..., None] * painted
        return image if light is None else np.clip(light, 0, 255).astype(np.uint8)

    def _hidden(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether places, in pixels, are covered by an artefact."""
        hidden = np.zeros(x.shape, bool)
        for kind, points, wide, _ in self._marks:
            if len(points) == 1:
                distance = np.hypot(x - points[0, 0], y - points[0, 1])
            else:
                distance = np.min([_to_segment(x, y, start, end) for start, end in pairwise(points)], axis=0)
            hidden |= distance < (wide if kind in ("bubble", "dirt") else wide / 2)
        return hidden


def _mask(kind: str, points: np.ndarray, wide: float, shape: tuple[int, int]) -> np.ndarray:
    """Where an artefact lies, 0 to 1, float32 of that shape; soft at its edge."""
    drawn: np.ndarray = np.zeros(shape, np.uint8)
    if kind in ("pen", "scratch"):
        cv2.polylines(drawn, [np.round(points).astype(np.int32)], False, 255, max(1, round(wide)), cv2.LINE_AA)
    else:
        centre = tuple(np.round(points[0]).astype(int).tolist())
        thickness = max(2, round(wide / 8)) if kind == "bubble" else -1
        cv2.circle(drawn, centre, round(wide), 255, thickness, cv2.LINE_AA)
    return cv2.GaussianBlur(drawn, (0, 0), 2).astype(np.float32) / 255


def _to_segment(x: np.ndarray, y: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    along = end - start
    t = np.clip(((x - start[0]) * along[0] + (y - start[1]) * along[1]) / (along**2).sum(), 0, 1)
    return np.hypot(x - start[0] - t * along[0], y - start[1] - t * along[1])


def _apart(places: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Which cells do not overlap an earlier one of their block."""
    keep = np.ones(len(places), bool)
    for index in range(1, len(places)):
        before = np.flatnonzero(keep[:index])
        gaps = np.hypot(*(places[before] - places[index]).T) - radii[before] - radii[index]
        keep[index] = (gaps > 0).all()
    return keep


def _add(canvas: np.ndarray, stamp: np.ndarray, x: float, y: float) -> None:
    """Add a square stamp to a canvas, its middle at x, y, as far as it lies on it."""
    side, (height, width) = stamp.shape[0], canvas.shape
    left, top = round(x - side / 2), round(y - side / 2)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    if x0 < x1 and y0 < y1:
        canvas[y0:y1, x0:x1] += stamp[y0 - top : y1 - top, x0 - left : x1 - left]
