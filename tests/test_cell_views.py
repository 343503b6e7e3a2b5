"""Cells of a field, each in the framing that a model knows best."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from wbc_hf.data import crop_cell, paint_field
from wbc_hf.inference import Predictor
from wbc_hf.modeling import Calibration, OutOfDistributionScore, build_from_scratch
from wbc_hf.smear import find_cells, predict_cells

SPANS = (1.3, 2.0)


@pytest.fixture(scope="module")
def field() -> Image.Image:
    return Image.fromarray(paint_field([0, 1, 2, 4], width=480, height=360, seed=5).image)


@pytest.fixture(scope="module")
def boxes(field: Image.Image) -> list:
    return [cell.box for cell in find_cells(field)]


def predictor_of(field: Image.Image, boxes: list, span: float, spans: tuple[float, ...]) -> Predictor:
    """A predictor whose training images were these cells at one span, and that knows of several."""
    network, processor = build_from_scratch(0.0625, image_size=32)
    bare = Predictor(network, processor, "tiny")
    features = bare.logits_and_features([crop_cell(field, box, span) for box in boxes])[1]
    score = OutOfDistributionScore.fit(np.repeat(features, 5, axis=0))  # as many as neighbours count
    return Predictor(network, processor, "tiny", Calibration(1, 0, True, 1, 4, "a", score, spans=spans))


@pytest.mark.parametrize("learned", SPANS)
def test_the_view_is_shown_that_is_most_like_the_training_images(field: Image.Image, boxes: list, learned: float):
    predictor = predictor_of(field, boxes, learned, SPANS)
    views = predict_cells(predictor, field, boxes)
    expected = [crop_cell(field, box, learned) for box in boxes]
    assert [view.image.size for view in views] == [image.size for image in expected]
    distances = [prediction.distance for prediction in predictor.predict(expected)]
    assert [view.prediction.distance for view in views] == distances


def test_the_prediction_is_the_geometric_mean_of_all_views(field: Image.Image, boxes: list):
    predictor = predictor_of(field, boxes, 1.3, SPANS)
    each = [predictor.probabilities([crop_cell(field, box, span) for box in boxes]) for span in SPANS]
    expected = np.sqrt(each[0] * each[1])
    expected /= expected.sum(1, keepdims=True)
    for view, row in zip(predict_cells(predictor, field, boxes), expected, strict=True):
        assert view.prediction.label == predictor.labels[row.argmax()]
        assert view.prediction.probability == pytest.approx(row.max(), rel=1e-4)
        assert sum(value for _, value in view.prediction.alternatives) == pytest.approx(1 - row.max(), rel=1e-3)
        assert view.prediction.status == "confident"


def test_a_view_below_the_threshold_waits_for_review(field: Image.Image, boxes: list):
    predictor = predictor_of(field, boxes, 1.3, SPANS)
    predictor.calibration = replace(predictor.calibration, review_threshold=1.0)
    assert {view.prediction.status for view in predict_cells(predictor, field, boxes)} == {"review"}


def test_a_model_that_names_no_framing_sees_each_cell_once(field: Image.Image, boxes: list):
    predictor = predictor_of(field, boxes, 1.5, ())
    views = predict_cells(predictor, field, boxes)
    assert all(np.array_equal(view.image, crop_cell(field, box)) for view, box in zip(views, boxes, strict=True))
    uncalibrated = Predictor(predictor.model, predictor.processor, "tiny")
    labels = [view.prediction.label for view in predict_cells(uncalibrated, field, boxes)]
    assert labels == [view.prediction.label for view in views]


def test_no_cells(field: Image.Image, boxes: list):
    assert predict_cells(predictor_of(field, boxes, 1.5, SPANS), field, []) == []
