"""API keys at the gateway: who may call what, what a refusal tells, and that no log holds a secret."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.contract.gateway.calls import fault
from tests.contract.gateway.conftest import Gateway
from winnow.search.v1 import collections_pb2 as c
from winnow.search.v1 import search_service_pb2, search_service_pb2_grpc
from winnow_gateway.authorizing import ACCESS, KeyAuthorizer
from winnow_rpc import telemetry
from winnow_rpc.api_keys import ApiKey, Scope, make_key, write_keys
from winnow_rpc.calling import ChannelSettings, open_channel
from winnow_rpc.faults import Fault, InvalidArgument, PermissionDenied, Unauthenticated
from winnow_rpc.serving import RunningServer
from winnow_rpc.settings import ServingSettings
from winnow_rpc.status import fault_from_rpc_error

SERVICE = search_service_pb2.DESCRIPTOR.services_by_name["SearchService"]
METHODS = [method.name for method in SERVICE.methods]


class Keys:
    """The file of keys of a test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._there: list[ApiKey] = []
        write_keys(path, [])

    def add(
        self, id_: str, *scopes: Scope, collections: Iterable[str] = ("*",), expires: datetime | None = None
    ) -> str:
        key, token = make_key(id_, scopes=scopes or list(Scope), collections=tuple(collections), expires=expires)
        self._there.append(key)
        write_keys(self.path, self._there)
        return token

    def revoke(self, id_: str) -> None:
        self._there = [key for key in self._there if key.id != id_]
        write_keys(self.path, self._there)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys.json")


@asynccontextmanager
async def guarded(keys: Keys, **settings: Any) -> AsyncIterator[Callable[[str | None], Gateway]]:
    """A gateway that asks for keys; gives what it is as seen by who shows a key."""
    made = Gateway()
    service = made.service(authorizer=KeyAuthorizer(keys.path))
    server = RunningServer(service, ServingSettings(drain_seconds=0, **settings))
    await server.start()
    channels: list[grpc.aio.Channel] = []

    def seen_by(token: str | None) -> Gateway:
        channel = open_channel(ChannelSettings(target=server.address, idempotent={}, api_key=token))
        channels.append(channel)
        seen = Gateway(made.embedder, made.reranker, made.index)
        seen.stub = search_service_pb2_grpc.SearchServiceStub(channel)
        seen.channel = channel
        return seen

    try:
        yield seen_by
    finally:
        for channel in channels:
            await channel.close()
        await server.stop()


async def called(gateway: Gateway, method: str, *, collection: str = "docs") -> Fault | None:
    """How a call of any method ends; None for well. The request holds the collection's name and nothing else."""
    described = SERVICE.methods_by_name[method]
    request = described.input_type._concrete_class()
    if path := ACCESS[method].collection:
        *outer, last = path.split(".")
        setattr(reduce(getattr, outer, request), last, collection)
    callable_ = getattr(gateway.stub, method)
    call = callable_(iter([request]), timeout=5) if described.client_streaming else callable_(request, timeout=5)

    try:
        if described.server_streaming:
            await drained(call)
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return fault_from_rpc_error(error)
    return None


def test_every_method_of_the_contract_says_what_it_needs() -> None:
    assert set(ACCESS) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_is_about_is_a_field_of_its_request(method: str) -> None:
    """And no request has a collection's name that the table leaves out."""
    message = SERVICE.methods_by_name[method].input_type
    path = ACCESS[method].collection
    if path is None:
        assert method == "ListCollections"
        return
    *outer, last = path.split(".")
    for part in outer:
        message = message.fields_by_name[part].message_type
    assert message.fields_by_name[last].type == message.fields_by_name[last].TYPE_STRING


@pytest.mark.parametrize("method", METHODS)
async def test_without_a_key_nothing_is_answered(keys: Keys, method: str) -> None:
    async with guarded(keys) as seen_by:
        came = await called(seen_by(None), method)
        assert isinstance(came, Unauthenticated)
        assert came.reason == "NO_API_KEY"


async def test_a_wrong_key_is_refused_and_so_is_one_that_has_expired(keys: Keys) -> None:
    right = keys.add("right")
    old = keys.add("old", expires=datetime.now(UTC) - timedelta(seconds=1))
    wrong = right[:-6] + "AAAAAA"
    async with guarded(keys) as seen_by:
        for token, reason in ((wrong, "UNKNOWN_API_KEY"), ("nonsense", "UNKNOWN_API_KEY"), (old, "EXPIRED_API_KEY")):
            came = await called(seen_by(token), "ListCollections")
            assert isinstance(came, Unauthenticated)
            assert came.reason == reason
        assert await called(seen_by(right), "ListCollections") is None


@pytest.mark.parametrize(
    "metadata",
    [[("authorization", "Basic {}")], [("authorization", "{}")], [("authorization", "Bearer {}")] * 2,
     [("x-api-key", "{}")], [("authorization", "Bearer ")]],
)  # fmt: skip
async def test_a_key_counts_in_one_form_alone(keys: Keys, metadata: list[tuple[str, str]]) -> None:
    token = keys.add("right")
    async with guarded(keys) as seen_by:
        sent = tuple((name, value.format(token)) for name, value in metadata)
        came = await fault(seen_by(None).stub.ListCollections(c.ListCollectionsRequest(), metadata=sent))
        assert isinstance(came, Unauthenticated)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scope", list(Scope))
async def test_a_key_may_do_what_its_scope_says_and_nothing_else(keys: Keys, method: str, scope: Scope) -> None:
    token = keys.add("k", scope)
    async with guarded(keys) as seen_by:
        came = await called(seen_by(token), method)
        assert isinstance(came, PermissionDenied) is (ACCESS[method].scope is not scope), came


@pytest.mark.parametrize("method", [name for name in METHODS if ACCESS[name].collection])
async def test_a_key_is_for_its_collections_and_a_refusal_does_not_tell_what_is_there(keys: Keys, method: str) -> None:
    everything, acme = keys.add("all"), keys.add("acme", collections=["acme-*"])
    async with guarded(keys) as seen_by:
        await seen_by(everything).stub.CreateCollection(c.CreateCollectionRequest(name="there"))
        refusals = [await called(seen_by(acme), method, collection=name) for name in ("there", "not-there", "")]
        for came in refusals:
            assert isinstance(came, PermissionDenied)
        assert len({(came.message, came.reason, str(came.metadata)) for came in refusals if came}) == 1
        own = await called(seen_by(acme), method, collection="acme-x")
        assert not isinstance(own, PermissionDenied | Unauthenticated), own


async def test_the_list_shows_only_what_the_key_is_for(keys: Keys) -> None:
    everything, acme = keys.add("all"), keys.add("acme", collections=["acme-*"])
    async with guarded(keys) as seen_by:
        for name in ("acme-1", "acme-2", "between", "other"):
            await seen_by(everything).stub.CreateCollection(c.CreateCollectionRequest(name=name))
        names, token = [], ""
        while True:
            page = await seen_by(acme).stub.ListCollections(c.ListCollectionsRequest(page_size=1, page_token=token))
            names += [each.name for each in page.collections]
            if not (token := page.next_page_token):
                break
        assert names == ["acme-1", "acme-2"]


async def test_keys_are_rotated_without_a_restart(keys: Keys) -> None:
    old = keys.add("old")
    async with guarded(keys) as seen_by:
        assert await called(seen_by(old), "ListCollections") is None
        new = keys.add("new")
        assert await becomes(lambda: called(seen_by(new), "ListCollections"), None)
        assert await called(seen_by(old), "ListCollections") is None
        keys.revoke("old")
        assert await becomes(lambda: called(seen_by(old), "ListCollections"), Unauthenticated)
        assert await called(seen_by(new), "ListCollections") is None


async def becomes(ask: Callable[[], Any], expected: type[Fault] | None) -> bool:
    for _ in range(60):
        found = await ask()
        if (found is None) if expected is None else isinstance(found, expected):
            return True
        await asyncio.sleep(0.05)
    return False


async def test_a_broken_file_leaves_the_keys_as_they_were(keys: Keys) -> None:
    token = keys.add("k")
    async with guarded(keys) as seen_by:
        keys.path.write_text("{ broken")
        for _ in range(3):
            await asyncio.sleep(0.5)
            assert await called(seen_by(token), "ListCollections") is None


async def test_health_is_open_and_reflection_is_off_unless_asked_for(keys: Keys) -> None:
    async with guarded(keys) as seen_by:
        channel = seen_by(None).channel
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert await reflection_of(channel) is grpc.StatusCode.UNIMPLEMENTED
    async with guarded(keys, reflection=True) as seen_by:
        assert await reflection_of(seen_by(None).channel) is grpc.StatusCode.OK


async def reflection_of(channel: grpc.aio.Channel) -> grpc.StatusCode:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5)
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return await call.code()


@contextmanager
def logging_everything() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers, root.level)
    telemetry.configure_logging(service="gateway", level="debug", form="json")
    try:
        yield
    finally:
        root.handlers, root.level = before


async def test_no_refusal_writes_a_secret_and_each_is_logged_once(
    keys: Keys, capfd: pytest.CaptureFixture[str]
) -> None:
    right = keys.add("right", Scope.READ, collections=["acme-*"])
    old = keys.add("old", expires=datetime.now(UTC) - timedelta(seconds=1))
    wrong = right[:-6] + "AAAAAA"
    with logging_everything():
        async with guarded(keys) as seen_by:
            for token in (None, wrong, old, right):
                for method in METHODS:
                    await called(seen_by(token), method)
            keys.path.write_text('{"keys": "' + right)
            await asyncio.sleep(1.1)
            for _ in range(3):
                assert await called(seen_by(right), "ListCollections") is None
    written = "".join(capfd.readouterr())
    for token in (right, old, wrong):
        assert token.split("_", 2)[2] not in written
    for key in keys._there:
        assert key.sha256 not in written
    assert written.count('"UNAUTHENTICATED"') == 3 * len(METHODS)
    assert written.count("kept as it was") == 1


async def test_a_malformed_message_of_who_may_call_is_invalid_and_of_who_may_not_is_not_looked_at(keys: Keys) -> None:
    token = keys.add("k")
    async with guarded(keys) as seen_by:
        for shown, expected in ((token, InvalidArgument), (None, Unauthenticated)):
            channel = seen_by(shown).channel
            for kind in (channel.unary_unary, channel.stream_stream):
                method = "Search" if kind == channel.unary_unary else "IngestDocuments"
                raw = kind(f"/{SERVICE.full_name}/{method}")
                sent = raw(b"\xff\xff\xff", timeout=5) if method == "Search" else raw(iter([b"\xff\xff"]), timeout=5)
                came = await fault(sent if method == "Search" else drained(sent))
                assert isinstance(came, expected), came


async def drained(call: Any) -> None:
    async for _ in call:
        pass


async def test_a_key_that_cannot_be_sent_is_refused_without_naming_it() -> None:
    for token in ("", "two words", "line\nbreak", "hush é"):
        with pytest.raises(InvalidArgument) as caught:
            open_channel(ChannelSettings(target="127.0.0.1:1", idempotent={}, api_key=token))
        assert "hush" not in str(caught.value)
        assert "hush" not in repr(ChannelSettings(target="127.0.0.1:1", idempotent={}, api_key=token))
