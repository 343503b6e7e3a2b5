import warnings

import numpy as np
import pytest
import scipy.stats

from wbc_hf.evaluation.confidence_intervals import (
    bootstrap_intervals,
    count_distinct,
    draw_groups,
    exact_limits,
    exact_rate_limits,
    format_estimate,
    format_figure,
    format_interval,
    mean_interval,
    paired_difference,
    percentile_interval,
    resampled_areas,
    resampled_figures,
    share_interval,
)
from wbc_hf.evaluation.metrics import HEADLINE_NAMES, compute_metrics
from wbc_hf.labels import CLASS_NAMES


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def judged(count: int = 200, seed: int = 0, skill: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """References and probabilities of a model that is better than chance and not perfect."""
    random = np.random.default_rng(seed)
    references = random.integers(0, 5, count)
    probabilities = random.dirichlet(np.ones(5), count) + skill * np.eye(5)[references]
    return references, probabilities / probabilities.sum(1, keepdims=True)


def width(interval: list[float]) -> float:
    return interval[1] - interval[0]


def assert_figures_of_the_whole(references: np.ndarray, probabilities: np.ndarray) -> None:
    """Weights of 1 give what `compute_metrics` gives."""
    expected = compute_metrics(references, probabilities.argmax(1), probabilities)
    once = np.ones((1, len(references)), dtype=np.float32)
    headline, per_class = resampled_figures(references, probabilities.argmax(1), once)
    per_class["roc_auc"] = resampled_areas(references, probabilities, once)
    undefined = {None: pytest.approx(np.nan, nan_ok=True)}
    assert headline.keys() == set(HEADLINE_NAMES)
    for name, values in headline.items():
        assert values[0] == undefined.get(expected[name], pytest.approx(expected[name])), name
    for index, name in enumerate(CLASS_NAMES):
        for figure, values in per_class.items():
            value = expected["per_class"][name][figure]
            assert values[0, index] == undefined.get(value, pytest.approx(value)), (name, figure)


def test_figures_of_the_whole_set_are_those_of_compute_metrics():
    assert_figures_of_the_whole(*judged())


def test_figures_agree_where_classes_are_missing_never_given_or_tied():
    references, probabilities = judged()
    some = (references != 3) & (probabilities.argmax(1) != 1)
    assert_figures_of_the_whole(references[some], probabilities[some])
    assert_figures_of_the_whole(references, np.eye(5)[probabilities.argmax(1)])  # nearly all scores are ties
    assert_figures_of_the_whole(references, np.eye(5)[np.full(len(references), 2)])
    assert_figures_of_the_whole(np.full(4, 2), probabilities[:4])


def test_a_resample_counts_an_image_as_often_as_it_was_drawn():
    references, probabilities = judged(60)
    weights = draw_groups(range(60), resamples=3)
    areas = resampled_areas(references, probabilities, weights)
    headline, _ = resampled_figures(references, probabilities.argmax(1), weights)
    for row, weight in enumerate(weights.astype(int)):
        drawn = np.repeat(np.arange(60), weight)
        expected = compute_metrics(references[drawn], probabilities[drawn].argmax(1), probabilities[drawn])
        assert {name: values[row] for name, values in headline.items()} == pytest.approx(
            {name: expected[name] for name in HEADLINE_NAMES}
        )
        assert areas[row].mean() == pytest.approx(expected["roc_auc"])


def test_groups_are_drawn_whole_and_as_many_as_there_are():
    groups = ["a", "b", "a", "c", "b", "a"]
    weights = draw_groups(groups, resamples=500)
    assert weights.shape == (500, 6)
    assert (weights[:, [0, 1]] == weights[:, [2, 4]]).all()
    assert (weights[:, [0, 1, 3]].sum(1) == 3).all()
    assert weights[:, 3].mean() == pytest.approx(1, abs=0.15)
    assert (draw_groups(groups, resamples=500) == weights).all()
    assert (draw_groups(groups, resamples=500, seed=1) != weights).any()


def test_agrees_with_scipy_where_each_image_is_its_own_group():
    references, probabilities = judged(300)
    right = probabilities.argmax(1) == references
    ours = bootstrap_intervals(references, probabilities, range(300))["accuracy"]
    theirs = scipy.stats.bootstrap((right,), np.mean, n_resamples=2000, method="percentile", rng=1).confidence_interval
    assert ours == pytest.approx([theirs.low, theirs.high], abs=0.01)
    assert ours == pytest.approx(mean_interval(right, draw_groups(range(300))))


def test_limits_lie_around_the_figure():
    references, probabilities = judged(skill=0.3)
    metrics = compute_metrics(references, probabilities.argmax(1), probabilities)
    intervals = bootstrap_intervals(references, probabilities, range(200))
    for name in (*HEADLINE_NAMES, "roc_auc"):
        low, high = intervals[name]
        assert low < metrics[name] < high
    for name, figures in intervals["per_class"].items():
        assert figures.keys() == {"precision", "recall", "f1", "roc_auc"}
        for figure, (low, high) in figures.items():
            assert low < metrics["per_class"][name][figure] < high


def test_copies_of_an_image_say_nothing_new():
    references, probabilities = judged(100)
    once = bootstrap_intervals(references, probabilities, range(100))
    copied = np.repeat(np.arange(100), 4)
    grouped = bootstrap_intervals(references[copied], probabilities[copied], copied)
    believed = bootstrap_intervals(references[copied], probabilities[copied], range(400))
    assert grouped["accuracy"] == pytest.approx(once["accuracy"])
    assert grouped["roc_auc"] == pytest.approx(once["roc_auc"])
    for name in (*HEADLINE_NAMES, "roc_auc"):
        assert width(grouped[name]) > 1.6 * width(believed[name])  # about twice


def test_a_class_without_cells_or_of_one_group_has_no_interval():
    references, probabilities = judged()
    keep = references != 3
    references, probabilities = references[keep], probabilities[keep]
    groups = np.where(references == 4, "one photograph", np.arange(len(references)).astype(str))
    intervals = bootstrap_intervals(references, probabilities, groups.tolist())
    assert set(intervals["per_class"]["monocyte"].values()) == {None}
    assert set(intervals["per_class"]["neutrophil"].values()) == {None}
    assert None not in intervals["per_class"]["basophil"].values()
    assert intervals["macro_f1"] is not None


def test_one_class_alone_has_neither_correlation_nor_areas():
    intervals = bootstrap_intervals(np.full(4, 2), judged(4)[1], range(4))
    assert intervals["matthews_correlation"] is intervals["roc_auc"] is None
    assert intervals["accuracy"] is not None


def test_one_group_has_no_intervals():
    references, probabilities = judged(10)
    intervals = bootstrap_intervals(references, probabilities, ["same"] * 10)
    assert {intervals[name] for name in (*HEADLINE_NAMES, "roc_auc")} == {None}
    assert all(set(figures.values()) == {None} for figures in intervals["per_class"].values())
    assert paired_difference(references, references, references, [0] * 10)["accuracy"]["interval"] is None


def without_a_mistake(cells: int) -> float:
    """The exact lower limit of a share of which nothing but hits was seen, from its definition."""
    return 0.025 ** (1 / cells)


def test_a_perfect_classifier_may_make_a_mistake_in_other_cells():
    references = np.repeat(np.arange(5), 20)
    intervals = bootstrap_intervals(references, np.eye(5)[references], range(100))
    expected = dict.fromkeys((*HEADLINE_NAMES, "roc_auc"), without_a_mistake(100))
    right = expected["macro_f1"]
    expected["macro_f1"] = 2 * right / (1 + right)
    expected["matthews_correlation"] = (right - 1 / 5) / (4 / 5)
    assert {name: intervals[name] for name in expected} == {
        name: pytest.approx([low, 1.0]) for name, low in expected.items()
    }
    basophil, right = intervals["per_class"]["basophil"], without_a_mistake(20)
    for figure in ("precision", "recall", "roc_auc"):
        assert basophil[figure] == pytest.approx([right, 1.0])
    assert basophil["f1"] == pytest.approx([2 * right / (1 + right), 1.0])


def test_near_duplicates_of_a_perfect_classifier_count_once_and_the_rarest_class_decides_for_means():
    references = np.repeat(np.arange(5), (4, 20, 20, 20, 20))
    groups = [0, 0, 1, 1, *range(2, 82)]
    intervals = bootstrap_intervals(references, np.eye(5)[references], groups)
    assert intervals["accuracy"] == pytest.approx([without_a_mistake(82), 1.0])
    assert intervals["balanced_accuracy"] == pytest.approx([without_a_mistake(5 * 2), 1.0])
    assert intervals["per_class"]["basophil"]["recall"] == pytest.approx([without_a_mistake(2), 1.0])


def test_a_class_that_is_never_recognised_may_be_elsewhere():
    references = np.repeat(np.arange(5), 20)
    given = np.where(references == 0, 1, references)
    figures = bootstrap_intervals(references, np.eye(5)[given], range(100))["per_class"]["basophil"]
    assert figures["recall"] == pytest.approx([0.0, 1 - without_a_mistake(20)])
    assert figures["precision"] == [0.0, 1.0]  # of no cell


def test_the_exact_limit_of_a_mean_over_classes_is_below_any_mean_that_allows_for_no_mistake():
    """Recalls with which 15 cells of each class are all right more often than in one of forty sets of cells."""
    references = np.repeat(np.arange(5), 15)
    low, _ = bootstrap_intervals(references, np.eye(5)[references], range(75))["balanced_accuracy"]
    random = np.random.default_rng(3)
    recalls = 1 - random.dirichlet(np.full(5, 0.3), 20_000) * random.uniform(0, 0.3, (20_000, 1))
    possible = recalls[(recalls**15).prod(axis=1) > 0.025]
    assert len(possible) > 1000
    assert low < possible.mean(axis=1).min()


def test_constant_predictions_have_no_interval_of_the_correlation():
    references = np.repeat(np.arange(5), 20)
    assert bootstrap_intervals(references, np.eye(5)[np.full(100, 2)], range(100))["matthews_correlation"] is None


def test_shares_are_exact_where_all_resamples_are_alike():
    groups = [0, 0, *range(1, 30)]
    weights = draw_groups(groups)
    right, some = np.ones(31, dtype=bool), np.arange(31) < 11
    assert share_interval(right, groups, weights) == pytest.approx([without_a_mistake(30), 1.0])
    assert share_interval(~right, groups, weights) == pytest.approx([0.0, 1 - without_a_mistake(30)])
    assert share_interval(right, groups, weights, some) == pytest.approx([without_a_mistake(10), 1.0])
    assert share_interval(some, groups, weights) == mean_interval(some, weights)
    assert share_interval(right, groups, weights, ~right) is None


def test_exact_limits_of_shares_and_rates():
    assert exact_limits(0, 0) == (0.0, 1.0)
    assert exact_limits(30, 30) == pytest.approx((without_a_mistake(30), 1.0))
    low, high = exact_limits(5, 100)
    assert scipy.stats.binom.sf(4, 100, low) == pytest.approx(0.025)
    assert scipy.stats.binom.cdf(5, 100, high) == pytest.approx(0.025)
    assert exact_rate_limits(0, 10) == pytest.approx((0.0, -np.log(0.025) / 10))
    low, high = exact_rate_limits(7, 1)
    assert [scipy.stats.poisson.sf(6, low), scipy.stats.poisson.cdf(7, high)] == pytest.approx([0.025, 0.025])


def test_mean_among_some_of_the_images():
    weights = np.array([[1, 1, 1, 1], [2, 0, 2, 0], [0, 4, 0, 0]], dtype=np.float32)
    values, among = np.array([1.0, 0.0, 0.0, 1.0]), np.array([True, False, True, False])
    # 1/2, 1/2, and none of them in the last
    assert mean_interval(values, weights, among) == [0.5, 0.5]
    assert mean_interval(values, weights, np.zeros(4, dtype=bool)) is None


def test_what_is_not_defined_is_passed_over():
    assert percentile_interval(np.array([np.nan, 1.0, np.nan])) == [1.0, 1.0]
    assert percentile_interval(np.full(3, np.nan)) is None
    assert percentile_interval(np.linspace(0, 1, 1001)) == pytest.approx([0.025, 0.975])


def test_difference_of_two_models_is_judged_on_the_same_cells():
    references, probabilities = judged(400)
    first = probabilities.argmax(1)
    second = first.copy()
    second[:20] = (references[:20] + 1) % 5  # the same mistakes, and a few more
    accuracy = paired_difference(references, first, second, range(400))["accuracy"]
    assert accuracy["first"] == np.mean(first == references)
    assert accuracy["difference"] == accuracy["first"] - accuracy["second"]
    assert 0 < accuracy["interval"][0] < accuracy["difference"] < accuracy["interval"][1]
    # Seen apart, the two cannot be told from each other.
    apart = [mean_interval(given == references, draw_groups(range(400))) for given in (first, second)]
    assert apart[0][0] < apart[1][1]


def test_difference_of_a_model_to_itself_is_none_and_undefined_recalls_stay_so():
    references = np.array([0, 0, 1, 1])
    differences = paired_difference(references, references, references, range(4))
    macro_f1, room = differences["macro_f1"], 1 - without_a_mistake(4)
    assert (macro_f1["first"], macro_f1["second"], macro_f1["difference"]) == (1.0, 1.0, 0.0)
    assert macro_f1["interval"] == pytest.approx([-room, room])
    opposite = paired_difference(references, references, 1 - references, range(4))
    assert opposite["accuracy"]["interval"] == pytest.approx([1 - 2 * room, 1.0])
    assert set(differences["recall of monocyte"].values()) == {None}
    assert differences.keys() == {*HEADLINE_NAMES, *(f"recall of {name}" for name in CLASS_NAMES)}


def test_distinct_cells_are_groups_of_a_class():
    counts = count_distinct(np.array([0, 0, 0, 4, 4]), ["a", "a", "b", "b", "c"])
    assert counts == {"basophil": 2, "eosinophil": 0, "lymphocyte": 0, "monocyte": 0, "neutrophil": 2}


def test_figures_and_intervals_as_text():
    assert format_figure(0.93) == "0.930"
    assert format_figure(0.93, ".1%") == "93.0 %"
    assert format_figure(None) == format_interval(None) == format_estimate(None, None) == "–"
    assert format_interval([0.91, 0.95]) == "0.910 to 0.950"
    assert format_interval((0.91, 0.95), ".1%") == "91.0 to 95.0 %"
    assert format_interval([-0.1, 0.2], "+.1f", between="…") == "-0.1…+0.2"
    assert format_estimate(0.93, [0.91, 0.95]) == "0.930 (0.910 to 0.950)"
    assert format_estimate(0.93, None) == "0.930"
    assert format_interval([0.99961, 0.99994]) == "0.9996 to 0.9999"
    assert format_estimate(0.9998, [0.99961, 0.99994]) == "0.9998 (0.9996 to 0.9999)"
    assert format_interval([0.99961, 0.99969], ".1%") == "99.96 to 99.97 %"
    assert format_interval([0.5, 0.5 + 1e-12]) == "0.500000 to 0.500000"
    assert format_interval((20.0, 20.0), "g") == "20 to 20"
