"""Sources of very many images: what is found, in what order, and that each shard can be read by itself."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Image, Value

from tests.loopback_hub import LoopbackHub, hub_environment
from tests.tiny_sets import picture
from wbc_hf import cli
from wbc_hf.errors import WbcError
from wbc_hf.inference import shards
from wbc_hf.inference.shards import Images, Item, find_images


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "CHUNK_SIZE", 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine names of pictures in an order that is easily got wrong, and what is to be left alone."""
    root = tmp_path / "cells"
    for name in ("b.png", "a/2.png", "a/10.PNG", "a.jpg", "a/c/1.tif", "Z.png", "é\n.png", ".d/x.png", "a b/1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(0))
    Path(os.fsdecode(os.fsencode(root) + b"/\xff.png")).write_bytes(picture(0))
    (root / "notes.txt").write_text("no picture")
    (root / "folder.png").mkdir()
    return root


def read(images: Images) -> list[Item]:
    return [item for shard in images.shards for item in shard.read(0)]


def assert_can_be_read_from_anywhere(images: Images) -> None:
    for shard in images.shards:
        whole = list(shard.read(0))
        assert shard.count in (None, len(whole))
        for start in range(len(whole) + 1):
            assert list(shard.read(start)) == whole[start:]


# Folders


def test_a_folder_is_walked_as_it_is_without_an_output(folder: Path):
    images = find_images([str(folder)])
    names = [str(path) for path in cli.find_files([folder])]
    assert len(names) == 9
    assert [item.name for item in read(images)] == [item.source for item in read(images)] == names
    assert [shard.count for shard in images.shards] == [3, 3, 3]
    assert images.count == 9
    assert_can_be_read_from_anywhere(images)


def test_files_and_folders_in_the_order_in_which_they_are_given(folder: Path):
    words = [str(folder / "b.png"), str(folder / "a"), str(folder / "notes.txt")]
    assert [Path(item.name).name for item in read(find_images(words))] == [
        "b.png", "10.PNG", "2.png", "1.tif", "notes.txt"
    ]  # fmt: skip


def test_a_fingerprint_tells_of_whatever_changed(folder: Path):
    def fingerprint() -> str:
        return find_images([str(folder)]).fingerprint

    seen = [fingerprint()]
    assert fingerprint() == seen[0]
    file = folder / "b.png"
    (folder / "notes.txt").write_text("still no picture")
    assert fingerprint() == seen[0]
    times = file.stat().st_mtime_ns
    for change in (
        lambda: os.utime(file, ns=(times, times + 1)),
        lambda: (file.write_bytes(picture(0) + b" "), os.utime(file, ns=(times, times))),
        lambda: file.rename(folder / "c.png"),
        lambda: (folder / "d.png").write_bytes(b""),
        lambda: (folder / "d.png").unlink() or (folder / "Z.png").unlink(),
    ):
        change()
        seen.append(fingerprint())
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nowhere/", "nowhere/: there is no such file or folder"),
        ("./nowhere", "./nowhere: there is no such file or folder"),
        ("cells/nowhere.png", "cells/nowhere.png: there is no such file or folder"),
        ("empty", "empty: no pictures in this folder (.apng, "),
        ("broken.parquet", "broken.parquet: is not a Parquet file, or a broken one"),
        ("table.parquet", "table.parquet: has the columns a (int64), b (binary), c (binary); one of images"),
    ],
)
def test_what_holds_no_images_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, message: str):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("broken.parquet").write_bytes(b"PAR1 not really")
    pq.write_table(pa.table({"a": [1], "b": [b""], "c": [b""]}), "table.parquet")
    with pytest.raises(WbcError) as caught:
        find_images([word])
    assert message in str(caught.value)


# Parquet


def test_parquet_of_datasets(tmp_path: Path):
    rows = [{"bytes": picture(index), "path": f"cells/{index}.png"} for index in range(8)]
    rows[2], rows[5], rows[6]["path"] = None, {"bytes": None, "path": "here.png"}, None
    features = Features({"label": Value("string"), "image": Image(), "mask": Image()})
    path = tmp_path / "a::b [*].parquet"
    with path.open("wb") as file:
        Dataset.from_dict({"label": ["eos"] * 8, "image": rows, "mask": rows}, features).to_parquet(file, batch_size=2)
    images = find_images([str(path)])
    assert [shard.count for shard in images.shards] == [4, 4]
    assert read(images) == [
        Item(f"{path}/{index}" + ("" if index in (2, 6) else f"/{Path(row['path']).name}"), source)
        for index, row in enumerate(rows)
        for source in [None if row is None else row["bytes"] or row["path"]]
    ]
    assert_can_be_read_from_anywhere(images)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_parquet_of_bare_bytes_among_pictures(tmp_path: Path, kind: pa.DataType):
    contents = [picture(index) for index in range(5)] + [None]
    table = pa.table({"id": range(6), "photograph": pa.array(contents, kind)})
    pq.write_table(table, tmp_path / "b.parquet", row_group_size=6)
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes(picture(0))
    images = find_images([str(tmp_path)])
    assert [shard.count for shard in images.shards] == [1, 6, 1]
    assert [item.source for item in read(images)[1:7]] == contents
    assert [Path(item.name).name for item in read(images)] == ["a.png", *map(str, range(6)), "c.png"]
    assert_can_be_read_from_anywhere(images)


def test_a_row_group_is_not_read_at_once(tmp_path: Path):
    path = tmp_path / "large.parquet"
    contents = [os.urandom(200_000) for _ in range(300)]
    # Left to itself the writer looks at the size of a page after a thousand rows only; a page is always read at once.
    pq.write_table(pa.table({"image": contents}), path, compression="none", row_group_size=300, write_batch_size=1)
    (shard,) = find_images([str(path)]).shards
    held = pa.total_allocated_bytes()
    most = 0
    for item, content in zip(shard.read(0), contents, strict=True):
        assert item.source == content
        most = max(most, pa.total_allocated_bytes() - held)
    assert most < 30_000_000


def test_a_parquet_file_that_is_cut_short_later_is_named(tmp_path: Path):
    path = tmp_path / "cells.parquet"
    pq.write_table(pa.table({"image": [picture(index) for index in range(50)]}), path, compression="none")
    images = find_images([str(path)])
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(WbcError, match=r"cells\.parquet: is not a Parquet file, or a broken one"):
        read(images)


# The Hub

SCRIPT = """
import hashlib, json, os, sys
import datasets, httpx2
from wbc_hf.errors import WbcError
from wbc_hf.inference import shards

datasets.disable_progress_bars()
shards.CHUNK_SIZE = 3

def told(item):
    return [item.name, item.source and hashlib.sha256(item.source).hexdigest()]

def outcome(word):
    try:
        images = shards.find_images([word])
    except WbcError as error:
        return str(error)
    read = []
    for number, shard in enumerate(images.shards):
        httpx2.get(f"{os.environ['HF_ENDPOINT']}/reading/{word}/{number}")
        read.append([told(item) for item in shard.read(0)])
        httpx2.get(f"{os.environ['HF_ENDPOINT']}/read/{word}/{number}")
        for start in range(len(read[-1]) + 1):
            assert [told(item) for item in shard.read(start)] == read[-1][start:]
    counts = [shard.count for shard in images.shards]
    return {"count": images.count, "counts": counts, "fingerprint": images.fingerprint, "read": read}

print(json.dumps({word: outcome(word) for word in sys.argv[1:]}))
"""
WORDS = ("me/parquet", "me/parquet:test", "me/parquet:dev", "me/pictures", "me/tar", "me/table", "me/none")


def parquet(images: list[bytes | None]) -> bytes:
    stream = io.BytesIO()
    rows = [None if content is None else {"bytes": content, "path": None} for content in images]
    Dataset.from_dict({"image": rows}, Features({"image": Image()})).to_parquet(stream, batch_size=2)
    return stream.getvalue()


def tar(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        pictures = [picture(index) for index in range(9)]
        shards = {
            "data/train-00000-of-00002.parquet": parquet([*pictures[:4], None]),
            "data/train-00001-of-00002.parquet": parquet(pictures[4:6]),
            "data/test-00000-of-00001.parquet": parquet(pictures[6:]),
        }
        hub.add_repo("me/parquet", {"README.md": b"---\ntags: [cells]\n---\n"} | shards, "dataset")
        names = ("train/eos/0.png", "train/eos/1.png", "train/mono/0.png", "train/mono/1.png", "test/eos/0.png")
        hub.add_repo("me/pictures", dict(zip(names, [*pictures[:4], b"junk"], strict=True)), "dataset")
        tars = {f"train-{n}.tar": tar({f"{n}{i}.png": pictures[2 * n + i] for i in range(2)}) for n in range(2)}
        hub.add_repo("me/tar", tars, "dataset")
        hub.add_repo("me/table", {"train.csv": b"area,label\n3,eos\n"}, "dataset")
        yield hub


@pytest.fixture(scope="module")
def findings(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> dict:
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), *WORDS],
        env=hub_environment(hub, tmp_path_factory.mktemp("hub")),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def named(found: dict) -> list[list[str]]:
    return [[name for name, _ in shard] for shard in found["read"]]


def digests(found: dict) -> list[str | None]:
    return [digest for shard in found["read"] for _, digest in shard]


def of(*seeds: int | None) -> list[str | None]:
    return [None if seed is None else hashlib.sha256(picture(seed)).hexdigest() for seed in seeds]


def test_parquet_on_the_hub(findings: dict):
    found = findings["me/parquet"]
    assert named(found) == [
        ["train/0", "train/1", "train/2", "train/3"],
        ["train/4"],
        ["train/5", "train/6"],
        ["test/0", "test/1", "test/2"],
    ]
    assert digests(found) == of(0, 1, 2, 3, None, 4, 5, 6, 7, 8)
    assert found["count"] == 10


@pytest.mark.usefixtures("findings")
def test_a_stretch_fetches_its_own_data_file_alone(hub: LoopbackHub):
    paths = [request.path for request in hub.requests if request.method == "GET"]
    for number, file in ((0, "train-00000"), (2, "train-00001"), (3, "test-00000")):
        start, end = (paths.index(f"/{mark}/me/parquet/{number}") for mark in ("reading", "read"))
        assert {path.rpartition("/")[2][: len(file)] for path in paths[start + 1 : end]} == {file}


def test_one_split_of_a_hub_set(findings: dict):
    assert named(findings["me/parquet:test"]) == [["test/0", "test/1", "test/2"]]
    assert findings["me/parquet:dev"] == "me/parquet:dev: has no split 'dev', but train, test."
    assert findings["me/parquet:test"]["fingerprint"] != findings["me/parquet"]["fingerprint"]


def test_pictures_on_the_hub(findings: dict):
    found = findings["me/pictures"]
    assert named(found) == [
        ["train/0/0.png", "train/1/1.png", "train/2/0.png"],
        ["train/3/1.png"],
        ["test/0/0.png"],
    ]
    assert digests(found)[:4] == of(0, 1, 2, 3)
    assert found["count"] == 5


def test_archives_on_the_hub_are_streamed(findings: dict):
    found = findings["me/tar"]
    assert found["counts"] == [None, None]
    assert found["count"] is None
    assert digests(found) == of(0, 1, 2, 3)
    assert [len(set(shard)) for shard in named(found)] == [2, 2]
    assert named(found)[1][0].startswith("train/1/0")


def test_hub_sets_that_cannot_be_used(findings: dict):
    assert "no column of type Image" in findings["me/table"]
    assert "no such folder here, and not loadable from the Hub" in findings["me/none"]
