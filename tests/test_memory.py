import platform
import subprocess
import sys
from collections.abc import Callable

import pytest

from wbc_hf.memory import give_back_freed, keep_memory_level

# How many pages the kernel had to clear for the last of six equal steps.
LAST_STEP = """
import resource, sys, torch
from wbc_hf.memory import keep_freed_memory
if "keep" in sys.argv:
    keep_freed_memory()
def faults():  # so far, after a step
    blocks = [torch.ones(2**24) for _ in range(4)]  # 64 MiB each
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
*_, before, after = [faults() for _ in range(6)]
print(after - before)
"""


@pytest.mark.parametrize("call", [keep_memory_level, give_back_freed])
def test_systems_without_glibc_are_left_alone(call: Callable[[], None], monkeypatch: pytest.MonkeyPatch):
    call()
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    call()


@pytest.mark.long
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_training_step_finds_the_memory_of_the_one_before():
    faults = {
        word: int(subprocess.run([sys.executable, "-c", LAST_STEP, word], capture_output=True, check=True).stdout)
        for word in ("plain", "keep")
    }
    assert faults["plain"] > 10_000
    assert faults["keep"] < faults["plain"] / 20
