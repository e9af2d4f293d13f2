"""Words and vectors together, through the real processes: what each finds alone, and what both find."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from winnow_client import AsyncClient, Document, LexicalConfig, RetrievalKind, SearchMode
from winnow_rpc.faults import FailedPrecondition

FILLER = " ".join(["The committee met on Monday and talked about the budget of the coming year."] * 40)
DOCUMENTS = [
    Document(id="tea", title="Green tea", text="Water for green tea should not boil."),
    Document(id="dog", text="A puppy is a young dog."),
    # Far past what the embedder reads of a text.
    Document(id="minutes", title="Minutes", text=f"{FILLER} The error code is XKCD-4711."),
    Document(id="stop", text="to be or not to be"),
]


@pytest.fixture
async def client(stack_address: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(stack_address) as made:
        yield made
        for collection in [each.name async for each in made.list_collections()]:
            if collection.startswith("hybrid"):
                await made.delete_collection(collection)


async def fill(client: AsyncClient, collection: str, **how: object) -> None:
    await client.create_collection(collection, **how)  # type: ignore[arg-type]
    async for acknowledged in client.ingest(collection, DOCUMENTS):
        assert acknowledged.refusal is None


async def found(client: AsyncClient, query: str, **options: object) -> list[str]:
    result = await client.search("hybrid", query, **options)  # type: ignore[arg-type]
    return [hit.document.id for hit in result.hits]


async def test_hybrid_finds_what_words_find_and_what_vectors_find(client: AsyncClient) -> None:
    await fill(client, "hybrid")
    lexical, retrieve = SearchMode.LEXICAL, SearchMode.RETRIEVE
    assert await found(client, "XKCD-4711 errors", mode=lexical) == ["minutes"]
    assert await found(client, "canine", mode=lexical) == []
    assert await found(client, "to be or not to be", mode=lexical) == [], "nothing is left of it but stop words"
    assert (await found(client, "canine", mode=retrieve, retrieval=RetrievalKind.DENSE))[0] == "dog"
    assert (await found(client, "canine", mode=retrieve))[0] == "dog"
    assert (await found(client, "boiling water", mode=retrieve))[0] == "tea"
    assert "minutes" in (await found(client, "XKCD-4711", mode=retrieve, limit=2))
    assert (await client.search("hybrid", "boiling water")).retrieval_kind is RetrievalKind.HYBRID
    assert (await client.search("hybrid", "boiling water")).hits[0].document == DOCUMENTS[0]


async def test_a_collection_of_vectors_alone_refuses_words_and_says_why(client: AsyncClient) -> None:
    await fill(client, "hybrid", without_lexical=True)
    assert (await client.search("hybrid", "boiling water")).retrieval_kind is RetrievalKind.DENSE
    with pytest.raises(FailedPrecondition) as caught:
        await client.search("hybrid", "boiling water", mode=SearchMode.LEXICAL)
    assert caught.value.reason == "NO_LEXICAL_INDEX"


async def test_words_are_taken_in_the_collections_language(client: AsyncClient) -> None:
    await fill(client, "hybrid", lexical=LexicalConfig(language="none"))
    assert await found(client, "boiling", mode=SearchMode.LEXICAL) == []
    assert await found(client, "to", mode=SearchMode.LEXICAL) == ["stop"]
    assert (await client.get_collection("hybrid")).lexical == LexicalConfig(language="none", average_words=128)
