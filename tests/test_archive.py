"""An archive: each specimen is counted as by itself."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import TinyRun
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor, ray_session
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.smear import CellState, count, count_archive
from wbc_hf.smear.archive import ArchiveSummary

EXAMPLES = Path("wbc_hf/web/example_pictures")
FIELDS = sorted(EXAMPLES.glob("field-*.jpg"))[:2]
CELLS = sorted(EXAMPLES.glob("cell-*.jpg"))[:2]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders with a specimen each, the second with a broken picture."""
    root = tmp_path_factory.mktemp("archive")
    for name, files in (("S 1", [FIELDS[0]]), ("ward/S 2", [FIELDS[1], CELLS[0]])):
        (root / name).mkdir(parents=True)
        for file in files:
            shutil.copy(file, root / name)
    (root / "ward" / "S 2" / "junk.png").write_bytes(b"junk")
    return root


@pytest.fixture(scope="module")
def counted(archive: Path, tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    output = tmp_path_factory.mktemp("counted") / "out"
    with ray_session():
        summary = count_archive([str(archive)], str(tiny_run.folder), output)
        assert (summary.specimens, summary.unreadable) == (2, 1)
        assert summary.cells == len(pq.read_table(output / "cells"))
        # Once more: it is finished.
        assert count_archive([str(archive)], str(tiny_run.folder), output) == summary
        yield output


def test_a_specimen_is_counted_as_by_itself(counted: Path, archive: Path, tiny_run: TinyRun):
    rows = pq.read_table(counted / "specimens").to_pylist()
    assert [(row["specimen"], row["source"]) for row in rows] == [
        ("S 1", str(archive / "S 1")), ("S 2", str(archive / "ward" / "S 2"))
    ]  # fmt: skip
    assert rows[1]["unreadable"][0]["file"] == str(archive / "ward" / "S 2" / "junk.png")
    assert "is not a picture" in rows[1]["unreadable"][0]["reason"]
    cells = pq.read_table(counted / "cells").to_pylist()
    predictor = Predictor.from_pretrained(tiny_run.folder)
    for row in rows:
        files = sorted(Path(row["source"]).iterdir())
        snapshot = count(files, predictor, whole_fields=None)
        assert (row["pictures"], row["cells"]) == (len(snapshot.pictures), len(snapshot.cells))
        assert row["waiting"] == len(snapshot.cells_in(CellState.WAITING))
        assert row["counted"] == snapshot.differential.total
        for share in snapshot.differential.shares:
            assert row[share.label] == share.count
            assert row[f"{share.label}_percent"] == share.percent
            assert (row[f"{share.label}_lower"], row[f"{share.label}_upper"]) == share.limits
        own = sorted((cell for cell in cells if cell["number"] == row["number"]), key=lambda cell: cell["cell"])
        assert [(cell["cell"], cell["x0"], cell["y0"], cell["x1"], cell["y1"], cell["state"]) for cell in own] == [
            (cell.number, *cell.box, cell.state.value) for cell in snapshot.cells
        ]
        assert all((cell["class"] in CLASS_NAMES) == (cell["state"] == "counted") for cell in own)


def test_rows_with_the_same_value_of_a_column_are_a_specimen(tmp_path: Path, tiny_run: TinyRun, counted: Path):
    images = [file.read_bytes() for file in (*CELLS, CELLS[0])]
    pq.write_table(pa.table({"image": images, "slide": ["b", "a", "b"]}), tmp_path / "cells.parquet")
    with pytest.raises(WbcError, match=r"cells\.parquet: has the columns image, slide, and none is 'specimen'\. Name"):
        count_archive([str(tmp_path)], str(tiny_run.folder), tmp_path.parent / "none")
    output = tmp_path.parent / "by slide"
    summary = count_archive([str(tmp_path)], str(tiny_run.folder), output, column="slide", whole_fields=False)
    assert summary == ArchiveSummary(specimens=2, cells=3, unreadable=0)
    rows = pq.read_table(output / "specimens").to_pylist()
    assert [(row["specimen"], row["pictures"]) for row in rows] == [("b", 2), ("a", 1)]
    with pytest.raises(WbcError, match=r"pictures read in another way \(cell, now field\)"):
        count_archive([str(tmp_path)], str(tiny_run.folder), output, column="slide", whole_fields=True)
