"""The services over a real Qdrant server, where its image is there or can be fetched."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
import yaml
from testcontainers.core.container import DockerContainer

from tests.system.containers.engine import ROOT, docker, why_no_engine
from tests.system.containers.stack import CONFINED, Stack
from tests.system.test_hybrid import (
    client,
    test_a_collection_of_vectors_alone_refuses_words_and_says_why,
    test_hybrid_finds_what_words_find_and_what_vectors_find,
    test_words_are_taken_in_the_collections_language,
)

__all__ = [
    "client",
    "test_a_collection_of_vectors_alone_refuses_words_and_says_why",
    "test_hybrid_finds_what_words_find_and_what_vectors_find",
    "test_words_are_taken_in_the_collections_language",
]

QDRANT = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["qdrant"]

pytestmark = [pytest.mark.docker, pytest.mark.skipif(why_no_engine() != "", reason=why_no_engine())]


@cache
def _why_no_qdrant() -> str:
    image = QDRANT["image"]
    if docker("image", "ls", "--quiet", image):
        return ""
    said = docker("pull", image, timeout=300, check=False)
    return "" if docker("image", "ls", "--quiet", image) else f"no registry gives {image}: {said.splitlines()[-1]}"


@pytest.fixture(scope="module")
def qdrant_stack(tag: str) -> Iterator[Stack]:
    if why := _why_no_qdrant():
        pytest.skip(why)
    qdrant = DockerContainer(QDRANT["image"], env=QDRANT["environment"], **CONFINED).with_tmpfs_mount("/tmp")
    with Stack(tag, index=qdrant) as running:
        yield running


@pytest.fixture
def stack_address(qdrant_stack: Stack) -> str:
    return qdrant_stack.address
