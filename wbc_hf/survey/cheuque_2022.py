"""Cheuque et al. 2022: a detector finds the cell and its group, one of two networks classifies it within the group.

C. Cheuque, M. Querales, R. León, R. Salas, R. Torres: An efficient multi-level convolutional neural network approach
for white blood cells classification, Diagnostics 12(2):248, doi:10.3390/diagnostics12020248.

**Published.** Accuracy around 98.4 % on four classes (no basophils) of several public sets, by Monte Carlo
cross-validation. Whether near-duplicates, of which one of those sets is full, were kept on one side is not said where
it could be read.

**Known.** A Faster R-CNN finds the region of the cell and tells mononuclear cells (lymphocytes, monocytes) from
polymorphonuclear ones (neutrophils, eosinophils); two MobileNets, side by side, tell apart what is within a group.

**Chosen.** Basophils are polymorphonuclear. The boxes to learn from are those round the cell as it is segmented. The
Faster R-CNN (`wbc_hf.survey.regions`) is small and trained from scratch; of its regions the one that is most likely a
cell is taken. The MobileNets are MobileNetV2, from ImageNet where a Hub can be reached, from scratch with a fraction
of the channels otherwise; pictures are normalised as for ResNet either way. They are trained on the detector's own
crops, with five outputs of which those of the other group are left out. The probability of a class is that of its
group times that within the group.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from torch import nn
from transformers import MobileNetV2Config, MobileNetV2ForImageClassification, set_seed

from wbc_hf.data import Leucocytes
from wbc_hf.inference import batches
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import build_processor, resized_edge
from wbc_hf.survey.networks import Classifier, NetworkSystem, Recipe, fine_tuning, imagenet_weights
from wbc_hf.survey.regions import RegionDetector
from wbc_hf.survey.system import Published, pictures

_GROUPS = {
    "mononuclear": ("lymphocyte", "monocyte"),
    "polymorphonuclear": ("basophil", "eosinophil", "neutrophil"),
}
_MEMBERS = {group: [CLASS_NAMES.index(name) for name in names] for group, names in _GROUPS.items()}
_MOBILENET = "google/mobilenet_v2_1.0_224"
_DROPOUT = 0.2  # Sandler et al. 2018 keep four fifths; transformers' default drops them
_MOMENTUM = 0.1  # transformers' 0.997 is TensorFlow's way to say 0.003: statistics of little more than one batch
_LEAST = 1e-9  # of a probability: for a cell of the other group, all of this one may be 0


class Cheuque2022(NetworkSystem):
    """A detector with two groups, and a MobileNet for each."""

    name = "cheuque-2022"
    title = "After Cheuque et al. 2022, detector and two MobileNets"
    published = Published(
        source="Cheuque et al. 2022, Diagnostics 12(2):248",
        accuracy=0.984,
        cells="four classes of several public sets",
    )
    default_recipe = Recipe(epochs=14, width=0.5)

    def __init__(self, folder: Path, seed: int = 0, recipe: Recipe | None = None):
        super().__init__(folder, seed, recipe)
        self.detector = RegionDetector(self.recipe, folder / "detector", len(_GROUPS), seed)
        self._edge = resized_edge(build_processor(self.recipe.image_size))

    def fit(self, leucocytes: Leucocytes) -> None:
        group_of = np.zeros(len(CLASS_NAMES), dtype=int)
        for number, members in enumerate(_MEMBERS.values()):
            group_of[members] = number
        self.detector.fit(leucocytes["train"], group_of[leucocytes["train"]["label"]])
        crops = {split: self._cropped(leucocytes[split]) for split in ("train", "validation")}
        weights = imagenet_weights(_MOBILENET)
        self.start = "from scratch" if weights is None else "ImageNet (MobileNets), from scratch (detector)"
        # A folder of its own, since checkpoints of one do not fit the other.
        kind, recipe = ("", self.recipe) if weights is None else ("-imagenet", fine_tuning(self.recipe))
        # Both before either is trained, so that a resumed fit draws the same weights.
        set_seed(self.seed)
        self._classifiers = [
            Classifier(_build_mobilenet(weights, recipe), recipe, self.folder / f"{group}{kind}", self.seed)
            for group in _MEMBERS
        ]
        for classifier, members in zip(self._classifiers, _MEMBERS.values(), strict=True):
            of_group = {
                split: rows.select(np.flatnonzero(np.isin(rows["label"], members))) for split, rows in crops.items()
            }
            classifier.fit(leucocytes.with_splits(**of_group))

    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        found = self.detector.find(images)
        crops = [self._crop(image, box) for image, box in zip(images, found.boxes, strict=True)]
        probabilities = np.zeros((len(images), len(CLASS_NAMES)))
        for number, members in enumerate(_MEMBERS.values()):
            within = self._classifiers[number].probabilities(crops)[:, members]
            within = (within + _LEAST) / (within + _LEAST).sum(1, keepdims=True)
            probabilities[:, members] = found.groups[:, number : number + 1] * within
        return probabilities

    @property
    def parameters(self) -> int:
        return self.detector.parameters + super().parameters

    def _cropped(self, rows: Dataset) -> Dataset:
        """The rows with crops of the detected cells, no larger than the networks need, as their images."""
        crops = [
            ImageFeature().encode_example(self._crop(image, box))
            for images in batches(pictures(rows))
            for image, box in zip(images, self.detector.find(images).boxes, strict=True)
        ]
        return rows.remove_columns("image").add_column("image", crops, feature=ImageFeature())

    def _crop(self, image: Image.Image, box: np.ndarray) -> Image.Image:
        """Cut out a square round the box, with the margin that the networks' processor crops again.

        It is no larger than the picture, and shifted to lie within.
        """
        size = np.array(image.size)
        middle = (box[:2] + box[2:]) / 2 * size
        margin = self._edge / self.recipe.image_size
        side = float(np.clip(margin * ((box[2:] - box[:2]) * size).max(), 1, size.min()))
        left, top = np.clip(middle - side / 2, 0, size - side)
        around = (left, top, left + side, top + side)
        return image.resize((self._edge, self._edge), Image.Resampling.BICUBIC, box=around, reducing_gap=2.0)


def _build_mobilenet(folder: Path | None, recipe: Recipe) -> MobileNetV2ForImageClassification:
    """Build MobileNetV2 with a head for the five classes, from the weights in a folder or from scratch."""
    head: dict[str, Any] = {"num_labels": len(CLASS_NAMES), "classifier_dropout_prob": _DROPOUT}
    if folder is None:
        config = MobileNetV2Config(depth_multiplier=recipe.width, **head)
        network = MobileNetV2ForImageClassification(config)
    else:
        network = MobileNetV2ForImageClassification.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, ignore_mismatched_sizes=True, **head
        )
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = _MOMENTUM
    return network
