"""Adaptation to few cells of a laboratory that a model has not seen, found in its photographs.

    python benchmarks/few_cells.py --data ../shared/data --runs runs/unseen

By the models that `benchmarks/unseen_laboratory.py` trains without a laboratory, with thresholds of the others, as in
`benchmarks/laboratory_fields.py`. First without labels: to 20, 100 and 200 cells, drawn as they are in the set, or in
the proportions of blood; figures are of these cells. Then with labels of half of 20 cells; figures are of 100 others:
as it is, all weights fine-tuned to the labels, the last layer fitted to the labels alone, and as shipped, to all 20.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
from laboratory_fields import LEFT_OUT, adapt_to, calibrate_elsewhere, count, laboratories

from wbc_hf.adaptation import AdaptationCell, cells_to_learn
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.smear.cell_views import predict_crops

SIZES = {20: 6, 100: 3, 200: 1}  # cells, and how many draws of them
LABELLED, CELLS, OTHERS, DRAWS = 10, 20, 100, 4
# Basophils, eosinophils, lymphocytes, monocytes, neutrophils.
BLOOD = np.array([0.02, 0.05, 0.28, 0.08, 0.57])
ALL_WEIGHTS = patch("wbc_hf.adaptation.few_shot._FINE_TUNED", 0)


class Answers:
    """Predictions of cells, draw after draw: whether each is right, its probability, and whether it is counted."""

    def __init__(self) -> None:
        self.right: list[bool] = []
        self.counted: list[bool] = []
        self.surest: list[bool] = []

    def add(self, predictor: Predictor, cells: Sequence[AdaptationCell], labels: np.ndarray) -> None:
        predictions = [answer for answer, _ in predict_crops(predictor, [cell.views for cell in cells])]
        right = [one.label == CLASS_NAMES[label] for one, label in zip(predictions, labels, strict=True)]
        order = np.argsort([-one.probability for one in predictions], kind="stable")
        self.right += right
        self.counted += [one.status == "confident" for one in predictions]
        self.surest += [right[index] for index in order[: round(0.35 * len(order))]]

    @property
    def accuracy(self) -> float:
        return float(np.mean(self.right))

    @property
    def of_counted(self) -> str:
        counted = np.array(self.counted)
        right = np.array(self.right)[counted].mean() if counted.any() else float("nan")
        return f"{counted.mean():.2f}, {right:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="Folder of the laboratories.")
    parser.add_argument("--runs", type=Path, default=Path("runs/unseen"), help="Folder of the trained models.")
    parser.add_argument("--seed", type=int, default=0, help="Of the trained models, and of the draws.")
    arguments = parser.parse_args()
    sets = laboratories(arguments.data)
    with tempfile.TemporaryDirectory() as folder:
        for name in LEFT_OUT:
            model = calibrate_elsewhere(name, arguments.data, arguments.runs, arguments.seed, Path(folder))
            counter, truth = count(Predictor.from_pretrained(model, fresh=True), sets[name])
            found = [cell for cell in counter.specimen.cells if cell.number in truth]
            # One that waits is learned from like one that is counted; one that is "no cell" is not, here it is.
            kept = [replace(cell, prediction=replace(cell.prediction, status="review")) for cell in found]
            cells, labels = cells_to_learn(kept, name), np.array([truth[cell.number] for cell in found])
            print(f"\n{name}, by the model trained without it: {len(cells)} cells are found", flush=True)
            without_labels(model, cells, labels, arguments.seed)
            with_few_labels(model, cells, labels, arguments.seed)


def without_labels(model: Path, cells: Sequence[AdaptationCell], labels: np.ndarray, seed: int) -> None:
    """Print accuracy before and after, the share that is counted and how many of these are right."""
    of_class = np.bincount(labels, minlength=len(CLASS_NAMES))
    before = Predictor.from_pretrained(model, "torch")
    for mixture, weights in (("as in the set", np.ones(len(labels))), ("as in blood", (BLOOD / of_class)[labels])):
        for size, draws in SIZES.items():
            rng = np.random.default_rng([seed, size])
            as_it_is, adapted, seconds = Answers(), Answers(), []
            for _ in range(draws):
                chosen = rng.choice(len(cells), min(size, len(cells)), replace=False, p=weights / weights.sum())
                given = [cells[index] for index in chosen]
                as_it_is.add(before, given, labels[chosen])
                after, took = adapt_to(model, given)
                adapted.add(after, given, labels[chosen])
                seconds.append(took)
            print(
                f"{mixture}, {size} cells, {draws} draws: accuracy {as_it_is.accuracy:.3f} → {adapted.accuracy:.3f}; "
                f"counted, of those right {adapted.of_counted}; {np.mean(seconds):.0f} s",
                flush=True,
            )


def with_few_labels(model: Path, cells: Sequence[AdaptationCell], labels: np.ndarray, seed: int) -> None:
    """Print accuracy of other cells, and how many of their surest 35 % are right, by each way."""
    rng = np.random.default_rng([seed, LABELLED])
    ways = {
        name: Answers()
        for name in ("as it is", "all weights", "last layer, labels alone", "last layer, all 20 cells (shipped)")
    }
    for _ in range(DRAWS):
        chosen = rng.permutation(len(cells))[: CELLS + OTHERS]
        learned, others = chosen[:CELLS], chosen[CELLS:]
        given = [
            replace(cells[index], label=int(labels[index]) if place < LABELLED else None)
            for place, index in enumerate(learned)
        ]
        with ALL_WEIGHTS:
            all_weights, _ = adapt_to(model, given[:LABELLED])
        models = (
            Predictor.from_pretrained(model, "torch"),
            all_weights,
            adapt_to(model, given[:LABELLED])[0],
            adapt_to(model, given)[0],
        )
        for answers, predictor in zip(ways.values(), models, strict=True):
            answers.add(predictor, [cells[index] for index in others], labels[others])
    for name, answers in ways.items():
        print(
            f"{LABELLED} labels, {name}: accuracy of {OTHERS} others {answers.accuracy:.3f}, "
            f"of the surest 35 % right {np.mean(answers.surest):.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
