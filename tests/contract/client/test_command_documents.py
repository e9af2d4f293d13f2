"""Documents and collections by commands: shown, listed, made, deleted."""

from __future__ import annotations

import json
import os
import pty
import subprocess

import pytest

from tests.contract.client.commands import PYTHON, Winnow
from tests.contract.client.gateway_fake import FakeGateway, Served
from winnow_client import Client


def test_a_document_is_shown(winnow: Winnow, papers: Client) -> None:
    shown = winnow("get", "papers", "a").stdout
    for part in ("Graphs", "a, written 2024-05-01 12:30:00 UTC", "year: 2016", 'lang: "en"', "graphs of small worlds"):
        assert part in shown
    assert json.loads(winnow("get", "papers", "a", "--json").stdout) == {
        "id": "a",
        "title": "Graphs",
        "text": "graphs of small worlds",
        "metadata": {"year": 2016, "lang": "en"},
        "update_time": "2024-05-01T12:30:00Z",
    }


def test_documents_are_listed(winnow: Winnow, papers: Client, gateway: FakeGateway) -> None:
    listed = winnow("documents", "papers", "--limit", "2").stdout
    assert "There are more than these 2" in listed
    assert ("Graphs" in listed, "no title" in listed) == (True, False)
    assert gateway.requests[-1].page_size == 3
    lines = winnow("documents", "papers", "--where", "lang=en", "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a", "b"]
    assert "There are no such documents" in winnow("documents", "papers", "--where", "lang=fr").stdout


def test_documents_are_deleted_by_id_without_a_question(winnow: Winnow, papers: Client) -> None:
    assert winnow("delete", "papers", "a", "unknown").stdout == "Deleted 1 document from papers.\n"
    assert json.loads(winnow("delete", "papers", "b", "--json").stdout) == {
        "collection": "papers",
        "deleted_document_count": 1,
    }


def test_deleting_by_filter_needs_yes_where_nobody_can_answer(winnow: Winnow, papers: Client) -> None:
    refused = winnow("delete", "papers", "--where", "year<2000")
    assert refused.exit_code == 2
    assert "say --yes" in refused.stderr
    assert papers.get_collection("papers").document_count == 3
    assert winnow("delete", "papers", "--where", "year<2000", "--yes").stdout == "Deleted 2 documents from papers.\n"


@pytest.mark.parametrize("arguments", [("delete", "papers"), ("delete", "papers", "a", "--where", "year<2000")])
def test_deleting_needs_ids_or_a_filter_and_not_both(
    winnow: Winnow, papers: Client, arguments: tuple[str, ...]
) -> None:
    refused = winnow(*arguments)
    assert (refused.exit_code, "one of the two" in refused.stderr) == (2, True)
    assert papers.get_collection("papers").document_count == 3


@pytest.mark.parametrize(("answer", "status", "left"), [(b"y\n", 0, 0), (b"n\n", 130, 1)])
def test_deleting_a_collection_asks_whoever_sits_at_the_terminal(
    papers: Client, served: Served, answer: bytes, status: int, left: int
) -> None:
    here, there = pty.openpty()
    try:
        os.write(here, answer)
        command = [*PYTHON, "collections", "delete", "papers", "--gateway", served.address]
        done = subprocess.run(command, stdin=there, capture_output=True, text=True, timeout=30, check=False)
    finally:
        os.close(here)
        os.close(there)
    assert "Delete the collection 'papers' and its 3 documents? [y/N]" in done.stderr
    assert (done.returncode, len(list(papers.list_collections()))) == (status, left)


def test_collections_are_made_shown_listed_and_deleted(winnow: Winnow, gateway: FakeGateway) -> None:
    made = winnow("collections", "create", "notes", "--metadata-field", "author.name:keyword", "--m", "32")
    assert made.stdout.startswith("Created notes, for vectors of 3 components by words and for BM25 (english, 128 ")
    assert (gateway.requests[-1].hnsw.m, gateway.requests[-1].hnsw.ef_construct) == (32, 0)
    shown = winnow("collections", "show", "notes").stdout
    assert ("author.name (keyword)" in shown, "2024-05-01 12:00:00 UTC" in shown) == (True, True)
    assert json.loads(winnow("collections", "show", "notes", "--json").stdout)["metadata_fields"] == [
        {"key": "author.name", "type": "keyword"}
    ]
    assert winnow("collections", "create", "more").exit_code == 0
    assert [json.loads(line)["name"] for line in winnow("collections", "list", "--json").stdout.splitlines()] == [
        "more",
        "notes",
    ]
    assert "notes" in winnow("collections", "list").stdout
    assert winnow("collections", "delete", "notes").exit_code == 2
    assert winnow("collections", "delete", "notes", "--yes").stdout == "Deleted notes and its 0 documents.\n"
    assert winnow("collections", "delete", "more", "--yes", "--json").exit_code == 0
    assert "There are no collections." in winnow("collections", "list").stdout


def test_a_collection_may_have_bm25_in_a_language_or_not_at_all(winnow: Winnow, gateway: FakeGateway) -> None:
    assert winnow("collections", "create", "a", "--language", "german", "--average-words", "20").exit_code == 0
    assert "german, 20 words on average" in winnow("collections", "show", "a").stdout
    made = winnow("collections", "create", "b", "--without-lexical")
    assert made.stdout == "Created b, for vectors of 3 components by words.\n"
    assert "none" in winnow("collections", "show", "b").stdout
    assert json.loads(winnow("collections", "show", "b", "--json").stdout)["lexical"] is None
    both = winnow("collections", "create", "c", "--without-lexical", "--language", "german")
    assert (both.exit_code, "goes with neither" in both.stderr) == (2, True)
    assert list(gateway.held) == ["a", "b"]


@pytest.mark.parametrize("field", ["year", "year:number", ":integer"])
def test_a_metadata_field_needs_a_type_that_exists(winnow: Winnow, field: str) -> None:
    refused = winnow("collections", "create", "c", "--metadata-field", field)
    assert (refused.exit_code, "is no NAME:TYPE" in refused.stderr) == (2, True)
