"""`wbc-hf predict --output` over very many images: rate, memory, kills, one core against two, and two nodes.

    python benchmarks/bulk.py --model models/starter

Paints a few hundred cells and repeats them under names of their own. Prints, for 10,000, 30,000 and 100,000 of them,
seconds from the command's start to its end, images/s from the first result to the last beside those of the predictor
itself on the same cores, and the memory of the driver and of the largest actor after 5,000 predictions and at the end.
Then a run of 100,000 is killed twice, the driver and an actor, and resumed; one actor on one core is timed against two
on two; and two nodes on 127.0.0.1 share a job, of which one is killed.

Ends with status 1 where memory grew by more than a tenth, Ray was more than a tenth slower than the predictor, an
image was not classified exactly once, or two actors were less than 1.7 times as fast as one. Needs Linux and the extra
`bulk`.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
from PIL import Image
from tqdm.auto import tqdm

from wbc_hf.data import paint_cells
from wbc_hf.labels import CLASS_NAMES

ROOT = Path(__file__).parents[1]
PAINTED = 300
CELL_SIDE = 96
FILES_PER_FOLDER = 10_000
SHARD = 1000
STEADY = 5000  # images after which memory has to be level
GROWTH = 0.1
SLOWER = 0.1
LEAST_RATIO = 1.7
POLLING_SECONDS = 0.2
PORT = 6399
NODE_SECONDS = 25  # a node that cannot join gives up after twenty

# The predictor itself over the same files: prints images/s without loading.
DIRECT = """
import sys, time
from pathlib import Path
from wbc_hf.hardware import use_one_blas_thread
from wbc_hf.inference import Predictor

use_one_blas_thread()
predictor = Predictor.from_pretrained(sys.argv[1])
files = sorted(Path(sys.argv[2]).rglob("*.jpg"))[: int(sys.argv[3])]
list(predictor.predict_each(files[:200]))
started = time.perf_counter()
assert len(list(predictor.predict_each(files))) == len(files)
print(len(files) / (time.perf_counter() - started))
"""


@dataclass
class Watched:
    """Samples of a run: seconds and resident MiB of the driver and of the largest actor."""

    seconds: float = 0.0
    driver: list[float] = field(default_factory=list)
    actor: list[float] = field(default_factory=list)

    def spans(self) -> list[tuple[float, float]]:
        """First sample and median of the last ten, of driver and actor; NaN where the run was too short."""
        every = [samples or [float("nan")] for samples in (self.driver, self.actor)]
        return [(samples[0], float(np.median(samples[-10:]))) for samples in every]


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


def command(images: Path, model: str, output: Path, *more: str) -> list[str]:
    """The command as a user types it."""
    words = [sys.executable, "-m", "wbc_hf.cli", "predict", str(images), "--model", model, "--output", str(output)]
    return [*words, *more]


def start(words: Sequence[str], cores: set[int] | None = None, **environment: str) -> subprocess.Popen:
    """Start in a new process group, on these cores where given."""
    pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    environment = os.environ | environment
    return subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, process_group=0, preexec_fn=pin
    )


def finish(process: subprocess.Popen) -> None:
    if process.wait():
        sys.exit(f"The command ended with status {process.returncode}.")


def shards(output: Path) -> list[Path]:
    """Written files of predictions, the oldest first."""
    found = (output / "predictions").glob("*.parquet")
    return sorted(found, key=lambda file: file.stat().st_mtime_ns)


def actors(driver: int) -> list[psutil.Process]:
    """Processes of a local run's actors."""
    found = []
    for child in psutil.Process(driver).children(recursive=True):
        with suppress(psutil.Error):
            if "_OnItsCores" in " ".join(child.cmdline()):
                found.append(child)
    return found


def watch(words: Sequence[str], output: Path, cores: set[int] | None = None) -> Watched:
    """Run to the end, and sample memory once `STEADY` images are done."""
    watched, started = Watched(), time.perf_counter()
    process = start(words, cores)
    while process.poll() is None:
        if len(shards(output)) * SHARD >= STEADY:
            with suppress(psutil.Error):
                watched.driver.append(psutil.Process(process.pid).memory_info().rss / 2**20)
                if found := [actor.memory_info().rss / 2**20 for actor in actors(process.pid)]:
                    watched.actor.append(max(found))
        time.sleep(POLLING_SECONDS)
    watched.seconds = time.perf_counter() - started
    finish(process)
    return watched


def rate(output: Path) -> float:
    """Images/s between the first file of predictions and the last."""
    files = shards(output)
    if len(files) < 2:
        return float("nan")
    seconds = (files[-1].stat().st_mtime_ns - files[0].stat().st_mtime_ns) / 1e9
    return sum(pq.read_metadata(file).num_rows for file in files[1:]) / seconds


def direct_rate(images: Path, model: str, count: int, cores: set[int] | None = None) -> float:
    pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    words = [sys.executable, "-c", DIRECT, model, str(images), str(count)]
    return float(subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True, preexec_fn=pin).stdout)


def count_faults(images: Path, output: Path) -> int:
    """Count the images that have no row, more than one, or are unreadable."""
    classified = Counter(dict.fromkeys(map(str, images.rglob("*.jpg")), 0))
    for row in pq.read_table(output / "predictions", columns=["file", "status"]).to_pylist():
        classified[row["file"]] += row["status"] != "unreadable"
    return sum(count != 1 for count in classified.values())


def wait_for(process: subprocess.Popen, output: Path, images: int) -> None:
    """Wait until so many images are done."""
    while process.poll() is None and len(shards(output)) * SHARD < images:
        time.sleep(POLLING_SECONDS)
    if process.poll() is not None:
        sys.exit("The command ended before anything could be killed: give more images.")


# ---- what is measured


def run_sizes(painted: Sequence[Path], sizes: Sequence[int], model: str, folder: Path) -> bool:
    """Print time, rate and memory by number of images; return whether every run passed."""
    print(
        f"{'images':>9}{'seconds':>9}{'images/s':>10}{'direct':>8}{'driver MiB':>18}{'actor MiB':>18}"
        f"   after {STEADY:,} and at the end"
    )
    well = True
    for size in tqdm(sizes, desc="Sizes", delay=2, leave=False):
        images, output = repeat(painted, size, folder / f"{size}"), folder / f"{size} predictions"
        direct = direct_rate(images, model, min(size, sizes[0]))
        took = watch(command(images, model, output), output)
        faults, reached = count_faults(images, output), rate(output)
        driver, actor = took.spans()
        well &= not faults and not any(last > (1 + GROWTH) * first for first, last in (driver, actor))
        well &= not reached < (1 - SLOWER) * direct
        tqdm.write(
            f"{size:>9,}{took.seconds:>9.1f}{reached:>10.1f}{direct:>8.1f}"
            f"{driver[0]:>9.0f}{driver[1]:>9.0f}{actor[0]:>9.0f}{actor[1]:>9.0f}"
            + (f"   {faults} not classified exactly once" if faults else "")
        )
    return well


def run_kills(images: Path, count: int, model: str, folder: Path) -> bool:
    """Kill the driver after a third and an actor after two; return whether every image has exactly one row."""
    output = folder / "killed"
    words = command(images, model, output)
    process = start(words)
    wait_for(process, output, count // 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process = start(words)
    wait_for(process, output, 2 * count // 3)
    actors(process.pid)[0].send_signal(signal.SIGKILL)
    finish(process)
    faults = count_faults(images, output)
    print(f"driver and actor killed, resumed: {count - faults:,} of {count:,} images classified exactly once")
    return not faults


def run_cores(images: Path, count: int, model: str, folder: Path) -> bool:
    """Compare one actor on one core with two on two, by images/s; return whether two are fast enough."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    rates = []
    for number in (1, 2):
        output = folder / f"{number} cores"
        watch(command(images, model, output), output, set(cores[:number]))
        rates.append(rate(output))
    ratio = rates[1] / rates[0]
    print(f"{count:,} images: one core {rates[0]:.1f} images/s, two cores {rates[1]:.1f}, ratio {ratio:.2f}")
    return ratio >= LEAST_RATIO


def run_nodes(images: Path, count: int, model: str, folder: Path) -> bool:
    """Two nodes on this machine share a job; one is killed. Return whether every image has exactly one row."""
    output = folder / "nodes"
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"]
    address = f"127.0.0.1:{PORT}"
    head = [*ray, "--head", "--node-ip-address", "127.0.0.1", "--port", str(PORT), "--include-dashboard", "false"]
    with running([*head, "--num-cpus", "2"]):
        # A head asks for a token by itself; a node that joins it brings one only where it is told to.
        node = [*ray, "--address", address, "--node-ip-address", "127.0.0.1", "--num-cpus", "1"]
        with running(node, RAY_AUTH_MODE="token") as kill:
            process = start(command(images, model, output, "--address", address))
            wait_for(process, output, count // 3)
            kill()
            finish(process)
    faults = count_faults(images, output)
    print(f"two nodes, one killed: {count - faults:,} of {count:,} images classified exactly once")
    return not faults


@contextmanager
def running(words: Sequence[str], **environment: str):
    """Run a Ray node until the block ends; yields what kills it and all its processes at once."""
    process = start(words, **environment)

    def kill() -> None:
        with suppress(psutil.Error):
            below = psutil.Process(process.pid).children(recursive=True)
            for one in [*below, psutil.Process(process.pid)]:
                with suppress(psutil.Error):
                    one.kill()
        process.wait()

    try:
        time.sleep(NODE_SECONDS)
        if process.poll() is not None:
            sys.exit(f"The node did not start: {' '.join(words)}")
        yield kill
    finally:
        kill()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/starter", help="Model folder or Hub id.")
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 30_000, 100_000], help="Numbers of images.")
    parser.add_argument("--kills", type=int, default=100_000, help="Images of a run with two kills; 0 for none.")
    parser.add_argument("--cores", type=int, default=30_000, help="Images for one core against two; 0 for none.")
    parser.add_argument("--nodes", type=int, default=10_000, help="Images for two nodes; 0 for none.")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        painted = paint(folder / "painted")
        well = not arguments.sizes or run_sizes(painted, sorted(arguments.sizes), arguments.model, folder)
        further: list[tuple[int, Callable[[Path, int, str, Path], bool]]] = [
            (arguments.kills, run_kills),
            (arguments.cores, run_cores),
            (arguments.nodes, run_nodes),
        ]
        for count, run in further:
            if count:
                images = folder / f"{run.__name__} {count}"
                well &= run(repeat(painted, count, images), count, arguments.model, folder)
    sys.exit(not well)


if __name__ == "__main__":
    main()
