"""Fit, time and judge systems of the survey, each in a process of its own; what is done stays done.

A survey's folder holds `plan.json`, a folder for each system with its row and one report a test set, and the tables
and the plot that `tables.py` makes of all rows.
"""

import dataclasses
import fcntl
import json
import logging
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets
from tqdm.auto import tqdm

from wbc_hf.data import Leucocytes, leaked_test_images, load_leucocytes, read_image
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import evaluate, write_report
from wbc_hf.files import write_json
from wbc_hf.inference import batches
from wbc_hf.manifest import Manifest
from wbc_hf.survey.system import System
from wbc_hf.survey.systems import SYSTEMS

logger = logging.getLogger(__name__)

PLAN_FILE, ROW_FILE = "plan.json", "row.json"
HOME = "test"  # the report on the test split of the set that was learnt from
WORK_FOLDER = "work"


@dataclass(frozen=True)
class Plan:
    """What all systems of a survey have in common.

    Attributes:
        spec: The set whose training cells they learn from, as `load_leucocytes` takes it.
        laboratories: Name and set of each other laboratory, all of whose cells are tested on.
        most: Training cells of a class at most; None takes all.
        seed: Of the split, of the choice of training cells and of everything that is drawn.

    Raises:
        WbcError: A name that stands twice or is that of a file here, or too few cells.
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
    """What was measured of one system.

    Attributes:
        name: Of the system.
        start: Where its network's weights began; empty where it has none.
        training_cells: How many of the set's it learnt from.
        seconds: Of `fit`; of its last part where `resumed`.
        resumed: Whether `fit` was taken up after a stop.
        images_per_second: Of `predict_proba`, from decoded pictures to probabilities, on the home test split.
        peak_bytes: Largest resident memory of its process, loading of the pictures included; of the last part where
            `resumed`.
        parameters: How many numbers it learnt.
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
    """Note in a folder which survey it holds, or check that it holds this one.

    Args:
        folder: Made where it is missing.
        plan: Of the survey.
        fingerprints: Of the plan's sets, by their names in the reports.

    Raises:
        WbcError: It holds another survey, or something that is none, or cannot be made.
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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        manifest.write()
    except OSError as error:
        raise WbcError(f"{folder}: cannot be written ({error.strerror}). Give another --output.") from None


def read_plan(folder: Path) -> Plan:
    """The plan of the survey that a folder holds."""
    recorded = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
    plan = {field.name: recorded[field.name] for field in dataclasses.fields(Plan)}
    return Plan(**plan | {"laboratories": tuple(recorded["laboratories"].items())})


def run_in_process(folder: Path, name: str) -> Row | None:
    """Fit and judge a system in a process of its own, unless it is done; None where that failed, and has said why.

    Args:
        folder: Of a survey, claimed.
        name: Of the system, a key of `SYSTEMS`.
    """
    if not (folder / name / ROW_FILE).exists():
        ended = subprocess.run([sys.executable, "-m", "wbc_hf.survey", str(folder), name], check=False)
        if ended.returncode < 0:
            logger.error("%s: its process was ended by signal %d; was there memory enough?", name, -ended.returncode)
        if ended.returncode:
            return None
    return read_row(folder, name)


def finished_rows(folder: Path) -> list[Row]:
    """The rows of a survey that are done, in the order of the table."""
    return [read_row(folder, name) for name in SYSTEMS if (folder / name / ROW_FILE).exists()]


def read_row(folder: Path, name: str) -> Row:
    """A row that is done."""
    return Row(**json.loads((folder / name / ROW_FILE).read_text(encoding="utf-8")))


def run_system(system: type[System], plan: Plan, folder: Path) -> Row:
    """Fit and judge one system in this process, and write its row and its reports.

    Args:
        system: Which.
        plan: Of the survey.
        folder: Of the system.

    Raises:
        WbcError: Another process is at it, or something that its `fit` cannot use.
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
    with _alone(work / "lock"):
        fitted = system(work, plan.seed)
        started = time.perf_counter()
        fitted.fit(leucocytes)
        seconds = time.perf_counter() - started
        # What a process loads and compiles when it first answers is not part of its speed.
        fitted.predict_proba([read_image(row["image"]) for row in leucocytes["test"].select(range(1))])
        report, images_per_second = _judge(fitted, leucocytes["test"], folder / HOME, leaked)
        reports = {HOME: report} | {name: _judge(fitted, rows, folder / name)[0] for name, rows in others.items()}
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
    """The same set with at most so many training cells of each class, drawn at random; the other splits are whole."""
    if most is None:
        return leucocytes
    train = leucocytes["train"]
    order = np.random.default_rng(seed).permutation(len(train))
    labels = np.array(train["label"])[order]
    kept = np.sort(np.concatenate([order[labels == label][:most] for label in np.unique(labels)]))
    thinned = Leucocytes(leucocytes)
    thinned["train"] = train.select(kept)
    thinned.provenance, thinned.near_duplicates = leucocytes.provenance, leucocytes.near_duplicates
    return thinned


def _judge(system: System, rows: Dataset, folder: Path, leaked: np.ndarray | None = None) -> tuple[dict, float]:
    """The report on some cells, written into `folder`, and images a second."""
    seconds, answers = 0.0, []
    for batch in tqdm(batches(rows), desc=f"Testing on {folder.name}", unit="batch", delay=2, leave=False):
        images = [read_image(row["image"]) for row in batch]
        started = time.perf_counter()
        answers.append(system.predict_proba(images))
        seconds += time.perf_counter() - started
    evaluation = evaluate(rows["label"], np.concatenate(answers), groups=rows["group"], leaked=leaked)
    write_report(folder, evaluation, names=rows["source"], image_at=lambda index: read_image(rows[index]["image"]))
    return evaluation.metrics, len(rows) / seconds


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """For one process at a time: one whose parent was killed may still be at it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WbcError(f"{path.parent}: another process is at it. Wait until it is done, or end it.") from None
        yield


def _peak_bytes() -> int:
    """The most memory that this process has had resident."""
    if sys.platform == "linux":
        # getrusage's figure is no less than what the process that started this one had.
        (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
