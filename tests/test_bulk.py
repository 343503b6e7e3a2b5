"""Bulk prediction: one row for each image, the same as the predictor gives, in Parquet and in CSV."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import TinyRun
from tests.tiny_sets import picture
from wbc_hf.errors import WbcError
from wbc_hf.inference import ImageSources, Prediction, Predictor, check_bulk, open_images, predict_many, ray_session
from wbc_hf.inference.bulk import BulkSummary, load_described
from wbc_hf.labels import CLASS_NAMES

COLUMNS = ["number", "file", "label", "probability", "status", *CLASS_NAMES, "reason"]
IMAGES, UNREADABLE = 20, 3


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Eight pictures, one broken and one with pages; eight rows, two of them unreadable; four more, with odd names."""
    root = tmp_path_factory.mktemp("sources")
    first, rows, last = root / "a", root / "b.parquet", root / "c"
    for folder, count in ((first, 7), (last, 2)):
        folder.mkdir()
        for index in range(count):
            (folder / f"{index}.png").write_bytes(picture(index, 32))
    (first / "4.png").write_bytes(b"junk")
    pages = [Image.fromarray(np.full((32, 32, 3), shade, np.uint8)) for shade in (90, 120, 150)]
    pages[0].save(first / "pages.tif", save_all=True, append_images=pages[1:])
    contents = [picture(100 + index, 32) for index in range(6)]
    pq.write_table(pa.table({"image": [*contents[:5], None, contents[5], b""]}), rows)
    Path(os.fsdecode(os.fsencode(last) + b"/\xff.png")).write_bytes(picture(0, 32))
    (last / "é\n.png").write_bytes(picture(0, 32))
    return [str(path) for path in (first, rows, last)]


@pytest.fixture(scope="module")
def done(cells: list[str], tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Predicted once, within a session that goes on."""
    output = tmp_path_factory.mktemp("done") / "out"
    with ray_session():
        assert predict_many(cells, str(tiny_run.folder), output) == BulkSummary(IMAGES, UNREADABLE)
        yield output


def rows_of(output: Path) -> list[dict]:
    return pq.read_table(output / "predictions").sort_by("number").to_pylist()


def test_every_image_has_one_row_as_the_predictor_says(done: Path, cells: list[str], tiny_run: TinyRun):
    rows = rows_of(done)
    assert list(rows[0]) == COLUMNS
    assert sorted(os.listdir(done)) == ["predictions", "run.json"]
    opened = list(open_images(ImageSources(cells)))
    answers = Predictor.from_pretrained(tiny_run.folder).predict_each(getattr(one, "source", None) for one in opened)
    for row, image, answer in zip(rows, opened, answers, strict=True):
        assert Path(row["file"]).name == Path(image.name).name.replace("\udcff", "\\xff")
        if isinstance(answer, Prediction):
            assert (row["label"], row["status"]) == (answer.label, answer.status)
            assert row["probability"] == pytest.approx(answer.probability, abs=1e-5)
            assert row[row["label"]] == row["probability"] == max(row[name] for name in CLASS_NAMES)
            assert sum(row[name] for name in CLASS_NAMES) == pytest.approx(1, abs=1e-5)
        else:
            assert row["status"] == "unreadable"
            assert {row[name] for name in ("label", "probability", *CLASS_NAMES)} == {None}
    assert [row["reason"].split(" (")[0] for row in rows if row["reason"]] == [
        "is not a picture in a known format",
        "only the first picture in it is classified, 2 more are left out",
        "the row holds no image",
        "is empty",
    ]


def test_a_finished_folder_is_joined_without_predicting_again(done: Path, cells: list[str], tiny_run: TinyRun):
    before = {file: file.stat().st_mtime_ns for file in (done / "predictions").iterdir()}
    assert predict_many(cells, str(tiny_run.folder), done, as_csv=True) == BulkSummary(IMAGES, UNREADABLE)
    assert {file: file.stat().st_mtime_ns for file in (done / "predictions").iterdir()} == before
    with (done / "predictions.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == COLUMNS[1:]
    for row, other in zip(table, rows_of(done), strict=True):
        del other["number"]
        assert row == {
            name: f"{value:.6f}" if isinstance(value, float) else (value or "").replace("\n", "\\n")
            for name, value in other.items()
        }


def test_another_model_and_other_images_are_refused(done: Path, cells: list[str], tiny_run: TinyRun):
    with pytest.raises(WbcError, match=r"out: holds results with another model \(.*Give the original command"):
        predict_many(cells, "models/starter", done)
    with pytest.raises(WbcError, match=r"out: holds results with other images: paths, files that came, went"):
        predict_many(cells[:1], str(tiny_run.folder), done)


def test_a_node_with_another_model_says_so(tiny_run: TinyRun):
    with pytest.raises(WbcError, match=r"is another one on the node .* than on the first .*Give all nodes the same"):
        load_described(str(tiny_run.folder), {"labels": [], "model": "0123456789ab"})


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("answers.csv", "--output answers.csv: results are written to a folder. Name one, such as answers; with"),
        ("cells/out", "--output cells/out: lies in cells, whose files are all taken for images. Name a folder"),
    ],
)
def test_outputs_that_cannot_be(output: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("cells").mkdir()
    with pytest.raises(WbcError) as caught:
        check_bulk(["cells", "owner/name"], "models/starter", Path(output))
    assert message in str(caught.value)


def test_a_model_that_is_not_there_is_refused_before_ray_starts(tmp_path: Path):
    with pytest.raises(WbcError, match="nowhere"):
        predict_many([str(tmp_path)], str(tmp_path / "nowhere"), tmp_path.parent / "out")
    assert not (tmp_path.parent / "out").exists()
