"""Classify the cells of a specimen: in every framing that the model has learned, and in doubt turned and mirrored."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from wbc_hf.data import Box, Framing, crop_cell, cut_framing, framings_within, orientations
from wbc_hf.inference import Prediction, Predictor

# A cell on a slide has no upper end. With a laboratory that the model has not seen, all eight orientations together
# (test-time augmentation) are right more often than one: see docs/unseen-laboratory.md.
_DOUBTFUL = ("review", "unfamiliar")


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
    """Classify cells, each by the mean over its crops; in doubt, by the mean over all eight orientations of these.

    Where the first look is sure enough it stands, so that this takes no longer for cells like those of the training.
    How unfamiliar a cell is the first look alone says, as for the images that the thresholds were fitted on.

    Args:
        predictor: Classifier of single cells.
        cells: Crops of each, one at least, RGB.
        look_again: Whether to turn the crops in doubt; not where only the framings matter.

    Returns:
        For each cell its prediction, and the index of the crop that looks most like the training images.
    """
    looks = _predict_each(predictor, cells)
    doubtful = [look_again and _is_doubtful(predictor, _mean(predictor, look, look)) for look in looks]
    turned = [
        [turned for crop in crops for turned in orientations(crop)[1:]] if doubt else []
        for crops, doubt in zip(cells, doubtful, strict=True)
    ]
    return [
        (_mean(predictor, [*look, *others], look), look.index(_nearest(look)))
        for look, others in zip(looks, _predict_each(predictor, turned), strict=True)
    ]


def _is_doubtful(predictor: Predictor, prediction: Prediction) -> bool:
    below = None if predictor.calibration is None else predictor.calibration.tta_below
    if prediction.status == "confident":
        return below is not None and prediction.probability < below
    return prediction.status in _DOUBTFUL


def _nearest(look: Sequence[Prediction]) -> Prediction:
    """The prediction with the smallest distance to the training images; the first where no distance is known."""
    return min(look, key=lambda one: one.distance or 0.0)


def _predict_each(predictor: Predictor, cells: Sequence[Sequence[Image.Image]]) -> list[list[Prediction]]:
    predictions = iter(predictor.predict([crop for crops in cells for crop in crops]))
    return [[next(predictions) for _ in crops] for crops in cells]


def _mean(predictor: Predictor, views: Sequence[Prediction], first: Sequence[Prediction]) -> Prediction:
    """Normalised geometric mean of the predictions for one cell; its status and distances are those of `first`."""
    if len(views) == 1:
        return views[0]
    each = [dict([(one.label, one.probability), *one.alternatives]) for one in views]
    scores = {
        label: float(np.exp(np.mean([np.log(max(of_view[label], 1e-12)) for of_view in each]))) for label in each[0]
    }
    (label, score), *others = sorted(scores.items(), key=lambda item: -item[1])
    total = sum(scores.values())
    nearest = _nearest(first)
    status = nearest.status
    if predictor.calibration is not None and nearest.distance is not None:
        may_be_cell = any(one.status != "not_a_cell" for one in first)
        (status,) = predictor.calibration.statuses(
            np.array([score / total]), np.array([nearest.distance]), [may_be_cell], tta=len(views) > len(first)
        )
    alternatives = tuple((other, value / total) for other, value in others)
    known = [one.laboratory_distance for one in first if one.laboratory_distance is not None]
    return Prediction(label, score / total, alternatives, status, nearest.distance, min(known, default=None))
