"""The SDK and the command over TLS and with keys, against a gateway that asks for both and ends old connections."""

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.certificates import Authority
from tests.contract.client.gateway_fake import FakeGateway, Served
from winnow.search.v1 import search_service_pb2_grpc
from winnow_client import AsyncClient, Client, ClientConfig, Document, Retries
from winnow_client.cli.main import main, sentence_of
from winnow_gateway.authorizing import KeyAuthorizer
from winnow_rpc.api_keys import read_keys
from winnow_rpc.faults import Unauthenticated, Unavailable


def winnow(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environment)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def key(keys: Path) -> str:
    result = winnow("keys", "create", "me", "--file", str(keys), "--scope", "read", "--scope", "admin", "--json")
    assert result.exit_code == 0, result.output
    made: str = json.loads(result.stdout)["key"]
    return made


@pytest.fixture
def secured(gateway: FakeGateway, authority: Authority, keys: Path, key: str) -> Iterator[Served]:
    server = Served(
        lambda server: search_service_pb2_grpc.add_SearchServiceServicer_to_server(gateway, server),
        authorizer=KeyAuthorizer(keys),
        settings=authority.server(clients=True),
    )
    server.start()
    yield server
    server.shut()


async def test_the_sdk_shows_a_certificate_and_a_key(secured: Served, authority: Authority, key: str) -> None:
    tls = authority.client(authority.issue("me"))
    config = ClientConfig(target=secured.address, tls=tls, api_key=key)
    assert key not in repr(config)
    async with AsyncClient(config=config) as client:
        await client.create_collection("papers")
        assert [each.name async for each in client.list_collections()] == ["papers"]
    with Client(config=config) as blocking:
        assert blocking.get_collection("papers").name == "papers"
    async with AsyncClient(config=ClientConfig(target=secured.address, tls=tls)) as client:
        with pytest.raises(Unauthenticated, match="wants an API key"):
            await client.get_collection("papers")
    for without in (None, authority.client()):
        async with AsyncClient(config=ClientConfig(target=secured.address, tls=without, api_key=key)) as client:
            with pytest.raises(Unavailable):
                await client.get_collection("papers", timeout=5)


def flags(authority: Authority) -> list[str]:
    pair = authority.issue("me")
    files = {"--tls-ca": authority.file, "--tls-certificate": pair.certificate, "--tls-key": pair.key}
    return [part for flag, path in files.items() for part in (flag, str(path))]


@pytest.mark.parametrize("before", [True, False])
def test_the_command_takes_them_before_and_after_the_command(
    secured: Served, authority: Authority, key: str, tmp_path: Path, before: bool
) -> None:
    file = tmp_path / "me.key"
    file.write_text(key + "\n")
    given = ["--gateway", secured.address, *flags(authority), "--api-key-file", str(file)]
    command = ["collections", "create", "papers"]
    result = winnow(*given, *command) if before else winnow(*command, *given)
    assert result.exit_code == 0, result.output
    status = winnow("status", "--json", *given)
    assert status.exit_code == 0, status.output
    assert json.loads(status.stdout)["services"][0]["status"] == "SERVING"


def test_the_command_takes_them_from_the_environment_and_what_is_written_goes_before(
    secured: Served, authority: Authority, key: str, tmp_path: Path
) -> None:
    pair = authority.issue("me")
    environment = {
        "WINNOW_GATEWAY": secured.address,
        "WINNOW_TLS_CA": str(authority.file),
        "WINNOW_TLS_CERTIFICATE": str(pair.certificate),
        "WINNOW_TLS_KEY": str(pair.key),
    }
    assert winnow("collections", "list", **environment, WINNOW_API_KEY=key).exit_code == 0
    wrong = tmp_path / "wrong.key"
    wrong.write_text("winnow_me_wrong")
    result = winnow("collections", "list", "--api-key-file", str(wrong), **environment, WINNOW_API_KEY=key)
    assert result.exit_code == 1
    assert "the API key is not known" in result.stderr
    assert winnow("collections", "list", "--api-key", key, **environment, WINNOW_API_KEY_FILE=str(wrong)).exit_code == 0


def test_without_a_key_the_command_says_what_to_do(secured: Served, authority: Authority, key: str) -> None:
    result = winnow("collections", "list", "--gateway", secured.address, *flags(authority))
    assert result.exit_code == 1
    assert "--api-key-file" in result.stderr
    assert "WINNOW_API_KEY" in result.stderr


@pytest.mark.parametrize(
    ("served_name", "expired", "trusted", "said"),
    [
        ("127.0.0.1", False, "stranger", "signed by no authority that is trusted here"),
        ("127.0.0.1", True, "ours", "its certificate has expired"),
        ("elsewhere.example", False, "ours", "does not bear the name"),
        (None, False, "ours", "it does not speak TLS"),
    ],
)
def test_the_command_says_what_is_wrong_with_tls(
    gateway: FakeGateway,
    authority: Authority,
    tmp_path: Path,
    served_name: str | None,
    expired: bool,
    trusted: str,
    said: str,
) -> None:
    settings = {}
    if served_name:
        pair = authority.issue(served_name, expired=expired)
        settings = {"tls_certificate": pair.certificate, "tls_key": pair.key}
    server = Served(
        lambda server: search_service_pb2_grpc.add_SearchServiceServicer_to_server(gateway, server), settings=settings
    )
    server.start()
    try:
        trust = {"ours": authority, "stranger": Authority(tmp_path / "stranger")}[trusted]
        result = winnow("--gateway", server.address, "--tls-ca", str(trust.client().ca), "collections", "list")
    finally:
        server.shut()
    assert result.exit_code == 1
    assert said in result.stderr


def test_a_connection_that_is_closed_at_once_may_want_tls() -> None:
    closed = Unavailable("cannot be reached: Socket closed", reason="GATEWAY_UNREACHABLE", metadata={"target": "g:1"})
    said = sentence_of(closed)
    assert said.startswith("the gateway at g:1 closes the connection: if it speaks TLS, say --tls")
    assert said.endswith("or it has just ended.")


def test_files_that_are_no_certificates_are_one_sentence(tmp_path: Path) -> None:
    nothing = tmp_path / "empty.pem"
    nothing.write_text("")
    result = winnow("collections", "list", "--tls-ca", str(nothing))
    assert result.exit_code == 1
    assert "holds no certificates in PEM" in result.stderr
    result = winnow("collections", "list", "--tls-certificate", str(nothing))
    assert result.exit_code == 1
    assert "go together" in result.stderr


def test_keys_are_made_listed_and_revoked(keys: Path) -> None:
    made = winnow(
        "keys", "create", "acme", "--scope", "read", "--collections", "acme-*", "--days", "30", "--file", str(keys)
    )
    token = made.stdout.strip()
    assert token.startswith("winnow_acme_")
    assert "not shown again" in made.stderr
    assert stat.S_IMODE(os.stat(keys).st_mode) == 0o600
    again = winnow("keys", "create", "acme", "--scope", "read", WINNOW_API_KEYS_FILE=str(keys))
    assert again.exit_code == 1
    assert "already" in again.stderr
    listed = winnow("keys", "list", "--file", str(keys))
    assert "acme-*" in listed.stdout
    for text in (listed.output, again.output, keys.read_text()):
        assert token.rpartition("_")[2] not in text
    unsure = winnow("keys", "revoke", "acme", "--file", str(keys))
    assert unsure.exit_code == 2
    assert winnow("keys", "revoke", "acme", "--file", str(keys), "--yes").exit_code == 0
    assert read_keys(keys) == []
    assert winnow("keys", "revoke", "acme", "--file", str(keys), "--yes").exit_code == 1


def test_a_broken_file_of_keys_is_left_alone(keys: Path) -> None:
    keys.write_text("{ broken")
    result = winnow("keys", "create", "x", "--scope", "read", "--file", str(keys))
    assert result.exit_code == 1
    assert "no file of API keys" in result.stderr
    assert keys.read_text() == "{ broken"


async def test_searches_and_a_long_ingest_survive_connections_that_grow_old(gateway: FakeGateway) -> None:
    server = Served(
        lambda server: search_service_pb2_grpc.add_SearchServiceServicer_to_server(gateway, server),
        settings={"max_connection_age_seconds": 1},
    )
    server.start()
    loop = asyncio.get_running_loop()
    until = loop.time() + 3.5

    async def documents() -> AsyncIterator[Document]:
        number = 0
        while loop.time() < until:
            yield Document(id=str(number), text="a text")
            number += 1
            await asyncio.sleep(0.02)

    async def ingested() -> int:
        return len([each async for each in client.ingest("papers", documents())])

    async def searched() -> int:
        count = 0
        while loop.time() < until:
            await client.search("papers", "a text")
            count += 1
        return count

    # What the SDK would repeat by itself is not repeated here: no call may fail in the first place.
    config = ClientConfig(target=server.address, retries=Retries(max_attempts=1))
    async with AsyncClient(config=config) as client:
        await client.create_collection("papers")
        counts = await asyncio.gather(ingested(), *(searched() for _ in range(4)))
    assert min(counts) > 10
    server.shut()
