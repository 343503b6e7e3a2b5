"""Evaluation of a cell detector: recall of boxed cells, and false boxes a photograph."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wbc_hf.data import Box
from wbc_hf.evaluation.confidence_intervals import (
    Interval,
    draw_groups,
    exact_rate_limits,
    mean_interval,
    share_interval,
)


@dataclass(frozen=True)
class DetectionFigures:
    """Figures of a detector.

    Attributes:
        photographs: Number of photographs.
        cells: Number of true boxes in them.
        found: Share of true boxes that were found (recall), 0 to 1.
        false: False boxes a photograph.
        found_interval, false_interval: Their 95 % confidence intervals.
    """

    photographs: int
    cells: int
    found: float
    found_interval: Interval
    false: float
    false_interval: Interval


def match_boxes(truth: Sequence[Box], found: Sequence[Box]) -> list[tuple[int, int]]:
    """Match found boxes to true ones in which their middle lies, the nearest first, each box once.

    Returns:
        Pairs of an index into `truth` and one into `found`.
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


def detection_figures(truth: Sequence[Sequence[Box]], found: Sequence[Sequence[Box]]) -> DetectionFigures:
    """Compute recall and false boxes a photograph, with 95 % confidence intervals by bootstrap over photographs.

    Where all resamples are alike, as where no cell was missed, the limits are exact ones.

    Args:
        truth: The true boxes of each photograph; one at least in all.
        found: The found boxes of each photograph.
    """
    pairs = [match_boxes(*boxes) for boxes in zip(truth, found, strict=True)]
    photographs = np.repeat(np.arange(len(truth)), [len(boxes) for boxes in truth])
    hits = np.concatenate([np.isin(np.arange(len(t)), [i for i, _ in p]) for t, p in zip(truth, pairs, strict=True)])
    false = np.array([len(boxes) - len(matched) for boxes, matched in zip(found, pairs, strict=True)])
    false_interval = mean_interval(false.astype(float), draw_groups(range(len(truth))))
    if len(truth) > 1 and (false == false[0]).all():
        false_interval = list(exact_rate_limits(int(false.sum()), len(truth)))
    return DetectionFigures(
        photographs=len(truth),
        cells=len(hits),
        found=float(hits.mean()),
        found_interval=share_interval(hits, photographs.tolist(), draw_groups(photographs.tolist())),
        false=float(false.mean()),
        false_interval=false_interval,
    )
