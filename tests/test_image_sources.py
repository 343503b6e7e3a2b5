"""Sources of very many images: what is found, in what order, and that any of it can be read by itself."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Image, Value

from tests.loopback_hub import LoopbackHub, hub_environment
from tests.tiny_sets import picture
from wbc_hf import cli
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.inference import ImagePlace, ImageSources, open_images


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


def contents(places: Sequence[ImagePlace]) -> list[tuple[str, object]]:
    """Names and sources, or the reason why there is none; places survive a table, and can be opened from any on."""
    found = [
        (one.name, one.reason if isinstance(one, UnreadableImageError) else one.source) for one in open_images(places)
    ]
    table = pa.Table.from_pylist([place.as_row() for place in places], ImagePlace.SCHEMA)
    again = [ImagePlace.from_row(row) for row in table.to_pylist()]
    assert again == list(places)
    for start in range(0, len(places), 3):
        (one, *_) = open_images(again[start:])
        assert one.name == found[start][0]
    return found


# Folders


def test_a_folder_is_walked_as_it_is_without_an_output(folder: Path):
    names = [str(path) for path in cli.find_files([folder])]
    assert len(names) == 9
    assert contents(list(ImageSources([str(folder)]))) == [(name, name) for name in names]


def test_files_and_folders_in_the_order_in_which_they_are_given(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    places = list(ImageSources(["b.png", "a", "./notes.txt"]))
    assert [Path(place.path).name for place in places] == ["b.png", "10.PNG", "2.png", "1.tif", "notes.txt"]
    assert all(Path(place.path).is_absolute() for place in places)


def test_a_digest_tells_of_whatever_changed(folder: Path):
    def digest() -> str:
        sources = ImageSources([str(folder)])
        assert list(sources)
        return sources.digest

    seen = [digest()]
    assert digest() == seen[0]
    file = folder / "b.png"
    (folder / "notes.txt").write_text("still no picture")
    assert digest() == seen[0]
    times = file.stat().st_mtime_ns
    for change in (
        lambda: os.utime(file, ns=(times, times + 1)),
        lambda: (file.write_bytes(picture(0) + b" "), os.utime(file, ns=(times, times))),
        lambda: file.rename(folder / "c.png"),
        lambda: (folder / "d.png").write_bytes(b""),
        lambda: (folder / "d.png").unlink() or (folder / "Z.png").unlink(),
    ):
        change()
        seen.append(digest())
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nowhere/", "nowhere/: there is no such file or folder"),
        ("./nowhere", "./nowhere: there is no such file or folder"),
        ("cells/nowhere.png", "cells/nowhere.png: there is no such file or folder"),
        ("memory://nowhere", "memory://nowhere: there is no such file or folder"),
        ("nothing://nowhere", "nothing://nowhere: no file system for it is installed"),
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
        list(ImageSources([word]))
    assert message in str(caught.value)


# Parquet


def test_parquet_of_datasets(tmp_path: Path):
    rows = [{"bytes": picture(index), "path": f"cells/{index}.png"} for index in range(8)]
    rows[2], rows[5], rows[6]["path"] = None, {"bytes": None, "path": "/etc/passwd"}, None
    features = Features({"label": Value("string"), "image": Image(), "mask": Image()})
    path = tmp_path / "a::b [*].parquet"
    schema = features.arrow_schema
    pq.write_table(pa.table({"label": ["eos"] * 8, "image": rows, "mask": rows}, schema), path, row_group_size=3)
    reasons = {2: "the row holds no image", 5: "the row holds a path in place of an image"}
    assert contents(list(ImageSources([str(path)]))) == [
        (
            f"{path}/{index}" + ("" if index in (2, 6) else f"/{Path(row['path']).name}"),
            reasons.get(index) or row["bytes"],
        )
        for index, row in enumerate(rows)
    ]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_parquet_of_bare_bytes_among_pictures(tmp_path: Path, kind: pa.DataType):
    rows = [picture(index) for index in range(5)]
    pq.write_table(pa.table({"id": range(5), "photograph": pa.array(rows, kind)}), tmp_path / "b.parquet")
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes(picture(0))
    found = contents(list(ImageSources([str(tmp_path)])))
    assert [Path(name).name for name, _ in found] == ["a.png", *"01234", "c.png"]
    assert [source for _, source in found[1:6]] == rows


def test_a_row_group_is_not_read_at_once(tmp_path: Path):
    path = tmp_path / "large.parquet"
    rows = [os.urandom(200_000) for _ in range(300)]
    # Left to itself the writer looks at the size of a page after a thousand rows only; a page is always read at once.
    pq.write_table(pa.table({"image": rows}), path, compression="none", row_group_size=300, write_batch_size=1)
    held, most = pa.total_allocated_bytes(), 0
    for image, content in zip(open_images(ImageSources([str(path)])), rows, strict=True):
        assert image.source == content
        most = max(most, pa.total_allocated_bytes() - held)
    assert most < 30_000_000


def test_a_parquet_file_that_is_cut_short_later_is_named(tmp_path: Path):
    path = tmp_path / "cells.parquet"
    pq.write_table(pa.table({"image": [picture(index) for index in range(50)]}), path, compression="none")
    places = list(ImageSources([str(path)]))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(WbcError, match=r"cells\.parquet: is not a Parquet file, or a broken one"):
        list(open_images(places))


# Elsewhere


def test_a_folder_elsewhere_is_read_through_its_file_system():
    memory = fsspec.filesystem("memory")
    stream = io.BytesIO()
    pq.write_table(pa.table({"image": [picture(index) for index in range(3)]}), stream)
    files = {
        "b/0.png": picture(9),
        "a.png": b"junk",
        ".hidden.png": b"",
        "notes.txt": b"",
        "c.parquet": stream.getvalue(),
    }
    for name, content in files.items():
        memory.pipe(f"/archive/{name}", content)
    sources = ImageSources(["memory://archive"])
    places = list(sources)
    assert [(place.path, place.row) for place in places] == [
        ("memory:///archive/a.png", None),
        ("memory:///archive/b/0.png", None),
        *(("memory:///archive/c.parquet", row) for row in range(3)),
    ]
    assert [source for _, source in contents(places)] == [b"junk", picture(9), *(picture(index) for index in range(3))]
    memory.rm("/archive/a.png")
    gone = contents(places)[0]
    assert gone[0] == "memory:///archive/a.png"
    assert "cannot be fetched" in str(gone[1])


# The Hub

SCRIPT = """
import hashlib, json, sys
import datasets
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.inference import ImageSources, open_images

datasets.disable_progress_bars()

def told(image):
    is_bytes = not isinstance(image, UnreadableImageError)
    return [image.name, hashlib.sha256(image.source).hexdigest() if is_bytes else None]

def outcome(word):
    try:
        sources = ImageSources([word])
        places = list(sources)
    except WbcError as error:
        return str(error)
    read = [told(image) for image in open_images(places)]
    assert [told(image) for image in open_images(places[2:])] == read[2:]
    return {"digest": sources.digest, "read": read}

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
        hub.add_repo("me/tar", {"train-0.tar": tar({"0.png": pictures[0]})}, "dataset")
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


def of(*seeds: int | None) -> list[str | None]:
    return [None if seed is None else hashlib.sha256(picture(seed)).hexdigest() for seed in seeds]


def test_parquet_on_the_hub(findings: dict):
    names, digests = zip(*findings["me/parquet"]["read"], strict=True)
    files = {"train-00000-of-00002": 5, "train-00001-of-00002": 2, "test-00000-of-00001": 3}
    assert list(names) == [
        f"me/parquet/data/{file}.parquet/{row}" for file, rows in files.items() for row in range(rows)
    ]
    assert list(digests) == of(0, 1, 2, 3, None, 4, 5, 6, 7, 8)


def test_one_split_of_a_hub_set(findings: dict):
    assert len(findings["me/parquet:test"]["read"]) == 3
    assert findings["me/parquet:dev"] == "me/parquet:dev: has no split 'dev', but train, test."
    assert findings["me/parquet:test"]["digest"] != findings["me/parquet"]["digest"]


def test_pictures_on_the_hub(findings: dict):
    names, digests = zip(*findings["me/pictures"]["read"], strict=True)
    assert names[0] == "me/pictures/train/eos/0.png"
    assert names[-1] == "me/pictures/test/eos/0.png"
    assert list(digests[:4]) == of(0, 1, 2, 3)


def test_hub_sets_that_cannot_be_used(findings: dict):
    for name, file in (("tar", "train-0.tar"), ("table", "train.csv")):
        assert findings[f"me/{name}"] == (
            f"me/{name}: has no pictures or Parquet files, but {file}. Give the Hub's Parquet copy, "
            f"hf://datasets/me/{name}@refs%2Fconvert%2Fparquet, or download the set."
        )
    assert "no such folder here, and not loadable from the Hub" in findings["me/none"]
