"""Certificates, for those who serve and those who call: PEM files, read anew when they change."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

import grpc

from winnow_rpc.faults import InvalidArgument
from winnow_rpc.reloading import Reloaded


@dataclass(frozen=True, kw_only=True)
class ServerTls:
    """What a server shows, and whom it lets in."""

    certificate: Path
    """PEM file of its certificate, followed by the intermediate ones if there are any."""
    key: Path
    """PEM file of the certificate's private key, not encrypted."""
    client_ca: Path | None = None
    """PEM file of the authorities whose clients may connect; None: clients show no certificate."""


@dataclass(frozen=True, kw_only=True)
class ClientTls:
    """What a client trusts, and what it shows."""

    ca: Path | None = None
    """PEM file of the authorities that a server's certificate is checked against; None: the public ones."""
    certificate: Path | None = None
    """PEM file of the client's certificate, for a server that asks for one; with `key` or not at all."""
    key: Path | None = None
    """PEM file of the certificate's private key, not encrypted."""
    server_name: str | None = None
    """Name that the server's certificate must bear, where it is not the one that the server is reached by."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InvalidArgument("a certificate and its key go together: give both or none", reason="BAD_SETTING")


def server_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Credentials that follow their files: each new connection is shown the certificate as it is then.

    Raises InvalidArgument, reason BAD_SETTING, if the files will not do at the start.
    """
    paths = [path for path in (tls.certificate, tls.key, tls.client_ca) if path]

    def read() -> tuple[bytes, bytes, bytes | None]:
        certificate, key = _read_pair(tls.certificate, tls.key)
        return key, certificate, _read_authorities(tls.client_ca)

    files = Reloaded(paths, read, what=f"the TLS certificate {tls.certificate}")
    shown = files.current()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        latest = files.current()
        if latest is shown:
            return None
        shown = latest
        return _configuration(latest)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(shown),
        changed,  # type: ignore[arg-type]  # None says that nothing has changed, which the stubs do not know
        require_client_authentication=tls.client_ca is not None,
    )


def server_context(tls: ServerTls) -> Reloaded[ssl.SSLContext]:
    """The same for a server that is not gRPC's: what to wrap a connection with that was just made.

    Raises InvalidArgument, reason BAD_SETTING, if the files will not do at the start.
    """

    def read() -> ssl.SSLContext:
        _read_pair(tls.certificate, tls.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        if authorities := _read_authorities(tls.client_ca):
            context.load_verify_locations(cadata=authorities.decode("ascii"))
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    paths = [path for path in (tls.certificate, tls.key, tls.client_ca) if path]
    return Reloaded(paths, read, what=f"the TLS certificate {tls.certificate} of the metrics")


class ClientFiles(NamedTuple):
    """The contents of a client's files, as PEM. Each reading makes another object."""

    ca: bytes | None
    certificate: bytes | None
    key: bytes | None

    @property
    def credentials(self) -> grpc.ChannelCredentials:
        """What gRPC makes of them."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


def client_files(tls: ClientTls) -> Reloaded[ClientFiles]:
    """What a client trusts and shows, another object once the files have changed.

    Raises InvalidArgument, reason BAD_SETTING, if the files will not do at the start.
    """

    def read() -> ClientFiles:
        pair = _read_pair(tls.certificate, tls.key) if tls.certificate and tls.key else (None, None)
        return ClientFiles(_read_authorities(tls.ca), *pair)

    paths = [path for path in (tls.ca, tls.certificate, tls.key) if path]
    return Reloaded(paths, read, what=f"the client's TLS files ({', '.join(map(str, paths)) or 'none'})")


def _configuration(shown: tuple[bytes, bytes, bytes | None]) -> grpc.ServerCertificateConfiguration:
    key, certificate, authorities = shown
    return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=authorities)


def _read_pair(certificate: Path, key: Path) -> tuple[bytes, bytes]:
    # gRPC would find out with the first connection only, and then refuse all of them.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = certificate.read_bytes(), key.read_bytes()
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except ssl.SSLError as error:
        raise ValueError(f"{certificate} and {key} are not a certificate and its key in PEM: {error}") from error
    if pair != (certificate.read_bytes(), key.read_bytes()):
        raise ValueError(f"{certificate} or {key} changed while being read")
    return pair


def _refuse_password() -> NoReturn:
    raise ValueError("the key is encrypted; it must not be")


def _read_authorities(path: Path | None) -> bytes | None:
    if path is None:
        return None
    found = path.read_bytes()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"{path} holds no certificates in PEM: {error}") from error
    return found
