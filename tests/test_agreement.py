"""Agreement of two readers, against a statistics library, a definition and a textbook."""

import pytest
from scipy.stats import binomtest

from wbc_hf.smear import NONE_OF_FIVE, compare_readers
from wbc_hf.smear.agreement import rumke_limits


@pytest.mark.parametrize(("count", "total"), [(0, 100), (1, 100), (5, 100), (50, 100), (10, 200), (100, 1000), (7, 7)])
def test_limits_are_the_exact_ones_rounded_outwards(count: int, total: int):
    exact = binomtest(count, total).proportion_ci(0.95, method="exact")
    low, high = rumke_limits(count, total)
    assert low <= 100 * exact.low < low + 1
    assert high - 1 < 100 * exact.high <= high


def test_a_hundred_cells_say_little():
    """Five in a hundred: 1.6 to 11.3 % exactly."""
    assert rumke_limits(5, 100) == (1, 12)


@pytest.mark.parametrize("table", [(20, 5, 10, 15), (90, 3, 2, 5), (1, 9, 8, 2)])
def test_kappa_is_what_its_definition_gives(table: tuple[int, int, int, int]):
    """Cohen 1960: observed agreement, less what chance gives by the margins."""
    words = [("monocyte", "monocyte"), ("monocyte", "basophil"), ("basophil", "monocyte"), ("basophil", "basophil")]
    said = [pair for pair, count in zip(words, table, strict=True) for _ in range(count)]
    first, second = ({number: pair[reader] for number, pair in enumerate(said)} for reader in (0, 1))
    a, b, c, d = table
    total = sum(table)
    expected = ((a + b) * (a + c) + (c + d) * (b + d)) / total**2
    kappa = ((a + d) / total - expected) / (1 - expected)
    assert compare_readers(first, second, ("A", "B")).kappa == pytest.approx(kappa)


def test_kappa_of_a_textbook_table():
    """A table of 20, 5, 10 and 15: observed .70, expected .50, so .40."""
    table = {("monocyte", "monocyte"): 20, ("monocyte", "lymphocyte"): 5}
    table |= {("lymphocyte", "monocyte"): 10, ("lymphocyte", "lymphocyte"): 15}
    said = [words for words, count in table.items() for _ in range(count)]
    first, second = ({number: words[reader] for number, words in enumerate(said)} for reader in (0, 1))
    agreement = compare_readers(first, second, ("A", "B"))
    assert (agreement.cells, agreement.same) == (50, 35)
    assert agreement.kappa == pytest.approx(0.4)


def test_only_what_both_have_judged_is_compared():
    first = {1: "monocyte", 2: "monocyte", 3: "neutrophil"}
    second = {2: "monocyte", 3: NONE_OF_FIVE, 4: "basophil"}
    agreement = compare_readers(first, second, ("A", "B"))
    assert (agreement.cells, agreement.same) == (2, 1)
    assert [it.first for it in agreement.classes] == [0, 0, 0, 50, 50]
    assert [it.second for it in agreement.classes] == [0, 0, 0, 100, 0]


def test_readers_who_differ_by_more_than_chance_do_not_agree():
    first = dict.fromkeys(range(95), "neutrophil") | dict.fromkeys(range(95, 100), "monocyte")
    near = dict.fromkeys(range(90), "neutrophil") | dict.fromkeys(range(90, 100), "monocyte")
    far = dict.fromkeys(range(80), "neutrophil") | dict.fromkeys(range(80, 100), "monocyte")
    assert all(it.within for it in compare_readers(first, near, ("A", "B")).classes)
    assert not all(it.within for it in compare_readers(first, far, ("A", "B")).classes)


def test_nothing_in_common_is_no_agreement():
    agreement = compare_readers({1: "monocyte"}, {2: "monocyte"}, ("A", "B"))
    assert (agreement.cells, agreement.kappa, agreement.classes) == (0, None, ())
