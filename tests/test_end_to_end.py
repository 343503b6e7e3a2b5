"""From a data set on a Hub to a model on it that answers, through a Hub on this machine's loopback."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image
from PIL.Image import fromarray
from transformers import pipeline

from tests.conftest import Command
from tests.loopback_hub import TOKEN, LoopbackHub, connect, hub_environment
from wbc_hf.data import paint_cells
from wbc_hf.hub import read_changes
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES

ROOT = Path(__file__).parents[1]
SPLITS = {"train": 8, "validation": 2, "test": 2}

pytestmark = pytest.mark.slow


def parquet_of_cells(per_class: int, seed: int) -> bytes:
    labels = np.repeat(np.arange(len(CLASS_NAMES)), per_class)
    cells = list(paint_cells(labels, size=32, seed=seed))
    features = Features({"image": Image(), "label": ClassLabel(names=[name.upper() for name in CLASS_NAMES])})
    buffer = io.BytesIO()
    Dataset.from_dict({"image": cells, "label": labels}, features=features).to_parquet(buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    files = {
        f"data/{split}-00000-of-00001.parquet": parquet_of_cells(per_class, seed)
        for seed, (split, per_class) in enumerate(SPLITS.items())
    }
    with LoopbackHub() as hub:
        hub.add_repo("me/painted", files, "dataset")
        yield hub


def run_train(words: list[str], hub: LoopbackHub, tmp_path: Path) -> str:
    """Output of `python train.py`, which has to succeed. HF_ENDPOINT is read at import: hence a process of its own."""
    done = subprocess.run(
        [sys.executable, "train.py", *words],
        cwd=ROOT,
        env=hub_environment(hub, tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_a_hub_data_set_to_a_model_that_answers(
    hub: LoopbackHub, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "run"
    publish = {"push_to_hub": True, "hub_model_id": "me/cells", "hub_private_repo": True}
    output = run_train(command(folder, dataset="me/painted", **publish), hub, tmp_path)
    assert f"Published: {hub.endpoint}/me/cells" in output

    names = set(hub.files("me/cells"))
    assert names >= {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", "metrics.json"}
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert hub.is_private("me/cells")
    card = hub.files("me/cells")["README.md"].decode()
    assert "OWNER/NAME" not in card
    assert "me/painted" in card
    assert str(tmp_path) not in card
    [change] = read_changes(card)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d: trained on me/painted, finished at \d\d:\d\d:\d\d UTC\.", change)

    written = [path for path in folder.rglob("*") if path.is_file()]
    assert len(written) > 20
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    assert json.loads((folder / "run.json").read_text())["data"]["splits"]["train"] == dict.fromkeys(CLASS_NAMES, 8)

    connect(hub, monkeypatch, tmp_path / "elsewhere")
    cells = [cell.copy() for cell in paint_cells(np.arange(5), size=40, seed=9)]
    local = Predictor.from_pretrained(folder, backend="torch").predict(cells)
    fetched = Predictor.from_pretrained("me/cells", backend="torch")
    assert fetched.labels == CLASS_NAMES
    assert fetched.predict(cells) == local
    classify = pipeline("image-classification", model="me/cells", top_k=5, device="cpu")
    for cell, answer in zip(cells, local, strict=True):
        expected = dict([(answer.label, answer.probability), *answer.alternatives])
        found = {one["label"]: one["score"] for one in classify(fromarray(cell))}
        assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.long
def test_a_stream_is_trained_on_without_being_stored(hub: LoopbackHub, command: Command, tmp_path: Path):
    folder = tmp_path / "run"
    words = command(folder, dataset="me/painted", streaming=True, max_steps=8, eval_strategy="steps", eval_steps=4)
    output = run_train([*words, "--save_strategy=steps", "--save_steps=4"], hub, tmp_path)
    assert "The model, its report and its card are in" in output
    record = json.loads((folder / "run.json").read_text())
    assert record["steps"] == 8
    assert record["data"]["splits"] == {"test": dict.fromkeys(CLASS_NAMES, 2)}
    assert json.loads((folder / "metrics.json").read_text())["count"] == 10
    assert not list((tmp_path / "hf_home").rglob("*.parquet"))
    assert not list((tmp_path / "hf_home").rglob("*.arrow"))
    assert "read as a stream" in (folder / "README.md").read_text()
