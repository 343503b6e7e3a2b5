"""Recall, false boxes and speed of the cell finder, on photographs of three laboratories and on painted fields.

    python benchmarks/finder.py ../shared/data
    python benchmarks/finder.py ../shared/data --only fields --sheets sheets/
    python benchmarks/finder.py ../shared/data --only unseen --left-out raabin=runs/finder-without-raabin

A cell is found where the centre of a box lies in an annotated box; each box counts for one cell. A cell that the
annotators forgot counts as false. Limits are exact, at 95 %, as if cells and fields were independent.

The photographs scored here are those that `models/make_finder.py` never reads. Photographs that overlap,
near-duplicates and photographs of one slide are on one side. A finder that was trained without a set is scored on all
of it.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from wbc_hf.data import (
    KNOWN_FIELDS,
    Box,
    find_pictures,
    paint_field,
    read_image,
    split_boxed_fields,
)
from wbc_hf.default_model import DEFAULT_FINDER_FOLDER
from wbc_hf.evaluation import exact_limits, exact_rate_limits, format_estimate, match_boxes
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.smear import Finder, FoundCell

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))  # what trains the finder is not installed

from finder_training.artefacts import ARTEFACTS, NOT_SMEAR
from finder_training.smear_variation import debris, record, restain

TITLES = {"bccd": "BCCD", "raabin": "Raabin", "chula": "Chulalongkorn"}
SECTIONS = ("fields", "unseen", "painted", "artefacts", "crops", "not-smear", "time")
PAINTED_SEEDS = range(5000, 5200)
NOT_SMEAR_PICTURES = 1000
# Pictures of PBC that the finder was trained on: every seventh of a class, so many at most.
PBC_STEP, PBC_PICTURES = 7, 110
# A cell of which an artefact hides more is not looked for.
MOST_HIDDEN = 0.25
SHEET_COLUMNS, SHEET_WIDTH, SHEET_FIELDS = 5, 320, 20


@dataclass(frozen=True)
class Scored:
    """A field, its annotated boxes, the cells found, and the matched pairs of indices into both."""

    name: str
    image: Image.Image
    truth: Sequence[Box]
    found: list[FoundCell]
    pairs: list[tuple[int, int]]

    @property
    def false(self) -> list[FoundCell]:
        """Found cells that match no annotated box."""
        matched = {index for _, index in self.pairs}
        return [cell for index, cell in enumerate(self.found) if index not in matched]

    @property
    def missed(self) -> list[Box]:
        """Annotated boxes that were not found."""
        matched = {index for index, _ in self.pairs}
        return [box for index, box in enumerate(self.truth) if index not in matched]


Field = tuple[str, Image.Image, Sequence[Box]]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the image sets")
    parser.add_argument("--finder", type=Path, default=DEFAULT_FINDER_FOLDER, help="folder of the finder")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="this table (may be repeated)")
    parser.add_argument("--every", type=int, default=1, help="only every n-th field or picture, for a quick look")
    parser.add_argument(
        "--left-out", action="append", default=[], metavar="SET=FOLDER", help="a finder that was trained without a set"
    )
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets of what was found and missed")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    chosen = arguments.only or SECTIONS
    finder, data, every = Finder(arguments.finder), arguments.data, arguments.every
    tables: dict[str, Callable[[], object]] = {
        "fields": lambda: fields_table(finder, data, every, arguments.sheets),
        "unseen": lambda: unseen_table(dict(pair.split("=", 1) for pair in arguments.left_out), data, every),
        "painted": lambda: painted_table(finder, every, arguments.sheets),
        "artefacts": lambda: artefacts_table(finder, data, every),
        "crops": lambda: crops_table(finder, data, every),
        "not-smear": lambda: not_smear_table(finder, every),
        "time": lambda: time_table(arguments.finder),
    }
    for section in SECTIONS:
        if section in chosen:
            tables[section]()
            print(flush=True)


def fields_table(finder: Finder, data: Path, every: int, sheets: Path | None) -> None:
    """Photographs of each laboratory that were held back."""
    header("held back, each laboratory")
    for name in KNOWN_FIELDS:
        scored = score_all(finder, boxed(data, name, "scoring")[::every])
        report(TITLES[name], scored)
        if sheets:
            draw_sheets(scored, sheets, name)


def unseen_table(folders: dict[str, str], data: Path, every: int) -> None:
    """All photographs of a laboratory, by a finder that was trained without any of it."""
    header("trained without this laboratory")
    for name, folder in folders.items():
        fields = boxed(data, name, "tuning") + boxed(data, name, "scoring")
        report(TITLES[name], score_all(Finder(Path(folder)), fields[::every]))


def painted_table(finder: Finder, every: int, sheets: Path | None) -> None:
    """Painted fields of 1 to 30 leucocytes: as they are, and restained, with debris, by other cameras."""
    header("painted, 1 to 30 cells")
    report("as painted", score_all(finder, (paint(seed) for seed in PAINTED_SEEDS[::every])))
    varied = score_all(finder, (vary(*paint(seed), seed=seed) for seed in PAINTED_SEEDS[::every]))
    report("all stains", varied)
    if sheets:
        draw_sheets(varied, sheets, "painted")
        framed = [alter(paint(seed), artefact, seed)[0] for seed, artefact in enumerate(ARTEFACTS.values(), 5300)]
        draw_sheets(score_all(finder, framed), sheets, "artefacts")


def artefacts_table(finder: Finder, data: Path, every: int) -> None:
    """What is not smear, added to photographs held back; cells that it hides are not looked for."""
    header("artefacts added", "  than without: found, false")
    for name in ("bccd", "raabin"):
        fields = boxed(data, name, "scoring")[::every]
        plain = score_all(finder, fields)
        for title, artefact in ARTEFACTS.items():
            altered = [alter(field, artefact, seed) for seed, field in enumerate(fields)]
            before = [
                Scored(
                    field.name, field.image, left, field.found, match_boxes(left, [cell.box for cell in field.found])
                )
                for field, (_, left) in zip(plain, altered, strict=True)
            ]
            report(f"{TITLES[name]}, {title}", score_all(finder, (new for new, _ in altered)), before)


def crops_table(finder: Finder, data: Path, every: int) -> None:
    """Pictures of one cell given as a field: one box round the middle."""
    print(f"{'crops given as fields':30}  pictures  one box in the middle        none  several")
    for title, paths in crops(data).items():
        boxes = [middle_boxes(finder, path) for path in paths[::every]]
        counts = Counter(min(count, 2) for count in boxes)
        print(f"{title:30}{len(boxes):10}  {share(counts[1], len(boxes)):26}{counts[0]:6}{counts[2]:9}")


def not_smear_table(finder: Finder, every: int) -> None:
    """Pictures that show no smear."""
    print(f"{'no smear':30}  pictures  without a box")
    without: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for seed in range(0, NOT_SMEAR_PICTURES, every):
        title, make = list(NOT_SMEAR.items())[seed // every % len(NOT_SMEAR)]
        image = make(np.random.default_rng(10**6 + seed))
        total[title] += 1
        without[title] += not finder.find(Image.fromarray(image))
    for title in total:
        print(f"{title:30}{total[title]:10}  {share(without[title], total[title])}")
    print(f"{'all':30}{total.total():10}  {share(without.total(), total.total())}")


def time_table(folder: Path) -> None:
    """Seconds and memory on one core, each size in a process of its own."""
    print(f"{'on one core':30}        ms  peak memory of the process, MB")
    for width, height in ((640, 480), (4000, 3000)):
        command = [sys.executable, __file__, "--time", str(folder), str(width), str(height)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        print(f"{f'{width} x {height}':30}{float(output[0]):10.0f}  {float(output[1]):.0f}")


def time_one(folder: str, width: str, height: str) -> None:
    """Print the median time of a field of this size in ms, and the highest memory of this process in MB."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    finder = Finder(Path(folder))
    image = Image.fromarray(paint_field([0, 1, 2, 3, 4], seed=1).image).resize((int(width), int(height)))
    finder.find(image)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        finder.find(image)
        times.append(time.perf_counter() - start)
    # Not getrusage: what it says is no less than the memory of the process that started this one.
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(1000 * np.median(times), int(peak.split()[1]) / 1024)


# ---- fields


def boxed(data: Path, name: str, side: str) -> list[Field]:
    """The photographs of a set on one side of its split."""
    folder, classes = KNOWN_FIELDS[name]
    return [(field.name, field.read(), field.boxes) for field in split_boxed_fields(data / folder, classes)[side]]


def paint(seed: int) -> Field:
    """A painted field of 1 to 30 leucocytes."""
    generator = np.random.default_rng(seed)
    field = paint_field(generator.integers(0, len(CLASS_NAMES), generator.integers(1, 31)), seed=seed)
    return str(seed), Image.fromarray(field.image), [tuple(box) for box in field.boxes.tolist()]


def vary(name: str, image: Image.Image, truth: Sequence[Box], seed: int) -> Field:
    """The field with debris, in another stain, by another camera."""
    rng = np.random.default_rng([1, seed])
    red_cell = 0.6 * float(np.median([box[2] - box[0] for box in truth]))
    return name, Image.fromarray(record(restain(debris(np.asarray(image), rng, red_cell), rng), rng)), truth


def alter(field: Field, artefact: Callable, seed: int) -> tuple[Field, Sequence[Box]]:
    """The field with an artefact, and the boxes in the field as it was of the cells that it leaves in sight."""
    name, image, truth = field
    altered = artefact(np.asarray(image), np.random.default_rng(seed))
    dx, dy = altered.offset
    kept, moved = [], []
    for x0, y0, x1, y1 in truth:
        box = (x0 + dx, y0 + dy, x1 + dx, y1 + dy)
        if altered.hidden[max(0, box[1]) : box[3], max(0, box[0]) : box[2]].mean() <= MOST_HIDDEN:
            kept.append((x0, y0, x1, y1))
            moved.append(box)
    return (name, Image.fromarray(altered.image), moved), kept


def crops(data: Path) -> dict[str, list[Path]]:
    """Pictures of one cell that the finder was not trained on."""
    pbc = []
    for name in CLASS_NAMES:
        paths = sorted((data / "pbc" / name).glob("*.jpg"))
        trained = set(paths[::PBC_STEP][:PBC_PICTURES])
        pbc += [path for path in paths if path not in trained][::10]
    return {
        "PBC, every tenth": pbc,
        "Tecom": sorted(find_pictures(data / "tecom")),
        "BCCD": sorted(find_pictures(data / "bccd" / "crops")),
    }


def middle_boxes(finder: Finder, path: Path) -> int:
    """How many boxes a picture gets, those counted that hold its middle."""
    image = read_image(path)
    x, y = image.width / 2, image.height / 2
    return sum(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in (cell.box for cell in finder.find(image)))


# ---- scores


def score_all(finder: Finder, fields: Iterable[Field]) -> list[Scored]:
    """Find the cells of fields and match them with the annotated boxes."""
    scored = []
    for name, image, truth in fields:
        found = finder.find(image)
        scored.append(Scored(name, image, truth, found, match_boxes(truth, [cell.box for cell in found])))
    return scored


def header(title: str, more: str = "") -> None:
    print(f"{title:30}  fields   cells  found                    false per field          missed{more}")


def report(title: str, scored: Sequence[Scored], before: Sequence[Scored] | None = None) -> None:
    """Print one line of a table; with `before`, how much it differs from that."""
    cells, hits = sum(len(one.truth) for one in scored), sum(len(one.pairs) for one in scored)
    false = sum(len(one.false) for one in scored)
    line = f"{title:30}{len(scored):8}{cells:8}  {share(hits, cells):25}{rate(false, len(scored)):25}{causes(scored)}"
    if before is not None:
        more_found = hits - sum(len(one.pairs) for one in before)
        more_false = false - sum(len(one.false) for one in before)
        line += f"  {more_found / cells:+.3f}, {more_false / len(scored):+.3f}"
    print(line, flush=True)


def share(hits: int, total: int) -> str:
    """A share with its exact limits (Clopper & Pearson 1934)."""
    return format_estimate(hits / total, exact_limits(hits, total))


def rate(events: int, fields: int) -> str:
    """Events a field with their exact limits (Garwood 1936)."""
    return format_estimate(events / fields, exact_rate_limits(events, fields))


def causes(scored: Sequence[Scored]) -> str:
    """What the missed cells have in common: cut off by the border, touching another, or neither."""
    counts: Counter[str] = Counter()
    for one in scored:
        for box in one.missed:
            x0, y0, x1, y1 = box
            if min(x0, y0, one.image.width - x1, one.image.height - y1) <= 2:
                counts["cut"] += 1
            elif any(other != box and overlap(box, other) for other in one.truth):
                counts["touching"] += 1
            else:
                counts["other"] += 1
    return ", ".join(f"{count} {cause}" for cause, count in counts.most_common()) or "none"


def overlap(box: Box, other: Box) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


# ---- pictures


def draw_sheets(scored: Sequence[Scored], folder: Path, name: str) -> None:
    """A contact sheet of fields spread over the set, and one of fields with a mistake."""
    folder.mkdir(parents=True, exist_ok=True)
    wrong = [one for one in scored if one.false or one.missed][:SHEET_FIELDS]
    for title, chosen in (
        (name, scored[:: max(1, len(scored) // SHEET_FIELDS)][:SHEET_FIELDS]),
        (f"{name}-mistakes", wrong),
    ):
        if chosen:
            contact_sheet(chosen).save(folder / f"{title}.jpg", quality=85)


def contact_sheet(scored: Sequence[Scored]) -> Image.Image:
    """Fields with boxes: green found, red missed, orange false."""
    tiles = [tile(one) for one in scored]
    height = max(image.height for image in tiles)
    rows = -(-len(tiles) // SHEET_COLUMNS)
    sheet = Image.new("RGB", (SHEET_COLUMNS * SHEET_WIDTH, rows * height), "white")
    for index, image in enumerate(tiles):
        sheet.paste(image, (index % SHEET_COLUMNS * SHEET_WIDTH, index // SHEET_COLUMNS * height))
    return sheet


def tile(one: Scored) -> Image.Image:
    """One field of a contact sheet."""
    scale = SHEET_WIDTH / one.image.width
    image = one.image.resize((SHEET_WIDTH, round(one.image.height * scale)), Image.Resampling.BOX)
    draw = ImageDraw.Draw(image)
    for boxes, colour in (
        ((one.found[index].box for _, index in one.pairs), "lime"),
        (one.missed, "red"),
        ((cell.box for cell in one.false), "orange"),
    ):
        for box in boxes:
            draw.rectangle([scale * edge for edge in box], outline=colour, width=2)
    draw.text((4, 4), one.name, fill="black", stroke_width=2, stroke_fill="white")
    return image


if __name__ == "__main__":
    if sys.argv[1:2] == ["--time"]:
        time_one(*sys.argv[2:])
    else:
        main()
