"""Ways to run the stack, each by settings alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from winnow_client import ClientConfig, ClientTls
from winnow_client.cli.processes_stack import EMBEDDER, GATEWAY, INDEX, RERANKER
from winnow_lab.certificates import Authority

SERVICES = (EMBEDDER, RERANKER, INDEX, GATEWAY)
PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a variant may point its stack to."""

    collector: str
    """Endpoint of a collector for traces."""
    folder: Path
    """A folder of its own, for files that it needs."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to run the stack."""

    summary: str
    environment: Callable[[Surroundings], Mapping[str, str]]
    """Environment variables of the services."""
    config: Callable[[Surroundings], ClientConfig] = lambda surroundings: ClientConfig(timeout_seconds=600)
    """How a client reaches the gateway; its address is filled in."""


def _metrics(_: Surroundings) -> Mapping[str, str]:
    return {f"WINNOW_{service.upper()}_METRICS_PORT": "0" for service in SERVICES}


def _tracing(surroundings: Surroundings) -> Mapping[str, str]:
    # Sent every half second instead of every five, so that a block of searches pays for its own.
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": surroundings.collector, "OTEL_BSP_SCHEDULE_DELAY": "500"}


def _tls(surroundings: Surroundings) -> Mapping[str, str]:
    """Mutual TLS on every hop: each service shows a certificate of its own and asks for one."""
    authority = Authority(surroundings.folder / "certificates")
    issued = {service: authority.issue(service, "127.0.0.1") for service in SERVICES}
    environment: dict[str, str] = {}
    for service, pair in issued.items():
        own = f"WINNOW_{service.upper()}_TLS"
        environment |= {f"{own}_CERTIFICATE": str(pair.certificate), f"{own}_KEY": str(pair.key)}
        environment[f"{own}_CLIENT_CA"] = str(authority.file)
    for towards in ("BACKEND", "INDEX"):
        calls, pair = f"WINNOW_GATEWAY_{towards}_TLS", issued[GATEWAY]
        environment |= {f"{calls}_CERTIFICATE": str(pair.certificate), f"{calls}_KEY": str(pair.key)}
        environment[f"{calls}_CA"] = str(authority.file)
    return environment


def _over_tls(surroundings: Surroundings) -> ClientConfig:
    """Shows the gateway's own certificate, which the same authority has signed."""
    folder = surroundings.folder / "certificates"
    tls = ClientTls(ca=folder / "ca.pem", certificate=folder / f"{GATEWAY}.pem", key=folder / f"{GATEWAY}.key")
    return ClientConfig(timeout_seconds=600, tls=tls)


_A_TENTH = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}

VARIANTS: Mapping[str, Variant] = {
    PLAIN: Variant("neither traced nor counted", lambda surroundings: {}),
    "metrics": Variant("metrics on, each service asked for them every five seconds", _metrics),
    "tracing": Variant("every search traced and sent to a collector", _tracing),
    "sampled": Variant(
        "metrics on, one search in ten traced",
        lambda surroundings: {**_metrics(surroundings), **_tracing(surroundings), **_A_TENTH},
    ),
    "tls": Variant("mutual TLS between all services and from the client", _tls, _over_tls),
    "telemetry": Variant("both", lambda surroundings: {**_metrics(surroundings), **_tracing(surroundings)}),
}
"""Name → how to run the stack. Another way to run it is another entry."""
