"""`winnow up` with fakes in the services' place, to be run as a process: foreground.py DATA [--json]."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from winnow_client.cli.processes_stack import StackConfig
from winnow_client.cli.up import Log, run_in_foreground

if __name__ == "__main__":
    machine = "--json" in sys.argv
    config = StackConfig(
        data=Path(sys.argv[1]),
        gateway_port=0,
        index_port=0,
        embedder_port=0,
        reranker_port=0,
        model="embedder",
        reranker_model="reranker",
        drain_seconds=float(os.environ.get("DRAIN_SECONDS", "2")),
        modules=dict.fromkeys(("gateway", "index", "embedder", "reranker"), "fake_service"),
    )
    sys.exit(asyncio.run(run_in_foreground(config, log=Log(sys.stdout, machine=machine), machine=machine)))
