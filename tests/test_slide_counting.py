"""A slide is counted to so many leucocytes, none twice, each with its place: Python, command line, exports."""

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from pypdf import PdfReader
from typer.testing import CliRunner

from tests.adapted_models import build_tiny_model
from tests.conftest import SlideFile
from tests.slide_files import write_svs, write_tiff
from wbc_hf.cli import app
from wbc_hf.data import paint_field
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.inference import Predictor
from wbc_hf.reports import to_csv, to_json, to_pdf
from wbc_hf.smear import (
    DEFAULT_RANGES,
    CellCounter,
    CellState,
    SlideField,
    SlideReading,
    Snapshot,
    Specimen,
    count_found,
    count_slide,
    file_digest,
    load_document,
    open_slide,
    read_slide,
    unread_fields,
)

ALL = 10_000
FIELD = (640, 480)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """Not calibrated, so that every cell waits for review."""
    return Predictor(*build_tiny_model(), name="tiny")


@pytest.fixture(scope="module")
def read(predictor: Predictor, slide_file: SlideFile) -> tuple[SlideReading, Snapshot]:
    """The whole monolayer."""
    counter = CellCounter(predictor, Specimen("S 1"))
    reading = read_slide(counter, slide_file.path, leucocytes=ALL, field_size=FIELD)
    return reading, counter.specimen.snapshot(predictor.identity, DEFAULT_RANGES)


def places(snapshot: Snapshot) -> np.ndarray:
    """Boxes of all cells on the slide, (n, 4)."""
    return np.array(
        [snapshot.pictures[cell.picture - 1].place.on_slide(cell.box) for cell in snapshot.cells], float
    ).reshape(-1, 4)


def test_leucocytes_are_found_where_they_are_painted_and_none_twice(
    read: tuple[SlideReading, Snapshot], slide_file: SlideFile
):
    reading, snapshot = read
    assert (reading.read, reading.interrupted, reading.unreadable) == (len(reading.monolayer.fields), False, ())
    assert reading.found == len(snapshot.cells) > 20
    boxes = places(snapshot)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    painted = [cell for field in reading.monolayer.fields for cell in slide_file.painted.leucocytes_in(field.core)]
    near = np.array([np.hypot(*(middles - [cell.x, cell.y]).T) < cell.radius for cell in painted])
    assert (near.sum(axis=1) <= 1).all()
    assert near.any(axis=1).mean() >= 0.85
    assert near.any(axis=0).mean() >= 0.85


def test_a_leucocyte_on_a_seam_is_counted_once(predictor: Predictor, slide_file: SlideFile):
    slide = open_slide(slide_file.path)
    cells = [cell for cell in slide_file.painted.leucocytes_in((2000, 400, 3000, 2200)) if cell.radius > 18][:6]
    assert len(cells) >= 4
    for off, cell in zip((-3, -1, 0, 1, 3, 0), cells, strict=False):
        seam, y = round(cell.x) + off, round(cell.y)
        counter = CellCounter(predictor, Specimen())
        for number, (x0, x1) in enumerate(((seam - 400, seam), (seam, seam + 400)), 1):
            core, frame = (x0, y - 200, x1, y + 200), (x0 - 50, y - 250, x1 + 50, y + 250)
            counter.add_slide_field(SlideField(slide, number, core, frame, 1.0, 0.25))
        boxes = places(counter.specimen.snapshot(predictor.identity, DEFAULT_RANGES))
        near = (
            np.hypot((boxes[:, 0] + boxes[:, 2]) / 2 - cell.x, (boxes[:, 1] + boxes[:, 3]) / 2 - cell.y) < cell.radius
        )
        assert near.sum() == 1


def test_reading_stops_at_so_many(predictor: Predictor, slide_file: SlideFile, read: tuple[SlideReading, Snapshot]):
    counter = CellCounter(predictor, Specimen())
    told: list[tuple[int, int, int]] = []
    reading = read_slide(
        counter, slide_file.path, leucocytes=8, field_size=FIELD, reading=lambda *how_far: told.append(how_far)
    )
    found = [found for _, _, found in told]
    assert found[-1] == reading.found == count_found(counter.specimen.cells) >= 8
    assert all(before < 8 for before in found[:-1])
    assert told[-1][:2] == (reading.read, len(reading.monolayer.fields)) and reading.read < told[-1][1]
    # The same fields in the same order as whoever reads all of them.
    assert (
        places(counter.specimen.snapshot(predictor.identity, DEFAULT_RANGES)).tolist()
        == places(read[1])[: len(counter.specimen.cells)].tolist()
    )


def test_an_interruption_leaves_what_was_counted(predictor: Predictor, slide_file: SlideFile):
    counter = CellCounter(predictor, Specimen())

    def interrupt(read: int, total: int, found: int) -> None:
        if read == 2:
            raise KeyboardInterrupt

    reading = read_slide(counter, slide_file.path, leucocytes=ALL, field_size=FIELD, reading=interrupt)
    assert (reading.interrupted, reading.read, len(counter.specimen.pictures)) == (True, 2, 2)
    assert reading.found == count_found(counter.specimen.cells)


def test_a_field_that_cannot_be_read_is_named_and_the_others_are_read(
    predictor: Predictor, slide_file: SlideFile, read: tuple[SlideReading, Snapshot], tmp_path: Path
):
    path = tmp_path / "smear.tif"
    shutil.copy(slide_file.path, path)
    x, y, *_ = read[0].monolayer.fields[1].core
    with tifffile.TiffFile(path) as opened:
        page = opened.pages[0]
        index = (int(y) // 256 + 1) * -(-page.imagewidth // 256) + int(x) // 256 + 1
        start, size = page.dataoffsets[index], page.databytecounts[index]
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(size))
    counter = CellCounter(predictor, Specimen())
    reading = read_slide(counter, path, leucocytes=ALL, field_size=FIELD)
    assert reading.unreadable and all("cannot be read at" in str(error) for error in reading.unreadable)
    assert len(counter.specimen.pictures) == reading.read - len(reading.unreadable) > 0


def test_a_slide_of_an_objective_of_20_is_enlarged(predictor: Predictor, slide_file: SlideFile, tmp_path: Path):
    half = slide_file.pixels[::2, ::2]
    snapshot = count_slide(write_svs(tmp_path / "a.svs", half, power=20, mpp=None), predictor, leucocytes=5)
    (slide,) = snapshot.slides
    assert (slide.name, slide.pixel_size, slide.measured) == ("a.svs", 0.5, False)
    assert {picture.pixel_size for picture in snapshot.pictures} == {0.25}
    widths = places(snapshot)[:, 2] - places(snapshot)[:, 0]
    assert 8 / 0.5 < np.median(widths) < 22 / 0.5  # 8 to 22 µm


@pytest.mark.long
def test_what_is_said_of_a_slide_without_a_pyramid_and_without_its_pixel_size(
    predictor: Predictor, slide_file: SlideFile, tmp_path: Path
):
    path = write_tiff(tmp_path / "plain.tif", slide_file.pixels, levels=(1,), pixel_size=None)
    reading = read_slide(CellCounter(predictor, Specimen()), path, leucocytes=1)
    first, second = reading.notes
    assert first.startswith("has no pyramid") and "tiffsave" in first
    assert second.startswith("does not say how wide a pixel is: measured by its red cells, 0.2")


# ---- exports


def test_exports_have_the_places(read: tuple[SlideReading, Snapshot]):
    reading, snapshot = read
    rows = list(csv.DictReader(io.StringIO(to_csv(snapshot))))
    in_csv = [[float(row[f"slide_{edge}"]) for edge in ("x0", "y0", "x1", "y1")] for row in rows]
    assert in_csv == places(snapshot).tolist() and {row["slide"] for row in rows} == {"smear.tif"}
    document = json.loads(to_json(snapshot))
    assert [cell["slide_box"] for cell in document["cells"]] == places(snapshot).tolist()
    (slide,) = document["slides"]
    assert (slide["name"], slide["width"], slide["pixel_size"]) == ("smear.tif", 4096, 0.25)
    assert len(slide["fields"]) == len(reading.monolayer.fields)
    assert document["pictures"][0]["place"]["slide"] == "smear.tif"


def test_a_slide_that_is_loaded_back_goes_on_where_it_was(read: tuple[SlideReading, Snapshot], predictor: Predictor):
    reading, snapshot = read
    loaded = Specimen()
    load_document(to_json(snapshot, pictures=True).encode(), "s.json", loaded)
    again = loaded.snapshot(predictor.identity, DEFAULT_RANGES)
    assert [it.place for it in again.pictures] == [it.place for it in snapshot.pictures]
    assert [it.fields for it in again.slides] == [it.fields for it in snapshot.slides]
    assert to_csv(again).splitlines()[1].split(",")[:12] == to_csv(snapshot).splitlines()[1].split(",")[:12]
    # Its cells are known by their places: a field beside one that was read has none of them.
    number = next(number for number, it in enumerate(snapshot.pictures) if snapshot.cells[0].picture == it.number)
    field = next(it for it in reading.monolayer.fields if it.name == snapshot.pictures[number].name)
    x0, y0, x1, y1 = field.frame
    CellCounter(predictor, loaded).add_slide_field(replace(field, frame=(x0 + 1, y0, x1 + 1, y1)))
    assert len(loaded.pictures) == len(snapshot.pictures) + 1
    assert len(loaded.cells) == len(snapshot.cells)


def test_fields_that_nobody_chose_are_not_read(read: tuple[SlideReading, Snapshot], slide_file: SlideFile):
    """A document may say what it likes of a slide that is there: a field of it is no larger than others are."""
    (known,), specimen, slide = read[1].slides, Specimen(), open_slide(slide_file.path)
    assert known.digest == file_digest(slide_file.path) == slide.digest
    assert [it.core for it in unread_fields(specimen, known, slide)] == list(known.fields)
    frames = [(it.frame, it.scale, it.pixel_size, it.number) for it in unread_fields(specimen, known, slide)]
    assert frames == [(it.frame, it.scale, it.pixel_size, it.number) for it in read[0].monolayer.fields]
    x0, y0, _, _ = known.fields[0]
    made_up = [(0, 0, *slide.size), (-900, y0, x0, y0 + 9), (x0, y0, x0, y0 + 9), (x0, y0, slide.size[0] + 1, y0 + 9)]
    for field in made_up:
        with pytest.raises(UnreadableImageError, match=r"smear.tif: has other fields"):
            unread_fields(specimen, replace(known, fields=(*known.fields, field)), slide)
    with pytest.raises(UnreadableImageError, match=r"smear.tif: has other fields"):
        unread_fields(specimen, replace(known, pixel_size=known.pixel_size * 1.01), slide)
    with pytest.raises(UnreadableImageError, match="is another slide"):
        unread_fields(specimen, replace(known, digest=known.digest[:-1]), slide)
    with pytest.raises(UnreadableImageError, match="was kept without what tells it"):
        unread_fields(specimen, replace(known, digest=""), slide)


def test_the_report_has_a_page_with_the_slide(read: tuple[SlideReading, Snapshot]):
    first, second = PdfReader(io.BytesIO(to_pdf(read[1]))).pages
    assert "Leucocyte differential" in first.extract_text()
    text = second.extract_text()
    assert "page 2 of 2" in text and "page 1 of 2" in first.extract_text()
    assert "smear.tif" in text and "4096 × 2560 pixels of 0.250 µm" in text
    assert max(image.image.width for image in second.images) > 500


# ---- the command line


def run(*words: object):
    return CliRunner().invoke(app, list(map(str, words)))


def test_the_command_counts_a_slide(slide_file: SlideFile, tiny_run):
    result = run("count", slide_file.path, "--model", tiny_run.folder, "--leucocytes", 50, "--format", "json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    found = sum(cell["state"] in (CellState.COUNTED, CellState.WAITING) for cell in document["cells"])
    (slide,) = document["slides"]
    assert f"of {len(slide['fields'])} fields of the monolayer were read, with {found} leucocytes" in result.stderr
    assert (found >= 50) != ("fewer than 50: that is all of it" in result.stderr)


def test_a_slide_among_photographs_is_named_and_the_photographs_are_counted(
    slide_file: SlideFile, tiny_run, tmp_path: Path
):
    Image.fromarray(slide_file.pixels[1000:1480, 2200:2840]).save(tmp_path / "field.png")
    shutil.copy(slide_file.path, tmp_path / "slide.tif")
    result = run("count", tmp_path, "--model", tiny_run.folder, "--format", "json")
    assert result.exit_code == 1
    assert "slide.tif: is a whole slide among photographs, which are another specimen" in result.stderr
    assert "1 of 2 files could not be counted" in result.stderr
    assert [picture["name"] for picture in json.loads(result.stdout)["pictures"]] == ["field.png"]


def test_several_slides_are_several_specimens(slide_file: SlideFile, tiny_run, tmp_path: Path):
    for name in ("a.tif", "b.tif"):
        shutil.copy(slide_file.path, tmp_path / name)
    result = run("count", tmp_path, "--model", tiny_run.folder)
    assert isinstance(result.exception, WbcError)
    assert "b.tif: are whole slides, each a specimen of its own. Count one at a time." in str(result.exception)


def test_photographs_are_counted_to_so_many_too(tiny_run, tmp_path: Path):
    for number in range(9):
        labels = np.random.default_rng(number).integers(0, 5, 12)
        Image.fromarray(paint_field(labels, seed=number).image).save(tmp_path / f"{number}.png")
    words = ["count", tmp_path, "--model", tiny_run.folder, "--show", "field", "--format", "json"]
    every, stopped = run(*words), run(*words, "--leucocytes", 50)
    assert every.exit_code == stopped.exit_code == 0
    read = len(json.loads(stopped.stdout)["pictures"])
    assert read < len(json.loads(every.stdout)["pictures"]) == 9
    assert f"leucocytes, after {read} images" in stopped.stderr and "stopped at" not in every.stderr
