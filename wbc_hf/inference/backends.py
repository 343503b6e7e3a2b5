"""What runs a model's graph: torch, or OpenVINO, which is several times as fast on processors."""

import threading
from pathlib import Path
from typing import Protocol

import numpy as np
import openvino
import torch

from wbc_hf.hardware import has_fast_bf16, usable_cores
from wbc_hf.modeling import FEATURES, LOGITS, AnswerGraph

# More at once is no faster on processors, and takes 6 MiB an image at 224 px.
_PART = 8
_PRECISION_HINTS = {False: "f32", True: "bf16"}


class Backend(Protocol):
    """Runs a graph. Safe to be called from several threads at once.

    Attributes:
        name: For people: what runs the model, and in which precision.
    """

    name: str

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Logits and features of n crops, one at least: float32 (n, classes) and (n, d).

        Features are None where the model is no ResNet.
        """
        ...


class TorchBackend:
    """Torch: fp32 on processors, channels-last and bf16 on GPUs that have it in hardware.

    It runs the model itself: what changes in its weights shows at once. Nothing is compiled: that takes a minute at
    the first picture and again at each other size of batch.

    Args:
        graph: Moved to the GPU where there is one.
        exact: fp32 there too.
    """

    def __init__(self, graph: AnswerGraph, *, exact: bool = False):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._half = not exact and self.device.type == "cuda" and has_fast_bf16("cuda")
        self.graph = graph.eval().to(self.device, memory_format=torch.channels_last)
        self.name = f"torch {'bf16' if self._half else 'fp32'} on {self.device.type}"

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            logits, *features = self.graph(torch.from_numpy(crops).to(self.device))
        return logits.cpu().numpy(), features[0].cpu().numpy() if features else None


class OpenVinoBackend:
    """OpenVINO on the processor.

    One request with all cores, one thread at a time: two at once would share the same cores and take twice the memory.

    Args:
        model: A converted graph, or the file of an exported one, `.xml` or `.onnx`.
        exact: fp32 throughout. Otherwise what is not quantised is done in bf16, where the processor has it in
            hardware.
        quantised: Whether most of the graph is in int8, for the name.
    """

    def __init__(self, model: openvino.Model | Path, *, exact: bool = False, quantised: bool = False):
        half = not exact and has_fast_bf16("cpu")
        settings = {
            "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[half],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": usable_cores(),
            # Two processes of one launch would pin themselves to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        compiled = openvino.Core().compile_model(model, "CPU", settings)
        self.name = f"OpenVINO {'int8 and ' if quantised else ''}{'bf16' if half else 'fp32'}"
        self._request = compiled.create_infer_request()
        self._has_features = len(compiled.outputs) > 1
        self._lock = threading.Lock()

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        logits, features = [], []
        for start in range(0, len(crops), _PART):
            with self._lock:
                answers = self._request.infer({0: crops[start : start + _PART]})
                # The request gives views of its own memory, which the next one overwrites.
                logits.append(answers[LOGITS].copy())
                if self._has_features:
                    features.append(answers[FEATURES].copy())
        return np.concatenate(logits), np.concatenate(features) if self._has_features else None
