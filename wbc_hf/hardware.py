"""The hardware for this process: cores, bf16 support, and a cache folder."""

import ctypes
import os
import platform
import sys
from functools import cache
from pathlib import Path


def has_gpu() -> bool:
    """Whether PyTorch can compute on a GPU. It is imported only where a driver of one is installed."""
    if "torch" not in sys.modules and not _has_gpu_driver():
        return False
    import torch

    return torch.cuda.is_available()


@cache
def _has_gpu_driver() -> bool:
    """Whether PyTorch may find a GPU: without NVIDIA's library, or AMD's device, it never does on Linux."""
    if sys.platform != "linux":
        return sys.platform != "darwin"
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True


def has_fast_bf16(device: str | None = None) -> bool:
    """Whether the hardware multiplies bf16. Elsewhere it is emulated, and slower than fp32.

    Args:
        device: "cuda" or "cpu"; by default CUDA where it is available.
    """
    if device is None:
        device = "cuda" if has_gpu() else "cpu"
    if device == "cpu" and platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    if device == "cpu" and (flags := processor_says("flags")):
        return not {"amx_bf16", "avx512_bf16"}.isdisjoint(flags.split())
    import torch

    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


@cache
def processor_says(what: str) -> str:
    """What Linux says of the first processor, "model name" or, on x86, "flags"; elsewhere nothing."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            line = next((line for line in file if line.startswith(what)), "")
    except OSError:
        return ""
    return line.partition(":")[2].strip()


def usable_cores() -> int:
    """Number of cores for this process: those it may run on, divided by the processes of its launch.

    `torchrun` and `accelerate launch` set LOCAL_WORLD_SIZE. A single process uses at most OMP_NUM_THREADS.
    """
    import joblib

    processes, cores = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), joblib.cpu_count()
    if processes > 1:
        # OMP_NUM_THREADS means nothing here: torchrun sets it to 1, however many cores there are.
        return max(1, cores // processes)
    # OpenMP allows a number for each level of nesting, "4,2"; the first is the outermost.
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return max(1, min(cores, int(wanted or cores)))


def use_one_blas_thread() -> None:
    """Let the products of numpy, scipy and OpenCV use one thread, in this process from now on.

    Those of classifying and counting are small. The threads of OpenBLAS are no faster at them and wait busily for the
    next, on the cores that finder, classifier and page need: on two cores, fields took 16 s of processor time instead
    of 10, and 109 to 148 cells a second were classified instead of 156 to 189.
    """
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, user_api="blas")


def cache_folder() -> Path:
    """The folder in the environment variable WBC_HF_CACHE, else `~/.cache/wbc_hf`."""
    return Path(os.environ.get("WBC_HF_CACHE", "~/.cache/wbc_hf")).expanduser()
