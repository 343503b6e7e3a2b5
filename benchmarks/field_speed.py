"""Time of the page from a photograph on disk to the drawn field and its differential.

python benchmarks/field_speed.py --model models/starter
python benchmarks/field_speed.py --model models/starter --fields ../shared/data/bccd/fields/images

Each field is timed twice: as the first of a specimen, and as one more of a specimen of all fields before it, with
which it is compared for overlaps. The time of the browser comes on top.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from wbc_hf.cli import find_files
from wbc_hf.data import paint_field
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.smear import DEFAULT_RANGES
from wbc_hf.web.session import Session
from wbc_hf.web.specimen_tab import render_views
from wbc_hf.web.uploads import Upload

FIELDS = 50
CELLS = 8


def write_painted_fields(folder: Path) -> None:
    """Fields of 640 x 480 pixels with eight leucocytes each, as JPEG."""
    for seed in range(FIELDS):
        labels = np.random.default_rng(seed).integers(len(CLASS_NAMES), size=CELLS)
        Image.fromarray(paint_field(labels, seed=seed).image).save(folder / f"{seed:02d}.jpg", quality=92)


def time_fields(predictor: Predictor, files: list[Path]) -> tuple[list[float], list[float], int]:
    """Seconds of each field as the first of its specimen, and as one more; and the number of cells found."""
    first, more, together = [], [], Session(predictor)
    for file in files:
        upload = Upload(str(file), file.name)
        for session, seconds in ((Session(predictor), first), (together, more)):
            start = time.perf_counter()
            session.read(upload, is_field=True)
            render_views(session, DEFAULT_RANGES, "6.4")
            seconds.append(time.perf_counter() - start)
    return first, more, len(together.specimen.cells)


def describe(what: str, seconds: list[float]) -> str:
    """A line of the table, in milliseconds."""
    median, last = statistics.median(seconds), np.percentile(seconds, 95)
    return f"{what:<34}{1000 * median:>10.0f}{1000 * last:>10.0f}{1000 * max(seconds):>10.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/starter", help="Model folder or Hub id.")
    parser.add_argument("--fields", type=Path, help="Folder of photographs; painted ones without it.")
    arguments = parser.parse_args()
    predictor = Predictor.from_pretrained(arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.fields is None:
            write_painted_fields(Path(folder))
        files = list(find_files([arguments.fields or Path(folder)]))[:FIELDS]
        time_fields(predictor, files[:3])  # the first images of a model make it choose its kernels
        first, more, cells = time_fields(predictor, files)
    print(f"{len(files)} fields, {cells} leucocytes, {os.cpu_count()} cores")
    print(f"{'milliseconds a field':<34}{'median':>10}{'95 %':>10}{'longest':>10}")
    print(describe("first of a specimen", first))
    print(describe("one more of a specimen", more))


if __name__ == "__main__":
    main()
