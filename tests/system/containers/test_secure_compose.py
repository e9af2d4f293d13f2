"""docker-compose.yml with the overlays for the embedded index and for TLS and keys, brought up on a real engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.containers.engine import (
    ROOT,
    SECURE_EMBEDDED,
    Project,
    docker,
    why_no_compose,
    why_no_engine,
)
from tests.system.containers.searching import filled_collection, search
from tests.system.running import wait_until
from winnow_client import Client, ClientConfig, ClientTls
from winnow_rpc.api_keys import ApiKey, Scope, make_key, write_keys
from winnow_rpc.faults import Unauthenticated, Unavailable

UP_SECONDS = 300

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(why_no_compose() != "", reason=why_no_compose()),
    pytest.mark.skipif(why_no_engine() != "", reason=why_no_engine()),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl"),
]


@dataclass(frozen=True)
class Secured:
    """A stack with TLS and keys, healthy."""

    project: Project
    secrets: Path
    key: ApiKey
    token: str

    @property
    def address(self) -> str:
        """host:port of the gateway, on loopback."""
        return self.project.run("port", "gateway", "50050").strip()

    def client(self, *, token: str | None, trusting: bool = True) -> Client:
        """A client with this key; `trusting`: over TLS."""
        tls = ClientTls(ca=self.secrets / "ca.crt") if trusting else None
        return Client(config=ClientConfig(target=self.address, tls=tls, api_key=token, timeout_seconds=60))

    def put(self, *keys: ApiKey) -> None:
        """Makes these the keys that the gateway knows."""
        write_keys(self.secrets / "gateway" / "keys.json", keys)
        _readable(self.secrets)


@pytest.fixture(scope="module")
def secured(tag: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    secrets = tmp_path_factory.mktemp("secure") / "secrets"
    subprocess.run([ROOT / "deploy" / "make-secrets", secrets], capture_output=True, timeout=120, check=True)
    key, token = make_key("all", scopes=Scope)
    # fmt: off
    project = Project(
        *SECURE_EMBEDDED, name=f"winnow-secure-{tag}", WINNOW_TAG=tag, WINNOW_PORT="0", WINNOW_SECRETS=str(secrets),
    )
    # fmt: on
    made = Secured(project, secrets, key, token)
    made.put(key)
    try:
        # fmt: off
        project.run(
            "up", "--detach", "--wait", "--wait-timeout", str(UP_SECONDS), "--no-build", timeout=UP_SECONDS + 60,
        )
        # fmt: on
        yield made
    finally:
        project.run("down", "--volumes", "--timeout", "30", timeout=180)


def test_a_search_with_a_key_goes_through_both_stages_and_one_without_is_refused(secured: Secured) -> None:
    with secured.client(token=secured.token) as client, filled_collection(client, 30) as collection:
        found = search(client, collection)
        assert (found.hits[0].document.id, found.reranked_count, found.degradations) == ("sourdough", 20, ())
        for token in (None, make_key("all", scopes=Scope)[1]):
            with secured.client(token=token) as stranger, pytest.raises(Unauthenticated):
                search(stranger, collection)
        with secured.client(token=secured.token, trusting=False) as plain, pytest.raises(Unavailable):
            search(plain, collection)


def test_the_example_of_the_documentation_runs(secured: Secured, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    shutil.copy(secured.secrets / "ca.crt", tmp_path / "ca.pem")
    with secured.client(token=secured.token) as client, filled_collection(client, 30) as collection:
        snippet = shown.replace("search.example:50050", secured.address).replace('"docs"', repr(collection))
        ended = subprocess.run(
            [sys.executable, "-c", snippet],
            cwd=tmp_path,
            env={**os.environ, "WINNOW_API_KEY": secured.token},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    assert "SearchResult(" in ended.stdout


def test_a_key_that_is_added_is_known_without_a_restart_and_one_that_is_revoked_is_not(secured: Secured) -> None:
    key, token = make_key("another", scopes=[Scope.READ])
    with secured.client(token=token) as client:

        def known() -> bool:
            try:
                list(client.list_collections())
            except Unauthenticated:
                return False
            return True

        assert not known()
        secured.put(secured.key, key)
        wait_until(known, seconds=20)
        secured.put(secured.key)
        wait_until(lambda: not known(), seconds=20)


def test_the_services_behind_the_gateway_take_no_caller_without_its_certificate(secured: Secured) -> None:
    # From the reranker's container, whose own certificate is of the same authority and not the gateway's.
    asking = (
        "import grpc, pathlib; at = pathlib.Path('/run/winnow')\n"
        "ca, key, own = [(at / name).read_bytes() for name in ('ca.crt', 'tls.key', 'tls.crt')]\n"
        "for credentials in (grpc.ssl_channel_credentials(ca), grpc.ssl_channel_credentials(ca, key, own)):\n"
        "    channel = grpc.secure_channel('embedder:50051', credentials)\n"
        "    method = channel.unary_unary('/winnow.embedder.v1.EmbedderService/GetModel')\n"
        "    try: method(b'', timeout=20); print('ANSWERED')\n"
        "    except grpc.RpcError as error: print(error.code().name)\n"
    )
    (reranker,) = secured.project.ids("reranker")
    said = docker("exec", reranker, "python", "-c", asking)
    assert [line for line in said.splitlines() if line.isupper()] == ["UNAVAILABLE", "PERMISSION_DENIED"]


def test_a_snapshot_is_taken_over_tls_too(secured: Secured) -> None:
    said = secured.project.run("exec", "--no-TTY", "index", "python", "-m", "winnow_index.take_snapshot", "--keep", "1")
    assert "/snapshots/full-snapshot-" in said


def _readable(secrets: Path) -> None:
    """For the containers' user, where this is not root, who gave him the files."""
    if os.geteuid():
        for place in secrets.rglob("*"):
            place.chmod(0o755 if place.is_dir() else 0o644)
