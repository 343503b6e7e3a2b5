"""A small Faster R-CNN for pictures of one cell: Ren et al. 2015, arXiv:1506.01497.

A convolutional trunk computes a feature map. A region proposal network predicts, for square anchors of several sizes
at each position, objectness and box offsets. The best proposals are pooled from the map, and a head predicts
background or the cell's group, and a second offset. All parts are trained together. A picture holds one cell, so the
most likely region is the answer, without non-maximum suppression.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from PIL import Image
from safetensors.torch import load_file, save
from torch import nn
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup, set_seed

from wbc_hf.data import frame, segment_cell
from wbc_hf.errors import WbcError
from wbc_hf.files import write_atomically
from wbc_hf.modeling import Normalise, build_processor, training_memory_format
from wbc_hf.survey.networks import Recipe, Residual, convolution
from wbc_hf.survey.system import pictures

_CHANNELS = (24, 48, 96)  # at half, a quarter and an eighth of the side
_SIZES = (0.25, 0.4, 0.6, 0.85)  # sides of the anchors, in sides of the picture
_PROPOSALS = 4  # passed to the head
_POOLED = 6  # side of a pooled proposal
_POSITIVE, _NEGATIVE = 0.5, 0.3  # intersections over union from and below which a region counts as a cell or as none
_NEGATIVES = 3  # anchors without a cell that count in training, for each with one
_ZOOM, _SHIFT = 0.5, 0.1  # of training views: octaves, and sides of the picture
_SMALLEST_SIDE = 0.02  # of a box to train on, in sides of the picture
_WARM_UP = 0.1  # share of the steps
_LARGEST_OFFSET = 1.0  # of the logarithm of a side
_BATCH_SIZE = 64
_WEIGHTS = "detector.safetensors"


@dataclass(frozen=True)
class Detections:
    """The most likely cell of each picture.

    Attributes:
        boxes: float32 (n, 4): left, top, right, bottom in sides of the picture, within 0 to 1.
        groups: float32 (n, groups): probabilities of the cell's groups, rows of sum 1.
    """

    boxes: np.ndarray
    groups: np.ndarray


class RegionDetector:
    """Detector of the cell in a picture and of its group.

    Args:
        recipe: Hyperparameters; pictures are resized to `image_size`.
        folder: For the trained weights.
        groups: Their number.
        seed: Random seed of the weights, and of the order and the augmentation of the pictures.
    """

    def __init__(self, recipe: Recipe, folder: Path, groups: int, seed: int = 0):
        self.recipe, self.folder, self.seed = recipe, folder, seed
        set_seed(seed)
        # Not in bf16: for maps of this size that takes half as long again on a CPU.
        self.network = _RegionNetwork(groups)
        self._memory_format = training_memory_format(self.network)
        self.network.to(memory_format=self._memory_format)  # type: ignore[call-overload]
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._normalise = Normalise(build_processor(recipe.image_size), self.device)

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in self.network.parameters())

    def fit(self, rows: Dataset, groups: np.ndarray) -> None:
        """Train on the pictures in which segmentation finds a cell, or load the weights of an earlier fit.

        Args:
            rows: Pictures.
            groups: int (n,), of each picture.

        Raises:
            WbcError: Segmentation finds no cell in any picture.
        """
        weights = self.folder / _WEIGHTS
        if not weights.exists():
            self._train(rows, groups)
            self.folder.mkdir(parents=True, exist_ok=True)
            state = {name: values.contiguous() for name, values in self.network.state_dict().items()}
            write_atomically(weights, save(state))
        self.network.load_state_dict(load_file(weights))

    @torch.inference_mode()
    def find(self, images: Sequence[Image.Image]) -> Detections:
        """Find the cell in each RGB picture, of any size."""
        self.network.to(self.device).eval()
        boxes, groups = [], []
        for start in range(0, len(images), _BATCH_SIZE):
            pixels = np.stack([self._resized(image) for image in images[start : start + _BATCH_SIZE]])
            batch = self._normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device))
            features, (objectness, offsets) = self.network.propose(batch)
            proposed = _best(objectness, offsets, self.network.anchors)
            logits, last_offsets = self.network.classify(features, proposed)
            shares = logits.softmax(2)
            place = torch.arange(len(shares), device=self.device), shares[:, :, 1:].sum(2).argmax(1)
            boxes.append(_corners(_apply(last_offsets[place], proposed[place])).clamp(0, 1).cpu().numpy())
            found = shares[:, :, 1:][place]
            groups.append((found / found.sum(1, keepdim=True)).cpu().numpy())
        return Detections(np.concatenate(boxes), np.concatenate(groups))

    def _resized(self, image: Image.Image) -> np.ndarray:
        side = self.recipe.image_size
        return np.array(image.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0))

    def _train(self, rows: Dataset, groups: np.ndarray) -> None:
        found = [
            (self._resized(image), box, group)
            for image, group in zip(pictures(rows), groups, strict=True)
            if (box := _segmented_box(image)) is not None
        ]
        if not found:
            raise WbcError("cheuque-2022: no training picture shows a stained nucleus, so none has a box.")
        images, segmented, kept_groups = zip(*found, strict=True)
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
        truths = torch.tensor(np.stack(segmented), dtype=torch.float32)
        labels = torch.tensor(kept_groups)
        del found, images

        recipe, network = self.recipe, self.network.to(self.device).train()
        generator = torch.Generator().manual_seed(self.seed)
        per_epoch = math.ceil(len(labels) / recipe.batch_size)
        steps = round(recipe.epochs * per_epoch)
        optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
        scheduler = get_cosine_schedule_with_warmup(optimizer, round(_WARM_UP * steps), steps)
        with tqdm(total=steps, desc="Detector", unit="step", delay=2, leave=False) as bar:
            for batch in islice(_batches(len(labels), recipe.batch_size, generator), steps):
                views, boxes = _vary(pixels[batch].float() / 255, truths[batch], generator)
                # A view may have left its cell behind.
                seen = boxes[:, 2:].amin(1) > _SMALLEST_SIDE
                views, boxes, batch = views[seen], boxes[seen], batch[seen]
                if not len(batch):
                    continue
                views = self._normalise(views.to(self.device)).contiguous(memory_format=self._memory_format)
                loss = self._loss(views, boxes.to(self.device), labels[batch].to(self.device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
                bar.update()

    def _loss(self, views: torch.Tensor, truths: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum the four losses of Ren et al.: classification and box regression of the anchors and of the proposals."""
        features, (objectness, offsets) = self.network.propose(views)
        anchors = self.network.anchors.expand(len(views), -1, -1)
        overlap = _overlap(anchors, truths)
        # Where no anchor fits well, the best one counts.
        is_cell = (overlap >= _POSITIVE) | (overlap == overlap.amax(1, keepdim=True))
        losses = F.binary_cross_entropy_with_logits(objectness, is_cell.float(), reduction="none")
        is_none = (overlap < _NEGATIVE) & ~is_cell
        # Hard negatives: the anchors without a cell that look most like one.
        count = min(_NEGATIVES * int(is_cell.sum()), int(is_none.sum()))
        hardest = losses[is_none].topk(count).values
        loss = (losses[is_cell].sum() + hardest.sum()) / (is_cell.sum() + count)
        loss = loss + _box_loss(offsets[is_cell], anchors[is_cell], truths[:, None].expand_as(anchors)[is_cell])

        proposed = _best(objectness.detach(), offsets.detach(), self.network.anchors)
        proposed = torch.cat([proposed, truths[:, None]], 1)
        logits, last_offsets = self.network.classify(features, proposed)
        overlap = _overlap(proposed, truths)
        is_cell = overlap >= _POSITIVE
        targets = torch.where(is_cell, labels[:, None] + 1, 0)
        loss = loss + F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return loss + _box_loss(last_offsets[is_cell], proposed[is_cell], truths[:, None].expand_as(proposed)[is_cell])


class _RegionNetwork(nn.Module):
    """Trunk, region proposals and head. Boxes are (centre x, centre y, width, height) in sides of the picture."""

    def __init__(self, groups: int):
        super().__init__()
        first, second, third = _CHANNELS
        self.trunk = nn.Sequential(
            convolution(3, first, stride=2),
            convolution(first, second, stride=2),
            convolution(second, third, stride=2),
            Residual(third, third),
            Residual(third, third),
        )
        self.proposing = convolution(third, third)
        self.objectness = nn.Conv2d(third, len(_SIZES), 1)
        self.offsets = nn.Conv2d(third, 4 * len(_SIZES), 1)
        self.head = nn.Sequential(
            convolution(third, 2 * third, stride=2),
            convolution(2 * third, 2 * third),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(2 * third, groups + 1)
        self.last_offsets = nn.Linear(2 * third, 4)
        for layer in (self.offsets, self.last_offsets):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        self.anchors = torch.empty(0)

    def propose(self, images: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Compute the feature map, and objectness (n, anchors) and offsets (n, anchors, 4) of the anchors."""
        features = self.trunk(images)
        self.anchors = _anchors(features)
        hidden = self.proposing(features)
        offsets = self.offsets(hidden).unflatten(1, (len(_SIZES), 4)).movedim(2, 4).flatten(1, 3)
        return features, (self.objectness(hidden).flatten(1), offsets)

    def classify(self, features: torch.Tensor, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute logits (n, k, 1 + groups), background first, and offsets (n, k, 4) of regions (n, k, 4)."""
        n, k = boxes.shape[:2]
        zero = torch.zeros_like(boxes[..., 0])
        across = torch.stack([boxes[..., 2], zero, 2 * boxes[..., 0] - 1], 2)
        down = torch.stack([zero, boxes[..., 3], 2 * boxes[..., 1] - 1], 2)
        theta = torch.stack([across, down], 2).flatten(0, 1)
        grid = F.affine_grid(theta, [n * k, 1, _POOLED, _POOLED], align_corners=False)
        # The regions of a picture side by side, so that its map is not copied for each.
        grid = grid.unflatten(0, (n, k)).flatten(1, 2)
        cut = F.grid_sample(features, grid, padding_mode="border", align_corners=False)
        cut = cut.unflatten(2, (k, _POOLED)).movedim(2, 1).flatten(0, 1)
        hidden = self.head(cut).unflatten(0, (n, k))
        return self.classifier(hidden), self.last_offsets(hidden)


def _anchors(features: torch.Tensor) -> torch.Tensor:
    """Anchor boxes, (1, sizes * height * width, 4)."""
    height, width = features.shape[2:]
    size, y, x = torch.meshgrid(
        torch.tensor(_SIZES, device=features.device),
        (torch.arange(height, device=features.device) + 0.5) / height,
        (torch.arange(width, device=features.device) + 0.5) / width,
        indexing="ij",
    )
    return torch.stack([x, y, size, size], 3).flatten(0, 2)[None]


def _best(objectness: torch.Tensor, offsets: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """The most likely regions, (n, proposals, 4)."""
    best = objectness.topk(_PROPOSALS, 1).indices[:, :, None].expand(-1, -1, 4)
    return _apply(offsets, anchors.expand(len(offsets), -1, -1)).gather(1, best)


def _apply(offsets: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Offsets are those of Ren et al.: of the centre in sides of the box, of the sides in logarithms."""
    centres, sides = boxes[..., :2], boxes[..., 2:]
    factors = offsets[..., 2:].clamp(-_LARGEST_OFFSET, _LARGEST_OFFSET).exp()
    return torch.cat([centres + offsets[..., :2] * sides, sides * factors], -1)


def _box_loss(offsets: torch.Tensor, boxes: torch.Tensor, truths: torch.Tensor) -> torch.Tensor:
    """Smooth L1 loss of offsets against those that move the boxes onto the truth. All (n, 4), n >= 1."""
    wanted = torch.cat([(truths[:, :2] - boxes[:, :2]) / boxes[:, 2:], torch.log(truths[:, 2:] / boxes[:, 2:])], 1)
    return F.smooth_l1_loss(offsets, wanted, beta=0.1)


def _corners(boxes: torch.Tensor) -> torch.Tensor:
    """Left, top, right, bottom of boxes (..., 4)."""
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def _overlap(boxes: torch.Tensor, truths: torch.Tensor) -> torch.Tensor:
    """Intersection over union of (n, k, 4) with the one truth of each picture, (n, 4): (n, k)."""
    ours, theirs = _corners(boxes), _corners(truths)[:, None]
    sides = torch.minimum(ours[..., 2:], theirs[..., 2:]) - torch.maximum(ours[..., :2], theirs[..., :2])
    area = sides.clamp_min(0).prod(-1)
    return area / (boxes[..., 2:].prod(-1) + truths[:, None, 2:].prod(-1) - area)


def _segmented_box(image: Image.Image) -> np.ndarray | None:
    """Segment the cell in the middle: its box in sides of the picture; None where there is none."""
    mask = Image.fromarray(segment_cell(image).cell)
    corners = mask.getbbox()
    if corners is None:
        return None
    left, top, right, bottom = np.array(corners) / (mask.size * 2)
    return np.array([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])


def _batches(count: int, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Batches of picture numbers without end, shuffled in each epoch."""
    while True:
        yield from torch.randperm(count, generator=generator).split(size)


def _vary(images: torch.Tensor, boxes: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment by quarter turns, reflection, zoom, shift and light; move the boxes alike, and clip them to the view."""
    n = len(images)
    uniform = 2 * torch.rand((n, 6), generator=generator) - 1
    view = torch.exp2(_ZOOM * uniform[:, 0])
    shift = 2 * _SHIFT * uniform[:, 1:3]
    quarter = torch.randint(4, (n,), generator=generator) * (math.pi / 2)
    cos, sin = torch.cos(quarter).round(), torch.sin(quarter).round()
    mirror = torch.randint(2, (n,), generator=generator) * 2.0 - 1
    turn = torch.stack([torch.stack([mirror * cos, -sin], 1), torch.stack([mirror * sin, cos], 1)], 1)
    views = frame(images, images.shape[-1], shift, view, turn)
    views = (views * (1 + 0.15 * uniform[:, 3:6, None, None])).clamp(0, 1)
    # `frame` maps positions in the view to positions in the picture; boxes need the inverse.
    centre = (2 * boxes[:, :2] - 1 - shift)[:, None] @ turn / view[:, None, None]
    sides = (boxes[:, None, 2:] @ turn.abs() / view[:, None, None])[:, 0]
    edges = _corners(torch.cat([(centre[:, 0] + 1) / 2, sides], 1)).clamp(0, 1)
    return views, torch.cat([(edges[:, :2] + edges[:, 2:]) / 2, edges[:, 2:] - edges[:, :2]], 1)
