"""Four real processes for the whole session: real models, a real index, free ports, a directory of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.running import FREE_PORTS, START_SECONDS, Up, running_up


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """`winnow up`, ready. Tests share it: a test that kills a service leaves it serving again."""
    with running_up(tmp_path_factory.mktemp("up"), *FREE_PORTS) as running:
        yield running.ready()


@pytest.fixture
def stack_address(up: Up) -> str:
    """host:port of the running gateway."""
    return up.addresses["gateway"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives every test here time for a start on a busy machine, unless it sets its own bound."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(2 * START_SECONDS))
