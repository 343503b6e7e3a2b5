"""Time and memory of a whole slide, from the file to a differential, and where the time goes.

Paints a slide of a smear, tiled and streamed (a pyramidal TIFF; minutes for 60,000 x 40,000 pixels on two cores), and
counts it in a process of its own. The file stays for the next run where --file names it.

python benchmarks/slide.py
python benchmarks/slide.py --width 12000 --height 8000 --leucocytes 100
python benchmarks/slide.py --monolayer 10
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests are no package that is installed

from tests.painted_slides import PaintedSlide

TILE, STEP = 512, 4  # pixels; each level of the pyramid is a quarter as wide as the one before
_LEVELS = 3
_painted = None


def start_painting(*arguments: object) -> None:
    global _painted
    cv2.setNumThreads(1)
    width, height, seed, leucocytes = arguments
    _painted = PaintedSlide(width, height, seed, leucocytes=leucocytes)


def paint_tile(corner: tuple[int, int]) -> np.ndarray:
    x, y = corner
    return _painted.paint((x, y, x + TILE, y + TILE))


def write_slide(path: Path, width: int, height: int, seed: int, leucocytes: float, processes: int) -> None:
    """Paint a slide into a pyramidal TIFF, a tile at a time; smaller levels wait in files that are mapped."""
    import tifffile

    with tempfile.TemporaryDirectory(dir=path.parent) as folder, tifffile.TiffWriter(path, bigtiff=True) as writer:
        sizes = [(height // STEP**number, width // STEP**number, 3) for number in range(1, _LEVELS)]
        levels = [np.memmap(Path(folder) / f"{size[0]}.raw", np.uint8, "w+", shape=size) for size in sizes]

        def painted() -> Iterator[np.ndarray]:
            corners = [(x, y) for y in range(0, height, TILE) for x in range(0, width, TILE)]
            with multiprocessing.Pool(processes, start_painting, (width, height, seed, leucocytes)) as pool:
                tiles = pool.imap(paint_tile, corners, chunksize=4)
                tiles = tqdm(tiles, desc="Painting", total=len(corners), unit="tile", delay=2)
                for (x, y), tile in zip(corners, tiles, strict=True):
                    for number, level in enumerate(levels, 1):
                        part = level[y // STEP**number :, x // STEP**number :][: TILE // STEP**number]
                        small = cv2.resize(tile, (TILE // STEP**number,) * 2, interpolation=cv2.INTER_AREA)
                        part = part[:, : small.shape[1]]
                        part[:] = small[: part.shape[0], : part.shape[1]]
                    yield tile

        options = {
            "tile": (TILE, TILE),
            "compression": "zlib",
            "compressionargs": {"level": 1},
            "photometric": "rgb",
            "metadata": None,
            "resolution": (40_000, 40_000),
            "resolutionunit": "CENTIMETER",
        }
        writer.write(painted(), shape=(height, width, 3), dtype=np.uint8, **options)
        for level in levels:
            writer.write(level, subfiletype=1, **options)


def count(path: Path, leucocytes: int, truth: tuple[int, int, int, float]) -> None:
    """Count a slide, and print what each part took as JSON; in a process of its own."""
    from wbc_hf.default_model import choose_model
    from wbc_hf.hardware import use_one_blas_thread
    from wbc_hf.inference import Predictor
    from wbc_hf.smear import CellCounter, Slide, Specimen, counting, read_slide

    use_one_blas_thread()
    spent: dict[str, float] = {}
    start = time.perf_counter()
    counter = CellCounter(Predictor.from_pretrained(choose_model(None)), Specimen())
    spent["loading the model"] = time.perf_counter() - start

    def timed(owner: object, name: str, title: str) -> None:
        real = getattr(owner, name)

        def wrapped(*arguments: object, **options: object) -> object:
            begun = time.perf_counter()
            try:
                return real(*arguments, **options)
            finally:
                spent[title] = spent.get(title, 0) + time.perf_counter() - begun

        setattr(owner, name, wrapped)

    timed(Slide, "read", "decoding the slide")
    timed(counting, "find_cells", "finding cells")
    timed(counting, "predict_cells", "classifying cells")
    start = looked = time.perf_counter()

    def looking(done: int, total: int) -> None:
        nonlocal looked
        looked = time.perf_counter()

    reading = read_slide(counter, path, leucocytes=leucocytes, looking=looking)
    end = time.perf_counter()
    spent["look for the monolayer, decoding included"] = looked - start
    spent["fields, all of it"] = end - looked
    slide = PaintedSlide(*truth[:3], leucocytes=truth[3])
    fields = reading.monolayer.fields
    shares = [slide.monolayer_share(field.core) for field in fields]
    cells = [cell for cell in counter.specimen.cells if cell.state in ("counted", "waiting")]
    print(
        json.dumps(
            {
                "spent": spent,
                "seconds": end - start,
                "read": reading.read,
                "fields": len(fields),
                "in_monolayer": float(np.mean(np.array(shares) >= 0.8)),
                "cells": len(cells),
                "peak": peak_memory(),
            }
        )
    )


def peak_memory() -> float:
    """MiB that this process had at most. `getrusage` gives no less than what the starting process had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def judge_monolayers(number: int, width: int, height: int, leucocytes: float) -> None:
    """Print for each of some painted slides the share of its chosen fields that lie in the monolayer."""
    from wbc_hf.smear import find_monolayer, open_slide

    right = chosen = 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(number):
            path = Path(folder) / f"{seed}.tif"
            write_slide(path, width, height, seed, leucocytes, os.cpu_count() or 1)
            slide, painted = open_slide(path), PaintedSlide(width, height, seed, leucocytes=leucocytes)
            fields = find_monolayer(slide).fields
            within = sum(painted.monolayer_share(field.core) >= 0.8 for field in fields)
            right, chosen = right + within, chosen + len(fields)
            print(f"slide {seed}: {within} of {len(fields)} chosen fields lie in the monolayer", flush=True)
            slide.close()
            path.unlink()
    print(f"all: {right} of {chosen}, {right / chosen:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=60_000, help="Of the slide, in pixels of 0.25 µm.")
    parser.add_argument("--height", type=int, default=40_000)
    parser.add_argument("--leucocytes", type=int, default=200, help="How many to count.")
    parser.add_argument("--density", type=float, default=0.15, help="Leucocytes for each 10,000 µm² of monolayer.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--file", type=Path, help="Where the slide is, or is written to; else it is thrown away.")
    parser.add_argument("--monolayer", type=int, help="Judge the monolayer of so many slides instead.")
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    truth = arguments.width, arguments.height, arguments.seed, arguments.density
    if arguments.count:
        count(arguments.file, arguments.leucocytes, truth)
        return
    if arguments.monolayer:
        judge_monolayers(arguments.monolayer, arguments.width, arguments.height, arguments.density)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or Path(folder) / "slide.tif"
        if not path.exists():
            start = time.perf_counter()
            write_slide(path, *truth, os.cpu_count() or 1)
            print(f"painted in {time.perf_counter() - start:.0f} s: {path.stat().st_size / 2**30:.2f} GiB", flush=True)
        words = [sys.executable, __file__, "--count", "--file", str(path), "--leucocytes", str(arguments.leucocytes)]
        for name in ("width", "height", "density", "seed"):
            words += [f"--{name}", str(getattr(arguments, name))]
        found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    print(f"slide of {arguments.width:,} x {arguments.height:,} pixels to {found['cells']} leucocytes:")
    print(f"  {found['seconds']:.1f} s, peak memory {found['peak']:.0f} MiB, load {os.getloadavg()[0]:.1f}")
    print(f"  {found['read']} of {found['fields']} fields read; {found['in_monolayer']:.3f} of them in the monolayer")
    for title, seconds in found["spent"].items():
        print(f"  {title}: {seconds:.1f} s")


if __name__ == "__main__":
    main()
