"""Starts the reranker: reads the settings, loads the model, serves."""

from __future__ import annotations

from winnow_reranker.settings import RerankerSettings
from winnow_rpc import serving, settings, telemetry

PREFIX = "WINNOW_RERANKER_"
"""What its environment variables begin with."""


async def main() -> None:
    """Serves until a signal comes."""
    options = settings.read_settings(
        RerankerSettings, prefix=PREFIX, program="winnow-reranker", argv=settings.command_line()
    )
    telemetry.configure_logging(service="reranker", level=options.log_level, form=options.log_format)
    serving.check(options)
    # Here, not above: `--help` need not wait for what serving a model takes.
    from winnow_reranker.assembly import assemble

    await serving.serve(await assemble(options), options)


if __name__ == "__main__":
    serving.run(main, service="reranker")
