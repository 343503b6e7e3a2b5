"""`wbc-hf predict --output` over very many images: time, memory, kills, and one process against two.

    python benchmarks/bulk.py --model models/starter

Paints a few hundred cells and repeats them under names of their own. Prints, for 10,000, 30,000 and 100,000 of them,
seconds from the command's start to its end, images/s, and the memory of the process after its first thousand
predictions and at its end; then a run that is killed twice and resumed; then one process on one core against two on
two. Ends with status 1 where memory grew by more than a tenth, an image was not classified exactly once, or two
processes were less than 1.6 times as fast as one. Needs Linux, where `/proc` holds the memory of a process.
"""

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from wbc_hf.data import paint_cells
from wbc_hf.labels import CLASS_NAMES

ROOT = Path(__file__).parents[1]
PAINTED = 300
CELL_SIDE = 96
FILES_PER_FOLDER = 10_000
GROWTH = 0.1
LEAST_RATIO = 1.6
POLLING_SECONDS = 0.1


@dataclass(frozen=True)
class Measured:
    """One run. Memory in MiB: resident after the first chunk was written, at the end, and the peak."""

    seconds: float
    first: float
    last: float
    peak: float

    @property
    def growth(self) -> float:
        return self.last / self.first - 1


def paint(folder: Path) -> list[Path]:
    """Write painted cells as JPEG files."""
    folder.mkdir()
    labels = np.arange(PAINTED) % len(CLASS_NAMES)
    files = []
    for index, cell in enumerate(paint_cells(labels, CELL_SIDE, seed=41)):
        files.append(folder / f"{index}.jpg")
        Image.fromarray(cell).save(files[-1], quality=92)
    return files


def repeat(painted: Sequence[Path], count: int, folder: Path) -> Path:
    """Make a folder of `count` file names in sub-folders, each a hard link to one of the painted cells."""
    for index in range(count):
        below = folder / f"{index // FILES_PER_FOLDER:03d}"
        if index % FILES_PER_FOLDER == 0:
            below.mkdir(parents=True)
        os.link(painted[index % len(painted)], below / f"{index:07d}.jpg")
    return folder


# ---- running the command


def command(images: Path, model: str, output: Path, processes: int = 1) -> list[str]:
    """The command as a user types it."""
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}"] if processes > 1 else []
    words = [sys.executable, *launcher, "-m", "wbc_hf.cli", "predict", str(images), "--model", model]
    return [*words, "--output", str(output)]


def start(words: Sequence[str], cores: set[int] | None = None) -> subprocess.Popen:
    """Start in a new process group, so that a kill reaches the children; on these cores where given."""
    pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    return subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, process_group=0, preexec_fn=pin
    )


def finish(process: subprocess.Popen) -> None:
    errors = process.communicate()[1]
    if process.returncode:
        sys.exit(f"The command ended with status {process.returncode}:\n{errors}")


def measure(words: Sequence[str], output: Path, cores: set[int] | None = None) -> Measured:
    """Run to the end and sample the memory of the process."""
    chunks = output.with_name(f"{output.name}.chunks")
    started = time.perf_counter()
    process = start(words, cores)
    samples: list[float] = []
    while process.poll() is None:
        if samples or any(chunks.glob("*.arrow")):
            samples.append(resident_mib(process.pid))
        time.sleep(POLLING_SECONDS)
    seconds = time.perf_counter() - started
    finish(process)
    # A process that is ending has no resident set.
    samples = [sample for sample in samples if sample] or [float("nan")]
    tail = samples[-10:]
    return Measured(seconds, samples[0], sorted(tail)[len(tail) // 2], max(samples))


def resident_mib(process: int) -> float:
    """The resident set of a process, in MiB; 0 of one that is ending."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    resident = [line for line in lines if line.startswith("VmRSS:")]
    return int(resident[0].split()[1]) / 1024 if resident else 0.0


def count_faults(images: Path, output: Path) -> int:
    """Count the images that have no row, more than one, or are unreadable."""
    with output.open(newline="", encoding="utf-8") as file:
        rows = Counter((row["file"], row["status"]) for row in csv.DictReader(file))
    classified = Counter(dict.fromkeys(map(str, images.rglob("*.jpg")), 0))
    for (name, status), count in rows.items():
        classified[name] += count if status != "unreadable" else 0
    return sum(count != 1 for count in classified.values())


def kill_after(words: Sequence[str], output: Path, chunks: int) -> None:
    """Start, wait for a number of chunks, and kill the whole process group, as a power cut would."""
    folder = output.with_name(f"{output.name}.chunks")
    process = start(words)
    while process.poll() is None and len(list(folder.glob("*.arrow"))) < chunks:
        time.sleep(POLLING_SECONDS)
    if process.poll() is not None:
        sys.exit("The command ended before it could be killed: give more images.")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()


# ---- what is measured


def run_sizes(painted: Sequence[Path], sizes: Sequence[int], model: str, folder: Path) -> bool:
    """Print time and memory by number of images; return whether every run passed."""
    print(f"{'images':>9}{'seconds':>9}{'images/s':>10}{'MiB at 1,000':>14}{'at the end':>12}{'growth':>8}{'peak':>7}")
    well = True
    for size in tqdm(sizes, desc="Sizes", delay=2, leave=False):
        images, output = repeat(painted, size, folder / f"{size}"), folder / f"{size}.csv"
        took = measure(command(images, model, output), output)
        faults = count_faults(images, output)
        well &= took.growth <= GROWTH and not faults
        tqdm.write(
            f"{size:>9,}{took.seconds:>9.1f}{size / took.seconds:>10.0f}{took.first:>14.0f}{took.last:>12.0f}"
            f"{took.growth:>8.1%}{took.peak:>7.0f}" + (f"   {faults} not classified exactly once" if faults else "")
        )
    return well


def run_kills(images: Path, count: int, model: str, folder: Path) -> bool:
    """Kill twice, after each third; return whether every image has exactly one row in the end."""
    output = folder / "killed.csv"
    words = command(images, model, output)
    for third in (1, 2):
        kill_after(words, output, chunks=max(1, third * count // 3000))
    finish(start(words))
    faults = count_faults(images, output)
    print(f"killed twice and resumed: {count - faults:,} of {count:,} images classified exactly once")
    return not faults


def run_processes(images: Path, count: int, model: str, folder: Path) -> bool:
    """Time one process on one core against two on two, three times each; return whether two are fast enough."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    rounds = []
    for number in range(3):
        seconds = {}
        for processes in (1, 2):
            output = folder / f"{processes} processes {number}.csv"
            words = command(images, model, output, processes)
            seconds[processes] = measure(words, output, set(cores[:processes])).seconds
        rounds.append(seconds)
    ratio = float(np.median([seconds[1] / seconds[2] for seconds in rounds]))
    one, two = (float(np.median([seconds[n] for seconds in rounds])) for n in (1, 2))
    print(
        f"{count:,} images, medians of three: one process on one core {one:.1f} s ({count / one:.0f} images/s), "
        f"two on two cores {two:.1f} s ({count / two:.0f} images/s), ratio {ratio:.2f}"
    )
    return ratio >= LEAST_RATIO


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/starter", help="Model folder or Hub id.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000], help="Numbers of images.")
    parser.add_argument("--shared", type=int, default=20_000, help="Images for the kills and for two processes.")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        painted = paint(folder / "painted")
        well = run_sizes(painted, arguments.sizes, arguments.model, folder)
        shared = repeat(painted, arguments.shared, folder / "shared")
        well &= run_kills(shared, arguments.shared, arguments.model, folder)
        well &= run_processes(shared, arguments.shared, arguments.model, folder)
    sys.exit(not well)


if __name__ == "__main__":
    main()
