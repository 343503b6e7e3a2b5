"""Which score tells, in a laboratory that a model has not seen, when it is right.

    python benchmarks/unseen_confidence.py --data ../shared/data --runs runs/unseen

Needs the models of `benchmarks/unseen_laboratory.py`, each trained without one laboratory. For each score a threshold
is fitted on two laboratories, so that 95 % of what is accepted there is right, and measured on the third: the share of
its cells that is accepted, and how many of those are right. Beside it stands the share that could be accepted with a
threshold of its own, which only labels can give. Foreign kinds are PBC's erythroblasts, immature granulocytes and
platelets: the share of them that is not accepted by the models of the other two.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import concatenate_datasets
from PIL import Image, ImageOps
from scipy.special import logsumexp, softmax

from wbc_hf.data import find_pictures, load_leucocytes, read_image
from wbc_hf.inference import Predictor
from wbc_hf.modeling import TARGET_ELSEWHERE, review_threshold

LABORATORIES = {"BCCD": "bccd/crops", "Raabin": "raabin", "Chulalongkorn": "chula_fields"}
FOREIGN = "pbc_other"
CROPS = (1.0, 0.9, 0.8, 0.7)  # sides of the views, in sides of the picture; each is mirrored as well

Score = tuple[np.ndarray, np.ndarray]  # of each picture, higher where surer, and the predicted class


@dataclass(frozen=True)
class Scored:
    """Scores of the cells of a laboratory by name, whether each prediction is right, and scores of foreign kinds."""

    scores: dict[str, Score]
    labels: np.ndarray
    foreign: dict[str, Score]

    def right(self, name: str) -> np.ndarray:
        return self.scores[name][1] == self.labels


def views(image: Image.Image) -> list[Image.Image]:
    """Central crops of a picture, and their mirror images."""
    crops = []
    for share in CROPS:
        margins = [round(side * (1 - share) / 2) for side in image.size]
        crops.append(ImageOps.crop(image, (*margins, *margins)))
    return crops + [ImageOps.mirror(crop) for crop in crops]


def score(predictor: Predictor, images: Sequence[Image.Image]) -> dict[str, Score]:
    logits, features = predictor.logits_and_features(images)
    probabilities, sorted_logits = softmax(logits, axis=1), np.sort(logits, axis=1)
    predicted = logits.argmax(1)
    everywhere, _ = predictor.logits_and_features([view for image in images for view in views(image)])
    by_view = softmax(everywhere.reshape(len(images), -1, logits.shape[1]), axis=2)
    mean = by_view.mean(1)
    chosen = mean.argmax(1)
    assert predictor.calibration is not None
    return {
        "probability (shipped)": (probabilities.max(1), predicted),
        "margin between the two highest logits": (sorted_logits[:, -1] - sorted_logits[:, -2], predicted),
        "energy": (logsumexp(logits, axis=1), predicted),
        "distance to the training images": (-predictor.calibration.out_of_distribution_score(features), predicted),
        "mean probability of eight views": (mean.max(1), chosen),
        "lowest probability of eight views": (
            by_view[np.arange(len(images)), :, chosen].min(1),
            chosen,
        ),
    }


def threshold(scored: Sequence[Scored], name: str) -> float:
    """Above which enough of the cells of these laboratories are right, each laboratory counting alike."""
    weights = np.concatenate([np.full(len(each.labels), 1 / len(each.labels)) for each in scored])
    found, reached = review_threshold(
        np.concatenate([each.scores[name][0] for each in scored]),
        np.concatenate([each.right(name) for each in scored]),
        weights=weights,
        target=TARGET_ELSEWHERE,
    )
    return found if reached else float("inf")


def accepted(each: Scored, name: str, limit: float) -> str:
    chosen = each.scores[name][0] >= limit
    return f"{chosen.mean():.2f}, {each.right(name)[chosen].mean():.3f}" if chosen.any() else "0, –"


def print_table(scored: dict[str, Scored]) -> None:
    columns = [column for name in scored for column in (f"{name}: accepted, right", "own threshold")]
    print(f"| score | {' | '.join(columns)} | foreign kinds held back |")
    print(f"|---|{'---:|---:|' * len(scored)}---:|")
    names = next(iter(scored.values())).scores
    for name in names:
        cells, held = [], []
        for laboratory, each in scored.items():
            limit = threshold([other for key, other in scored.items() if key != laboratory], name)
            own = threshold([each], name)
            cells += [accepted(each, name, limit), f"{(each.scores[name][0] >= own).mean():.2f}"]
            held.append(float((each.foreign[name][0] < limit).mean()))
        print(f"| {name} | {' | '.join(cells)} | {np.mean(held):.2f} |")


def print_conformal(data: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Conformal sets (Sadinle et al. 2019, doi 10.1080/01621459.2017.1395341) by the worse of other laboratories."""
    print("\n| conformal sets of 95 % | the class is in the set | sets of one class | of those right |")
    print("|---|---:|---:|---:|")
    for laboratory, (probabilities, labels) in data.items():
        limits = [
            np.quantile(1 - other[np.arange(len(truth)), truth], TARGET_ELSEWHERE)
            for key, (other, truth) in data.items()
            if key != laboratory
        ]
        sets = 1 - probabilities <= max(limits)
        single = sets.sum(1) == 1
        right = probabilities.argmax(1)[single] == labels[single]
        inside = sets[np.arange(len(labels)), labels]
        print(f"| {laboratory} | {inside.mean():.3f} | {single.mean():.2f} | {right.mean():.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="Folder of the laboratories.")
    parser.add_argument("--runs", type=Path, default=Path("runs/unseen"), help="Folder of the trained models.")
    parser.add_argument("--seed", type=int, default=0, help="Of the trained models.")
    arguments = parser.parse_args()
    foreign = [read_image(path) for path in find_pictures(arguments.data / FOREIGN)]
    scored, sets = {}, {}
    for laboratory, folder in LABORATORIES.items():
        model = arguments.runs / f"without-{laboratory.lower()}-{arguments.seed}"
        predictor = Predictor.from_pretrained(model)
        rows = concatenate_datasets(list(load_leucocytes(arguments.data / folder).values()))
        images, labels = [read_image(image) for image in rows["image"]], np.array(rows["label"])
        scored[laboratory] = Scored(score(predictor, images), labels, score(predictor, foreign))
        sets[laboratory] = predictor.classify(images)[0], labels
    print_table(scored)
    print_conformal(sets)


if __name__ == "__main__":
    main()
