"""A service with the standard health and nothing behind it, that fails on demand.

It is told which service to play by the flags that the stack gives to that one, and what to do by files in the
directory `FAKE_SWITCHES`: `refuse.<name>` holds the sentence to refuse the start with, `crash.<name>` makes it crash at
start, `unwell.<name>` makes its probe fail, `deaf.<name>` makes it ignore SIGTERM, `grandchild.<name>` makes it start a
process of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from winnow_rpc.faults import FailedPrecondition
from winnow_rpc.serving import Service, run, serve
from winnow_rpc.settings import ServingSettings, command_line, read_settings
from winnow_rpc.telemetry import configure_logging


class FakeSettings(ServingSettings):
    """What any of the four services can be told."""

    probe_seconds: float = 0.1
    data_dir: Path | None = None
    model: str = ""
    index: str = ""
    embedder: str = ""
    reranker: str = ""


def _role(settings: FakeSettings) -> str:
    if settings.data_dir:
        return "index"
    return "gateway" if settings.index and settings.embedder and settings.reranker else settings.model


async def _main() -> None:
    settings = read_settings(FakeSettings, prefix="FAKE_SERVICE_", program="fake", argv=command_line())
    role = _role(settings)
    configure_logging(service=role, level=settings.log_level, form=settings.log_format)
    switches = Path(os.environ["FAKE_SWITCHES"])

    def on(switch: str) -> bool:
        return (switches / f"{switch}.{role}").exists()

    if on("refuse"):
        raise FailedPrecondition((switches / f"refuse.{role}").read_text(), reason="REFUSED")
    if on("crash"):
        raise RuntimeError("the fake has crashed")
    if on("grandchild"):
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(60)")
        (switches / "grandchild.pid").write_text(str(child.pid))
    sys.stderr.write("a line that is no event\n")

    async def probe() -> None:
        if on("deaf"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if on("unwell"):
            raise RuntimeError("unwell")

    async def close() -> None:
        pass

    await serve(Service(name=role, register=lambda _: None, service_names=[], probe=probe, close=close), settings)


if __name__ == "__main__":
    run(_main, service="fake")
