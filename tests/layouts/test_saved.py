"""What `datasets` has saved: `save_to_disk`, Parquet files and folders."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as PillowImage

from tests.tiny_sets import picture
from wbc_hf.data import load_leucocytes
from wbc_hf.data.layouts.choose_layout import folder_rows
from wbc_hf.errors import WbcError

FEATURES = Features({"image": Image(), "label": ClassLabel(names=["eos", "mono"]), "patient": Value("string")})


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def table(count: int, first: int = 0) -> Dataset:
    seeds = range(first, first + count)
    images = [PillowImage.open(io.BytesIO(picture(seed))) for seed in seeds]
    labels, patients = [seed % 2 for seed in seeds], [f"P{seed // 2}" for seed in seeds]
    return Dataset.from_dict({"image": images, "label": labels, "patient": patients}, features=FEATURES)


def rows(root: Path) -> list[tuple]:
    table = folder_rows(root)
    return list(zip(*(table[name] for name in ("class_name", "split", "group")), strict=True))


TWO = [("eos", "train", "P0"), ("mono", "train", "P0")]
SPLIT = [*TWO, ("eos", "test", "P3")]


def test_save_to_disk(tmp_path: Path):
    table(2).save_to_disk(tmp_path / "one")
    DatasetDict(train=table(2), test=table(1, 6)).save_to_disk(tmp_path / "split")
    assert rows(tmp_path / "one") == TWO
    assert rows(tmp_path / "split") == SPLIT


def test_parquet_files(tmp_path: Path):
    (tmp_path / "data").mkdir()
    table(2).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    assert rows(tmp_path / "data" / "train-00000-of-00001.parquet") == TWO
    assert rows(tmp_path) == TWO
    table(1, 6).to_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    assert rows(tmp_path) == SPLIT


def test_parquet_of_other_programs(tmp_path: Path):
    pq.write_table(pa.table({"label": ["eos", "mono"], "jpeg": [picture(0), picture(1)]}), tmp_path / "a.parquet")
    assert rows(tmp_path) == [("eos", "train", None), ("mono", "train", None)]


def test_patients_stay_on_one_side(tmp_path: Path):
    table(12).save_to_disk(tmp_path / "cells")
    cells = load_leucocytes(tmp_path / "cells")
    assert sum(map(len, cells.values())) == 12
    groups = [set(split["group"]) for split in cells.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 6


@pytest.mark.parametrize("name", ["cells.parquet", "cells/state.json", "cells/a.parquet"])
def test_what_is_broken_is_named(name: str, tmp_path: Path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{")
    root = tmp_path / name.split("/")[0]
    with pytest.raises(WbcError) as caught:
        folder_rows(root)
    assert str(caught.value).startswith(f"{root}: cannot be loaded by datasets (")
    assert "\n" not in str(caught.value)
