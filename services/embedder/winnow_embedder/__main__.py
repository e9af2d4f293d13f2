"""Starts the embedder: reads the settings, loads the model, serves."""

from __future__ import annotations

from winnow_embedder.settings import EmbedderSettings
from winnow_rpc import serving, settings, telemetry

PREFIX = "WINNOW_EMBEDDER_"
"""What its environment variables begin with."""


async def main() -> None:
    """Serves until a signal comes."""
    options = settings.read_settings(
        EmbedderSettings, prefix=PREFIX, program="winnow-embedder", argv=settings.command_line()
    )
    telemetry.configure_logging(service="embedder", level=options.log_level, form=options.log_format)
    serving.check(options)
    # Here, not above: `--help` need not wait for what serving a model takes.
    from winnow_embedder.assembly import assemble

    await serving.serve(await assemble(options), options)


if __name__ == "__main__":
    serving.run(main, service="embedder")
