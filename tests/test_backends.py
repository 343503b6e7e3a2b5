"""Every backend gives the answers of the model itself, also to several threads at once."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import ThreadpoolController
from transformers import PreTrainedModel, ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from wbc_hf import hardware
from wbc_hf.data import paint_cells
from wbc_hf.inference.backends import Backend, OpenVinoBackend, TorchBackend
from wbc_hf.modeling import InferenceGraph, Preprocessing, build_from_scratch, to_onnx, to_openvino
from wbc_hf.modeling.graph import forward_with_features

SIDE = 32
# Share of the largest figure: bf16 keeps eight bits, and its errors add up over fifty layers.
CLOSE = {"fp32": 1e-5, "bf16": 0.03}


@pytest.fixture(scope="module")
def network(seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    model, _ = build_from_scratch(0.0625, image_size=SIDE)
    return model.eval()


@pytest.fixture(scope="module")
def preparation() -> Preprocessing:
    return Preprocessing(build_from_scratch(0.0625, image_size=SIDE)[1])


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """More than one part, and a last one that is not full."""
    return np.stack(list(paint_cells(np.arange(21) % 5, size=SIDE, seed=0)))


@pytest.fixture(scope="module")
def expected(network: PreTrainedModel, preparation: Preprocessing, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Through the model and `forward_with_features`, with pixels by numpy."""
    pixels = (crops.astype(np.float32) - preparation.mean) / preparation.std
    with torch.inference_mode():
        logits, features = forward_with_features(network, torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous())
    return logits.numpy(), features.numpy()


def build(name: str, network: PreTrainedModel, preparation: Preprocessing, folder: Path) -> Backend:
    graph = InferenceGraph(network, preparation)
    if name == "torch":
        return TorchBackend(graph)
    if name == "onnx":
        to_onnx(graph, preparation.shape, folder / "model.onnx")
        return OpenVinoBackend(folder / "model.onnx", exact=True)
    return OpenVinoBackend(to_openvino(graph, preparation.shape), exact=name == "openvino fp32")


@pytest.mark.parametrize("name", ["torch", "openvino fp32", "openvino", "onnx"])
def test_answers_are_the_models(
    name: str,
    network: PreTrainedModel,
    preparation: Preprocessing,
    crops: np.ndarray,
    expected: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
):
    backend = build(name, network, preparation, tmp_path)
    tolerance = CLOSE["bf16" if "bf16" in backend.name else "fp32"]
    for count in (21, 1, 8):
        logits, features = backend.run(crops[:count])
        assert (logits.dtype, features.dtype) == (np.float32, np.float32)
        for found, wanted in zip((logits, features), expected, strict=True):
            np.testing.assert_allclose(found, wanted[:count], atol=tolerance * np.abs(wanted).max())
    # Else all pictures would have one answer, and any of them would do.
    assert np.ptp(expected[0], axis=0).max() > 5 * CLOSE["bf16"] * np.abs(expected[0]).max()


def test_threads_do_not_get_each_others_answers(
    network: PreTrainedModel, preparation: Preprocessing, crops: np.ndarray
):
    backend = OpenVinoBackend(to_openvino(InferenceGraph(network, preparation), preparation.shape), exact=True)
    alone = [backend.run(crops[index : index + 1 + index % 3]) for index in range(len(crops) - 2)]
    with ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(lambda index: backend.run(crops[index : index + 1 + index % 3]), list(range(len(alone))) * 5)
        )
    for index, (logits, features) in enumerate(together):
        np.testing.assert_allclose(logits, alone[index % len(alone)][0], atol=1e-5)
        np.testing.assert_allclose(features, alone[index % len(alone)][1], atol=1e-5)


def test_networks_that_are_no_resnet_give_logits_alone():
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16, image_size=32)
    network = ViTForImageClassification(config).eval()
    preparation = Preprocessing(ViTImageProcessorPil(size={"height": 32, "width": 32}))
    graph = InferenceGraph(network, preparation)
    pictures = np.random.default_rng(0).normal(size=(3, *preparation.shape)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(pictures)).logits.numpy()
    for backend in (TorchBackend(graph), OpenVinoBackend(to_openvino(graph, preparation.shape), exact=True)):
        logits, features = backend.run(pictures)
        assert features is None
        np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_torch_follows_weights_that_change(preparation: Preprocessing, crops: np.ndarray):
    network, _ = build_from_scratch(0.0625, image_size=SIDE)
    backend = TorchBackend(InferenceGraph(network, preparation))
    with torch.no_grad():
        network.classifier[-1].weight.zero_()
        network.classifier[-1].bias.copy_(torch.arange(5.0))
    np.testing.assert_allclose(backend.run(crops[:1])[0], [[0, 1, 2, 3, 4]])


@pytest.mark.parametrize(
    ("environment", "cores"),
    [
        ({}, 8),
        ({"LOCAL_WORLD_SIZE": "2"}, 4),
        ({"LOCAL_WORLD_SIZE": "16"}, 1),
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"OMP_NUM_THREADS": ""}, 8),
        # torchrun sets it to 1 for several processes.
        ({"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}, 4),
        ({"LOCAL_WORLD_SIZE": "1", "OMP_NUM_THREADS": "1"}, 1),
    ],
)
def test_processes_of_one_launch_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], cores: int
):
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    for name in ("LOCAL_WORLD_SIZE", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert hardware.usable_cores() == cores


def test_small_products_wake_no_threads():
    pools = ThreadpoolController()
    with pools.limit(limits=2, user_api="blas"):
        hardware.use_one_blas_thread()
        assert {pool["num_threads"] for pool in pools.info() if pool["user_api"] == "blas"} == {1}


USED_AND_DROPPED = """
import signal, subprocess, sys, threading
import openvino
from openvino import opset13
from wbc_hf.inference.backends import compile_openvino

signal.signal(signal.SIGCHLD, lambda *_: None)
values = opset13.parameter([1, 4], name="values")
compiled = [compile_openvino(openvino.Model([opset13.relu(values)], [values], "model"), half=False)]
dropping = threading.Thread(target=compiled.clear)
dropping.start()
dropping.join()
subprocess.run([sys.executable, "-c", "import time; time.sleep(0.2)"])
print("alive")
"""


def test_a_backend_that_another_thread_drops_leaves_the_process_alive():
    """OpenVINO frees a stack for signals that is still in use (on processors with AMX)."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", USED_AND_DROPPED], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "alive\n")
