from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from winnow_client import loop_thread
from winnow_client.loop_thread import LoopThread
from winnow_rpc.faults import Cancelled, FailedPrecondition


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.stop()


class Outcome:
    """What a call in a thread of its own returned or raised."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._found: Any = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self._found = call()
        except BaseException as error:
            self._found = error

    def wait(self) -> Any:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self._found


def test_what_ends_by_itself_is_let_end_when_the_loop_stops(loop: LoopThread) -> None:
    begun, told = threading.Event(), asyncio.Event()

    async def work() -> str:
        begun.set()
        await told.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        return "ended"

    async def tell() -> None:
        told.set()

    outcome = Outcome(lambda: loop.run(work()))
    assert begun.wait(30)
    loop.run(tell())
    loop.stop()
    assert outcome.wait() == "ended"


def test_what_does_not_end_when_the_loop_stops_is_cancelled_and_says_so(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_thread, "_ENDING_SECONDS", 0.01)
    begun = threading.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    outcome = Outcome(lambda: loop.run(work()))
    assert begun.wait(30)
    loop.stop()
    fault = outcome.wait()
    assert isinstance(fault, Cancelled)
    assert fault.reason == "CLIENT_CLOSED"


def test_no_thread_begins_before_it_is_needed(loop: LoopThread) -> None:
    assert not loop.running
    loop.run(asyncio.sleep(0))
    assert loop.running


def test_after_a_stop_nothing_is_run(loop: LoopThread) -> None:
    loop.stop()
    with pytest.raises(FailedPrecondition):
        loop.run(asyncio.sleep(0))
    assert not loop.running


def test_a_thread_that_cannot_begin_is_tried_again(loop: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", full)
        with pytest.raises(RuntimeError, match="can't start"):
            loop.run(asyncio.sleep(0))
    assert not loop.running
    assert Outcome(lambda: loop.run(asyncio.sleep(0, "done"))).wait() == "done"
    assert Outcome(loop.stop).wait() is None


FORKING_WITH_THE_LOCK_HELD = """
import asyncio, os, threading
from winnow_client.loop_thread import LoopThread

begin, starting = threading.Event(), threading.Event()

class Slow(threading.Thread):
    def start(self):
        starting.set()
        begin.wait()
        super().start()

loop, plain = LoopThread(), threading.Thread
threading.Thread = Slow
work = plain(target=lambda: loop.run(asyncio.sleep(0)))
work.start()
starting.wait()
if not (child := os.fork()):
    threading.Thread = plain
    print("child", loop.run(asyncio.sleep(0, "ran")))
    loop.stop()
    print("child stopped", flush=True)
    os._exit(0)
begin.set()
work.join()
assert os.waitpid(child, 0)[1] == 0
loop.stop()
"""


def test_a_thread_that_was_beginning_at_a_fork_keeps_the_child_from_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING_WITH_THE_LOCK_HELD], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == ["child ran", "child stopped"], done.stderr
    assert done.returncode == 0
