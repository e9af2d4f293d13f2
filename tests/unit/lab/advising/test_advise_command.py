"""`winnow advise` over a gateway that is made up."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result

from tests.unit.lab.evaluating.fake_gateway import FakeClient
from tests.unit.lab.evaluating.made_up import DOCUMENTS, write_set
from winnow_client import AsyncClient
from winnow_client.cli.main import main
from winnow_lab.evaluating import evaluation
from winnow_lab.evaluating.through_gateway import ThroughGateway

WORDS = list(DOCUMENTS)
QUERIES = {f"q{at:02}": f"where is number {at}" for at in range(20)}

Advise = Callable[..., Result]


class TimedClient(FakeClient):
    """One whose answers say what they took."""

    async def get_collection(self, name: str) -> Any:
        return SimpleNamespace(**vars(await super().get_collection(name)), dimension=16)

    async def search(self, collection: str, query: str, **options: Any) -> Any:
        found = await super().search(collection, query, **{"limit": 10, **options})
        found.reranked_count = sum(hit.rerank is not None for hit in found.hits)
        found.timing = SimpleNamespace(embed_token_count=5, embed_micros=9, rerank_token_count=50, rerank_micros=90)
        return found


@pytest.fixture
def client() -> TimedClient:
    return TimedClient()


@pytest.fixture
def advise(client: TimedClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Advise:
    @asynccontextmanager
    async def opened(where: object) -> AsyncIterator[ThroughGateway]:
        yield ThroughGateway(cast("AsyncClient", client), "somewhere:1")

    monkeypatch.setattr(evaluation, "opened", opened)
    qrels = {id_: {WORDS[at % len(WORDS)]: 1} for at, id_ in enumerate(QUERIES)}
    data = write_set(tmp_path / "made-up", queries=QUERIES, qrels=qrels)
    given = ["advise", str(data), "--budget", "30s", "--timed", "1", "--out", str(tmp_path / "out"), "--json"]
    return lambda *more: CliRunner().invoke(main, [*given, *more])


def test_advice_that_was_interrupted_goes_on(advise: Advise, client: TimedClient, tmp_path: Path) -> None:
    client.fails_at = {QUERIES["q12"]}
    assert advise().exit_code == 1
    client.fails_at, client.queries = set(), []
    resumed = advise()
    assert resumed.exit_code == 0, resumed.output
    assert "12 of 20 queries were answered before the interruption and are not asked again" in resumed.stderr
    # The first one says which models answer, and is the one that is timed.
    assert not {QUERIES[f"q{at:02}"] for at in range(1, 12)} & set(client.queries)
    assert list((tmp_path / "out" / "unfinished").iterdir()) == [], "it is kept for good elsewhere"
    whole = json.loads(advise().stdout)
    assert [each["quality"] for each in json.loads(resumed.stdout)["options"]] == [
        each["quality"] for each in whole["options"]
    ]


def test_all_is_asked_anew_if_that_is_wanted(advise: Advise, client: TimedClient) -> None:
    client.fails_at = {QUERIES["q12"]}
    advise()
    client.fails_at, client.queries = set(), []
    assert advise("--overwrite").exit_code == 0
    assert set(client.queries) == set(QUERIES.values())


def test_depths_of_none_are_none(advise: Advise, client: TimedClient) -> None:
    result = advise("--depths", "0")
    assert result.exit_code == 0, result.output
    assert {each["kind"] for each in json.loads(result.stdout)["options"]} == {"retrieve", "lexical", "exhaustive"}


def test_depths_beyond_a_small_set_are_all_of_it(advise: Advise) -> None:
    options = json.loads(advise("--depths", "50,100").stdout)["options"]
    assert {each["depth"] for each in options if each["kind"] == "two-stage"} == {len(DOCUMENTS)}
