"""The reporting checklists of a card: every item is there, and leads to a section that the card has, or says no."""

import re
from pathlib import Path

import pytest

from tests.test_model_card import AUDIT, CALIBRATION, METRICS, REVIEW, RUN, WITHOUT_LEAKED, run_with
from wbc_hf.evaluation import map_checklists, render_card

ROOT = Path(__file__).parents[1]
CLAIM = [str(number) for number in range(1, 45)]
PARTS = {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef", 20: "abc", 23: "ab", 27: "abc"}
TRIPOD = [f"{number}{part}" for number in range(1, 28) for part in PARTS.get(number, [""])]
STREAM = run_with(data_given_splits=None, data_fingerprint=None, data_splits={"test": RUN["data"]["splits"]["test"]})
PAINTED = run_with(base_model=None, width=0.25, data_spec="synthetic", data_title="Painted", data_homepage="")
LOCAL = run_with(data_spec="/home/anna/smears", data_title="/home/anna/smears", data_homepage=None)
UNSEEN = METRICS | {"review": REVIEW, "unseen": {"Somewhere": METRICS | {"review": REVIEW}}}
FULL = UNSEEN | {"calibration": CALIBRATION, "leaked": 12, "without_leaked": WITHOUT_LEAKED}
FULL |= {"laboratories": UNSEEN["unseen"]}


def tables(card: str) -> tuple[dict[str, str], dict[str, str]]:
    """Where a card has each item of CLAIM and of TRIPOD+AI, by number."""
    section = card.partition("\n## Reporting checklists\n")[2]
    claim, tripod = (
        dict(re.findall(r"^\| (\d+[a-g]?) \| .+ \| (.+) \|$", part, re.MULTILINE))
        for part in section.split("<summary>")[1:]
    )
    return claim, tripod


def test_there_are_52_parts():
    assert len(TRIPOD) == 52


@pytest.mark.parametrize("run", [RUN, STREAM, PAINTED, LOCAL, run_with(data_audit=AUDIT, data_given_splits=True)])
@pytest.mark.parametrize("metrics", [METRICS, METRICS | {"calibration": CALIBRATION}, UNSEEN, FULL])
def test_every_item_leads_to_a_section_or_says_no(run: dict, metrics: dict):
    card = render_card(run, metrics)
    body = card.partition("\n## Reporting checklists\n")[0]
    claim, tripod = tables(card)
    assert (list(claim), list(tripod)) == (CLAIM, TRIPOD)
    for where in (*claim.values(), *tripod.values()):
        sections = re.findall("“(.+?)”", where)
        assert all(re.search(rf"^#+ {re.escape(section)}$", body, re.MULTILINE) for section in sections)
        assert sections or re.match("not (done|known|applicable)|retrospective|as all labels", where)


def test_items_that_depend_on_the_run():
    unseen = "“In laboratories that it has not seen”"
    claim, tripod = tables(render_card(RUN, METRICS))
    assert claim["7"] == tripod["5a"] == "“Data”"
    assert claim["33"] == claim["30"] == tripod["12d"] == tripod["24"] == tripod["27a"] == "not done"
    assert tripod["12e"] == "“How good it is”: discrimination; calibration is not done"
    assert tripod["18e"] == "“Data”: published by others"
    claim, tripod = tables(render_card(RUN, FULL))
    assert claim["33"].startswith(unseen)
    assert claim["30"] == tripod["16"] == unseen
    assert tripod["12d"] == "“How good it is”: by laboratory"
    assert tripod["12e"].endswith("“Calibration of the probabilities”")
    assert tripod["27a"].startswith("“Selective prediction")
    claim, tripod = tables(render_card(LOCAL, METRICS))
    assert claim["7"] == tripod["5a"] == "not known: a folder of images that is not published"
    assert tripod["18e"] == "not known"


def test_what_is_never_done_is_said():
    claim, tripod = tables(render_card(RUN, FULL))
    assert all(claim[item].startswith("not done") for item in ("2", "18", "21", "34"))
    assert all(claim[item].startswith("not known") for item in ("11", "13", "16", "36", "44"))
    assert all(tripod[item].startswith("not done") for item in ("2", "3c", "10", "14", "18c", "18d", "19"))
    assert all(tripod[item].startswith("not known") for item in ("5b", "6b", "17", "18a", "18b", "20b"))


def test_painted_cells_are_of_no_patient():
    claim, tripod = tables(render_card(PAINTED, METRICS))
    assert claim["36"] == claim["13"] == tripod["17"] == tripod["20a"] == "not applicable: painted cells"
    assert claim["14"] == "“Data”: the class that was drawn"
    assert "patient" not in claim["20"] + claim["35"]


@pytest.mark.parametrize("given", [True, False, None])
def test_partitions(given: bool | None):
    run = run_with(data_given_splits=given) if given is not None else STREAM
    said = {
        True: "“Data”: as published",
        False: "“Data”: cell or photograph, where known; not patient",
        None: "not known: read as a stream",
    }
    assert tables(render_card(run, METRICS))[0]["20"] == said[given]


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"class_weights": "none", "balance": 0.0}, "not done"),
        ({"class_weights": "balanced", "balance": 0.0}, "“Training”: `class_weights` and `balance`"),
        ({"class_weights": "none", "balance": 0.5}, "“Training”: `class_weights` and `balance`"),
    ],
)
def test_class_imbalance(arguments: dict, where: str):
    assert tables(render_card(run_with(arguments=arguments), METRICS))[1]["13"] == where


def test_a_card_that_has_them_is_brought_up_to_date_in_place():
    card = render_card(RUN, METRICS)
    assert map_checklists(card) == card
    credited = card + "\n## Credits\n\nSomebody.\n"
    assert map_checklists(credited) == credited
    adapted = credited.replace("\n## How to use it", "\n## Adapted to another laboratory\n\n## How to use it")
    assert tables(map_checklists(adapted))[1]["24"] == "“Adapted to another laboratory”"


@pytest.mark.parametrize("name", ["models/starter/README.md", "model_card.md"])
def test_shipped_cards_have_them_as_they_are_written_now(name: str):
    card = (ROOT / name).read_text(encoding="utf-8")
    assert "\n## Reporting checklists\n" in card
    assert map_checklists(card) == card
