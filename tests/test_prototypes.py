"""A last layer that is fitted to the cells of a laboratory without labels."""

import numpy as np
import pytest

from wbc_hf.adaptation.prototypes import assign_by_prototypes, fit_last_layer
from wbc_hf.modeling import softmax

CLASSES, SIZE = 5, 32


def elsewhere(seed: int, counts: list[int], shift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features of cells in a laboratory that moves them all alike, their classes, and the layer that was learned."""
    rng = np.random.default_rng(seed)
    # Of any seed: directions that are all at right angles to one another, and one more along which the stain moves.
    basis = np.linalg.qr(rng.normal(size=(SIZE, CLASSES + 1)))[0].T
    labels = np.repeat(np.arange(CLASSES), counts)
    features = 3 * basis[labels] + 0.5 * rng.normal(size=(len(labels), SIZE))
    # Towards the last class and away from the first: the learned borders are in the wrong place.
    features += shift * (basis[CLASSES - 1] - basis[0] + basis[CLASSES])
    return features, labels, basis[:CLASSES], np.zeros(CLASSES)


def right(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float((probabilities.argmax(1) == labels).mean())


@pytest.mark.parametrize("counts", [[40] * 5, [4, 10, 56, 16, 114]], ids=["alike", "as in blood"])
def test_prototypes_follow_a_laboratory_that_moves_all_cells(seed: int, counts: list[int]):
    features, labels, weight, bias = elsewhere(seed, counts, 2)
    before = softmax(features @ weight.T + bias)
    assigned, proportions = assign_by_prototypes(before, features, weight)
    assert right(assigned, labels) > right(before, labels) + 0.02
    assert assigned.sum(1) == pytest.approx(np.ones(len(labels)))
    assert proportions.sum() == pytest.approx(1)
    new_weight, new_bias = fit_last_layer(features, assigned, weight, bias, cells=len(labels))
    assert right(features @ new_weight.T + new_bias, labels) > right(before, labels) + 0.02


def test_a_layer_that_fits_stays(seed: int):
    features, _, weight, bias = elsewhere(seed, [20] * 5, 0)
    targets = softmax(features @ weight.T + bias)
    new_weight, new_bias = fit_last_layer(features, targets, weight, bias, cells=100)
    np.testing.assert_allclose(new_weight, weight, atol=1e-4)
    np.testing.assert_allclose(new_bias, bias, atol=1e-4)


def test_fewer_cells_change_less(seed: int):
    features, _, weight, bias = elsewhere(seed, [20] * 5, 2)
    targets = assign_by_prototypes(softmax(features @ weight.T), features, weight)[0]
    changes = [
        np.linalg.norm(fit_last_layer(features, targets, weight, bias, cells=cells)[0] - weight)
        for cells in (20, 100, 500)
    ]
    assert changes == sorted(changes) and changes[0] < 0.9 * changes[2]


def test_a_class_without_any_cell_keeps_its_direction(seed: int):
    features, labels, weight, bias = elsewhere(seed, [0, 30, 30, 30, 30], 0)
    before = softmax(features @ weight.T + bias)
    assigned, proportions = assign_by_prototypes(before, features, weight)
    assert right(assigned, labels) >= right(before, labels) - 0.02
    assert proportions[0] < 0.1
    assert np.isfinite(assigned).all()
