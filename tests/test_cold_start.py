"""A prediction by a model that is converted already imports no library that it does without, and answers the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.spatial.distance import cdist
from scipy.special import softmax as softmax_of_scipy

from tests.conftest import TinyRun
from wbc_hf import hardware
from wbc_hf.data import paint_cells
from wbc_hf.default_model import DEFAULT_MODEL_FOLDER
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor
from wbc_hf.modeling import Calibration, Preprocessing, digest_weights, load_preprocessing, load_processor, softmax
from wbc_hf.smear import find_cells

EXAMPLES = Path(__file__).parents[1] / "wbc_hf" / "web" / "example_pictures"
LIBRARIES = ("torch", "transformers", "sklearn", "pandas", "datasets", "pyarrow", "huggingface_hub", "matplotlib")
RUN = f"""
import sys
from wbc_hf.cli import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print(*(name for name in ("scipy", *{LIBRARIES}) if name in sys.modules), file=sys.stderr)
"""


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=EXAMPLES.parents[2])


on_openvino = pytest.mark.skipif(hardware._has_gpu_driver(), reason="where there is a GPU, torch predicts")


@on_openvino
def test_predicting_one_cell_imports_numpy_and_openvino_alone():
    predictor = Predictor.from_pretrained(DEFAULT_MODEL_FOLDER, "openvino")  # converted, and kept
    cell = next(EXAMPLES.glob("cell-*.jpg"))
    done = run("predict", cell, "--format", "json")
    assert done.stderr.strip() == ""
    expected = predictor.predict([cell])[0]
    (row,) = json.loads(done.stdout)
    assert (row["label"], row["probability"], row["status"]) == (
        expected.label,
        expected.probability,
        expected.status,
    )


@on_openvino
def test_counting_one_field_imports_little_more():
    find_cells(np.zeros((64, 64, 3), np.uint8))  # converts the finder
    Predictor.from_pretrained(DEFAULT_MODEL_FOLDER, "openvino")
    done = run("count", next(EXAMPLES.glob("field*.jpg")), "--format", "json", "--laboratories", os.devnull + "/none")
    assert not set(done.stderr.splitlines()[-1].split()) & set(LIBRARIES)
    assert json.loads(done.stdout)["cells"]


def test_the_page_imports_no_library_of_training():
    program = "import sys, wbc_hf.web, wbc_hf.reports; from wbc_hf.inference import Predictor, ReferenceCells; "
    program += (
        "print(*({'torch', 'transformers', 'sklearn', 'datasets', 'matplotlib', 'evaluate'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_what_is_computed_without_a_library_is_what_it_gave(seed: int):
    generator = np.random.default_rng(seed)
    for kind in (np.float32, np.float64):
        logits = (10 * generator.normal(size=(50, 5))).astype(kind)
        found = softmax(logits)
        assert found.dtype == kind
        np.testing.assert_array_equal(found, softmax_of_scipy(logits, axis=1))
    calibration = Calibration.load(DEFAULT_MODEL_FOLDER)
    assert calibration is not None
    score = calibration.out_of_distribution_score
    features = generator.normal(size=(9, len(score.mean))).astype(np.float32) / 40
    expected = cdist((features - score.mean) @ score.components, score.references)
    # A compiler may join a product and a sum, which rounds once instead of twice.
    np.testing.assert_allclose(score.distances(features), expected, rtol=1e-15)


def test_preprocessing_is_that_of_the_saved_processor(tiny_run: TinyRun):
    images = [Image.fromarray(cell).resize((90, 61)) for cell in paint_cells([0, 4], size=64, seed=3)]
    for folder in (tiny_run.folder, DEFAULT_MODEL_FOLDER):
        light, full = load_preprocessing(folder), Preprocessing(load_processor(folder))
        np.testing.assert_array_equal((light.mean, light.std), (full.mean, full.std))
        for image in images:
            np.testing.assert_array_equal(light.crop(image), full.crop(image))
        assert light.processor.to_dict() == full.processor.to_dict()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_have_one_digest_whoever_reads_them(tmp_path: Path, dtype: torch.dtype):
    weights = load_file(DEFAULT_MODEL_FOLDER / "model.safetensors")
    weights = {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights.items()}
    save_file(weights, tmp_path / "model.safetensors")
    assert digest_weights(tmp_path) == digest_weights(weights)


def test_bfloat16_weights_are_checked_whatever_else_is_imported(tmp_path: Path):
    """NumPy knows them once `ml_dtypes` is there, and cannot tell what is no number."""
    pytest.importorskip("ml_dtypes")
    save_file({"weight": torch.tensor([float("nan"), 1.0], dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    with pytest.raises(WbcError, match="no numbers"):
        digest_weights(tmp_path)


@pytest.mark.skipif(not hardware.processor_says("flags"), reason="Linux on x86 says what its processor can do")
def test_bf16_is_where_torch_finds_it():
    capabilities = torch.cpu.get_capabilities()
    fast = any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16"))
    assert hardware.has_fast_bf16("cpu") is fast


def test_torch_is_asked_wherever_it_may_find_a_gpu():
    assert torch.cuda.is_available() <= hardware._has_gpu_driver()
