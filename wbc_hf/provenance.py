"""Where a figure comes from: the commit of the code, and the machine that it ran on."""

import platform
import subprocess
from pathlib import Path

import torch

from wbc_hf.hardware import processor_says, usable_cores

_REPOSITORY = Path(__file__).resolve().parents[1]


def source_commit() -> str | None:
    """The commit that this code was checked out at, with "+" after it where files that git knows were changed.

    None where the code is no checkout, as in an installed wheel, or git is missing.
    """
    if not (_REPOSITORY / ".git").exists():
        return None
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def describe_machine() -> dict[str, str | int | None]:
    """Processor, number of cores for this process, GPU or None, and operating system. Names no computer."""
    return {
        "processor": processor_says("model name") or platform.processor(),
        "cores": usable_cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_REPOSITORY), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
