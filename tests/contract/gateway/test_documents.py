"""Reading, listing and deleting documents over the search contract, on a real connection."""

import pytest

from tests.contract.gateway.calls import TEXTS, fault, fill, ingest, violated
from tests.contract.gateway.conftest import Gateway
from winnow.search.v1 import collections_pb2 as c
from winnow.search.v1 import documents_pb2 as d
from winnow_gateway import paging
from winnow_rpc import faults


async def test_a_document_comes_back_with_its_metadata_whole(gateway: Gateway) -> None:
    await gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs"))
    document = d.Document(id="ä/1 #?", title="Title", text="Text ☕")
    document.metadata.update({"int": 3, "float": 0.5, "list": [1, None, {"deep": True}], "big": 2.0**60})
    await ingest(gateway, [document])
    response = await gateway.stub.GetDocument(d.GetDocumentRequest(collection="docs", id="ä/1 #?"))
    assert response.document == document
    assert response.update_time.seconds > 0
    stored = gateway.index.held["docs"].points["ä/1 #?"][0].document.metadata
    assert isinstance(stored["int"], int)
    assert isinstance(stored["big"], float)


async def test_a_document_that_is_not_there_is_not_found(gateway: Gateway) -> None:
    await fill(gateway)
    came = await fault(gateway.stub.GetDocument(d.GetDocumentRequest(collection="docs", id="unknown")))
    assert isinstance(came, faults.NotFound)
    assert came.reason == "NO_DOCUMENT"
    assert came.metadata == {"collection": "docs", "id": "unknown"}


async def test_documents_are_listed_in_pages_with_what_was_asked_for(gateway: Gateway) -> None:
    await fill(gateway)
    seen: list[str] = []
    token = ""
    while True:
        page = await gateway.stub.ListDocuments(
            d.ListDocumentsRequest(
                collection="docs", page_size=3, page_token=token, view=d.DocumentView(omit_text=True)
            )
        )
        assert all(not each.text and each.metadata["kind"] == "animal" for each in page.documents)
        seen += [each.id for each in page.documents]
        token = page.next_page_token
        if not token:
            break
    assert sorted(seen) == sorted(TEXTS)


async def test_documents_are_deleted_by_id_or_by_filter(gateway: Gateway) -> None:
    await fill(gateway)
    by_id = d.DeleteDocumentsRequest(collection="docs", ids=["cats", "unknown", "cats"])
    assert (await gateway.stub.DeleteDocuments(by_id)).deleted_document_count == 1
    large = d.Condition(range=d.RangeCondition(key="number", at_least=2))
    by_filter = d.DeleteDocumentsRequest(collection="docs", filter=d.Filter(must=[large]))
    assert (await gateway.stub.DeleteDocuments(by_filter)).deleted_document_count == 2
    assert list(gateway.index.held["docs"].points) == ["dogs"]


@pytest.mark.parametrize("request_", [
    d.DeleteDocumentsRequest(collection="docs"),
    d.DeleteDocumentsRequest(collection="docs", filter=d.Filter()),
    d.DeleteDocumentsRequest(
        collection="docs", ids=["a"], filter=d.Filter(must=[d.Condition(exists=d.ExistsCondition(key="k"))])
    ),
])  # fmt: skip
async def test_deleting_wants_ids_or_a_filter_and_not_both(
    gateway: Gateway, request_: d.DeleteDocumentsRequest
) -> None:
    assert violated(await fault(gateway.stub.DeleteDocuments(request_))) == "ids"


async def test_a_page_token_that_no_list_gave_is_refused(gateway: Gateway) -> None:
    await fill(gateway)
    token = paging.write_token("documents", "nonsense")
    came = await fault(gateway.stub.ListDocuments(d.ListDocumentsRequest(collection="docs", page_token=token)))
    assert (violated(came), came.reason) == ("page_token", "BAD_PAGE_TOKEN")
