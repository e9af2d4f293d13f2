"""TLS by settings alone: who is let in, who is not, and certificates that change under way."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from tests.certificates import Authority, Pair
from tests.contract.rpc.example import NAME, Example, call, echo, running
from winnow_rpc.calling import ChannelSettings, Retries, open_channel
from winnow_rpc.faults import InvalidArgument
from winnow_rpc.serving import RunningServer
from winnow_rpc.settings import ServingSettings
from winnow_rpc.tls import ClientTls


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "theirs")


def to(address: str, tls: ClientTls | None) -> grpc.aio.Channel:
    return open_channel(ChannelSettings(target=address, idempotent={}, retries=Retries(max_attempts=1), tls=tls))


async def refused(address: str, tls: ClientTls | None) -> grpc.StatusCode:
    async with to(address, tls) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel)
    return caught.value.code()


async def test_a_client_that_trusts_the_authority_is_served(authority: Authority) -> None:
    async with running(Example(echo), tls=authority.client(), **authority.server()) as (_, channel):
        assert await call(channel, b"hello") == b"hello"


async def test_a_server_of_another_authority_is_not_trusted(authority: Authority, stranger: Authority) -> None:
    async with running(Example(echo), tls=authority.client(), **authority.server()) as (server, channel):
        assert await refused(server.address, stranger.client()) is grpc.StatusCode.UNAVAILABLE
        assert await call(channel, b"still") == b"still"


async def test_a_server_whose_certificate_has_expired_is_not_trusted(authority: Authority) -> None:
    pair = authority.issue("127.0.0.1", expired=True)
    settings = {"tls_certificate": pair.certificate, "tls_key": pair.key}
    async with running(Example(echo), **settings) as (server, _):
        assert await refused(server.address, authority.client()) is grpc.StatusCode.UNAVAILABLE


async def test_a_server_by_another_name_is_trusted_only_if_that_name_is_expected(authority: Authority) -> None:
    pair = authority.issue("search.example")
    settings = {"tls_certificate": pair.certificate, "tls_key": pair.key}
    async with running(Example(echo), **settings) as (server, _):
        assert await refused(server.address, authority.client()) is grpc.StatusCode.UNAVAILABLE
        expecting = ClientTls(ca=authority.file, server_name="search.example")
        async with to(server.address, expecting) as channel:
            assert await call(channel, b"hello") == b"hello"


async def test_a_plain_text_client_gets_nothing_from_a_tls_port(authority: Authority) -> None:
    async with running(Example(echo), tls=authority.client(), **authority.server()) as (server, channel):
        assert await refused(server.address, None) is grpc.StatusCode.UNAVAILABLE
        assert await call(channel, b"still") == b"still"


@pytest.fixture
async def mutual(authority: Authority) -> AsyncIterator[RunningServer]:
    settings = authority.server(clients=True)
    async with running(Example(echo), tls=authority.client(authority.issue("gateway")), **settings) as (
        server,
        channel,
    ):
        yield server
        assert await call(channel, b"still") == b"still"


async def test_mutual_tls_refuses_a_client_without_a_certificate(mutual: RunningServer, authority: Authority) -> None:
    assert await refused(mutual.address, authority.client()) is grpc.StatusCode.UNAVAILABLE


async def test_mutual_tls_refuses_a_certificate_of_another_authority(
    mutual: RunningServer, authority: Authority, stranger: Authority
) -> None:
    theirs = stranger.issue("gateway")
    assert await refused(mutual.address, authority.client(theirs)) is grpc.StatusCode.UNAVAILABLE


async def test_mutual_tls_refuses_an_expired_certificate(mutual: RunningServer, authority: Authority) -> None:
    old = authority.issue("gateway", into="old", expired=True)
    assert await refused(mutual.address, authority.client(old)) is grpc.StatusCode.UNAVAILABLE


async def test_only_clients_of_the_right_name_may_call_and_all_may_ask_for_health(authority: Authority) -> None:
    settings = authority.server(clients=True, tls_client_names=("gateway",))
    gateway, other = authority.issue("gateway"), authority.issue("embedder")
    async with running(Example(echo), tls=authority.client(gateway), **settings) as (server, channel):
        assert await call(channel, b"hello") == b"hello"
        async with to(server.address, authority.client(other)) as theirs:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(theirs)
            with pytest.raises(grpc.aio.AioRpcError) as caught_too:
                async for _ in theirs.unary_stream(f"/{NAME}/Stream")(b"", timeout=5):
                    pass
            answer = await health_pb2_grpc.HealthStub(theirs).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert caught.value.code() is caught_too.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def answers_in_time(address: str, tls: ClientTls) -> bool:
    """Whether a new connection is served within a few seconds; files are looked at once a second."""
    for _ in range(60):
        async with to(address, tls) as channel:
            try:
                return await call(channel, b"hello") == b"hello"
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)
    return False


def replace(pair: Pair, *, by: Pair) -> None:
    pair.certificate.write_bytes(by.certificate.read_bytes())
    pair.key.write_bytes(by.key.read_bytes())


async def test_a_new_certificate_is_shown_without_a_restart(authority: Authority, stranger: Authority) -> None:
    shown = authority.issue("127.0.0.1")
    settings = {"tls_certificate": shown.certificate, "tls_key": shown.key}
    async with running(Example(echo), tls=authority.client(), **settings) as (server, channel):
        assert await call(channel, b"hello") == b"hello"
        replace(shown, by=stranger.issue("127.0.0.1"))
        assert await answers_in_time(server.address, stranger.client())
        assert await refused(server.address, authority.client()) is grpc.StatusCode.UNAVAILABLE


async def test_a_broken_pair_leaves_the_old_one_and_is_logged_once(authority: Authority, stranger: Authority) -> None:
    shown = authority.issue("127.0.0.1")
    settings = {"tls_certificate": shown.certificate, "tls_key": shown.key}
    with capture_logs() as written:
        async with running(Example(echo), tls=authority.client(), **settings) as (server, _):
            # The certificate of one, the key of the other.
            shown.certificate.write_bytes(stranger.issue("127.0.0.1").certificate.read_bytes())
            for _ in range(3):
                await asyncio.sleep(1.05)
                assert await answers_in_time(server.address, authority.client())
    assert len([line for line in written if line["event"].startswith("kept as it was")]) == 1


async def test_a_client_shows_its_new_certificate_and_its_calls_go_on(
    authority: Authority, stranger: Authority
) -> None:
    """The server comes to trust another authority alone; the client gets a certificate of that."""
    held = authority.issue("gateway")
    trusted = authority.file.with_name("trusted.pem")
    trusted.write_bytes(authority.file.read_bytes())
    settings = authority.server(tls_client_ca=trusted, max_connection_age_seconds=1)
    async with running(Example(echo), tls=authority.client(held), **settings) as (_, channel):
        stream = channel.stream_stream(f"/{NAME}/Both")()
        await stream.write(b"before")
        assert await stream.read() == b"before"
        trusted.write_bytes(stranger.file.read_bytes())
        replace(held, by=stranger.issue("gateway"))
        done, deadline = 0, asyncio.get_running_loop().time() + 4
        while asyncio.get_running_loop().time() < deadline:
            # Retried where the connection is refused: either side may see its new files up to a second later.
            try:
                done = done + 1 if await call(channel, b"x") == b"x" else 0
            except grpc.aio.AioRpcError:
                done = 0
            await asyncio.sleep(0.05)
        await stream.write(b"after")
        assert await stream.read() == b"after"
        await stream.done_writing()
    assert done > 10


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tls_certificate": "/nowhere/c.pem", "tls_key": "/nowhere/k.pem"}, "No such file"),
        ({"tls_certificate": "{ours}", "tls_key": "{theirs}"}, "not a certificate and its key"),
        ({"tls_certificate": "{ours}", "tls_key": "{key}", "tls_client_ca": "{key}"}, "no certificates in PEM"),
    ],
)
async def test_files_that_will_not_do_stop_the_start_in_one_sentence(
    authority: Authority, stranger: Authority, settings: dict[str, str], said: str
) -> None:
    ours, theirs = authority.issue("127.0.0.1"), stranger.issue("127.0.0.1")
    files: dict[str, Any] = {
        name: value.format(ours=ours.certificate, key=ours.key, theirs=theirs.key) for name, value in settings.items()
    }
    server = RunningServer(Example(echo).service(), ServingSettings(**files))
    with pytest.raises(InvalidArgument, match=said) as caught:
        await server.start()
    assert "PRIVATE KEY" not in caught.value.message
    await server.stop()
