"""What this machine has to compute with, told without a heavy library."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import sys
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_PROCESSOR = Path("/proc/cpuinfo")


def set_niceness(niceness: int) -> None:
    """Of the calling thread and those that it starts (Linux: -20 goes first, 19 last, each step about a tenth of the
    processor's time). Nothing happens where threads have none of their own."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


def usable_cores(quota_file: Path = _CGROUP_QUOTA) -> int:
    """Cores that this process may use, at least 1: its affinity, and a container's quota if that is less.

    The quota is read where Linux shows it to a container (cgroup v2, `cpu.max`: microseconds allowed and of how many).
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        share, period = quota_file.read_text(encoding="ascii").split()
        quota = math.inf if share == "max" else int(share) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return allowed
    return max(1, min(allowed, math.ceil(quota))) if quota != math.inf else allowed


def nvidia_device_count() -> int:
    """NVIDIA GPUs that the driver shows to this process; 0 without a driver. Takes milliseconds where torch takes
    seconds."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def torch_is_built_for_gpus() -> bool:
    """The installed torch is not a build for CPUs alone, as far as its version says; no import, which takes seconds."""
    try:
        return not version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return False


def processor() -> str:
    """The processor's name and architecture: what was measured on one does not hold on another."""
    try:
        lines = _PROCESSOR.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "flags"))][:2]
    return " ".join([platform.machine(), *(named or [platform.processor()])])
