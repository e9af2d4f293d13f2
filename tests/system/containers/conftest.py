"""The images, built once for all tests here, and a stack of containers that share a network."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.containers.engine import SERVICES, docker
from tests.system.containers.stack import Stack

BUILD_SECONDS = 1500
BUILDING = {"BASE_IMAGE": "WINNOW_BASE_IMAGE", "TORCH_INDEX": "WINNOW_TORCH_INDEX", "PIP_ARGS": "WINNOW_PIP_ARGS"}
"""Argument of the Dockerfile → the variable that sets it, as in docker-compose.yml."""


@pytest.fixture(scope="session")
def tag() -> Iterator[str]:
    """The tag of images of this run: `winnow-gateway:TAG`. They are removed at the end; the engine keeps the layers."""
    made = f"test-{uuid.uuid4().hex[:8]}"
    arguments = [
        part
        for argument, variable in BUILDING.items()
        if variable in os.environ
        for part in ("--build-arg", f"{argument}={os.environ[variable]}")
    ]
    try:
        for service in SERVICES:
            # fmt: off
            docker(
                "build", "--quiet", "--file", "deploy/Dockerfile", "--target", service, *arguments,
                "--tag", f"winnow-{service}:{made}", ".", timeout=BUILD_SECONDS,
            )
            # fmt: on
        yield made
    finally:
        docker("image", "rm", "--force", *(f"winnow-{service}:{made}" for service in SERVICES), check=False)


@pytest.fixture(scope="session")
def stack(tag: str) -> Iterator[Stack]:
    """All four services, healthy. Tests share it: one that harms a container leaves it serving again."""
    with Stack(tag) as running:
        yield running


@pytest.fixture
def stack_address(stack: Stack) -> str:
    """host:port of the gateway: what the system suite asks for, here in a container."""
    return stack.address


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test comes first waits for the images."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("docker"):
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS + 900), append=False)
