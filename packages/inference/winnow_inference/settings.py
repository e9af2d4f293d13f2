"""What a model service can be told about its model and its device, beside where it serves."""

from __future__ import annotations

from pathlib import Path
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
    engine: Literal["auto", "torch", "openvino"] = "auto"
    """What computes: `auto` takes torch on a GPU, and OpenVINO on a CPU if it can compute the model. `GetModel` says
    why."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    """Number format of the arithmetic. `auto`: float16 on a GPU; on a CPU what was measured to be fastest and loses
    nothing but rounding. `int8` (OpenVINO alone) is quicker and coarser; `int8_agreement` says how coarse it may
    be."""
    int8_agreement: float = Field(default=0.97, ge=0.0, le=1.0)
    """How close int8 must come to float32 on sample texts or it is refused: the least cosine of vectors, or Spearman's
    correlation of scores."""
    calibration_texts: Path | None = None
    """A file of texts like your own, one a line (32 to 256 of them), from which int8 takes its ranges. Default:
    paragraphs of English prose on Python."""
    cache_dir: Path | None = None
    """Where to keep converted models, so that the next start takes seconds. Default: `winnow` in the user's cache
    folder."""
    cache_keep_days: float = Field(default=30.0, ge=0.0, le=36_500.0)
    """A converted model that no service has used for so many days is removed when one starts; 0: none is for its
    age."""
    cache_max_bytes: int = Field(default=16 * 1024**3, ge=0)
    """Bytes of converted models: beyond it those are removed that were used least recently, and never one that a
    service uses now; 0: no limit."""
    prepared_dir: Path | None = None
    """A folder of converted models that came with an installation: looked into after `cache_dir`, never written to."""
    threads: int = Field(default=0, ge=0, le=1024)
    """Cores to compute with on a CPU; 0: as many as this process may use."""
    max_token_count: int = Field(default=0, ge=0, le=1_000_000)
    """Tokens read of a text or pair at most, if less than the model itself reads; 0: the model's own limit."""
    batch_millis: float = Field(default=25.0, gt=0.0, le=10_000.0)
    """Time that one batch may take: how long work holds the device before other work gets its turn, and how soon
    cancelled work ends. Batches are sized to it from what earlier ones took."""
    max_batch_tokens: int = Field(default=32_768, ge=1, le=10_000_000)
    """Tokens of one batch at most, padding included, however quick the device is: what its memory holds."""
    max_queued_tokens: int = Field(default=262_144, ge=1, le=1_000_000_000)
    """Tokens that may wait; past it a request is refused with RESOURCE_EXHAUSTED, and a bulk stream waits."""
    max_wait_seconds: float = Field(default=10.0, gt=0.0, le=3600.0)
    """Interactive work that would wait longer than this for its turn is refused with RESOURCE_EXHAUSTED at once."""
    max_text_bytes: int = Field(default=2 * 1024 * 1024, ge=1, le=64 * 1024 * 1024)
    """Bytes of UTF-8 of one text at most; what the model does not read of it is cut and reported."""
