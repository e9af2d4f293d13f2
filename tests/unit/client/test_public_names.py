from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import winnow_client
from winnow_client import AsyncClient, Client, SearchOptions
from winnow_client.asynchronous import NOT_REPEATABLE, SERVICE
from winnow_client.config import ClientConfig, IngestConfig

PUBLIC = [
    "Acknowledgement", "AsyncClient", "Client", "ClientConfig", "ClientTls", "Collection", "Degradation",
    "DegradationKind", "DepthPolicy", "Document", "Effort", "Fault", "Filter", "Hit", "HnswConfig", "IndexState",
    "IngestConfig", "IngestOutcome", "LexicalConfig", "MetadataField", "MetadataType", "RankFusion", "RankMixing",
    "RankingPolicy", "ReembedPhase", "ReembedProgress", "Retries", "RetrievalKind", "ScoreMixing", "SearchMode",
    "SearchOptions", "SearchResult", "SearchState", "SearchTiming", "Similarity", "StageResult", "StoredDocument",
    "field", "ids",
]  # fmt: skip

METHODS = {
    "CreateCollection": "create_collection",
    "GetCollection": "get_collection",
    "ListCollections": "list_collections",
    "DeleteCollection": "delete_collection",
    "ReembedCollection": "reembed_collection",
    "IngestDocuments": "ingest",
    "GetDocument": "get_document",
    "ListDocuments": "list_documents",
    "DeleteDocuments": "delete_documents",
    "Search": "search",
    "StreamSearch": "stream_search",
}


def test_the_public_names_are_these_and_each_can_be_imported() -> None:
    assert winnow_client.__all__ == PUBLIC
    for name in PUBLIC:
        assert getattr(winnow_client, name) is not None
    assert set(PUBLIC) <= set(dir(winnow_client))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = winnow_client.nothing


def test_every_rpc_of_the_contract_has_a_method_in_both_clients() -> None:
    assert {method.name for method in SERVICE.methods} == set(METHODS)
    for client in (AsyncClient, Client):
        public = {name for name, member in vars(client).items() if callable(member) and not name.startswith("_")}
        assert public == {*METHODS.values(), "close"}
    assert set(METHODS) >= NOT_REPEATABLE


@pytest.mark.parametrize("name", METHODS.values())
def test_both_clients_have_the_same_parameters_and_the_same_words(name: str) -> None:
    ours, derived = getattr(AsyncClient, name), getattr(Client, name)
    assert inspect.signature(derived).parameters == inspect.signature(ours).parameters
    assert inspect.getdoc(derived) == inspect.getdoc(ours)
    assert "timeout" in inspect.signature(derived).parameters
    assert "Async" not in str(inspect.signature(derived).return_annotation)
    assert derived.__qualname__ == f"Client.{name}"
    assert not inspect.iscoroutinefunction(derived)


def test_a_watched_search_can_be_told_all_that_a_search_can() -> None:
    named = set(inspect.signature(AsyncClient.search).parameters) - {"self", "collection", "query", "timeout"}
    assert set(SearchOptions.__annotations__) == named


@pytest.mark.parametrize("kind", [ClientConfig, IngestConfig])
def test_every_field_of_the_configuration_is_documented(kind: type) -> None:
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    documented = {
        here.target.id
        for here, after in zip(body.body, body.body[1:], strict=False)
        if isinstance(here, ast.AnnAssign) and isinstance(here.target, ast.Name)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    }
    assert documented == set(get_type_hints(kind))


def test_the_help_of_the_command_loads_neither_grpc_nor_rich() -> None:
    code = (
        "import sys\nfrom winnow_client.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'grpc', 'google.protobuf', 'rich', 'pyarrow', 'anyio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.splitlines()[-1] == "[]"


def test_no_module_of_the_client_is_longer_than_fits_in_a_head() -> None:
    package = Path(winnow_client.__file__).parent
    long = {path.name: n for path in package.rglob("*.py") if (n := len(path.read_text().splitlines())) > 420}
    assert long == {}
