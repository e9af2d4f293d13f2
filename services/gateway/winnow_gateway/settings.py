"""What the gateway can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from winnow_rpc.settings import OptionalPath, ServingSettings
from winnow_rpc.tls import ClientTls


class GatewaySettings(ServingSettings):
    """The gateway: plans, retrieves, reranks, ingests and administers."""

    port: int = Field(default=50050, ge=0, le=65535)
    """Port to listen on; 0 takes a free one, which the `listening` event names."""
    embedder: str = "127.0.0.1:50051"
    """The embedder: host:port; several replicas by comma; or dns:///name:port for all replicas behind a name."""
    embedder_former: str | None = None
    """While one model takes the place of another: the embedder of the former one, as `embedder`. It embeds the queries
    of collections that its model filled, until ReembedCollection has bound them to the model of `embedder`."""
    reranker: str = "127.0.0.1:50052"
    """The reranker: host:port; several replicas by comma; or dns:///name:port for all replicas behind a name."""
    index: str = Field(default="127.0.0.1:6334", pattern=r"^.+:\d{1,5}$")
    """host:port of the index: Qdrant's gRPC port, or Winnow's own index."""
    api_keys_file: OptionalPath = None
    """File of API keys, as `winnow keys` makes it: callers must show one. Read anew when it changes. Unless given,
    anyone who can connect may call."""
    backend_silence_seconds: float = Field(default=5.0, ge=1, le=600)
    """A replica of the embedder or the reranker that answers no ping for this long gets no calls until it does."""
    backend_tls: bool = False
    """Call the embedder and the reranker over TLS; so it is too where one of the next four is given."""
    backend_tls_ca: OptionalPath = None
    """PEM file of the authorities that signed their certificates; without it, the public ones are trusted."""
    backend_tls_certificate: OptionalPath = None
    """PEM file of the certificate that the gateway shows them, where they ask for one."""
    backend_tls_key: OptionalPath = None
    """PEM file of that certificate's private key, not encrypted."""
    backend_tls_server_name: str | None = None
    """Name in the certificate of both, where it is not the one they are reached by, as with a list of addresses."""
    index_tls: bool = False
    """Call the index over TLS; so it is too where one of the next four is given."""
    index_tls_ca: OptionalPath = None
    """PEM file of the authorities that signed the index's certificate; without it, the public ones are trusted."""
    index_tls_certificate: OptionalPath = None
    """PEM file of the certificate that the gateway shows the index, where it asks for one."""
    index_tls_key: OptionalPath = None
    """PEM file of that certificate's private key, not encrypted."""
    index_tls_server_name: str | None = None
    """Name in the index's certificate, where it is not the one that it is reached by."""
    index_api_key: SecretStr | None = None
    """API key of the Qdrant server. A flag can be seen by whoever may list processes: better its variable or file."""
    index_api_key_file: OptionalPath = None
    """File that holds the API key of the Qdrant server and nothing else. Read anew when it changes."""
    index_timeout_seconds: float = Field(default=30.0, gt=0, le=600)
    """Longest wait for one call of the index; a search's own deadline may be shorter."""
    index_shards: int = Field(default=0, ge=0, le=1000)
    """Parts that a new collection is cut into, spread over the nodes of a Qdrant cluster; 0: as Qdrant does, one a
    node."""
    index_replicas: int = Field(default=0, ge=0, le=100)
    """Copies of each part, on nodes of their own: with 2, searches go on without one node. What a lost node may take
    along, `index_write_consistency` says. 0: as Qdrant does, 1."""
    index_write_consistency: int = Field(default=0, ge=0, le=100)
    """Copies that have to hold a document before it is acknowledged. With fewer than `index_replicas`, a node that is
    lost may take along what was acknowledged last. 0: as Qdrant does, 1."""
    model_cache_seconds: float = Field(default=5.0, ge=0, le=600)
    """How long to remember which models the embedder and the reranker serve, and what a collection is made from."""
    ingest_group_size: int = Field(default=64, ge=1, le=1000)
    """Documents embedded and written together, at most."""
    ingest_groups_in_flight: int = Field(default=4, ge=1, le=64)
    """Groups of one ingest stream that are being embedded or wait to be written."""
    ingest_retry_seconds: float = Field(default=60.0, ge=0, le=3600)
    """How long an ingest waits for a backend that is away before it gives up."""
    reembed_grace_seconds: float = Field(default=30.0, ge=0, le=3600)
    """How long a collection's former vectors stay after it was re-embedded, for searches that have begun with them. No
    shorter than `model_cache_seconds` of any gateway, and the longest search."""
    default_deadline_seconds: float = Field(default=30.0, gt=0, le=3600)
    """Time for a search whose caller set no deadline."""
    answer_margin_millis: float = Field(default=8.0, ge=0, le=10_000)
    """How long before its time is up a search stops reranking, so that its answer arrives in time."""
    max_searches: int = Field(default=256, ge=1, le=100_000)
    """Searches in hand at most; one more is refused with RESOURCE_EXHAUSTED."""
    max_work_seconds: float = Field(default=60.0, gt=0, le=86_400)
    """Expected work of all searches in hand, in seconds; a search that would take it past this is refused."""
    search_sharing: int = Field(default=8, ge=1, le=10_000)
    """Searches that may use up their whole time side by side: the work in hand is at most a newcomer's time times
    this."""
    breaker_failures: int = Field(default=5, ge=1, le=1000)
    """Failures of a backend in a row after which it is given a pause."""
    breaker_pause_seconds: float = Field(default=2.0, gt=0, le=600)
    """Longest pause before one search tries it again; the first pause is a quarter of it."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for group in ("backend", "index"):
            if (getattr(self, f"{group}_tls_certificate") is None) != (getattr(self, f"{group}_tls_key") is None):
                raise ValueError(f"{group}_tls_certificate and {group}_tls_key go together: give both or none")
        if self.index_api_key and self.index_api_key_file:
            raise ValueError("index_api_key and index_api_key_file are two ways to say one thing: give one")
        return self

    @property
    def backend_client_tls(self) -> ClientTls | None:
        """What to trust and show when calling the model services; None for plain text."""
        return _client_tls(
            self.backend_tls,
            self.backend_tls_ca,
            self.backend_tls_certificate,
            self.backend_tls_key,
            self.backend_tls_server_name,
        )

    @property
    def index_client_tls(self) -> ClientTls | None:
        """What to trust and show when calling the index; None for plain text."""
        return _client_tls(
            self.index_tls,
            self.index_tls_ca,
            self.index_tls_certificate,
            self.index_tls_key,
            self.index_tls_server_name,
        )


def _client_tls(
    asked: bool, ca: Path | None, certificate: Path | None, key: Path | None, server_name: str | None
) -> ClientTls | None:
    if not (asked or ca or certificate or server_name):
        return None
    return ClientTls(ca=ca, certificate=certificate, key=key, server_name=server_name or None)
