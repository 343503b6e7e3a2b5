"""Whole slides on the page: by their path in the server's folder or uploaded, field after field; no file beside."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image

from tests.adapted_models import build_tiny_model
from tests.conftest import SlideFile
from wbc_hf.data import paint_field
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.inference import Predictor
from wbc_hf.reports import to_json
from wbc_hf.smear import DEFAULT_RANGES, SlideMap, file_digest, sign
from wbc_hf.web import build_page
from wbc_hf.web.intake import Intake
from wbc_hf.web.session import Session
from wbc_hf.web.slides import SlideFolder, check_given, find_rest
from wbc_hf.web.specimen_tab import ALL, GOALS
from wbc_hf.web.uploads import Upload

pytestmark = pytest.mark.usefixtures("unserved")

REQUEST = SimpleNamespace(session_hash="one", username=None)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """Not calibrated, so that every cell waits for review."""
    return Predictor(*build_tiny_model(), name="tiny")


@pytest.fixture
def folder(slide_file: SlideFile, tmp_path: Path) -> Path:
    """A folder of slides beside a secret."""
    (tmp_path / "slides" / "ward 3").mkdir(parents=True)
    shutil.copy(slide_file.path, tmp_path / "slides" / "ward 3" / "smear.tif")
    shutil.copy(slide_file.path, tmp_path / "secret.tif")
    return tmp_path / "slides"


class Page:
    """The handlers of a page, and what they left in each part of it."""

    def __init__(self, predictor: Predictor, slides: Path | None):
        self.page = build_page(predictor, slides=slides)
        self.shown: dict = {}

    def states(self, name: str, *given: object) -> Iterator[str]:
        """Call a handler, and yield all texts that the page shows after each state."""
        handler = next(fn.fn for fn in self.page.fns.values() if fn.name == name)
        for update in handler(*given, REQUEST):
            self.shown |= {component._id: value for component, value in update.items()}
            yield self.text()

    def text(self) -> str:
        return "".join(str(value.value if isinstance(value, gr.Button) else value) for value in self.shown.values())

    @property
    def session(self) -> Session:
        state = next(block for block in self.page.blocks.values() if isinstance(block, gr.State))
        return self.shown[state._id]


def test_slides_of_the_folder_are_listed_and_nothing_else_is_read(folder: Path):
    (folder / "notes.txt").write_text("none")
    (folder / "scan.svs").touch()
    (folder / "link.tif").symlink_to(folder.parent / "secret.tif")
    (folder / "ward 4").symlink_to(folder.parent)
    within = folder / "alias.tif"
    within.symlink_to(folder / "ward 3" / "smear.tif")
    slides = SlideFolder(folder)
    assert slides.names() == ["alias.tif", "scan.svs"]  # a slide by its first path
    assert slides.find("ward 3/smear.tif").samefile(folder / "ward 3" / "smear.tif")
    outside = ["../secret.tif", str(folder.parent / "secret.tif"), "link.tif", "ward 4/secret.tif", "/etc/passwd"]
    for name in [*outside, "notes.txt", "nowhere.svs", "", ".", "ward 3", "a\0b.tif", "x" * 5000]:
        with pytest.raises(WbcError, match="is no slide in the server's folder"):
            slides.find(name)


def test_a_folder_that_is_not_there_is_named(predictor: Predictor, tmp_path: Path):
    with pytest.raises(WbcError, match=r"--slides .*nowhere: there is no such folder"):
        build_page(predictor, slides=tmp_path / "nowhere")


def test_a_slide_of_the_server_is_read_to_a_goal_and_on(
    predictor: Predictor, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(GOALS, "5 cells", 5)
    page = Page(predictor, folder)
    texts = list(page.states("on_slide", "ward 3/smear.tif", "Find out", "5 cells", ""))
    assert any("Looking for the monolayer of ward 3/smear.tif" in text for text in texts)
    (slide,) = page.session.specimen.slides
    read = len(page.session.specimen.pictures)
    assert page.session.leucocytes >= 5 and 0 < read < len(slide.fields)
    assert f"{read} of {len(slide.fields)} fields of the monolayer were read" in texts[-1]
    assert texts[-1].count('<rect class="wbc-read"') == read
    assert f"Read the other {len(slide.fields) - read} field" in texts[-1]
    assert page.session.specimen.pictures[0].name == "ward 3/smear.tif, field 1"

    before = page.session.leucocytes
    list(page.states("on_go_on", page.session, "Find out", "5 cells", ""))
    names = [picture.name for picture in page.session.specimen.pictures]
    assert names == [f"ward 3/smear.tif, field {number}" for number in range(1, len(names) + 1)]
    assert len(names) > read and page.session.leucocytes > before
    assert len(page.session.specimen.slides) == 1

    (*_, last) = page.states("on_slide", "ward 3/smear.tif", "Find out", "5 cells", "")
    assert "is in this specimen already" in last
    assert len(page.session.specimen.pictures) == len(names)


def _read_some(predictor: Predictor, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Page, bytes]:
    """A slide of which some fields were read, as the page has it and as JSON."""
    monkeypatch.setitem(GOALS, "5 cells", 5)
    page = Page(predictor, folder)
    list(page.states("on_slide", "ward 3/smear.tif", "Find out", "5 cells", ""))
    snapshot = page.session.specimen.snapshot(predictor.identity, DEFAULT_RANGES)
    assert 0 < len(snapshot.pictures) < len(snapshot.slides[0].fields)
    return page, to_json(snapshot, pictures=True).encode()


def _load(page: Page, content: bytes, tmp_path: Path) -> str:
    (tmp_path / "s.json").write_bytes(content)
    (last,) = page.states("on_files", [{"path": str(tmp_path / "s.json"), "orig_name": "s.json"}], "Find out", ALL, "")
    return last


def _whole(predictor: Predictor, folder: Path) -> list[tuple]:
    """What is found where the slide is read without a stop."""
    page = Page(predictor, folder)
    list(page.states("on_slide", "ward 3/smear.tif", "Find out", ALL, ""))
    list(page.states("on_go_on", page.session, "Find out", ALL, ""))
    return _found(page.session)


def _found(session: Session) -> list[tuple]:
    contents = session.specimen.contents
    return [(it.name, it.place) for it in contents.pictures] + [
        (it.picture, it.box, it.label) for it in contents.cells
    ]


@pytest.mark.slow
@pytest.mark.parametrize("moved", ["", pytest.param("ward 9", marks=pytest.mark.long)])
def test_a_slide_that_was_loaded_back_is_read_on(
    predictor: Predictor, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: str
):
    _, content = _read_some(predictor, folder, monkeypatch)
    if moved:
        (folder / "ward 3").rename(folder / moved)
    page = Page(predictor, folder)
    text = _load(page, content, tmp_path)
    (slide,) = page.session.specimen.slides
    left = len(slide.fields) - len(page.session.specimen.pictures)
    assert f"Read the other {left} field" in text and "give the slide again" not in text
    list(page.states("on_go_on", page.session, "Find out", ALL, ""))
    if not moved:
        assert _found(page.session) == _whole(predictor, folder)
    pictures = page.session.specimen.pictures
    assert [it.name for it in pictures] == [f"ward 3/smear.tif, field {n}" for n in range(1, len(slide.fields) + 1)]
    assert page.session.unread == [] and len(page.session.specimen.slides) == 1


@pytest.mark.slow
def test_a_slide_that_is_gone_is_named_and_goes_on_where_it_is_given_again(
    predictor: Predictor, folder: Path, slide_file: SlideFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _, content = _read_some(predictor, folder, monkeypatch)
    (folder / "ward 3" / "smear.tif").rename(tmp_path / "elsewhere.tif")
    shutil.copy(tmp_path / "secret.tif", folder / "ward 3" / "smear.tif")
    with (folder / "ward 3" / "smear.tif").open("ab") as file:
        file.write(b"another slide under the name")
    for slides, said in ((folder, "is not in the server"), (None, "this page has no folder of slides")):
        page = Page(predictor, slides)
        text = _load(page, content, tmp_path)
        assert said in text and text.count("give the slide again") == 1
        assert page.session.unread == []
    read, cells = len(page.session.specimen.pictures), len(page.session.specimen.cells)
    given = [{"path": str(slide_file.path), "orig_name": "again.tif"}]
    list(page.states("on_files", given, "Find out", "100 cells", ""))
    pictures = page.session.specimen.pictures
    assert [it.name for it in pictures] == [f"ward 3/smear.tif, field {n}" for n in range(1, len(pictures) + 1)]
    assert len(pictures) > read and len(page.session.specimen.cells) > cells


def test_another_slide_of_the_same_name_is_not_read_on(
    predictor: Predictor, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _, content = _read_some(predictor, folder, monkeypatch)
    with (folder / "ward 3" / "smear.tif").open("ab") as file:
        file.write(b"scanned anew")
    page = Page(predictor, folder)
    _load(page, content, tmp_path)
    read = len(page.session.specimen.pictures)
    (*_, last) = page.states("on_slide", "ward 3/smear.tif", "Find out", ALL, "")
    assert "is another slide than the one that the specimen was read from" in last
    assert len(page.session.specimen.pictures) == read


def test_a_slide_that_cannot_be_read_now_is_named_and_its_place_on_the_server_is_not(
    predictor: Predictor, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    path = folder / "ward 3" / "smear.tif"
    known = SlideMap(path.name, (4096, 2560), 0.25, False, b"", ((0, 0, 640, 480),), file_digest(path))
    session = Session(predictor)
    session.specimen.add_slide(known)

    def refuse(path: str | Path, name: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    for module in ("slides", "intake"):
        monkeypatch.setattr(f"wbc_hf.web.{module}.open_slide", refuse)
    uploads, (sentence,) = find_rest(session.specimen, SlideFolder(folder))
    intake = Intake(session, [Upload(str(path), path.name)], None, None)
    intake.run()
    (remark,) = intake.remarks
    for said in (sentence, remark.reason):
        assert "cannot be read now (Permission denied)" in said and str(folder) not in said
    assert uploads == [] and "smear.tif" in sentence


def test_a_signed_specimen_says_once_that_nothing_is_read_into_it(
    predictor: Predictor, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    page, _ = _read_some(predictor, folder, monkeypatch)
    left, read = list(page.session.unread), len(page.session.specimen.pictures)
    page.session.specimen.review_many({it.number: "monocyte" for it in page.session.specimen.cells}, "Ana")
    sign(page.session.specimen, [], "Ana")
    (last,) = page.states("on_go_on", page.session, "Find out", ALL, "")
    assert last.count("This specimen is signed") == 1
    assert page.session.unread == left and len(page.session.specimen.pictures) == read


def _mirax(folder: Path) -> Path:
    (folder / "m").mkdir()
    (folder / "m" / "Slidedat.ini").write_text("[DATAFILE]\nFILE_0 = Data0000.dat\n")
    (folder / "m" / "Data0000.dat").write_bytes(b"tiles")
    (folder / "m.mrxs").write_bytes(b"slide")
    return folder / "m.mrxs"


def _hamamatsu(folder: Path, image: str = "tile.jpg") -> Path:
    (folder / "tile.jpg").write_bytes(b"tiles")
    text = f"[Virtual Microscope Specimen]\nNoLayers=1\nImageFile={image}\nPath=/\n"
    (folder / "h.vms").write_text(text)
    return folder / "h.vms"


def _dicom(folder: Path) -> Path:
    (folder / "d").mkdir()
    (folder / "d" / "1.dcm").write_bytes(bytes(128) + b"DICM")
    return folder / "d" / "1.dcm"


def test_files_of_a_slide_that_lead_out_of_the_folder_are_refused_by_name(folder: Path):
    secret = folder.parent / "secret.tif"
    mirax, hamamatsu, dicom = _mirax(folder), _hamamatsu(folder), _dicom(folder)
    slides = SlideFolder(folder)
    for path in (mirax, hamamatsu, dicom):
        assert slides.find(path.relative_to(folder).as_posix()) == path

    (folder / "m" / "Data0000.dat").unlink()
    (folder / "m" / "Data0000.dat").symlink_to(secret)
    (folder / "tile.jpg").unlink()
    (folder / "tile.jpg").symlink_to(secret)
    (folder / "d" / "2.dcm").symlink_to(secret)
    for name, beside in (("m.mrxs", "m/Data0000.dat"), ("h.vms", "tile.jpg"), ("d/1.dcm", "2.dcm")):
        with pytest.raises(WbcError, match=f"^{name}: is not read, since “{beside}”, which belongs to it, leads out"):
            slides.find(name)
    for image in ("../secret.tif", str(secret)):
        (folder / "h.vms").write_text(f"[Virtual Microscope Specimen]\nImageFile(1,0) = {image}\n")
        with pytest.raises(WbcError, match=r"h.vms: is not read, since “.*secret\.tif”, which belongs"):
            slides.find("h.vms")
    (folder / "m" / "Slidedat.ini").write_text("[DATAFILE]\nFILE_0 = ../../secret.tif\n")
    (folder / "m" / "Data0000.dat").unlink()
    with pytest.raises(WbcError, match=r"m.mrxs: is not read, since “.*secret\.tif”"):
        slides.find("m.mrxs")
    shutil.rmtree(folder / "m")
    (folder / "m").symlink_to(folder.parent)
    with pytest.raises(WbcError, match=r"m\.mrxs: is not read, since “m”"):
        slides.find("m.mrxs")


def test_a_slide_with_a_file_outside_is_refused_on_the_page(predictor: Predictor, folder: Path):
    path = _hamamatsu(folder, "../secret.tif")
    (text,) = Page(predictor, folder).states("on_slide", path.name, "Find out", ALL, "")
    assert text.count("leads out of the server") == 1


def test_a_slide_that_is_uploaded_is_read(predictor: Predictor, slide_file: SlideFile):
    page = Page(predictor, None)
    given = [{"path": str(slide_file.path), "orig_name": "S 17.tif"}]
    (*_, last) = page.states("on_files", given, "Find out", "100 cells", "")
    (slide,) = page.session.specimen.slides
    assert slide.name == "S 17.tif"
    assert {picture.place.slide for picture in page.session.specimen.pictures} == {"S 17.tif"}
    assert str(slide_file.path.parent) not in last


def test_stopping_during_the_look_leaves_the_slide_for_later(predictor: Predictor, folder: Path):
    page = Page(predictor, folder)
    reading = page.states("on_slide", "ward 3/smear.tif", "Find out", ALL, "")
    next(reading)
    page.session.stopped = True
    *_, last = reading
    assert page.session.specimen.pictures == () and len(page.session.unread) == 1
    assert "0 of 1 fields of the monolayer were read" in last
    list(page.states("on_go_on", page.session, "Find out", "100 cells", ""))
    assert len(page.session.specimen.pictures) > 0


@pytest.mark.parametrize("name", ["../secret.tif", "nothing.svs", None])
def test_what_is_not_in_the_folder_is_refused_on_the_page(name: str | None, predictor: Predictor, folder: Path):
    page = Page(predictor, folder)
    (text,) = page.states("on_slide", name, "Find out", ALL, "")
    assert "is no slide in the server" in text


def test_without_a_folder_no_slide_of_the_server_is_read(predictor: Predictor, slide_file: SlideFile):
    (text,) = Page(predictor, None).states("on_slide", str(slide_file.path), "Find out", ALL, "")
    assert "This page reads no slides of the server" in text


def test_a_broken_slide_is_named_and_the_photographs_beside_it_are_read(predictor: Predictor, tmp_path: Path):
    (tmp_path / "broken.svs").write_bytes(b"II*\0 no slide")
    Image.fromarray(paint_field([0, 1, 4], width=480, height=360, seed=3).image).save(tmp_path / "field.png")
    given = [{"path": str(tmp_path / name), "orig_name": name} for name in ("broken.svs", "field.png")]
    page = Page(predictor, None)
    (*_, last) = page.states("on_files", given, "Whole fields", ALL, "")
    assert "<b>broken.svs</b>: cannot be opened as a slide (Aperio" in last
    assert [picture.name for picture in page.session.specimen.pictures] == ["field.png"]


@pytest.mark.parametrize("name", ["slide.vms", "slide.VMU", "slide.mrxs", "slide.ndpis"])
def test_a_file_that_names_others_on_the_server_is_not_read_of_a_visitor(name: str):
    found = check_given(Upload(f"/uploads/{name}", name))
    assert isinstance(found, UnreadableImageError)
    assert "several files" in str(found)
    other = Upload("/uploads/slide.svs", "slide.svs")
    assert check_given(other) is other
