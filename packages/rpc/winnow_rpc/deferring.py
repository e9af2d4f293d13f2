"""Work that may wait until what is more urgent has been done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVarTuple

Ts = TypeVarTuple("Ts")


def soon(call: Callable[[*Ts], object], *arguments: *Ts) -> None:
    """Calls once the event loop comes round: an answer is on its way by then, or a backend is at work. At once where no
    loop runs. For counting and tracing, which nobody waits for."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        call(*arguments)
        return
    loop.call_soon(call, *arguments)
