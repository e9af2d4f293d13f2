"""What the gateway can be told."""

from __future__ import annotations

from pydantic import Field

from winnow_rpc.settings import ServingSettings


class GatewaySettings(ServingSettings):
    """The gateway: plans, retrieves, reranks, ingests and administers."""

    port: int = Field(default=50050, ge=0, le=65535)
    """Port to listen on; 0 takes a free one, which the `listening` event names."""
    embedder: str = "127.0.0.1:50051"
    """The embedder: host:port; several replicas by comma; or dns:///name:port for all replicas behind a name."""
    reranker: str = "127.0.0.1:50052"
    """The reranker: host:port; several replicas by comma; or dns:///name:port for all replicas behind a name."""
    index: str = Field(default="127.0.0.1:6334", pattern=r"^.+:\d{1,5}$")
    """host:port of the index: Qdrant's gRPC port, or Winnow's own index."""
    index_timeout_seconds: float = Field(default=30.0, gt=0, le=600)
    """Longest wait for one call of the index; a search's own deadline may be shorter."""
    model_cache_seconds: float = Field(default=5.0, ge=0, le=600)
    """How long to remember which models the embedder and the reranker serve, and what a collection is made from."""
    ingest_group_size: int = Field(default=64, ge=1, le=1000)
    """Documents embedded and written together, at most."""
    ingest_groups_in_flight: int = Field(default=4, ge=1, le=64)
    """Groups of one ingest stream that are being embedded or wait to be written."""
    ingest_retry_seconds: float = Field(default=60.0, ge=0, le=3600)
    """How long an ingest waits for a backend that is away before it gives up."""
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
