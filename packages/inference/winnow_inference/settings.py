"""What a model service can be told about its model and its device, beside where it serves."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class InferenceSettings(BaseModel):
    """Model, device and queue; each service adds its own limits and where it listens."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str = ""
    """The model: a folder, or an id on the Hugging Face hub (`owner/name`). Empty: the one that ships with Winnow."""
    revision: str = ""
    """Branch, tag or commit of a hub id; a commit pins it."""
    offline: bool = False
    """Never ask the hub: a hub id must be in its local cache."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """Where to compute: `auto` takes a GPU if there is one, else the CPU; `cuda:1` names one of several GPUs."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the arithmetic; `auto`: float32 on a CPU, float16 on a GPU, whatever the file holds."""
    threads: int = Field(default=0, ge=0, le=1024)
    """Threads of one forward pass on a CPU; 0: as many as this process has cores."""
    max_token_count: int = Field(default=0, ge=0, le=1_000_000)
    """Tokens read of a text or pair at most, if less than the model itself reads; 0: the model's own limit."""
    max_batch_tokens: int = Field(default=0, ge=0, le=10_000_000)
    """Tokens of one batch, padding included; fewer let a query overtake sooner. 0: 1,024 on a CPU, 16,384 on a GPU."""
    max_queued_tokens: int = Field(default=262_144, ge=1, le=1_000_000_000)
    """Tokens that may wait; past it a request is refused with RESOURCE_EXHAUSTED, and a bulk stream waits."""
    max_text_bytes: int = Field(default=2 * 1024 * 1024, ge=1, le=64 * 1024 * 1024)
    """Bytes of UTF-8 of one text at most; what the model does not read of it is cut and reported."""
