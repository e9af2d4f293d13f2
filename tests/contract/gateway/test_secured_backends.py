"""The gateway's own calls over mutual TLS, to a model service and to the index; keys and certificates change."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from pydantic import ValidationError
from qdrant_client.grpc import collections_pb2, collections_service_pb2_grpc

from tests.certificates import Authority
from winnow.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from winnow_gateway.__main__ import compose, index_access
from winnow_gateway.embedder_client import GrpcEmbedder
from winnow_gateway.qdrant_connection import IndexAccess
from winnow_gateway.qdrant_index import QdrantIndex
from winnow_gateway.settings import GatewaySettings
from winnow_rpc.faults import InvalidArgument, Unavailable
from winnow_rpc.serving import RunningServer, Service
from winnow_rpc.settings import ServingSettings, read_settings
from winnow_rpc.tls import ClientTls

ROOT = Path(__file__).parents[3]


class Collections(collections_service_pb2_grpc.CollectionsServicer):
    """Answers the list of collections, and notes the keys that it was shown."""

    def __init__(self) -> None:
        self.keys: list[str | None] = []

    async def List(
        self, request: collections_pb2.ListCollectionsRequest, context: Any
    ) -> collections_pb2.ListCollectionsResponse:
        self.keys.append(dict(context.invocation_metadata()).get("api-key"))
        return collections_pb2.ListCollectionsResponse()


class Keyed(Collections):
    """Refuses whoever does not show the key, in a Qdrant server's way."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    async def List(
        self, request: collections_pb2.ListCollectionsRequest, context: Any
    ) -> collections_pb2.ListCollectionsResponse:
        answer = await super().List(request, context)
        if self.keys[-1] != self.key:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "Invalid API key or JWT")
        return answer


class Embedder(embedder_pb2_grpc.EmbedderServiceServicer):
    """Knows its model and nothing else."""

    async def GetModel(self, request: embedder_pb2.GetModelRequest, context: Any) -> embedder_pb2.GetModelResponse:
        model = embedder_pb2.Model(id="tiny", similarity=embedder_pb2.SIMILARITY_COSINE)
        return embedder_pb2.GetModelResponse(model=model)


@asynccontextmanager
async def serving(servicer: Any, **settings: Any) -> AsyncIterator[tuple[str, int]]:
    async def nothing() -> None:
        return

    def register(server: grpc.aio.Server) -> None:
        if isinstance(servicer, Collections):
            collections_service_pb2_grpc.add_CollectionsServicer_to_server(servicer, server)
        else:
            embedder_pb2_grpc.add_EmbedderServiceServicer_to_server(servicer, server)

    service = Service(name="fake", register=register, service_names=[], probe=nothing, close=nothing)
    server = RunningServer(service, ServingSettings(drain_seconds=0, **settings))
    await server.start()
    host, _, port = server.address.rpartition(":")
    try:
        yield host, int(port)
    finally:
        await server.stop()


def index_at(place: tuple[str, int], **access: Any) -> QdrantIndex:
    host, port = place
    return QdrantIndex(
        host=host, port=port, timeout_seconds=5, max_message_bytes=1024 * 1024, access=IndexAccess(**access)
    )


async def test_the_gateway_shows_model_services_its_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    gateway, other = authority.issue("gateway"), authority.issue("reranker")
    settings = authority.server(clients=True, tls_client_names=("gateway",))
    async with serving(Embedder(), **settings) as (host, port):

        async def asked(tls: ClientTls | None) -> str:
            client = GrpcEmbedder(
                target=f"{host}:{port}", max_message_bytes=1024 * 1024, model_cache_seconds=0, tls=tls
            )
            try:
                return (await client.model(timeout=5)).id
            finally:
                await client.close()

        assert await asked(authority.client(gateway)) == "tiny"
        with pytest.raises(Unavailable, match="refuses this gateway"):
            await asked(authority.client(other))
        for tls in (None, authority.client()):
            with pytest.raises(Unavailable):
                await asked(tls)


async def test_the_index_is_reached_over_mutual_tls_with_its_key(tmp_path: Path) -> None:
    authority, seen = Authority(tmp_path), Collections()
    async with serving(seen, **authority.server(clients=True)) as place:
        index = index_at(place, tls=authority.client(authority.issue("gateway")), api_key="sesame")
        assert await index.collection_names() == []
        await index.close()
        for tls in (None, authority.client()):
            stranger = index_at(place, tls=tls, api_key="sesame")
            with pytest.raises(Unavailable):
                await stranger.collection_names()
            await stranger.close()
    assert seen.keys == ["sesame"]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """What deploy/make-secrets makes."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl")
    folder = tmp_path / "secrets"
    subprocess.run([ROOT / "deploy" / "make-secrets", folder], capture_output=True, timeout=120, check=True)
    return folder


async def test_a_qdrant_server_is_reached_with_what_make_secrets_makes_and_by_nobody_without_it(
    tmp_path: Path, made: Path
) -> None:
    gateway, qdrant = made / "gateway", made / "qdrant"
    server = Keyed(yaml.safe_load((qdrant / "local.yaml").read_text())["service"]["api_key"])
    # It asks for no certificate, as Qdrant does not over gRPC.
    pair = {"tls_certificate": qdrant / "tls.crt", "tls_key": qdrant / "tls.key"}
    stranger = Authority(tmp_path / "stranger")
    (tmp_path / "wrong").write_text("sesame\n")

    def access(**other: Any) -> IndexAccess:
        composed = {
            "index_tls_ca": gateway / "ca.crt",
            "index_api_key_file": gateway / "qdrant-api-key",
            # Here it is reached by a number, in the composition by its name.
            "index_tls_server_name": "qdrant",
        }
        return index_access(GatewaySettings.model_validate(composed | other))

    async def asked(access: IndexAccess) -> list[str]:
        index = QdrantIndex(
            host=place[0], port=place[1], timeout_seconds=20, max_message_bytes=1024 * 1024, access=access
        )
        try:
            return list(await index.collection_names())
        finally:
            await index.close()

    async with serving(server, **pair) as place:
        assert await asked(access()) == []
        for refused in (access(index_api_key_file=tmp_path / "wrong"), access(index_api_key_file=None)):
            with pytest.raises(Unavailable) as caught:
                await asked(refused)
            assert caught.value.reason == "INDEX_REFUSES_GATEWAY"
            assert not {server.key, "sesame"} & {*str(caught.value).split(), *caught.value.metadata.values()}
        shown = len(server.keys)
        for unreached in (access(index_tls_ca=stranger.file), access(index_tls_server_name="reranker")):
            with pytest.raises(Unavailable) as caught:
                await asked(unreached)
            assert caught.value.reason == "INDEX_UNAVAILABLE"
        # Whoever cannot prove to be the server is shown no key.
        assert len(server.keys) == shown
    assert server.keys == [server.key, "sesame", None]


async def test_a_new_key_and_a_new_certificate_are_used_without_a_restart(tmp_path: Path) -> None:
    authority, seen = Authority(tmp_path), Collections()
    key = tmp_path / "key"
    key.write_text("first\n")
    pair = authority.issue("gateway")
    async with serving(seen, **authority.server(clients=True)) as place:
        index = index_at(place, tls=authority.client(pair), api_key_file=key)
        await index.collection_names()
        key.write_text("second\n")
        fresh = authority.issue("gateway", into="fresh")
        pair.certificate.write_bytes(fresh.certificate.read_bytes())
        pair.key.write_bytes(fresh.key.read_bytes())
        async with asyncio.timeout(10):
            while seen.keys[-1] != "second":
                await asyncio.sleep(0.05)
                await index.collection_names()
        await index.close()
    assert seen.keys[0] == "first"


async def test_a_gateway_is_composed_from_settings_with_all_of_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("gateway")
    files = {"ca": authority.file, "certificate": pair.certificate, "key": pair.key}
    settings = GatewaySettings.model_validate(
        {f"{group}_tls_{name}": value for group in ("backend", "index") for name, value in files.items()}
        | {"index_api_key": "sesame"}
    )
    assert settings.backend_client_tls == settings.index_client_tls == authority.client(pair)
    assert index_access(settings).api_key == "sesame"
    assert "sesame" not in repr(settings) + repr(index_access(settings)) + str(settings.model_dump())
    service = compose(settings)
    await service.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"backend_tls_certificate": "x.pem"},
        {"index_tls_key": "x.key"},
        {"index_api_key": "a", "index_api_key_file": "b"},
        {"tls_certificate": "x.pem"},
        {"tls_client_ca": "x.pem"},
        {"tls_client_names": ["gateway"]},
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GatewaySettings.model_validate(settings)


def test_a_refusal_of_settings_is_one_sentence_without_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X_INDEX_API_KEY", "hush")
    with pytest.raises(InvalidArgument, match="two ways to say one thing") as caught:
        read_settings(GatewaySettings, prefix="X_", program="x", argv=["--index-api-key-file", "k"])
    assert "hush" not in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("argv", [["--index-api-kye", "hush"], ["--index-api-kye=hush"], ["--index-api-key"], ["hush"]])
def test_what_stands_behind_an_unknown_flag_is_not_repeated(argv: list[str]) -> None:
    with pytest.raises(InvalidArgument, match="settings cannot be read") as caught:
        read_settings(GatewaySettings, prefix="X_", program="x", argv=argv)
    assert "hush" not in caught.value.message
    assert caught.value.__cause__ is None


def test_what_is_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an unset variable of a composition arrives."""
    for name in ("TLS_CERTIFICATE", "TLS_KEY", "TLS_CLIENT_CA", "API_KEYS_FILE", "BACKEND_TLS_CA", "INDEX_API_KEY"):
        monkeypatch.setenv(f"X_{name}", "")
    settings = read_settings(GatewaySettings, prefix="X_", program="x", argv=[])
    assert settings.tls is settings.backend_client_tls is settings.api_keys_file is None
    assert index_access(settings).api_key is None
