"""Paint stained leucocytes, one by one or as whole fields of a smear, for the demonstration and the tests.

The painter models a May-Grünwald-Giemsa smear: the parts of cells take up four stains, the light that passes is
`white * exp(-absorbance)` (Beer-Lambert), and a camera with its own focus, colours and noise records it. Lengths are
micrometres, amounts of stain have no unit. The ranges were chosen by eye beside real smears, so that the five types
differ as they do in a laboratory. Figures measured on painted cells say nothing about real ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np

from wbc_hf.labels import CLASS_NAMES

MIN_SIZE, MAX_SIZE = 16, 1024
MAX_LOBES, MAX_GRANULES, MAX_VACUOLES = 5, 420, 10
ROUNDING = 0.5  # of the creases between lobes, µm
GOLDEN_ANGLE = np.pi * (3 - 5**0.5)
CHUNK_PIXELS = 2**17  # painted at once: bounds the memory and keeps the maps in the processor's cache
FIELD_SCALE = 7.5  # pixels per µm of a field of 640 x 480: a neutrophil is about 90 px across
MAX_COVER = 0.36  # share of a field that the squares round its leucocytes may take before it is scaled down

Range = tuple[float, float]
Table = dict[str, np.ndarray]  # one value per cell or per image under each name
Row = dict[str, np.float32]  # of one image


class Stain(IntEnum):
    """Rows of `ABSORBANCE`."""

    CHROMATIN = 0  # azure B bound to DNA together with eosin: the Romanowsky purple
    AZURE = 1  # azure B bound to RNA: blue cytoplasm
    EOSIN = 2  # salmon to orange-red
    HAEMOGLOBIN = 3  # with the eosin that it binds


# Absorbance of red, green and blue light by one unit of each stain.
ABSORBANCE = np.array([[1.12, 1.72, 0.43], [0.66, 0.56, 0.14], [0.17, 0.76, 0.62], [0.20, 0.34, 0.33]], np.float32)

# fmt: off
# Morphology of each type, each as (lowest, highest); the columns are in the order of `CLASS_NAMES`.
MORPHOLOGY: dict[str, tuple[Range, ...]] = {
    #                 basophil      eosinophil    lymphocyte    monocyte      neutrophil
    "radius":         ((5.0, 6.3),  (5.6, 6.8),   (3.8, 5.2),   (6.5, 8.5),   (5.5, 6.7)),  # of the cell, µm
    "irregularity":   ((0.1, 0.4),  (0.1, 0.35),  (0.1, 0.4),   (0.2, 0.8),   (0.1, 0.35)),  # of its outline, µm
    "nucleus":        ((0.42, 0.6), (0.3, 0.42),  (0.62, 0.86), (0.42, 0.58), (0.3, 0.4)),  # share of the cell
    # A nucleus is a bent chain of lobes; those of a round or folded one overlap.
    "lobes":          ((3, 4.99),   (4, 4.3),     (2, 2),       (3, 4.99),    (3, 5.99)),
    "paired":         ((0, 1),      (1, 1),       (0, 0),       (0, 0),       (0, 1)),  # > 0.5: each two merge
    "spacing":        ((0.9, 1.4),  (1.75, 2.1),  (0.05, 0.35), (0.6, 1.0),   (1.4, 1.9)),  # of lobes, in lobe radii
    "turn":           ((0.5, 1.4),  (0.4, 1.0),   (0, 1),       (0.7, 1.5),   (0.7, 1.4)),  # at each lobe, radians
    "pinch":          ((0.1, 0.4),  (0.75, 0.95), (0, 0.06),    (0, 0.2),     (0.5, 0.95)),  # of bridges: 1 = parted
    "creases":        ((0.1, 0.3),  (0.1, 0.3),   (0.05, 0.2),  (0.2, 0.45),  (0.12, 0.3)),  # of its outline, µm
    "chromatin":      ((0.6, 0.85), (0.9, 1.05),  (1.0, 1.2),   (0.75, 0.95), (0.95, 1.15)),  # amount of stain
    "gaps":           ((0.1, 0.3),  (0.3, 0.5),   (0.15, 0.35), (0.3, 0.5),   (0.3, 0.5)),  # how much paler they are
    "azure":          ((0.05, 0.2), (0.1, 0.3),   (0.4, 0.9),   (0.35, 0.7),  (0.02, 0.12)),  # blue of the cytoplasm
    "eosin":          ((0.1, 0.35), (0.1, 0.2),   (0, 0.04),    (0.04, 0.12), (0.1, 0.25)),  # pink of the cytoplasm
    "granules":       ((150, 400),  (300, 420),   (0, 6),       (150, 400),   (200, 420)),  # how many
    "granule_radius": ((0.16, 0.3), (0.24, 0.32), (0.12, 0.2),  (0.08, 0.14), (0.07, 0.13)),  # µm
    "granule_chaos":  ((2, 8),      (0.5, 2),    (5, 10),      (5, 10),      (5, 10)),  # 0 = evenly packed
    "granule_stain":  ((0.9, 1.4),  (0.6, 0.9),   (0.3, 0.6),   (0.15, 0.4),  (0.4, 0.9)),  # amount in each
    "vacuoles":       ((0, 7),      (0, 8),       (0, 7),       (0, 15),      (0, 7)),  # how many more than 5
}
# Stains of a granule, in the order of `Stain`.
GRANULE_STAINS = np.array([(0.9, 0.3, 0.1, 0), (0.04, 0, 1, 0), (0.6, 0, 0.4, 0), (0.6, 0.2, 0, 0), (0.4, 0, 0.5, 0)])
BASOPHIL = CLASS_NAMES.index("basophil")

# How one smear was stained and photographed, each as (lowest, highest).
SMEAR: dict[str, Range] = {
    "red": (0.80, 1.0),  # of the background as the camera renders it, 1 = 255
    "blue": (0.74, 1.05),  # in relation to red
    "green": (0.98, 1.08),  # in relation to the mean of red and blue
    "shade": (0.003, 0.02),  # unevenness of the light, in relation to white
    "chromatin": (0.5, 1.15),  # strength of each stain
    "azure": (0.6, 1.2),
    "eosin": (0.6, 1.2),
    "haemoglobin": (0.7, 1.4),
    "hue": (-0.2, 0.17),  # absorbance of the leucocytes shifted from blue to red light
    "red_cell_hue": (-0.35, 0.2),  # the same for red cells: from orange-brown to greyish mauve
    "focus": (-1.0, 0.7),  # below 0 out of focus, above 0 sharpened by the camera
    "noise": (0.002, 0.012),  # standard deviation in relation to white
    "red_cell_radius": (3.5, 4.5),  # µm
    "crowding": (6.8, 10.5),  # mean distance between red cells, µm
    "disorder": (0.2, 0.6),  # of the red cells, in mean distances
    "empty": (0.05, 0.4),  # share of places without a red cell
    "pallor": (0.3, 0.9),  # how much thinner red cells are in the middle
    "platelets": (0, 2.2),  # per 1000 µm²
}
# fmt: on


@dataclass(frozen=True)
class PaintedField:
    """One painted field.

    Attributes:
        image: RGB (height, width, 3) uint8.
        boxes: (k, 4) int32: x0, y0, x1, y1 in pixels round each whole leucocyte, half-open, clipped to the image.
        labels: (k,) int64, indices into `CLASS_NAMES`.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Squares:
    """n square pieces of a smear with a leucocyte on each."""

    pixels: int  # along each side
    side: np.ndarray  # (n,) in µm
    centres: np.ndarray  # (n, 2): x and y of the leucocytes from the middle of their squares in µm


def paint_cells(labels: Sequence[int] | np.ndarray, size: int = 128, seed: int = 0) -> np.ndarray:
    """Paint one leucocyte per label, roughly centred among its red cells.

    Image i depends on i, its label, size and seed alone. Two calls with one seed paint the same smears, whatever the
    labels: give each call its own seed.

    Args:
        labels: (n,) indices into `CLASS_NAMES`.
        size: Side of the images in pixels, 16 to 1024.
        seed: Random seed, not negative.

    Returns:
        RGB (n, size, size, 3) uint8.

    Raises:
        ValueError: A label, the size or the seed is outside its range.
    """
    labels = _checked(labels, seed, size=size)
    images = np.empty((len(labels), size, size, 3), np.uint8)
    chunk = max(1, CHUNK_PIXELS // size**2)
    for start in range(0, len(labels), chunk):
        part = slice(start, min(start + chunk, len(labels)))
        images[part] = _paint_chunk(labels[part], size, _streams(seed, part.start, part.stop))
    return images


def paint_field(
    labels: Sequence[int] | np.ndarray, width: int = 640, height: int = 480, seed: int = 0
) -> PaintedField:
    """Paint a field with one leucocyte per label among dozens of red cells.

    At 640 x 480 leucocytes are about 90 px across, smaller where many must fit. Some touch, some are cut off.

    Args:
        labels: (k,) indices into `CLASS_NAMES`.
        width, height: Of the image in pixels, 16 to 1024.
        seed: Random seed, not negative.

    Raises:
        ValueError: A label, the width, the height or the seed is outside its range.
    """
    labels = _checked(labels, seed, width=width, height=height)
    (rng,) = _streams(seed, 2**32, 2**32 + 1)
    rngs = _streams(seed, 0, len(labels))
    smear = draw_smear([rng])
    cells = draw_leucocytes(labels, rngs)
    centres, scale = _place_leucocytes(cells["radius"], width, height, rng)

    pixels = int(3 * cells["radius"].max(initial=1) * scale) + 4
    corners = np.floor(centres * scale - pixels / 2).astype(int)
    offsets = centres - (corners + pixels / 2) / scale
    squares = Squares(pixels, np.full(len(labels), pixels / scale), offsets)
    stains, bodies = stain_leucocytes(cells, rngs, squares)
    # With a margin, so that a cell on the border needs no special case.
    field = np.zeros((len(Stain), height + 2 * pixels, width + 2 * pixels), np.float32)
    covered = np.zeros(field.shape[1:], np.float32)
    boxes = np.zeros((len(labels), 4), np.int32)
    for index, (column, row) in enumerate(corners + pixels):
        here = slice(row, row + pixels), slice(column, column + pixels)
        field[:, *here] += stains[index]
        covered[here] += bodies[index]
        left, top, wide, high = cv2.boundingRect((bodies[index] > 0.5).astype(np.uint8))
        boxes[index] = np.array([left, top, left + wide, top + high]) + np.tile(corners[index], 2)
    inner = slice(pixels, pixels + height), slice(pixels, pixels + width)
    leucocytes = np.column_stack([centres, cells["radius"]])
    around = _stain_surroundings(rng, _row(smear, 0), (width, height), scale, leucocytes)
    field = field[:, *inner] + around * np.maximum(1 - covered[inner], 0)
    image = photograph(field[None], smear, [rng], np.array([scale]))[0]
    return PaintedField(image, np.clip(boxes, 0, (width, height, width, height), dtype=np.int32), labels)


def _checked(labels: Sequence[int] | np.ndarray, seed: int, **lengths: int) -> np.ndarray:
    """The labels as (n,) int64. Raises ValueError for what cannot be painted."""
    for name, pixels in lengths.items():
        if not MIN_SIZE <= pixels <= MAX_SIZE:
            raise ValueError(f"{name} must be {MIN_SIZE} to {MAX_SIZE} pixels, got {pixels}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    labels = np.asarray(labels, np.int64 if len(labels) == 0 else None)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be one row of integers, got shape {labels.shape} of {labels.dtype}")
    wrong = labels[(labels < 0) | (labels >= len(CLASS_NAMES))]
    if wrong.size:
        raise ValueError(f"label {wrong[0]} names no class; allowed are 0 to {len(CLASS_NAMES) - 1}: {CLASS_NAMES}")
    return labels.astype(np.int64)


def _streams(seed: int, start: int, stop: int) -> list[np.random.Generator]:
    """One random stream per image, so that neither the batch nor the chunk changes what an image looks like."""
    return [np.random.default_rng([seed, index]) for index in range(start, stop)]


def _paint_chunk(labels: np.ndarray, size: int, rngs: list[np.random.Generator]) -> np.ndarray:
    """(n,) labels and their random streams → RGB (n, size, size, 3) uint8."""
    cells = draw_leucocytes(labels, rngs)
    smear = draw_smear(rngs)
    uniform = _uniform(rngs, 3)
    # From tight crops of boxes round leucocytes to the wide ones of an analyser.
    side = np.maximum(2.3 * cells["radius"], 16 * 2 ** uniform[:, 0])
    centres = (uniform[:, 1:] - 0.5) * 0.08 * side[:, None]
    stains, bodies = stain_leucocytes(cells, rngs, Squares(size, side, centres))
    for index, rng in enumerate(rngs):
        leucocyte = np.array([[*centres[index] + side[index] / 2, cells["radius"][index]]])
        around = _stain_surroundings(rng, _row(smear, index), (size, size), float(size / side[index]), leucocyte)
        stains[index] += around * (1 - bodies[index])
    return photograph(stains, smear, rngs, size / side)


def _uniform(rngs: list[np.random.Generator], *shape: int) -> np.ndarray:
    """(n, *shape) float32, 0 to 1."""
    return np.array([rng.random(shape, np.float32) for rng in rngs], np.float32).reshape(-1, *shape)


def _row(table: Table, index: int) -> Row:
    return {name: values[index] for name, values in table.items()}


def draw_smear(rngs: list[np.random.Generator]) -> Table:
    """A value within each range of `SMEAR` for each of n images, (n,)."""
    low, high = np.array(list(SMEAR.values()), np.float32).T[..., None]
    return dict(zip(SMEAR, low + (high - low) * _uniform(rngs, len(SMEAR)).T, strict=True))


def draw_leucocytes(labels: np.ndarray, rngs: list[np.random.Generator]) -> Table:
    """A value within each range of `MORPHOLOGY` for each of n cells, (n,), and where the parts of the cells lie."""
    low, high = np.moveaxis(np.array(list(MORPHOLOGY.values()), np.float32)[:, labels], -1, 0)
    cells = dict(zip(MORPHOLOGY, low + _uniform(rngs, len(MORPHOLOGY)).T * (high - low), strict=True))
    cells["granule_stains"] = GRANULE_STAINS[labels].astype(np.float32)
    # Only a basophil's are seen upon the nucleus.
    cells["granules_on_nucleus"] = (labels == BASOPHIL).astype(np.float32)
    cells["granule_places"] = _uniform(rngs, MAX_GRANULES, 3)
    cells["vacuole_places"] = _uniform(rngs, MAX_VACUOLES, 3)
    return cells | _chain_lobes(cells, _uniform(rngs, MAX_LOBES, 4))


def _chain_lobes(cells: Table, uniform: np.ndarray) -> Table:
    """Lay the lobes of each nucleus along a bent chain within the cell; lobes that a cell lacks lie on its last.

    Returns:
        `lobe_radius` (n, 5) and `lobe_centre` (n, 5, 2) in µm, and `bridge_pinch` (n, 4).
    """
    number = np.arange(MAX_LOBES)
    merged = (cells["paired"][:, None] > 0.5) & (number % 2 == 1)
    steps = cells["spacing"][:, None] * np.where(merged, 0.4, 1) * (0.85 + 0.3 * uniform[..., 3])
    steps *= (number > 0) & (number < np.floor(cells["lobes"])[:, None])
    # Lobes that overlap cover less than their sum.
    radius = cells["radius"] * np.sqrt(cells["nucleus"] / (1 + np.minimum(steps / 1.9, 1).sum(axis=1)))
    radii = radius[:, None] * (1 + np.minimum(cells["spacing"], 1)[:, None] * (0.3 * uniform[..., 0] - 0.15))
    turns = cells["turn"][:, None] * (0.6 + 0.8 * uniform[..., 1]) * np.where(uniform[..., 2] < 0.9, 1, -1)
    turns[:, 0] = 2 * np.pi * uniform[:, 0, 1]
    heading = np.cumsum(turns, axis=1)
    steps = (steps * radius[:, None])[..., None] * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    centres = np.cumsum(steps, axis=1)
    centres -= ((centres - radii[..., None]).min(axis=1) + (centres + radii[..., None]).max(axis=1))[:, None] / 2
    # The chain shrinks until it fits into the cell; where there is room to spare it lies off the middle.
    reach, room = (np.hypot(*np.moveaxis(centres, -1, 0)) + radii).max(axis=1), 0.94 * cells["radius"]
    fit = np.minimum(1, room / reach)
    away = 2 * np.pi * uniform[:, 0, 2]
    shift = 0.8 * (room - reach * fit)[:, None] * np.stack([np.cos(away), np.sin(away)], axis=-1)
    return {
        "lobe_radius": (radii * fit[:, None]).astype(np.float32),
        "lobe_centre": (centres * fit[:, None, None] + shift[:, None]).astype(np.float32),
        "bridge_pinch": (cells["pinch"][:, None] * ~merged[:, 1:]).astype(np.float32),
    }


def _soft(distance: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    """0 to 1, rising smoothly from `-width` to `width`, so that no outline is a step. Exactly 0 and 1 beyond."""
    t = distance * (0.5 / width)
    t += 0.5
    np.clip(t, 0, 1, out=t)
    t *= t * (3 - 2 * t)
    return t


def _texture(rngs: list[np.random.Generator], squares: Squares, grain: float) -> np.ndarray:
    """Smooth noise with grains of `grain` µm and a standard deviation of about 0.7: (n, pixels, pixels) float32."""
    maps = np.empty((len(rngs), squares.pixels, squares.pixels), np.float32)
    for texture, rng, side in zip(maps, rngs, squares.side, strict=True):
        grains = max(2, round(side / grain))
        method = cv2.INTER_CUBIC if grains < squares.pixels else cv2.INTER_AREA
        noise = rng.standard_normal((grains, grains), np.float32)
        cv2.resize(noise, (squares.pixels, squares.pixels), dst=texture, interpolation=method)
    return maps


def stain_leucocytes(cells: Table, rngs: list[np.random.Generator], squares: Squares) -> tuple[np.ndarray, np.ndarray]:
    """Amounts of stain (n, 4, pixels, pixels) of n leucocytes and what they cover (n, pixels, pixels), 0 to 1."""
    cell = {name: values[:, None, None] for name, values in cells.items() if values.ndim == 1}
    ruler = (np.arange(squares.pixels, dtype=np.float32) + 0.5) / squares.pixels - 0.5
    x, y = (ruler * squares.side[:, None, None] - squares.centres.T[..., None, None]).astype(np.float32)
    blur = (0.1 + 0.6 * squares.side / squares.pixels).astype(np.float32)[:, None, None]
    y = y.swapaxes(1, 2) + cell["irregularity"] * _texture(rngs, squares, 4)
    x = x + cell["irregularity"] * _texture(rngs, squares, 4)
    clumps = _texture(rngs, squares, 0.4)

    edge = cell["radius"] - np.sqrt(x * x + y * y) + 0.07 * clumps
    body = _soft(edge, blur)
    x += cell["creases"] * _texture(rngs, squares, 1.6)
    y += cell["creases"] * _texture(rngs, squares, 1.6)
    depth = _depth_in_nucleus(cells, x, y)
    nucleus = _soft(depth, blur)
    # Chromatin is evenly dark but for paler gaps, and darkest along the nuclear membrane.
    chromatin = 1 - cell["gaps"] * (np.clip(1.2 * clumps - 0.2, -0.4, 0.9) * _soft(depth - 0.4, 0.4))
    cytoplasm = body * (1 - nucleus) * (1 + 0.13 * clumps)
    granules = _granules(cells, squares) * body
    granules *= cell["granule_stain"] * (1 - nucleus * (1 - cell["granules_on_nucleus"]))

    stains = cells["granule_stains"][:, :, None, None] * granules[:, None]
    stains[:, Stain.CHROMATIN] += cell["chromatin"] * nucleus * chromatin
    stains[:, Stain.AZURE] += cell["azure"] * cytoplasm * (1 + 0.3 * _soft(0.3 - edge, 0.4))
    stains[:, Stain.EOSIN] += cell["eosin"] * cytoplasm + 0.1 * nucleus
    stains *= 1 - 0.85 * _vacuoles(cells, squares)[:, None]
    return stains, body


def _depth_in_nucleus(cells: Table, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How deep each point lies within the nucleus, in µm, negative outside: (n, pixels, pixels)."""
    depth = np.full(x.shape, -99, np.float32)
    for bridge in range(MAX_LOBES - 1):
        some = np.flatnonzero(np.floor(cells["lobes"]) >= bridge + 2)
        radius, following = cells["lobe_radius"][some, bridge : bridge + 2, None, None].swapaxes(0, 1)
        start, end = np.moveaxis(cells["lobe_centre"][some, bridge : bridge + 2, :, None, None], (1, 2), (0, 1))
        along = end - start
        dx, dy = x[some] - start[0], y[some] - start[1]
        t = np.clip((dx * along[0] + dy * along[1]) / (along**2).sum(axis=0), 0, 1)
        dx -= t * along[0]
        dy -= t * along[1]
        thin = t * (1 - t)
        thin *= thin * (16 * cells["bridge_pinch"][some, bridge, None, None])
        inside = (radius + t * (following - radius)) * (1 - thin) - np.sqrt(dx * dx + dy * dy)
        before = depth[some]
        # Where two bridges meet the outline is rounded out, as a lobe is.
        seam = np.maximum(ROUNDING - np.abs(inside - before), 0)
        seam *= seam / (4 * ROUNDING)
        depth[some] = np.maximum(inside, before) + seam
    return depth


def _granules(cells: Table, squares: Squares) -> np.ndarray:
    """Thickness of the granules of each cell, 0 to 1: (n, pixels, pixels)."""
    u, v, w = np.moveaxis(cells["granule_places"], -1, 0)
    number = np.arange(MAX_GRANULES, dtype=np.float32)
    count, chaos = np.round(cells["granules"])[:, None], cells["granule_chaos"][:, None]
    # A sunflower's spiral, more or less disturbed, packs them as they lie in a cell.
    distance = cells["radius"][:, None] * np.sqrt((number + chaos * u) / np.maximum(count, 1))
    angle = number * GOLDEN_ANGLE + 0.5 * chaos * v
    weight = np.where(number < count, 0.3 + 1.2 * w, 0)
    return 1 - np.exp(-1.2 * _spots(distance, angle, weight, cells["granule_radius"], squares))


def _vacuoles(cells: Table, squares: Squares) -> np.ndarray:
    """How far vacuoles empty each cell, 0 to 1: (n, pixels, pixels)."""
    u, v, w = np.moveaxis(cells["vacuole_places"], -1, 0)
    count = np.round(cells["vacuoles"] - 5)[:, None]
    distance, angle = cells["radius"][:, None] * (0.5 + 0.45 * u), 2.5 * v + 6 * w[:, :1]  # on one side of the cell
    weight = np.where(np.arange(MAX_VACUOLES) < count, 0.7 + 0.5 * v, 0)
    return _soft(_spots(distance, angle, weight, 0.25 + 0.3 * w[:, 1], squares) - 0.55, 0.3)


def _spots(
    distance: np.ndarray, angle: np.ndarray, weight: np.ndarray, radius: np.ndarray, squares: Squares
) -> np.ndarray:
    """Add up m soft round spots per cell at polar places (n, m) in µm, of one radius (n,): (n, pixels, pixels)."""
    size, scale = squares.pixels, squares.pixels / squares.side
    x = (distance * np.cos(angle) + squares.centres[:, :1]) * scale[:, None] + size / 2 - 0.5
    y = (distance * np.sin(angle) + squares.centres[:, 1:]) * scale[:, None] + size / 2 - 0.5
    cell, spot = np.nonzero((weight > 0) & (x >= 0) & (y >= 0) & (x < size - 1) & (y < size - 1))
    x, y, weight = x[cell, spot], y[cell, spot], weight[cell, spot]
    column, row = x.astype(int), y.astype(int)
    maps = np.zeros((len(scale), size, size), np.float32)
    for right, below in ((0, 0), (1, 0), (0, 1), (1, 1)):
        share = weight * np.abs(1 - right - x + column) * np.abs(1 - below - y + row)
        np.add.at(maps, (cell, row + below, column + right), share.astype(np.float32))
    for index in np.unique(cell):
        sigma = float(radius[index] * scale[index])
        cv2.GaussianBlur(maps[index], (0, 0), max(0.5, sigma), dst=maps[index])
        maps[index] *= 2 * np.pi * sigma**2  # a spot of weight 1 peaks at 1 and has fallen to 0.6 at its radius
    return maps


def _place_leucocytes(
    radii: np.ndarray, width: int, height: int, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Centres (k, 2) in µm from the upper left corner, and the pixels per µm at which all have a place."""
    scale = FIELD_SCALE * min(width / 640, height / 480) * rng.uniform(0.88, 1.1)
    if len(radii):
        scale = min(scale, np.sqrt(MAX_COVER * width * height / np.sum((2 * radii) ** 2)))
    while (centres := _place_discs(radii, np.array([width, height]) / scale, rng)) is None:
        scale *= 0.95
    return centres, float(scale)


def _place_discs(radii: np.ndarray, extent: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Random centres (k, 2) of discs that do not overlap, the largest first; None where one finds no place."""
    centres = np.zeros((len(radii), 2))
    order = np.argsort(-radii)
    for position, index in enumerate(order):
        tries = radii[index] * 0.8 + rng.random((200, 2)) * (extent - 1.6 * radii[index])
        before = order[:position]
        gaps = np.linalg.norm(tries[:, None] - centres[before], axis=-1) - radii[before] - radii[index]
        free = np.flatnonzero((gaps > -0.3).all(axis=1))
        if not free.size or extent.min() < 1.6 * radii[index]:
            return None
        centres[index] = tries[free[0]]
    return centres


def _stain_surroundings(
    rng: np.random.Generator, smear: Row, shape: tuple[int, int], scale: float, leucocytes: np.ndarray
) -> np.ndarray:
    """Red cells and platelets round leucocytes (k, 3), their x, y and radius in µm: stains (4, *shape[::-1])."""
    stains = np.zeros((len(Stain), *shape[::-1]), np.float32)
    extent = np.array(shape) / scale
    stains[Stain.HAEMOGLOBIN] = draw_discs(_scatter_red_cells(rng, smear, extent, leucocytes), shape, scale)
    platelets = _scatter_platelets(rng, smear, extent)
    if len(platelets):
        grains = rng.standard_normal(np.maximum(extent[::-1] / 0.5, 2).astype(int), np.float32)
        granular = draw_discs(platelets, shape, scale) * (1 + 0.5 * cv2.resize(grains, shape))
        stains[Stain.CHROMATIN], stains[Stain.AZURE] = 0.3 * granular, 0.2 * granular
    return stains


def _scatter_red_cells(rng: np.random.Generator, smear: Row, extent: np.ndarray, leucocytes: np.ndarray) -> np.ndarray:
    """Red cells on a disordered hexagonal lattice, none on a leucocyte: (m, 8) as `draw_discs` takes them."""
    columns, rows = np.ceil(extent / smear["crowding"]).astype(int) + 3
    row, column = np.divmod(np.arange(rows * columns), columns)
    u = rng.random((9, rows * columns), np.float32)
    x = (column + 0.5 * (row % 2) - 1.2 + smear["disorder"] * (2 * u[0] - 1)) * smear["crowding"]
    y = (row - 1.2 + smear["disorder"] * (2 * u[1] - 1)) * smear["crowding"]
    radius = smear["red_cell_radius"] * (0.88 + 0.24 * u[2])
    gap = np.hypot(x[:, None] - leucocytes[:, 0], y[:, None] - leucocytes[:, 1]) - leucocytes[:, 2]
    keep = (u[3] > smear["empty"]) & (gap > 0.75 * radius[:, None]).all(axis=1)
    keep &= (x > -radius) & (y > -radius) & (x < extent[0] + radius) & (y < extent[1] + radius)
    pallor = smear["pallor"] * (0.3 + 0.8 * u[8])
    discs = [x, y, radius, 0.78 + 0.22 * u[4], 2 * np.pi * u[5], 0.07 * u[6], 0.85 + 0.3 * u[7], pallor]
    return np.array(discs, np.float32).T[keep]


def _scatter_platelets(rng: np.random.Generator, smear: Row, extent: np.ndarray) -> np.ndarray:
    """Platelets anywhere: (m, 8) as `draw_discs` takes them."""
    u = rng.random((8, rng.poisson(smear["platelets"] * extent.prod() / 1000)), np.float32)
    discs = [u[0] * extent[0], u[1] * extent[1], 0.8 + 0.7 * u[2], 0.6 + 0.4 * u[3], 7 * u[4], 0.12 * u[5]]
    return np.array([*discs, 0.5 + u[6], -u[7]], np.float32).T


def draw_discs(discs: np.ndarray, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Add up the thickness of m discs, 1 = the rim of one: (height, width).

    Args:
        discs: (m, 8): x, y and radius in µm, aspect, angle, wobble of the outline, thickness, and the share of it that
            is missing in the middle.
    """
    width, height = shape
    places = discs[:, :2].T * scale
    reach = int(1.3 * discs[:, 2].max(initial=0) * scale) + 2
    canvas = np.zeros((height + 4 * reach, width + 4 * reach), np.float32)
    left, top = corners = np.round(places).astype(int)
    ruler = np.arange(-reach, reach) + 0.5
    dx, dy = ((ruler + (corners - places)[..., None]) / scale).astype(np.float32)
    dx, dy = dx[:, None, :], dy[:, :, None]
    radius, aspect, angle, wobble, thickness, pallor = discs[:, 2:].T[..., None, None]
    along, across = (dx * np.cos(angle) + dy * np.sin(angle)) / aspect, dy * np.cos(angle) - dx * np.sin(angle)
    r = np.sqrt(along * along + across * across) + np.float32(1e-6)
    c = along / r
    r *= (1 + wobble * (c * (4 * c * c - 3) + 1.5 * c * across / r * (1 - 2 * c * c))) / radius
    profile = _soft(1 - r, 0.03 + 0.6 / (radius * scale)) * thickness
    profile *= (0.85 + 0.1 * c * r + 0.2 * r * r) * (1 - pallor * _soft(0.42 + 0.1 * c - r, 0.22))
    for disc, column, row in zip(profile, left + reach, top + reach, strict=True):
        canvas[row : row + 2 * reach, column : column + 2 * reach] += disc
    return canvas[2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]


def photograph(stains: np.ndarray, smear: Table, rngs: list[np.random.Generator], scale: np.ndarray) -> np.ndarray:
    """Amounts of stain (n, 4, height, width) → RGB (n, height, width, 3) uint8."""
    n, _, height, width = stains.shape
    hue = smear["hue"]
    # An eosinophil's granules are orange-red on every smear.
    shift = np.stack([hue, hue, 0.3 * hue, smear["red_cell_hue"]], axis=1)[..., None]
    shift = shift * np.array([1, 0, -2], np.float32)
    strength = np.stack([smear[stain.name.lower()] for stain in Stain], axis=1)[..., None]
    absorbance = ABSORBANCE * (1 + shift) * strength
    passing = np.exp(-absorbance.swapaxes(1, 2) @ stains.reshape(n, len(Stain), -1)).reshape(n, 3, height, width)
    red, blue = smear["red"], smear["red"] * smear["blue"]
    white = 255 * np.minimum(np.stack([red, smear["green"] * (red + blue) / 2, blue], axis=1), 1)
    images = np.empty((n, height, width, 3), np.uint8)
    for index, rng in enumerate(rngs):
        one = _row(smear, index)
        shade = cv2.resize(rng.standard_normal((3, 3), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        light = 1 + one["shade"] * shade
        light += one["noise"] * rng.standard_normal((height, width), np.float32)
        picture = cv2.merge(list(passing[index] * white[index][:, None, None]))
        picture += one["focus"] * (picture - cv2.GaussianBlur(picture, (0, 0), max(0.4, 0.3 * float(scale[index]))))
        images[index] = np.clip(picture * light[..., None], 0, 255)
    return images
