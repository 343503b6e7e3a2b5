"""Classify the cells of a field: each is cut out in every framing that the model has learned."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from wbc_hf.data import Box, crop_cell
from wbc_hf.inference import Prediction, Predictor


@dataclass(frozen=True)
class CellView:
    """One cell of a field, as it was classified.

    Attributes:
        image: RGB, square: in the framing in which it looks most like the training images.
        prediction: For the cell in all framings.
    """

    image: Image.Image
    prediction: Prediction


def predict_cells(predictor: Predictor, field: Image.Image, boxes: Sequence[Box]) -> list[CellView]:
    """Classify cells of a field, each by the mean over the framings that the model has learned.

    Laboratories frame single cells differently, and a model that has learned several of them knows each class in
    several framings.

    Args:
        predictor: Classifier of single cells.
        field: RGB.
        boxes: Of the cells, in pixels of the field.
    """
    crops = [[crop_cell(field, box, span) for span in predictor.spans] for box in boxes]
    predictions = iter(predictor.predict([crop for of_cell in crops for crop in of_cell]))
    views = [[CellView(crop, next(predictions)) for crop in of_cell] for of_cell in crops]
    return [CellView(_nearest(of_cell).image, _mean(predictor, of_cell)) for of_cell in views]


def _nearest(views: Sequence[CellView]) -> CellView:
    """The view with the smallest distance to the training images; the first where no distance is known."""
    return min(views, key=lambda view: view.prediction.distance or 0.0)


def _mean(predictor: Predictor, views: Sequence[CellView]) -> Prediction:
    """Normalised geometric mean of the predictions for one cell, and its status at the smallest of their distances."""
    if len(views) == 1:
        return views[0].prediction
    each = [dict([(one.label, one.probability), *one.alternatives]) for one in (view.prediction for view in views)]
    scores = {
        label: float(np.exp(np.mean([np.log(max(of_view[label], 1e-12)) for of_view in each]))) for label in each[0]
    }
    (label, score), *others = sorted(scores.items(), key=lambda item: -item[1])
    total = sum(scores.values())
    nearest = _nearest(views).prediction
    status = nearest.status
    if predictor.calibration is not None and nearest.distance is not None:
        may_be_cell = any(view.prediction.status != "not_a_cell" for view in views)
        (status,) = predictor.calibration.statuses(
            np.array([score / total]), np.array([nearest.distance]), [may_be_cell]
        )
    alternatives = tuple((other, value / total) for other, value in others)
    of_laboratory = [view.prediction.laboratory_distance for view in views]
    known = [distance for distance in of_laboratory if distance is not None]
    return Prediction(label, score / total, alternatives, status, nearest.distance, min(known, default=None))
