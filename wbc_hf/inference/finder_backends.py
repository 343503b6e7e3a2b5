"""Run the finder's network: OpenVINO on processors, torch on a GPU, as the classifier is."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError

from wbc_hf.errors import WbcError
from wbc_hf.hardware import has_fast_bf16, has_gpu
from wbc_hf.inference.backends import BackendName, compile_openvino, has_openvino
from wbc_hf.inference.conversions import converted_finder
from wbc_hf.modeling import FinderConfig

if TYPE_CHECKING:
    import openvino

    from wbc_hf.modeling import FinderNetwork

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
        if not on_torch:
            graph = converted_finder(folder, config)
        else:
            from wbc_hf.modeling import FinderNetwork

            network = FinderNetwork.load(folder)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise WbcError(f"{folder}: holds no finder that can be loaded ({error}).") from error
    return config, _on_torch(network) if on_torch else _on_openvino(graph)


def _on_torch(network: "FinderNetwork") -> RunFinder:
    import torch

    device = torch.device("cuda" if has_gpu() else "cpu")
    # The stubs do not know this argument.
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return [output[0].cpu().numpy() for output in network(torch.from_numpy(pixels)[None].to(device))]

    return run


def _on_openvino(graph: "Path | openvino.Model") -> RunFinder:
    request = compile_openvino(graph, half=has_fast_bf16("cpu")).create_infer_request()
    lock = threading.Lock()

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        with lock:
            outputs = request.infer({0: pixels[None]})
            # Copied, since the next inference overwrites them.
            return [outputs[index][0].copy() for index in range(len(outputs))]

    return run
