"""Settings of a service: one frozen class, whose fields are flags and environment variables at once.

Only a service's `__main__` calls `read_settings`; everything below receives values.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from winnow_rpc.faults import InvalidArgument
from winnow_rpc.tls import ServerTls

OptionalPath = Annotated[Path | None, BeforeValidator(lambda given: given or None)]
"""A path, or None; the empty string, as an unset variable of a composition arrives, is None too."""

SettingsT = TypeVar("SettingsT", bound="ServingSettings")

OF_COMPOSE = frozenset(
    {
        "WINNOW_EMBEDDER_GPU",
        "WINNOW_EMBEDDER_NEXT_MODEL",
        "WINNOW_INDEX_MEMORY",
        "WINNOW_INDEX_REPLICAS",
        "WINNOW_INDEX_SHARDS",
        "WINNOW_INDEX_WRITE_CONSISTENCY",
        "WINNOW_RERANKER_GPU",
    }
)
"""Variables that the Compose files read, and that begin as a service's own do."""

# What a container finds of the services around it, if one is called `winnow-index`: by Kubernetes and by old links.
_LINK_NAME = re.compile(r"(\w+_)?((SERVICE_(HOST|PORT)|PORT_\d+_(TCP|UDP|SCTP))(_\w+)?|ENV_\w+)")
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")


class ServingSettings(BaseModel):
    """What every service can be told; each service's own settings extend it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address to listen on. The default is reachable from this machine alone; 0.0.0.0 opens it to the network."""
    port: int = Field(default=0, ge=0, le=65535)
    """Port to listen on; 0 takes a free one, which the `listening` event names."""
    max_message_bytes: int = Field(default=32 * 1024 * 1024, ge=64 * 1024, le=1024 * 1024 * 1024)
    """Largest gRPC message taken or sent, in bytes."""
    tls_certificate: OptionalPath = None
    """PEM file of the certificate to show; with `tls_key`, all connections are TLS, those to the metrics too. Read anew
    when it changes."""
    tls_key: OptionalPath = None
    """PEM file of the certificate's private key, not encrypted."""
    tls_client_ca: OptionalPath = None
    """PEM file of authorities: clients must show a certificate that one of them signed (mutual TLS)."""
    tls_client_names: tuple[str, ...] = ()
    """Names, as a JSON list: clients must bear one of them in their certificate, but for the health check and the
    metrics."""
    max_connections: int = Field(default=16_384, ge=0, le=1_000_000)
    """Connections held at once, at most: one more is closed as it comes. An idle one takes about 20 KB, with TLS 50 KB.
    0: no limit but that of open files."""
    max_concurrent_streams: int = Field(default=1024, ge=1, le=1_000_000)
    """Calls at once on one connection; a client holds further ones back until others have ended."""
    max_connection_age_seconds: float = Field(default=60.0, ge=0, le=86_400)
    """After this time a connection takes no new calls, and is closed when those in progress have ended: clients connect
    anew, which is how they find replicas that were added. Give or take a tenth; 0: never."""
    max_connection_idle_seconds: float = Field(default=300.0, ge=0, le=86_400)
    """A connection without calls for so long is closed; 0: never."""
    handshake_timeout_seconds: float = Field(default=10.0, gt=0, le=600)
    """Time that a new connection has to become one, TLS included."""
    keepalive_seconds: float = Field(default=60.0, ge=1, le=7200)
    """A connection on which nothing comes for so long is asked whether it lives; one that does not answer within 20
    seconds is closed."""
    drain_seconds: float = Field(default=10.0, ge=0, le=600)
    """How long calls in progress may take to end after SIGTERM or Ctrl-C before they are cut off."""
    probe_seconds: float = Field(default=5.0, gt=0, le=600)
    """Seconds between two health probes, each a real piece of work."""
    probe_timeout_seconds: float = Field(default=30.0, gt=0, le=600)
    """A probe that takes longer than this has failed."""
    reflection: bool = True
    """Offer gRPC server reflection, so that grpcurl and the like can list what is served. Where API keys are on, it is
    off unless this is given."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Serve metrics for Prometheus at http://<host>:<port>/metrics, at https:// where there is a `tls_certificate`; 0
    takes a free port, which the `metrics` event names. Unset: no metrics."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe events to log. At `debug`, every request is logged; at `info`, failed ones."""
    log_format: Literal["auto", "json", "human"] = "auto"
    """Form of the log: JSON, or lines for people; `auto` writes for people when standard error is a terminal."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together: give both or none")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key: without TLS no client can show anything")
        if self.tls_client_names and not self.tls_client_ca:
            raise ValueError("tls_client_names needs tls_client_ca: names count only in certificates that it signed")
        return self

    def offers_reflection(self, *, keys: bool) -> bool:
        """Whether to offer reflection, where API keys are on or not."""
        return self.reflection and (not keys or "reflection" in self.model_fields_set)

    @property
    def tls(self) -> ServerTls | None:
        """What the server shows; None for plain text."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return ServerTls(certificate=self.tls_certificate, key=self.tls_key, client_ca=self.tls_client_ca)


def read_settings(
    kind: type[SettingsT], *, prefix: str, program: str, argv: Sequence[str], others: Collection[str] = ()
) -> SettingsT:
    """Settings from flags (`--port 50051`), else environment (`<prefix>PORT`), else defaults.

    Raises InvalidArgument with one sentence that names the setting, its flag and its variable; also for a variable
    that begins with the prefix and is neither a setting nor one of `others`, which are another program's. `--help`
    prints the fields with their docstrings and exits.
    """

    class Reader(BaseSettings, kind):  # type: ignore[valid-type,misc]
        model_config = SettingsConfigDict(
            env_prefix=prefix,
            cli_parse_args=list(argv),
            cli_prog_name=program,
            cli_kebab_case=True,
            cli_implicit_flags=True,
            cli_exit_on_error=False,
            extra="forbid",
            frozen=True,
            use_attribute_docstrings=True,
        )

    Reader.__doc__ = kind.__doc__
    try:
        read = Reader()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        if not name:
            raise InvalidArgument(
                f"settings do not fit together: {first['msg'].removeprefix('Value error, ')}", reason="BAD_SETTING"
            ) from error
        flag, given = name.replace("_", "-"), _given(kind, name, first["input"])
        raise InvalidArgument(
            f"setting --{flag} (or {prefix}{name.upper()}) is refused: {first['msg']}{given}",
            field=name,
            reason="BAD_SETTING",
        ) from error
    except SettingsError as error:
        raise InvalidArgument(
            f"settings cannot be read: {_without_values(str(error))}", reason="BAD_SETTING"
        ) from None  # the original would show the values
    _refuse_unknown_variables({*kind.model_fields, *others}, prefix)
    # The plain class, so that nothing below depends on where settings come from; it knows what was given and what not.
    return kind.model_validate(read.model_dump(exclude_unset=True))


def _refuse_unknown_variables(known: Collection[str], prefix: str) -> None:
    """One that is misspelt would be ignored in silence, and what it was to close would stand open."""
    for variable, value in sorted(os.environ.items()):
        name = variable.upper().removeprefix(prefix)
        if name == variable.upper() or name.lower() in known or variable.upper() in OF_COMPOSE:
            continue
        if _LINK_NAME.fullmatch(name) or _LINK_VALUE.match(value) or _names_a_link(variable.upper(), value):
            continue
        close = get_close_matches(name.lower(), known, n=1)
        meant = f"; is {prefix}{close[0].upper()} meant?" if close else ""
        raise InvalidArgument(f"variable {variable} is no setting of this service{meant}", reason="BAD_SETTING")


def _names_a_link(variable: str, value: str) -> bool:
    """Whether it is an old link's own name: `WINNOW_INDEX_1_NAME=/gateway/winnow-index-1`. A setting that somebody
    takes to end so has another value."""
    container, _, alias = value.removeprefix("/").partition("/")
    return value.startswith("/") and bool(container) and variable == f"{alias.upper().replace('-', '_')}_NAME"


def _given(kind: type[BaseModel], name: str, value: Any) -> str:
    """What was given, unless that is a secret."""
    field = kind.model_fields.get(name)
    return "" if field is None or SecretStr.__name__ in str(field.annotation) else f", got {value!r}"


def _without_values(said: str) -> str:
    """A complaint of the command line's parser with the names of the flags that it does not know, and not what they
    were given: a secret may stand behind a flag that is misspelt."""
    before, mark, flags = said.partition("unrecognized arguments: ")
    return before + mark + " ".join(word.partition("=")[0] for word in flags.split() if word.startswith("-"))


def command_line() -> list[str]:
    """The flags this process was started with."""
    return sys.argv[1:]
