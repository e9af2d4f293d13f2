"""What is to be measured, with what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from winnow_lab.bench_inference.texts import Texts

PARTS = ("embed", "rerank", "query", "mixed", "overload", "soak")
"""Everything that can be measured, in the order in which it is."""
LONG_PARTS = ("soak",)
"""Those that are measured only when they are named, or with --all."""

GROUP = 64
"""Texts of one batch of a bulk stream."""


@dataclass(frozen=True, kw_only=True)
class Models:
    """The models, as everyone can find them."""

    bi_encoder: Path
    """Folder of the bi-encoder."""
    cross_encoder: Path
    """Folder of the cross-encoder."""
    dimension: int
    """Components of the bi-encoder's vectors."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be measured, with what."""

    texts: Texts
    """Passages and queries."""
    models: Models
    """Both models."""
    dtypes: tuple[str, ...]
    """Number formats in which our services are measured: "auto", "int8"."""
    flags: tuple[tuple[str, str], ...]
    """More flags for our services, such as ("engine", "torch")."""
    peers: Path | None
    """Folder of the peers' environments; None: there are none."""
    rounds: int
    """Turns of each contestant."""
    rerank_queries: int
    """Queries of one round of reranking."""
    query_count: int
    """Single queries for latency."""
    mixed_seconds: float
    """Length of each of the three kinds of mixed load, over all rounds."""
    query_rate: float
    """Queries a second beside bulk work."""
    overload_seconds: float
    """Length of the open loop."""
    overload_texts: int
    """Passages of one of its calls."""
    overload_wait_seconds: float
    """The service's `max_wait_seconds` in it."""
    soak_seconds: float
    """Length of the soak."""

    def service_flags(self, kind: str, dtype: str) -> dict[str, object]:
        """Flags of the embedder ("bi") or the reranker ("cross")."""
        # Probes are real work: few of them, while others are measured.
        return {"model": self.model(kind), "dtype": dtype, "probe-seconds": 60, "log-level": "info", **dict(self.flags)}

    def settings(self, kind: str, dtype: str) -> dict[str, str]:
        """The same as settings of the engine in process."""
        flags = {flag.replace("-", "_"): value for flag, value in self.flags}
        return {"model": str(self.model(kind)), "dtype": dtype, **flags}

    def model(self, kind: str) -> Path:
        """Folder of the bi-encoder ("bi") or cross-encoder ("cross")."""
        return self.models.bi_encoder if kind == "bi" else self.models.cross_encoder
