"""Starts a service as the first process of a container: `python start.py winnow_embedder`; what follows is its own.

The kernel gives the first process no default action for a signal. So until a service has its own handler, which it has
once its model is loaded, SIGTERM would be lost, and the engine would wait and kill. Here it ends the process, as it
would anywhere else; nothing has been served by then.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys

if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: os._exit(128 + received))
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
