"""Hub sets, stored and streamed, against a Hub on the loopback.

datasets reads the Hub's address when it is imported, so all of it happens in one subprocess, whose findings the tests
look at.
"""

import io
import json
import re
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from pyarrow.parquet import write_table

from tests.loopback_hub import LoopbackHub, hub_environment
from tests.tiny_sets import picture
from wbc_hf.data.splits import stream_split

PARQUET_CARD = b"---\ntags: [cells]\n---\n"
OTHER_ORDER = ["NEUTROPHIL", "eos", "Lymphocytes", "mono", "BASO"]
KNOWN = (
    "Known, with other spellings: basophil (ba, bas, baso), eosinophil (eo, eos, eosino), "
    "lymphocyte (ly, lym, lymph), monocyte (mo, mon, mono), neutrophil (ne, neu, neut). "
    "Rename or remove what is unknown"
)
LEAVE_OUT = "; train, evaluate and audit leave it out with --other-classes leave_out"


def parquet(
    images: list[bytes | str | None],
    label: Any,
    labels: list,
    image_column: str = "image",
    **columns: tuple[Any, list],
) -> bytes:
    """A split of embedded images, or of what rows name. Further columns are given as feature and values."""
    features = Features(
        {image_column: Image(), "label": label} | {name: feature for name, (feature, _) in columns.items()}
    )
    rows = {
        image_column: [
            {"bytes": None, "path": content}
            if isinstance(content, str)
            else None
            if content is None
            else {"bytes": content, "path": None}
            for content in images
        ],
        "label": labels,
    }
    stream = io.BytesIO()
    stored = Dataset.from_dict(rows | {name: values for name, (_, values) in columns.items()}, features)
    # `to_parquet` would fetch what rows name.
    write_table(stored.data.table, stream)
    return stream.getvalue()


def pictures(count: int, first_seed: int = 0) -> list[bytes]:
    return [picture(first_seed + index) for index in range(count)]


def add_sets(hub: LoopbackHub) -> None:
    def add(name: str, **splits: bytes) -> None:
        files = {f"data/{split}-0.parquet": content for split, content in splits.items()}
        hub.add_repo(f"me/{name}", {"README.md": PARQUET_CARD} | files, "dataset")

    # All splits, labels in an order of their own, groups, pictures of every mode.
    modes = [
        picture(0),
        picture(1, mode="L"),
        picture(2, mode="RGBA"),
        picture(3, mode="P"),
        picture(4, mode="CMYK", form="JPEG"),
        picture(5, mode="1"),
        picture(6, mode="I;16", form="TIFF"),
    ]
    label = ClassLabel(names=OTHER_ORDER)
    group = Value("int32")
    add(
        "cells",
        train=parquet(modes, label, [0, 1, 2, 3, 4, 0, 0], group=(group, [0, 0, 1, None, None, 2, 2])),
        validation=parquet(pictures(2, 100), label, [3, 0], group=(group, [None, 7])),
        test=parquet(pictures(3, 200), label, [2, 1, 0], group=(group, [1, 8, None])),
    )
    # One split, names in place of numbers, 5 % of the rows without a readable image.
    strings = [("basophil", "Eosinophils", "LYMPHO", "mono", "band neutrophil")[index % 5] for index in range(80)]
    images = pictures(80)
    images[10], images[20], images[30], images[40] = b"junk", None, b"", images[40][:300]
    images[55] = images[50]
    add("strings", train=parquet(images, Value("string"), strings, image_column="photograph"))
    # As a folder of pictures, whose names come twice; one is broken.
    files = {f"train/{name}/{index}.png": picture(index, 24) for index in range(12) for name in ("eosinophil",)}
    files |= {f"train/monocyte/{index}.png": picture(100 + index, 24) for index in range(11)}
    files |= {
        f"test/{name}/{index}.png": picture(300 + index, 24) for index, name in enumerate(("eosinophil", "mono"))
    }
    hub.add_repo("me/photographs", files | {"train/monocyte/spoilt.png": b"junk"}, "dataset")
    # Sets that stop.
    two = ClassLabel(names=["eos", "platelet"])
    add("platelets", train=parquet(pictures(4), two, [0, 1, 0, 1]))
    add("platelet_strings", train=parquet(pictures(4), Value("string"), ["eos", "eos", "platelet", "eos"]))
    add("unlabelled", train=parquet(pictures(4), label, [0, 1, 0, 1]), test=parquet(pictures(2), label, [-1, -1]))
    hub.add_repo("me/table", {"train.csv": b"area,label\n3,eos\n4,mono\n"}, "dataset")
    add("nothing_to_train_on", test=parquet(pictures(2), label, [0, 1]))
    add("spoilt", train=parquet([*pictures(110), *[b"junk"] * 10], label, [0] * 120))
    hub.add_repo("me/no_parquet", {"README.md": PARQUET_CARD, "data/train-0.parquet": b"PAR1 not really"}, "dataset")
    splits = "- {split: train, path: a.parquet}\n  - {split: pool, path: b.parquet}"
    hub.add_repo(
        "me/other_split",
        {
            "README.md": f"---\nconfigs:\n- config_name: default\n  data_files:\n  {splits}\n---\n".encode(),
            "a.parquet": parquet(pictures(4), label, [0] * 4),
            "b.parquet": parquet(pictures(4), label, [0] * 4),
        },
        "dataset",
    )
    configurations = (
        b"---\nconfigs:\n- {config_name: a, data_files: a.parquet}\n- {config_name: b, data_files: b.parquet}\n---\n"
    )
    one = parquet(pictures(4), label, [0] * 4)
    # Sets whose rows, or whose card, name what is not theirs.
    secret = picture(900)
    hub.add_repo("me/other", {"secret.png": secret}, "dataset")
    for name, address in (
        ("remote", f"{hub.endpoint}/secret.png"),
        ("local", str(LOCAL_PICTURE)),
        ("chained", f"simplecache::{hub.endpoint}/secret.png"),
        ("upwards", "hf://datasets/me/other@main/../../secret.png"),
    ):
        add(f"names_{name}", train=parquet([*pictures(40), address], label, [0] * 41))
    hub.add_repo(
        "me/names_files",
        {
            "README.md": f"---\nconfigs:\n- config_name: default\n  data_files: {LOCAL_PICTURE}\n---\n".encode(),
            "a.parquet": one,
        },
        "dataset",
    )
    hub.add_repo("me/two", {"README.md": configurations, "a.parquet": one, "b.parquet": one}, "dataset")
    hub.add_repo("me/script", {"script.py": b"print()"}, "dataset")
    hub.add_repo("me/empty", {"README.md": b"Nothing yet"}, "dataset")
    hub.add_repo("me/gated", files, "dataset", gated=True)


LOCAL_PICTURE = Path(__file__).parents[1] / "wbc_hf" / "web" / "example_pictures" / "cell-basophil.jpg"
UNREADABLE = (10, 20, 30, 40)
LOADED = ("cells", "strings", "photographs")
NOT_LOADABLE = ("missing", "gated", "two", "script", "empty", "no_parquet", "names_files")
NAMING = ("names_remote", "names_local", "names_chained", "names_upwards")
STOPPED = ("platelets", "platelet_strings", "unlabelled", "table", "nothing_to_train_on", "spoilt", "other_split")

SCRIPT = """
import json, logging, sys
from pathlib import Path

import datasets
from wbc_hf.data import load_leucocytes
from wbc_hf.errors import WbcError
from wbc_hf.labels import CLASS_NAMES

messages = []
handler = logging.Handler()
handler.emit = lambda record: messages.append(record.getMessage())
logging.getLogger("wbc_hf").addHandler(handler)
datasets.disable_progress_bars()

def row(values):
    image = values["image"]
    return [list(values), image.mode, image.size, CLASS_NAMES[values["label"]], values["group"], values["source"]]

def outcome(spec, streaming):
    messages.clear()
    found = {}
    try:
        cells = load_leucocytes(spec, streaming=streaming)
        found["loaded"] = True
        found["features"] = str({str(split.features) for split in cells.values()})
        found["rows"] = {name: [row(values) for values in split] for name, split in cells.items()}
        if streaming:
            found["again"] = [values["source"] for values in cells["train"]]
        else:
            provenance = cells.provenance
            found["skipped"] = [str(error) for error in provenance.skipped]
            found["across"] = provenance.groups_across
            found["given"] = provenance.given_splits
            found["fingerprint"] = provenance.fingerprint
            tables = {name: split.data.table.column("image") for name, split in cells.items()}
            addresses = [[chunk.field(0).buffers()[-1] for chunk in column.chunks] for column in tables.values()]
            found["addresses"] = [[b.address for b in buffers if b is not None] for buffers in addresses]
    except WbcError as error:
        found["error"] = type(error).__name__ + " " + str(error)
    return found | {"messages": list(messages)}

findings = {}
for name in sys.argv[1:]:
    findings[name] = {mode: outcome("me/" + name, mode == "streamed") for mode in ("stored", "streamed")}
datasets_cache = Path(datasets.config.HF_DATASETS_CACHE)
findings["arrow files"] = [str(path.relative_to(datasets_cache)) for path in datasets_cache.rglob("*.arrow")]
print(json.dumps(findings))
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        add_sets(hub)
        yield hub


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def findings(hub: LoopbackHub, cache: Path) -> dict[str, Any]:
    return run(SCRIPT, hub, cache, *LOADED, *NOT_LOADABLE, *STOPPED, *NAMING)


def run(script: str, hub: LoopbackHub, folder: Path, *arguments: str, **environment: str) -> dict[str, Any]:
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        env=hub_environment(hub, folder) | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def stored_and_streamed(findings: dict[str, Any], name: str) -> list[dict]:
    return [findings[name][mode] for mode in ("stored", "streamed")]


def error(findings: dict[str, Any], name: str, mode: str = "stored") -> str:
    return findings[name][mode]["error"].removeprefix("WbcError ")


def all_rows(found: dict) -> list[list]:
    return [row for rows in found["rows"].values() for row in rows]


def labels(rows: list[list]) -> list[str]:
    return [row[3] for row in rows]


# Sets that load


@pytest.mark.long
def test_rows_have_the_same_columns_from_everywhere(findings: dict[str, Any]):
    for name in LOADED:
        for found in stored_and_streamed(findings, name):
            assert found["features"].count("ClassLabel(names=['basophil', 'eosinophil', 'lymphocyte',") == 1
            assert list(found["rows"]) == ["train", "validation", "test"]
            columns = [row[0] for row in all_rows(found)]
            assert columns.count(["image", "label", "group", "laboratory", "source"]) == len(columns)


def test_labels_in_another_order(findings: dict[str, Any]):
    for found in stored_and_streamed(findings, "cells"):
        assert labels(found["rows"]["train"]) == [
            "neutrophil", "eosinophil", "lymphocyte", "monocyte", "basophil", "neutrophil", "neutrophil"
        ]  # fmt: skip
        assert labels(found["rows"]["validation"]) == ["monocyte", "neutrophil"]
        assert labels(found["rows"]["test"]) == ["lymphocyte", "eosinophil", "neutrophil"]


def test_pictures_of_every_mode(findings: dict[str, Any]):
    for found in stored_and_streamed(findings, "cells"):
        assert [row[1] for row in found["rows"]["train"]] == ["RGB", "L", "RGBA", "P", "CMYK", "1", "I;16"]


def test_groups_of_a_column(findings: dict[str, Any]):
    stored, streamed = stored_and_streamed(findings, "cells")
    group = {row[5]: row[4] for row in all_rows(stored)}
    assert list(group)[:7] == [f"train/{index}" for index in range(7)]
    assert [group[f"train/{index}"] for index in range(7)] == [
        f"train/{index}" for index in (0, 0, 2, 3, 4, 5, 5)
    ]  # fmt: skip
    # Rows without a group are not all one group; group 1 stands in train and in test.
    assert group["test/0"] == "train/2"
    assert group["test/2"] == "test/2"
    assert stored["across"] == 1
    assert any("1 groups (near-duplicates of one cell or photograph) are in" in m for m in stored["messages"])

    group = {row[5]: row[4] for row in all_rows(streamed)}
    assert [group[f"train/{index}"] for index in (0, 1, 2, 5, 6)] == ["0", "0", "1", "2", "2"]
    assert group["test/0"] == "1"
    assert len({group[name] for name in ("train/3", "train/4", "validation/0", "test/2")}) == 4


def test_given_splits_are_kept(findings: dict[str, Any]):
    assert findings["cells"]["stored"]["given"]
    assert not findings["strings"]["stored"]["given"]
    for found in stored_and_streamed(findings, "cells"):
        assert {name: len(rows) for name, rows in found["rows"].items()} == {"train": 7, "validation": 2, "test": 3}
        assert {row[5].split("/")[0] for row in found["rows"]["validation"]} == {"validation"}


def test_one_split_is_cut_in_three(findings: dict[str, Any]):
    stored, streamed = stored_and_streamed(findings, "strings")
    assert {name: len(rows) for name, rows in stored["rows"].items()} == {"train": 52, "validation": 14, "test": 10}
    sources = [{row[5] for row in all_rows(found)} for found in (stored, streamed)]
    assert sources[0] == sources[1] == {f"train/{index}" for index in range(80)} - {f"train/{i}" for i in UNREADABLE}
    assert Counter(labels(all_rows(stored))) == {
        "basophil": 12, "eosinophil": 16, "lymphocyte": 16, "monocyte": 16, "neutrophil": 16
    }  # fmt: skip


def test_a_stream_is_cut_by_the_hash_of_the_group(findings: dict[str, Any]):
    streamed = findings["strings"]["streamed"]
    sizes = {name: len(rows) for name, rows in streamed["rows"].items()}
    assert sum(sizes.values()) == 76
    assert all(5 <= sizes[name] <= 20 for name in ("validation", "test"))
    # These two rows are the same picture.
    group = {row[5]: row[4] for row in all_rows(streamed)}
    assert group["train/50"] == group["train/55"]
    assert len(set(group.values())) == 75
    for name, rows in streamed["rows"].items():
        assert {stream_split(row[4]) for row in rows} == {name}
    assert streamed["again"] == [row[5] for row in streamed["rows"]["train"]]


def test_unreadable_images_are_skipped_and_named(findings: dict[str, Any]):
    stored, streamed = stored_and_streamed(findings, "strings")
    named = [error.split(" (")[0] for error in stored["skipped"]]
    assert named == [
        "train/10: is not a picture in a known format",
        "train/20: the row holds no image",
        "train/30: is empty",
        "train/40: is broken or cut short",
    ]
    assert [f"Skipped {error}" for error in stored["skipped"]] == stored["messages"][:4]
    assert set(streamed["messages"]) == set(stored["messages"][:4])


def test_an_image_folder_of_the_hub(findings: dict[str, Any]):
    stored, streamed = stored_and_streamed(findings, "photographs")
    for found in (stored, streamed):
        rows = all_rows(found)
        assert Counter(labels(rows)) == {"eosinophil": 13, "monocyte": 12}
        assert {tuple(row[2]) for row in rows} == {(24, 24)}
        # 0.png stands in both class folders; they are two cells.
        assert len({row[5] for row in rows}) == len({row[4] for row in rows}) == 25
        assert len(found["rows"]["test"]) == 2
        assert found["rows"]["validation"]
        assert [message.split(": is")[0] for message in set(found["messages"]) if "spoilt" in message] == [
            "Skipped train/23/spoilt.png"
        ]


def test_images_are_stored_once(findings: dict[str, Any]):
    train, validation, test = findings["strings"]["stored"]["addresses"]
    assert train
    assert train == validation == test
    # Nothing was written but what load_dataset itself wrote.
    assert findings["arrow files"]
    assert all(
        path.endswith(("-train.arrow", "-validation.arrow", "-test.arrow", "-pool.arrow"))
        for path in findings["arrow files"]
    )


# Sets that stop


def test_an_unknown_class(findings: dict[str, Any]):
    start = "the class 'platelet' is not one of the five leucocytes. Found: "
    assert error(findings, "platelets") == f"me/platelets: {start}'eos' (2), 'platelet' (2). {KNOWN}{LEAVE_OUT}."
    assert error(findings, "platelets", "streamed") == f"me/platelets: {start}'eos', 'platelet'. {KNOWN}."
    # Declared classes are looked at before the first row is.
    assert "loaded" not in findings["platelets"]["streamed"]
    stored, streamed = (error(findings, "platelet_strings", mode) for mode in ("stored", "streamed"))
    assert stored == f"me/platelet_strings: {start}'eos' (3), 'platelet' (1). {KNOWN}{LEAVE_OUT}."
    assert streamed == f"me/platelet_strings: {start}'platelet'. {KNOWN}."


def test_rows_without_a_label(findings: dict[str, Any]):
    assert error(findings, "unlabelled") == (
        "me/unlabelled: 2 of 2 rows of its split 'test' have no label. "
        "Download the set and put the pictures to use into class folders."
    )
    assert error(findings, "unlabelled", "streamed") == "me/unlabelled: row 0 of its split 'test' has no label."


@pytest.mark.parametrize("mode", ["stored", "streamed"])
def test_columns_that_say_nothing(mode: str, findings: dict[str, Any]):
    assert error(findings, "table", mode) == (
        "me/table: has the columns area (int64), label (large_string); one of type Image and one with the class "
        "(a ClassLabel, or a string called 'label') are needed."
    )


@pytest.mark.parametrize("mode", ["stored", "streamed"])
def test_a_split_of_another_name(mode: str, findings: dict[str, Any]):
    assert error(findings, "other_split", mode) == (
        "me/other_split: its split 'pool' is not known: train, validation and test (or val, dev …) are. "
        "Download the set and put the pictures to use into folders."
    )


@pytest.mark.parametrize("mode", ["stored", "streamed"])
def test_nothing_to_train_on(mode: str, findings: dict[str, Any]):
    assert error(findings, "nothing_to_train_on", mode) == "me/nothing_to_train_on: has test but nothing to train on."


def test_more_than_5_percent_unreadable(findings: dict[str, Any]):
    assert error(findings, "spoilt").startswith(
        "me/spoilt: 10 of 120 files are not readable images, more than 5%: train/110: is not a picture"
    )
    assert error(findings, "spoilt", "streamed") == (
        "me/spoilt: 10 of the first 120 rows of its split 'train' are not readable images, more than 5%."
    )


ADVICE = "Check the spelling; for a private or gated set, log in with `hf auth login` or set HF_TOKEN."


@pytest.mark.parametrize("mode", ["stored", "streamed"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "Dataset 'me/missing' doesn't exist on the Hub or cannot be accessed."),
        ("gated", "Dataset 'me/gated' is a gated dataset on the Hub."),
        ("two", "Config name is missing. Please pick one among the available configs: ['a', 'b']"),
        ("script", "Dataset scripts are no longer supported, but found script.py"),
        ("empty", "The directory at hf://datasets/me/empty"),
        ("names_files", "Data files don't belong to me/names_files."),
        ("no_parquet", "Parquet magic bytes not found in footer."),
    ],
)
def test_what_cannot_be_loaded(name: str, reason: str, mode: str, findings: dict[str, Any]):
    message = error(findings, name, mode)
    assert message.startswith(f"me/{name}: no such folder here, and not loadable from the Hub ({reason}")
    assert message.endswith(f"). {ADVICE}")
    assert "\n" not in message


@pytest.mark.parametrize("name", NAMING)
def test_rows_name_nothing_but_files_of_the_hub(name: str, findings: dict[str, Any], hub: LoopbackHub):
    stored, streamed = stored_and_streamed(findings, name)
    start = f"WbcError me/{name}: train/40/"
    assert stored["error"].startswith(start)
    assert stored["error"].endswith("', which is no file of the set. Nothing else is read.")
    (message,) = set(streamed["messages"])
    assert re.fullmatch(r"Skipped train/40/\S+: names '\S+', which is no file of the Hub", message)
    assert len(all_rows(streamed)) == 40
    assert not [request for request in hub.requests if request.path == "/secret.png"]


def test_told_to_stay_offline_the_cache_is_used(findings: dict[str, Any], hub: LoopbackHub, cache: Path):
    asked = len(hub.requests)
    offline = run(SCRIPT, hub, cache, "strings", "never_seen", HF_HUB_OFFLINE="1")
    assert len(hub.requests) == asked
    assert offline["strings"]["stored"]["fingerprint"] == findings["strings"]["stored"]["fingerprint"]
    for found in stored_and_streamed(offline, "never_seen"):
        assert found["error"].startswith(
            "HubUnreachableError me/never_seen: no such folder here, so taken for a Hub data set. "
        )
