"""Recall, false positives and speed of the cell finder on real and painted fields.

    python benchmarks/finder.py ../shared/data/bccd/fields [--half tuning] [--figure mistakes.png]

The finder's settings were chosen on the lower half of the photographs by number and on other painted fields than those
here; photographs that overlap are kept on one side. A cell is found where the centre of a box lies in an annotated
box; each box counts for one cell. A cell that the annotators forgot counts as false.
"""

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from PIL import Image

from wbc_hf.data import Box, paint_field, split_boxed_fields
from wbc_hf.evaluation import match_boxes
from wbc_hf.smear import FoundCell, find_cells

PAINTED_SEEDS = range(5000, 5200)
COLUMNS = 5


@dataclass(frozen=True)
class Scored:
    """A field, its annotated boxes, the cells found, and the matched pairs of indices into both."""

    name: str
    image: Image.Image
    truth: Sequence[Box]
    found: list[FoundCell]
    pairs: list[tuple[int, int]]
    seconds: float

    @property
    def false(self) -> list[FoundCell]:
        """Found cells that match no annotated box."""
        matched = {index for _, index in self.pairs}
        return [cell for index, cell in enumerate(self.found) if index not in matched]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="photographs in images/ and their boxes in annotations/")
    parser.add_argument("--half", choices=("tuning", "scoring"), default="scoring", help="which photographs")
    parser.add_argument("--figure", type=Path, help="draw the photographs with mistakes into this file")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    fields = split_boxed_fields(arguments.folder)[arguments.half]
    print(f"{'':22}  fields   cells    found  false per field  cut of these     ms  slowest")
    real = [score(field.name, field.read(), field.boxes) for field in fields]
    report(f"photographs, {arguments.half}", real)
    report("painted, 1 to 30 cells", [score(str(seed), *paint(seed)) for seed in PAINTED_SEEDS])
    if arguments.figure:
        draw([one for one in real if one.false or len(one.pairs) < len(one.truth)], arguments.figure)


def paint(seed: int) -> tuple[Image.Image, list[Box]]:
    """A painted field of 1 to 30 leucocytes and their boxes."""
    generator = np.random.default_rng(seed)
    field = paint_field(generator.integers(0, 5, generator.integers(1, 31)), seed=seed)
    return Image.fromarray(field.image), [tuple(box) for box in field.boxes.tolist()]


def score(name: str, image: Image.Image, truth: Sequence[Box]) -> Scored:
    """Find the cells of a field and match them with the annotated boxes."""
    start = time.perf_counter()
    found = find_cells(image)
    seconds = time.perf_counter() - start
    return Scored(name, image, truth, found, match_boxes(truth, [cell.box for cell in found]), seconds)


def report(title: str, scored: Sequence[Scored]) -> None:
    """Print one line of the table."""
    cells, found = sum(len(one.truth) for one in scored), sum(len(one.pairs) for one in scored)
    false = [cell for one in scored for cell in one.false]
    cut = sum(cell.cut for cell in false)
    times = 1000 * np.array([one.seconds for one in scored])
    print(
        f"{title:22}{len(scored):8}{cells:8}{found / cells:9.2%}{len(false) / len(scored):17.3f}"
        f"{cut / len(scored):14.3f}{np.median(times):7.1f}{times.max():9.0f}"
    )


def draw(scored: Sequence[Scored], path: Path) -> None:
    """Draw annotated boxes (green: found, red: missed) and found boxes (blue: true, orange: false)."""
    rows = max(1, -(-len(scored) // COLUMNS))
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(4 * COLUMNS, 3.2 * rows), squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for ax, one in zip(axes.flat, scored, strict=False):
        ax.imshow(one.image)
        ax.set_title(one.name, fontsize=8)
        matched = {index for index, _ in one.pairs}
        boxes(ax, (box for index, box in enumerate(one.truth) if index in matched), "lime")
        boxes(ax, (box for index, box in enumerate(one.truth) if index not in matched), "red")
        boxes(ax, (one.found[index].box for _, index in one.pairs), "blue")
        boxes(ax, (cell.box for cell in one.false), "orange")
    figure.savefig(path)


def boxes(ax: plt.Axes, rectangles: Iterable[Box], colour: str) -> None:
    for x0, y0, x1, y1 in rectangles:
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color=colour, linewidth=1.5))


if __name__ == "__main__":
    main()
