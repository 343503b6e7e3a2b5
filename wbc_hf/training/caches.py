"""Caches of what would otherwise be computed in every epoch: decoded images, or the output of frozen layers.

Each is a file in the run's folder, complete or absent. Every batch maps it, copies its rows and closes it again: the
pages that were read stay with the operating system as long as there is room, and are no memory of the run.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset
from tqdm.auto import tqdm
from transformers import ResNetForImageClassification
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import Augmentation, LaboratoryStyles, Leucocytes, OtherLaboratories
from wbc_hf.errors import WbcError
from wbc_hf.files import TEMPORARY_FILES, open_atomically
from wbc_hf.inference import map_ahead
from wbc_hf.modeling import Normalise, cropped_edge, digest_weights, frozen_output
from wbc_hf.training.transforms import EvaluationTransform, TrainingTransform, augment, row_numbers, view_seeds

logger = logging.getLogger(__name__)

_BATCH_SIZE = 32
_MAX_THREADS = 8
# Checkpoints need room too, and so do others.
_SHARE_OF_FREE_SPACE = 0.5

Rows = dict[str, list]  # a batch, by column


class CachedRows(TorchDataset):
    """Rows of a split whose images have been prepared: an array in a file that is complete or absent.

    Args:
        leucocytes: With their fingerprint.
        split: Name of the split, of n rows.
        kind: The trainer's name for them: "pixels", "crops" or "hidden".
        folder: Where the file goes; its name is a digest of the images in their order, of their shape and of `key`.
        shape: Of a row: (views, height, width, channels).
        dtype: The stored type; bfloat16 is stored as uint16.
        key: What else the array depends on.
        laboratories: Names of laboratories by number, where batches give the numbers.
    """

    def __init__(
        self,
        leucocytes: Leucocytes,
        split: str,
        kind: str,
        folder: Path,
        shape: tuple[int, ...],
        dtype: np.typing.DTypeLike,
        key: object,
        laboratories: Sequence[str] = (),
    ):
        rows = leucocytes[split]
        # The fingerprint alone does not depend on names.
        parts = (leucocytes.provenance.fingerprint, list(rows["source"]), list(rows["label"]), split, shape, key)
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
        self.path, self.kind = folder / f"{kind}-{split}-{digest}.npy", kind
        self.shape, self.dtype = (len(rows), *shape), np.dtype(dtype)
        self.view = 0
        self.labels = torch.tensor(rows["label"])
        self.numbers = torch.tensor(row_numbers(rows["source"]))
        self.laboratories = (
            torch.tensor([laboratories.index(name) for name in rows["laboratory"]]) if laboratories else None
        )

    def __len__(self) -> int:
        return len(self.labels)

    def missing_bytes(self) -> int:
        """Bytes still to be written."""
        return 0 if self.path.exists() else int(np.prod(self.shape)) * self.dtype.itemsize

    def write(self, rows: Dataset, transform: Callable[[Rows], Rows], compute: Callable[[Rows], np.ndarray]) -> None:
        """Compute and write the array, batch by batch, unless it is there.

        Args:
            rows: The split.
            transform: Prepares a batch of rows; runs in threads.
            compute: Turns what it returns into (batch, views, height, width, channels).

        Raises:
            WbcError: It cannot be written.
        """
        if self.path.exists():
            return
        starts, threads = range(0, len(rows), _BATCH_SIZE), min(_MAX_THREADS, os.cpu_count() or 1)
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": self.shape}
        try:
            with (
                open_atomically(self.path, sync=False) as file,
                tqdm(total=len(rows), desc=f"Caching {self.kind}", unit="image", delay=2, leave=False) as bar,
            ):
                np.lib.format.write_array_header_2_0(file, header)
                for batch in map_ahead(lambda at: transform(rows[at : at + _BATCH_SIZE]), starts, threads):
                    values = compute(batch)
                    # Not through a memory map: on a full disk, that ends the process without a message.
                    file.write(values.tobytes())
                    bar.update(len(values))
        except OSError as error:
            raise WbcError(
                f"{self.path.parent}: the cache cannot be kept there ({error.strerror}). Make room, or take another "
                "--output_dir."
            ) from error

    def start_epoch(self, epoch: int) -> None:
        """Show the next view of every image; after the last, the first again."""
        self.view = epoch % self.shape[1]

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """Load a batch: (n, channels, height, width), stored channels-last, with `labels` and `index`, int64 (n,).

        Where laboratories have numbers, their `laboratory` as well.
        """
        stored = torch.from_numpy(np.load(self.path, mmap_mode="r")[indices, self.view])
        values = stored.view(torch.bfloat16) if stored.dtype is torch.uint16 else stored
        batch = {
            self.kind: values.permute(0, 3, 1, 2),
            "labels": self.labels[indices],
            "index": self.numbers[indices],
        }
        return batch if self.laboratories is None else batch | {"laboratory": self.laboratories[indices]}


@dataclass(frozen=True)
class Caches:
    """The cached rows of a run.

    Attributes:
        train, validation: The rows.
        depth: The layers up to and including this one have been computed; "none" where the rows are images.
        styles: Stains and backgrounds that the augmentation of images exchanges, if any.
    """

    train: CachedRows
    validation: CachedRows
    depth: str
    styles: LaboratoryStyles | None = None


class FrozenLayers:
    """The frozen layers of a network, as a function of images.

    Args:
        network: Its first layers, up to and including `depth`, do not change.
        processor: Gives the normalisation that the network expects.
        depth: One of `FREEZE_DEPTHS`.
        device: Where to compute.
        dtype: The precision of autocast; float32 is without it.
    """

    def __init__(
        self,
        network: ResNetForImageClassification,
        processor: BaseImageProcessor,
        depth: str,
        device: torch.device,
        dtype: torch.dtype,
    ):
        self.network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[arg-type]
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
        """Digest of the weights and the precision."""
        parts = (self.depth, self.dtype, self.processor.to_dict(), digest_weights(self.network.resnet))
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def cache_images(
    leucocytes: Leucocytes,
    processor: BaseImageProcessor,
    edge: int,
    folder: Path,
    styles: LaboratoryStyles | None = None,
) -> Caches | None:
    """Decode and shrink every image of training and validation, once.

    Args:
        leucocytes: With their fingerprint.
        processor: Prepares the validation images.
        edge: Side of the training images, in pixels.
        folder: Where the files go; those of an earlier call with the same images and sizes are used.
        styles: Of the training images, if the augmentation exchanges any: their cells are segmented then.

    Returns:
        The caches; None, with a warning, where the disk has no room for them.
    """
    size, key = cropped_edge(processor), processor.to_dict()
    laboratories = styles.laboratories if styles else ()
    channels = 4 if styles else 3
    shape = (1, edge, edge, channels)
    train = CachedRows(leucocytes, "train", "pixels", folder, shape, np.uint8, key, laboratories)
    validation = CachedRows(leucocytes, "validation", "crops", folder, (1, size, size, 3), np.uint8, key)
    if shortage := _shortage_of_room(folder, train, validation):
        logger.warning("Images are decoded in every epoch: decoding them once %s.", shortage)
        return None
    train.write(leucocytes["train"], TrainingTransform(edge, laboratories), partial(_stack, "pixels"))
    validation.write(leucocytes["validation"], EvaluationTransform(processor), partial(_stack, "crops"))
    return Caches(train, validation, "none", styles)


def cache_frozen_layers(
    leucocytes: Leucocytes,
    layers: FrozenLayers,
    augmentation: Augmentation | OtherLaboratories,
    edge: int,
    folder: Path,
    *,
    views: int,
    seed: int,
) -> Caches:
    """Compute the output of the frozen layers for every image of training and validation, once.

    Args:
        leucocytes: With their fingerprint.
        layers: The frozen layers.
        augmentation: Of the training images. At strength 0, all views are one.
        edge: Side of the images that it takes, in pixels.
        folder: Where the files go; those of an earlier call with the same arguments and weights are used.
        views: Number of augmented views of each training image.
        seed: Random seed of the views.

    Raises:
        WbcError: The disk has no room for them.
    """
    views = views if augmentation.strength else 1
    output = layers(torch.zeros(1, 3, augmentation.size, augmentation.size, dtype=torch.uint8))
    styles = augmentation.styles if isinstance(augmentation, OtherLaboratories) else None
    shape, key = output.shape[1:], (layers.digest(), augmentation, seed, styles and _digest(styles))
    train = CachedRows(leucocytes, "train", "hidden", folder, (views, *shape), output.dtype, key)
    validation = CachedRows(leucocytes, "validation", "hidden", folder, (1, *shape), output.dtype, key)
    if shortage := _shortage_of_room(folder, train, validation):
        raise WbcError(
            f"--cached_views {views}: {shortage}. Take fewer views, smaller images (--image_size) or a deeper "
            "--freeze, or leave it out."
        )
    transform = TrainingTransform(edge, styles.laboratories if styles else ())
    train.write(leucocytes["train"], transform, partial(_outputs_of_views, layers, augmentation, views, seed))
    crops = EvaluationTransform(layers.processor)
    validation.write(leucocytes["validation"], crops, lambda batch: layers(torch.stack(batch["crops"]))[:, None])
    return Caches(train, validation, layers.depth)


def _digest(styles: LaboratoryStyles) -> str:
    """Digest of what an augmentation exchanges, which its own description leaves out."""
    arrays = (styles.maps.numpy().tobytes(), styles.backgrounds.numpy().tobytes())
    return hashlib.sha256(repr((styles.laboratories, styles.targets)).encode() + b"".join(arrays)).hexdigest()


def _stack(kind: str, batch: Rows) -> np.ndarray:
    """n of uint8 (3, height, width) → (n, 1, height, width, 3)."""
    return torch.stack(batch[kind]).permute(0, 2, 3, 1).numpy()[:, None]


def _outputs_of_views(
    layers: FrozenLayers, augmentation: Augmentation | OtherLaboratories, views: int, seed: int, batch: Rows
) -> np.ndarray:
    """Augment images `views` times and compute the layers' output: (n, views, height, width, channels)."""
    images = {"pixels": torch.stack(batch["pixels"]).to(layers.device)}
    if "laboratory" in batch:
        images["laboratory"] = torch.tensor(batch["laboratory"], device=layers.device)
    seeds = [view_seeds(seed, view, np.array(batch["index"])) for view in range(views)]
    return np.stack([layers(augment(augmentation, images, each)) for each in seeds], axis=1)


def _shortage_of_room(folder: Path, *files: CachedRows) -> str:
    """Describe how much room the disk lacks for files that are missing; "" where they fit.

    Makes the folder, and removes incomplete files of a killed run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for incomplete in folder.glob(TEMPORARY_FILES):
        incomplete.unlink()
    needed, free = sum(file.missing_bytes() for file in files), shutil.disk_usage(folder).free
    if needed <= _SHARE_OF_FREE_SPACE * free:
        return ""
    return f"takes {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free"
