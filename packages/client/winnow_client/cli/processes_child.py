"""Runs a service's module as `python -m` would, in a process that ends when its parent does.

    python -P processes_child.py PARENT_PID MODULE [ARGUMENT…]

A parent that is killed cannot stop its children, so each child sees to it by itself. The alternative, a function
between fork and exec, can deadlock in a parent with threads, and gRPC has threads. Only the standard library is used
here: every service starts through this file.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(parent: int) -> None:
    """Has this process killed as soon as the process `parent` is gone."""
    if sys.platform == "linux":
        # SIGKILL, since nobody is left to insist. What was acknowledged is on disk.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent,), name="parent watch", daemon=True).start()
    # It may have died before this took hold; then this process has been handed to another parent.
    if os.getppid() != parent:
        sys.exit(f"the parent process {parent} is gone")


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _, parent_pid, module, *arguments = sys.argv
    end_with_parent(int(parent_pid))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
