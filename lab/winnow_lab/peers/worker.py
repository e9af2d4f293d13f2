"""Runs one contestant of a benchmark in a process of its own, and calls it as it is told over standard input.

    python worker.py PARENT_PID MODULE

MODULE has a class `Contestant`. A line of standard input is a call, `{"method": "embed", "arguments": {…}}`; a line of
standard output is its answer, `{"answer": {…}}` or `{"error": "…"}`. Whatever else the libraries print goes to standard
error. Only Python's own library is used here, so that any interpreter can run it; the modules beside this file are
found because this file is run as a script. The process ends with its input, or with its parent.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from typing import IO, Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(parent: int) -> None:
    """Has this process killed as soon as the process `parent` is gone."""
    if sys.platform == "linux":
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


def answer(contestant: Any, line: str) -> str:
    """The line that answers one line of calls."""
    try:
        call = json.loads(line)
        return json.dumps({"answer": getattr(contestant, call["method"])(**call["arguments"])})
    except Exception as error:  # the caller decides what a contestant's failure means
        traceback.print_exc()
        # Of several failures at once the first says more than that there were several.
        while inner := getattr(error, "exceptions", None):
            error = inner[0]
        return json.dumps({"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]})


def serve(make: Any, calls: IO[str], answers: IO[str]) -> None:
    """Answers calls until there are no more."""
    contestant = make()
    try:
        for line in calls:
            answers.write(answer(contestant, line) + "\n")
            answers.flush()
    finally:
        contestant.close()


def main() -> None:
    """Serves over standard input and output."""
    end_with_parent(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Libraries print, too; the answers keep the real standard output for themselves.
    os.dup2(2, 1)
    try:
        make = importlib.import_module(sys.argv[2]).Contestant
    except Exception as error:
        answers.write(json.dumps({"error": f"cannot be loaded: {error}"}) + "\n")
        answers.flush()
        return
    serve(make, sys.stdin, answers)


if __name__ == "__main__":
    main()
