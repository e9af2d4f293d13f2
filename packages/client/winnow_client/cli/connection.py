"""How commands reach the gateway: the options that all of them share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from winnow_client import addresses

if TYPE_CHECKING:
    from winnow_client.asynchronous import AsyncClient
    from winnow_client.config import ClientConfig
    from winnow_client.synchronous import Client
    from winnow_rpc.tls import ClientTls

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


@dataclass
class Connection:
    """What the shared options say. Given before the command or after it; after it wins."""

    gateway: str = addresses.GATEWAY
    """host:port of the gateway."""
    timeout: float = 30.0
    """Seconds for one call."""
    machine: bool = False
    """Whether standard output is for machines: JSON."""
    use_tls: bool = False
    """Whether to connect over TLS; so it is too where one of the next four is given."""
    tls_ca: Path | None = None
    """PEM file of the authorities to trust."""
    tls_certificate: Path | None = None
    """PEM file of the certificate to show."""
    tls_key: Path | None = None
    """PEM file of its key."""
    tls_server_name: str | None = None
    """Name to expect in the gateway's certificate."""
    api_key: str | None = field(default=None, repr=False)
    """The API key to show."""

    @property
    def tls(self) -> ClientTls | None:
        """What to trust and show; None for plain text."""
        from winnow_rpc.tls import ClientTls

        if not (self.use_tls or self.tls_ca or self.tls_certificate or self.tls_key or self.tls_server_name):
            return None
        return ClientTls(
            ca=self.tls_ca,
            certificate=self.tls_certificate,
            key=self.tls_key,
            server_name=self.tls_server_name,
        )

    @property
    def config(self) -> ClientConfig:
        """The configuration of a client."""
        from winnow_client.config import ClientConfig

        return ClientConfig(
            target=self.gateway, timeout_seconds=self.timeout, tls=self.tls, api_key=self.api_key or None
        )

    def client(self) -> Client:
        """A blocking client."""
        from winnow_client.synchronous import Client

        return Client(config=self.config)

    def async_client(self) -> AsyncClient:
        """A client for asyncio."""
        from winnow_client.asynchronous import AsyncClient

        return AsyncClient(config=self.config)


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

pass_connection = click.make_pass_decorator(Connection, ensure=True)
"""Gives a command its Connection as the first argument."""


def connection_options(*, read_environment: bool = False) -> Callable[[FunctionT], FunctionT]:
    """Adds --gateway, --timeout, --json and what TLS and API keys need to a command.

    The latter are named in the help of `winnow` alone: a command's own is long enough.
    """

    def keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
        def callback(ctx: click.Context, _parameter: click.Parameter, value: Any) -> None:
            connection = ctx.ensure_object(Connection)
            if value is not None:
                setattr(connection, name, value)

        return callback

    def variable(name: str) -> str | None:
        # Read before the command only: else the environment would overrule what is written there.
        return name if read_environment else None

    def secure(flag: str, variable_: str, **more: Any) -> Callable[[FunctionT], FunctionT]:
        more = {"callback": keep(flag.strip("-").replace("-", "_")), **more}
        return click.option(flag, envvar=variable(variable_), expose_value=False, hidden=not read_environment, **more)

    def decorate(function: FunctionT) -> FunctionT:
        options = [
            click.option(
                "--gateway",
                metavar="HOST:PORT",
                envvar=variable("WINNOW_GATEWAY"),
                expose_value=False,
                callback=keep("gateway"),
                help=f"The gateway; else WINNOW_GATEWAY, else {addresses.GATEWAY}.",
            ),
            click.option(
                "--timeout",
                type=click.FloatRange(min=0, min_open=True),
                metavar="SECONDS",
                expose_value=False,
                callback=keep("timeout"),
                help="Time for one call; 30 unless given.",
            ),
            click.option(
                "--json",
                "machine",
                is_flag=True,
                default=None,
                expose_value=False,
                callback=keep("machine"),
                help="Write JSON to standard output.",
            ),
            secure(
                "--tls",
                "WINNOW_TLS",
                is_flag=True,
                default=None,
                callback=keep("use_tls"),
                help="Connect over TLS, and trust the public authorities; so it is too where one of the next four is "
                "given. [WINNOW_TLS]",
            ),
            secure("--tls-ca", "WINNOW_TLS_CA", type=_FILE, help="PEM file of authorities to trust. [WINNOW_TLS_CA]"),
            secure(
                "--tls-certificate",
                "WINNOW_TLS_CERTIFICATE",
                type=_FILE,
                help="PEM file of a certificate to show. [WINNOW_TLS_CERTIFICATE]",
            ),
            secure("--tls-key", "WINNOW_TLS_KEY", type=_FILE, help="PEM file of its private key. [WINNOW_TLS_KEY]"),
            secure(
                "--tls-server-name",
                "WINNOW_TLS_SERVER_NAME",
                metavar="NAME",
                help="Name to expect in the certificate, where it is not the one in the address. "
                "[WINNOW_TLS_SERVER_NAME]",
            ),
            secure(
                "--api-key-file",
                "WINNOW_API_KEY_FILE",
                type=_FILE,
                callback=_keep_api_key,
                help="File that holds the API key and nothing else. [WINNOW_API_KEY_FILE]",
            ),
            secure(
                "--api-key",
                "WINNOW_API_KEY",
                metavar="KEY",
                callback=_keep_api_key,
                help="The API key itself. Whoever may list processes sees it: better the variable, or a file. "
                "[WINNOW_API_KEY]",
            ),
        ]
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _keep_api_key(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keeps the key, however it was given; what was written goes before what is in the environment."""
    connection = ctx.ensure_object(Connection)
    written = ctx.get_parameter_source(str(parameter.name)) is not ParameterSource.ENVIRONMENT
    if value is None or (connection.api_key is not None and not written):
        return
    try:
        connection.api_key = value.read_text().strip() if isinstance(value, Path) else value
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{value} holds no API key.", ctx) from error


def confirm(question: str, *, yes: bool) -> None:
    """Asks before something that cannot be undone. Where nobody can answer, `--yes` is needed."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody is here to answer: say --yes.", click.get_current_context())
    click.confirm(question, abort=True, err=True)
