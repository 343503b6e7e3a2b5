"""Find the monolayer of a smear on a whole slide by a look at low power: where red cells lie side by side.

Leucocytes are told apart where red cells just touch or lie near each other and few overlap (ICSH: Palmer et al. 2015,
Int J Lab Hematol 37:287). In the thick part cells lie over each other, leucocytes are small and dark; at the feathered
edge cells are flat, gaps are wide and large leucocytes gather. So each field is judged by how much of it cells cover,
how much of that is darker than one layer, and how wide its gaps are, in the spirit of Angulo & Flandrin (2003, Anal
Cell Pathol 25:37) and Xiong et al. (2010, IEEE Trans Biomed Eng 57:1982). Darkness is measured in layers of this very
slide, so that neither its stain nor its light matter; lengths are micrometres.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
from PIL import Image

from wbc_hf.data import Box
from wbc_hf.errors import UnreadableImageError
from wbc_hf.smear.slides import Slide

# A field in pixels, as large as the page's preview, and the pixel sizes in µm that it may have: the finder wants cells
# of 25 px at least.
FIELD_SIZE = (1280, 960)
_FEW = 20  # fields: where there are fewer, smaller ones follow the borders of the monolayer better
_FINEST, _COARSEST = 0.1, 0.25
# Fields overlap by the width of the largest leucocytes, µm: one with its middle in the core of a field is whole in it.
_OVERLAP = 25.0
_NEAR = 2.0  # µm that the finder may be wrong by about the middle of a cell
LOW_POWER = 1.0  # µm a pixel
# Of a field in the monolayer: the share that cells cover, of all of it and of each part of so many µm; the share of
# that which is darker than one layer; the radius in µm of the largest gap, and of the largest disc without one, which
# an ink stroke, a bubble's rim or dirt has and a leucocyte has not.
_COVER, _COVER_OF_PART, _PART = (0.40, 0.82), (0.30, 0.92), 70.0
_OVERLAPPING, _DARK = 0.22, 1.55
_GAP, _DISC = 24.0, 14.0
# Optical densities: of what is bare, and of what is no bare glass.
_BARE, _STAINED = 0.05, 0.10
# A field from which layers are measured has so much of both.
_SHARE_OF_BOTH = 0.12
_SAMPLE = 96  # fields
_RED_CELL = 7.3  # µm, mean diameter on a dry smear (normocytes: 6.2 to 8.2)
_PATCH = 768  # pixels of the slide, for measuring red cells
_LEAST_RED_CELLS = 30
THUMBNAIL_SIDE = 1000


@dataclass(frozen=True)
class SlideField:
    """A field of a slide.

    Attributes:
        slide: The open slide.
        number: From 1, in reading order over the monolayer.
        core: Pixels of the slide, half-open, that no other field has: cells with their middle there are this field's.
        frame: The core and its surroundings, pixels of the slide.
        scale: Pixels of the slide for a pixel of the field.
        pixel_size: Width of a pixel of the field in µm.
    """

    slide: Slide
    number: int
    core: Box
    frame: Box
    scale: float
    pixel_size: float

    @property
    def name(self) -> str:
        """Name of the slide, and the number of the field."""
        return f"{self.slide.name}, field {self.number}"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the field."""
        x0, y0, x1, y1 = self.frame
        return max(1, round((x1 - x0) / self.scale)), max(1, round((y1 - y0) / self.scale))

    def read(self) -> Image.Image:
        """The field, RGB.

        Raises:
            UnreadableImageError: From `Slide.read`.
        """
        x0, y0, x1, y1 = self.frame
        return self.slide.read(x0, y0, x1 - x0, y1 - y0, self.scale)

    def owns(self, box: Box) -> bool:
        """Whether the middle of a box, in pixels of the field, lies in the core, or so near that it is hard to say.

        The finder may box a cell otherwise in the field beside: what both own, whoever counts has to count once.
        """
        x = self.frame[0] + self.scale * (box[0] + box[2]) / 2
        y = self.frame[1] + self.scale * (box[1] + box[3]) / 2
        near = _NEAR * self.scale / self.pixel_size
        return self.core[0] - near <= x < self.core[2] + near and self.core[1] - near <= y < self.core[3] + near


@dataclass(frozen=True)
class Monolayer:
    """Where cells lie side by side on a slide.

    Attributes:
        slide: The open slide.
        fields: In reading order: rows from the top, each from the left.
        pixel_size: Width of a pixel of the slide in µm.
        measured: Whether that was measured by the red cells, since the file does not say it.
        thumbnail: Of the slide, RGB.
        unreadable: Parts of the slide that the look could not read.
    """

    slide: Slide
    fields: tuple[SlideField, ...]
    pixel_size: float
    measured: bool
    thumbnail: Image.Image
    unreadable: tuple[UnreadableImageError, ...] = ()


@dataclass(frozen=True)
class _Light:
    """The light and the cells of one slide: green of bare glass, and the optical density of cells.

    Attributes:
        white: Level of the green channel, 1 to 255.
        layer: Density of one layer of cells; above half of it there is a cell.
    """

    white: float
    layer: float


def find_monolayer(
    slide: Slide,
    *,
    field_size: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    turn: Callable[[int], AbstractContextManager] = lambda pixels: nullcontext(),
) -> Monolayer:
    """Look at a slide at low power and choose the fields where cells lie side by side.

    Args:
        slide: An open slide.
        field_size: Of the fields, in their pixels; by default `FIELD_SIZE`, or half of it where the monolayer is too
            small for such fields.
        progress: Called with how many fields were looked at, and of how many.
        turn: Held while a part is read and judged, given its number of pixels: others may wait.

    Raises:
        UnreadableImageError: There is no such part, the red cells cannot be measured where the file does not say how
            wide a pixel is, or the slide cannot be read.
    """
    unreadable: tuple[UnreadableImageError, ...] = ()
    with turn(THUMBNAIL_SIDE**2):
        try:
            thumbnail = slide.overview(THUMBNAIL_SIDE)
        except UnreadableImageError as error:  # of one part of it; fields elsewhere may be whole
            thumbnail, unreadable = _blank(slide), (error,)
    size = slide.pixel_size
    if size is None:
        with turn(_SAMPLE * _PATCH**2 // 4):
            size = _measure_pixel_size(slide)
    looks = _Looks(slide, LOW_POWER / size, turn)
    chosen: list[SlideField] = []
    for each in [field_size] if field_size else [FIELD_SIZE, (FIELD_SIZE[0] // 2, FIELD_SIZE[1] // 2)]:
        chosen = _choose(_lay_grid(slide, size, each), looks, progress) or chosen
        if len(chosen) >= _FEW:
            break
    if chosen:
        fields = tuple(replace(field, number=number) for number, field in enumerate(chosen, 1))
        measured = slide.pixel_size is None
        return Monolayer(slide, fields, size, measured, thumbnail, (*unreadable, *looks.unreadable.values()))
    raise UnreadableImageError(slide.name, _NO_MONOLAYER)


def _blank(slide: Slide) -> Image.Image:
    """A grey thumbnail, where the slide has none that can be read."""
    scale = THUMBNAIL_SIDE / max(slide.size)
    return Image.new("RGB", (round(slide.size[0] * scale), round(slide.size[1] * scale)), "#dddddd")


def _choose(grid: Sequence[SlideField], looks: "_Looks", progress: Callable[[int, int], None]) -> list[SlideField]:
    """Choose the fields of a grid that lie in the monolayer."""
    every = max(1, len(grid) // _SAMPLE)
    light = _measure_light([look for field in grid[::every] if (look := looks.at(field)) is not None])
    if light is None:
        return []
    good = []
    for done, field in enumerate(grid):
        progress(done, len(grid))
        look = looks.at(field)
        good.append(look is not None and _is_monolayer(look, light))
    progress(len(grid), len(grid))
    return _coherent(grid, good)


_NO_MONOLAYER = (
    "shows no part where red cells lie side by side: a label or an overview, no smear of blood, or too thick a one. "
    "Photograph fields by hand, and count those"
)


class _Looks:
    """Looks at fields at low power; parts that cannot be read are kept in `unreadable`, by their place."""

    def __init__(self, slide: Slide, scale: float, turn: Callable[[int], AbstractContextManager]):
        self.unreadable: dict[Box, UnreadableImageError] = {}
        self._slide, self._scale, self._turn = slide, scale, turn

    def at(self, field: SlideField) -> np.ndarray | None:
        """The green channel of the core of a field, uint8."""
        x0, y0, x1, y1 = field.core
        # What is decoded for it: a level of the pyramid may be finer.
        finest = max((own for own in self._slide.scales if own <= 1.05 * self._scale), default=1.0)
        with self._turn(round((x1 - x0) * (y1 - y0) / finest**2)):
            try:
                return np.asarray(self._slide.read(x0, y0, x1 - x0, y1 - y0, self._scale))[:, :, 1]
            except UnreadableImageError as error:
                self.unreadable[field.core] = error
                return None


def _lay_grid(slide: Slide, pixel_size: float, field_size: tuple[int, int]) -> list[SlideField]:
    """All fields of a slide, row by row; their cores leave no gap and do not overlap."""
    cores = (_scale_of(pixel_size) * side - 2 * _half_overlap(pixel_size) for side in field_size)
    xs, ys = (_edges(side, core) for side, core in zip(slide.size, cores, strict=True))
    return [lay_field(slide, pixel_size, (x0, y0, x1, y1), 0) for y0, y1 in pairwise(ys) for x0, x1 in pairwise(xs)]


def lay_field(slide: Slide, pixel_size: float, core: Box, number: int) -> SlideField:
    """The field with this core: how far it reaches beyond it, and at what scale it is read.

    Args:
        slide: An open slide.
        pixel_size: Width of a pixel of the slide in µm.
        core: In pixels of the slide.
        number: Of the field.
    """
    (x0, y0, x1, y1), half, scale = core, _half_overlap(pixel_size), _scale_of(pixel_size)
    frame = max(0, x0 - half), max(0, y0 - half), min(slide.size[0], x1 + half), min(slide.size[1], y1 + half)
    return SlideField(slide, number, core, frame, scale, scale * pixel_size)


def _scale_of(pixel_size: float) -> float:
    return float(np.clip(pixel_size, _FINEST, _COARSEST)) / pixel_size


def _half_overlap(pixel_size: float) -> int:
    """In whole pixels, so that where a field lies is exact."""
    return round(_OVERLAP / 2 / pixel_size)


def _edges(length: int, longest: float) -> list[int]:
    """Cut a length into equal pieces, none longer than that: their ends in whole pixels, from 0."""
    pieces = math.ceil(length / longest)
    return [round(index * length / pieces) for index in range(pieces + 1)]


def _densities(green: np.ndarray, white: float) -> np.ndarray:
    """Optical density in relation to bare glass, float32, 0 and more."""
    table = np.maximum(-np.log((np.arange(256, dtype=np.float32) + 1) / (white + 1)), 0)
    return cv2.LUT(green, table)


def _measure_light(looks: Sequence[np.ndarray]) -> _Light | None:
    """Measure bare glass, and how dark one layer of cells is; None where no field shows both."""
    # White is what whole fields of glass and the gaps between cells share; a scanner's own white border is whiter.
    whites = [float(np.percentile(look, 97)) for look in looks if look.std() > 3]
    if not whites:
        return None
    white = float(np.percentile(whites, 75))
    layers = []
    for look in looks:
        density = _densities(look, white)
        bare, stained = (density < _BARE).mean(), (density > _STAINED).mean()
        if bare >= _SHARE_OF_BOTH and stained >= _SHARE_OF_BOTH:
            layers.append(float(np.median(density[density > _otsu(density)])))
    if not layers:
        return None
    # The thick part shows glass too, at its border and round leucocytes, and is darker.
    return _Light(white, float(np.percentile(layers, 25)))


def _otsu(values: np.ndarray) -> float:
    """The threshold between two groups of values (Otsu 1979); the darkest, such as nuclei and ink, do not move it."""
    values = np.minimum(values, np.percentile(values, 98))
    top = float(values.max()) or 1.0
    levels = np.round(values / top * 255).astype(np.uint8)
    return cv2.threshold(levels.reshape(1, -1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0] / 255 * top


def _is_monolayer(look: np.ndarray, light: _Light) -> bool:
    """Judge a field by its green channel at low power."""
    density = _densities(look, light.white)
    cells = (density > light.layer / 2).astype(np.uint8)
    cover = cells.mean()
    if not _COVER[0] <= cover <= _COVER[1]:
        return False
    if (density > _DARK * light.layer).sum() > _OVERLAPPING * cells.sum():
        return False
    parts = [max(1, round(side * LOW_POWER / _PART)) for side in cells.shape[::-1]]
    of_parts = cv2.resize(cells.astype(np.float32), parts, interpolation=cv2.INTER_AREA)
    if of_parts.min() < _COVER_OF_PART[0] or of_parts.max() > _COVER_OF_PART[1]:
        return False
    return _widest(1 - cells) <= _GAP / LOW_POWER and _widest(cells) <= _DISC / LOW_POWER


def _widest(mask: np.ndarray) -> float:
    """Radius of the largest disc in a mask, in pixels; its border counts as outside of nothing."""
    around = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    return float(cv2.distanceTransform(around, cv2.DIST_L2, 3).max())


def _coherent(grid: Sequence[SlideField], good: Sequence[bool]) -> list[SlideField]:
    """Those of the good fields that have two good ones around them: the monolayer is a part, not a place."""
    columns = sum(field.core[1] == grid[0].core[1] for field in grid)
    map_ = np.array(good, np.uint8).reshape(-1, columns)
    around = cv2.filter2D(map_, -1, np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT) - map_
    kept = (map_ == 1) & (around >= 2)
    return [field for field, keep in zip(grid, kept.ravel(), strict=True) if keep]


# ---- the size of a pixel


def _measure_pixel_size(slide: Slide) -> float:
    """Measure how wide a pixel is in µm by the red cells that lie alone."""
    widths = []
    for green in _patches(slide):
        widths += _red_cell_widths(green)
    if len(widths) < _LEAST_RED_CELLS:
        raise UnreadableImageError(
            slide.name,
            "does not say how wide a pixel is, and shows too few single red cells to measure it by. Export it with "
            "its resolution (micrometres per pixel)",
        )
    return _RED_CELL / float(np.median(widths))


def _patches(slide: Slide) -> Iterator[np.ndarray]:
    """The green channel of small parts, evenly over the slide."""
    wide, high = slide.size
    across = max(1, round((_SAMPLE * wide / high) ** 0.5))
    down = max(1, _SAMPLE // across)
    for row in range(down):
        for column in range(across):
            x, y = (column + 0.5) / across * wide - _PATCH / 2, (row + 0.5) / down * high - _PATCH / 2
            try:
                yield np.asarray(slide.read(x, y, _PATCH, _PATCH, 1))[:, :, 1]
            except UnreadableImageError:
                continue  # the look says where it cannot be read


def _red_cell_widths(green: np.ndarray) -> list[float]:
    """Diameters in pixels of round things that touch nothing else; [] of what is too even or too crowded."""
    density = cv2.GaussianBlur(_densities(green, float(np.percentile(green, 97))), (0, 0), 1.5)
    mask = (density > _otsu(density)).astype(np.uint8)
    if not 0.08 < mask.mean() < 0.85 or np.median(density[mask == 1]) < _STAINED:
        return []
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    widths = []
    for contour in contours:
        x, y, wide, high = cv2.boundingRect(contour)
        inside = x > 0 and y > 0 and x + wide < mask.shape[1] and y + high < mask.shape[0]
        area, hull = cv2.contourArea(contour), cv2.contourArea(cv2.convexHull(contour))
        if inside and min(wide, high) >= 6 and max(wide, high) < 1.4 * min(wide, high) and area > 0.93 * hull:
            widths.append(2 * (area / np.pi) ** 0.5)
    if not widths:
        return []
    # Platelets and specks are many and small; red cells are what most of the covered area consists of.
    areas = np.sort(np.square(widths))
    typical = areas[np.searchsorted(areas.cumsum(), areas.sum() / 2)] ** 0.5
    return [width for width in widths if 0.6 * typical < width < 1.5 * typical]
