import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from wbc_hf.errors import WbcError
from wbc_hf.inference import ModelIdentity, Prediction
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.smear import DEFAULT_RANGES, Cell, CellState, Picture, Snapshot, Specimen, count_cells

MODEL = ModelIdentity("tiny", "0123456789ab", None, "wbc_hf 0")


def _new(
    label: str = "monocyte", status: str = "confident", *, cut: bool = False, duplicate_of: int | None = None
) -> Cell:
    return Cell((0, 0, 9, 9), Prediction(label, 0.9, (), status), b"png", cut, duplicate_of)


def _add(specimen: Specimen, *cells: Cell):
    return specimen.add_picture(Picture(0, "field.png", (640, 480), True, b"jpeg"), cells)


def _specimen(*cells: Cell) -> Specimen:
    specimen = Specimen("S 1")
    _add(specimen, *cells)
    return specimen


def _take_snapshot(specimen: Specimen) -> Snapshot:
    return specimen.snapshot(MODEL, DEFAULT_RANGES)


# ---- states


@pytest.mark.parametrize(
    ("cell", "state"),
    [
        (_new(), CellState.COUNTED),
        (_new("MONOCYTES"), CellState.COUNTED),
        (_new(status="review"), CellState.WAITING),
        (_new(status="unfamiliar"), CellState.WAITING),
        (_new(status="not_a_cell"), CellState.WAITING),
        (_new(status="uncalibrated"), CellState.WAITING),
        (_new("blast"), CellState.WAITING),
        (_new(cut=True), CellState.CUT),
        (_new(status="review", cut=True), CellState.CUT),
        (_new(duplicate_of=1), CellState.DUPLICATE),
        (_new(cut=True, duplicate_of=1), CellState.DUPLICATE),
    ],
)
def test_states_before_anybody_looked(cell: Cell, state: CellState):
    assert _specimen(cell).cells[0].state is state


def test_cells_are_numbered_over_all_pictures():
    specimen = Specimen()
    pictures = [_add(specimen, _new(), _new()), _add(specimen), _add(specimen, _new())]

    assert [picture.number for picture in pictures] == [1, 2, 3]
    assert specimen.pictures == tuple(pictures)
    assert [(cell.number, cell.picture) for cell in specimen.cells] == [(1, 1), (2, 1), (3, 3)]


# ---- review


def test_a_person_has_the_last_word():
    specimen = _specimen(_new(status="review"))

    cell = specimen.review(1, "Lymphocytes", "  A. Meyer ")

    assert specimen.cells == (cell,)
    assert (cell.state, cell.label, cell.suggestion) == (CellState.COUNTED, "lymphocyte", "monocyte")
    assert cell.corrected
    assert cell.review.reviewer == "A. Meyer"
    assert cell.review.time.utcoffset().total_seconds() == 0


def test_who_agrees_corrects_nothing():
    cell = _specimen(_new(status="unfamiliar")).review(1, "monocyte")
    assert (cell.state, cell.corrected, cell.review.reviewer) == (CellState.COUNTED, False, "")


def test_none_of_the_five_is_not_counted():
    specimen = _specimen(_new())
    cell = specimen.review(1, None)
    assert (cell.state, cell.label, cell.corrected) == (CellState.REJECTED, None, True)
    assert sum(count_cells(specimen.cells).values()) == 0


def test_a_class_of_the_models_own_counts_as_none_of_the_five():
    specimen = _specimen(_new("blast"))
    assert not specimen.review(1, None).corrected
    assert specimen.review(1, "lymphocyte").corrected


def test_the_latest_review_holds_and_can_be_withdrawn():
    specimen = _specimen(_new(status="review"))
    before = specimen.cells[0]
    specimen.review(1, "basophil", "A")
    specimen.review(1, None, "B")
    assert specimen.cells[0].review.reviewer == "B"

    assert specimen.withdraw(1) == before
    assert specimen.cells == (before,)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [(_new(duplicate_of=1), "it is cell 1 again"), (_new(cut=True, duplicate_of=1), "it is cell 1")],
)
def test_copies_are_never_counted(cell: Cell, reason: str):
    specimen = _specimen(_new("neutrophil"), cell)

    for change in (lambda: specimen.review(2, "monocyte"), lambda: specimen.withdraw(2)):
        with pytest.raises(WbcError, match=f"^cell 2: is never counted, since {reason}"):
            change()
    assert count_cells(specimen.cells) == dict.fromkeys(CLASS_NAMES, 0) | {"neutrophil": 1}


def test_a_reviewer_overrules_the_mark_of_a_cut_cell():
    specimen = _specimen(_new("neutrophil"), _new("monocyte", cut=True))
    assert count_cells(specimen.cells)["monocyte"] == 0
    assert specimen.review(2, "monocyte", "A").state is CellState.COUNTED
    assert count_cells(specimen.cells)["monocyte"] == 1
    assert specimen.review(2, None).state is CellState.REJECTED
    assert specimen.withdraw(2).state is CellState.CUT


@pytest.mark.parametrize("number", [-1, 0, 3])
def test_names_a_cell_that_is_not_there(number: int):
    with pytest.raises(WbcError, match=f"^cell {number}: there are 2 cells, numbered from 1"):
        _specimen(_new(), _new()).review(number, None)


def test_names_a_class_that_is_none():
    with pytest.raises(WbcError, match=r"^blast: is not one of basophil, .*, neutrophil\."):
        _specimen(_new()).review(1, "blast")


# ---- snapshots


def test_a_snapshot_holds_one_moment():
    specimen = _specimen(_new("neutrophil"), _new(), _new(status="review"), _new(cut=True), _new(duplicate_of=1))
    specimen.describe(leucocyte_count=6.5)
    specimen.review(1, "eosinophil", "B")
    specimen.review(2, None, "A")
    snapshot = _take_snapshot(specimen)
    specimen.review(3, "basophil", "C")

    assert (snapshot.specimen, snapshot.model, snapshot.reviewers) == ("S 1", MODEL, ("A", "B"))
    assert snapshot.time.microsecond == 0
    assert {state: [cell.number for cell in snapshot.cells_in(state)] for state in CellState} == {
        CellState.COUNTED: [1],
        CellState.WAITING: [3],
        CellState.BESIDE: [],
        CellState.REJECTED: [2],
        CellState.CUT: [4],
        CellState.DUPLICATE: [5],
        CellState.REMOVED: [],
    }
    assert (snapshot.differential.total, snapshot.differential.leucocyte_count) == (1, 6.5)
    assert snapshot.differential.shares[CLASS_NAMES.index("eosinophil")].count == 1


def test_a_picture_that_was_taken_out_leaves_no_word_behind():
    specimen = _specimen(_new("neutrophil"), _new())
    specimen.review(1, "eosinophil", "B")
    specimen.remove(1)
    snapshot = _take_snapshot(specimen)
    assert snapshot.reviewers == ()
    assert snapshot.differential.total == 0
    assert len(snapshot.cells_in(CellState.REMOVED)) == 2
    with pytest.raises(WbcError, match="picture 2: there are 1"):
        specimen.remove(2)


# ---- threads


@pytest.fixture
def hasty_threads():
    """Threads that change places all the time, so that what can go wrong does."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty_threads")
def test_pictures_from_many_threads_keep_their_cells():
    specimen = Specimen()
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(lambda index: _add(specimen, *[_new()] * (index % 4)), range(200)))

    assert sorted(picture.number for picture in pictures) == list(range(1, 201))
    assert [cell.number for cell in specimen.cells] == list(range(1, 301))
    for index, picture in enumerate(pictures):
        numbers = [cell.number for cell in specimen.cells if cell.picture == picture.number]
        assert len(numbers) == index % 4
        assert numbers == list(range(min(numbers, default=0), max(numbers, default=-1) + 1))


@pytest.mark.usefixtures("hasty_threads")
def test_reviews_from_many_threads_are_all_kept():
    specimen = _specimen(*[_new()] * 200)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: specimen.review(number, "basophil"), range(1, 201)))
    assert count_cells(specimen.cells)["basophil"] == 200


@pytest.mark.usefixtures("hasty_threads")
def test_a_snapshot_never_has_half_a_picture():
    specimen = Specimen()
    done = threading.Event()

    def add() -> None:
        for _ in range(2000):
            _add(specimen, _new())
        done.set()

    adding = threading.Thread(target=add)
    adding.start()
    while not done.is_set():
        snapshot = _take_snapshot(specimen)
        assert [cell.picture for cell in snapshot.cells] == [picture.number for picture in snapshot.pictures]
    adding.join()


def test_pictures_lie_in_a_file_and_come_back_byte_for_byte():
    specimen = Specimen()
    contents = [bytes([number]) * 1000 for number in range(3)]
    for number, content in enumerate(contents):
        cell = Cell((0, 0, 9, 9), Prediction("monocyte", 0.9, (), "confident"), content + b"cell")
        specimen.add_picture(Picture(0, f"{number}.png", (9, 9), True, content), [cell])
    assert [picture.preview for picture in specimen.pictures] == contents
    assert [cell.image for cell in specimen.cells] == [content + b"cell" for content in contents]
    assert not any(isinstance(cell.crop, bytes) for cell in specimen.cells)
    assert specimen.review(2, "basophil").image == contents[1] + b"cell"
    assert specimen.size == sum(2 * len(content) + 4 for content in contents)
