"""Nearest reference cells: labelled cells whose features are most similar to those of a query cell."""

import io
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from wbc_hf.data import read_image
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.inference.predictor import Predictor, batches
from wbc_hf.labels import CLASS_NAMES, class_index

if TYPE_CHECKING:
    from wbc_hf.data import FolderImage

logger = logging.getLogger(__name__)

# Evenly over the classes. A ResNet-50 takes about two minutes for these on one core; features and thumbnails take
# 40 MB.
MAX_CELLS = 2000
THUMBNAIL_SIDE = 128
_QUALITY = 85


@dataclass(frozen=True)
class Neighbour:
    """A reference cell similar to the query.

    Attributes:
        label: Its class, one of `CLASS_NAMES`.
        name: Its file, relative to the folder of the set.
        similarity: Cosine similarity of the features, 0 to 1; 1 for the same image.
        thumbnail: JPEG, RGB, the longer side at most 128 px.
    """

    label: str
    name: str
    similarity: float
    thumbnail: bytes


class ReferenceCells:
    """An index of labelled reference cells by their features.

    Attributes:
        labels: Of each, one of `CLASS_NAMES`.
        names: Of each, relative to the folder of the set.
    """

    def __init__(
        self,
        predictor: Predictor,
        labels: Sequence[str],
        names: Sequence[str],
        thumbnails: Sequence[bytes],
        features: np.ndarray,
    ):
        from sklearn.neighbors import NearestNeighbors

        self.labels = tuple(labels)
        self.names = tuple(names)
        self._predictor = predictor
        self._thumbnails = tuple(thumbnails)
        self._search = NearestNeighbors(metric="cosine", algorithm="brute").fit(features)

    @classmethod
    def from_folder(cls, folder: Path, predictor: Predictor) -> "ReferenceCells":
        """Index the cells of a folder of class sub-folders, at most `MAX_CELLS`, evenly over the classes.

        Other class folders are left out, and so are files that cannot be read: one warning names them.

        Raises:
            WbcError: No such folder, no class folder of a leucocyte in it, or no picture that can be read.
        """
        from wbc_hf.data import scan_folder

        images = _choose(scan_folder(folder), folder)
        labels, names, features, broken = [], [], [], []
        thumbnails: list[bytes] = []
        for batch in batches(tqdm(images, desc="Reading reference cells", unit="image", delay=2, leave=False)):
            pictures = []
            for image in batch:
                try:
                    pictures.append(read_image(image.path, image.source))
                except UnreadableImageError as error:
                    broken.append(error)
                    continue
                labels.append(CLASS_NAMES[cast(int, class_index(image.class_name))])
                names.append(image.source)
            if pictures:
                features.append(predictor.logits_and_features(pictures)[1])
                thumbnails += map(_thumbnail, pictures)
        if broken:
            logger.warning(
                "%s: %d reference cells cannot be read and are left out: %s.",
                folder,
                len(broken),
                ", ".join(error.name for error in broken),
            )
        if not features:
            raise WbcError(f"{folder}: none of its {len(images)} pictures can be read. The first: {broken[0]}")
        return cls(predictor, labels, names, thumbnails, np.concatenate(features))

    def __len__(self) -> int:
        return len(self.labels)

    def nearest(self, image: Image.Image, count: int = 5) -> tuple[Neighbour, ...]:
        """Find the `count` reference cells most similar to an RGB image, the most similar first."""
        features = self._predictor.logits_and_features([image])[1]
        distances, indices = self._search.kneighbors(features, min(count, len(self)))
        return tuple(
            # Features are means after a ReLU, not negative: a cosine falls below 0 by rounding alone.
            Neighbour(
                self.labels[index],
                self.names[index],
                float(np.clip(1 - distance, 0, 1)),
                self._thumbnails[index],
            )
            for distance, index in zip(distances[0], indices[0], strict=True)
        )


def _choose(images: "Sequence[FolderImage]", folder: Path) -> "list[FolderImage]":
    """Choose at most `MAX_CELLS` leucocytes, balanced over the classes, spread evenly over each class."""
    of_class: dict[int, list[FolderImage]] = defaultdict(list)
    for image in images:
        index = class_index(image.class_name)
        if index is not None:
            of_class[index].append(image)
    if not of_class:
        found = ", ".join(sorted({image.class_name for image in images}))
        raise WbcError(f"{folder}: its class folders are {found}; reference cells are {', '.join(CLASS_NAMES)}.")
    chosen, room = [], MAX_CELLS
    # The smallest class first: the room it leaves goes to the others.
    for done, members in enumerate(sorted(of_class.values(), key=len)):
        take = min(len(members), room // (len(of_class) - done))
        chosen += [members[index * len(members) // take] for index in range(take)]
        room -= take
    return chosen


def _thumbnail(picture: Image.Image) -> bytes:
    small = picture.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()
