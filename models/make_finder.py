"""Train the finder that ships, models/finder: on boxed fields, pictures of one cell, and painted fields.

    python models/make_finder.py ../shared/data                         # everything that is not held back
    python models/make_finder.py ../shared/data --leave-out raabin --output runs/finder-without-raabin

Half an hour on two cores with bf16 in hardware. After an interruption the same command resumes. Photographs of the
scoring halves are never read (`wbc_hf.data.split_boxed_fields`); `benchmarks/finder.py` scores on them.
"""

import argparse
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from finder_training.training import train_finder
from finder_training.views import Example
from wbc_hf.data import KNOWN_FIELDS, paint_field, read_image, segment_cell, split_boxed_fields
from wbc_hf.default_model import DEFAULT_FINDER_FOLDER
from wbc_hf.hub import copy_notice
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import FinderConfig

# How often the photographs of a source are drawn, in relation to the others'.
SHARES = {"bccd": 0.24, "raabin": 0.2, "chula": 0.2, "pbc": 0.12, "painted": 0.24}
STEPS = 2900
PAINTED_FIELDS = 420
PAINTED_SEED = 900_000
# Of PBC every seventh picture of a class by name, so many at most; the others are for scoring.
PBC_STEP, PBC_PICTURES = 7, 110


def main() -> None:
    """Train, and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the image sets: bccd/, raabin_fields/, chula_fields/, pbc/")
    parser.add_argument("--leave-out", choices=SHARES, action="append", default=[], help="a source to leave out")
    parser.add_argument(
        "--backbone",
        type=Path,
        default=Path("runs/backbone"),
        help="folder of the ResNet to start from (models/make_backbone.py)",
    )
    parser.add_argument("--output", type=Path, default=DEFAULT_FINDER_FOLDER, help="folder of the finder")
    parser.add_argument("--work", type=Path, help="folder of the checkpoint (default: runs/ and the output's name)")
    parser.add_argument("--steps", type=int, default=STEPS, help="number of batches (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    parser.add_argument("--single-stride", action="store_true", help="one heat map at stride 4, for comparison")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    cv2.setNumThreads(1)
    if not arguments.backbone.is_dir():
        maker = Path(__file__).with_name("make_backbone.py")
        command = [sys.executable, str(maker), str(arguments.data / "pbc"), "--output", str(arguments.backbone)]
        subprocess.run(command, check=True)
    shares = {source: share for source, share in SHARES.items() if source not in arguments.leave_out}
    examples = [example for source in shares for example in READERS[source](arguments.data)]
    config = (
        FinderConfig(strides=(4,), sizes=((8, 220),), thresholds=(0.5,)) if arguments.single_stride else FinderConfig()
    )
    work = arguments.work or Path("runs") / arguments.output.name
    options = {"config": config, "steps": arguments.steps, "start": arguments.backbone, "seed": arguments.seed}
    network = train_finder(examples, shares, work, **options)
    network.save(arguments.output)
    copy_notice(arguments.backbone, arguments.output)
    print(f"The finder is in {arguments.output}")


def boxed(data: Path, source: str) -> Iterator[Example]:
    """Photographs of the tuning half of a set of fields."""
    folder, classes = KNOWN_FIELDS[source]
    for field in split_boxed_fields(data / folder, classes)["tuning"]:
        yield Example(np.asarray(field.read()), np.array(field.boxes, float).reshape(-1, 4), True, source)


def pbc(data: Path) -> Iterator[Example]:
    """Pictures of one cell, boxed by segmentation; what else they show is not learned from."""
    for name in CLASS_NAMES:
        for path in sorted((data / "pbc" / name).glob("*.jpg"))[::PBC_STEP][:PBC_PICTURES]:
            image = read_image(path)
            cell = segment_cell(image).cell
            if cell.any():
                rows, columns = np.flatnonzero(cell.any(1)), np.flatnonzero(cell.any(0))
                box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) * (image.height / len(cell))
                yield Example(np.asarray(image), box[None], False, "pbc")


def painted(_: Path) -> Iterator[Example]:
    """Painted fields of up to 30 cells."""
    rng = np.random.default_rng(77)
    for number in range(PAINTED_FIELDS):
        cells = rng.integers(0, 31) if rng.random() < 0.5 else rng.integers(0, 9)
        field = paint_field(rng.integers(0, len(CLASS_NAMES), cells), seed=PAINTED_SEED + number)
        yield Example(field.image, field.boxes.astype(float), True, "painted")


READERS = {
    "bccd": lambda data: boxed(data, "bccd"),
    "raabin": lambda data: boxed(data, "raabin"),
    "chula": lambda data: boxed(data, "chula"),
    "pbc": pbc,
    "painted": painted,
}


if __name__ == "__main__":
    main()
