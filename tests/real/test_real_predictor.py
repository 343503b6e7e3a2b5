"""The predictor and transformers' pipeline on pictures that microscopes took."""

import os
from pathlib import Path

import pytest
from transformers import pipeline

from tests.conftest import TinyRun
from wbc_hf.data import SUFFIXES
from wbc_hf.inference import Predictor

DATA = Path(os.environ.get("WBC_HF_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
PICTURES_PER_SET = 8

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real images in {DATA}; WBC_HF_DATA names another folder"),
]


@pytest.mark.parametrize("name", ["pbc", "bccd", "tecom", "kaggle_augmented"])
def test_the_pipeline_agrees_on_real_cells(tiny_run: TinyRun, name: str):
    pictures = sorted(path for path in (DATA / name).rglob("*") if path.suffix.lower() in SUFFIXES)
    if not pictures:
        pytest.skip(f"no pictures in {DATA / name}")
    pictures = pictures[:: max(1, len(pictures) // PICTURES_PER_SET)][:PICTURES_PER_SET]
    predictor = Predictor.from_pretrained(tiny_run.folder, backend="torch")
    classify = pipeline("image-classification", model=str(tiny_run.folder), top_k=5, device="cpu")
    for path, answer in zip(pictures, predictor.predict(pictures), strict=True):
        found = dict([(answer.label, answer.probability), *answer.alternatives])
        expected = {one["label"]: one["score"] for one in classify(str(path))}
        assert found == pytest.approx(expected, abs=1e-4), path
