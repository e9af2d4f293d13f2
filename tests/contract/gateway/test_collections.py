"""Collections over the search contract, on a real connection."""

import pytest

from tests.contract.gateway.calls import TEXTS, fault, fill, violated
from tests.contract.gateway.conftest import Gateway
from winnow.search.v1 import collections_pb2 as c
from winnow_rpc import faults


async def test_a_collection_is_bound_to_the_model_that_is_served(gateway: Gateway) -> None:
    request = c.CreateCollectionRequest(
        name="docs",
        description="all of them",
        metadata_fields=[c.MetadataField(key="year", type=c.METADATA_TYPE_INTEGER)],
        hnsw=c.HnswConfig(m=32),
    )
    made = (await gateway.stub.CreateCollection(request)).collection
    assert made.embedder_fingerprint == gateway.embedder.served.fingerprint
    assert made.hnsw == c.HnswConfig(m=32, ef_construct=128)
    assert (made.similarity, made.dimension) == (c.SIMILARITY_COSINE, 64)
    got = (await gateway.stub.GetCollection(c.GetCollectionRequest(name="docs"))).collection
    assert got == made


async def test_a_collection_has_bm25_in_english_unless_told_otherwise(gateway: Gateway) -> None:
    made = (await gateway.stub.CreateCollection(c.CreateCollectionRequest(name="a"))).collection
    assert made.lexical == c.LexicalConfig(language="english", average_words=128)
    request = c.CreateCollectionRequest(name="b", lexical=c.LexicalConfig(language="german", average_words=10))
    assert (await gateway.stub.CreateCollection(request)).collection.lexical == request.lexical
    request = c.CreateCollectionRequest(name="c", without_lexical=True)
    assert not (await gateway.stub.CreateCollection(request)).collection.HasField("lexical")
    assert not (await gateway.stub.GetCollection(c.GetCollectionRequest(name="c"))).collection.HasField("lexical")


async def test_collections_are_listed_by_name_in_pages(gateway: Gateway) -> None:
    for name in ("c", "a", "e", "b", "d"):
        await gateway.stub.CreateCollection(c.CreateCollectionRequest(name=name))
    names: list[list[str]] = []
    token = ""
    while True:
        page = await gateway.stub.ListCollections(c.ListCollectionsRequest(page_size=2, page_token=token))
        names.append([each.name for each in page.collections])
        token = page.next_page_token
        if not token:
            break
    assert names == [["a", "b"], ["c", "d"], ["e"]]


async def test_deleting_a_collection_says_how_much_was_in_it(gateway: Gateway) -> None:
    await fill(gateway)
    deleted = await gateway.stub.DeleteCollection(c.DeleteCollectionRequest(name="docs"))
    assert deleted.deleted_document_count == len(TEXTS)
    assert isinstance(await fault(gateway.stub.GetCollection(c.GetCollectionRequest(name="docs"))), faults.NotFound)


@pytest.mark.parametrize("name", ["", "-a", "a/b", "ä", "a" * 129, "a b"])
async def test_a_bad_collection_name_is_refused(gateway: Gateway, name: str) -> None:
    assert violated(await fault(gateway.stub.CreateCollection(c.CreateCollectionRequest(name=name)))) == "name"


async def test_a_name_that_is_taken_is_refused(gateway: Gateway) -> None:
    await gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs"))
    came = await fault(gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs")))
    assert isinstance(came, faults.AlreadyExists)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (c.CreateCollectionRequest(name="x", hnsw=c.HnswConfig(m=3)), "hnsw.m"),
        (c.CreateCollectionRequest(name="x", hnsw=c.HnswConfig(ef_construct=5000)), "hnsw.ef_construct"),
        (c.CreateCollectionRequest(name="x", description="d" * 1025), "description"),
        (c.CreateCollectionRequest(name="x", lexical=c.LexicalConfig(language="klingon")), "lexical.language"),
        (c.CreateCollectionRequest(name="x", lexical=c.LexicalConfig(language="English")), "lexical.language"),
        (c.CreateCollectionRequest(name="x", lexical=c.LexicalConfig(average_words=-1)), "lexical.average_words"),
        (c.CreateCollectionRequest(name="x", lexical=c.LexicalConfig(), without_lexical=True), "lexical"),
        (c.CreateCollectionRequest(name="x", metadata_fields=[c.MetadataField(key="k")]), "metadata_fields[0].type"),
        (
            c.CreateCollectionRequest(name="x", metadata_fields=[c.MetadataField(key="a..b", type=1)]),
            "metadata_fields[0].key",
        ),
        (
            c.CreateCollectionRequest(name="x", metadata_fields=[c.MetadataField(key="k", type=1)] * 2),
            "metadata_fields[1].key",
        ),
        (
            c.CreateCollectionRequest(
                name="x", metadata_fields=[c.MetadataField(key=f"k{i}", type=1) for i in range(65)]
            ),
            "metadata_fields",
        ),
    ],
)
async def test_a_bad_collection_is_refused_by_field(
    gateway: Gateway, request_: c.CreateCollectionRequest, field: str
) -> None:
    assert violated(await fault(gateway.stub.CreateCollection(request_))) == field


@pytest.mark.parametrize("name", ["x" * 20_000, "語" * 20_000])
async def test_a_name_of_any_length_is_refused_for_what_it_is(gateway: Gateway, name: str) -> None:
    came = await fault(gateway.stub.GetCollection(c.GetCollectionRequest(name=name)))
    assert violated(came) == "name"
    assert "is no collection name: 1 to 128" in came.message
