"""What the index can be told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from winnow_index.optimizing import OptimizerOptions
from winnow_index.schema import Limits
from winnow_rpc.settings import ServingSettings

COMMANDS_OWN = ("keep", "snapshot")
"""What the commands for snapshots can be told beside; their variables are set where the index's are."""


class IndexSettings(ServingSettings):
    """winnow-index: Qdrant's gRPC protocol over the engine embedded in this process."""

    port: int = Field(default=6334, ge=0, le=65535)
    """Port to listen on; 0 takes a free one, which the `listening` event names."""
    data_dir: Path = Path("winnow-data/index")
    """Directory of all collections. One process holds it at a time."""
    snapshots_dir: Path | None = None
    """Folder of snapshots. Default: `snapshots` in the data directory, so on the same disk."""
    disk_reserve_bytes: int = Field(default=128 * 1024 * 1024, ge=0)
    """Bytes that are kept free on the volumes of data and snapshots: without them writes are refused. 0 keeps none."""
    indexing_threshold_kb: int = Field(default=10_000, ge=0)
    """KB of unindexed vectors past which a graph is built; 0 never builds one. A collection may say otherwise."""
    max_limit: int = Field(default=100_000, ge=1)
    """Most points that one query or page may ask for, offset included."""
    max_batch: int = Field(default=10_000, ge=1)
    """Most points in one write, ids in one request, or queries in one batch."""
    max_payload_bytes: int = Field(default=4 * 1024 * 1024, ge=1)
    """Largest payload of one point, in bytes as it travels."""
    build_journal_bytes: int = Field(default=512 * 1024 * 1024, ge=1024)
    """Most memory for writes that arrive during a build; past it the build is given up and tried again later."""
    build_retry_seconds: float = Field(default=5.0, gt=0)
    """Wait after a failed build; doubles with each further failure, to five minutes."""

    def snapshots_folder(self) -> Path:
        """Where snapshots are."""
        return self.snapshots_dir or self.data_dir / "snapshots"

    def limits(self) -> Limits:
        """What one request may ask for."""
        return Limits(max_limit=self.max_limit, max_batch=self.max_batch, max_payload_bytes=self.max_payload_bytes)

    def optimizer_options(self) -> OptimizerOptions:
        """How builds are paced."""
        return OptimizerOptions(journal_bytes=self.build_journal_bytes, retry_seconds=self.build_retry_seconds)
