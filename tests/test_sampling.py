"""How often images are drawn, and what classes weigh."""

from collections import Counter

import numpy as np
import pytest

from wbc_hf.training.sampling import BalancedSampler, balanced_weights, expected_draws

# 12 and 3 of one class in two laboratories, 4 of another class in one.
LABELS = [0] * 15 + [1] * 4
LABORATORIES = ["A"] * 12 + ["B"] * 3 + ["A"] * 4
STRATA = (slice(0, 12), slice(12, 15), slice(15, 19))


@pytest.mark.parametrize("balance", [0, 0.5, 1])
def test_a_stratum_is_drawn_in_proportion_to_a_power_of_its_size(balance: float):
    draws = expected_draws(LABELS, LABORATORIES, balance)
    shares = np.array([draws[stratum].sum() for stratum in STRATA])
    expected = np.array([12.0, 3.0, 4.0]) ** (1 - balance)
    assert shares / shares.sum() == pytest.approx(expected / expected.sum())
    assert draws.mean() == pytest.approx(1)
    assert all(len(set(draws[stratum])) == 1 for stratum in STRATA)


def test_an_epoch_draws_each_image_as_often_as_expected_or_once_more_or_less(seed: int):
    draws = expected_draws(LABELS, LABORATORIES, 1)
    sampler = BalancedSampler(draws, seed)
    total = np.zeros(len(draws))
    for epoch in range(200):
        sampler.set_epoch(epoch)
        drawn = np.bincount(list(sampler), minlength=len(draws))
        assert drawn.sum() == len(sampler) == len(draws)
        assert (np.abs(drawn - draws) < 1).all()
        total += drawn
    assert total / 200 == pytest.approx(draws, abs=0.2)


def test_without_balance_each_image_is_drawn_once(seed: int):
    assert sorted(BalancedSampler(expected_draws(LABELS, LABORATORIES, 0), seed)) == list(range(19))


def test_seed_and_epoch_alone_decide(seed: int):
    def epoch(seed: int, number: int) -> list[int]:
        sampler = BalancedSampler(expected_draws(LABELS, LABORATORIES, 0.5), seed)
        sampler.set_epoch(number)
        return list(sampler)

    assert epoch(seed, 3) == epoch(seed, 3)
    assert epoch(seed, 3) != epoch(seed, 4)
    assert epoch(seed, 3) != epoch(seed + 1, 3)


def test_class_weights():
    assert balanced_weights([0, 1, 2, 3, 4], 5) == [1.0] * 5
    uneven = [0] * 6 + [1] * 2
    found = balanced_weights(uneven, 3)
    assert found == pytest.approx([8 / 12, 8 / 4, 0.0])
    assert np.mean([found[label] for label in uneven]) == pytest.approx(1.0)


def test_class_weights_make_up_for_what_balance_leaves():
    draws = expected_draws(LABELS, LABORATORIES, 1)
    # Three strata alike: two of class 0, one of class 1.
    assert balanced_weights(LABELS, 2, draws) == pytest.approx([3 / 4, 3 / 2])
    shown = Counter()
    for label, weight, count in zip(LABELS, np.array(balanced_weights(LABELS, 2, draws))[LABELS], draws, strict=True):
        shown[label] += weight * count
    assert shown[0] == pytest.approx(shown[1])
