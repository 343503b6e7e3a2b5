"""Accuracy in laboratories that a model has not seen: as it is, adapted without labels, and with a few.

    python benchmarks/unseen_laboratory.py --data ../shared/data --runs runs/unseen

For each laboratory but PBC a model is trained on all others by `configs/starter.yaml`, a quarter of an hour on two
cores; one that is there is used again, and an interrupted training resumes. Tecom is never trained on: the model of
all laboratories, `--starter`, is measured on it, and nothing is chosen on it.

Several seeds are pooled: figures are their mean, and 95 % confidence intervals are over cells (near-duplicates, and
cells of one photograph, count as one). With labels, that many cells of each class, half of a rare class at most, are
drawn several times, and the figures are of all other cells.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import concatenate_datasets
from scipy.special import softmax

from wbc_hf.adaptation import SCORES, AdaptationCell, adapt
from wbc_hf.adaptation.fine_tuning import fine_tune
from wbc_hf.data import load_leucocytes, read_image
from wbc_hf.default_model import DEFAULT_MODEL_FOLDER
from wbc_hf.evaluation import evaluate
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import centre_squares, load_classifier, load_processor

ALWAYS_TRAINED = "pbc"
LEFT_OUT = {"BCCD": "bccd/crops", "Raabin": "raabin", "Chulalongkorn": "chula_fields"}
NEVER_TRAINED = {"Tecom": "tecom"}
COUNTS = (5, 10, 20)
EPOCHS = 6  # two thirds of the starter's, to save time


def train_without(laboratory: str, data: Path, runs: Path, config: Path, seed: int) -> Path:
    """Train on all laboratories but one, unless that was done before. Returns the model's folder."""
    folder = runs / f"without-{laboratory.lower()}-{seed}"
    if not (folder / "metrics.json").exists():
        others = [ALWAYS_TRAINED, *(path for name, path in LEFT_OUT.items() if name != laboratory)]
        words = ["--dataset", *(str(data / path) for path in others), "--output_dir", str(folder), "--seed", str(seed)]
        words += ["--num_train_epochs", str(EPOCHS), "--resume", "true"]
        subprocess.run([sys.executable, "train.py", str(config), *words], check=True)
    return folder


@dataclass(frozen=True)
class Laboratory:
    """All labelled cells of one laboratory."""

    images: list
    labels: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class Predictions:
    """Predictions for some cells of a laboratory: indices of the cells, probabilities (n, 5), statuses if any."""

    cells: np.ndarray
    probabilities: np.ndarray
    statuses: list[str] | None = None


def load_laboratory(folder: Path) -> Laboratory:
    splits = load_leucocytes(folder)
    rows = concatenate_datasets(list(splits.values()))
    images = [read_image(image) for image in rows["image"]]
    return Laboratory(images, np.array(rows["label"]), np.array(rows["group"]))


def predict(model: str | Path, laboratory: Laboratory) -> Predictions:
    probabilities, statuses = Predictor.from_pretrained(model, fresh=True).classify(laboratory.images)
    return Predictions(np.arange(len(laboratory.labels)), probabilities, statuses)


def adapted(model: Path, laboratory: Laboratory) -> tuple[Predictions, float]:
    """Predict after adaptation without labels, as by `wbc-hf adapt`; and its seconds."""
    cells = [
        AdaptationCell(image, None, group) for image, group in zip(laboratory.images, laboratory.groups, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        adapt(model, cells, Path(folder) / "adapted")
        seconds = time.perf_counter() - started
        return predict(Path(folder) / "adapted", laboratory), seconds


def fine_tuned(model: Path, laboratory: Laboratory, chosen: np.ndarray, seed: int) -> Predictions:
    """Predict all other cells after adaptation with these labels."""
    network, processor = load_classifier(model), load_processor(model)
    squares = centre_squares(laboratory.images, processor)
    chosen_squares = squares[torch.from_numpy(chosen)]
    fine_tune(network, chosen_squares, laboratory.labels[chosen], processor, seed=seed)
    held = np.flatnonzero(~np.isin(laboratory.groups, laboratory.groups[chosen]))
    predictor = Predictor(network, processor, str(model), None)
    logits, _ = predictor.logits_and_features([laboratory.images[cell] for cell in held])
    return Predictions(held, softmax(logits, axis=1))


def draw(laboratory: Laboratory, count: int, seed: int) -> np.ndarray:
    """Draw `count` cells of each class, of a rare class half at most but one at least."""
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(laboratory.labels):
        cells = rng.permutation(np.flatnonzero(laboratory.labels == label))
        chosen.append(cells[: min(count, max(1, len(cells) // 2))])
    return np.sort(np.concatenate(chosen))


def summarise(laboratory: Laboratory, predictions: list[Predictions]) -> dict:
    """Mean figures over models and draws, with 95 % confidence intervals over cells."""
    cells = np.concatenate([one.cells for one in predictions])
    labels, groups = laboratory.labels[cells], laboratory.groups[cells]
    probabilities = np.concatenate([one.probabilities for one in predictions])
    known = all(one.statuses is not None for one in predictions)
    statuses = [status for one in predictions for status in one.statuses] if known else None
    metrics = evaluate(labels, probabilities, groups=groups, statuses=statuses).metrics
    row = {name: (metrics[name], metrics["intervals"][name]) for name in SCORES}
    if known:
        row["confident"], row["right"] = metrics["review"]["coverage"], metrics["review"]["accuracy_of_accepted"]
    return row


def run(models: list[Path], laboratory: Laboratory, counts: tuple[int, ...], draws: int) -> dict[str, dict]:
    rows = {}
    rows["as it is"] = summarise(laboratory, [predict(model, laboratory) for model in models])
    both = [adapted(model, laboratory) for model in models]
    rows["no labels"] = summarise(laboratory, [predictions for predictions, _ in both])
    rows["no labels"]["seconds"] = float(np.median([seconds for _, seconds in both]))
    for count in counts:
        numbers = range(draws * len(models))
        chosen = [draw(laboratory, count, number) for number in numbers]
        predictions = [
            fine_tuned(models[number % len(models)], laboratory, chosen[number], number) for number in numbers
        ]
        name = f"{count} labels a class"
        rows[name] = summarise(laboratory, predictions)
        rows[name]["labels"] = len(chosen[0])
    return rows


def figure(value: float, interval: list[float] | None) -> str:
    return f"{value:.3f}" if interval is None else f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def print_table(name: str, laboratory: Laboratory, rows: dict[str, dict]) -> None:
    counts = ", ".join(f"{cls} {int((laboratory.labels == i).sum())}" for i, cls in enumerate(CLASS_NAMES))
    print(f"\n{name}: {len(laboratory.labels)} cells ({counts})\n")
    print(f"| | {' | '.join(SCORES.values())} | confident | of those right | seconds |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for title, row in rows.items():
        cells = [figure(*row[key]) for key in SCORES]
        shares = [f"{row[key]:.3f}" if row.get(key) is not None else "–" for key in ("confident", "right")]
        seconds = f"{row['seconds']:.0f}" if "seconds" in row else ""
        print(f"| {title} | {' | '.join([*cells, *shares, seconds])} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="Folder of the laboratories.")
    parser.add_argument("--runs", type=Path, default=Path("runs/unseen"), help="Folder for the trained models.")
    parser.add_argument("--config", type=Path, default=Path("configs/starter.yaml"), help="Arguments of train.py.")
    parser.add_argument("--starter", type=Path, default=DEFAULT_MODEL_FOLDER, help="Model for Tecom.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="A training for each, and laboratory.")
    names = [*LEFT_OUT, *NEVER_TRAINED]
    parser.add_argument("--laboratories", nargs="+", choices=names, default=names)
    parser.add_argument("--counts", nargs="+", type=int, default=list(COUNTS), help="Labels a class.")
    parser.add_argument("--draws", type=int, default=5, help="Draws of labelled cells for each model.")
    parser.add_argument("--output", type=Path, help="JSON file for the figures.")
    arguments = parser.parse_args()
    tables = {}
    for name in arguments.laboratories:
        if name in NEVER_TRAINED:
            models = [arguments.starter]
        else:
            models = [
                train_without(name, arguments.data, arguments.runs, arguments.config, seed) for seed in arguments.seeds
            ]
        laboratory = load_laboratory(arguments.data / (LEFT_OUT | NEVER_TRAINED)[name])
        tables[name] = run(models, laboratory, tuple(arguments.counts), arguments.draws)
        print_table(name, laboratory, tables[name])
        if arguments.output is not None:
            arguments.output.write_text(json.dumps(tables, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
