from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contract.reranker.served import Stub, open_tiny, serving
from tests.models.tiny import build_cross_encoder
from winnow_inference.models.facts import CrossEncoderFacts
from winnow_inference.models.loading import load_cross_encoder
from winnow_inference.opening import OpenModel, open_cross_encoder
from winnow_reranker.assembly import default_model
from winnow_reranker.settings import RerankerSettings


@pytest.fixture(scope="session")
def real_model() -> OpenModel[CrossEncoderFacts]:
    """The model that ships with Winnow."""
    return open_cross_encoder(RerankerSettings(device="cpu", dtype="float32"), default=default_model, apart=False)


@pytest.fixture(scope="session")
def library() -> Any:
    """The same model as sentence-transformers computes it."""
    return load_cross_encoder(default_model(), device="cpu").module


@pytest.fixture(scope="session")
def tiny_library(tiny_model: OpenModel[CrossEncoderFacts]) -> Any:
    return load_cross_encoder(tiny_model.folder, device="cpu").module


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> OpenModel[CrossEncoderFacts]:
    folder = build_cross_encoder(tmp_path_factory.mktemp("reranker") / "m")
    return open_tiny(folder)


@pytest.fixture
async def real(real_model: OpenModel[CrossEncoderFacts]) -> AsyncIterator[Stub]:
    async with serving(real_model) as (stub, _):
        yield stub


@pytest.fixture
async def tiny(tiny_model: OpenModel[CrossEncoderFacts]) -> AsyncIterator[Stub]:
    async with serving(tiny_model) as (stub, _):
        yield stub
