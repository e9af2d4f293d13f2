"""Settings of a service: one frozen class, whose fields are flags and environment variables at once.

Only a service's `__main__` calls `read_settings`; everything below receives values.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from winnow_rpc.faults import InvalidArgument

SettingsT = TypeVar("SettingsT", bound="ServingSettings")


class ServingSettings(BaseModel):
    """What every service can be told; each service's own settings extend it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address to listen on. The default is reachable from this machine alone; 0.0.0.0 opens it to the network."""
    port: int = Field(default=0, ge=0, le=65535)
    """Port to listen on; 0 takes a free one, which the `listening` event names."""
    max_message_bytes: int = Field(default=32 * 1024 * 1024, ge=64 * 1024, le=1024 * 1024 * 1024)
    """Largest gRPC message taken or sent, in bytes."""
    drain_seconds: float = Field(default=10.0, ge=0, le=600)
    """How long calls in progress may take to end after SIGTERM or Ctrl-C before they are cut off."""
    probe_seconds: float = Field(default=5.0, gt=0, le=600)
    """Seconds between two health probes, each a real piece of work."""
    probe_timeout_seconds: float = Field(default=30.0, gt=0, le=600)
    """A probe that takes longer than this has failed."""
    reflection: bool = True
    """Offer gRPC server reflection, so that grpcurl and the like can list what is served."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Serve metrics for Prometheus at http://<host>:<port>/metrics; 0 takes a free port, which the `metrics` event
    names. Unset: no metrics."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe events to log. At `debug`, every request is logged; at `info`, failed ones."""
    log_format: Literal["auto", "json", "human"] = "auto"
    """Form of the log: JSON, or lines for people; `auto` writes for people when standard error is a terminal."""


def read_settings(kind: type[SettingsT], *, prefix: str, program: str, argv: Sequence[str]) -> SettingsT:
    """Settings from flags (`--port 50051`), else environment (`<prefix>PORT`), else defaults.

    Raises InvalidArgument with one sentence that names the setting, its flag and its variable. `--help` prints the
    fields with their docstrings and exits.
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
        flag = name.replace("_", "-")
        raise InvalidArgument(
            f"setting --{flag} (or {prefix}{name.upper()}) is refused: {first['msg']}, got {first['input']!r}",
            field=name,
            reason="BAD_SETTING",
        ) from error
    except SettingsError as error:
        raise InvalidArgument(f"settings cannot be read: {error}", reason="BAD_SETTING") from error
    # The plain class, so that nothing below depends on where settings come from.
    return kind.model_validate(read.model_dump())


def command_line() -> list[str]:
    """The flags this process was started with."""
    return sys.argv[1:]
