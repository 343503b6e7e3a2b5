"""Calibration: temperature, review threshold, statuses, and what is saved of them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import log_loss

from wbc_hf.errors import WbcError
from wbc_hf.modeling import (
    OUT_OF_DISTRIBUTION_SHARE,
    Calibration,
    build_from_scratch,
    fit_temperature,
    fold_temperature,
    undo_temperature,
)
from wbc_hf.modeling.calibration import REVIEW_SHARE, calibrated_threshold, review_threshold
from wbc_hf.training.calibrate import FAMILIAR_LOST, OTHERS_FOUND, keep_out_others

CLASSES, WIDTH = 5, 40


@pytest.fixture
def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def clusters(generator: np.random.Generator, count: int, spread: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Features of `count` images of a class each around its own corner, and their labels."""
    labels = np.tile(np.arange(CLASSES), count)
    centres = np.eye(CLASSES, WIDTH)
    return (centres[labels] + spread * generator.normal(size=(len(labels), WIDTH))).astype(np.float32), labels


def fitted(generator: np.random.Generator, count: int = 40) -> Calibration:
    training, _ = clusters(generator, 40)
    features, labels = clusters(generator, count)
    probabilities = softmax(8 * features[:, :CLASSES] + generator.normal(size=(len(labels), CLASSES)), axis=1)
    return Calibration.fit(
        temperature=1.5,
        probabilities=probabilities,
        labels=labels,
        features=features,
        training_features=training,
        trained_on="cells",
    )


@pytest.mark.parametrize("true_temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(generator: np.random.Generator, true_temperature: float):
    honest = 2 * generator.normal(size=(20_000, CLASSES))
    labels = (softmax(honest, axis=1).cumsum(axis=1) > generator.random((len(honest), 1))).argmax(axis=1)
    assert fit_temperature(honest * true_temperature, labels) == pytest.approx(true_temperature, rel=0.05)


def test_no_other_temperature_has_a_lower_loss(generator: np.random.Generator):
    labels = generator.integers(CLASSES, size=500)
    logits = 3 * generator.normal(size=(500, CLASSES)) + 2 * np.eye(CLASSES)[labels]
    best = fit_temperature(logits, labels)
    losses = [
        log_loss(labels, softmax(logits / t, axis=1), labels=range(CLASSES)) for t in (best, best * 0.9, best * 1.1)
    ]
    assert losses[0] == min(losses)


def test_the_folded_temperature_divides_the_logits_and_can_be_taken_back():
    model, _ = build_from_scratch(0.0625, image_size=32)
    model.eval()
    pixels = torch.rand(3, 3, 32, 32)
    with torch.inference_mode():
        before = model(pixels).logits
        fold_temperature(model, 0.5)
        after = model(pixels).logits
    torch.testing.assert_close(after, before / 0.5)
    np.testing.assert_allclose(undo_temperature(after.softmax(1).numpy(), 0.5), before.softmax(1).numpy(), atol=1e-5)


def test_accepted_cells_reach_the_target():
    confidence = np.linspace(0.2, 1, 1000)
    right = np.ones(1000, dtype=bool)
    right[:200:2] = False  # the unsure half of the errors
    threshold, reached = review_threshold(confidence, right)
    accepted = confidence >= threshold
    assert reached
    assert right[accepted].mean() >= 0.99
    assert right[confidence >= threshold - 0.05].mean() < 0.99  # and not stricter than it has to be


def test_few_images_hardly_move_a_temperature_with_a_prior(generator: np.random.Generator):
    logits = 8 * np.eye(CLASSES)[np.tile(np.arange(CLASSES), 8)] + generator.normal(size=(40, CLASSES))
    labels = logits.argmax(1)  # never wrong: without a prior as near 0 as is allowed
    assert fit_temperature(logits, labels) < 0.2 < 0.6 < fit_temperature(logits, labels, spread=0.1) < 1
    many = np.tile(logits, (2000, 1)), np.tile(labels, 2000)
    assert fit_temperature(*many, spread=0.1) < fit_temperature(logits, labels, spread=0.1)


def test_calibrated_probabilities_above_the_threshold_are_right_as_often_as_is_aimed_at(
    generator: np.random.Generator,
):
    confidence = generator.uniform(0.5, 1, 20_000)
    correct = generator.uniform(size=len(confidence)) < confidence
    threshold, reached = calibrated_threshold(confidence, 0.9)
    assert reached
    assert threshold == pytest.approx(0.8, abs=0.01)  # the mean of 0.8 to 1 is 0.9
    assert correct[confidence >= threshold].mean() == pytest.approx(0.9, abs=0.02)
    assert calibrated_threshold(confidence[confidence < 0.85], 0.9) == (1.0, False)


def test_a_model_that_is_never_wrong_still_holds_back_the_least_sure():
    confidence = np.linspace(0.2, 1, 1000)
    threshold, reached = review_threshold(confidence, np.ones(1000, dtype=bool))
    assert reached
    assert (confidence < threshold).mean() == pytest.approx(REVIEW_SHARE, abs=0.002)


def test_a_model_that_is_always_wrong_says_that_the_target_is_out_of_reach():
    confidence = np.linspace(0.2, 1, 1000)
    threshold, reached = review_threshold(confidence, np.zeros(1000, dtype=bool))
    assert not reached
    assert (confidence < threshold).mean() == pytest.approx(REVIEW_SHARE, abs=0.002)


def test_sure_cells_in_distribution_are_confident_and_others_say_why(generator: np.random.Generator):
    calibration = fitted(generator, 400)
    features, _ = clusters(generator, 400)
    confident = (
        np.array(calibration.statuses(np.ones(len(features)), calibration.distances(features), [True] * len(features)))
        == "confident"
    )
    assert 1 - confident.mean() == pytest.approx(OUT_OF_DISTRIBUTION_SHARE, abs=0.02)
    one = features[confident][:1]
    assert calibration.statuses(np.array([0.99]), calibration.distances(one), [True]) == ["confident"]
    assert calibration.statuses(
        np.array([calibration.review_threshold - 0.01]), calibration.distances(one), [True]
    ) == ["review"]
    assert calibration.statuses(np.array([0.99]), calibration.distances(-one), [True]) == ["unfamiliar"]
    assert calibration.statuses(np.array([0.99]), calibration.distances(one), [False]) == ["not_a_cell"]


def test_what_is_saved_judges_as_what_was_fitted(generator: np.random.Generator, tmp_path: Path):
    calibration = replace(fitted(generator), tta_below=0.9, tta_threshold=0.7, tta_distance=0.6)
    calibration.save(tmp_path)
    loaded = Calibration.load(tmp_path)
    features, _ = clusters(generator, 100)
    np.testing.assert_allclose(
        loaded.out_of_distribution_score(features), calibration.out_of_distribution_score(features), rtol=1e-5
    )
    assert (loaded.review_threshold, loaded.out_of_distribution_threshold) == (
        calibration.review_threshold,
        calibration.out_of_distribution_threshold,
    )
    assert (loaded.temperature, loaded.trained_on) == (1.5, "cells")
    assert (loaded.tta_below, loaded.tta_threshold, loaded.tta_distance) == (0.9, 0.7, 0.6)


def test_a_folder_without_calibration(tmp_path: Path):
    assert Calibration.load(tmp_path) is None


def test_broken_files_are_named(generator: np.random.Generator, tmp_path: Path):
    fitted(generator).save(tmp_path)
    (tmp_path / "wbc.safetensors").write_bytes(b"short")
    with pytest.raises(
        WbcError, match=r"wbc\.safetensors: cannot be read .* or remove wbc\.json and wbc\.safetensors"
    ):
        Calibration.load(tmp_path)


def test_files_of_a_later_version_are_named(generator: np.random.Generator, tmp_path: Path):
    fitted(generator).save(tmp_path)
    numbers = json.loads((tmp_path / "wbc.json").read_text())
    (tmp_path / "wbc.json").write_text(json.dumps(numbers | {"format": 99}))
    with pytest.raises(WbcError, match="another version of wbc_hf"):
        Calibration.load(tmp_path)


def test_a_number_that_is_not_known_is_named(generator: np.random.Generator, tmp_path: Path):
    fitted(generator).save(tmp_path)
    numbers = json.loads((tmp_path / "wbc.json").read_text())
    (tmp_path / "wbc.json").write_text(json.dumps(numbers | {"doubt": 1}))
    with pytest.raises(WbcError, match=r"wbc\.json: has doubt, which is not known here"):
        Calibration.load(tmp_path)


@pytest.mark.parametrize("away", [3.0, 0.3, 0.0])
def test_cells_of_other_classes_become_unfamiliar_and_few_others_do(generator: np.random.Generator, away: float):
    calibration = fitted(generator)
    validation, _ = clusters(generator, 40)
    others, _ = clusters(generator, 20)
    others[:, CLASSES:] += away  # at 0 they look like the five classes
    lowered = keep_out_others(calibration, validation, others)
    found, lost = ((lowered.distances(features) > 1).mean() for features in (others, validation))
    lost_before = (calibration.distances(validation) > 1).mean()
    assert lowered.out_of_distribution_threshold <= calibration.out_of_distribution_threshold
    assert lost <= max(lost_before, FAMILIAR_LOST + 1 / len(validation))
    if away:
        assert found >= OTHERS_FOUND - 1 / len(others)
    else:
        assert found < 0.5
