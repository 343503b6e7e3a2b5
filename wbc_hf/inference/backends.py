"""Backends that run a model's graph: torch, or OpenVINO, which is several times as fast on processors."""

import importlib.util
import logging
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from wbc_hf.errors import needs_extra
from wbc_hf.hardware import has_fast_bf16, has_gpu, usable_cores
from wbc_hf.modeling import FEATURES, LOGITS

if TYPE_CHECKING:
    import openvino

    from wbc_hf.modeling import InferenceGraph

logger = logging.getLogger(__name__)

BackendName = Literal["auto", "openvino", "torch"]
BACKENDS: tuple[BackendName, ...] = ("auto", "openvino", "torch")

# Images in one request. More is no faster on processors, and takes 6 MiB an image at 224 px.
_REQUEST_SIZE = 8


@cache
def has_openvino() -> bool:
    """Whether OpenVINO is installed; one warning per process if not."""
    if importlib.util.find_spec("openvino") is not None:
        return True
    logger.warning(
        "OpenVINO is not installed, so prediction runs on PyTorch, more slowly. Install it with "
        "`pip install 'wbc-hf[openvino]'`."
    )
    return False


class Backend(Protocol):
    """Run a graph. Safe to be called from several threads at once.

    Attributes:
        name: For people: the library and the precision, such as "OpenVINO bf16".
    """

    name: str

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Logits and features of n crops, one at least: float32 (n, classes) and (n, d).

        Features are None where the model is no ResNet.
        """
        ...


class TorchBackend:
    """Run the model itself in torch: fp32 on processors, channels-last and bf16 on GPUs that have it in hardware.

    Changes of the weights take effect at once. Nothing is compiled: that takes a minute at the first image and again
    at each other batch size.

    Args:
        graph: Moved to the GPU where there is one.
        exact: fp32 on GPUs too.
    """

    def __init__(self, graph: "InferenceGraph", *, exact: bool = False):
        import torch

        self.device = torch.device("cuda" if has_gpu() else "cpu")
        self._half = not exact and self.device.type == "cuda" and has_fast_bf16("cuda")
        # The stubs do not know this argument.
        self.graph = graph.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.name = f"torch {'bf16' if self._half else 'fp32'} on {self.device.type}"

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        import torch

        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            logits, *features = self.graph(torch.from_numpy(crops).to(self.device))
        return logits.cpu().numpy(), features[0].cpu().numpy() if features else None


class OpenVinoBackend:
    """Run a converted or exported graph in OpenVINO on the processor.

    One request uses all cores; a lock keeps a second thread waiting, since two requests would share the same cores
    and take twice the memory.

    Args:
        model: A converted graph, or the file of an exported one, `.xml` or `.onnx`.
        exact: fp32 throughout. Otherwise what is not quantised runs in bf16, where the processor has it in hardware.
        quantised: Whether most of the graph is in int8, for the name.
    """

    def __init__(self, model: "openvino.Model | Path", *, exact: bool = False, quantised: bool = False):
        half = not exact and has_fast_bf16("cpu")
        compiled = compile_openvino(model, half=half)
        self.name = f"OpenVINO {'int8 and ' if quantised else ''}{'bf16' if half else 'fp32'}"
        self._request = compiled.create_infer_request()
        self._has_features = len(compiled.outputs) > 1
        self._lock = threading.Lock()

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        logits, features = [], []
        for start in range(0, len(crops), _REQUEST_SIZE):
            with self._lock:
                outputs = self._request.infer({0: crops[start : start + _REQUEST_SIZE]})
                # Outputs are views of the request's memory, which the next inference overwrites.
                logits.append(outputs[LOGITS].copy())
                if self._has_features:
                    features.append(outputs[FEATURES].copy())
        return np.concatenate(logits), np.concatenate(features) if self._has_features else None


def compile_openvino(model: "openvino.Model | Path", *, half: bool) -> "openvino.CompiledModel":
    """Compile a graph, or the file of one, for all cores of this process, in bf16 where `half`, else in fp32."""
    with needs_extra("openvino"):
        core = _core()
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": usable_cores(),
        # Two processes of one launch would pin themselves to the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    return core.compile_model(model, "CPU", settings)


@cache
def _core() -> "openvino.Core":
    """OpenVINO's own state: one for the process, never destroyed.

    Where the processor has AMX, its CPU plugin gives the thread that creates it another stack for signals, and the
    thread that destroys it frees that. If these are two threads, the next signal ends the process without a word
    (OpenVINO 2026): a child that ends is enough, where somebody handles SIGCHLD as PyTorch's data loader does.
    """
    import openvino

    return openvino.Core()
