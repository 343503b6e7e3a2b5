"""What smears look like elsewhere: other stains and light, debris and damaged red cells, other cameras.

Drawn on photographs and painted fields, for training and testing the finder. What is drawn is never a leucocyte, and
leucocytes stay where they are.
"""

import cv2
import numpy as np

# Optical densities, natural logarithms, of eosin and of the Romanowsky purple in red, green and blue light.
_EOSIN = np.array([0.2, 0.45, 0.4], np.float32)
_PURPLE = np.array([1.0, 1.5, 0.4], np.float32)
# Purple is density in red and in green less twice that in blue.
_TO_PURPLE = np.array([1, 1, -2], np.float32)


def restain(field: np.ndarray, rng: np.random.Generator, shown: np.ndarray | None = None) -> np.ndarray:
    """Change stain and light: red cells and nuclei change their colours apart from each other.

    Red cells become orange, pink, grey, blue-grey or nearly purple, pale or dark; backgrounds white, yellow or lilac;
    the light uneven and coloured.

    Args:
        field: RGB uint8 (height, width, 3).
        rng: How.
        shown: bool (height, width): which pixels show the smear; the others stay. All if None.

    Returns:
        RGB uint8, as large as the field.
    """
    pixels = field.astype(np.float32)
    some = (pixels.reshape(-1, 3) if shown is None else pixels[shown])[:: max(1, field.size // 12000)]
    if len(some) < 50:
        return field
    white = np.maximum(np.quantile(some, 0.95, axis=0), 30)
    density = -np.log(np.clip(pixels, 2, 255) / white)
    if rng.random() < 0.75:
        purple = density @ _TO_PURPLE
        nucleus = np.clip((purple - 0.15) / 0.5, 0, 1)[..., None]
        strong = rng.random() < 0.6
        tint = np.exp(rng.normal(0, 0.45 if strong else 0.15, 3)).astype(np.float32)
        tint *= 3 / tint.sum()
        # Part of the density takes one colour and keeps its amount.
        amount = density.mean(2, keepdims=True)
        mix = np.float32(rng.uniform(0, 0.9 if strong else 0.4))
        red = ((1 - mix) * density + mix * amount) * tint * np.float32(np.exp(rng.normal(0, 0.35)))
        if rng.random() < 0.3:  # dense, from blue-grey to purple, and without a pale middle: like small lymphocytes
            hue = rng.uniform((0.9, 1.0, 0.5), (1.5, 1.5, 1.1)).astype(np.float32)
            red = amount * (hue * np.float32(3 / hue.sum() * rng.uniform(1, 2.2)))
        if rng.random() < 0.3:
            side = int(rng.integers(2, 13)) * 2 + 1
            red = cv2.morphologyEx(red, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
        kept = density * np.exp(rng.normal(0, 0.15, 3)).astype(np.float32) * np.float32(np.exp(rng.normal(0.05, 0.25)))
        density = red * (1 - nucleus) + kept * nucleus
    if rng.random() < 0.7:
        white = np.clip(white * np.exp(rng.normal(0, 0.12, 3)) * np.exp(rng.normal(0, 0.15)), 40, 300)
    if rng.random() < 0.25:
        white = np.clip(rng.uniform(110, 255) * np.exp(rng.normal(0, 0.16, 3)), 40, 255)
    if rng.random() < 0.3:
        height, width = field.shape[:2]
        small = np.exp(rng.normal(0, 0.25, (3, 3, 1)) + rng.normal(0, 0.12, (3, 3, 3))).astype(np.float32)
        white = white * cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    stained = np.clip(white * np.exp(-density), 0, 255).astype(np.uint8)
    return stained if shown is None else np.where(shown[..., None], stained, field)


def record(field: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Photograph a field with another camera: out of focus, sharpened, noisy, or coded as a phone's JPEG.

    Args:
        field: RGB uint8 (height, width, 3).
        rng: How.
    """
    if rng.random() < 0.35:
        field = cv2.GaussianBlur(field, (0, 0), rng.uniform(0.4, 2.2))
    elif rng.random() < 0.25:
        blurred = cv2.GaussianBlur(field, (0, 0), 1.2)
        field = cv2.addWeighted(field, 1.8, blurred, -0.8, 0)
    if rng.random() < 0.3:
        grain = rng.normal(0, rng.uniform(1, 12), (*field.shape[:2], int(rng.choice([1, 3]))))
        field = np.clip(field + grain, 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        code = cv2.imencode(".jpg", field[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.uniform(25, 92))])[1]
        field = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR_RGB))
    return np.ascontiguousarray(field)


def debris(field: np.ndarray, rng: np.random.Generator, red_cell: float) -> np.ndarray:
    """Add what lies among the cells of a smear and is none, and red cells that look unlike the others.

    Platelets up to giant ones and in clumps, stain precipitate, ghosts and smudges of burst cells; red cells that are
    stacked, burnt out, or have a refractile rim.

    Args:
        field: RGB uint8 (height, width, 3).
        rng: Where and what.
        red_cell: Width of a red cell in pixels.

    Returns:
        RGB uint8, as large as the field.
    """
    size = np.array(field.shape[1::-1])
    amount = np.zeros(field.shape, np.float32)
    purple = _PURPLE * rng.uniform(0.7, 1.3, 3)
    for _ in range(rng.poisson(3)):  # platelets, alone or in clumps
        centre, radius = rng.uniform(0, 1, 2) * size, red_cell * rng.uniform(0.1, 0.45)
        for _ in range(1 if rng.random() < 0.7 else rng.integers(3, 12)):
            place = centre + rng.normal(0, 1.2, 2) * radius * 1.5
            _spot(amount, place, radius * rng.uniform(0.5, 1.1, 2), purple * rng.uniform(0.15, 0.5), rng, grain=0.6)
    for _ in range(rng.poisson(4)):  # precipitate: small and dark
        dark = purple * rng.uniform(0.5, 1.5) if rng.random() < 0.6 else np.ones(3) * rng.uniform(0.5, 2)
        _spot(amount, rng.uniform(0, 1, 2) * size, red_cell * rng.uniform(0.02, 0.12, 2), dark, rng)
    for _ in range(rng.poisson(0.4)):  # ghosts and smudges: pale, wide, without an edge
        pale = purple * rng.uniform(0.05, 0.25)
        _spot(amount, rng.uniform(0, 1, 2) * size, red_cell * rng.uniform(0.6, 1.5, 2), pale, rng, grain=0.7)
    if rng.random() < 0.5:
        _odd_red_cells(amount, rng, red_cell, _red_cell_density(field))
    return np.clip(field * np.exp(-amount), 0, 255).astype(np.uint8)


def _red_cell_density(field: np.ndarray) -> np.ndarray:
    """Typical density of red cells, (3,): of what is neither background nor purple."""
    pixels = field[::4, ::4].reshape(-1, 3).astype(np.float32)
    density = -np.log(np.maximum(pixels, 2) / np.maximum(np.quantile(pixels, 0.95, axis=0), 30))
    is_red = (density.mean(1) > 0.1) & (density @ _TO_PURPLE < 0.3)
    return np.asarray(np.median(density[is_red], axis=0)) if is_red.sum() > 50 else _EOSIN


def _odd_red_cells(amount: np.ndarray, rng: np.random.Generator, red_cell: float, density: np.ndarray) -> None:
    """Add stacks, burnt-out cells and refractile rims to optical densities, in place."""
    size, radius = np.array(amount.shape[1::-1]), red_cell / 2
    for _ in range(rng.poisson(0.7)):  # stacked like coins
        place, angle = rng.uniform(0, 1, 2) * size, rng.uniform(0, np.pi)
        step = radius * rng.uniform(0.35, 0.9) * np.array([np.cos(angle), np.sin(angle)])
        for number in range(rng.integers(3, 9)):
            _spot(amount, place + number * step, radius * rng.uniform(0.9, 1.1, 2), 0.6 * density, rng, grain=0)
    for _ in range(rng.poisson(1.5)):  # burnt out: a rim round a hole
        place, rim = rng.uniform(0, 1, 2) * size, rng.uniform(1.0, 2.2) * density
        _spot(amount, place, np.repeat(radius, 2), rim, rng, grain=0)
        _spot(amount, place, np.repeat(radius * rng.uniform(0.6, 0.9), 2), -rim, rng, grain=0)
    for _ in range(rng.poisson(2.5)):  # refractile: lighter than the background, within a dark line
        place, inner = rng.uniform(0, 1, 2) * size, radius * rng.uniform(0.1, 0.8, 2)
        _spot(amount, place, 1.15 * inner, np.full(3, rng.uniform(0.3, 1.2)), rng, grain=0)
        _spot(amount, place, inner, np.full(3, -rng.uniform(0.6, 1.6)), rng, grain=0)


def _spot(
    amount: np.ndarray,
    centre: np.ndarray,
    radii: np.ndarray,
    density: np.ndarray,
    rng: np.random.Generator,
    grain: float = 0.2,
) -> None:
    """Add an irregular spot to optical densities, in place."""
    mask = np.zeros(amount.shape[:2], np.float32)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    reach = 1 + 0.25 * cv2.blur(rng.normal(0, 1, (1, 24)), (5, 1), borderType=cv2.BORDER_REFLECT)[0]
    turn = rng.uniform(0, np.pi)
    x, y = radii[0] * np.cos(angles) * reach, radii[1] * np.sin(angles) * reach
    corners = centre + np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1)
    cv2.fillPoly(mask, [corners.astype(np.int32)], 1.0)
    sigma = max(0.6, 0.15 * float(radii.min()))
    left, top = np.maximum(np.floor(corners.min(0) - 3 * sigma), 0).astype(int)
    right, bottom = np.ceil(corners.max(0) + 3 * sigma).astype(int)
    here = slice(top, max(bottom, top)), slice(left, max(right, left))
    if mask[here].size:
        soft = cv2.GaussianBlur(mask[here], (0, 0), sigma)
        speckle = np.asarray(rng.standard_normal(soft.shape), np.float32)
        texture = 1 + 1.5 * grain * cv2.GaussianBlur(speckle, (0, 0), sigma)
        amount[here] += (soft * np.maximum(texture, 0.2))[..., None] * density
