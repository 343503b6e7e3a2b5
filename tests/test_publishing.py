"""Publishing: what goes up, what never does, and what is left behind when a push breaks off."""

import hashlib
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.loopback_hub import TOKEN, LoopbackHub, connect
from wbc_hf.errors import HubUnreachableError, WbcError
from wbc_hf.hub import UNNAMED_MODEL, fetch_model, push_folder, read_changes

CARD = f"""---
license: apache-2.0
tags:
- leucocytes
---

# A model

`pipeline("image-classification", model="{UNNAMED_MODEL}")`

## Changes

- 2026-01-02: trained on cells of somebody.

## Licence

Apache-2.0.
"""

PUBLISHED = {
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 40,
    "preprocessor_config.json": b'{"size": 32}',
    "wbc.json": b'{"temperature": 1.5}',
    "wbc.safetensors": b"statistics",
    "metrics.json": b'{"accuracy": 0.5}',
    "figures/confusion_matrix.png": b"a chart",
    "README.md": CARD.replace(UNNAMED_MODEL, "me/name").encode(),
}
KEPT_AT_HOME = {
    "README.md": CARD.encode(),
    "training_args.bin": b"a pickle",
    "optimizer.pt": b"a pickle",
    "predictions.csv": b"smear_of_somebody.png,monocyte",
    "figures/misclassified.png": b"cells of somebody",
    "figures/notes.txt": b"notes",
    "run.json": b'{"data": {"spec": "cells/of/somebody"}}',
    "checkpoint-10/model.safetensors": b"older weights",
    "checkpoint-10/config.json": b"{}",
    ".env": b"HF_TOKEN=hf_secret",
}
LOCAL = PUBLISHED | KEPT_AT_HOME
# On the Hub alone: what `fetch_model` checks the weights by.
PUBLISHED["SHA256SUMS"] = "".join(
    f"{hashlib.sha256(PUBLISHED[name]).hexdigest()}  {name}\n" for name in ("model.safetensors", "wbc.safetensors")
).encode()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # huggingface_hub waits 23 s before it gives up


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in LOCAL.items():
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_goes_up_without_what_is_private(hub: LoopbackHub, folder: Path):
    assert push_folder(folder, "me/name") == f"{hub.endpoint}/me/name"
    assert hub.files("me/name") == PUBLISHED
    assert not hub.is_private("me/name")
    assert contents(folder) == LOCAL


def test_what_was_pushed_is_fetched_byte_for_byte(hub: LoopbackHub, folder: Path):
    push_folder(folder, "me/name")
    fetched = contents(fetch_model("me/name"))
    assert fetched == {name: PUBLISHED[name] for name in fetched}
    assert set(PUBLISHED) - set(fetched) == {"figures/confusion_matrix.png"}


def test_pushing_twice_changes_nothing(hub: LoopbackHub, folder: Path):
    push_folder(folder, "me/name")
    commits = hub.commit_count("me/name")
    assert push_folder(folder, "me/name") == f"{hub.endpoint}/me/name"
    assert hub.commit_count("me/name") == commits
    assert hub.files("me/name") == PUBLISHED


FIRST = "2026-01-02: trained on cells of somebody."


def change(folder: Path, weights: bytes = b"better weights", card: str | None = None) -> None:
    """Make another model of the folder."""
    (folder / "model.safetensors").write_bytes(weights)
    if card is not None:
        (folder / "README.md").write_text(card)


def published_changes(hub: LoopbackHub) -> list[str]:
    return read_changes(hub.files("me/name")["README.md"].decode())


def test_another_model_without_a_word_on_what_changed_is_refused(hub: LoopbackHub, folder: Path):
    push_folder(folder, "me/name")
    change(folder)
    said = rf'me/name: its card has every change.*newest being \'{FIRST}\'.*--changes "TEXT"'
    with pytest.raises(WbcError, match=said):
        push_folder(folder, "me/name")
    assert hub.files("me/name") == PUBLISHED


def test_changes_grow_with_each_version(hub: LoopbackHub, folder: Path):
    push_folder(folder, "me/name")
    change(folder)
    push_folder(folder, "me/name", changes="stained\n  anew")
    today = datetime.now(UTC).date()
    assert published_changes(hub) == [f"{today}: stained anew", FIRST]
    card = hub.files("me/name")["README.md"].decode()
    assert card.endswith(f"## Changes\n\n- {today}: stained anew\n- {FIRST}\n\n## Licence\n\nApache-2.0.\n")
    assert contents(folder) == LOCAL | {"model.safetensors": b"better weights"}

    # What the folder's own card does not say is published all the same.
    push_folder(folder, "me/name")
    assert published_changes(hub) == [f"{today}: stained anew", FIRST]
    change(folder, b"best weights")
    with pytest.raises(WbcError, match="every change"):
        push_folder(folder, "me/name", changes="stained anew")
    push_folder(folder, "me/name", changes="painted")
    assert published_changes(hub) == [f"{today}: painted", f"{today}: stained anew", FIRST]


def test_a_model_that_was_trained_again_brings_its_own_change(hub: LoopbackHub, folder: Path):
    push_folder(folder, "me/name")
    change(folder, card=CARD.replace("2026-01-02", "2026-02-03"))
    push_folder(folder, "me/name")
    assert published_changes(hub) == [FIRST.replace("2026-01-02", "2026-02-03"), FIRST]


@pytest.mark.parametrize("section", ["", "## Changes\n\n## Licence\n"])
def test_a_card_without_changes_stops_the_push(hub: LoopbackHub, folder: Path, section: str):
    change(folder, card=f"---\nlicense: mit\n---\n# A model\n\n{section}")
    with pytest.raises(WbcError, match=r'README\.md: has no "## Changes".*--changes "TEXT"'):
        push_folder(folder, "me/name")
    assert hub.requests == []
    push_folder(folder, "me/name", changes="first version")
    assert published_changes(hub) == [f"{datetime.now(UTC).date()}: first version"]


def test_a_change_that_says_nothing_is_refused(hub: LoopbackHub, folder: Path):
    with pytest.raises(WbcError, match='--changes "": says nothing'):
        push_folder(folder, "me/name", changes=" \n")
    assert hub.requests == []


def test_a_push_with_a_change_is_repeated_as_it_was(hub: LoopbackHub, folder: Path):
    hub.fail_next("commit", 500, times=None)
    with pytest.raises(WbcError, match=r"wbc-hf push \S+ me/name --changes 'more cells'$"):
        push_folder(folder, "me/name", changes="more cells")


def test_other_files_on_the_hub_stay_and_the_card_is_replaced(hub: LoopbackHub, folder: Path):
    hub.add_repo("me/name", {"README.md": b"# Other weights\n", ".gitattributes": b"*.bin", "paper.pdf": b"paper"})
    push_folder(folder, "me/name")
    assert hub.files("me/name") == PUBLISHED | {".gitattributes": b"*.bin", "paper.pdf": b"paper"}


def test_the_token_is_sent_and_written_nowhere(hub: LoopbackHub, folder: Path):
    push_folder(folder, "me/name")
    assert f"Bearer {TOKEN}" in {request.authorization for request in hub.requests}
    assert not [name for name, content in hub.files("me/name").items() if b"hf_" in content]
    assert contents(folder) == LOCAL
    assert not Path(constants.HF_TOKEN_PATH).exists()


def test_a_private_push_stays_private(hub: LoopbackHub, folder: Path):
    push_folder(folder, "me/name", private=True)
    push_folder(folder, "me/name", private=True)
    assert hub.is_private("me/name")


def test_a_private_push_into_a_public_repository_is_refused(hub: LoopbackHub, folder: Path):
    hub.add_repo("me/name", {"a.txt": b"a"})
    with pytest.raises(WbcError, match="exists and is public"):
        push_folder(folder, "me/name", private=True)
    assert hub.files("me/name") == {"a.txt": b"a"}


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "README.md"])
def test_a_folder_without_a_model_is_refused(hub: LoopbackHub, folder: Path, missing: str):
    (folder / missing).unlink()
    with pytest.raises(WbcError, match=f"has no {missing}"):
        push_folder(folder, "me/name")
    assert hub.requests == []


@pytest.mark.parametrize(
    "name", ["wbc.json", "wbc_more.safetensors", "figures/chart.png", "README.md", "model.safetensors", "NOTICE"]
)
def test_what_a_link_leads_to_is_never_published(hub: LoopbackHub, folder: Path, name: str, tmp_path: Path):
    (tmp_path / "secret").write_bytes(b"a secret of this machine")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(WbcError, match=rf"{name}: is a link to a file outside of the folder"):
        push_folder(folder, "me/name")
    assert hub.requests == []


def test_a_linked_folder_of_figures_is_never_published(hub: LoopbackHub, folder: Path, tmp_path: Path):
    (folder / "figures").rename(tmp_path / "figures")
    (folder / "figures").symlink_to(tmp_path / "figures")
    with pytest.raises(WbcError, match=r"figures/.*\.png: is a link to a file outside of the folder"):
        push_folder(folder, "me/name")
    assert hub.requests == []


def test_links_within_the_folder_are_published_as_files(hub: LoopbackHub, folder: Path):
    (folder / "wbc.json").rename(folder / "numbers.json")
    (folder / "wbc.json").symlink_to("numbers.json")
    push_folder(folder, "me/name")
    assert hub.files("me/name") == PUBLISHED


def test_a_card_in_another_encoding_is_named(hub: LoopbackHub, folder: Path):
    (folder / "README.md").write_bytes("# Zürich".encode("latin-1"))
    with pytest.raises(WbcError, match=r"README\.md: is not in UTF-8"):
        push_folder(folder, "me/name")


def test_a_name_that_is_none_is_refused(hub: LoopbackHub, folder: Path):
    with pytest.raises(WbcError, match="a/b/c: not a name for a model"):
        push_folder(folder, "a/b/c")
    assert hub.requests == []


def test_no_token_is_said_before_anything_is_sent(hub: LoopbackHub, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(WbcError, match=r"No token.*hf auth login.*HF_TOKEN"):
        push_folder(folder, "me/name")
    assert hub.requests == []


def test_a_card_without_a_licence_stops_the_push(hub: LoopbackHub, folder: Path):
    (folder / "README.md").write_text("---\ntags:\n- leucocytes\n---\n# A model\n\n## Changes\n\n- First.\n")
    with pytest.raises(WbcError, match=r"README\.md: names no licence.*license: apache-2\.0"):
        push_folder(folder, "me/name")
    assert not [request for request in hub.requests if request.path == "/api/repos/create"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "model.safetensors",
            b"other weights",
            r"model\.safetensors is not what was published.*says [0-9a-f]{64}\.",
        ),
        ("model-2.safetensors", b"more weights", r"model-2\.safetensors.*says nothing of it"),
    ],
)
def test_weights_that_were_exchanged_on_the_hub_are_refused(
    hub: LoopbackHub, folder: Path, name: str, content: bytes, said: str
):
    push_folder(folder, "me/name")
    hub.add_repo("me/name", hub.files("me/name") | {name: content})
    with pytest.raises(WbcError, match=said):
        fetch_model("me/name")


def test_weights_that_went_bad_in_the_cache_are_refused_without_the_hub(hub: LoopbackHub, folder: Path):
    push_folder(folder, "me/name")
    (fetch_model("me/name") / "wbc.safetensors").resolve().write_bytes(b"half")
    hub.drop_after(0)
    with pytest.raises(WbcError, match=r"me/name: wbc\.safetensors is not what was published"):
        fetch_model("me/name")


@pytest.mark.parametrize("front_matter", ["license: free-beer", "license: [", "model-index:\n- name: a"])
def test_a_card_that_the_hub_refuses_stops_the_push(hub: LoopbackHub, folder: Path, front_matter: str):
    (folder / "README.md").write_text(f"---\n{front_matter}\n---\n# A model\n\n## Changes\n\n- First.\n")
    with pytest.raises(WbcError, match=r"README\.md: the Hub does not accept this model card"):
        push_folder(folder, "me/name")
    assert not [request for request in hub.requests if request.path == "/api/repos/create"]


def test_a_dead_hub_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    connect("http://127.0.0.1:1", monkeypatch, tmp_path)  # port 1 is nobody's
    with pytest.raises(HubUnreachableError, match=r"127\.0\.0\.1:1"):
        push_folder(folder, "me/name")


@pytest.mark.parametrize("status", [None, 401, 403, 500])
@pytest.mark.parametrize(
    "step",
    [
        "POST /api/validate-yaml",
        "POST /api/repos/create",
        "resolve/main/README.md",
        "preupload",
        "POST .*objects/batch",
        "PUT /lfs/",
        "commit",
    ],
)
def test_a_push_that_breaks_off_can_be_repeated(hub: LoopbackHub, folder: Path, step: str, status: int | None):
    hub.fail_next(step, status, times=None)
    with pytest.raises(WbcError) as caught:
        push_folder(folder, "me/name")
    message = str(caught.value)
    assert "did not finish" in message
    assert "whole and unchanged" in message
    assert message.endswith(f"wbc-hf push {folder} me/name")
    assert status is None or f"answered {status}" in message
    assert contents(folder) == LOCAL

    hub.heal()
    push_folder(folder, "me/name")
    assert hub.files("me/name") == PUBLISHED
    assert contents(folder) == LOCAL


def test_a_connection_lost_at_any_request_leaves_the_old_model(
    hub: LoopbackHub, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    push_folder(folder, "me/name")
    old = {"config.json": b"old", "model.safetensors": b"old"}
    for answered in range(len(hub.requests)):
        with LoopbackHub() as dropping_hub:
            connect(dropping_hub, monkeypatch, tmp_path)
            dropping_hub.add_repo("me/name", old)
            dropping_hub.drop_after(answered)
            with pytest.raises(WbcError):
                push_folder(folder, "me/name")
            assert dropping_hub.files("me/name") == old
            dropping_hub.heal()
            push_folder(folder, "me/name")
            assert dropping_hub.files("me/name") == PUBLISHED
    assert contents(folder) == LOCAL
