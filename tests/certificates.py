"""An authority and the certificates that it signs, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from winnow_rpc.tls import ClientTls


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates into a directory. Another instance is another authority."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._ca = trustme.CA()
        self.file = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def issue(self, *names: str, into: str = "", expired: bool = False) -> Pair:
        """A certificate for these names, valid for servers and clients alike; `into`: the files' name."""
        until = datetime.now(UTC) - timedelta(days=1) if expired else None
        since = datetime.now(UTC) - timedelta(days=2) if expired else None
        leaf = self._ca.issue_cert(*names, common_name=names[0], not_before=since, not_after=until)
        pair = Pair(self._directory / f"{into or names[0]}.pem", self._directory / f"{into or names[0]}.key")
        leaf.private_key_pem.write_to_path(str(pair.key))
        pair.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        return pair

    def server(self, *, clients: bool = False, **more: object) -> dict[str, object]:
        """Settings of a server on loopback; `clients`: that wants certificates of this authority."""
        pair = self.issue("localhost", "127.0.0.1", into="server")
        settings: dict[str, object] = {"tls_certificate": pair.certificate, "tls_key": pair.key, **more}
        return settings | ({"tls_client_ca": self.file} if clients else {})

    def client(self, pair: Pair | None = None) -> ClientTls:
        """What a client trusts, and shows if there is something."""
        return ClientTls(ca=self.file, certificate=pair and pair.certificate, key=pair and pair.key)
