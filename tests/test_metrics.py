import json
import socket
import warnings
from pathlib import Path

import evaluate
import numpy as np
import pytest
import sklearn.metrics

from wbc_hf.errors import WbcError
from wbc_hf.evaluation import metrics as metrics_module
from wbc_hf.evaluation.metrics import HEADLINE_NAMES, LeucocyteMetrics, compute_metrics, headline
from wbc_hf.labels import CLASS_NAMES


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError(f"network used: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def judged():
    """200 cells of all classes, about two thirds right: references, predictions, scores."""
    random = np.random.default_rng(0)
    references = random.integers(0, 5, 200)
    scores = random.dirichlet(np.ones(5), 200) + 0.5 * np.eye(5)[references]
    return references, scores.argmax(axis=1), scores


def test_a_case_done_by_hand():
    metrics = compute_metrics(references=[0, 0, 0, 1, 1, 4], predictions=[0, 0, 1, 1, 2, 1])

    assert metrics["count"] == 6
    assert metrics["accuracy"] == pytest.approx(3 / 6)
    assert metrics["confusion_matrix"] == [
        [2, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
    ]
    basophil, eosinophil = metrics["per_class"]["basophil"], metrics["per_class"]["eosinophil"]
    assert basophil == {"precision": 1.0, "recall": pytest.approx(2 / 3), "f1": 0.8, "support": 3, "roc_auc": None}
    assert eosinophil["precision"] == pytest.approx(1 / 3)
    assert eosinophil["recall"] == pytest.approx(1 / 2)
    # Over the three classes that have cells; the lymphocyte that was given has none.
    assert metrics["macro_precision"] == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert metrics["macro_recall"] == metrics["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert metrics["macro_f1"] == pytest.approx((0.8 + 0.4 + 0) / 3)


def test_figures_are_those_of_scikit_learn(judged):
    references, predictions, scores = judged
    metrics = compute_metrics(references, predictions, scores)

    reference = {
        "accuracy": sklearn.metrics.accuracy_score(references, predictions),
        "balanced_accuracy": sklearn.metrics.balanced_accuracy_score(references, predictions),
        "macro_precision": sklearn.metrics.precision_score(references, predictions, average="macro"),
        "macro_recall": sklearn.metrics.recall_score(references, predictions, average="macro"),
        "macro_f1": sklearn.metrics.f1_score(references, predictions, average="macro"),
        "matthews_correlation": sklearn.metrics.matthews_corrcoef(references, predictions),
    }
    assert 0.4 < reference["accuracy"] < 0.95  # neither perfect nor chance: the figures differ from each other
    assert headline(metrics) == pytest.approx(reference)
    rows = scores / scores.sum(axis=1, keepdims=True)  # scikit-learn's multi-class area takes only rows that sum to 1
    expected = sklearn.metrics.roc_auc_score(references, rows, multi_class="ovr", average="macro")
    assert compute_metrics(references, predictions, rows)["roc_auc"] == pytest.approx(expected)
    for index, name in enumerate(CLASS_NAMES):
        area = sklearn.metrics.roc_auc_score(references == index, scores[:, index])
        assert metrics["per_class"][name]["roc_auc"] == pytest.approx(area)


def test_a_class_without_cells_has_no_figures_and_no_part_in_the_means(judged):
    references, predictions, scores = judged
    keep = references != 3
    metrics = compute_metrics(references[keep], predictions[keep], scores[keep])

    assert 3 in predictions[keep]
    assert metrics["per_class"]["monocyte"] == {
        "precision": None,
        "recall": None,
        "f1": None,
        "support": 0,
        "roc_auc": None,
    }
    others = [figures for name, figures in metrics["per_class"].items() if name != "monocyte"]
    for macro, single in (("macro_precision", "precision"), ("macro_f1", "f1"), ("roc_auc", "roc_auc")):
        assert metrics[macro] == pytest.approx(np.mean([figures[single] for figures in others]))


def test_a_class_that_is_never_given_has_precision_0():
    metrics = compute_metrics(references=[0, 1], predictions=[0, 0])

    assert metrics["per_class"]["eosinophil"] == {
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "support": 1,
        "roc_auc": None,
    }
    assert metrics["matthews_correlation"] == 0.0


def test_one_class_alone_leaves_correlation_and_areas_undefined():
    metrics = compute_metrics(references=[2, 2], predictions=[2, 2], scores=np.eye(5)[[2, 2]])

    assert metrics["accuracy"] == metrics["macro_f1"] == 1.0
    assert metrics["matthews_correlation"] is None
    assert metrics["roc_auc"] is None
    assert headline(metrics).keys() == set(HEADLINE_NAMES) - {"matthews_correlation"}


@pytest.mark.parametrize("predictions", [[0, 1, 2, 3, 4, 0], [4, 4, 4, 4, 4, 4], [0, 0, 0, 0, 0, 0]])
@pytest.mark.parametrize("references", [[0, 1, 2, 3, 4, 0], [4, 4, 4, 4, 4, 4]])
def test_metrics_go_into_json_without_nan(references, predictions):
    metrics = compute_metrics(np.array(references), np.array(predictions), np.eye(5)[predictions])
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


@pytest.mark.parametrize(
    ("references", "predictions", "scores", "message"),
    [
        ([0, 1], [0], None, "1 predictions for 2 references: give one prediction per reference"),
        ([], [], None, "0 cells to evaluate, at least 1 is needed: is the test split empty?"),
        ([0, 5], [0, 0], None, r"references\[1\] is 5: a class index is one of 0 \(basophil\), .*4 \(neutrophil\)"),
        ([0, 0], [-1, 0], None, r"predictions\[0\] is -1: a class index is one of 0 \(basophil\)"),
        ([0.0], [0], None, r"references of type float64 and shape \(1,\): give a flat list of class indices"),
        ([0], [[0, 1]], None, r"predictions of type int64 and shape \(1, 2\): give a flat list"),
        ([0, 1], [0, 1], np.eye(5), r"scores of shape \(5, 5\): \(2, 5\) is needed"),
        ([0], [0], [[0.2, 0.2, 0.2, 0.2, np.nan]], r"scores\[0\] is \[.*nan\]: every score has to be a finite number"),
    ],
)
def test_what_cannot_be_judged_is_named(references, predictions, scores, message):
    with pytest.raises(WbcError, match=message):
        compute_metrics(references, predictions, scores)


def test_metric_built_directly_gives_the_same_figures(judged, tmp_path, no_network):
    references, predictions, scores = judged
    metric = LeucocyteMetrics(cache_dir=str(tmp_path))
    expected = compute_metrics(references, predictions, scores)

    assert metric.compute(references=references, predictions=predictions, scores=scores) == expected
    for part in np.array_split(np.arange(len(references)), 3):
        metric.add_batch(references=references[part], predictions=predictions[part])
    assert metric.compute(scores=scores) == expected


def test_metric_names_a_bad_label_and_can_be_used_again(tmp_path):
    metric = LeucocyteMetrics(cache_dir=str(tmp_path))
    metric.add_batch(references=[0], predictions=[0])

    with pytest.raises(WbcError, match=r"references\[0\] is 7"):
        metric.add_batch(references=[7], predictions=[0])
    with pytest.raises(WbcError, match="2 predictions for 1 references"):
        metric.add_batch(references=[1], predictions=[0, 0])
    assert metric.compute()["count"] == 1


@pytest.mark.filterwarnings("default")
def test_metric_loads_by_path_without_a_network(tmp_path, monkeypatch, no_network):
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path / "modules")
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    path = Path(metrics_module.__file__)

    metric = evaluate.load(str(path), cache_dir=str(tmp_path / "cache"))

    assert type(metric) is not LeucocyteMetrics and type(metric).__name__ == "LeucocyteMetrics"
    assert metric.compute(references=[0, 1], predictions=[0, 0]) == compute_metrics([0, 1], [0, 0])
    with pytest.raises(WbcError, match=r"predictions\[1\] is 9"):
        metric.compute(references=[0, 1], predictions=[0, 9])
