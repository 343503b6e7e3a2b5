"""Which cell is reviewed next."""

from wbc_hf.inference import Prediction
from wbc_hf.smear import Cell, Picture, Specimen, next_to_teach


def specimen(*labels: str, status: str = "review") -> Specimen:
    made = Specimen()
    cells = [Cell((0, 0, 9, 9), Prediction(label, 0.9, (), status), b"png") for label in labels]
    made.add_picture(Picture(0, "field.png", (640, 480), True, b"jpeg"), cells)
    return made


def test_predicted_classes_take_turns():
    made = specimen("neutrophil", "neutrophil", "monocyte", "neutrophil", "monocyte", "basophil")
    order = []
    while (cell := next_to_teach(made.cells)) is not None:
        order.append(cell.number)
        made.review(cell.number, "neutrophil")
    assert order == [6, 3, 1, 5, 2, 4]


def test_no_cell_waits():
    assert next_to_teach(specimen("monocyte", status="confident").cells) is None
    assert next_to_teach(()) is None


def test_classes_that_are_not_of_the_five_come_too():
    assert next_to_teach(specimen("blast").cells).number == 1
