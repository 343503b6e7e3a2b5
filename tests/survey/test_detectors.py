"""Detectors side by side, on a folder of painted fields."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wbc_hf.data import paint_field
from wbc_hf.errors import WbcError
from wbc_hf.smear.finder import find_cells
from wbc_hf.survey.detectors import PageFinder, score_detectors

PHOTOGRAPHS, CELLS = 6, 8
ENLARGED = 1216, 912


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("painted") / "fields"
    for part in ("images", "annotations"):
        (folder / part).mkdir(parents=True)
    for seed in range(PHOTOGRAPHS):
        field = paint_field(np.random.default_rng(seed).integers(0, 5, CELLS), seed=seed)
        Image.fromarray(field.image).resize(ENLARGED).save(folder / "images" / f"{seed:02d}.jpg", quality=95)
        corners = (field.boxes * ENLARGED[0] / field.image.shape[1]).round().astype(int).tolist()
        objects = "".join(
            f"<object><name>WBC</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax>"
            f"<ymax>{y1}</ymax></bndbox></object>"
            for x0, y0, x1, y1 in corners
        )
        (folder / "annotations" / f"{seed:02d}.xml").write_text(f"<annotation>{objects}</annotation>")
    return folder


def test_all_detectors_are_scored_on_the_same_photographs(painted: Path):
    rows = score_detectors(painted)
    assert [row.name for row in rows] == ["wang-2006", "page-finder"]
    for row in rows:
        assert (row.photographs, row.cells) == (PHOTOGRAPHS // 2, PHOTOGRAPHS // 2 * CELLS)
        assert list(row.boxes) == ["03", "04", "05"]
        assert row.found >= 0.7
        assert row.found_interval[0] <= row.found <= row.found_interval[1]
        assert row.false_interval[0] <= row.false <= row.false_interval[1]
        assert row.milliseconds > 0
        assert sum(map(len, row.boxes.values())) == round(row.found * row.cells + row.false * row.photographs)


def test_the_finder_of_the_page_finds_what_it_finds_there(painted: Path):
    with Image.open(painted / "images" / "03.jpg") as image:
        boxes = PageFinder().find_cells(image)
        assert boxes == [cell.box for cell in find_cells(image)]
    assert boxes


def test_a_folder_without_photographs_is_named(tmp_path: Path):
    with pytest.raises(WbcError, match="holds no photographs with boxes") as error:
        score_detectors(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_folder_in_which_no_leucocyte_is_boxed_is_named(painted: Path, tmp_path: Path):
    shutil.copytree(painted, tmp_path / "fields")
    for path in (tmp_path / "fields" / "annotations").glob("*.xml"):
        path.write_text(path.read_text().replace("WBC", "RBC"))
    with pytest.raises(WbcError, match=r"no leucocyte is boxed in its scoring half \(3 photographs\)"):
        score_detectors(tmp_path / "fields")
