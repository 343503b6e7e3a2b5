"""Recall and speed of the search for overlapping fields, and for leucocytes that two fields share.

    python benchmarks/overlaps.py [../shared/data/bccd]

The BCCD photographs are taken as fields of one specimen, though they are of several: every pair beside those known to
overlap should stay apart. Pairs that are found and not listed are named for inspection: the list is a lower bound.
Known pairs with one leucocyte boxed in both (`wbc_iou` above 0.4) should have it matched, in the annotated boxes.
"""

import argparse
import csv
import time
from copy import deepcopy
from pathlib import Path
from xml.etree import ElementTree

import cv2

from wbc_hf.data import Box, read_image
from wbc_hf.evaluation import exact_limits, format_estimate
from wbc_hf.smear.overlaps import FieldIndex, Overlap, describe_field, match_cells

BCCD = Path(__file__).parents[2] / "shared" / "data" / "bccd"
SAME_LEUCOCYTE = 0.4
SIZES = (0, 10, 50, 100)
REPEATS = 10


def main() -> None:
    """Print recall, false pairs and time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=BCCD, help="folder of the BCCD set")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    files = sorted((arguments.data / "fields" / "images").iterdir())
    report_recall(arguments.data, files)
    for size in SIZES:
        took = time_to_add(files, size)
        print(f"a field beside {size} others: {took * 1000:.0f} ms of one core")


def report_recall(data: Path, files: list[Path]) -> None:
    """Print how many known overlaps are found, how many shared leucocytes are matched, and other pairs found."""
    listed = known_overlaps(data / "overlap_pairs.csv")
    found = find_overlaps(files)
    hits = len(listed.keys() & found.keys())
    share = format_estimate(hits / len(listed), exact_limits(hits, len(listed)))
    print(f"{len(files)} fields, {len(listed)} listed pairs: {hits} found, {share}")
    for pair in sorted(listed.keys() - found.keys()):
        print(f"  missed: {' '.join(pair)}, IoU of the leucocytes {listed[pair]}")
    shared = [pair for pair, iou in listed.items() if iou > SAME_LEUCOCYTE]
    matched = [pair for pair in shared if pair in found and matches_a_cell(data, pair, found[pair])]
    share = format_estimate(len(matched) / len(shared), exact_limits(len(matched), len(shared)))
    print(f"  {len(shared)} of them show one leucocyte twice: {len(matched)} have it matched, {share}")
    others = len(files) * (len(files) - 1) // 2 - len(listed)
    for pair in sorted(found.keys() - listed.keys()):
        print(f"  not listed: {' '.join(pair)}, {found[pair].matches} key points agree")
    print(f"  {len(found.keys() - listed.keys())} of the {others} other pairs found")


def find_overlaps(files: list[Path]) -> dict[tuple[str, str], Overlap]:
    """Overlaps by the numbers of both fields, the earlier first."""
    index = FieldIndex()
    return {
        (number(files[overlap.earlier]), number(file)): overlap
        for file in files
        for overlap in index.add(describe_field(read_image(file)))
    }


def known_overlaps(path: Path) -> dict[tuple[str, str], float]:
    """IoU of the leucocytes by the numbers of both fields, the lower first."""
    with path.open(newline="") as file:
        return {tuple(sorted((row["a"], row["b"]))): float(row["wbc_iou"]) for row in csv.DictReader(file)}


def matches_a_cell(data: Path, pair: tuple[str, str], overlap: Overlap) -> bool:
    earlier, new = (boxes_of(data, name) for name in pair)
    return bool(match_cells(new, earlier, overlap))


def boxes_of(data: Path, name: str) -> list[Box]:
    """Read the annotated leucocytes of a field."""
    (path,) = (data / "fields" / "annotations").glob(f"*{name}.xml")
    cells = [cell for cell in ElementTree.parse(path).iter("object") if cell.findtext("name") == "WBC"]
    return [tuple(int(cell.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")) for cell in cells]


def number(file: Path) -> str:
    """Get `00037` from `BloodImage_00037.jpg`."""
    return file.stem.rpartition("_")[2]


def time_to_add(files: list[Path], size: int) -> float:
    """Processor time in seconds to add a field to `size` others, without reading it; mean of ten."""
    others = FieldIndex()
    for file in files[:size]:
        others.add(describe_field(read_image(file)))
    total = 0.0
    for file in files[-REPEATS:]:
        index, image = deepcopy(others), read_image(file)
        began = time.process_time()
        index.add(describe_field(image))
        total += time.process_time() - began
    return total / REPEATS


if __name__ == "__main__":
    main()
