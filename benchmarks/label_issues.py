"""How many wrong labels an audit finds: labels are made wrong at random, and those that a rule names are counted.

    pip install cleanlab==2.9.0  # confident learning, to compare with
    python benchmarks/label_issues.py models/starter ../shared/data/raabin ../shared/data/tecom

Prints for each set, kind of error and rule: precision, recall and their harmonic mean F1 over all draws, and how many
images the rule names, also where no label was changed. Labels that are wrong in the set itself count as false.
`--temperature` softens (above 1) or sharpens the probabilities, as if the model were calibrated worse; what is
`confident` stays as it is. `--cells` draws smaller sets, other ones in each draw.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cleanlab.filter import find_label_issues as find_by_confident_learning
from datasets import concatenate_datasets
from scipy.special import softmax

from wbc_hf.data import load_leucocytes, read_image
from wbc_hf.evaluation import columns_of_classes, find_label_issues
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES

# The class that each is most easily taken for, in the order of `CLASS_NAMES`.
SIMILAR = np.array([4, 4, 3, 2, 1])

# From labels, probabilities and whether each prediction is `confident` to whether each label is named.
Rule = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def by_doubt(labels: np.ndarray, probabilities: np.ndarray, _: np.ndarray) -> np.ndarray:
    named = np.zeros(len(labels), dtype=bool)
    issues = find_label_issues(labels, probabilities, [str(index) for index in range(len(labels))])
    named[[int(issue.source) for issue in issues]] = True
    return named


def by_cleanlab(labels: np.ndarray, probabilities: np.ndarray, _: np.ndarray) -> np.ndarray:
    # The best of its seven filters on these sets.
    return find_by_confident_learning(labels, probabilities, filter_by="low_self_confidence", n_jobs=1)


def by_difference(labels: np.ndarray, probabilities: np.ndarray, _: np.ndarray) -> np.ndarray:
    return probabilities.argmax(axis=1) != labels


def by_confident_difference(labels: np.ndarray, probabilities: np.ndarray, confident: np.ndarray) -> np.ndarray:
    return by_difference(labels, probabilities, confident) & confident


RULES: dict[str, Rule] = {
    "doubted, as the audit has it": by_doubt,
    "confident learning, cleanlab": by_cleanlab,
    "another class is `confident`": by_confident_difference,
    "another class is predicted": by_difference,
}


def make_wrong(
    labels: np.ndarray, kind: str, share: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a share is wrong, and which those are, bool (n,)."""
    chosen = generator.choice(len(labels), round(share * len(labels)), replace=False)
    changed = labels.copy()
    if kind == "similar class":
        changed[chosen] = SIMILAR[labels[chosen]]
    else:
        changed[chosen] += generator.integers(1, len(CLASS_NAMES), len(chosen))
    changed %= len(CLASS_NAMES)
    return changed, changed != labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("sets", nargs="+", type=Path, help="Labelled images, as for train.py --dataset.")
    parser.add_argument("--share", type=float, default=0.05, help="Of the labels that are made wrong.")
    parser.add_argument("--draws", type=int, default=20, help="How many times labels are drawn, with seeds 0, 1, …")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--cells", type=int, help="Of each set, in each draw; by default all.")
    arguments = parser.parse_args()
    predictor = Predictor.from_pretrained(arguments.model)
    print("| set | wrong labels | rule | precision | recall | F1 | named | named of the labels as they are |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    for folder in arguments.sets:
        leucocytes = load_leucocytes(folder, near_duplicates=False)
        rows = concatenate_datasets(list(leucocytes.values()))
        probabilities, statuses = predictor.classify(read_image(row["image"]) for row in rows)
        logits = np.log(np.maximum(probabilities @ columns_of_classes(predictor.labels), 1e-12))
        probabilities = softmax(logits.astype(np.float64) / arguments.temperature, axis=1)
        labels, confident = np.array(rows["label"]), np.array(statuses) == "confident"
        for kind in ("any class", "similar class"):
            for name, rule in RULES.items():
                found = planted = named = 0
                for seed in range(arguments.draws):
                    generator = np.random.default_rng(seed)
                    drawn = generator.permutation(len(labels))[: arguments.cells]
                    changed, wrong = make_wrong(labels[drawn], kind, arguments.share, generator)
                    doubted = rule(changed, probabilities[drawn], confident[drawn])
                    found += (doubted & wrong).sum()
                    planted += wrong.sum()
                    named += doubted.sum()
                precision, recall, f1 = found / max(1, named), found / planted, 2 * found / (named + planted)
                print(
                    f"| {' '.join(leucocytes.provenance.laboratories)} | {kind} | {name} | {precision:.3f} "
                    f"| {recall:.3f} | {f1:.3f} | {named / arguments.draws:.1f} "
                    f"| {rule(labels, probabilities, confident).sum()} |"
                )


if __name__ == "__main__":
    main()
