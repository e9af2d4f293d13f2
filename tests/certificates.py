"""An authority and the certificates that it signs, as settings of servers and clients."""

from __future__ import annotations

from typing import Any

from winnow_lab import certificates
from winnow_lab.certificates import Pair
from winnow_rpc.tls import ClientTls

__all__ = ["Authority", "Pair"]


class Authority(certificates.Authority):
    """Signs certificates into a directory, and says who trusts and shows what."""

    def server(self, *, clients: bool = False, **more: Any) -> dict[str, Any]:
        """Settings of a server on loopback; `clients`: that wants certificates of this authority."""
        pair = self.issue("localhost", "127.0.0.1", into="server")
        settings = {"tls_certificate": pair.certificate, "tls_key": pair.key, **more}
        return settings | ({"tls_client_ca": self.file} if clients else {})

    def client(self, pair: Pair | None = None) -> ClientTls:
        """What a client trusts, and shows if there is something."""
        return ClientTls(ca=self.file, certificate=pair and pair.certificate, key=pair and pair.key)
