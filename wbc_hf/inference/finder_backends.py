"""Run the finder's network: OpenVINO on processors, torch on a GPU, as the classifier is."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from wbc_hf.errors import WbcError
from wbc_hf.hardware import has_fast_bf16, has_gpu
from wbc_hf.inference.backends import BackendName, compile_openvino, has_openvino
from wbc_hf.inference.conversions import converted_finder
from wbc_hf.modeling import FinderConfig

# uint8 (3, height, width) → the outputs of `FinderNetwork` for it.
RunFinder = Callable[[np.ndarray], list[np.ndarray]]


def load_finder(folder: Path, backend: BackendName = "auto") -> tuple[FinderConfig, RunFinder]:
    """Load a finder's folder.

    Args:
        folder: As `FinderNetwork.save` writes it.
        backend: "auto" is torch on a GPU or where OpenVINO is not installed, else OpenVINO.

    Returns:
        Its configuration and a function that runs it; safe to be called from several threads.

    Raises:
        WbcError: The folder holds no finder, or a broken one.
    """
    on_torch = backend == "torch" or (backend == "auto" and (has_gpu() or not has_openvino()))
    try:
        config = FinderConfig.load(folder)
        return config, _on_torch(folder) if on_torch else _on_openvino(folder, config)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise WbcError(f"{folder}: holds no finder that can be loaded ({error}).") from error


def _on_torch(folder: Path) -> RunFinder:
    import torch

    from wbc_hf.modeling import FinderNetwork

    device = torch.device("cuda" if has_gpu() else "cpu")
    network = FinderNetwork.load(folder)
    # The stubs do not know this argument.
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return [output[0].cpu().numpy() for output in network(torch.from_numpy(pixels)[None].to(device))]

    return run


def _on_openvino(folder: Path, config: FinderConfig) -> RunFinder:
    graph = converted_finder(folder, config)
    request = compile_openvino(graph, half=has_fast_bf16("cpu")).create_infer_request()
    lock = threading.Lock()

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        with lock:
            outputs = request.infer({0: pixels[None]})
            # Copied, since the next inference overwrites them.
            return [outputs[index][0].copy() for index in range(len(outputs))]

    return run
