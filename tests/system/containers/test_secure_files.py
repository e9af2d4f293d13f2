"""What can be known of the overlays for TLS and keys, and of deploy/make-secrets, without starting a container."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509

from tests.system.containers.engine import ROOT, SECURE_EMBEDDED, SERVICES, merged, why_no_compose
from winnow_embedder.settings import EmbedderSettings
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


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_what_make_secrets_makes_is_of_one_authority_and_is_renewed_without_losing_keys(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"

    def made() -> dict[str, bytes]:
        command = [ROOT / "deploy" / "make-secrets", folder, "search.example", "192.0.2.7"]
        subprocess.run(command, capture_output=True, timeout=120, check=True)
        return {service: (folder / service / "tls.crt").read_bytes() for service in SERVICES}

    first = made()
    keys = folder / "gateway" / "keys.json"
    assert read_keys(keys) == []
    key, _ = make_key("website", scopes=[Scope.READ])
    write_keys(keys, [key])
    again = made()
    assert read_keys(keys) == [key]
    for service in SERVICES:
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
