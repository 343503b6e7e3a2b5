"""When to trust a model: calibration, a threshold for review, and how it tells what is unlike its training images.

Everything is fitted on validation and saved beside the weights: numbers in `wbc.json`, arrays in `wbc.safetensors`.
The temperature is folded into the classifier, so that every program that loads the weights is calibrated.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf
from transformers import ResNetForImageClassification

from wbc_hf.errors import WbcError
from wbc_hf.modeling.colours import Colours

CALIBRATION_FILE = "wbc.json"
REFERENCES_FILE = "wbc.safetensors"

# Accepted answers shall be right this often. The least sure are held back in any case, and of the rest the least
# familiar.
TARGET_ACCURACY = 0.99
REVIEW_SHARE = 0.02
OUT_OF_DISTRIBUTION_SHARE = 0.025
_COMPONENTS = 32
_NEIGHBOURS = 5
_TEMPERATURES = (0.05, 20.0)
_FORMAT = 1
_ARRAYS = ("familiarity", "colours")


def look(model: ResNetForImageClassification, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and what the network saw on the way: the mean of each channel after stages 2, 3 and 4.

    Late stages tell classes apart, earlier ones texture and stain; what is foreign shows in either. Each stage has
    length 1 / sqrt(3), so that none outweighs the others.

    Returns:
        float32 (n, classes) and float32 (n, channels of the three stages together).
    """
    seen = model.resnet(pixel_values, output_hidden_states=True)
    stages = [torch.nn.functional.normalize(stage.float().mean((2, 3))) for stage in seen.hidden_states[-3:]]
    return single(model.classifier(seen.pooler_output)), torch.cat(stages, 1) / len(stages) ** 0.5


def single(values: torch.Tensor) -> torch.Tensor:
    """As float32. What is so already stays untouched: in a traced graph even an idle cast is an operation."""
    return values if values.dtype == torch.float32 else values.float()


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The number that logits are divided by to make their softmax honest (Guo et al. 2017, arXiv:1706.04599).

    Args:
        logits: float (n, classes), of images that were not trained on.
        labels: int (n,).
    """
    target, scores = torch.from_numpy(labels), torch.from_numpy(logits).double()

    def loss(log_temperature: float) -> float:
        return torch.nn.functional.cross_entropy(scores / np.exp(log_temperature), target).item()

    return float(np.exp(minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded").x))


def fold_temperature(model: ResNetForImageClassification, temperature: float) -> None:
    """Divide the classifier's weights and bias, in place: its logits come out divided from now on."""
    head = model.classifier[-1]
    with torch.no_grad():
        head.weight /= temperature
        head.bias /= temperature


def before_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """What a model gave before its temperature was folded in: (n, classes), rows sum to 1."""
    logits = torch.from_numpy(np.log(np.maximum(probabilities, 1e-12))) * temperature
    return logits.softmax(1).numpy()


def review_threshold(confidence: np.ndarray, right: np.ndarray) -> tuple[float, bool]:
    """The probability below which a person should look, and whether accepted answers reach the target with it.

    The lowest at which accepted cells are right in `TARGET_ACCURACY` of cases, and at least the share `REVIEW_SHARE`
    is held back. Where no threshold reaches the target, that share alone is.

    Args:
        confidence: Highest probability of each validation image, (n,).
        right: Whether the answer was right, bool (n,).
    """
    least = float(np.quantile(confidence, REVIEW_SHARE))
    order = np.argsort(-confidence, kind="stable")
    accuracy = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    reached = np.flatnonzero(accuracy >= TARGET_ACCURACY)
    if not len(reached):
        return least, False
    return max(least, float(confidence[order[reached[-1]]])), True


@dataclass(frozen=True)
class Neighbours:
    """Mean distance to the nearest training images (Sun et al. 2022, arXiv:2204.06507).

    Attributes:
        mean: float32 (d,), of the training images' features.
        components: float32 (d, r), their principal components.
        references: float32 (m, r), training images in those components, rounded to half precision.
    """

    mean: np.ndarray
    components: np.ndarray
    references: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, labels: np.ndarray) -> "Neighbours":
        """From training images: features (m, d) as `look` gives them; their classes play no part."""
        mean, components = _principal_components(features)
        references = _half((features - mean) @ components)
        return cls(mean, components, references)

    def score(self, features: np.ndarray) -> np.ndarray:
        """Higher for less familiar, (n,)."""
        count = min(_NEIGHBOURS, len(self.references))
        # Not scikit-learn's search: its threads go on spinning, and the model's next answer takes half as long again.
        distances = cdist((features - self.mean) @ self.components, self.references)
        return np.partition(distances, count - 1, axis=1)[:, :count].mean(1)


@dataclass(frozen=True)
class Mahalanobis:
    """Distance to the nearest class, in its shape: one covariance for all, shrunk (Lee et al. 2018, arXiv:1807.03888).

    Attributes:
        mean: float32 (d,), of the training images' features.
        components: float32 (d, r), their principal components, scaled so that every direction has deviation 1.
        references: float32 (classes, r), class means in those components.
    """

    mean: np.ndarray
    components: np.ndarray
    references: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, labels: np.ndarray) -> "Mahalanobis":
        """From training images: features (m, d) as `look` gives them, and their class indices (m,)."""
        mean, components = _principal_components(features)
        projected = (features - mean) @ components
        means = np.stack([projected[labels == label].mean(0) for label in np.unique(labels)])
        within = projected - means[np.searchsorted(np.unique(labels), labels)]
        precision = LedoitWolf(assume_centered=True).fit(within).precision_
        whiten = _half(np.linalg.cholesky(precision))
        return cls(mean, _half(components @ whiten), _half(means @ whiten))

    def score(self, features: np.ndarray) -> np.ndarray:
        """Higher for less familiar, (n,)."""
        projected = (features - self.mean) @ self.components
        return np.linalg.norm(projected[:, None] - self.references, axis=2).min(1)


FAMILIARITY = {"neighbours": Neighbours, "mahalanobis": Mahalanobis}


def _principal_components(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = features.mean(0)
    _, _, directions = np.linalg.svd(features - mean, full_matrices=False)
    return mean.astype(np.float32), _half(directions[:_COMPONENTS].T)


def _half(values: np.ndarray) -> np.ndarray:
    """What will be read back from the file, so that thresholds are fitted with it."""
    return values.astype(np.float16).astype(np.float32)


@dataclass(frozen=True)
class Calibration:
    """What a model folder says of when to trust it.

    Attributes:
        temperature: Already folded into the classifier.
        review_threshold: Answers with a lower probability should be looked at.
        target_reached: Whether accepted validation cells were right in `TARGET_ACCURACY` of cases.
        out_of_distribution_threshold: Of the familiarity score; higher is unfamiliar.
        method: Name of the familiarity score, the one that doubted more strange pictures.
        doubted: For each method compared, the share of strange pictures above its threshold.
        fitted_on: Number of validation images.
        trained_on: Title of the training set.
        familiarity: The score itself.
        colours: Of the training cells; None for a model of a version that did not measure them.
    """

    temperature: float
    review_threshold: float
    target_reached: bool
    out_of_distribution_threshold: float
    method: str
    doubted: dict[str, float]
    fitted_on: int
    trained_on: str
    familiarity: Neighbours | Mahalanobis
    colours: Colours | None = None

    def statuses(self, confidence: np.ndarray, features: np.ndarray, may_be_cell: Sequence[bool]) -> list[str]:
        """One of "not_a_cell", "unfamiliar", "review" and "confident" for each image; the first that applies.

        Args:
            confidence: Highest probability of each image, (n,).
            features: As `look` gives them, (n, d).
            may_be_cell: What `may_be_stained_cell` says of each image.
        """
        unfamiliar = self.familiarity.score(features) > self.out_of_distribution_threshold
        sure = confidence >= self.review_threshold
        return [
            "not_a_cell" if not cell else "unfamiliar" if strange else "confident" if certain else "review"
            for cell, strange, certain in zip(may_be_cell, unfamiliar, sure, strict=True)
        ]

    @property
    def numbers(self) -> dict:
        """All of it but the arrays: what goes into JSON."""
        return {name: value for name, value in vars(self).items() if name not in _ARRAYS}

    def save(self, folder: Path) -> None:
        """Write `wbc.json` and `wbc.safetensors`."""
        arrays = {
            "mean": self.familiarity.mean,
            "components": self.familiarity.components.astype(np.float16),
            "references": self.familiarity.references.astype(np.float16),
        }
        if self.colours is not None:
            arrays |= {f"colour_{name}": array.astype(np.float32) for name, array in asdict(self.colours).items()}
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / REFERENCES_FILE)
        text = json.dumps({"format": _FORMAT} | self.numbers, indent=2) + "\n"
        (folder / CALIBRATION_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Calibration | None":
        """What a folder says; None where it says nothing.

        Raises:
            WbcError: The files are broken, or of a later version of this project.
        """
        if not (folder / CALIBRATION_FILE).exists():
            return None
        try:
            numbers = json.loads((folder / CALIBRATION_FILE).read_text(encoding="utf-8"))
            if numbers.pop("format") != _FORMAT:
                raise WbcError(
                    f"{folder / CALIBRATION_FILE}: was written by another version of wbc_hf. Update the package."
                )
            arrays = {name: array.astype(np.float32) for name, array in load_file(folder / REFERENCES_FILE).items()}
            colours = None
            if "colour_mean" in arrays:
                colours = Colours(arrays.pop("colour_mean"), arrays.pop("colour_covariance"))
            return cls(**numbers, familiarity=FAMILIARITY[numbers["method"]](**arrays), colours=colours)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise WbcError(
                f"{folder}: {CALIBRATION_FILE} and {REFERENCES_FILE} cannot be read ({error}). Fetch the model again, "
                "or remove both: it then answers without saying when to look."
            ) from error


def fit_calibration(
    *,
    temperature: float,
    probabilities: np.ndarray,
    labels: np.ndarray,
    features: np.ndarray,
    strange_features: np.ndarray,
    training_features: np.ndarray,
    training_labels: np.ndarray,
    trained_on: str,
    colours: Colours | None = None,
) -> Calibration:
    """Choose thresholds and the better familiarity score.

    Args:
        temperature: As folded into the model that gave everything else.
        probabilities, labels, features: Of the validation images: (n, classes), (n,), (n, d).
        strange_features: Of pictures that are no cells, (k, d), made from validation images.
        training_features, training_labels: Of training images as they are, (m, d), (m,).
        trained_on: Title of the training set.
        colours: Of training cells.
    """
    confidence = probabilities.max(1)
    threshold, reached = review_threshold(confidence, probabilities.argmax(1) == labels)
    sure = features[confidence >= threshold]
    fitted, thresholds, doubted = {}, {}, {}
    for name, method in FAMILIARITY.items():
        fitted[name] = method.fit(training_features, training_labels)
        thresholds[name] = float(np.quantile(fitted[name].score(sure), 1 - OUT_OF_DISTRIBUTION_SHARE))
        doubted[name] = float((fitted[name].score(strange_features) > thresholds[name]).mean())
    best = max(doubted, key=doubted.__getitem__)
    return Calibration(
        temperature=temperature,
        review_threshold=threshold,
        target_reached=reached,
        out_of_distribution_threshold=thresholds[best],
        method=best,
        doubted=doubted,
        fitted_on=len(labels),
        trained_on=trained_on,
        familiarity=fitted[best],
        colours=colours,
    )
