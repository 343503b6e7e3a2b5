import numpy as np
import PIL.Image
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from wbc_hf.evaluation import evaluate
from wbc_hf.evaluation.figures import (
    GALLERY_SIZE,
    confusion_matrix_figure,
    misclassified_figure,
    reliability_figure,
    risk_coverage_figure,
    training_curves_figure,
)
from wbc_hf.evaluation.reliability import ReliabilityBins, RiskCoverage
from wbc_hf.labels import CLASS_NAMES, LEUCOCYTES


def texts(figure: Figure) -> list[str]:
    """Everything written inside the axes, and the figure's own text."""
    return [text.get_text() for holder in (figure, *figure.axes) for text in holder.texts]


def assert_nothing_is_cut(figure: Figure) -> None:
    """Everything drawn lies within the picture."""
    figure.draw_without_rendering()  # lays the figure out
    drawn, picture = figure.get_tightbbox(), figure.bbox_inches
    assert picture.x0 <= drawn.x0 and drawn.x1 <= picture.x1, (drawn, picture)
    assert picture.y0 <= drawn.y0 and drawn.y1 <= picture.y1, (drawn, picture)


def history(epochs: int, with_validation: bool) -> list[dict]:
    entries = []
    for epoch in range(1, epochs + 1):
        entries.append({"loss": 1 / epoch, "learning_rate": 1e-3 / epoch, "grad_norm": 1.0, "epoch": float(epoch)})
        if with_validation:
            score = 0.9 - 0.1 * abs(epoch - 3)
            entries.append(
                {"eval_loss": 2 / epoch, "eval_macro_f1": score, "eval_accuracy": 0.95, "epoch": float(epoch)}
            )
    return [*entries, {"train_runtime": 1.0, "train_loss": 0.5, "epoch": float(epochs)}]


def gallery(*mistakes: tuple[float, str], size: tuple[int, int] = (32, 32)) -> Figure:
    """Of monocytes that are predicted to be lymphocytes, by confidence and name, and of one that is right."""
    probabilities = np.zeros((len(mistakes) + 1, 5))
    probabilities[:, 2] = [*(confidence for confidence, _ in mistakes), 1]
    probabilities[:, 0] = 1 - probabilities[:, 2]
    names = [*(name for _, name in mistakes), "right.png"]
    evaluation = evaluate([3] * len(mistakes) + [2], probabilities)
    return misclassified_figure(evaluation, names, lambda _: PIL.Image.new("RGB", size, "#c080c0"))


def test_confusion_matrix_writes_counts_and_row_shares():
    matrix = np.diag([10, 20, 30, 40, 9999])
    matrix[0, 4] = 30
    figure = confusion_matrix_figure(matrix)

    written = texts(figure)
    assert {"10\n25.0%", "30\n75.0%", "9999\n100.0%"} <= set(written)
    assert written.count("0") == 5 * 5 - 6
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(CLASS_NAMES)
    assert axes.get_yticklabels()[0].get_text() == "basophil\n(n = 40)"
    assert_nothing_is_cut(figure)


def test_confusion_matrix_text_stands_out_from_its_cell():
    matrix = np.diag([1, 1, 1, 1, 1])
    matrix[0, 1] = 9
    figure = confusion_matrix_figure(matrix)

    brightness = {text.get_text(): np.mean(to_rgb(text.get_color())) for text in figure.axes[0].texts}
    assert brightness["9\n90.0%"] > 0.9
    assert brightness["1\n10.0%"] < 0.4


def test_confusion_matrix_of_classes_without_cells():
    figure = confusion_matrix_figure(np.diag([5, 0, 5, 0, 5]))

    assert figure.axes[0].get_yticklabels()[1].get_text() == "eosinophil\n(n = 0)"
    assert texts(figure).count("0") == 22


def test_training_curves_hold_the_history():
    figure = training_curves_figure(history(15, with_validation=True))

    loss, scores, rate = figure.axes
    lines = {line.get_label(): line for axes in (loss, scores, rate) for line in axes.lines}
    assert lines["training"].get_ydata().tolist() == [1 / epoch for epoch in range(1, 16)]
    assert lines["validation"].get_ydata()[0] == 2.0
    assert lines["macro F1"].get_xdata().tolist() == list(range(1, 16))
    assert lines["learning rate"].get_ydata()[0] == 1e-3
    assert "highest: 0.900, epoch 3" in lines
    assert "not recorded" not in texts(figure)
    for axes, shown in ((loss, 0), (scores, 1), (rate, 0)):
        assert axes.get_ylim()[0] <= shown <= axes.get_ylim()[1]
    assert_nothing_is_cut(figure)


def test_training_curves_without_validation_say_so():
    figure = training_curves_figure(history(15, with_validation=False))

    loss, scores, rate = figure.axes
    assert [text.get_text() for text in scores.texts] == ["not recorded"]
    assert len(loss.lines) == len(rate.lines) == 1


def test_training_curves_of_one_epoch_show_their_points():
    figure = training_curves_figure(history(1, with_validation=True))

    for axes in figure.axes:
        for line in axes.lines:
            assert line.get_markersize() > 0
            assert axes.get_xlim()[0] < line.get_xdata()[0] < axes.get_xlim()[1]
            assert axes.get_ylim()[0] < line.get_ydata()[0] < axes.get_ylim()[1]


def test_training_curves_of_an_empty_history():
    figure = training_curves_figure([])
    assert texts(figure) == ["not recorded"] * 3
    assert_nothing_is_cut(figure)


def bins(*accuracies: float, first: float = 0.4, error: float = 0.123) -> ReliabilityBins:
    """Bins of a tenth from `first`, with 10, 20, … images."""
    low = first + np.arange(len(accuracies)) / 10
    count = 10 * np.arange(1, len(accuracies) + 1)
    return ReliabilityBins(low, 0.1, low + 0.05, np.array(accuracies), count, error)


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for holder in figure.legends for text in holder.get_texts()]


def test_reliability_stands_before_and_after():
    figure = reliability_figure(bins(0.2, 0.5, 0.9), bins(0.45, 0.55, error=0.01))

    left, right = figure.axes
    assert left.get_title() == "before temperature scaling: ECE 0.123"
    assert right.get_title() == "after temperature scaling: ECE 0.010"
    assert [bar.get_height() for bar in left.patches] == [0.2, 0.5, 0.9]
    assert [bar.get_x() for bar in right.patches] == pytest.approx([0.4, 0.5])
    assert [text.get_text() for text in left.texts] == ["10", "20", "30"]
    diagonal = right.lines[-1]
    assert [list(diagonal.get_xdata()), list(diagonal.get_ydata())] == [[0, 1], [0, 1]]
    assert_nothing_is_cut(figure)


def test_reliability_of_a_single_bin():
    figure = reliability_figure(bins(1.0, first=0.9), bins(1.0, first=0.9))
    assert figure.axes[0].get_xlim()[0] < 0.2  # not zoomed in on it
    assert_nothing_is_cut(figure)


CURVE = RiskCoverage(np.array([0.1, 0.5, 1.0]), np.array([1.0, 0.02, 0.06]))


def review(accuracy: float | None, **changes: object) -> dict:
    interval = None if accuracy is None else [accuracy - 0.02, min(1, accuracy + 0.02)]
    figures = {"threshold": 0.87, "target_accuracy": 0.99, "coverage": 0.6, "accuracy_of_accepted": accuracy}
    return figures | {"intervals": {"accuracy_of_accepted": interval}} | changes


def test_risk_coverage_marks_threshold_and_target():
    figure = risk_coverage_figure(CURVE, review(0.97))

    assert legend(figure) == [
        "by confidence",
        "target: error rate 1.0%",
        "review below 0.87: 60.0% accepted, error rate 3.0%",
    ]
    curve, target, mark = figure.axes[0].lines
    assert curve.get_xdata().tolist() == [0.1, 0.5, 1.0]
    assert target.get_ydata() == pytest.approx([0.01, 0.01])
    assert (mark.get_xdata(), mark.get_ydata()) == ([0.6], pytest.approx([0.03]))
    [bar] = figure.axes[0].collections
    assert bar.get_segments()[0].ravel() == pytest.approx([0.6, 0.01, 0.6, 0.05])
    # The first images of a curve may all be wrong; they do not flatten the rest.
    assert 0.06 < figure.axes[0].get_ylim()[1] < 0.1
    assert_nothing_is_cut(figure)


def test_risk_coverage_of_a_model_that_accepts_nothing():
    figure = risk_coverage_figure(CURVE, review(None, threshold=None, coverage=0.0))
    assert legend(figure)[-1] == "review: none accepted"
    assert_nothing_is_cut(figure)


def test_risk_coverage_without_a_mistake():
    curve = RiskCoverage(np.array([0.5, 1.0]), np.zeros(2))
    figure = risk_coverage_figure(curve, review(1.0))
    low, high = figure.axes[0].get_ylim()
    assert low < 0 < high  # the line on the axis is to be seen
    assert_nothing_is_cut(figure)


def test_gallery_of_no_mistakes_says_so():
    assert texts(gallery()) == ["No cell was misclassified."]


def test_gallery_names_classes_confidence_and_file_in_class_colours():
    figure = gallery((0.876, "MO_1.jpg"))

    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["true: monocyte", "pred.: lymphocyte 88%"]
    assert axes.get_title() == "MO_1.jpg"
    colours = [to_hex(patch.get_facecolor()) for patch in axes.patches if isinstance(patch, Rectangle)]
    assert colours == [LEUCOCYTES[3].colour, LEUCOCYTES[2].colour]
    assert figure.get_suptitle() == "1 misclassified cell"
    assert_nothing_is_cut(figure)


def test_gallery_shows_the_most_confident_mistakes_first():
    figure = gallery(*((number / 1000, f"{number}") for number in range(530, 590)))

    shown = [axes.get_title() for axes in figure.axes if axes.images]
    assert shown == [f"{number}" for number in range(589, 589 - GALLERY_SIZE, -1)]
    assert figure.get_suptitle() == "40 of 60 misclassified cells, most confident first"


def test_gallery_keeps_the_shape_of_an_image_and_shortens_its_name():
    name = "a/very/long/way/to/the/photograph_0001.jpg"
    figure = gallery((1.0, name), (0.8, "cell.png"), (0.8, "cell.png"), size=(64, 32))

    pixels = np.asarray(figure.axes[0].images[0].get_array())
    assert pixels.shape[0] == pixels.shape[1]
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert figure.axes[0].get_title() == "…the/photograph_0001.jpg"
    assert figure.get_suptitle() == "3 misclassified cells, most confident first"
    assert_nothing_is_cut(figure)
