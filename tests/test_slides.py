"""Whole slides are opened in the formats that laboratories have, and what cannot be is named with its reason."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.conftest import SlideFile
from tests.slide_files import shrink, write_dicom, write_ome, write_svs, write_tiff
from wbc_hf.data import read_image, slide_kind
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.smear import open_slide

SIDE = 2560  # of the part that is written, and 2304 high


@pytest.fixture(scope="module")
def part(slide_file: SlideFile) -> np.ndarray:
    return slide_file.pixels[:2304, :SIDE]


Write = Callable[[Path, np.ndarray], Path]


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        pytest.param(lambda folder, pixels: write_tiff(folder / "slide.tif", pixels), "TIFF", id="TIFF"),
        pytest.param(lambda folder, pixels: write_svs(folder / "slide.svs", pixels), "Aperio", id="SVS"),
        pytest.param(lambda folder, pixels: write_ome(folder / "slide.ome.tif", pixels), "TIFF", id="OME"),
        pytest.param(lambda folder, pixels: write_dicom(folder / "slide", pixels), "DICOM", id="DICOM"),
    ],
)
def test_a_slide_is_read_pixel_by_pixel_and_from_afar(write: Write, kind: str, part: np.ndarray, tmp_path: Path):
    slide = open_slide(write(tmp_path, part))
    assert (slide.kind, slide.size, slide.has_pyramid) == (kind, (SIDE, 2304), True)
    assert slide.pixel_size == pytest.approx(0.25)
    assert np.array_equal(slide.read(1000, 700, 300, 200, 1), part[700:900, 1000:1300])
    small = np.asarray(slide.overview(SIDE // 8)).astype(int)
    assert np.abs(small - shrink(part, 8)).mean() < 2
    outside = np.asarray(slide.read(-40, 2304 - 60, 100, 100, 1))
    assert (outside[:, :40] == 255).all() and (outside[60:] == 255).all()
    assert np.array_equal(outside[:60, 40:], part[2304 - 60 :, :60])
    assert slide.read(1000, 700, 300, 200, 0.5).size == (600, 400)  # enlarged
    slide.close()


def test_how_wide_a_pixel_is(part: np.ndarray, tmp_path: Path):
    by_objective = open_slide(write_svs(tmp_path / "a.svs", part, power=20, mpp=None))
    assert by_objective.pixel_size == 0.5
    assert open_slide(write_tiff(tmp_path / "a.tif", part, pixel_size=None)).pixel_size is None
    assert open_slide(write_tiff(tmp_path / "b.tif", part, pixel_size=254)).pixel_size is None  # 100 dpi


def test_what_is_a_slide_and_what_a_photograph(part: np.ndarray, tmp_path: Path):
    tifffile.imwrite(tmp_path / "photograph.tif", part, photometric="rgb")
    (tmp_path / "notes.tif").write_text("no picture")
    slide = write_tiff(tmp_path / "slide.tif", part)
    kinds = [slide_kind(tmp_path / name) for name in ("photograph.tif", "notes.tif", "a.jpg", "nowhere.tiff")]
    assert kinds == [None] * 4
    assert [slide_kind(path) for path in (slide, "a.SVS", "a.mrxs", "a.dcm")] == ["TIFF", "Aperio", "MIRAX", "DICOM"]
    with pytest.raises(UnreadableImageError, match=r"is a whole-slide image \(MIRAX\).*wbc-hf\[slides\]"):
        read_image(tmp_path / "a.mrxs")


def _cut(path: Path) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    return path


def _huge_strip(path: Path) -> Path:
    """60 million pixels that are not in tiles, of which the file holds none but the first rows."""
    tifffile.imwrite(path, shape=(6000, 10_000, 3), dtype=np.uint8, photometric="rgb", compression=None)
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(
            lambda folder, part: _cut(write_svs(folder / "slide.svs", part)),
            "is cut short: . MiB or more are missing at its end. Copy it anew",
            id="cut short",
        ),
        pytest.param(
            lambda folder, part: _cut(write_tiff(folder / "slide.tif", part)), "is cut short: ", id="cut TIFF"
        ),
        pytest.param(
            lambda folder, part: write_svs(folder / "label.svs", part[:800, :1000]),
            "holds only 1000 x 800 pixels: the label, an overview or a thumbnail",
            id="a label",
        ),
        pytest.param(
            lambda folder, part: _huge_strip(folder / "strips.tif"), "is not stored in tiles: save it as", id="strips"
        ),
        pytest.param(lambda folder, part: folder / "gone.svs", "there is no such file", id="no file"),
        pytest.param(
            lambda folder, part: _written(folder / "slide.mrxs"), "the folder of the same name beside it", id="MIRAX"
        ),
        pytest.param(lambda folder, part: _written(folder / "label.dcm"), "all are needed", id="DICOM"),
        pytest.param(lambda folder, part: _written(folder / "a.svs"), "cannot be opened as a slide", id="no slide"),
    ],
)
def test_what_cannot_be_opened_is_named(
    make: Callable[[Path, np.ndarray], Path], reason: str, part: np.ndarray, tmp_path: Path
):
    path = make(tmp_path, part)
    with pytest.raises(UnreadableImageError, match=reason) as caught:
        open_slide(path)
    assert caught.value.name == path.name


def _written(path: Path) -> Path:
    path.write_text("no slide")
    return path


@pytest.mark.parametrize("name", ["slide.svs", "slide.tif", "slide.ome.tif"])
def test_a_tile_that_takes_gigabytes_is_not_decoded(name: str, tmp_path: Path):
    path, side = tmp_path / name, 30_000 // 16 * 16
    pixels = np.zeros((16, 16, 3), np.uint8)
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, tile=(16, 16), photometric="rgb", compression="zlib", description="Aperio", metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for tag in ("ImageWidth", "ImageLength", "TileWidth", "TileLength"):
            file.pages[0].tags[tag].overwrite(side)
    with pytest.raises(UnreadableImageError, match=f"is stored in tiles of {side} × {side} pixels"):
        open_slide(path)


@pytest.mark.parametrize("name", ["slide.svs", "slide.czi", "slide.ndpi"])
def test_a_file_that_names_others_is_no_slide_under_another_ending(name: str, tmp_path: Path):
    folder = tmp_path / "given"
    folder.mkdir()
    Image.new("RGB", (3000, 2500), "red").save(tmp_path / "secret.jpg", restart_marker_rows=1)
    group, names = "[Virtual Microscope Specimen]", ("ImageFile", "MapFile")
    sizes = "NoLayers=1\nNoJpegColumns=1\nNoJpegRows=1\nPhysicalWidth=1000000\nPhysicalHeight=1000000\n"
    named = "".join(f"{each}=../secret.jpg\n" for each in names)
    (folder / name).write_text(f"{group}\n{sizes}{named}OptimisationFile=\n")
    with pytest.raises(UnreadableImageError, match="it names other files"):
        open_slide(folder / name)


def test_after_a_part_that_is_broken_the_others_are_read(part: np.ndarray, tmp_path: Path):
    path = write_tiff(tmp_path / "slide.tif", part)
    with tifffile.TiffFile(path) as opened:
        page = opened.pages[0]
        start, size = page.dataoffsets[0], page.databytecounts[0]
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(size))
    slide = open_slide(path)
    with pytest.raises(UnreadableImageError, match=r"slide.tif: cannot be read at 0, 0 \(.+\): copy it anew"):
        slide.read(0, 0, 100, 100, 1)
    assert np.array_equal(slide.read(1000, 700, 300, 200, 1), part[700:900, 1000:1300])


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(__import__("sys").modules, "openslide", None)
    with pytest.raises(WbcError, match=r"package openslide is not installed.*wbc-hf\[slides\]"):
        open_slide(tmp_path / "slide.svs")
