"""The size of a pixel, as far as files say it credibly."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from wbc_hf.data import read_pixel_size

OME = '<?xml version="1.0"?><OME xmlns="x"><Image><Pixels ID="P:0" Type="uint8" {}></Pixels></Image></OME>'


def _file(format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 24)).save(file, format, **options)
    return file.getvalue()


def _described(description: str, resolution: float | None = None) -> bytes:
    tags = ImageFileDirectory_v2()
    tags[270] = description
    if resolution:
        tags[282], tags[283], tags[296] = resolution, resolution, 1
    return _file("TIFF", tiffinfo=tags)


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ('PhysicalSizeX="0.11" PhysicalSizeY="0.11"', 0.11),
        ('PhysicalSizeX="110" PhysicalSizeXUnit="nm" PhysicalSizeY="110" PhysicalSizeYUnit="nm"', 0.11),
        ('PhysicalSizeX="0.00011" PhysicalSizeXUnit="mm"', 0.11),
        ('PhysicalSizeX="0.11" PhysicalSizeXUnit="pixel"', None),
        ('PhysicalSizeX="1.0" PhysicalSizeY="1.0"', None),  # never calibrated
        ('PhysicalSizeX="0.11" PhysicalSizeY="0.2"', None),
        ('PhysicalSizeX="wide"', None),
        ("", None),
    ],
)
def test_ome_metadata(attributes: str, size: float | None):
    assert read_pixel_size(_described(OME.format(attributes))) == (size if size is None else pytest.approx(size))


def test_the_calibration_of_imagej():
    assert read_pixel_size(_described("ImageJ=1.54f\nunit=micron\n", 9.1)) == pytest.approx(1 / 9.1, rel=1e-4)
    assert read_pixel_size(_described("ImageJ=1.54f\nunit=pixel\n", 9.1)) is None


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_a_resolution_that_a_microscope_has(format: str):
    file = _file(format, dpi=(254_000, 254_000))
    assert read_pixel_size(file) == pytest.approx(0.1, rel=1e-3)


def test_a_resolution_in_exif():
    exif = Image.Exif()
    exif[282] = exif[283] = 100_000
    exif[296] = 3
    assert read_pixel_size(_file("JPEG", exif=exif, dpi=(72, 72))) == pytest.approx(0.1)


@pytest.mark.parametrize("dots", [1, 72, 96, 300, 1200, 9600])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_the_resolution_of_a_screen_a_printer_or_a_scanner_says_nothing(format: str, dots: int):
    assert read_pixel_size(_file(format, dpi=(dots, dots))) is None


def test_what_has_no_file_has_no_scale():
    assert read_pixel_size(np.zeros((20, 20, 3), np.uint8)) is None
    assert read_pixel_size(Image.new("RGB", (20, 20))) is None
    assert read_pixel_size(b"no picture") is None
    assert read_pixel_size("/no/such/file.tif") is None
