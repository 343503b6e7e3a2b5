from math import comb
from pathlib import Path

import pytest

from wbc_hf.errors import WbcError
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.smear.differential import (
    DEFAULT_RANGES,
    ENOUGH_COUNTED,
    Flag,
    ReferenceRanges,
    check_leucocyte_count,
    differentiate,
    exact_limits,
    flag_of,
    load_ranges,
)

TAIL = 0.025

# ---- exact limits


def _at_most(count: int, total: int, probability: float) -> float:
    """Probability of `count` or fewer of `total`, summed term by term."""
    return sum(comb(total, k) * probability**k * (1 - probability) ** (total - k) for k in range(count + 1))


@pytest.mark.parametrize(
    ("total", "low", "high"), [(100, 1.6, 11.3), (200, 2.4, 9.0), (500, 3.3, 7.3)], ids=lambda value: str(value)
)
def test_limits_of_five_percent_are_the_published_ones(total: int, low: float, high: float):
    limits = exact_limits(total * 5 // 100, total)
    assert tuple(round(limit, 1) for limit in limits) == (low, high)


@pytest.mark.parametrize("total", [1, 7, 100, 200, 500])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.5, 0.9, 1.0])
def test_limits_leave_a_fortieth_on_either_side(total: int, share: float):
    """At the lower limit so many or more, at the upper so many or fewer, come about in 2.5 % of cases."""
    count = round(share * total)
    low, high = (limit / 100 for limit in exact_limits(count, total))

    if count == 0:
        assert low == 0
    else:
        assert 1 - _at_most(count - 1, total, low) == pytest.approx(TAIL, rel=1e-6)
    if count == total:
        assert high == 1
    else:
        assert _at_most(count, total, high) == pytest.approx(TAIL, rel=1e-6)


def test_limits_of_none_say_nothing():
    assert exact_limits(0, 0) == (0.0, 100.0)


# ---- flags


@pytest.mark.parametrize(
    ("percent", "limits", "flag"),
    [
        (8.0, (5.0, 11.0), Flag.NONE),
        (2.0, (1.0, 4.0), Flag.NONE),
        (5.0, (1.0, 11.0), Flag.NONE),
        (8.001, (5.0, 11.0), Flag.MAYBE_HIGH),
        (9.0, (8.0, 11.0), Flag.MAYBE_HIGH),
        (9.0, (8.001, 11.0), Flag.HIGH),
        (1.999, (1.0, 4.0), Flag.MAYBE_LOW),
        (1.5, (1.0, 2.0), Flag.MAYBE_LOW),
        (1.5, (1.0, 1.999), Flag.LOW),
        # Limits that hold the whole range say nothing.
        (9.0, (2.0, 11.0), Flag.NONE),
        (1.0, (0.0, 8.0), Flag.NONE),
    ],
)
def test_flags_say_no_more_than_the_limits(percent: float, limits: tuple[float, float], flag: Flag):
    assert flag_of(percent, limits, reference=(2.0, 8.0)) is flag


def test_more_cells_turn_a_doubt_into_a_flag():
    few, many = (differentiate({"monocyte": 12 * n, "neutrophil": 88 * n}) for n in (1, 10))
    assert few.shares[CLASS_NAMES.index("monocyte")].flag is Flag.MAYBE_HIGH
    assert many.shares[CLASS_NAMES.index("monocyte")].flag is Flag.HIGH


# ---- while cells wait


def test_limits_are_those_of_the_worst_case_while_cells_wait():
    """Eight of twenty, ten more to come: all of other classes, or all of this one."""
    assert exact_limits(8, 20, waiting=10) == (exact_limits(8, 30)[0], exact_limits(18, 30)[1])


@pytest.mark.parametrize("of_this_class", range(0, 11, 2))
@pytest.mark.parametrize("rejected", [0, 5])
def test_the_worst_case_holds_whatever_the_waiting_cells_turn_out_to_be(of_this_class: int, rejected: int):
    others = max(0, 10 - rejected - of_this_class)
    low, high = exact_limits(8 + of_this_class, 20 + of_this_class + others)
    lowest, highest = exact_limits(8, 20, waiting=10)
    assert lowest <= low
    assert high <= highest


def test_no_flag_is_certain_while_cells_wait():
    """Half of the cells lymphocytes, a tenth neutrophils: low beyond doubt, but for the one that waits."""
    counts = {"lymphocyte": 500, "monocyte": 400, "neutrophil": 100}
    settled, open_ = differentiate(counts), differentiate(counts, waiting=1)
    assert [share.flag for share in settled.shares[2:]] == [Flag.HIGH, Flag.HIGH, Flag.LOW]
    assert [share.flag for share in open_.shares[2:]] == [Flag.MAYBE_HIGH, Flag.MAYBE_HIGH, Flag.MAYBE_LOW]
    assert open_.waiting == 1


def test_many_waiting_cells_leave_no_flag():
    """54 of 77 wait: whatever the other 23 are, the limits hold every range."""
    differential = differentiate({"lymphocyte": 20, "neutrophil": 3}, waiting=54)
    assert {share.flag for share in differential.shares} == {Flag.NONE}


# ---- differentials


def test_a_differential_has_all_five_classes():
    differential = differentiate({"neutrophil": 60, "lymphocyte": 30, "monocyte": 10})

    assert [share.label for share in differential.shares] == list(CLASS_NAMES)
    assert [share.count for share in differential.shares] == [0, 0, 30, 10, 60]
    assert sum(share.percent for share in differential.shares) == pytest.approx(100)
    assert all(share.limits == exact_limits(share.count, 100) for share in differential.shares)
    assert all(share.reference == DEFAULT_RANGES.percent[share.label] for share in differential.shares)
    assert differential.ranges_source == DEFAULT_RANGES.source
    assert differential.leucocyte_count is None
    assert all(share.absolute is None for share in differential.shares)


def test_absolute_counts_are_shares_of_the_total():
    differential = differentiate({"neutrophil": 150, "lymphocyte": 50}, leucocyte_count=8.0)

    lymphocytes = differential.shares[CLASS_NAMES.index("lymphocyte")]
    assert lymphocytes.absolute.value == pytest.approx(2.0)
    assert lymphocytes.absolute.limits == pytest.approx([8.0 * limit / 100 for limit in lymphocytes.limits])
    assert sum(share.absolute.value for share in differential.shares) == pytest.approx(8.0)


def test_no_cells_are_no_differential():
    differential = differentiate({}, leucocyte_count=8.0)

    assert differential.total == 0
    for share in differential.shares:
        assert (share.percent, share.limits, share.flag, share.absolute) == (None, (0.0, 100.0), Flag.NONE, None)


def test_a_hundred_cells_are_enough():
    assert differentiate({"neutrophil": ENOUGH_COUNTED}).enough
    assert not differentiate({"neutrophil": ENOUGH_COUNTED - 1}).enough


def test_ranges_of_a_laboratory_set_the_flags():
    ranges = ReferenceRanges(DEFAULT_RANGES.percent | {"neutrophil": (90.0, 100.0)}, "ours")
    differential = differentiate({"neutrophil": 500, "lymphocyte": 500}, ranges)
    assert differential.ranges_source == "ours"
    assert differential.shares[CLASS_NAMES.index("neutrophil")].flag is Flag.LOW


# ---- total leucocyte count


@pytest.mark.parametrize(("given", "taken"), [(None, None), (0, None), (0.01, 0.01), (7, 7.0), (1000, 1000.0)])
def test_total_counts_that_can_be(given: float | None, taken: float | None):
    assert check_leucocyte_count(given) == taken


@pytest.mark.parametrize("given", [-1, 1000.5, 6500, float("nan"), float("inf")])
def test_total_counts_that_cannot_be(given: float):
    with pytest.raises(WbcError, match=rf"^{given:g}: .* 10⁹/l \(6.5, not 6500 per µl\)"):
        differentiate({"neutrophil": 1}, leucocyte_count=given)


# ---- files of ranges


def test_reads_a_file_of_ranges(tmp_path: Path):
    file = tmp_path / "ranges.yaml"
    file.write_text("source: adults, our laboratory 2026\nNeutrophils: [39, 75]\nlymph: [16.5, 47]\n")

    ranges = load_ranges(file)

    assert ranges.source == "adults, our laboratory 2026; other classes: adults, MedlinePlus 003657"
    assert ranges.percent == DEFAULT_RANGES.percent | {"neutrophil": (39.0, 75.0), "lymphocyte": (16.5, 47.0)}


@pytest.mark.parametrize("source", ["", "source:\n"])
def test_a_file_of_ranges_without_a_source_is_its_own(tmp_path: Path, source: str):
    file = tmp_path / "ours.yaml"
    file.write_text(f"{source}monocyte: [0, 100]\n")
    assert load_ranges(file).source == "ours.yaml; other classes: adults, MedlinePlus 003657"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "has no lines such as"),
        (b"- 40\n- 60\n", "has no lines such as"),
        (b"neutrophil: [40, 60\n", "cannot be read as reference ranges in YAML"),
        (b"\xff\xfe\x00", "cannot be read as reference ranges in YAML"),
        (b"blast: [0, 1]\n", "'blast' is not one of basophil, .*, nor `source`"),
        (b"neutrophil: 40-60\n", "neutrophil: '40-60' is not a range"),
        (b"neutrophil: [60, 40]\n", r"neutrophil: \[60, 40\] is not a range"),
        (b"neutrophil: [40]\n", r"neutrophil: \[40\] is not a range"),
        (b"neutrophil: [40, 60, 80]\n", "is not a range"),
        (b"neutrophil: [-1, 60]\n", "is not a range"),
        (b"neutrophil: [40, 100.1]\n", "is not a range"),
        (b"neutrophil: [.nan, 60]\n", "is not a range"),
        (b"neutrophil: [false, true]\n", "is not a range"),
        (b"neutrophil: ['40', '60']\n", "is not a range"),
        (b"segmented neutrophil: [36, 66]\nband neutrophil: [0, 5]\n", "'band neutrophil' is neutrophil once more"),
    ],
)
def test_names_what_is_wrong_with_a_file_of_ranges(tmp_path: Path, content: bytes, problem: str):
    file = tmp_path / "ranges.yaml"
    file.write_bytes(content)
    with pytest.raises(WbcError, match=rf"ranges\.yaml: .*{problem}"):
        load_ranges(file)


def test_names_a_file_of_ranges_that_is_not_there(tmp_path: Path):
    with pytest.raises(WbcError, match=r"none\.yaml: cannot be read"):
        load_ranges(tmp_path / "none.yaml")
