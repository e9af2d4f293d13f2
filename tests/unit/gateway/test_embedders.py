"""Two embedders: each text goes to the one that serves the model asked for."""

import pytest

from tests.fakes.backends import FakeEmbedder
from winnow_gateway.embedders import Embedders
from winnow_rpc.faults import FailedPrecondition, Unavailable

NEW, OLD = "a" * 64, "b" * 64


@pytest.fixture
def pair() -> tuple[FakeEmbedder, FakeEmbedder]:
    return FakeEmbedder(NEW), FakeEmbedder(OLD)


async def test_each_model_is_found(pair: tuple[FakeEmbedder, FakeEmbedder]) -> None:
    embedders = Embedders(*pair)
    assert (await embedders.model()).fingerprint == NEW
    for fingerprint in (NEW, OLD):
        assert (await embedders.embed_query("x", fingerprint=fingerprint)).model_fingerprint == fingerprint
        assert (await embedders.embed_passages(["x"], fingerprint=fingerprint)).model_fingerprint == fingerprint
        assert (await embedders.model(fingerprint=fingerprint)).fingerprint == fingerprint
    assert [embedders.backend(fingerprint) for fingerprint in (NEW, OLD)] == ["embedder", "former_embedder"]


async def test_a_model_that_neither_serves_is_refused_and_named_by_the_current(
    pair: tuple[FakeEmbedder, FakeEmbedder],
) -> None:
    embedders = Embedders(*pair)
    with pytest.raises(FailedPrecondition):
        await embedders.embed_query("x", fingerprint="c" * 64)
    assert (await embedders.model(fingerprint="c" * 64)).fingerprint == NEW


@pytest.mark.parametrize("away", [0, 1])
async def test_one_that_is_away_does_not_stop_the_other(pair: tuple[FakeEmbedder, FakeEmbedder], away: int) -> None:
    embedders = Embedders(*pair)
    pair[away].away = Unavailable("away")
    other = (NEW, OLD)[1 - away]
    assert (await embedders.embed_query("x", fingerprint=other)).model_fingerprint == other


async def test_one_that_went_away_is_not_taken_for_another_model(pair: tuple[FakeEmbedder, FakeEmbedder]) -> None:
    embedders = Embedders(*pair)
    await embedders.embed_query("x", fingerprint=OLD)
    pair[1].away = Unavailable("away")
    with pytest.raises(Unavailable):
        await embedders.embed_query("x", fingerprint=OLD)
    assert embedders.backend(OLD) == "former_embedder"


async def test_one_that_has_been_away_from_the_start_is_not_either(pair: tuple[FakeEmbedder, FakeEmbedder]) -> None:
    embedders = Embedders(*pair)
    pair[1].away = Unavailable("away")
    for _ in range(2):
        with pytest.raises(Unavailable):
            await embedders.embed_query("x", fingerprint=OLD)
        with pytest.raises(Unavailable):
            await embedders.model(fingerprint=OLD)
        # It is its own breaker that this counts for.
        assert embedders.backend(OLD) == "former_embedder"
    pair[1].away = None
    assert (await embedders.embed_query("x", fingerprint=OLD)).model_fingerprint == OLD


async def test_models_that_change_places_are_found_again(pair: tuple[FakeEmbedder, FakeEmbedder]) -> None:
    embedders = Embedders(*pair)
    await embedders.embed_query("x", fingerprint=OLD)
    pair[0].served, pair[1].served = pair[1].served, pair[0].served
    for fingerprint in (OLD, NEW):
        assert (await embedders.embed_query("x", fingerprint=fingerprint)).model_fingerprint == fingerprint


async def test_a_single_embedder_refuses_for_itself(pair: tuple[FakeEmbedder, FakeEmbedder]) -> None:
    embedders = Embedders(pair[0])
    assert list(embedders.backends) == ["embedder"]
    with pytest.raises(FailedPrecondition):
        await embedders.embed_query("x", fingerprint=OLD)
