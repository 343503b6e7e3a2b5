"""What the tab of a specimen does about the laboratory of its photographs, without a browser."""

import base64
import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from tests.adapted_models import make_adapted, write_tiny_model
from tests.test_session import waiting
from wbc_hf.adaptation import TWO_LABORATORIES, AdaptationCell, CellSupply, Laboratories
from wbc_hf.data import paint_cells
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import Calibration, LaboratoryDistance, OutOfDistributionScore
from wbc_hf.reports import EXPORTS
from wbc_hf.smear import DEFAULT_RANGES, CellState, LaboratoryCheck, Origin, next_to_teach
from wbc_hf.web import build_page
from wbc_hf.web.adapting import adaptation_turn
from wbc_hf.web.laboratory_panel import ADAPT_AGAIN, NO_LABORATORY, REVIEW_FIRST, describe_offer
from wbc_hf.web.session import Session
from wbc_hf.web.specimen_tab import make_file

pytestmark = pytest.mark.usefixtures("unserved")

CELLS = [2, 4] * 6
FOREIGN = LaboratoryDistance(np.zeros(20, np.int8), (1.0,), 1e-6)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A calibrated network without training, to which every laboratory is another one."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    network = write_tiny_model(folder)
    features = np.random.default_rng(0).random((20, sum(network.config.hidden_sizes[-3:])), dtype=np.float32)
    score = OutOfDistributionScore.fit(features)
    Calibration(
        1.0, 1.0, False, 10.0, 20, "painted cells", out_of_distribution_score=score, laboratory_distance=FOREIGN
    ).save(folder)
    return Predictor.from_pretrained(folder, "torch")


class Tab:
    """The handlers of a page, called as Gradio calls them, and what each part of the page shows then."""

    def __init__(self, predictor: Predictor, store: Laboratories | None, folder: Path):
        self.page = build_page(predictor, laboratories=store)
        self.folder = folder
        self.shown: dict = {}
        self.session: Session | None = None

    def handler(self, name: str):
        return next(fn.fn for fn in self.page.fns.values() if fn.name == name)

    def take(self, update: dict) -> None:
        for component, value in update.items():
            if isinstance(component, gr.State):
                self.session = value
            self.shown[component] = value

    def read(self, classes: list[int] = CELLS) -> None:
        files = []
        for number, pixels in enumerate(paint_cells(classes, size=48, seed=4)):
            path = self.folder / f"{number}.png"
            Image.fromarray(pixels).save(path)
            files.append({"path": str(path), "orig_name": path.name})
        request = SimpleNamespace(session_hash="one", username=None)
        for update in self.handler("on_files")(files, "One cell each", "the end", "", request):
            self.take(update)

    def review(self) -> None:
        for number in waiting(self.session):
            self.session.act("label", number, CLASS_NAMES[CELLS[number - 1]], "Ana")

    def adapt(self) -> list[tuple[float, str]]:
        reported: list[tuple[float, str]] = []
        for update in self.handler("on_adapt_specimen")(
            self.session, "", lambda share, desc: reported.append((share, desc))
        ):
            self.take(update)
        return reported

    def keep(self, name: str, cells: bool = False) -> None:
        self.take(self.handler("on_keep")(self.session, name, cells))

    def choose(self, name: str) -> None:
        request = SimpleNamespace(session_hash="one", username=None)
        self.take(self.handler("on_choose")(self.session, name, "", request))

    def text(self) -> str:
        return "".join(value for value in self.shown.values() if isinstance(value, str))

    def offer(self) -> str:
        """What the button of the adaptation says; "" where it is not shown."""
        (button,) = (value for value in self.shown.values() if "Adapt the model" in str(getattr(value, "value", "")))
        return button.value if button.visible else ""

    def visible(self, label: str) -> bool:
        (part,) = (value for value in self.shown.values() if getattr(value, "label", None) == label)
        return part.visible


@pytest.fixture
def store(tmp_path: Path) -> Laboratories:
    return Laboratories(tmp_path / "kept")


@pytest.fixture
def tab(predictor: Predictor, store: Laboratories, tmp_path: Path) -> Tab:
    return Tab(predictor, store, tmp_path)


def test_another_laboratory_is_noticed_and_adaptation_offered(tab: Tab):
    tab.read()
    assert tab.session.check.origin is Origin.ANOTHER
    assert "These 12 cells look as if they came from another laboratory" in tab.text()


@pytest.mark.parametrize("adapted", [False, True])
def test_review_begins_with_what_teaches_most_before_and_after_the_first_adaptation(
    tab: Tab, adapted: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("wbc_hf.smear.review_order._CLUSTERS", (3, 6))  # as many as the cells, and all are alike
    tab.read()
    session = tab.session
    if adapted:  # then these cells are no longer of another laboratory
        session.adapted = SimpleNamespace()
        distance = LaboratoryDistance(FOREIGN.members, FOREIGN.scales, 1e6)
        session.predictor = copy.copy(session.predictor)
        session.predictor.calibration = replace(session.predictor.calibration, laboratory_distance=distance)
        assert session.check.origin is Origin.KNOWN
    order = []
    while (best := next_to_teach(session.specimen.cells)) is not None:
        order.append(best.number)
        session.act("label", session.view.cell.number if len(order) > 1 else best.number, "monocyte", "Ana")
        if len(order) > 1:
            assert session.specimen.cells[best.number - 1].review is not None
    assert sorted(order) == list(range(1, len(CELLS) + 1)) != order


def test_a_laboratory_that_is_being_loaded_is_named(kept: Laboratories, tab: Tab):
    tab.take(tab.handler("on_choosing")("Ward 3"))
    assert "Ward 3 is being loaded." in tab.text()
    assert tab.handler("on_choosing")(NO_LABORATORY) == gr.skip()
    tab.read()
    tab.choose("Ward 3")
    assert "is being loaded" not in tab.text()


def test_few_cells_say_nothing(tab: Tab):
    tab.read([2, 4])
    assert "another laboratory" not in tab.text()


@pytest.mark.slow
def test_a_laboratory_is_adapted_to_kept_and_used_by_the_next(tab: Tab, predictor: Predictor, tmp_path: Path):
    store = Laboratories(tmp_path / "kept")
    tab.read()
    tab.review()

    reported = tab.adapt()

    assert reported[0][0] == 0 and reported[-1][0] <= 1 and all(step for _, step in reported)
    if tab.session.adapted.adaptation.warning is None:
        assert "Of 12 reviewed cells, each held back once" in tab.text()
    else:
        # An untrained network may not gain. Then its adaptation is not used; that it is kept and used is tried alike.
        assert "The cells are predicted by the model as it was." in tab.text()
        assert tab.session.model == predictor.identity
        tab.session.adapted = replace(
            tab.session.adapted, adaptation=replace(tab.session.adapted.adaptation, warning=None)
        )
        tab.session.use(tab.session.adapted.predictor)
    assert tab.session.model.version != predictor.identity.version
    assert all(cell.review is not None for cell in tab.session.specimen.cells if cell.state is CellState.COUNTED)
    adapted = tab.session.adapted
    assert adapted.predictor.identity.name == "tiny, adapted"
    tab.keep(" ")
    assert "Not kept" in tab.text()
    assert store.names() == ()
    tab.keep("Ward 3", cells=True)
    assert store.names() == ("Ward 3",)
    assert len(store.cells("Ward 3")) == 12
    assert "Counted under Ward 3." in tab.text()
    # Kept again without the tick, the pictures stay: nobody asked to delete them.
    tab.session.adapted = adapted
    tab.keep("Ward 3")
    assert len(store.cells("Ward 3")) == 12
    (csv,) = (export for export in EXPORTS if export.key == "csv")
    file = make_file(tab.session, csv, DEFAULT_RANGES, name="S 1", leucocytes="", reviewer="Ana")
    assert "tiny, adapted to Ward 3" in base64.b64decode(file["content"]).decode("utf-8-sig")

    other = Tab(predictor, store, tmp_path)
    other.read()
    other.choose("Ward 3")
    assert other.session.model.version == tab.session.model.version
    assert [cell.prediction.label for cell in other.session.specimen.cells] == [
        cell.prediction.label for cell in tab.session.specimen.cells
    ]
    other.choose(NO_LABORATORY)
    assert other.session.model.version == predictor.identity.version


def test_what_is_read_under_a_laboratory_is_recorded(
    tab: Tab, predictor: Predictor, store: Laboratories, tmp_path: Path
):
    adapted = make_adapted(predictor, tmp_path / "adapted")
    store.keep("Ward 3", predictor, adapted.folder, adapted.adaptation)
    tab.choose("Ward 3")
    # To it, too, everything is another laboratory: a new lot of stain.
    own = tab.session.predictor
    own.calibration = replace(
        own.calibration, laboratory_distance=replace(own.calibration.laboratory_distance, limit=1e-6)
    )
    tab.read()
    (record,) = store.show("Ward 3").history
    assert record.cells == 12 and record.unlike
    assert "do not look like those of Ward 3 as it was kept, since 2" in tab.text()


def test_cancelling_leaves_all_as_it_was(tab: Tab, predictor: Predictor):
    tab.read()
    tab.review()
    before = tab.session.specimen.cells
    events = tab.handler("on_adapt_specimen")(tab.session, "", lambda share, desc: None)
    tab.take(next(events))
    tab.handler("on_cancel")(tab.session)
    for update in events:
        tab.take(update)
    assert "Cancelled." in tab.text()
    assert tab.session.model == predictor.identity
    assert tab.session.specimen.cells == before
    assert tab.session.adapted is None


def test_too_few_cells_are_named(tab: Tab):
    tab.read()
    tab.adapt()
    assert "Not adapted" in tab.text() and "Too few cells: 12, of which are reviewed: none" in tab.text()


def test_a_page_that_keeps_nothing_offers_no_keeping(predictor: Predictor, tmp_path: Path):
    tab = Tab(predictor, None, tmp_path)
    tab.read()
    assert "another laboratory" in tab.text()
    assert not any(fn.name == "on_keep" for fn in tab.page.fns.values())


# ---- what would be learned from


@pytest.fixture
def kept(predictor: Predictor, store: Laboratories, tmp_path: Path) -> Laboratories:
    """A laboratory with 60 reviewed cells of two classes."""
    adapted = make_adapted(predictor, tmp_path / "adapted")
    store.keep("Ward 3", predictor, adapted.folder, adapted.adaptation, keep_cells=True)
    cells = zip(paint_cells([2, 4] * 30, size=48, seed=9), [2, 4] * 30, strict=True)
    store.add_cells(
        "Ward 3",
        [AdaptationCell(Image.fromarray(pixels), label, f"{index}") for index, (pixels, label) in enumerate(cells)],
    )
    return store


def test_kept_cells_are_offered_and_learned_from(kept: Laboratories, tab: Tab, monkeypatch: pytest.MonkeyPatch):
    tab.read()
    assert tab.offer() == ""  # without the laboratory, nothing is reviewed, and 12 cells are too few
    assert REVIEW_FIRST in tab.text()
    tab.choose("Ward 3")
    assert tab.offer() == "Adapt the model to these photographs, with 60 cells kept of Ward 3"
    for number in (1, 2, 3):
        tab.session.act("label", number, CLASS_NAMES[CELLS[number - 1]], "Ana")
    tab.choose("Ward 3")
    offered = "Adapt the model to these photographs, with 3 cells that you reviewed and 60 cells kept of Ward 3"
    assert tab.offer() == offered
    given = []

    def take(base, cells, progress, cancelled):
        given.extend(cells)
        raise WbcError("enough")

    monkeypatch.setattr("wbc_hf.web.laboratory_panel.adapt_model", take)
    tab.adapt()
    assert len(given) == 72
    assert sum(cell.label is not None for cell in given) == 63
    tab.choose(NO_LABORATORY)
    assert tab.offer() == ""


def test_a_laboratory_without_kept_cells_offers_what_it_can(
    kept: Laboratories, tab: Tab, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
):
    kept.forget_cells("Ward 3")
    another = LaboratoryCheck(Origin.ANOTHER, 12, 3.0)
    monkeypatch.setattr("wbc_hf.web.session.check_laboratory", lambda *_: another)
    tab.choose("Ward 3")
    tab.read()
    assert tab.offer() == "" and REVIEW_FIRST in tab.text() and ADAPT_AGAIN not in tab.text()
    tab.review()
    tab.choose("Ward 3")
    assert tab.offer() == "Adapt the model to these photographs, with 12 cells that you reviewed"
    assert ADAPT_AGAIN in tab.text()


def test_labels_that_are_not_used_are_not_promised():
    assert describe_offer(CellSupply(250, 30, 0, False), None) == "Adapt the model to these photographs"


def test_photographs_of_two_laboratories_are_not_adapted_to(
    kept: Laboratories, tab: Tab, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
):
    """Not under a kept laboratory either, and not by whoever clicks before the page says so."""
    mixed = LaboratoryCheck(Origin.MIXED, 12, 1.0)
    monkeypatch.setattr("wbc_hf.web.session.check_laboratory", lambda *_: mixed)
    tab.choose("Ward 3")
    tab.read()
    tab.review()
    tab.choose("Ward 3")
    assert TWO_LABORATORIES in tab.text() and tab.offer() == ""
    version = tab.session.model.version
    tab.adapt()
    assert "Not adapted" in tab.text() and TWO_LABORATORIES.rstrip(".") in tab.text()
    assert tab.session.model.version == version and tab.session.adapted is None


def test_a_laboratory_that_is_removed_meanwhile_is_named(kept: Laboratories, tab: Tab):
    tab.choose("Ward 3")
    tab.read()
    kept.remove("Ward 3")
    tab.adapt()
    assert "Not adapted" in tab.text() and "Ward 3: no laboratory of this name" in tab.text()


# ---- whose turn it is


def test_a_second_adaptation_waits_is_told_so_and_gives_its_own_result(tab: Tab, predictor: Predictor, tmp_path: Path):
    other = Tab(predictor, None, tmp_path)
    for visitor in (tab, other):
        visitor.read()
        visitor.review()
    told = threading.Event()

    def report(share: float, desc: str) -> None:
        steps.append(desc)
        if desc.startswith("Waiting for another adaptation"):
            told.set()

    steps: list[str] = []
    with ThreadPoolExecutor(1) as threads:
        with adaptation_turn(lambda step, share: None, lambda: False):
            events = other.handler("on_adapt_specimen")(other.session, "", report)
            second = threads.submit(lambda: [other.take(update) for update in events])
            assert told.wait(60) and not second.done()
        second.result(120)
    assert steps[0].startswith("Waiting for another adaptation") and steps[-1].startswith("Done")
    assert not any(step.startswith("Waiting") for step in steps[1:])
    assert other.session.adapted is not None and tab.session.adapted is None


def test_cancelling_while_waiting_leaves_all_as_it_was(tab: Tab, predictor: Predictor):
    tab.read()
    tab.review()
    before = tab.session.specimen.cells
    steps: list[str] = []

    def report(share: float, desc: str) -> None:
        steps.append(desc)
        tab.handler("on_cancel")(tab.session)

    with adaptation_turn(lambda step, share: None, lambda: False):
        for update in tab.handler("on_adapt_specimen")(tab.session, "", report):
            tab.take(update)
    assert len(steps) == 1 and "Cancelled. The model is as it was before." in tab.text()
    assert tab.session.model == predictor.identity and tab.session.specimen.cells == before
    # The next does not wait for the one that has left.
    with adaptation_turn(lambda step, share: pytest.fail(step), lambda: False):
        pass
