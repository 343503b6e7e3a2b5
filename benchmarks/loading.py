"""Seconds from a set's folder to the first training step: the first load, and a second one with its cached findings.

    python benchmarks/loading.py --dataset ../shared/data/pbc
    python benchmarks/loading.py --dataset synthetic:100 --image-size 96

Reads the set with an empty cache, audits it, and decodes its training images as a run does; then once more, with what
the first load found in the cache. Files that the operating system keeps in memory are read faster than from a disk.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from side_by_side import describe_machine

T = TypeVar("T")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", nargs="+", required=True, help="As for `wbc-hf train`.")
    parser.add_argument("--image-size", type=int, default=96, help="Side of the network's input, in pixels.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Before the package looks for it.
        os.environ["WBC_HF_CACHE"] = folder
        print(f"{describe_machine('datasets', 'pillow', 'opencv-python-headless')}\n")
        print(f"{'load':<10}{'images':>8}{'read and compare':>18}{'audit':>10}{'decode':>10}{'all, s':>10}")
        for name in ("first", "second"):
            show(name, arguments.dataset, arguments.image_size, Path(folder) / "run")


def show(name: str, specs: list[str], image_size: int, folder: Path) -> None:
    """Load a set, and print how long its steps took. `folder` keeps the decoded images."""
    from wbc_hf.data import audit, load_leucocytes
    from wbc_hf.modeling import build_processor, resized_edge
    from wbc_hf.training.caches import cache_images

    processor = build_processor(image_size)
    leucocytes, reading = timed(lambda: load_leucocytes(specs))
    _, auditing = timed(lambda: audit(leucocytes))
    _, decoding = timed(lambda: cache_images(leucocytes, processor, resized_edge(processor), folder))
    count = sum(map(len, leucocytes.values()))
    total = reading + auditing + decoding
    print(f"{name:<10}{count:>8}{reading:>18.1f}{auditing:>10.1f}{decoding:>10.1f}{total:>10.1f}", flush=True)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What it returns, and how many seconds it took."""
    since = time.perf_counter()
    return work(), time.perf_counter() - since


if __name__ == "__main__":
    main()
