"""How a client reaches the gateway and behaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from winnow_client import addresses
from winnow_rpc.calling import ChannelSettings, Retries, at_least
from winnow_rpc.tls import ClientTls

# gRPC's own word for it.
_NO_LIMIT = -1


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """How documents are put into messages, and how many may be under way."""

    batch_count: int = 64
    """Documents per message at most, 1 to 1,000."""
    batch_bytes: int = 1024 * 1024
    """Bytes of documents per message at most; a document larger than this travels alone."""
    max_document_bytes: int = 4 * 1024 * 1024
    """A larger document is refused here, because a gateway would refuse the whole stream. Its own limits are lower."""
    max_outstanding_count: int = 1024
    """No more documents are sent while this many wait for their acknowledgement, or for the caller to take it."""
    linger_seconds: float = 0.05
    """How long a message that is not full waits for more documents; 0: not at all."""

    def __post_init__(self) -> None:
        """Raises InvalidArgument for what would never send anything."""
        for name in ("batch_count", "batch_bytes", "max_document_bytes", "max_outstanding_count"):
            at_least(name, getattr(self, name), 1)
        at_least("linger_seconds", self.linger_seconds, 0)


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """How a client reaches the gateway and behaves."""

    target: str = addresses.GATEWAY
    """gRPC target: "host:port", or "dns:///name:port" for all addresses of a name."""
    tls: ClientTls | None = None
    """What to trust, and what to show where the gateway asks for a certificate; None: plain text. `ClientTls()` trusts
    the public authorities. Files are read anew when they change."""
    api_key: str | None = field(default=None, repr=False)
    """API key, for a gateway that asks for one. Without TLS it can be read on the way."""
    timeout_seconds: float | None = 30.0
    """Time for a call, unless the call says otherwise; None: no limit. `ingest` has no limit of its own."""
    retries: Retries = field(default_factory=Retries)
    """How to repeat calls that no gateway took up or whose gateway went away, inside the same time limit; only those
    that can do no harm twice: all but creating and deleting a collection, and ingesting."""
    max_message_bytes: int = 32 * 1024 * 1024
    """Largest message taken or sent, in bytes; -1: no limit."""
    ingest: IngestConfig = field(default_factory=IngestConfig)
    """How documents are put into messages."""

    def __post_init__(self) -> None:
        """Raises InvalidArgument for a message size that gRPC does not take."""
        if self.max_message_bytes != _NO_LIMIT:
            at_least("max_message_bytes", self.max_message_bytes, 1, most=2**31 - 1)

    def channel_settings(self, repeatable: Mapping[str, Sequence[str]]) -> ChannelSettings:
        """The same for a channel. `repeatable`: full service name → its methods that can do no harm twice."""
        return ChannelSettings(
            target=self.target,
            idempotent=repeatable,
            retries=self.retries,
            max_message_bytes=self.max_message_bytes,
            tls=self.tls,
            api_key=self.api_key,
        )
