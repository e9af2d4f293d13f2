from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.contract.embedder.served import Stub, serving
from tests.models.tiny import build_bi_encoder
from winnow_embedder.assembly import load_model
from winnow_embedder.settings import EmbedderSettings
from winnow_inference.loading import LoadedBiEncoder, load_bi_encoder
from winnow_inference.locating import ModelFolder


@pytest.fixture(scope="session")
def real_model() -> LoadedBiEncoder:
    """The model that ships with Winnow."""
    return load_model(EmbedderSettings(device="cpu"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> LoadedBiEncoder:
    folder = build_bi_encoder(tmp_path_factory.mktemp("embedder") / "m", prompts={"query": "query: "})
    return load_bi_encoder(ModelFolder(path=folder, id="tiny"), device="cpu")


@pytest.fixture
async def real(real_model: LoadedBiEncoder) -> AsyncIterator[Stub]:
    async with serving(real_model) as (stub, _):
        yield stub


@pytest.fixture
async def tiny(tiny_model: LoadedBiEncoder) -> AsyncIterator[Stub]:
    async with serving(tiny_model) as (stub, _):
        yield stub
