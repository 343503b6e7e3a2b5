"""Fit, time and evaluate systems of the survey, each in a process of its own, and resume after a stop.

A survey's folder holds `plan.json`, a folder for each system with its row and a report for each test set, and the
tables and the plot of all rows.
"""

import dataclasses
import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from wbc_hf.data import Leucocytes, leaked_test_images, load_leucocytes, read_image
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import evaluate, write_report
from wbc_hf.files import make_folder, write_json
from wbc_hf.inference import batches
from wbc_hf.manifest import Manifest
from wbc_hf.survey.system import System
from wbc_hf.survey.systems import SYSTEMS

logger = logging.getLogger(__name__)

PLAN_FILE, ROW_FILE = "plan.json", "row.json"
HOME = "test"  # name of the report on the training set's own test split
WORK_FOLDER = "work"


@dataclass(frozen=True)
class Plan:
    """What all systems of a survey have in common.

    Attributes:
        spec: Training set, as `load_leucocytes` takes it.
        laboratories: Name and set of each other laboratory, all of whose cells are tested on.
        most: Maximum of training cells of each class; None takes all.
        seed: Random seed of the split, the choice of training cells and the systems.

    Raises:
        WbcError: A name is given twice or reserved, or `most` is below 2.
    """

    spec: str
    laboratories: tuple[tuple[str, str], ...] = ()
    most: int | None = None
    seed: int = 0

    def __post_init__(self):
        names = [name for name, _ in self.laboratories]
        for name in names:
            if names.count(name) > 1 or name in (HOME, WORK_FOLDER):
                raise WbcError(f"--laboratory {name}: stands twice, or is a name that the survey uses. Take another.")
        if self.most is not None and self.most < 2:
            raise WbcError(f"--most {self.most}: 2 cells of a class or more.")


@dataclass(frozen=True)
class Row:
    """Results of one system.

    Attributes:
        name: Name of the system.
        start: Where its network's weights began; empty where it has none.
        training_cells: Number of training cells.
        seconds: Duration of `fit`; of its last part where `resumed`.
        resumed: Whether `fit` was resumed after a stop.
        images_per_second: Speed of `predict_proba`, from decoded pictures to probabilities, on the home test split.
        peak_bytes: Peak resident memory of its process; of the last part where `resumed`.
        parameters: Number of learnt values.
        reports: By test set, the `metrics` of its `Evaluation`.
    """

    name: str
    start: str
    training_cells: int
    seconds: float
    resumed: bool
    images_per_second: float
    peak_bytes: int
    parameters: int
    reports: dict[str, dict]


def claim(folder: Path, plan: Plan, fingerprints: Mapping[str, str]) -> None:
    """Write a survey's manifest into its folder, or check that the folder holds this survey.

    Args:
        folder: Made where it is missing.
        plan: Plan of the survey.
        fingerprints: Fingerprints of the plan's sets, by their names in the reports.

    Raises:
        WbcError: The folder holds another survey or something else, or cannot be made.
    """
    fingerprints = {f"images of {name}": fingerprint for name, fingerprint in fingerprints.items()}
    entries = dataclasses.asdict(plan) | {"laboratories": dict(plan.laboratories)} | fingerprints
    manifest = Manifest(folder / PLAN_FILE, entries, dict.fromkeys(fingerprints, "{name} were others"))
    if manifest.exists():
        if changes := manifest.changes():
            raise WbcError(f"{folder}: holds a survey already, whose {'; '.join(changes)}. Give another --output.")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WbcError(f"{folder}: is there already and holds no survey. Give another --output.")
    make_folder(folder, "Give another --output.")
    manifest.write()


def read_plan(folder: Path) -> Plan:
    """Read the plan of the survey in a folder."""
    recorded = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
    plan = {field.name: recorded[field.name] for field in dataclasses.fields(Plan)}
    return Plan(**plan | {"laboratories": tuple(recorded["laboratories"].items())})


def run_in_process(folder: Path, name: str) -> Row | None:
    """Run a system in a process of its own, unless it is finished.

    Args:
        folder: Folder of a claimed survey.
        name: A key of `SYSTEMS`.

    Returns:
        Its row; None where the process failed, which has printed why.
    """
    if not (folder / name / ROW_FILE).exists():
        ended = subprocess.run([sys.executable, "-m", "wbc_hf.survey", str(folder), name], check=False)
        if ended.returncode < 0:
            logger.error("%s: its process was ended by signal %d, perhaps for lack of memory", name, -ended.returncode)
        if ended.returncode:
            return None
    return read_row(folder, name)


def finished_rows(folder: Path) -> list[Row]:
    """Read the rows of finished systems, in the order of the table."""
    return [read_row(folder, name) for name in SYSTEMS if (folder / name / ROW_FILE).exists()]


def read_row(folder: Path, name: str) -> Row:
    """Read the row of a finished system."""
    return Row(**json.loads((folder / name / ROW_FILE).read_text(encoding="utf-8")))


def run_system(system: type[System], plan: Plan, folder: Path) -> Row:
    """Fit and evaluate one system in this process, and write its row and its reports.

    Args:
        system: Its class.
        plan: Plan of the survey.
        folder: Folder of the system.

    Raises:
        WbcError: Another process runs it, or its `fit` cannot use the cells.
    """
    leucocytes = load_leucocytes(plan.spec, seed=plan.seed)
    leaked = leaked_test_images(leucocytes)
    leucocytes = thin(leucocytes, plan.most, plan.seed)
    others = {
        name: concatenate_datasets(list(load_leucocytes(spec, seed=plan.seed).values()))
        for name, spec in plan.laboratories
    }
    work = folder / WORK_FOLDER
    resumed = work.exists()
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / "lock")
    try:  # a process whose parent was killed may still run
        lock.acquire(timeout=0)
    except Timeout:
        raise WbcError(f"{work}: another process runs it. Wait until it has ended, or end it.") from None
    with lock:
        fitted = system(work, plan.seed)
        started = time.perf_counter()
        fitted.fit(leucocytes)
        seconds = time.perf_counter() - started
        # Warm-up: what a process loads and compiles on its first prediction is not part of its speed.
        fitted.predict_proba([read_image(row["image"]) for row in leucocytes["test"].select(range(1))])
        report, images_per_second = _evaluate(fitted, leucocytes["test"], folder / HOME, leaked)
        reports = {HOME: report} | {name: _evaluate(fitted, rows, folder / name)[0] for name, rows in others.items()}
        row = Row(
            name=system.name,
            start=fitted.start,
            training_cells=len(leucocytes["train"]),
            seconds=seconds,
            resumed=resumed,
            images_per_second=images_per_second,
            peak_bytes=_peak_bytes(),
            parameters=fitted.parameters,
            reports=reports,
        )
        write_json(folder / ROW_FILE, dataclasses.asdict(row))
        shutil.rmtree(work)
    return row


def thin(leucocytes: Leucocytes, most: int | None, seed: int) -> Leucocytes:
    """Draw at most so many training cells of each class at random; the other splits stay whole."""
    if most is None:
        return leucocytes
    train = leucocytes["train"]
    order = np.random.default_rng(seed).permutation(len(train))
    labels = np.array(train["label"])[order]
    kept = np.sort(np.concatenate([order[labels == label][:most] for label in np.unique(labels)]))
    return leucocytes.with_splits(train=train.select(kept))


def _evaluate(system: System, rows: Dataset, folder: Path, leaked: np.ndarray | None = None) -> tuple[dict, float]:
    """Write the report on some cells into `folder`; return its metrics and the images per second."""
    seconds, probabilities = 0.0, []
    for batch in tqdm(batches(rows), desc=f"Testing on {folder.name}", unit="batch", delay=2, leave=False):
        images = [read_image(row["image"]) for row in batch]
        started = time.perf_counter()
        probabilities.append(system.predict_proba(images))
        seconds += time.perf_counter() - started
    evaluation = evaluate(rows["label"], np.concatenate(probabilities), groups=rows["group"], leaked=leaked)
    write_report(folder, evaluation, names=rows["source"], image_at=lambda index: read_image(rows[index]["image"]))
    return evaluation.metrics, len(rows) / seconds


def _peak_bytes() -> int:
    """Peak resident memory of this process."""
    if sys.platform == "linux":
        # getrusage's figure includes what the parent process had.
        (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024
    if sys.platform == "win32":
        import psutil  # comes with accelerate

        return psutil.Process().memory_info().peak_wset
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
