from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.contract.reranker.served import Stub, serving
from tests.models.tiny import build_cross_encoder
from winnow_inference.loading import LoadedCrossEncoder, load_cross_encoder
from winnow_inference.locating import ModelFolder
from winnow_reranker.assembly import load_model
from winnow_reranker.settings import RerankerSettings


@pytest.fixture(scope="session")
def real_model() -> LoadedCrossEncoder:
    """The model that ships with Winnow."""
    return load_model(RerankerSettings(device="cpu"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> LoadedCrossEncoder:
    folder = build_cross_encoder(tmp_path_factory.mktemp("reranker") / "m")
    return load_cross_encoder(ModelFolder(path=folder, id="tiny"), device="cpu")


@pytest.fixture
async def real(real_model: LoadedCrossEncoder) -> AsyncIterator[Stub]:
    async with serving(real_model) as (stub, _):
        yield stub


@pytest.fixture
async def tiny(tiny_model: LoadedCrossEncoder) -> AsyncIterator[Stub]:
    async with serving(tiny_model) as (stub, _):
        yield stub
