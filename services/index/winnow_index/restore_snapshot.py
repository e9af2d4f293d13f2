"""Restores a snapshot while no index runs: `python -m winnow_index.restore_snapshot --snapshot FOLDER`.

The data directory is that of the index's own settings, so in its container nothing else needs to be said.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from winnow_index.restoring import restore
from winnow_index.settings import COMMANDS_OWN, IndexSettings
from winnow_rpc.serving import run
from winnow_rpc.settings import command_line, read_settings


class RestoreSettings(IndexSettings):
    """Restore a snapshot into the empty data directory of an index with these settings, which must not run."""

    snapshot: Path
    """Folder of the snapshot."""


async def _main() -> None:
    settings = read_settings(
        RestoreSettings,
        prefix="WINNOW_INDEX_",
        program="python -m winnow_index.restore_snapshot",
        argv=command_line(),
        others=COMMANDS_OWN,
    )
    count = await asyncio.to_thread(restore, settings.snapshot, settings.data_dir)
    sys.stdout.write(f"restored {count} collections to {settings.data_dir}\n")


if __name__ == "__main__":
    run(_main, service="index")
