"""Liveness is whether a process answers, readiness whether it can do its work."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from winnow_rpc.faults import Unavailable
from winnow_rpc.serving import LIVENESS, RunningServer, Service
from winnow_rpc.settings import ServingSettings


async def _asked(address: str, name: str, *, timeout: float = 5) -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=name)
        return int((await health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout)).status)


async def _nothing() -> None:
    pass


def _service(probe: asyncio.Event | None) -> Service:
    async def look() -> None:
        if probe is None:
            raise Unavailable("the index is away")
        await probe.wait()

    return Service(name="example", register=lambda server: None, service_names=[], probe=look, close=_nothing)


async def test_a_service_that_cannot_do_its_work_lives() -> None:
    server = RunningServer(_service(None), ServingSettings(probe_seconds=0.05))
    await server.start()
    assert await _asked(server.address, "") == health_pb2.HealthCheckResponse.NOT_SERVING
    assert await _asked(server.address, LIVENESS) == health_pb2.HealthCheckResponse.SERVING
    await server.stop()


async def test_a_service_lives_while_its_first_probe_is_under_way() -> None:
    probe = asyncio.Event()
    server = RunningServer(_service(probe), ServingSettings(probe_seconds=0.05))
    starting = asyncio.create_task(server.start())
    async with asyncio.timeout(5):
        while not server.address:  # noqa: ASYNC110 - it says so by nothing else
            await asyncio.sleep(0.01)
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                if await _asked(server.address, LIVENESS) == health_pb2.HealthCheckResponse.SERVING:
                    break
    assert not starting.done()
    probe.set()
    await starting
    await server.stop()


async def test_a_name_that_is_none_is_not_found() -> None:
    server = RunningServer(_service(None), ServingSettings(probe_seconds=0.05))
    await server.start()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _asked(server.address, "livenes")
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    await server.stop()
