"""What the tab of adaptation does with the cells that a person has reviewed, without a browser."""

import zipfile
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image

from tests.adapted_models import write_tiny_model
from tests.test_session import waiting
from wbc_hf.adaptation import Adaptation, Scores, only_reviewed
from wbc_hf.data import paint_cells, paint_field
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES, ENOUGH_CELLS
from wbc_hf.web import build_page
from wbc_hf.web.adapt_tab import NO_CELLS, TOO_FEW, can_adapt, render_adaptation, render_cells
from wbc_hf.web.session import Session
from wbc_hf.web.uploads import Upload

pytestmark = pytest.mark.usefixtures("unserved")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Not calibrated, so that every cell waits for a person."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder)
    return Predictor.from_pretrained(folder, "torch")


@pytest.fixture
def session(predictor: Predictor) -> Session:
    """Eight pictures of one cell each: two classes in turn."""
    session = Session(predictor)
    for number, pixels in enumerate(paint_cells([2, 4] * 4, size=48, seed=4)):
        session.read(Upload(pixels, f"{number}.png"), is_field=False)
    return session


def say_all(session: Session) -> None:
    for number in waiting(session):
        session.act("label", number, CLASS_NAMES[2 if number % 2 else 4], "Ana")


class Page:
    """A page with a visitor who reads in pictures, and the handlers of the tab."""

    def __init__(self, predictor: Predictor, folder: Path):
        self.page = build_page(predictor)
        self.request = SimpleNamespace(session_hash="one", username=None)
        files = []
        for number, pixels in enumerate(paint_cells([2, 4] * 2, size=48, seed=4)):
            path = folder / f"{number}.png"
            Image.fromarray(pixels).save(path)
            files.append({"path": str(path), "orig_name": path.name})
        for update in self.handler("on_files")(files, "One cell each", "the end", "", self.request):
            for component, value in update.items():
                if isinstance(component, gr.State):
                    self.session = value

    def handler(self, name: str):
        return next(fn.fn for fn in self.page.fns.values() if fn.name == name)


@pytest.fixture
def page(predictor: Predictor, tmp_path: Path) -> Page:
    return Page(predictor, tmp_path)


def test_counted_cells_that_a_person_named_are_learnt_from(session: Session):
    first, second, third, fourth = waiting(session)[:4]
    session.act("label", first, "monocyte", "Ana")
    session.act("label", second, None, "Ana")  # none of the five
    session.act("label", third, "monocyte", "Ana")
    session.act("label", fourth, "basophil", "Ana")
    session.act("remove", session.specimen.cells[third - 1].picture)

    assert [(cell.number, cell.label) for cell in only_reviewed(session.specimen.cells)] == [
        (first, "monocyte"),
        (fourth, "basophil"),
    ]


def test_what_is_missing_is_said(session: Session):
    assert NO_CELLS in render_cells(only_reviewed(session.specimen.cells))
    session.act("label", waiting(session)[0], "monocyte", "Ana")
    html = render_cells(only_reviewed(session.specimen.cells))
    assert TOO_FEW in html and "<b>1 reviewed cell</b> of 1 picture." in html
    say_all(session)
    html = render_cells(only_reviewed(session.specimen.cells))
    assert TOO_FEW not in html and "<b>8 reviewed cells</b> of 8 pictures." in html
    assert f'style="width:{100 * 4 // ENOUGH_CELLS}%' in html


def test_cells_of_a_single_picture_cannot_be_held_back(predictor: Predictor):
    session = Session(predictor)
    for seed in (1, 2):
        field = paint_field([2, 2, 4, 4], width=480, height=360, seed=seed).image
        session.read(Upload(field, f"field {seed}.png"), is_field=True)
        say_all(session)
        assert can_adapt(only_reviewed(session.specimen.cells)) == (seed == 2)


def test_the_button_waits_for_enough_cells(page: Page):
    _, button = page.handler("on_shown")(page.request)
    assert not button.interactive
    say_all(page.session)
    html, button = page.handler("on_shown")(page.request)
    assert button.interactive
    assert "<b>4 reviewed cells</b>" in html


def test_an_adapted_model_comes_as_a_folder_in_a_zip(page: Page, tmp_path: Path):
    say_all(page.session)
    reported = []
    answers = page.handler("on_adapt")(page.request, lambda share, desc: reported.append((share, desc)))

    html, button = next(answers)

    assert "On held-back cells" in html and "Lymphocyte, recall</th><td>2</td>" in html
    assert button["visible"]
    archive = Path(button["value"])
    with zipfile.ZipFile(archive) as files:
        files.extractall(tmp_path)
    assert Predictor.from_pretrained(tmp_path / archive.stem, "torch").predict([Image.new("RGB", (32, 32))])
    assert reported[0][0] == 0 and 0.5 < reported[-1][0] <= 1 and all(desc for _, desc in reported)
    assert list(answers) == []
    assert not archive.exists()


def test_cells_that_do_not_suffice_are_named(page: Page):
    page.session.act("label", waiting(page.session)[0], "monocyte", "Ana")
    ((html, button),) = page.handler("on_adapt")(page.request, None)
    assert 'class="wbc-problem"' in html and "2 reviewed cells in each of 2 classes are needed" in html
    assert not button["visible"]


def test_cells_without_a_review_are_given_beside_the_labels(page: Page, monkeypatch: pytest.MonkeyPatch):
    """Few labels alone make a model worse: the last layer is moved by all cells."""
    for number in waiting(page.session):
        page.session.act("label", number, CLASS_NAMES[2 if number % 2 else 4], "Ana")
    for number, pixels in enumerate(paint_cells([2, 4, 4], size=48, seed=5)):
        page.session.read(Upload(pixels, f"more {number}.png"), is_field=False)
    given = []

    def take(base: object, cells: list, *_: object) -> None:
        given.extend(cells)
        raise WbcError("enough")

    monkeypatch.setattr("wbc_hf.web.adapt_tab.adapt_model", take)
    list(page.handler("on_adapt")(page.request, None))
    assert [cell.label for cell in given] == [2, 4, 2, 4, None, None, None]


def test_an_adaptation_that_did_not_help_comes_first():
    scores = Scores(0.75, 0.5, 0.4, {"accuracy": [0.5, 0.9], "balanced_accuracy": None, "macro_f1": None}, {})
    recall = {name: None if name == "basophil" else 0.5 for name in CLASS_NAMES}
    adaptation = Adaptation(
        model="tiny",
        version="0",
        software="wbc_hf",
        made="",
        seed=0,
        cells=40,
        unreadable=0,
        not_cells=0,
        review_threshold=0.9,
        target_reached=False,
        remarks=("Too few: <b>.",),
        warning="It did not help: 75.0%.",
        labelled=dict.fromkeys(CLASS_NAMES, 8) | {"monocyte": 0},
        held_back=32,
        folds=4,
        scores_before=Scores(**vars(scores) | {"recall": recall}),
        scores_after=Scores(**vars(scores) | {"recall": recall}),
    )

    html = render_adaptation(adaptation)

    assert html.index("It did not help") < html.index("<table>")
    assert "wbc-good" not in html
    assert "<td>32</td><td><b>75.0 %</b> <small>50.0 – 90.0 %</small></td>" in html
    assert "<b>50.0 %</b> <small>no interval</small>" in html
    assert "Basophil, recall</th><td>8</td><td>–</td>" in html
    assert "Monocyte" not in html
    assert "Too few: &lt;b&gt;." in html
