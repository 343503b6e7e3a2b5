"""What a user gives becomes single pictures: pages, members of ZIP files, photographs of phones."""

import base64
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wbc_hf.data import FilePart, NamedSource, find_pages, is_zip, read_image, split_pages, unpack
from wbc_hf.errors import UnreadableImageError

# 48 x 32 pixels, pale purple with a dark patch.
HEIC = (
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
    "ACJpbG9jAAAAAERAAAEAAQAAAAABoQABAAAAAAAAACYAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRt"
    "AAAAAAABAAAA/WlwcnAAAADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMA"
    "AAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5j"
    "bHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAADAAAAABAAAAIAAAAAH////wAAAAAv///+AAAAACAAAAEHBp"
    "eGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAAC5tZGF0AAAAIigBr1j5Et2Lkk4wEhI+m89Cv9ELFFE1qbn2xjU5"
    "m0O5rmA="
)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8))


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A TIFF of three pages and a smaller copy of the first."""
    file = tmp_path / "stack.tif"
    small = picture(0).resize((20, 20))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    picture(0).save(file, save_all=True, append_images=[picture(1), small, picture(2)])
    return file


def zipped(folder: Path, members: dict[str, bytes], **options) -> str:
    with zipfile.ZipFile(folder / "smear.zip", "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return str(folder / "smear.zip")


def test_a_photograph_of_a_phone_is_read():
    image = read_image(base64.b64decode(HEIC))
    assert image.size == (48, 32)
    assert np.abs(np.asarray(image, int)[28, 44] - (200, 120, 160)).max() < 12
    assert np.abs(np.asarray(image, int)[16, 24] - (90, 40, 140)).max() < 12


def test_every_page_of_a_tiff_is_a_picture_and_its_smaller_copy_is_none(pages: Path):
    parts = list(split_pages(pages, "stack.tif"))
    assert [part.name for part in parts] == ["stack.tif", "stack.tif, page 2", "stack.tif, page 4"]
    for seed, part in enumerate(parts):
        assert np.array_equal(read_image(part.source), picture(seed))
    with pytest.raises(UnreadableImageError, match=r"stack\.tif, page 9: "):
        read_image(FilePart(pages, page=8), "stack.tif, page 9")


def test_of_an_animation_the_first_frame_is_read_and_the_rest_is_named(tmp_path: Path):
    picture(0).save(tmp_path / "live.gif", save_all=True, append_images=[picture(1), picture(2)])
    first, left_out = split_pages(tmp_path / "live.gif", "live.gif")
    assert first.name == "live.gif"
    assert str(left_out) == "live.gif: is an animation: its first frame is read, 2 more are not"


def test_a_plain_file_and_a_broken_one_have_one_page(tmp_path: Path):
    (tmp_path / "notes.tif").write_text("no picture")
    picture(0).save(tmp_path / "cell.png")
    for name in ("notes.tif", "cell.png", "nowhere.tif"):
        assert find_pages(tmp_path / name).numbers == (0,)


def test_pictures_in_a_zip_file_are_read_where_they_lie_and_the_rest_is_named(tmp_path: Path, pages: Path):
    members = {"slide 1/a.tif": pages.read_bytes(), "../../b.png": b"", "notes.txt": b"none", "more.zip": b"none"}
    file = zipped(tmp_path, members | {"__MACOSX/._a.png": b"", "slide 1/.hidden.png": b""})
    found = unpack(file, "smear.zip")
    readable = [part for part in found if isinstance(part, NamedSource)]
    assert [part.name for part in readable] == ["../../b.png", "slide 1/a.tif"]
    assert [str(part) for part in found if isinstance(part, UnreadableImageError)] == [
        "smear.zip: more.zip: is a ZIP file within a ZIP file; unpack it first",
        "smear.zip: notes.txt: is no picture by the ending of its name",
    ]
    *_, last = split_pages(readable[1].source, readable[1].name)
    assert last.name == "slide 1/a.tif, page 4"
    assert np.array_equal(read_image(last.source), picture(2))
    with pytest.raises(UnreadableImageError, match="is empty"):
        read_image(readable[0].source, readable[0].name)


def test_a_zip_file_that_unpacks_to_far_more_is_not_unpacked(tmp_path: Path):
    file = zipped(tmp_path, {"bomb.bmp": bytes(5_000_000)}, compression=zipfile.ZIP_DEFLATED)
    assert "smear.zip: bomb.bmp: unpacks to more than 100 times its size" in str(unpack(file, "smear.zip")[0])
    with pytest.raises(UnreadableImageError, match="100 times"):
        read_image(FilePart(file, "bomb.bmp"))


def test_encrypted_and_oddly_packed_members_are_named(tmp_path: Path):
    file = Path(zipped(tmp_path, {"a.png": b"some"}))
    content = bytearray(file.read_bytes())
    content[6] |= 1
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(content)
    assert "is encrypted; unpack the ZIP file with its password first" in str(unpack(file, "smear.zip")[0])
    zipped(tmp_path, {"a.png": b"some"}, compression=zipfile.ZIP_LZMA)
    assert "by a method that is not read" in str(unpack(file, "smear.zip")[0])


def test_broken_empty_and_endless_zip_files_are_named(tmp_path: Path):
    file = tmp_path / "smear.zip"
    file.write_bytes(b"PK\x03\x04 and nothing")
    assert "is a broken ZIP file" in str(unpack(file, "smear.zip")[0])
    zipped(tmp_path, {})
    assert "is a ZIP file without files" in str(unpack(file, "smear.zip")[0])
    zipped(tmp_path, {"a.png": b"some"})
    content = bytearray(file.read_bytes())
    struct.pack_into("<I", content, len(content) - 10, 2**31)
    file.write_bytes(content)
    assert "lists more files than are read" in str(unpack(file, "smear.zip")[0])


def test_a_member_with_a_wrong_checksum_is_named(tmp_path: Path):
    stream = io.BytesIO()
    picture(0).save(stream, "PNG")
    file = Path(zipped(tmp_path, {"a.png": stream.getvalue()}))
    content = bytearray(file.read_bytes())
    content[200] ^= 255
    file.write_bytes(content)
    with pytest.raises(UnreadableImageError, match="is broken in the ZIP file"):
        read_image(FilePart(file, "a.png"))
    assert is_zip(file) and not is_zip(tmp_path / "nowhere")
