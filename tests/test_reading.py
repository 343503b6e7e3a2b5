"""Reading: every kind of picture becomes upright RGB, all else an error that names it and says why."""

import errno
import io
import os
import random
import struct
import zlib
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile, ImageOps

from tests.broken_inputs import tiled_tiff
from tests.tiny_sets import picture
from wbc_hf.data.reading import FORMATS, MAX_BYTES, MAX_PIXELS, MAX_SCANS, read_image
from wbc_hf.errors import UnreadableImageError

NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
RGB = Image.fromarray(NOISE)

# HEIF is read and not written: tests/test_unpacking.py has one.
WRITTEN = [form for form in FORMATS if form != "HEIF"]


def encoded(image: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def refused(source, name: str | None = None) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        read_image(source, name)
    assert str(caught.value) == f"{caught.value.name}: {caught.value.reason}"
    return str(caught.value)


# What is read


def palette_with_transparency() -> Image.Image:
    image = RGB.quantize(16)
    image.info["transparency"] = 3
    return image


def with_alpha(mode: str) -> Image.Image:
    image = RGB.convert(mode)
    image.putalpha(Image.fromarray(NOISE[:, :, 0]))
    return image


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(encoded(RGB, "PNG"), id="RGB"),
        pytest.param(encoded(RGB.convert("L"), "PNG"), id="L"),
        pytest.param(encoded(with_alpha("L"), "PNG"), id="LA"),
        pytest.param(encoded(with_alpha("RGB"), "PNG"), id="RGBA"),
        pytest.param(encoded(RGB.quantize(16), "PNG"), id="P"),
        pytest.param(encoded(palette_with_transparency(), "PNG"), id="P with transparency"),
        pytest.param(encoded(RGB.convert("CMYK"), "JPEG"), id="CMYK"),
        pytest.param(encoded(RGB.convert("YCbCr"), "JPEG"), id="YCbCr"),
        pytest.param(encoded(RGB.convert("1"), "PNG"), id="1 bit"),
        pytest.param(encoded(RGB.convert("1"), "TIFF"), id="1 bit TIFF"),
        *(pytest.param(encoded(RGB, form), id=form) for form in WRITTEN),
    ],
)
def test_equals_what_pillow_and_transformers_make_of_it(content: bytes, tmp_path: Path):
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))
    path = tmp_path / "cell"
    path.write_bytes(content)
    for source in (content, path, str(path), Image.open(path)):
        image = read_image(source)
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_turned_pictures_are_set_upright(orientation: int, form: str):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(RGB, form, exif=exif)
    image = read_image(content)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))
    assert image.size == ((24, 32) if orientation >= 5 else (32, 24))
    assert image.getexif().get(0x0112) in (None, 1)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_grey_of_more_than_8_bits_keeps_its_upper_8(bits: int, form: str):
    values = np.linspace(0, 2**bits - 1, 24 * 32).reshape(24, 32).astype(np.uint16)
    image = read_image(encoded(Image.fromarray(values), form))
    np.testing.assert_array_equal(np.asarray(image), np.repeat((values >> (bits - 8))[:, :, None], 3, 2))


def test_grey_of_32_bits():
    values = np.linspace(-500, 2**20 - 1, 24 * 32).reshape(24, 32).astype(np.int32)
    image = read_image(Image.fromarray(values))
    np.testing.assert_array_equal(np.asarray(image)[:, :, 0], np.maximum(values, 0) >> 12)


def tiff(values: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, photometric="rgb", **options)
    return stream.getvalue()


def test_16_bit_rgb_keeps_the_upper_byte():
    values = np.random.default_rng(1).integers(0, 65536, (24, 32, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    np.testing.assert_array_equal(np.asarray(read_image(png(32, 24, 16, 2, rows))), values >> 8)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("form", ["PNG", {"byteorder": "<"}, {"byteorder": ">"}, {"compression": "zlib"}], ids=str)
def test_16_bit_rgb_of_fewer_bits_keeps_the_upper_8_of_those(bits: int, form: str | dict):
    values = np.random.default_rng(2).integers(0, 2**bits, (24, 32, 3)).astype(np.uint16)
    values[0, 0] = 2**bits - 1
    if isinstance(form, str):
        content = png(32, 24, 16, 2, b"".join(b"\0" + row.tobytes() for row in values.astype(">u2")))
    else:
        content = tiff(values, **form)
    np.testing.assert_array_equal(np.asarray(read_image(content)), values >> (bits - 8))


def test_of_an_animation_the_first_frame():
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(content)).n_frames == 2
    assert read_image(content).getpixel((10, 10)) == (255, 0, 0)


def test_arrays():
    np.testing.assert_array_equal(np.asarray(read_image(NOISE)), NOISE)
    grey = NOISE[:, :, 0]
    for array in (grey, grey[:, :, None]):
        np.testing.assert_array_equal(np.asarray(read_image(array)), np.repeat(grey[:, :, None], 3, 2))
    four = np.dstack([NOISE, grey])
    np.testing.assert_array_equal(np.asarray(read_image(four)), NOISE)


def test_the_input_is_left_as_it_was():
    image = RGB.copy()
    read_image(image).putpixel((0, 0), (1, 2, 3))
    assert image.tobytes() == RGB.tobytes()


# What is refused


def test_no_such_file(tmp_path: Path):
    assert refused(tmp_path / "cell.png") == f"{tmp_path / 'cell.png'}: there is no such file"


def test_a_folder(tmp_path: Path):
    assert refused(str(tmp_path)) == f"{tmp_path}: is a folder, not an image file"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path):
    path = tmp_path / "cell.png"
    path.write_bytes(picture(0))
    path.chmod(0)
    assert refused(path) == f"{path}: may not be read: check its permissions"


def test_a_link_to_nowhere(tmp_path: Path):
    (tmp_path / "cell.png").symlink_to(tmp_path / "gone.png")
    assert refused(tmp_path / "cell.png") == f"{tmp_path}/cell.png: is a link to a file that is not there"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "slide.NDPI",
            "is a whole-slide image (Hamamatsu), not a photograph: `wbc-hf count` and the page's tab “Specimen” read "
            "it; they need pip install 'wbc-hf[slides]'",
        ),
        ("cell.dng", "is raw data of a camera: develop it to TIFF or JPEG, and give that"),
        ("smear.mp4", "is a video: save single pictures of it, and give those"),
    ],
)
def test_files_that_hold_pictures_but_are_none(name: str, reason: str, tmp_path: Path):
    # A picture by its content: raw data begins with a thumbnail that Pillow would read.
    (tmp_path / name).write_bytes(encoded(RGB, "TIFF"))
    assert refused(tmp_path / name) == f"{tmp_path / name}: {reason}"


def test_an_empty_file(tmp_path: Path):
    path = tmp_path / "cell.png"
    path.touch()
    assert refused(path) == f"{path}: is empty (0 bytes)"
    assert refused(b"", name="upload") == "upload: is empty (0 bytes)"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"class,count\nbasophil,3\n", id="text"),
        pytest.param(b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"/>', id="SVG"),
        # Pillow knows these two, but the one runs a program and the other is an icon.
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n", id="EPS"),
        pytest.param(encoded(RGB, "ICO"), id="ICO"),
    ],
)
def test_other_files(content: bytes, tmp_path: Path):
    path = tmp_path / "cell.png"
    path.write_bytes(content)
    reason = "is not a picture in a known format (JPEG, PNG, TIFF, BMP, WEBP, GIF, PPM, JPEG2000, HEIF)"
    assert refused(path) == f"{path}: {reason}"
    assert refused(content) == f"image: {reason}"


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_file_cut_short(form: str):
    content = encoded(RGB, form)
    assert refused(content[: len(content) // 2], "cell").startswith("cell: is broken or cut short (")


def test_an_error_keeps_no_picture_in_memory():
    with pytest.raises(UnreadableImageError) as caught:
        read_image(encoded(RGB, "PNG")[:-400])
    assert caught.value.__cause__ is caught.value.__context__ is None
    frames = [entry.name for entry in caught.traceback]
    assert frames == ["test_an_error_keeps_no_picture_in_memory", "read_image"]


def test_floating_point():
    values = np.full((20, 20), np.nan, dtype=np.float32)
    expected = "cell.tif: holds floating-point values; save it with 8 or 16 bits per channel"
    assert refused(encoded(Image.fromarray(values), "TIFF"), "cell.tif") == expected


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("big", [False, True])
def test_floating_point_colours(kind: type, big: bool):
    content = tiff(np.zeros((20, 20, 3), kind), bigtiff=big)
    assert refused(content, "cell.tif") == (
        "cell.tif: holds floating-point values; save it with 8 or 16 bits per channel"
    )


def test_other_values_of_a_tiff_are_named():
    content = tiff(np.zeros((20, 20, 3), np.uint32))
    assert refused(content, "cell.tif") == "cell.tif: holds values of 32 bits; save it with 8 or 16 bits per channel"


def test_16_bit_channels_one_after_another_are_not_read_as_noise():
    content = tiff(np.zeros((3, 20, 20), np.uint16), planarconfig="separate")
    assert refused(content, "cell.tif") == "cell.tif: stores channels of 16 bits one after another: save it compressed"


@pytest.mark.parametrize("size", [(1, 1), (15, 400)])
def test_too_small(size: tuple[int, int]):
    expected = f"cell: is {size[0]} x {size[1]} pixels; at least 16 on each side are needed"
    assert refused(Image.new("RGB", size), "cell") == expected


def test_arrays_of_other_forms():
    assert refused(NOISE / 255) == "image: is an array of float64; uint8 with values 0 to 255 is expected"
    assert refused(NOISE[:, :, :2]) == "image: is an array of shape (24, 32, 2); (height, width, 3) is expected"
    assert refused(NOISE[None]) == "image: is an array of shape (1, 24, 32, 3); (height, width, 3) is expected"
    assert "at least 16 on each side" in refused(NOISE[:0])


@pytest.mark.parametrize(
    ("side", "size"), [(30_000, "over 178 million"), (12_000, "12000 x 12000"), (7_072, "7072 x 7072")]
)
def test_a_header_that_claims_too_much_is_refused_before_a_pixel_is_decoded(
    side: int, size: str, monkeypatch: pytest.MonkeyPatch
):
    loads = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: loads.append(self))
    # Honest about its size, and small: a row of zeros compresses a thousandfold.
    content = png(side, side, 8, 0, bytes(side + 1) * 20)
    with pytest.warns(Image.DecompressionBombWarning) if side == 12_000 else nullcontext():
        message = refused(content, "bomb.png")
    assert message == f"bomb.png: is too large ({size} pixels); at most 50 million pixels are read: crop it first"
    assert loads == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no names here")
def test_a_pipe_is_not_waited_for_and_a_device_not_read(tmp_path: Path):
    os.mkfifo(tmp_path / "cell.png")
    assert refused(tmp_path / "cell.png").endswith(": is a pipe or a device, not an image file")
    assert refused("/dev/zero") == "/dev/zero: is a pipe or a device, not an image file"


def test_a_link_to_itself(tmp_path: Path):
    path = tmp_path / "cell.png"
    path.symlink_to(path)
    assert refused(path) == f"{path}: could not be read ({os.strerror(errno.ELOOP)})"


def test_a_huge_file_is_not_taken_into_memory(tmp_path: Path):
    path = tmp_path / "cell.png"
    path.write_bytes(picture(0))
    os.truncate(path, MAX_BYTES + 1)
    assert refused(path) == f"{path}: is too large (512 MiB); files of at most 512 MiB are read"


def test_a_long_side_is_refused_though_the_pixels_are_few():
    assert refused(Image.new("L", (65_536, 16))) == "image: is 65536 x 16 pixels; at most 65535 on a side are read"
    assert read_image(Image.new("L", (65_535, 16))).size == (65_535, 16)


def test_jpeg_2000_of_many_pixels():
    content = encoded(Image.new("L", (3500, 3500)), "JPEG2000")
    assert refused(content) == (
        "image: is too large (3500 x 3500 pixels); of JPEG 2000 at most 12 million pixels are read: "
        "save it as PNG or TIFF"
    )


@pytest.mark.parametrize("times", [30, 3000])
def test_a_jpeg_that_goes_over_its_pixels_again_and_again(times: int):
    content = encoded(RGB, "JPEG", progressive=True)
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    repeated = content[:-2] + last_scan * times + b"\xff\xd9"
    # What comes behind the picture, of a film for one, is no scan.
    repeated += b"\xff\xda" * 3000
    if times > MAX_SCANS:
        assert refused(repeated) == "image: is a JPEG of more than 50 scans: save it anew"
    else:
        assert read_image(repeated).size == RGB.size


def test_a_small_tiff_in_a_huge_tile():
    assert refused(tiled_tiff(8_000)) == "image: is stored in tiles of 8000 x 8000 pixels: save it anew"
    assert read_image(tiled_tiff(64)).size == (32, 32)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyError(273), "is broken or cut short (KeyError 273)"),
        (struct.error("unpack requires 4 bytes"), "is broken or cut short (error unpack requires 4 bytes)"),
        (RecursionError(), "is broken or cut short (RecursionError)"),
        (ValueError("two\nlines"), "is broken or cut short (two lines)"),
        (MemoryError(), "needs more memory than there is"),
        (OSError(errno.EIO, "Input/output error"), "could not be read (Input/output error)"),
    ],
)
def test_whatever_pillow_raises_names_the_image(error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    assert refused(encoded(RGB, "BMP"), "cell") == f"cell: {reason}"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_being_stopped_is_no_fault_of_the_image(error: type[BaseException], monkeypatch: pytest.MonkeyPatch):
    def stop(*_: object) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", stop)
    with pytest.raises(error):
        read_image(encoded(RGB, "BMP"))


def test_the_largest_that_is_read():
    side = int(MAX_PIXELS**0.5)
    assert read_image(Image.new("L", (side, side))).size == (side, side)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("form", WRITTEN)
def test_spoilt_files_are_read_or_refused_but_raise_nothing_else(form: str):
    generator = random.Random(form)
    whole = encoded(RGB, form)
    outcomes = set()
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(generator.choice((1, 3, 20))):
            content[generator.randrange(len(content))] = generator.randrange(256)
        try:
            outcomes.add(read_image(bytes(content)).mode)
        except UnreadableImageError:
            outcomes.add("refused")
    assert outcomes <= {"RGB", "refused"}
