import json

import numpy as np
import pytest
from scipy.special import softmax

from wbc_hf.errors import WbcError
from wbc_hf.evaluation import Evaluation, columns_of_classes, compute_metrics, evaluate
from wbc_hf.evaluation.confidence_intervals import bootstrap_intervals
from wbc_hf.evaluation.metrics import HEADLINE_NAMES
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import Calibration, OutOfDistributionScore, undo_temperature


def calibration(review_threshold: float = 0.9) -> Calibration:
    """A calibration of which only temperature and review threshold matter."""
    return Calibration(
        temperature=2.5,
        review_threshold=review_threshold,
        target_reached=True,
        out_of_distribution_threshold=1.0,
        fitted_on=300,
        trained_on="cells",
        out_of_distribution_score=OutOfDistributionScore(*(np.zeros((1, 1), dtype=np.float32) for _ in range(3))),
    )


def four_cells(**given: object) -> Evaluation:
    """Four cells; the second, a basophil, is predicted to be an eosinophil."""
    probabilities = np.full((4, 5), 0.05)
    probabilities[range(4), [0, 1, 2, 4]] = 0.8
    return evaluate([0, 0, 2, 4], probabilities, **given)


def full() -> dict:
    """Arguments of `evaluate`: 300 images of 150 cells, of which 20 images leaked, from a calibrated model."""
    random = np.random.default_rng(0)
    labels = np.repeat(random.choice(5, 150, p=[0.04, 0.24, 0.24, 0.24, 0.24]), 2)
    logits = random.normal(size=(300, 5)) + 2 * np.eye(5)[labels]
    probabilities = softmax(logits * 2, axis=1)  # their true probabilities
    return {
        "labels": labels,
        "probabilities": probabilities,
        "groups": [f"cell {index // 2}" for index in range(300)],
        "statuses": np.where(probabilities.max(1) > 0.9, "confident", "review").tolist(),
        "calibration": calibration(),
        "leaked": np.arange(300) < 20,
    }


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate(**full())


def test_labels_and_probabilities_suffice():
    metrics = four_cells().metrics
    assert metrics["accuracy"] == 0.75
    assert metrics["distinct_cells"]["basophil"] == 2
    assert not {"calibration", "review", "leaked", "without_leaked"} & metrics.keys()


def test_metrics_go_into_json(evaluation: Evaluation):
    assert json.loads(json.dumps(evaluation.metrics, allow_nan=False)) == evaluation.metrics


def test_every_figure_has_a_confidence_interval(evaluation: Evaluation):
    metrics = evaluation.metrics
    expected = bootstrap_intervals(evaluation.labels, evaluation.probabilities, evaluation.groups)
    assert metrics["intervals"] == expected
    for name in (*HEADLINE_NAMES, "roc_auc"):
        low, high = metrics["intervals"][name]
        assert low < metrics[name] < high
    supports = {name: figures["support"] for name, figures in metrics["per_class"].items()}
    assert metrics["distinct_cells"] == {name: support // 2 for name, support in supports.items()}


def test_the_seed_is_that_of_the_bootstrap():
    first, second = four_cells(seed=1), four_cells(seed=2)
    assert first.metrics["accuracy"] == second.metrics["accuracy"]
    arguments = full() | {"calibration": None}
    intervals = [evaluate(**arguments, seed=seed).metrics["intervals"] for seed in (0, 0, 1)]
    assert intervals[0] == intervals[1] != intervals[2]


def test_calibration_before_and_after_temperature_scaling(evaluation: Evaluation):
    figures = evaluation.metrics["calibration"]
    assert figures["temperature"] == 2.5
    np.testing.assert_array_equal(evaluation.uncalibrated, undo_temperature(evaluation.probabilities, 2.5))
    before, after = figures["before"], figures["after"]
    assert after["ece"] < before["ece"]
    for scores in (before, after):
        for key in ("ece", "brier"):
            assert scores["intervals"][key][0] < scores[key] < scores["intervals"][key][1]


def test_selective_prediction(evaluation: Evaluation):
    review = evaluation.metrics["review"]
    accepted = evaluation.probabilities.max(1) > 0.9
    right = evaluation.given == evaluation.labels
    assert (review["threshold"], review["target_accuracy"]) == (0.9, 0.99)
    assert review["coverage"] == accepted.mean()
    assert review["accuracy_of_accepted"] == pytest.approx(right[accepted].mean())
    assert review["accuracy_of_accepted"] > right.mean()
    for key in ("coverage", "accuracy_of_accepted"):
        assert review["intervals"][key][0] < review[key] < review["intervals"][key][1]
    coverages, errors = zip(*review["error_at_coverage"], strict=True)
    assert coverages == (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)
    assert errors[-1] == pytest.approx(1 - right.mean())
    assert errors[0] < errors[-1]


def test_statuses_without_a_calibration():
    review = four_cells(statuses=["confident", "review", "unfamiliar", "confident"]).metrics["review"]
    assert review["threshold"] is None
    assert (review["coverage"], review["accuracy_of_accepted"]) == (0.5, 1)


def test_nothing_accepted():
    review = four_cells(statuses=["review"] * 4).metrics["review"]
    assert review["coverage"] == 0
    assert review["accuracy_of_accepted"] is None
    assert review["intervals"]["accuracy_of_accepted"] is None


def test_without_leaked_images(evaluation: Evaluation):
    metrics = evaluation.metrics
    assert metrics["leaked"] == 20
    others = metrics["without_leaked"]
    expected = compute_metrics(evaluation.labels[20:], evaluation.given[20:], evaluation.probabilities[20:])
    assert {name: others[name] for name in expected} == expected
    assert others["intervals"]["accuracy"] != metrics["intervals"]["accuracy"]
    assert sum(others["distinct_cells"].values()) == 140


def test_each_of_several_laboratories_has_figures_of_its_own():
    arguments = full() | {"leaked": None}
    laboratories = ["north"] * 100 + ["south"] * 200
    found = evaluate(**arguments, laboratories=laboratories).metrics
    assert list(found["laboratories"]) == ["north", "south"]
    for name, part in (("north", slice(100)), ("south", slice(100, 300))):
        values = {key: arguments[key][part] for key in ("labels", "probabilities", "groups", "statuses")}
        alone = evaluate(**values, calibration=calibration()).metrics
        figures = found["laboratories"][name]
        assert figures["count"] == alone["count"]
        for key in ("accuracy", "balanced_accuracy", "intervals", "distinct_cells"):
            assert figures[key] == alone[key]
        for key in ("coverage", "accuracy_of_accepted", "intervals"):
            assert figures["review"][key] == alone["review"][key]
    assert "laboratories" not in evaluate(**arguments, laboratories=["north"] * 300).metrics


def test_no_leak_and_nothing_but_leaks():
    none = four_cells(leaked=np.zeros(4, dtype=bool)).metrics
    assert none["leaked"] == 0
    assert "without_leaked" not in none
    every = four_cells(leaked=np.ones(4, dtype=bool)).metrics
    assert (every["leaked"], every["without_leaked"]) == (4, None)


@pytest.mark.parametrize("what", ["groups", "statuses", "laboratories", "leaked"])
def test_one_of_each_per_image_is_needed(what: str):
    with pytest.raises(WbcError, match=f"{what}: 1 for 4 images: give one per image"):
        four_cells(**{what: np.ones(1, dtype=bool)})


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([], np.zeros((0, 5)), "0 cells to evaluate"),
        ([0, 5], np.full((2, 5), 0.2), r"references\[1\] is 5"),
        ([0, 1], np.full((2, 4), 0.25), r"scores of shape \(2, 4\)"),
        ([0, 1], np.full(2, 0.2), r"scores of shape \(2,\)"),
        ([0], np.full((1, 5), np.nan), "has to be a finite number"),
    ],
)
def test_what_cannot_be_evaluated(labels: list[int], probabilities: np.ndarray, message: str):
    with pytest.raises(WbcError, match=message):
        evaluate(labels, probabilities)


def test_columns_follow_the_names_of_the_classes():
    probabilities = np.array([[0.5, 0.3, 0.2]], dtype=np.float32)
    brought = probabilities @ columns_of_classes(["NEUTROPHIL", "eos", "basophil"])
    assert dict(zip(CLASS_NAMES, brought[0].tolist(), strict=True)) == pytest.approx(
        {"basophil": 0.2, "eosinophil": 0.3, "lymphocyte": 0, "monocyte": 0, "neutrophil": 0.5}
    )
    np.testing.assert_array_equal(columns_of_classes(CLASS_NAMES), np.eye(5))
    with pytest.raises(WbcError, match=r"classes \(neutrophil, cat\) are not all leucocytes"):
        columns_of_classes(["neutrophil", "cat"])
