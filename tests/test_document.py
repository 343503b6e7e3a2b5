"""What "Everything (JSON)" writes can be loaded back, and nothing else can."""

import base64
import io
import json
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from operator import getitem
from pathlib import Path
from types import FrameType

import pytest
from PIL import Image

from tests.kept_specimens import MODEL, add_field, fill, fill_from_slide, new_cell, picture_bytes, slides_of
from wbc_hf.errors import WbcError
from wbc_hf.reports import EXPORTS, to_json
from wbc_hf.smear import DEFAULT_RANGES, Action, CellType, Snapshot, Specimen, load_document
from wbc_hf.smear import document as document_module
from wbc_hf.store import SpecimenStore

EVERYTHING = next(export for export in EXPORTS if export.key == "json")


def take_snapshot(specimen: Specimen) -> Snapshot:
    return specimen.snapshot(MODEL, DEFAULT_RANGES)


@pytest.fixture(scope="module")
def specimen() -> Specimen:
    specimen = Specimen()
    fill(specimen)
    return specimen


@pytest.fixture(scope="module")
def content(specimen: Specimen) -> bytes:
    return EVERYTHING.make(take_snapshot(specimen))


def test_a_specimen_comes_back_as_it_was(specimen: Specimen, content: bytes):
    loaded = Specimen()
    assert load_document(content, "s.json", loaded, "Cy") == MODEL

    for before, after in ((specimen.pictures, loaded.pictures), (specimen.cells, loaded.cells)):
        for one, other in zip(before, after, strict=True):
            hidden = ("small", "crop")
            assert {k: v for k, v in vars(one).items() if k not in hidden} == {
                k: v for k, v in vars(other).items() if k not in hidden
            }
    assert [it.preview for it in loaded.pictures] == [it.preview for it in specimen.pictures]
    assert [it.image for it in loaded.cells] == [it.image for it in specimen.cells]
    *before, last = loaded.history
    assert tuple(before) == specimen.history
    assert (last.action, last.who, last.after, last.number) == (Action.LOADED, "Cy", "s.json", len(before) + 1)
    assert loaded.size == specimen.size
    differentials = [take_snapshot(it).differential for it in (specimen, loaded)]
    assert differentials[0] == differentials[1]


def test_places_on_slides_come_back():
    specimen, loaded, second = Specimen(), Specimen(), Specimen()
    fill_from_slide(specimen)
    content = EVERYTHING.make(take_snapshot(specimen))
    load_document(content, "s.json", loaded)
    second.load_unread(specimen, "key")
    for other in (loaded, second):
        assert slides_of(other) == slides_of(specimen)
        assert [it.place for it in other.pictures] == [it.place for it in specimen.pictures]
    assert loaded.size == specimen.size
    document = json.loads(content)
    assert [it["slide_box"] for it in document["cells"]] == [None, [900, 401, 906, 406], [1540, 401, 1546, 406]]
    again = json.loads(EVERYTHING.make(take_snapshot(loaded)))
    assert [again[key] for key in ("slides", "pictures")] == [document[key] for key in ("slides", "pictures")]
    assert "thumbnail" not in json.loads(to_json(take_snapshot(specimen)))["slides"][0]


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("slides", 0, "name"), "other.svs", "picture 2: its slide 'smear.svs' is not here"),
        (("slides", 0, "thumbnail"), None, r"slide smear\.svs: has no pixels in this file"),
        (("slides", 0, "width"), 0, r"slides\.0\.width is 0"),
        (("slides", 0, "fields", 1), [1, 2, 3], r"slides\.0\.fields\.1"),
        (("pictures", 1, "place", "scale"), 0, r"pictures\.1\.place\.scale is 0"),
    ],
)
def test_names_what_does_not_fit_of_a_slide(path: tuple[str | int, ...], value: object, problem: str):
    specimen = Specimen()
    fill_from_slide(specimen)
    content = EVERYTHING.make(take_snapshot(specimen))
    with pytest.raises(WbcError, match=rf"^s\.json: .*{problem}"):
        load_document(change(content, *path, value=value), "s.json", Specimen())


def test_what_was_taken_out_can_be_put_back_after_loading(content: bytes):
    loaded = Specimen()
    load_document(content, "s.json", loaded)
    loaded.put_back(2)
    assert [cell.duplicate_of for cell in loaded.cells if cell.picture == 2] == [1, None]
    loaded.remove(1)
    assert next(cell for cell in loaded.cells if cell.picture == 2).duplicate_of is None


def test_a_second_word_does_not_wipe_out_the_first(specimen: Specimen):
    said = [(it.who, it.before, it.after) for it in specimen.history if it.cell == 2 and it.action == Action.REVIEWED]
    assert said == [("Ana", "", "monocyte"), ("Ben", "monocyte", "none")]
    assert [event.number for event in specimen.history] == list(range(1, len(specimen.history) + 1))


def test_every_act_is_in_the_history():
    specimen = Specimen()
    add_field(specimen, new_cell(), new_cell(status="review"))
    acts: list[Callable[[], object]] = [
        lambda: specimen.review(1, "monocyte", "A"),
        lambda: specimen.withdraw(1, "B"),
        lambda: specimen.set_reviews({2: None}, "C"),
        lambda: specimen.remove(1, "D"),
        lambda: specimen.put_back(1, "E"),
        lambda: specimen.add_cell(1, new_cell(pointed_at=True), "F"),
        lambda: specimen.discard(3, "G"),
        lambda: specimen.describe("H", comment="late"),
        lambda: specimen.review(1, "monocyte"),
        lambda: specimen.credit("I"),
    ]
    for act in acts:
        before = specimen.history
        act()
        assert specimen.history[: len(before)] == before and len(specimen.history) == len(before) + 1
    assert [it.who for it in specimen.history] == ["", *"ABCDEFGH", "", "I"]
    specimen.describe("J", comment="late")
    specimen.credit("K")
    assert len(specimen.history) == 11  # nothing changed


def test_a_signature_does_not_come_along(specimen: Specimen):
    content = json.loads(to_json(take_snapshot(specimen), pictures=True))
    content["about"]["signature"] = {"name": "Dr. Who", "time": "2026-11-24T21:30:00+00:00", "comment": ""}
    loaded = Specimen()
    load_document(json.dumps(content).encode(), "s.json", loaded)
    assert loaded.about.signature is None


@pytest.mark.parametrize("field", ["name", "patient", "order", "slide", "comment"])
def test_what_is_known_of_a_specimen_is_bounded(field: str):
    specimen = Specimen()
    with pytest.raises(WbcError, match=f"^{field}: has 1,001 characters, and at most 1,000 are kept"):
        specimen.describe(**{field: "n" * 1001})
    assert specimen.about == Specimen().about
    specimen.describe(**{field: "n" * 1000})


# ---- what others wrote


def change(content: bytes, *path: str | int, value: object) -> bytes:
    document = json.loads(content)
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("format",), 3, "format is 3"),
        (("pictures", 0, "width"), 0, r"pictures\.0\.width is 0: should be greater"),
        (("pictures", 0, "width"), 5, r"cell 1: box \(1, 2, 11, 12\) lies outside its picture"),
        (("pictures", 0, "preview"), "AAAA", "picture 1: is no JPEG picture"),
        (("pictures", 0, "preview"), None, "picture 1: has no pixels in this file"),
        (("pictures", 0, "number"), 2, "pictures should be numbered 1, 2, 3"),
        (("pictures", 1, "went"), [99], "picture 2: cell 99 is not one of the 6"),
        (("pictures", 1, "went"), [1], "picture 2: a cell of another picture cannot have gone with it"),
        (("cells", 0, "image"), "AAA", r"cells\.0\.image"),
        (("cells", 0, "box"), [1, 2, 3], r"cells\.0\.box"),
        (("cells", 0, "picture"), 9, "cell 1: picture 9 is not one of the 2"),
        (("cells", 0, "duplicate_of"), 1, "cell 1: cannot be cell 1 again"),
        (("cells", 1, "review", "class"), "blast", r"cells\.1\.review\.class is 'blast'"),
        (("cells", 1, "review", "time"), "2026-11-24T21:30:00", r"cells\.1\.review\.time.*timezone"),
        (("history", 0, "time"), "0001-01-01T00:00:00+14:00", r"history\.0\.time.*UTC has"),
        (("history", 0, "time"), "9999-12-31T23:59:59-14:00", r"history\.0\.time.*UTC has"),
        (("cells", 0, "prediction", "probability"), 1.5, r"cells\.0\.prediction\.probability is 1\.5"),
        (("history", 0, "action"), "erased", r"history\.0\.action is 'erased'"),
        (("history", 0, "picture"), 7, "event 1: is about a cell or picture that is not here"),
        (("about", "name"), 7, r"about\.name is 7: should be a valid string"),
        (("about", "comment"), "n" * 1001, r"about\.comment is .*at most 1000 characters"),
        (("about", "amended"), 1, "amended is 1, and the history says so 0 times"),
        (("about", "leucocyte_count"), -1, r"about\.leucocyte_count is -1"),
    ],
)
def test_names_what_does_not_fit(content: bytes, path: tuple[str | int, ...], value: object, problem: str):
    specimen = Specimen()
    with pytest.raises(WbcError, match=rf"^s\.json: .*{problem}"):
        load_document(change(content, *path, value=value), "s.json", specimen)
    assert specimen.pictures == specimen.cells == specimen.history == ()


@pytest.mark.parametrize(("place", "name"), [(("about",), "name"), (("history", 0), "field")])
def test_names_what_is_missing(content: bytes, place: tuple[str | int, ...], name: str):
    document = json.loads(content)
    del reduce(getitem, place, document)[name]
    with pytest.raises(WbcError, match=rf"^s\.json: has no {'.'.join(map(str, place))}\.{name}"):
        load_document(json.dumps(document).encode(), "s.json", Specimen())


@pytest.mark.parametrize("other", [CellType("Band"), CellType("band", leucocyte=False)])
def test_two_types_of_one_name_are_refused(other: CellType):
    specimen = Specimen()
    add_field(specimen, new_cell(), new_cell())
    specimen.review_many({1: CellType("band"), 2: other}, "Ana")
    with pytest.raises(WbcError, match=rf"^s\.json: .*type '{other.name}' should be the same in all cells"):
        load_document(EVERYTHING.make(take_snapshot(specimen)), "s.json", Specimen())
    specimen.review(2, CellType("band", colour="#123456"), "Ana")
    load_document(EVERYTHING.make(take_snapshot(specimen)), "s.json", Specimen())


def test_a_strip_is_refused(content: bytes):
    file = io.BytesIO()
    Image.new("RGB", (2000, 1)).save(file, "PNG")
    strip = change(content, "cells", 0, "image", value=base64.b64encode(file.getvalue()).decode())
    with pytest.raises(WbcError, match=r"^s\.json: cell 1: has 2000 × 1 pixels, a strip"):
        load_document(strip, "s.json", Specimen())


def test_a_picture_of_billions_of_pixels_is_refused(content: bytes):
    header = bytearray(picture_bytes("PNG"))
    header[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    header[29:33] = struct.pack(">I", zlib.crc32(header[12:29]))
    bomb = change(content, "cells", 0, "image", value=base64.b64encode(header).decode())
    with pytest.raises(WbcError, match=r"^s\.json: cell 1: is no PNG picture that can be read"):
        load_document(bomb, "s.json", Specimen())


def test_pictures_are_bounded_together_before_any_is_decoded(content: bytes, monkeypatch: pytest.MonkeyPatch):
    decoded = []
    monkeypatch.setattr(Image.Image, "load", lambda image: decoded.append(image))
    monkeypatch.setattr(document_module, "MAX_PIXELS", 900)  # 5 cells and 2 fields of 144 pixels differ
    with pytest.raises(WbcError, match=r"^s\.json: its pictures have 0 million pixels, and at most 0 are loaded back"):
        load_document(content, "s.json", Specimen())
    assert not decoded


@pytest.mark.parametrize("kept", [False, True], ids=["not kept", "kept"])
def test_loading_takes_no_more_steps_than_there_is_more_to_load(tmp_path: Path, kept: bool):
    steps, statements = [], []
    for size in (10, 20, 40, 80):
        specimen = Specimen()
        add_field(specimen, *[new_cell(status="review", seed=seed) for seed in range(size)])
        for number in range(4 * size):
            specimen.review(1 + number % size, "monocyte", f"Ana {number}")
        document, store = EVERYTHING.make(take_snapshot(specimen)), SpecimenStore(tmp_path / str(size))
        loaded = store.begin() if kept else Specimen()
        with counting_calls() as calls:
            load_document(document, "s.json", loaded)
        assert loaded.last_event == specimen.last_event + 1
        steps.append(sum(calls.values()))
        statements.append(calls["execute"] + calls["executemany"])
    # Without the first one, which imports and caches what the others find.
    _, small, medium, large = steps
    assert large - medium <= 2.1 * (medium - small)
    assert len(set(statements)) == 1


@contextmanager
def counting_calls() -> Iterator[Counter[str]]:
    """Count the functions that are called, by name, those in C included."""
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, function: object) -> None:
        if event == "call":
            calls[frame.f_code.co_name] += 1
        elif event == "c_call":
            calls[getattr(function, "__name__", "")] += 1

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": 2}', b"[" * 100_000])
def test_names_a_file_that_is_something_else(content: bytes):
    with pytest.raises(WbcError, match=r"^s\.json: "):
        load_document(content, "s.json", Specimen())


def test_a_document_is_bounded(specimen: Specimen, content: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(document_module, "MAX_DOCUMENT_BYTES", 1000)
    with pytest.raises(WbcError, match=r"^s\.json: is larger than"):
        load_document(content, "s.json", Specimen())
    assert not json.loads(EVERYTHING.make(take_snapshot(specimen)))["complete"]
    assert json.loads(content)["complete"]
