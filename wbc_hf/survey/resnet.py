"""The ResNet-50 of the source study, and this project's own recipe: both as `train.py` trains them.

The source study fine-tunes a ResNet-50 from ImageNet: a new head, early layers frozen, cross-entropy, Adam; learning
rate and batch size tuned on validation; on Kaggle's `brikwerk/bccd-white-blood-cell`, 5 classes of 700 images that
augmentation made of BCCD's few hundred cells. It gives no accuracy.

Chosen: the frozen layers (up to and including stage 2), 96 px, ten epochs and the augmentation for one laboratory.
Learning rate (0.0001, from scratch 0.001) and batch size (32) are set, not tuned: that takes a run for each. Where no
Hub can be reached, the network starts from scratch, at its whole width, and nothing is frozen.

Ours is `configs/one_laboratory.yaml`: ResNet-50 of three eighths the width, 96 px, augmented as other laboratories
would vary the cells, with painted cells beside the real ones.
"""

import shutil
import sys
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from wbc_hf.data import Leucocytes, with_painted
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor
from wbc_hf.modeling import DEFAULT_MODEL
from wbc_hf.survey.networks import imagenet_weights
from wbc_hf.survey.system import Published, System
from wbc_hf.training import build_network, calibrate, parse, train_network

_PAINTED_SEED = 1_000_000
_RECIPE = Path(__file__).resolve().parents[2] / "configs" / "one_laboratory.yaml"


class _TrainPy(System):
    """A model trained and calibrated as by `train.py`.

    Args:
        folder, seed: As for `System`.
        arguments: Command line of `train.py`, which overrides the system's own.
    """

    def __init__(self, folder: Path, seed: int = 0, arguments: Sequence[str] = ()):
        super().__init__(folder, seed)
        self._arguments = arguments

    @abstractmethod
    def _words(self) -> list[str]:
        """Arguments of `train.py`'s command line."""

    def fit(self, leucocytes: Leucocytes) -> None:
        always = [f"--output_dir={self.folder}", f"--seed={self.seed}", "--report_to=none"]
        always.append(f"--disable_tqdm={'false' if sys.stderr.isatty() else 'true'}")
        data, model, training = parse([*self._words(), *always, *self._arguments])
        self.start = "from scratch" if model.from_scratch else "ImageNet"
        # A folder of its own, since checkpoints of one do not fit the other.
        training.output_dir = str(self.folder / self.start.replace(" ", "-").lower())
        network, processor = build_network(model, training)
        self._parameters = network.num_parameters()
        # Other cells than those of a painted set to test on.
        painted_seed = _PAINTED_SEED + self.seed
        seen = with_painted(leucocytes, data.painted, painted_seed) if data.painted else leucocytes
        trainer = train_network(seen, network, processor, data, model, training)
        finished = self.folder / "model"
        shutil.rmtree(finished, ignore_errors=True)
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(finished)
        processor.save_pretrained(finished)
        calibrate(finished, leucocytes, leucocytes.provenance.title, self.seed)
        self._predictor = Predictor.from_pretrained(finished, fresh=True)

    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        probabilities, _ = self._predictor.classify(images)
        return probabilities

    @property
    def parameters(self) -> int:
        return self._parameters


class SourceStudy(_TrainPy):
    """ResNet-50, a new head, early layers frozen, plain cross-entropy, Adam."""

    name = "source-study"
    title = "The source study, ResNet-50"
    published = Published(
        source="fine-tunes microsoft/resnet-50 on Kaggle brikwerk/bccd-white-blood-cell",
        cells="BCCD, augmented to 700 images a class",
        near_duplicates_apart=False,
    )

    def _words(self) -> list[str]:
        plain = ["--num_train_epochs=10", "--weight_decay=0", "--label_smoothing_factor=0", "--image_size=96"]
        weights = imagenet_weights(DEFAULT_MODEL)
        if weights is None:
            return [*plain, "--from_scratch=true", "--learning_rate=1e-3"]
        return [*plain, f"--model={weights}", "--freeze=stage2", "--learning_rate=1e-4"]


class Ours(_TrainPy):
    """The recipe for a single laboratory, `configs/one_laboratory.yaml`."""

    name = "ours"
    title = "Ours, with painted cells beside"
    published = Published(
        source="this repository, configs/one_laboratory.yaml",
        cells="PBC and painted cells",
        near_duplicates_apart=True,
    )

    def _words(self) -> list[str]:
        if not _RECIPE.exists():
            raise WbcError(f"{_RECIPE}: is not there: it comes with the repository, not with the package alone.")
        return [str(_RECIPE)]
