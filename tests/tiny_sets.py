"""Pictures and class folders of a few bytes, for tests of what reads them."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from wbc_hf.data import paint_field


def picture(seed: int, size: int = 20, form: str = "PNG", mode: str = "RGB") -> bytes:
    """An image file of noise: every seed another one, the same seed the same bytes."""
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(stream, form)
    return stream.getvalue()


def write_set(root: Path, counts: Mapping[str, int], first_seed: int = 0) -> Path:
    """Write so many different pictures into each folder ("train/basophil": 3) below `root`; returns `root`."""
    seed = first_seed
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (root / folder / f"{index:03d}.png").write_bytes(picture(seed))
            seed += 1
    return root


def write_yolo(folder: Path, boxes: Mapping[str, str]) -> Path:
    """Photographs of painted fields, all different, with these lines of boxes by name."""
    for name in ("images", "boxes"):
        (folder / name).mkdir(parents=True)
    for seed, (name, lines) in enumerate(boxes.items()):
        field = paint_field([seed % 5] * 3, 160, 120, seed=seed)
        Image.fromarray(field.image).save(folder / "images" / f"{name}.png")
        (folder / "boxes" / f"{name}.txt").write_text(lines)
    return folder
