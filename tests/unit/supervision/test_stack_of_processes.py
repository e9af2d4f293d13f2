from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.supervision.conftest import Switches
from winnow_client.cli.processes_stack import Stack, StackConfig, StackFailed
from winnow_client.cli.supervision_log import OUTPUT, Entry

pytestmark = pytest.mark.timeout(60)
Make = Callable[..., StackConfig]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(condition: Callable[[], object], *, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - a process has no event to wait for
            await asyncio.sleep(0.02)


async def test_a_stack_is_ready_drains_in_order_and_leaves_nothing_behind(fake_config: Make) -> None:
    heard: list[Entry] = []
    async with Stack(fake_config(), listener=heard.append) as stack:
        pids = stack.pids
        assert set(pids) == {"gateway", "embedder", "reranker", "index"}
        for address in stack.addresses.values():
            host, port = address.split(":")
            with socket.create_connection((host, int(port)), timeout=5):
                pass
        assert all(os.getpgid(pid) == pid for pid in pids.values()), "Ctrl-C would reach them directly"
    assert not any(map(alive, pids.values()))
    assert stack.pids == {}
    order = [entry.service for entry in heard if entry.event == "draining"]
    stopped = [entry.service for entry in heard if entry.event == "stopped"]
    assert order[0] == stopped[0] == "gateway"
    assert set(order[1:3]) == set(stopped[1:3]) == {"embedder", "reranker"}
    assert order[3] == stopped[3] == "index"
    assert {entry.service for entry in heard if entry.event == OUTPUT} == set(pids)


async def test_a_killed_process_is_told_of_and_restarted_on_its_port(fake_config: Make) -> None:
    heard: list[Entry] = []
    async with Stack(fake_config(), listener=heard.append) as stack:
        before, pid = stack.addresses, stack.pids["embedder"]
        os.kill(pid, signal.SIGKILL)
        await until(lambda: any(entry.event == "back" for entry in heard))
        died = next(entry for entry in heard if entry.event == "died")
        assert died.facts["message"] == "embedder was killed by SIGKILL; restarting it in 0.05 s"
        assert died.facts["exit_status"] == -9
        assert died.facts["last_lines"]
        assert stack.addresses == before
        assert stack.pids["embedder"] != pid


async def test_a_refusal_to_start_is_the_sentence_of_the_failure_and_stops_the_others(
    fake_config: Make, switches: Switches
) -> None:
    switches.on("refuse.reranker", "the model folder is corrupt")
    heard: list[Entry] = []
    stack = Stack(fake_config(), listener=heard.append)
    with pytest.raises(StackFailed, match=r"^reranker cannot start: the model folder is corrupt$"):
        await stack.start()
    assert stack.pids == {}


async def test_a_crash_at_every_first_start_is_given_up_with_the_last_line_of_the_traceback(
    fake_config: Make, switches: Switches
) -> None:
    switches.on("crash.index")
    with pytest.raises(StackFailed, match=r"index ended with exit status 1 at each of 3 .*the fake has crashed$"):
        await Stack(fake_config()).start()


async def test_a_port_in_use_is_named(fake_config: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StackFailed, match=rf"^index cannot start: .*{port}.*in use"):
            await Stack(fake_config(index_port=port)).start()


async def test_a_file_in_place_of_the_data_directory_is_named(fake_config: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StackFailed, match=r"data directory .*file.* cannot be made"):
        await Stack(fake_config(data=tmp_path / "file" / "data")).start()


async def test_a_stack_that_is_not_ready_in_time_says_which_service_is_late(
    fake_config: Make, switches: Switches
) -> None:
    switches.on("unwell.embedder")
    stack = Stack(fake_config(ready_seconds=6.0))
    with pytest.raises(StackFailed, match=r"^not serving after 6 s: embedder$"):
        await stack.start()
    assert stack.pids == {}


async def test_a_service_that_runs_but_is_not_serving_is_told_of_and_so_is_its_recovery(
    fake_config: Make, switches: Switches
) -> None:
    heard: list[Entry] = []
    async with Stack(fake_config(), listener=heard.append) as stack:
        pids = stack.pids
        switches.on("unwell.index")
        await until(lambda: any(e.event == "unhealthy" and e.facts["child"] == "index" for e in heard))
        switches.off("unwell.index")
        await until(lambda: any(e.event == "back" and e.facts["child"] == "index" for e in heard))
        assert stack.pids == pids


async def test_a_service_that_ignores_the_request_to_stop_is_killed(fake_config: Make, switches: Switches) -> None:
    switches.on("deaf.reranker")
    async with Stack(fake_config(drain_seconds=0.0)) as stack:
        pid = stack.pids["reranker"]
        await asyncio.sleep(0.3)
        began = time.monotonic()
    assert not alive(pid)
    assert time.monotonic() - began < 15


async def test_what_a_service_started_ends_with_it(fake_config: Make, switches: Switches) -> None:
    switches.on("grandchild.index")
    async with Stack(fake_config()) as stack:
        grandchild = int((switches.directory / "grandchild.pid").read_text())
        assert alive(grandchild)
        switches.off("grandchild.index")
        os.kill(stack.pids["index"], signal.SIGKILL)
        await until(lambda: not alive(grandchild))


async def test_cancelling_the_start_leaves_nothing_behind(fake_config: Make) -> None:
    stack = Stack(fake_config())
    starting = asyncio.create_task(stack.start())
    await until(lambda: stack.pids)
    pids = stack.pids
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not any(map(alive, pids.values()))


async def test_killing_stops_everything_at_once(fake_config: Make) -> None:
    stack = Stack(fake_config())
    await stack.start()
    pids = stack.pids
    stack.kill()
    began = time.monotonic()
    await stack.stop()
    assert time.monotonic() - began < 2
    assert not any(map(alive, pids.values()))


_PARENT = """
import asyncio, sys
from winnow_client.cli.processes import Process

async def main():
    process = await Process.start("http.server", ["0"], environment={}, on_line=lambda line: print(line, flush=True))
    print(process.pid, flush=True)
    await process.ended()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_process_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)
