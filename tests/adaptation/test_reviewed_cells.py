"""Reviewed cells: pixels alone, one file a cell, its last label."""

from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from wbc_hf.adaptation import AdaptationCell
from wbc_hf.adaptation.reviewed_cells import (
    add_kept_cells,
    group_digest,
    list_reviewed_cells,
    read_reviewed_cells,
    write_reviewed_cell,
)
from wbc_hf.data import load_leucocytes, paint_cells, read_image
from wbc_hf.errors import UnreadableImageError, WbcError


def painted(count: int) -> list[Image.Image]:
    return [Image.fromarray(cell) for cell in paint_cells([index % 5 for index in range(count)], size=48, seed=8)]


def test_cells_are_read_as_they_were_written(tmp_path: Path):
    for index, image in enumerate(painted(10)):
        write_reviewed_cell(tmp_path, AdaptationCell(image, index % 5, f"Doe, J. picture {index // 5}"))
    cells = read_reviewed_cells(tmp_path)
    assert [cell.label for cell in cells] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert len({cell.group for cell in cells}) == 2
    assert {cell.image.tobytes() for cell in cells} == {image.tobytes() for image in painted(10)}
    assert not [file for file in tmp_path.rglob("*") if "Doe" in file.name]


def test_a_cell_keeps_its_framings(tmp_path: Path):
    framings = ((0.1, 0.2, 0.8, 0.9), (0.0, 0.0, 1.0, 1.0))
    write_reviewed_cell(tmp_path, AdaptationCell(painted(1)[0], 2, "one", framings))
    (cell,) = read_reviewed_cells(tmp_path)
    assert cell.framings == framings
    assert [view.size for view in cell.views] == [(33, 33), (48, 48)]


@pytest.mark.parametrize("text", ["", "[]", "[[0, 0, 1]]", "[[0, 0, 1, 2]]", "[[0, 0, 1, NaN]]"])
def test_a_cell_with_damaged_framings_is_named(tmp_path: Path, text: str):
    info = PngInfo()
    info.add_text("framings", text)
    (tmp_path / "basophil").mkdir()
    painted(1)[0].save(tmp_path / "basophil" / "0123-4.png", pnginfo=info)
    with pytest.raises(UnreadableImageError, match=r"0123-4.png: its framings are damaged"):
        read_reviewed_cells(tmp_path)


def test_the_same_cell_is_one_file_and_its_last_label_and_group_win(tmp_path: Path):
    (image,) = painted(1)
    for label, group in ((0, "one"), (4, "one"), (2, "two"), (2, "two")):
        write_reviewed_cell(tmp_path, AdaptationCell(image, label, group))
    write_reviewed_cell(tmp_path, AdaptationCell(image.rotate(90), 2, "two"))
    assert [cell.label for cell in list_reviewed_cells(tmp_path)] == [2, 2]
    one, other = read_reviewed_cells(tmp_path)
    assert one.group == other.group


def test_nothing_but_pixels_is_kept(tmp_path: Path):
    (image,) = painted(1)
    info = PngInfo()
    info.add_text("Patient", "Jane Doe")
    exif = Image.Exif()
    exif[0x010E] = "Jane Doe"  # the description
    image.save(tmp_path / "named.png", pnginfo=info, icc_profile=b"Jane Doe", exif=exif, dpi=(300, 300))
    assert b"Jane Doe" in (tmp_path / "named.png").read_bytes()
    write_reviewed_cell(tmp_path / "kept", AdaptationCell(read_image(tmp_path / "named.png"), 0, "group"))
    (file,) = (tmp_path / "kept").rglob("*.png")
    assert b"Jane" not in file.read_bytes()
    with Image.open(file) as kept:
        assert kept.info == {} and kept.tobytes() == image.tobytes()


def test_a_cell_without_a_label_is_refused(tmp_path: Path):
    with pytest.raises(WbcError, match="without a label"):
        write_reviewed_cell(tmp_path, AdaptationCell(painted(1)[0], None, "group"))


def test_a_broken_file_is_named_and_a_half_written_one_is_none(tmp_path: Path):
    write_reviewed_cell(tmp_path, AdaptationCell(painted(1)[0], 0, "group"))
    (tmp_path / "basophil" / ".0123.png").write_text("half")
    (tmp_path / "basophil" / ".0123.png.456.tmp").write_text("half")
    assert len(read_reviewed_cells(tmp_path)) == len(list_reviewed_cells(tmp_path)) == 1
    (tmp_path / "basophil" / "0123-4.png").write_text("no picture")
    with pytest.raises(UnreadableImageError, match=r"0123-4.png: is not a picture"):
        read_reviewed_cells(tmp_path)


def test_the_folder_is_an_image_set_like_any_other(tmp_path: Path):
    for index, image in enumerate(painted(30)):
        write_reviewed_cell(tmp_path, AdaptationCell(image, index % 5, f"{index}"))
    assert sum(len(split) for split in load_leucocytes([str(tmp_path)]).values()) == 30


def test_a_cell_that_is_at_hand_and_kept_is_learned_once(tmp_path: Path):
    """In two groups, it would be learned while it is held back, and the figures would be too good."""
    images = painted(6)
    for index, image in enumerate(images[:4]):
        write_reviewed_cell(tmp_path, AdaptationCell(image, 1, f"S 1, picture {index // 2}"))
    kept = read_reviewed_cells(tmp_path)

    # The specimen of before, with another word on one cell and none on the next; the third is no cell after all.
    now = [AdaptationCell(images[0], 4, "S 1, picture 0"), AdaptationCell(images[1], None, "S 1, picture 0")]
    both = add_kept_cells(now, kept)
    assert [cell.label for cell in both] == [4, None, 1, 1]
    assert [cell.group for cell in both] == [group_digest(f"S 1, picture {index}") for index in (0, 0, 1, 1)]

    # The same photograph given once more on another day: one cell was reviewed before, one is new.
    again = [AdaptationCell(images[0], None, "S 9, picture 7"), AdaptationCell(images[5], None, "S 9, picture 7")]
    both = add_kept_cells(again, kept)
    assert [cell.label for cell in both] == [1, None, 1, 1, 1]
    assert {cell.group for cell in both[:2]} == {group_digest("S 1, picture 0")}
    assert len({cell.image.tobytes() for cell in both}) == 5
