"""Writes docs/configuration.md from the classes of settings, so that it cannot say anything else than `--help` does.

`make docs` runs it; tests/unit/docs/test_configuration.py fails while the file is not what this would write.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from winnow_client.cli.main import COMMANDS
from winnow_client.cli.main import main as winnow
from winnow_embedder.settings import EmbedderSettings
from winnow_gateway.settings import GatewaySettings
from winnow_index.settings import IndexSettings
from winnow_inference.settings import InferenceSettings
from winnow_reranker.settings import RerankerSettings
from winnow_rpc.settings import ServingSettings

TARGET = Path(__file__).with_name("configuration.md")

_SECTIONS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("Every service", "The gateway, the embedder, the reranker and the index all have these.", ServingSettings),
    ("Embedder and reranker", "Both model services have these.", InferenceSettings),
    ("Embedder", "Variables begin with `WINNOW_EMBEDDER_`.", EmbedderSettings),
    ("Reranker", "Variables begin with `WINNOW_RERANKER_`.", RerankerSettings),
    ("Gateway", "Variables begin with `WINNOW_GATEWAY_`.", GatewaySettings),
    ("Index", "Variables begin with `WINNOW_INDEX_`.", IndexSettings),
)

_HEAD = """# Configuration

This file is generated: `make docs` writes it from the code.

Every setting of a service is a flag and an environment variable. `max_searches` of the gateway is `--max-searches` and
`WINNOW_GATEWAY_MAX_SEARCHES`. A flag goes before a variable, a variable before the default. What is on or off is a flag
without a value, `--reflection` or `--no-reflection`, and as a variable `true` or `false`. A value that is refused, or a
flag or variable that is not known, stops the service at its start with a sentence that names it.
`python -m winnow_gateway --help` lists the same, as do `winnow_embedder`, `winnow_reranker`, `winnow_index`.

Settings that have more to say are in [security](security.md) (TLS, API keys, limits on connections) and in
[operations](operations.md). What Compose reads from `.env` is in [`.env.example`](../.env.example). Traces are turned
on by OpenTelemetry's own variables, such as `OTEL_EXPORTER_OTLP_ENDPOINT`. "–" means: not set.
"""


def contents() -> str:
    """The whole file."""
    names = [title for title, _, _ in _SECTIONS] + ["The winnow command"]
    links = " · ".join(f"[{name}](#{name.lower().replace(' ', '-')})" for name in names)
    parts = [_HEAD, links + "\n"]
    for title, introduction, kind in _SECTIONS:
        parts.append(f"## {title}\n\n{introduction}\n\n| setting | default | values | meaning |\n|---|---|---|---|")
        # Each service has a port of its own.
        own = [name for name in kind.__annotations__ if (kind, name) != (ServingSettings, "port")]
        parts += [_row(name, kind.model_fields[name]) for name in own if name in kind.model_fields]
        parts.append("")
    parts.append("## The winnow command\n\n| variable | option | meaning |\n|---|---|---|")
    parts += [
        f"| `{variable}` | `{option}` | {meaning} |" for (variable, option), meaning in sorted(_variables().items())
    ]
    return "\n".join(parts) + "\n"


def _row(name: str, field: FieldInfo) -> str:
    meaning = _one_line(field.description or "")
    return f"| `{name}` | {_default(field)} | {_values(field)} | {meaning} |"


def _default(field: FieldInfo) -> str:
    default = field.default
    assert default is not PydanticUndefined, "a service starts without any setting"
    if default is None or default in ("", ()):
        return "–"
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _values(field: FieldInfo) -> str:
    if choices := _choices(field.annotation):
        return ", ".join(f"`{choice}`" for choice in choices)
    bounds = [
        f"{sign} {_number(getattr(constraint, attribute))}"
        for kind, attribute, sign in ((Ge, "ge", "≥"), (Gt, "gt", ">"), (Le, "le", "≤"), (Lt, "lt", "<"))
        for constraint in field.metadata
        if isinstance(constraint, kind)
    ]
    if bounds:
        return ", ".join(bounds)
    named = str(field.annotation)
    return next((said for part, said in _SAID if part in named), "text")


_SAID = (("bool", "on, off"), ("Path", "path"), ("tuple", "JSON list"), ("SecretStr", "secret"), ("int", "number"))


def _choices(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return next((found for each in get_args(annotation) if (found := _choices(each))), ())
    return ()


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}"


def _variables() -> dict[tuple[str, str], str]:
    """Variable and option of the commands of Winnow's own that read one → what it means."""
    found: dict[tuple[str, str], str] = {}
    context = click.Context(winnow)
    waiting: list[click.Command | None] = [winnow, *(winnow.get_command(context, name) for name in COMMANDS)]
    while waiting:
        command = waiting.pop()
        if isinstance(command, click.Group) and command is not winnow:
            waiting += command.commands.values()
        for option in command.params if command else ():
            if isinstance(option, click.Option) and isinstance(option.envvar, str):
                # The help of some options names the variable, for those who read it on a terminal.
                meaning = _one_line(option.help or "").removesuffix(f"[{option.envvar}]").strip()
                key = (option.envvar, option.opts[0])
                found[key] = max(found.get(key, ""), meaning, key=len)
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    TARGET.write_text(contents(), encoding="utf-8")
