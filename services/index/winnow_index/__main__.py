"""Starts the index: `python -m winnow_index`. The only reader of flags and environment."""

from __future__ import annotations

from winnow_index.serving import open_service
from winnow_index.settings import COMMANDS_OWN, IndexSettings
from winnow_rpc.serving import run, serve
from winnow_rpc.settings import command_line, read_settings
from winnow_rpc.telemetry import configure_logging


async def _main() -> None:
    settings = read_settings(
        IndexSettings, prefix="WINNOW_INDEX_", program="winnow-index", argv=command_line(), others=COMMANDS_OWN
    )
    configure_logging(service="index", level=settings.log_level, form=settings.log_format)
    await serve(open_service(settings), settings)


def main() -> None:
    """Entry point of `winnow-index`."""
    run(_main, service="index")


if __name__ == "__main__":
    main()
