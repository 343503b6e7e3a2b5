"""Peak memory of fine-tuning a full-width ResNet-50, reading of the images included.

    python benchmarks/training_memory.py

Runs `train.py` in a process of its own on painted cells and prints its peak resident memory.
The source study's class of machine has 4 GB and two cores.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT_GIB = 4.0


def main() -> None:
    """Train for a few steps, print the peak, and end with status 1 where it is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image_size", type=int, default=112, help="side of the images, in pixels")
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--steps", type=int, default=8, help="steps to train for")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run(command(folder, arguments.image_size, arguments.batch, arguments.steps), cwd=ROOT, check=True)
        seconds = time.perf_counter() - started
    peak = peak_of_children_gib()
    print(f"\npeak resident memory {peak:.2f} GiB (limit {LIMIT_GIB:.0f}), {seconds:.0f} s")
    sys.exit(peak > LIMIT_GIB)


def command(folder: str, image_size: int, batch: int, steps: int) -> list[str]:
    """A run of `steps` steps with one evaluation, one checkpoint and a report."""
    words = [sys.executable, "train.py", "--dataset=synthetic:60", "--from_scratch", f"--output_dir={folder}/run"]
    words += [f"--image_size={image_size}", f"--per_device_train_batch_size={batch}", f"--max_steps={steps}"]
    return words


def peak_of_children_gib() -> float:
    """Largest resident set of any child that has ended, in GiB; Linux counts KiB, macOS bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 2**30


if __name__ == "__main__":
    main()
