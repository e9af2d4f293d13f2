"""A served service: health from real work, faults as statuses, ids that cross hops, a clean end.

The service is made of generic handlers, so that nothing but this package is tested.
"""

import asyncio
import json
import logging
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.contract.rpc.example import NAME, Behaviour, Example, call, echo, running
from winnow_rpc import telemetry
from winnow_rpc.calling import ChannelSettings, Retries, open_channel
from winnow_rpc.faults import InvalidArgument, NotFound, ResourceExhausted, Unavailable
from winnow_rpc.interception import FaultInterceptor
from winnow_rpc.serving import RunningServer, check
from winnow_rpc.settings import ServingSettings
from winnow_rpc.status import fault_from_rpc_error


def raising(error: BaseException) -> Behaviour:
    async def behave(_request: bytes) -> bytes:
        raise error

    return behave


async def health(channel: grpc.aio.Channel) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=NAME), timeout=5)
    return int(answer.status)


async def becomes(expected: int, channel: grpc.aio.Channel) -> bool:
    for _ in range(100):
        if await health(channel) == expected:
            return True
        await asyncio.sleep(0.02)
    return False


async def test_a_call_is_answered_and_bears_an_id() -> None:
    async with running(Example(echo)) as (_, channel):
        pending = channel.unary_unary(f"/{NAME}/Unary")(b"hello", timeout=5)
        assert await pending == b"hello"
        trailing = dict(await pending.trailing_metadata())
        assert len(trailing["x-request-id"]) == 16


async def test_a_fault_reaches_the_caller_with_all_its_details() -> None:
    fault = InvalidArgument("the query is blank", field="query", reason="EMPTY", metadata={"limit": "1"})
    async with running(Example(raising(fault))) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel)
    came = fault_from_rpc_error(caught.value)
    assert isinstance(came, InvalidArgument)
    assert (came.message, came.reason, came.metadata) == (fault.message, fault.reason, fault.metadata)
    assert came.violations == fault.violations


async def test_a_fault_in_the_middle_of_a_stream_reaches_the_caller_after_what_came_before() -> None:
    busy = ResourceExhausted("busy", retry_after=0.5)
    async with running(Example(raising(busy))) as (_, channel):
        stream = channel.unary_stream(f"/{NAME}/Stream")(b"", timeout=5)
        received = []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for message in stream:
                received.append(message)
    assert received == [b"first"]
    assert fault_from_rpc_error(caught.value).retry_after == 0.5


async def test_an_unexpected_error_tells_the_caller_its_id_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async with running(Example(raising(ValueError("secret password")))) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, metadata=(("x-request-id", "trace-me"),))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(caught.value.details())
    assert "trace-me" in str(caught.value.details())


async def test_the_request_id_crosses_every_hop() -> None:
    seen: list[str] = []

    async def note(_request: bytes) -> bytes:
        seen.append(telemetry.request_id())
        return b""

    async with running(Example(note)) as (_, backend):

        async def forward(request: bytes) -> bytes:
            seen.append(telemetry.request_id())
            return await call(backend, request)

        async with running(Example(forward)) as (_, channel):
            await call(channel, metadata=(("x-request-id", "caller-7"),))
    assert seen == ["caller-7", "caller-7"]


async def test_an_id_that_could_forge_a_line_of_log_is_replaced() -> None:
    seen: list[str] = []

    async def note(_request: bytes) -> bytes:
        seen.append(telemetry.request_id())
        return b""

    async with running(Example(note)) as (_, channel):
        await call(channel, metadata=(("x-request-id", 'a" injected="b'),))
    assert "injected" not in seen[0]


async def test_health_follows_the_probe() -> None:
    example = Example(echo)
    async with running(example) as (_, channel):
        assert await health(channel) == health_pb2.HealthCheckResponse.SERVING
        example.healthy = False
        assert await becomes(health_pb2.HealthCheckResponse.NOT_SERVING, channel)
        example.healthy = True
        assert await becomes(health_pb2.HealthCheckResponse.SERVING, channel)


async def test_a_probe_that_hangs_counts_as_failed() -> None:
    class Hanging(Example):
        async def probe(self) -> None:
            await asyncio.sleep(3600)

    async with running(Hanging(echo), probe_timeout_seconds=0.05) as (_, channel):
        assert await health(channel) == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_reflection_lists_the_service() -> None:
    async with running(Example(echo)) as (_, channel):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        async for answer in stub.ServerReflectionInfo(iter([request]), timeout=5):
            assert NAME in {service.name for service in answer.list_services_response.service}
            break


async def test_a_port_in_use_is_one_clear_fault() -> None:
    async with running(Example(echo)) as (server, _):
        port = int(server.address.rpartition(":")[2])
        second = RunningServer(Example(echo).service(), ServingSettings(port=port))
        with pytest.raises(Unavailable, match=f"127.0.0.1:{port}: the port is in use"):
            await second.start()
        await second.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_port_in_use_is_known_before_anything_is_loaded(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        settings = ServingSettings(host="127.0.0.1", port=port)
        with pytest.raises(Unavailable, match=f":{port}: the port is in use"):
            check(settings)
    check(ServingSettings(host=host))


@pytest.mark.parametrize("host", ["203.0.113.9", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_known_before_anything_is_loaded(host: str) -> None:
    with pytest.raises(Unavailable, match="not of this machine"):
        check(ServingSettings(host=host))


def test_certificates_that_will_not_do_are_known_before_anything_is_loaded(tmp_path: Path) -> None:
    settings = ServingSettings(tls_certificate=tmp_path / "c.pem", tls_key=tmp_path / "k.pem")
    with pytest.raises(InvalidArgument, match=r"c\.pem cannot be used"):
        check(settings)


async def test_stopping_lets_calls_in_progress_end_and_then_closes() -> None:
    entered = asyncio.Event()

    async def slow(request: bytes) -> bytes:
        entered.set()
        await asyncio.sleep(0.3)
        return request

    example = Example(slow)
    server = RunningServer(example.service(), ServingSettings(drain_seconds=5))
    await server.start()
    channel = open_channel(ChannelSettings(target=server.address, idempotent={}))
    pending = asyncio.ensure_future(call(channel, b"answered"))
    await entered.wait()
    await server.stop()
    assert await pending == b"answered"
    assert example.closed
    await channel.close()


@pytest.mark.parametrize(("idempotent", "attempts"), [(["Unary"], 3), ([], 1)])
async def test_only_idempotent_methods_are_tried_again(idempotent: list[str], attempts: int) -> None:
    count = 0

    async def fail(_request: bytes) -> bytes:
        nonlocal count
        count += 1
        raise Unavailable("restarting")

    retries = Retries(max_attempts=3, initial_backoff_seconds=0.01)
    async with running(Example(fail)) as (server, _):
        settings = ChannelSettings(target=server.address, idempotent={NAME: idempotent}, retries=retries)
        async with open_channel(settings) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await call(channel)
    assert count == attempts


async def test_a_log_line_is_json_with_service_and_request_id(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = (root.handlers, root.level)
    try:
        telemetry.configure_logging(service="example", level="debug", form="json")
        async with running(Example(raising(NotFound("gone")))) as (_, channel):
            with pytest.raises(grpc.aio.AioRpcError):
                await call(channel, metadata=(("x-request-id", "seen-9"),))
    finally:
        root.handlers, root.level = before
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    ended = next(line for line in lines if line["event"] == "call")
    assert ended["service"] == "example"
    assert ended["request_id"] == "seen-9"
    assert (ended["code"], ended["reason"]) == ("NOT_FOUND", "NOT_FOUND")


async def test_a_call_whose_deadline_passed_on_the_way_does_no_work() -> None:
    done: list[bytes] = []

    async def behaviour(request: bytes) -> bytes:
        done.append(request)
        return request

    class Late:
        """A context as it is when a call has waited too long to be taken up."""

        def __init__(self) -> None:
            self.code: grpc.StatusCode | None = None

        def time_remaining(self) -> float:
            return -0.001

        def set_trailing_metadata(self, _metadata: Any) -> None:
            return

        async def abort(self, code: grpc.StatusCode, _details: str, _trailing: Any) -> None:
            self.code = code
            raise grpc.aio.AbortError

    example = Example(behaviour)
    for method in (example.unary, example.stream):
        handler = await intercepted(method)
        context = Late()
        with pytest.raises(grpc.aio.AbortError):
            if method == example.stream:
                _ = [each async for each in handler(b"x", context)]
            else:
                await handler(b"x", context)
        assert context.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert done == []


async def intercepted(method: Any) -> Any:
    """A method of the service with all that surrounds it."""
    stream = "stream" in method.__name__
    make = grpc.unary_stream_rpc_method_handler if stream else grpc.unary_unary_rpc_method_handler

    async def continuation(_details: Any) -> Any:
        return make(method)

    class Details:
        method = f"/{NAME}/Any"
        invocation_metadata = ()

    handler = await FaultInterceptor().intercept_service(continuation, Details())  # type: ignore[arg-type]
    assert handler is not None
    return handler.unary_stream if stream else handler.unary_unary


async def test_calls_go_round_several_replicas_and_one_that_died_comes_back() -> None:
    answered: list[str] = []

    def replica(name: str) -> Example:
        async def behaviour(_request: bytes) -> bytes:
            answered.append(name)
            return name.encode()

        return Example(behaviour)

    settings = {"probe_seconds": 60, "drain_seconds": 0, "log_level": "error"}
    servers = [RunningServer(replica(name).service(), ServingSettings(**settings)) for name in ("a", "b")]
    for server in servers:
        await server.start()
    target = ",".join(server.address for server in servers)
    channel = open_channel(ChannelSettings(target=target, idempotent={NAME: ["Unary"]}))
    try:
        async with asyncio.timeout(20):
            while set(answered) != {"a", "b"}:
                await call(channel)
            port = int(servers[1].address.rpartition(":")[2])
            await servers[1].stop()
            answered.clear()
            for _ in range(20):
                await call(channel)
            assert set(answered) == {"a"}
            servers[1] = RunningServer(replica("b").service(), ServingSettings(port=port, **settings))
            await servers[1].start()
            began = asyncio.get_running_loop().time()
            while "b" not in answered:
                await call(channel)
                await asyncio.sleep(0.01)
            assert asyncio.get_running_loop().time() - began < 5
    finally:
        await channel.close()
        for server in servers:
            await server.stop()
