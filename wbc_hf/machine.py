"""What this machine has for a process: cores, and arithmetic in hardware."""

import os

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

    `torchrun` and `accelerate launch` say in LOCAL_WORLD_SIZE how many there are on this machine, and set
    OMP_NUM_THREADS, which is the most that is used.
    """
    cores = joblib.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(cores, int(os.environ.get("OMP_NUM_THREADS") or cores)))
