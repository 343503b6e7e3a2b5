"""A snapshot as an HL7 FHIR R4 (4.0.1) bundle, for laboratory systems.

A `Bundle` of type "collection" holds one `DiagnosticReport` and what it refers to: an `Observation` of the counted
cells, one per class in percent, one per class and one of all leucocytes in 10⁹/l if the total count is known, the
`Device` (the model), and the `Specimen`. `subject` and `basedOn` hold the numbers of patient and order, where they
were given, as identifiers without a system; the receiving system knows whose they are.

**LOINC.** The panel is 69738-3 "Differential panel, method unspecified - Blood". 24318-8 "Manual Differential panel -
Blood" would claim that a person counted, and LOINC discourages it. The members name no method either: they are those
that 24318-8 lists, and the codes for automated and manual counts (770-8, 769-0 and their like) would claim a cell
counter or an eye. LOINC rewords its display names from version to version, so that only `text` says what a code means.

**The laboratory's own types** have the codes that its settings give, and their names alone where these give none. What
is counted per 100 leucocytes has the unit that UCUM writes /100{WBCs}. The corrected total count is 12227-5.

**Status.** The report is "partial" (R4: may be incomplete or unverified) while cells wait for review or none is
reviewed, and "preliminary" otherwise. "final" says that an authorised person has verified the whole report: it stands
only after somebody signed, who is the `performer`; "amended" where it was opened again and signed anew. Observations
are "preliminary" until then, which in R4 covers both.

**Interpretation.** H and L stand only where the exact limits support them, and none while cells wait for review; what
is only possible is a note. The
limits are components with a code in words, since LOINC has none for them.

The bundle is validated by `fhir.resources`. Its package R4B (4.3.0) defines the resources used here as R4 does.
"""

from html import escape
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from wbc_hf.errors import needs_extra
from wbc_hf.evaluation import format_interval
from wbc_hf.reports.tables import to_json
from wbc_hf.reports.texts import (
    FLAG_TEXTS,
    RESEARCH_USE,
    correction_text,
    own_types_notes,
    per_hundred_text,
    reviewer_text,
)
from wbc_hf.safe_text import json_text
from wbc_hf.smear import Absolute, CellState, CellType, Flag, PerHundred, Share, Signature, Snapshot

Resource = dict[str, Any]

LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
PANEL = "69738-3"
TOTAL_COUNT, CORRECTED_COUNT = "26464-8", "12227-5"
ERYTHROBLASTS = "19048-8"  # nucleated erythrocytes per 100 leucocytes
# Per 100 leucocytes, and per volume.
CODES = {
    "basophil": ("30180-4", "26444-0"),
    "eosinophil": ("26450-7", "26449-9"),
    "lymphocyte": ("26478-8", "26474-7"),
    "monocyte": ("26485-3", "26484-6"),
    "neutrophil": ("26511-6", "26499-4"),
}

_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
_PERCENT = {"unit": "%", "system": UCUM, "code": "%"}
_PER_LITRE = {"unit": "10*9/L", "system": UCUM, "code": "10*9/L"}
_PER_HUNDRED = {"unit": "/100 leucocytes", "system": UCUM, "code": "/100{WBCs}"}
_INTERPRETATIONS = {Flag.HIGH: ("H", "High"), Flag.LOW: ("L", "Low")}
_DECIMALS = 3  # of percentages and counts in 10⁹/l: more than any differential can tell


def to_fhir(snapshot: Snapshot) -> str:
    """Export a FHIR R4 bundle as JSON. The same snapshot gives the same bundle, identifiers included.

    Raises:
        WbcError: The extra "fhir" is not installed.
        pydantic.ValidationError: The bundle is not valid R4: a fault of this module.
    """
    with needs_extra("fhir"):
        from fhir.resources.R4B.bundle import Bundle

    content = _Bundle(snapshot).content()
    Bundle.model_validate(content)
    return json_text(content, indent=1) + "\n"


class _Bundle:
    """Builds the resources, which refer to each other by identifiers derived from the snapshot."""

    def __init__(self, snapshot: Snapshot):
        self.snapshot = snapshot
        self.differential = snapshot.differential
        self.seed = uuid5(NAMESPACE_URL, to_json(snapshot))
        self.time = snapshot.time.isoformat(timespec="seconds")
        about = snapshot.about
        # Of everything that is signed; None before.
        self.status = None if about.signature is None else "amended" if about.amended else "final"
        self.context: Resource = {}
        if about.patient.strip():
            self.context["subject"] = _identified("Patient", about.patient)
        if about.order.strip():
            self.context["basedOn"] = [_identified("ServiceRequest", about.order)]
        if about.signature is not None:
            signed_by = {"type": "Practitioner", "display": _text(about.signature.name)}
            self.context["performer"] = [signed_by]

    def content(self) -> Resource:
        shares = self.differential.shares
        observations = [
            self._counted(),
            *map(self._percent, shares),
            *map(self._per_hundred, self.differential.beside),
        ]
        if self.differential.leucocyte_count is not None:
            observations.append(self._leucocytes(self.differential.leucocyte_count))
            if self.differential.corrected_count is not None:
                observations.append(self._corrected(self.differential.corrected_count))
            observations += [self._absolute(share, share.absolute) for share in shares if share.absolute]
        resources = [self._report(observations), *observations, self._device(), self._specimen()]
        return {
            "resourceType": "Bundle",
            "id": str(self.seed),
            # Purpose of use, for systems that keep research apart from care.
            "meta": {"security": [_coding(f"{_TERMINOLOGY}/v3-ActReason", "HRESCH", "healthcare research")]},
            "identifier": {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{self.seed}"},
            "type": "collection",
            "timestamp": self.time,
            "entry": [{"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource} for resource in resources],
        }

    def _id(self, name: str) -> str:
        return str(uuid5(self.seed, name))

    def _reference(self, name: str) -> Resource:
        return {"reference": f"urn:uuid:{self._id(name)}"}

    def _report(self, observations: list[Resource]) -> Resource:
        reviewers = self.snapshot.reviewers
        partial = bool(self.snapshot.cells_in(CellState.WAITING)) or not reviewers
        report: Resource = {
            "resourceType": "DiagnosticReport",
            "id": self._id("report"),
            "text": {"status": "additional", "div": self._narrative()},
            "status": self.status or ("partial" if partial else "preliminary"),
            "category": [{"coding": [_coding(f"{_TERMINOLOGY}/v2-0074", "LAB", "Laboratory")]}],
            "code": _loinc(PANEL, "Leucocyte differential"),
            "issued": self.time,
            "specimen": [self._reference("specimen")],
            "result": [{"reference": f"urn:uuid:{observation['id']}"} for observation in observations],
            "conclusion": _conclusion(self.snapshot.about.signature),
            **self.context,
        }
        if reviewers:
            report["resultsInterpreter"] = [
                {"type": "Practitioner", "display": _text(reviewer_text(name))} for name in reviewers
            ]
        return report

    def _narrative(self) -> str:
        snapshot = self.snapshot
        lines = [
            RESEARCH_USE,
            f"Leucocyte differential of {self.differential.total} cells"
            + (f", specimen {snapshot.specimen}." if snapshot.specimen else "."),
            f"Model {snapshot.model.name}, version {snapshot.model.version}; {snapshot.model.software}.",
            *(
                f"{share.label}: {share.count} cells, {share.percent:.1f} % (95 % limits "
                f"{format_interval(share.limits, '.1f')} %)"
                for share in self.differential.shares
                if share.percent is not None
            ),
            *map(per_hundred_text, self.differential.beside),
            *own_types_notes(self.differential),
            f"Cells waiting for review: {len(snapshot.cells_in(CellState.WAITING))}.",
        ]
        paragraphs = "".join(f"<p>{escape(_text(line))}</p>" for line in lines)
        return f'<div xmlns="http://www.w3.org/1999/xhtml">{paragraphs}</div>'

    def _observation(self, name: str, code: Resource) -> Resource:
        return {
            "resourceType": "Observation",
            "id": self._id(name),
            "status": self.status or "preliminary",
            "category": [{"coding": [_coding(f"{_TERMINOLOGY}/observation-category", "laboratory", "Laboratory")]}],
            "code": code,
            "issued": self.time,
            "specimen": self._reference("specimen"),
            "device": self._reference("device"),
            **self.context,
        }

    def _measured(self, name: str, code: Resource, value: float | None, unit: Resource) -> Resource:
        observation = self._observation(name, code)
        if value is None:
            return observation | {"dataAbsentReason": _NOT_COUNTED}
        return observation | {"valueQuantity": _quantity(value, unit)}

    def _counted(self) -> Resource:
        snapshot = self.snapshot
        reviewed = snapshot.reviewed
        counts = {
            "Cells waiting for review, not counted": len(snapshot.cells_in(CellState.WAITING)),
            "Cells rejected by a person, not counted": len(snapshot.cells_in(CellState.REJECTED)),
            "Cells cut off by the border of a field, not counted": len(snapshot.cells_in(CellState.CUT)),
            "Duplicates of cells in other pictures, not counted": len(snapshot.cells_in(CellState.DUPLICATE)),
            "Cells of pictures that a person removed, not counted": len(snapshot.cells_in(CellState.REMOVED)),
            "Cells reviewed by a person": len(reviewed),
            "Cells corrected by a person": sum(cell.corrected for cell in reviewed),
        }
        if beside := snapshot.cells_in(CellState.BESIDE):
            counts["Cells of other types, counted per 100 leucocytes"] = len(beside)
        observation = self._observation("counted", {"text": "Leucocytes counted in the differential"})
        observation["valueInteger"] = self.differential.total
        observation["component"] = [{"code": {"text": text}, "valueInteger": count} for text, count in counts.items()]
        notes = [
            {
                "authorString": _text(reviewer_text(cell.reviewer)),
                "time": cell.review.time.isoformat(timespec="seconds"),
                "text": f"Corrected cell no. {cell.number}: {correction_text(cell)}",
            }
            for cell in reviewed
            if cell.review is not None and cell.corrected
        ]
        if notes:
            observation["note"] = notes
        return observation

    def _percent(self, share: Share) -> Resource:
        text = f"{share.label.capitalize()}s per 100 leucocytes"
        code = _loinc(CODES[share.label][0], text) if share.own is None else _own_code(share.own)
        observation = self._measured(f"{share.label} percent", code, share.percent, _PERCENT)
        if share.flag in _INTERPRETATIONS:
            coding = _coding(f"{_TERMINOLOGY}/v3-ObservationInterpretation", *_INTERPRETATIONS[share.flag])
            observation["interpretation"] = [{"coding": [coding]}]
        elif share.flag is not Flag.NONE:
            observation["note"] = [{"text": FLAG_TEXTS[share.flag].capitalize()}]
        if share.reference is not None:
            low, high = share.reference
            observation["referenceRange"] = [
                {
                    "low": _quantity(low, _PERCENT),
                    "high": _quantity(high, _PERCENT),
                    "text": f"{low:g} to {high:g} % ({_text(self.differential.ranges_source)})",
                }
            ]
        count = {"code": {"text": "Cells of this class counted"}, "valueInteger": share.count}
        observation["component"] = [count, *_limits(share.limits, _PERCENT)]
        return observation

    def _per_hundred(self, it: PerHundred) -> Resource:
        observation = self._measured(_name_beside(it.own), _own_code(it.own), it.value, _PER_HUNDRED)
        count = {"code": {"text": "Cells of this type counted"}, "valueInteger": it.count}
        observation["component"] = [count, *(_limits(it.limits, _PER_HUNDRED) if it.limits else ())]
        return observation

    def _leucocytes(self, total: float) -> Resource:
        code = _loinc(TOTAL_COUNT, "Leucocytes per volume, as given with the specimen")
        observation = self._measured("leucocytes", code, total, _PER_LITRE)
        del observation["device"]  # not measured by the model
        return observation

    def _corrected(self, count: float) -> Resource:
        included = [it.own for it in self.differential.beside if it.own.in_leucocyte_count and it.count]
        text = f"Leucocytes per volume, corrected for {' and '.join(map(str, included))}"
        # That code is of a correction for erythroblasts alone.
        erythroblasts = all(it.code and (it.code.system, it.code.code) == (LOINC, ERYTHROBLASTS) for it in included)
        code = _loinc(CORRECTED_COUNT, _text(text)) if erythroblasts else {"text": _text(text)}
        observation = self._measured("corrected leucocytes", code, count, _PER_LITRE)
        sources = ["leucocytes", *map(_name_beside, included)]
        observation["derivedFrom"] = [self._reference(name) for name in sources]
        return observation

    def _absolute(self, share: Share, absolute: Absolute) -> Resource:
        label, corrected = share.label, self.differential.corrected_count is not None
        text = f"{label.capitalize()}s per volume"
        # The code of a type of the laboratory's own is that of its share.
        code = _loinc(CODES[label][1], text) if share.own is None else {"text": f"{label.capitalize()} per volume"}
        observation = self._measured(f"{label} absolute", code, absolute.value, _PER_LITRE)
        total = "corrected leucocytes" if corrected else "leucocytes"
        observation["derivedFrom"] = [self._reference(f"{label} percent"), self._reference(total)]
        observation["component"] = _limits(absolute.limits, _PER_LITRE)
        return observation

    def _device(self) -> Resource:
        model = self.snapshot.model
        trained_on = "not said by its folder" if model.trained_on is None else _text(model.trained_on)
        return {
            "resourceType": "Device",
            "id": self._id("device"),
            "deviceName": [{"name": _text(model.name), "type": "model-name"}],
            "type": {"text": "Classifier of leucocytes in pictures of stained smears"},
            "version": [
                {"type": {"text": "SHA-256 of the weights, first twelve digits"}, "value": model.version},
                {"type": {"text": "Software"}, "value": model.software},
            ],
            "note": [{"text": f"Trained on: {trained_on}"}, {"text": RESEARCH_USE}],
        }

    def _specimen(self) -> Resource:
        specimen: Resource = {
            "resourceType": "Specimen",
            "id": self._id("specimen"),
            "type": {"text": "Stained blood smear"},
        }
        if self.snapshot.specimen.strip():
            specimen["identifier"] = [{"value": _text(self.snapshot.specimen)}]
        about = self.snapshot.about
        if "subject" in self.context:
            specimen["subject"] = self.context["subject"]
        if about.slide.strip():
            specimen["container"] = [{"identifier": [{"value": _text(about.slide)}], "description": "Slide"}]
        if about.comment.strip():
            specimen["note"] = [{"text": _text(about.comment)}]
        return specimen


_NOT_COUNTED: Resource = {
    "coding": [{"system": f"{_TERMINOLOGY}/data-absent-reason", "code": "not-performed", "display": "Not Performed"}],
    "text": "No cells were counted",
}


def _name_beside(own: CellType) -> str:
    """Names the observation of a type that is counted per 100 leucocytes."""
    return f"{own} per 100 leucocytes{', in the leucocyte count' if own.in_leucocyte_count else ''}"


def _own_code(own: CellType) -> Resource:
    """What a type of the laboratory's own is called: by its name, and as the settings say."""
    concept: Resource = {"text": f"{own.name.capitalize()} per 100 leucocytes"}
    if own.code is not None:
        coding = {"system": own.code.system, "code": own.code.code}
        concept["coding"] = [coding | ({"display": own.code.display} if own.code.display else {})]
    return concept


def _text(text: str) -> str:
    """Normalise a text to FHIR's `string`: no control characters, single spaces, none at the ends."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split()) or "-"


def _identified(kind: str, number: str) -> Resource:
    return {"type": kind, "identifier": {"value": _text(number)}}


def _conclusion(signature: Signature | None) -> str:
    comment = "" if signature is None else signature.comment.strip()
    return f"{RESEARCH_USE} {_text(comment)}" if comment else RESEARCH_USE


def _coding(system: str, code: str, display: str) -> Resource:
    return {"system": system, "code": code, "display": display}


def _loinc(code: str, text: str) -> Resource:
    return {"coding": [{"system": LOINC, "code": code}], "text": text}


def _quantity(value: float, unit: Resource) -> Resource:
    return {"value": round(value, _DECIMALS), **unit}


def _limits(limits: tuple[float, float], unit: Resource) -> list[Resource]:
    return [
        {"code": {"text": f"{end} exact 95 % confidence limit"}, "valueQuantity": _quantity(limit, unit)}
        for end, limit in zip(("Lower", "Upper"), limits, strict=True)
    ]
