"""Run systems side by side: each is fitted, timed and judged in a process of its own, and what is done stays done.

A survey's folder holds `plan.json`, a folder for each system with its row and one report a test set, and the tables
and the plot that `tables.py` makes of all rows.
"""

import dataclasses
import json
import logging
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets
from tqdm.auto import tqdm

from wbc_hf.data import Leucocytes, load_leucocytes, read_image
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import write_json, write_report
from wbc_hf.serving import BATCH_SIZE, batches
from wbc_hf.survey.system import System
from wbc_hf.survey.systems import SYSTEMS

logger = logging.getLogger(__name__)

PLAN_FILE, ROW_FILE = "plan.json", "row.json"
HOME = "test"  # the report on the test split of the set that was learnt from
_WORK_FOLDER = "work"
_THUMBNAIL = (160, 160)


@dataclass(frozen=True)
class Plan:
    """What all systems of a survey have in common.

    Attributes:
        spec: The set whose training cells they learn from, as `load_leucocytes` takes it.
        laboratories: Name and set of each other laboratory, all of whose cells are tested on.
        fields: Folder of boxed photographs to score detectors on, if any.
        most: Training cells of a class at most; None takes all.
        seed: Of the split, of the choice of training cells and of everything that is drawn.
    """

    spec: str
    laboratories: tuple[tuple[str, str], ...] = ()
    fields: str | None = None
    most: int | None = None
    seed: int = 0

    @classmethod
    def read(cls, folder: Path) -> "Plan":
        given = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
        return cls(**given | {"laboratories": tuple(map(tuple, given["laboratories"]))})


@dataclass(frozen=True)
class Row:
    """What was measured of one system.

    Attributes:
        name: Of the system.
        start: Where its network's weights began; empty where it has none.
        training_cells: How many it learnt from.
        seconds: Of `fit`; of the last part of it where `resumed`.
        resumed: Whether `fit` was taken up after a stop.
        images_per_second: Of `predict_proba`, from decoded pictures to probabilities, on the home test split.
        peak_bytes: Largest resident memory of its process, loading of the pictures included.
        parameters: How many numbers it learnt.
        reports: By test set, what `write_report` returned.
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


def run_survey(plan: Plan, names: Sequence[str], folder: Path) -> Iterator[Row | str]:
    """Fit and judge systems, one after the other; those that are done are not done again.

    Args:
        plan: What they have in common.
        names: Of systems, keys of `SYSTEMS`.
        folder: Of the survey; made where it is missing.

    Yields:
        For each name its row, or the name itself where the system failed: its process has said why, and the others
        go on.

    Raises:
        WbcError: The folder holds a survey with another plan, or something that is none, or cannot be made.
    """
    _claim(folder, plan)
    for name in names:
        if (folder / name / ROW_FILE).exists():
            yield read_row(folder, name)
            continue
        ended = subprocess.run([sys.executable, "-m", "wbc_hf.survey.running", str(folder), name], check=False)
        if ended.returncode < 0:
            logger.error("%s: its process was ended by signal %d; was there memory enough?", name, -ended.returncode)
        yield name if ended.returncode else read_row(folder, name)


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
    """
    leucocytes = thin(load_leucocytes(plan.spec, seed=plan.seed), plan.most, plan.seed)
    sets = {HOME: leucocytes["test"]}
    for name, spec in plan.laboratories:
        sets[name] = concatenate_datasets(list(load_leucocytes(spec, seed=plan.seed).values()))
    work = folder / _WORK_FOLDER
    resumed = work.exists()
    work.mkdir(parents=True, exist_ok=True)
    fitted = system(work, plan.seed)
    started = time.perf_counter()
    fitted.fit(leucocytes)
    seconds = time.perf_counter() - started
    # What a process loads and compiles when it first answers is not part of its speed.
    fitted.predict_proba([read_image(row["image"]) for row in leucocytes["test"].select(range(1))])
    judged = {name: _judge(fitted, rows, folder / name, name) for name, rows in sets.items()}
    row = Row(
        name=system.name,
        start=fitted.start,
        training_cells=len(leucocytes["train"]),
        seconds=seconds,
        resumed=resumed,
        images_per_second=judged[HOME][1],
        peak_bytes=_peak_bytes(),
        parameters=fitted.parameters,
        reports={name: metrics for name, (metrics, _) in judged.items()},
    )
    write_json(folder / ROW_FILE, dataclasses.asdict(row))
    shutil.rmtree(work)
    return row


def thin(leucocytes: Leucocytes, most: int | None, seed: int) -> Leucocytes:
    """The same set with at most so many training cells of each class, drawn at random; the other splits are whole.

    Raises:
        WbcError: `most` is none that can be trained on.
    """
    if most is None:
        return leucocytes
    if most < 2:
        raise WbcError(f"--most {most}: 2 cells of a class or more.")
    train = leucocytes["train"]
    order = np.random.default_rng(seed).permutation(len(train))
    labels = np.array(train["label"])[order]
    kept = np.sort(np.concatenate([order[labels == label][:most] for label in np.unique(labels)]))
    thinned = Leucocytes(leucocytes)
    thinned["train"] = train.select(kept)
    thinned.provenance, thinned.copies = leucocytes.provenance, leucocytes.copies
    return thinned


def _judge(system: System, rows: Dataset, folder: Path, name: str) -> tuple[dict, float]:
    """The report on some cells, written into `folder`, and images a second."""
    seconds, answers, mistakes = 0.0, [], {}
    for batch in tqdm(batches(rows), desc=f"Testing on {name}", unit="batch", delay=2, leave=False):
        images = [read_image(row["image"]) for row in batch]
        started = time.perf_counter()
        probabilities = system.predict_proba(images)
        seconds += time.perf_counter() - started
        for number, (row, image, given) in enumerate(zip(batch, images, probabilities.argmax(1), strict=True)):
            if given != row["label"]:
                image.thumbnail(_THUMBNAIL)
                mistakes[BATCH_SIZE * len(answers) + number] = image
        answers.append(probabilities)
    metrics = write_report(
        folder,
        references=np.array(rows["label"]),
        probabilities=np.concatenate(answers),
        names=rows["source"],
        groups=rows["group"],
        image_at=mistakes.__getitem__,
        log_history=[],
    )
    return metrics, len(rows) / seconds


def _peak_bytes() -> int:
    """The most memory that this process has had resident."""
    if sys.platform == "linux":
        # getrusage's figure is no less than what the process that started this one had.
        (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _claim(folder: Path, plan: Plan) -> None:
    """Note in the folder what survey it holds, or check that it holds this one."""
    if (folder / PLAN_FILE).exists():
        before, now = dataclasses.asdict(Plan.read(folder)), dataclasses.asdict(plan)
        changed = [f"{key} was {before[key]!r}, now {now[key]!r}" for key in now if before[key] != now[key]]
        if changed:
            raise WbcError(f"{folder}: holds a survey already, whose {'; '.join(changed)}. Give another --output.")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WbcError(f"{folder}: is there already and holds no survey. Give another --output.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / PLAN_FILE, dataclasses.asdict(plan))
    except OSError as error:
        raise WbcError(f"{folder}: cannot be written ({error.strerror}). Give another --output.") from None


def main(folder: str, name: str) -> None:
    """What the process of one system does."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        run_system(SYSTEMS[name], Plan.read(Path(folder)), Path(folder) / name)
    except WbcError as error:
        print(f"wbc-hf: {name}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main(*sys.argv[1:])
