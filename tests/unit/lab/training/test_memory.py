"""What a process freed is there for its next step without the kernel's doing."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_TWICE = """
import ctypes, resource, sys
if sys.argv[1] == "keep":
    from winnow_lab.training.memory import keep_freed_memory
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(100 << 20)
    libc.memset(block, 1, 100 << 20)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is told")
def test_a_block_that_was_freed_is_not_asked_of_the_kernel_again() -> None:
    assert _page_faults("keep") * 4 < _page_faults("usual")


def _page_faults(how: str) -> int:
    """Of filling a large block for the second time."""
    done = subprocess.run([sys.executable, "-c", _TWICE, how], capture_output=True, text=True, check=True, timeout=60)
    return int(done.stdout)
