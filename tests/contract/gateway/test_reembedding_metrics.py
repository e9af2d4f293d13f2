"""How far re-embeddings are and how they ended, as Prometheus reads it."""

from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from tests.contract.gateway.calls import fill
from tests.contract.gateway.conftest import Gateway, serving
from tests.fakes.backends import FakeEmbedder
from winnow_gateway.metrics import ReembedMetrics
from winnow_gateway.reembedding import Reembedder
from winnow_rpc.faults import FailedPrecondition, Internal, NotFound

OLD, NEW = "f" * 64, "e" * 64


class Read:
    """The metrics of one gateway, by name without what all of them begin with."""

    def __init__(self, reembedder: Reembedder) -> None:
        self._registry = CollectorRegistry()
        reembedder.on_end = ReembedMetrics(self._registry, reembedder).ended

    def under_way(self) -> dict[str, float | None]:
        documents = {
            state: self._registry.get_sample_value("winnow_reembed_documents", {"state": state})
            for state in ("embedded", "waiting")
        }
        return {"runs": self._registry.get_sample_value("winnow_reembeddings_in_progress"), **documents}

    def ended(self) -> dict[str, float | None]:
        return {
            outcome: self._registry.get_sample_value("winnow_reembeddings_total", {"outcome": outcome})
            for outcome in ("complete", "failed", "cancelled")
        }


NOTHING = {"runs": 0, "embedded": 0, "waiting": 0}


@pytest.fixture
async def upgraded() -> AsyncIterator[Gateway]:
    """A gateway after the change of models, with a collection of 4 documents of the former one."""
    made = Gateway(embedder=FakeEmbedder(NEW, salt="new"), former_embedder=FakeEmbedder(OLD))
    async with serving(Gateway(embedder=made.former_embedder or FakeEmbedder(), index=made.index)) as before:
        await fill(before)
    async with serving(made):
        yield made


async def test_how_far_it_is_is_seen_while_it_runs_and_nothing_after(upgraded: Gateway) -> None:
    read = Read(upgraded.reembedder)
    assert read.under_way() == NOTHING
    seen = []
    async for _ in upgraded.reembedder.run("docs", keep_former=False, discard=False):
        seen.append(read.under_way())
    assert seen[0] == {"runs": 1, "embedded": 0, "waiting": 4}
    assert seen[-1] == {"runs": 1, "embedded": 4, "waiting": 0}
    assert read.under_way() == NOTHING
    assert read.ended() == {"complete": 1, "failed": 0, "cancelled": 0}


async def test_one_that_fails_and_one_that_is_cancelled_are_counted_apart(upgraded: Gateway) -> None:
    read = Read(upgraded.reembedder)
    upgraded.embedder.failures = [Internal("the device is broken")]
    with pytest.raises(Internal):
        async for _ in upgraded.reembedder.run("docs", keep_former=False, discard=False):
            pass
    assert read.ended() == {"complete": 0, "failed": 1, "cancelled": 0}
    left = upgraded.reembedder.run("docs", keep_former=False, discard=False)
    await anext(left)
    with pytest.raises(FailedPrecondition):
        await anext(upgraded.reembedder.run("docs", keep_former=False, discard=False))
    await left.aclose()
    assert read.ended() == {"complete": 0, "failed": 1, "cancelled": 1}
    assert read.under_way() == NOTHING


async def test_what_embeds_nothing_is_no_re_embedding(upgraded: Gateway) -> None:
    read = Read(upgraded.reembedder)
    with pytest.raises(NotFound):
        await anext(upgraded.reembedder.run("nowhere", keep_former=False, discard=False))
    async for _ in upgraded.reembedder.run("docs", keep_former=False, discard=True):
        assert read.under_way() == NOTHING
    assert read.ended() == {"complete": 0, "failed": 0, "cancelled": 0}
