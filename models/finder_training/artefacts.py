"""Artefacts: what photographs of smears show that is not smear, drawn for training and testing the finder.

Frames, round eyepiece views, vignettes, banners with text, scale bars, arrows, boxes and pen marks in any colour, and
whole pictures without any smear: documents, noise, plain colours and drawn scenes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps

import cv2
import numpy as np

_WORDS = [
    *("Patient", "Smear", "WBC", "100x", "10", "µm", "Slide", "Lab", "No", "Date", "2024", "Neutrophil", "Diff"),
    *("Field", "Giemsa", "CONFIDENTIAL", "oil"),
]
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX)


@dataclass(frozen=True)
class Altered:
    """A field with an artefact.

    Attributes:
        image: RGB uint8 (height, width, 3); frames make it larger.
        hidden: bool (height, width): pixels that no longer show the field.
        offset: Where the upper left corner of the field lies in it: x, y in pixels.
    """

    image: np.ndarray
    hidden: np.ndarray
    offset: tuple[int, int] = (0, 0)


Artefact = Callable[[np.ndarray, np.random.Generator], Altered]


def _drawn(draw: Callable[[np.ndarray, np.random.Generator, tuple[int, ...]], None]) -> Artefact:
    """Make an artefact of what draws upon an image in a given colour: a black, white, pen's or any other one."""

    @wraps(draw)
    def alter(field: np.ndarray, rng: np.random.Generator) -> Altered:
        image = field.copy()
        draw(image, rng, _ink(rng))
        return Altered(image, (image != field).any(2))

    return alter


def frame(field: np.ndarray, rng: np.random.Generator, colour: Sequence[int] | None = None) -> Altered:
    """A frame of 2 to 20 % of the shorter side, by default in any colour, as of slides and documents."""
    colour = rng.integers(0, 256, 3).tolist() if colour is None else colour
    sides = (rng.uniform(0.02, 0.2, 4) * min(field.shape[:2])).astype(int)
    if rng.random() < 0.5:
        sides[:] = sides[0]
    elif rng.random() < 0.3:
        sides[rng.integers(0, 2) * 2 :][:2] = 0
    top, bottom, left, right = sides.tolist()
    image = cv2.copyMakeBorder(field, top, bottom, left, right, cv2.BORDER_CONSTANT, value=colour)
    hidden = np.ones(image.shape[:2], bool)
    hidden[top : top + field.shape[0], left : left + field.shape[1]] = False
    return Altered(image, hidden, (left, top))


def eyepiece(field: np.ndarray, rng: np.random.Generator) -> Altered:
    """The round view through an eyepiece, black outside."""
    height, width = field.shape[:2]
    radius = rng.uniform(0.31, 0.47) * np.hypot(height, width)
    centre = np.array([width, height]) * (0.5 + rng.uniform(-0.06, 0.06, 2))
    y, x = np.ogrid[:height, :width]
    distance = np.hypot(x - centre[0], y - centre[1]) - radius
    softness = rng.uniform(1, 0.04 * width)
    light = np.clip(0.5 - distance / softness, 0, 1)[..., None]
    dark = rng.integers(0, 30)
    return Altered((field * light + dark * (1 - light)).astype(np.uint8), light[..., 0] < 0.3)


def vignette(field: np.ndarray, rng: np.random.Generator) -> Altered:
    """Light that falls off or changes colour towards the corners."""
    height, width = field.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    centre = rng.uniform(-0.3, 0.3, 2)
    fall = np.clip(np.hypot(x - centre[0], y - centre[1]) / 1.4, 0, 1.2) ** rng.uniform(1, 3)
    strength = rng.uniform(0.1, 0.6) * np.clip(1 + rng.uniform(-0.6, 0.6, 3), 0.2, None)
    shade = 1 - np.clip(strength, 0, 0.85) * fall[..., None]
    return Altered(np.clip(field * shade, 0, 255).astype(np.uint8), np.zeros((height, width), bool))


def banner(field: np.ndarray, rng: np.random.Generator) -> Altered:
    """A strip with text along the upper or lower edge."""
    image, hidden = field.copy(), np.zeros(field.shape[:2], bool)
    height = max(8, int(rng.uniform(0.04, 0.12) * len(field)))
    rows = slice(0, height) if rng.random() < 0.5 else slice(len(field) - height, len(field))
    image[rows] = rng.choice([0, 255, 30, 220]) if rng.random() < 0.7 else rng.integers(0, 256, 3)
    ink = 255 - image[rows][0, 0].astype(int)
    _text(image, rng, (int(rng.uniform(0, 0.5) * field.shape[1]), rows.stop - height // 4), height / 40, ink.tolist())
    hidden[rows] = True
    return Altered(image, hidden)


@_drawn
def caption(image: np.ndarray, rng: np.random.Generator, colour: tuple[int, ...]) -> None:
    """Words upon the field in any colour."""
    for _ in range(rng.integers(1, 4)):
        place = (rng.uniform(0, 0.8, 2) * image.shape[1::-1] + 10).astype(int).tolist()
        _text(image, rng, place, rng.uniform(0.3, 1.4) * len(image) / 480, colour)


@_drawn
def scale_bar(image: np.ndarray, rng: np.random.Generator, colour: tuple[int, ...]) -> None:
    """A scale bar with its length."""
    height, width = image.shape[:2]
    x, y = int(rng.uniform(0.03, 0.7) * width), int(rng.choice([0.06, 0.94]) * height)
    end = min(width - 2, x + int(rng.uniform(0.08, 0.3) * width))
    cv2.line(image, (x, y), (end, y), colour, max(1, int(rng.uniform(0.004, 0.015) * height)))
    _text(image, rng, (x, y - 6 if y > height / 2 else y + 18), height / 960, colour)


@_drawn
def arrows(image: np.ndarray, rng: np.random.Generator, colour: tuple[int, ...]) -> None:
    """One to four arrows."""
    size = np.array(image.shape[1::-1])
    for _ in range(rng.integers(1, 5)):
        start = rng.uniform(0.05, 0.95, 2) * size
        end = start + rng.uniform(-0.2, 0.2, 2) * size
        width = max(1, int(rng.uniform(0.003, 0.014) * len(image)))
        cv2.arrowedLine(image, _point(start), _point(end), colour, width, tipLength=rng.uniform(0.15, 0.4))


@_drawn
def drawn_boxes(image: np.ndarray, rng: np.random.Generator, colour: tuple[int, ...]) -> None:
    """Rectangles and circles, as programs and people draw them round cells."""
    size = np.array(image.shape[1::-1])
    for _ in range(rng.integers(1, 5)):
        corner, side = rng.uniform(0, 0.8, 2) * size, rng.uniform(0.1, 0.35, 2) * size
        width = max(1, int(rng.uniform(0.002, 0.012) * len(image)))
        if rng.random() < 0.6:
            cv2.rectangle(image, _point(corner), _point(corner + side), colour, width)
        else:
            cv2.ellipse(image, _point(corner + side / 2), _point(side / 2), 0, 0, 360, colour, width)


def pen_marks(field: np.ndarray, rng: np.random.Generator) -> Altered:
    """Strokes of a felt pen on the glass: broad, curved, half transparent at their edges."""
    strokes = np.zeros(field.shape[:2], np.uint8)
    size = np.array(field.shape[1::-1])
    for _ in range(rng.integers(1, 4)):
        points = np.cumsum(np.vstack([rng.uniform(0, 1, 2) * size, rng.normal(0, 0.18, (5, 2)) * size]), axis=0)
        curve = cv2.resize(points.astype(np.float32)[:, None], (1, 60), interpolation=cv2.INTER_CUBIC)
        cv2.polylines(strokes, [curve.astype(np.int32)], False, 255, max(2, int(rng.uniform(0.01, 0.05) * len(field))))
    colour = np.array(_ink(rng))
    cover = cv2.GaussianBlur(strokes, (0, 0), rng.uniform(0.5, 4)).astype(np.float32)[..., None] / 255
    cover *= rng.uniform(0.7, 1)
    return Altered((field * (1 - cover) + colour * cover).astype(np.uint8), strokes > 0)


ARTEFACTS: dict[str, Artefact] = {
    "white frame": partial(frame, colour=(255, 255, 255)),
    "black frame": partial(frame, colour=(0, 0, 0)),  # as letter boxes and camera software make it
    "coloured frame": frame,
    "eyepiece": eyepiece,
    "vignette": vignette,
    "banner": banner,
    "caption": caption,
    "scale bar": scale_bar,
    "arrows": arrows,
    "drawn boxes": drawn_boxes,
    "pen": pen_marks,
}


def _ink(rng: np.random.Generator) -> tuple[int, ...]:
    """Black, white, the inks of pens, or any colour."""
    inks = ((0, 0, 0), (255, 255, 255), (200, 20, 30), (20, 30, 160), (90, 20, 130), (0, 120, 60), (255, 230, 0))
    return inks[rng.integers(len(inks))] if rng.random() < 0.7 else tuple(rng.integers(0, 256, 3).tolist())


def _text(
    image: np.ndarray, rng: np.random.Generator, place: tuple[int, int], scale: float, colour: tuple[int, ...]
) -> None:
    words = " ".join(rng.choice(_WORDS, rng.integers(1, 5)))
    font = _FONTS[rng.integers(len(_FONTS))]
    cv2.putText(image, words, tuple(place), font, max(0.25, scale), colour, max(1, round(2 * scale)), cv2.LINE_AA)


def _point(values: np.ndarray) -> tuple[int, int]:
    return int(values[0]), int(values[1])


# ---- pictures without a smear


def document(rng: np.random.Generator, height: int = 480, width: int = 640) -> np.ndarray:
    """Lines of text, with blocks and rules, on paper: RGB uint8 (height, width, 3)."""
    image = np.full((height, width, 3), rng.integers(200, 256, 3), np.uint8)
    ink = rng.integers(0, 110, 3).tolist()
    scale, y = rng.uniform(0.3, 1.2), 0.0
    while y < height:
        y += 30 * scale * rng.uniform(0.9, 1.6)
        for x in range(int(rng.integers(5, 40)), width, int(170 * scale) + 1):
            if rng.random() < 0.85:
                _text(image, rng, (x, int(y)), scale, ink)
        if rng.random() < 0.1:
            cv2.rectangle(image, (20, int(y)), (width - 20, int(y + 60)), _ink(rng), int(rng.choice([-1, 1, 2])))
            y += 70
    return image


def noise(rng: np.random.Generator, height: int = 480, width: int = 640) -> np.ndarray:
    """Grey or coloured noise of any grain: RGB uint8 (height, width, 3)."""
    grain = int(2 ** rng.uniform(0, 6))
    channels = int(rng.choice([1, 3]))
    small = rng.normal(rng.uniform(60, 200), rng.uniform(20, 80), (height // grain + 2, width // grain + 2, channels))
    values = cv2.resize(small, (width, height), interpolation=int(rng.choice([cv2.INTER_NEAREST, cv2.INTER_CUBIC])))
    grey = np.clip(values.reshape(height, width, -1), 0, 255).astype(np.uint8)
    return np.broadcast_to(grey, (height, width, 3)).copy()


def plain_colour(rng: np.random.Generator, height: int = 480, width: int = 640) -> np.ndarray:
    """One colour, or a gradient of two: RGB uint8 (height, width, 3)."""
    first, second = rng.integers(0, 256, (2, 3))
    ramp = np.linspace(0, 1, width)[None, :, None] * (rng.random() < 0.5)
    return np.broadcast_to((first * (1 - ramp) + second * ramp).astype(np.uint8), (height, width, 3)).copy()


def scene(rng: np.random.Generator, height: int = 480, width: int = 640) -> np.ndarray:
    """Rectangles, discs, triangles and lines in all colours, blurred or not: RGB uint8 (height, width, 3)."""
    image = plain_colour(rng, height, width)
    size = np.array([width, height])
    for _ in range(rng.integers(3, 60)):
        colour = rng.integers(0, 256, 3).tolist()
        corner, side = rng.uniform(-0.1, 1, 2) * size, rng.uniform(0.02, 0.4, 2) * size
        kind = rng.integers(4)
        if kind == 0:
            cv2.rectangle(image, _point(corner), _point(corner + side), colour, -1)
        elif kind == 1:
            radii = side / 2 if rng.random() < 0.5 else np.repeat(side.min() / 2, 2)
            cv2.ellipse(image, _point(corner), _point(radii), float(rng.uniform(0, 180)), 0, 360, colour, -1)
        elif kind == 2:
            cv2.fillPoly(image, [(corner + rng.uniform(-0.5, 0.5, (3, 2)) * side).astype(np.int32)], colour)
        else:
            cv2.line(image, _point(corner), _point(corner + side), colour, int(rng.integers(1, 12)))
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 4)) if rng.random() < 0.7 else image


NOT_SMEAR: dict[str, Callable[..., np.ndarray]] = {
    "documents": document,
    "noise": noise,
    "plain colours": plain_colour,
    "drawn scenes": scene,
}
