"""The journal of a build is bounded, and gives writes back in order."""

from __future__ import annotations

import qdrant_edge as edge

from winnow_index.changes import Operation
from winnow_index.collection import Journal


def _operation(size: int) -> Operation:
    return Operation(edge.UpdateOperation.delete_points([1]), size)


def test_writes_come_back_in_order_and_free_their_memory() -> None:
    journal = Journal(100)
    operations = [_operation(40), _operation(50)]
    for operation in operations:
        journal.append(operation)
    assert [journal.take(), journal.take()] == operations
    journal.append(_operation(90))
    assert journal.broken is None


def test_a_journal_that_outgrows_its_limit_holds_nothing_and_says_why() -> None:
    journal = Journal(100)
    for _ in range(3):
        journal.append(_operation(40))
    assert journal.broken is not None
    assert "100 bytes" in journal.broken
    assert not journal.operations
    journal.append(_operation(1))
    assert not journal.operations
