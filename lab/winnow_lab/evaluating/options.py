"""Options that `winnow evaluate`, `advise` and `promote` have in common: which set, which models, which services."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from winnow_client.cli.connection import Connection

if TYPE_CHECKING:
    from winnow_lab.evaluating.evaluation import Where

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_OF_SET = ("split", "queries", "prefix", "skip_missing")


class DepthsType(click.ParamType[tuple[int, ...]]):
    """Depths as "20,50,100"; "0" for none."""

    name = "N,N,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Each once, rising."""
        if isinstance(value, tuple):
            return value
        try:
            depths = sorted({int(part) for part in str(value).split(",") if part.strip()} - {0})
        except ValueError:
            self.fail(f"{value!r} holds what is no number: write depths as 20,50,100, or 0 for none.", param, ctx)
        if depths and not 1 <= depths[0] <= depths[-1] <= 1000:
            self.fail(f"{value!r}: depths lie between 1 and 1,000.", param, ctx)
        return tuple(depths)


def set_options(*, queries: int) -> Callable[[FunctionT], FunctionT]:
    """Adds what says how a judged set is read; `queries`: how many of it by default."""

    def decorate(function: FunctionT) -> FunctionT:
        options = (
            click.option("--split", default="test", show_default=True, help="Which of the set's splits to use."),
            click.option(
                "--queries",
                type=click.IntRange(min=0),
                default=queries,
                show_default=True,
                help="Judge at most so many of a set, the same ones each time; 0: all.",
            ),
            click.option("--prefix", default="", help="Take only documents whose id begins with this."),
            click.option("--skip-missing", is_flag=True, help="Leave out judgements of documents that are not there."),
        )
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def of_set(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What `set_options` added, as `read_set` takes it."""
    return {name: chosen[name] for name in _OF_SET}


def model_options(function: FunctionT) -> FunctionT:
    """Adds --model and --reranker-model."""
    function = click.option(
        "--reranker-model", default="", help="Cross-encoder by path or hub id, for what is started here."
    )(function)
    return click.option("--model", default="", help="Bi-encoder by path or hub id, for what is started here.")(function)


def gateway_is_given(ctx: click.Context) -> bool:
    """Whether the user named a gateway, after the command, before it, or in the environment."""
    given = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    each: click.Context | None = ctx
    while each is not None:
        if each.get_parameter_source("gateway") in given:
            return True
        each = each.parent
    return False


def where_of(ctx: click.Context, connection: Connection, *, model: str, reranker_model: str, out: Path) -> Where:
    """What is to answer: the gateway that was named, or services that are started. Raises UsageError for both."""
    from winnow_lab.evaluating.evaluation import Where

    given = gateway_is_given(ctx)
    if given and (model or reranker_model):
        raise click.UsageError("a running gateway has its models: --model and --reranker-model go without it.", ctx)
    return Where(
        gateway=connection.config if given else None, model=model, reranker_model=reranker_model, data=out / "index"
    )
