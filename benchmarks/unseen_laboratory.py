"""Accuracy under domain shift: a model in unseen laboratories, as it is, adapted without labels, and with a few.

    python benchmarks/unseen_laboratory.py models/starter --data ../shared/data
    python benchmarks/unseen_laboratory.py runs/starter-0 runs/starter-1 runs/starter-2 --data ../shared/data

Several models, such as the same run with other seeds, are pooled: figures are their mean, and 95 % confidence
intervals are over cells (near-duplicates, and cells of one photograph, count as one). With labels, that many cells of
each class, half of a rare class at most, are drawn several times, and the figures are of all other cells.

All hyperparameters were chosen on BCCD. Tecom was evaluated once, at the end.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import concatenate_datasets
from scipy.special import softmax

from wbc_hf.adaptation import SCORES, AdaptationCell, adapt
from wbc_hf.adaptation.self_training import fine_tune, reestimate_batch_norm
from wbc_hf.data import load_leucocytes, read_image
from wbc_hf.evaluation import evaluate
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import Calibration, centre_squares, load_classifier, load_processor

LABORATORIES = {"BCCD": "bccd/crops", "Tecom": "tecom"}
COUNTS = (5, 10, 20)


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


def with_new_batch_norm(model: Path, laboratory: Laboratory) -> Predictions:
    """Predict after re-estimating the statistics of batch normalisation."""
    network, processor = load_classifier(model), load_processor(model)
    reestimate_batch_norm(network, centre_squares(laboratory.images, processor), processor)
    logits, _ = Predictor(network, processor, str(model)).logits_and_features(laboratory.images)
    return Predictions(np.arange(len(laboratory.labels)), softmax(logits, axis=1))


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


def labelled_seconds(model: Path, laboratory: Laboratory, chosen: np.ndarray) -> float:
    """Seconds of `wbc-hf adapt` with these cells labelled, cross-validation included."""
    cells = [
        AdaptationCell(laboratory.images[cell], int(laboratory.labels[cell]), laboratory.groups[cell])
        for cell in chosen
    ]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        adapt(model, cells, Path(folder) / "adapted")
        return time.perf_counter() - started


def fine_tuned(model: Path, laboratory: Laboratory, chosen: np.ndarray, seed: int) -> Predictions:
    """Predict all other cells after adaptation with these labels."""
    network, processor, calibration = load_classifier(model), load_processor(model), Calibration.load(model)
    squares = centre_squares(laboratory.images, processor)
    chosen_squares = squares[torch.from_numpy(chosen)]
    fine_tune(
        network,
        chosen_squares,
        laboratory.labels[chosen],
        processor,
        colours=calibration and calibration.colours,
        seed=seed,
    )
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
    rows["batch norm anew"] = summarise(laboratory, [with_new_batch_norm(model, laboratory) for model in models])
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
    rows[name]["seconds"] = labelled_seconds(models[0], laboratory, chosen[0])
    return rows


def home(models: list[Path]) -> str:
    """Accuracy of each on the test split of its own data set, as its run measured it."""
    reports = [json.loads((model / "metrics.json").read_text(encoding="utf-8")) for model in models]
    figures = [figure(report["accuracy"], report["intervals"]["accuracy"]) for report in reports]
    return f"At home, test split, accuracy: {'; '.join(figures)}"


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
    parser.add_argument("models", nargs="+", type=Path, help="Model folders, with colours in wbc.safetensors.")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="Folder of the laboratories.")
    parser.add_argument("--laboratories", nargs="+", choices=LABORATORIES, default=list(LABORATORIES))
    parser.add_argument("--counts", nargs="+", type=int, default=list(COUNTS), help="Labels a class.")
    parser.add_argument("--draws", type=int, default=1, help="Draws of labelled cells for each model.")
    parser.add_argument("--output", type=Path, help="JSON file for the figures.")
    arguments = parser.parse_args()
    print(home(arguments.models) if all((model / "metrics.json").exists() for model in arguments.models) else "")
    tables = {}
    for name in arguments.laboratories:
        laboratory = load_laboratory(arguments.data / LABORATORIES[name])
        tables[name] = run(arguments.models, laboratory, tuple(arguments.counts), arguments.draws)
        print_table(name, laboratory, tables[name])
        if arguments.output is not None:
            arguments.output.write_text(json.dumps(tables, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
