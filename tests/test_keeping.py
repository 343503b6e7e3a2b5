"""The page with a store: the work list, signing, a second reading, who may do what."""

import asyncio
import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.state_holder import SessionState
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tests.adapted_models import build_tiny_model
from tests.kept_specimens import MODEL, add_field, new_cell
from wbc_hf.cli.serve import serve
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor
from wbc_hf.reports import EXPORTS
from wbc_hf.smear import DEFAULT_RANGES, ChangedMeanwhileError, Specimen, amend, sign
from wbc_hf.store import KeptSpecimen, SpecimenStore, State
from wbc_hf.web import build_page, parse_roles
from wbc_hf.web.checked_blocks import CheckedBlocks
from wbc_hf.web.keeping import compare_readings
from wbc_hf.web.operating import add_operation
from wbc_hf.web.session import SIGNED, Session
from wbc_hf.web.uploads import Upload

pytestmark = pytest.mark.usefixtures("unserved")

EVERY = "every state"


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(*build_tiny_model(), name="tiny")


@pytest.fixture
def store(tmp_path: Path) -> SpecimenStore:
    return SpecimenStore(tmp_path / "specimens")


class Page:
    """The handlers of a page, called as Gradio calls them, and what they left in each part of it."""

    def __init__(self, predictor: Predictor, store: SpecimenStore | None, roles: str | None = None):
        users = parse_roles(roles, ["ana", "ben", "eve"])
        self.page = build_page(predictor, store=store, roles=users, ask_after=timedelta(days=1))
        self.shown: dict = {}

    def call(self, name: str, *values: object, user: str = "", tab: str = "one") -> str:
        handler: Callable = next(fn.fn for fn in self.page.fns.values() if fn.name == name)
        update = handler(*values, request(tab, user))
        if isinstance(update, dict):
            self.shown |= update
            return "".join(map(str, update.values()))
        return str(update)

    def act(self, action: str, key: str, user: str = "") -> str:
        event = SimpleNamespace(action=action, number=1, value=key)
        return self.call("on_list", event, self.session, "", EVERY, user=user)

    def sign(self, comment: str = "", reviewer: str = "Dr. Roe", name: str = "S 17", action: str = "on_sign") -> str:
        handler = next(fn.fn for fn in self.page.fns.values() if fn.name == action)
        update = handler(self.session, name, "", reviewer, "P-1", "", "", "", comment)
        self.shown |= update
        return "".join(map(str, update.values()))

    @property
    def session(self) -> Session | None:
        state = next((part for part in self.shown if isinstance(part, gr.State)), None)
        return None if state is None else self.shown[state]


def request(tab: str = "one", user: str = "") -> SimpleNamespace:
    return SimpleNamespace(session_hash=tab, username=user or None)


def keep(store: SpecimenStore, owner: str = "", name: str = "S 17") -> KeptSpecimen:
    specimen = store.begin(owner)
    add_field(specimen, *[new_cell(4)] * 99, new_cell(3, "review"))
    specimen.describe(name=name)
    return specimen


def test_without_a_store_there_is_no_work_list(predictor: Predictor):
    page = build_page(predictor)
    assert not any(fn.name == "on_list" for fn in page.fns.values())


def test_a_specimen_of_the_work_list_is_opened_where_it_was(predictor: Predictor, store: SpecimenStore):
    specimen = keep(store, name="S 17 <b>")
    specimen.review(1, "monocyte", "Ana")
    page = Page(predictor, SpecimenStore(store.name))
    listed = page.call("on_find", "s 17", EVERY)
    assert "S 17 &lt;b&gt;" in listed and "in review" in listed and specimen.key in listed
    assert "No specimen is found" in page.call("on_find", "another", EVERY)
    assert "No specimen is found" in page.call("on_find", "", "signed")

    page.act("open", specimen.key)
    assert page.session.specimen.key == specimen.key
    assert page.session.view.cell.number == 100  # the one that waits
    page.session.act("label", 100, "basophil", "Ben")
    again = SpecimenStore(store.name).open(specimen.key)
    assert (again.cells[99].label, again.cells[99].reviewer) == ("basophil", "Ben")


def test_what_cannot_be_opened_is_said(predictor: Predictor, store: SpecimenStore):
    page = Page(predictor, store)
    assert "is not in this store, or was deleted" in page.act("open", "0" * 32)


def test_a_specimen_is_deleted(predictor: Predictor, store: SpecimenStore):
    specimen = keep(store)
    page = Page(predictor, store)
    page.act("open", specimen.key)
    page.act("delete", specimen.key)
    assert store.find().total == 0
    assert page.session.specimen.pictures == ()


def test_what_is_loaded_back_is_kept(predictor: Predictor, store: SpecimenStore, tmp_path: Path):
    loaded = Specimen("S 9")
    add_field(loaded, new_cell(4), new_cell(status="review"))
    loaded.review(2, "monocyte", "Ana")
    everything = next(export for export in EXPORTS if export.key == "json")
    file = tmp_path / "upload"
    file.write_bytes(everything.make(loaded.snapshot(MODEL, DEFAULT_RANGES)))
    page = Page(predictor, store)
    handler = next(fn.fn for fn in page.page.fns.values() if fn.name == "on_files")
    given = [{"path": str(file), "orig_name": "S 9.json"}]
    (update,) = handler(given, "Find out", "the end", "", request())
    page.shown |= update
    assert "was counted by wbc-tiny" in "".join(map(str, update.values()))
    (item,) = store.find().items
    assert (item.name, item.state, item.cells) == ("S 9", State.IN_REVIEW, 2)
    with pytest.raises(WbcError, match="was counted by wbc-tiny"):
        page.session.check_room()
    (again,) = handler(given, "Find out", "the end", "", request())
    assert "would be mixed" in "".join(map(str, again.values()))


# ---- signing


def test_signing_says_what_stands_against_it_and_locks(predictor: Predictor, store: SpecimenStore):
    specimen = keep(store)
    page = Page(predictor, store)
    page.act("open", specimen.key)
    assert "1 cell waits for review" in page.sign()
    assert "gives a name" in page.sign("few cells", reviewer="")
    signed = page.sign("few cells")
    assert "Signed by <b>Dr. Roe</b>" in signed
    # Neither card nor gallery offers what would be refused.
    assert signed.count(SIGNED) == 2
    reviewing = re.findall(r'<button[^>]*data-action="(?:label|withdraw|undo)"[^>]*>', signed)
    assert reviewing and all(button.endswith(" disabled>") for button in reviewing)
    assert (store.find().items[0].state, specimen.about.patient) == (State.SIGNED, "P-1")
    with pytest.raises(WbcError, match="can only be amended"):
        page.session.act("label", 1, "monocyte", "Ana")
    assert "can only be amended" in page.sign("again", name="another")
    assert "Amended 1 time" in page.sign("wrong slide", action="on_amend")
    page.session.act("label", 1, "monocyte", "Ana")
    assert store.find().items[0].state == State.IN_REVIEW


def test_a_second_reading_knows_nothing_of_the_first(predictor: Predictor, store: SpecimenStore):
    first = keep(store)
    for number in range(1, 5):
        first.review(number, "monocyte", "Ana")
    page = Page(predictor, store)
    page.act("open", first.key)
    page.call("on_second_reading", page.session)
    second = page.session.specimen
    assert second.key != first.key and not any(cell.review for cell in second.cells)
    for number, label in ((1, "monocyte"), (2, "monocyte"), (3, "basophil"), (9, "basophil")):
        second.review(number, label, "Ben")
    agreement = compare_readings(first, second)
    assert (agreement.readers, agreement.cells, agreement.same) == (("Ana", "Ben"), 3, 2)
    assert "Ana and Ben" not in page.act("open", second.key)  # that would tell what the first reader said
    assert "Ana and Ben: 2 of 3 cells" in page.sign("second reading", reviewer="Dr. Roe")
    assert first.cells[0].reviewer == "Ana"


# ---- two readers on two servers


@pytest.fixture(params=["one server", "two servers"])
def pages(request: pytest.FixtureRequest, predictor: Predictor, store: SpecimenStore) -> tuple[Page, Page]:
    """Ana's page and Ben's, on which the same specimen is open."""
    specimen = keep(store)
    other = store if request.param == "one server" else SpecimenStore(store.name)
    ana, ben = Page(predictor, store), Page(predictor, other)
    for page in (ana, ben):
        page.act("open", specimen.key)
    return ana, ben


def label(page: Page, number: int, word: str, who: str) -> str:
    event = SimpleNamespace(action="label", number=number, value=word)
    return page.call("on_action", event, page.session, "", who)


def said_of(page: Page, number: int) -> list[tuple[str, str]]:
    return [(it.who, it.after) for it in page.session.specimen.history if it.cell == number]


def test_whoever_comes_second_is_told_and_overrules_nobody_unseen(pages: tuple[Page, Page]):
    ana, ben = pages
    label(ben, 100, "basophil", "Ben")
    assert "Ben: reviewed, cell 100: not reviewed → basophil" in label(ana, 1, "monocyte", "Ana")  # of another cell
    assert "by others" not in label(ana, 2, "monocyte", "Ana")
    label(ben, 100, "eosinophil", "Ben")
    told = label(ana, 100, "monocyte", "Ana")
    assert "Look once more" in told and "Ben: reviewed, cell 100, eosinophil" in told
    assert ana.session.specimen.cells[99].label == "eosinophil"
    assert "Look once more" not in label(ana, 100, "monocyte", "Ana")
    ben.session.specimen.catch_up()
    for page in pages:
        assert said_of(page, 100) == [("Ben", "basophil"), ("Ben", "eosinophil"), ("Ana", "monocyte")]


def test_undo_takes_back_ones_own_word_alone(pages: tuple[Page, Page]):
    ana, ben = pages
    label(ana, 100, "monocyte", "Ana")
    label(ben, 1, "monocyte", "Ben")  # which shows him hers
    label(ben, 100, "basophil", "Ben")
    with pytest.raises(ChangedMeanwhileError, match="Ben: reviewed, cell 100, basophil"):
        ana.session.act("undo", 0, None, "Ana")
    assert ana.session.specimen.cells[99].label == "basophil"
    ben.session.act("undo", 0, None, "Ben")
    ben.session.act("undo", 0, None, "Ben")
    assert ben.session.specimen.cells[99].label == "monocyte" and ben.session.specimen.cells[0].review is None


def fields(page: Page, who: str, *, patient: str = "", comment: str = "") -> dict:
    handler = next(fn.fn for fn in page.page.fns.values() if fn.name == "on_field")
    return handler(page.session, "S 17", "", who, patient, "", "", comment)


def test_a_field_is_not_emptied_by_whoever_did_not_see_it_filled(pages: tuple[Page, Page]):
    ana, ben = pages
    fields(ben, "Ben", patient="P-1")
    fields(ana, "Ana", comment="thick smear")
    about = ana.session.specimen.about
    assert (about.name, about.patient, about.comment) == ("S 17", "P-1", "thick smear")
    fields(ben, "Ben", patient="P-2")
    update = fields(ana, "Ana", patient="P-3", comment="thin smear")
    said = "".join(map(str, update.values()))
    assert "Patient: Ben wrote “P-2” meanwhile, and you “P-3”" in said and "P-2" in update.values()
    about = ana.session.specimen.about
    assert (about.patient, about.comment) == ("P-2", "thin smear")
    fields(ana, "Ana", patient="P-3", comment="thin smear")
    assert ana.session.specimen.about.patient == "P-3"


def test_nobody_signs_what_they_have_not_seen(pages: tuple[Page, Page]):
    ana, ben = pages
    label(ben, 100, "basophil", "Ben")
    said = ana.sign("few cells", reviewer="Ana")
    assert "Ben: reviewed, cell 100" in said and ana.session.specimen.about.signature is None
    assert "Signed by <b>Ana</b>" in ana.sign("few cells", reviewer="Ana")
    assert "can only be amended" in label(ben, 100, "monocyte", "Ben")
    assert "is signed" in ben.sign("few cells", reviewer="Ben") or ben.session.specimen.about.signature.name == "Ana"


def test_what_gets_in_while_somebody_signs_is_not_signed(pages: tuple[Page, Page], monkeypatch: pytest.MonkeyPatch):
    ana, ben = pages
    describe = ana.session.meanwhile.describe

    def describe_late(*given: object, **values: object) -> None:
        label(ben, 100, "basophil", "Ben")
        describe(*given, **values)

    monkeypatch.setattr(ana.session.meanwhile, "describe", describe_late)
    said = ana.sign("few cells", reviewer="Ana")
    assert "Ben: reviewed, cell 100" in said and ana.session.specimen.about.signature is None
    monkeypatch.undo()
    assert "Signed by <b>Ana</b>" in ana.sign("few cells", reviewer="Ana")


def test_what_others_do_at_the_same_time_is_not_taken_for_ones_own(pages: tuple[Page, Page]):
    ana, ben = pages
    with ana.session.meanwhile.doing("Ana"):
        ben.session.specimen.review(100, "basophil", "Ben")
        ana.session.specimen.catch_up()
        ana.session.specimen.review(1, "monocyte", " Ana")
    news = ana.session.meanwhile.news()
    assert "Ben: reviewed, cell 100" in news and "Ana" not in news


def test_whoever_is_refused_is_told_what_others_did(pages: tuple[Page, Page]):
    ana, ben = pages
    label(ben, 100, "basophil", "Ben")
    told = label(ana, 999, "monocyte", "Ana")
    assert "Not done" in told and "Ben: reviewed, cell 100" in told
    assert "100 Bas: basophil" in told  # all is shown as it is now
    assert "Look once more" in label(ana, 100, "monocyte", "Ana")


def test_a_refused_signature_leaves_what_is_not_read_yet(pages: tuple[Page, Page]):
    ana, ben = pages
    left = [Upload(b"", "later.jpg")]
    ana.session.unread = [*left]
    label(ben, 100, "basophil", "Ben")
    assert "Ben: reviewed, cell 100" in ana.sign("few cells", reviewer="Ana")
    assert ana.session.unread == left
    assert "Read the other 1 photograph" in [it.value for it in ana.shown.values() if isinstance(it, gr.Button)]


def test_of_two_who_write_at_once_the_later_is_asked(pages: tuple[Page, Page], monkeypatch: pytest.MonkeyPatch):
    ana, ben = pages
    specimen = ana.session.specimen
    describe = specimen.describe

    def describe_late(*given: object, **values: object) -> None:
        monkeypatch.undo()
        fields(ben, "Ben", patient="P-2")
        describe(*given, **values)

    monkeypatch.setattr(specimen, "describe", describe_late)
    said = "".join(map(str, fields(ana, "Ana", patient="P-3", comment="thin smear").values()))
    assert "Patient: Ben wrote “P-2” meanwhile, and you “P-3”" in said
    assert (specimen.about.patient, specimen.about.comment) == ("P-2", "thin smear")


def test_a_second_reading_has_what_was_added_elsewhere(pages: tuple[Page, Page]):
    ana, ben = pages
    add_field(ben.session.specimen, new_cell(4), name="his.jpg")
    ana.call("on_second_reading", ana.session)
    assert [it.name for it in ana.session.specimen.pictures] == ["field.jpg", "his.jpg"]


# ---- roles

ROLES = "ben:signer eve:administrator"


def test_one_reader_never_sees_anothers_specimen(predictor: Predictor, store: SpecimenStore):
    hers, his = keep(store, "ana", "A-1"), keep(store, "ben", "B-2")
    page = Page(predictor, store, ROLES)
    listed = page.call("on_find", "", EVERY, user="ana")
    assert "A-1" in listed and "B-2" not in listed
    said = page.act("open", his.key, user="ana")
    assert "another reader" in said and "B-2" not in said and page.session is None
    assert "Only an administrator deletes" in page.act("delete", his.key, user="ana")
    for user in ("ben", "eve"):
        assert all(name in page.call("on_find", "", EVERY, user=user) for name in ("A-1", "B-2"))
    page.act("delete", hers.key, user="eve")
    assert [item.name for item in store.find().items] == ["B-2"]


def test_only_a_signer_signs(predictor: Predictor, store: SpecimenStore):
    specimen = keep(store, "ana")
    page = Page(predictor, store, ROLES)
    page.act("open", specimen.key, user="ana")
    for user, said in (("ana", "Only a signer"), ("eve", "Only a signer"), ("ben", "Signed by <b>ben</b>")):
        page.session.user = user
        assert said in page.sign("few cells", reviewer="Dr. Roe")


def test_a_reader_does_not_delete_what_was_signed_once(predictor: Predictor, store: SpecimenStore):
    specimen = keep(store, "ana")
    sign(specimen, [], "ben")
    amend(specimen, "ben", "one more look")
    page = Page(predictor, store, ROLES)
    assert "Only an administrator deletes" in page.act("delete", specimen.key, user="ana")
    assert specimen.key in store
    page.act("delete", specimen.key, user="eve")
    assert specimen.key not in store


def test_a_session_is_of_whoever_began_it():
    with CheckedBlocks() as page:
        kept, word, said = gr.State(), gr.Textbox(), gr.Textbox()
        word.change(lambda before, now: (now, before), [kept, word], [kept, said], api_visibility="private")
    state, change = SessionState(page), page.default_config.fns[0]

    def call(word: str, user: str | None) -> object:
        given = {"inputs": [None, word], "state": state, "request": request(user=user)}
        return asyncio.run(page.process_api(block_fn=change, **given))["data"][1]

    call("hers", "ana")
    for other in ("ben", ""):
        with pytest.raises(gr.Error, match="somebody who signed in before"):
            call("his", other)
    assert call("again", "ana") == "hers"


def test_an_event_says_what_a_user_can_solve():
    def refuse() -> None:
        raise WbcError("This page holds as many specimens as it can.")

    with CheckedBlocks() as page:
        gr.Button().click(refuse, api_visibility="private")
    given = {"inputs": [], "state": SessionState(page), "request": request()}
    with pytest.raises(gr.Error, match="as many specimens as it can"):
        asyncio.run(page.process_api(block_fn=page.default_config.fns[0], **given))


@pytest.mark.parametrize("given", ["ana", "ana:king", "nobody:signer", ":signer"])
def test_names_a_role_that_is_none(given: str):
    with pytest.raises(WbcError, match="is not user:role"):
        parse_roles(given, ["ana"])


def test_a_store_that_others_reach_needs_a_password(tmp_path: Path):
    with pytest.raises(WbcError, match="Add --auth"):
        serve(host="0.0.0.0", store=tmp_path / "specimens")
    assert not (tmp_path / "specimens").exists()


# ---- operation


def test_health_and_version_say_nothing_of_specimens(store: SpecimenStore):
    keep(store, name="SECRET")
    app = Starlette()
    add_operation(app, MODEL, store)
    client = TestClient(app)
    health = client.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "ok")
    assert client.get("/version").json()["model_version"] == MODEL.version
    store.close()
    (Path(store.name) / "store.db").write_bytes(json.dumps(["damaged"]).encode() * 1000)
    assert client.get("/health").status_code == 503
