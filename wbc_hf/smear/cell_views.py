"""Classify the cells of a specimen: in every framing that the model has learned, and in doubt turned and mirrored."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from PIL import Image

from wbc_hf.data import Box, Framing, crop_cell, cut_framing, framings_within, orientations
from wbc_hf.inference import Prediction, Predictor

# A cell on a slide has no upper end. With a laboratory that the model has not seen, all eight orientations together
# (test-time augmentation) are right more often than one: see docs/unseen-laboratory.md. Four of them say nearly the
# same, so that the other four are asked only where the mean lies within this of the threshold.
_DOUBTFUL = ("review", "unfamiliar")
_TURNED, _MIRRORED = slice(1, 4), slice(4, 8)
_NEAR = 0.03


@dataclass(frozen=True)
class CellView:
    """One cell of a field, as it was classified.

    Attributes:
        image: RGB, square: in its widest framing.
        prediction: For the cell in all framings.
        framings: Parts of the image; first the one in which it looks most like the training images.
    """

    image: Image.Image
    prediction: Prediction
    framings: tuple[Framing, ...]


def predict_cells(
    predictor: Predictor, field: Image.Image, boxes: Sequence[Box], *, look_again: bool = True
) -> list[CellView]:
    """Classify cells of a field, each by the mean over the framings that the model has learned.

    Laboratories frame single cells differently, and a model that has learned several of them knows each class in
    several framings.

    Args:
        predictor: Classifier of single cells.
        field: RGB.
        boxes: Of the cells, in pixels of the field.
        look_again: As for `predict_crops`.
    """
    widest = [crop_cell(field, box, max(predictor.spans)) for box in boxes]
    framings = [framings_within(field, box, predictor.spans) for box in boxes]
    answers = predict_crops(
        predictor,
        [[cut_framing(crop, each) for each in of_cell] for crop, of_cell in zip(widest, framings, strict=True)],
        look_again=look_again,
    )
    return [
        CellView(crop, prediction, (of_cell[nearest], *of_cell[:nearest], *of_cell[nearest + 1 :]))
        for crop, of_cell, (prediction, nearest) in zip(widest, framings, answers, strict=True)
    ]


def predict_crops(
    predictor: Predictor, cells: Sequence[Sequence[Image.Image]], *, look_again: bool = True
) -> list[tuple[Prediction, int]]:
    """Classify cells, each by the mean over its crops; in doubt, by the mean over these and their quarter turns.

    Where that mean is near the threshold, the mirror images are asked as well. Where the first look is sure enough it
    stands, so that this takes no longer for cells like those of the training. How unfamiliar a cell is the first look
    alone says, as for the images that the thresholds were fitted on.

    Args:
        predictor: Classifier of single cells.
        cells: Crops of each, one at least, RGB.
        look_again: Whether to turn the crops in doubt; not where only the framings matter.

    Returns:
        For each cell its prediction, and the index of the crop that looks most like the training images.
    """
    predictions = iter(predictor.predict([crop for crops in cells for crop in crops]))
    looks = [[next(predictions) for _ in crops] for crops in cells]
    turned: list[list[np.ndarray]] = [[] for _ in cells]
    answers = [_mean(predictor, look) for look in looks]
    again = list(range(len(cells))) if look_again else []
    for views, in_doubt in ((_TURNED, _is_doubtful), (_MIRRORED, _is_near_threshold)):
        again = [index for index in again if in_doubt(predictor, answers[index])]
        crops = [[view for crop in cells[index] for view in orientations(crop)[views]] for index in again]
        # Of these the probabilities alone count: what else a prediction says takes as long again.
        rows = iter(predictor.probabilities([view for of_cell in crops for view in of_cell]))
        for index, of_cell in zip(again, crops, strict=True):
            turned[index] += islice(rows, len(of_cell))
            answers[index] = _mean(predictor, looks[index], turned[index])
    return [(answer, look.index(_nearest(look))) for answer, look in zip(answers, looks, strict=True)]


def _is_doubtful(predictor: Predictor, prediction: Prediction) -> bool:
    below = None if predictor.calibration is None else predictor.calibration.tta_below
    if prediction.status == "confident":
        return below is not None and prediction.probability < below
    return prediction.status in _DOUBTFUL


def _is_near_threshold(predictor: Predictor, prediction: Prediction) -> bool:
    """Whether a slightly higher or lower probability would have another status."""
    assert predictor.calibration is not None, "Without one nothing is in doubt."
    either = np.array([prediction.probability - _NEAR, prediction.probability + _NEAR])
    distances, is_cell = np.full(2, prediction.distance, float), [prediction.status != "not_a_cell"] * 2
    lower, higher = predictor.calibration.statuses(either, distances, is_cell, tta=True)
    return lower != higher


def _nearest(look: Sequence[Prediction]) -> Prediction:
    """The prediction with the smallest distance to the training images; the first where no distance is known."""
    return min(look, key=lambda one: one.distance or 0.0)


def _mean(predictor: Predictor, look: Sequence[Prediction], turned: Sequence[np.ndarray] = ()) -> Prediction:
    """Normalised geometric mean of what a first look and turned crops say; status and distances are of the look.

    Args:
        predictor: It made them.
        look: One prediction at least.
        turned: Probabilities of each turned crop, (classes,); there may be none.
    """
    if len(look) == 1 and not turned:
        return look[0]
    each = [dict([(one.label, one.probability), *one.alternatives]) for one in look]
    rows = [np.array([of_look[label] for label in predictor.labels]) for of_look in each]
    scores = np.exp(np.log(np.maximum([*rows, *turned], 1e-12)).mean(0))
    ranked = sorted(zip(predictor.labels, (scores / scores.sum()).tolist(), strict=True), key=lambda item: -item[1])
    (label, score), *others = ranked
    nearest = _nearest(look)
    status = nearest.status
    if predictor.calibration is not None and nearest.distance is not None:
        may_be_cell = any(one.status != "not_a_cell" for one in look)
        (status,) = predictor.calibration.statuses(
            np.array([score]), np.array([nearest.distance]), [may_be_cell], tta=bool(turned)
        )
    known = [one.laboratory_distance for one in look if one.laboratory_distance is not None]
    return Prediction(label, score, tuple(others), status, nearest.distance, min(known, default=None))
