"""Cells of a field, each in the framings that a model knows."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from wbc_hf.data import crop_cell, cut_framing, framings_within, paint_field
from wbc_hf.inference import Predictor
from wbc_hf.modeling import Calibration, OutOfDistributionScore, build_from_scratch
from wbc_hf.smear import CellCounter, Specimen, find_cells, predict_cells

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
    return Predictor(
        network, processor, "tiny", Calibration(1, 0, True, 1, 4, "a", out_of_distribution_score=score, spans=spans)
    )


@pytest.mark.parametrize("learned", SPANS)
def test_the_first_framing_is_the_one_most_like_the_training_images(field: Image.Image, boxes: list, learned: float):
    predictor = predictor_of(field, boxes, learned, SPANS)
    views = predict_cells(predictor, field, boxes)
    expected = [crop_cell(field, box, learned) for box in boxes]
    for view, image, box in zip(views, expected, boxes, strict=True):
        assert np.array_equal(view.image, crop_cell(field, box, max(SPANS)))
        assert np.array_equal(cut_framing(view.image, view.framings[0]), image)
        assert len(view.framings) == 2
    distances = [prediction.distance for prediction in predictor.predict(expected)]
    assert [view.prediction.distance for view in views] == distances


@pytest.mark.parametrize("box", [(0, 0, 40, 50), (440, 300, 480, 360), (200, 0, 290, 80), (1, 170, 60, 250)])
def test_a_framing_cuts_out_what_a_crop_of_the_field_shows(field: Image.Image, box: tuple[int, int, int, int]):
    """Also where the crop is moved inwards at the border of the field."""
    spans = (1.2, 1.5, 2.4)
    widest = crop_cell(field, box, max(spans))
    for span, framing in zip(spans, framings_within(field, box, spans), strict=True):
        assert np.array_equal(cut_framing(widest, framing), crop_cell(field, box, span))


def test_every_framing_lies_within_the_widest_also_in_a_field_that_is_smaller(field: Image.Image):
    small = field.crop((0, 0, 480, 100))
    for framing in framings_within(small, (300, 30, 380, 100), (1.2, 3.0)):
        assert all(0 <= edge <= 1 for edge in framing)


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


def mean_over(predictor: Predictor, crops: list[np.ndarray], mirrored: tuple[bool, ...]) -> np.ndarray:
    """Normalised geometric mean of the probabilities of crops in all quarter turns, as they are and mirrored."""
    turned = [np.rot90(crop[:, ::-1] if flip else crop, n) for crop in crops for flip in mirrored for n in range(4)]
    rows = np.log(predictor.probabilities([Image.fromarray(np.ascontiguousarray(one)) for one in turned]))
    return np.exp(rows.mean(0)) / np.exp(rows.mean(0)).sum()


def test_in_doubt_the_prediction_is_the_mean_over_orientations(field: Image.Image, boxes: list):
    predictor = predictor_of(field, boxes, 1.3, SPANS)
    crops = [np.asarray(crop_cell(field, boxes[0], span)) for span in SPANS]
    quarters = mean_over(predictor, crops, (False,))
    plain = replace(predictor.calibration, review_threshold=1.0)
    # Far from the threshold the quarter turns are enough, near it the mirror images are asked too.
    for threshold, mirrored in (
        (quarters.max() - 0.1, (False,)),
        (quarters.max() + 0.01, (False, True)),
        (quarters.max() - 0.01, (False, True)),
    ):
        predictor.calibration = replace(plain, tta_threshold=float(threshold))
        expected = mean_over(predictor, crops, mirrored)
        prediction = predict_cells(predictor, field, boxes[:1])[0].prediction
        assert prediction.label == predictor.labels[expected.argmax()]
        assert prediction.probability == pytest.approx(expected.max(), rel=1e-4)
    first = predictor.predict([crop_cell(field, boxes[0], span) for span in SPANS])
    assert prediction.distance == min(one.distance for one in first)


def test_what_all_orientations_say_has_a_threshold_of_its_own(field: Image.Image, boxes: list):
    predictor = predictor_of(field, boxes, 1.3, SPANS)
    plain = replace(predictor.calibration, review_threshold=1.0)
    for threshold, status in ((0.0, "confident"), (1.0, "review")):
        predictor.calibration = replace(plain, tta_threshold=threshold)
        assert {view.prediction.status for view in predict_cells(predictor, field, boxes)} == {status}
    # A first look that is confident is not sure enough where this says so.
    predictor.calibration = replace(plain, review_threshold=0.0, tta_below=1.0, tta_threshold=1.0)
    assert {view.prediction.status for view in predict_cells(predictor, field, boxes)} == {"review"}
    predictor.calibration = replace(plain, tta_threshold=0.0)
    # They were not turned: the first look alone says.
    looks = predict_cells(predictor, field, boxes, look_again=False)
    assert {view.prediction.status for view in looks} == {"review"}


def test_cells_are_predicted_again_as_they_were_at_first(field: Image.Image, boxes: list):
    predictor = predictor_of(field, boxes, 1.3, SPANS)
    counter = CellCounter(predictor, Specimen())
    counter.add_image(field, "field.png", whole_field=True)
    before = [cell.prediction for cell in counter.specimen.cells]
    counter.use(predictor)
    after = [cell.prediction for cell in counter.specimen.cells]
    assert [one.label for one in after] == [one.label for one in before]
    assert [one.probability for one in after] == pytest.approx([one.probability for one in before], rel=1e-4)
    assert [one.distance for one in after] == pytest.approx([one.distance for one in before], rel=1e-3, abs=1e-5)


def test_a_model_that_names_no_framing_sees_each_cell_once(field: Image.Image, boxes: list):
    predictor = predictor_of(field, boxes, 1.5, ())
    views = predict_cells(predictor, field, boxes)
    assert all(np.array_equal(view.image, crop_cell(field, box)) for view, box in zip(views, boxes, strict=True))
    uncalibrated = Predictor(predictor.model, predictor.processor, "tiny")
    labels = [view.prediction.label for view in predict_cells(uncalibrated, field, boxes)]
    assert labels == [view.prediction.label for view in views]


def test_no_cells(field: Image.Image, boxes: list):
    assert predict_cells(predictor_of(field, boxes, 1.5, SPANS), field, []) == []
