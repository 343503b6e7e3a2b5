"""Calibration and selective prediction: softmax temperature, review threshold, out-of-distribution threshold.

All are fitted on validation images and saved beside the weights: numbers in `wbc.json`, arrays in `wbc.safetensors`.
The temperature is folded into the classifier, so every program that loads the weights gets calibrated probabilities.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from wbc_hf.errors import WbcError
from wbc_hf.files import read_json, write_json
from wbc_hf.hub import find_file
from wbc_hf.modeling.laboratory_distance import LaboratoryDistance
from wbc_hf.modeling.model_schemas import OutOfDistributionThreshold, ShownText
from wbc_hf.modeling.out_of_distribution import OUT_OF_DISTRIBUTION_SHARE, OutOfDistributionScore, mean_of_nearest

if TYPE_CHECKING:
    from transformers import ResNetForImageClassification

CALIBRATION_FILE = "wbc.json"
REFERENCES_FILE = "wbc.safetensors"

# Accuracy that accepted predictions shall reach, and the share of the least confident that is held back in any case.
TARGET_ACCURACY = 0.99
REVIEW_SHARE = 0.02
_TEMPERATURES = (0.05, 20.0)
_FORMAT = 1
_MAX_ARRAY_BYTES = 64 * 1024**2
_LARGEST = 1000.0
_ROUNDING = 0.05  # half precision, over as many values as a network has features
_ADVICE = (
    f"Fetch the model again, or remove {CALIBRATION_FILE} and {REFERENCES_FILE}: it then predicts without a status."
)
_Positive = Annotated[float, Field(gt=0, le=1e6)]
_Share = Annotated[float, Field(ge=0, le=1)]


def fit_temperature(
    logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None, *, spread: float | None = None
) -> float:
    """Fit a softmax temperature on logits (Guo et al. 2017, arXiv:1706.04599).

    Args:
        logits: float (n, classes), of images that were not trained on.
        labels: int (n,).
        weights: Of the images, float (n,); by default they count alike.
        spread: For few images, the standard deviation of a normal prior of the temperature's logarithm around 0. By
            default there is none.

    Returns:
        The number to divide logits by.
    """
    import torch
    from scipy.optimize import minimize_scalar

    target, scores = torch.from_numpy(labels), torch.from_numpy(logits).double()
    weight = torch.ones(len(labels)).double() if weights is None else torch.from_numpy(weights).double()

    def loss(log_temperature: float) -> float:
        losses = torch.nn.functional.cross_entropy(scores / np.exp(log_temperature), target, reduction="none")
        prior = 0.0 if spread is None else 0.5 * (log_temperature / spread) ** 2
        return ((weight @ losses).item() + prior) / weight.sum().item()

    return float(np.exp(minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded").x))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of rows of logits, (n, classes), of the same type: 0 to 1, each row sums to 1."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def fold_temperature(model: "ResNetForImageClassification", temperature: float) -> None:
    """Divide the classifier's weights and bias by a temperature, in place: its logits come out divided."""
    import torch

    head = cast(torch.nn.Linear, model.classifier[-1])
    with torch.no_grad():
        head.weight.div_(temperature)
        head.bias.div_(temperature)


def undo_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, classes) as they were before the temperature was folded in."""
    return softmax(np.log(np.maximum(probabilities, 1e-12)) * temperature)


def review_threshold(
    confidence: np.ndarray,
    correct: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    target: float = TARGET_ACCURACY,
    least: int = 1,
) -> tuple[float, bool]:
    """Choose the probability below which a person should review a prediction.

    The lowest at which `target` of the accepted predictions are correct and at least the share `REVIEW_SHARE` is held
    back. Where no threshold reaches the target, that share alone is held back.

    Args:
        confidence: Highest probability of each image, (n,).
        correct: Whether its prediction was correct, bool (n,).
        weights: Of the images in that accuracy, (n,); by default they count alike.
        target: Accuracy, 0 to 1.
        least: Number of predictions that a threshold has to accept.

    Returns:
        The threshold, and whether it reaches the target.
    """
    lowest = float(np.quantile(confidence, REVIEW_SHARE))
    order = np.argsort(-confidence, kind="stable")
    weight = np.ones(len(order)) if weights is None else weights[order]
    accuracy = np.cumsum(weight * correct[order]) / np.cumsum(weight)
    reached = np.flatnonzero(accuracy >= target)
    if not len(reached) or reached[-1] + 1 < least:
        return lowest, False
    return max(lowest, float(confidence[order[reached[-1]]])), True


def calibrated_threshold(confidence: np.ndarray, target: float) -> tuple[float, bool]:
    """Choose the lowest probability above which the mean of the probabilities is `target`.

    Where they are calibrated that is the share of correct predictions. It needs no labels, but many images.

    Args:
        confidence: Highest probability of each image, calibrated, (n,).
        target: 0 to 1.

    Returns:
        The threshold, and whether there is one; else 1.
    """
    ordered = np.sort(confidence)[::-1]
    reached = np.flatnonzero(np.cumsum(ordered) / np.arange(1, len(ordered) + 1) >= target)
    return (float(ordered[reached[-1]]), True) if len(reached) else (1.0, False)


@dataclass(frozen=True)
class _Numbers:
    """All of a `Calibration` but its arrays, as `wbc.json` may hold it."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    temperature: Annotated[float, Field(gt=0, le=10_000)]
    review_threshold: _Share
    target_reached: bool
    out_of_distribution_threshold: OutOfDistributionThreshold
    fitted_on: Annotated[int, Field(ge=1, le=10**9)]
    trained_on: ShownText
    left_out: Annotated[tuple[ShownText, ...], Field(max_length=100)] = ()
    # A crop takes memory by their square.
    spans: Annotated[tuple[Annotated[float, Field(ge=0.1, le=50)], ...], Field(max_length=20)] = ()
    tta_below: _Share | None = None
    tta_threshold: _Share | None = None
    tta_distance: _Share = 0.0


@dataclass(frozen=True)
class Calibration(_Numbers):
    """Thresholds by which a model's predictions are accepted, and what they were fitted on.

    Attributes:
        temperature: Already folded into the classifier.
        review_threshold: Predictions with a lower probability should be reviewed.
        tta_below: Cells of fields with a lower probability are predicted again, in all orientations (test-time
            augmentation). None where those are that should be reviewed.
        tta_threshold: Review threshold of these mean predictions. None where `review_threshold` serves for both.
        tta_distance: That threshold is for cells whose distance is greater than this, as those of another stain or
            camera have. A nearer one that the model doubts is more often none of the classes: `review_threshold`
            holds for it.
        target_reached: Whether `TARGET_ACCURACY` of the accepted validation predictions were correct.
        out_of_distribution_threshold: Images with a higher out-of-distribution score are unfamiliar.
        fitted_on: Number of validation images.
        trained_on: Title of the training set.
        out_of_distribution_score: Fitted on training images.
        left_out: Names of the laboratories on which temperature and thresholds were fitted by models trained without
            them; none where they were fitted on the training set's own validation images.
        laboratory_distance: Tells several cells of another laboratory. None in models of earlier versions.
        spans: Sides of the training images in widths of their cells, those of each laboratory: the framings in which
            a cell of a field is looked at. None in models of earlier versions.
    """

    out_of_distribution_score: OutOfDistributionScore = field(kw_only=True)
    laboratory_distance: LaboratoryDistance | None = field(default=None, kw_only=True)

    @classmethod
    def fit(
        cls,
        *,
        temperature: float,
        probabilities: np.ndarray,
        labels: np.ndarray,
        features: np.ndarray,
        training_features: np.ndarray,
        trained_on: str,
        laboratories: Sequence[str] = (),
        training_laboratories: Sequence[str] = (),
        spans: Sequence[float] = (),
    ) -> "Calibration":
        """Choose thresholds on validation images.

        Args:
            temperature: Folded into the model that gave everything else.
            probabilities, labels, features: Of the validation images: (n, classes), (n,), (n, d).
            training_features: Of training images without augmentation, (m, d).
            trained_on: Title of the training set.
            laboratories, training_laboratories: Of these images; by default all are of one.
            spans: See above.
        """
        confidence = probabilities.max(1)
        threshold, reached = review_threshold(confidence, probabilities.argmax(1) == labels)
        score = OutOfDistributionScore.fit(training_features)
        scores = score(features)
        farthest = float(np.quantile(scores[confidence >= threshold], 1 - OUT_OF_DISTRIBUTION_SHARE))
        return cls(
            temperature=temperature,
            review_threshold=threshold,
            target_reached=reached,
            out_of_distribution_threshold=farthest,
            fitted_on=len(labels),
            trained_on=trained_on,
            out_of_distribution_score=score,
            laboratory_distance=LaboratoryDistance.fit(
                score,
                training_laboratories or [""] * len(training_features),
                features,
                labels,
                laboratories or [""] * len(features),
            ),
            spans=tuple(spans),
        )

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Out-of-distribution scores of images in units of the threshold, (n,): above 1 they are unfamiliar.

        Args:
            features: As `forward_with_features` returns them, (n, d).
        """
        return self.out_of_distribution_score(features) / self.out_of_distribution_threshold

    def measure(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Measure how unfamiliar images are, and how far from the nearest laboratory that was learned.

        The distances to the references take the longest, and are computed once for both.

        Args:
            features: As `forward_with_features` returns them, (n, d).

        Returns:
            What `distances` gives, (n,), and what `laboratory_distance` does, (n,), or None where there is none.
        """
        each = self.out_of_distribution_score.distances(features)
        of_laboratories = None if self.laboratory_distance is None else self.laboratory_distance(each)
        return mean_of_nearest(each) / self.out_of_distribution_threshold, of_laboratories

    def statuses(
        self, confidence: np.ndarray, distances: np.ndarray, may_be_cell: Sequence[bool], *, tta: bool = False
    ) -> list[str]:
        """Status of each prediction: the first that applies of "not_a_cell", "unfamiliar", "review", "confident".

        Args:
            confidence: Highest probability of each image, (n,).
            distances: Of each image, as `distances` gives them, (n,).
            may_be_cell: What `may_be_stained_cell` returns for each image.
            tta: Whether the probabilities are means over all orientations.
        """
        unfamiliar = ~(distances <= 1)  # also where it is not a number
        threshold: float | np.ndarray = self.review_threshold
        if tta and self.tta_threshold is not None:
            threshold = np.where(distances > self.tta_distance, self.tta_threshold, self.review_threshold)
        sure = confidence >= threshold
        return [
            "not_a_cell" if not cell else "unfamiliar" if foreign else "confident" if certain else "review"
            for cell, foreign, certain in zip(may_be_cell, unfamiliar, sure, strict=True)
        ]

    @property
    def numbers(self) -> dict:
        """All fields but the arrays: what goes into JSON."""
        return _numbers_of(self)

    def save(self, folder: Path) -> None:
        """Write `wbc.json` and `wbc.safetensors`."""
        score = self.out_of_distribution_score
        arrays = {
            "mean": score.mean,
            "components": score.components.astype(np.float16),
            "references": score.references.astype(np.float16),
        }
        numbers = self.numbers
        if self.laboratory_distance is not None:
            arrays["laboratories"] = self.laboratory_distance.members
            numbers |= {
                "laboratory_scales": self.laboratory_distance.scales,
                "laboratory_limit": self.laboratory_distance.limit,
            }
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / REFERENCES_FILE)
        write_json(folder / CALIBRATION_FILE, {"format": _FORMAT} | numbers)

    @classmethod
    def load(cls, folder: Path) -> "Calibration | None":
        """Read the calibration of a model folder; None where it has none.

        Raises:
            WbcError: The files are broken, of another version of this project, or a value is out of its range.
        """
        file = find_file(folder, CALIBRATION_FILE)
        if file is None:
            return None
        if read_json(file, _AnyVersion, _ADVICE).format != _FORMAT:
            raise WbcError(f"{file}: was written by another version of wbc_hf. Update the package.")
        stored = read_json(file, _Stored, _ADVICE)
        arrays = _read_arrays(folder)
        score = OutOfDistributionScore(*(arrays[name] for name in ("mean", "components", "references")))
        distance = None
        if stored.laboratory_scales is not None and stored.laboratory_limit is not None:
            members = _members(folder / REFERENCES_FILE, arrays, len(stored.laboratory_scales))
            distance = LaboratoryDistance(members, stored.laboratory_scales, stored.laboratory_limit)
        return cls(**_numbers_of(stored), out_of_distribution_score=score, laboratory_distance=distance)


def _numbers_of(numbers: _Numbers) -> dict:
    return {each.name: getattr(numbers, each.name) for each in fields(_Numbers)}


class _AnyVersion(BaseModel):
    """`wbc.json` of any version."""

    format: int


@dataclass(frozen=True, kw_only=True)
class _Stored(_Numbers):
    """`wbc.json` of this version."""

    format: int
    laboratory_scales: Annotated[tuple[_Positive, ...], Field(min_length=1, max_length=127)] | None = None
    laboratory_limit: _Positive | None = None

    def __post_init__(self) -> None:
        if (self.laboratory_scales is None) != (self.laboratory_limit is None):
            raise ValueError("laboratory_scales and laboratory_limit should both be there, or none of them")


def _read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Arrays of the out-of-distribution score in float32, and members of laboratories where there are any."""
    file = find_file(folder, REFERENCES_FILE)
    if file is None:
        raise WbcError(f"{folder}: has a {CALIBRATION_FILE} without {REFERENCES_FILE}. {_ADVICE}")
    if file.stat().st_size > _MAX_ARRAY_BYTES:
        raise WbcError(f"{file}: is larger than {_MAX_ARRAY_BYTES / 1024**2:g} MiB. {_ADVICE}")
    try:
        arrays = load_file(file)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise WbcError(f"{file}: cannot be read ({error}). {_ADVICE}") from error
    # Earlier versions stored colours beside these.
    needed = {"mean": 1, "components": 2, "references": 2}
    for name, axes in needed.items():
        array = arrays.get(name)
        if array is None:
            raise WbcError(f"{file}: has no {name}. {_ADVICE}")
        if array.ndim != axes or not array.size or not np.issubdtype(array.dtype, np.floating):
            raise WbcError(f"{file}: {name} is {array.dtype} {array.shape}, which it cannot be. {_ADVICE}")
        # Features have length 1.
        if not (np.abs(array) <= _LARGEST).all():
            raise WbcError(f"{file}: {name} has values that are no numbers or beyond {_LARGEST}. {_ADVICE}")
        arrays[name] = array.astype(np.float32)
    mean, components, references = (arrays[name] for name in needed)
    if components.shape != (len(mean), references.shape[1]):
        raise WbcError(
            f"{file}: mean, components and references are {mean.shape}, {components.shape} and {references.shape}, "
            f"which do not go together. {_ADVICE}"
        )
    # Components that are shorter bring all images nearer, so that none is unfamiliar.
    lengths = np.linalg.norm(components, axis=0)
    if not (np.abs(lengths - 1) <= _ROUNDING).all():
        raise WbcError(
            f"{file}: components have lengths from {lengths.min():g} to {lengths.max():g}, not 1. {_ADVICE}"
        )
    return arrays


def _members(file: Path, arrays: dict[str, np.ndarray], laboratories: int) -> np.ndarray:
    """Number of the laboratory of each reference, each having some."""
    members = arrays.get("laboratories")
    if (
        members is None
        or members.shape != arrays["references"].shape[:1]
        or members.dtype != np.int8
        or not set(range(laboratories)) <= set(members.tolist()) <= set(range(-1, laboratories))
    ):
        raise WbcError(
            f"{file}: laboratories does not give each of {len(arrays['references'])} references one of {laboratories} "
            f"laboratories, and each of these some. {_ADVICE}"
        )
    return members
