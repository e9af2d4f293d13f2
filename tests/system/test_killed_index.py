from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from tests.system.running import START_SECONDS, Up, health, wait_until
from winnow_client import AsyncClient, Document, IngestOutcome
from winnow_rpc.faults import Unavailable

COUNT = 480
KILLS_AT = (60, 180, 300)
"""How many documents are acknowledged when the index is killed."""


def document(number: int) -> Document:
    return Document(
        id=f"doc/{number}", text=f"Note {number}: what was acknowledged is on disk.", metadata={"n": number}
    )


async def ids_in(client: AsyncClient, collection: str) -> set[str]:
    """What is there, as soon as the gateway has found the index again."""
    for _ in range(100):
        try:
            listed = client.list_documents(collection, page_size=1000, omit_text=True, timeout=60)
            return {each.id async for each in listed}
        except Unavailable:
            await asyncio.sleep(0.1)
    raise AssertionError("the gateway does not find the index that is back")


@pytest.mark.timeout(2 * START_SECONDS)
async def test_killing_the_index_in_the_middle_of_an_ingest_loses_no_acknowledged_document(up: Up) -> None:
    acknowledged: dict[str, IngestOutcome] = {}
    kills = list(KILLS_AT)
    restarts = 0

    async def documents() -> AsyncIterator[Document]:
        for number in range(COUNT):
            yield document(number)

    async with AsyncClient(up.addresses["gateway"]) as client:
        await client.create_collection("killed")
        async with asyncio.timeout(1.5 * START_SECONDS):
            while True:
                try:
                    async for acknowledgement in client.ingest("killed", documents()):
                        assert acknowledgement.refusal is None, acknowledgement.refusal
                        acknowledged[acknowledgement.id] = acknowledgement.outcome
                        if kills and len(acknowledged) >= kills[0]:
                            kills.pop(0)
                            position = up.position()
                            os.kill(up.pid("index"), signal.SIGKILL)
                            await asyncio.to_thread(up.wait_for, "back", after=position, child="index")
                            assert acknowledged.keys() <= await ids_in(client, "killed")
                    break
                except Unavailable:
                    # Allowed, if what is sent again is then told to be unchanged, and none is lost.
                    restarts += 1
                    assert restarts <= len(KILLS_AT), "the ingest does not go on"
        assert not kills, "the index was never killed in the middle"
        assert len(acknowledged) == COUNT
        assert await ids_in(client, "killed") == {document(number).id for number in range(COUNT)}
        for number in (0, 150, COUNT - 1):
            assert (await client.get_document("killed", f"doc/{number}")).document == document(number)
        await client.delete_collection("killed")
    # The other tests of the session find the stack as this one did.
    await asyncio.to_thread(wait_until, lambda: health(up.addresses["gateway"]) == "SERVING", seconds=30)
    assert restarts == 0, "the gateway should have waited for the index and gone on by itself"
