"""`winnow bench`: a command for each benchmark, loaded when it is called. A plug-in of the `winnow` command."""

from __future__ import annotations

import importlib

import click

COMMANDS = {
    "path": ("winnow_lab.bench_path:path", "Measure the whole path: start, ingest and search."),
    "index": ("winnow_lab.bench_index:index", "Measure the index alone: ingest, building, recall and latency."),
    "search": ("winnow_lab.bench_search:search", "Measure searches under budgets: time kept and ranking quality."),
    "operating": (
        "winnow_lab.bench_operating.command:operating",
        "Measure what running it observed costs a search.",
    ),
    "containers": ("winnow_lab.bench_containers:containers", "Measure the images: cold start, memory, replicas."),
    "training": ("winnow_lab.bench_training.command:training", "Measure training beside the plain script."),
    "inference": ("winnow_lab.bench_inference.command:inference", "Measure the inference engine beside other engines."),
}
"""Name → where the command is, and what it does: known without loading it."""


class Benchmarks(click.Group):
    """The commands of the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Loads one."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise click.ClickException(
                f"{cmd_name} cannot be measured: the module {error.name} is not installed."
            ) from error
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists them without loading any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=Benchmarks, epilog="Example: winnow bench inference --texts 256 --only embed")
def bench() -> None:
    """Measure Winnow on this machine.

    Every report names the machine and is kept as JSON. Machines differ and shared ones drift: compare ratios.
    """
