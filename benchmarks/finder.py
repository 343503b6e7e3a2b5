"""How many leucocytes the cell finder finds in real and painted fields, how many it makes up, and how fast it is.

    python benchmarks/finder.py ../shared/data/bccd/fields [--half tuning] [--figure mistakes.png]

The finder's settings were chosen on the lower half of the photographs by number and on other painted fields than those
here; photographs that overlap are kept on one side. A cell is found where the middle of a box lies in the box that a
person drew; each box counts for one cell. What a person forgot to box counts as false.
"""

import argparse
import csv
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import cv2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from PIL import Image

from wbc_hf.data import paint_field, read_image
from wbc_hf.serving.finder import Box, FoundCell, find_cells

PAINTED_SEEDS = range(5000, 5200)
COLUMNS = 5


@dataclass(frozen=True)
class Judged:
    """A field, the boxes of its leucocytes, what was found, and which of both (indices) belong together."""

    name: str
    image: Image.Image
    truth: list[Box]
    found: list[FoundCell]
    pairs: list[tuple[int, int]]
    seconds: float

    @property
    def false(self) -> list[FoundCell]:
        """Found cells that are none."""
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
    names = split(arguments.folder)[arguments.half]
    print(f"{'':22}  fields   cells    found  false per field  cut of these     ms  slowest")
    real = [judge(name, *read_photograph(arguments.folder, name)) for name in names]
    report(f"photographs, {arguments.half}", real)
    report("painted, 1 to 30 cells", [judge(str(seed), *paint(seed)) for seed in PAINTED_SEEDS])
    if arguments.figure:
        draw([one for one in real if one.false or len(one.pairs) < len(one.truth)], arguments.figure)


def split(folder: Path) -> dict[str, list[str]]:
    """Names of the photographs for tuning, the lower half by number, and for scoring."""
    names = sorted(path.stem for path in (folder / "images").glob("*.jpg"))
    tuning = set(names[: len(names) // 2])
    with (folder.parent / "overlap_pairs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            pair = {f"BloodImage_{row['a']}", f"BloodImage_{row['b']}"}
            if pair & tuning:
                tuning |= pair & set(names)
    return {"tuning": sorted(tuning), "scoring": sorted(set(names) - tuning)}


def read_photograph(folder: Path, name: str) -> tuple[Image.Image, list[Box]]:
    """A photograph and the boxes of its leucocytes."""
    objects = ElementTree.parse(folder / "annotations" / f"{name}.xml").iter("object")
    corners = ("xmin", "ymin", "xmax", "ymax")
    boxes = [
        tuple(int(one.find(f"bndbox/{c}").text) for c in corners) for one in objects if one.find("name").text == "WBC"
    ]
    return read_image(folder / "images" / f"{name}.jpg"), boxes


def paint(seed: int) -> tuple[Image.Image, list[Box]]:
    """A painted field of 1 to 30 leucocytes and their boxes."""
    generator = np.random.default_rng(seed)
    field = paint_field(generator.integers(0, 5, generator.integers(1, 31)), seed=seed)
    return Image.fromarray(field.image), [tuple(box) for box in field.boxes.tolist()]


def judge(name: str, image: Image.Image, truth: list[Box]) -> Judged:
    """Find the cells of a field and match them with what is there."""
    start = time.perf_counter()
    found = find_cells(image)
    seconds = time.perf_counter() - start
    return Judged(name, image, truth, found, match(truth, [cell.box for cell in found]), seconds)


def match(truth: Sequence[Box], found: Sequence[Box]) -> list[tuple[int, int]]:
    """Pairs of indices: a true box and a found one whose middle lies in it, the nearest middles first."""
    apart = []
    for i, (x0, y0, x1, y1) in enumerate(truth):
        for j, box in enumerate(found):
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            if x0 <= x <= x1 and y0 <= y <= y1:
                apart.append((abs(x - (x0 + x1) / 2) + abs(y - (y0 + y1) / 2), i, j))
    pairs: dict[int, int] = {}
    for _, i, j in sorted(apart):
        if i not in pairs and j not in pairs.values():
            pairs[i] = j
    return sorted(pairs.items())


def report(title: str, judged: Sequence[Judged]) -> None:
    """Print one line of the table."""
    cells, found = sum(len(one.truth) for one in judged), sum(len(one.pairs) for one in judged)
    false = [cell for one in judged for cell in one.false]
    cut = sum(cell.cut for cell in false)
    times = 1000 * np.array([one.seconds for one in judged])
    print(
        f"{title:22}{len(judged):8}{cells:8}{found / cells:9.2%}{len(false) / len(judged):17.3f}"
        f"{cut / len(judged):14.3f}{np.median(times):7.1f}{times.max():9.0f}"
    )


def draw(judged: Sequence[Judged], path: Path) -> None:
    """Green: boxed and found; red: boxed and missed; blue: found; orange: found and not boxed."""
    rows = max(1, -(-len(judged) // COLUMNS))
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(4 * COLUMNS, 3.2 * rows), squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for ax, one in zip(axes.flat, judged, strict=False):
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
