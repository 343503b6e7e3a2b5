"""A store of many specimens: how long the work list, a search and opening take, and readers at once.

    python benchmarks/store_speed.py --specimens 10000 --cells 100
    PGPASSWORD=... python benchmarks/store_speed.py --store postgresql+psycopg://wbc@127.0.0.1/empty

Fills a store, in a temporary folder or in an empty database, then opens it anew and prints the median and the longest
of the seconds for the first page of the work list, a search that finds little and one that finds much, and a specimen
with all its cells. Then so many readers at once, on several servers, review all cells of their own specimens; two of
them, on different servers, review the same one. Whoever comes second there is told the other's word and says theirs
again. Ends with status 1 where the work list or a search takes more than 0.3 s, a specimen more than 0.5 s, or a word
of a reader is missing or there twice.
"""

import argparse
import io
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from wbc_hf.inference import Prediction
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.smear import Action, Cell, ChangedMeanwhileError, Picture
from wbc_hf.store import SpecimenStore

LIST_LIMIT, OPEN_LIMIT = 0.3, 0.5  # seconds
CELL_SIDE, FIELD_SIDE = 48, 320  # pixels


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specimens", type=int, default=10_000)
    parser.add_argument("--cells", type=int, default=100, help="in each specimen")
    parser.add_argument("--readers", type=int, default=10, help="at once")
    parser.add_argument("--read", type=int, default=50, help="specimens that the readers work on")
    parser.add_argument("--servers", type=int, default=2, help="that the readers are spread over")
    parser.add_argument("--store", help="address of an empty PostgreSQL database; by default a temporary folder")
    parser.add_argument("--repeats", type=int, default=20, help="of each measurement")
    return parser.parse_args()


def picture(format: str, side: int, seed: int) -> bytes:
    """A picture of noise, as a file."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(file, format)
    return file.getvalue()


def fill(store: SpecimenStore, specimens: int, cells: int) -> list[str]:
    """Fill a store; half of the specimens are reviewed."""
    preview, crops = picture("JPEG", FIELD_SIDE, 0), [picture("PNG", CELL_SIDE, seed) for seed in range(10)]
    keys = []
    for index in range(specimens):
        specimen = store.begin()
        predictions = [
            Prediction(label, 0.9, tuple((other, 0.025) for other in CLASS_NAMES if other != label), "review")
            for label in (CLASS_NAMES[number % 5] for number in range(cells))
        ]
        found = [Cell((0, 0, CELL_SIDE, CELL_SIDE), it, crops[number % 10]) for number, it in enumerate(predictions)]
        specimen.add_picture(Picture(0, "field.jpg", (640, 480), True, preview), found)
        specimen.describe(name=f"S-{index:06d}", patient=f"P-{index % 997:04d}")
        if index % 2:
            specimen.review_many({number: CLASS_NAMES[number % 5] for number in range(1, cells + 1)}, "Ana")
        keys.append(specimen.key)
    return keys


def measure(title: str, limit: float, repeats: int, act: Callable[[], object]) -> bool:
    """Print how long something takes; whether the median is within the limit."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - start)
    middle = statistics.median(seconds)
    print(f"{title:<28}{middle:8.3f} s median{max(seconds):8.3f} s longest   (limit {limit} s)", flush=True)
    return middle <= limit


def read_at_once(place: Path | str, keys: list[str], readers: int, servers: int, cells: int) -> bool:
    """Let readers review every cell of their specimens; whether each word is there, and none twice."""
    stores = [SpecimenStore(place) for _ in range(servers)]
    before = {key: len(stores[0].open(key).history) for key in keys}
    # The second reader begins with the first one's first specimen.
    shares = {reader: keys[:1] * (reader == 1) + keys[reader::readers] for reader in range(readers)}
    seconds, told = [], []

    # What they see before any of them says a word.
    seen = {key: [cell.review for cell in stores[0].open(key).cells] for key in keys}

    def review(reader: int) -> None:
        name = f"reader {reader}"
        for key in shares[reader]:
            specimen = stores[reader % servers].open(key)
            for number in range(1, cells + 1):
                start = time.perf_counter()
                try:
                    specimen.review_many({number: "monocyte"}, name, {number: seen[key][number - 1]})
                except ChangedMeanwhileError as error:
                    told.append(str(error))
                    specimen.review(number, "monocyte", name)
                seconds.append(time.perf_counter() - start)

    start = time.perf_counter()
    with ThreadPoolExecutor(readers) as threads:
        list(threads.map(review, range(readers)))
    passed = time.perf_counter() - start
    print(
        f"{len(seconds) / passed:.0f} reviews/s by {readers} readers on {len(keys)} specimens and {servers} servers, ",
        end="",
    )
    print(
        f"{statistics.median(seconds):.3f} s median, {max(seconds):.3f} s longest; {len(told)} were told of another's"
    )
    again, whole = SpecimenStore(place), len(told) == cells and all("reader" in it for it in told)
    for key in keys:
        history = again.open(key).history
        said = sorted((it.who, it.cell) for it in history[before[key] :] if it.action is Action.REVIEWED)
        due = [f"reader {reader}" for reader, share in shares.items() if key in share]
        whole &= said == sorted((who, number) for who in due for number in range(1, cells + 1))
        whole &= [event.number for event in history] == list(range(1, len(history) + 1))
    return whole


def main() -> int:
    given = parse_arguments()
    with tempfile.TemporaryDirectory() as temporary:
        place = given.store or Path(temporary) / "store"
        start, store = time.perf_counter(), SpecimenStore(place)
        if store.find(most=1).total:
            sys.exit(f"{store.name}: keeps specimens. Name an empty database.")
        keys = fill(store, given.specimens, given.cells)
        print(f"{len(keys)} specimens of {given.cells} cells written in {time.perf_counter() - start:.0f} s")
        store.close()
        store, drawn = SpecimenStore(place), random.Random(3)
        good = [
            measure("work list", LIST_LIMIT, given.repeats, lambda: store.find()),
            measure("search, few found", LIST_LIMIT, given.repeats, lambda: store.find("p-0001 S-000001")),
            measure("search, many found", LIST_LIMIT, given.repeats, lambda: store.find("s- p-0")),
            measure("open a specimen", OPEN_LIMIT, given.repeats, lambda: store.open(drawn.choice(keys))),
            read_at_once(place, keys[: given.read], given.readers, given.servers, given.cells),
        ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
