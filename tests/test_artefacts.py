"""What is drawn upon fields for training and testing the finder: it hides what it says, and nothing else."""

import numpy as np
import pytest

from finder_training.artefacts import ARTEFACTS, NOT_SMEAR
from finder_training.smear_variation import debris, record, restain
from wbc_hf.data import paint_field

FIELD = paint_field([0, 1, 2, 3, 4], 320, 240, seed=3).image


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("name", ARTEFACTS)
def test_the_field_lies_where_the_artefact_says(name: str, number: int):
    altered = ARTEFACTS[name](FIELD, np.random.default_rng(number))
    (x, y), (height, width) = altered.offset, FIELD.shape[:2]
    assert altered.image.dtype == np.uint8
    assert altered.hidden.shape == altered.image.shape[:2]
    inside = altered.image[y : y + height, x : x + width]
    assert inside.shape == FIELD.shape
    assert not altered.hidden[y : y + height, x : x + width].all()
    # Where nothing is hidden, the light may change, but not what there is to see.
    clear = ~altered.hidden[y : y + height, x : x + width]
    seen = [np.corrcoef(inside[clear][:, c], FIELD[clear][:, c])[0, 1] for c in range(3)]
    assert min(seen) > (0.2 if name in ("vignette", "eyepiece", "pen") else 0.999)


@pytest.mark.parametrize("name", ARTEFACTS)
def test_an_artefact_is_the_same_for_the_same_seed_and_leaves_its_field_alone(name: str):
    before = FIELD.copy()
    first, second = (ARTEFACTS[name](FIELD, np.random.default_rng(5)) for _ in range(2))
    assert (first.image == second.image).all()
    assert (before == FIELD).all()


@pytest.mark.parametrize("name", NOT_SMEAR)
def test_pictures_without_a_smear_have_the_size_asked_for(name: str):
    image = NOT_SMEAR[name](np.random.default_rng(2), 50, 70)
    assert image.shape == (50, 70, 3)
    assert image.dtype == np.uint8


@pytest.mark.parametrize("number", range(8))
def test_other_stains_change_colours_and_not_the_cells(number: int):
    stained = restain(FIELD, np.random.default_rng(number))
    assert stained.shape == FIELD.shape
    edges = [np.abs(np.diff(image.astype(float).mean(2), axis=1)).ravel() for image in (FIELD, stained)]
    assert np.corrcoef(*edges)[0, 1] > 0.6


def test_what_is_no_smear_keeps_its_colour():
    shown = np.zeros(FIELD.shape[:2], bool)
    shown[:, 100:] = True
    stained = restain(FIELD, np.random.default_rng(0), shown)
    assert (stained[:, :100] == FIELD[:, :100]).all()
    assert (stained[:, 100:] != FIELD[:, 100:]).any()


def test_debris_and_cameras_keep_the_size():
    for number in range(8):
        rng = np.random.default_rng(number)
        image = record(debris(FIELD, rng, red_cell=50), rng)
        assert image.shape == FIELD.shape
        assert image.dtype == np.uint8
        assert (image != FIELD).any()


def test_debris_spares_most_of_a_field():
    changed = [(debris(FIELD, np.random.default_rng(n), red_cell=30) != FIELD).any(2).mean() for n in range(20)]
    assert 0.01 < np.mean(changed) < 0.4
