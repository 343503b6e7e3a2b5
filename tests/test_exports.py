import csv
import io
import json
import logging
import re
import time
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image
from pypdf import PdfReader

from tests.report_texts import misplaced_texts
from wbc_hf.data import load_leucocytes, paint_cells
from wbc_hf.errors import WbcError
from wbc_hf.inference import ModelIdentity, Prediction
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.reports import (
    EXPORTS,
    FLAG_TEXTS,
    RESEARCH_USE,
    file_name,
    report_page,
    to_cell_folder,
    to_csv,
    to_fhir,
    to_json,
    to_pdf,
)
from wbc_hf.reports import fhir as fhir_module
from wbc_hf.reports.fonts import find_fonts
from wbc_hf.reports.letters import clusters, keep_figures_out, pieces
from wbc_hf.reports.texts import safe_name, time_text
from wbc_hf.smear import DEFAULT_RANGES, Cell, CellState, Flag, Picture, Snapshot, Specimen, sign

MODEL = ModelIdentity("wbc-tiny", "0123456789ab", "Painted cells", "wbc_hf 0.0")
TIME = datetime(2026, 11, 24, 21, 30, tzinfo=UTC)
HOSTILE = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1")
HOSTILE_NAME = "../../血液 $x_1$ <b>&\x07 C:\\temp\\" + "long " * 60
BOX = (10, 20, 58, 68)


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PAINTED = [_png(cell) for cell in paint_cells(np.arange(60) % 5, size=48, seed=5)]


def _prediction(label: int, status: str = "confident") -> Prediction:
    others = tuple((name, 0.025) for index, name in enumerate(CLASS_NAMES) if index != label)
    return Prediction(CLASS_NAMES[label], 0.9, others, status)


def _new(
    label: int, image: bytes, status: str = "confident", *, cut: bool = False, duplicate_of: int | None = None
) -> Cell:
    return Cell(BOX, _prediction(label, status), image, cut, duplicate_of)


def _take_snapshot(specimen: Specimen, model: ModelIdentity = MODEL) -> Snapshot:
    return replace(specimen.snapshot(model, DEFAULT_RANGES), time=TIME)


def _specimen(name: str = "S 17") -> Specimen:
    """Four fields of 15 cells, 12 of each class, and one with a cut cell, a copy and one that waits."""
    specimen = Specimen(name)
    specimen.describe(leucocyte_count=6.5)
    for field in range(4):
        images = enumerate(PAINTED[15 * field : 15 * field + 15])
        specimen.add_picture(
            Picture(0, f"field {field}.jpg", (640, 480), True, b""),
            [_new(index % 5, image) for index, image in images],
        )
    odd = [_new(0, PAINTED[0], cut=True), _new(1, PAINTED[1], duplicate_of=2), _new(2, PAINTED[2], "review")]
    specimen.add_picture(Picture(0, "field 4.jpg", (640, 480), True, b""), odd)
    return specimen


def _without_waiting(snapshot: Snapshot) -> Snapshot:
    """As if the cells that wait had been seen before."""
    specimen = Specimen(snapshot.specimen)
    specimen.describe(leucocyte_count=snapshot.differential.leucocyte_count)
    cells = [cell for cell in snapshot.cells if cell.state is not CellState.WAITING]
    specimen.add_picture(Picture(0, "all.jpg", (640, 480), True, b""), cells)
    return _take_snapshot(specimen)


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    """Cells 1 to 5 accepted, 6 corrected, 7 rejected."""
    specimen = _specimen()
    for number in range(1, 6):
        specimen.review(number, CLASS_NAMES[number - 1], "A. Meyer")
    specimen.review(6, "monocyte", "A. Meyer")
    specimen.review(7, None, "Ö. Yılmaz")
    return _take_snapshot(specimen)


@pytest.fixture(scope="module")
def hostile_snapshot() -> Snapshot:
    """Whatever a user can name is named badly."""
    specimen = Specimen(HOSTILE_NAME)
    for name in (*HOSTILE, HOSTILE_NAME):
        specimen.add_picture(Picture(0, name, (48, 48), False, b""), [_new(3, PAINTED[3])])
    for number, name in enumerate((*HOSTILE, HOSTILE_NAME), 1):
        specimen.review(number, "basophil", name)
    return _take_snapshot(specimen, ModelIdentity(HOSTILE_NAME, "0123456789ab", HOSTILE_NAME, "wbc_hf 0.0"))


@pytest.fixture(scope="module")
def empty_snapshot() -> Snapshot:
    return _take_snapshot(Specimen(), replace(MODEL, trained_on=None))


@pytest.fixture(scope="module")
def contents(snapshot: Snapshot) -> dict[str, bytes]:
    """Every export of `snapshot`, by its key."""
    return {export.key: export.make(snapshot) for export in EXPORTS}


# ---- the table of exports


@pytest.mark.parametrize("key", [export.key for export in EXPORTS])
def test_every_export_says_what_it_is(contents: dict[str, bytes], key: str):
    content = contents[key]
    if key == "cells":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content = archive.read("README.txt") + archive.read("cells.json")
    text = PdfReader(io.BytesIO(content)).pages[0].extract_text() if key == "pdf" else content.decode("utf-8")

    assert RESEARCH_USE in text
    assert all(word in text for word in ("wbc-tiny", "0123456789ab", "wbc_hf 0.0", "Painted cells", "S 17"))
    assert any(time in text for time in ("2026-11-24T21:30:00+00:00", "24 Nov 2026, 21:30"))
    assert "A. Meyer" in text
    assert "Ö. Yılmaz" in text


def test_exports_are_the_same_each_time(snapshot: Snapshot, contents: dict[str, bytes]):
    assert {export.key: export.make(snapshot) for export in EXPORTS} == contents


def test_keys_and_suffixes_tell_exports_apart():
    assert [export.key for export in EXPORTS] == ["pdf", "csv", "json", "fhir", "cells"]
    assert len({export.suffix for export in EXPORTS}) == len(EXPORTS)


@pytest.mark.parametrize(
    ("specimen", "stem"),
    [
        ("", "differential-20261124T2130Z"),
        ("S 17/b", "differential-S-17-b-20261124T2130Z"),
        ("Müller_2", "differential-Muller_2-20261124T2130Z"),
        ("../../etc/passwd", "differential-etc-passwd-20261124T2130Z"),
        ("血液", "differential-20261124T2130Z"),
        ("CON", "differential-CON-20261124T2130Z"),
        ("a" * 500, f"differential-{'a' * 40}-20261124T2130Z"),
    ],
)
def test_file_names_are_safe(specimen: str, stem: str):
    snapshot = _take_snapshot(Specimen(specimen))
    assert [file_name(snapshot, export) for export in EXPORTS] == [
        f"{stem}{suffix}" for suffix in (".pdf", ".csv", ".json", ".fhir.json", ".cells.zip")
    ]


def test_names_lose_what_a_file_cannot_bear():
    assert safe_name('-a:b*c?"d|e.f-') == "a-b-c-d-e-f"


def test_every_flag_has_words():
    assert set(FLAG_TEXTS) == set(Flag)


# ---- CSV


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_csv_has_a_row_for_each_cell(snapshot: Snapshot):
    rows = _rows(to_csv(snapshot))

    assert [int(row["number"]) for row in rows] == list(range(1, 64))
    assert [row["state"] for row in rows] == [cell.state for cell in snapshot.cells]
    for row, cell in zip(rows, snapshot.cells, strict=True):
        assert row["picture"] == snapshot.pictures[cell.picture - 1].name
        assert tuple(int(row[side]) for side in ("x0", "y0", "x1", "y1")) == BOX
        assert row["class"] == (cell.label or "")
        assert float(row[f"probability_{row['model_class']}"]) == float(row["probability"]) == 0.9
        assert sum(float(row[f"probability_{name}"]) for name in CLASS_NAMES) == pytest.approx(1)
    assert [row["number"] for row in rows if row["corrected"] == "yes"] == ["6", "7"]
    assert (rows[5]["class"], rows[5]["model_class"]) == ("monocyte", "basophil")
    assert (rows[6]["class"], rows[6]["reviewer"]) == ("", "Ö. Yılmaz")
    assert datetime.fromisoformat(rows[6]["reviewed"]).utcoffset().total_seconds() == 0
    assert rows[61]["duplicate_of"] == "2"


def test_csv_lines_end_as_the_standard_says(snapshot: Snapshot, contents: dict[str, bytes]):
    text = to_csv(snapshot)
    assert text.count("\r\n") == text.count("\n") == len(snapshot.cells) + 1
    assert contents["csv"] == b"\xef\xbb\xbf" + text.encode()


def test_csv_holds_no_formulas(hostile_snapshot: Snapshot):
    rows = _rows(to_csv(hostile_snapshot))

    assert [row["picture"] for row in rows[:4]] == [f"'{name}" for name in HOSTILE[:4]]
    assert [row["picture"] for row in rows[4:7]] == [r"\t=1", r"\r=1", r"\n=1"]
    assert [row["reviewer"] for row in rows[:4]] == [f"'{name}" for name in HOSTILE[:4]]
    assert not any(value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for row in rows for value in row.values())


def test_a_class_of_the_model_is_no_formula_either():
    specimen = Specimen()
    prediction = Prediction("-blast;=1", 0.6, (("=neutrophil", 0.4),), "confident")
    specimen.add_picture(Picture(0, "a.png", (48, 48), False, b""), [Cell(BOX, prediction, PAINTED[0])])
    (row,) = _rows(to_csv(_take_snapshot(specimen)))
    assert row["model_class"] == "'-blast;'=1"
    assert "probability_-blast;'=1" in row


def test_halves_of_characters_leave_in_every_export():
    specimen = Specimen("S \ud800")
    specimen.add_picture(Picture(0, "\udcff.png", (48, 48), False, b""), [_new(3, PAINTED[3])])
    specimen.review(1, "basophil", "Ana \udfff")
    snapshot = _take_snapshot(specimen)
    for export in EXPORTS:
        assert export.make(snapshot)
    (row,) = _rows(to_csv(snapshot))
    assert (row["specimen"], row["picture"], row["reviewer"]) == (r"S \ud800", r"\xff.png", r"Ana \udfff")
    specimen.withdraw(1)
    specimen.review(1, "basophil")
    specimen.credit("Ben \ud800")
    assert specimen.cells[0].reviewer == r"Ben \ud800"


def test_csv_of_no_cells_is_a_header(empty_snapshot: Snapshot):
    text = to_csv(empty_snapshot)
    assert text.startswith("number,picture,picture_number,x0,y0,x1,y1,state,class,model_class,probability,status,")
    assert _rows(text) == []


def test_csv_knows_the_classes_of_a_larger_model():
    specimen = Specimen()
    prediction = Prediction("blast", 0.6, (("NEUTROPHIL", 0.3), ("Basophil", 0.1)), "confident")
    specimen.add_picture(Picture(0, "a.png", (48, 48), False, b""), [Cell(BOX, prediction, PAINTED[0])])

    (row,) = _rows(to_csv(_take_snapshot(specimen)))

    names = [name for name in row if name.startswith("probability_")]
    assert names == ["probability_Basophil", "probability_NEUTROPHIL", "probability_blast"]
    assert (row["state"], row["class"], row["model_class"]) == ("waiting", "", "blast")


# ---- JSON


def test_json_holds_everything(snapshot: Snapshot):
    content = json.loads(to_json(snapshot))

    assert (content["format"], content["specimen"], content["reviewers"]) == (2, "S 17", ["A. Meyer", "Ö. Yılmaz"])
    assert datetime.fromisoformat(content["time"]) == TIME
    differential = content["differential"]
    assert (differential["total"], differential["enough"], differential["leucocytes"]) == (59, False, 6.5)
    for row, share in zip(differential["shares"], snapshot.differential.shares, strict=True):
        assert (row["class"], row["count"], row["percent"]) == (share.label, share.count, share.percent)
        assert (row["limits"], row["reference"]) == (list(share.limits), list(share.reference))
        assert row["absolute"]["limits"] == list(share.absolute.limits)
        assert Flag(row["flag"]) is share.flag
    assert [picture["name"] for picture in content["pictures"]] == [picture.name for picture in snapshot.pictures]
    assert [cell["state"] for cell in content["cells"]] == [cell.state for cell in snapshot.cells]
    assert content["cells"][5]["review"] | {"time": None} == {
        "class": "monocyte",
        "reviewer": "A. Meyer",
        "time": None,
        "own": None,
    }
    assert content["cells"][5]["prediction"]["probabilities"] == {"basophil": 0.9} | dict.fromkeys(
        CLASS_NAMES[1:], 0.025
    )


def test_json_of_no_cells(empty_snapshot: Snapshot):
    content = json.loads(to_json(empty_snapshot))
    assert content["cells"] == content["pictures"] == []
    assert {share["percent"] for share in content["differential"]["shares"]} == {None}
    assert content["model"]["trained_on"] is None


# ---- PDF


def _page(content: bytes) -> str:
    """The text of the first page of a PDF, A4 and upright."""
    page = PdfReader(io.BytesIO(content)).pages[0]
    assert [float(side) for side in page.mediabox[2:]] == pytest.approx([595.28, 841.89], abs=0.1)
    return page.extract_text()


def test_pdf_shows_the_differential(snapshot: Snapshot, contents: dict[str, bytes]):
    text = _page(contents["pdf"])

    for share in snapshot.differential.shares:
        assert share.label.capitalize() in text
        assert f"{share.percent:.1f}" in text
        assert f"{share.limits[0]:.1f} – {share.limits[1]:.1f}" in text
        assert f"{share.reference[0]:g} – {share.reference[1]:g}" in text
        assert f"{share.absolute.value:.2f}" in text
    assert "Only 59 cells were counted" in text
    assert "1 cell waits for review" in text
    assert "1 waiting for review; 1 rejected by a person; 1 cut off by the border; 1 seen in another" in text
    assert "6 cells by A. Meyer, 1 corrected; 1 cell by Ö. Yılmaz, 1 corrected" in text
    assert "no. 6 basophil → monocyte (A. Meyer); no. 7 eosinophil → none of the five (Ö. Yılmaz)" in text
    assert "12 of 13" in text
    assert DEFAULT_RANGES.source in text
    assert "Signature" in text
    assert "5 fields" in text
    assert "whatever those turn out to be" in text
    assert "1 – 4 possibly high" in text
    assert "1 – 4 high 1.21" in _page(to_pdf(_without_waiting(snapshot)))


def test_pdf_says_a_flag_in_words():
    specimen = Specimen()
    specimen.add_picture(
        Picture(0, "a.png", (48, 48), True, b""), [_new(4, PAINTED[4])] * 65 + [_new(2, PAINTED[2])] * 35
    )
    text = _page(to_pdf(_take_snapshot(specimen)))

    assert "possibly high" in text
    assert "more cells would tell" in text
    assert "No person has reviewed these cells yet" in text
    assert "counted: a differential needs" not in text


def _pages(content: bytes) -> list[str]:
    return [page.extract_text() for page in PdfReader(io.BytesIO(content)).pages]


def test_pdf_leaves_nothing_out_of_long_lists():
    specimen = Specimen("S")
    specimen.add_picture(Picture(0, "a.png", (48, 48), True, b""), [_new(4, PAINTED[4])] * 320)
    for number in range(1, 301):
        specimen.review(number, "lymphocyte", f"{'Long Name ' * 9}{number % 7}")

    pages = _pages(to_pdf(_take_snapshot(specimen)))

    assert all(f"page {number} of {len(pages)}" in page for number, page in enumerate(pages, 1))
    corrections = " ".join(" ".join(pages).split()).partition("Corrected")[2].partition("accepted by a person")[0]
    assert set(map(int, re.findall(r"\b\d+\b", corrections))) >= set(range(1, 301))
    assert " ".join(corrections.split()).count("neutrophil → lymphocyte") == 7
    assert "…" not in "".join(pages)


def test_pdf_shows_any_name(hostile_snapshot: Snapshot, recwarn: pytest.WarningsRecorder):
    first, *more = _pages(to_pdf(hostile_snapshot))
    for text in (first, *more):
        assert _whole(HOSTILE_NAME) in _whole(text)
        assert "…" not in text.replace("[U+…]", "")
    # Files that other tests left open are closed at any time.
    assert not [warning.message for warning in recwarn if not issubclass(warning.category, ResourceWarning)]


def _whole(text: str) -> str:
    """A text without what a line may end in; letters that no font of this computer has as letters again."""
    numbers = re.sub(r"\[((?:U\+[0-9A-F]+\s*)+)\]", lambda found: _letters(found[1]), text)
    return re.sub(r"[\s\x07\u200e]", "", numbers)


def _letters(numbers: str) -> str:
    return "".join(chr(int(number, 16)) for number in re.findall(r"U\+([0-9A-F]+)", numbers))


LONG_NAME = ("Maria-Theresia von Hohenlohe-Schillingsfürst " * 5)[:200]


@pytest.mark.parametrize(
    "name",
    [
        "Щербакова Ёлка Юрьевна",
        "Αλέξανδρος Παπαδόπουλος",
        "王小明",
        "髙橋さくら",
        "김철수",
        "สมใจ กำลังดี",
        "Nguyễn Z̈oë",
        LONG_NAME,
    ],
)
def test_pdf_has_every_name_whole_on_every_page(name: str):
    specimen = Specimen(f"S {name}")
    specimen.add_picture(Picture(0, "a.png", (48, 48), False, b""), [_new(3, PAINTED[3])] * 14)
    specimen.describe("Ana", patient=f"P {name}")
    specimen.review(1, "basophil", name)
    sign(specimen, [], name, "so few")
    pages = _pages(to_pdf(_take_snapshot(specimen)))
    assert len(pages) == 3
    for page in map(_whole, pages):
        assert _whole(f"S {name}") in page and _whole(f"P {name}") in page
    assert _whole(f"1 cell by {name}, 1 corrected") in _whole(pages[0])
    assert _whole(name) in _whole(pages[0].partition("Software")[2])
    assert _whole(f"{name}: signed") in _whole(pages[2])


NOWHERE = "\U0010a000\U0010a001"  # private use: no font has them


def test_letters_that_no_font_has_stand_as_numbers_and_are_copied_as_letters():
    specimen = Specimen(f"A {NOWHERE} B")
    content = to_pdf(_take_snapshot(specimen))
    text = _page(content)
    assert "A [U+10A000 U+10A001] B" in text
    assert text.count("holds the Unicode numbers of letters that no font of this computer has") == 1
    page = PdfReader(io.BytesIO(content)).pages[0].get_contents().get_data().decode("latin-1")
    assert bytes.fromhex(re.search(r"/ActualText <([0-9A-F]+)>", page)[1]).decode("utf-16") == NOWHERE
    assert "[U+" not in _page(to_pdf(_take_snapshot(Specimen("A B"))))


def _write_font(path: Path, letters: str, *, restricted: bool = False, without: str = "") -> None:
    """A font of squares, without one of its tables."""
    names = {ord(letter): f"u{ord(letter):X}" for letter in letters}
    order = [".notdef", *names.values()]
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for place in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(place)
    pen.closePath()
    glyph = pen.glyph()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(order)
    font.setupCharacterMap(names)
    font.setupGlyf(dict.fromkeys(order, glyph))
    font.setupHorizontalMetrics(dict.fromkeys(order, (800, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": path.stem, "styleName": "Regular", "fullName": path.stem, "psName": path.stem})
    font.setupOS2(sTypoAscender=800, fsType=2 if restricted else 0)
    font.setupPost()
    if without:
        del font.font[without]
    font.save(path)


def test_letters_are_of_a_font_that_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _write_font(tmp_path / "Rare.ttf", NOWHERE)
    monkeypatch.setenv("WBC_HF_FONTS", str(tmp_path))
    text = _page(to_pdf(_take_snapshot(Specimen(f"A {NOWHERE} B"))))
    assert f"A {NOWHERE} B" in text
    assert "[U+" not in text


def test_a_font_that_may_not_be_embedded_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _write_font(tmp_path / "Closed.ttf", NOWHERE, restricted=True)
    (tmp_path / "Broken.ttf").write_bytes(b"no font")
    monkeypatch.setenv("WBC_HF_FONTS", str(tmp_path))
    assert "A [U+10A000 U+10A001] B" in _page(to_pdf(_take_snapshot(Specimen(f"A {NOWHERE} B"))))


@pytest.mark.parametrize("table", ["OS/2", "post"])
def test_in_place_of_an_unusable_font_another_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, table: str
):
    _write_font(tmp_path / "A.ttf", NOWHERE, without=table)
    monkeypatch.setenv("WBC_HF_FONTS", str(tmp_path))
    snapshot = _take_snapshot(Specimen(f"A {NOWHERE} B"))
    with caplog.at_level(logging.WARNING, "wbc_hf"):
        assert "A [U+10A000 U+10A001] B" in _page(to_pdf(snapshot))
    assert [record.getMessage().startswith(f"{tmp_path / 'A.ttf'}: this font") for record in caplog.records] == [True]
    _write_font(tmp_path / "B.ttf", NOWHERE)
    assert f"A {NOWHERE} B" in _page(to_pdf(snapshot))


def test_a_font_is_found_once_it_is_there_and_not_once_it_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WBC_HF_FONTS", str(tmp_path))
    snapshot = _take_snapshot(Specimen(f"A {NOWHERE} B"))
    assert "A [U+10A000 U+10A001] B" in _page(to_pdf(snapshot))
    _write_font(tmp_path / "Rare.ttf", NOWHERE)
    assert f"A {NOWHERE} B" in _page(to_pdf(snapshot))
    (tmp_path / "Rare.ttf").unlink()
    assert "A [U+10A000 U+10A001] B" in _page(to_pdf(snapshot))


def _unknown(start: int, count: int) -> str:
    """Letters for private use, which no font has."""
    return "".join(chr(0x100000 + start + index) for index in range(count))


def test_fonts_are_looked_through_once_for_all_names_of_a_report(monkeypatch: pytest.MonkeyPatch):
    looks = []
    monkeypatch.setattr(report_page, "find_fonts", lambda *rest: looks.append(rest[0]) or find_fonts(*rest))
    specimen = Specimen(_unknown(0, 9))
    specimen.add_picture(Picture(0, "a.png", (48, 48), False, b""), [_new(3, PAINTED[3])] * 3)
    specimen.describe(_unknown(10, 9), patient=_unknown(20, 9), order=_unknown(30, 9), comment=_unknown(40, 9))
    specimen.review(1, "basophil", _unknown(50, 9))
    sign(specimen, [], _unknown(60, 9), _unknown(70, 9))
    to_pdf(_take_snapshot(specimen, ModelIdentity(_unknown(80, 9), "1", _unknown(90, 9), "wbc_hf 0.0")))
    assert len(looks) == 1
    assert looks[0] >= set("".join(_unknown(start, 9) for start in range(0, 100, 10)))


@pytest.mark.parametrize(
    "name",
    ["A\u200d" * 200, "👩\u200d" * 200, "a" + "\u1ab0" * 60, "a" + "\U000e0100\u1ab0" * 60, _unknown(0, 60)],
    ids=["joiners", "pictures", "marks", "variants", "unknown"],
)
@pytest.mark.parametrize("width", [25.0, 60.0])
def test_no_line_is_wider_than_its_place(empty_snapshot: Snapshot, name: str, width: float):
    page = report_page.ReportPage(empty_snapshot)
    lines = page.wrap(name, width, 8)
    assert "".join(lines) == name
    assert len(lines) > 1 and not page.fits(name, width, 8)
    assert all(page.fits(line, width, 8) for line in lines)


def test_a_single_letter_fits_only_where_it_has_room(empty_snapshot: Snapshot):
    page = report_page.ReportPage(empty_snapshot)
    assert page.fits("W", 5, 8) and not page.fits("W", 1, 8)


@pytest.mark.slow
def test_names_of_many_unknown_letters_leave_room_for_the_rest():
    specimen = Specimen(_unknown(0, 500))
    specimen.add_picture(Picture(0, "a.png", (48, 48), False, b""), [_new(3, PAINTED[3])] * 14)
    specimen.describe("Ana", patient=_unknown(500, 500))
    sign(specimen, [], _unknown(1000, 500), "so few")
    content = to_pdf(_take_snapshot(specimen, replace(MODEL, name=_unknown(1500, 500))))
    pages = _pages(content)
    lines = [line for page in pages for line in page.splitlines() if "…, in whole" not in line]
    whole = "".join(map(_letters, lines))
    assert all(_unknown(start, 500) in whole for start in range(0, 2000, 500))
    assert [page.count("…, in whole from page 1 on") for page in pages] == [0] + [2] * (len(pages) - 1)
    assert pages[0].count("…, in whole in the history") == 2
    assert all(f"page {number} of {len(pages)}" in page for number, page in enumerate(pages, 1))
    assert not list(misplaced_texts(content))


def test_a_line_ends_at_no_mark_and_between_chinese_letters():
    assert list(clusters("e\u0301กำx")) == ["e\u0301", "ก", "ำ", "x"]
    assert list(clusters("👩🏽\u200d🔬.")) == ["👩🏽\u200d🔬", "."]
    family = "\u200d".join("👨🏽👩🏽👧🏽👦🏽"[index : index + 2] for index in range(0, 8, 2))
    assert list(clusters(f"{family}.")) == [family, "."]
    assert list(clusters("A\u200dB")) == ["A\u200d", "B"]
    assert max(map(len, clusters("a" + 60 * "\u0301"))) == 12
    assert list(pieces("S 17 血液b: c")) == ["S ", "17 ", "血", "液", "b: ", "c"]
    assert "".join(pieces(HOSTILE_NAME)) == HOSTILE_NAME


def test_a_figure_after_a_name_from_right_to_left_stays_beside_it():
    assert keep_figures_out("2 by דוד, 1 corrected") == "2 by דוד\u200e, 1 corrected"
    assert keep_figures_out("Ana, 1") == "Ana, 1"


@pytest.mark.parametrize("name", ["דוד כהן", "محمد علي"])
def test_pdf_runs_from_right_to_left_where_a_name_does(name: str):
    """Readers of PDF turn what they find on the page: a name that is written the wrong way round comes back so."""
    specimen = Specimen(name)
    specimen.add_picture(Picture(0, "a.png", (48, 48), False, b""), [_new(3, PAINTED[3])] * 3)
    specimen.review(1, "basophil", name)
    text = _page(to_pdf(_take_snapshot(specimen)))
    assert text.count(name) == 2
    assert "[U+" not in text


@pytest.mark.parametrize("mark", ["\ufeff", "\u202e", "\u2066", "\u200b"])
def test_pdf_holds_no_marks_that_nobody_sees(mark: str):
    content = to_pdf(_take_snapshot(Specimen(f"S{mark} 17")))
    assert "S 17" in _page(content)
    assert PdfReader(io.BytesIO(content)).metadata.title == "Leucocyte differential S 17"


def test_pdf_has_a_title_whatever_the_name_holds():
    content = to_pdf(_take_snapshot(Specimen("S\x0017")))
    assert PdfReader(io.BytesIO(content)).metadata.title == "Leucocyte differential S 17"


def test_pdf_of_no_cells(empty_snapshot: Snapshot):
    text = _page(to_pdf(empty_snapshot))
    assert "not named" in text
    assert "No cells were counted" in text
    assert text.count("none") == 1 + len(CLASS_NAMES)


# ---- FHIR


def _resources(text: str) -> dict[str, list[dict]]:
    """Resources by type, as R4's own classes read them; every reference leads to one of them."""
    from fhir.resources.R4B.bundle import Bundle

    bundle = json.loads(Bundle.model_validate_json(text).model_dump_json())
    resources = {entry["fullUrl"]: entry["resource"] for entry in bundle["entry"]}
    assert len(resources) == len(bundle["entry"])
    assert all(url == f"urn:uuid:{resource['id']}" for url, resource in resources.items())
    assert set(_references(bundle)) <= set(resources)
    by_type: dict[str, list[dict]] = {}
    for resource in resources.values():
        by_type.setdefault(resource["resourceType"], []).append(resource)
    return by_type


def _references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["reference"]] if "reference" in node else []
        return own + [found for value in node.values() for found in _references(value)]
    return [found for value in node for found in _references(value)] if isinstance(node, list) else []


def _by_code(observations: list[dict]) -> dict[str, dict]:
    return {observation["code"].get("coding", [{"code": ""}])[0]["code"]: observation for observation in observations}


def test_fhir_holds_the_differential(snapshot: Snapshot):
    resources = _resources(to_fhir(snapshot))

    assert {kind: len(found) for kind, found in resources.items()} == {
        "DiagnosticReport": 1,
        "Observation": 1 + 5 + 1 + 5,
        "Device": 1,
        "Specimen": 1,
    }
    (report,), observations = resources["DiagnosticReport"], _by_code(resources["Observation"])
    assert (report["code"]["coding"][0]["code"], report["status"]) == ("69738-3", "partial")
    assert len(report["result"]) == len(resources["Observation"])
    assert {observation["status"] for observation in resources["Observation"]} == {"preliminary"}
    assert report["conclusion"] == RESEARCH_USE
    assert observations[""]["valueInteger"] == 59
    assert observations["26464-8"]["valueQuantity"]["value"] == 6.5
    for share in snapshot.differential.shares:
        percent, absolute = (observations[code] for code in fhir_module.CODES[share.label])
        assert percent["valueQuantity"] == {
            "value": pytest.approx(share.percent, abs=5e-4),
            "unit": "%",
            "system": "http://unitsofmeasure.org",
            "code": "%",
        }
        low, high = (part["valueQuantity"]["value"] for part in percent["component"][1:])
        assert (low, high) == pytest.approx(share.limits, abs=5e-4)
        ranges = percent["referenceRange"][0]
        assert (ranges["low"]["value"], ranges["high"]["value"]) == share.reference
        assert absolute["valueQuantity"]["code"] == "10*9/L"
        assert absolute["valueQuantity"]["value"] == pytest.approx(share.absolute.value, abs=5e-4)


def test_fhir_says_who_corrected_what(snapshot: Snapshot):
    counted = _by_code(_resources(to_fhir(snapshot))["Observation"])[""]
    assert [(note["authorString"], note["text"]) for note in counted["note"]] == [
        ("A. Meyer", "Corrected cell no. 6: basophil → monocyte"),
        ("Ö. Yılmaz", "Corrected cell no. 7: eosinophil → none of the five"),
    ]
    assert [part["valueInteger"] for part in counted["component"]] == [1, 1, 1, 1, 0, 7, 2]


def test_fhir_interprets_only_what_the_limits_support():
    specimen = Specimen()
    cells = [_new(4, PAINTED[4])] * 65 + [_new(2, PAINTED[2])] * 15 + [_new(1, PAINTED[1])] * 20
    specimen.add_picture(Picture(0, "a.png", (48, 48), True, b""), cells)

    observations = _by_code(_resources(to_fhir(_take_snapshot(specimen)))["Observation"])

    eosinophils, neutrophils = observations["26450-7"], observations["26511-6"]
    assert eosinophils["interpretation"][0]["coding"][0]["code"] == "H"
    assert "interpretation" not in neutrophils
    assert neutrophils["note"][0]["text"] == "Possibly high: more cells would tell"
    assert "26464-8" not in observations


def test_fhir_interprets_nothing_while_cells_wait():
    specimen = Specimen()
    cells = [_new(4, PAINTED[4])] * 40 + [_new(1, PAINTED[1])] * 60 + [_new(2, PAINTED[2], "review")]
    specimen.add_picture(Picture(0, "a.png", (48, 48), True, b""), cells)
    observations = _by_code(_resources(to_fhir(_take_snapshot(specimen)))["Observation"])
    assert observations["26450-7"]["note"][0]["text"] == "Possibly high: more cells would tell"
    assert not any("interpretation" in observation for observation in observations.values())


def test_fhir_is_preliminary_once_nothing_waits():
    specimen = _specimen()
    for cell in specimen.cells:
        if cell.state is CellState.WAITING:
            specimen.review(cell.number, "monocyte", "A. Meyer")
    assert _resources(to_fhir(_take_snapshot(specimen)))["DiagnosticReport"][0]["status"] == "preliminary"


def test_fhir_names_the_model_and_the_specimen(snapshot: Snapshot, empty_snapshot: Snapshot):
    resources = _resources(to_fhir(snapshot))
    (device,), (specimen,) = resources["Device"], resources["Specimen"]
    assert device["deviceName"] == [{"name": "wbc-tiny", "type": "model-name"}]
    assert [version["value"] for version in device["version"]] == ["0123456789ab", "wbc_hf 0.0"]
    assert specimen["identifier"] == [{"value": "S 17"}]

    assert "identifier" not in _resources(to_fhir(empty_snapshot))["Specimen"][0]


def test_fhir_of_no_cells_says_that_there_is_no_value(empty_snapshot: Snapshot):
    resources = _resources(to_fhir(empty_snapshot))
    percents = [observation for code, observation in _by_code(resources["Observation"]).items() if code]
    assert len(percents) == 5
    assert all(observation["dataAbsentReason"]["coding"][0]["code"] == "not-performed" for observation in percents)
    assert not any("valueQuantity" in observation for observation in percents)
    assert resources["DiagnosticReport"][0]["status"] == "partial"


def test_fhir_holds_any_name(hostile_snapshot: Snapshot):
    specimen = _resources(to_fhir(hostile_snapshot))["Specimen"][0]
    assert specimen["identifier"][0]["value"].startswith("../../血液 $x_1$ <b>& C:")


def test_fhir_differs_where_the_snapshot_differs(snapshot: Snapshot, empty_snapshot: Snapshot):
    identifiers = {
        json.loads(to_fhir(one))["id"]
        for one in (snapshot, empty_snapshot, replace(snapshot, about=replace(snapshot.about, name="S 18")))
    }
    assert len(identifiers) == 3


def test_no_invalid_bundle_leaves(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fhir_module, "_PERCENT", {"unit": "%", "sytem": "http://unitsofmeasure.org"})
    with pytest.raises(ValueError, match="sytem"):
        to_fhir(snapshot)


# ---- folder of cells


@pytest.fixture(scope="module")
def reviewed() -> Snapshot:
    """Every cell that can be counted was accepted, but for 6, which was corrected, and 7, which was rejected."""
    specimen = _specimen("../S 17")
    for cell in specimen.cells[:60]:
        specimen.review(cell.number, cell.suggestion, "A. Meyer")
    specimen.review(6, "monocyte", "A. Meyer")
    specimen.review(7, None, "A. Meyer")
    return _take_snapshot(specimen)


def test_the_loader_reads_the_zip(reviewed: Snapshot, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with zipfile.ZipFile(io.BytesIO(to_cell_folder(reviewed))) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path)

    with caplog.at_level(logging.WARNING, "wbc_hf"):
        leucocytes = load_leucocytes(str(tmp_path))

    assert not caplog.records
    assert not leucocytes.provenance.skipped
    rows = [row for split in leucocytes.values() for row in split]
    assert len(rows) == 59
    labels = {int(row["source"][-8:-4]): CLASS_NAMES[row["label"]] for row in rows}
    assert labels == {cell.number: cell.label for cell in reviewed.cells_in(CellState.COUNTED)}
    pixels = {int(row["source"][-8:-4]): np.asarray(row["image"]) for row in rows}
    assert np.array_equal(pixels[9], paint_cells(np.arange(60) % 5, size=48, seed=5)[8])


def unpack(snapshot: Snapshot, folder: Path) -> None:
    zipfile.ZipFile(io.BytesIO(to_cell_folder(snapshot))).extractall(folder)


def test_cells_of_a_picture_stay_together(reviewed: Snapshot, tmp_path: Path):
    unpack(reviewed, tmp_path / "new")
    leucocytes = load_leucocytes(str(tmp_path / "new"))

    pictures = {name: {(int(row["source"][-8:-4]) - 1) // 15 for row in split} for name, split in leucocytes.items()}
    assert sorted(number for numbers in pictures.values() for number in numbers) == [0, 1, 2, 3]


def test_the_folder_says_where_it_comes_from(reviewed: Snapshot, tmp_path: Path):
    unpack(reviewed, tmp_path)
    assert json.loads((tmp_path / "cells.json").read_text())["format"] == 2
    assert "59, of which a person corrected 1" in (tmp_path / "README.txt").read_text()
    assert to_cell_folder(reviewed) == to_cell_folder(reviewed)


def test_only_reviewed_cells_that_count_are_there(snapshot: Snapshot, tmp_path: Path):
    unpack(snapshot, tmp_path)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert [(PurePosixPath(name).parent.name, int(name[-8:-4])) for name in files] == [
        ("basophil", 1),
        ("eosinophil", 2),
        ("lymphocyte", 3),
        ("monocyte", 4),
        ("monocyte", 6),
        ("neutrophil", 5),
    ]


def test_no_name_leads_out_of_the_folder(hostile_snapshot: Snapshot):
    with zipfile.ZipFile(io.BytesIO(to_cell_folder(hostile_snapshot))) as archive:
        names = archive.namelist()
    assert len(names) == len({name.lower() for name in names}) == len(HOSTILE) + 1 + 3
    for name in names:
        assert not PurePosixPath(name).is_absolute()
        assert all(re.fullmatch(r"[\w-]+", part) for part in PurePosixPath(name.partition(".")[0]).parts)
        assert name.isascii()
        assert ".." not in name
        assert len(name) < 100


def test_a_folder_needs_reviewed_cells(empty_snapshot: Snapshot):
    with pytest.raises(WbcError, match=r"^this specimen: no counted cell is reviewed"):
        to_cell_folder(empty_snapshot)


def test_csv_and_json_say_of_every_cell_what_the_specimen_says(snapshot: Snapshot):
    """Row by row: number, picture, box, state, class, what the model says, reviewer and time."""
    rows = list(csv.DictReader(io.StringIO(to_csv(snapshot), newline="")))
    cells = json.loads(to_json(snapshot))["cells"]
    assert len(rows) == len(cells) == len(snapshot.cells)
    for row, cell, drawn in zip(rows, cells, snapshot.cells, strict=True):
        review = cell["review"] or {"reviewer": "", "class": None}
        assert row["number"] == str(cell["number"]) == str(drawn.number)
        assert [row[edge] for edge in ("x0", "y0", "x1", "y1")] == [str(edge) for edge in cell["box"]]
        assert row["state"] == cell["state"] == drawn.state.value
        assert row["class"] == (cell["class"] or "") == (drawn.label or "")
        assert (row["model_class"], row["status"]) == (cell["prediction"]["class"], cell["prediction"]["status"])
        assert float(row["probability"]) == pytest.approx(cell["prediction"]["probability"], abs=1e-6)
        assert row["reviewer"] == review["reviewer"] == drawn.reviewer
        assert (row["corrected"] == "yes") == cell["corrected"] == drawn.corrected
        if drawn.review is not None:
            assert datetime.fromisoformat(cell["review"]["time"]) == drawn.review.time
            assert abs((datetime.fromisoformat(row["reviewed"]) - drawn.review.time).total_seconds()) < 1


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("UTC", "2026-11-24 23:30:00 UTC"),
        ("CET-1", "2026-11-24 23:30:00 UTC (25 Nov, 00:30 CET)"),
        ("EST+5", "2026-11-24 23:30:00 UTC (18:30 EST)"),
    ],
)
def test_local_time_stands_beside_utc(monkeypatch: pytest.MonkeyPatch, zone: str, text: str):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert time_text(datetime(2026, 11, 24, 23, 30, tzinfo=UTC)) == text
    finally:
        monkeypatch.undo()
        time.tzset()
