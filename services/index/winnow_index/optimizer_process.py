"""The process that builds graphs: `python -m winnow_index.optimizer_process`.

The engine holds the interpreter's lock while it builds, for as long as it takes; here that harms nobody. Reads one JSON
object from standard input (`directory`, `config`, `graph_revision`), writes one to standard output (`optimized`).
With `probe DIRECTORY` it only opens a shard, to see whether that can be done.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

import qdrant_edge as edge

_PR_SET_PDEATHSIG = 1


def _die_with(parent: int) -> None:
    """Asks the kernel to end this process with its parent (Linux; elsewhere a build may run on, and is discarded)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)  # it ended before the request took effect


def main(arguments: list[str]) -> int:
    """Builds or probes; the exit status."""
    if arguments[:1] == ["probe"]:
        edge.EdgeShard.load(arguments[1]).close()
        return 0
    job = json.loads(sys.stdin.readline())
    _die_with(job["parent"])
    # The service answers first; a graph that is ready a little later harms nobody.
    os.nice(10)
    from winnow_index.wire import configs

    config = configs.to_engine(configs.from_document(job["config"]), graph_revision=job["graph_revision"])
    shard = edge.EdgeShard.load(job["directory"], config)
    optimized = shard.optimize()
    shard.flush()
    shard.close()
    print(json.dumps({"optimized": optimized}), flush=True)  # noqa: T201 - the answer to the parent
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
