"""What a run computes once instead of in every epoch: decoded images, or what frozen layers make of them.

Each is one file in the run's folder, complete or not there. A batch maps it, copies its rows and lets go of it again:
what was read stays with the operating system as long as there is room, and never counts as the run's own memory.
"""

import hashlib
import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset
from tqdm.auto import tqdm
from transformers import ResNetForImageClassification
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import Augmentation, Leucocytes, OtherLaboratories
from wbc_hf.errors import WbcError
from wbc_hf.files import TEMPORARY_FILES, open_atomically
from wbc_hf.modeling import Normalise, digest_weights, frozen_output
from wbc_hf.training.transforms import (
    EvaluationTransform,
    TrainingTransform,
    row_numbers,
    view_seeds,
)

logger = logging.getLogger(__name__)

_BATCH_SIZE = 32
_THREADS = 8
# Checkpoints need room too, and others than this run.
_SHARE_OF_FREE_SPACE = 0.5


Transform = Callable[[dict[str, list]], dict[str, list]]


class CachedRows(TorchDataset):
    """Rows of a split, their images prepared already.

    Args:
        path: NumPy file of (views, n, height, width, channels); bfloat16 is stored as uint16.
        kind: What the trainer knows them as: "pixels", "crops" or "hidden".
        rows: The n rows that the file was made from.
    """

    def __init__(self, path: Path, kind: str, rows: Dataset):
        self.path, self.kind = path, kind
        self.views = len(np.load(path, mmap_mode="r"))
        self.view = 0
        self.labels = torch.tensor(rows["label"])
        self.numbers = torch.tensor(row_numbers(rows["source"]))

    def __len__(self) -> int:
        return len(self.labels)

    def start_epoch(self, epoch: int) -> None:
        """Show the next view of every image; after the last comes the first again."""
        self.view = epoch % self.views

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """A whole batch: (n, channels, height, width), stored channels-last, with `labels` and `index`, int64 (n,)."""
        stored = torch.from_numpy(np.load(self.path, mmap_mode="r")[self.view][indices])
        values = stored.view(torch.bfloat16) if stored.dtype is torch.uint16 else stored
        return {
            self.kind: values.permute(0, 3, 1, 2),
            "labels": self.labels[indices],
            "index": self.numbers[indices],
        }


@dataclass(frozen=True)
class Caches:
    """What a run trains and chooses on.

    Attributes:
        train, validation: Their rows.
        depth: The layers up to and including this one are computed already; "none" where the rows are images.
    """

    train: CachedRows
    validation: CachedRows
    depth: str


class Trunk:
    """The frozen layers of a network, as a function of images.

    Args:
        network: In whose first layers, up to and including `depth`, nothing will change.
        processor: Whose normalisation the network expects.
        depth: One of `FREEZE_DEPTHS`.
        device: Where to compute.
        dtype: What autocast computes in; float32 is without it.
    """

    def __init__(
        self,
        network: ResNetForImageClassification,
        processor: BaseImageProcessor,
        depth: str,
        device: torch.device,
        dtype: torch.dtype,
    ):
        self.network = network.to(device, memory_format=torch.channels_last).eval()
        self.processor, self.depth, self.device, self.dtype = processor, depth, device, dtype
        self._normalise = Normalise(processor, device)

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> np.ndarray:
        """uint8, or float32 of 0 to 1, (n, 3, height, width) → the last frozen layer's output as it is stored."""
        pixel_values = self._normalise(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            hidden = frozen_output(self.network, self.depth, pixel_values).permute(0, 2, 3, 1).contiguous().cpu()
        return (hidden.view(torch.uint16) if hidden.dtype is torch.bfloat16 else hidden).numpy()

    def digest(self) -> str:
        """Of its weights and of what it computes in."""
        parts = (self.depth, self.dtype, self.processor.to_dict(), digest_weights(self.network.resnet))
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def cache_images(leucocytes: Leucocytes, processor: BaseImageProcessor, edge: int, folder: Path) -> Caches | None:
    """Decode and shrink every image of training and validation, once.

    Args:
        leucocytes: With their fingerprint.
        processor: What validation images go through.
        edge: Side of the training images, in pixels.
        folder: Where the files go; those of an earlier call with the same images and sizes are used.

    Returns:
        The rows; None, with one warning, where the disk has no room for them.
    """
    size = processor.size["shortest_edge"]
    train, validation = leucocytes["train"], leucocytes["validation"]
    key = (_digest(leucocytes), processor.to_dict())
    pixels = _File.named("pixels", folder, (1, len(train), edge, edge, 3), np.uint8, key)
    crops = _File.named("crops", folder, (1, len(validation), size, size, 3), np.uint8, key)
    if lack := _lack_of_room(folder, (pixels, crops)):
        logger.warning("Images are decoded anew in every epoch: once for all %s.", lack)
        return None
    title = "Decoding images"
    pixels.write(_prepared(train, TrainingTransform(edge), lambda batch: _stack(batch["pixels"]), title))
    crops.write(_prepared(validation, EvaluationTransform(processor), lambda batch: _stack(batch["crops"]), title))
    return Caches(CachedRows(pixels.path, "pixels", train), CachedRows(crops.path, "crops", validation), "none")


def cache_trunk(
    leucocytes: Leucocytes,
    trunk: Trunk,
    augmentation: Augmentation | OtherLaboratories,
    edge: int,
    folder: Path,
    *,
    views: int,
    seed: int,
) -> Caches:
    """Compute once what the frozen layers make of every image of training and validation.

    Args:
        leucocytes: With their fingerprint.
        trunk: The frozen layers.
        augmentation: Of the training images. Without any, all views are one.
        edge: Side of the images that it takes, in pixels.
        folder: Where the files go; those of an earlier call with the same arguments and weights are used.
        views: How many augmented views of each training image.
        seed: Of the views.

    Raises:
        WbcError: The disk has no room for them.
    """
    views = views if augmentation.strength else 1
    train, validation = leucocytes["train"], leucocytes["validation"]
    example = trunk(torch.zeros(1, 3, augmentation.size, augmentation.size, dtype=torch.uint8))
    key = (_digest(leucocytes), trunk.digest(), augmentation, seed)
    shape = example.shape[1:]
    seen = _File.named("hidden-train", folder, (views, len(train), *shape), example.dtype, key)
    chosen_on = _File.named("hidden-validation", folder, (1, len(validation), *shape), example.dtype, key)
    if lack := _lack_of_room(folder, (seen, chosen_on)):
        raise WbcError(
            f"--cached_views {views}: {lack}. Take fewer views, smaller images (--image_size) or a deeper --freeze, "
            "or leave it out."
        )

    def views_of(batch: dict[str, list]) -> np.ndarray:
        pixels = torch.stack(batch["pixels"]).to(trunk.device)
        seeds = (view_seeds(seed, view, np.array(batch["index"])) for view in range(views))
        return np.stack([trunk(augmentation(pixels, of_view)) for of_view in seeds])

    margin = TrainingTransform(edge)
    seen.write(_prepared(train, margin, views_of, "Frozen layers, training"))
    crop = EvaluationTransform(trunk.processor)
    chosen_on.write(
        _prepared(
            validation, crop, lambda batch: trunk(torch.stack(batch["crops"]))[None], "Frozen layers, validation"
        )
    )
    return Caches(
        CachedRows(seen.path, "hidden", train), CachedRows(chosen_on.path, "hidden", validation), trunk.depth
    )


@dataclass(frozen=True)
class _File:
    """One array in a file that is complete or not there.

    Attributes:
        path: Its name tells what it was made from.
        shape: (views, n, height, width, channels).
        dtype: Of NumPy.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype

    @classmethod
    def named(cls, name: str, folder: Path, shape: tuple[int, ...], dtype: np.dtype, key: tuple) -> "_File":
        digest = hashlib.sha256(repr((name, shape, key)).encode()).hexdigest()[:16]
        return cls(folder / f"{name}-{digest}.npy", shape, np.dtype(dtype))

    def missing_bytes(self) -> int:
        return 0 if self.path.exists() else int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def write(self, batches: Iterator[tuple[int, np.ndarray]]) -> None:
        """From pairs of the first row's number and (views, batch, height, width, channels), unless it is there.

        Raises:
            WbcError: It cannot be written.
        """
        if self.path.exists():
            return
        try:
            with open_atomically(self.path, sync=False) as file:
                np.lib.format.write_array_header_2_0(
                    file, {"descr": self.dtype.str, "fortran_order": False, "shape": self.shape}
                )
                begin, row = file.tell(), int(np.prod(self.shape[2:])) * self.dtype.itemsize
                for start, batch in batches:
                    for view, values in enumerate(batch):
                        # Not through a map: on a disk that is full, that ends the process without a word.
                        file.seek(begin + (view * self.shape[1] + start) * row)
                        file.write(values.tobytes())
        except OSError as error:
            raise WbcError(
                f"{self.path.parent}: what is computed once cannot be kept there ({error.strerror}). Make room, or "
                "take another --output_dir."
            ) from error


def _lack_of_room(folder: Path, files: Sequence[_File]) -> str:
    """What is missing on the disk for files that are not there yet; empty where they fit. Makes the folder.

    Removes what a run that was killed left half-written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for broken_off in folder.glob(TEMPORARY_FILES):
        broken_off.unlink()
    needed, free = sum(file.missing_bytes() for file in files), shutil.disk_usage(folder).free
    if needed <= _SHARE_OF_FREE_SPACE * free:
        return ""
    return f"takes {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free"


def _prepared(
    rows: Dataset, transform: Transform, compute: Callable[[dict[str, list]], np.ndarray], title: str
) -> Iterator[tuple[int, np.ndarray]]:
    """For each batch, its first row's number and what `compute` makes of it, while threads decode the next ones."""
    starts = range(0, len(rows), _BATCH_SIZE)
    threads = min(_THREADS, os.cpu_count() or 1)
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=len(rows), desc=title, unit="image", delay=2, leave=False) as bar,
    ):
        ahead: deque[tuple[int, Future]] = deque()
        for start in (*starts, *[None] * threads):
            if start is not None:
                ahead.append((start, pool.submit(lambda at: transform(rows[at : at + _BATCH_SIZE]), start)))
            if ahead and (len(ahead) > threads or start is None):
                first, batch = ahead.popleft()
                values = compute(batch.result())
                yield first, values
                bar.update(values.shape[1])


def _digest(leucocytes: Leucocytes) -> str:
    """Of the images and of the order in which they stand: the fingerprint alone does not know names."""
    order = [leucocytes[split][column] for split in ("train", "validation") for column in ("source", "label")]
    return hashlib.sha256(repr((leucocytes.provenance.fingerprint, list(map(list, order)))).encode()).hexdigest()


def _stack(images: list[torch.Tensor]) -> np.ndarray:
    """uint8 (3, height, width) each → (1, n, height, width, 3)."""
    return torch.stack(images).permute(0, 2, 3, 1).numpy()[None]
