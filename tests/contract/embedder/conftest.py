from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contract.embedder.served import Stub, serving
from tests.models.tiny import build_bi_encoder
from winnow_embedder.settings import EmbedderSettings
from winnow_inference.models.facts import BiEncoderFacts
from winnow_inference.models.loading import load_bi_encoder
from winnow_inference.models.locating import default_bi_encoder
from winnow_inference.opening import OpenModel, open_bi_encoder


@pytest.fixture(scope="session")
def real_model() -> OpenModel[BiEncoderFacts]:
    """The model that ships with Winnow."""
    return open_bi_encoder(EmbedderSettings(device="cpu", dtype="float32"), apart=False)


@pytest.fixture(scope="session")
def library() -> Any:
    """The same model as sentence-transformers computes it."""
    return load_bi_encoder(default_bi_encoder(), device="cpu").module


@pytest.fixture(scope="session")
def tiny_library(tiny_model: OpenModel[BiEncoderFacts]) -> Any:
    return load_bi_encoder(tiny_model.folder, device="cpu").module


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> OpenModel[BiEncoderFacts]:
    folder = build_bi_encoder(tmp_path_factory.mktemp("embedder") / "m", prompts={"query": "query: "})
    return open_bi_encoder(EmbedderSettings(model=str(folder), device="cpu", engine="torch"))


@pytest.fixture
async def real(real_model: OpenModel[BiEncoderFacts]) -> AsyncIterator[Stub]:
    async with serving(real_model) as (stub, _):
        yield stub


@pytest.fixture
async def tiny(tiny_model: OpenModel[BiEncoderFacts]) -> AsyncIterator[Stub]:
    async with serving(tiny_model) as (stub, _):
        yield stub
