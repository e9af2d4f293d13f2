"""The `winnow` command: finds its commands, loads the one that is called, turns what goes wrong into one sentence."""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from winnow_client.cli.connection import connection_options
from winnow_client.cli.output import printable
from winnow_rpc.faults import Fault

EXIT_FAULT = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

COMMANDS = {
    "up": ("winnow_client.cli.up:up", "Run the four services in the foreground."),
    "demo": ("winnow_client.cli.demo:demo", "Start everything, index real text, search it, and stop."),
    "plan": ("winnow_client.cli.plan:plan_command", "Say what a deployment needs: memory, disk, replicas."),
    "ingest": ("winnow_client.cli.ingest:ingest", "Index documents from files, folders or standard input."),
    "search": ("winnow_client.cli.search:search", "Search a collection."),
    "get": ("winnow_client.cli.documents:get", "Show one document."),
    "documents": ("winnow_client.cli.documents:documents", "List documents."),
    "delete": ("winnow_client.cli.documents:delete", "Delete documents by id or by filter."),
    "collections": ("winnow_client.cli.collections:collections", "Make, show, re-embed and delete collections."),
    "keys": ("winnow_client.cli.keys:keys", "Make, list and revoke the API keys of a gateway."),
    "status": ("winnow_client.cli.status:status", "Show the health of the services, their models, and collections."),
}
"""Name → where the command is, and what it does: known without loading it."""

UNTRACED = ("up", "demo")
"""Commands that run services, which trace themselves."""

# For traces, when a command has done its work: nobody wants to wait for a collector that is away.
_FLUSH_SECONDS = 1.0

PLUGIN_GROUP = "winnow.commands"
"""Entry-point group in which other distributions offer commands: `name = "package.module:click_command"`."""


class Commands(click.Group):
    """The commands of the table and of plug-ins, loaded when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Ours in the order of the table, then those of plug-ins by name."""
        return [*COMMANDS, *sorted(self._plugins())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Loads a command. One of a plug-in never takes the place of ours."""
        if cmd_name in COMMANDS:
            return self._load(cmd_name, COMMANDS[cmd_name][0])
        plugin = self._plugins().get(cmd_name)
        return None if plugin is None else self._load(cmd_name, plugin.value, origin=_origin(plugin))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without loading them."""
        rows = [(name, summary) for name, (_, summary) in COMMANDS.items()]
        plugins = sorted(self._plugins().items())
        rows += [(name, f"From {_origin(plugin)}.") for name, plugin in plugins]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs, and ends the process with an exit status; what goes wrong is one sentence on standard error."""
        for each in (sys.stdout, sys.stderr):
            # What the encoding of a terminal or a file cannot hold is written as an escape.
            if isinstance(each, io.TextIOWrapper):
                each.reconfigure(errors="backslashreplace")
        inner = {"args": args, "prog_name": prog_name or "winnow", "complete_var": complete_var, **extra}
        if not standalone_mode:
            return super().main(**inner, standalone_mode=False, windows_expand_args=windows_expand_args)
        sys.exit(self._status(inner))

    def _status(self, inner: dict[str, Any]) -> int:
        try:
            result = super().main(**inner, standalone_mode=False)
        except (click.Abort, KeyboardInterrupt):
            _complain("interrupted.")
            return EXIT_INTERRUPTED
        except BrokenPipeError:
            # Whoever read our output has gone, as `head` does: nothing is wrong, but there is nobody to write to.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_FAULT
        except Exception as error:
            if os.environ.get("WINNOW_DEBUG"):
                raise
            _complain(sentence_of(error))
            return error.exit_code if isinstance(error, click.ClickException) else EXIT_FAULT
        return result if isinstance(result, int) else 0

    def _plugins(self) -> dict[str, importlib.metadata.EntryPoint]:
        offered = importlib.metadata.entry_points(group=PLUGIN_GROUP)
        return {point.name: point for point in offered if point.name not in COMMANDS}

    def _load(self, name: str, place: str, *, origin: str = "winnow-client") -> click.Command:
        module_name, _, attribute = place.partition(":")
        try:
            command = getattr(importlib.import_module(module_name), attribute)
        except ModuleNotFoundError as error:
            raise click.ClickException(
                f"the command {name!r} cannot be loaded: {origin} needs the module {error.name}, which is not there."
            ) from error
        except Exception as error:  # whatever a module does when it is imported, the other commands go on working
            raise click.ClickException(
                f"the command {name!r} cannot be loaded: {type(error).__name__} in {origin}: {error}"
            ) from error
        if not isinstance(command, click.Command):
            raise click.ClickException(f"the command {name!r} cannot be loaded: {place} is no click command")
        return command


def _origin(plugin: importlib.metadata.EntryPoint) -> str:
    """The distribution that a plug-in comes from."""
    return plugin.dist.name if plugin.dist else "a plug-in"


def sentence_of(error: Exception) -> str:
    """What a person is told of an error, with what to do where that is known."""
    match error:
        case click.UsageError() if error.ctx is not None:
            sentence = f"{_one_line(error.format_message())} See `{error.ctx.command_path} --help`."
        case click.ClickException():
            sentence = _one_line(error.format_message())
        case Fault(reason="GATEWAY_UNREACHABLE"):
            sentence = _unreachable(error)
        case Fault(reason="NO_API_KEY"):
            sentence = (
                "the gateway wants an API key: give one with --api-key-file FILE or WINNOW_API_KEY; "
                "`winnow keys` makes them."
            )
        case Fault():
            text = _one_line(error.message)
            sentence = text if text.endswith((".", "!", "?")) else f"{text} ({error.reason})."
        case OSError() if error.filename is not None:
            sentence = f"{error.filename}: {error.strerror}."
        case OSError() if error.strerror:
            # Of what has no name: standard output on a disk that is full.
            sentence = f"{error.strerror}."
        case _:
            sentence = (
                f"a mistake of ours, {type(error).__name__}: {_one_line(str(error))} (WINNOW_DEBUG=1 shows where)."
            )
    return sentence


def _unreachable(fault: Fault) -> str:
    target = fault.metadata.get("target", "its address")
    if cause := fault.metadata.get("cause"):
        return f"the gateway at {target} cannot be talked to: {cause}; `winnow --help` names the options for TLS."
    if any(words in fault.message for words in ("Socket closed", "Connection reset")):
        return (
            f"the gateway at {target} closes the connection: if it speaks TLS, say --tls, or --tls-ca FILE; or it has "
            "just ended."
        )
    return (
        f"there is no gateway at {target}: start one with `winnow up`, or name another with --gateway HOST:PORT or "
        f"WINNOW_GATEWAY."
    )


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())


def _complain(text: str) -> None:
    click.echo(f"Error: {text}", err=True)


# gRPC's own log is no news for whoever uses a command: what it means comes as a sentence of ours.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Example: winnow up, and in another terminal: winnow ingest docs ./my-documents",
)
@connection_options(read_environment=True)
@click.version_option(package_name="winnow-client", prog_name="winnow")
def main() -> None:
    """Two-stage semantic search: a bi-encoder and BM25 find candidates, a cross-encoder orders them.

    Exit status: 0 done, 1 failed, 2 wrong usage, 3 some documents were refused, 130 interrupted.

    Where OTEL_EXPORTER_OTLP_ENDPOINT names a collector, a command that calls the gateway is traced to it.
    """
    _trace(click.get_current_context())


def _trace(context: click.Context) -> None:
    """A span around the command, if the environment asks for traces; sent before the command ends."""
    command = context.invoked_subcommand
    if command in UNTRACED or command not in COMMANDS:
        return
    from winnow_rpc import telemetry, trace_export, tracing

    if not trace_export.endpoint(os.environ):
        return
    telemetry.configure_logging(service="winnow", level="warning", form="human")
    if trace_export.start("winnow-cli"):
        # In this order: what is entered last ends first.
        context.call_on_close(lambda: trace_export.stop(_FLUSH_SECONDS))
        context.with_resource(tracing.span(f"winnow {command}"))


if __name__ == "__main__":
    main()
