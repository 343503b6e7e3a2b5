"""The predictor: classify images with a trained model. Evaluation, the command line and the page all use it."""

import copy
import logging
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar, cast

import numpy as np
from PIL import Image

from wbc_hf import __version__
from wbc_hf.data import DEFAULT_SPAN, ImageSource, may_be_stained_cell, read_image
from wbc_hf.default_model import choose_model
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.hardware import has_gpu, usable_cores
from wbc_hf.hub import PROCESSOR_FILE, WEIGHTS_FILE, fetch_model, find_weights
from wbc_hf.inference.backends import BACKENDS, Backend, BackendName, OpenVinoBackend, TorchBackend, has_openvino
from wbc_hf.inference.conversions import ConversionError, convert, converted, converted_network
from wbc_hf.modeling import (
    Calibration,
    Export,
    Preprocessing,
    Processor,
    digest_weights,
    find_export,
    find_graph,
    load_preprocessing,
    naming_errors,
    softmax,
    summarise_config,
)
from wbc_hf.safe_text import escape_surrogates, on_one_line

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ResNetForImageClassification
    from transformers.image_processing_utils import BaseImageProcessor

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

BATCH_SIZE = 32
# Batches that are read and prepared while the model works on one.
_AHEAD = 2


@dataclass(frozen=True)
class Prediction:
    """The prediction of a model for one image.

    Attributes:
        label: The most likely class.
        probability: Of that class, 0 to 1.
        alternatives: The other classes with their probabilities, the most likely first.
        status: "confident"; "review", a person should look; "unfamiliar", unlike the training images; "not_a_cell",
            no stained nucleus in it; or "uncalibrated", where the model folder holds no thresholds.
        distance: How unlike the training images it is, 0 or more; above 1 it is unfamiliar. None without thresholds.
        laboratory_distance: How unlike the images of the nearest laboratory that was learned: about 1 within it. None
            where the model does not know.
    """

    label: str
    probability: float
    alternatives: tuple[tuple[str, float], ...]
    status: str
    distance: float | None = None
    laboratory_distance: float | None = None

    @property
    def calibrated(self) -> bool:
        """Whether the probability tells how often such answers are right, known of pictures like the tested ones."""
        return self.status in ("confident", "review")


@dataclass(frozen=True)
class ModelIdentity:
    """Name and version of a model, recorded beside its predictions.

    Attributes:
        name: Name of its folder, or its Hub id.
        version: The first twelve hexadecimal digits of the SHA-256 of its weights.
        trained_on: Title of its training set, or None where its folder does not say.
        software: Name and version of this package.
    """

    name: str
    version: str
    trained_on: str | None
    software: str


@dataclass(frozen=True)
class _Prepared:
    """An image ready for the model: the crop alone is kept, since the image may have 50 million pixels."""

    crop: np.ndarray
    may_be_cell: bool


class Predictor:
    """An image classifier with its image processor and thresholds. Safe to be called from several threads at once.

    Attributes:
        labels: Names of the classes, in the order of the probabilities.
        name: The folder or Hub id it came from.
        calibration: Its thresholds; None where its folder has none.
        folder: Where its files lie; None for one that was built in memory.
        backend: What runs the model.
        export: The export that runs, if any.
    """

    def __init__(
        self,
        model: "PreTrainedModel | None",
        processor: "Processor | Preprocessing",
        name: str,
        calibration: Calibration | None = None,
        *,
        folder: Path | None = None,
        weights: str | None = None,
        backend: Backend | None = None,
        export: Export | None = None,
    ):
        """Wrap a model in memory; `from_pretrained` loads one from a folder.

        Args:
            model: None to load it from `folder` when it is first needed.
            processor: As saved with the model.
            name, calibration, folder, export: See above.
            weights: Digest of the weights, as `digest_weights` gives it; by default that of `model`.
            backend: By default torch, which follows every change of the model's weights.
        """
        self.name = name
        self.calibration = calibration
        self.folder = folder
        self.export = export
        self._weights = weights
        self._preprocessing = processor if isinstance(processor, Preprocessing) else Preprocessing(processor)
        if model is None:
            assert folder is not None, "Without a model in memory a folder is needed."
            assert backend is not None, "Without a model in memory a backend is needed."
            self.backend = backend
            self._model_type, names = summarise_config(folder)
        else:
            self.model = model.eval()
            if backend is None:
                from wbc_hf.modeling import InferenceGraph

                backend = TorchBackend(InferenceGraph(model, self._preprocessing))
            self.backend = backend
            self._model_type, names = model.config.model_type, cast("dict[int, str]", model.config.id2label)
        self.labels = tuple(escape_surrogates(names[index]) for index in sorted(names))
        if twice := [label for label, count in Counter(self.labels).items() if count > 1]:
            raise WbcError(
                f"{on_one_line(name)}: has the class {on_one_line(twice[0])!r} twice, so that nobody can tell "
                "which is meant. Give each class a name of its own in id2label of its config.json."
            )

    @classmethod
    def from_pretrained(
        cls, model: str | Path | None = None, backend: BackendName = "auto", *, fresh: bool = False
    ) -> "Predictor":
        """Load a model folder or a Hub id.

        Args:
            model: Folder or Hub id; by default what the variable WBC_HF_MODEL names, else the default model.
            backend: "openvino" runs on the processor: the folder's export (`wbc-hf export`) where it was made of the
                weights beside it, or these converted, in bf16 where the processor has that in hardware. "torch" runs
                the weights as they are: fp32 on a processor, bf16 on a GPU that has it. "auto" is torch on a GPU, for
                what OpenVINO cannot run, and, with one warning, where it is not installed; else OpenVINO.
            fresh: Use the weights as they lie in the folder: ignore exports, and do not cache the conversion.

        Raises:
            WbcError: No such model, or none in safetensors; no such backend, or OpenVINO was asked for and cannot run
                it.
            HubUnreachableError: The Hub did not answer and the model is not in the cache.
        """
        if backend not in BACKENDS:
            raise WbcError(f"{backend}: is not a backend. Choose one of {', '.join(BACKENDS)}.")
        model = choose_model() if model is None else model
        folder = fetch_model(model)
        summarise_config(folder)  # says what is wrong with it before anything large is read
        preprocessing, calibration = load_preprocessing(folder), Calibration.load(folder)
        # None beside an export alone. Computed now: the folder may hold others when the version is asked for.
        weights = digest_weights(folder) if find_weights(folder) else None
        on_torch = backend == "torch" or (
            backend == "auto" and weights is not None and (has_gpu() or not has_openvino())
        )
        if not (on_torch or fresh) and (exported := find_export(folder, weights)) is not None:
            return cls._of_export(exported, preprocessing, str(model), calibration)
        if weights is None:
            raise WbcError(
                f"{folder}: has no {WEIGHTS_FILE} and no export that this backend runs. Fetch the model again."
            )
        runs = None
        if not on_torch:
            try:
                runs = OpenVinoBackend(
                    convert(folder, preprocessing) if fresh else converted(folder, weights, preprocessing)
                )
            except ConversionError as error:
                if backend == "openvino":
                    raise
                logger.warning("%s Using torch, which is slower.", error)
        network = None
        if runs is None:
            from wbc_hf.modeling import load_classifier

            network = load_classifier(folder)
        predictor = cls(network, preprocessing, str(model), calibration, folder=folder, weights=weights, backend=runs)
        predictor.check()
        return predictor

    @classmethod
    def _of_export(
        cls, exported: Path, preprocessing: Preprocessing, name: str, calibration: Calibration | None
    ) -> "Predictor":
        """The export in a folder within the model's."""
        export = Export.load(exported)
        threshold = None if export.check is None else export.check.out_of_distribution_threshold
        if calibration is not None and threshold is not None:  # the one that fits the export's features
            calibration = replace(calibration, out_of_distribution_threshold=threshold)
        graph = find_graph(exported, export.format)
        with naming_errors(graph):
            backend = OpenVinoBackend(graph, exact=export.precision == "fp32", quantised=export.precision == "int8")
        predictor = cls(
            None,
            preprocessing,
            name,
            calibration,
            folder=exported.parent,
            weights=export.weights,
            backend=backend,
            export=export,
        )
        predictor.check()
        return predictor

    def check(self) -> None:
        """Check on a blank image that network, classes and calibration go together.

        Raises:
            WbcError: The network cannot be run, answers for other classes than it names, or has other features than
                its calibration was fitted on.
        """
        place = self.folder or Path(self.name)
        with naming_errors(place):
            crop, other = (self._preprocessing.crop(Image.new("RGB", (64, height))) for height in (64, 96))
        if crop.shape != other.shape:
            raise WbcError(
                f"{place / PROCESSOR_FILE}: gives each picture another shape, {crop.shape} and {other.shape} for two. "
                "An image processor that crops all alike is needed."
            )
        with naming_errors(place):
            logits, features = self.backend.run(crop[None])
        if logits.shape != (1, len(self.labels)):
            raise WbcError(
                f"{place}: its network answers for {logits.shape[-1]} classes, and names {len(self.labels)}. Fetch "
                "the model again."
            )
        self._check_finite(logits)
        if self.calibration is None or features is None:
            return
        fitted = len(self.calibration.out_of_distribution_score.mean)
        if features.shape != (1, fitted):
            raise WbcError(
                f"{place}: its network has {features.shape[-1]} features, and its calibration is of {fitted}. Fetch "
                "the model again."
            )

    def _check_finite(self, logits: np.ndarray) -> None:
        if not np.isfinite(logits).all():
            raise WbcError(
                f"{self.folder or self.name}: its network answers with values that are no numbers. Fetch the model "
                "again, or choose another one."
            )

    def with_weights(
        self, weights: "Mapping[str, torch.Tensor]", name: str, calibration: Calibration | None
    ) -> "Predictor":
        """A predictor of the same architecture and image processor with other weights, in memory.

        It runs on the library that this one runs on. OpenVINO's conversion is cached, as that of a folder is.

        Args:
            weights: A whole state dictionary.
            name: Of the new model; no folder or Hub id.
            calibration: Its thresholds.

        Raises:
            WbcError: This model's weights are not at hand: it is an export alone, or was trained again.
            ConversionError: OpenVINO cannot run it.
        """
        network = copy.deepcopy(self.model)
        network.load_state_dict(weights)
        digest = digest_weights(network)
        runs = None
        if isinstance(self.backend, OpenVinoBackend):
            runs = OpenVinoBackend(converted_network(network, digest, self._preprocessing, name))
        return Predictor(network, self._preprocessing, name, calibration, weights=digest, backend=runs)

    @property
    def processor(self) -> "BaseImageProcessor":
        """The image processor as saved with the model."""
        return self._preprocessing.processor

    @cached_property
    def model(self) -> "PreTrainedModel":
        """The network in torch; where OpenVINO runs the model, it is loaded when first needed.

        Raises:
            WbcError: Its folder holds an export without weights, or its weights have changed since they were loaded.
        """
        assert self.folder is not None  # what has no folder has its model in memory
        if not find_weights(self.folder):
            raise WbcError(
                f"{self.folder}: holds an export without the weights. It can predict; heat maps and features of "
                "the network need the folder that it was exported from."
            )
        from wbc_hf.modeling import load_classifier

        model = load_classifier(self.folder).eval()
        if digest_weights(self.folder) != self._weights:
            raise WbcError(f"{self.folder}: was trained again since it was loaded. Restart to use the new weights.")
        return model

    @property
    def spans(self) -> tuple[float, ...]:
        """Sides of a picture in widths of its cell, one or more: the framings that the model has learned."""
        return (self.calibration and self.calibration.spans) or (DEFAULT_SPAN,)

    @cached_property
    def identity(self) -> ModelIdentity:
        """Name and version of the model."""
        name = self.name
        if self.folder is not None and Path(name).is_dir():
            name = self.folder.resolve().name
        trained_on = None if self.calibration is None else self.calibration.trained_on
        trained_on = trained_on and escape_surrogates(trained_on)
        # Of the weights alone: the same for every copy of a model, whatever its path and backend.
        version = (self._weights or digest_weights(self.model))[:12]
        return ModelIdentity(escape_surrogates(name), version, trained_on, f"wbc_hf {__version__}")

    def rename(self, name: str) -> None:
        """Give the model another name, no folder or Hub id, in its identity from now on."""
        self.name = name
        self.__dict__.pop("identity", None)

    def probabilities(self, images: Iterable[Image.Image]) -> np.ndarray:
        """Probabilities of each class for RGB images as `read_image` gives them.

        Returns:
            float32 (n, classes), 0 to 1, rows sum to 1.
        """
        probabilities = [np.zeros((0, len(self.labels)), dtype=np.float32)]
        for batch in batches(images):
            logits, _ = self.backend.run(np.stack([self._preprocessing.crop(image) for image in batch]))
            self._check_finite(logits)
            probabilities.append(softmax(logits))
        return np.concatenate(probabilities)

    def logits_and_features(self, images: Iterable[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        """Logits and features of a ResNet for RGB images, one at least: float32 (n, classes) and (n, d).

        The features are the channel means of its last three stages, on which the out-of-distribution score works.

        Raises:
            WbcError: The model is not a ResNet.
        """
        logits, features = [], []
        for batch in batches(images):
            batch_logits, batch_features = self.backend.run(
                np.stack([self._preprocessing.crop(image) for image in batch])
            )
            if batch_features is None:
                self._refuse()
            logits.append(batch_logits)
            features.append(batch_features)
        return np.concatenate(logits), np.concatenate(features)

    @property
    def resnet(self) -> "ResNetForImageClassification":
        """The network in torch, if it is a ResNet.

        Raises:
            WbcError: It is not a ResNet.
        """
        if self._model_type != "resnet":
            self._refuse()
        return cast("ResNetForImageClassification", self.model)

    def _refuse(self) -> NoReturn:
        raise WbcError(
            f"{self.name}: is a {self._model_type!r} model. It can predict, but features and heat "
            "maps are available for the ResNet family alone."
        )

    def pixels(self, images: Sequence[Image.Image]) -> "torch.Tensor":
        """Preprocess RGB images, one at least, for the network: float32 (n, 3, height, width) on its device."""
        import torch

        pixels = self.processor(list(images), return_tensors="pt").pixel_values
        return pixels.to(self.model.device).contiguous(memory_format=torch.channels_last)

    def classify(self, images: Iterable[Image.Image]) -> tuple[np.ndarray, list[str]]:
        """Probabilities and statuses of RGB images, read batch by batch.

        Returns:
            float32 (n, classes), rows sum to 1, and n statuses as in `Prediction`.
        """
        probabilities, statuses = [np.zeros((0, len(self.labels)), dtype=np.float32)], []
        for batch in batches(images):
            of_batch, predictions = self._classify([self._prepare(image) for image in batch])
            probabilities.append(of_batch)
            statuses += [one.status for one in predictions]
        return np.concatenate(probabilities), statuses

    def _prepare(self, image: Image.Image) -> _Prepared:
        return _Prepared(self._preprocessing.crop(image), self.calibration is None or may_be_stained_cell(image))

    def _classify(self, prepared: Sequence[_Prepared]) -> tuple[np.ndarray, list[Prediction]]:
        """Probabilities, float32 (n, classes), and predictions of n images."""
        count = len(prepared)
        if not count:  # a batch in which no picture can be read
            return np.zeros((0, len(self.labels)), dtype=np.float32), []
        logits, features = self.backend.run(np.stack([one.crop for one in prepared]))
        self._check_finite(logits)
        probabilities = softmax(logits)
        statuses: Sequence[str] = ["uncalibrated"] * count
        distances: Sequence[float | None] = [None] * count
        laboratory_distances = distances
        if self.calibration is not None and features is not None:
            measured, of_laboratories = self.calibration.measure(features)
            may_be_cell = [one.may_be_cell for one in prepared]
            statuses = self.calibration.statuses(probabilities.max(1), measured, may_be_cell)
            distances = measured.tolist()
            if of_laboratories is not None:
                laboratory_distances = of_laboratories.tolist()
        facts = zip(statuses, distances, laboratory_distances, strict=True)
        return probabilities, [
            self._prediction(of_image, *known) for of_image, known in zip(probabilities, facts, strict=True)
        ]

    def predict(self, sources: Iterable[ImageSource]) -> list[Prediction]:
        """Classify images, given as paths, bytes, arrays or PIL images.

        Raises:
            UnreadableImageError: One of the inputs is not an image that can be classified.
        """
        predictions = []
        for prediction in self.predict_each(sources):
            if isinstance(prediction, UnreadableImageError):
                raise prediction
            predictions.append(prediction)
        return predictions

    def predict_each(self, sources: Iterable[ImageSource | None]) -> Iterator[Prediction | UnreadableImageError]:
        """Classify images one by one, in order; an image that cannot be read gives its error instead.

        Threads read and preprocess the next images while the model works; a few batches at most are in memory. Leaving
        the iteration early cancels what was not begun. A single image is read here: no thread would save its time.
        """
        remaining = iter(sources)
        first = list(islice(remaining, 2))
        if len(first) == 1:
            read = (self._read(source) for source in first)
        else:
            read = map_ahead(self._read, chain(first, remaining), _AHEAD * BATCH_SIZE, self._readers)
        with closing(read):
            for batch in batches(read):
                _, predictions = self._classify([one for one in batch if isinstance(one, _Prepared)])
                coming = iter(predictions)
                for one in batch:
                    yield next(coming) if isinstance(one, _Prepared) else one

    @cached_property
    def _readers(self) -> ThreadPoolExecutor:
        """Threads kept for all calls: new ones would cost a single image a tenth of its time."""
        return ThreadPoolExecutor(usable_cores(), thread_name_prefix="read")

    def _read(self, source: ImageSource | None) -> _Prepared | UnreadableImageError:
        try:
            return self._prepare(read_image(source))
        except UnreadableImageError as error:
            return error

    def _prediction(
        self, probabilities: np.ndarray, status: str, distance: float | None, laboratory_distance: float | None
    ) -> Prediction:
        ranked = [(self.labels[index], float(probabilities[index])) for index in np.argsort(-probabilities)]
        return Prediction(*ranked[0], tuple(ranked[1:]), status, distance, laboratory_distance)


def batches(rows: Iterable[T], size: int = BATCH_SIZE) -> Iterator[list[T]]:
    """Lists of `size` rows, the last one shorter (`itertools.batched` of Python 3.12)."""
    remaining = iter(rows)
    while batch := list(islice(remaining, size)):
        yield batch


def map_ahead(
    function: Callable[[T], R], items: Iterable[T], ahead: int, pool: ThreadPoolExecutor | None = None
) -> Generator[R]:
    """Yield what a function returns for each item, in order, while threads work on the next `ahead` of them.

    Threads of `pool`, by default as many as items ahead. Ending the iteration early cancels what was not begun.
    """
    coming: deque[Future[R]] = deque()
    with ThreadPoolExecutor(ahead) if pool is None else nullcontext(pool) as threads:
        try:
            for item in items:
                coming.append(threads.submit(function, item))
                if len(coming) > ahead:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()
