"""What can be known of the overlays for TLS and keys, and of deploy/make-secrets, without starting a container."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from tests.certificates import Authority
from tests.system.containers.engine import ROOT, SECURE, SECURE_EMBEDDED, SERVICES, merged, why_no_compose
from winnow_embedder.settings import EmbedderSettings
from winnow_gateway.qdrant_connection import read_api_key
from winnow_gateway.settings import GatewaySettings
from winnow_index.settings import IndexSettings
from winnow_reranker.settings import RerankerSettings
from winnow_rpc.api_keys import Scope, make_key, read_keys, write_keys
from winnow_rpc.settings import ServingSettings


@pytest.mark.skipif(why_no_compose() != "", reason=why_no_compose())
@pytest.mark.parametrize(
    ("service", "settings"),
    [
        ("gateway", GatewaySettings),
        ("embedder", EmbedderSettings),
        ("reranker", RerankerSettings),
        ("index", IndexSettings),
    ],
)
def test_the_secure_overlays_give_each_service_settings_that_it_takes_and_its_own_folder_alone(
    service: str, settings: type[ServingSettings]
) -> None:
    found = merged(*SECURE_EMBEDDED, WINNOW_SECRETS="/etc/secrets")["services"][service]
    prefix = f"WINNOW_{service.upper()}_"
    told = {name.removeprefix(prefix).lower(): value for name, value in found["environment"].items() if "TLS" in name}
    names = {"tls_client_names": json.loads(told["tls_client_names"])} if "tls_client_names" in told else {}
    given = settings.model_validate({**told, **names})
    assert {"tls_certificate", "tls_key"} <= set(told)
    (mounted,) = [each for each in found["volumes"] if each["type"] == "bind"]
    assert (mounted["source"], mounted["read_only"]) == (f"/etc/secrets/{service}", True)
    assert not mounted["bind"].get("create_host_path"), "a folder that is not there is a mistake"
    files = {Path(value) for name, value in told.items() if name != "tls_client_names"}
    assert {file.parent for file in files} == {Path(mounted["target"])}
    if service == "gateway":
        behind = {f"{what}_tls_{file}" for what in ("backend", "index") for file in ("ca", "certificate", "key")}
        assert behind <= set(told)
        assert Path(found["environment"]["WINNOW_GATEWAY_API_KEYS_FILE"]).parent == Path(mounted["target"])
    else:
        assert given.tls_client_ca
        assert given.tls_client_names == (("gateway", "index") if service == "index" else ("gateway",))


@pytest.mark.skipif(why_no_compose() != "", reason=why_no_compose())
@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_the_way_to_a_qdrant_server_is_tls_with_a_key_and_every_file_of_it_is_one_that_make_secrets_makes(
    tmp_path: Path,
) -> None:
    secrets = tmp_path / "secrets"
    _make(secrets)
    services = merged(*SECURE, WINNOW_SECRETS=str(secrets))["services"]

    def made(service: str, path: str) -> Path:
        """The file of this machine that a container sees there."""
        for each in services[service]["volumes"]:
            if each["type"] == "bind" and Path(path).is_relative_to(each["target"]):
                assert each["read_only"]
                found = Path(each["source"]) / Path(path).relative_to(each["target"])
                assert found.is_relative_to(secrets / service), "a service sees its own folder alone"
                assert found.is_file(), path
                return found
        raise AssertionError(f"{service} sees no {path}")

    prefix = "WINNOW_GATEWAY_INDEX"
    told = services["gateway"]["environment"]
    given = {name.removeprefix("WINNOW_GATEWAY_").lower(): told[name] for name in told if name.startswith(prefix)}
    settings = GatewaySettings.model_validate(given)
    host, _, port = settings.index.rpartition(":")
    tls = settings.index_client_tls
    assert tls
    key = read_api_key(made("gateway", str(settings.index_api_key_file)))

    qdrant = services["qdrant"]["environment"]
    assert qdrant["QDRANT__SERVICE__ENABLE_TLS"] == "true"
    assert not [name for name in qdrant if "API_KEY" in name], "whoever looks at the container sees its variables"
    local = yaml.safe_load(made("qdrant", "/qdrant/config/local.yaml").read_text())
    assert local == {"service": {"api_key": key}}
    assert len(key) >= 32

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made("qdrant", qdrant["QDRANT__TLS__CERT"]), made("qdrant", qdrant["QDRANT__TLS__KEY"]))
    trusting = ssl.create_default_context(cafile=str(made("gateway", str(tls.ca))))
    with _listening(context) as address, socket.create_connection(address, timeout=30) as plain:
        assert (host, port) == ("qdrant", "6334")
        trusting.wrap_socket(plain, server_hostname=host).close()


@pytest.mark.skipif(why_no_compose() != "", reason=why_no_compose())
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_health_check_of_qdrant_with_tls_passes_only_where_a_server_answers(tmp_path: Path) -> None:
    kind, *command = merged(*SECURE)["services"]["qdrant"]["healthcheck"]["test"]
    assert kind == "CMD"

    def status(port: int) -> int:
        # `$$` is Compose's way to write one `$`.
        here = [part.replace("$$", "$").replace("6334", str(port)) for part in command]
        return subprocess.run(here, stderr=subprocess.DEVNULL, timeout=60, check=False).returncode

    pair = Authority(tmp_path).issue("qdrant")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with _listening(context) as address:
        assert status(address[1]) == 0
    assert status(address[1]) != 0, "nothing listens"
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        assert status(frozen.getsockname()[1]) != 0, "nobody answers"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_what_make_secrets_makes_is_of_one_authority_and_is_renewed_without_losing_keys(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    services = (*SERVICES, "qdrant")

    def made() -> dict[str, bytes]:
        _make(folder, "search.example", "192.0.2.7")
        return {service: (folder / service / "tls.crt").read_bytes() for service in services}

    first = made()
    keys = folder / "gateway" / "keys.json"
    assert read_keys(keys) == []
    key, _ = make_key("website", scopes=[Scope.READ])
    write_keys(keys, [key])
    shown = (folder / "gateway" / "qdrant-api-key").read_bytes()
    again = made()
    assert read_keys(keys) == [key]
    assert (folder / "gateway" / "qdrant-api-key").read_bytes() == shown
    for name in ("gateway/qdrant-api-key", "qdrant/local.yaml"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    for service in services:
        assert first[service] != again[service]
        place = folder / service
        for use in ("sslserver", "sslclient"):
            command = ["openssl", "verify", "-purpose", use, "-CAfile", folder / "ca.crt", place / "tls.crt"]
            subprocess.run(command, capture_output=True, timeout=60, check=True)
        certificate = x509.load_pem_x509_certificate(again[service])
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert service in names.get_values_for_type(x509.DNSName)
        assert (place / "ca.crt").read_bytes() == (folder / "ca.crt").read_bytes()
        assert stat.S_IMODE((place / "tls.key").stat().st_mode) == 0o600
        assert [each.name for each in place.iterdir() if each.name.startswith(".")] == []
        if service == "gateway":
            assert "search.example" in names.get_values_for_type(x509.DNSName)
            assert ip_address("192.0.2.7") in names.get_values_for_type(x509.IPAddress)


def _make(folder: Path, *names: str) -> None:
    command = [ROOT / "deploy" / "make-secrets", folder, *names]
    subprocess.run(command, capture_output=True, timeout=120, check=True)


@contextmanager
def _listening(context: ssl.SSLContext) -> Iterator[tuple[str, int]]:
    """A server that greets whoever comes over TLS, one after the other, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address: tuple[str, int] = listener.getsockname()
        over = threading.Event()

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    if over.is_set():
                        return
                    connection.settimeout(30)
                    with suppress(OSError), context.wrap_socket(connection, server_side=True):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield address
        finally:
            over.set()
            socket.create_connection(address, timeout=30).close()
            thread.join(60)
