"""Sources: Kaggle as far as kagglehub goes, painted cells, and the Hub when it is away."""

import logging
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import loopback_hub, loopback_kaggle
from tests.loopback_kaggle import LoopbackKaggle, zipped
from tests.tiny_sets import picture
from wbc_hf.data import load_leucocytes, sources
from wbc_hf.data.known_sets import KNOWN_SETS
from wbc_hf.errors import HubUnreachableError, WbcError
from wbc_hf.labels import CLASS_NAMES


def closed_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def refused(spec: str, **options) -> str:
    """The text of the error, which has to come within the time that a person waits."""
    started = time.perf_counter()
    with pytest.raises(WbcError) as caught:
        load_leucocytes(spec, **options)
    assert time.perf_counter() - started < 15
    return str(caught.value)


# Kaggle

SPLIT_FOLDERS = {"TRAIN/EOSINOPHIL": 6, "TRAIN/MONOCYTE": 6, "TEST/EOSINOPHIL": 2, "TEST/MONOCYTE": 3}
ADVICE = (
    "Check the name, the network and, for sets that ask for it, KAGGLE_USERNAME and KAGGLE_KEY; "
    "or download it by hand and give the folder."
)


def files(folders: dict[str, int]) -> dict[str, bytes]:
    names = [f"{folder}/{index}.png" for folder, count in folders.items() for index in range(count)]
    return {name: picture(seed) for seed, name in enumerate(names)}


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackKaggle]:
    with LoopbackKaggle() as kaggle:
        kaggle.add_dataset("me/cells", zipped(files(SPLIT_FOLDERS)))
        loopback_kaggle.connect(kaggle, monkeypatch, tmp_path)
        yield kaggle


def test_a_kaggle_set(kaggle: LoopbackKaggle):
    cells = load_leucocytes("kaggle:me/cells")
    assert {name: len(split) for name, split in cells.items()} == {"train": 10, "validation": 2, "test": 5}
    assert Counter(cells["test"]["label"]) == {CLASS_NAMES.index("eosinophil"): 2, CLASS_NAMES.index("monocyte"): 3}
    assert sorted(cells["test"]["source"])[0] == "TEST/EOSINOPHIL/0.png"
    assert cells["test"][0]["image"].size == (20, 20)
    provenance = cells.provenance
    assert (provenance.spec, provenance.title, provenance.licence) == ("kaggle:me/cells", "kaggle:me/cells", None)
    assert provenance.given_splits


def test_a_kaggle_set_is_downloaded_once(kaggle: LoopbackKaggle):
    first = load_leucocytes("kaggle:me/cells")
    again = load_leucocytes("kaggle:me/cells")
    assert again.provenance.fingerprint == first.provenance.fingerprint
    assert kaggle.requests.count("GET /archive/me/cells") == 1


def test_a_known_kaggle_set_is_found_inside_its_archive_and_credited(kaggle: LoopbackKaggle):
    known = next(known for known in KNOWN_SETS if known.subfolder != ".")
    inside = {f"{known.subfolder}/{path}": content for path, content in files(SPLIT_FOLDERS).items()}
    # The archive holds the set twice; only one of the copies is meant.
    outside = {f"dataset-master/{path}": content for path, content in files({"JPEGImages": 2}).items()}
    kaggle.add_dataset(known.spec.removeprefix("kaggle:"), zipped(inside | outside))
    cells = load_leucocytes(known.spec)
    assert sum(len(split) for split in cells.values()) == 17
    assert cells.provenance.title == known.title
    assert cells.provenance.licence == known.licence


def test_no_such_kaggle_set(kaggle: LoopbackKaggle):
    message = refused("kaggle:me/other")
    assert message.startswith("kaggle:me/other: could not be downloaded (KaggleApiHTTPError: 404 Client Error. ")
    assert message.endswith(f"). {ADVICE}")
    assert "\n" not in message


def test_a_kaggle_set_that_asks_for_consent(kaggle: LoopbackKaggle):
    kaggle.fault = "refuse"
    message = refused("kaggle:me/cells")
    assert message.startswith("kaggle:me/cells: could not be downloaded (KaggleApiHTTPError: 403 Client Error. ")
    assert message.endswith(ADVICE)


@pytest.mark.parametrize("handle", ["", "cells", "me/", "/cells", "me/cells/versions/3"])
def test_not_a_kaggle_handle(handle: str, kaggle: LoopbackKaggle):
    expected = f"kaggle:{handle}: a Kaggle data set is named 'kaggle:owner/name'."
    assert refused(f"kaggle:{handle}") == expected
    assert kaggle.requests == []


@pytest.mark.parametrize("content", ["{", '{"username": "me"}'])
def test_spoilt_kaggle_credentials(content: str, kaggle: LoopbackKaggle, tmp_path: Path):
    (tmp_path / "kaggle.json").write_text(content)
    message = refused("kaggle:me/cells")
    assert message.startswith("kaggle:me/cells: ")
    assert f" {tmp_path}/kaggle.json" in message
    assert message.endswith(". Correct or remove that file.")


def test_kaggle_refuses_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    loopback_kaggle.connect(closed_port(), monkeypatch, tmp_path)
    message = refused("kaggle:me/cells")
    assert message.startswith("kaggle:me/cells: could not be downloaded (ProxyError: ")
    assert message.endswith(ADVICE)


def test_kaggle_says_nothing(kaggle: LoopbackKaggle, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "KAGGLE_REACH_SECONDS", 0.2)
    kaggle.fault = "silent"
    assert "could not be downloaded (ReadTimeout: " in refused("kaggle:me/cells")


def test_a_log_in_page_in_place_of_kaggle(kaggle: LoopbackKaggle):
    kaggle.fault = "page"
    assert "could not be downloaded (JSONDecodeError: " in refused("kaggle:me/cells")


def test_the_download_breaks_off(kaggle: LoopbackKaggle):
    kaggle.fault = "cut"
    assert "kaggle:me/cells: could not be downloaded (ChunkedEncodingError: " in refused("kaggle:me/cells")


def spoilt(archive: bytes) -> bytes:
    middle = len(archive) // 2
    return archive[:middle] + bytes(64) + archive[middle + 64 :]


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (b"not an archive", "ValueError: Unsupported archive type."),
        (zipped(files(SPLIT_FOLDERS))[:-200], "ValueError: Unsupported archive type."),
        (spoilt(zipped(files(SPLIT_FOLDERS))), "BadZipFile: "),
    ],
    ids=["text", "cut", "spoilt"],
)
def test_a_broken_archive(archive: bytes, reason: str, kaggle: LoopbackKaggle, tmp_path: Path):
    kaggle.add_dataset("me/cells", archive)
    message = refused("kaggle:me/cells")
    assert message.startswith(f"kaggle:me/cells: what was downloaded cannot be unpacked ({reason}")
    folder = tmp_path / "kagglehub" / "datasets" / "me" / "cells"
    assert message.endswith(f"). Remove {folder} and try again; or download it by hand and give the folder.")
    assert folder.is_dir()


def test_kaggle_sets_do_not_stream(kaggle: LoopbackKaggle):
    assert refused("kaggle:me/cells", streaming=True) == (
        "kaggle:me/cells: streaming is for Hub data sets; a folder is read image by image anyway. Leave it out."
    )
    assert kaggle.requests == []


# Painted cells


def test_painted_cells(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        cells = load_leucocytes("synthetic:10", seed=1)
    assert caplog.messages == []
    assert {name: len(split) for name, split in cells.items()} == {"train": 35, "validation": 10, "test": 5}
    assert cells["train"][0]["image"].size == (128, 128)
    assert (cells.provenance.spec, cells.provenance.title) == ("synthetic:10", "Painted cells of wbc_hf")
    assert not cells.provenance.given_splits
    assert load_leucocytes("synthetic:10", seed=1).provenance.fingerprint == cells.provenance.fingerprint
    assert load_leucocytes("synthetic:10", seed=2).provenance.fingerprint != cells.provenance.fingerprint


@pytest.mark.parametrize("spec", ["synthetic:", "synthetic:0", "synthetic:-3", "synthetic:many", "synthetic:1.5"])
def test_not_a_number_of_painted_cells(spec: str):
    expected = f"{spec}: 'synthetic' or 'synthetic:N' is expected, N cells a class, for example synthetic:100."
    assert refused(spec) == expected


@pytest.mark.parametrize("spec", ["synthetic", "./cells", "cells", "~/cells", "a/b/c"])
def test_only_hub_sets_stream(spec: str):
    expected = f"{spec}: streaming is for Hub data sets; a folder is read image by image anyway. Leave it out."
    assert refused(spec, streaming=True) == expected


# The Hub is away; what it has is in test_hub_sets.py


@pytest.mark.parametrize("streaming", [False, True])
def test_no_hub(streaming: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    endpoint = closed_port()
    loopback_hub.connect(endpoint, monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HubUnreachableError) as caught:
        load_leucocytes("data/cells", streaming=streaming)
    message = str(caught.value)
    assert message.startswith(
        f"data/cells: no such folder here, so taken for a Hub data set. The Hugging Face Hub at {endpoint} could not"
    )
    assert "pass a local folder" in message
