"""How commands reach the gateway: the options that all of them share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from winnow_client import addresses

if TYPE_CHECKING:
    from winnow_client.asynchronous import AsyncClient
    from winnow_client.config import ClientConfig
    from winnow_client.synchronous import Client

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

    @property
    def config(self) -> ClientConfig:
        """The configuration of a client."""
        from winnow_client.config import ClientConfig

        return ClientConfig(target=self.gateway, timeout_seconds=self.timeout)

    def client(self) -> Client:
        """A blocking client."""
        from winnow_client.synchronous import Client

        return Client(config=self.config)

    def async_client(self) -> AsyncClient:
        """A client for asyncio."""
        from winnow_client.asynchronous import AsyncClient

        return AsyncClient(config=self.config)


pass_connection = click.make_pass_decorator(Connection, ensure=True)
"""Gives a command its Connection as the first argument."""


def connection_options(*, read_environment: bool = False) -> Callable[[FunctionT], FunctionT]:
    """Adds --gateway, --timeout and --json to a command."""

    def keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
        def callback(ctx: click.Context, _parameter: click.Parameter, value: Any) -> None:
            connection = ctx.ensure_object(Connection)
            if value is not None:
                setattr(connection, name, value)

        return callback

    def decorate(function: FunctionT) -> FunctionT:
        options = [
            click.option(
                "--gateway",
                metavar="HOST:PORT",
                # Read before the command only: else the environment would overrule what is written there.
                envvar="WINNOW_GATEWAY" if read_environment else None,
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
        ]
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def confirm(question: str, *, yes: bool) -> None:
    """Asks before something that cannot be undone. Where nobody can answer, `--yes` is needed."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody is here to answer: say --yes.", click.get_current_context())
    click.confirm(question, abort=True, err=True)
