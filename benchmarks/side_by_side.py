"""What the comparing benchmarks share: a process for each way, and a description of the machine."""

import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")


def in_a_process(script: str, words: Sequence[object]) -> dict:
    """Run a script again with `words`, and read the JSON in the last line that it prints.

    Its standard error is passed through, so that progress and errors are seen.

    Raises:
        CalledProcessError: It ended with an error.
    """
    command = [sys.executable, script, *map(str, words)]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def peak_mib() -> float:
    """Peak resident memory of this process in MiB; Linux counts KiB, macOS bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def describe_machine(*packages: str) -> str:
    """Describe processor, cores, instruction sets, GPU if any, and versions of packages."""
    import torch

    name, flags = platform.processor(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in lines.items()}
        name = fields.get("model name", name)
        flags = ", ".join(flag for flag in _FLAGS if flag in fields.get("flags", "").split())
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    return f"{name}, {os.cpu_count()} cores ({flags}){gpu}; {versions}"
