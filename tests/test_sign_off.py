"""What is said before signing, what signing locks, and what reports make of it."""

import io
import json
import re

import pytest
from pypdf import PdfReader

from tests.kept_specimens import MODEL, add_field, new_cell
from wbc_hf.errors import WbcError
from wbc_hf.reports import to_fhir, to_json, to_pdf
from wbc_hf.smear import (
    DEFAULT_RANGES,
    Action,
    LaboratoryCheck,
    Origin,
    Snapshot,
    Specimen,
    amend,
    open_points,
    sign,
)

KNOWN = LaboratoryCheck(Origin.KNOWN, 120, 0.5)


def take_snapshot(specimen: Specimen) -> Snapshot:
    return specimen.snapshot(MODEL, DEFAULT_RANGES)


@pytest.fixture
def specimen() -> Specimen:
    """Nothing stands against signing it."""
    specimen = Specimen("S 17")
    add_field(specimen, *[new_cell(4)] * 100)
    specimen.review(1, "basophil", "Ana")
    specimen.describe(patient="P-1", order="O-2", slide="3 a", comment="haemolytic")
    return specimen


def test_nothing_is_said_where_nothing_stands_against_it(specimen: Specimen):
    assert open_points(take_snapshot(specimen), KNOWN) == []
    sign(specimen, [], "Dr. Roe")
    assert specimen.about.signature.name == "Dr. Roe"


def test_what_stands_against_it_is_said_and_needs_a_reason():
    specimen = Specimen()
    add_field(specimen, new_cell(), new_cell(status="review"))
    points = open_points(take_snapshot(specimen), LaboratoryCheck(Origin.ANOTHER, 20, 3.0))
    assert [point.split()[0] for point in points] == ["1", "1", "the", "the", "no"]
    with pytest.raises(WbcError, match="why it is signed nevertheless: 1 cell waits for review"):
        sign(specimen, points, "Dr. Roe")
    with pytest.raises(WbcError, match=r"gives a name.*why it is signed nevertheless"):
        sign(specimen, points, "")  # all that is missing, at once
    assert specimen.about.signature is None
    sign(specimen, points, "Dr. Roe", "leucopenia")
    assert "leucopenia; known then: 1 cell waits" in specimen.history[-1].after


@pytest.mark.parametrize("name", ["", "  "])
def test_a_name_is_needed(specimen: Specimen, name: str):
    with pytest.raises(WbcError, match="gives a name"):
        sign(specimen, [], name)


def test_signing_gives_unnamed_reviews_a_name(specimen: Specimen):
    specimen.review(2, "monocyte")
    sign(specimen, [], "Dr. Roe")
    assert [specimen.cells[index].reviewer for index in (0, 1)] == ["Ana", "Dr. Roe"]


def test_what_is_signed_is_only_amended_and_that_is_seen(specimen: Specimen):
    sign(specimen, [], "Dr. Roe", "fine")
    for change in (
        lambda: specimen.review(1, "monocyte"),
        lambda: specimen.describe(name="x"),
        lambda: specimen.remove(1),
        lambda: sign(specimen, [], "Mallory"),
    ):
        with pytest.raises(WbcError, match="can only be amended"):
            change()
    for name, reason in (("", "wrong slide"), ("Dr. Roe", " ")):
        with pytest.raises(WbcError, match="takes a name, and a reason"):
            amend(specimen, name, reason)
    amend(specimen, "Dr. Roe", "wrong slide")
    specimen.review(1, "monocyte", "Dr. Roe")
    with pytest.raises(WbcError, match="is not signed"):
        amend(specimen, "Dr. Roe", "again")
    actions = [it.action for it in specimen.history]
    assert actions[-3:] == [Action.SIGNED, Action.AMENDED, Action.REVIEWED]


# ---- reports


def bundle_of(specimen: Specimen) -> dict[str, list[dict]]:
    resources: dict[str, list[dict]] = {}
    for entry in json.loads(to_fhir(take_snapshot(specimen)))["entry"]:
        resources.setdefault(entry["resource"]["resourceType"], []).append(entry["resource"])
    return resources


def statuses(specimen: Specimen) -> set[str]:
    bundle = bundle_of(specimen)
    return {it["status"] for it in bundle["DiagnosticReport"] + bundle["Observation"]}


def test_fhir_is_final_only_after_sign_off(specimen: Specimen):
    assert statuses(specimen) == {"preliminary"}
    sign(specimen, [], "Dr. Roe")
    assert statuses(specimen) == {"final"}
    amend(specimen, "Dr. Roe", "wrong slide")
    assert statuses(specimen) == {"preliminary"}
    sign(specimen, [], "Dr. Roe")
    assert statuses(specimen) == {"amended"}


def test_fhir_names_patient_order_slide_and_signer(specimen: Specimen):
    sign(specimen, [], "Dr. Roe", "seen twice")
    bundle = bundle_of(specimen)
    (report,), (smear,) = bundle["DiagnosticReport"], bundle["Specimen"]
    assert report["subject"]["identifier"]["value"] == smear["subject"]["identifier"]["value"] == "P-1"
    assert report["basedOn"][0]["identifier"]["value"] == "O-2"
    assert report["performer"][0]["display"] == "Dr. Roe"
    assert "seen twice" in report["conclusion"]
    assert smear["container"][0]["identifier"][0]["value"] == "3 a"
    assert smear["note"][0]["text"] == "haemolytic"
    assert all(it["subject"] and it["performer"] for it in bundle["Observation"])


def test_pdf_shows_signature_numbers_and_history(specimen: Specimen):
    specimen.review(1, None, "Ben")
    sign(specimen, [], "Dr. Roe", "seen twice")
    pages = [page.extract_text() for page in PdfReader(io.BytesIO(to_pdf(take_snapshot(specimen)))).pages]
    first, cells, history = pages
    assert "Dr. Roe" in first and "signed on the page" in first
    assert all(f"page {number} of 3" in page for number, page in enumerate(pages, 1))
    assert "Neutrophil: 99" in cells and "None of the five, by a person: not counted: 1" in cells
    for said in ("P-1", "O-2", "3 a", "haemolytic", "seen twice", "S 17"):
        assert said in history
    assert "Ana: reviewed, cell 1: not reviewed → basophil" in history
    assert "Ben: reviewed, cell 1: basophil → none of the five" in history
    assert "Dr. Roe: signed" in history


def test_every_counted_and_every_overruled_cell_is_in_the_pdf(specimen: Specimen):
    specimen.review(3, None, "Ben")
    pages = PdfReader(io.BytesIO(to_pdf(take_snapshot(specimen)))).pages
    numbers = set(re.findall(r"\d+", pages[1].extract_text()))
    assert {str(cell.number) for cell in specimen.cells} <= numbers
    few = Specimen()
    add_field(few, new_cell(4), new_cell(3))
    assert len(PdfReader(io.BytesIO(to_pdf(take_snapshot(few)))).pages) == 1


def test_a_long_history_takes_as_many_pages_as_it_needs(specimen: Specimen):
    for round in range(120):
        specimen.review(1 + round % 7, "monocyte", f"reader {round}")
    pages = [page.extract_text() for page in PdfReader(io.BytesIO(to_pdf(take_snapshot(specimen)))).pages]
    text = " ".join(pages)
    assert len(pages) > 2 and f"page {len(pages)} of {len(pages)}" in pages[-1]
    assert all(f"reader {round}:" in text for round in range(120))


def test_json_holds_the_signature(specimen: Specimen):
    sign(specimen, [], "Dr. Roe", "fine")
    about = json.loads(to_json(take_snapshot(specimen)))["about"]
    assert (about["signature"]["name"], about["signature"]["comment"], about["patient"]) == ("Dr. Roe", "fine", "P-1")
