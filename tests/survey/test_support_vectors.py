"""The support vector machine that several systems use."""

import numpy as np
import pytest

from wbc_hf.survey.support_vectors import SupportVectorMachine


def cells(seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Two features of very different scale, in rings: no straight line parts the classes."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(5), count)
    angle, radius = rng.uniform(0, 2 * np.pi, len(labels)), 1 + labels + rng.normal(0, 0.15, len(labels))
    return np.column_stack([radius * np.cos(angle), 1000 * radius * np.sin(angle)]), labels


@pytest.fixture(scope="module")
def machine(seed: int) -> SupportVectorMachine:
    machine = SupportVectorMachine((1.0, 10.0), (0.01, 10.0))
    machine.fit(*cells(3 * seed), *cells(3 * seed + 1))
    return machine


def test_scale_and_kernel_are_found(machine: SupportVectorMachine, seed: int):
    features, labels = cells(3 * seed + 2)
    probabilities = machine.predict_proba(features)
    assert probabilities.sum(1) == pytest.approx(np.ones(len(labels)))
    assert (probabilities.argmax(1) == labels).mean() > 0.9
    # The temperature calibrates them: log loss.
    assert -np.log(probabilities[np.arange(len(labels)), labels]).mean() < 0.4


def test_the_wide_kernel_alone_would_not_do(seed: int):
    machine = SupportVectorMachine((1.0, 10.0), (0.01,))
    machine.fit(*cells(3 * seed), *cells(3 * seed + 1))
    features, labels = cells(3 * seed + 2)
    assert (machine.predict_proba(features).argmax(1) == labels).mean() < 0.7


def test_validation_may_lack_a_class():
    features, labels = cells(1)
    machine = SupportVectorMachine((10.0,), (10.0,))
    machine.fit(*cells(0), features[labels != 0], labels[labels != 0])
    assert machine.predict_proba(features).shape == (len(labels), 5)


def test_all_that_was_learnt_is_counted(machine: SupportVectorMachine):
    svc = machine._machine[-1]
    vectors = len(svc.support_vectors_)
    # Mean and deviation of two features, the vectors with four weights each, ten pairs of classes, the temperature.
    assert machine.parameters == 4 + vectors * (2 + 4) + 10 + 1
