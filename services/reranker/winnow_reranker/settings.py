"""What the reranker can be told."""

from __future__ import annotations

from pydantic import Field

from winnow_inference.settings import InferenceSettings
from winnow_rpc.settings import ServingSettings


class RerankerSettings(InferenceSettings, ServingSettings):
    """The reranker: pairs of texts to scores over gRPC."""

    port: int = Field(default=50052, ge=0, le=65535)
    """Port to listen on; 0 takes a free one, which the `listening` event names."""
    max_document_count: int = Field(default=1000, ge=1, le=100_000)
    """Documents or pairs of one request at most."""
