"""A laboratory's own types of cells: its settings, what a person names, and every place where that has to stand."""

import io
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fhir.resources.R4B.bundle import Bundle
from pypdf import PdfReader
from scipy.stats import binom

from tests.kept_specimens import MODEL, add_field, add_slide, new_cell, picture_bytes
from tests.report_texts import misplaced_texts, texts_of
from wbc_hf.adaptation import MIN_UNLABELLED, cells_to_learn, count_supply, only_reviewed
from wbc_hf.data import load_leucocytes
from wbc_hf.errors import WbcError
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.reports import EXPORTS, history_lines, to_cell_folder, to_csv, to_fhir, to_json, to_pdf, to_text
from wbc_hf.smear import (
    DEFAULT_RANGES,
    NO_TYPES,
    NONE_OF_FIVE,
    Cell,
    CellState,
    CellTypes,
    LaboratoryCheck,
    Origin,
    Snapshot,
    Specimen,
    compare_readers,
    differentiate,
    differentiate_cells,
    load_document,
    load_types,
    open_points,
)
from wbc_hf.smear.differential import limits_per_hundred

EXAMPLE = Path(__file__).parents[1] / "configs" / "types.toml"
TYPES = load_types(EXAMPLE)
BAND, BLAST, ERYTHROBLAST, SMUDGE = map(TYPES.resolve, ("band", "blast", "erythroblast", "smudge cell"))
EVERYTHING = next(export for export in EXPORTS if export.key == "json")
LOINC = "http://loinc.org"


def large_cell(label: int, seed: int) -> Cell:
    """A cell that is large enough to be learned from."""
    return replace(new_cell(label), crop=picture_bytes("PNG", seed, side=20))


def take_snapshot(specimen: Specimen, types: CellTypes = TYPES) -> Snapshot:
    return specimen.snapshot(MODEL, DEFAULT_RANGES, types)


@pytest.fixture
def specimen() -> Specimen:
    """Ten counted cells, of which Ana named two bands and a blast, three erythroblasts beside them, and one waits."""
    specimen = Specimen("S 17", 6.5)
    for field in range(2):
        add_field(specimen, *(new_cell(label, seed=10 * field + label) for label in (4, 4, 4, 2, 3, 0, 1)))
    specimen.review_many({1: BAND, 2: BAND, 3: BLAST, 5: ERYTHROBLAST, 6: ERYTHROBLAST, 12: ERYTHROBLAST}, "Ana")
    specimen.review(13, None, "Ana")
    add_field(specimen, new_cell(2, "review", 30))
    return specimen


# ---- settings


def test_the_example_names_what_laboratories_report():
    assert [(str(it), it.key, it.leucocyte, it.in_leucocyte_count) for it in TYPES] == [
        ("band", "6", True, False),
        ("metamyelocyte", "7", True, False),
        ("myelocyte", "8", True, False),
        ("promyelocyte", "9", True, False),
        ("blast", "b", True, False),
        ("erythroblast", "e", False, True),
        ("smudge cell", "s", False, False),
        ("platelet clump", "p", False, False),
    ]
    codes = {str(it): it.code and (it.code.system, it.code.code) for it in TYPES}
    assert codes["band"] == (LOINC, "26508-2") and codes["erythroblast"] == (LOINC, "19048-8")
    assert codes["platelet clump"] is None
    assert len({it.colour for it in TYPES}) == len(TYPES)


def entry(**values: object) -> str:
    """An entry of a file of types; None leaves a field out."""
    lines = {"name": "band", "key": "6", "leucocyte": True} | values
    return "[[type]]\n" + "\n".join(f"{name} = {json.dumps(it)}" for name, it in lines.items() if it is not None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"has no types; each is an entry \[\[type\]\]"),
        ("type = []", "has no types"),
        ("type = 3", "has no types"),
        ("[[type]\n", "cannot be read as TOML"),
        ('types = "band"', "'types' is not known"),
        (
            entry(colour="red"),
            "type 1: 'colour' is not known; known are name, leucocyte, in_leucocyte_count, key, code",
        ),
        (entry(name=None), "type 1: has no name; needed are name, key and leucocyte"),
        (entry(leucocyte=None), "type 1: has no leucocyte"),
        (entry(leucocyte="yes"), "type 1: leucocyte is 'yes', should be true or false"),
        (entry(name=""), "type 1: name is '', should be a word or a few, of at most 40 characters"),
        (entry(name="b" * 41), "should be a word or a few, of at most 40 characters"),
        (entry(name=" band"), "no spaces or dots around"),
        (entry(name="ba\u202end"), "should be a word"),
        (entry(name="../band"), "should be a word|should hold none of"),
        (entry(name="a/b"), "name is 'a/b', should hold none of /"),
        (entry(name="Neutrophils"), "name is 'Neutrophils', should be none of basophil, .* in any spelling"),
        (entry(name="EOS"), "should be none of basophil"),
        (entry(name="none"), "should be none of basophil"),
        (entry(name="accept"), "should be none of basophil"),
        (entry(name="Test"), "nor mean a split"),
        (entry(key=""), "type 1: key is '', should be one letter, digit or sign other than 1 2 3 4 5 0 a u l m"),
        (entry(key="ab"), "key is 'ab', should be one letter"),
        (entry(key="A"), "key is 'A', should be one .*: it accepts"),
        (entry(key="4"), "key is '4', should be one .*: it means monocyte"),
        (entry(key="0"), "it means none of these"),
        (entry(in_leucocyte_count=True), "in_leucocyte_count is true, should be so of types alone that are no leuco"),
        (entry() + "\n" + entry(name="Bands", key="7"), "type 2: name is 'Bands', should differ .* 'band' again"),
        (entry(key="x") + "\n" + entry(name="blast", key="X"), "type 2: key is 'x', .* that of 'band' already"),
        (entry() + '\ncode = "26508-2"', "type 1: code is '26508-2', should be a table"),
        (entry() + '\ncode = { system = "loinc", code = "1" }', "code is .* should have a URI as system"),
        (entry() + f'\ncode = {{ system = "{LOINC}", code = "" }}', "should have a code without spaces around it"),
        (entry() + f'\ncode = {{ system = "{LOINC}", code = 4 }}', "should hold the texts system, code"),
        (entry() + f'\ncode = {{ system = "{LOINC}", code = "4", version = "2" }}', "should hold the texts system"),
        ("\n".join(entry(name=f"type {n}", key=chr(0x3B1 + n)) for n in range(21)), "has 21 types, at most 20"),
    ],
)
def test_a_fault_is_named_in_one_sentence(tmp_path: Path, content: str, message: str):
    path = tmp_path / "types.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(WbcError, match=message) as caught:
        load_types(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(WbcError, match="no regular file"):
        load_types(tmp_path / "types.toml")


def test_a_word_is_an_own_type_before_it_is_one_of_the_five():
    assert TYPES.resolve("Bands") is BAND
    assert NO_TYPES.resolve("band") == "band"  # a neutrophil
    assert TYPES.resolve("EOS") == "EOS"
    assert TYPES.resolve(None) is None
    with pytest.raises(WbcError, match=r"hairy cell: is not one of basophil, .*neutrophil, band, .*platelet clump\."):
        TYPES.resolve("hairy cell")


# ---- limits


@pytest.mark.parametrize(("count", "leucocytes"), [(0, 100), (1, 100), (8, 100), (150, 100), (3, 7)])
def test_limits_per_hundred_leave_a_fortieth_on_either_side(count: int, leucocytes: int):
    """Given the sum of two Poisson counts, the one is binomial with the share of its mean."""
    low, high = limits_per_hundred(count, leucocytes)
    assert low <= 100 * count / leucocytes <= high
    among = count + leucocytes
    if count:
        assert binom.sf(count - 1, among, low / (100 + low)) == pytest.approx(0.025, rel=1e-6)
    else:
        assert low == 0
    assert binom.cdf(count, among, high / (100 + high)) == pytest.approx(0.025, rel=1e-6)


def test_limits_per_hundred_hold_whatever_waits_turns_out_to_be():
    low, high = limits_per_hundred(8, 100, waiting=20)
    assert low == limits_per_hundred(8, 120)[0]
    assert high == limits_per_hundred(28, 100)[1]
    assert limits_per_hundred(8, 0) is None


# ---- the differential


def test_leucocytes_are_part_of_the_whole_and_others_beside_it(specimen: Specimen):
    differential = take_snapshot(specimen).differential
    assert differential.total == 10
    assert [(it.label, it.count) for it in differential.shares if it.count] == [
        ("eosinophil", 2),
        ("lymphocyte", 2),
        ("neutrophil", 3),
        ("band", 2),
        ("blast", 1),
    ]
    assert sum(it.percent for it in differential.shares) == pytest.approx(100)
    band = next(it for it in differential.shares if it.own == BAND)
    assert (band.percent, band.reference, band.flag) == (20.0, None, "")
    (erythroblasts,) = differential.beside
    assert (erythroblasts.own, erythroblasts.count, erythroblasts.value) == (ERYTHROBLAST, 3, 30.0)
    assert erythroblasts.limits == limits_per_hundred(3, 10, waiting=1)
    # 6.5 × 100 / (100 + 30), and absolute counts of that.
    assert differential.corrected_count == pytest.approx(5.0)
    assert band.absolute.value == pytest.approx(1.0)
    assert differential.leucocyte_count == 6.5


def test_absolute_limits_hold_whatever_the_waiting_cells_turn_out_to_be():
    """Of the corrected count too, which is greater where they turn out to be leucocytes."""
    own, known = {ERYTHROBLAST: 20}, {"neutrophil": 30, "lymphocyte": 30}
    now = differentiate(known, leucocyte_count=10, waiting=40, own=own)
    low, high = next(it for it in now.shares if it.label == "neutrophil").absolute.limits
    for further in ({"neutrophil": 40}, {"lymphocyte": 40}, {"neutrophil": 20, "basophil": 20}):
        counts = {name: known.get(name, 0) + further.get(name, 0) for name in known | further}
        later = differentiate(counts, leucocyte_count=10, own=own)
        limits = next(it for it in later.shares if it.label == "neutrophil").absolute.limits
        assert low <= limits[0] and limits[1] <= high + 1e-9
    erythroblasts = differentiate(known, leucocyte_count=10, own={ERYTHROBLAST: 60})
    assert low <= next(it for it in erythroblasts.shares if it.label == "neutrophil").absolute.limits[0]


def test_a_count_that_is_corrected_already_stays(specimen: Specimen):
    specimen.review_many(dict.fromkeys((5, 6, 12), replace(ERYTHROBLAST, in_leucocyte_count=False)), "Ana")
    differential = take_snapshot(specimen).differential
    assert differential.corrected_count is None and differential.beside[0].value == 30.0
    assert next(it for it in differential.shares if it.own == BAND).absolute.value == pytest.approx(1.3)


def test_that_there_are_none_is_said_only_once_all_were_looked_at(specimen: Specimen):
    """A blast that the model calls a lymphocyte is counted as one until a person looks."""
    named = {it.own for it in take_snapshot(specimen).differential.own_shares}
    assert named == {BAND, BLAST}
    assert "the 7 counted cells that nobody has looked at may hold more" in to_text(take_snapshot(specimen))

    specimen.review_many({cell.number: cell.label for cell in specimen.cells if cell.review is None}, "Ana")
    differential = take_snapshot(specimen).differential
    assert [(str(it.own), it.count) for it in differential.own_shares] == [
        ("band", 2),
        ("metamyelocyte", 0),
        ("myelocyte", 0),
        ("promyelocyte", 0),
        ("blast", 1),
    ]
    assert [(str(it.own), it.count) for it in differential.beside] == [
        ("erythroblast", 3),
        ("smudge cell", 0),
        ("platelet clump", 0),
    ]
    assert "nobody has looked at" not in to_text(take_snapshot(specimen))


def test_without_leucocytes_there_is_no_number_per_hundred():
    specimen = Specimen(leucocyte_count=6.5)
    add_field(specimen, new_cell())
    specimen.review(1, SMUDGE, "Ana")
    snapshot = take_snapshot(specimen)
    it = next(it for it in snapshot.differential.beside if it.own == SMUDGE)
    assert (it.count, it.value, it.limits) == (1, None, None)
    assert "smudge cell: 1 cells, and no leucocytes to count them by" in to_text(snapshot)
    for make in (to_json, to_fhir, to_pdf):
        make(snapshot)


# ---- a person's word


def test_a_word_counts_is_in_the_history_and_is_undone(specimen: Specimen):
    states = {number: specimen.cells[number - 1].state for number in (1, 5, 13)}
    assert states == {1: CellState.COUNTED, 5: CellState.BESIDE, 13: CellState.REJECTED}
    assert specimen.cells[0].corrected and specimen.cells[0].label == "band"
    before = specimen.cells[0].review
    specimen.review(1, "neutrophil", "Ben")
    assert specimen.cells[0].own is None
    specimen.set_reviews({1: before}, "Ben")
    assert specimen.cells[0].own == BAND
    lines = [text for _, text in history_lines(specimen.history)]
    assert lines[-2:] == ["Ben: reviewed, cell 1: band → neutrophil", "Ben: undone, cell 1: neutrophil → band"]


def test_sign_off_counts_the_whole_alone():
    specimen = Specimen("S 17")
    add_field(specimen, *[new_cell(4)] * 101)
    specimen.review_many({1: BAND, 2: ERYTHROBLAST}, "Ana")
    assert open_points(take_snapshot(specimen), LaboratoryCheck(Origin.KNOWN, 120, 0.5)) == []
    specimen.review(3, ERYTHROBLAST, "Ana")
    (point,) = open_points(take_snapshot(specimen), LaboratoryCheck(Origin.KNOWN, 120, 0.5))
    assert point == "99 cells are counted, fewer than 100"


def test_two_readers_are_compared_by_all_words_and_by_the_whole():
    first = {1: "band", 2: "band", 3: "neutrophil", 4: "erythroblast", 5: NONE_OF_FIVE}
    second = {1: "band", 2: "neutrophil", 3: "neutrophil", 4: "lymphocyte", 5: NONE_OF_FIVE}
    agreement = compare_readers(first, second, ("A", "B"), ("erythroblast",))
    assert (agreement.cells, agreement.same) == (5, 3)
    assert [it.label for it in agreement.classes] == [*CLASS_NAMES, "band"]
    band = agreement.classes[-1]
    assert (band.first, band.second) == (pytest.approx(100 * 2 / 3), 25.0)


def test_the_model_learns_nothing_from_them():
    """Also of bands, which its own words would call neutrophils."""
    specimen = Specimen()
    for _ in range(2):
        add_field(specimen, *(large_cell(label, seed) for seed, label in enumerate((4, 4, 2, 3))))
    specimen.review_many({1: BAND, 2: "neutrophil", 3: ERYTHROBLAST, 5: "neutrophil"}, "Ana")
    assert [cell.number for cell in only_reviewed(specimen.cells)] == [2, 5]
    learned = cells_to_learn(specimen.cells, "S")
    assert [cell.label for cell in learned] == [4, None, 4, None, None, None]
    assert count_supply(specimen.cells, "S").reviewed == 2 and len(learned) < MIN_UNLABELLED


# ---- exports


def test_the_terminal_shows_both_kinds(specimen: Specimen):
    text = to_text(take_snapshot(specimen))
    lines = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert lines["band"][:5] == ["band", "2", "20.0", *lines["band"][3:5]] and "–" in lines["band"]
    assert "erythroblast: 3 cells, 30.0 per 100 leucocytes (95 % limits " in text
    assert "Leucocytes corrected for erythroblast: 5.00 × 10⁹/l, of 6.5 as given" in text


def test_csv_says_what_each_cell_is(specimen: Specimen):
    rows = [line.split(",") for line in to_csv(take_snapshot(specimen)).splitlines()]
    state, label = rows[0].index("state"), rows[0].index("class")
    assert [(row[state], row[label]) for row in (rows[1], rows[5], rows[13])] == [
        ("counted", "band"),
        ("beside", "erythroblast"),
        ("rejected", ""),
    ]


def test_json_holds_what_they_are(specimen: Specimen):
    document = json.loads(to_json(take_snapshot(specimen)))
    differential = document["differential"]
    band = next(it for it in differential["shares"] if it["class"] == "band")
    assert (band["count"], band["reference"]) == (2, None)
    assert band["own"]["code"] == {"system": LOINC, "code": "26508-2", "display": ""}
    (beside,) = differential["beside"]
    assert (beside["own"]["name"], beside["count"], beside["value"]) == ("erythroblast", 3, 30.0)
    assert differential["corrected_leucocytes"] == pytest.approx(5.0)
    assert next(it for it in differential["shares"] if it["class"] == "monocyte")["own"] is None
    assert document["cells"][4]["review"]["own"]["leucocyte"] is False
    assert document["history"][3]["after"] == "band" and "key" not in band["own"]


@pytest.mark.parametrize("types", [TYPES, NO_TYPES], ids=["same settings", "other settings"])
def test_every_word_comes_back_whatever_the_settings_are(specimen: Specimen, types: CellTypes):
    loaded = Specimen()
    load_document(EVERYTHING.make(take_snapshot(specimen)), "s.json", loaded)
    assert [cell.review for cell in loaded.cells] == [cell.review for cell in specimen.cells]
    assert loaded.cells[0].own.colour == BAND.colour and loaded.cells[0].own.code == BAND.code
    given, found = (take_snapshot(it, which).differential for it, which in ((specimen, TYPES), (loaded, types)))
    assert given == found
    # And once more, as nothing of it depends on the settings.
    assert (
        json.loads(to_json(take_snapshot(loaded, types)))["cells"]
        == json.loads(to_json(take_snapshot(specimen)))["cells"]
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda review: review.update(own=None), "class is 'band': should be null, one of"),
        (lambda review: review.update({"class": "blast"}), "class is 'blast': should be 'band', as in `own`"),
        (lambda review: review["own"].update(name="../../x"), "name is '../../x': should"),
        (lambda review: review["own"].update(name="monocyte"), "name is 'monocyte': should be none of"),
        (lambda review: review["own"].update(colour="red;} body {"), "colour is"),
        (lambda review: review["own"].update(leucocyte="no"), "leucocyte is 'no'"),
        (lambda review: review["own"]["code"].update(system="javascript"), "should have a URI"),
    ],
)
def test_a_document_of_strangers_is_checked(specimen: Specimen, change: Callable[[dict], None], problem: str):
    document = json.loads(EVERYTHING.make(take_snapshot(specimen)))
    change(document["cells"][0]["review"])
    with pytest.raises(WbcError, match=problem):
        load_document(json.dumps(document).encode(), "s.json", Specimen())


def test_a_document_has_so_many_types(specimen: Specimen):
    add_field(specimen, *[new_cell()] * 61)
    specimen.review_many({15 + n: replace(BAND, name=f"type {n}") for n in range(1, 62)}, "Ana")
    with pytest.raises(WbcError, match="at most 60 types beyond the five"):
        load_document(EVERYTHING.make(take_snapshot(specimen)), "s.json", Specimen())
    to_pdf(take_snapshot(specimen))  # which has room for them all the same


def test_fhir_has_codes_where_they_are_given_and_words_otherwise(specimen: Specimen):
    specimen.review(11, TYPES.resolve("platelet clump"), "Ana")
    content = json.loads(to_fhir(take_snapshot(specimen)))
    Bundle.model_validate(content)
    observations = {
        it["resource"]["code"]["text"]: it["resource"]
        for it in content["entry"]
        if it["resource"]["resourceType"] == "Observation"
    }
    assert len({it["id"] for it in observations.values()}) == len(observations)
    band = observations["Band per 100 leucocytes"]
    assert band["code"]["coding"] == [{"system": LOINC, "code": "26508-2"}]
    assert band["valueQuantity"]["unit"] == "%" and "referenceRange" not in band
    erythroblasts = observations["Erythroblast per 100 leucocytes"]
    assert erythroblasts["code"]["coding"][0]["code"] == "19048-8"
    assert erythroblasts["valueQuantity"]["code"] == "/100{WBCs}"
    assert [it["valueQuantity"]["value"] for it in erythroblasts["component"][1:]] == [
        pytest.approx(limit, abs=1e-3) for limit in limits_per_hundred(3, 9, waiting=1)
    ]
    assert "coding" not in observations["Platelet clump per 100 leucocytes"]["code"]
    corrected = observations["Leucocytes per volume, corrected for erythroblast"]
    assert corrected["code"]["coding"][0]["code"] == "12227-5"
    assert corrected["valueQuantity"]["value"] == pytest.approx(6.5 * 100 / (100 + 100 * 3 / 9), abs=1e-3)
    sources = {it["reference"].removeprefix("urn:uuid:") for it in corrected["derivedFrom"]}
    whole = observations["Leucocytes per volume, as given with the specimen"]
    assert sources == {whole["id"], erythroblasts["id"]}
    absolute = observations["Band per volume"]
    assert {it["reference"].removeprefix("urn:uuid:") for it in absolute["derivedFrom"]} == {
        band["id"],
        corrected["id"],
    }
    assert "coding" not in absolute["code"]


def test_the_code_of_a_count_corrected_for_erythroblasts_is_of_no_other(specimen: Specimen):
    specimen.review(11, replace(ERYTHROBLAST, name="platelet clump", code=None), "Ana")
    content = json.loads(to_fhir(take_snapshot(specimen)))
    texts = {
        it["resource"]["code"]["text"]: it["resource"]["code"] for it in content["entry"] if "code" in it["resource"]
    }
    (corrected,) = [code for text, code in texts.items() if "corrected for" in text]
    assert "platelet clump" in corrected["text"] and "coding" not in corrected


def test_the_report_shows_them_on_paper(specimen: Specimen):
    pages = [page.extract_text() for page in PdfReader(io.BytesIO(to_pdf(take_snapshot(specimen)))).pages]
    first, cells = " ".join(pages[0].split()), " ".join(pages[1].split())
    assert re.search(r"Band 2 ?20\.0 %", first) and re.search(r"Erythroblast 3 ?30\.0 per 100", first)
    assert re.search(r"All counted 10 ?5\.00", first)
    assert "Leucocytes corrected for erythroblast: 5.00" in first
    assert "Band: 2" in cells and "Beside the leucocytes, erythroblast: 3" in cells
    assert "reviewed, cells 1, 2" in " ".join(pages[-1].split())


@pytest.mark.parametrize(
    "suffix",
    [
        pytest.param("", id="short"),
        pytest.param(" with a name of a single column", id="long", marks=pytest.mark.slow),
        pytest.param("\U0010a000" * 8, id="unknown", marks=pytest.mark.slow),
    ],
)
def test_many_types_go_on_on_the_next_page(specimen: Specimen, suffix: str):
    """In two columns, or in one where names are long, on several lines where nothing has their letters."""
    add_field(specimen, *[new_cell()] * 60)
    types = [replace(BAND, name=f"t{n}{suffix}", leucocyte=n % 2 == 0) for n in range(1, 61)]
    specimen.review_many({15 + n: own for n, own in enumerate(types, 1)}, "Ana")
    specimen.add_slide(replace(add_slide(Specimen()), name="s" * 2000, size=(3000, 6000)))
    content = to_pdf(take_snapshot(specimen))
    pages = PdfReader(io.BytesIO(content)).pages
    table = [page for page in pages if "Types of the laboratory’s own" in page.extract_text()]
    assert len(table) > 1
    assert all(page.extract_text().startswith("Differential") for page in table[1:])
    found = [it for page in table for text, _ in texts_of(page) for it in re.findall(r"^T(\d+)", text)]
    assert sorted(map(int, found)) == list(range(1, 61))
    signing = dict(texts_of(pages[0]))["Model"]
    assert all(y < signing for text, y in texts_of(pages[0]) if re.match(r"T\d", text))
    assert not list(misplaced_texts(content))


def test_reviewed_cells_have_folders_by_the_persons_word(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    specimen = Specimen("S 17")
    for field in range(4):
        add_field(specimen, *(large_cell(label, 10 * field + seed) for seed, label in enumerate((0, 1, 2, 3, 4, 4))))
    specimen.review_many({cell.number: cell.suggestion for cell in specimen.cells}, "Ana")
    specimen.review_many({6: BLAST, 12: BLAST, 18: ERYTHROBLAST, 24: BAND}, "Ana")
    with zipfile.ZipFile(io.BytesIO(to_cell_folder(take_snapshot(specimen)))) as archive:
        archive.extractall(tmp_path)
    folders = {folder.name: len(list(folder.iterdir())) for folder in tmp_path.iterdir() if folder.is_dir()}
    assert folders == dict.fromkeys(CLASS_NAMES, 4) | {"band": 1, "blast": 2, "erythroblast": 1}
    assert "own types: band, blast, erythroblast." in (tmp_path / "README.txt").read_text()

    with pytest.raises(WbcError, match="'blast', 'erythroblast' are not one of the five leucocytes"):
        load_leucocytes(str(tmp_path))
    loaded = load_leucocytes(str(tmp_path), other_classes="none_of_these")
    labels = {int(row["source"][-8:-4]): CLASS_NAMES[row["label"]] for split in loaded.values() for row in split}
    words = {cell.number: cell.label for cell in specimen.cells}
    # A band is a neutrophil to whatever knows five classes.
    expected = {number: "neutrophil" if word == "band" else word for number, word in words.items()}
    assert labels == {number: word for number, word in expected.items() if word in CLASS_NAMES}
    assert "kept as none of these, for the calibration alone: blast (2), erythroblast (1)" in caplog.text


# ---- the store


def test_a_store_keeps_them_for_whoever_opens_it(specimen: Specimen, tmp_path: Path):
    from wbc_hf.store import SpecimenStore

    kept = SpecimenStore(tmp_path / "specimens").begin("ana")
    load_document(EVERYTHING.make(take_snapshot(specimen)), "s.json", kept)
    kept.review(4, BAND, "Ana")
    opened = SpecimenStore(tmp_path / "specimens").open(kept.key)
    assert [cell.review for cell in opened.cells] == [cell.review for cell in kept.cells]
    assert opened.cells[3].own == BAND and opened.cells[3].own.colour == BAND.colour
    assert opened.history[-1].after == "band"
    differentials = [differentiate_cells(it.cells) for it in (opened, kept)]
    assert differentials[0] == differentials[1] and differentials[0].beside
