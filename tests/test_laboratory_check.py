"""Whether a drop of photographs comes from a laboratory that a model has learned."""

import numpy as np
import pytest

from wbc_hf.inference import Prediction
from wbc_hf.modeling import MIN_DROP, Calibration, LaboratoryDistance, OutOfDistributionScore
from wbc_hf.smear import Cell, Origin, Picture, Specimen, check_laboratory

LIMIT = 0.4


def calibration(limit: float | None = LIMIT) -> Calibration:
    score = OutOfDistributionScore.fit(np.random.default_rng(0).normal(size=(20, 8)))
    known = None if limit is None else LaboratoryDistance(np.zeros(20, np.int8), (1.0,), limit)
    return Calibration(1.0, 0.9, True, 0.2, 100, "a", out_of_distribution_score=score, laboratory_distance=known)


def specimen(*pictures: list[float], status: str = "review", cut: bool = False) -> Specimen:
    """Pictures, each with cells at these distances."""
    made = Specimen()
    for distances in pictures:
        cells = [
            Cell((0, 0, 9, 9), Prediction("monocyte", 0.9, (), status, 0.5, distance), b"png", cut)
            for distance in distances
        ]
        made.add_picture(Picture(0, "field.png", (640, 480), True, b"jpeg"), cells)
    return made


def origin(made: Specimen) -> Origin:
    return check_laboratory(made.cells, calibration()).origin


def test_many_cells_far_from_what_was_learned_are_of_another_laboratory():
    near, far = specimen(*[[0.3]] * 12), specimen(*[[0.7]] * 12)
    assert (origin(near), origin(far)) == (Origin.KNOWN, Origin.ANOTHER)
    check = check_laboratory(far.cells, calibration())
    assert (check.cells, check.distance) == (12, pytest.approx(0.7 / LIMIT))


def test_some_odd_cells_are_not_another_laboratory():
    assert origin(specimen(*[[0.3, 0.3, 3.0]] * 6)) is Origin.KNOWN


def test_few_cells_do_not_tell():
    assert origin(specimen(*[[0.7]] * (MIN_DROP - 1))) is Origin.TOO_FEW
    assert origin(specimen()) is Origin.TOO_FEW


@pytest.mark.parametrize("odd", [{"status": "not_a_cell"}, {"cut": True}])
def test_what_is_no_whole_cell_does_not_count(odd: dict):
    assert check_laboratory(specimen(*[[0.7]] * 20, **odd).cells, calibration()).cells == 0


def test_photographs_of_two_laboratories_are_noticed():
    assert origin(specimen(*[[0.2, 0.25]] * 6, *[[0.7, 0.8]] * 6)) is Origin.MIXED
    assert origin(specimen(*[[0.38]] * 6, *[[0.42]] * 6)) is Origin.KNOWN  # one that lies at the limit


def test_a_model_of_an_earlier_version_does_not_tell():
    made = specimen(*[[0.7]] * 20)
    assert check_laboratory(made.cells, calibration(None)).origin is Origin.UNKNOWN
    assert check_laboratory(made.cells, None).origin is Origin.UNKNOWN
