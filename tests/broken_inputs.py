"""Files that people and programs mistake for pictures, and pictures that are made to break what reads them."""

import io
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

# What is to become of a file: answered, named as unreadable, or either (some damage leaves a picture).
ANSWERED, NAMED, EITHER = True, False, None
Verdict = bool | None

# format → suffix, options of `save`
FORMATS: dict[str, tuple[str, dict]] = {
    "JPEG": (".jpg", {"quality": 90}),
    "PNG": (".png", {}),
    "TIFF": (".tif", {"compression": "tiff_lzw"}),
    "WEBP": (".webp", {}),
    "GIF": (".gif", {}),
    "BMP": (".bmp", {}),
    "JPEG2000": (".jp2", {}),
    "PPM": (".ppm", {}),
}
# Names that break lines, terminals, arguments and encodings. {} becomes the number, by which a test finds the file.
ODD_NAMES = (
    "{}-a line\nbreak.png",
    "{}-a\r\nnother\ttab.png",
    "{}-\x1b[31mred\x1b[0m.png",
    "{}-🔬细胞.png",
    "{}-e\u0301.png",
    "{}-\u202egnp.exe.png",
    "{}-surrogate\udcff.png",
    "-{}-dash.png",
    "--model={}.png",
    "{}-'quotes\".png",
    "{}-comma,semicolon;.png",
    "{}-%s{{0}}.png",
    "{}-$(touch x) *?.png",
    " {}-blanks .png",
    "{}-.png.txt.png",
    "{}-UPPER.PNG",
)


def write_broken_inputs(folder: Path, count: int = 500, seed: int = 0) -> dict[Path, Verdict]:
    """Write so many files of every kind below into `folder`; the same seed writes the same ones.

    Every name holds a number of four digits that no other one holds.

    Returns:
        Path → True: the picture is readable; False: it must be named as unreadable; None: either. The paths include
        a dangling link and a folder, and files whose suffix is none of a picture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)
    verdicts: dict[Path, Verdict] = {}

    def path_for(pattern: str) -> Path:
        return folder / pattern.format(f"{len(verdicts):04d}")

    for pattern, content, verdict in _each_once():
        path = path_for(f"{{}}-{pattern}")
        path.write_bytes(content)
        verdicts[path] = verdict
    for pattern in ODD_NAMES:
        for content, verdict in ((_encoded(_noise(1), "PNG"), ANSWERED), (b"no picture", NAMED)):
            path = path_for(pattern)
            path.write_bytes(content)
            verdicts[path] = verdict
    _add_special_files(path_for, verdicts)
    while len(verdicts) < count:
        pattern, content, verdict = chance.choice(_SPOILERS)(chance)
        path = path_for(f"{{}}-{pattern}")
        path.write_bytes(content)
        verdicts[path] = verdict
    return verdicts


def _add_special_files(path_for: Callable[[str], Path], verdicts: dict[Path, Verdict]) -> None:
    path = path_for("{}-dangling.png")
    path.symlink_to("nowhere.png")
    verdicts[path] = NAMED
    path = path_for("{}-loop.png")
    path.symlink_to(path.name)
    verdicts[path] = NAMED
    path = path_for("{}-folder.png")
    path.mkdir()
    verdicts[path] = NAMED
    path = path_for("{}-pipe.png")
    os.mkfifo(path)
    verdicts[path] = NAMED
    path = path_for("{}-endless.png")
    path.symlink_to("/dev/zero")
    verdicts[path] = NAMED
    # Sparse: these take up a few bytes of the disk.
    for name, head in (("zeros.png", b""), ("endless chunk.png", _png_head(40, 40) + b"\x40\0\0\0iTXt")):
        path = path_for(f"{{}}-{name}")
        path.write_bytes(head)
        os.truncate(path, 2**31)
        verdicts[path] = NAMED
    if os.geteuid():
        path = path_for("{}-forbidden.png")
        path.write_bytes(_encoded(_noise(2), "PNG"))
        path.chmod(0)
        verdicts[path] = NAMED


# ---- pictures, and the pieces of which broken ones are put together


def _noise(seed: int, width: int = 40, height: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _picture(form: str, seed: int) -> tuple[str, bytes]:
    suffix, options = FORMATS[form]
    return suffix, _encoded(_noise(seed), form, **options)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png_head(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header)


def _png(width: int, height: int, data: bytes, depth: int = 8, colour: int = 0, before: bytes = b"") -> bytes:
    return _png_head(width, height, depth, colour) + before + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _zeros(count: int) -> bytes:
    """So many zeros, compressed a thousandfold."""
    packer, block = zlib.compressobj(1), bytes(2**20)
    pieces = [packer.compress(block[: min(len(block), count - start)]) for start in range(0, count, len(block))]
    return b"".join([*pieces, packer.flush()])


def _grey_png(side: int, before: bytes = b"") -> bytes:
    return _png(side, side, _zeros(side * (side + 1)), before=before)


def _tiff(entries: list[tuple[int, int, int, int]], data: bytes = b"", following: int = 0) -> bytes:
    """A TIFF of one directory right behind its header. `entries`: tag, type, count, value; `data` starts behind it."""
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", following) + data


def _grey_tiff(
    width: int = 32, height: int = 32, following: int = 0, offset: int | None = None, compression: int = 1
) -> bytes:
    tags = 9
    data = bytes(1024)
    start = 8 + 2 + 12 * tags + 4 if offset is None else offset
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, compression),
        (262, 3, 1, 1),
        (273, 4, 1, start),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
    ]
    return _tiff(entries, data, following)


def tiled_tiff(tile: int) -> bytes:
    """32 x 32 pixels, stored in one tile that is far larger."""
    data = _zeros(tile * tile)
    entries = [
        (256, 4, 1, 32),
        (257, 4, 1, 32),
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
        (322, 4, 1, tile),
        (323, 4, 1, tile),
        (324, 4, 1, 8 + 2 + 12 * 9 + 4),
        (325, 4, 1, len(data)),
    ]
    entries[8] = (324, 4, 1, 8 + 2 + 12 * len(entries) + 4)
    return _tiff(entries, data)


def _many_directories(count: int) -> bytes:
    one = _grey_tiff()
    size = 2 + 12 * 9 + 4
    table = one[8 : 8 + size - 4]
    start = len(one)
    pieces = [one[: 8 + size - 4], struct.pack("<I", start), one[8 + size :]]
    for index in range(count):
        following = start + (index + 1) * size if index + 1 < count else 0
        pieces += [table, struct.pack("<I", following)]
    return b"".join(pieces)


def _bmp(width: int, height: int, data: bytes, compression: int = 1) -> bytes:
    palette = bytes(1024)
    start = 14 + 40 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + info + palette + data


def _with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + jpeg[2:]


def _many_scans(side: int, count: int) -> bytes:
    """A progressive JPEG that goes over its picture again and again: a few bytes each time."""
    image = _encoded(Image.new("L", (side, side)), "JPEG", progressive=True, quality=50)
    scans = [index for index in range(len(image) - 1) if image[index : index + 2] == b"\xff\xda"]
    last = image[scans[-1] : -2]
    return image[:-2] + last * count + b"\xff\xd9"


def _wrong_codestream(side: int) -> bytes:
    """A JP2 whose outer header says 40 x 32 while the picture in it says `side` x `side`."""
    content = bytearray(_encoded(_noise(3), "JPEG2000"))
    start = content.index(b"\xff\x4f\xff\x51") + 8
    struct.pack_into(">IIIIIIII", content, start, side, side, 0, 0, side, side, 0, 0)
    return bytes(content)


def _oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _each_once() -> list[tuple[str, bytes, Verdict]]:
    """End of the file name, content, verdict."""
    rgb, grey = _noise(4), _noise(4).convert("L")
    jpeg, png = _encoded(rgb, "JPEG"), _encoded(rgb, "PNG")
    frames = [_noise(index) for index in range(5, 9)]
    animation = {"save_all": True, "append_images": frames[1:]}
    values = np.asarray(grey)
    nan = np.where(values > 128, np.nan, values).astype(np.float32)
    wide = np.random.default_rng(9).integers(0, 65536, (32, 40, 3)).astype(">u2")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("note", "x" * 2_000_000, zip=True)
    short_text = PngImagePlugin.PngInfo()
    short_text.add_text("note", "a cell", zip=True)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("cell.png"), png)
    exif = b"Exif\0\0"
    return [
        # No pictures at all.
        *((f"empty{suffix}", b"", NAMED) for suffix, _ in FORMATS.values()),
        ("zeros.png", bytes(1000), NAMED),
        ("one byte.jpg", b"\xff", NAMED),
        ("text.png", b"class,count\nbasophil,3\n", NAMED),
        ("text.txt", b"read me\n", NAMED),
        ("page.jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", NAMED),
        ("pointer.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", NAMED),
        ("document.jpg", b"%PDF-1.7\n1 0 obj << /Type /Catalog >> endobj\n", NAMED),
        ("script.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n", NAMED),
        ("archive.png", archive.getvalue(), NAMED),
        ("drawing.png", b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"/>', NAMED),
        ("drawing.svg", b'<?xml version="1.0"?><svg width="40" height="40"/>', NAMED),
        ("array.png", b"\x93NUMPY\x01\0v\0{'descr': '|u1'}", NAMED),
        ("icon.png", _encoded(rgb, "ICO"), NAMED),
        ("program.png", b"\x7fELF" + bytes(60), NAMED),
        *((f"signature{suffix}", _encoded(rgb, form)[:12], NAMED) for form, (suffix, _) in FORMATS.items()),
        # Pictures under another name.
        ("jpeg.png", jpeg, ANSWERED),
        ("png.jpg", png, ANSWERED),
        ("tiff.bmp", _encoded(rgb, "TIFF"), ANSWERED),
        ("png.txt", png, ANSWERED),
        ("no suffix", png, ANSWERED),
        # Sizes.
        ("1 x 1.png", _encoded(Image.new("RGB", (1, 1)), "PNG"), NAMED),
        ("15 x 15.png", _encoded(Image.new("RGB", (15, 15)), "PNG"), NAMED),
        ("16 x 16.png", _encoded(Image.new("RGB", (16, 16)), "PNG"), ANSWERED),
        ("1 x 5000.png", _encoded(Image.new("RGB", (1, 5000)), "PNG"), NAMED),
        ("16 x 5000.png", _encoded(Image.new("RGB", (16, 5000)), "PNG"), ANSWERED),
        ("0 x 0.png", _png(0, 0, b""), NAMED),
        ("30000.png", _png(30_000, 30_000, _zeros(1000)), NAMED),
        ("65535 x 1.png", _png(65_535, 1, _zeros(65_536)), NAMED),
        ("2147483647.png", _png(2**31 - 1, 2**31 - 1, b""), NAMED),
        ("20000 of zeros.png", _grey_png(20_000), NAMED),
        ("12000 of zeros.png", _grey_png(12_000), NAMED),
        ("7000 of zeros.png", _grey_png(7_000), ANSWERED),
        ("7000 of nothing.png", _png(7_000, 7_000, _zeros(7_000)), NAMED),
        ("30000.tif", _grey_tiff(30_000, 30_000), NAMED),
        ("7000 of nothing.tif", _grey_tiff(7_000, 7_000), NAMED),
        ("65535.gif", b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b";", NAMED),
        ("30000.bmp", _bmp(30_000, 30_000, b""), NAMED),
        ("7000 of nothing.bmp", _bmp(7_000, 7_000, b""), NAMED),
        ("jumps.bmp", _bmp(3_000_000, 16, b"\0\2\xff\xff" * 20), NAMED),
        ("minus.bmp", _bmp(-40, -40, b""), NAMED),
        ("30000.ppm", b"P6 30000 30000 255\n" + bytes(100), NAMED),
        ("7000 of nothing.pgm", b"P5 7000 7000 255\n" + bytes(100), NAMED),
        ("words.ppm", b"P3 40 40 255\n" + b"none " * 4800, NAMED),
        ("endless token.ppm", b"P6 " + b"9" * 100_000, NAMED),
        ("canvas.webp", _webp_canvas(), NAMED),
        ("30000.jp2", _wrong_codestream(30_000), NAMED),
        ("6000.jp2", _wrong_codestream(6_000), NAMED),
        ("3600.jp2", _encoded(Image.new("L", (3_600, 3_600)), "JPEG2000"), NAMED),
        ("tile.tif", tiled_tiff(20_000), NAMED),
        ("many scans.jpg", _many_scans(5_000, 2_000), NAMED),
        # More than one picture.
        ("animated.gif", _encoded(frames[0], "GIF", **animation), ANSWERED),
        ("animated.png", _encoded(frames[0], "PNG", **animation), ANSWERED),
        ("animated.webp", _encoded(frames[0], "WEBP", **animation), ANSWERED),
        ("pages.tif", _encoded(frames[0], "TIFF", **animation), ANSWERED),
        ("pages.mpo", _encoded(frames[0], "MPO", **animation), EITHER),
        ("thousands.tif", _many_directories(5_000), ANSWERED),
        ("itself.tif", _grey_tiff(following=8), ANSWERED),
        # Modes.
        *((f"{mode}.png", _encoded(rgb.convert(mode), "PNG"), ANSWERED) for mode in ("1", "L", "P", "LA", "RGBA")),
        *((f"{mode}.tif", _encoded(rgb.convert(mode), "TIFF"), ANSWERED) for mode in ("1", "CMYK", "RGBA")),
        ("YCbCr.tif", _encoded(rgb.convert("YCbCr"), "TIFF", compression="jpeg"), ANSWERED),
        ("LAB.tif", _encoded(_lab(rgb), "TIFF"), EITHER),
        ("CMYK.jpg", _encoded(rgb.convert("CMYK"), "JPEG"), ANSWERED),
        ("YCCK.jpg", _with_segment(_encoded(rgb.convert("CMYK"), "JPEG"), 0xEE, b"Adobe\0d\0\0\0\0\2"), ANSWERED),
        ("16 bits.png", _encoded(Image.fromarray(values.astype(np.uint16) * 257), "PNG"), ANSWERED),
        ("16 bits.tif", _encoded(Image.fromarray(values.astype(np.uint16) * 257), "TIFF"), ANSWERED),
        ("48 bits.png", _png(40, 32, zlib.compress(b"".join(b"\0" + row.tobytes() for row in wide)), 16, 2), ANSWERED),
        ("32 bits.tif", _encoded(Image.fromarray(values.astype(np.int32) * 65_793), "TIFF"), ANSWERED),
        ("float.tif", _encoded(Image.fromarray(values.astype(np.float32)), "TIFF"), NAMED),
        ("NaN.tif", _encoded(Image.fromarray(nan), "TIFF"), NAMED),
        # Beside the pixels.
        *((f"turned {way}.jpg", _encoded(rgb, "JPEG", exif=_oriented(way)), ANSWERED) for way in range(1, 9)),
        *((f"turned {way}.tif", _encoded(rgb, "TIFF", exif=_oriented(way)), ANSWERED) for way in (3, 6)),
        ("turned 99.jpg", _encoded(rgb, "JPEG", exif=_oriented(99)), ANSWERED),
        ("exif of noise.jpg", _with_segment(jpeg, 0xE1, exif + random.Random(1).randbytes(300)), EITHER),
        ("exif cut.jpg", _encoded(rgb, "JPEG", exif=_oriented(6).tobytes()[:-9]), EITHER),
        ("exif itself.jpg", _with_segment(jpeg, 0xE1, exif + _tiff([(0x8769, 4, 1, 8)], b"", 8)), EITHER),
        ("exif count.jpg", _with_segment(jpeg, 0xE1, exif + _tiff([(0x0112, 3, 2**31, 8)])), EITHER),
        ("exif text.jpg", _with_segment(jpeg, 0xE1, exif + _tiff([(0x0112, 2, 4, 0x363636)])), EITHER),
        ("profile.jpg", _encoded(rgb, "JPEG", icc_profile=srgb), ANSWERED),
        ("profile of noise.jpg", _encoded(rgb, "JPEG", icc_profile=random.Random(2).randbytes(500)), ANSWERED),
        ("profile of noise.png", _encoded(rgb, "PNG", icc_profile=random.Random(2).randbytes(500)), ANSWERED),
        ("profile bomb.png", _grey_png(40, _chunk(b"iCCP", b"x\0\0" + _zeros(200_000_000))), EITHER),
        ("text.zTXt.png", _encoded(rgb, "PNG", pnginfo=short_text), ANSWERED),
        ("text bomb.png", _encoded(rgb, "PNG", pnginfo=text), NAMED),
        ("text bombs.png", _grey_png(40, _chunk(b"zTXt", b"x\0\0" + _zeros(2**20 - 1)) * 100), NAMED),
        # Offsets that lead nowhere.
        ("strips nowhere.tif", _grey_tiff(offset=2**31), NAMED),
        ("strips packed nowhere.tif", _grey_tiff(offset=2**31, compression=5), NAMED),
        ("compression 7.tif", _grey_tiff(compression=7), EITHER),
        ("compression 99.tif", _grey_tiff(compression=99), NAMED),
        ("directory nowhere.tif", b"II*\0" + struct.pack("<I", 2**32 - 1), NAMED),
        ("next nowhere.tif", _grey_tiff(following=2**31), EITHER),
        ("entries.tif", _tiff([(256, 3, 2**32 - 1, 2**32 - 1)] * 3000), NAMED),
        ("no tags.tif", _tiff([]), NAMED),
        ("big.tif", b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**63), NAMED),
        ("samples.tif", _tiff([(256, 3, 1, 32), (257, 3, 1, 32), (258, 3, 1, 8), (277, 3, 1, 65_535)]), NAMED),
        ("broken pipe of frames.gif", _encoded(rgb, "GIF")[:-1] + b"," * 500, EITHER),
        ("apng.png", _grey_png(40, _chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))), EITHER),
        ("negative chunk.png", _png_head(40, 40) + b"\xff\xff\xff\xffIDAT" + bytes(40), NAMED),
        ("no palette.png", _png(40, 40, zlib.compress(bytes(41 * 40)), colour=3), EITHER),
        ("depth.png", _png(40, 40, b"", depth=3), NAMED),
        ("no rows.png", _png(40, 40, zlib.compress(b"")), NAMED),
    ]


def _lab(rgb: Image.Image) -> Image.Image:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), rgb.mode, "LAB")
    lab = ImageCms.applyTransform(rgb, to_lab)
    del lab.info["icc_profile"]  # it holds the time of its making
    return lab


def _webp_canvas() -> bytes:
    """An extended WebP whose canvas claims 16,383 x 16,383 pixels around a picture of 40 x 32."""
    inner = _encoded(_noise(3), "WEBP")[12:]
    canvas = bytes(4) + (16_382).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<I", len(canvas)) + canvas + inner
    return b"RIFF" + struct.pack("<I", len(body)) + body


# ---- damage by chance


def _cut(chance: random.Random) -> tuple[str, bytes, Verdict]:
    form = chance.choice(list(FORMATS))
    suffix, content = _picture(form, chance.randrange(1000))
    share = chance.random()
    # OpenJPEG shows what has come so far, in a lower resolution; and behind the pixels nothing is missed.
    verdict = EITHER if form == "JPEG2000" or share > 0.85 else NAMED
    return f"cut{suffix}", content[: int(share * len(content))], verdict


def _flipped(chance: random.Random) -> tuple[str, bytes, Verdict]:
    suffix, whole = _picture(chance.choice(list(FORMATS)), chance.randrange(1000))
    content = bytearray(whole)
    # Most of a file is pixels; what breaks readers is its head.
    reach = chance.choice((64, 400, len(content)))
    for _ in range(chance.choice((1, 3, 20))):
        content[chance.randrange(min(reach, len(content)))] = chance.randrange(256)
    return f"flipped{suffix}", bytes(content), EITHER


def _holed(chance: random.Random) -> tuple[str, bytes, Verdict]:
    suffix, content = _picture(chance.choice(list(FORMATS)), chance.randrange(1000))
    start, end = sorted(chance.sample(range(len(content)), 2))
    filling = chance.choice((b"", bytes(end - start), chance.randbytes(end - start)))
    return f"holed{suffix}", content[:start] + filling + content[end:], EITHER


def _of_noise(chance: random.Random) -> tuple[str, bytes, Verdict]:
    suffix, _ = FORMATS[chance.choice(list(FORMATS))]
    # A first byte of none of the formats: noise must not become a picture by chance.
    return f"noise{suffix}", b"\0" + chance.randbytes(chance.randrange(1, 3000)), NAMED


def _head_of_noise(chance: random.Random) -> tuple[str, bytes, Verdict]:
    suffix, content = _picture(chance.choice(list(FORMATS)), chance.randrange(1000))
    return f"head{suffix}", content[: chance.randrange(8, 60)] + chance.randbytes(500), EITHER


def _misnamed(chance: random.Random) -> tuple[str, bytes, Verdict]:
    _, content = _picture(chance.choice(list(FORMATS)), chance.randrange(1000))
    suffix, _ = FORMATS[chance.choice(list(FORMATS))]
    return f"misnamed{suffix}", content, ANSWERED


def _followed(chance: random.Random) -> tuple[str, bytes, Verdict]:
    form = chance.choice(("JPEG", "PNG", "TIFF", "GIF", "BMP", "PPM"))
    suffix, content = _picture(form, chance.randrange(1000))
    return f"followed{suffix}", content + chance.randbytes(chance.randrange(1, 5000)), ANSWERED


_SPOILERS = (_cut, _cut, _cut, _flipped, _flipped, _flipped, _holed, _of_noise, _head_of_noise, _misnamed, _followed)
