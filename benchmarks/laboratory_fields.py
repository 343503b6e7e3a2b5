"""Photographs of a laboratory that a model has not seen: noticed, counted, adapted to without labels and with 40.

    python benchmarks/laboratory_fields.py --data ../shared/data --runs runs/unseen

The models are those that `benchmarks/unseen_laboratory.py` trains without BCCD, Raabin-WBC and Chulalongkorn. Each
gets its temperature and thresholds as the shipped model does: from the laboratories that others of these models do
without, but for the one that it is measured on. Of BCCD's photographs those count that show one leucocyte and have one
label, of Raabin-WBC those of single cells, in which the cell is found as in any field, of Chulalongkorn all, by their
boxes. Shares of found cells; the figures with labels are of all other cells.
"""

import argparse
import csv
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wbc_hf.adaptation import AdaptationCell, adapt, cells_to_learn
from wbc_hf.data import Box, find_pictures
from wbc_hf.data.layouts.boxed_cells import find_boxed_cells
from wbc_hf.evaluation import match_boxes
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES, class_index
from wbc_hf.smear import CellCounter, CellState, Origin, Picture, Specimen, check_laboratory, next_to_teach
from wbc_hf.training import calibrate_on_left_out

DROP, DROPS = 20, 200
LABELS = 40
LEFT_OUT = {"BCCD": "bccd/crops", "Raabin": "raabin", "Chulalongkorn": "chula_fields"}


@dataclass(frozen=True)
class Photograph:
    """A photograph whose one leucocyte, in the middle or alone, is of a known class, or those in boxes are."""

    path: Path
    label: int = -1
    boxed: tuple[tuple[Box, int], ...] = ()


def bccd(data: Path) -> list[Photograph]:
    folder = data / "bccd" / "fields"
    with (folder / "labels.csv").open(newline="") as file:
        labels = {row["Image"]: class_index(row["Category"].strip()) for row in csv.DictReader(file)}
    found = []
    for path in sorted((folder / "images").iterdir()):
        label = labels.get(str(int(path.stem.split("_")[1])))
        if label is not None:
            found.append(Photograph(path, label))
    return found


def chulalongkorn(data: Path) -> list[Photograph]:
    boxed = defaultdict(list)
    for cell in find_boxed_cells(data / "chula_fields"):
        if (label := class_index(cell.class_name)) is not None:
            boxed[cell.path].append((cell.box, label))
    return [Photograph(path, boxed=tuple(cells)) for path, cells in sorted(boxed.items())]


def of_folders(folder: Path) -> list[Photograph]:
    labelled = ((path, class_index(path.parent.name)) for path in find_pictures(folder))
    return [Photograph(path, label) for path, label in labelled if label is not None]


def laboratories(data: Path) -> dict[str, list[Photograph]]:
    return {"BCCD": bccd(data), "Raabin": of_folders(data / "raabin"), "Chulalongkorn": chulalongkorn(data)}


def calibrate_elsewhere(laboratory: str, data: Path, runs: Path, seed: int, folder: Path) -> Path:
    """Copy the model without a laboratory, with thresholds fitted on the other laboratories that models do without."""

    def model(name: str) -> Path:
        return runs / f"without-{name.lower()}-{seed}"

    copy = folder / model(laboratory).name
    shutil.copytree(model(laboratory), copy, ignore=shutil.ignore_patterns("checkpoint-*"))
    others = [(model(name), data / path) for name, path in LEFT_OUT.items() if name != laboratory]
    calibrate_on_left_out(copy, others)
    return copy


def count(predictor: Predictor, photographs: Sequence[Photograph]) -> tuple[CellCounter, dict[int, int]]:
    """Count photographs as one specimen. Returns it, and by number the class of each cell that is known."""
    counter = CellCounter(predictor, Specimen())
    counter.add_images([photograph.path for photograph in photographs])
    cells, truth = counter.specimen.cells, {}
    for number, photograph in enumerate(photographs, 1):
        whole = [cell for cell in cells if cell.picture == number and cell.state not in _LEFT_OUT]
        if photograph.boxed:
            pairs = match_boxes([box for box, _ in photograph.boxed], [cell.box for cell in whole])
            truth |= {whole[found].number: photograph.boxed[drawn][1] for drawn, found in pairs}
        elif len(whole) == 1:
            truth[whole[0].number] = photograph.label
    return counter, truth


_LEFT_OUT = (CellState.CUT, CellState.DUPLICATE)


def counted_and_right(counter: CellCounter, truth: dict[int, int], without: Sequence[int] = ()) -> str:
    cells = [cell for cell in counter.specimen.cells if cell.number in truth and cell.number not in without]
    right = [cell.suggestion == CLASS_NAMES[truth[cell.number]] for cell in cells]
    counted = np.array([replace(cell, review=None).state is CellState.COUNTED for cell in cells])
    of_those = np.array(right)[counted].mean() if counted.any() else float("nan")
    shares = f"counted {counted.mean():.3f}, of those right {of_those:.3f}"
    return f"{len(cells)} cells, accuracy {np.mean(right):.3f}, {shares}"


def noticed(counter: CellCounter, rng: np.random.Generator) -> float:
    """Share of drops of photographs that are called another laboratory's."""
    cells, calibration = counter.specimen.cells, counter.predictor.calibration
    pictures = np.unique([cell.picture for cell in cells])
    drops = (set(rng.choice(pictures, DROP, replace=False).tolist()) for _ in range(DROPS))
    origins = [
        check_laboratory([cell for cell in cells if cell.picture in drop], calibration).origin for drop in drops
    ]
    return float(np.mean([origin is Origin.ANOTHER for origin in origins]))


def in_order_of_review(counter: CellCounter, truth: dict[int, int]) -> Iterator[int]:
    """Numbers of cells as the program asks for them; each is reviewed with its true class. All wait at first."""
    cells = {
        cell.number: replace(cell, prediction=replace(cell.prediction, status="review"))
        for cell in counter.specimen.cells
        if cell.number in truth
    }
    specimen, numbers = Specimen(), list(cells)
    specimen.add_picture(Picture(0, "all", (1, 1), True, b""), list(cells.values()))
    while (cell := next_to_teach(specimen.cells)) is not None:
        number = numbers[cell.number - 1]
        specimen.review(cell.number, CLASS_NAMES[truth[number]])
        yield number


def adapted(model: Path, counter: CellCounter, labels: dict[int, int]) -> tuple[Predictor, float]:
    """A model adapted to the cells of a specimen, some of which have labels; and its seconds."""
    for number, label in labels.items():
        counter.specimen.review(number, CLASS_NAMES[label])
    result = adapt_to(model, cells_to_learn(counter.specimen.cells, "specimen"))
    for number in labels:
        counter.specimen.withdraw(number)
    return result


def adapt_to(model: Path, cells: Sequence[AdaptationCell]) -> tuple[Predictor, float]:
    """A model adapted to cells, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        adapt(model, cells, Path(folder) / "adapted")
        seconds = time.perf_counter() - started
        return Predictor.from_pretrained(Path(folder) / "adapted", "torch"), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="Folder of the laboratories.")
    parser.add_argument("--runs", type=Path, default=Path("runs/unseen"), help="Folder of the trained models.")
    parser.add_argument("--draws", type=int, default=3, help="Random draws of cells to label.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed.")
    arguments = parser.parse_args()
    sets = laboratories(arguments.data)
    home = of_folders(arguments.data / "pbc")
    with tempfile.TemporaryDirectory() as folder:
        for name, photographs in sets.items():
            model = calibrate_elsewhere(name, arguments.data, arguments.runs, arguments.seed, Path(folder))
            measure(name, model, photographs, home, arguments.draws, arguments.seed)


def measure(
    name: str, model: Path, photographs: Sequence[Photograph], home: Sequence[Photograph], draws: int, seed: int
) -> None:
    """Print all figures of one laboratory."""
    rng = np.random.default_rng(seed)
    predictor = Predictor.from_pretrained(model, fresh=True)
    shuffled = [photographs[index] for index in rng.permutation(len(photographs))]
    known, _ = count(predictor, [home[index] for index in rng.permutation(len(home))[:300]])
    few, truth = count(predictor, shuffled[:100])
    print(f"\n{name}, by the model trained without it", flush=True)
    print(f"drops of {DROP} called another laboratory: {noticed(few, rng):.3f}; of PBC: {noticed(known, rng):.3f}")
    print(f"as it is, 100 photographs: {counted_and_right(few, truth)}", flush=True)
    many, truth = count(predictor, shuffled[:400])
    print(f"as it is, {len(many.specimen.pictures)} photographs: {counted_and_right(many, truth)}", flush=True)
    without_labels, seconds = adapted(model, many, {})
    many.use(without_labels)
    print(f"adapted without labels: {counted_and_right(many, truth)}; {seconds:.0f} s", flush=True)
    many.use(predictor)
    chosen = [number for number, _ in zip(in_order_of_review(many, truth), range(LABELS), strict=False)]
    random = [rng.choice(list(truth), LABELS, replace=False).tolist() for _ in range(draws)]
    for what, numbers in [("in the order of review", chosen), *(("at random", draw) for draw in random)]:
        labelled, seconds = adapted(model, many, {number: truth[number] for number in numbers})
        many.use(labelled)
        print(f"{LABELS} labels {what}: {counted_and_right(many, truth, numbers)}; {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
