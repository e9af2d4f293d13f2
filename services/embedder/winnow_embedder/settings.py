"""What the embedder can be told."""

from __future__ import annotations

from pydantic import Field

from winnow_inference.settings import InferenceSettings
from winnow_rpc.settings import ServingSettings


class EmbedderSettings(InferenceSettings, ServingSettings):
    """The embedder: text to vectors over gRPC."""

    port: int = Field(default=50051, ge=0, le=65535)
    """Port to listen on; 0 takes a free one, which the `listening` event names."""
    max_wait_seconds: float = Field(default=0.5, gt=0.0, le=3600.0)
    """Interactive work that would wait longer than this for its turn is refused with RESOURCE_EXHAUSTED at once."""
    max_text_count: int = Field(default=1024, ge=1, le=100_000)
    """Texts of one request, or of one batch of a stream, at most."""
    matryoshka_dimensions: tuple[int, ...] = ()
    """Shorter vectors that the model was trained to give, as a JSON list: `[512, 256]`. Others are refused."""
    stream_read_ahead: int = Field(default=3, ge=1, le=64)
    """Batches of one bulk stream that are in work at once; no more of it is read before an answer has been taken."""
