"""Logs, and the request id that crosses every hop.

A service writes one event a line to standard error: as JSON for machines, or coloured for people when standard error is
a terminal. Every line of a request carries its id, and that of its trace where there is one.
"""

from __future__ import annotations

import logging
import re
import secrets
import sys
from contextvars import ContextVar
from typing import Any, Literal

import structlog

from winnow_rpc import tracing

LogFormat = Literal["auto", "json", "human"]

REQUEST_ID_KEY = "x-request-id"
"""The metadata key that carries the id of a request, in both directions."""

_request_id: ContextVar[str] = ContextVar("winnow_request_id", default="")
# What a caller may send as an id: it goes into logs, so nothing that could forge a line.
_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def request_id() -> str:
    """The id of the request that is being served here; empty outside of one."""
    return _request_id.get()


def enter_request(offered: str | None) -> str:
    """Makes the offered id, or a fresh one where that is unfit, the id of all that this task does from now on."""
    chosen = offered if offered and _ACCEPTABLE_ID.fullmatch(offered) else secrets.token_hex(8)
    _request_id.set(chosen)
    return chosen


def outgoing_headers() -> dict[str, str]:
    """What a call made for the current request takes along: its id, and its trace where there is one."""
    headers = tracing.headers()
    if current := request_id():
        headers[REQUEST_ID_KEY] = current
    return headers


def configure_logging(*, service: str, level: str = "info", form: LogFormat = "auto") -> None:
    """Sends our events and those of the libraries to standard error in one form. Call once, at start."""
    human = form == "human" or (form == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if human
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )

    def add_context(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["service"] = service
        if current := request_id():
            event["request_id"] = current
        if traced := tracing.trace_id():
            event["trace_id"] = traced
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_context,
    ]
    errors: list[structlog.typing.Processor] = [] if human else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *errors, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # Libraries speak only when something is wrong; what they do in peace is not our news.
    for name in ("grpc", "httpx", "httpcore", "urllib3", "sentence_transformers", "transformers", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose calls take an event and its facts: `log.info("listening", address=…)`."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger
