"""What this machine has for a process: cores, arithmetic in hardware, and a place for what can be made again."""

import os
from pathlib import Path

import joblib
import torch


def has_fast_bf16(device: str | None = None) -> bool:
    """Whether bf16 is multiplied in hardware. Without that it is emulated, and slower than fp32.

    Args:
        device: "cuda" or "cpu"; by default the one that torch would work on.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def usable_cores() -> int:
    """Cores for this process: those it may run on, shared with the other processes of its launch.

    `torchrun` and `accelerate launch` say in LOCAL_WORLD_SIZE how many there are on this machine. A process by itself
    uses no more than OMP_NUM_THREADS says.
    """
    processes, cores = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), joblib.cpu_count()
    if processes > 1:
        # OMP_NUM_THREADS says nothing here: torchrun sets it to 1, however many cores there are.
        return max(1, cores // processes)
    # OpenMP allows one number for each level of nesting, "4,2"; the first is that of the outermost.
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return max(1, min(cores, int(wanted or cores)))


def cache_folder() -> Path:
    """The folder that the environment variable WBC_HF_CACHE names, else `~/.cache/wbc_hf`."""
    return Path(os.environ.get("WBC_HF_CACHE", "~/.cache/wbc_hf")).expanduser()
