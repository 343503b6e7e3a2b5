"""What near-duplicates on both sides of a split do to a figure.

The same small network is trained twice on TRAIN of the augmented set known as paultimothymooney/blood-cells: once with
its validation images drawn at random, as is usual, and once with whole groups on one side. TEST comes from
other photographs and is the same for both.

    python benchmarks/leakage.py ../shared/data/kaggle_augmented --seeds 3 --figure docs/images/leakage.png
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import DatasetDict, concatenate_datasets
from matplotlib.figure import Figure
from scipy.special import softmax

from wbc_hf.data import load_leucocytes
from wbc_hf.data.splits import split_by_group
from wbc_hf.evaluation import evaluate
from wbc_hf.training import DataArguments, LeucocyteTrainingArguments, ModelArguments, build_network, build_trainer
from wbc_hf.training.transforms import EvaluationTransform

VALIDATION_SHARE = 0.15
IMAGE_SIZE, WIDTH = 112, 0.25
SPLITS = {"random": "random split", "grouped": "near-duplicates kept together"}
COLOURS = {"validation": "#0072b2", "test": "#d55e00"}


def draw_split(pool, kind: str, seed: int) -> dict[str, np.ndarray]:
    """Indices of training and validation images, drawn image by image or group by group."""
    groups = pool["group"] if kind == "grouped" else range(len(pool))
    fractions = {"train": 1 - VALIDATION_SHARE, "validation": VALIDATION_SHARE}
    return split_by_group(pool["label"], groups, fractions, seed)


def measure(data: DatasetDict, epochs: float, seed: int) -> dict[str, tuple[float, tuple[float, float]]]:
    """Train on one split; return accuracy and its 95 % confidence interval on validation and test."""
    with tempfile.TemporaryDirectory() as folder:
        training = LeucocyteTrainingArguments(
            output_dir=folder,
            seed=seed,
            num_train_epochs=epochs,
            learning_rate=1e-3,
            save_strategy="no",
            eval_strategy="no",
            load_best_model_at_end=False,
            report_to="none",
            disable_tqdm=True,
        )
        network, processor = build_network(
            ModelArguments(from_scratch=True, width=WIDTH, image_size=IMAGE_SIZE), training
        )
        trainer = build_trainer(data, network, processor, DataArguments(augmentation=0), training)
        trainer.train()
        figures = {}
        for name in ("validation", "test"):
            output = trainer.predict(data[name].with_transform(EvaluationTransform(processor)))
            probabilities = softmax(output.predictions, axis=1)
            metrics = evaluate(output.label_ids, probabilities, groups=data[name]["group"]).metrics
            figures[name] = (metrics["accuracy"], metrics["intervals"]["accuracy"])
        return figures


def draw(results: dict[str, list[dict]]) -> Figure:
    """Draw validation and test accuracy for both splits, each run a dot with its 95 % confidence interval."""
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    for position, runs in enumerate(results.values()):
        for offset, name in ((-0.2, "validation"), (0.2, "test")):
            values = [run[name][0] for run in runs]
            mean = float(np.mean(values))
            label = {"validation": "validation, cut from TRAIN", "test": "TEST, other photographs"}[name]
            axes.bar(position + offset, mean, 0.36, color=COLOURS[name], label=label if not position else None)
            for shift, run in zip(np.linspace(-0.1, 0.1, len(runs) + 2)[1:-1], runs, strict=True):
                value, limits = run[name]
                place = position + offset + shift
                axes.plot([place, place], limits, color="black", linewidth=1.2)
                axes.plot(place, value, "o", color="black", markersize=3)
            axes.text(position + offset, 0.1, f"{mean:.0%}", ha="center", color="white", fontweight="bold")
    axes.set_xticks(range(len(results)), [SPLITS[kind] for kind in results])
    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("lines: 95 % confidence intervals over distinct cells")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="Folder with TRAIN and TEST.")
    parser.add_argument("--seeds", type=int, default=1, help="Runs of each kind.")
    parser.add_argument("--epochs", type=float, default=20, help="Epochs of each run.")
    parser.add_argument("--figure", type=Path, help="File for the figure.")
    arguments = parser.parse_args(argv)

    given = load_leucocytes(arguments.data)
    pool = concatenate_datasets([given["train"], given["validation"]])
    results: dict[str, list[dict]] = {kind: [] for kind in SPLITS}
    print(f"{'split':<8} {'seed':>4}  {'validation':<22} {'TEST':<22}")
    for seed in range(arguments.seeds):
        for kind, runs in results.items():
            parts = {name: pool.select(indices) for name, indices in draw_split(pool, kind, seed).items()}
            runs.append(measure(DatasetDict(parts | {"test": given["test"]}), arguments.epochs, seed))
            cells = [f"{value:.3f} ({low:.3f} to {high:.3f})" for value, (low, high) in runs[-1].values()]
            print(f"{kind:<8} {seed:>4}  {cells[0]:<22} {cells[1]:<22}", flush=True)
    if arguments.figure:
        draw(results).savefig(arguments.figure, dpi=160)


if __name__ == "__main__":
    main()
