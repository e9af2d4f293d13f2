"""The SDK of Winnow: two-stage semantic search.

    from winnow_client import Client, Document, field

    with Client("127.0.0.1:50050") as client:
        client.create_collection("papers")
        for acknowledgement in client.ingest("papers", [Document(id="1", text="HNSW is a graph.")]):
            print(acknowledgement.id, acknowledgement.outcome)
        for hit in client.search("papers", "what is HNSW?", where=field("year") >= 2016).hits:
            print(hit.rank, hit.score, hit.document.title)

`AsyncClient` has the same methods for asyncio. Errors are the faults of `winnow_rpc.faults`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from winnow_client.asynchronous import AsyncClient
    from winnow_client.collections import (
        Collection,
        HnswConfig,
        IndexState,
        LexicalConfig,
        MetadataField,
        MetadataType,
        ReembedPhase,
        ReembedProgress,
        Similarity,
    )
    from winnow_client.config import ClientConfig, IngestConfig
    from winnow_client.documents import Acknowledgement, Document, IngestOutcome, StoredDocument
    from winnow_client.filters import Filter, field, ids
    from winnow_client.searching import (
        Degradation,
        DegradationKind,
        DepthPolicy,
        Effort,
        Hit,
        RankFusion,
        RankingPolicy,
        RankMixing,
        RetrievalKind,
        ScoreMixing,
        SearchMode,
        SearchOptions,
        SearchResult,
        SearchState,
        SearchTiming,
        StageResult,
    )
    from winnow_client.synchronous import Client
    from winnow_rpc.calling import Retries
    from winnow_rpc.faults import Fault
    from winnow_rpc.tls import ClientTls

__all__ = [
    "Acknowledgement",
    "AsyncClient",
    "Client",
    "ClientConfig",
    "ClientTls",
    "Collection",
    "Degradation",
    "DegradationKind",
    "DepthPolicy",
    "Document",
    "Effort",
    "Fault",
    "Filter",
    "Hit",
    "HnswConfig",
    "IndexState",
    "IngestConfig",
    "IngestOutcome",
    "LexicalConfig",
    "MetadataField",
    "MetadataType",
    "RankFusion",
    "RankMixing",
    "RankingPolicy",
    "ReembedPhase",
    "ReembedProgress",
    "Retries",
    "RetrievalKind",
    "ScoreMixing",
    "SearchMode",
    "SearchOptions",
    "SearchResult",
    "SearchState",
    "SearchTiming",
    "Similarity",
    "StageResult",
    "StoredDocument",
    "field",
    "ids",
]

_HOMES = {
    "asynchronous": ("AsyncClient",),
    "collections": (
        "Collection", "HnswConfig", "IndexState", "LexicalConfig", "MetadataField", "MetadataType", "ReembedPhase",
        "ReembedProgress", "Similarity",
    ),
    "config": ("ClientConfig", "IngestConfig"),
    "documents": ("Acknowledgement", "Document", "IngestOutcome", "StoredDocument"),
    "filters": ("Filter", "field", "ids"),
    "searching": (
        "Degradation", "DegradationKind", "DepthPolicy", "Effort", "Hit", "RankFusion", "RankMixing", "RankingPolicy",
        "RetrievalKind", "ScoreMixing", "SearchMode", "SearchOptions", "SearchResult", "SearchState", "SearchTiming",
        "StageResult",
    ),
    "synchronous": ("Client",),
}  # fmt: skip
_MODULES = {name: f"winnow_client.{module}" for module, names in _HOMES.items() for name in names}
_MODULES |= {"Retries": "winnow_rpc.calling", "Fault": "winnow_rpc.faults", "ClientTls": "winnow_rpc.tls"}


def __getattr__(name: str) -> Any:
    # Loaded on first use: gRPC takes a quarter of a second, which `winnow --help` does not need.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
