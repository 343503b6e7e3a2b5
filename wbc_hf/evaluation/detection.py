"""How many of the boxed cells were found, and how much else."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wbc_hf.data import Box
from wbc_hf.evaluation.confidence_intervals import Interval, draw_groups, mean_interval


@dataclass(frozen=True)
class DetectionFigures:
    """What a detector did on photographs.

    Attributes:
        photographs: How many.
        cells: How many boxes people drew in them.
        found: Share of those that were found, 0 to 1.
        found_interval: Its 95 % limits.
        false: Found boxes a photograph that belong to no drawn one.
        false_interval: Its 95 % limits.
    """

    photographs: int
    cells: int
    found: float
    found_interval: Interval
    false: float
    false_interval: Interval


def match_boxes(truth: Sequence[Box], found: Sequence[Box]) -> list[tuple[int, int]]:
    """Pairs of indices: a true box and a found one whose middle lies in it, the nearest middles first.

    Each box counts once.
    """
    apart = []
    for i, (x0, y0, x1, y1) in enumerate(truth):
        for j, box in enumerate(found):
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            if x0 <= x <= x1 and y0 <= y <= y1:
                apart.append((abs(x - (x0 + x1) / 2) + abs(y - (y0 + y1) / 2), i, j))
    pairs: dict[int, int] = {}
    for _, i, j in sorted(apart):
        if i not in pairs and j not in pairs.values():
            pairs[i] = j
    return sorted(pairs.items())


def detection_figures(
    truth: Sequence[Sequence[Box]], found: Sequence[Sequence[Box]], *, seed: int = 0
) -> DetectionFigures:
    """Figures with intervals by bootstrap over photographs.

    Args:
        truth: The boxes of each photograph that people drew; one at least in all.
        found: The boxes of each photograph that were found.
        seed: Of the resampling.
    """
    pairs = [match_boxes(*boxes) for boxes in zip(truth, found, strict=True)]
    photographs = np.repeat(np.arange(len(truth)), [len(boxes) for boxes in truth])
    hits = np.concatenate([np.isin(np.arange(len(t)), [i for i, _ in p]) for t, p in zip(truth, pairs, strict=True)])
    false = np.array([len(boxes) - len(matched) for boxes, matched in zip(found, pairs, strict=True)])
    return DetectionFigures(
        photographs=len(truth),
        cells=len(hits),
        found=float(hits.mean()),
        found_interval=mean_interval(hits.astype(float), draw_groups(photographs.tolist(), seed=seed)),
        false=float(false.mean()),
        false_interval=mean_interval(false.astype(float), draw_groups(range(len(truth)), seed=seed)),
    )
