"""Labels that a model doubts: planted mistakes are found, whatever classes a set has, and the gravest comes first."""

import numpy as np
import pytest

from wbc_hf.data import DOUBTED_BELOW, LabelIssue
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import find_label_issues
from wbc_hf.labels import CLASS_NAMES

COUNT = 200


def sure_answers(true: np.ndarray, seed: int) -> np.ndarray:
    """Probabilities of a model that is right: 0.85 to 0.95 for the true class, at most 0.04 for each of the others."""
    generator = np.random.default_rng(seed)
    probabilities = generator.uniform(0.6, 1, (len(true), len(CLASS_NAMES)))
    probabilities[np.arange(len(true)), true] = 0
    probabilities *= generator.uniform(0.05, 0.1, (len(true), 1)) / probabilities.sum(axis=1, keepdims=True)
    probabilities[np.arange(len(true)), true] = 1 - probabilities.sum(axis=1)
    return probabilities.astype(np.float32)


def names(count: int) -> list[str]:
    return [f"{index}.png" for index in range(count)]


@pytest.mark.parametrize("planted", [0, 1, 10])
@pytest.mark.parametrize("classes", [(0, 1, 2, 3, 4), (1, 2, 4), (3, 4)])
def test_all_planted_mistakes_are_found_and_no_others(classes: tuple[int, ...], planted: int, seed: int):
    generator = np.random.default_rng(seed)
    true = generator.choice(classes, COUNT)
    wrong = generator.choice(COUNT, planted, replace=False)
    given = true.copy()
    given[wrong] = [next(other for other in classes if other != label) for label in true[wrong]]
    issues = find_label_issues(given, sure_answers(true, seed), names(COUNT))
    assert {issue.source for issue in issues} == {f"{index}.png" for index in wrong}
    assert all(issue.predicted == CLASS_NAMES[true[int(issue.source[:-4])]] for issue in issues)


def test_an_issue_names_both_classes_and_the_gravest_comes_first():
    labels = [0] * 5 + [4] * 5
    probabilities = np.full((10, 5), 0.02)
    probabilities[np.arange(10), labels] = 0.92
    probabilities[0] = [0.04, 0.02, 0.02, 0.02, 0.9]
    probabilities[7] = [0.96, 0.01, 0.01, 0.01, 0.01]
    assert find_label_issues(labels, probabilities, names(10)) == (
        LabelIssue("7.png", "neutrophil", "basophil", 0.01, 0.96),
        LabelIssue("0.png", "basophil", "neutrophil", 0.04, 0.9),
    )


def test_a_model_that_is_not_sure_doubts_nothing():
    probabilities = np.array([[DOUBTED_BELOW, 1 - DOUBTED_BELOW, 0, 0, 0], [0.4, 0.6, 0, 0, 0]])
    assert find_label_issues([0, 0], probabilities, names(2)) == ()


def test_labels_of_one_class_and_a_predicted_class_that_the_set_lacks(seed: int):
    true = np.array([4, 4, 4, 0])
    (issue,) = find_label_issues([4, 4, 4, 4], sure_answers(true, seed), names(4))
    assert (issue.source, issue.given, issue.predicted) == ("3.png", "neutrophil", "basophil")


def test_what_cannot_be_compared_is_refused():
    answers = sure_answers(np.arange(20) % 5, seed=0)
    with pytest.raises(WbcError, match=r"scores of shape \(20, 4\)"):
        find_label_issues([0] * 20, answers[:, :4], names(20))
    with pytest.raises(WbcError, match="sources: 19 for 20 labels"):
        find_label_issues([0] * 20, answers, names(19))
    with pytest.raises(WbcError, match="0 cells"):
        find_label_issues([], answers[:0], [])
