"""`winnow search`: what it asks for, and what it shows."""

from __future__ import annotations

import json

import pytest

from tests.contract.client.commands import Winnow
from tests.contract.client.gateway_fake import FakeGateway
from winnow_client import Client, Document


def test_a_search_shows_both_stages_and_where_the_time_went(winnow: Winnow, papers: Client) -> None:
    result = winnow("search", "papers", "small graphs")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "retrieved" in lines[1]
    assert "reranked" in lines[1]
    [first] = [line for line in lines if "Graphs" in line]
    assert first.split()[:3] == ["1", "Graphs", "a"]
    assert first.split()[-7:] == ["4", "6", "1", "0.2000", "1", "2.0000", "50%"]
    [other] = [line for line in lines if "Words" in line]
    assert other.split()[-7:-5] == ["6", "–"], "BM25 did not find it"
    assert "graphs of small worlds" in result.stdout
    how, _, spent = lines[-1].partition(" (")
    assert how == "two-stage, hybrid: 3 candidates, 3 reranked, 4.2 ms"
    assert spent == "embed 1.1 ms, retrieve 0.9 ms, rerank 2.0 ms, gateway 0.2 ms)"
    assert result.stderr == ""


def test_a_search_for_machines_is_one_object(winnow: Winnow, papers: Client) -> None:
    result = winnow("search", "papers", "graphs", "--mode", "retrieve", "--json")
    [line] = result.stdout.splitlines()
    answer = json.loads(line)
    assert answer["mode"] == "retrieve"
    assert answer["hits"][0]["document"] == {
        "id": "a",
        "title": "Graphs",
        "text": "graphs of small worlds",
        "metadata": {"year": 2016, "lang": "en"},
    }
    assert answer["hits"][0]["rerank"] is None
    assert answer["timing"]["total_micros"] == 4200


def test_every_option_of_a_search_reaches_the_gateway(winnow: Winnow, papers: Client, gateway: FakeGateway) -> None:
    options = (
        "--limit 2 --retrieval dense --depth 7 --ef 99 --exact --ranking reranker --min-score 0.5 --min-rerank-score -2"
        " --min-probability 0.5 --budget 200ms --depth-policy floor --effort economy --require-rerank"
    )
    result = winnow("search", "papers", "graphs", *options.split(), "--where", "year>=1990", "--where", "lang=en")
    assert result.exit_code == 0, result.stderr
    request = gateway.requests[-1]
    assert (request.limit, request.depth, request.mode, request.ranking_policy) == (2, 7, 5, 1)
    assert (request.budget_micros, request.depth_policy, request.effort) == (200_000, 2, 2)
    assert request.require_rerank
    assert (request.retrieval.ef, request.retrieval.exact, request.retrieval.kind) == (99, True, 1)
    assert (request.min_retrieval_score, request.min_rerank_score) == (0.5, -2)
    assert request.min_probability == 0.5
    assert [condition.WhichOneof("condition") for condition in request.filter.must] == ["range", "match"]


@pytest.mark.parametrize(
    ("written", "micros"), [("200ms", 200_000), ("1.5s", 1_500_000), ("2", 2_000_000), (".5 s", 500_000), ("1m", 6e7)]
)
def test_a_budget_is_written_as_people_write_times(
    winnow: Winnow, papers: Client, gateway: FakeGateway, written: str, micros: int
) -> None:
    assert winnow("search", "papers", "graphs", "--budget", written).exit_code == 0
    assert gateway.requests[-1].budget_micros == micros


@pytest.mark.parametrize("written", ["0", "0ms", "-5ms", "soon", "1 parsec", "nan", "inf", ""])
def test_what_is_no_time_is_refused_with_an_example(winnow: Winnow, papers: Client, written: str) -> None:
    result = winnow("search", "papers", "graphs", "--budget", written)
    assert result.exit_code == 2
    assert "is no time" in result.stderr


def test_a_watched_search_is_one_state_a_line_for_machines_and_the_last_one_in_a_file(
    winnow: Winnow, papers: Client
) -> None:
    result = winnow("search", "papers", "graphs", "--stream", "--json")
    states = [json.loads(line) for line in result.stdout.splitlines()]
    assert [state["final"] for state in states] == [False, True]
    assert [state["result"]["reranked_count"] for state in states] == [0, 3]
    watched, plain = winnow("search", "papers", "graphs", "--stream"), winnow("search", "papers", "graphs")
    assert watched.exit_code == 0
    assert watched.stdout.split() == plain.stdout.split()


def test_words_alone_are_searched_by_their_mode(winnow: Winnow, papers: Client) -> None:
    result = winnow("search", "papers", "graphs", "--mode", "lexical")
    assert result.stdout.splitlines()[-1].startswith("lexical: 3 candidates, 0 reranked")
    assert winnow("search", "papers", "graphs", "--retrieval", "lexical").exit_code == 2


def test_the_query_can_come_from_standard_input(winnow: Winnow, papers: Client, gateway: FakeGateway) -> None:
    assert winnow("search", "papers", "-", stdin="what are graphs?\n").exit_code == 0
    assert gateway.requests[-1].query == "what are graphs?\n"
    refused = winnow("search", "papers", "-", stdin=b"\xff")
    assert (refused.exit_code, "not UTF-8" in refused.stderr) == (2, True)


def test_what_is_less_than_asked_for_is_said(winnow: Winnow, papers: Client) -> None:
    result = winnow("search", "papers", "long " * 300)
    assert result.stdout.splitlines()[-1] == "Less than asked for: the query was cut (TOO_LONG)"
    assert "Nothing was found." in winnow("search", "papers", "graphs", "--where", "year>3000").stdout


def test_a_document_cannot_steer_the_terminal(winnow: Winnow, papers: Client) -> None:
    evil = Document(id="evil\x1b[2J", title="\x1b]0;title\x07 [bold]x[/bold]", text="\x1b[31mred\x9b")
    assert len(list(papers.ingest("papers", [evil]))) == 1
    for arguments in (("search", "papers", "red"), ("get", "papers", evil.id), ("documents", "papers")):
        result = winnow(*arguments)
        assert result.exit_code == 0
        assert "[bold]x[/bold]" in result.stdout
        assert not {"\x1b", "\x07", "\x9b"} & set(result.stdout)
